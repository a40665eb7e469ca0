// The fast path of the DNS server: plain questions, most of them for a service's addresses, answered from numbers into bytes.
//
// Invariant: a reply is byte for byte what answerDns would send (a test asks both), or there is none and answerDns
// is to be asked. Nothing is allocated for a packet, and nothing is placed unless all of it fits. What it keeps
// between packets (names, layouts of services, cells of clients, decisions) is made from the tables when it is first
// needed, by the same functions that all else uses, and checked against their serials. UDP only.

import { type Address, type Family, IPV4_OFFSET_BITS } from './address.ts'
import { AnswerMemo, MEMO_ADDRESSES } from './answer-memo.ts'
import { CellChoices } from './cell-choices.ts'
import { CellLists } from './cell-lists.ts'
import { ClientCells } from './client-cells.ts'
import { chosen } from './contenders.ts'
import type { DnsContext, DnsFacts } from './dns-answer.ts'
import { COOKIE_BYTES, COOKIE_PROVEN, placeCookie } from './dns-cookie.ts'
import { RESPONSE, type ResponseKind } from './dns-limit.ts'
import { meaningOf, type ServiceName } from './dns-name.ts'
import { PlainNames } from './dns-plain-names.ts'
import {
  type ApexNegatives,
  type Negative,
  newNegatives,
  PlainNegatives,
  RESPONSE_AUTHORITATIVE,
  SLIPPED,
} from './dns-plain-negative.ts'
import { PlainQuery } from './dns-plain-query.ts'
import { answerService, type DnsAnswer } from './dns-records.ts'
import {
  CLASS,
  HEADER_BYTES,
  MAX_UDP_BYTES,
  OPTION,
  parseQuery,
  RCODE,
  TYPE,
  udpReplyBytes,
} from './dns-wire.ts'
import { OPT_FIXED_BYTES } from './dns-writer.ts'
import { hashName } from './hash.ts'
import { MARKS } from './member-index.ts'
import { NearChoice } from './near-choice.ts'
import type { ServingMember, ServingService, TabledService } from './serving.ts'

/** There is no plain answer. */
export const NOT_PLAIN = -1

/** Owner, type, class, TTL and length of a record whose owner is the question's name. */
const RECORD_BYTES = 12
const OPTION_HEAD_BYTES = 4
/** An extended error without words: its code alone. */
const INFO_CODE_BYTES = 2
const POINTER_TO_QUESTION = 0xc000 | HEADER_BYTES
const DNSSEC_OK = 0x8000

/** A service as plain questions ask for it, by any of its names. */
interface Plain extends Lacking {
  readonly serving: TabledService
  /** Its number in the memo. */
  readonly slot: number
  /** Of the service when the layouts were made. */
  serial: number
  near4: NearChoice | CellChoices | null
  near6: NearChoice | CellChoices | null
}

/** Whether there are members to choose from, and none of them has such an address, or a URL. */
interface Lacking {
  lacks4: boolean
  lacks6: boolean
  lacksUrl: boolean
}

interface Named {
  readonly name: ServiceName
  readonly plain: Plain
  /** What was said of what there is not of it, or below it. */
  readonly negatives: ApexNegatives
}

export class PlainAnswers {
  /** Of the last reply; its addresses are written over by the next. */
  readonly facts: { -readonly [K in keyof DnsFacts]: DnsFacts[K] } = {
    outcome: 'answered',
    type: 0,
    // Names are for those whose questions are told of one by one, which are none of these.
    labels: null,
    service: null,
    client: null,
    bySubnet: false,
    basis: null,
    member: null,
    ms: Number.NaN,
    rank: 0,
    allDown: null,
    queryBytes: 0,
    replyBytes: 0,
    truncated: false,
    limited: null,
    isProven: false,
  }

  readonly #context: DnsContext
  readonly #query = new PlainQuery()
  readonly #names = new PlainNames<Named>()
  readonly #plains = new Map<TabledService, Plain>()
  #namesSerial = -1
  #slots = 0
  readonly #cells: ClientCells
  readonly #negatives: PlainNegatives
  readonly #memo = new AnswerMemo()
  /** Of large services; made when the first of them is asked for. */
  #lists: CellLists | null = null

  /** The decision at hand: it is negative, or addresses come from a layout, or from a place in the memo. */
  #negative: Negative | null = null
  #near: NearChoice | CellChoices | null = null
  #place = -1
  #count = 0
  #ttlSec = 0
  #scopeBits = 0

  constructor(context: DnsContext) {
    this.#context = context
    this.#cells = new ClientCells(context.tables)
    this.#negatives = new PlainNegatives(context, this.#names)
  }

  /**
   * Answers the packet in `packet` from `at` to before `end` into `out` from `to` to before `outEnd`. How many bytes
   * the reply has, or NOT_PLAIN: then `out` is as it was.
   */
  answer(
    packet: Uint8Array,
    at: number,
    end: number,
    asker: Address,
    out: Uint8Array,
    to: number,
    outEnd: number,
  ): number {
    const query = this.#query
    if (!query.read(packet, at, end)) return NOT_PLAIN
    const client = query.subnetAt !== 0 ? query.client : asker
    let named = this.#findName(packet)
    this.#negative = named === null ? this.#negatives.ofName(packet, at, end, query) : null
    if (this.#negative === null) {
      named ??= this.#learnName(packet, at, end)
      if (named === null) return NOT_PLAIN
      this.#negative = this.#nodata(named, packet, at, end)
    }
    if (this.#negative !== null) {
      this.#nameNobody()
      if (named !== null) this.#noteLack(named, client)
    } else if (!this.#decide(named!, client)) return NOT_PLAIN
    return this.#write(packet, at, end, asker, out, to, outEnd)
  }

  // What is asked.

  /** What the name leads to, if that was learnt before. */
  #findName(packet: Uint8Array): Named | null {
    const { tables } = this.#context
    if (this.#namesSerial !== tables.namesSerial) {
      this.#namesSerial = tables.namesSerial
      this.#names.clear()
      // What large services are known by takes long to be found out anew.
      for (const serving of this.#plains.keys())
        if (tables.service(serving.service.name) !== serving) this.#plains.delete(serving)
    }
    const { nameAt, nameEnd, nameHash } = this.#query
    return this.#names.find(packet, nameAt, nameEnd, nameHash)
  }

  /** What the name leads to; null: not to a service's addresses. */
  #learnName(packet: Uint8Array, at: number, end: number): Named | null {
    const { nameAt, nameEnd, nameHash } = this.#query
    const named = this.#look(packet.subarray(at, end))
    if (named !== null) this.#names.add(packet, nameAt, nameEnd, nameHash, named)
    return named
  }

  #look(packet: Uint8Array): Named | null {
    const query = parseQuery(packet)
    if (typeof query === 'string' || query.question === null) return null
    const { tables, zones } = this.#context
    const meaning = meaningOf(tables, zones, query.question.labels)
    if (meaning.kind !== 'service') return null
    const serving = tables.service(meaning.serving.service.name)!
    let plain = this.#plains.get(serving)
    if (plain === undefined) {
      plain = newPlain(serving, this.#slots++)
      this.#plains.set(serving, plain)
    }
    return { name: meaning, plain, negatives: newNegatives(meaning) }
  }

  // What is answered.

  /** What is answered where the service has none of what is asked for; null: it may have it. */
  #nodata(named: Named, packet: Uint8Array, at: number, end: number): Negative | null {
    const { plain } = named
    if (plain.serial !== plain.serving.serial) this.#layOut(plain)
    return lacks(plain, this.#query.type) ? this.#negatives.ofService(named, packet, at, end) : null
  }

  /** Nobody is named, and of no service. */
  #nameNobody(): void {
    const { facts } = this
    this.#count = this.#scopeBits = 0
    facts.service = facts.client = facts.basis = null
    facts.rank = 0
  }

  /** Notes of a negative answer what answerDns says: whose name it is, and for whom a member was looked for. */
  #noteLack({ plain }: Named, client: Address): void {
    const { facts } = this
    facts.service = plain.serving.service.name
    if (!isChosen(this.#query.type)) return
    facts.client = client
    facts.basis = 'none'
  }

  /** Decides, and notes where the addresses come from. False: it is no plain answer. */
  #decide(named: Named, client: Address): boolean {
    const { type } = this.#query
    if (type !== TYPE.A && type !== TYPE.AAAA) return false
    const { plain } = named
    const family = type === TYPE.A ? 4 : 6
    this.facts.service = plain.serving.service.name
    this.facts.client = client
    const near = this.#nearChoice(plain, family, client)
    const cells = this.#cells
    if (near?.choose(client, cells.cell, cells.scopeBits)) {
      this.#near = near
      this.#count = chosen.count
      this.#scopeBits = chosen.scopeBits
      this.#ttlSec = near.ttlSec
      this.facts.basis = 'geo'
      this.facts.rank = chosen.rank
      return true
    }
    this.#near = null
    return this.#remember(named, family, client)
  }

  /** What chooses for a client of whom only the cell is known, which then stands in #cells; null: nothing does. */
  #nearChoice({ near4, near6 }: Plain, family: Family, client: Address): NearChoice | CellChoices | null {
    const near = family === 4 ? near4 : near6
    return near !== null && this.#cells.find(client) ? near : null
  }

  #layOut(plain: Plain): void {
    const { serving } = plain
    const { tables } = this.#context
    // Of a large service what was laid out follows its members by itself.
    const isMade = plain.serial >= 0 && serving.index !== null
    plain.serial = serving.serial
    Object.assign(plain, lackingOf(serving))
    if (isMade) return
    if (serving.index === null) {
      plain.near4 = NearChoice.of(serving, tables.hosts, 4)
      plain.near6 = NearChoice.of(serving, tables.hosts, 6)
    } else {
      this.#lists ??= new CellLists()
      plain.near4 = CellChoices.of(tables, serving, this.#lists, 4)
      plain.near6 = CellChoices.of(tables, serving, this.#lists, 6)
    }
  }

  #remember({ name, plain }: Named, family: Family, client: Address): boolean {
    const { serving, slot } = plain
    const { policy } = serving.service
    // What chance decides is decided each time.
    if (policy === 'random' || policy === 'weighted') return false
    const { distanceSerial } = this.#context.tables
    const memo = this.#memo
    this.#place = memo.find(client, slot, family, serving.serial, distanceSerial)
    if (this.#place < 0) {
      const type = family === 4 ? TYPE.A : TYPE.AAAA
      const answer = answerService(this.#context, name, [], type, client)
      const addresses = plainAddresses(answer)
      if (addresses === null) return false
      const { scopeBits, basis, first } = answer
      const { ttlSec } = answer.answers[0]!
      const decided = { addresses, ttlSec, scopeBits, basis: basis!, rank: first!.rank }
      this.#place = memo.keep(client, slot, family, serving.serial, distanceSerial, decided)
    }
    this.#count = memo.count(this.#place)
    this.#ttlSec = memo.ttlSec(this.#place)
    this.#scopeBits = memo.scopeBits(this.#place)
    this.facts.basis = memo.basis(this.#place)
    this.facts.rank = memo.rank(this.#place)
    return true
  }

  // The reply.

  /** The reply's length, or NOT_PLAIN. */
  #write(
    packet: Uint8Array,
    at: number,
    end: number,
    asker: Address,
    out: Uint8Array,
    to: number,
    outEnd: number,
  ): number {
    const { questionEnd, payloadBytes, hasEdns, type } = this.#query
    const family = type === TYPE.A ? 4 : 6
    const bytes = this.#replyBytes(at, family)
    if (bytes > udpReplyBytes(payloadBytes) || bytes > outEnd - to) return NOT_PLAIN
    this.#writeHead(packet, at, out, to)
    let place = to + questionEnd - at
    for (let i = 0; i < this.#count; i++) place = this.#writeRecord(i, family, out, place)
    if (this.#negative !== null) place = putBytes(out, place, this.#negative.authority)
    this.facts.isProven = false
    if (hasEdns) this.#writeOpt(packet, asker, out, place)
    this.#note(end - at, bytes)
    return bytes
  }

  #replyBytes(at: number, family: Family): number {
    const { questionEnd, hasEdns, subnetBytes, subnetAt } = this.#query
    const negative = this.#negative
    let bytes = questionEnd - at + this.#count * (RECORD_BYTES + (family === 4 ? 4 : 16))
    if (negative !== null) bytes += negative.authority.length
    if (!hasEdns) return bytes
    bytes += OPT_FIXED_BYTES
    if (subnetAt !== 0) bytes += OPTION_HEAD_BYTES + subnetBytes
    if (this.hasCookie) bytes += OPTION_HEAD_BYTES + COOKIE_BYTES
    if (negative !== null && negative.infoCode > 0) bytes += OPTION_HEAD_BYTES + INFO_CODE_BYTES
    return bytes
  }

  #writeHead(packet: Uint8Array, at: number, out: Uint8Array, to: number): void {
    const { questionEnd, recursionDesired, hasEdns } = this.#query
    const negative = this.#negative
    for (let i = at; i < questionEnd; i++) out[to + i - at] = packet[i]!
    out[to + 2] = (negative?.flags ?? RESPONSE_AUTHORITATIVE) | (recursionDesired ? 1 : 0)
    out[to + 3] = negative?.rcode ?? RCODE.NOERROR
    out[to + 7] = this.#count
    out[to + 9] = negative !== null && negative.authority.length > 0 ? 1 : 0
    out[to + 11] = hasEdns ? 1 : 0
  }

  /** Where the next begins. */
  #writeRecord(index: number, family: Family, out: Uint8Array, to: number): number {
    let at = put16(out, to, POINTER_TO_QUESTION)
    at = put16(out, at, family === 4 ? TYPE.A : TYPE.AAAA)
    at = put16(out, at, CLASS.IN)
    at = put32(out, at, this.#ttlSec)
    const words = family === 4 ? 1 : 4
    at = put16(out, at, 4 * words)
    const near = this.#near
    const source = near === null ? this.#memo.words : near.layout
    const first =
      near === null ? this.#memo.addressAt(this.#place, index, words) : near.addressAt(chosen.picks[index]!)
    for (let word = first; word < first + words; word++) at = put32(out, at, source[word]!)
    return at
  }

  /** As RFC 6891 has it: Client Subnet and the cookie in the order in which answerDns has them. */
  #writeOpt(packet: Uint8Array, asker: Address, out: Uint8Array, to: number): void {
    const { subnetAt, subnetBytes, cookieAt, cookieBytes, dnssecOk } = this.#query
    out[to] = 0
    let at = put16(out, to + 1, TYPE.OPT)
    at = put16(out, at, MAX_UDP_BYTES)
    at = put16(out, at, 0)
    at = put16(out, at, dnssecOk ? DNSSEC_OK : 0)
    const lengthAt = at
    at += 2
    if (subnetAt !== 0) {
      at = put16(out, at, OPTION.CLIENT_SUBNET)
      at = put16(out, at, subnetBytes)
      for (let i = 0; i < subnetBytes; i++) out[at + i] = packet[subnetAt + i]!
      out[at + 3] =
        packet[subnetAt + 1] === 1 ? Math.max(0, this.#scopeBits - IPV4_OFFSET_BITS) : this.#scopeBits
      at += subnetBytes
    }
    const own = this.#context.cookies
    if (this.hasCookie && own !== null) {
      at = put16(out, at, OPTION.COOKIE)
      at = put16(out, at, COOKIE_BYTES)
      const shown = placeCookie(own, packet, cookieAt, cookieBytes, asker, out, at)
      this.facts.isProven = (shown & COOKIE_PROVEN) !== 0
      at += COOKIE_BYTES
    }
    if (this.#negative !== null && this.#negative.infoCode > 0) {
      at = put16(out, at, OPTION.EXTENDED_ERROR)
      at = put16(out, at, INFO_CODE_BYTES)
      at = put16(out, at, this.#negative.infoCode)
    }
    put16(out, lengthAt, at - lengthAt - 2)
  }

  #note(queryBytes: number, replyBytes: number): void {
    const { facts } = this
    facts.outcome = this.#negative?.outcome ?? 'answered'
    facts.type = this.#query.type
    facts.bySubnet = facts.client !== null && this.#query.subnetAt !== 0
    facts.queryBytes = queryBytes
    facts.replyBytes = replyBytes
    facts.truncated = this.#negative === SLIPPED
    facts.limited = null
  }

  // What limits ask of the last answer, and say of it.

  get kind(): ResponseKind {
    return this.#negative?.kind ?? RESPONSE.ANSWER
  }

  /** Whose account it is on (see ResponseLimiter.judge). */
  subject(packet: Uint8Array): number {
    const { nameAt, nameEnd } = this.#query
    const negative = this.#negative
    return negative === null || negative.kind === RESPONSE.ERROR
      ? 0
      : hashName(packet, nameAt + negative.subjectAt, nameEnd)
  }

  /** Whether the asker knows cookies, and is answered with one. */
  get hasCookie(): boolean {
    return this.#query.cookieAt !== 0 && this.#context.cookies !== null
  }

  /** In the place of the last answer to a packet: come by TCP. The reply's length. */
  slip(packet: Uint8Array, at: number, end: number, asker: Address, out: Uint8Array, to: number): number {
    this.#negative = SLIPPED
    this.#nameNobody()
    const bytes = this.#write(packet, at, end, asker, out, to, out.length)
    this.facts.limited = 'slip'
    return bytes
  }

  /** In the place of the last answer: none. */
  drop(): void {
    this.#nameNobody()
    const { facts } = this
    facts.outcome = 'dropped-limited'
    facts.limited = 'drop'
    facts.bySubnet = false
    facts.replyBytes = 0
  }
}

function newPlain(serving: TabledService, slot: number): Plain {
  const none = { near4: null, near6: null, lacks4: false, lacks6: false, lacksUrl: false }
  return { serving, slot, serial: -1, ...none }
}

function lackingOf({ index, members }: ServingService): Lacking {
  if (index !== null) {
    const lacks = (mark: number) => index.offered > 0 && !index.hasAny(mark)
    return { lacks4: lacks(MARKS.ipv4), lacks6: lacks(MARKS.ipv6), lacksUrl: lacks(MARKS.url) }
  }
  const offered = members.filter(({ isOffered }) => isOffered)
  const lacks = (has: (member: ServingMember) => boolean) => offered.length > 0 && !offered.some(has)
  return {
    lacks4: lacks(({ addresses4 }) => addresses4.length > 0),
    lacks6: lacks(({ addresses6 }) => addresses6.length > 0),
    lacksUrl: lacks(({ url }) => url !== null),
  }
}

/** Whether members are looked for to answer such a question. */
function isChosen(type: number): boolean {
  return type === TYPE.A || type === TYPE.AAAA || type === TYPE.HTTPS || type === TYPE.SVCB
}

/** Whether a service surely has no record of a type at its name. SOA and NS it has where it is an apex. */
function lacks({ lacks4, lacks6, lacksUrl }: Plain, type: number): boolean {
  if (type === TYPE.A) return lacks4
  if (type === TYPE.AAAA) return lacks6
  return isChosen(type) ? lacksUrl : type !== TYPE.SOA && type !== TYPE.NS
}

function putBytes(out: Uint8Array, at: number, bytes: Uint8Array): number {
  for (let i = 0; i < bytes.length; i++) out[at + i] = bytes[i]!
  return at + bytes.length
}

/** Places 16 bits; where the next go. */
function put16(out: Uint8Array, at: number, value: number): number {
  out[at] = value >>> 8
  out[at + 1] = value & 0xff
  return at + 2
}

function put32(out: Uint8Array, at: number, value: number): number {
  return put16(out, put16(out, at, value >>> 16), value & 0xffff)
}

/** The addresses of an answer that is nothing but addresses, and few; null: it is more than that. */
function plainAddresses(answer: DnsAnswer): Address[] | null {
  const { rcode, answers, extendedError, allDown } = answer
  if (rcode !== RCODE.NOERROR || answers.length === 0 || answers.length > MEMO_ADDRESSES) return null
  if (extendedError !== null || allDown !== null) return null
  return answers.flatMap((record) => ('address' in record ? [record.address] : []))
}
