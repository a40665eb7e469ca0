// The fast path of the DNS server: plain questions for a service's addresses, answered from numbers into bytes.
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
import { meaningOf, type ServiceName } from './dns-name.ts'
import { PlainNames } from './dns-plain-names.ts'
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
import { NearChoice } from './near-choice.ts'
import type { TabledService } from './serving.ts'

/** There is no plain answer. */
export const NOT_PLAIN = -1

/** Owner, type, class, TTL and length of a record whose owner is the question's name. */
const RECORD_BYTES = 12
const OPTION_HEAD_BYTES = 4
const TYPE_AND_CLASS_BYTES = 4
const POINTER_TO_QUESTION = 0xc000 | HEADER_BYTES
/** QR and AA, in the first byte of the flags. */
const RESPONSE_AUTHORITATIVE = 0x84
const DNSSEC_OK = 0x8000

/** A service as plain questions ask for it, by any of its names. */
interface Plain {
  readonly serving: TabledService
  /** Its number in the memo. */
  readonly slot: number
  /** Of the service when the layouts were made. */
  serial: number
  near4: NearChoice | CellChoices | null
  near6: NearChoice | CellChoices | null
}

interface Named {
  readonly name: ServiceName
  readonly plain: Plain
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
  readonly #memo = new AnswerMemo()
  /** Of large services; made when the first of them is asked for. */
  #lists: CellLists | null = null

  /** The decision at hand: addresses come from a layout, or from a place in the memo. */
  #near: NearChoice | CellChoices | null = null
  #place = -1
  #count = 0
  #ttlSec = 0
  #scopeBits = 0

  constructor(context: DnsContext) {
    this.#context = context
    this.#cells = new ClientCells(context.tables)
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
    const named = this.#findName(packet, at, end)
    if (named === null) return NOT_PLAIN
    const bySubnet = query.subnetAt !== 0
    const client = bySubnet ? query.client : asker
    const family = query.type === TYPE.A ? 4 : 6
    if (!this.#decide(named, family, client)) return NOT_PLAIN
    const bytes = this.#replyBytes(at, family)
    if (bytes > udpReplyBytes(query.payloadBytes) || bytes > outEnd - to) return NOT_PLAIN
    this.#writeHead(packet, at, out, to)
    let place = to + query.questionEnd - at
    for (let i = 0; i < this.#count; i++) place = this.#writeRecord(i, family, out, place)
    this.facts.isProven = false
    if (query.hasEdns) this.#writeOpt(packet, asker, out, place)
    this.#note(named, client, bySubnet, end - at, bytes)
    return bytes
  }

  // What is asked.

  /** What the name leads to; null: not to a service's addresses. */
  #findName(packet: Uint8Array, at: number, end: number): Named | null {
    const { tables } = this.#context
    if (this.#namesSerial !== tables.namesSerial) {
      this.#namesSerial = tables.namesSerial
      this.#names.clear()
      this.#plains.clear()
    }
    const { nameAt, questionEnd, nameHash } = this.#query
    const nameEnd = questionEnd - TYPE_AND_CLASS_BYTES
    const known = this.#names.find(packet, nameAt, nameEnd, nameHash)
    if (known !== null) return known
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
      plain = { serving, slot: this.#slots++, serial: -1, near4: null, near6: null }
      this.#plains.set(serving, plain)
    }
    return { name: meaning, plain }
  }

  // What is answered.

  /** Decides, and notes where the addresses come from. False: it is no plain answer. */
  #decide(named: Named, family: Family, client: Address): boolean {
    const { plain } = named
    const { serving } = plain
    if (plain.serial !== serving.serial) this.#layOut(plain)
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

  #replyBytes(at: number, family: Family): number {
    const { questionEnd, hasEdns, subnetBytes, subnetAt, cookieAt } = this.#query
    let bytes = questionEnd - at + this.#count * (RECORD_BYTES + (family === 4 ? 4 : 16))
    if (!hasEdns) return bytes
    bytes += OPT_FIXED_BYTES
    if (subnetAt !== 0) bytes += OPTION_HEAD_BYTES + subnetBytes
    if (cookieAt !== 0 && this.#context.cookies !== null) bytes += OPTION_HEAD_BYTES + COOKIE_BYTES
    return bytes
  }

  #writeHead(packet: Uint8Array, at: number, out: Uint8Array, to: number): void {
    const { questionEnd, recursionDesired, hasEdns } = this.#query
    for (let i = at; i < questionEnd; i++) out[to + i - at] = packet[i]!
    out[to + 2] = RESPONSE_AUTHORITATIVE | (recursionDesired ? 1 : 0)
    out[to + 3] = RCODE.NOERROR
    out[to + 7] = this.#count
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
    const own = cookieAt === 0 ? null : this.#context.cookies
    if (own !== null) {
      at = put16(out, at, OPTION.COOKIE)
      at = put16(out, at, COOKIE_BYTES)
      const shown = placeCookie(own, packet, cookieAt, cookieBytes, asker, out, at)
      this.facts.isProven = (shown & COOKIE_PROVEN) !== 0
      at += COOKIE_BYTES
    }
    put16(out, lengthAt, at - lengthAt - 2)
  }

  #note({ plain }: Named, client: Address, bySubnet: boolean, queryBytes: number, replyBytes: number): void {
    const { facts } = this
    facts.type = this.#query.type
    facts.service = plain.serving.service.name
    facts.client = client
    facts.bySubnet = bySubnet
    facts.queryBytes = queryBytes
    facts.replyBytes = replyBytes
  }
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
