// The panel: an even sample of all who could be in it, which does not depend on who came when.
//
// Those whose keys hash lowest (or have the lowest rank) are in. Twice as many are kept at hand, so that one who goes is replaced
// without asking after all: everyone is looked through once in as many departures from those kept as the
// panel is large, hence in constant time a change. Invariant: whoever is kept hashes lower than whoever is not.

import { hashText } from './hash.ts'

interface Seat {
  readonly key: string
  readonly rank: number
}

export class Panel {
  readonly #size: number
  readonly #everyone: () => Iterable<string>
  readonly #rankOf: (key: string) => number
  /** In order. */
  #kept: Seat[] = []
  /** How many could be in it and are not kept. */
  #others = 0

  /**
   * `everyone` tells the keys of all who were added and not removed; they are asked for rarely. Those of the lowest
   * rank are in: by default an even sample.
   */
  constructor(size: number, everyone: () => Iterable<string>, rankOf: (key: string) => number = hashText) {
    this.#size = size
    this.#everyone = everyone
    this.#rankOf = rankOf
  }

  /** Takes in a key that was not added yet. True: it is in the panel. */
  add(key: string): boolean {
    return this.#add(this.#seatOf(key))
  }

  /** The same where the rank is known, and `keyOf` makes the key: of very many, few are ever asked for it. */
  addRanked(rank: number, keyOf: () => string): boolean {
    if (this.#others > 0 && rank > this.#kept.at(-1)!.rank) {
      this.#others++
      return false
    }
    return this.#add({ key: keyOf(), rank })
  }

  #add(seat: Seat): boolean {
    const at = this.#find(seat)
    if (at === this.#kept.length && this.#others > 0) {
      this.#others++
      return false
    }
    this.#kept.splice(at, 0, seat)
    if (this.#kept.length > 2 * this.#size) {
      this.#kept.pop()
      this.#others++
    }
    return at < this.#size
  }

  /** Forgets a key that was added, and that `everyone` tells no more. True: it was in the panel. */
  remove(key: string): boolean {
    const at = this.#find(this.#seatOf(key))
    if (this.#kept[at]?.key !== key) {
      this.#others--
      return false
    }
    this.#kept.splice(at, 1)
    if (this.#kept.length < this.#size && this.#others > 0) this.#refill()
    return at < this.#size
  }

  has(key: string): boolean {
    const at = this.#find(this.#seatOf(key))
    return at < this.#size && this.#kept[at]?.key === key
  }

  /** Who is in it, in order. */
  *keys(): Iterable<string> {
    for (const { key } of this.#kept.slice(0, this.#size)) yield key
  }

  #refill(): void {
    this.#kept = []
    this.#others = 0
    for (const key of this.#everyone()) this.#add(this.#seatOf(key))
  }

  #seatOf(key: string): Seat {
    return { key, rank: this.#rankOf(key) }
  }

  /** Where a seat is kept, or would be. */
  #find(seat: Seat): number {
    let [low, high] = [0, this.#kept.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (isBefore(this.#kept[middle]!, seat)) low = middle + 1
      else high = middle
    }
    return low
  }
}

function isBefore(a: Seat, b: Seat): boolean {
  return a.rank < b.rank || (a.rank === b.rank && a.key < b.key)
}
