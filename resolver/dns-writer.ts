// Writing DNS replies: records as data -> bytes, within a limit.
//
// Invariant: no byte is ever placed at or past the limit: each write asks #place first, and what does
// not fit is not begun. Question, records and OPT are written whole or not at all (false: it did not
// fit, and the message is as before). Names of records are compressed against all names before them
// (RFC 1035, 4.1.4), except where a type forbids it (SRV: RFC 2782, SVCB: RFC 9460). Names come as
// labels, one character a byte, each at most 63 long.

import { type Address, familyOf } from './address.ts'
import { HEADER_BYTES, type Name, OPTION, type Question, TYPE } from './dns-wire.ts'

/** One resource record; its class is the question's. */
export type ResourceRecord = { readonly owner: Name; readonly ttlSec: number } & RecordData
type RecordData =
  | { readonly type: typeof TYPE.A | typeof TYPE.AAAA; readonly address: Address }
  | { readonly type: typeof TYPE.NS | typeof TYPE.CNAME; readonly target: Name }
  | { readonly type: typeof TYPE.SOA; readonly soa: StartOfAuthority }
  | {
      readonly type: typeof TYPE.SRV
      readonly priority: number
      readonly weight: number
      readonly port: number
      readonly target: Name
    }
  | {
      readonly type: typeof TYPE.SVCB | typeof TYPE.HTTPS
      readonly priority: number
      readonly target: Name
      readonly service: ServiceParameters
    }
  | { readonly type: typeof TYPE.TXT | typeof TYPE.HINFO; readonly strings: readonly string[] }

/** RFC 1035, 3.3.13. All times in seconds. */
export interface StartOfAuthority {
  readonly primary: Name
  readonly mailbox: Name
  readonly serial: number
  readonly refreshSec: number
  readonly retrySec: number
  readonly expireSec: number
  readonly minimumSec: number
}

/** SvcParams of RFC 9460 that a member can fill. */
interface ServiceParameters {
  /** null: the scheme's own. */
  readonly port: number | null
  readonly ipv4Hints: readonly Address[]
  readonly ipv6Hints: readonly Address[]
}

export interface EdnsOption {
  readonly code: number
  readonly data: Uint8Array
}

/** Where each section is counted in the header. */
const COUNT_AT = { question: 4, answer: 6, authority: 8, additional: 10 } as const
type Section = 'answer' | 'authority' | 'additional'

/** The largest message that TCP's two length bytes can frame. */
export const MAX_MESSAGE_BYTES = 65_535
/** An OPT record without options. */
export const OPT_FIXED_BYTES = 11
/** A compression pointer has 14 bits. */
const MAX_POINTER = 0x3fff
const SVC_PORT = 3
const SVC_IPV4HINT = 4
const SVC_IPV6HINT = 6

/** One for all: replies are written one after another and copied out when done. */
const scratch = Buffer.alloc(MAX_MESSAGE_BYTES)

export class DnsWriter {
  #length = 0
  #limit: number
  #fits = true
  #class = 1
  #asked: Name | null = null
  /** Names written so far, as text, and where; made when the first name other than the question's is. */
  #offsets: Map<string, number> | null = null

  /** `limitBytes`: 12..65535. */
  constructor(limitBytes: number) {
    this.#limit = Math.min(limitBytes, MAX_MESSAGE_BYTES)
  }

  /** From here on nothing is placed at or past this; it may go up and down. */
  set limitBytes(bytes: number) {
    this.#limit = Math.min(bytes, MAX_MESSAGE_BYTES)
  }

  /** `flags`: all 16 bits between id and the counts. */
  header(id: number, flags: number): void {
    this.#put16(id)
    this.#put16(flags)
    for (const _ of Object.keys(COUNT_AT)) this.#put16(0)
  }

  /** The question byte for byte as it came, case and all. */
  question(packet: Uint8Array, question: Question): boolean {
    this.#asked = question.labels
    this.#class = question.class
    return this.#whole('question', () => this.#putBytes(packet.subarray(HEADER_BYTES, question.end)))
  }

  record(section: Section, record: ResourceRecord): boolean {
    return this.#whole(section, () => {
      this.#putName(record.owner, true)
      this.#put16(record.type)
      this.#put16(this.#class)
      this.#put32(record.ttlSec)
      this.#sized16(() => this.#putData(record))
    })
  }

  /** The EDNS record of the reply. `extendedRcode`: the upper 8 bits of the rcode. */
  opt(
    payloadBytes: number,
    extendedRcode: number,
    dnssecOk: boolean,
    options: readonly EdnsOption[],
  ): boolean {
    return this.#whole('additional', () => {
      this.#putByte(0)
      this.#put16(TYPE.OPT)
      this.#put16(payloadBytes)
      this.#putByte(extendedRcode)
      this.#putByte(0)
      this.#put16(dnssecOk ? 0x8000 : 0)
      this.#sized16(() => {
        for (const { code, data } of options) {
          this.#put16(code)
          this.#sized16(() => this.#putBytes(data))
        }
      })
    })
  }

  /** A copy of what was written. */
  finish(): Uint8Array {
    const message = Buffer.allocUnsafe(this.#length)
    scratch.copy(message, 0, 0, this.#length)
    return message
  }

  #putData(record: ResourceRecord): void {
    switch (record.type) {
      case TYPE.A:
      case TYPE.AAAA:
        this.#putBytes(record.address.subarray(record.type === TYPE.A ? 12 : 0))
        break
      case TYPE.NS:
      case TYPE.CNAME:
        this.#putName(record.target, true)
        break
      case TYPE.SOA:
        this.#putSoa(record.soa)
        break
      case TYPE.SRV:
        this.#put16(record.priority)
        this.#put16(record.weight)
        this.#put16(record.port)
        this.#putName(record.target, false)
        break
      case TYPE.SVCB:
      case TYPE.HTTPS:
        this.#put16(record.priority)
        this.#putName(record.target, false)
        this.#putParameters(record.service)
        break
      case TYPE.TXT:
      case TYPE.HINFO:
        for (const text of record.strings) this.#putString(text)
    }
  }

  #putSoa(soa: StartOfAuthority): void {
    this.#putName(soa.primary, true)
    this.#putName(soa.mailbox, true)
    for (const value of [soa.serial, soa.refreshSec, soa.retrySec, soa.expireSec, soa.minimumSec])
      this.#put32(value)
  }

  /** In ascending order of their keys, as RFC 9460, 2.2 asks. */
  #putParameters({ port, ipv4Hints, ipv6Hints }: ServiceParameters): void {
    if (port !== null) {
      this.#put16(SVC_PORT)
      this.#sized16(() => this.#put16(port))
    }
    this.#putHints(SVC_IPV4HINT, ipv4Hints)
    this.#putHints(SVC_IPV6HINT, ipv6Hints)
  }

  #putHints(key: number, addresses: readonly Address[]): void {
    if (addresses.length === 0) return
    this.#put16(key)
    this.#sized16(() => {
      for (const address of addresses) this.#putBytes(address.subarray(familyOf(address) === 4 ? 12 : 0))
    })
  }

  /** A character-string: what is past its 255 bytes is cut off. */
  #putString(text: string): void {
    const bytes = Buffer.from(text, 'utf8').subarray(0, 255)
    this.#putByte(bytes.length)
    this.#putBytes(bytes)
  }

  #putName(name: Name, compress: boolean): void {
    // The owner of nearly every record is the name asked for: no map is made for it.
    if (compress && name === this.#asked) {
      this.#putPointer(HEADER_BYTES)
      return
    }
    this.#offsets ??= this.#askedOffsets()
    for (let i = 0; i < name.length; i++) {
      const suffix = suffixKey(name, i)
      const known = this.#offsets.get(suffix)
      if (compress && known !== undefined) {
        this.#putPointer(known)
        return
      }
      if (known === undefined && this.#length <= MAX_POINTER) this.#offsets.set(suffix, this.#length)
      this.#putLabel(name[i]!)
    }
    this.#putByte(0)
  }

  #putLabel(label: string): void {
    this.#putByte(label.length)
    for (let i = 0; i < label.length; i++) this.#putByte(label.charCodeAt(i))
  }

  #putPointer(to: number): void {
    this.#put16(0xc000 | to)
  }

  /** Where the question's name and its suffixes stand. */
  #askedOffsets(): Map<string, number> {
    const offsets = new Map<string, number>()
    let at = HEADER_BYTES
    for (const [i, label] of (this.#asked ?? []).entries()) {
      offsets.set(suffixKey(this.#asked!, i), at)
      at += 1 + label.length
    }
    return offsets
  }

  /** Two length bytes, then the body that they count. */
  #sized16(body: () => void): void {
    const at = this.#length
    this.#put16(0)
    body()
    if (this.#fits) this.#set16(at, this.#length - at - 2)
  }

  /** All of what `body` puts, counted in its section; or, where it does not fit, nothing, and false. */
  #whole(section: Section | 'question', body: () => void): boolean {
    const start = this.#length
    this.#fits = true
    body()
    if (this.#fits) {
      const at = COUNT_AT[section]
      this.#set16(at, ((scratch[at]! << 8) | scratch[at + 1]!) + 1)
      return true
    }
    this.#length = start
    this.#fits = true
    for (const [suffix, at] of this.#offsets ?? []) if (at >= start) this.#offsets!.delete(suffix)
    return false
  }

  #set16(at: number, value: number): void {
    scratch[at] = value >> 8
    scratch[at + 1] = value
  }

  /** The place for `bytes` more, or null (and the record at hand fails) where the limit forbids them. */
  #place(bytes: number): number | null {
    const at = this.#length
    if (!this.#fits || at + bytes > this.#limit) {
      this.#fits = false
      return null
    }
    this.#length += bytes
    return at
  }

  #putByte(value: number): void {
    const at = this.#place(1)
    if (at !== null) scratch[at] = value
  }

  #put16(value: number): void {
    const at = this.#place(2)
    if (at !== null) this.#set16(at, value)
  }

  #put32(value: number): void {
    this.#put16(value >>> 16)
    this.#put16(value & 0xffff)
  }

  #putBytes(bytes: Uint8Array): void {
    const at = this.#place(bytes.length)
    if (at !== null) scratch.set(bytes, at)
  }
}

/** Labels may hold any byte, so their lengths part them, not dots. */
function suffixKey(name: Name, from: number): string {
  let key = ''
  for (let i = from; i < name.length; i++) key += String.fromCharCode(name[i]!.length) + name[i]
  return key
}

/** How long `opt` will be, so that its room can be kept. */
export function optBytes(options: readonly EdnsOption[]): number {
  return options.reduce((sum, { data }) => sum + 4 + data.length, OPT_FIXED_BYTES)
}

/** RFC 8914. */
export function extendedError(code: number, text: string): EdnsOption {
  const bytes = Buffer.from(text, 'utf8')
  return { code: OPTION.EXTENDED_ERROR, data: Uint8Array.of(code >> 8, code & 0xff, ...bytes) }
}
