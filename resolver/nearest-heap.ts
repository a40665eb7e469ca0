// The nearest few of many that are offered one after another: a heap with the farthest of them on top.
//
// Of equally near ones those of the lowest rank are kept, whatever the order of the offers. Made once and opened for
// each search, so that a search allocates nothing. `limit` tells how near an offer must be to be of use, which is what
// lets a search pass over all else. Pure.

/** What a search found, nearest first, equally near ones by rank: the first `count` of both arrays. */
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
  #ranks = new Int32Array(64)
  #count = 0
  #wanted = 0

  open(wanted: number, limit: number): void {
    if (wanted > this.#ids.length) {
      this.#ids = new Int32Array(wanted)
      this.#distances = new Float64Array(wanted)
      this.#ranks = new Int32Array(wanted)
    }
    this.#wanted = wanted
    this.#count = 0
    this.limit = limit
  }

  offer(id: number, distance: number, rank: number): void {
    if (this.#count < this.#wanted) {
      this.#raise(this.#count++, id, distance, rank)
      if (this.#count === this.#wanted) this.limit = Math.min(this.limit, this.#distances[0]!)
    } else if (this.#isBehind(0, distance, rank)) {
      this.#sink(id, distance, rank, this.#count)
      this.limit = this.#distances[0]!
    }
  }

  /** What it holds, in order: the farthest of the rest goes to the end, again and again. */
  close(): Found {
    for (let end = this.#count - 1; end > 0; end--) {
      const [id, distance, rank] = [this.#ids[end]!, this.#distances[end]!, this.#ranks[end]!]
      this.#move(0, end)
      this.#sink(id, distance, rank, end)
    }
    return { ids: this.#ids, distances: this.#distances, count: this.#count }
  }

  /** Whether what stands at a place is farther, or just as far and of a higher rank. */
  #isBehind(at: number, distance: number, rank: number): boolean {
    const own = this.#distances[at]!
    return own > distance || (own === distance && this.#ranks[at]! > rank)
  }

  #raise(from: number, id: number, distance: number, rank: number): void {
    let at = from
    while (at > 0) {
      const above = (at - 1) >> 1
      if (this.#isBehind(above, distance, rank)) break
      this.#move(above, at)
      at = above
    }
    this.#set(at, id, distance, rank)
  }

  #sink(id: number, distance: number, rank: number, count: number): void {
    let at = 0
    for (;;) {
      let below = 2 * at + 1
      if (below >= count) break
      const next = below + 1
      if (next < count && this.#isBehind(next, this.#distances[below]!, this.#ranks[below]!)) below = next
      if (!this.#isBehind(below, distance, rank)) break
      this.#move(below, at)
      at = below
    }
    this.#set(at, id, distance, rank)
  }

  #move(from: number, to: number): void {
    this.#set(to, this.#ids[from]!, this.#distances[from]!, this.#ranks[from]!)
  }

  #set(at: number, id: number, distance: number, rank: number): void {
    this.#ids[at] = id
    this.#distances[at] = distance
    this.#ranks[at] = rank
  }
}
