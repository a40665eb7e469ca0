// The directory's localities: packed as a start found them, and over that what changed since, as records.
//
// Invariant: it reads as a Map of all its records does, in no order; a packed record is made anew each time that it is
// asked for, so two of one key are equal and not the same. What is packed is never written: copies share it. Pure but
// for its own memory.

import { formatPrefix, type Prefix, parsePrefix } from './address.ts'
import type { Change, LocalityRecord } from './directory.ts'
import { type LocalityPage, packLocalities } from './locality-page.ts'
import { PackedLocalities, sharedPage } from './packed-localities.ts'

/** Records of a page: some hundred kilobytes. */
const PACKED_AT_ONCE = 4096

const NOTHING_PACKED = PackedLocalities.of([])

export class LocalityMap extends Map<string, LocalityRecord> {
  readonly packed: PackedLocalities
  /** By row of what is packed: 1 where it was changed or removed since. */
  readonly #gone: Uint8Array
  #left: number

  constructor(packed: PackedLocalities = NOTHING_PACKED, like: LocalityMap | null = null) {
    super()
    this.packed = packed
    this.#gone = like === null ? new Uint8Array(packed.rows) : like.#gone.slice()
    this.#left = like === null ? packed.size : like.#left
    if (like !== null) for (const [key, record] of like.#changed()) super.set(key, record)
  }

  /** Of records that come in any order, each key once: what has its place in the columns is packed as they come. */
  static packing(records: Iterable<readonly [key: string, record: LocalityRecord]>): LocalityMap {
    const pages: LocalityPage[] = []
    const rest: (readonly [string, LocalityRecord])[] = []
    let part: (readonly [string, LocalityRecord])[] = []
    const pack = () => {
      const { packed, others } = packLocalities(part)
      if (packed !== null) pages.push(sharedPage(packed)!)
      for (const other of others) rest.push(other)
      part = []
    }
    for (const record of records) if (part.push(record) === PACKED_AT_ONCE) pack()
    pack()
    const map = new LocalityMap(PackedLocalities.of(pages))
    for (const [key, record] of rest) map.set(key, record)
    return map
  }

  /** Another map of the same records. */
  copy(): LocalityMap {
    return new LocalityMap(this.packed, this)
  }

  /** What makes the packed ones into these. */
  *changes(): Iterable<Change> {
    for (let row = 0; row < this.#gone.length; row++) {
      const key = this.#gone[row] === 1 ? this.packed.keyOf(row) : null
      if (key !== null && !super.has(key)) yield { kind: 'localities', key, value: null }
    }
    for (const [key, value] of this.#changed()) yield { kind: 'localities', key, value }
  }

  /** Keys that another map does not have. */
  *missingIn(other: LocalityMap): Iterable<string> {
    for (const row of this.#rows()) {
      const prefix = this.packed.prefixOf(row)
      if (other.#rowAt(prefix) >= 0) continue
      const key = formatPrefix(prefix)
      if (!other.has(key)) yield key
    }
    for (const key of super.keys()) if (!other.has(key)) yield key
  }

  override get size(): number {
    return super.size + this.#left
  }

  override get(key: string): LocalityRecord | undefined {
    const changed = super.get(key)
    if (changed !== undefined) return changed
    const row = this.#rowOf(key)
    return row < 0 ? undefined : this.packed.recordOf(row)
  }

  override has(key: string): boolean {
    return super.has(key) || this.#rowOf(key) >= 0
  }

  override set(key: string, record: LocalityRecord): this {
    this.#remove(key)
    return super.set(key, record)
  }

  override delete(key: string): boolean {
    const isChanged = super.delete(key)
    return this.#remove(key) || isChanged
  }

  override clear(): void {
    super.clear()
    this.#gone.fill(1)
    this.#left = 0
  }

  override *keys(): MapIterator<string> {
    for (const row of this.#rows()) yield this.packed.keyOf(row)
    yield* super.keys()
  }

  override *values(): MapIterator<LocalityRecord> {
    for (const row of this.#rows()) yield this.packed.recordOf(row)
    yield* super.values()
  }

  override *entries(): MapIterator<[string, LocalityRecord]> {
    for (const row of this.#rows()) yield [this.packed.keyOf(row), this.packed.recordOf(row)]
    yield* super.entries()
  }

  override [Symbol.iterator](): MapIterator<[string, LocalityRecord]> {
    return this.entries()
  }

  override forEach(
    visit: (record: LocalityRecord, key: string, map: Map<string, LocalityRecord>) => void,
  ): void {
    for (const [key, record] of this) visit(record, key, this)
  }

  #changed(): Iterable<[string, LocalityRecord]> {
    return super.entries()
  }

  *#rows(): Iterable<number> {
    for (let row = 0; row < this.#gone.length; row++) {
      if (this.#gone[row] === 0 && this.packed.holds(row)) yield row
    }
  }

  #rowOf(key: string): number {
    if (this.#left === 0) return -1
    const prefix = parsePrefix(key)
    return prefix === null ? -1 : this.#rowAt(prefix)
  }

  #rowAt(prefix: Prefix): number {
    const row = this.packed.rowOf(prefix)
    return row < 0 || this.#gone[row] === 1 ? -1 : row
  }

  #remove(key: string): boolean {
    const row = this.#rowOf(key)
    if (row < 0) return false
    this.#gone[row] = 1
    this.#left--
    return true
  }
}
