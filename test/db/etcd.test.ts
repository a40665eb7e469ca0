// The store in etcd: the suites that every store and every shared store is held to, and how it keeps what it keeps:
// what other versions write, records that move to pages, an etcd that is shared or guarded.

import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type EtcdOptions, openEtcd } from '../../db/etcd.ts'
import { EtcdKeys } from '../../db/etcd-keys.ts'
import type { KeyValue } from '../../db/etcd-messages.ts'
import { mergeBucket } from '../../db/etcd-upkeep.ts'
import { type BatchEntry, decodePage, encodePage, encodeRecord } from '../../db/etcd-values.ts'
import type { Store } from '../../db/store.ts'
import { EtcdServers, noEtcd } from '../support/etcd-servers.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { Follower, settings, sorted, testCluster, withCores } from './cluster-suite.ts'
import { HOST, setting, testStore, withStore } from './store-suite.ts'

let installations = 0
const newPrefix = () => `/nearcast-${installations++}/`

// Much of it is waiting for servers.
t.jobs = 3

t.test('etcd', { skip: noEtcd(), buffered: true }, async (t) => {
  const etcd = await EtcdServers.start()
  t.teardown(() => etcd.close())
  const opener =
    (prefix: string) =>
    (options: Partial<EtcdOptions> = {}): Promise<Store> =>
      openEtcd({ endpoints: etcd.endpoints, prefix, tls: null, user: null, ...options })
  const countKeys = (prefix: Buffer) => {
    const out = etcd.ctl(['get', prefix.toString(), '--prefix', '--limit=1', '--write-out=fields'])
    return Number(/"Count" : (\d+)/.exec(out)![1])
  }

  t.test('as any store', async (t) => testStore(t, () => opener(newPrefix())))
  t.test('as a shared one', async (t) => testCluster(t, async () => opener(newPrefix())))

  t.test('two installations in one etcd know nothing of each other', async (t) => {
    const [one, other] = [opener('/one/'), opener('/one/more/')]
    await withCores(one, 1, async (core) => {
      await withStore(other, (store) => store.commit([setting('x', '1')]))
      await core!.cluster.caughtUp()
      t.strictSame(core!.told, [])
      await core!.commit([setting('y', '1')])
    })
    t.strictSame((await withStore(other, (store) => store.load())).settings, new Map([['x', '1']]))
  })

  t.test('fields that a newer version wrote stay, and are its own business', async (t) => {
    const prefix = newPrefix()
    const key = new EtcdKeys(prefix).record('hosts', 'paris').toString()
    const write = (v: number, more: object) =>
      etcd.ctl(['put', key, JSON.stringify({ v, record: { ...HOST, ...more } })])
    const kept = () => JSON.parse(etcd.ctl(['get', key, '--print-value-only']))
    write(2, { colour: 'blue', nested: { a: [1] } })
    await withCores(opener(prefix), 2, async (a, b) => {
      t.strictSame(a!.directory.hosts.get('paris'), HOST, 'as listed')
      await a!.commit([{ kind: 'hosts', key: 'paris', value: { ...HOST, home: 'core2' } }])
      t.strictSame(kept().record, { ...HOST, home: 'core2', colour: 'blue', nested: { a: [1] } })
      write(2, { colour: 'red' })
      await a!.until('it was told', () => a!.told.length === 1)
      await b!.cluster.caughtUp()
      t.strictSame(a!.directory.hosts.get('paris'), HOST, 'as told')
      await a!.commit([{ kind: 'hosts', key: 'paris', value: { ...HOST, home: 'core3' } }])
      t.strictSame(kept().record, { ...HOST, home: 'core3', colour: 'red' })
      await a!.commit([{ kind: 'hosts', key: 'paris', value: null }])
      await a!.commit([{ kind: 'hosts', key: 'paris', value: HOST }])
      t.strictSame(kept().record, HOST, 'but not beyond its removal')
    })
  })

  t.test('what can’t be read is refused by its key; what is told so leaves all as it was', async (t) => {
    const cases = [
      { value: '{"v":3,"record":{}}', code: 'newer-database', message: /schema 3/ },
      { value: '{"record":{}}', code: 'corrupt', message: /no schema version/ },
      { value: 'junk', code: 'corrupt', message: /not JSON/ },
      { value: '{"v":1,"record":{"name":"paris"}}', code: 'corrupt', message: /lacks agent/ },
      { value: '{"v":1}', code: 'corrupt', message: /holds no record/ },
    ]
    const prefix = newPrefix()
    const key = new EtcdKeys(prefix).record('hosts', 'paris').toString()
    await withCores(opener(prefix), 1, async (core) => {
      for (const { value, code, message } of cases) {
        etcd.ctl(['put', key, value])
        await withStore(opener(prefix), (store) => t.rejects(store.load(), { code, message }))
        await withStore(opener(prefix), (store) => t.rejects(store.load(), { message: key }))
      }
      await core!.until('it says so', () => core!.trouble !== null)
      t.match(core!.trouble, key)
      t.equal(core!.directory.hosts.size, 0)
      etcd.ctl(['del', key])
      await core!.until('all is well', () => core!.trouble === null)
    })
    etcd.ctl(['put', `${prefix}layout`, '{"v":1,"layout":2}'])
    await t.rejects(opener(prefix)(), { code: 'newer-database', message: /layout 2/ })
  })

  t.test('what somebody took away by hand is found missing', async (t) => {
    const prefix = newPrefix()
    await withCores(opener(prefix), 2, async (a, b) => {
      await a!.commit(settings(3, 's', 'x'))
      await b!.cluster.caughtUp()
      etcd.ctl(['del', new EtcdKeys(prefix).record('settings', 's1').toString()])
      for (const core of [a!, b!]) {
        await core.until('it is gone', () => core.told.some(({ changes }) => changes[0]?.value === null))
        t.strictSame([...core.directory.settings.keys()], ['s0', 's2'])
      }
    })
  })

  t.test('records move to pages while they are changed, and nothing is different', async (t) => {
    const prefix = newPrefix()
    const keys = new EtcdKeys(prefix)
    const records = () => countKeys(keys.records)
    await withCores(opener(prefix), 3, async (a, b, c) => {
      await a!.cluster.announce('core-a')
      // 16 buckets: each has more records of its own than it may.
      for (let i = 0; i < 8; i++) await b!.commit(settings(100, `s${i}-`, 'x'))
      await b!.commit(settings(4000, 'batch', 'x'))
      await b!.commit([setting('batch1', 'later'), setting('batch2', null)])
      t.ok(records() > 0)
      let n = 0
      while (n % 50 > 0 || records() > 100 || countKeys(keys.batches) > 0) {
        await c!.decide((now) => [
          setting(`s1-${n % 100}`, `${now.settings.get(`s1-${n % 100}`)}+`),
          setting('n', String(n)),
        ])
        n++
        if (n % 20 === 0) await b!.commit([setting(`s2-${n % 100}`, null)])
      }
      t.equal(countKeys(keys.staged), 0)
      const told = a!.told.length
      await Promise.all([a!, b!, c!].map(({ cluster }) => cluster.caughtUp()))
      const kept = await c!.store.load()
      t.equal(kept.settings.get('batch1'), 'later')
      t.notOk(kept.settings.has('batch2'))
      for (const core of [a!, b!, c!]) t.strictSame(sorted(core.directory), sorted(kept))
      t.ok(told <= 8 + 2 + n + n / 20, 'what only moved is told to nobody')
      await c!.commit([setting('n', 'end')])
      await b!.decide(() => [setting('n', 'very end')])
    })
  })
})

t.test('a bucket’s page holds each record as it was put last', async (t) => {
  const keys = new EtcdKeys('/p/')
  const at = (revision: number, value: Buffer, key = keys.record('settings', 'x')): KeyValue => ({
    key,
    value,
    create_revision: revision,
    mod_revision: revision,
    version: 1,
  })
  const page = (revision: number) => at(revision, encodePage(1, { x: 'page', y: 'page' }))
  const share = (revision: number) => ({
    revision,
    entries: [['settings', 'x', `batch${revision}`] as BatchEntry],
  })
  const single = (revision: number, kept: unknown = 'single') => at(revision, encodeRecord(kept))
  const xOf = (...args: Parameters<typeof mergeBucket> extends [unknown, ...infer Rest] ? Rest : never) =>
    decodePage(mergeBucket(keys, ...args)).records.x
  t.equal(xOf(page(5), [], []), 'page')
  t.equal(xOf(page(5), [share(7)], []), 'batch7')
  t.equal(xOf(page(5), [share(3)], []), 'page', 'which holds the older batch already')
  t.equal(xOf(page(5), [share(6), share(8)], []), 'batch8')
  t.equal(xOf(page(5), [share(7)], [single(6)]), 'batch7')
  t.equal(xOf(page(5), [share(7)], [single(8)]), 'single')
  t.equal(xOf(null, [share(7)], [single(8)]), 'single')
  t.equal(xOf(page(5), [share(7)], [single(8, null)]), undefined, 'it was removed')
  t.strictSame(decodePage(mergeBucket(keys, page(5), [], [single(8)])).records, { x: 'single', y: 'page' })
  const newer = at(8, Buffer.from(JSON.stringify({ v: 2, record: 'newer' })))
  t.equal(decodePage(mergeBucket(keys, page(5), [], [newer])).v, 2, 'and says whose newest is in it')
})

/** A certificate authority and what it signs, in a new folder: paths of PEM files. */
function certificates(): {
  ca: string
  server: [cert: string, key: string]
  client: [cert: string, key: string]
} {
  const folder = temporaryFolder()
  const path = (name: string) => join(folder, name)
  const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe', cwd: folder })
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  openssl('req', '-x509', ...newKey, '-keyout', 'ca.key', '-out', 'ca.pem', '-subj', '/CN=test', '-days', '2')
  const sign = (name: string): [string, string] => {
    openssl(
      'req',
      ...newKey,
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.csr`,
      '-subj',
      `/CN=${name}`,
      '-addext',
      'subjectAltName=IP:127.0.0.1',
    )
    openssl(
      'x509',
      '-req',
      '-in',
      `${name}.csr`,
      '-CA',
      'ca.pem',
      '-CAkey',
      'ca.key',
      '-CAcreateserial',
      '-out',
      `${name}.pem`,
      '-days',
      '2',
      '-copy_extensions',
      'copy',
    )
    return [path(`${name}.pem`), path(`${name}.key`)]
  }
  return { ca: path('ca.pem'), server: sign('server'), client: sign('client') }
}

t.test(
  'an etcd behind mutual TLS, with a role that sees only our prefix',
  { skip: noEtcd(), buffered: true },
  async (t) => {
    const { ca, server, client } = certificates()
    const [cert, key] = server
    const etcd = await EtcdServers.start({ count: 1, tls: { ca, cert, key } })
    t.teardown(() => etcd.close())
    const [own, ownKey] = client
    const tls = { ca, cert: own, key: ownKey }
    const open = (options: Partial<EtcdOptions>) =>
      openEtcd({ endpoints: etcd.endpoints, prefix: '/nearcast/', tls, user: null, ...options })
    const user = { name: 'nearcast', password: 'secret' }

    await withStore(
      () => open({}),
      (store) => store.commit([setting('x', '1')]),
    )
    etcd.ctl(['role', 'add', 'nearcast'])
    etcd.ctl(['role', 'grant-permission', 'nearcast', 'readwrite', '/nearcast/', '--prefix=true'])
    etcd.ctl(['role', 'add', 'follower'])
    etcd.ctl(['role', 'grant-permission', 'follower', 'read', '/nearcast/', '--prefix=true'])
    for (const name of ['nearcast', 'follower']) {
      etcd.ctl(['user', 'add', `${name}:secret`])
      etcd.ctl(['user', 'grant-role', name, name])
    }
    etcd.ctl(['user', 'add', 'root:secret'])
    etcd.ctl(['user', 'grant-role', 'root', 'root'])
    etcd.ctl(['auth', 'enable'])

    await withCores(
      () => open({ user }),
      2,
      async (a, b) => {
        await a!.cluster.announce('core-a')
        await a!.commit(settings(300, 's', 'x'))
        await b!.cluster.caughtUp()
        t.equal(b!.directory.settings.get('s7'), 'x7')
        t.ok((await b!.cluster.size())!.fileBytes > 0)
        const follower = await Follower.open(() =>
          open({ user: { ...user, name: 'follower' }, readOnly: true }),
        )
        // Its tokens are forgotten: all of them ask for new ones.
        await etcd.restart(0)
        await a!.decide(() => [setting('x', '2')])
        await follower.until('it is told', () => follower.directory.settings.get('x') === '2')
        t.strictSame(follower.cores, ['core-a'])
        await follower.store.close()
      },
    )

    const refused = (options: Partial<EtcdOptions>, message: RegExp) =>
      t.rejects(open(options), { name: 'StoreError', code: 'unavailable', message })
    await refused({ user, prefix: '/other/' }, /permission denied/)
    await refused({ user: { ...user, password: 'wrong' } }, /authentication failed/)
    await refused({ user: null }, /user name is empty|permission denied/)
    await refused(
      { tls: { ...tls, key: join(temporaryFolder(), 'none.key') } },
      /certificates can't be used: .*none\.key/,
    )
    await refused({ tls: { ...tls, ca: ownKey } }, /can't be used|can be reached/)
  },
)

t.test(
  'a full etcd refuses changes, says what to do, and tells all that is there',
  { skip: noEtcd(), buffered: true },
  async (t) => {
    const etcd = await EtcdServers.start({ count: 1, flags: ['--quota-backend-bytes', '4000000'] })
    t.teardown(() => etcd.close())
    const open = () => openEtcd({ endpoints: etcd.endpoints, prefix: '/nearcast/', tls: null, user: null })
    await withCores(open, 1, async (core) => {
      const large = (n: number) => setting(`large${n}`, String(n).repeat(400_000))
      const random = randomBytes(3_000_000).toString('base64')
      await t.rejects(core!.commit([setting('x', '1'), setting('y', random)]), {
        message: /too large|larger than max/,
      })
      let n = 0
      const full = await (async () => {
        for (; ; n++) await core!.commit([large(n)])
      })().catch((error) => error)
      t.match(full, { code: 'unavailable', message: /It is full: .*quota/ })
      await t.rejects(core!.commit(settings(200, 's', 'x')), { code: 'unavailable' }, 'behind the gate')
      const { settings: kept } = await core!.store.load()
      t.equal(kept.size, n)
      t.strictSame(sorted(core!.directory), sorted(await core!.store.load()))
    })
  },
)

t.test('an etcd that is not there is said so', { buffered: true }, async (t: Test) => {
  await t.rejects(openEtcd({ endpoints: ['127.0.0.1:1'], prefix: '/n/', tls: null, user: null }), {
    code: 'unavailable',
    message: /127\.0\.0\.1:1/,
  })
})
