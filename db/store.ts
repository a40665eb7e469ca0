// The Store: what a core must never forget, behind one interface for SQLite and, in tests, memory.
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
}

/**
 * - `in-use`: another process holds this store.
 * - `corrupt`: what is kept can't be read.
 * - `edited-migration`, `newer-database`, `failed-migration`: program and data don't fit together.
 * - `unavailable`: not possible now (disk full, no permission, locked); the same commit may do later.
 * - `closed`: it was closed by this process.
 */
export type StoreErrorCode =
  | 'in-use'
  | 'corrupt'
  | 'edited-migration'
  | 'newer-database'
  | 'failed-migration'
  | 'unavailable'
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
