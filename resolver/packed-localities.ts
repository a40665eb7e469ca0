// Localities as a start finds them: pages of packed records, and by prefix which row of which page each is.
//
// Invariant: nothing in here ever changes, so any thread reads it where it lies; what changes is kept over it (see
// locality-map.ts and tables.ts). Rows are counted through all pages. Where several pages have one prefix, the last
// one's word holds. Pure.

import { type Prefix, parsePrefix } from './address.ts'
import type { LocalityRecord } from './directory.ts'
import { type LocalityPage, openLocalityPage } from './locality-page.ts'
import { comparePrefixes } from './place-page.ts'
import { PrefixTable, type PrefixTableMemory } from './prefix-table.ts'

/** All of it, for another thread to read. */
export interface PackedMemory {
  readonly pages: readonly Uint8Array[]
  readonly index: PrefixTableMemory
  readonly hidden: ReadonlySet<number>
}

/** The page that these bytes are, in a copy of them that other threads may read; null: they are none. */
export function sharedPage(bytes: Uint8Array): LocalityPage | null {
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.length))
  shared.set(bytes)
  return openLocalityPage(shared)
}

export class PackedLocalities {
  /** By prefix the row. */
  readonly index: PrefixTable
  /** Rows of prefixes that a later page has too. */
  readonly #hidden: ReadonlySet<number>
  readonly #pages: readonly LocalityPage[]
  /** Of each page, and in the end how many rows there are. */
  readonly #firstRows: Int32Array

  private constructor(
    pages: readonly LocalityPage[],
    firstRows: Int32Array,
    index: PrefixTable,
    hidden: ReadonlySet<number>,
  ) {
    this.#pages = pages
    this.#firstRows = firstRows
    this.index = index
    this.#hidden = hidden
  }

  static of(pages: readonly LocalityPage[]): PackedLocalities {
    const firstRows = firstRowsOf(pages)
    const index = new PrefixTable({ shared: true })
    const hidden = fillIndex(pages, firstRows, index)
    return new PackedLocalities(pages, firstRows, index, hidden)
  }

  /** What another thread packed. */
  static over({ pages: all, index, hidden }: PackedMemory): PackedLocalities {
    const pages = all.map((bytes) => openLocalityPage(bytes)!)
    return new PackedLocalities(pages, firstRowsOf(pages), PrefixTable.over(index), hidden)
  }

  get memory(): PackedMemory {
    return { pages: this.#pages.map(({ bytes }) => bytes), index: this.index.memory, hidden: this.#hidden }
  }

  /** Rows are below this. */
  get rows(): number {
    return this.#firstRows.at(-1)!
  }

  /** How many prefixes there are. */
  get size(): number {
    return this.rows - this.#hidden.size
  }

  /** Whether a row's word holds: no later page has its prefix. */
  holds(row: number): boolean {
    return !this.#hidden.has(row)
  }

  /** -1: it is not in here. */
  rowOf(prefix: Prefix): number {
    return this.index.get(prefix)
  }

  /** The same of a prefix's text. */
  rowOfKey(key: string): number {
    const prefix = parsePrefix(key)
    return prefix === null ? -1 : this.rowOf(prefix)
  }

  /** Which of the pages that it was made of a row is in. */
  pageOf(row: number): number {
    return pageAt(this.#firstRows, row)
  }

  prefixOf(row: number): Prefix {
    const [page, at] = this.#find(row)
    return page.prefixOf(at)
  }

  keyOf(row: number): string {
    const [page, at] = this.#find(row)
    return page.keyOf(at)
  }

  recordOf(row: number): LocalityRecord {
    const [page, at] = this.#find(row)
    return page.recordOf(at)
  }

  evidenceOf(row: number): LocalityRecord['evidence'] {
    const [page, at] = this.#find(row)
    return page.evidenceOf(at)
  }

  /** How many hosts measured it themselves. */
  ownEvidence(row: number): number {
    const [page, at] = this.#find(row)
    return page.ownEvidence(at)
  }

  /** Visits all that hold, page by page, with how many hosts measured each themselves. */
  visit(visit: (row: number, own: number, page: LocalityPage, at: number) => void): void {
    for (const [number, page] of this.#pages.entries()) {
      for (let at = 0; at < page.size; at++) {
        const row = this.#firstRows[number]! + at
        if (this.holds(row)) visit(row, page.ownEvidence(at), page, at)
      }
    }
  }

  #find(row: number): [page: LocalityPage, at: number] {
    const number = this.pageOf(row)
    return [this.#pages[number]!, row - this.#firstRows[number]!]
  }
}

function firstRowsOf(pages: readonly LocalityPage[]): Int32Array {
  const firstRows = new Int32Array(pages.length + 1)
  for (const [i, page] of pages.entries()) firstRows[i + 1] = firstRows[i]! + page.size
  return firstRows
}

function pageAt(firstRows: Int32Array, row: number): number {
  let [low, high] = [0, firstRows.length - 1]
  while (high - low > 1) {
    const middle = (low + high) >>> 1
    if (firstRows[middle]! <= row) low = middle
    else high = middle
  }
  return low
}

/** Fills the index in the order of addresses, which moves nothing of what stands there; gives the rows that a later page hides. */
function fillIndex(pages: readonly LocalityPage[], firstRows: Int32Array, index: PrefixTable): Set<number> {
  const hidden = new Set<number>()
  const find = (row: number) => {
    const number = pageAt(firstRows, row)
    return [pages[number]!, row - firstRows[number]!] as const
  }
  const prefix = { address: new Uint8Array(16), bits: 0 }
  for (const family of [4, 6] as const) {
    for (const rows of rowsByHead(pages, firstRows, family)) {
      if (rows.length === 1) {
        const [page, at] = find(rows[0]!)
        page.copyAddress(at, prefix.address)
        prefix.bits = page.bitsOf(at)
        index.set(prefix, rows[0]!)
        continue
      }
      const alike = Array.from(rows, (row) => {
        const [page, at] = find(row)
        return { row, prefix: page.prefixOf(at) }
      })
      // What is sorted stays in the order of rows where it is equal.
      alike.sort((a, b) => comparePrefixes(a.prefix, b.prefix))
      for (const [i, { row, prefix }] of alike.entries()) {
        const next = alike[i + 1]
        if (next !== undefined && comparePrefixes(prefix, next.prefix) === 0) hidden.add(row)
        else index.set(prefix, row)
      }
    }
  }
  return hidden
}

/** Which of a 64-bit number's two words is the greater one. */
const HIGH = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1 ? 1 : 0

/** The rows of a family, in the order of the first words of their addresses; those that share it together. */
function* rowsByHead(
  pages: readonly LocalityPage[],
  firstRows: Int32Array,
  family: 4 | 6,
): Iterable<Uint32Array> {
  const keys = new BigUint64Array(firstRows.at(-1)!)
  const words = new Uint32Array(keys.buffer)
  let count = 0
  for (const [number, page] of pages.entries()) {
    for (let at = 0; at < page.size; at++) {
      if (page.familyOf(at) !== family) continue
      words[2 * count + HIGH] = page.headOf(at)
      words[2 * count + 1 - HIGH] = firstRows[number]! + at
      count++
    }
  }
  // By the head, and then by the row.
  keys.subarray(0, count).sort()
  const rows = new Uint32Array(count)
  for (let i = 0; i < count; i++) rows[i] = words[2 * i + 1 - HIGH]!
  for (let from = 0; from < count; ) {
    let to = from + 1
    while (to < count && words[2 * to + HIGH] === words[2 * from + HIGH]) to++
    yield rows.subarray(from, to)
    from = to
  }
}
