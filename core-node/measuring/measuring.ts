// Measuring: what hosts are asked to find out, and what becomes of their answers.
//
// The shell around the pure planner, coordinates and localities: it keeps their state, turns plans into
// orders, and folds results into records that the core publishes. The core itself is a host too and
// carries its orders out by its own prober. Nothing is believed that was not ordered, apart from what
// hosts and clients saw by themselves (samples), whose weight is capped.

import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  type Address,
  formatAddress,
  formatPrefix,
  isInAny,
  localityPrefix,
  type Prefix,
  parseAddress,
  specialKind,
} from '../../resolver/address.ts'
import type { Change, Directory, Health, Host, Member } from '../../resolver/directory.ts'
import type { Tables } from '../../resolver/tables.ts'
import { Prober } from '../../server-agent/prober.ts'
import { newProber, proberKey } from '../../server-agent/protocol/echo.ts'
import type { EchoSocket } from '../../server-agent/protocol/echo-socket.ts'
import {
  type ClientOrder,
  type EchoOrder,
  MAX_RTT_MS,
  type Order,
  type OrderResult,
} from '../../server-agent/protocol/messages.ts'
import { TokenBuckets } from '../../server-agent/protocol/token-bucket.ts'
import type { Counters } from '../counters.ts'
import type { Telling } from '../registry/telling.ts'
import type { Config } from '../settings/config.ts'
import { Checkers } from './checkers.ts'
import { CheckBoard } from './checks.ts'
import { Demand } from './demand.ts'
import { EchoPlanner } from './echo-planner.ts'
import { Localities, type Report, settleIncumbents } from './localities.ts'
import { HostMesh } from './mesh.ts'
import { OrderBook, type Purpose } from './orders.ts'
import { ProbePlanner } from './planner.ts'

export interface MeasuringOptions {
  /** This core's name: it is a host as well. */
  readonly self: string
  readonly config: Config
  readonly directory: Readonly<Directory>
  readonly tables: Tables
  readonly counters: Counters
  readonly echo: EchoSocket
  /** No other core shares the directory. */
  readonly isAlone: boolean
  /** Whether this core is a host's home, so that it carries out its orders. */
  readonly isOwn: (host: Host) => boolean
  readonly telling: Telling
  /** A result of this core's own orders, on its way back in. */
  readonly onOwnResult: (result: OrderResult) => void
  /** An opinion that was asked for. */
  readonly onOpinion: (host: string, asker: string, reached: boolean) => void
  readonly rng: () => number
  /** The monotonic clock. */
  readonly nowMs: number
}

/** An RTT that nobody ordered: `client` saw, or was seen from, `host`. */
export interface Sample {
  readonly client: Address | null
  readonly host: string | null
  readonly rttMs: number
  readonly count: number
  readonly kind: 'passive' | 'client'
}

/** What came of results: `measured` may be stored later, `health` is decided and to be kept. */
export interface Heard {
  readonly measured: readonly Change[]
  readonly health: readonly { readonly member: string; readonly health: Health }[]
}

/** Echoes of a second opinion: one that comes through is enough. */
const OPINION_ECHOES = 3
/** A member without agent is checked by each of its checkers this often, ms. */
const CHECK_EVERY_MS = 2_000
/** Clients of which that is remembered: a few MB. */
const MAX_METHODS_KNOWN = 50_000
/** Who let a check lapse is not asked again for so long, ms: orders are voluntary. */
const LAPSE_MS = 60_000
/** Samples that one report of many stands for. */
const SAMPLES_OF_A_REPORT = 8
/** Client prefixes that one host may bring up unasked: what a busy server meets, not an address plan. */
const UNASKED_PREFIXES = { perSec: 1, burst: 1000, maxKeys: 10_000 }
/** ... and has so long to answer, ms. */
const CHECK_TIMEOUT_MS = 1_500
/** Probes are planned this often, ms: twice a heartbeat. Echoes with each tick, a few at a time. */
const PLAN_EVERY_MS = 1_000
/** Probes of one order to a client: the second and third find out what a queue added. */
const PROBE_COUNT = 3
/** The core's own probes a minute: it gives second opinions on all of its hosts. */
const OWN_PROBES_PER_MINUTE = 60_000

export class Measuring {
  readonly #self: string
  readonly #directory: Readonly<Directory>
  readonly #tables: Tables
  readonly #counters: Counters
  readonly #echo: EchoSocket
  readonly #rng: () => number
  readonly #onOpinion: (host: string, asker: string, reached: boolean) => void
  readonly #prober: Prober
  readonly #book = new OrderBook()
  readonly #checks = new CheckBoard()
  readonly #isAlone: boolean
  readonly #isOwn: (host: Host) => boolean
  readonly #mesh: HostMesh
  readonly #echoes: EchoPlanner
  readonly #checkers: Checkers
  /** Keys of the members without agent. */
  readonly #checked = new Set<string>()
  readonly #probes: ProbePlanner | null
  readonly #probeMethods: ClientOrder['methods']
  readonly #privateRanges: readonly Prefix[]
  readonly #demand = new Demand()
  readonly #localities: Localities
  /** Client address -> the method of probing that it answers. */
  readonly #answersTo = new Map<string, string>()
  /** When a host last let a check lapse. */
  readonly #lapsedMs = new Map<string, number>()
  readonly #unasked = new TokenBuckets(UNASKED_PREFIXES)
  #checksDueMs = 0
  #plansDueMs = 0

  constructor(options: MeasuringOptions) {
    this.#self = options.self
    this.#directory = options.directory
    this.#tables = options.tables
    this.#counters = options.counters
    this.#echo = options.echo
    this.#rng = options.rng
    this.#isAlone = options.isAlone
    this.#isOwn = options.isOwn
    this.#mesh = new HostMesh(options.telling)
    this.#onOpinion = options.onOpinion
    const { config } = options
    this.#probes = config.probeClients
      ? new ProbePlanner(
          { ...config, optOut: config.probeOptOut, allowPrivate: config.probePrivate },
          (name) => this.#isOwnHost(name),
        )
      : null
    this.#privateRanges = config.probePrivate
    this.#probeMethods = [
      { kind: 'dns', port: config.probeDnsPort },
      { kind: 'tcp', port: config.probeTcpPort },
      { kind: 'icmp' },
    ]
    this.#echoes = new EchoPlanner(options.self)
    this.#checkers = new Checkers(this.#tables)
    const { hosts, members, localities } = options.directory
    this.#localities = new Localities(localities)
    for (const [name, host] of hosts) this.#followHost(name, host, options.nowMs)
    for (const [key, member] of members) this.#followMember(key, member)
    this.#prober = new Prober({
      echo: options.echo,
      perMinute: OWN_PROBES_PER_MINUTE,
      report: (result) => options.onOwnResult(result),
    })
  }

  /** Records changed: who is planned for is kept up, and what is kept about those that went is forgotten. */
  apply(changes: readonly Change[], nowMs: number): void {
    for (const change of changes) {
      if (change.kind === 'hosts') this.#followHost(change.key, change.value, nowMs)
      else if (change.kind === 'members') this.#followMember(change.key, change.value)
      else if (change.kind === 'localities' && !this.#isAlone)
        this.#localities.hear(change.key, change.value, (name) => this.#isOwnHost(name))
    }
  }

  #isOwnHost(name: string): boolean {
    const host = this.#directory.hosts.get(name)
    return host !== undefined && this.#isOwn(host)
  }

  #followHost(name: string, host: Host | null, nowMs: number): void {
    this.#echoes.follow(name, host, nowMs)
    const isOwn = host !== null && this.#isOwn(host)
    this.#checkers.follow(name, isOwn ? host : null)
    if (!isOwn) this.#mesh.release(name)
    if (host !== null) return
    this.#lapsedMs.delete(name)
    this.#mesh.forget(name)
    this.#localities.forgetHost(name)
  }

  #followMember(key: string, member: Member | null): void {
    if (member !== null && member.check !== null && !member.left) this.#checked.add(key)
    else this.#checked.delete(key)
    if (member !== null) return
    this.#checks.forget(key)
    this.#checkers.forget(key)
  }

  /** Whether anything waits for a host. */
  hasOrders(host: string): boolean {
    return this.#book.has(host)
  }

  /** What waits for a host: rides on the reply to its heartbeat. */
  ordersFor(host: string): Order[] {
    return this.#book.take(host)
  }

  /** Has `askers` echo `host`, at once. */
  askOpinions(host: string, askers: readonly string[], nowMs: number, epochMs: number): void {
    for (const asker of askers)
      this.#giveEcho(
        asker,
        host,
        { urgent: true, count: OPINION_ECHOES },
        { kind: 'opinion', host },
        nowMs,
        epochMs,
      )
  }

  /** Whether `host`'s echo answers at an address and port, tried by this core itself. */
  async reach(
    host: Host,
    at: { address: string; port: number },
    timeoutMs: number,
    epochMs: number,
  ): Promise<boolean> {
    const echo = (waitMs: number) =>
      this.#echo.ping({ ...at, ...passFor(host, epochMs), count: 1, timeoutMs: waitMs })
    const first = echo(timeoutMs)
    const soon = await Promise.race([first, sleep(timeoutMs / 2, undefined, { ref: false })])
    if (soon !== undefined && soon.rttsMs.length > 0) return true
    // Lost, or far away: one more, while the first may still be answered.
    const both = await Promise.all([first, echo(timeoutMs / 2)])
    return both.some(({ rttsMs }) => rttsMs.length > 0)
  }

  /** What a host found out by its orders. Answers to orders that it was not given are counted and dropped. */
  hearResults(host: string, results: readonly OrderResult[], nowMs: number, epochMs: number): Heard {
    const measured: Change[] = []
    const health: Heard['health'][number][] = []
    for (const result of results) {
      const purpose = this.#book.claim(host, result.id, nowMs)
      const rttsMs = result.rttsMs.filter((rttMs) => rttMs >= 0 && rttMs <= MAX_RTT_MS)
      if (purpose === null || rttsMs.length < result.rttsMs.length) {
        this.#counters.add(purpose === null ? 'results.unasked' : 'results.absurd')
        if (purpose === null) continue
      }
      this.#counters.add(`results.${purpose.kind}`)
      if (purpose.kind === 'opinion') {
        if (result.sent > 0) this.#onOpinion(purpose.host, host, rttsMs.length > 0)
      } else if (purpose.kind === 'mesh') measured.push(...this.#hearEcho(host, purpose.to, rttsMs))
      else if (purpose.kind === 'client')
        this.#hearProbe(host, purpose.address, { ...result, rttsMs }, nowMs, epochMs)
      else if (purpose.kind === 'check') {
        if (result.ok !== undefined) {
          measured.push(...this.#hearCheck(purpose.member, host, result.ok ? rttsMs : []))
          health.push({
            member: purpose.member,
            health: this.#checks.report(purpose.member, host, result.ok, nowMs),
          })
        }
      }
    }
    return { measured, health }
  }

  /** RTTs that nobody ordered: those that make sense and say something new are taken in. */
  hearSamples(
    samples: readonly Sample[],
    nowMs: number,
    epochMs: number,
  ): { changes: Change[]; accepted: number } {
    let accepted = 0
    for (const sample of samples) if (this.#hearSample(sample, nowMs, epochMs)) accepted++
    return { changes: this.#localities.publish(epochMs), accepted }
  }

  /** Only of addresses that may be probed too; a prefix that nobody asked from is taken in only so often. */
  #hearSample({ client, host, rttMs, count, kind }: Sample, nowMs: number, epochMs: number): boolean {
    if (client === null || host === null || !this.#directory.hosts.has(host)) return false
    if (specialKind(client) !== null && !isInAny(this.#privateRanges, client)) return false
    const prefix = localityPrefix(client)
    const text = formatPrefix(prefix)
    const known = this.#directory.localities.has(text) || this.#demand.get(text) !== null
    if (!known && !this.#unasked.take(host, nowMs)) {
      this.#counters.add('localities.unasked')
      return false
    }
    // What was counted elsewhere already is told as so many equal samples, as many as a window can hold.
    const rttsMs = new Array<number>(Math.min(count, SAMPLES_OF_A_REPORT)).fill(rttMs)
    return this.#fold({ prefix, host, rttsMs, kind }, epochMs)
  }

  /** A proven client, or a listed resolver for one, asked; `direct`: this very address contacted us, so it may be probed. */
  noteDemand(client: Address, service: string, direct: boolean, times: number, nowMs: number): void {
    this.#demand.note(client, service, direct ? client : null, nowMs, times)
    this.#localities.touch(formatPrefix(localityPrefix(client)))
  }

  /** Hosts that would be asked to probe a client next; none where it would not be probed now. */
  nextProbes(client: Address, nowMs: number): readonly string[] {
    if (this.#probes === null) return []
    const demand = this.#demand.get(formatPrefix(localityPrefix(client)))
    const services = demand === null ? this.#directory.services.keys() : demand.services.keys()
    return this.#probes.nextProbes(this.#tables, client, services, nowMs)
  }

  /** Time passed: gives the orders that are due; returns what was found out since and alters answers. */
  tick(nowMs: number, epochMs: number): Change[] {
    for (const { host, purpose } of this.#book.expire(nowMs)) {
      if (purpose.kind === 'check') this.#lapsedMs.set(host, nowMs)
    }
    if (nowMs >= this.#checksDueMs) {
      this.#checksDueMs = nowMs + CHECK_EVERY_MS
      this.#orderChecks(nowMs)
    }
    this.#orderEchoes(nowMs, epochMs)
    if (nowMs >= this.#plansDueMs) {
      this.#plansDueMs = nowMs + PLAN_EVERY_MS
      for (const prefix of this.#localities.takeMoved()) this.#probes?.wake(prefix, nowMs)
      this.#orderProbes(nowMs)
    }
    return this.#localities.publish(epochMs)
  }

  /**
   * Which members the clients of changed localities stay with from now on, once the changes are published.
   * A prefix that is being probed waits until that rests, else its first probe would decide.
   */
  settle(changes: readonly Change[]): Change[] {
    const prefixes = changes.filter(({ kind, key }) => kind === 'localities' && !this.#isProbed(key))
    return this.#settle(prefixes.map(({ key }) => key))
  }

  /** The same for the prefixes whose probing came to rest. */
  settleRested(): Change[] {
    return this.#settle(this.#probes?.takeRested() ?? [])
  }

  #isProbed(prefix: string): boolean {
    return this.#probes !== null && (this.#demand.get(prefix)?.target ?? null) !== null
  }

  #settle(prefixes: readonly string[]): Change[] {
    const settled: Change[] = []
    for (const prefix of prefixes) {
      const record = this.#directory.localities.get(prefix)
      const services = this.#demand.get(prefix)?.services.keys() ?? []
      const change = record === undefined ? null : settleIncumbents(this.#tables, record, services)
      if (change !== null) settled.push(change)
    }
    return settled
  }

  /** Ends the core's own probes. */
  close(): Promise<void> {
    return this.#prober.stop()
  }

  // ---- giving orders

  #give(host: string, order: Order, purpose: Purpose, nowMs: number): void {
    this.#counters.add(`orders.${purpose.kind}`)
    this.#book.give(host, order, purpose, nowMs)
    if (host === this.#self) this.#prober.accept(this.#book.take(host))
  }

  #giveEcho(
    from: string,
    to: string,
    { urgent, count }: { urgent: boolean; count: number },
    purpose: Purpose,
    nowMs: number,
    epochMs: number,
  ): void {
    const target = this.#directory.hosts.get(to)
    if (target?.echo == null || !isProven(target, target.echo.address)) return
    const { prober, key } = passFor(target, epochMs)
    const order: EchoOrder = {
      kind: 'echo',
      id: newOrderId(),
      urgent,
      host: to,
      address: target.echo.address,
      port: target.echo.port,
      prober: Buffer.from(prober).toString('hex'),
      key: Buffer.from(key).toString('hex'),
      count,
    }
    this.#give(from, order, purpose, nowMs)
  }

  #orderEchoes(nowMs: number, epochMs: number): void {
    for (const { from, to, count } of this.#echoes.plan(this.#tables, nowMs, this.#rng)) {
      this.#giveEcho(from, to, { urgent: false, count }, { kind: 'mesh', to }, nowMs, epochMs)
    }
  }

  /** What got an answer before comes first: the others' packets are then not sent at all. */
  #methodsFor(address: Address): ClientOrder['methods'] {
    const known = this.#answersTo.get(formatAddress(address))
    if (known === undefined) return this.#probeMethods
    return this.#probeMethods.toSorted((a, b) => Number(b.kind === known) - Number(a.kind === known))
  }

  #orderProbes(nowMs: number): void {
    for (const { host, address } of this.#probes?.plan(this.#tables, this.#demand, nowMs) ?? []) {
      const text = formatAddress(address)
      const order: ClientOrder = {
        kind: 'client',
        id: newOrderId(),
        address: text,
        methods: this.#methodsFor(address),
        count: PROBE_COUNT,
      }
      this.#give(host, order, { kind: 'client', address: text }, nowMs)
    }
  }

  /** Has this core and the nearest hosts look at each member without agent. */
  #orderChecks(nowMs: number): void {
    const isAble = (host: string) =>
      nowMs - (this.#lapsedMs.get(host) ?? Number.NEGATIVE_INFINITY) >= LAPSE_MS
    for (const key of this.#checked) {
      const member = this.#directory.members.get(key)!
      if (!this.#isOwnHost(member.host)) continue
      const near = this.#checkers.of(member, isAble, nowMs, this.#rng)
      for (const checker of [this.#self, ...near]) {
        const check = {
          kind: 'check',
          id: newOrderId(),
          check: member.check!,
          timeoutMs: CHECK_TIMEOUT_MS,
        } as const
        this.#give(checker, check, { kind: 'check', member: key }, nowMs)
      }
    }
  }

  // ---- hearing answers

  /** A host's probe of a client's address. Where nobody ever gets an answer, the prefix lives on what its relatives know. */
  #hearProbe(
    host: string,
    address: string,
    { rttsMs, detail }: OrderResult,
    nowMs: number,
    epochMs: number,
  ): void {
    const prefix = localityPrefix(parseAddress(address)!)
    const text = formatPrefix(prefix)
    this.#probes?.hear(text, host, rttsMs.length > 0, nowMs)
    if (rttsMs.length > 0 && detail !== undefined) {
      if (this.#answersTo.size >= MAX_METHODS_KNOWN) this.#answersTo.clear()
      this.#answersTo.set(address, detail)
    }
    if (rttsMs.length > 0) this.#fold({ prefix, host, rttsMs, kind: 'active' }, epochMs)
    // Where announcements were imported, relatives are known by those, and better.
    else if (this.#tables.places.size === 0 && this.#probes?.isSilent(text)) this.#localities.inherit(prefix)
  }

  #fold(report: Report, epochMs: number): boolean {
    const refused = this.#localities.fold(report, epochMs)
    if (refused !== null) this.#counters.add(`localities.${refused}`)
    return refused === null
  }

  /** A host without agent is placed by the connections that its checkers made to it. */
  #hearCheck(member: string, checker: string, rttsMs: readonly number[]): Change[] {
    const host = this.#directory.members.get(member)?.host
    return host === undefined ? [] : this.#hearEcho(host, checker, rttsMs)
  }

  /** RTTs between two hosts move the coordinate of the first, as in Vivaldi, and are kept as they are. */
  #hearEcho(from: string, to: string, rttsMs: readonly number[]): Change[] {
    const host = this.#directory.hosts.get(from)
    const peer = this.#directory.hosts.get(to)
    if (host === undefined || peer === undefined || rttsMs.length === 0) return []
    const { host: value, refused } = this.#mesh.hear(host, peer, Math.min(...rttsMs), this.#rng)
    if (refused === null) return value === host ? [] : [{ kind: 'hosts', key: from, value }]
    this.#counters.add(`coordinates.${refused}`)
    return []
  }
}

/** Unguessable: an answer can't be made up without the order. */
function newOrderId(): string {
  return randomBytes(12).toString('base64url')
}

/** Whether an address is the host's own: nobody is sent to another's on its word. */
function isProven({ proofs }: Host, address: string): boolean {
  return proofs[address] === 'echo' || proofs[address] === 'vouched'
}

/** What one prober needs to be answered by a host's echo. */
function passFor(host: Host, epochMs: number): { prober: Uint8Array; key: Uint8Array } {
  const prober = newProber(epochMs, randomBytes(12))
  return { prober, key: proberKey(Buffer.from(host.echoKey, 'hex'), prober) }
}
