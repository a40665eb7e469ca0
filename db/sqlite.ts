// The embedded Store: one SQLite file in WAL mode, one process at a time.
//
// commit is one transaction, on disk when it resolves. Calls are synchronous underneath (better-sqlite3):
// a commit takes one fsync of the caller's time. The sqlite3 shell may read the file while a core runs.
// https://www.sqlite.org/wal.html

import { chmodSync, closeSync, existsSync, mkdirSync, openSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import Sqlite, { type Database, type Statement } from 'better-sqlite3'
import { type Change, type Directory, emptyDirectory, type LocalityRecord } from '../resolver/directory.ts'
import { LocalityMap } from '../resolver/locality-map.ts'
import { fromRow, KINDS, keyOf, keyValues, type Row, TABLE_SHAPES, toRow } from './columns.ts'
import { migrate } from './migrate.ts'
import { type Store, StoreError } from './store.ts'

export interface SqliteOptions {
  /** The database file; it and its folder are made where they are missing. */
  readonly path: string
  /** The folder of numbered .sql files. */
  readonly migrations: string
}

/**
 * How long a commit may wait for a lock that an operator's sqlite3 shell holds, ms. Short, because all
 * else in this process waits with it; the caller tries again later.
 */
const BUSY_MS = 250

/** Opens or makes the database. Throws StoreError `in-use`, `corrupt`, `unavailable` or one of migrate's. */
export async function openSqlite({ path, migrations }: SqliteOptions): Promise<Store> {
  const opened: Database[] = []
  const open = (file: string, timeoutMs: number) => {
    const database = openPrivate(file, timeoutMs)
    opened.unshift(database)
    return database
  }
  try {
    return guard(path, () => {
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
      const lock = open(`${path}-lock`, 0)
      takeLock(lock, path)
      const database = open(path, BUSY_MS)
      database.pragma('journal_mode = WAL')
      // FULL, not NORMAL: a credential or a revoked token that was acknowledged must outlive a power cut too.
      database.pragma('synchronous = FULL')
      migrate(database, migrations)
      return new SqliteStore(path, database, lock)
    })
  } catch (error) {
    for (const database of opened) database.close()
    throw error
  }
}

/**
 * Holds an exclusive lock on a database of its own beside the file. The operating system lets it go when
 * the process ends, however it ends; and the file itself stays free for readers.
 */
function takeLock(lock: Database, path: string): void {
  try {
    lock.exec('BEGIN EXCLUSIVE')
  } catch (cause) {
    if (errorCode(cause) !== 'SQLITE_BUSY') throw cause
    throw new StoreError(
      'in-use',
      `${path} is in use by another process. Stop the core that runs there, or give this one a data folder of its own.`,
      { cause },
    )
  }
}

/** SQLite gives its -wal and -shm files the rights of the database: made here, for nobody else to read. */
function openPrivate(path: string, timeoutMs: number): Database {
  // A file that is there is not opened: closing it again would end all locks that this process holds on it.
  if (!existsSync(path)) closeSync(openSync(path, 'wx', 0o600))
  chmodSync(path, 0o600)
  return new Sqlite(path, { timeout: timeoutMs })
}

interface Statements {
  readonly all: Statement<[], Row>
  readonly put: Statement<[Row]>
  readonly remove: Statement<string[]>
}

class SqliteStore implements Store {
  readonly cluster = null
  readonly #path: string
  readonly #inode: number
  readonly #database: Database
  readonly #lock: Database
  readonly #statements: ReadonlyMap<string, Statements>
  readonly #write: (changes: readonly Change[]) => void

  constructor(path: string, database: Database, lock: Database) {
    this.#path = path
    this.#inode = statSync(path).ino
    this.#database = database
    this.#lock = lock
    this.#statements = new Map(KINDS.map((kind) => [kind, prepare(database, kind)]))
    this.#write = database.transaction((changes) => this.#writeEach(changes)).immediate
  }

  async load(): Promise<Directory> {
    this.#checkOpen()
    return guard(this.#path, () => {
      const directory = emptyDirectory()
      // One transaction: a snapshot of all tables at one moment.
      return this.#database.transaction(() => {
        for (const kind of KINDS.filter((kind) => kind !== 'localities')) {
          const records = directory[kind] as Map<string, unknown>
          for (const [key, record] of this.#records(kind)) records.set(key, record)
        }
        const localities = this.#records('localities') as Iterable<[string, LocalityRecord]>
        return { ...directory, localities: LocalityMap.packing(localities) }
      })()
    })
  }

  *#records(kind: keyof Directory): Iterable<[key: string, record: unknown]> {
    for (const row of this.#statements.get(kind)!.all.iterate()) {
      const key = keyOf(kind, row)
      try {
        yield [key, fromRow(kind, row)]
      } catch (cause) {
        throw corrupt(`${this.#path}, table ${kind}, record ${key}`, cause)
      }
    }
  }

  async commit(changes: readonly Change[]): Promise<void> {
    this.#checkOpen()
    this.#checkFile()
    guard(this.#path, () => this.#write(changes))
  }

  #writeEach(changes: readonly Change[]): void {
    for (const { kind, key, value } of changes) {
      const statements = this.#statements.get(kind)
      if (statements === undefined) throw new TypeError(`No table keeps ${kind}`)
      if (value === null) statements.remove.run(...keyValues(kind, key))
      else statements.put.run(toRow(kind, key, value))
    }
  }

  async close(): Promise<void> {
    this.#database.close()
    this.#lock.close()
  }

  /** SQLite goes on writing into a file that was deleted or replaced, where no later start would find it. */
  #checkFile(): void {
    const file = statSync(this.#path, { throwIfNoEntry: false })
    if (file?.ino === this.#inode) return
    const what = file === undefined ? 'was deleted' : 'was replaced'
    throw new StoreError(
      'unavailable',
      `${this.#path} ${what} under this process: nothing more is kept. Start the core again, over a copy if there is one.`,
    )
  }

  #checkOpen(): void {
    if (!this.#database.open) throw new StoreError('closed', `${this.#path} was closed by this process.`)
  }
}

function prepare(database: Database, kind: keyof Directory): Statements {
  const { columns, key } = TABLE_SHAPES[kind]
  const names = columns.map(({ column }) => `"${column}"`)
  const values = columns.map(({ column }) => `@${column}`)
  const isKey = key.map((column) => `"${column}" = ?`)
  return {
    all: database.prepare(`SELECT ${names} FROM ${kind}`),
    put: database.prepare(`INSERT OR REPLACE INTO ${kind} (${names}) VALUES (${values})`),
    remove: database.prepare(`DELETE FROM ${kind} WHERE ${isKey.join(' AND ')}`),
  }
}

/** Runs it, and says of SQLite's and the file system's errors what an operator can do about them. */
function guard<T>(path: string, run: () => T): T {
  try {
    return run()
  } catch (error) {
    const code = errorCode(error)
    if (code === 'SQLITE_NOTADB' || code.startsWith('SQLITE_CORRUPT')) throw corrupt(path, error)
    // A record that breaks a constraint is a fault of the program, and no trying again will mend it.
    if (error instanceof StoreError || code === '' || code.startsWith('SQLITE_CONSTRAINT')) throw error
    const why = error instanceof Error ? error.message : String(error)
    throw new StoreError(
      'unavailable',
      `${path} can't be used: ${why} (${code}). Check the disk and its rights.`,
      {
        cause: error,
      },
    )
  }
}

function corrupt(where: string, cause: unknown): StoreError {
  const why = cause instanceof Error ? cause.message : String(cause)
  return new StoreError(
    'corrupt',
    `${where} can't be read: ${why}. Restore a backup, or move the file away and start anew: hosts join again by themselves, services and tokens must be made again.`,
    { cause },
  )
}

/** Of SQLite (`SQLITE_FULL`) or the file system (`EACCES`); '' where it is neither's. */
function errorCode(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code
  return typeof code === 'string' && /^(SQLITE_|E[A-Z]+$)/.test(code) ? code : ''
}
