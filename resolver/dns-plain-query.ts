// The plain question, read in place: one name in class IN, at most with Client Subnet and a cookie beside it.
//
// Nearly all that resolvers ask is of this form. What is not, in any way, is left to parseQuery, which knows all
// forms; what is, reads here as it does there (a test compares them). Nothing is allocated: what was read stands
// in this one object until the next is read. Every offset is checked before it is read. RFC 1035, 6891, 7871, 7873.

import { type Address, addressFromBytes } from './address.ts'
import { CLASS, HEADER_BYTES, OPTION, TYPE } from './dns-wire.ts'
import { FNV_BASIS, fnvStep } from './hash.ts'

const MAX_LABEL_BYTES = 63
const META_TYPES = 128
const MAX_NAME_BYTES = 255
/** Type and class. */
const QUESTION_BYTES = 4
/** Of an OPT record, from its (empty) name to its options. */
const OPT_BYTES = 11
const OPTION_BYTES = 4
const CLIENT_COOKIE_BYTES = 8
const LEAST_SERVER_COOKIE_BYTES = 16
const MOST_COOKIE_BYTES = 40

/** ASCII capitals to small letters, all else as it is. */
export const LOWER = Uint8Array.from({ length: 256 }, (_, byte) =>
  byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte,
)

export class PlainQuery {
  /** Where the question begins, and where its name and (behind its class) it itself end. */
  nameAt = 0
  nameEnd = 0
  questionEnd = 0
  /** Of the name in small letters, with its lengths; with a sign, as numbers that take no memory have. */
  nameHash = 0
  type = 0
  recursionDesired = false
  hasEdns = false
  /** As the asker said; 0 without EDNS. */
  payloadBytes = 0
  dnssecOk = false
  /** Where the data of Client Subnet stands; 0: there is none. */
  subnetAt = 0
  subnetBytes = 0
  /** The client that it names, to be read only where there is one. */
  client: Address
  /** Where the data of COOKIE stands; 0: there is none. */
  cookieAt = 0
  cookieBytes = 0

  readonly #client4 = addressFromBytes(4, new Uint8Array(4))!
  readonly #client6 = new Uint8Array(16)

  constructor() {
    this.client = this.#client4
  }

  /** Reads the packet at `at`, which ends before `end`. False: it is not a plain question, and nothing read here counts. */
  read(packet: Uint8Array, at: number, end: number): boolean {
    if (end - at < HEADER_BYTES + 1 + QUESTION_BYTES) return false
    const flags = packet[at + 2]!
    // A query (QR 0) with opcode 0, one question, no answers, no authority, at most one additional record.
    if ((flags & 0xf8) !== 0 || packet[at + 4] !== 0 || packet[at + 5] !== 1) return false
    if ((packet[at + 6]! | packet[at + 7]! | packet[at + 8]! | packet[at + 9]! | packet[at + 10]!) !== 0)
      return false
    const additional = packet[at + 11]!
    if (additional > 1) return false
    this.recursionDesired = (flags & 1) !== 0
    this.nameAt = at + HEADER_BYTES
    if (!this.#readQuestion(packet, end)) return false
    this.hasEdns = additional === 1
    this.subnetAt = this.subnetBytes = this.cookieAt = this.cookieBytes = this.payloadBytes = 0
    this.dnssecOk = false
    return this.hasEdns ? this.#readOpt(packet, end) : this.questionEnd === end
  }

  #readQuestion(packet: Uint8Array, end: number): boolean {
    let hash = FNV_BASIS
    let at = this.nameAt
    for (;;) {
      if (at >= end) return false
      const length = packet[at]!
      hash = fnvStep(hash, length)
      at++
      if (length === 0) break
      if (length > MAX_LABEL_BYTES || at + length > end || at + length - this.nameAt >= MAX_NAME_BYTES)
        return false
      for (const labelEnd = at + length; at < labelEnd; at++) hash = fnvStep(hash, LOWER[packet[at]!]!)
    }
    if (at + QUESTION_BYTES > end) return false
    this.nameHash = hash | 0
    this.nameEnd = at
    this.type = (packet[at]! << 8) | packet[at + 1]!
    this.questionEnd = at + QUESTION_BYTES
    // Above are types that ask for more than a name has of them, or for nothing (RFC 6895, 3.1).
    return (
      packet[at + 2] === 0 && packet[at + 3] === CLASS.IN && this.type < META_TYPES && this.type !== TYPE.OPT
    )
  }

  #readOpt(packet: Uint8Array, end: number): boolean {
    const at = this.questionEnd
    if (at + OPT_BYTES > end) return false
    if (packet[at] !== 0 || packet[at + 1] !== 0 || packet[at + 2] !== TYPE.OPT) return false
    // Another version is for others to answer.
    if (packet[at + 6] !== 0) return false
    this.payloadBytes = (packet[at + 3]! << 8) | packet[at + 4]!
    this.dnssecOk = (packet[at + 7]! & 0x80) !== 0
    const options = at + OPT_BYTES
    return (
      options + ((packet[at + 9]! << 8) | packet[at + 10]!) === end && this.#readOptions(packet, options, end)
    )
  }

  #readOptions(packet: Uint8Array, first: number, end: number): boolean {
    for (let at = first; at < end; ) {
      if (at + OPTION_BYTES > end) return false
      const code = (packet[at]! << 8) | packet[at + 1]!
      const bytes = (packet[at + 2]! << 8) | packet[at + 3]!
      at += OPTION_BYTES
      if (at + bytes > end) return false
      if (code === OPTION.CLIENT_SUBNET) {
        // Of two the first counts; that is seldom enough to leave it to others.
        if (this.subnetAt !== 0 || !this.#readSubnet(packet, at, bytes)) return false
      } else if (code === OPTION.COOKIE) {
        if (this.cookieAt !== 0 || !isCookieLength(bytes)) return false
        this.cookieAt = at
        this.cookieBytes = bytes
      } else if (code === OPTION.NSID || code === OPTION.TCP_KEEPALIVE) return false
      at += bytes
    }
    return true
  }

  /** False also for a source of 0, which names nobody. */
  #readSubnet(packet: Uint8Array, at: number, bytes: number): boolean {
    if (bytes < 5 || packet[at] !== 0 || packet[at + 3] !== 0) return false
    const family = packet[at + 1]!
    if (family !== 1 && family !== 2) return false
    const sourceBits = packet[at + 2]!
    const prefixBytes = bytes - 4
    if (sourceBits > (family === 1 ? 32 : 128) || prefixBytes !== (sourceBits + 7) >> 3) return false
    const spareBits = 8 * prefixBytes - sourceBits
    if ((packet[at + bytes - 1]! & ((1 << spareBits) - 1)) !== 0) return false
    this.subnetAt = at
    this.subnetBytes = bytes
    return family === 1
      ? this.#takeClient(packet, at + 4, prefixBytes, this.#client4, 12)
      : this.#takeClient(packet, at + 4, prefixBytes, this.#client6, 0)
  }

  #takeClient(packet: Uint8Array, from: number, bytes: number, to: Address, at: number): boolean {
    for (let i = 0; i < 16 - at; i++) to[at + i] = i < bytes ? packet[from + i]! : 0
    this.client = to
    // An IPv4 address in IPv6's clothes is somebody's experiment.
    return at !== 0 || (to[0]! | to[1]!) !== 0
  }
}

function isCookieLength(bytes: number): boolean {
  return bytes === CLIENT_COOKIE_BYTES || (bytes >= LEAST_SERVER_COOKIE_BYTES && bytes <= MOST_COOKIE_BYTES)
}
