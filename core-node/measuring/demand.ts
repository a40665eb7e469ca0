// Demand: which client prefixes ask for which services, counted in bounded memory.
//
// Only what came from a proven source is put in here, so that forged queries aim no one's probes.
// Counting after Misra and Gries (1982): when the table is full every count is lowered by one and those
// at zero go, so a prefix that asks more than once in maxPrefixes queries stays whatever the rest do.
// Clock by argument; knows nothing of probes.

import { type Address, formatPrefix, localityPrefix } from '../../resolver/address.ts'

/** What one prefix asked for. */
export interface PrefixDemand {
  /** Canonical text. */
  readonly prefix: string
  /** The address inside it that asked last and may be probed; null: only others asked on its behalf (Client Subnet). */
  readonly target: Address | null
  /** Service -> queries, decaying. */
  readonly services: ReadonlyMap<string, number>
  /** All of them together. */
  readonly count: number
  readonly lastMs: number
}

interface Entry {
  prefix: string
  target: Address | null
  services: Map<string, number>
  count: number
  lastMs: number
}

/** Prefixes counted at most: about 300 bytes each. */
const MAX_PREFIXES = 50_000
/** Services counted for one prefix; more are left out until others decay. */
const MAX_SERVICES = 16
/** Counts are halved so often, ms: what was asked an hour ago hardly weighs. */
const HALF_LIFE_MS = 10 * 60_000

export class Demand {
  readonly #entries = new Map<string, Entry>()
  readonly #maxPrefixes: number
  #halvedMs = Number.NEGATIVE_INFINITY

  constructor(maxPrefixes: number = MAX_PREFIXES) {
    this.#maxPrefixes = maxPrefixes
  }

  get size(): number {
    return this.#entries.size
  }

  /** A client asked, so many times. `target`: its own address where that is what contacted us, else null. */
  note(client: Address, service: string, target: Address | null, nowMs: number, times = 1): void {
    if (nowMs - this.#halvedMs >= HALF_LIFE_MS) this.#halve(nowMs)
    const entry = this.#entryOf(formatPrefix(localityPrefix(client)), nowMs)
    if (target) entry.target = target
    entry.count += times
    entry.lastMs = nowMs
    const before = entry.services.get(service)
    if (before !== undefined || entry.services.size < MAX_SERVICES)
      entry.services.set(service, (before ?? 0) + times)
  }

  get(prefix: string): PrefixDemand | null {
    return this.#entries.get(prefix) ?? null
  }

  entries(): Iterable<PrefixDemand> {
    return this.#entries.values()
  }

  #entryOf(prefix: string, nowMs: number): Entry {
    let entry = this.#entries.get(prefix)
    if (!entry) {
      while (this.#entries.size >= this.#maxPrefixes) this.#lowerAll()
      entry = { prefix, target: null, services: new Map(), count: 0, lastMs: nowMs }
      this.#entries.set(prefix, entry)
    }
    return entry
  }

  /** Each pass takes one from each count, and each query put one in: so its cost is O(1) a query. */
  #lowerAll(): void {
    for (const [prefix, entry] of this.#entries) if (--entry.count === 0) this.#entries.delete(prefix)
  }

  #halve(nowMs: number): void {
    this.#halvedMs = nowMs
    for (const [prefix, entry] of this.#entries) {
      entry.count = Math.floor(entry.count / 2)
      if (entry.count === 0) this.#entries.delete(prefix)
      for (const [service, count] of entry.services) {
        if (count < 2) entry.services.delete(service)
        else entry.services.set(service, Math.floor(count / 2))
      }
    }
  }
}
