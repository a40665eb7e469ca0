// Where imports say that prefixes are: the pages of all regions, compiled for lookups.
//
// An address finds the fact of the longest prefix around it. Prefixes that say the same as the one around
// them are left out and halves that agree become one, so that the table is smaller and a lookup's scope is
// the largest prefix (within a region) of one fact. Facts are rows of flat arrays. Written by Tables alone; other
// threads may read it (place-reader.ts).

import type { Address, Prefix } from './address.ts'
import { cellAt } from './map-model.ts'
import { type PlaceFact, type UnpackedPage, unpackPage } from './place-page.ts'
import {
  type FactMemory,
  factAt,
  HEADER_WORDS,
  type PlaceMemory,
  type Places,
  SIZE,
  TURN,
} from './place-reader.ts'
import { type PrefixMatch, PrefixTable } from './prefix-table.ts'

/** No prefix says anything. */
const NOWHERE = -1

interface LoadedPage {
  readonly packed: Uint8Array
  readonly rows: Int32Array
  readonly count: number
}

/** Handed to those who read on other threads. */
export interface SharedPlaces {
  /** As it is now. */
  readonly memory: PlaceMemory
  /** Tells no more of other memory. */
  end(): void
}

export class PlaceTable implements Places {
  readonly #pages = new Map<string, LoadedPage>()
  readonly #facts = new FactTable()
  /** The second one once readers share it: which is read, and how they change roles, see place-reader.ts. */
  #sides: readonly [PrefixTable] | readonly [PrefixTable, PrefixTable] = [new PrefixTable({ shared: true })]
  #header = newHeader()
  readonly #listeners = new Set<(memory: PlaceMemory) => void>()

  /** Prefixes that imports told of, before any were joined. */
  get size(): number {
    return this.#header[SIZE]!
  }

  /** Whoever reads here is told of each change before anything else happens. */
  get turn(): number {
    return 0
  }

  /** Prefixes in the lookup table. */
  get compiledSize(): number {
    return this.#shown.size
  }

  /** The row of what is said of an address (-1: nothing), of which prefix, and how wide it holds. */
  find(address: Address, into?: PrefixMatch): PrefixMatch {
    return this.#shown.find(address, into)
  }

  fact(row: number): PlaceFact | null {
    return row < 0 ? null : factAt(this.#facts.memory, row)
  }

  /** The AS of a row; 0: not told. */
  asnOf(row: number): number {
    return this.#facts.memory.asns[row]!
  }

  cellOf(row: number): number {
    return this.#facts.memory.cells[row]!
  }

  /** Sets or (null) removes a region's page. One that can't be read counts as empty. */
  setPage(region: string, packed: Uint8Array | null): void {
    const before = this.#pages.get(region)
    const page = packed && unpackPage(packed)
    if (!before && !page) return
    const old = before && unpackPage(before.packed)!
    const facts = this.#facts.memory
    const rows = Int32Array.from(page?.facts ?? [], (fact) => this.#facts.add(fact))
    const size = this.size + (page?.lengths.length ?? 0) - (before?.count ?? 0)
    this.#write(size, facts, (prefixes) => {
      if (old) compile(old, (prefix) => prefixes.delete(prefix))
      if (page) compile(page, (prefix, fact) => prefixes.set(prefix, rows[fact]!))
    })
    if (before) this.#facts.release(before.rows)
    if (page) this.#pages.set(region, { packed: packed!, rows, count: page.lengths.length })
    else this.#pages.delete(region)
  }

  /** From now on other threads may read; `onMoved` is told each time that it goes on in other memory. */
  share(onMoved: (memory: PlaceMemory) => void): SharedPlaces {
    if (this.#sides.length === 1) this.#sides = [this.#sides[0], this.#sides[0].clone()]
    this.#listeners.add(onMoved)
    const table = this
    return {
      get memory() {
        return table.#memory
      },
      end: () => {
        this.#listeners.delete(onMoved)
      },
    }
  }

  get #shown(): PrefixTable {
    return this.#sides.length === 1 ? this.#sides[0] : this.#sides[this.#header[TURN]! & 1]!
  }

  get #memory(): PlaceMemory {
    const [first, second] = this.#sides
    return { header: this.#header, sides: [first.memory, second!.memory], facts: this.#facts.memory }
  }

  /** `facts`: their memory before those of this change came. */
  #write(size: number, facts: FactMemory, change: (prefixes: PrefixTable) => void): void {
    if (this.#sides.length === 1) {
      change(this.#sides[0])
      this.#header[SIZE] = size
      return
    }
    const shown = this.#shown
    const hidden = this.#sides[0] === shown ? this.#sides[1] : this.#sides[0]
    const { narrow, wide } = hidden.memory
    change(hidden)
    if (facts === this.#facts.memory && narrow === hidden.memory.narrow && wide === hidden.memory.wide) {
      Atomics.store(this.#header, SIZE, size)
      Atomics.add(this.#header, TURN, 1)
      change(shown)
    } else {
      // What readers have stands still from now on, as it was before this change: they are told of the new.
      if (facts.asns === this.#facts.memory.asns) this.#facts.moveOn()
      this.#sides = [hidden, hidden.clone()]
      const turn = this.#header[TURN]!
      this.#header = newHeader()
      this.#header[SIZE] = size
      // The next at which the first side is read.
      this.#header[TURN] = (turn | 1) + 1
      for (const listener of this.#listeners) listener(this.#memory)
    }
  }
}

function newHeader(): Int32Array {
  return new Int32Array(new SharedArrayBuffer(4 * HEADER_WORDS))
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
  #memory = allocateFacts(64, [])
  /** Rows in the order in which they were given back. */
  #free: number[] = []
  #nextFree = 0
  #used = 0

  /** Once it does not hold what is added, it goes on in other memory, and this stands still. */
  get memory(): FactMemory {
    return this.#memory
  }

  add({ place, asn, country, source }: PlaceFact): number {
    const number = this.#sourceNumber(source)
    const row = this.#takeRow()
    if (row === this.#memory.asns.length)
      this.#memory = allocateFacts(2 * row, this.#memory.sourceNames, this.#memory)
    const { places, cells, asns, countries, sources } = this.#memory
    places.set([place.lat, place.lon, place.accuracyKm], 3 * row)
    cells[row] = cellAt(place.lat, place.lon)
    asns[row] = asn === null ? 0 : asn
    countries[row] = country === null ? 0 : (country.charCodeAt(0) << 8) | country.charCodeAt(1)
    sources[row] = number
    return row
  }

  /** Goes on in other memory as it is, and the one until now stands still. */
  moveOn(): void {
    this.#memory = allocateFacts(this.#memory.asns.length, this.#memory.sourceNames, this.#memory)
  }

  release(rows: Int32Array): void {
    for (const row of rows) this.#free.push(row)
  }

  /** Who found a row just before it was given back still reads it: it is the longest unused that is given out. */
  #takeRow(): number {
    if (this.#free.length - this.#nextFree <= REST_ROWS) return this.#used++
    const row = this.#free[this.#nextFree++]!
    if (this.#nextFree === REST_ROWS) {
      this.#free = this.#free.slice(REST_ROWS)
      this.#nextFree = 0
    }
    return row
  }

  /** Names of imports stay known: there are few, however often they are repeated. */
  #sourceNumber(source: string): number {
    const { sourceNames } = this.#memory
    const known = sourceNames.indexOf(source)
    if (known >= 0 || sourceNames.length === 0xffff) return Math.max(0, known)
    this.#memory = { ...this.#memory, sourceNames: [...sourceNames, source] }
    return sourceNames.length
  }
}

/** Rows that rest between two facts: some dozen pages' worth. */
const REST_ROWS = 4096

function allocateFacts(rows: number, sourceNames: readonly string[], from?: FactMemory): FactMemory {
  const memory = {
    places: new Float64Array(new SharedArrayBuffer(24 * rows)),
    cells: new Uint32Array(new SharedArrayBuffer(4 * rows)),
    asns: new Uint32Array(new SharedArrayBuffer(4 * rows)),
    countries: new Uint16Array(new SharedArrayBuffer(2 * rows)),
    sources: new Uint16Array(new SharedArrayBuffer(2 * rows)),
    sourceNames,
  }
  if (from === undefined) return memory
  memory.places.set(from.places)
  memory.cells.set(from.cells)
  memory.asns.set(from.asns)
  memory.countries.set(from.countries)
  memory.sources.set(from.sources)
  return memory
}
