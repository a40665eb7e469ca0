// Localities: RTTs to client prefixes, folded to what is worth remembering.
//
// Each report adds samples to a (prefix, host) pair; of the last few the lower quartile is taken, since
// queues only ever add. What changed enough to alter an answer is published as a LocalityRecord; the
// rest goes no further. Prefixes that are measured now are remembered with their samples; the others rest: of them
// nothing is known but what is published. Both are bounded: what was longest neither measured nor asked from goes
// first. Pure but for its own memory: clock by argument, no I/O.

import {
  familyOf,
  formatPrefix,
  IPV4_OFFSET_BITS,
  type Prefix,
  parsePrefix,
  prefixOf,
} from '../../resolver/address.ts'
import { ANY_ASK } from '../../resolver/ask.ts'
import { type Change, type Evidence, isByDistance, type LocalityRecord } from '../../resolver/directory.ts'
import { locate, trustOf } from '../../resolver/locate.ts'
import { select } from '../../resolver/select.ts'
import type { Tables } from '../../resolver/tables.ts'
import { MAX_RTT_MS } from '../../server-agent/protocol/messages.ts'

/** RTTs from one host to one client prefix. */
export interface Report {
  readonly prefix: Prefix
  readonly host: string
  readonly rttsMs: readonly number[]
  readonly kind: Evidence['kind']
}

/** Why a report was not taken: no sane RTT in it, or a better kind of evidence is at hand. */
export type ReportRefusal = 'bad-rtt' | 'outranked'

interface Pair {
  kind: Evidence['kind']
  /** The last samples, oldest first; for an inherited one its only RTT. */
  samplesMs: number[]
  /** Samples ever; 0: inherited from a relative. */
  count: number
  atMs: number
}

interface PrefixMemory {
  readonly prefix: Prefix
  readonly pairs: Map<string, Pair>
  /** As it was published last; null: it was not. */
  told: LocalityRecord | null
}

/** Samples that the quartile is taken of: enough to outvote two lies, few enough to follow a new path in two probes. */
const WINDOW = 8
/** Hosts kept for one prefix: what nine probes and the members it really uses find out, with room to spare. */
const MAX_HOSTS = 32
/** Prefixes kept: some hundred bytes each ... */
const MAX_PREFIXES = 1_200_000
/** ... and so many of them with their samples: about 1 kB each. */
const MAX_AWAKE = 100_000
/** Evidence older than this says little of today's routes, ms. */
const MAX_AGE_MS = 7 * 86_400_000
/** So long a better kind of evidence keeps a lesser one out, ms. */
const OUTRANKS_MS = 86_400_000
const RANK: Readonly<Record<Evidence['kind'], number>> = { active: 2, passive: 1, client: 0 }
/** Told anew when it moved by so much (what ties and re-measuring differ by), or once its time stamp is so old. */
const TELL_MS = 1
const TELL_SHARE = 0.1
const TELL_AGE_MS = 6 * 3_600_000
/** A way has changed when its RTT did by so much: what hysteresis takes for a clear gain. */
const MOVED_MS = 10
const MOVED_SHARE = 0.2
/** Prefixes within one /20 (IPv6: /40) are mostly one network in one place. */
const RELATIVE_BITS = { 4: 20 + IPV4_OFFSET_BITS, 6: 40 } as const
/** Localities are so long: /24 and /48. */
const OWN_BITS = { 4: 24 + IPV4_OFFSET_BITS, 6: 48 } as const
/** With so many hosts of its own a prefix no longer needs its relatives' word. */
const OWN_ENOUGH = 3

export class Localities {
  /** What all cores know, as it is now: whoever made this keeps it up. */
  readonly #published: ReadonlyMap<string, LocalityRecord>
  /** Those that are measured now, the least recently used first. */
  readonly #prefixes = new Map<string, PrefixMemory>()
  /** How many of them are not published. */
  #untold = 0
  /** Of those at rest, what was asked from or came to rest since the start, the least recently first. */
  readonly #recent = new Set<string>()
  /** The others at rest, which go before them; null: not begun. */
  #untouched: Iterator<string> | null = null
  /** Published, and to be told to be gone. */
  readonly #forgotten = new Set<string>()
  /** Host -> the prefixes that it has a pair with: its going costs those, not all. */
  readonly #measuredBy = new Map<string, Set<string>>()
  readonly #changed = new Set<string>()
  readonly #moved = new Set<string>()
  readonly #maxPrefixes: number
  readonly #maxAwake: number

  constructor(
    published: ReadonlyMap<string, LocalityRecord>,
    maxPrefixes: number = MAX_PREFIXES,
    maxAwake: number = MAX_AWAKE,
  ) {
    this.#published = published
    this.#maxPrefixes = maxPrefixes
    this.#maxAwake = maxAwake
  }

  get size(): number {
    return this.#published.size - this.#forgotten.size + this.#untold
  }

  /**
   * What is published of a prefix by now, here or by another core: what other cores' hosts saw is taken as it is, what
   * this one's did is remembered better here. Tells nothing anew.
   */
  hear(prefix: string, record: LocalityRecord | null, isOwn: (host: string) => boolean): void {
    const memory = this.#prefixes.get(prefix)
    if (memory === undefined) {
      this.#forgotten.delete(prefix)
      if (record === null) this.#recent.delete(prefix)
      else this.#recent.add(prefix)
      this.#bound()
      return
    }
    this.#setTold(memory, record)
    const told = new Map(record?.evidence.map((it) => [it.host, it]))
    for (const host of [...memory.pairs.keys()]) {
      if (!told.has(host) && !isOwn(host)) this.#dropPair(memory, host)
    }
    for (const [host, { rttMs, count, atMs, kind }] of told) {
      const known = memory.pairs.get(host)
      const isAsTold = known?.kind === kind && known.count === count && known.atMs === atMs
      if (isAsTold || (known !== undefined && isOwn(host))) continue
      this.#setPair(memory, host, pairOf({ host, rttMs, count, atMs, kind }))
    }
  }

  /** Takes a report in. Samples that no network gives are left out; a client's own report counts as one sample. */
  fold(report: Report, nowMs: number): ReportRefusal | null {
    const sane = report.rttsMs.filter((rtt) => rtt >= 0 && rtt <= MAX_RTT_MS)
    if (sane.length === 0) return 'bad-rtt'
    const memory = this.#memoryOf(report.prefix)
    const pair = memory.pairs.get(report.host)
    if (pair && pair.count > 0 && RANK[pair.kind] > RANK[report.kind] && nowMs - pair.atMs < OUTRANKS_MS) {
      return 'outranked'
    }
    const samples = report.kind === 'client' ? [Math.min(...sane)] : sane
    const isNew = !pair || pair.count === 0 || pair.kind !== report.kind
    const before = isNew ? { samplesMs: [], count: 0 } : pair
    if (!isNew && hasMoved(quartileMs(before.samplesMs), quartileMs(samples))) {
      this.#moved.add(formatPrefix(report.prefix))
    }
    memory.pairs.delete(report.host)
    this.#setPair(memory, report.host, {
      kind: report.kind,
      samplesMs: [...before.samplesMs, ...samples].slice(-WINDOW),
      count: before.count + samples.length,
      atMs: nowMs,
    })
    this.#tidy(memory)
    this.#changed.add(formatPrefix(report.prefix))
    return null
  }

  /** A client asked from there: it is not to be forgotten soon. */
  touch(prefix: string): void {
    const memory = this.#prefixes.get(prefix)
    if (memory !== undefined) {
      this.#prefixes.delete(prefix)
      this.#prefixes.set(prefix, memory)
    } else if (this.#resting(prefix) !== null) {
      this.#recent.delete(prefix)
      this.#recent.add(prefix)
    }
  }

  /**
   * Lends a prefix without evidence of its own what the best measured of its relatives in the tree
   * knows, marked by count 0. False: it has its own, or no relative has any.
   */
  inherit(prefix: Prefix): boolean {
    const text = formatPrefix(prefix)
    let best: PrefixMemory | null = null
    if (hasOwn(this.#known(text))) return false
    for (const other of relativesOf(prefix)) {
      const memory = other === text ? undefined : this.#known(other)
      if (hasOwn(memory) && ownCount(memory!) > (best ? ownCount(best) : 0)) best = memory!
    }
    if (!best) return false
    const memory = this.#memoryOf(prefix)
    for (const [host, pair] of best.pairs) {
      if (pair.count > 0)
        this.#setPair(memory, host, { ...pair, samplesMs: [quartileMs(pair.samplesMs)], count: 0 })
    }
    this.#changed.add(text)
    return true
  }

  /** A host is gone: what it saw is nobody's evidence any more. */
  forgetHost(host: string): void {
    for (const text of this.#measuredBy.get(host) ?? []) {
      this.#prefixes.get(text)!.pairs.delete(host)
      this.#changed.add(text)
    }
    this.#measuredBy.delete(host)
  }

  /** Prefixes of which an RTT came in that is clearly another than before, since the last call: their ways have changed. */
  takeMoved(): string[] {
    const moved = [...this.#moved]
    this.#moved.clear()
    return moved
  }

  /** Forgets what was measured of a prefix; what was published of it is told to be gone. */
  forgetPrefix(prefix: string): void {
    if (this.#prefixes.has(prefix) || this.#resting(prefix) !== null) this.#forget(prefix)
  }

  /** The records of all prefixes that changed enough since they were published. */
  publish(nowMs: number): Change[] {
    const changes: Change[] = []
    for (const text of this.#changed) {
      const memory = this.#prefixes.get(text)
      if (memory === undefined && this.#resting(text) !== null) continue
      const before = this.#published.get(text)
      const evidence = memory ? this.#evidenceOf(memory, nowMs) : []
      if (!isWorthTelling(before?.evidence ?? [], evidence)) continue
      const value = evidence.length === 0 ? null : { ...blank(text), ...before, evidence }
      if (memory) this.#setTold(memory, value)
      changes.push({ kind: 'localities', key: text, value })
    }
    this.#changed.clear()
    this.#forgotten.clear()
    return changes
  }

  #memoryOf(prefix: Prefix): PrefixMemory {
    const text = formatPrefix(prefix)
    const known = this.#prefixes.get(text)
    this.#prefixes.delete(text)
    const memory = known ?? this.#wake(prefix, text)
    this.#prefixes.set(text, memory)
    this.#bound()
    return memory
  }

  #wake(prefix: Prefix, text: string): PrefixMemory {
    const told = this.#resting(text)
    const memory = { prefix, pairs: new Map(), told }
    if (told === null) this.#untold++
    for (const it of told?.evidence ?? []) this.#setPair(memory, it.host, pairOf(it))
    this.#forgotten.delete(text)
    this.#recent.delete(text)
    return memory
  }

  /** What is published of one at rest; null: nothing, or it is to be told to be gone. */
  #resting(text: string): LocalityRecord | null {
    if (this.#prefixes.has(text) || this.#forgotten.has(text)) return null
    const record = this.#published.get(text)
    return record !== undefined && record.evidence.length > 0 ? record : null
  }

  #setTold(memory: PrefixMemory, told: LocalityRecord | null): void {
    this.#untold += Number(told === null) - Number(memory.told === null)
    memory.told = told
  }

  /** Those longest not measured come to rest as they were published; of too many in all the longest not asked from go. */
  #bound(): void {
    if (this.#prefixes.size > this.#maxAwake) {
      const [text, memory] = this.#prefixes.entries().next().value!
      this.#drop(text, memory)
      if (memory.told !== null) this.#recent.add(text)
    }
    if (this.size > this.#maxPrefixes) this.#forget(this.#oldest())
  }

  #oldest(): string {
    this.#untouched ??= this.#published.keys()
    for (let next = this.#untouched.next(); !next.done; next = this.#untouched.next()) {
      if (!this.#recent.has(next.value) && this.#resting(next.value) !== null) return next.value
    }
    const oldest = this.#recent.size > 0 ? this.#recent : this.#prefixes
    return oldest.keys().next().value!
  }

  /** What is remembered of a prefix, without waking it. */
  #known(text: string): PrefixMemory | undefined {
    const told = this.#resting(text)
    if (told === null) return this.#prefixes.get(text)
    const pairs = new Map(told.evidence.map((it) => [it.host, pairOf(it)]))
    return { prefix: parsePrefix(text)!, pairs, told }
  }

  #setPair(memory: PrefixMemory, host: string, pair: Pair): void {
    memory.pairs.set(host, pair)
    const text = formatPrefix(memory.prefix)
    const prefixes = this.#measuredBy.get(host)
    if (prefixes) prefixes.add(text)
    else this.#measuredBy.set(host, new Set([text]))
  }

  #dropPair(memory: PrefixMemory, host: string): void {
    memory.pairs.delete(host)
    const prefixes = this.#measuredBy.get(host)
    prefixes?.delete(formatPrefix(memory.prefix))
    if (prefixes?.size === 0) this.#measuredBy.delete(host)
  }

  /** Drops what relatives lent once there is enough of its own, and the oldest of too many hosts. */
  #tidy(memory: PrefixMemory): void {
    const { pairs } = memory
    const own = [...pairs.values()].filter((pair) => pair.count > 0).length
    if (own >= OWN_ENOUGH)
      for (const [host, pair] of pairs) if (pair.count === 0) this.#dropPair(memory, host)
    while (pairs.size > MAX_HOSTS) this.#dropPair(memory, leastTelling(pairs))
  }

  #evidenceOf(memory: PrefixMemory, nowMs: number): Evidence[] {
    for (const [host, { atMs }] of memory.pairs) if (nowMs - atMs > MAX_AGE_MS) this.#dropPair(memory, host)
    const evidence = Array.from(memory.pairs, ([host, { kind, samplesMs, count, atMs }]) => {
      return { host, rttMs: quartileMs(samplesMs), count, atMs, kind }
    })
    return evidence.sort((a, b) => a.rttMs - b.rttMs || (a.host < b.host ? -1 : 1))
  }

  #forget(text: string): void {
    const memory = this.#prefixes.get(text)
    if (memory) this.#drop(text, memory)
    if (this.#published.has(text)) this.#forgotten.add(text)
    this.#recent.delete(text)
    this.#changed.add(text)
  }

  #drop(text: string, memory: PrefixMemory): void {
    this.#letGo(memory)
    this.#prefixes.delete(text)
    if (memory.told === null) this.#untold--
  }

  #letGo(memory: PrefixMemory): void {
    for (const host of [...memory.pairs.keys()]) this.#dropPair(memory, host)
  }
}

function pairOf({ rttMs, count, atMs, kind }: Evidence): Pair {
  return { kind, samplesMs: [rttMs], count, atMs }
}

/**
 * Which members the clients of a prefix are kept on from now on, after its estimates were published and
 * applied: where select now puts them, which honours the old one unless another is clearly better. Null: as before.
 */
export function settleIncumbents(
  tables: Tables,
  record: LocalityRecord,
  services: Iterable<string>,
): Change | null {
  const prefix = parsePrefix(record.prefix)
  if (!prefix) return null
  const locality = locate(tables, prefix.address)
  const incumbents: Record<string, string> = {}
  for (const [service, member] of Object.entries(record.incumbents)) {
    if (tables.member(service, member)) incumbents[service] = member
  }
  for (const name of services) {
    const serving = tables.service(name)
    if (!serving || !isByDistance(serving.service.policy)) continue
    const { picks, dropped } = select(tables, serving, locality, ANY_ASK, () => 0)
    const [first] = picks
    // Who only sheds for a while gets its clients back.
    const old = incumbents[serving.service.name]
    if (dropped.some(({ member, reason }) => member.name === old && reason === 'full')) continue
    if (first?.basis === 'measured') incumbents[serving.service.name] = first.member.name
  }
  if (sameEntries(incumbents, record.incumbents)) return null
  return { kind: 'localities', key: record.prefix, value: { ...record, incumbents } }
}

function sameEntries(a: Readonly<Record<string, string>>, b: Readonly<Record<string, string>>): boolean {
  const keys = Object.keys(a)
  return keys.length === Object.keys(b).length && keys.every((key) => a[key] === b[key])
}

/** Whether an RTT is another than before by more than queues and chance make of it. */
function hasMoved(beforeMs: number, nowMs: number): boolean {
  return Math.abs(nowMs - beforeMs) > Math.max(MOVED_MS, MOVED_SHARE * beforeMs)
}

/** The lower quartile (up to three: the least): queues only add, and one lie too low among four does not count. */
export function quartileMs(samplesMs: readonly number[]): number {
  return samplesMs.toSorted((a, b) => a - b)[Math.floor(samplesMs.length / 4)]!
}

function isWorthTelling(before: readonly Evidence[], now: readonly Evidence[]): boolean {
  if (before.length !== now.length) return true
  const byHost = new Map(before.map((e) => [e.host, e]))
  return now.some((e) => {
    const old = byHost.get(e.host)
    if (!old || old.kind !== e.kind || trustOf(old) !== trustOf(e)) return true
    const movedMs = Math.abs(e.rttMs - old.rttMs)
    return movedMs > Math.max(TELL_MS, TELL_SHARE * old.rttMs) || e.atMs - old.atMs > TELL_AGE_MS
  })
}

/** Of too many hosts: the least believed kind, and of that the farthest, which says least of who is near. */
function leastTelling(pairs: ReadonlyMap<string, Pair>): string {
  const [first, ...others] = [...pairs].map(([host, { kind, samplesMs }]) => {
    return { host, rank: RANK[kind], ms: quartileMs(samplesMs) }
  })
  return others.reduce(
    (least, it) => (it.rank < least.rank || (it.rank === least.rank && it.ms > least.ms) ? it : least),
    first!,
  ).host
}

function hasOwn(memory: PrefixMemory | undefined): boolean {
  return memory !== undefined && ownCount(memory) > 0
}

function ownCount({ pairs }: PrefixMemory): number {
  let count = 0
  for (const pair of pairs.values()) if (pair.count > 0) count++
  return count
}

/** The localities around a prefix, itself among them. */
function* relativesOf({ address }: Prefix): Iterable<string> {
  const family = familyOf(address)
  const { address: first } = prefixOf(address, RELATIVE_BITS[family])
  const at = OWN_BITS[family] / 8 - 1
  for (let i = 0; i < 2 ** (OWN_BITS[family] - RELATIVE_BITS[family]); i++) {
    const relative = first.slice()
    relative[at] = first[at]! | i
    yield formatPrefix({ address: relative, bits: OWN_BITS[family] })
  }
}

function blank(prefix: string): LocalityRecord {
  return { prefix, evidence: [], incumbents: {} }
}
