// Names as they stand in packets, and what each leads to: found without making a string of them.
//
// A hash table with open places over one arena of bytes, in small letters. Only names that lead somewhere are put in,
// so that nobody fills it with what he makes up; still it is bounded, and begun anew when it is full.

import { LOWER } from './dns-plain-query.ts'

const MOST_NAMES = 32_768
const ARENA_BYTES = 1 << 20
/** Half full at most; a power of two. */
const PLACES = 2 * MOST_NAMES
const PLACE_MASK = PLACES - 1

export class PlainNames<T> {
  /** Index of a name, plus one; 0: free. */
  readonly #places = new Uint32Array(PLACES)
  readonly #hashes = new Int32Array(MOST_NAMES)
  /** Where each begins in the arena; it ends where the next begins. */
  readonly #starts = new Uint32Array(MOST_NAMES + 1)
  readonly #arena = new Uint8Array(ARENA_BYTES)
  readonly #values: T[] = []

  /** What the name at `at`, which ends before `end`, was put in for; null: it was not. `hash`: PlainQuery.nameHash. */
  find(packet: Uint8Array, at: number, end: number, hash: number): T | null {
    for (let place = hash & PLACE_MASK; ; place = (place + 1) & PLACE_MASK) {
      const index = this.#places[place]! - 1
      if (index < 0) return null
      if (this.#hashes[index] === hash && this.#isSame(index, packet, at, end)) return this.#values[index]!
    }
  }

  /** Puts in a name that is not there. */
  add(packet: Uint8Array, at: number, end: number, hash: number, value: T): void {
    const isFull = this.#values.length === MOST_NAMES
    if (isFull || this.#starts[this.#values.length]! + end - at > ARENA_BYTES) this.clear()
    const index = this.#values.push(value) - 1
    this.#hashes[index] = hash
    const start = this.#starts[index]!
    for (let i = at; i < end; i++) this.#arena[start + i - at] = LOWER[packet[i]!]!
    this.#starts[index + 1] = start + end - at
    let place = hash & PLACE_MASK
    while (this.#places[place] !== 0) place = (place + 1) & PLACE_MASK
    this.#places[place] = index + 1
  }

  clear(): void {
    this.#places.fill(0)
    this.#values.length = 0
  }

  #isSame(index: number, packet: Uint8Array, at: number, end: number): boolean {
    const start = this.#starts[index]!
    if (this.#starts[index + 1]! - start !== end - at) return false
    for (let i = at; i < end; i++) if (this.#arena[start + i - at] !== LOWER[packet[i]!]) return false
    return true
  }
}
