// `nearcast store copy` between real stores: a data folder, an etcd, and back, without losing anything.

import { join } from 'node:path'
import t from 'tap'
import type { Terminal } from '../../core-node/cli/terminal.ts'
import { runCli } from '../../core-node/cli.ts'
import { openEtcd } from '../../db/etcd.ts'
import { openSqlite } from '../../db/sqlite.ts'
import type { Store } from '../../db/store.ts'
import { applyChanges, emptyDirectory } from '../../resolver/directory.ts'
import { EVERYTHING, setting, withStore } from '../db/store-suite.ts'
import { EtcdServers, noEtcd } from '../support/etcd-servers.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

const MIGRATIONS = join(import.meta.dirname, '../../migrations')

async function run(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const said = { out: '', err: '' }
  const terminal: Terminal = {
    print: (text) => {
      said.out += `${text}\n`
    },
    warn: (text) => {
      said.err += `${text}\n`
    },
    width: null,
    colour: false,
    env: { NEARCAST_STORE_PREFIX: '/copied/' },
  }
  return { code: await runCli(['store', 'copy', ...args], terminal), ...said }
}

t.test('an installation goes from a folder to etcd and back', { skip: noEtcd() }, async (t) => {
  const etcd = await EtcdServers.start({ count: 1 })
  t.teardown(() => etcd.close())
  const [first, second] = [temporaryFolder(), temporaryFolder()]
  const sqlite = (folder: string) => () =>
    openSqlite({ path: join(folder, 'nearcast.db'), migrations: MIGRATIONS })
  const shared = () => openEtcd({ endpoints: etcd.endpoints, prefix: '/copied/', tls: null, user: null })
  const everything = emptyDirectory()
  applyChanges(everything, EVERYTHING)
  const held = (open: () => Promise<Store>) => withStore(open, (store) => store.load())
  await withStore(sqlite(first), (store) => store.commit(EVERYTHING))

  const nothing = await run('--from', etcd.url, '--to', `sqlite:${first}`, '--force')
  t.match(nothing, { code: 1, err: /holds nothing to copy/ })

  const there = await run('--from', `sqlite:${first}`, '--to', etcd.url)
  t.match(there, {
    code: 0,
    out: /2 services, 2 hosts, 2 members, 2 tokens, 2 localities, 1 pages of places, 2 settings/,
  })
  t.strictSame(await held(shared), everything)
  const back = await run('--from', etcd.url, '--to', `sqlite:${second}`, '--json')
  t.match(JSON.parse(back.out), { from: etcd.url, copied: { hosts: 2, settings: 2 } })
  t.strictSame(await held(sqlite(second)), everything)
  t.match(await run('--from', etcd.url, '--to', `sqlite:${second}`), { code: 0 }, 'it holds that already')

  await withStore(sqlite(second), (store) => store.commit([setting('more', '1'), setting('empty', null)]))
  const refused = await run('--from', `sqlite:${second}`, '--to', etcd.url)
  t.match(refused, { code: 1, err: /not empty[\s\S]*--force/ })
  t.strictSame(await held(shared), everything, 'it is as it was')
  t.match(await run('--from', `sqlite:${second}`, '--to', etcd.url, '--force'), { code: 0 })
  t.strictSame(await held(shared), await held(sqlite(second)))

  await withStore(sqlite(first), async () => {
    t.match(await run('--from', `sqlite:${first}`, '--to', etcd.url), {
      code: 1,
      err: /in use by another process/,
    })
  })
  await withStore(shared, async (store) => {
    await store.load()
    await store.cluster!.announce('core-a')
    for (const sides of [
      ['--from', etcd.url, '--to', `sqlite:${first}`],
      ['--from', `sqlite:${first}`, '--to', etcd.url],
    ]) {
      t.match(await run(...sides, '--force'), { code: 1, err: /in use by core-a/ })
    }
  })
  t.strictSame(await held(sqlite(first)), everything)
})

t.test('what is no store is wrong use, and what is not there is told', async (t) => {
  const folder = temporaryFolder()
  t.match(await run('--from', './data', '--to', `sqlite:${folder}`), {
    code: 2,
    err: /--from is ".\/data": expected sqlite:DIR/,
  })
  t.match(await run('--from', 'etcd://', '--to', `sqlite:${folder}`), { code: 2, err: /--from/ })
  t.match(await run('--from', `sqlite:${folder}`, '--to', 'etcd://127.0.0.1:1'), {
    code: 1,
    err: /there is no .*nearcast\.db/,
  })
  const badKey = ['--store-cert', '/nowhere.pem']
  t.match(await run('--from', 'etcd://127.0.0.1:1', '--to', `sqlite:${folder}`, ...badKey), {
    code: 2,
    err: /store-key/,
  })
  t.match(await run('--from', 'etcd://127.0.0.1:1', '--to', `sqlite:${folder}`), {
    code: 1,
    err: /no etcd server can be reached/,
  })
})
