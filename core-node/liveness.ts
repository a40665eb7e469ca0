// Liveness: which of a home's hosts are there, judged by their heartbeats and, before anyone is given
// up, by the opinions of other hosts.
//
// Pure state machine on a monotonic clock that the caller passes in (ms): events in, facts out. The
// promises: a host that stops is silent within one lease; one lost packet, one bad path or this core's
// own trouble never takes a live host out. It sends nothing: `ask` facts say whom to ask. A tick costs what
// is due or unheard, not what is well: a heartbeat moves a number, and its lease is looked at when it may be due.
//
//   heard --5/8 lease--> asked --anyone reached it--> vouched (at most VOUCH_MS) --> silent
//                              --nobody by the end of the lease--> silent
//   any heartbeat --> heard
//
// Orphans are hosts of a home that is gone: no heartbeats are expected of them, and they stay as long as anyone
// reaches them, until they register with another home.

import { DueQueue } from './due-queue.ts'

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
  readonly host: string
  readonly leaseMs: number
  /** Its operator was let in by a token: its word counts about others, and its silence about us. */
  readonly trusted: boolean
  readonly isOrphan: boolean
  heardMs: number
  phase: 'heard' | 'asked' | 'vouched' | 'gone'
  askedMs: number
  /** Who was asked in this round; null: no opinion yet. */
  opinions: ReadonlyMap<string, boolean | null>
  /** While it is heard: where it stands among those of its kind. */
  place: number
}

/** Of the many that nobody was asked about: one for all. */
const NO_OPINIONS: ReadonlyMap<string, boolean | null> = new Map()

/** The hosts of one kind: those let in by a token, or open ones. */
class Kind {
  /** In no order, so that any can be drawn. */
  readonly heard: Lease[] = []
  readonly unheard = new Set<Lease>()
  /** Why their silence is held against this home itself; null: it is not. */
  suspicion: string | null = null

  isHeard(lease: Lease): void {
    this.unheard.delete(lease)
    lease.place = this.heard.length
    this.heard.push(lease)
  }

  isUnheard(lease: Lease): void {
    this.isGone(lease)
    this.unheard.add(lease)
  }

  isGone(lease: Lease): void {
    if (this.unheard.delete(lease)) return
    const last = this.heard.pop()!
    if (last === lease) return
    this.heard[lease.place] = last
    last.place = lease.place
  }
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
  /** Leases that are heard, by when others may have to be asked: no later than that. */
  readonly #due = new DueQueue<Lease>()
  readonly #trusted = new Kind()
  readonly #open = new Kind()
  readonly #orphans = new Kind()
  #tickMs: number

  /** `home`: the name of the core that asks; `nowMs`: the monotonic clock. */
  constructor(home: string, nowMs: number) {
    this.#home = home
    this.#tickMs = nowMs
  }

  /** Leases, those of orphans included. */
  get size(): number {
    return this.#leases.size
  }

  /** Orphans that it judges. */
  get orphans(): number {
    return this.#orphans.heard.length + this.#orphans.unheard.size
  }

  /** Why this home distrusts itself at the moment; null: it does not. */
  get suspicion(): string | null {
    return this.#trusted.suspicion ?? this.#open.suspicion
  }

  /** A heartbeat or registration came. `trusted`: the host joined by a token, not openly. */
  hear(host: string, leaseMs: number, nowMs: number, trusted: boolean): void {
    const lease = this.#leases.get(host)
    if (lease === undefined || lease.isOrphan || lease.leaseMs !== leaseMs || lease.trusted !== trusted) {
      this.forget(host)
      this.#begin(newLease(host, leaseMs, trusted, false, nowMs))
      return
    }
    lease.heardMs = nowMs
    if (lease.phase !== 'heard') this.#hearAgain(lease)
  }

  /** Judges a host whose home is gone, as if it had been heard last at `heardMs`. One that has a lease here keeps it. */
  adopt(host: string, leaseMs: number, heardMs: number, trusted: boolean): void {
    if (!this.#leases.has(host)) this.#begin(newLease(host, leaseMs, trusted, true, heardMs))
  }

  /** Judges no more orphans but those that `isStill` says. */
  releaseOrphans(isStill: (host: string) => boolean): void {
    for (const { host } of [...this.#orphans.heard, ...this.#orphans.unheard]) {
      if (!isStill(host)) this.forget(host)
    }
  }

  #begin(lease: Lease): void {
    this.#leases.set(lease.host, lease)
    this.#kindOf(lease).isHeard(lease)
    this.#due.add(lease, lease.heardMs + lease.leaseMs * ASK_SHARE)
  }

  #hearAgain(lease: Lease): void {
    lease.phase = 'heard'
    lease.opinions = NO_OPINIONS
    this.#kindOf(lease).isHeard(lease)
    this.#due.add(lease, lease.heardMs + lease.leaseMs * ASK_SHARE)
  }

  #kindOf(lease: Lease): Kind {
    if (lease.isOrphan) return this.#orphans
    return lease.trusted ? this.#trusted : this.#open
  }

  /** Whether it has a lease that has not ended: its heartbeats are expected. */
  expects(host: string): boolean {
    return this.#leases.get(host)?.isOrphan === false
  }

  /** Whether it is an orphan that is judged here and was not given up. */
  adopts(host: string): boolean {
    return this.#leases.get(host)?.isOrphan === true
  }

  /** It left, was removed, or moved to another home. */
  forget(host: string): void {
    const lease = this.#leases.get(host)
    if (lease === undefined) return
    this.#leases.delete(host)
    this.#kindOf(lease).isGone(lease)
    lease.phase = 'gone'
  }

  /** One asker's answer. Late, unasked and repeated ones change nothing. */
  hearOpinion(host: string, asker: string, reached: boolean): void {
    const lease = this.#leases.get(host)
    if (lease?.opinions.get(asker) !== null) return
    lease.opinions = new Map(lease.opinions).set(asker, reached)
  }

  /**
   * Time passed. Call a few times a second; a gap of over STALL_MS is taken as this process's own and
   * added to every lease, so that heartbeats that waited meanwhile are still in time.
   */
  tick(nowMs: number, rng: () => number): LivenessFact[] {
    this.#forgive(nowMs)
    const wasSuspicious = this.suspicion !== null
    const unheard = [...this.#trusted.unheard, ...this.#open.unheard, ...this.#orphans.unheard]
    const facts = this.#askOverdue(nowMs, rng)
    const doomed: Lease[] = []
    for (const lease of unheard) {
      const step = this.#step(lease, nowMs, rng)
      if (step === 'doomed') doomed.push(lease)
      else if (step !== null) facts.push(step)
    }
    for (const kind of [this.#trusted, this.#open]) {
      // Each kind by itself, so that a crowd of the ones says nothing of the others.
      const some = doomed.filter((lease) => this.#kindOf(lease) === kind)
      facts.push(...this.#judge(kind, some, nowMs))
    }
    const orphans = doomed.filter(({ isOrphan }) => isOrphan)
    return [...facts, ...this.#judgeOrphans(orphans, wasSuspicious, nowMs)]
  }

  /** Who does not hear its own hosts reaches no orphans either; when it does again, they are asked about anew. */
  #judgeOrphans(doomed: readonly Lease[], wasSuspicious: boolean, nowMs: number): LivenessFact[] {
    if (this.suspicion !== null) {
      return this.#giveUp(
        doomed.filter((lease) => this.#isConfirmed(lease, nowMs)),
        nowMs,
      )
    }
    if (!wasSuspicious) return this.#giveUp(doomed, nowMs)
    this.#startAnew(this.#orphans, nowMs)
    return []
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

  /** Asks about those not heard for too long. Most of whom it looks at were heard meanwhile, and come again later. */
  #askOverdue(nowMs: number, rng: () => number): LivenessFact[] {
    const facts: LivenessFact[] = []
    for (let lease = this.#due.take(nowMs); lease !== null; lease = this.#due.take(nowMs)) {
      if (lease.phase !== 'heard') continue
      const dueMs = lease.heardMs + lease.leaseMs * ASK_SHARE
      if (dueMs > nowMs) this.#due.add(lease, dueMs)
      else {
        lease.phase = 'asked'
        this.#kindOf(lease).isUnheard(lease)
        facts.push(this.#ask(lease, nowMs, rng))
      }
    }
    return facts
  }

  /** What time and opinions make of a host that is unheard. */
  #step(lease: Lease, nowMs: number, rng: () => number): LivenessFact | 'doomed' | null {
    const { host } = lease
    const said = [...lease.opinions.values()]
    if (said.includes(true)) {
      if (lease.phase === 'asked') {
        lease.phase = 'vouched'
        return { kind: 'vouched', host }
      }
      if (!lease.isOrphan && nowMs - lease.heardMs >= lease.leaseMs + VOUCH_MS) return 'doomed'
      return nowMs - lease.askedMs >= lease.leaseMs * ASK_AGAIN_SHARE ? this.#ask(lease, nowMs, rng) : null
    }
    if (said.every((opinion) => opinion === false)) return 'doomed'
    const patienceMs = lease.leaseMs * (1 - ASK_SHARE)
    return nowMs - lease.askedMs >= patienceMs ? 'doomed' : null
  }

  #ask(lease: Lease, nowMs: number, rng: () => number): LivenessFact {
    const askers = [...this.#drawAskers(lease.trusted, rng), this.#home]
    lease.askedMs = nowMs
    lease.opinions = new Map(askers.map((asker) => [asker, null]))
    return { kind: 'ask', host: lease.host, askers }
  }

  /**
   * Up to OPINIONS hosts that are heard, each equally likely (Floyd's sampling, CACM 1987). Who joined openly
   * is not asked about those who needed a token.
   */
  #drawAskers(trustedOnly: boolean, rng: () => number): string[] {
    const trusted = this.#trusted.heard
    const all = trusted.length + (trustedOnly ? 0 : this.#open.heard.length)
    const drawn = new Set<number>()
    for (let last = Math.max(0, all - OPINIONS); last < all; last++) {
      const any = Math.floor(rng() * (last + 1))
      drawn.add(drawn.has(any) ? last : any)
    }
    return Array.from(
      drawn,
      (i) => (i < trusted.length ? trusted[i]! : this.#open.heard[i - trusted.length]!).host,
    )
  }

  /**
   * Where so many went at once that this core's own network is the likelier cause, only those are given
   * up of whom a host that is still heard says that it can't be reached, or who were silent too long.
   */
  #judge(kind: Kind, doomed: readonly Lease[], nowMs: number): LivenessFact[] {
    const massive = massSilence(kind)
    if (massive === null && kind.suspicion !== null) {
      kind.suspicion = null
      this.#startAnew(kind, nowMs)
      return []
    }
    const surely = massive === null ? doomed : doomed.filter((lease) => this.#isConfirmed(lease, nowMs))
    const facts = this.#giveUp(surely, nowMs)
    // By those given up alone the network is not back: what is left is judged for itself.
    const left = massSilence(kind)
    kind.suspicion = massive !== null ? left : null
    return facts
  }

  #giveUp(leases: readonly Lease[], nowMs: number): LivenessFact[] {
    return leases.map(({ host, heardMs, isOrphan }) => {
      this.forget(host)
      const seconds = ((nowMs - heardMs) / 1000).toFixed(1)
      const since = isOrphan ? 'its home is gone' : `not heard for ${seconds} s`
      return { kind: 'silent', host, why: `${since}, and nobody who was asked could reach it` }
    })
  }

  /** The network is back for most of a kind: the others of it get a whole lease to be heard in, too. */
  #startAnew(kind: Kind, nowMs: number): void {
    for (const lease of [...kind.unheard]) {
      lease.heardMs = nowMs
      this.#hearAgain(lease)
    }
  }

  #isConfirmed(lease: Lease, nowMs: number): boolean {
    if (nowMs - lease.heardMs >= lease.leaseMs + VOUCH_MS) return true
    for (const [asker, reached] of lease.opinions) {
      if (asker !== this.#home && reached === false && this.#leases.get(asker)?.phase === 'heard') return true
    }
    return false
  }
}

function newLease(
  host: string,
  leaseMs: number,
  trusted: boolean,
  isOrphan: boolean,
  heardMs: number,
): Lease {
  return {
    host,
    leaseMs,
    trusted,
    isOrphan,
    heardMs,
    phase: 'heard',
    askedMs: 0,
    opinions: NO_OPINIONS,
    place: 0,
  }
}

/** What to say where more than half of the hosts of a kind are unheard; null: it is not so. */
function massSilence({ heard, unheard }: Kind): string | null {
  const all = heard.length + unheard.size
  if (unheard.size < MASS_MIN || unheard.size <= all / 2) return null
  return `${unheard.size} of ${all} hosts fell silent together: this core suspects its own network and keeps whom nobody else gives up`
}
