// A draft map: records as they will be once what was decided is in the store, read as one map.
//
// Invariant: the map below is left as it is until set() is called. A draft is
// small beside what it lies over: walking it costs what walking both costs. Pure.

/** What the rules read of a kind of records. */
export interface Records<V> {
  get(key: string): V | undefined
  has(key: string): boolean
  values(): Iterable<V>
}

export class DraftMap<V> implements Records<V> {
  readonly #base: Map<string, V>
  /** null: to be removed. */
  readonly #draft = new Map<string, V | null>()

  constructor(base: Map<string, V>) {
    this.#base = base
  }

  get(key: string): V | undefined {
    const drafted = this.#draft.get(key)
    return drafted === undefined ? this.#base.get(key) : (drafted ?? undefined)
  }

  has(key: string): boolean {
    return this.get(key) !== undefined
  }

  *values(): Iterable<V> {
    for (const [key, value] of this.#base) if (!this.#draft.has(key)) yield value
    for (const value of this.#draft.values()) if (value !== null) yield value
  }

  /** The record below the draft. */
  below(key: string): V | undefined {
    return this.#base.get(key)
  }

  /** What is drafted under a key: a record, null for its removal, undefined for nothing. */
  drafted(key: string): V | null | undefined {
    return this.#draft.get(key)
  }

  /** Drafts a record, its removal (null), or again nothing (undefined). */
  draft(key: string, value: V | null | undefined): void {
    if (value === undefined) this.#draft.delete(key)
    else this.#draft.set(key, value)
  }

  /** Puts a record, or its removal, below the draft. */
  set(key: string, value: V | null): void {
    if (value === null) this.#base.delete(key)
    else this.#base.set(key, value)
  }
}
