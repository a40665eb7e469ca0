// What the DNS server counts, in memory that its threads share: named slots, a row for each thread.
//
// Invariant: a row has one writer, and every number only grows, so nothing needs a lock; who reads adds the
// rows up. Counting is a plain addition to an array and allocates nothing. Slots are doubles: whole up to
// 2^53, and written whole where 64-bit words are. Says nothing of what outcomes mean.

import type { Family } from './address.ts'
import { type AllDown, BASES, type Basis } from './directory.ts'
import { type Asker, DNS_OUTCOMES, type DnsFacts, type DnsOutcome } from './dns-answer.ts'
import { TYPE_LABELS, typeLabelAt } from './dns-terms.ts'
import { type Histogram, histogramSlots, observe, readHistogram } from './histogram.ts'

const ALL_DOWN_MODES: readonly AllDown['mode'][] = ['stale', 'fallback', 'empty']
/**
 * What happens beside the outcomes: replies too long for UDP, replies that the system would not send,
 * times that it would not hand packets over, and samples for the query log that there was no room for.
 */
const FAULTS = ['truncated', 'unsent', 'unreceived', 'unsampled'] as const
export type Fault = (typeof FAULTS)[number]
/** What became of responses that were too many for their askers; where limits only log, they were sent. */
const LIMITED = ['slip', 'drop'] as const
type Limited = (typeof LIMITED)[number]
/**
 * Which of those that fit, by predicted RTT, an answer put first: the nearest but for load, ties and the service's
 * policy. `unknown`: nothing was known of the client, or of that member.
 */
const RANKS = ['unknown', '1', '2', '3', '4-10', 'more'] as const
type Rank = (typeof RANKS)[number]
/** Bytes, as CoreDNS has them. */
const SIZE_LIMITS = [100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16_000, 32_000, 48_000, 64_000]
/** Seconds, from what one answer costs to what nobody waits for. */
const DURATION_LIMITS = [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1]
type Via = Asker['via']
const VIAS: readonly Via[] = ['udp', 'tcp']
const FAMILIES: readonly Family[] = [4, 6]

/** Where each list of slots begins; within it, they stand in the order of its names. */
export const SLOT = (() => {
  let next = 0
  const take = (count: number) => {
    next += count
    return next - count
  }
  return {
    udp: take(DNS_OUTCOMES.length),
    tcp: take(DNS_OUTCOMES.length),
    basis: take(BASES.length),
    allDown: take(ALL_DOWN_MODES.length),
    faults: take(FAULTS.length),
    limited: take(LIMITED.length),
    bytesIn: take(DNS_OUTCOMES.length),
    bytesOut: take(DNS_OUTCOMES.length),
    rank: take(RANKS.length),
    /** By transport, family and type. */
    requests: take(VIAS.length * FAMILIES.length * TYPE_LABELS.length),
    /** By transport. */
    querySizes: take(VIAS.length * histogramSlots(SIZE_LIMITS)),
    replySizes: take(VIAS.length * histogramSlots(SIZE_LIMITS)),
    durations: take(VIAS.length * histogramSlots(DURATION_LIMITS)),
    /** How many slots there are. */
    end: next,
  }
})()

/** By name, at which place of its list something is counted. */
export const OUTCOME_AT = placesOf(DNS_OUTCOMES)
const BASIS_AT = placesOf(BASES)
const FAULT_AT = placesOf(FAULTS)
const LIMITED_AT = placesOf(LIMITED)
const ALL_DOWN_AT = placesOf(ALL_DOWN_MODES)

const SIZE_SLOTS = histogramSlots(SIZE_LIMITS)

/** Rows begin on lines of the processor's cache that no two threads write to, bytes. */
const LINE_BYTES = 128
const ROW_BYTES = Math.ceil((8 * SLOT.end) / LINE_BYTES) * LINE_BYTES

/** All zeros. */
export function allocateCounters(rows: number): SharedArrayBuffer {
  return new SharedArrayBuffer(rows * ROW_BYTES)
}

/** The slots of one thread. */
export function counterRow(counters: SharedArrayBuffer, row: number): Float64Array {
  return new Float64Array(counters, row * ROW_BYTES, SLOT.end)
}

/** Counts a packet: under one outcome, what was asked, and what its answer stood on. `family`: of the asker. */
export function countFacts(row: Float64Array, facts: DnsFacts, via: Via, family: Family): void {
  const outcome = OUTCOME_AT[facts.outcome]
  row[SLOT[via] + outcome]!++
  const isTcp = via === 'tcp' ? 1 : 0
  const asked = 2 * isTcp + (family === 6 ? 1 : 0)
  row[SLOT.requests + asked * TYPE_LABELS.length + typeLabelAt(facts.type)]!++
  const { queryBytes, replyBytes } = facts
  const sizes = isTcp * SIZE_SLOTS
  observe(row, SLOT.querySizes + sizes, SIZE_LIMITS, queryBytes, 1)
  if (replyBytes > 0) observe(row, SLOT.replySizes + sizes, SIZE_LIMITS, replyBytes, 1)
  if (isTcp === 0) {
    row[SLOT.bytesIn + outcome]! += queryBytes
    row[SLOT.bytesOut + outcome]! += replyBytes
  }
  if (facts.truncated) countFault(row, 'truncated')
  if (facts.limited !== null) row[SLOT.limited + LIMITED_AT[facts.limited]]!++
  if (facts.basis !== null) {
    row[SLOT.basis + BASIS_AT[facts.basis]]!++
    row[SLOT.rank + rankAt(facts.rank)]!++
  }
  if (facts.allDown !== null) row[SLOT.allDown + ALL_DOWN_AT[facts.allDown]]!++
}

/** Counts how long so many packets took from when they were taken to when their replies were handed over, ms. */
export function countDuration(row: Float64Array, via: Via, ms: number, packets: number): void {
  const at = SLOT.durations + (via === 'tcp' ? histogramSlots(DURATION_LIMITS) : 0)
  observe(row, at, DURATION_LIMITS, ms / 1000, packets)
}

/** Which of RANKS. */
function rankAt(rank: number): number {
  if (rank <= 3) return rank
  return rank <= 10 ? 4 : 5
}

export function countFault(row: Float64Array, fault: Fault): void {
  row[SLOT.faults + FAULT_AT[fault]]!++
}

export interface DnsCounts {
  /** Packets by transport and outcome: their sum is all that was received. */
  readonly udp: Readonly<Record<DnsOutcome, number>>
  readonly tcp: Readonly<Record<DnsOutcome, number>>
  /** Answers that a selection was made for, by what it stood on. */
  readonly bases: Readonly<Record<Basis, number>>
  /** ... and those of them for services without a live member, by what was done about it. */
  readonly allDown: Readonly<Record<AllDown['mode'], number>>
  readonly faults: Readonly<Record<Fault, number>>
  readonly limited: Readonly<Record<Limited, number>>
  /** Over UDP: of queries and of their replies, without the headers of IP and UDP. */
  readonly bytesIn: Readonly<Record<DnsOutcome, number>>
  readonly bytesOut: Readonly<Record<DnsOutcome, number>>
  /** Answers that a selection was made for, by the place of the member that was put first. */
  readonly ranks: Readonly<Record<Rank, number>>
  /** Packets received by what was asked: all that there were any of. */
  requests(): RequestCount[]
  /** Bytes of each packet received, and of each reply; seconds that each took. */
  querySizes(via: Via): Histogram
  replySizes(via: Via): Histogram
  durations(via: Via): Histogram
}

interface RequestCount {
  readonly via: Via
  readonly family: Family
  /** One of TYPE_LABELS. */
  readonly type: string
  readonly count: number
}

/** All rows together, added up whenever a number is read. */
export function readCounters(counters: SharedArrayBuffer): DnsCounts {
  const rows = Array.from({ length: counters.byteLength / ROW_BYTES }, (_, row) => counterRow(counters, row))
  const sum = (slot: number) => rows.reduce((total, row) => total + row[slot]!, 0)
  return {
    udp: live(DNS_OUTCOMES, (at) => sum(SLOT.udp + at)),
    tcp: live(DNS_OUTCOMES, (at) => sum(SLOT.tcp + at)),
    bases: live(BASES, (at) => sum(SLOT.basis + at)),
    allDown: live(ALL_DOWN_MODES, (at) => sum(SLOT.allDown + at)),
    faults: live(FAULTS, (at) => sum(SLOT.faults + at)),
    limited: live(LIMITED, (at) => sum(SLOT.limited + at)),
    bytesIn: live(DNS_OUTCOMES, (at) => sum(SLOT.bytesIn + at)),
    bytesOut: live(DNS_OUTCOMES, (at) => sum(SLOT.bytesOut + at)),
    ranks: live(RANKS, (at) => sum(SLOT.rank + at)),
    requests: () => readRequests((at) => sum(SLOT.requests + at)),
    querySizes: (via) => histogramOf(SLOT.querySizes, SIZE_LIMITS, via, sum),
    replySizes: (via) => histogramOf(SLOT.replySizes, SIZE_LIMITS, via, sum),
    durations: (via) => histogramOf(SLOT.durations, DURATION_LIMITS, via, sum),
  }
}

function readRequests(count: (at: number) => number): RequestCount[] {
  let at = 0
  const all = VIAS.flatMap((via) =>
    FAMILIES.flatMap((family) => TYPE_LABELS.map((type) => ({ via, family, type, count: count(at++) }))),
  )
  return all.filter((request) => request.count > 0)
}

function histogramOf(
  slots: number,
  limits: readonly number[],
  via: Via,
  sum: (slot: number) => number,
): Histogram {
  const first = slots + VIAS.indexOf(via) * histogramSlots(limits)
  return readHistogram(limits, (at) => sum(first + at))
}

function placesOf<Name extends string>(names: readonly Name[]): Readonly<Record<Name, number>> {
  return Object.fromEntries(names.map((name, at) => [name, at])) as Record<Name, number>
}

/** A record whose numbers are read when they are asked for. */
function live<Name extends string>(
  names: readonly Name[],
  read: (at: number) => number,
): Record<Name, number> {
  const record = {} as Record<Name, number>
  for (const [at, name] of names.entries()) {
    Object.defineProperty(record, name, { enumerable: true, get: () => read(at) })
  }
  return record
}
