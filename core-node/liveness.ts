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
  /** Its operator was let in by a token: its word counts about others, and its silence about us. */
  readonly trusted: boolean
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
  /** Of hosts let in by a token (true) or open ones (false): why their silence is held against this home itself. */
  readonly #suspicions = new Map<boolean, string>()

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
    return this.#suspicions.get(true) ?? this.#suspicions.get(false) ?? null
  }

  /** A heartbeat or registration came. `trusted`: the host joined by a token, not openly. */
  hear(host: string, leaseMs: number, nowMs: number, trusted: boolean): void {
    const lease: Lease = { leaseMs, trusted, heardMs: nowMs, phase: 'heard', askedMs: 0, opinions: new Map() }
    this.#leases.set(host, lease)
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
      // Who was heard just now, before this tick, gets no time that has not come yet.
      lease.heardMs = Math.min(nowMs, lease.heardMs + gapMs)
      lease.askedMs = Math.min(nowMs, lease.askedMs + gapMs)
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
    const askers = this.#askers(host, lease.trusted, rng)
    if (lease.phase === 'heard') lease.phase = 'asked'
    lease.askedMs = nowMs
    lease.opinions = new Map(askers.map((asker) => [asker, null]))
    return { kind: 'ask', host, askers }
  }

  /**
   * The home itself and up to OPINIONS hosts that are heard, drawn at random (a partial Fisher-Yates).
   * Who joined openly is not asked about those who needed a token.
   */
  #askers(host: string, trustedOnly: boolean, rng: () => number): string[] {
    const heard: string[] = []
    for (const [other, lease] of this.#leases) {
      if (other !== host && lease.phase === 'heard' && (lease.trusted || !trustedOnly)) heard.push(other)
    }
    const count = Math.min(OPINIONS, heard.length)
    for (let i = 0; i < count; i++) {
      const j = i + Math.floor(rng() * (heard.length - i))
      const drawn = heard[j]!
      heard[j] = heard[i]!
      heard[i] = drawn
    }
    return [...heard.slice(0, count), this.#home]
  }

  /** The network is back for most of a kind: the others of it get a whole lease to be heard in, too. */
  #startAnew(kind: boolean, nowMs: number): void {
    for (const [host, { leaseMs, phase, trusted }] of this.#leases) {
      if (trusted === kind && phase !== 'heard') this.hear(host, leaseMs, nowMs, trusted)
    }
  }

  /** Gives the doomed up: those that were let in by a token and those that joined openly each by themselves, so that a crowd of the ones says nothing of the others. */
  #judge(doomed: readonly string[], nowMs: number): LivenessFact[] {
    return [true, false].flatMap((kind) =>
      this.#judgeKind(
        kind,
        doomed.filter((host) => this.#leases.get(host)?.trusted === kind),
        nowMs,
      ),
    )
  }

  /**
   * Where so many went at once that this core's own network is the likelier cause, only those are given
   * up of whom a host that is still heard says that it can't be reached, or who were silent too long.
   */
  #judgeKind(kind: boolean, doomed: readonly string[], nowMs: number): LivenessFact[] {
    const massive = this.#massSilence(kind)
    if (massive === null && this.#suspicions.delete(kind)) {
      this.#startAnew(kind, nowMs)
      return []
    }
    const surely = massive === null ? doomed : doomed.filter((host) => this.#isConfirmed(host, nowMs))
    const facts = surely.map((host): LivenessFact => {
      const seconds = ((nowMs - this.#leases.get(host)!.heardMs) / 1000).toFixed(1)
      return {
        kind: 'silent',
        host,
        why: `not heard for ${seconds} s, and nobody who was asked could reach it`,
      }
    })
    for (const host of surely) this.#leases.delete(host)
    // By those given up alone the network is not back: what is left is judged for itself.
    const left = this.#massSilence(kind)
    if (massive !== null && left !== null) this.#suspicions.set(kind, left)
    else this.#suspicions.delete(kind)
    return facts
  }

  /** What to say where more than half of the hosts of a kind are unheard; null: it is not so. */
  #massSilence(kind: boolean): string | null {
    let unheard = 0
    let all = 0
    for (const { trusted, phase } of this.#leases.values()) {
      if (trusted !== kind) continue
      all++
      if (phase !== 'heard') unheard++
    }
    if (unheard < MASS_MIN || unheard <= all / 2) return null
    return `${unheard} of ${all} hosts fell silent together: this core suspects its own network and keeps whom nobody else gives up`
  }

  #isConfirmed(host: string, nowMs: number): boolean {
    const lease = this.#leases.get(host)!
    if (nowMs - lease.heardMs >= lease.leaseMs + VOUCH_MS) return true
    for (const [asker, reached] of lease.opinions) {
      if (asker !== this.#home && reached === false && this.#leases.get(asker)?.phase === 'heard') return true
    }
    return false
  }
}
