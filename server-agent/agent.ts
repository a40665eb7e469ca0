// The agent: one host of Nearcast. Registers it and its members with a core, keeps the lease by
// heartbeats, reports health and load, carries out the core's orders, and says goodbye.
//
// One loop does all the talking: find a core, join, then heartbeats, to one core at a time; after two failures in a
// row, or when the core asks it to move, it finds another. Invariant: nothing a core says or fails to say ends the
// loop; only stop() does. What makes no sense at the first join (a wrong token, a service that does not exist)
// makes start() fail instead.

import { EventEmitter } from 'node:events'
import { hostname } from 'node:os'
import { AgentError, isRefusal, reasonOf } from './agent-error.ts'
import type { AgentEvents, Joined } from './agent-events.ts'
import {
  type AskOptions,
  ask,
  type Bootstrap,
  BootstrapShape,
  type GatewayList,
  GatewayListShape,
  type MemberList,
  MemberListShape,
} from './answers.ts'
import { backoffMs, isFinal } from './core-client.ts'
import { pause } from './deadline.ts'
import { MemberWatch } from './member-watch.ts'
import {
  type AgentOptions,
  type MemberOptions,
  type ResolvedMember,
  type ResolvedOptions,
  resolveMember,
  resolveOptions,
} from './options.ts'
import { openPassiveWatch, type PassiveWatch } from './passive-watch.ts'
import { Prober, type ProberStats } from './prober.ts'
import { type EchoSocket, type EchoStats, openEcho } from './protocol/echo-socket.ts'
import type { MemberReply, Order, OrderResult } from './protocol/messages.ts'
import { PulseSender } from './pulse-sender.ts'
import { type BeatReply, changesOf, tcpPortOf, type WatchedMember } from './requests.ts'
import { Session, type Taken } from './session.ts'

export { AgentError, type AgentErrorCode } from './agent-error.ts'
export type { AgentEvents, Joined } from './agent-events.ts'
export type { AskOptions, Bootstrap, Gateway, GatewayList, MemberList, NearMember } from './answers.ts'
export type { AgentOptions, MemberOptions } from './options.ts'

/** Between tries to register members that a core refused while the agent runs. */
const MEMBER_RETRY_MS = 15_000
/** No heartbeats faster or slower than this, whatever a core asks for: the longest lease is 300 s. */
const MIN_HEARTBEAT_MS = 100
const MAX_HEARTBEAT_MS = 150_000
/**
 * The first try of a heartbeat by HTTP takes half the time between two at most, the second all of it, and neither
 * more than this, ms: so a home that hangs is left, and another found, within one lease.
 */
const MAX_BEAT_MS = 2000
const MIN_BEAT_MS = 500
/** Which cores there are is asked before a join, again a minute after the first, when this host is placed, ms ... */
const FIRST_LOOK_MS = 60_000
/** ... and from then on now and then: cores come and go rarely. */
const LOOK_MS = 300_000
const LOOK_TIMEOUT_MS = 1000
/** As many results as one heartbeat may carry, and how many are kept while no core answers. */
const RESULTS_PER_BEAT = 256
const MAX_RESULTS = 1024

export class Agent extends EventEmitter<AgentEvents> {
  readonly name: string
  /** What the last join told, kept up to date; null before it. */
  joined: Joined | null = null
  readonly #options: ResolvedOptions
  readonly #session: Session
  /** By SERVICE/NAME. */
  readonly #members = new Map<string, WatchedMember>()
  /** By the same: those that are none any more, while a core may still take them for members. */
  readonly #left = new Map<string, ResolvedMember>()
  /** Of orders, not yet told to a core. */
  readonly #results: OrderResult[] = []
  readonly #stopping = new AbortController()
  readonly #pulses: PulseSender
  #echo: EchoSocket | null = null
  #prober: Prober | null = null
  #passive: PassiveWatch | null = null
  /** The current core knows this host. */
  #registered = false
  /** It asked this host to find another. */
  #mayMove = false
  /** When to ask again which cores there are. */
  #lookDueMs = 0
  #startedMs = 0
  /** What a core refused of the first join, while others are asked. */
  #refusal: AgentError | null = null
  #heartbeatMs = MIN_HEARTBEAT_MS
  #membersTriedMs = 0
  /** Ends the wait for the next heartbeat. */
  #hurry = new AbortController()
  #loop: Promise<void> | null = null
  #stopped: Promise<void> | null = null

  /** Throws AgentError `bad-option`, which names key, value and expectation. */
  constructor(options: AgentOptions) {
    super()
    this.#options = resolveOptions(options, hostname())
    this.name = this.#options.name
    this.#session = new Session(this.#options)
    this.#pulses = new PulseSender(this.name)
    for (const member of this.#options.members) this.#watch(member)
  }

  /** The UDP port where the echo listens; null before start(). */
  get echoPort(): number | null {
    return this.#echo?.port ?? null
  }

  /** What came of echoes and orders so far; null before start(). */
  get stats(): { readonly echo: EchoStats; readonly orders: ProberStats } | null {
    if (this.#echo === null || this.#prober === null) return null
    return { echo: this.#echo.stats, orders: this.#prober.stats }
  }

  /**
   * Joins; resolves when the host and its members are registered, however long it takes to find a core.
   * Rejects with AgentError `refused` where a core says no, `bad-option` where the echo can't listen,
   * `stopped` where stop() comes first; nothing is left running then. Once only.
   */
  async start(): Promise<Joined> {
    if (this.#loop !== null || this.#stopped !== null) throw new Error('an Agent starts once')
    try {
      return await new Promise<Joined>((resolve, reject) => {
        this.#loop = this.#run(resolve, reject)
      })
    } catch (error) {
      await this.stop()
      throw error
    }
  }

  /** Leaves: when this resolves, the members are gone from answers (or no core could be told, within 5 s). */
  stop(): Promise<void> {
    this.#stopped ??= this.#end()
    return this.#stopped
  }

  /**
   * Takes part in one more service. Resolves with what the core says of it; with null where no core
   * knows this host now: the next join brings the member along. Rejects with AgentError, and is no
   * member then.
   */
  async join(service: string, member: Omit<MemberOptions, 'service'> = {}): Promise<MemberReply | null> {
    const watched = this.#watch(resolveMember({ ...member, service }, this.name))
    if (this.#loop === null) return null
    await watched.watch.start()
    if (!this.#registered) return null
    try {
      return await this.#session.putMember(watched)
    } catch (error) {
      // Without an answer the core may have taken it.
      if (!isRefusal(error)) this.#left.set(fullName(watched.member), watched.member)
      await this.#forget(watched)
      throw error
    }
  }

  /**
   * Leaves one service; resolves when the core knows. Where no core can be told now, the next that hears from
   * this host is: then this resolves at once, or rejects with AgentError `unreachable`.
   */
  async leave(service: string, name: string = this.name): Promise<void> {
    const watched = this.#find(service, name)
    if (this.#loop !== null) this.#left.set(fullName(watched.member), watched.member)
    await this.#forget(watched)
    if (this.#registered) await this.#tellLeft()
  }

  /** Takes a member out of answers, or back in, while it stays registered. */
  drain(service: string, drained = true, name: string = this.name): Promise<void> {
    return this.#session.drainMember(this.#find(service, name).member, drained)
  }

  /** The best members for this host: what a client here would get. */
  nearest(service: string, options: AskOptions = {}): Promise<MemberList> {
    return this.#session.call(ask(service, 'nearest', options, MemberListShape))
  }

  /** Many near members, or those in a ring of distances; never this host. */
  neighbors(service: string, options: AskOptions = {}): Promise<MemberList> {
    return this.#session.call(ask(service, 'neighbors', options, MemberListShape))
  }

  /** Random live members. */
  random(service: string, options: AskOptions = {}): Promise<MemberList> {
    return this.#session.call(ask(service, 'random', options, MemberListShape))
  }

  /** Near and random members at once. */
  bootstrap(service: string, options: AskOptions = {}): Promise<Bootstrap> {
    return this.#session.call(ask(service, 'bootstrap', options, BootstrapShape))
  }

  /** Near members of `service` whose host takes part in the service `to` as well: where two overlays meet. */
  gateways(service: string, to: string, options: AskOptions = {}): Promise<GatewayList> {
    return this.#session.call(ask(service, 'gateways', options, GatewayListShape, to))
  }

  /** The loop. Ends when stop() is called, or after telling `refuse` why the first join can't be. */
  async #run(accept: (joined: Joined) => void, refuse: (error: unknown) => void): Promise<void> {
    const { signal } = this.#stopping
    this.#startedMs = performance.now()
    let failures = 0
    try {
      await this.#open()
      while (!signal.aborted) {
        try {
          if (this.#registered) {
            await this.#beat(failures)
            // Not after a join: a core that takes joins and refuses heartbeats must not be hurried.
            failures = 0
            await this.#lookAround()
          } else {
            accept(await this.#joinAt(await this.#session.findCore(null, signal)))
          }
          if (this.#registered) await this.#untilNextBeat()
        } catch (error) {
          if (signal.aborted) break
          if (this.#hasAnother(error, failures)) continue
          await pause(backoffMs(++failures, this.#options.random), signal)
        }
      }
      refuse(new AgentError('stopped', 'stopped before it had joined'))
    } catch (error) {
      refuse(error)
    }
  }

  /** Opens the echo, and waits for the first try of every check: no member is announced before it is known. */
  async #open(): Promise<void> {
    await this.#session.open()
    this.#echo = await this.#openEcho()
    this.#prober = new Prober({
      echo: this.#echo,
      perMinute: this.#options.maxProbesPerMinute,
      report: (result, order) => this.#report(result, order),
    })
    await Promise.all([...this.#members.values()].map(({ watch }) => watch.start()))
  }

  #openPassive(): PassiveWatch {
    if (this.#ports().length === 0) {
      this.emit('warning', 'passive: no member has a port or a URL, so no connections can be looked at')
    }
    return openPassiveWatch({
      ports: () => this.#ports(),
      tell: (rtts) => this.#session.measure([...rtts]),
      warn: (text) => this.emit('warning', text),
    })
  }

  #ports(): number[] {
    const ports = [...this.#members.values()].map(({ member }) => tcpPortOf(member))
    return [...new Set(ports.filter((port) => port !== undefined))]
  }

  async #openEcho(): Promise<EchoSocket> {
    const { echo, echoGiven } = this.#options
    const key = (): Uint8Array | null => this.#session.echoKey
    try {
      return await openEcho({ ...echo, key })
    } catch (error) {
      const busy = (error as NodeJS.ErrnoException).code === 'EADDRINUSE'
      if (busy && !echoGiven) return openEcho({ host: echo.host, port: 0, key })
      const where = `${echo.host} port ${echo.port} (UDP)`
      throw new AgentError('bad-option', `echo: can't listen on ${where}: ${reasonOf(error)}`, {
        key: 'echo',
        cause: error,
      })
    }
  }

  /** Makes the core at `url` the home. */
  async #joinAt(url: string): Promise<Joined> {
    try {
      return await this.#settle(await this.#putHostAt(url))
    } catch (error) {
      this.#session.cores.fail(url, performance.now())
      throw error
    }
  }

  /** Until the core at `url` has taken the host, all stays with the one before. */
  async #putHostAt(url: string): Promise<Taken> {
    const { cores } = this.#session
    const before = cores.current
    cores.current = url
    try {
      const members = [...this.#members.values()]
      return await this.#session.putHost(this.#echo!, members, (text) => this.emit('warning', text))
    } catch (error) {
      cores.current = before
      throw error
    }
  }

  /** The current core has taken the host: its members follow. */
  async #settle({ addresses, reply }: Taken): Promise<Joined> {
    const { cores } = this.#session
    const { core: home, publicAddress, publicPort, reachable } = reply
    this.#registered = false
    this.#hurry = new AbortController()
    cores.settle(home, performance.now())
    if (home !== this.joined?.home) this.#pulses.turn()
    // Whose addresses were not proven yet, since the echo's key came with this very reply, asks once more: that
    // waits for the proof.
    const joined = (reply.members ?? []).filter(({ state }) => state !== 'unverified')
    const others = [...this.#members.values()].filter(
      ({ member }) => !joined.some((it) => it.service === member.service && it.member === member.name),
    )
    const members = [...joined, ...(await this.#putMembers(others))]
    this.#heartbeatMs = Math.min(Math.max(MIN_HEARTBEAT_MS, reply.heartbeatSec * 1000), MAX_HEARTBEAT_MS)
    this.#registered = true
    this.#mayMove = false
    if (this.joined === null) this.#lookDueMs = performance.now() + FIRST_LOOK_MS
    this.joined = {
      core: cores.current,
      home,
      host: this.name,
      addresses,
      publicAddress,
      publicPort,
      reachable,
      members,
    }
    this.emit('joined', this.joined)
    if (this.#options.passive === 'ss') this.#passive ??= this.#openPassive()
    return this.joined
  }

  /** After a heartbeat that went well: whether another core would be the better home. */
  async #lookAround(): Promise<void> {
    const { cores } = this.#session
    try {
      if (this.#mayMove) {
        if (cores.candidates(performance.now()).length === 1) return
        await this.#joinAt(await this.#session.findCore(cores.current, this.#stopping.signal))
        return
      }
      if (performance.now() < this.#lookDueMs) return
      this.#lookDueMs = performance.now() + LOOK_MS * (0.75 + 0.5 * this.#options.random())
      await this.#session.askForCores(LOOK_TIMEOUT_MS)
      const nearer = cores.look(performance.now())
      if (nearer !== null) await this.#joinAt(nearer)
    } catch (error) {
      // The lease goes on where it was, as long as nobody else took the host.
      if (!this.#registered) throw error
    }
  }

  /** Registers members. One that a core refuses later than at the first join takes no other out. */
  async #putMembers(members: readonly WatchedMember[]): Promise<MemberReply[]> {
    this.#membersTriedMs = performance.now()
    const replies: MemberReply[] = []
    for (const watched of members) {
      watched.told = null
      try {
        replies.push(await this.#session.putMember(watched))
      } catch (error) {
        if (!isRefusal(error) || this.joined === null) throw error
        this.emit('warning', `${fullName(watched.member)}: ${error.message}`)
      }
    }
    return replies
  }

  /** `failures`: tries before this one, since the last that went well. */
  async #beat(failures: number): Promise<void> {
    this.#hurry = new AbortController()
    await this.#tellLeft()
    const unknown = [...this.#members.values()].filter(({ told }) => told === null)
    if (performance.now() - this.#membersTriedMs > MEMBER_RETRY_MS) await this.#putMembers(unknown)
    const members = changesOf(this.#members.values())
    if (members.length === 0 && failures === 0 && (await this.#pulse())) {
      this.#mayMove = false
      return
    }
    const timeoutMs = this.#heartbeatMs / (failures === 0 ? 2 : 1)
    const results = this.#results.splice(0, RESULTS_PER_BEAT)
    let reply: BeatReply
    try {
      reply = await this.#session.beat(
        { members, results },
        Math.min(Math.max(MIN_BEAT_MS, timeoutMs), MAX_BEAT_MS),
        this.#stopping.signal,
      )
    } catch (error) {
      this.#results.unshift(...results)
      throw error
    }
    if (reply.status === 'unknown') {
      this.#registered = false
      await this.#joinAt(this.#session.cores.current)
      return
    }
    for (const { service, name, ...news } of members) {
      const watched = this.#members.get(`${service}/${name}`)
      if (watched?.told) watched.told = { ...watched.told, ...news }
    }
    this.#mayMove = reply.moving === true
    this.#noteReachable(reply.reachable)
    this.#prober!.accept(reply.orders)
  }

  /** Says "as before" by a packet, where that is all there is to say. False: it must be said by HTTP. */
  async #pulse(): Promise<boolean> {
    const { pulseAddress, echoKey } = this.#session
    if (pulseAddress === null || echoKey === null || this.#results.length > 0) return false
    return this.#pulses.isReady && this.#pulses.beat(pulseAddress, echoKey, this.#heartbeatMs)
  }

  #noteReachable(reachable: boolean | null | undefined): void {
    if (reachable === undefined || this.joined === null || reachable === this.joined.reachable) return
    this.joined = { ...this.joined, reachable }
    if (reachable !== false) return
    const what = `the echo on UDP port ${this.echoPort} is not reachable from outside`
    this.emit('warning', `${what}: open that port, or say by echoAdvertise where it is`)
  }

  /**
   * Whether another core may be tried at once. The first heartbeat that fails may be a lost packet; the second in a
   * row is a lost core.
   */
  #hasAnother(error: unknown, failures: number): boolean {
    const { cores } = this.#session
    const refused = isRefusal(error)
    if (this.#registered && !refused && failures === 0) return false
    if (this.#registered && !refused) {
      this.emit('lost', { core: cores.current, reason: reasonOf(error) })
      cores.fail(cores.current, performance.now())
    } else if (failures <= 2 || failures % 10 === 0) {
      this.emit('warning', `${reasonOf(error)}; trying again`)
    }
    if (refused) this.#refusal = error
    // A core that refuses a heartbeat may still take a join.
    const hasAnother = !(this.#registered && refused) && this.#hasUntried()
    this.#registered = false
    if (hasAnother) return true
    const waitedMs = performance.now() - this.#startedMs
    if (this.joined === null && isFinal(this.#refusal, waitedMs, this.#options.leaseSec)) throw this.#refusal
    this.#refusal = null
    return false
  }

  #hasUntried(): boolean {
    const { cores } = this.#session
    const nowMs = performance.now()
    return cores.candidates(nowMs).some((url) => !cores.hasFailed(url, nowMs))
  }

  async #untilNextBeat(): Promise<void> {
    const hurry = this.#hurry
    const stop = (): void => hurry.abort()
    this.#stopping.signal.addEventListener('abort', stop)
    if (this.#results.length >= RESULTS_PER_BEAT) stop()
    await pause(this.#heartbeatMs, hurry.signal)
    this.#stopping.signal.removeEventListener('abort', stop)
  }

  #report(result: OrderResult, order: Order): void {
    this.#results.push(result)
    if (this.#results.length > MAX_RESULTS) this.#results.shift()
    this.emit('order', {
      kind: order.kind,
      target: order.kind === 'check' ? order.check : order.address,
      result,
    })
    // On a second opinion hangs a member's life; on a client's RTT, who is asked next about that client.
    if (order.kind === 'client' || (order.kind === 'echo' && order.urgent)) this.#hurry.abort()
  }

  #watch(member: ResolvedMember): WatchedMember {
    const { service, name, check, load } = member
    const full = fullName(member)
    if (this.#members.has(full)) {
      throw new AgentError('bad-option', `members: ${full} is there twice; expected one of each`, {
        key: 'members',
      })
    }
    const watch = new MemberWatch({
      check,
      load,
      pace: this.#options.pace,
      onHealth: (health, detail) => {
        this.emit('health', { service, member: name, health, detail })
        this.#hurry.abort()
      },
      onLoadError: (reason) => this.emit('warning', `the load of ${full} is not known: ${reason}`),
    })
    const watched: WatchedMember = { member, watch, told: null }
    this.#members.set(full, watched)
    return watched
  }

  async #forget({ member, watch }: WatchedMember): Promise<void> {
    this.#members.delete(fullName(member))
    await watch.stop()
  }

  /** Takes out who left. A join does not: members that it does not name stay as they are. */
  async #tellLeft(): Promise<void> {
    for (const [full, member] of this.#left) {
      // Refused: the core knows no such member of this host, which is what was wanted.
      if (!this.#members.has(full)) await this.#session.removeMember(member).catch(unlessRefused)
      this.#left.delete(full)
    }
  }

  #find(service: string, name: string): WatchedMember {
    const watched = this.#members.get(`${service}/${name}`)
    if (watched === undefined)
      throw new AgentError('bad-option', `this agent has no member ${service}/${name}`)
    return watched
  }

  /** What stop() does: ends the loop and all probes and checks, says goodbye, and closes the echo last. */
  async #end(): Promise<void> {
    this.#stopping.abort(new Error('stopped'))
    this.#pulses.close()
    await Promise.all([...this.#members.values()].map(({ watch }) => watch.stop()))
    // A join under way is let finish: it must not reach the core after the goodbye.
    await this.#loop
    await this.#prober?.stop()
    await this.#passive?.close()
    if (!(await this.#session.goodbye())) {
      this.emit('warning', 'no core could be told; the members stay in answers until the lease ends')
    }
    await this.#echo?.close()
  }
}

function fullName({ service, name }: ResolvedMember): string {
  return `${service}/${name}`
}

function unlessRefused(error: unknown): void {
  if (!isRefusal(error)) throw error
}
