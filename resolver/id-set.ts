// A set of small whole numbers that can be drawn from: the one at any position, in constant time.
//
// The numbers stand side by side without a gap, in no order; one that goes gives its position to the last.
// Flat typed arrays, eight bytes a number. Pure.

import { grown, roomFor } from './typed-array.ts'

export class IdSet {
  #ids = new Int32Array(0)
  /** By number: its position and one; 0: not in. */
  #positions = new Int32Array(0)
  #size = 0

  get size(): number {
    return this.#size
  }

  get bytes(): number {
    return this.#ids.byteLength + this.#positions.byteLength
  }

  has(id: number): boolean {
    return (this.#positions[id] ?? 0) > 0
  }

  /** The number at a position below size. */
  at(position: number): number {
    return this.#ids[position]!
  }

  add(id: number): void {
    if (this.has(id)) return
    const { length } = this.#positions
    if (id >= length) this.#positions = grown(this.#positions, new Int32Array(roomFor(id + 1, length)))
    const room = this.#ids.length
    if (this.#size >= room) this.#ids = grown(this.#ids, new Int32Array(roomFor(this.#size + 1, room)))
    this.#ids[this.#size++] = id
    this.#positions[id] = this.#size
  }

  remove(id: number): void {
    if (!this.has(id)) return
    const position = this.#positions[id]! - 1
    const last = this.#ids[--this.#size]!
    this.#ids[position] = last
    this.#positions[last] = position + 1
    this.#positions[id] = 0
  }
}
