// What the DNS server counts, in memory that its threads share: named slots, a row for each thread.
//
// Invariant: a row has one writer, and every number only grows, so nothing needs a lock; who reads adds the
// rows up. Counting is a plain addition to an array and allocates nothing. Slots are doubles: whole up to
// 2^53, and written whole where 64-bit words are. Says nothing of what outcomes mean.

import { type AllDown, BASES, type Basis } from './directory.ts'
import { type Asker, DNS_OUTCOMES, type DnsFacts, type DnsOutcome } from './dns-answer.ts'

const ALL_DOWN_MODES: readonly AllDown['mode'][] = ['stale', 'fallback', 'empty']
/**
 * What happens beside the outcomes: replies too long for UDP, replies that the system would not send, and
 * times that it would not hand packets over.
 */
const FAULTS = ['truncated', 'unsent', 'unreceived'] as const
type Fault = (typeof FAULTS)[number]
/** What became of responses that were too many for their askers; where limits only log, they were sent. */
const LIMITED = ['slip', 'drop'] as const
type Limited = (typeof LIMITED)[number]

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

/** Counts a packet: under one outcome, and what its answer stood on. */
export function countFacts(row: Float64Array, facts: DnsFacts, via: Asker['via']): void {
  row[SLOT[via] + OUTCOME_AT[facts.outcome]]!++
  if (facts.truncated) countFault(row, 'truncated')
  if (facts.limited !== null) countLimited(row, facts.limited)
  if (facts.basis !== null) row[SLOT.basis + BASIS_AT[facts.basis]]!++
  if (facts.allDown !== null) row[SLOT.allDown + ALL_DOWN_AT[facts.allDown]]!++
}

export function countFault(row: Float64Array, fault: Fault): void {
  row[SLOT.faults + FAULT_AT[fault]]!++
}

export function countLimited(row: Float64Array, limited: Limited): void {
  row[SLOT.limited + LIMITED_AT[limited]]!++
}

/** What a spoofed source could gain: bytes over UDP, by outcome. */
export function countBytes(
  row: Float64Array,
  outcome: DnsOutcome,
  queryBytes: number,
  replyBytes: number,
): void {
  row[SLOT.bytesIn + OUTCOME_AT[outcome]]! += queryBytes
  row[SLOT.bytesOut + OUTCOME_AT[outcome]]! += replyBytes
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
  }
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
