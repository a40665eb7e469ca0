// The host's standing with the cores: its registration, credential and key, and the calls that it makes
// in its own name. When to make them, and what to do when they fail, is the agent's loop.
//
// Invariant: only this host's own credential ever removes it, so that an agent which was refused a name
// can't take the one who holds it out of answers.

import { isIP } from 'node:net'
import { AgentError, isRefusal, reasonOf } from './agent-error.ts'
import { type Call, callCore } from './core-client.ts'
import { CoreList, type KnownCore } from './core-list.ts'
import { askForCores, findCore } from './core-search.ts'
import type { ResolvedMember, ResolvedOptions } from './options.ts'
import {
  type Beat,
  type HostReply,
  type HostRequest,
  MAX_JOINING,
  type MeasurementRequest,
  type MemberReply,
} from './protocol/messages.ts'
import type { PulseAddress } from './pulse-sender.ts'
import {
  type BeatReply,
  BeatsReplyShape,
  HostReplyShape,
  hostRequest,
  joiningMember,
  localAddressTo,
  MeasurementReplyShape,
  MemberReplyShape,
  memberRequest,
  type WatchedMember,
} from './requests.ts'
import { StateFile } from './state-file.ts'

/** A core answers in milliseconds; one that takes this long is as good as gone, and a lease is only 8 s. */
const CALL_MS = 2000
/** No goodbye takes longer: the lease ends by itself soon after. */
const GOODBYE_MS = 5000

type OwnCall<T> = Pick<Call<T>, 'method' | 'path' | 'reply'> & Partial<Call<T>>

/** A core has taken the host. */
export interface Taken {
  readonly addresses: readonly string[]
  readonly reply: HostReply
}

export class Session {
  readonly cores: CoreList
  /** Checks the MACs of echo requests; null before the first join. */
  echoKey: Uint8Array | null = null
  /** Where the home takes heartbeats of one UDP packet; null: nowhere. */
  pulseAddress: PulseAddress | null = null
  readonly #options: ResolvedOptions
  readonly #file: StateFile | null
  #credential: string | null = null
  /** The address by which cores see this host, where it is not the machine's own. */
  #seen: string | null = null
  /** Some core may know this host. */
  #announced = false
  /** The core may take members with their host; false: it said that it does not. */
  #takesMembers = true

  constructor(options: ResolvedOptions) {
    this.#options = options
    this.cores = new CoreList(options.cores, options.insecure)
    this.#file = options.stateDir === null ? null : new StateFile(options.stateDir, options.name)
  }

  /** Reads what an earlier run kept: the credential, and the cores that it knew. */
  async open(): Promise<void> {
    const kept = await this.#file?.load()
    if (kept === undefined) return
    this.#credential = kept.credential
    this.cores.learn(kept.cores)
  }

  /** The best core to try now, but for `without`; those that don't answer are taken note of. Rejects where none does. */
  async findCore(without: string | null, stop: AbortSignal): Promise<string> {
    const others = (): string[] => this.cores.candidates(performance.now()).filter((url) => url !== without)
    const urls = others()
    try {
      const { cores, silent } = await findCore(urls, stop)
      for (const url of silent) this.cores.fail(url, performance.now())
      await this.#learn(cores)
    } catch (error) {
      for (const url of urls) this.cores.fail(url, performance.now())
      throw error
    }
    return others()[0]!
  }

  /** Takes what a core told of the cores, and keeps it for the next run. */
  async #learn(cores: readonly KnownCore[]): Promise<void> {
    // What can't be kept is said where the credential can't be.
    if (this.cores.learn(cores) && this.#credential !== null) await this.#save().catch(() => {})
  }

  /** The cores near this host, by the one that is talked to now. */
  async askForCores(timeoutMs: number): Promise<void> {
    await this.#learn(await askForCores(this.cores.current, this.#credential, timeoutMs))
  }

  /**
   * Registers the host; where no addresses were given, by the one that the core sees. `listening` is its echo;
   * `members` join by the same message where the core takes that: those that the reply tells of have joined.
   * `warn` is told where the credential can't be kept.
   */
  async putHost(
    listening: { readonly address: string; readonly port: number },
    members: readonly WatchedMember[],
    warn: (text: string) => void,
  ): Promise<Taken> {
    const put = async (
      addresses: readonly string[],
      joining: readonly WatchedMember[],
    ): Promise<HostReply> => {
      const reply = await this.#putHost(hostRequest(this.#options, listening, addresses), joining)
      this.echoKey = Buffer.from(reply.echoKey, 'hex')
      this.pulseAddress = pulseAddressOf(reply)
      if (reply.credential !== undefined) await this.#keep(reply.credential, warn)
      return reply
    }
    const given = this.#options.addresses
    if (given.length > 0) return { addresses: given, reply: await put(given, members) }
    // Seen before, it is most likely still so: at a new home no member is without its address for a moment.
    const likely = this.#seen ?? (await localAddressTo(new URL(this.cores.current)))
    const reply = await put([likely], this.#seen === null ? [] : members)
    const seen = reply.publicAddress
    if (isIP(seen) === 0 || seen === likely) return { addresses: [likely], reply }
    this.#seen = seen
    return { addresses: [seen], reply: await put([seen], members) }
  }

  /** Registers a member as it is now. */
  async putMember(watched: WatchedMember): Promise<MemberReply> {
    const body = memberRequest(watched)
    const reply = await this.call({
      method: 'PUT',
      path: memberPath(watched.member),
      body,
      reply: MemberReplyShape,
    })
    watched.told = { health: body.health ?? 'unknown', load: body.load ?? null }
    return reply
  }

  async removeMember(member: ResolvedMember): Promise<void> {
    await this.call({ method: 'DELETE', path: memberPath(member), reply: null })
  }

  async drainMember(member: ResolvedMember, drained: boolean): Promise<void> {
    await this.call({ method: drained ? 'PUT' : 'DELETE', path: `${memberPath(member)}/drain`, reply: null })
  }

  /** One heartbeat. */
  async beat(
    news: Pick<Beat, 'members' | 'results'>,
    timeoutMs: number,
    stop: AbortSignal,
  ): Promise<BeatReply> {
    const host = this.#options.name
    const { beats } = await this.call({
      method: 'POST',
      path: '/v1/heartbeats',
      bearer: null,
      body: { beats: [{ host, credential: this.#credential ?? '', ...news }] },
      reply: BeatsReplyShape,
      timeoutMs,
      stop,
    })
    const mine = beats.find((beat) => beat.host === host)
    if (mine === undefined) {
      throw new AgentError('bad-reply', `${this.cores.current} answers some other host's heartbeat`)
    }
    return mine
  }

  /** Reports RTTs to clients that nobody ordered. */
  async measure(rtts: MeasurementRequest['rtts']): Promise<void> {
    const body: MeasurementRequest = { rtts }
    await this.call({ method: 'POST', path: '/v1/measurements', body, reply: MeasurementReplyShape })
  }

  /** Removes the host with all its members, at whichever core answers. False: none could be told. */
  async goodbye(): Promise<boolean> {
    if (!this.#announced || this.#credential === null) return true
    const endMs = performance.now() + GOODBYE_MS
    const { current } = this.cores
    for (const core of new Set([current, ...this.cores.candidates(performance.now())])) {
      const timeoutMs = Math.min(CALL_MS, endMs - performance.now())
      if (timeoutMs <= 0) return false
      this.cores.current = core
      try {
        await this.call({ method: 'DELETE', path: this.#hostPath(), reply: null, timeoutMs })
        return true
      } catch (error) {
        // Refused: that core does not know the host any more, which is what was wanted.
        if (isRefusal(error)) return true
      }
    }
    return false
  }

  /** Any call in the host's own name. */
  call<T>(call: OwnCall<T>): Promise<T> {
    const bearer = this.#credential ?? this.#options.token
    return callCore(this.cores.current, { bearer, timeoutMs: CALL_MS, ...call })
  }

  #hostPath(): string {
    return `/v1/hosts/${this.#options.name}`
  }

  /** With its members; without them where the core will not have them so: then each is put by itself, and told what is wrong with it. */
  async #putHost(host: HostRequest, members: readonly WatchedMember[]): Promise<HostReply> {
    if (members.length === 0 || !this.#takesMembers) return this.#putHostAlone(host, members)
    const bodies = members.slice(0, MAX_JOINING).map(joiningMember)
    try {
      const reply = await this.#putHostAlone({ ...host, members: bodies }, members)
      reply.members?.forEach((_, i) => {
        const { health = 'unknown', load = null } = bodies[i] ?? {}
        members[i]!.told = { health, load }
      })
      return reply
    } catch (error) {
      if (!isRefusal(error)) throw error
      if (error.key !== undefined && !error.key.startsWith('members')) throw error
      // A core of an earlier version knows no such field.
      if (error.key === 'members') this.#takesMembers = false
      return this.#putHostAlone(host, members)
    }
  }

  /** A core that takes the host knows of its members what it is told from then on. */
  async #putHostAlone(body: HostRequest, members: readonly WatchedMember[]): Promise<HostReply> {
    const reply = await this.#putHostAs(body)
    for (const watched of members) watched.told = null
    return reply
  }

  async #putHostAs(body: HostRequest): Promise<HostReply> {
    const put = { method: 'PUT', path: this.#hostPath(), body, reply: HostReplyShape } as const
    this.#announced = true
    try {
      return await this.call(put)
    } catch (error) {
      // A credential that no core knows any more, as after a goodbye, or when their data was lost: it joins anew, by
      // its token or openly. Whatever else is refused would be so again, and in words that hide what is wrong.
      const isUnknown = isRefusal(error) && error.status === 401
      if (!isUnknown || this.#credential === null) throw error
      const reply = await this.call({ ...put, bearer: this.#options.token })
      this.#credential = null
      return reply
    }
  }

  async #keep(credential: string, warn: (text: string) => void): Promise<void> {
    this.#credential = credential
    try {
      await this.#save()
    } catch (error) {
      warn(
        `the host's credential is not kept, so a restart waits for its old lease to end: ${reasonOf(error)}`,
      )
    }
  }

  async #save(): Promise<void> {
    await this.#file?.save({ credential: this.#credential, cores: this.cores.told })
  }
}

/** Anything else than an address and port is nowhere: pulses are a saving, no need. */
function pulseAddressOf({ pulse }: HostReply): PulseAddress | null {
  return pulse && isIP(pulse.address) !== 0 ? pulse : null
}

function memberPath(member: ResolvedMember): string {
  return `/v1/services/${member.service}/members/${member.name}`
}
