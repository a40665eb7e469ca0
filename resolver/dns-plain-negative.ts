// Negative answers of the fast path: NXDOMAIN for names that no service has, NODATA, and REFUSED for what is not ours.
//
// They depend on nobody who asks, so what stands behind the question is made once for all questions that are alike, by
// what answerDns is made of, and copied. Whether a name is nothing is told by its labels' hashes, without a string of
// them: names made up at random, which are what floods ask for, cost no more than others. Invariant: what is not
// surely negative is null, for others to answer. RFC 2308, 8914.

import { CORE_SERVICE } from './directory.ts'
import { type DnsContext, type DnsOutcome, NOT_AUTHORITATIVE } from './dns-answer.ts'
import { RESPONSE, type ResponseKind } from './dns-limit.ts'
import { MOST_BEFORE_SERVICE, type ServiceName, type Zone } from './dns-name.ts'
import type { PlainNames } from './dns-plain-names.ts'
import { LOWER, type PlainQuery } from './dns-plain-query.ts'
import { MAILBOX, negative } from './dns-records.ts'
import { type Name, parseQuery, RCODE, type Rcode } from './dns-wire.ts'
import { DnsWriter, MAX_MESSAGE_BYTES } from './dns-writer.ts'
import { hashName, hashText } from './hash.ts'

/** One answer to many questions. */
export interface Negative {
  readonly rcode: Rcode
  /** QR, and AA or TC, as they stand in the first byte of the flags. */
  readonly flags: number
  readonly outcome: DnsOutcome
  readonly kind: ResponseKind
  /** The authority section: one SOA, or nothing. */
  readonly authority: Uint8Array
  /** Of the extended error (RFC 8914); 0: there is none. */
  readonly infoCode: number
  /** From where on in the name it is of one account (see ResponseLimiter.judge); nothing of an ERROR's. */
  readonly subjectAt: number
}

/** QR, and QR with AA, in the first byte of the flags. */
const RESPONSE_ONLY = 0x80
export const RESPONSE_AUTHORITATIVE = 0x84
const RESPONSE_TRUNCATED = 0x82

const NOTHING = {
  rcode: RCODE.NOERROR,
  flags: RESPONSE_ONLY,
  kind: RESPONSE.ERROR,
  authority: new Uint8Array(0),
  infoCode: 0,
  subjectAt: 0,
} as const
const NOT_OURS: Negative = {
  ...NOTHING,
  rcode: RCODE.REFUSED,
  outcome: 'refused',
  infoCode: NOT_AUTHORITATIVE,
}
/** What goes out in the place of one response too many: come by TCP. */
export const SLIPPED: Negative = { ...NOTHING, flags: RESPONSE_TRUNCATED, outcome: 'slipped' }

const UNDERSCORE = 0x5f
/** The label at hand. */
const letters = Buffer.alloc(63)
/** Names below these stand in an SOA, which then shares more of itself with the question than the zone. */
const IN_SOA: readonly number[] = [hashText(CORE_SERVICE) | 0, hashText(MAILBOX) | 0]

/** What was said of names at and below an apex: a zone, or an alias outside all of them. */
export interface ApexNegatives {
  readonly zone: Zone
  readonly apex: Name
  /** Of the SOA when these were made. */
  serial: number
  /** NXDOMAIN by how long the part of the name before the apex is, and NODATA. */
  readonly byOffset: Map<number, Negative>
}
const NODATA = -1

interface ZoneNegatives extends ApexNegatives {
  /** The zone's name as it stands in packets, in small letters. */
  readonly wire: Uint8Array
}

/** A name that is known to lead to a service. */
interface KnownName {
  readonly name: ServiceName
  readonly negatives: ApexNegatives
}

export class PlainNegatives {
  readonly #context: DnsContext
  readonly #known: PlainNames<KnownName>
  readonly #zones: readonly ZoneNegatives[]

  constructor(context: DnsContext, known: PlainNames<KnownName>) {
    this.#context = context
    this.#known = known
    this.#zones = context.zones.map((zone) => ({
      ...newNegatives({ zone, apex: zone.labels }),
      wire: wireOf(zone.labels),
    }))
  }

  /** For the name that a packet from `at` to before `end` asks for, which is no known one; null: it may lead somewhere. */
  ofName(packet: Uint8Array, at: number, end: number, { nameAt, nameEnd }: PlainQuery): Negative | null {
    for (const negatives of this.#zones) {
      const apexAt = nameEnd - negatives.wire.length
      if (apexAt < nameAt || !isThere(negatives.wire, packet, apexAt)) continue
      const labelAt = labelBefore(packet, nameAt, apexAt)
      // At the apex, or what looks like the zone begins within a label.
      if (labelAt < 0) return null
      const hash = hashLabel(packet, labelAt)
      if (IN_SOA.includes(hash)) return null
      const isNothing =
        !this.#context.tables.leadingLabels.mayHave(hash) ||
        this.#serviceAbove(packet, nameAt, labelAt, nameEnd) !== null
      return isNothing ? this.#find(negatives, apexAt - nameAt, packet, at, end) : null
    }
    return this.#outside(packet, at, end, nameAt, nameEnd)
  }

  /** For a name in none of the zones: an alias begins with one of its first labels, or it is not ours. */
  #outside(packet: Uint8Array, at: number, end: number, nameAt: number, nameEnd: number): Negative | null {
    let labelAt = nameAt
    for (let before = 0; before <= MOST_BEFORE_SERVICE && packet[labelAt] !== 0; before++) {
      if (this.#context.tables.leadingLabels.mayHave(hashLabel(packet, labelAt))) {
        const above = this.#serviceAbove(packet, nameAt, labelAt, nameEnd)
        return above && this.#find(above.negatives, labelAt - nameAt, packet, at, end)
      }
      labelAt += 1 + packet[labelAt]!
    }
    return NOT_OURS
  }

  /** The service whose known name begins at a label, where what stands before that is surely nothing of it; else null. */
  #serviceAbove(packet: Uint8Array, nameAt: number, labelAt: number, nameEnd: number): KnownName | null {
    const known = this.#known.find(packet, labelAt, nameEnd, hashName(packet, labelAt, nameEnd))
    if (known === null) return null
    const beforeAt = labelBefore(packet, nameAt, labelAt)
    // A port's or a report's, perhaps.
    if (packet[beforeAt + 1] === UNDERSCORE) return null
    const { service } = known.name.serving
    const isMember =
      beforeAt === nameAt && this.#context.tables.member(service.name, textOf(packet, nameAt)) !== null
    return isMember ? null : known
  }

  /** For a service's name, of a type that it has no records of: the packet from `at` to before `end` asks so. */
  ofService({ negatives }: KnownName, packet: Uint8Array, at: number, end: number): Negative {
    return this.#find(negatives, NODATA, packet, at, end)
  }

  #find(negatives: ApexNegatives, offset: number, packet: Uint8Array, at: number, end: number): Negative {
    const { zone, byOffset } = negatives
    if (negatives.serial !== zone.serial) {
      negatives.serial = zone.serial
      byOffset.clear()
    }
    let negative = byOffset.get(offset)
    if (negative === undefined) {
      negative = newNegative(negatives, offset, packet.subarray(at, end))
      byOffset.set(offset, negative)
    }
    return negative
  }
}

function newNegative({ zone, apex }: ApexNegatives, offset: number, packet: Uint8Array): Negative {
  const answer = { ...NOTHING, flags: RESPONSE_AUTHORITATIVE, authority: authorityOf(zone, apex, packet) }
  return offset === NODATA
    ? { ...answer, outcome: 'nodata', kind: RESPONSE.NODATA }
    : { ...answer, outcome: 'nxdomain', kind: RESPONSE.NXDOMAIN, rcode: RCODE.NXDOMAIN, subjectAt: offset }
}

export function newNegatives({ zone, apex }: Pick<ServiceName, 'zone' | 'apex'>): ApexNegatives {
  return { zone, apex, serial: -1, byOffset: new Map() }
}

/** Names and lengths of a name, as in packets. */
function wireOf(labels: Name): Uint8Array {
  return Uint8Array.from([...labels.flatMap((label) => [label.length, ...Buffer.from(label, 'latin1')]), 0])
}

/** Whether a name in small letters stands there, in letters of any case. */
function isThere(wire: Uint8Array, packet: Uint8Array, at: number): boolean {
  for (let i = 0; i < wire.length; i++) if (wire[i] !== LOWER[packet[at + i]!]) return false
  return true
}

/** Where the last label before `end` begins; -1: there is none, or `end` is within a label. */
function labelBefore(packet: Uint8Array, nameAt: number, end: number): number {
  let last = -1
  for (let at = nameAt; at < end; at += 1 + packet[at]!) last = at
  return last >= 0 && last + 1 + packet[last]! === end ? last : -1
}

function hashLabel(packet: Uint8Array, at: number): number {
  return hashName(packet, at + 1, at + 1 + packet[at]!)
}

/** A label in small letters. A short string: members are known by their names. */
function textOf(packet: Uint8Array, at: number): string {
  const length = packet[at]!
  for (let i = 0; i < length; i++) letters[i] = LOWER[packet[at + 1 + i]!]!
  return letters.toString('latin1', 0, length)
}

/** What stands behind the question of a packet in a negative answer: the SOA. */
function authorityOf(zone: Zone, apex: Name, packet: Uint8Array): Uint8Array {
  const query = parseQuery(packet)
  if (typeof query === 'string' || query.question === null)
    throw new Error('a plain question has no question')
  const writer = new DnsWriter(MAX_MESSAGE_BYTES)
  writer.header(0, 0)
  writer.question(packet, query.question)
  for (const record of negative(zone, apex, RCODE.NXDOMAIN).authority) writer.record('authority', record)
  // A copy: a part of the message would keep the pool alive that it was written to.
  return new Uint8Array(writer.finish().subarray(query.question.end))
}
