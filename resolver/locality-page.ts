// A page of localities: many records in one packed value, each read where it lies.
//
// A million localities kept as objects are a gigabyte and many seconds of a start; packed they are a tenth of it and
// are read only when somebody asks. Columns of fixed width, so that a record is found without reading those before
// it; names (hosts, services, members) stand once in a page. Invariant: what is packed comes out as it went in; what
// has no place in the columns is given back by packing. Bytes that are no page read as null. Pure.

import {
  ADDRESS_BITS,
  type Address,
  beginIpv4,
  type Family,
  familyOf,
  formatPrefix,
  IPV4_OFFSET_BITS,
  isClearedAfter,
  type Prefix,
  parsePrefix,
  wordAt,
} from './address.ts'
import type { Evidence, LocalityRecord } from './directory.ts'

const FORMAT = 1
/** The order is part of the format. */
const KINDS: readonly Evidence['kind'][] = ['active', 'passive', 'client']
/** Words at the front: the format, and how many there are of each. */
const HEADER_WORDS = 7
const MAX_WORD = 0xffff_ffff

/** Where the columns begin, in bytes. Of rows (localities), their evidence, their incumbents, and names. */
interface Layout {
  readonly rtts: number
  readonly times: number
  readonly hosts: number
  readonly counts: number
  readonly kinds: number
  readonly services: number
  readonly members: number
  readonly bits: number
  readonly addresses: number
  readonly evidenceEnds: number
  readonly incumbentEnds: number
  readonly nameEnds: number
  readonly names: number
  readonly end: number
}

interface Sizes {
  readonly ipv4: number
  readonly ipv6: number
  readonly evidence: number
  readonly incumbents: number
  readonly names: number
  readonly nameBytes: number
}

function layoutOf({ ipv4, ipv6, evidence, incumbents, names, nameBytes }: Sizes): Layout {
  let at = 4 * HEADER_WORDS
  const column = (bytes: number) => {
    at += bytes
    return at - bytes
  }
  return {
    rtts: column(8 * evidence),
    times: column(8 * evidence),
    hosts: column(4 * evidence),
    counts: column(4 * evidence),
    kinds: column(evidence),
    services: column(4 * incumbents),
    members: column(4 * incumbents),
    bits: column(ipv4 + ipv6),
    addresses: column(4 * ipv4 + 16 * ipv6),
    evidenceEnds: column(4 * (ipv4 + ipv6)),
    incumbentEnds: column(4 * (ipv4 + ipv6)),
    nameEnds: column(4 * names),
    names: column(nameBytes),
    end: at,
  }
}

// Packing.

/** A record that has its place in the columns. */
interface Fitting {
  readonly prefix: Prefix
  readonly record: LocalityRecord
}

/** Packs what fits, by its key; `others` is what does not. */
export function packLocalities<T>(records: Iterable<readonly [key: string, record: T]>): {
  readonly packed: Uint8Array | null
  readonly others: [key: string, record: T][]
} {
  const [ipv4, ipv6]: [Fitting[], Fitting[]] = [[], []]
  const others: [string, T][] = []
  for (const [key, record] of records) {
    const prefix = fits(key, record) ? parseKey(key) : null
    if (prefix === null) others.push([key, record])
    else (isIpv4(prefix) ? ipv4 : ipv6).push({ prefix, record: record as LocalityRecord })
  }
  const rows = ipv4.concat(ipv6)
  return { packed: rows.length === 0 ? null : packRows(rows, ipv4.length), others }
}

/** null: it is no prefix, or not as formatPrefix writes it. */
function parseKey(key: string): Prefix | null {
  const prefix = parsePrefix(key)
  if (prefix === null) return null
  // Of IPv4 there is one way to write each prefix, and a way to write an address without its length.
  const isCanonical = key.includes(':') ? formatPrefix(prefix) === key : key.includes('/')
  return isCanonical ? prefix : null
}

function isIpv4({ address, bits }: Prefix): boolean {
  return bits >= IPV4_OFFSET_BITS && familyOf(address) === 4
}

function fits(key: string, value: unknown): value is LocalityRecord {
  if (typeof value !== 'object' || value === null) return false
  const { prefix, evidence, incumbents } = value as Partial<LocalityRecord>
  return (
    prefix === key &&
    fieldsOf(value) === 3 &&
    Array.isArray(evidence) &&
    evidence.length > 0 &&
    evidence.every(evidenceFits) &&
    typeof incumbents === 'object' &&
    incumbents !== null &&
    incumbentsFit(incumbents)
  )
}

function evidenceFits(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  const { host, rttMs, count, atMs, kind } = value as Evidence
  return (
    fieldsOf(value) === 5 &&
    isName(host) &&
    typeof rttMs === 'number' &&
    typeof atMs === 'number' &&
    Number.isInteger(count) &&
    count >= 0 &&
    count <= MAX_WORD &&
    KINDS.includes(kind)
  )
}

function incumbentsFit(incumbents: LocalityRecord['incumbents']): boolean {
  for (const service in incumbents) if (!isName(service) || !isName(incumbents[service])) return false
  return true
}

function fieldsOf(value: object): number {
  let fields = 0
  for (const _ in value) fields++
  return fields
}

/** A byte a character. */
function isName(value: unknown): boolean {
  return typeof value === 'string' && /^[\x20-\x7e]*$/.test(value)
}

/** Names in the order in which they were first asked for, each once. */
class Names {
  readonly #numbers = new Map<string, number>()
  bytes = 0

  get size(): number {
    return this.#numbers.size
  }

  numberOf(name: string): number {
    const known = this.#numbers.get(name)
    if (known !== undefined) return known
    this.bytes += name.length
    this.#numbers.set(name, this.#numbers.size)
    return this.#numbers.size - 1
  }

  [Symbol.iterator](): Iterator<string> {
    return this.#numbers.keys()
  }
}

function packRows(rows: readonly Fitting[], ipv4: number): Uint8Array {
  const names = new Names()
  const hosts: number[] = []
  const incumbents: number[] = []
  for (const { record } of rows) {
    for (const { host } of record.evidence) hosts.push(names.numberOf(host))
    for (const service in record.incumbents) {
      incumbents.push(names.numberOf(service), names.numberOf(record.incumbents[service]!))
    }
  }
  const sizes: Sizes = {
    ipv4,
    ipv6: rows.length - ipv4,
    evidence: hosts.length,
    incumbents: incumbents.length / 2,
    names: names.size,
    nameBytes: names.bytes,
  }
  const at = layoutOf(sizes)
  const bytes = new Uint8Array(at.end)
  const view = new DataView(bytes.buffer)
  const header = [FORMAT, ipv4, sizes.ipv6, sizes.evidence, sizes.incumbents, sizes.names, names.bytes]
  writeWords(view, 0, header)
  writeWords(view, at.hosts, hosts)
  for (let i = 0; i < sizes.incumbents; i++) {
    view.setUint32(at.services + 4 * i, incumbents[2 * i]!, true)
    view.setUint32(at.members + 4 * i, incumbents[2 * i + 1]!, true)
  }
  writeRows(rows, ipv4, at, bytes, view)
  writeNames(names, at, bytes, view)
  return bytes
}

function writeWords(view: DataView, from: number, words: readonly number[]): void {
  for (let i = 0; i < words.length; i++) view.setUint32(from + 4 * i, words[i]!, true)
}

function writeRows(
  rows: readonly Fitting[],
  ipv4: number,
  at: Layout,
  bytes: Uint8Array,
  view: DataView,
): void {
  let [evidence, incumbents] = [0, 0]
  rows.forEach(({ prefix, record }, row) => {
    bytes[at.bits + row] = prefix.bits
    // IPv4's first twelve bytes are the same for all.
    bytes.set(prefix.address.subarray(row < ipv4 ? 12 : 0), at.addresses + addressAt(row, ipv4))
    for (const { rttMs, atMs, count, kind } of record.evidence) {
      view.setFloat64(at.rtts + 8 * evidence, rttMs, true)
      view.setFloat64(at.times + 8 * evidence, atMs, true)
      view.setUint32(at.counts + 4 * evidence, count, true)
      bytes[at.kinds + evidence++] = KINDS.indexOf(kind)
    }
    incumbents += fieldsOf(record.incumbents)
    view.setUint32(at.evidenceEnds + 4 * row, evidence, true)
    view.setUint32(at.incumbentEnds + 4 * row, incumbents, true)
  })
}

function writeNames(names: Names, at: Layout, bytes: Uint8Array, view: DataView): void {
  let [number, end] = [0, 0]
  for (const name of names) {
    for (let c = 0; c < name.length; c++) bytes[at.names + end + c] = name.charCodeAt(c)
    end += name.length
    view.setUint32(at.nameEnds + 4 * number++, end, true)
  }
}

function addressAt(row: number, ipv4: number): number {
  return row < ipv4 ? 4 * row : 4 * ipv4 + 16 * (row - ipv4)
}

// Reading.

/** The page that these bytes are, read where they lie; null: they are none. */
export function openLocalityPage(bytes: Uint8Array): LocalityPage | null {
  if (bytes.length < 4 * HEADER_WORDS) return null
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const [format, ipv4, ipv6, evidence, incumbents, names, nameBytes] = Array.from(
    { length: HEADER_WORDS },
    (_, i) => view.getUint32(4 * i, true),
  ) as [number, number, number, number, number, number, number]
  const sizes = { ipv4, ipv6, evidence, incumbents, names, nameBytes }
  if (format !== FORMAT || layoutOf(sizes).end !== bytes.length) return null
  const page = new LocalityPage(bytes, view, sizes)
  return page.isSound ? page : null
}

export class LocalityPage {
  readonly bytes: Uint8Array
  /** Rows are below this. */
  readonly size: number
  readonly #view: DataView
  readonly #sizes: Sizes
  readonly #at: Layout

  constructor(bytes: Uint8Array, view: DataView, sizes: Sizes) {
    this.bytes = bytes
    this.#view = view
    this.#sizes = sizes
    this.#at = layoutOf(sizes)
    this.size = sizes.ipv4 + sizes.ipv6
  }

  familyOf(row: number): Family {
    return row < this.#sizes.ipv4 ? 4 : 6
  }

  /** Of the 16-byte form. */
  bitsOf(row: number): number {
    return this.bytes[this.#at.bits + row]!
  }

  /** Writes a row's address into `to`, 16 bytes. */
  copyAddress(row: number, to: Uint8Array): void {
    const isIpv4 = row < this.#sizes.ipv4
    const from = this.#at.addresses + addressAt(row, this.#sizes.ipv4)
    const first = isIpv4 ? 12 : 0
    if (isIpv4) beginIpv4(to)
    for (let i = first; i < 16; i++) to[i] = this.bytes[from + i - first]!
  }

  /** The first four bytes of a row's address within its family. */
  headOf(row: number): number {
    return wordAt(this.bytes, this.#at.addresses + addressAt(row, this.#sizes.ipv4)) >>> 0
  }

  prefixOf(row: number): Prefix {
    const address: Address = new Uint8Array(16)
    this.copyAddress(row, address)
    return { address, bits: this.bitsOf(row) }
  }

  keyOf(row: number): string {
    return formatPrefix(this.prefixOf(row))
  }

  /** How many hosts measured it themselves, for nobody but themselves: neither inherited nor a client's word. */
  ownEvidence(row: number): number {
    const { counts, kinds } = this.#at
    let own = 0
    for (let i = this.#evidenceFrom(row); i < this.#evidenceTo(row); i++) {
      if (KINDS[this.bytes[kinds + i]!] !== 'client' && this.#view.getUint32(counts + 4 * i, true) > 0) own++
    }
    return own
  }

  evidenceOf(row: number): Evidence[] {
    const { rtts, times, hosts, counts, kinds } = this.#at
    const view = this.#view
    const evidence: Evidence[] = []
    for (let i = this.#evidenceFrom(row); i < this.#evidenceTo(row); i++) {
      evidence.push({
        host: this.#name(view.getUint32(hosts + 4 * i, true)),
        rttMs: view.getFloat64(rtts + 8 * i, true),
        count: view.getUint32(counts + 4 * i, true),
        atMs: view.getFloat64(times + 8 * i, true),
        kind: KINDS[this.bytes[kinds + i]!]!,
      })
    }
    return evidence
  }

  recordOf(row: number): LocalityRecord {
    const incumbents: Record<string, string> = {}
    const { services, members, incumbentEnds } = this.#at
    const view = this.#view
    const end = view.getUint32(incumbentEnds + 4 * row, true)
    for (let i = row === 0 ? 0 : view.getUint32(incumbentEnds + 4 * row - 4, true); i < end; i++) {
      incumbents[this.#name(view.getUint32(services + 4 * i, true))] = this.#name(
        view.getUint32(members + 4 * i, true),
      )
    }
    return { prefix: this.keyOf(row), evidence: this.evidenceOf(row), incumbents }
  }

  /** Whether no column points out of another: looked at once, so that reading need not. */
  get isSound(): boolean {
    const { evidence, incumbents, names, nameBytes } = this.#sizes
    const { hosts, services, members, evidenceEnds, incumbentEnds, nameEnds } = this.#at
    return (
      this.#areBelow(hosts, evidence, names) &&
      this.#areBelow(services, incumbents, names) &&
      this.#areBelow(members, incumbents, names) &&
      this.#areEnds(evidenceEnds, this.size, evidence) &&
      this.#areEnds(incumbentEnds, this.size, incumbents) &&
      this.#areEnds(nameEnds, names, nameBytes) &&
      this.#areKinds() &&
      this.#arePrefixes()
    )
  }

  #areBelow(column: number, count: number, limit: number): boolean {
    for (let i = 0; i < count; i++) if (this.#view.getUint32(column + 4 * i, true) >= limit) return false
    return true
  }

  #areEnds(column: number, count: number, end: number): boolean {
    let before = 0
    for (let i = 0; i < count; i++) {
      const next = this.#view.getUint32(column + 4 * i, true)
      if (next < before) return false
      before = next
    }
    return before === end
  }

  #areKinds(): boolean {
    const { kinds } = this.#at
    for (let i = 0; i < this.#sizes.evidence; i++) if (this.bytes[kinds + i]! >= KINDS.length) return false
    return true
  }

  #arePrefixes(): boolean {
    const address = new Uint8Array(16)
    for (let row = 0; row < this.size; row++) {
      const bits = this.bitsOf(row)
      if (bits > ADDRESS_BITS || (this.familyOf(row) === 4 && bits < IPV4_OFFSET_BITS)) return false
      this.copyAddress(row, address)
      if (!isClearedAfter(address, bits)) return false
    }
    return true
  }

  #evidenceFrom(row: number): number {
    return row === 0 ? 0 : this.#evidenceTo(row - 1)
  }

  #evidenceTo(row: number): number {
    return this.#view.getUint32(this.#at.evidenceEnds + 4 * row, true)
  }

  #name(number: number): string {
    const { names, nameEnds } = this.#at
    const from = number === 0 ? 0 : this.#view.getUint32(nameEnds + 4 * number - 4, true)
    const to = this.#view.getUint32(nameEnds + 4 * number, true)
    let name = ''
    for (let i = names + from; i < names + to; i++) name += String.fromCharCode(this.bytes[i]!)
    return name
  }
}
