// Where imports say that prefixes are: the pages of all regions, compiled for lookups.
//
// An address finds the fact of the longest prefix around it. Prefixes that say the same as the one around
// them are left out and halves that agree become one, so that the table is smaller and a lookup's scope is
// the largest prefix (within a region) of one fact. Facts are rows of flat arrays. Written by Tables alone.

import type { Address, Prefix } from './address.ts'
import { cellAt } from './map-model.ts'
import { type PlaceFact, type UnpackedPage, unpackPage } from './place-page.ts'
import { type PrefixMatch, PrefixTable } from './prefix-table.ts'

/** No prefix says anything. */
const NOWHERE = -1

interface LoadedPage {
  readonly packed: Uint8Array
  readonly rows: Int32Array
  readonly count: number
}

export class PlaceTable {
  readonly #prefixes = new PrefixTable()
  readonly #pages = new Map<string, LoadedPage>()
  readonly #facts = new FactTable()
  #size = 0

  /** Prefixes that imports told of, before any were joined. */
  get size(): number {
    return this.#size
  }

  /** Prefixes in the lookup table. */
  get compiledSize(): number {
    return this.#prefixes.size
  }

  /** The row of what is said of an address (-1: nothing), of which prefix, and how wide it holds. */
  find(address: Address, into?: PrefixMatch): PrefixMatch {
    return this.#prefixes.find(address, into)
  }

  fact(row: number): PlaceFact | null {
    return row < 0 ? null : this.#facts.at(row)
  }

  /** The cell of the map (see cellAt) of a row. Allocates nothing. */
  cellOf(row: number): number {
    return this.#facts.cellOf(row)
  }

  /** The AS of a row; 0: not told. */
  asnOf(row: number): number {
    return this.#facts.asnOf(row)
  }

  /** Sets or (null) removes a region's page. One that can't be read counts as empty. */
  setPage(region: string, packed: Uint8Array | null): void {
    const before = this.#pages.get(region)
    if (before) {
      compile(unpackPage(before.packed)!, (prefix) => this.#prefixes.delete(prefix))
      this.#facts.release(before.rows)
      this.#size -= before.count
      this.#pages.delete(region)
    }
    const page = packed && unpackPage(packed)
    if (!packed || !page) return
    const rows = Int32Array.from(page.facts, (fact) => this.#facts.add(fact))
    compile(page, (prefix, fact) => this.#prefixes.set(prefix, rows[fact]!))
    this.#pages.set(region, { packed, rows, count: page.lengths.length })
    this.#size += page.lengths.length
  }
}

/**
 * The fewest prefixes that a search for the longest finds the same facts by, as far as no fact is moved to
 * a place where nothing was said (after ORTC: Draves et al., INFOCOM 1999, without its choice of
 * defaults). `emit` is called with a record that is used again.
 */
function compile(page: UnpackedPage, emit: (prefix: Prefix, fact: number) => void): void {
  const { lengths } = page
  if (lengths.length === 0) return
  const address = new Uint8Array(16)
  const emitAt = (entry: number, bits: number, fact: number) => {
    if (fact === NOWHERE) return
    for (let at = 0; at < 16; at++) {
      const kept = Math.min(8, Math.max(0, bits - 8 * at))
      address[at] = byteAt(page, entry, at) & (0xff00 >> kept)
    }
    emit({ address, bits }, fact)
  }
  const bits = commonBits(page, 0, lengths.length)
  const fact = reduce(page, 0, lengths.length, bits, NOWHERE, emitAt)
  if (fact !== MIXED) emitAt(0, bits, fact)
}

/** Not the same fact everywhere: what is needed was emitted. */
const MIXED = -2

/**
 * The one fact of all addresses under the first `bits` of the entries first..end-1, which share them, or
 * MIXED. `outer`: the fact of whatever is around.
 */
function reduce(
  page: UnpackedPage,
  first: number,
  end: number,
  bits: number,
  outer: number,
  emit: (entry: number, bits: number, fact: number) => void,
): number {
  const isEntry = page.lengths[first] === bits
  const own = isEntry ? page.factOf[first]! : outer
  const from = isEntry ? first + 1 : first
  if (from === end) return own
  const middle = splitAt(page, from, end, bits)
  const left = reduceHalf(page, from, middle, bits + 1, own, emit)
  const right = reduceHalf(page, middle, end, bits + 1, own, emit)
  if (left === right && left !== MIXED) return left
  if (own !== outer) emit(first, bits, own)
  if (left !== own && left !== MIXED) emit(from, bits + 1, left)
  if (right !== own && right !== MIXED) emit(middle, bits + 1, right)
  return MIXED
}

/** As reduce, for a half that may be empty or whose entries share more than the half's bits. */
function reduceHalf(
  page: UnpackedPage,
  first: number,
  end: number,
  bits: number,
  outer: number,
  emit: (entry: number, bits: number, fact: number) => void,
): number {
  if (first === end) return outer
  const shared = commonBits(page, first, end)
  const fact = reduce(page, first, end, shared, outer, emit)
  if (shared === bits || fact === MIXED || fact === outer) return fact
  emit(first, shared, fact)
  return MIXED
}

/**
 * Leading bits that all entries of a range share, no more than the shortest has. The first and the last tell:
 * an entry shorter than what they share would begin where the first does, and stand before it.
 */
function commonBits({ words, lengths }: UnpackedPage, first: number, end: number): number {
  const shared = lengths[first]!
  for (let word = 0; word < 4; word++) {
    const differing = words[4 * first + word]! ^ words[4 * (end - 1) + word]!
    if (differing !== 0) return Math.min(shared, 32 * word + Math.clz32(differing))
  }
  return shared
}

/** The first entry of a range whose bit is set. */
function splitAt(page: UnpackedPage, first: number, end: number, bit: number): number {
  let low = first
  let high = end
  while (low < high) {
    const middle = (low + high) >>> 1
    if (((page.words[4 * middle + (bit >> 5)]! >>> (31 - (bit & 31))) & 1) === 0) low = middle + 1
    else high = middle
  }
  return low
}

function byteAt({ words }: UnpackedPage, entry: number, at: number): number {
  return (words[4 * entry + (at >> 2)]! >>> (24 - 8 * (at & 3))) & 0xff
}

/** Facts as rows: a map of the Internet has some hundred thousand. */
class FactTable {
  #places = new Float64Array(3 * 64)
  #cells = new Uint32Array(64)
  #asns = new Uint32Array(64)
  #countries = new Uint16Array(64)
  #sources = new Uint16Array(64)
  readonly #sourceNames: string[] = []
  readonly #free: number[] = []
  #used = 0

  add({ place, asn, country, source }: PlaceFact): number {
    const row = this.#free.pop() ?? this.#used++
    if (row === this.#asns.length) this.#grow()
    this.#places.set([place.lat, place.lon, place.accuracyKm], 3 * row)
    this.#cells[row] = cellAt(place.lat, place.lon)
    this.#asns[row] = asn === null ? 0 : asn
    this.#countries[row] = country === null ? 0 : (country.charCodeAt(0) << 8) | country.charCodeAt(1)
    this.#sources[row] = this.#sourceNumber(source)
    return row
  }

  release(rows: Int32Array): void {
    for (const row of rows) this.#free.push(row)
  }

  at(row: number): PlaceFact {
    const at = 3 * row
    const country = this.#countries[row]!
    return {
      place: { lat: this.#places[at]!, lon: this.#places[at + 1]!, accuracyKm: this.#places[at + 2]! },
      asn: this.#asns[row] === 0 ? null : this.#asns[row]!,
      country: country === 0 ? null : String.fromCharCode(country >> 8, country & 0xff),
      source: this.#sourceNames[this.#sources[row]!]!,
    }
  }

  cellOf(row: number): number {
    return this.#cells[row]!
  }

  asnOf(row: number): number {
    return this.#asns[row]!
  }

  /** Names of imports stay known: there are few, however often they are repeated. */
  #sourceNumber(source: string): number {
    const known = this.#sourceNames.indexOf(source)
    if (known >= 0 || this.#sourceNames.length === 0xffff) return Math.max(0, known)
    this.#sourceNames.push(source)
    return this.#sourceNames.length - 1
  }

  #grow(): void {
    const rows = 2 * this.#asns.length
    const widen = <T extends Float64Array | Uint32Array | Uint16Array>(from: T, to: T): T => {
      to.set(from)
      return to
    }
    this.#places = widen(this.#places, new Float64Array(3 * rows))
    this.#cells = widen(this.#cells, new Uint32Array(rows))
    this.#asns = widen(this.#asns, new Uint32Array(rows))
    this.#countries = widen(this.#countries, new Uint16Array(rows))
    this.#sources = widen(this.#sources, new Uint16Array(rows))
  }
}
