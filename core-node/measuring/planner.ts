// Planner: which host measures the way to which client next, for prefixes that clients really ask from.
//
// One probe after another, each time by the host that may be nearest given all RTTs in hand (see belief.ts),
// until no other can plausibly be nearer: by the bounds that the triangle inequality sets (Hotz 1994; Guyton
// and Schwartz, SIGCOMM 1995), or by what is hoped of it at best.
// Polite: budgets in total, a host, a prefix and its neighbourhood; the silent are left alone for a day.
// Pure but for its own memory: clock by argument, sends nothing.

import {
  type Address,
  contains,
  familyOf,
  formatPrefix,
  IPV4_OFFSET_BITS,
  localityPrefix,
  type Prefix,
  prefixOf,
  specialKind,
} from '../../resolver/address.ts'
import type { Tables } from '../../resolver/tables.ts'
import type { Demand, PrefixDemand } from './demand.ts'
import { type Candidate, rankCandidates } from './probe-candidates.ts'

export interface ProbeRules {
  readonly probesPerMinute: number
  readonly probesPerHostPerMinute: number
  /** Probes of one prefix in one round. Default: ROUND_PROBES. */
  readonly probesPerPrefix?: number
  /** Never probed. */
  readonly optOut: readonly Prefix[]
  /** Special and private ranges that may be probed all the same. */
  readonly allowPrivate: readonly Prefix[]
}

/** `host` is to measure the way to `address`, which stands for `prefix`. */
export interface ClientProbe {
  readonly host: string
  readonly prefix: string
  readonly address: Address
}

interface PrefixMemory {
  /** Host -> when it was asked last. */
  readonly askedMs: Map<string, number>
  /** Who was asked and has not reported yet. */
  waitingFor: string | null
  /** When a change was last seen. */
  wokenMs: number
  /** Probes in a row that nobody answered. */
  unanswered: number
  /** Not looked at before that, unless the tables' mapSerial is another than this by then; null: not even then. */
  restUntilMs: number
  wakeSerial: number | null
}

/** Probes of one prefix in one round: where finding the nearest of 20 stops getting better. */
const ROUND_PROBES = 9
const ROUND_MS = 6 * 3_600_000
/** A host's RTT to a prefix is measured anew after this, ms: routes change over days. */
const AGAIN_MS = 86_400_000
/** A prefix whose RTTs change all the time is begun anew no more often than this, ms. */
const WAKE_MS = 3_600_000
/** Hosts that must get no answer before a prefix counts as silent, and how long it is then left alone, ms. */
const SILENT_AFTER = 3
const SILENT_MS = 86_400_000
/** A prefix with nothing left to find out is looked at again after this, ms. */
const REST_MS = 10 * 60_000
/** A result that has not come by then never will (orders expire after 30 s), ms. */
const LOST_MS = 40_000
/** From all hosts together to one /24 (/48), and to one /16 (/32), a minute. */
const PER_PREFIX_PER_MINUTE = 12
const PER_NEIGHBOURHOOD_PER_MINUTE = 60
/** ... and to one AS, where announced prefixes were imported. */
const PER_AS_PER_MINUTE = 120
const NEIGHBOURHOOD_BITS = { 4: 16 + IPV4_OFFSET_BITS, 6: 32 } as const
/** Prefixes that one plan weighs up: bounds its time where hosts' budgets are spent and most are turned down. */
const MAX_CONSIDERED = 50
const MINUTE_MS = 60_000
/** Who found a budget spent is weighed up again after this, ms. */
const REFUSED_MS = 10_000
/** Hosts told by nextProbes. */
const TOLD_PROBES = 3

export class ProbePlanner {
  readonly #rules: ProbeRules
  readonly #isAble: (host: string) => boolean
  readonly #memory = new Map<string, PrefixMemory>()
  readonly #spent = new MinuteBudget()
  readonly #rested: string[] = []

  /** `isAble`: who can be asked at all; by default every host. */
  constructor(rules: ProbeRules, isAble: (host: string) => boolean = () => true) {
    this.#rules = rules
    this.#isAble = isAble
  }

  /** Prefixes that came to rest since the last call: the time to settle their incumbents (see localities.ts). */
  takeRested(): string[] {
    return this.#rested.splice(0)
  }

  /** What should be probed now: the prefixes that ask most first, one probe each, within the budgets. */
  plan(tables: Tables, demand: Demand, nowMs: number): ClientProbe[] {
    this.#forgetGone(demand, nowMs)
    const due: PrefixDemand[] = []
    for (const entry of demand.entries()) if (this.#isDue(tables, entry, nowMs)) due.push(entry)
    due.sort((a, b) => b.count - a.count || (a.prefix < b.prefix ? -1 : 1))
    const probes: ClientProbe[] = []
    let considered = 0
    for (const entry of due) {
      if (!this.#spent.has('all', this.#rules.probesPerMinute, nowMs)) break
      // A neighbourhood that has had its share must not hold up the others.
      const around = `around ${neighbourhoodOf(entry.target!)}`
      if (!this.#spent.has(around, PER_NEIGHBOURHOOD_PER_MINUTE, nowMs)) continue
      if (++considered > MAX_CONSIDERED) break
      const probe = this.#probeFor(tables, entry, nowMs)
      if (probe) probes.push(probe)
    }
    return probes
  }

  /** The result of a probe came: `answered` whether the target did. */
  hear(prefix: string, host: string, answered: boolean, nowMs: number): void {
    const memory = this.#memory.get(prefix)
    if (memory?.waitingFor !== host) return
    memory.waitingFor = null
    memory.unanswered = answered ? 0 : memory.unanswered + 1
    memory.restUntilMs = memory.unanswered >= SILENT_AFTER ? nowMs + SILENT_MS : nowMs
  }

  /** A way to a prefix has changed: the others may have too, so what was asked before counts no longer. At most once a WAKE_MS. */
  wake(prefix: string, nowMs: number): void {
    const memory = this.#memory.get(prefix)
    if (!memory || nowMs - memory.wokenMs < WAKE_MS || memory.unanswered >= SILENT_AFTER) return
    memory.wokenMs = nowMs
    memory.askedMs.clear()
    memory.wakeSerial = null
    if (memory.waitingFor === null) memory.restUntilMs = nowMs
  }

  /** Whether a prefix answers nobody, and should live on what its relatives know. */
  isSilent(prefix: string): boolean {
    return (this.#memory.get(prefix)?.unanswered ?? 0) >= SILENT_AFTER
  }

  /**
   * Hosts that would be asked next for a client, most promising first, were it in demand. None where it would
   * not be probed: at rest, silent, or this round's probes spent.
   */
  nextProbes(tables: Tables, client: Address, services: Iterable<string>, nowMs: number): string[] {
    const memory = this.#memory.get(formatPrefix(localityPrefix(client)))
    const isUnderWay = memory === undefined || memory.waitingFor !== null
    if (!isUnderWay && !isRested(tables, memory, nowMs)) return []
    const ranked = this.#rankOpen(tables, client, services, memory?.askedMs ?? new Map(), nowMs)
    return ranked.slice(0, TOLD_PROBES).map(({ row }) => tables.hostName(row))
  }

  #isDue(tables: Tables, { prefix, target }: PrefixDemand, nowMs: number): boolean {
    if (!target) return false
    const memory = this.#memory.get(prefix)
    return !memory || isRested(tables, memory, nowMs)
  }

  #probeFor(tables: Tables, { prefix, target, services }: PrefixDemand, nowMs: number): ClientProbe | null {
    const memory = this.#memoryOf(prefix)
    const address = target!
    const [next] = this.#rankOpen(tables, address, services.keys(), memory.askedMs, nowMs)
    if (!next) {
      memory.waitingFor = null
      if (memory.wakeSerial === null && memory.askedMs.size > 0) this.#rested.push(prefix)
      memory.restUntilMs = nowMs + REST_MS
      memory.wakeSerial = tables.hosts.mapSerial
      return null
    }
    const host = tables.hostName(next.row)
    if (!this.#spend(tables, host, prefix, address, nowMs)) {
      // Its turn comes again; until then others have theirs.
      memory.restUntilMs = nowMs + REFUSED_MS
      memory.wakeSerial = null
      return null
    }
    memory.askedMs.set(host, nowMs)
    memory.waitingFor = host
    memory.restUntilMs = nowMs + LOST_MS
    memory.wakeSerial = null
    return { host, prefix, address }
  }

  /** The hosts not asked lately, most promising first; none: nothing may, or can, be found out in this round. */
  #rankOpen(
    tables: Tables,
    address: Address,
    services: Iterable<string>,
    askedMs: ReadonlyMap<string, number>,
    nowMs: number,
  ): Candidate[] {
    if (!this.#mayProbe(tables, address)) return []
    let asked = 0
    for (const atMs of askedMs.values()) if (nowMs - atMs < ROUND_MS) asked++
    if (asked >= (this.#rules.probesPerPrefix ?? ROUND_PROBES)) return []
    const isOpen = (row: number) => {
      const name = tables.hostName(row)
      return nowMs - (askedMs.get(name) ?? Number.NEGATIVE_INFINITY) >= AGAIN_MS && this.#isAble(name)
    }
    return rankCandidates(tables, address, services, isOpen)
  }

  #mayProbe(tables: Tables, address: Address): boolean {
    const isIn = (prefix: Prefix) => contains(prefix, address)
    if (this.#rules.optOut.some(isIn)) return false
    if (specialKind(address) === null) return true
    return this.#rules.allowPrivate.some(isIn) || tables.hostRowAt(address) >= 0
  }

  /** Takes one probe out of every budget, or out of none. */
  #spend(tables: Tables, host: string, prefix: string, address: Address, nowMs: number): boolean {
    const asn = asnOf(tables, address)
    const limits: (readonly [string, number])[] = [
      ['all', this.#rules.probesPerMinute],
      [`host ${host}`, this.#rules.probesPerHostPerMinute],
      [`prefix ${prefix}`, PER_PREFIX_PER_MINUTE],
      [`around ${neighbourhoodOf(address)}`, PER_NEIGHBOURHOOD_PER_MINUTE],
    ]
    if (asn > 0) limits.push([`AS ${asn}`, PER_AS_PER_MINUTE])
    if (!limits.every(([key, limit]) => this.#spent.has(key, limit, nowMs))) return false
    for (const [key] of limits) this.#spent.spend(key)
    return true
  }

  #memoryOf(prefix: string): PrefixMemory {
    let memory = this.#memory.get(prefix)
    if (!memory) {
      memory = {
        askedMs: new Map(),
        waitingFor: null,
        wokenMs: Number.NEGATIVE_INFINITY,
        unanswered: 0,
        restUntilMs: 0,
        wakeSerial: null,
      }
      this.#memory.set(prefix, memory)
    }
    return memory
  }

  /** Who asks no more is forgotten, apart from the silent while they are to be left alone: so memory is bounded by demand. */
  #forgetGone(demand: Demand, nowMs: number): void {
    if (this.#memory.size <= 2 * demand.size) return
    for (const [prefix, memory] of this.#memory) {
      if (demand.get(prefix) !== null || memory.restUntilMs > nowMs) continue
      // Who was asked is kept for the round, else who asks seldom would be probed anew each time.
      if (Math.max(0, ...memory.askedMs.values()) + ROUND_MS <= nowMs) this.#memory.delete(prefix)
    }
  }
}

/** Whether a prefix's rest is over, or was cut short by hosts that came or moved. */
function isRested(tables: Tables, memory: PrefixMemory, nowMs: number): boolean {
  if (memory.restUntilMs <= nowMs) return true
  return memory.wakeSerial !== null && memory.wakeSerial !== tables.hosts.mapSerial
}

/** The AS that announces an address; 0: not known. */
function asnOf(tables: Tables, address: Address): number {
  const row = tables.places.find(address).value
  return row < 0 ? 0 : tables.places.asnOf(row)
}

function neighbourhoodOf(address: Address): string {
  return formatPrefix(prefixOf(address, NEIGHBOURHOOD_BITS[familyOf(address)]))
}

/** How much was spent of each budget in the last minute: what the minute before spent counts by how much of it is left. */
class MinuteBudget {
  #spent = new Map<string, number>()
  #before = new Map<string, number>()
  #startMs = Number.NEGATIVE_INFINITY

  has(key: string, limit: number, nowMs: number): boolean {
    this.#turn(nowMs)
    const left = 1 - (nowMs - this.#startMs) / MINUTE_MS
    return (this.#spent.get(key) ?? 0) + left * (this.#before.get(key) ?? 0) < limit
  }

  spend(key: string): void {
    this.#spent.set(key, (this.#spent.get(key) ?? 0) + 1)
  }

  #turn(nowMs: number): void {
    if (nowMs - this.#startMs < MINUTE_MS) return
    this.#before = nowMs - this.#startMs < 2 * MINUTE_MS ? this.#spent : new Map()
    this.#spent = new Map()
    this.#startMs = nowMs
  }
}
