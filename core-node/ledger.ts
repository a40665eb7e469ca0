// The ledger: the one way into the directory.
//
// Invariant: writes are decided one after another, each seeing those before it. Those of one turn of the
// event loop go to the store as one commit (one fsync), all or none; only then they are published and
// their deciders told, refusals that stood on them included: a write is in the store before anyone is told
// of it. What is only measured (loads, coordinates, localities) is published at once and stored a little
// later, since it would be measured again; so a write that is being committed may set such a value back for
// a moment. When the store takes nothing, writes are refused; what was published goes on being answered with.

import type { Store } from '../db/store.ts'
import type { Change, Directory } from '../resolver/directory.ts'
import type { Counters } from './counters.ts'
import { Problem } from './problem.ts'
import { type Applied, Books } from './registry/books.ts'
import type { Decision } from './registry/caller.ts'

export interface Log {
  info(facts: object, message: string): void
  warn(facts: object, message: string): void
  error(facts: object, message: string): void
}

interface LedgerOptions {
  /** From now on written by this ledger alone. */
  readonly directory: Directory
  readonly store: Store
  readonly log: Log
  readonly counters: Counters
  /** Never jumps, ms. */
  readonly monotonicMs: () => number
  /** Told of all changes, right after they are in the directory: keeps up what is made from it. */
  readonly onChanges: (changes: readonly Applied[]) => void
}

/** A write that waits for its turn. */
interface Waiting {
  readonly decide: (books: Books) => Decision<unknown>
  readonly resolve: (result: unknown) => void
  readonly reject: (error: unknown) => void
}

/** A write that was decided; `tell` gives its decider what it came to. */
interface Decided {
  readonly waiting: Waiting
  readonly tell: () => void
  /** It saw or made what is not kept yet, so nobody may hear of it before that is. */
  readonly hangsOnCommit: boolean
}

/** A store that took nothing is left alone for so long, ms: each try may hold this process up while it waits for a lock. */
const PAUSE_MS = 1000
/** Writes decided in one go: a commit of them holds all else up for some ms. */
const WRITES_AT_ONCE = 256
/** Measured records stored in one go, for the same reason. */
const MEASURED_AT_ONCE = 200

export class Ledger {
  readonly #options: LedgerOptions
  readonly #books: Books
  #waiting: Waiting[] = []
  /** Ends when no write is waiting any more; null: none is. */
  #working: Promise<void> | null = null
  /** Published, not yet stored; by kind and key. */
  readonly #measured = new Map<string, Change>()
  #keeping: Promise<void> | null = null
  #trouble: string | null = null
  #pausedUntilMs = Number.NEGATIVE_INFINITY
  #closed = false

  constructor(options: LedgerOptions) {
    this.#options = options
    this.#books = new Books(options.directory)
  }

  /** Why nothing can be stored at the moment; null: it can. */
  get trouble(): string | null {
    return this.#trouble
  }

  /** What the books say at a glance. */
  get index(): Books['index'] {
    return this.#books.index
  }

  /** Decides when all writes before have been decided, commits, publishes. Throws the decision's Problem, or `unavailable`. */
  write<T>(decide: (books: Books) => Decision<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#waiting.push({ decide, resolve: resolve as (result: unknown) => void, reject })
      this.#working ??= this.#work()
    })
  }

  /** A write that nobody waits for: a failure is logged, and whatever made it due will make it due again. */
  writeSoon(decide: (books: Books) => readonly Change[]): void {
    this.inBackground(this.write((books) => ({ changes: decide(books), result: undefined })))
  }

  /**
   * A write that must be answered with even when it can't be stored: who died, who left, who is ill. Where
   * the store takes nothing it is published all the same, and stored when it can be.
   */
  async writeOrPublish(decide: (books: Books) => readonly Change[]): Promise<void> {
    try {
      await this.write((books) => ({ changes: decide(books), result: undefined }))
    } catch (error) {
      if (!(error instanceof Problem) || error.code !== 'unavailable' || this.#closed) throw error
      this.publishMeasured(decide(this.#books))
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
    this.#options.onChanges(this.#books.publish(changes))
    for (const change of changes) this.#measured.set(`${change.kind} ${change.key}`, change)
  }

  /** Stores what was published and not stored until now, a part at a time. */
  keepMeasured(): Promise<void> {
    this.#keeping ??= this.#keepMeasured().finally(() => {
      this.#keeping = null
    })
    return this.#keeping
  }

  async #keepMeasured(): Promise<void> {
    for (let left = this.#measured.size; left > 0; left -= MEASURED_AT_ONCE) {
      const part: [string, Change][] = []
      for (const entry of this.#measured) {
        if (part.length === MEASURED_AT_ONCE) break
        part.push(entry)
      }
      for (const [key] of part) this.#measured.delete(key)
      try {
        await this.write((books) => ({
          changes: part.map(([, change]) => books.refreshed(change)),
          result: undefined,
        }))
      } catch (error) {
        for (const [key, change] of part) this.#measured.set(key, change)
        throw error
      }
    }
  }

  /** Stores what was measured and waits for the last write; after that all are refused. */
  async close(): Promise<void> {
    await this.keepMeasured().catch(() => {})
    while (this.#working !== null) await this.#working
    this.#closed = true
  }

  /** Takes writes in groups until none is left. What comes while one is committed is the next. */
  async #work(): Promise<void> {
    while (this.#waiting.length > 0) {
      await new Promise((resolve) => setImmediate(resolve))
      const group = this.#waiting.slice(0, WRITES_AT_ONCE)
      this.#waiting = this.#waiting.slice(WRITES_AT_ONCE)
      await this.#settle(group)
    }
    this.#working = null
  }

  async #settle(group: readonly Waiting[]): Promise<void> {
    const changes: Change[] = []
    const decided = group.map((waiting) => this.#decide(waiting, changes))
    let failure: unknown = null
    try {
      if (changes.length > 0) await this.#commit(changes)
    } catch (error) {
      failure = error
      this.#books.withdraw()
    }
    if (failure === null) this.#publish(changes)
    for (const { waiting, tell, hangsOnCommit } of decided) {
      if (failure !== null && hangsOnCommit) waiting.reject(failure)
      else tell()
    }
  }

  #decide(waiting: Waiting, changes: Change[]): Decided {
    let tell: () => void
    try {
      if (this.#closed) throw new Problem('unavailable', 'this core has stopped')
      const decision = waiting.decide(this.#books)
      this.#books.draft(decision.changes)
      changes.push(...decision.changes)
      tell = () => waiting.resolve(decision.result)
    } catch (error) {
      tell = () => waiting.reject(error)
    }
    return { waiting, tell, hangsOnCommit: this.#books.isDrafted }
  }

  async #commit(changes: readonly Change[]): Promise<void> {
    const { store, log, counters, monotonicMs } = this.#options
    if (monotonicMs() < this.#pausedUntilMs)
      throw new Problem('unavailable', `${this.#trouble}; try again later`)
    try {
      await store.commit(changes)
      this.#trouble = null
      counters.add('store.commits')
      counters.add('store.changes', changes.length)
    } catch (cause) {
      counters.add('store.failed')
      this.#pausedUntilMs = monotonicMs() + PAUSE_MS
      this.#trouble = `the store takes no changes: ${(cause as Error).message}`
      log.error({ err: cause }, 'the store takes no changes; answering goes on from memory')
      throw new Problem('unavailable', `${this.#trouble}; try again later`)
    }
  }

  /** What follows from changes is not the writers' affair: a fault there is logged, and they are told that it is kept. */
  #publish(changes: readonly Change[]): void {
    try {
      this.#options.onChanges(this.#books.settle(changes))
    } catch (err) {
      this.#options.log.error({ err }, 'what follows from a change failed')
    }
  }
}
