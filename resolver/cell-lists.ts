// Cell lists: short lists of numbers by who keeps them and by cell of the map, as many as fit; the oldest go.
//
// A memo of fixed size, never truth. Lists stand one behind the other in one ring of words and are written over when
// it comes round again; where each begins stands in a table of sets of two. Invariant: find tells only of lists that
// nothing was written over since. Finding allocates nothing. What the words mean is their keepers' affair. Pure.

/** 64 MiB: a list of a service with dozens of equals for a cell is 200 bytes, and maps know places in some 26,000 cells. */
const MOST_WORDS = 1 << 24
/** An entry: keeper, cell, where the list begins, and in which lap it was written. */
const ENTRY_WORDS = 4
const SET_WORDS = 2 * ENTRY_WORDS
const SET_BITS = 18

/** There is no such list. */
export const NO_LIST = -1

export class CellLists {
  /** The same memory twice. A place says where in both. */
  readonly words = new Int32Array(MOST_WORDS)
  readonly floats = new Float32Array(this.words.buffer)
  readonly #sets = new Int32Array(SET_WORDS << SET_BITS)
  #keepers = 0
  #head = 0
  /** How often the ring came round, and one: an entry that was never written is of no lap. */
  #lap = 1

  /** A number that nobody has had. */
  newKeeper(): number {
    return ++this.#keepers
  }

  /** Where a keeper's list for a cell begins, or NO_LIST. */
  find(keeper: number, cell: number): number {
    const first = setAt(keeper, cell)
    const place = this.#placeOf(first, keeper, cell)
    return place === NO_LIST ? this.#placeOf(first + ENTRY_WORDS, keeper, cell) : place
  }

  /** Room for a list of so many words, far fewer than all; where it begins. Found from now on. */
  add(keeper: number, cell: number, count: number): number {
    if (this.#head + count > MOST_WORDS) {
      this.#head = 0
      this.#lap++
    }
    const place = this.#head
    this.#head += count
    this.#enter(keeper, cell, place)
    return place
  }

  #placeOf(entry: number, keeper: number, cell: number): number {
    const sets = this.#sets
    if (sets[entry] !== keeper || sets[entry + 1] !== cell) return NO_LIST
    const place = sets[entry + 2]!
    const lapsAgo = this.#lap - sets[entry + 3]!
    return lapsAgo === 0 || (lapsAgo === 1 && place >= this.#head) ? place : NO_LIST
  }

  /** The first of a set is the one that came last. */
  #enter(keeper: number, cell: number, place: number): void {
    const sets = this.#sets
    const first = setAt(keeper, cell)
    if (sets[first] !== keeper || sets[first + 1] !== cell)
      sets.copyWithin(first + ENTRY_WORDS, first, first + ENTRY_WORDS)
    sets[first] = keeper
    sets[first + 1] = cell
    sets[first + 2] = place
    sets[first + 3] = this.#lap
  }
}

/** Where the set of a keeper's cell begins. */
function setAt(keeper: number, cell: number): number {
  const hash = Math.imul(cell ^ Math.imul(keeper, 0x9e3779b1), 0x85ebca6b)
  return ((hash ^ (hash >>> 15)) >>> (32 - SET_BITS)) * SET_WORDS
}
