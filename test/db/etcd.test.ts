// The store in etcd: the suites that every store and every shared store is held to, and how it keeps what it keeps:
// what other versions write, records that move to pages, an etcd that is shared or guarded.

import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { deflateRawSync, inflateRawSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { type EtcdOptions, openEtcd } from '../../db/etcd.ts'
import { EtcdConnections } from '../../db/etcd-connections.ts'
import { bucketOf, EtcdKeys } from '../../db/etcd-keys.ts'
import { type KeyValue, under } from '../../db/etcd-messages.ts'
import { mergeBucket } from '../../db/etcd-upkeep.ts'
import {
  type BatchEntry,
  decodePage,
  encodeFacts,
  encodePage,
  encodeParts,
  encodeRecord,
  recordsOf,
} from '../../db/etcd-values.ts'
import type { Store } from '../../db/store.ts'
import { applyChanges, type Change, emptyDirectory, type LocalityRecord } from '../../resolver/directory.ts'
import { EtcdServers, noEtcd } from '../support/etcd-servers.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'
import { Follower, settings, sorted, testCluster, withCores } from './cluster-suite.ts'
import { HOST, setting, testStore, withStore } from './store-suite.ts'

let installations = 0
const newPrefix = () => `/nearcast-${installations++}/`

/** Of few buckets, so that pages have many. */
const LOCALITY_KEYS = Array.from({ length: 70_000 }, (_, i) =>
  i % 7 === 0
    ? `2001:db8:${(i + 1).toString(16)}::/48`
    : `${1 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}.0/24`,
).filter((key) => bucketOf('localities', key).startsWith('localities/0'))

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
    etcd.ctl(['put', `${prefix}layout`, '{"v":1,"layout":3}'])
    await t.rejects(opener(prefix)(), { code: 'newer-database', message: /layout 3/ })
  })

  t.test(
    'localities lie in columns, in batches and in pages, and are what they were at any moment',
    async (t) => {
      const prefix = newPrefix()
      const keys = new EtcdKeys(prefix)
      const twin = emptyDirectory()
      const kept = () => withStore(opener(prefix), (store) => store.load())
      const connections = new EtcdConnections({ endpoints: etcd.endpoints, tls: null, user: null })
      t.teardown(() => connections.close())
      const pages = async () => (await connections.ask('KV/Range', under(keys.pages))).kvs
      await withCores(opener(prefix), 1, async (core) => {
        const commit = (changes: readonly Change[]) => {
          applyChanges(twin, changes)
          return core!.commit(changes)
        }
        const isKept = async (when: string) => t.strictSame(sorted(await kept()), sorted(twin), when)
        await commit(localities(0, 4000))
        await isKept('from a batch')
        await commit([...localities(10, 30, 'b'), ...removed(30, 50), ...localities(4000, 4010)])
        await isKept('and single ones')
        await commit([...localities(20, 3800, 'c'), ...removed(3800, 3900), setting('x', '1')])
        await isKept('from a batch over both')
        await commit([...localities(200, 210, 'd'), ...removed(0, 10), ...removed(3700, 3710)])
        await isKept('and single ones again')
        await core!.cluster.announce('core')
        let loads = 0
        for (; countKeys(keys.batches) > 0; loads++) await isKept('while they move to pages')
        await isKept('from pages')
        const all = (await pages()).map(({ value }) => decodePage(value))
        const inColumns = all.reduce((sum, page) => sum + (page.localities?.size ?? 0), 0)
        const others = all.flatMap((page) => Object.keys(page.records)).filter((key) => key.includes('/'))
        t.equal(inColumns + others.length, twin.localities.size)
        t.ok(others.every((key) => isMisfit(twin.localities.get(key)!)))
        t.ok(others.length > 0)
        // As the version before wrote them; and one of a newer, whose business is its own.
        for (const [i, { key, value }] of (await pages()).entries()) {
          const page = decodePage(value)
          const records = Object.fromEntries(recordsOf(page))
          for (const record of Object.values(records) as object[])
            if (i % 3 === 0 && typeof record === 'object') Object.assign(record, { colour: 'blue' })
          const text = JSON.stringify({ v: i % 3 === 0 ? 2 : 1, records })
          await connections.ask('KV/Put', { key, value: deflateRawSync(text) })
        }
        await isKept('from pages of other versions')
        t.pass(`${loads} loads while they moved`)
      })
    },
  )

  t.test('a store that the version before began is written as that one reads it', async (t) => {
    const prefix = newPrefix()
    const keys = new EtcdKeys(prefix)
    const connections = new EtcdConnections({ endpoints: etcd.endpoints, tls: null, user: null })
    t.teardown(() => connections.close())
    etcd.ctl(['put', keys.layout.toString(), '{"v":1,"layout":1}'])
    /** As it unpacked them: everything is JSON. */
    const all = async (where: Buffer) => {
      const { kvs } = await connections.ask('KV/Range', under(where))
      const packed = kvs.filter(({ value }) => value[0] !== 0x7b)
      return packed.map(({ value }) => JSON.parse(inflateRawSync(value).toString()) as Record<string, object>)
    }
    await withCores(opener(prefix), 1, async (core) => {
      await core!.commit(localities(0, 4000))
      const entries = (await all(keys.staged)).flatMap((part) => part.entries as unknown[])
      t.equal(entries.length, 4000)
      await core!.cluster.announce('core')
      while (countKeys(keys.batches) > 0) await core!.store.load()
      const records = (await all(keys.pages)).flatMap((page) => Object.keys(page.records!))
      t.equal(records.length, 4000)
      t.equal((await core!.store.load()).localities.size, 4000)
    })
    t.match(etcd.ctl(['get', keys.layout.toString()]), /"layout":1/)
  })

  t.test('of a locality that a later batch holds, fields of before are not kept', async (t) => {
    const prefix = newPrefix()
    const keys = new EtcdKeys(prefix)
    const connections = new EtcdConnections({ endpoints: etcd.endpoints, tls: null, user: null })
    t.teardown(() => connections.close())
    const [{ key, value }] = localities(0, 1) as [Change & { kind: 'localities' }]
    const records = { [key]: { ...value, colour: 'blue' } }
    const page = deflateRawSync(JSON.stringify({ v: 2, records }))
    await connections.ask('KV/Put', { key: keys.page(bucketOf('localities', key)), value: page })
    const [part] = encodeParts([['localities', key, value]], 1000, true)
    await connections.ask('KV/Put', { key: keys.part('newer', 0), value: part! })
    await connections.ask('KV/Put', { key: keys.batch('newer'), value: encodeFacts({ parts: 1 }) })
    await withStore(opener(prefix), async (store) => {
      await store.load()
      await store.commit([{ kind: 'localities', key, value: { ...value!, incumbents: {} } }])
    })
    const kept = etcd.ctl(['get', keys.record('localities', key).toString(), '--print-value-only'])
    t.strictSame(JSON.parse(kept).record, { ...value, incumbents: {} })
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
  const page = (revision: number) => at(revision, encodePage(1, { x: 'page', y: 'page' }, true))
  const share = (revision: number) => ({
    revision,
    entries: [['settings', 'x', `batch${revision}`] as BatchEntry],
  })
  const single = (revision: number, kept: unknown = 'single') => at(revision, encodeRecord(kept))
  const xOf = (...args: Parameters<typeof mergeBucket> extends [unknown, ...infer Rest] ? Rest : never) =>
    mergeBucket(keys, ...args).records.x
  t.equal(xOf(page(5), [], []), 'page')
  t.equal(xOf(page(5), [share(7)], []), 'batch7')
  t.equal(xOf(page(5), [share(3)], []), 'page', 'which holds the older batch already')
  t.equal(xOf(page(5), [share(6), share(8)], []), 'batch8')
  t.equal(xOf(page(5), [share(7)], [single(6)]), 'batch7')
  t.equal(xOf(page(5), [share(7)], [single(8)]), 'single')
  t.equal(xOf(null, [share(7)], [single(8)]), 'single')
  t.equal(xOf(page(5), [share(7)], [single(8, null)]), undefined, 'it was removed')
  t.strictSame(mergeBucket(keys, page(5), [], [single(8)]).records, { x: 'single', y: 'page' })
  const newer = at(8, Buffer.from(JSON.stringify({ v: 2, record: 'newer' })))
  t.equal(mergeBucket(keys, page(5), [], [newer]).v, 2, 'and says whose newest is in it')
})

t.test('a page of localities is written in columns, with what a newer version knows of them', async (t) => {
  const keys = new EtcdKeys('/p/')
  const [first, second, third] = localities(0, 3).map(({ value }) => value as LocalityRecord)
  const at = (key: string, revision: number, value: Buffer): KeyValue => ({
    key: keys.record('localities', key),
    value,
    create_revision: revision,
    mod_revision: revision,
    version: 1,
  })
  const newer = { ...second!, colour: 'blue' }
  const records = { [first!.prefix]: first, [second!.prefix]: newer }
  const before = at('', 5, deflateRawSync(JSON.stringify({ v: 2, records })))
  const single = at(third!.prefix, 6, encodeRecord(third))
  const merged = mergeBucket(keys, before, [], [single])
  const written = encodePage(merged.v, merged.records, true)
  const page = decodePage(written)
  t.equal(page.v, 2)
  t.equal(page.localities?.size, 2)
  t.strictSame(page.records, { [second!.prefix]: newer })
  const all = { ...records, [third!.prefix]: third }
  t.strictSame(Object.fromEntries(recordsOf(page)), all)
  t.strictSame(Object.fromEntries(recordsOf(decodePage(encodePage(2, all, true)))), all, 'written again')
  const again = mergeBucket(keys, at('', 7, written), [], [at(first!.prefix, 8, encodeRecord(null))])
  t.strictSame(new Set(Object.keys(again.records)), new Set(Object.keys(all).slice(1)))
  const bytes = inflateRawSync(written)
  for (const [i, byte] of [
    [bytes.length - 1, null],
    [1, 0xff],
    [5, 0],
    [bytes.indexOf(Buffer.from('}')) + 1, 9],
  ] as const) {
    const damaged = byte === null ? bytes.subarray(0, i) : Buffer.from(bytes.with(i, byte))
    t.throws(() => decodePage(deflateRawSync(damaged)), { name: 'ValueError', isNewer: false })
  }
})

/** One in ten has no place in the columns. */
function localities(from: number, to: number, host = 'a'): (Change & { kind: 'localities' })[] {
  return LOCALITY_KEYS.slice(from, to).map((key, i) => {
    const hosts = i % 10 === 9 ? ['zürich'] : [host, 'b', 'c'].slice(0, 1 + (i % 3))
    const evidence = hosts.map((host, n) => ({
      host,
      rttMs: i + n / 7,
      count: n,
      atMs: i,
      kind: 'passive' as const,
    }))
    return { kind: 'localities', key, value: { prefix: key, evidence, incumbents: { web: host } } }
  })
}

function removed(from: number, to: number): Change[] {
  return LOCALITY_KEYS.slice(from, to).map((key) => ({ kind: 'localities', key, value: null }))
}

function isMisfit({ evidence }: LocalityRecord): boolean {
  return evidence[0]!.host === 'zürich'
}

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
