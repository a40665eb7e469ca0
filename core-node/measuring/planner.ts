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
import type { Belief } from '../../resolver/belief.ts'
import { isByDistance } from '../../resolver/directory.ts'
import { type Kin, kinOf } from '../../resolver/kin.ts'
import { believed, type Locality, locate, predict } from '../../resolver/locate.ts'
import type { Tables } from '../../resolver/tables.ts'
import { MAX_RTT_MS } from '../../server-agent/protocol/messages.ts'
import type { Demand, PrefixDemand } from './demand.ts'

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
/**
 * A host is not worth asking when even this share of its lower bound is over the best RTT. Triangles are
 * broken, so less than 1: of 20 hosts on PlanetLab 0.35 asks 6.2 and finds 96%, 0.1 asks 8.0 and finds 97%.
 */
const TRIANGLE_SLACK = 0.1
/**
 * Nor is one that is hoped at over so much more than the best RTT: of 20 hosts on PlanetLab a ratio of 4 asks 6.9
 * in place of 8.0 and finds as many, 3 asks 6.4 and misses 0.3% more.
 */
const HOPELESS_RATIO = 4
const HOPELESS_MS = 10
/** Prefixes that one plan weighs up: bounds its time where hosts' budgets are spent and most are turned down. */
const MAX_CONSIDERED = 50
const MINUTE_MS = 60_000
/** Who found a budget spent is weighed up again after this, ms. */
const REFUSED_MS = 10_000
/**
 * Hosts of the client's own network that are asked first, and from which RTT on one of them is not near, ms:
 * what is announced as one spans a city or a small country, or it tells nothing.
 */
const MAX_KIN = 5
const KIN_MS = 25
/** A host in the client's own /24 (/48) and so near is beside it: nobody else is asked. */
const NEIGHBOUR_MS = 5
/** Hosts told by nextProbes. */
const TOLD_PROBES = 3
/** Hosts, and well measured prefixes, that stand for all when the most central is looked for. */
const CENTRE_SAMPLE = 64

export class ProbePlanner {
  readonly #rules: ProbeRules
  readonly #memory = new Map<string, PrefixMemory>()
  readonly #spent = new MinuteBudget()
  readonly #rested: string[] = []

  constructor(rules: ProbeRules) {
    this.#rules = rules
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
    const candidates = candidateRows(tables, services, familyOf(address))
    const isOpen = (row: number) =>
      nowMs - (askedMs.get(tables.hostName(row)) ?? Number.NEGATIVE_INFINITY) >= AGAIN_MS
    const isCandidate = new Set(candidates)
    const kin = kinOf(tables, address, (row) => isCandidate.has(row), MAX_KIN)
    return rankCandidates(tables, locate(tables, address), candidates, kin, isOpen)
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

/** Rows of the hosts whose distance to a client decides an answer: those of live members, with an agent and an address of its family. */
function candidateRows(tables: Tables, services: Iterable<string>, family: 4 | 6): number[] {
  const rows = new Set<number>()
  for (const name of services) {
    const serving = tables.service(name)
    if (!serving || !isByDistance(serving.service.policy)) continue
    for (const { host, state } of serving.members) if (state === 'live') rows.add(host)
  }
  return [...rows].filter((row) => {
    const host = tables.hosts.recordOf(row)
    return host?.agent && host.addresses.some((address) => address.includes(':') === (family === 6))
  })
}

/** A host and the distance that it may well have, ms. */
interface Candidate {
  readonly row: number
  readonly ms: number
}

/** Those of the candidates that `isOpen` says may be asked and that may yet be nearer than all measured, most promising first. */
function rankCandidates(
  tables: Tables,
  locality: Locality,
  candidates: readonly number[],
  kin: readonly Kin[],
  isOpen: (row: number) => boolean,
): Candidate[] {
  const rows = candidates.filter(isOpen)
  const known = tables.locality(locality.row)
  const measured: Candidate[] = []
  known?.evidence.forEach(({ count, rttMs, kind }, i) => {
    const row = known.evidenceHosts[i]!
    if (count > 0 && kind !== 'client' && !tables.hosts.isLiar(row)) measured.push({ row, ms: rttMs })
  })
  if (measured.some(({ row, ms }) => ms <= NEIGHBOUR_MS && kin.some((k) => k.row === row && k.isNeighbour)))
    return []
  // What hosts saw that serve no more still tells where the client is, but is nothing to be better than.
  const bestMs = Math.min(...measured.filter((m) => candidates.includes(m.row)).map((m) => m.ms))
  const ranked =
    measured.length > 0
      ? rankByBelief(believed(tables, known!, locality.place), bestMs, rows)
      : rankByPrior(tables, locality, rows)
  ranked.sort((a, b) => a.ms - b.ms || (tables.hostName(a.row) < tables.hostName(b.row) ? -1 : 1))
  const first = kinToAsk(kin, measured, isOpen)
  return [...first.map((row) => ({ row, ms: 0 })), ...ranked.filter(({ row }) => !first.includes(row))]
}

/** Kin are asked before all others as long as those that were asked are near: else their network is spread out. */
function kinToAsk(
  kin: readonly Kin[],
  measured: readonly Candidate[],
  isOpen: (row: number) => boolean,
): number[] {
  const rows = kin.map(({ row }) => row)
  return measured.some(({ row, ms }) => ms > KIN_MS && rows.includes(row)) ? [] : rows.filter(isOpen)
}

/** By what the RTTs in hand let hope. A host of which nothing is known may be anywhere: it is asked first. */
function rankByBelief(belief: Belief, bestMs: number, rows: readonly number[]): Candidate[] {
  return rows
    .map((row) => ({ row, ...belief.of(row) }))
    .filter(({ floorMs }) => TRIANGLE_SLACK * floorMs <= bestMs)
    .filter(({ hopeMs }) => !(hopeMs > HOPELESS_RATIO * bestMs + HOPELESS_MS))
    .map(({ row, hopeMs }) => ({ row, ms: Number.isNaN(hopeMs) ? 0 : hopeMs }))
}

/** Without an RTT: by the map; where that says nothing, the most central first, whose RTT tells most of the rest. */
function rankByPrior(tables: Tables, locality: Locality, rows: readonly number[]): Candidate[] {
  const sample = rows.slice(0, CENTRE_SAMPLE)
  const panel = [...tables.panel()].slice(0, CENTRE_SAMPLE)
  return rows.map((row) => {
    const { ms } = predict(tables, locality, row)
    if (!Number.isNaN(ms)) return { row, ms }
    const seenMs = sample
      .filter((other) => other !== row)
      .map((other) => tables.hosts.rttBetweenMs(row, other))
    for (const known of panel) seenMs.push(known.msByHost[row] ?? Number.NaN)
    // Behind all of which the map knows something.
    return { row, ms: MAX_RTT_MS + middleMs(seenMs.filter((seen) => !Number.isNaN(seen))) }
  })
}

/** A mean in which the near count more than the far: of square roots. Infinity of nothing. */
function middleMs(rttsMs: readonly number[]): number {
  if (rttsMs.length === 0) return Number.POSITIVE_INFINITY
  return (rttsMs.reduce((sum, ms) => sum + Math.sqrt(ms), 0) / rttsMs.length) ** 2
}
