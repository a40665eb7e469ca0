// Liveness: which of a home's hosts are there, judged by their heartbeats and, before anyone is given
// up, by the opinions of other hosts.
//
// Pure state machine on a monotonic clock that the caller passes in (ms): events in, facts out. The
// promises: a host that stops is silent within one lease; one lost packet, one bad path or this core's
// own trouble never takes a live host out. It sends nothing: `ask` facts say whom to ask.
//
//   heard --5/8 lease--> asked --anyone reached it--> vouched (at most VOUCH_MS) --> silent
//                              --nobody by the end of the lease--> silent
//   any heartbeat --> heard

/** After this share of a lease without a heartbeat, others are asked: 5 of 8 s. */
const ASK_SHARE = 5 / 8
/** So many other hosts give an opinion, beside the home itself. */
const OPINIONS = 3
/** A host that others reach but its home does not hear is kept so long at most, ms. */
export const VOUCH_MS = 60_000
/** Time between two rounds of asking about a vouched host, as a share of its lease. */
const ASK_AGAIN_SHARE = 1 / 2
/** When the clock jumped so far between two ticks, this process itself was stalled, ms: no host's fault. */
export const STALL_MS = 1_000
/** Fewer silent hosts than this say nothing about the home's own uplink, whatever share they are. */
const MASS_MIN = 3

interface Lease {
  readonly leaseMs: number
  heardMs: number
  phase: 'heard' | 'asked' | 'vouched'
  askedMs: number
  /** Who was asked in this round; null: no opinion yet. */
  opinions: Map<string, boolean | null>
}

export type LivenessFact =
  /** Have each of `askers` echo `host`; the home's own name among them means this process. */
  | { readonly kind: 'ask'; readonly host: string; readonly askers: readonly string[] }
  | { readonly kind: 'silent'; readonly host: string; readonly why: string }
  /** Its home does not hear it, others do. */
  | { readonly kind: 'vouched'; readonly host: string }

export class Liveness {
  readonly #home: string
  readonly #leases = new Map<string, Lease>()
  #tickMs: number
  #suspicion: string | null = null

  /** `home`: the name of the core that asks; `nowMs`: the monotonic clock. */
  constructor(home: string, nowMs: number) {
    this.#home = home
    this.#tickMs = nowMs
  }

  get size(): number {
    return this.#leases.size
  }

  /** Why this home distrusts itself at the moment; null: it does not. */
  get suspicion(): string | null {
    return this.#suspicion
  }

  /** A heartbeat or registration came. */
  hear(host: string, leaseMs: number, nowMs: number): void {
    this.#leases.set(host, { leaseMs, heardMs: nowMs, phase: 'heard', askedMs: 0, opinions: new Map() })
  }

  /** Whether it has a lease that has not ended. */
  expects(host: string): boolean {
    return this.#leases.has(host)
  }

  /** It left, was removed, or moved to another home. */
  forget(host: string): void {
    this.#leases.delete(host)
  }

  /** One asker's answer. Late, unasked and repeated ones change nothing. */
  hearOpinion(host: string, asker: string, reached: boolean): void {
    const lease = this.#leases.get(host)
    if (lease?.opinions.get(asker) === null) lease.opinions.set(asker, reached)
  }

  /**
   * Time passed. Call a few times a second; a gap of over STALL_MS is taken as this process's own and
   * added to every lease, so that heartbeats that waited meanwhile are still in time.
   */
  tick(nowMs: number, rng: () => number): LivenessFact[] {
    this.#forgive(nowMs)
    const facts: LivenessFact[] = []
    const doomed: string[] = []
    for (const [host, lease] of this.#leases) {
      const step = this.#step(host, lease, nowMs, rng)
      if (step === 'doomed') doomed.push(host)
      else if (step !== null) facts.push(step)
    }
    return facts.concat(this.#judge(doomed, nowMs))
  }

  #forgive(nowMs: number): void {
    const gapMs = nowMs - this.#tickMs
    this.#tickMs = nowMs
    if (gapMs <= STALL_MS) return
    for (const lease of this.#leases.values()) {
      lease.heardMs += gapMs
      lease.askedMs += gapMs
    }
  }

  #step(host: string, lease: Lease, nowMs: number, rng: () => number): LivenessFact | 'doomed' | null {
    const silentMs = nowMs - lease.heardMs
    if (lease.phase === 'heard') {
      return silentMs >= lease.leaseMs * ASK_SHARE ? this.#ask(host, lease, nowMs, rng) : null
    }
    const said = [...lease.opinions.values()]
    if (said.includes(true)) {
      if (lease.phase === 'asked') {
        lease.phase = 'vouched'
        return { kind: 'vouched', host }
      }
      if (silentMs >= lease.leaseMs + VOUCH_MS) return 'doomed'
      return nowMs - lease.askedMs >= lease.leaseMs * ASK_AGAIN_SHARE
        ? this.#ask(host, lease, nowMs, rng)
        : null
    }
    if (said.every((opinion) => opinion === false)) return 'doomed'
    const patienceMs = lease.leaseMs * (1 - ASK_SHARE)
    return nowMs - lease.askedMs >= patienceMs ? 'doomed' : null
  }

  #ask(host: string, lease: Lease, nowMs: number, rng: () => number): LivenessFact {
    const askers = this.#askers(host, rng)
    if (lease.phase === 'heard') lease.phase = 'asked'
    lease.askedMs = nowMs
    lease.opinions = new Map(askers.map((asker) => [asker, null]))
    return { kind: 'ask', host, askers }
  }

  /** The home itself and up to OPINIONS hosts that are heard, drawn at random (a partial Fisher-Yates). */
  #askers(host: string, rng: () => number): string[] {
    const heard: string[] = []
    for (const [other, lease] of this.#leases)
      if (other !== host && lease.phase === 'heard') heard.push(other)
    const count = Math.min(OPINIONS, heard.length)
    for (let i = 0; i < count; i++) {
      const j = i + Math.floor(rng() * (heard.length - i))
      const drawn = heard[j]!
      heard[j] = heard[i]!
      heard[i] = drawn
    }
    return [...heard.slice(0, count), this.#home]
  }

  /** The network is back for most: the others get a whole lease to be heard in, too. */
  #startAnew(nowMs: number): void {
    this.#suspicion = null
    for (const [host, lease] of this.#leases)
      if (lease.phase !== 'heard') this.hear(host, lease.leaseMs, nowMs)
  }

  /** Gives the doomed up, unless so many went at once that this core's own uplink is the likelier cause. */
  #judge(doomed: readonly string[], nowMs: number): LivenessFact[] {
    let unheard = 0
    for (const lease of this.#leases.values()) if (lease.phase !== 'heard') unheard++
    const mass = unheard >= MASS_MIN && unheard > this.#leases.size / 2
    if (mass) {
      this.#suspicion = `${unheard} of ${this.#leases.size} hosts fell silent together: this core suspects its own network and keeps them`
      return []
    }
    if (this.#suspicion !== null) {
      this.#startAnew(nowMs)
      return []
    }
    return doomed.map((host) => {
      const lease = this.#leases.get(host)!
      this.#leases.delete(host)
      const seconds = ((nowMs - lease.heardMs) / 1000).toFixed(1)
      return {
        kind: 'silent',
        host,
        why: `not heard for ${seconds} s, and nobody who was asked could reach it`,
      }
    })
  }
}
