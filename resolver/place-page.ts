// Imported places, a page for each region: many prefixes in one packed record.
//
// A map of the Internet has a million prefixes and a quarter as many different places: kept as pages they
// are some thousand records of a dozen megabytes in all, which a store, another core and this one's memory
// take easily. Invariant: a page has each prefix once; packing what unpacking gave gives the same bytes.
// Pure. A page that is not one unpacks to null.

import { familyOf, formatPrefix, IPV4_OFFSET_BITS, type Prefix, parsePrefix, prefixOf } from './address.ts'
import type { Change, Place, PlacePage } from './directory.ts'

/** What an import says of a prefix. */
export interface PlaceFact {
  readonly place: Place
  /** The network that announces it; null: not told. */
  readonly asn: number | null
  /** ISO 3166-1, two capital letters; null: not told. */
  readonly country: string | null
  /** What it was learnt from: an import's name. */
  readonly source: string
}

export interface PlaceEntry {
  readonly prefix: Prefix
  readonly fact: PlaceFact
}

/** A page taken apart: entries in columns, in the order of their first addresses, shorter ones first. */
export interface UnpackedPage {
  readonly facts: readonly PlaceFact[]
  /** Four words of each prefix's address. */
  readonly words: Uint32Array
  readonly lengths: Uint8Array
  /** Which of `facts` each is. */
  readonly factOf: Uint32Array
}

/**
 * Bits of a region, in the 16-byte form. In today's tables the fullest /12 has 4,200 prefixes and the
 * fullest /20 of IPv6 20,000. What is wider than that is in its family's own page.
 */
const REGION_BITS = { 4: 12 + IPV4_OFFSET_BITS, 6: 20 } as const
const FAMILY_BITS = { 4: IPV4_OFFSET_BITS, 6: 0 } as const

const FORMAT = 1
/** Places are kept to 11 m, and radii to 100 m. */
const DEGREE_STEPS = 10_000
const KM_STEPS = 10

/** The region whose page a prefix is in: its key, as text. */
export function regionOf(prefix: Prefix): string {
  const { address, bits } = prefix
  const family = isIpv4(prefix) ? 4 : 6
  return formatPrefix(
    prefixOf(address, bits >= REGION_BITS[family] ? REGION_BITS[family] : FAMILY_BITS[family]),
  )
}

/** Whether this is the region of a family's prefixes that are wider than a region. */
export function isWidest(region: string): boolean {
  return region.endsWith('/0')
}

/** Pages by where their regions begin: a table that is filled in that order moves nothing. */
export function inAddressOrder(pages: ReadonlyMap<string, PlacePage>): [string, PlacePage][] {
  const placed = Array.from(pages, (page) => ({ page, prefix: parsePrefix(page[0])! }))
  return placed.sort((a, b) => comparePrefixes(a.prefix, b.prefix)).map(({ page }) => page)
}

function isIpv4({ address, bits }: Prefix): boolean {
  return bits >= IPV4_OFFSET_BITS && familyOf(address) === 4
}

/** The pages that change when these entries are put in. */
export function placeChanges(
  pages: Pick<ReadonlyMap<string, PlacePage>, 'get'>,
  entries: Iterable<PlaceEntry>,
): Change[] {
  const byRegion = new Map<string, PlaceEntry[]>()
  for (const entry of entries) {
    const region = regionOf(entry.prefix)
    const known = byRegion.get(region)
    if (known) known.push(entry)
    else byRegion.set(region, [entry])
  }
  return Array.from(byRegion, ([region, inside]) => {
    const packed = mergeIntoPage(pages.get(region)?.packed ?? null, inside)
    return { kind: 'places', key: region, value: { region, packed } }
  })
}

/** The page with these entries put in, each in place of what it said of the same prefix; of two alike the last. */
export function mergeIntoPage(packed: Uint8Array | null, entries: readonly PlaceEntry[]): Uint8Array {
  const known = packed === null ? [] : entriesOf(packed)
  const fresh = entries.toSorted((a, b) => comparePrefixes(a.prefix, b.prefix))
  const merged: PlaceEntry[] = []
  let at = 0
  for (const [i, entry] of fresh.entries()) {
    const next = fresh[i + 1]
    if (next && comparePrefixes(entry.prefix, next.prefix) === 0) continue
    let order = -1
    for (; at < known.length; at++) {
      order = comparePrefixes(known[at]!.prefix, entry.prefix)
      if (order >= 0) break
      merged.push(known[at]!)
    }
    if (at < known.length && order === 0) at++
    merged.push(entry)
  }
  for (; at < known.length; at++) merged.push(known[at]!)
  return packPage(merged)
}

/** The entries of a page as records; none where it is no page. */
export function entriesOf(packed: Uint8Array): PlaceEntry[] {
  const page = unpackPage(packed)
  if (page === null) return []
  return Array.from(page.lengths, (bits, i) => {
    const address = new Uint8Array(16)
    const view = new DataView(address.buffer)
    for (let word = 0; word < 4; word++) view.setUint32(4 * word, page.words[4 * i + word]!)
    return { prefix: { address, bits }, fact: page.facts[page.factOf[i]!]! }
  })
}

/** Entries of one region, each prefix once, in any order. */
export function packPage(entries: readonly PlaceEntry[]): Uint8Array {
  const sorted = entries.toSorted((a, b) => comparePrefixes(a.prefix, b.prefix))
  const sources = new Numbering<string>()
  const facts = new Numbering<PlaceFact>()
  // Entries that came from one page share their facts' records: those are named once.
  const numberOf = new Map<PlaceFact, number>()
  for (const { fact } of sorted) if (!numberOf.has(fact)) numberOf.set(fact, facts.of(factKey(fact), fact))
  for (const fact of facts.values) sources.of(fact.source, fact.source)
  const family = entries.some(({ prefix }) => isIpv4(prefix)) ? 4 : 6
  const out = new PageWriter()
  out.number(FORMAT)
  out.number(family)
  out.number(sources.values.length)
  for (const source of sources.values) out.text(source)
  out.number(facts.values.length)
  for (const { place, asn, country, source } of facts.values) {
    out.signed(Math.round(place.lat * DEGREE_STEPS))
    out.signed(Math.round(place.lon * DEGREE_STEPS))
    out.number(Math.max(1, Math.round(place.accuracyKm * KM_STEPS)))
    out.number(asn === null ? 0 : asn + 1)
    out.text(country ?? '')
    out.number(sources.of(source, source))
  }
  out.number(sorted.length)
  for (const { prefix, fact } of sorted) {
    out.number(prefix.bits)
    // IPv4's first twelve bytes are the same for all, and the bytes after the length are 0.
    out.bytes(prefix.address.subarray(FAMILY_BITS[family] >> 3, (prefix.bits + 7) >> 3))
    out.number(numberOf.get(fact)!)
  }
  return out.finish()
}

function factKey({ place, asn, country, source }: PlaceFact): string {
  return `${place.lat} ${place.lon} ${place.accuracyKm} ${asn} ${country} ${source}`
}

/** By first address, shorter first. */
export function comparePrefixes(a: Prefix, b: Prefix): number {
  for (let i = 0; i < 16; i++) if (a.address[i] !== b.address[i]) return a.address[i]! - b.address[i]!
  return a.bits - b.bits
}

/** What packPage was given, in columns; null where the bytes are no page. */
export function unpackPage(packed: Uint8Array): UnpackedPage | null {
  const input = new PageReader(packed)
  if (input.number() !== FORMAT) return null
  const family = input.number()
  if (family !== 4 && family !== 6) return null
  const sources: string[] = []
  for (let left = input.number(); left > 0 && !input.hasFailed; left--) sources.push(input.text())
  const facts: PlaceFact[] = []
  for (let left = input.number(); left > 0 && !input.hasFailed; left--) {
    const lat = input.signed() / DEGREE_STEPS
    const lon = input.signed() / DEGREE_STEPS
    const accuracyKm = input.number() / KM_STEPS
    const asn = input.number()
    const country = input.text()
    const source = sources[input.number()]
    if (source === undefined || Math.abs(lat) > 90 || Math.abs(lon) > 180) return null
    facts.push({
      place: { lat, lon, accuracyKm },
      asn: asn === 0 ? null : asn - 1,
      country: country === '' ? null : country,
      source,
    })
  }
  return readEntries(input, family, facts)
}

function readEntries(input: PageReader, family: 4 | 6, facts: readonly PlaceFact[]): UnpackedPage | null {
  const count = input.number()
  // An entry takes two bytes at least: nobody's number makes this reserve more than ten times the page.
  if (input.hasFailed || count > input.left / 2) return null
  const words = new Uint32Array(4 * count)
  const lengths = new Uint8Array(count)
  const factOf = new Uint32Array(count)
  for (let i = 0; i < count; i++) {
    const bits = input.number()
    if (bits > 128 || bits < FAMILY_BITS[family]) return null
    if (family === 4) words[4 * i + 2] = 0xffff
    for (let at = FAMILY_BITS[family] >> 3; at < (bits + 7) >> 3; at++) {
      words[4 * i + (at >> 2)]! |= input.byte() << (24 - 8 * (at & 3))
    }
    lengths[i] = bits
    factOf[i] = input.number()
    if (factOf[i]! >= facts.length) return null
  }
  return input.hasFailed || input.left > 0 ? null : { facts, words, lengths, factOf }
}

/** Things in the order in which they were first asked for, each once. */
class Numbering<T> {
  readonly values: T[] = []
  readonly #numbers = new Map<string, number>()

  of(key: string, value: T): number {
    const known = this.#numbers.get(key)
    if (known !== undefined) return known
    this.#numbers.set(key, this.values.length)
    this.values.push(value)
    return this.values.length - 1
  }
}

/** Numbers as in LEB128: seven bits a byte, the lowest first; signed ones with their sign in the lowest bit. */
class PageWriter {
  #bytes = new Uint8Array(1024)
  #at = 0

  byte(value: number): void {
    if (this.#at === this.#bytes.length) {
      const wider = new Uint8Array(2 * this.#at)
      wider.set(this.#bytes)
      this.#bytes = wider
    }
    this.#bytes[this.#at++] = value
  }

  bytes(values: Uint8Array): void {
    for (const value of values) this.byte(value)
  }

  /** 0..2^53-1. */
  number(value: number): void {
    let rest = value
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) this.byte((rest % 0x80) | 0x80)
    this.byte(rest)
  }

  signed(value: number): void {
    this.number(value < 0 ? -2 * value - 1 : 2 * value)
  }

  text(value: string): void {
    const bytes = new TextEncoder().encode(value)
    this.number(bytes.length)
    this.bytes(bytes)
  }

  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#at)
  }
}

/** Reads what PageWriter wrote; past the end all is 0, and it says that it failed. */
class PageReader {
  readonly #bytes: Uint8Array
  #at = 0
  hasFailed = false

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get left(): number {
    return this.#bytes.length - this.#at
  }

  byte(): number {
    if (this.#at < this.#bytes.length) return this.#bytes[this.#at++]!
    this.hasFailed = true
    return 0
  }

  number(): number {
    let value = 0
    let scale = 1
    for (;;) {
      const byte = this.byte()
      value += (byte & 0x7f) * scale
      if (byte < 0x80) break
      scale *= 0x80
    }
    if (value <= Number.MAX_SAFE_INTEGER) return value
    this.hasFailed = true
    return 0
  }

  signed(): number {
    const value = this.number()
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2
  }

  text(): string {
    const length = this.number()
    if (length > this.left) {
      this.hasFailed = true
      return ''
    }
    this.#at += length
    return new TextDecoder().decode(this.#bytes.subarray(this.#at - length, this.#at))
  }
}
