// Cores: this one's part in the cluster of all that share its store.
//
// What others commit goes into the ledger; who is there goes into the homes. When a core's lease in the store ends,
// what it looked after falls to those that are left: it leaves answers itself at once, its hosts stay while
// anyone reaches them and until they register elsewhere, those without agent get a new home.
// Invariant: a core that is cut off from the store judges nobody but its own hosts. Alone, it does nothing.
// Clocks by argument; whoever owns it calls tick.

import type { Cluster, Store } from '../db/store.ts'
import { type Change, CORE_SERVICE, type Directory, type Host, memberKey } from '../resolver/directory.ts'
import type { Counters } from './counters.ts'
import type { Homes } from './homes.ts'
import type { Ledger, Log } from './ledger.ts'
import type { Liveness } from './liveness.ts'
import type { Books } from './registry/books.ts'
import { coreLeaves, takeHome } from './registry/hand-over.ts'

interface CoresOptions {
  readonly self: string
  readonly store: Store
  /** It takes no part but to listen. */
  readonly follows: boolean
  readonly directory: Readonly<Directory>
  readonly ledger: Ledger
  readonly liveness: Liveness
  readonly homes: Homes
  /** A host was found to be silent, and its record will say so. */
  readonly isGivenUp: (host: string) => boolean
  readonly counters: Counters
  readonly log: Log
  readonly clock: { epochMs(): number; monotonicMs(): number }
}

/** How a core stands with the others, for /metrics and `nearcast status`. */
export interface ClusterStatus {
  /** Whether the store is in reach, and everything that others committed known. */
  readonly connected: boolean
  /** For how long it has not been so; 0 where it is. */
  readonly behindSec: number
  /** Whether this core's own lease in the store is held. */
  readonly lease: boolean
  /** Those that hold one. */
  readonly cores: readonly string[]
  /** Commits of this core that the others were told of, and those of the others that it was told of. */
  readonly commitsTold: number
  readonly commitsHeard: number
  readonly conflicts: number
  /** Records that are published here and not stored yet. */
  readonly unstored: number
  /** Hosts of homes that are gone, judged here. */
  readonly orphans: number
  /** What the store takes on its disk; null: not known. */
  readonly storeBytes: number | null
}

/** Who is gone and what it left is looked through this often, and when a core comes or goes, ms. */
const REVIEW_EVERY_MS = 1_000
const SIZE_EVERY_MS = 60_000
/**
 * Of the lease that the hosts of a lost home have, this share is over when that is noticed: it was not heard itself for
 * as long as its own lease lasts. They are asked about a quarter of a lease later, and given up after five eighths.
 */
const SPENT_SHARE = 3 / 8
/** Orphans are asked about one after another, ms: of many at once, most will have registered elsewhere by then. */
const ADOPT_APART_MS = 2
/** A core that just started finds all homes gone where all were started anew: their hosts get a whole lease. */
const STARTING_MS = 10_000

export class Cores {
  readonly #options: CoresOptions
  readonly #cluster: Cluster | null
  readonly #startedMs: number
  #trouble: string | null = null
  #troubleSinceMs = 0
  #revision = 0
  #reviewDueMs = 0
  #sizeDueMs = 0
  #storeBytes: number | null = null
  /** What was lost later the store holds anew by itself. */
  #lease: 'none' | 'wanted' | 'asked' | 'held' = 'none'

  constructor(options: CoresOptions) {
    this.#options = options
    this.#cluster = options.store.cluster
    this.#startedMs = options.clock.monotonicMs()
  }

  /** Why what is known of the others may be old; null: it is not. */
  get trouble(): string | null {
    return this.#trouble
  }

  /** The last revision of another core that was heard; 0: none yet. */
  get revision(): number {
    return this.#revision
  }

  get status(): ClusterStatus | null {
    if (this.#cluster === null) return null
    const { clock, counters, homes, ledger, liveness } = this.#options
    const behindMs = this.#trouble === null ? 0 : clock.monotonicMs() - this.#troubleSinceMs
    const counts = counters.snapshot()
    return {
      connected: this.#trouble === null,
      behindSec: behindMs / 1000,
      lease: homes.holdsLease,
      cores: homes.cores,
      commitsTold: counts['store.commits'] ?? 0,
      commitsHeard: counts['cluster.commits'] ?? 0,
      conflicts: counts['store.conflicts'] ?? 0,
      unstored: ledger.unstored,
      orphans: liveness.orphans,
      storeBytes: this.#storeBytes,
    }
  }

  /** From now on it hears of the others; resolves when what they committed until now is known. */
  async follow(): Promise<void> {
    if (this.#cluster === null) return
    this.#cluster.follow({
      onCommit: (changes, revision) => this.#hear(changes, revision),
      onCores: (names) => this.#hearCores(names),
      onTrouble: (reason) => this.#hearTrouble(reason),
    })
    await this.#cluster.caughtUp().catch((err) => this.#options.log.warn({ err }, 'not caught up yet'))
  }

  /** The others may count on it: its records are in the store. Where no lease can be had now it is asked for again. */
  async announce(): Promise<void> {
    const { self, follows, log } = this.#options
    if (this.#cluster === null || follows || this.#lease === 'asked') return
    this.#lease = 'asked'
    try {
      await this.#cluster.announce(self)
      this.#lease = 'held'
    } catch (err) {
      this.#lease = 'wanted'
      log.warn({ err }, 'no lease in the store yet')
    }
  }

  /** Gives its lease back: the others are told at once. */
  async leave(): Promise<void> {
    this.#lease = 'none'
    await this.#cluster
      ?.release()
      .catch((err) => this.#options.log.warn({ err }, 'the lease could not be given back'))
  }

  tick(): void {
    if (this.#cluster === null) return
    const nowMs = this.#options.clock.monotonicMs()
    if (nowMs < this.#reviewDueMs) return
    this.#reviewDueMs = nowMs + REVIEW_EVERY_MS
    this.#review()
    if (this.#lease === 'wanted') void this.announce()
    if (nowMs < this.#sizeDueMs) return
    this.#sizeDueMs = nowMs + SIZE_EVERY_MS
    void this.#measureStore()
  }

  async #measureStore(): Promise<void> {
    const size = await this.#cluster!.size().catch(() => null)
    this.#storeBytes = size?.fileBytes ?? null
  }

  #hear(changes: readonly Change[], revision: number): void {
    const { counters, ledger } = this.#options
    this.#revision = revision
    counters.add('cluster.commits')
    counters.add('cluster.changes', changes.length)
    ledger.hear(changes)
  }

  #hearCores(names: readonly string[]): void {
    const { homes, log } = this.#options
    log.info({ cores: names }, 'cores that hold a lease')
    homes.hearCores(names)
    this.#review()
  }

  #hearTrouble(reason: string | null): void {
    const { clock, ledger, log } = this.#options
    if (reason !== null && this.#trouble === null) this.#troubleSinceMs = clock.monotonicMs()
    if (reason === null) log.info({}, 'the store is in reach and all that others changed is known')
    else log.warn({ reason }, 'what other cores change may not be known; answering goes on from memory')
    this.#trouble = reason
    ledger.setCutOff(reason)
    this.#review()
  }

  /** Sees to what is left of cores that are gone, as far as that falls to this one. */
  #review(): void {
    const { directory, homes, liveness } = this.#options
    const isJudge = this.#trouble === null && homes.holdsLease
    liveness.releaseOrphans((name) => {
      const host = directory.hosts.get(name)
      return isJudge && host !== undefined && homes.isOrphanOfMine(host)
    })
    if (!isJudge) return
    let adopted = 0
    for (const name of homes.orphans()) {
      const host = directory.hosts.get(name)
      if (host !== undefined && host.presence !== 'left' && this.#takeOver(host, adopted)) adopted++
    }
  }

  /** True: it was adopted just now. */
  #takeOver(host: Host, before: number): boolean {
    const { self, directory, homes, ledger, liveness, clock, isGivenUp } = this.#options
    const isStill = (books: Books) => {
      const now = books.hosts.get(host.name)
      return now !== undefined && homes.isOrphanOfMine(now)
    }
    if (directory.members.has(memberKey(CORE_SERVICE, host.name))) {
      ledger.writeSoon((books) => (isStill(books) ? coreLeaves(books, host.name, clock.epochMs()) : []))
    } else if (!host.agent) {
      ledger.writeSoon((books) => (isStill(books) ? takeHome(books, host.name, host.home, self) : []))
    } else if (host.presence === 'live' && !liveness.adopts(host.name) && !isGivenUp(host.name)) {
      const leaseMs = host.leaseSec * 1000
      const nowMs = clock.monotonicMs()
      const spentMs = nowMs - this.#startedMs < STARTING_MS ? 0 : leaseMs * SPENT_SHARE
      liveness.adopt(host.name, leaseMs, nowMs - spentMs + before * ADOPT_APART_MS, host.tokenId !== null)
      return true
    }
    return false
  }
}
