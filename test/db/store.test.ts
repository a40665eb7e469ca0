// The Stores: the conformance suite over memory and SQLite, then what only a file can go through:
// a kill -9, a second process, damage, migrations that were edited or come from the future.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import Sqlite from 'better-sqlite3'
import t, { type Test } from 'tap'
import { openMemory } from '../../db/memory.ts'
import { SharedMemory } from '../../db/shared-memory.ts'
import { openSqlite } from '../../db/sqlite.ts'
import type { Store } from '../../db/store.ts'
import { emptyDirectory } from '../../resolver/directory.ts'
import { testCluster } from './cluster-suite.ts'
import { EVERYTHING, setting, testStore, withStore } from './store-suite.ts'

const MIGRATIONS = join(import.meta.dirname, '../../migrations')
const SQLITE_MODULE = join(import.meta.dirname, '../../db/sqlite.ts')

/** A data folder of its own for each call, gone after the test. */
let folders = 0
const newPath = (t: Test) => join(t.testdir({}), `data${folders++}`, 'nearcast.db')
const opener =
  (path: string, migrations = MIGRATIONS) =>
  () =>
    openSqlite({ path, migrations })

t.test('memory', async (t) => {
  testStore(t, () => {
    const kept = emptyDirectory()
    return async () => openMemory(kept)
  })
})

t.test('shared memory', async (t) => {
  testStore(t, () => {
    const shared = new SharedMemory()
    return async () => shared.open()
  })
  testCluster(t, async () => {
    const shared = new SharedMemory()
    return async (options) => shared.open(options)
  })
})

t.test('SQLite', async (t) => {
  const folder = t.testdir({})
  testStore(t, () => opener(join(folder, `data${folders++}`, 'nearcast.db')))
})

/** Opens the store in another process, which then does `work` with it (`store` and `say` are in scope). */
function inChild(path: string, work: string): ChildProcess {
  const program = `
    import { writeSync } from 'node:fs'
    import { openSqlite } from ${JSON.stringify(SQLITE_MODULE)}
    const say = (text) => writeSync(1, text + '\\n')
    try {
      const store = await openSqlite(${JSON.stringify({ path, migrations: MIGRATIONS })})
      ${work}
    } catch (error) {
      say(error.code)
    }`
  return spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
}

/** All that the child says until it ends or, after `lines` lines, is killed. */
async function hear(child: ChildProcess, lines = Number.POSITIVE_INFINITY): Promise<string[]> {
  let text = ''
  child.stdout!.setEncoding('utf8')
  child.stdout!.on('data', (chunk: string) => {
    text += chunk
    if (text.split('\n').length > lines) child.kill('SIGKILL')
  })
  await once(child, 'close')
  return text.split('\n').filter((line) => line !== '')
}

t.test('what was acknowledged is there after kill -9, and no commit is there in part', async (t) => {
  const path = newPath(t)
  let acknowledged = -1
  for (const lines of [1, 7, 40, 150, 400]) {
    const child = inChild(
      path,
      `for (let i = ${acknowledged + 1}; ; i++) {
        await store.commit(['a', 'b', 'c'].map((key) => ({ kind: 'settings', key, value: String(i) })))
        say(i)
      }`,
    )
    const heard = await hear(child, lines)
    t.ok(heard.length >= lines, 'it was killed while it committed')
    acknowledged = Number(heard.at(-1))
    // Opening at once also shows that the killed process's lock does not stand in the way.
    const { settings } = await withStore(opener(path), (store) => store.load())
    const kept = Number(settings.get('a'))
    t.ok(kept >= acknowledged, `${acknowledged} was acknowledged, ${kept} is kept`)
    t.strictSame([settings.get('b'), settings.get('c')], [String(kept), String(kept)])
    acknowledged = kept
  }
})

t.test('a second opening of the same data is refused while the first lasts, in any process', async (t) => {
  const path = newPath(t)
  const first = await opener(path)()
  await t.rejects(opener(path)(), { code: 'in-use', message: path })
  // Twice: the refusal above must not have loosened the lock (POSIX locks end with any close of the file).
  t.strictSame(await hear(inChild(path, 'say("opened")')), ['in-use'])
  await first.commit([setting('a', '1')])
  await first.close()
  t.strictSame(await hear(inChild(path, 'say("opened"); await store.close()')), ['opened'])
})

t.test('nothing is acknowledged into a file that was deleted or replaced under the store', async (t) => {
  for (const replaced of [false, true]) {
    const path = join(t.testdir(), 'nearcast.db')
    const store = await openSqlite({ path, migrations: MIGRATIONS })
    await store.commit([setting('a', '1')])
    renameSync(path, `${path}.gone`)
    if (replaced) writeFileSync(path, '')
    await t.rejects(store.commit([setting('b', '2')]), { code: 'unavailable', message: /under this process/ })
    await store.close()
  }
})

t.test('an operator may read the file with SQL while a core runs', async (t) => {
  const path = newPath(t)
  await withStore(opener(path), async (store) => {
    await store.commit(EVERYTHING)
    const shell = new Sqlite(path, { readonly: true })
    const rows = shell
      .prepare('SELECT name, host, port, drained FROM members WHERE service = ? ORDER BY name')
      .all('mirror')
    shell.close()
    t.strictSame(rows, [
      { name: 'b', host: 'b.mirror', port: null, drained: 0 },
      { name: 'paris', host: 'paris', port: 443, drained: 1 },
    ])
  })
})

t.test(
  'a commit that finds the file locked fails as unavailable, and does when the lock is gone',
  async (t) => {
    const path = newPath(t)
    await withStore(opener(path), async (store) => {
      const shell = new Sqlite(path)
      shell.exec('BEGIN IMMEDIATE')
      await t.rejects(store.commit([setting('a', '1')]), { code: 'unavailable' })
      shell.exec('ROLLBACK')
      shell.close()
      await store.commit([setting('a', '2')])
      t.equal((await store.load()).settings.get('a'), '2')
    })
  },
)

t.test('nobody else on the machine may read the data', async (t) => {
  const path = newPath(t)
  await withStore(opener(path), async (store) => {
    await store.commit([setting('a', '1')])
    const mode = (file: string) => statSync(file).mode & 0o777
    t.equal(mode(join(path, '..')), 0o700)
    for (const end of ['', '-wal', '-shm', '-lock']) t.equal(mode(path + end), 0o600, `nearcast.db${end}`)
  })
  chmodSync(path, 0o644)
  await withStore(opener(path), async () => t.equal(statSync(path).mode & 0o777, 0o600, 'also an older file'))
})

t.test('damaged data is refused as corrupt, with the place and what to do', async (t) => {
  const noDatabase = newPath(t)
  mkdirSync(join(noDatabase, '..'), { recursive: true })
  writeFileSync(
    noDatabase,
    'this is no database at all, but long enough to be taken for a header of one'.repeat(20),
  )
  await t.rejects(opener(noDatabase)(), { code: 'corrupt', message: /Restore a backup/ })

  const badRecord = newPath(t)
  await withStore(opener(badRecord), (store) => store.commit(EVERYTHING))
  const shell = new Sqlite(badRecord)
  shell.exec(`UPDATE hosts SET addresses = '["192.0.2.1"' WHERE name = 'paris'`)
  shell.close()
  await withStore(opener(badRecord), async (store) => {
    await t.rejects(store.load(), {
      code: 'corrupt',
      message: /table hosts, record paris.*Restore a backup/s,
    })
  })

  const badPages = newPath(t)
  await withStore(opener(badPages), async (store) => {
    await store.commit(Array.from({ length: 2000 }, (_, i) => setting(`key${i}`, 'x'.repeat(100))))
  })
  const bytes = readFileSync(badPages)
  bytes.fill(0xa5, 4096)
  writeFileSync(badPages, bytes)
  const use = (store: Store) => store.load()
  await t.rejects(withStore(opener(badPages), use), { code: 'corrupt', message: badPages })
})

t.test('a path that can’t be used is unavailable', async (t) => {
  const folder = t.testdir({ file: '' })
  await t.rejects(opener(join(folder, 'file', 'nearcast.db'))(), {
    code: 'unavailable',
    message: /ENOTDIR|EEXIST/,
  })
  await t.rejects(opener(newPath(t), join(folder, 'no-migrations'))(), {
    code: 'unavailable',
    message: /no-migrations/,
  })
})

t.test('migrations', async (t) => {
  const SCHEMA = readdirSync(MIGRATIONS)
    .sort()
    .map((name) => readFileSync(join(MIGRATIONS, name), 'utf8'))
    .join('\n')
  const ADD = 'CREATE TABLE added (n INTEGER) STRICT;'

  /** A store made with two migrations, and then their folder as `change` leaves it. */
  async function reopened(t: Test, change: (folder: string) => void): Promise<Store> {
    const path = newPath(t)
    const folder = join(path, '../migrations')
    mkdirSync(folder, { recursive: true })
    writeFileSync(join(folder, '0001-directory.sql'), SCHEMA)
    writeFileSync(join(folder, '0002-add.sql'), ADD)
    await withStore(opener(path, folder), (store) => store.commit([setting('a', '1')]))
    change(folder)
    return opener(path, folder)()
  }
  const write = (name: string, sql: string) => (folder: string) => writeFileSync(join(folder, name), sql)
  const rename = (from: string, to: string) => (folder: string) =>
    renameSync(join(folder, from), join(folder, to))

  t.test('a new one runs once, over the data that is there', async (t) => {
    let folder = ''
    const store = await reopened(t, (f) => {
      folder = f
      write(
        '0003-more.sql',
        "ALTER TABLE added ADD COLUMN m INTEGER; UPDATE settings SET value = value || '!';",
      )(f)
    })
    t.equal((await store.load()).settings.get('a'), '1!')
    await store.close()
    const again = await opener(join(folder, '../nearcast.db'), folder)()
    t.equal((await again.load()).settings.get('a'), '1!', 'not again')
    await again.close()
  })

  t.test('other line ends are no edit', async (t) => {
    const store = await reopened(t, write('0001-directory.sql', SCHEMA.replaceAll('\n', '\r\n')))
    await store.close()
  })

  t.test('an edited one is refused', async (t) => {
    await t.rejects(reopened(t, write('0002-add.sql', `${ADD} -- edited`)), {
      code: 'edited-migration',
      message: /0002-add\.sql was edited.*Restore the file/s,
    })
  })

  t.test('one that is gone, or out of its place, is refused', async (t) => {
    await t.rejects(reopened(t, rename('0002-add.sql', '0002-other.sql')), {
      code: 'edited-migration',
      message: /0002-add\.sql ran on this data but is gone, and 0002-other\.sql/,
    })
    const misnumbered = { code: 'failed-migration', message: /must be named 0002-something/ }
    await t.rejects(reopened(t, rename('0002-add.sql', '0003-add.sql')), misnumbered)
    await t.rejects(reopened(t, rename('0002-add.sql', 'add.sql')), misnumbered)
    await t.rejects(reopened(t, write('0001-between.sql', ADD)), misnumbered)
  })

  t.test('one that fails leaves the data as it was', async (t) => {
    for (const [sql, why] of [
      [
        'CREATE TABLE half (n INTEGER); INSERT INTO nowhere VALUES (1);',
        /0003-bad\.sql failed: no such table/,
      ],
      ['CREATE TABLE half (n INTEGER); COMMIT;', /0003-bad\.sql failed: it ends the transaction/],
    ] as const) {
      let folder = ''
      const change = (f: string) => {
        folder = f
        write('0003-bad.sql', sql)(f)
      }
      await t.rejects(reopened(t, change), { code: 'failed-migration', message: why })
      const database = new Sqlite(join(folder, '../nearcast.db'))
      t.equal(database.prepare('SELECT count(*) FROM migrations').pluck().get(), 2)
      if (!sql.includes('COMMIT')) t.throws(() => database.exec('SELECT * FROM half'), /no such table/)
      database.close()
    }
  })

  t.test('data of a newer program is refused', async (t) => {
    const path = newPath(t)
    await withStore(opener(path), async () => {})
    const database = new Sqlite(path)
    database.exec("INSERT INTO migrations VALUES ('0099-future.sql', 'x', 'x')")
    database.close()
    await t.rejects(opener(path)(), {
      code: 'newer-database',
      message: /0099-future\.sql.*Run that version/s,
    })
  })
})
