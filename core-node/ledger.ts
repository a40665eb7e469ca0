// The ledger: the one way into the directory.
//
// Invariant: writes are decided one after another, each seeing those before it. Those of one turn of the event loop
// go to the store as one commit, all or none; only then they are published and their deciders told. Where another
// core changed a record first, they are decided anew on what it became: no update is lost.
// What is only measured is published at once and stored a little later; a write that is on its way takes none of it
// back. When the store takes nothing, writes are refused, but for those that are owed (who died, who left, who is
// ill): these are published, and decided anew on what the store says by then, before anything else is stored.

import { type Store, StoreError } from '../db/store.ts'
import type { Change, Directory } from '../resolver/directory.ts'
import type { Counters } from './counters.ts'
import { Problem } from './problem.ts'
import { type Applied, Books } from './registry/books.ts'
import type { Decision } from './registry/caller.ts'
import { idOf, isSame, withMeasured } from './registry/merging.ts'

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
  /** Whether this core is the one that measures what a change tells of; by default of all. */
  readonly isOwn?: (change: Change) => boolean
  /** Puts its own mark on what is decided here; by default none. */
  readonly stamp?: (books: Books, changes: readonly Change[]) => readonly Change[]
  /** It writes nothing: it only hears what others commit. */
  readonly isReadOnly?: boolean
}

/** Why a core that only follows writes nothing. */
export const FOLLOWS = 'this core only follows what others keep: ask one of the service core'

type Decide = (books: Books) => readonly Change[]

/** A write that waits for its turn. */
interface Waiting {
  readonly decide: (books: Books) => Decision<unknown>
  readonly resolve: (result: unknown) => void
  readonly reject: (error: unknown) => void
  /** Where it can't be stored it is published all the same. */
  readonly owed: boolean
}

/** A write that was decided; `tell` gives its decider what it came to. */
interface Decided {
  readonly waiting: Waiting
  readonly changes: readonly Change[]
  readonly tell: () => void
  /** It saw or made what is not kept yet, so nobody may hear of it before that is. */
  readonly hangsOnCommit: boolean
}

/** A record that is published otherwise than it is stored. */
interface Unstored {
  readonly change: Pick<Change, 'kind' | 'key'>
  /** As it is stored; null: it is not. */
  readonly stored: unknown
}

/** A commit of which the store has not said yet what became of it. */
interface Pending {
  readonly decided: readonly Decided[]
  readonly sinceMs: number
  /** It took so long that what is owed of it was published, and all who wait were told that nothing is known. */
  isStuck: boolean
}

/** A decision that was published and is to be made again when the store takes it. */
interface Owed {
  readonly decide: Decide
  readonly changes: readonly Pick<Change, 'kind' | 'key'>[]
}

/** A store that took nothing is left alone for so long, ms: each try may hold this process up while it waits for a lock. */
const PAUSE_MS = 1000
/** A commit without an answer for so long holds nobody up any more, ms: its outcome is taken when it comes. */
const STUCK_MS = 2000
/** Writes decided in one go: a commit of them holds all else up for some ms. */
const WRITES_AT_ONCE = 256
/** Measured records stored in one go, for the same reason. */
const MEASURED_AT_ONCE = 200
/** A group that other cores keep from being stored is decided anew so often, and then each of its writes by itself. */
const TRIES = 5
/** So many decisions may be owed before it is looked whether all of them still count. */
const OWED_MIN = 1000

export class Ledger {
  readonly #options: LedgerOptions
  readonly #books: Books
  #waiting: Waiting[] = []
  /** Ends when no write is waiting any more; null: none is. */
  #working: Promise<void> | null = null
  /** By id. */
  readonly #unstored = new Map<string, Unstored>()
  #owed: Owed[] = []
  #trimOwedAt = OWED_MIN
  /** Records of what is owed in the group that is being decided. */
  readonly #paying = new Set<string>()
  #pending: Pending | null = null
  #keeping: Promise<void> | null = null
  #trouble: string | null = null
  #cutOff: string | null = null
  #pausedUntilMs = Number.NEGATIVE_INFINITY
  #closed = false

  constructor(options: LedgerOptions) {
    this.#options = options
    this.#books = new Books(options.directory)
  }

  /** Why nothing can be stored at the moment, or is still to be; null: all is. */
  get trouble(): string | null {
    if (this.#trouble !== null || this.#owed.length === 0) return this.#trouble
    return `${this.#owed.length} decisions wait to be stored`
  }

  /** Records that are published and not stored yet. */
  get unstored(): number {
    return this.#unstored.size
  }

  /** What the books say at a glance. */
  get index(): Books['index'] {
    return this.#books.index
  }

  /** Why the store is known to be out of reach, from elsewhere than a commit; null: it is not. */
  setCutOff(reason: string | null): void {
    this.#cutOff = reason
    if (reason !== null) return
    this.#pausedUntilMs = Number.NEGATIVE_INFINITY
    // What failed while it was out of reach says nothing any more; where nobody writes, no commit would show that.
    if (!this.#pending?.isStuck) this.#trouble = null
    this.#payOwed()
  }

  /** Decides when all writes before have been decided, commits, publishes. Throws the decision's Problem, or `unavailable`. */
  write<T>(decide: (books: Books) => Decision<T>): Promise<T> {
    return this.#enqueue(decide, false) as Promise<T>
  }

  #enqueue(decide: (books: Books) => Decision<unknown>, owed: boolean): Promise<unknown> {
    if (this.#options.isReadOnly) return Promise.reject(new Problem('unavailable', FOLLOWS))
    return new Promise((resolve, reject) => {
      this.#waiting.push({ decide, resolve, reject, owed })
      if (this.#pending?.isStuck) this.#refuseWaiting()
      this.#working ??= this.#work()
    })
  }

  /** A write that nobody waits for: a failure is logged, and whatever made it due will make it due again. */
  writeSoon(decide: Decide): void {
    this.inBackground(this.write((books) => ({ changes: decide(books), result: undefined })))
  }

  /**
   * A write that must be answered with even when it can't be stored: who died, who left, who is ill. Where
   * the store takes nothing it is published all the same, and decided anew when it can be stored.
   */
  async writeOrPublish(decide: Decide): Promise<void> {
    const isAway = this.#trouble !== null || this.#cutOff !== null
    if (isAway && !this.#options.isReadOnly) this.#publishOwed(decide)
    else await this.#enqueue((books) => ({ changes: decide(books), result: undefined }), true)
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
    for (const change of changes) this.#noteUnstored(change)
    this.#options.onChanges(this.#books.publish(changes))
  }

  #noteUnstored({ kind, key }: Pick<Change, 'kind' | 'key'>): void {
    const id = idOf({ kind, key })
    if (this.#unstored.has(id)) return
    this.#unstored.set(id, { change: { kind, key }, stored: this.#books.published({ kind, key }) })
  }

  /** What other cores committed: published as what this core decides is, with what it measured itself on top; never stored again. */
  hear(changes: readonly Change[]): void {
    const told = changes.map((change) => {
      const id = idOf(change)
      const before = this.#unstored.get(id)
      if (before === undefined) return change
      const mine = this.#books.published(change)
      const isOwn = change.value !== null && this.#isOwn(change)
      const value = isOwn ? withMeasured(change.kind, before.stored, mine, change.value) : change.value
      if (isSame(value, change.value)) {
        this.#unstored.delete(id)
        return change
      }
      this.#unstored.set(id, { ...before, stored: change.value })
      return { ...change, value } as Change
    })
    this.#tell(() => this.#books.hear(told))
    this.#payOwed()
  }

  #isOwn(change: Change): boolean {
    return this.#options.isOwn?.(change) ?? true
  }

  /** Stores what was published and not stored until now, a part at a time; what is another core's to measure by now is taken back. */
  keepMeasured(): Promise<void> {
    this.#payOwed()
    this.#keeping ??= this.#keepMeasured().finally(() => {
      this.#keeping = null
    })
    return this.#keeping
  }

  async #keepMeasured(): Promise<void> {
    const all = [...this.#unstored.values()].map(({ change }) => change)
    for (let at = 0; at < all.length; at += MEASURED_AT_ONCE) {
      const part = all.slice(at, at + MEASURED_AT_ONCE)
      await this.write((books) => ({
        changes: part.flatMap((change) => this.#measuredOf(books, change)),
        result: undefined,
      }))
    }
  }

  /** What is to be stored of a record that was published. */
  #measuredOf(books: Books, change: Pick<Change, 'kind' | 'key'>): Change[] {
    const entry = this.#unstored.get(idOf(change))
    // What is owed of it is decided in this very group, with what was measured.
    if (entry === undefined || this.#paying.has(idOf(change))) return []
    const now = books.refreshed(change)
    if (isSame(now.value, entry.stored)) return []
    return [this.#isOwn(now) ? now : ({ ...now, value: entry.stored } as Change)]
  }

  /** Time passed: a commit that the store does not answer holds nobody up. Call a few times a second. */
  tick(): void {
    const pending = this.#pending
    if (pending === null || pending.isStuck) return
    if (this.#options.monotonicMs() - pending.sinceMs < STUCK_MS) return
    pending.isStuck = true
    this.#trouble = 'the store does not answer'
    // What comes to be owed from now on is decided on what is published.
    this.#books.withdraw()
    const unknown = new Problem('unavailable', `${this.#trouble}: whether it took this is not known yet`)
    for (const { waiting, changes } of pending.decided) {
      if (!waiting.owed) waiting.reject(unknown)
      else {
        this.#publishUnstored(changes)
        waiting.resolve(undefined)
      }
    }
    this.#refuseWaiting()
  }

  /** Stores what was measured and waits for the last write; after that all are refused. */
  async close(): Promise<void> {
    await this.keepMeasured().catch(() => {})
    while (this.#working !== null) await this.#working
    this.#closed = true
  }

  // ---- groups

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

  /** Decides and commits a group, anew where another core was first; one that spoils it for the others is left to itself. */
  async #settle(group: readonly Waiting[]): Promise<void> {
    for (let tries = 1; ; tries++) {
      // More may come to be owed while these are committed.
      const owed = new Set(this.#owed)
      const changes: Change[] = []
      const back = this.#draftOwed(changes)
      const decided = group.map((waiting) => this.#decide(waiting, changes))
      const failure = await this.#commit(changes, decided)
      // What others did may be as long in coming as an answer: it holds nobody up either.
      const isKnown = failure !== 'conflict' || (await this.#catchUp())
      const wasStuck = this.#pending?.isStuck === true
      this.#pending = null
      if (wasStuck) {
        if (failure === null) this.#hearStuck(back, changes, owed)
        else this.#oweStuck(decided, owed)
        return
      }
      if (failure === null) {
        this.#owed = this.#owed.filter((one) => !owed.has(one))
        this.#publish(back, changes)
        for (const { tell } of decided) tell()
        return
      }
      this.#books.withdraw()
      if (failure === 'conflict' && isKnown && tries < TRIES) continue
      if (failure !== 'unavailable' && isKnown && group.length > 1) {
        for (const waiting of group) await this.#settle([waiting])
      } else this.#refuse(decided, failure)
      return
    }
  }

  #refuse(decided: readonly Decided[], failure: 'conflict' | 'unavailable' | Error): void {
    const why = (failure === 'unavailable' && this.#trouble) || 'other cores are changing the same'
    const error = failure instanceof Error ? failure : new Problem('unavailable', `${why}; try again later`)
    for (const { waiting, tell, hangsOnCommit } of decided) {
      if (!hangsOnCommit) tell()
      else if (!waiting.owed || failure instanceof Error) waiting.reject(error)
      else this.#owe(waiting)
    }
  }

  #decide(waiting: Waiting, changes: Change[]): Decided {
    let tell: () => void
    let own: readonly Change[] = []
    try {
      if (this.#closed) throw new Problem('unavailable', 'this core has stopped')
      const decision = waiting.decide(this.#books)
      own = this.#stamp(decision.changes)
      this.#books.draft(own)
      changes.push(...own)
      tell = () => waiting.resolve(decision.result)
    } catch (error) {
      tell = () => waiting.reject(error)
    }
    return { waiting, changes: own, tell, hangsOnCommit: this.#books.isDrafted }
  }

  #stamp(changes: readonly Change[]): readonly Change[] {
    return this.#options.stamp?.(this.#books, changes) ?? changes
  }

  #refuseWaiting(): void {
    for (const waiting of this.#waiting.splice(0)) {
      if (waiting.owed) this.#owe(waiting)
      else waiting.reject(new Problem('unavailable', `${this.#trouble}; try again later`))
    }
  }

  /** null: the changes are kept. */
  async #commit(
    changes: readonly Change[],
    decided: readonly Decided[],
  ): Promise<null | 'conflict' | 'unavailable' | Error> {
    if (changes.length === 0) return null
    const { store, log, counters, monotonicMs } = this.#options
    if (monotonicMs() < this.#pausedUntilMs) return 'unavailable'
    this.#pending = { decided, sinceMs: monotonicMs(), isStuck: false }
    try {
      await store.commit(changes)
      this.#trouble = null
      counters.add('store.commits')
      counters.add('store.changes', changes.length)
      return null
    } catch (cause) {
      if (cause instanceof StoreError && cause.code === 'conflict') {
        counters.add('store.conflicts')
        this.#trouble = null
        return 'conflict'
      }
      counters.add('store.failed')
      // A fault of the program in one write: no trying again will mend it, and the others must not suffer.
      if (!(cause instanceof StoreError)) {
        log.error({ err: cause }, 'the store could not take a change')
        return new Problem('internal', `the store could not take this: ${(cause as Error).message}`)
      }
      this.#pausedUntilMs = monotonicMs() + PAUSE_MS
      // Once: it is tried again every second.
      if (this.#trouble === null)
        log.error({ err: cause }, 'the store takes no changes; answering goes on from memory')
      this.#trouble = `the store takes no changes: ${cause.message}`
      return 'unavailable'
    }
  }

  /** Hears what other cores committed meanwhile, the draft being gone; false: that can't be had now. */
  async #catchUp(): Promise<boolean> {
    this.#books.withdraw()
    try {
      await this.#options.store.cluster?.caughtUp()
      return true
    } catch (err) {
      this.#options.log.warn({ err }, 'what other cores changed is not known yet')
      return false
    }
  }

  #publish(back: readonly Change[], changes: readonly Change[]): void {
    this.#tell(() => {
      const applied = this.#books.settle([...back, ...changes])
      const published = new Map(applied.map((change) => [idOf(change), change]))
      for (const change of back) this.#noteStored(change, this.#unstored.get(idOf(change))?.stored, published)
      for (const change of changes) this.#noteStored(change, change.value, published)
      return applied
    })
  }

  #noteStored(change: Change, stored: unknown, published: ReadonlyMap<string, Applied>): void {
    const id = idOf(change)
    const now = published.get(id)
    // Another core's came after it: what that one's telling left is right.
    if (now === undefined) return
    if (isSame(now.value, stored)) this.#unstored.delete(id)
    else this.#unstored.set(id, { change: { kind: change.kind, key: change.key }, stored })
  }

  /** What follows from changes is not the writers' affair: a fault there is logged, and they are told that it is kept. */
  #tell(apply: () => Applied[]): void {
    try {
      this.#options.onChanges(apply())
    } catch (err) {
      this.#options.log.error({ err }, 'what follows from a change failed')
    }
  }

  // ---- what is owed

  /** A group for what is owed, where none is under way. */
  #payOwed(): void {
    if (this.#owed.length === 0 || this.#working !== null) return
    this.write(() => ({ changes: [], result: undefined })).catch(() => {})
  }

  /** Of a write that could not be stored. */
  #owe({ decide, resolve, reject }: Waiting): void {
    try {
      this.#publishOwed((books) => decide(books).changes)
      resolve(undefined)
    } catch (error) {
      reject(error)
    }
  }

  #publishOwed(decide: Decide): void {
    if (this.#closed) throw new Problem('unavailable', 'this core has stopped')
    const changes = this.#stamp(decide(this.#books))
    if (changes.length === 0) return
    this.#owed.push({ decide, changes })
    if (this.#owed.length >= this.#trimOwedAt) this.#trimOwed()
    this.#publishUnstored(changes)
  }

  #publishUnstored(changes: readonly Change[]): void {
    for (const change of changes) this.#noteUnstored(change)
    this.#tell(() => this.#books.publish(changes))
  }

  /** Of decisions on the same records only the last say what is published: however long it takes, they are no more than records. */
  #trimOwed(): void {
    const said = new Set<string>()
    const last = this.#owed.toReversed().filter(({ changes }) => {
      const isSaidLater = changes.every((change) => said.has(idOf(change)))
      for (const change of changes) said.add(idOf(change))
      return !isSaidLater
    })
    this.#owed = last.reverse()
    this.#trimOwedAt = Math.max(OWED_MIN, 2 * this.#owed.length)
  }

  /** What a stuck commit left when it was made after all, heard as another core's would be; what came since is still owed. */
  #hearStuck(back: readonly Change[], changes: readonly Change[], paid: ReadonlySet<Owed>): void {
    this.#owed = this.#owed.filter((one) => !paid.has(one))
    const unchanged = back.flatMap((change) => {
      const entry = this.#unstored.get(idOf(change))
      return entry === undefined ? [] : [{ ...change, value: entry.stored } as Change]
    })
    this.hear([...unchanged, ...changes])
  }

  /** What a commit that failed after all had published already: after what was owed `before` it, and before what came since. */
  #oweStuck(decided: readonly Decided[], before: ReadonlySet<Owed>): void {
    const stuck = decided
      .filter(({ waiting, changes }) => waiting.owed && changes.length > 0)
      .map(({ waiting, changes }): Owed => {
        return { decide: (books) => waiting.decide(books).changes, changes }
      })
    const since = this.#owed.filter((one) => !before.has(one))
    this.#owed = [...this.#owed.filter((one) => before.has(one)), ...stuck, ...since]
  }

  /**
   * Begins a draft with what is owed: its records as they are stored, with what was measured since (returned), and on
   * these the same decisions made anew.
   */
  #draftOwed(changes: Change[]): Change[] {
    const back = new Map<string, Change>()
    this.#paying.clear()
    for (const change of this.#owed.flatMap((owed) => owed.changes)) {
      this.#paying.add(idOf(change))
      const entry = this.#unstored.get(idOf(change))
      if (entry === undefined) continue
      const { stored } = entry
      const value = withMeasured(change.kind, stored, this.#books.published(change), stored)
      back.set(idOf(change), { ...change, value } as Change)
    }
    this.#books.draft([...back.values()])
    for (const { decide } of this.#owed) {
      const anew = this.#decideAnew(decide)
      this.#books.draft(anew)
      changes.push(...anew)
    }
    return [...back.values()]
  }

  /** What was to be done, where that still makes sense: a host that said goodbye may be gone by now. */
  #decideAnew(decide: Decide): readonly Change[] {
    try {
      return this.#stamp(decide(this.#books))
    } catch (error) {
      if (error instanceof Problem) return []
      throw error
    }
  }
}
