// Cell rows: for each cell of the map a row of RTTs, one for each of the hosts that are told apart, side by side; and
// the same once more, the least first.
//
// A memo of bounded size: what is in it is made by others, and forgotten as a whole. A few bytes an RTT and no
// objects, since each answer reads a row somewhere among tens of thousands, and memory is what it waits for.

/** RTTs are kept to 1/32 ms, up to 2 s: all that is said of a map is less sure and shorter. */
const UNITS_PER_MS = 32
const MOST_UNITS = 0xffff
/** The Internet's maps know places in some 26,000 cells of a quarter degree. */
const MOST_ROWS = 40_000
const MOST_BYTES = 64 << 20
const RTT_BYTES = 6
/** Rows are made room for by so many at a time, so that nothing is ever moved. */
const CHUNK_BITS = 10

/** What an RTT reads as once it was kept, ms. */
export const MS_PER_UNIT = 1 / UNITS_PER_MS

/** An RTT as it is kept: a whole number of MS_PER_UNIT. */
export function unitsOf(ms: number): number {
  return Math.min(MOST_UNITS, Math.round(ms * UNITS_PER_MS))
}

export class CellRows {
  /** Row of each cell, plus one; 0: it has none. */
  readonly #rowOf: Uint16Array
  readonly #cells: number[] = []
  readonly #chunks: Uint16Array[] = []
  readonly #sortedChunks: Uint32Array[] = []
  #width = 0

  /** Cells are 0..cells-1. */
  constructor(cells: number) {
    this.#rowOf = new Uint16Array(cells)
  }

  /** -1: none is kept. */
  rowOf(cell: number): number {
    return this.#rowOf[cell]! - 1
  }

  /** How long a row is. */
  get width(): number {
    return this.#width
  }

  /** The array that a row stands in, in units of MS_PER_UNIT, ... */
  chunkOf(row: number): Uint16Array {
    return this.#chunks[row >> CHUNK_BITS]!
  }

  /** ... the one where it stands sorted, each RTT with its place in the row in the lower 16 bits, ... */
  sortedChunkOf(row: number): Uint32Array {
    return this.#sortedChunks[row >> CHUNK_BITS]!
  }

  /** ... and where in both the row begins. */
  startOf(row: number): number {
    return (row & ((1 << CHUNK_BITS) - 1)) * this.#width
  }

  /** Keeps a cell's RTTs, as many as `forget` said; its row. Where there is no more room all others are forgotten. */
  add(cell: number, ms: Float64Array): number {
    const most = Math.min(MOST_ROWS, Math.floor(MOST_BYTES / (RTT_BYTES * Math.max(1, this.#width))))
    if (this.#cells.length >= most) this.forget(this.#width)
    const row = this.#cells.push(cell) - 1
    if (this.#chunks[row >> CHUNK_BITS] === undefined) {
      this.#chunks.push(new Uint16Array(this.#width << CHUNK_BITS))
      this.#sortedChunks.push(new Uint32Array(this.#width << CHUNK_BITS))
    }
    const chunk = this.chunkOf(row)
    const sorted = this.sortedChunkOf(row)
    const start = this.startOf(row)
    for (let i = 0; i < ms.length; i++) {
      const units = unitsOf(ms[i]!)
      chunk[start + i] = units
      sorted[start + i] = ((units << 16) | i) >>> 0
    }
    sorted.subarray(start, start + ms.length).sort()
    this.#rowOf[cell] = row + 1
    return row
  }

  /** Forgets all; rows are `width` long from now on. */
  forget(width: number): void {
    for (const cell of this.#cells) this.#rowOf[cell] = 0
    this.#cells.length = 0
    if (width !== this.#width) this.#chunks.length = this.#sortedChunks.length = 0
    this.#width = width
  }
}
