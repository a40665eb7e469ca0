// Imported places as other threads read them while the core's thread changes them.
//
// There are two tables of the same prefixes: one is read, the other written; after each page they change roles and
// the page is written a second time (after left-right: Ramalhete, Correia 2015, with a count of turns in the place
// of readers' marks). Invariant: a reader waits for nobody, and finds each page whole, as it was before or after a
// change: what it read while the roles changed it reads again. A row means the same fact for as long as `turn` stays
// what it is, and a little longer. Where memory grows, readers are told of the new, and what they have stands still.

import type { Address } from './address.ts'
import type { PlaceFact } from './place-page.ts'
import { findIn, newMatch, type PrefixMatch, type PrefixTableMemory } from './prefix-table.ts'

/** What answers ask of imported places. */
export interface Places {
  /** Prefixes that imports told of. */
  readonly size: number
  /** Another number once a page changed of which whoever reads here was perhaps not told yet: rows found before may be others'. */
  readonly turn: number
  find(address: Address, into?: PrefixMatch): PrefixMatch
  fact(row: number): PlaceFact | null
  asnOf(row: number): number
  /** The cell of the map (see cellAt) of a row. Allocates nothing. */
  cellOf(row: number): number
  setPage(region: string, packed: Uint8Array | null): void
}

/** Facts by row. A row that is given to another fact was unused for long. */
export interface FactMemory {
  /** Three of each row: lat, lon, accuracyKm. */
  readonly places: Float64Array
  /** Of the map (see cellAt). */
  readonly cells: Uint32Array
  /** 0: not told. */
  readonly asns: Uint32Array
  /** Two letters' codes; 0: not told. */
  readonly countries: Uint16Array
  /** Which of `sourceNames`. */
  readonly sources: Uint16Array
  readonly sourceNames: readonly string[]
}

export interface PlaceMemory {
  readonly header: Int32Array
  readonly sides: readonly [PrefixTableMemory, PrefixTableMemory]
  readonly facts: FactMemory
}

/** Words of the header: how often roles changed (the side by that number's last bit is read), and `size`. */
export const TURN = 0
export const SIZE = 1
export const HEADER_WORDS = 2

export function factAt(memory: FactMemory, row: number): PlaceFact {
  const at = 3 * row
  const asn = memory.asns[row]!
  const country = memory.countries[row]!
  return {
    place: { lat: memory.places[at]!, lon: memory.places[at + 1]!, accuracyKm: memory.places[at + 2]! },
    asn: asn === 0 ? null : asn,
    country: country === 0 ? null : String.fromCharCode(country >> 8, country & 0xff),
    source: memory.sourceNames[memory.sources[row]!]!,
  }
}

export class PlaceReader implements Places {
  #memory: PlaceMemory | null = null

  /** From now on it reads there. */
  follow(memory: PlaceMemory): void {
    this.#memory = memory
  }

  get size(): number {
    return this.#memory === null ? 0 : Atomics.load(this.#memory.header, SIZE)
  }

  get turn(): number {
    return this.#memory === null ? 0 : Atomics.load(this.#memory.header, TURN)
  }

  find(address: Address, into: PrefixMatch = newMatch()): PrefixMatch {
    if (this.#memory === null) return Object.assign(into, newMatch())
    const { header, sides } = this.#memory
    for (;;) {
      const turn = Atomics.load(header, TURN)
      const { narrow, wide } = sides[turn & 1]!
      findIn(narrow, wide, address, into)
      if (Atomics.load(header, TURN) === turn) return into
    }
  }

  fact(row: number): PlaceFact | null {
    return row < 0 || this.#memory === null ? null : factAt(this.#memory.facts, row)
  }

  asnOf(row: number): number {
    return this.#memory?.facts.asns[row] ?? 0
  }

  cellOf(row: number): number {
    return this.#memory?.facts.cells[row] ?? 0
  }

  /** The core's thread has done so. */
  setPage(): void {}
}
