// The ledger: the one way into the directory.
//
// Invariant: writes are decided, committed and published one after another; a write is in the store
// before anyone is told of it. What is only measured (loads, coordinates, localities) is published at
// once and stored a little later, since it would be measured again; so a write that is being committed
// may set such a value back for a moment. When the store takes nothing, writes are refused and all that
// was published goes on being answered with.

import type { Store } from '../db/store.ts'
import { applyChanges, type Change, type Directory } from '../resolver/directory.ts'
import type { Counters } from './counters.ts'
import { Problem } from './problem.ts'
import type { Decision } from './registry/caller.ts'

export interface Log {
  info(facts: object, message: string): void
  warn(facts: object, message: string): void
  error(facts: object, message: string): void
}

interface LedgerOptions {
  readonly directory: Directory
  readonly store: Store
  readonly log: Log
  readonly counters: Counters
  /** Never jumps, ms. */
  readonly monotonicMs: () => number
  /** Told of all changes, right after they are in the directory: keeps up what is made from it. */
  readonly onChanges: (changes: readonly Change[]) => void
}

/** A store that took nothing is left alone for so long, ms: each try may hold this process up while it waits for a lock. */
const PAUSE_MS = 1000

export class Ledger {
  readonly #options: LedgerOptions
  /** The end of the line of writes: each waits for the one before. */
  #lastWrite: Promise<unknown> = Promise.resolve()
  /** Published, not yet stored; by kind and key. */
  readonly #measured = new Map<string, Change>()
  #trouble: string | null = null
  #pausedUntilMs = Number.NEGATIVE_INFINITY
  #closed = false

  constructor(options: LedgerOptions) {
    this.#options = options
  }

  /** Why nothing can be stored at the moment; null: it can. */
  get trouble(): string | null {
    return this.#trouble
  }

  /** Decides when all writes before have been decided, commits, publishes. Throws the decision's Problem, or `unavailable`. */
  write<T>(decide: () => Decision<T>): Promise<T> {
    const run = this.#lastWrite.then(async () => {
      if (this.#closed) throw new Problem('unavailable', 'this core has stopped')
      const { changes, result } = decide()
      if (changes.length > 0) {
        await this.#commit(changes)
        this.#publish(changes)
      }
      return result
    })
    this.#lastWrite = run.catch(() => {})
    return run
  }

  /** A write that nobody waits for: a failure is logged, and whatever made it due will make it due again. */
  writeSoon(decide: () => readonly Change[]): void {
    this.inBackground(this.write(() => ({ changes: decide(), result: undefined })))
  }

  /**
   * A write that must be answered with even when it can't be stored: who died, who left, who is ill. Where
   * the store takes nothing it is published all the same, and stored when it can be.
   */
  async writeOrPublish(decide: () => readonly Change[]): Promise<void> {
    try {
      await this.write(() => ({ changes: decide(), result: undefined }))
    } catch (error) {
      if (!(error instanceof Problem) || error.code !== 'unavailable' || this.#closed) throw error
      this.publishMeasured(decide())
    }
  }

  /** Lets work go on by itself. */
  inBackground(work: Promise<unknown>): void {
    work.catch((err: Error) => {
      if (!this.#closed) this.#options.log.warn({ err }, 'left for the next round')
    })
  }

  /** Publishes what was measured; keepMeasured stores it. */
  publishMeasured(changes: readonly Change[]): void {
    if (changes.length === 0) return
    this.#publish(changes)
    for (const change of changes) this.#measured.set(`${change.kind} ${change.key}`, change)
  }

  /** Stores what was published since the last time. */
  async keepMeasured(): Promise<void> {
    if (this.#measured.size === 0) return
    const waiting = [...this.#measured]
    this.#measured.clear()
    try {
      await this.write(() => ({
        changes: waiting.map(([, change]) => this.#current(change)),
        result: undefined,
      }))
    } catch (error) {
      for (const [key, change] of waiting) this.#measured.set(key, change)
      throw error
    }
  }

  /** Stores what was measured and waits for the last write; after that all are refused. */
  async close(): Promise<void> {
    await this.keepMeasured().catch(() => {})
    await this.#lastWrite
    this.#closed = true
  }

  async #commit(changes: readonly Change[]): Promise<void> {
    const { store, log, counters, monotonicMs } = this.#options
    if (monotonicMs() < this.#pausedUntilMs)
      throw new Problem('unavailable', `${this.#trouble}; try again later`)
    try {
      await store.commit(changes)
      this.#trouble = null
    } catch (cause) {
      counters.add('store.failed')
      this.#pausedUntilMs = monotonicMs() + PAUSE_MS
      this.#trouble = `the store takes no changes: ${(cause as Error).message}`
      log.error({ err: cause }, 'the store takes no changes; answering goes on from memory')
      throw new Problem('unavailable', `${this.#trouble}; try again later`)
    }
  }

  #publish(changes: readonly Change[]): void {
    applyChanges(this.#options.directory, changes)
    this.#options.onChanges(changes)
  }

  /** The record behind a change as it is by now: what waited must not undo what was decided meanwhile. */
  #current({ kind, key }: Change): Change {
    return { kind, key, value: this.#options.directory[kind].get(key) ?? null } as Change
  }
}
