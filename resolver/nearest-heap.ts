// The nearest few of many that are offered one after another: a heap with the farthest of them on top.
//
// Made once and opened for each search, so that a search allocates nothing. `limit` tells how near an offer must be
// to be of use, which is what lets a search pass over all else. Pure.

/** What a search found, nearest first: the first `count` of both arrays. */
export interface Found {
  readonly ids: Int32Array
  /** Straight line plus offset. */
  readonly distances: Float64Array
  readonly count: number
}

export class NearestHeap {
  /** Nothing farther is of use. */
  limit = 0
  #ids = new Int32Array(64)
  #distances = new Float64Array(64)
  #count = 0
  #wanted = 0

  open(wanted: number, limit: number): void {
    if (wanted > this.#ids.length) {
      this.#ids = new Int32Array(wanted)
      this.#distances = new Float64Array(wanted)
    }
    this.#wanted = wanted
    this.#count = 0
    this.limit = limit
  }

  offer(id: number, distance: number): void {
    if (this.#count < this.#wanted) {
      this.#raise(this.#count++, id, distance)
      if (this.#count === this.#wanted) this.limit = Math.min(this.limit, this.#distances[0]!)
    } else if (distance < this.#distances[0]!) {
      this.#sink(id, distance, this.#count)
      this.limit = this.#distances[0]!
    }
  }

  /** What it holds, in order: the farthest of the rest goes to the end, again and again. */
  close(): Found {
    for (let end = this.#count - 1; end > 0; end--) {
      const [id, distance] = [this.#ids[end]!, this.#distances[end]!]
      this.#ids[end] = this.#ids[0]!
      this.#distances[end] = this.#distances[0]!
      this.#sink(id, distance, end)
    }
    return { ids: this.#ids, distances: this.#distances, count: this.#count }
  }

  #raise(from: number, id: number, distance: number): void {
    let at = from
    while (at > 0) {
      const above = (at - 1) >> 1
      if (this.#distances[above]! >= distance) break
      this.#ids[at] = this.#ids[above]!
      this.#distances[at] = this.#distances[above]!
      at = above
    }
    this.#ids[at] = id
    this.#distances[at] = distance
  }

  #sink(id: number, distance: number, count: number): void {
    let at = 0
    for (;;) {
      let below = 2 * at + 1
      if (below >= count) break
      if (below + 1 < count && this.#distances[below + 1]! > this.#distances[below]!) below++
      if (this.#distances[below]! <= distance) break
      this.#ids[at] = this.#ids[below]!
      this.#distances[at] = this.#distances[below]!
      at = below
    }
    this.#ids[at] = id
    this.#distances[at] = distance
  }
}
