// Reading DNS queries: bytes -> Query, or the reason why the packet deserves no answer.
//
// Invariant: nothing here throws, whatever the bytes; every offset is checked before it is read, no
// pointer is followed, and the work is linear in the packet's length. A packet that parses in part gives
// what is needed to refuse it (rcode). Names are lower-cased label by label; the question's own bytes are
// kept for the reply (0x20). RFC 1035, EDNS 6891, Client Subnet 7871, cookies 7873, NSID 5001, keepalive 7828.

import { type Address, addressFromBytes } from './address.ts'

export const TYPE = {
  A: 1,
  NS: 2,
  CNAME: 5,
  SOA: 6,
  HINFO: 13,
  TXT: 16,
  AAAA: 28,
  SRV: 33,
  OPT: 41,
  SVCB: 64,
  HTTPS: 65,
  TKEY: 249,
  TSIG: 250,
  IXFR: 251,
  AXFR: 252,
  MAILB: 253,
  MAILA: 254,
  ANY: 255,
} as const

export const CLASS = { IN: 1, CH: 3 } as const

export const RCODE = {
  NOERROR: 0,
  FORMERR: 1,
  SERVFAIL: 2,
  NXDOMAIN: 3,
  NOTIMP: 4,
  REFUSED: 5,
  BADVERS: 16,
  BADCOOKIE: 23,
} as const
export type Rcode = (typeof RCODE)[keyof typeof RCODE]

/** EDNS option codes. */
export const OPTION = {
  NSID: 3,
  CLIENT_SUBNET: 8,
  COOKIE: 10,
  TCP_KEEPALIVE: 11,
  EXTENDED_ERROR: 15,
} as const

/** A name as its labels, most specific first, lower case, one character a byte; the root is []. */
export type Name = readonly string[]

export const HEADER_BYTES = 12
/** Largest UDP reply: fits every path's MTU (DNS flag day 2020), so it is never fragmented. */
export const MAX_UDP_BYTES = 1232
/** What every asker without EDNS can take (RFC 1035, 4.2.1). */
const PLAIN_UDP_BYTES = 512
/** RFC 1035, 2.3.4; 255 with the length bytes and the final zero. */
const MAX_NAME_BYTES = 255
const MAX_LABEL_BYTES = 63
/** A sane query has one record beside the question, seldom three; more is someone's attempt to make us work. */
const MAX_RECORDS = 16

export interface Question {
  readonly labels: Name
  readonly type: number
  readonly class: number
  /** Offset just behind it; it begins behind the header. */
  readonly end: number
}

/** EDNS Client Subnet as the query had it. */
export interface ClientSubnet {
  /** IANA address family: 1 IPv4, 2 IPv6; 0 only with an empty address ("use nothing of the client"). */
  readonly family: 0 | 1 | 2
  /** SOURCE PREFIX-LENGTH, in the family's own count. */
  readonly sourceBits: number
  /** The ADDRESS field, ceil(sourceBits / 8) bytes, to be echoed. */
  readonly bytes: Uint8Array
  /** The prefix's first address; null where sourceBits is 0. */
  readonly address: Address | null
}

export interface Edns {
  /** Bytes of UDP payload that the asker can take, as it said. */
  readonly payloadBytes: number
  readonly dnssecOk: boolean
  readonly subnet: ClientSubnet | null
  /** COOKIE as it came, 8 bytes (client's) or 16..40 (client's and server's). */
  readonly cookie: Uint8Array | null
  readonly nsid: boolean
  /** edns-tcp-keepalive: `malformed` where it holds a timeout, which only servers tell. */
  readonly keepAlive: 'asked' | 'malformed' | null
}

export interface Query {
  readonly id: number
  readonly opcode: number
  readonly recursionDesired: boolean
  /** null where there is none or it could not be read. */
  readonly question: Question | null
  /** null: none, or it could not be read. */
  readonly edns: Edns | null
  /** NOERROR: a sane query, with a question or, to learn a cookie, without (RFC 7873, 5.4). Else what it must be refused with. */
  readonly rcode: Rcode
}

/** How long a reply over UDP may be for an asker that says that it can take so many bytes (0: it says nothing). */
export function udpReplyBytes(payloadBytes: number): number {
  return Math.min(Math.max(payloadBytes, PLAIN_UDP_BYTES), MAX_UDP_BYTES)
}

type Unanswerable = 'short' | 'response'

/** Reads one message. A string: it must not be answered, and why. Never throws. */
export function parseQuery(packet: Uint8Array): Query | Unanswerable {
  if (packet.length < HEADER_BYTES) return 'short'
  const flags = read16(packet, 2)
  // Answering a response is how two servers come to talk to each other for ever.
  if (flags & 0x8000) return 'response'
  const id = read16(packet, 0)
  const opcode = (flags >> 11) & 15
  const recursionDesired = (flags & 0x0100) !== 0
  const questions = read16(packet, 4)
  const question = questions === 1 ? readQuestion(packet) : null
  const isReadable = question !== null || questions === 0
  const rest = isReadable ? readRecords(packet, question?.end ?? HEADER_BYTES) : MALFORMED
  const { edns } = rest
  // What the sections of other opcodes mean is not known here, but who brings an OPT gets one.
  if (opcode !== 0) return { id, opcode, recursionDesired, question: null, edns, rcode: RCODE.NOTIMP }
  const isEmpty = question === null && rest.rcode === RCODE.NOERROR && !edns?.cookie
  return { id, opcode, recursionDesired, question, edns, rcode: isEmpty ? RCODE.FORMERR : rest.rcode }
}

function readQuestion(packet: Uint8Array): Question | null {
  const labels: string[] = []
  let at = HEADER_BYTES
  for (;;) {
    const length = packet[at]
    // No name stands before the question's, so a pointer (or a reserved label type) leads nowhere.
    if (length === undefined || length > MAX_LABEL_BYTES) return null
    at++
    if (length === 0) break
    if (at + length > packet.length || at + length - HEADER_BYTES >= MAX_NAME_BYTES) return null
    labels.push(readLabel(packet, at, length))
    at += length
  }
  if (at + 4 > packet.length) return null
  return { labels, type: read16(packet, at), class: read16(packet, at + 2), end: at + 4 }
}

function readLabel(packet: Uint8Array, at: number, length: number): string {
  let label = ''
  for (let i = at; i < at + length; i++) {
    const byte = packet[i]!
    label += String.fromCharCode(byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte)
  }
  return label
}

interface Rest {
  readonly edns: Edns | null
  readonly rcode: Rcode
}

const MALFORMED: Rest = { edns: null, rcode: RCODE.FORMERR }

/** All behind the question: walked to the last byte, so that what is not a message is not taken for one. */
function readRecords(packet: Uint8Array, start: number): Rest {
  const answers = read16(packet, 6) + read16(packet, 8)
  const total = answers + read16(packet, 10)
  if (total > MAX_RECORDS) return MALFORMED
  let rest: Rest = { edns: null, rcode: RCODE.NOERROR }
  let seenOpt = false
  let at = start
  for (let i = 0; i < total; i++) {
    const body = skipName(packet, at)
    if (body < 0 || body + 10 > packet.length) return MALFORMED
    const end = body + 10 + read16(packet, body + 8)
    if (end > packet.length) return MALFORMED
    if (read16(packet, body) === TYPE.OPT) {
      // RFC 6891, 6.1.1: at most one, in the additional section, owned by the root.
      if (seenOpt || i < answers || body !== at + 1) return MALFORMED
      seenOpt = true
      rest = readOpt(packet, body, end)
    }
    at = end
  }
  return at === packet.length ? rest : MALFORMED
}

/** The offset behind a name, -1 for a bad one. Pointers must go back; nothing needs to follow them. */
function skipName(packet: Uint8Array, start: number): number {
  let at = start
  for (;;) {
    const length = packet[at]
    if (length === undefined) return -1
    if (length === 0) return at + 1
    if (length >= 0xc0) {
      if (at + 2 > packet.length) return -1
      const target = read16(packet, at) & 0x3fff
      return target >= HEADER_BYTES && target < start ? at + 2 : -1
    }
    at += 1 + length
    if (length > MAX_LABEL_BYTES || at - start >= MAX_NAME_BYTES) return -1
  }
}

function readOpt(packet: Uint8Array, body: number, end: number): Rest {
  const payloadBytes = read16(packet, body + 2)
  const dnssecOk = (packet[body + 6]! & 0x80) !== 0
  const plain: Edns = { payloadBytes, dnssecOk, subnet: null, cookie: null, nsid: false, keepAlive: null }
  // What the options of another version mean is not known: they are not read.
  if (packet[body + 5] !== 0) return { edns: plain, rcode: RCODE.BADVERS }
  let subnet: ClientSubnet | null = null
  let cookie: Uint8Array | null = null
  let nsid = false
  let keepAlive: Edns['keepAlive'] = null
  let at = body + 10
  while (at < end) {
    if (at + 4 > end) return { edns: plain, rcode: RCODE.FORMERR }
    const code = read16(packet, at)
    const data = packet.subarray(at + 4, at + 4 + read16(packet, at + 2))
    at += 4 + read16(packet, at + 2)
    if (at > end) return { edns: plain, rcode: RCODE.FORMERR }
    // Of an option that comes twice the first counts (RFC 7873, 5.2, says so of COOKIE).
    if (code === OPTION.NSID) nsid = true
    else if (code === OPTION.TCP_KEEPALIVE) keepAlive ??= data.length === 0 ? 'asked' : 'malformed'
    else if (code === OPTION.COOKIE && cookie === null) {
      if (data.length !== 8 && (data.length < 16 || data.length > 40))
        return { edns: plain, rcode: RCODE.FORMERR }
      cookie = data
    } else if (code === OPTION.CLIENT_SUBNET && subnet === null) {
      subnet = readClientSubnet(data)
      if (subnet === null) return { edns: plain, rcode: RCODE.FORMERR }
    }
  }
  return { edns: { payloadBytes, dnssecOk, subnet, cookie, nsid, keepAlive }, rcode: RCODE.NOERROR }
}

/** RFC 7871, 6 and 7.1: null for what a server answers with FORMERR. */
export function readClientSubnet(data: Uint8Array): ClientSubnet | null {
  if (data.length < 4) return null
  const family = read16(data, 0)
  const sourceBits = data[2]!
  const bytes = data.subarray(4)
  if (family !== 0 && family !== 1 && family !== 2) return null
  const mostBits = family === 0 ? 0 : family === 1 ? 32 : 128
  // SCOPE is 0 in a query, and ADDRESS holds no byte and no bit past the prefix.
  if (sourceBits > mostBits || data[3] !== 0 || bytes.length !== (sourceBits + 7) >> 3) return null
  const spareBits = 8 * bytes.length - sourceBits
  if (spareBits > 0 && (bytes[bytes.length - 1]! & ((1 << spareBits) - 1)) !== 0) return null
  const address = sourceBits === 0 ? null : addressFromBytes(family === 1 ? 4 : 6, bytes)
  return { family, sourceBits, bytes, address }
}

function read16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!
}
