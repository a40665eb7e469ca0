// Cell rows: for each cell of the map a row of RTTs, one for each of the hosts that are told apart, side by side.
//
// A memo of bounded size: what is in it is made by others, and forgotten as a whole. Two bytes an RTT and no
// objects, since each answer reads a row somewhere among tens of thousands, and memory is what it waits for.

/** RTTs are kept to 1/32 ms, up to 2 s: all that is said of a map is less sure and shorter. */
const UNITS_PER_MS = 32
const MOST_UNITS = 0xffff
/** The Internet's maps know places in some 26,000 cells of a quarter degree. */
const MOST_ROWS = 40_000
/** Rows are made room for by so many at a time, so that nothing is ever moved. */
const CHUNK_BITS = 10

/** What an RTT reads as once it was kept, ms. */
export const MS_PER_UNIT = 1 / UNITS_PER_MS

export class CellRows {
  /** Row of each cell, plus one; 0: it has none. */
  readonly #rowOf: Uint16Array
  readonly #cells: number[] = []
  readonly #chunks: Uint16Array[] = []
  #width = 0

  /** Cells are 0..cells-1. */
  constructor(cells: number) {
    this.#rowOf = new Uint16Array(cells)
  }

  /** -1: none is kept. */
  rowOf(cell: number): number {
    return this.#rowOf[cell]! - 1
  }

  /** The array that a row stands in, in units of MS_PER_UNIT, ... */
  chunkOf(row: number): Uint16Array {
    return this.#chunks[row >> CHUNK_BITS]!
  }

  /** ... and where in it the row begins. */
  startOf(row: number): number {
    return (row & ((1 << CHUNK_BITS) - 1)) * this.#width
  }

  /** Keeps a cell's RTTs, as many as `forget` said; its row. Where there is no more room all others are forgotten. */
  add(cell: number, ms: Float64Array): number {
    if (this.#cells.length === MOST_ROWS) this.forget(this.#width)
    const row = this.#cells.push(cell) - 1
    if (this.#chunks[row >> CHUNK_BITS] === undefined)
      this.#chunks.push(new Uint16Array(this.#width << CHUNK_BITS))
    const chunk = this.chunkOf(row)
    const start = this.startOf(row)
    for (let i = 0; i < ms.length; i++)
      chunk[start + i] = Math.min(MOST_UNITS, Math.round(ms[i]! * UNITS_PER_MS))
    this.#rowOf[cell] = row + 1
    return row
  }

  /** Forgets all; rows are `width` long from now on. */
  forget(width: number): void {
    for (const cell of this.#cells) this.#rowOf[cell] = 0
    this.#cells.length = 0
    if (width !== this.#width) this.#chunks.length = 0
    this.#width = width
  }
}
