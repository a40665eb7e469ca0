// The last changes of a large service's members: whose each was, and where on the globe.
//
// For whoever keeps what it found around a place, to see what of it still holds: a change elsewhere is none of its
// business. Of fixed size: who comes back after more changes than it holds takes all for changed. Changes are counted
// in 32 bits and with a sign, and the count comes round: it fits where lists of whole numbers keep it. Pure.

/** So many are known (a power of two): at ten changes a second those of the last minutes. */
export const KNOWN_CHANGES = 2048

export class ChangeRing {
  readonly #ids = new Int32Array(KNOWN_CHANGES)
  readonly #points = new Float32Array(3 * KNOWN_CHANGES)
  #count: number

  /** `first`: the number of the first change. */
  constructor(first = 0) {
    this.#count = first
  }

  /** The number that the next one gets. */
  get count(): number {
    return this.#count
  }

  /** A member by its number came, changed or went at a point; without one it is nowhere: infinitely far from all. */
  add(id: number, point: ArrayLike<number> | null): void {
    const at = placeOf(this.#count)
    this.#count = (this.#count + 1) | 0
    this.#ids[at] = id
    for (let axis = 0; axis < 3; axis++)
      this.#points[3 * at + axis] = point === null ? Number.POSITIVE_INFINITY : point[axis]!
  }

  /** Whether all changes from the `from`th on are known. */
  isKnownSince(from: number): boolean {
    return (this.#count - from) >>> 0 <= KNOWN_CHANGES
  }

  /** Whose the change of that number was. */
  idOf(change: number): number {
    return this.#ids[placeOf(change)]!
  }

  /** Whether any change from the `from`th on was no farther than `reach` from the point that stands in `points` at `at`. */
  isTouched(from: number, points: Float32Array, at: number, reach: number): boolean {
    for (let change = from; change !== this.#count; change = (change + 1) | 0) {
      const own = 3 * placeOf(change)
      const x = this.#points[own]! - points[at]!
      const y = this.#points[own + 1]! - points[at + 1]!
      const z = this.#points[own + 2]! - points[at + 2]!
      if (Math.sqrt(x * x + y * y + z * z) <= reach) return true
    }
    return false
  }
}

function placeOf(change: number): number {
  return change & (KNOWN_CHANGES - 1)
}
