// Brings a SQLite database to the program's schema: numbered .sql files, each once, in order, forward only.
//
// Each file runs in one transaction together with the note that it ran, so a crash or an error leaves
// the database as it was before that file. The SHA-256 of each is kept: a file that was edited, lost or
// put between others after it ran is refused, and so is a database of a newer program.

import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Database } from 'better-sqlite3'
import { StoreError } from './store.ts'

interface Migration {
  readonly name: string
  readonly sql: string
  readonly sha256: string
}

interface Applied {
  readonly name: string
  readonly sha256: string
}

const FILE_NAME = /^\d{4}-[a-z0-9-]+\.sql$/

/**
 * Runs what has not run yet of the migrations in `folder`; returns the names of those that ran.
 * Throws StoreError `edited-migration`, `newer-database` or `failed-migration`.
 */
export function migrate(database: Database, folder: string): string[] {
  const migrations = readMigrations(folder)
  database.exec(
    'CREATE TABLE IF NOT EXISTS migrations (name TEXT NOT NULL PRIMARY KEY, sha256 TEXT NOT NULL, applied TEXT NOT NULL) STRICT',
  )
  const applied = database.prepare<[], Applied>('SELECT name, sha256 FROM migrations ORDER BY name').all()
  checkApplied(migrations, applied, folder)
  const missing = migrations.slice(applied.length)
  for (const migration of missing) run(database, migration, folder)
  return missing.map(({ name }) => name)
}

function readMigrations(folder: string): Migration[] {
  const names = readdirSync(folder)
    .filter((name) => name.endsWith('.sql'))
    .sort()
  return names.map((name, i) => {
    if (!FILE_NAME.test(name) || Number(name.slice(0, 4)) !== i + 1) {
      const number = String(i + 1).padStart(4, '0')
      throw new StoreError(
        'failed-migration',
        `${join(folder, name)}: the migration at this place must be named ${number}-something.sql.`,
      )
    }
    // A checkout may have changed line ends; that is no edit.
    const sql = readFileSync(join(folder, name), 'utf8').replaceAll('\r\n', '\n')
    return { name, sql, sha256: createHash('sha256').update(sql).digest('hex') }
  })
}

/** The applied ones must be the first of ours, unchanged. */
function checkApplied(migrations: readonly Migration[], applied: readonly Applied[], folder: string): void {
  for (const [i, { name, sha256 }] of applied.entries()) {
    const migration = migrations[i]
    const path = join(folder, name)
    if (migration === undefined) {
      throw new StoreError(
        'newer-database',
        `This data was written by a newer Nearcast: it has the migration ${name}, which ${folder} lacks. Run that version, or restore a backup made before it.`,
      )
    }
    if (migration.name !== name) {
      throw new StoreError(
        'edited-migration',
        `${path} ran on this data but is gone, and ${migration.name} stands in its place. Restore the file; new migrations go at the end.`,
      )
    }
    if (migration.sha256 !== sha256) {
      throw new StoreError(
        'edited-migration',
        `${path} was edited after it ran on this data. Restore the file as it was, and put the change into a new migration.`,
      )
    }
  }
}

function run(database: Database, { name, sql, sha256 }: Migration, folder: string): void {
  database.exec('BEGIN IMMEDIATE')
  try {
    database.exec(sql)
    if (!database.inTransaction) throw new Error('it ends the transaction that it runs in')
    database
      .prepare('INSERT INTO migrations (name, sha256, applied) VALUES (?, ?, ?)')
      .run(name, sha256, new Date().toISOString())
    database.exec('COMMIT')
  } catch (cause) {
    if (database.inTransaction) database.exec('ROLLBACK')
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new StoreError(
      'failed-migration',
      `${join(folder, name)} failed: ${why}. The data is as it was before; run the version that wrote it, or mend the file.`,
      { cause },
    )
  }
}
