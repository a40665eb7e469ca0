// The Store: what a core must never forget, behind one interface for SQLite, etcd and, in tests, memory.
//
// The promises, which one conformance suite holds every implementation to:
// - commit is atomic and in order: all of its changes or none, seen by the next load whole;
// - once commit has resolved, its changes survive a kill -9 of this process;
// - load gives back each record equal to the one committed last, fields and all;
// - a store made by a newer program, or with an edited migration, is refused at open with a clear error.
// A store is never on a query's path: a core loads once and answers from memory.

import type { Change, Directory } from '../resolver/directory.ts'

export interface Store {
  /** Everything that was committed. Throws StoreError `corrupt` where a record can't be read. */
  load(): Promise<Directory>
  /** Keeps the changes, in order, in one transaction. Throws StoreError; then none of them is kept. */
  commit(changes: readonly Change[]): Promise<void>
  /** Ends it; a commit after that throws StoreError `closed`. Idempotent. */
  close(): Promise<void>
  /** Other cores that keep their directory in the same store; null: it is this process's alone. */
  readonly cluster: Cluster | null
}

/**
 * What a store that several cores share promises beyond Store:
 * - there is one order of all commits, and everybody is told of them in it. What follows on a commit of one's own is
 *   told in a later turn of the event loop than that commit resolved in;
 * - commit is refused with `conflict`, whole, where it changes a record that another core changed since this one was
 *   told of it: its decision stood on what is no more. Once it was told (`caughtUp`), deciding anew will do;
 * - a commit that was made is never refused: where its outcome is not known (the connection broke under it), it stays
 *   undecided until it is. What could not even be sent is refused at once with `unavailable`;
 * - a core whose lease ended is told of to all others, whatever became of it.
 */
export interface Cluster {
  /**
   * Tells, from the state that load() gave on, of each commit of another core: whole, in order, each once; and of
   * the cores, first of those that are there. Call it once, after load. Told nothing more after close.
   */
  follow(listener: ClusterListener): void
  /** Resolves when everything that was committed by anybody before this call has been told. Throws StoreError `unavailable`. */
  caughtUp(): Promise<void>
  /** Holds a lease under this core's name until it is released or the store closed; held anew when it was lost. */
  announce(core: string): Promise<void>
  /** Gives the lease back: the others are told at once. */
  release(): Promise<void>
  /** The names of all cores that hold a lease, asked anew. */
  cores(): Promise<readonly string[]>
  /** What the store takes on its disk; null: it is in memory. */
  size(): Promise<StoreSize | null>
}

export interface StoreSize {
  /** Of the file: what counts against the store's quota. */
  readonly fileBytes: number
  /** Of it, what is not free for use again. */
  readonly usedBytes: number
}

export interface ClusterListener {
  /** One commit of another core. `revision` grows with every commit of anybody. */
  onCommit(changes: readonly Change[], revision: number): void
  /** The names of all cores that hold a lease now. */
  onCores(names: readonly string[]): void
  /** Why what is told may be behind, or commits fail; null: all is well again, and everything missed was told. */
  onTrouble(reason: string | null): void
}

/**
 * - `in-use`: another process holds this store.
 * - `corrupt`: what is kept can't be read.
 * - `edited-migration`, `newer-database`, `failed-migration`: program and data don't fit together.
 * - `unavailable`: not possible now (disk full, no permission, locked); the same commit may do later.
 * - `conflict`: another core changed a record first: decide anew (only of a shared store).
 * - `read-only`: it was opened to follow only.
 * - `closed`: it was closed by this process.
 */
export type StoreErrorCode =
  | 'in-use'
  | 'corrupt'
  | 'edited-migration'
  | 'newer-database'
  | 'failed-migration'
  | 'unavailable'
  | 'conflict'
  | 'read-only'
  | 'closed'

/** Why a store can't do what was asked. `message` is for the operator: it names the file and what to do. */
export class StoreError extends Error {
  readonly code: StoreErrorCode
  constructor(code: StoreErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'StoreError'
    this.code = code
  }
}
