// The store in etcd where servers die, hang or forget, connections break under a commit, and processes are killed.
//
// Real servers and processes; each test has an installation of its own in them. What is waited for is told, never a time.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import t from 'tap'
import { openEtcd } from '../../db/etcd.ts'
import { StoreError } from '../../db/store.ts'
import type { Directory } from '../../resolver/directory.ts'
import { EtcdServers, noEtcd } from '../support/etcd-servers.ts'
import { type BreakPoint, TcpRelay } from '../support/tcp-relay.ts'
import { Follower, type OpenShared, settings, sorted, withCores } from './cluster-suite.ts'
import { setting, withStore } from './store-suite.ts'

const ETCD_MODULE = join(import.meta.dirname, '../../db/etcd.ts')

let installations = 0
const newPrefix = () => `/nearcast-${installations++}/`

function opener(endpoints: readonly string[], prefix = newPrefix()): OpenShared {
  return ({ readOnly = false } = {}) => openEtcd({ endpoints, prefix, tls: null, user: null, readOnly })
}

/** Runs `work` with a store in another process; `say` writes a line. */
function inChild(endpoints: readonly string[], prefix: string, work: string): ChildProcess {
  const options = JSON.stringify({ endpoints, prefix, tls: null, user: null })
  const program = `
    import { writeSync } from 'node:fs'
    import { openEtcd } from ${JSON.stringify(ETCD_MODULE)}
    const say = (text) => writeSync(1, text + '\\n')
    const store = await openEtcd(${options})
    ${work}`
  return spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
}

/** Waits for so many lines, then kills it with -9: the last line. */
async function killAfter(child: ChildProcess, lines: number): Promise<string> {
  let text = ''
  child.stdout!.setEncoding('utf8')
  child.stdout!.on('data', (part: string) => {
    text += part
    if (text.split('\n').length > lines) child.kill('SIGKILL')
  })
  await once(child, 'close')
  return text.trimEnd().split('\n').at(-1)!
}

/** Counts a setting up, again and again, until `done`; how often that was acknowledged. */
async function countUp(core: Follower, name: string, done: () => boolean): Promise<number> {
  let acknowledged = 0
  while (!done()) {
    try {
      await core.decide((now) => [setting(name, String(Number(now.settings.get(name) ?? '0') + 1))])
      acknowledged++
    } catch (error) {
      // Refused, so not made; or a decision that can't be made anew now.
      if (!(error instanceof StoreError) || error.code !== 'unavailable') throw error
    }
  }
  return acknowledged
}

const countOf = ({ settings: kept }: Directory, name: string) => Number(kept.get(name))

// Much of it is waiting: for a lease to end, for a server that hangs to be given up.
t.jobs = 2

t.test('one etcd', { skip: noEtcd(), buffered: true }, async (t) => {
  const etcd = await EtcdServers.start({ count: 1 })
  const [direct] = etcd.endpoints
  t.teardown(() => etcd.close())

  for (const at of ['question', 'answer'] satisfies BreakPoint[]) {
    t.test(`a commit is made once, and said to be, where the connection breaks at the ${at}`, async (t) => {
      const relay = await TcpRelay.open(direct!)
      await withCores(opener([relay.endpoint]), 1, async (core) => {
        for (let n = 1; n <= 3; n++) {
          relay.breakOff(`"record":"${n}"`, at)
          await core!.commit([setting('n', String(n)), ...settings(n === 3 ? 300 : 1, 's', 'x')])
          t.notOk(relay.isSet, 'it was broken off')
          t.equal(countOf(await core!.store.load(), 'n'), n)
        }
      })
      relay.close()
    })
  }

  t.test('a commit that can’t be sent is refused; what was, waits until it is known', async (t) => {
    const relay = await TcpRelay.open(direct!)
    await withCores(opener([relay.endpoint]), 1, async (core) => {
      await core!.commit([setting('n', '0')])
      relay.mode = 'swallow'
      const committed = core!.commit([setting('n', '1')])
      await core!.until('it says that it does not know', () => core!.trouble !== null)
      relay.mode = 'refuse'
      await t.rejects(core!.cluster.caughtUp(), { code: 'unavailable' })
      relay.mode = 'open'
      await committed
      await core!.until('all is well again', () => core!.trouble === null)
      t.equal(countOf(await core!.store.load(), 'n'), 1)
      relay.mode = 'refuse'
      await core!.until('etcd is gone again', () => core!.trouble !== null)
      await t.rejects(core!.commit([setting('n', '2')]), { code: 'unavailable', message: /can be reached/ })
      relay.mode = 'open'
      await core!.until('all is well once more', () => core!.trouble === null)
      t.equal(countOf(await core!.store.load(), 'n'), 1)
    })
    relay.close()
  })

  t.test('who missed more than etcd still tells is told the difference, as one commit', async (t) => {
    const relay = await TcpRelay.open(direct!)
    const prefix = newPrefix()
    const cut = await Follower.open(opener([relay.endpoint], prefix))
    await withCores(opener([direct!], prefix), 1, async (other) => {
      await other!.commit([...settings(50, 'a', '1'), ...settings(50, 'b', '1')])
      await cut.cluster.caughtUp()
      const before = cut.told.length
      relay.mode = 'refuse'
      await cut.until('it knows that it is cut off', () => cut.trouble !== null)
      for (let i = 0; i < 5; i++) await other!.commit(settings(20, 'a', `new${i}-`))
      await other!.commit([setting('b0', null), setting('b1', null), setting('c', '1')])
      const [{ Status }] = JSON.parse(etcd.ctl(['endpoint', 'status', '--write-out=json']))
      etcd.ctl(['compact', String(Status.header.revision)])
      relay.mode = 'open'
      await cut.until('it was told', () => cut.trouble === null)
      t.equal(cut.told.length, before + 1)
      t.equal(cut.told.at(-1)!.changes.length, 20 + 2 + 1)
      t.strictSame(sorted(cut.directory), sorted(other!.directory))
      await other!.commit([setting('c', '2')])
      await cut.cluster.caughtUp()
      t.equal(countOf(cut.directory, 'c'), 2, 'and goes on from there')
    })
    await cut.store.close()
    relay.close()
  })

  t.test('a commit that was made unseen, and then compacted away, is its maker’s own still', async (t) => {
    const relay = await TcpRelay.open(direct!)
    const prefix = newPrefix()
    const core = await Follower.open(opener([relay.endpoint], prefix))
    await withCores(opener([direct!], prefix), 1, async (other) => {
      relay.breakOff('mine', 'by-hand')
      const committed = core.commit([setting('n', 'mine')])
      await other!.until('it was made', () => other!.told.length > 0)
      relay.mode = 'refuse'
      await other!.commit([setting('n', 'theirs'), setting('m', 'theirs')])
      const [{ Status }] = JSON.parse(etcd.ctl(['endpoint', 'status', '--write-out=json']))
      etcd.ctl(['compact', String(Status.header.revision)])
      relay.mode = 'open'
      await committed
      await core.until('it was told what came after', () => core.trouble === null)
      t.strictSame(core.directory.settings, other!.directory.settings)
    })
    await core.store.close()
    relay.close()
  })

  t.test('a lease that was lost is held anew, and all are told of both', async (t) => {
    const open = opener([direct!])
    await withCores(open, 2, async (a, b) => {
      await a!.cluster.announce('core-a')
      await b!.until('it is there', () => b!.cores.length === 1)
      const leases = JSON.parse(etcd.ctl(['lease', 'list', '--write-out=json'])).leases
      for (const { id } of leases) etcd.ctl(['lease', 'revoke', BigInt(id).toString(16)])
      await b!.until('it went', () => b!.cores.length === 0)
      await b!.until('it is there again', () => b!.cores.length === 1)
      t.strictSame(b!.cores, ['core-a'])
    })
  })

  t.test('a core that is killed is told to be gone', async (t) => {
    const prefix = newPrefix()
    await withCores(opener([direct!], prefix), 1, async (core) => {
      await core!.cluster.announce('core-a')
      const work = `await store.load(); await store.cluster.announce('core-b'); say('held'); setInterval(() => {}, 1000)`
      await killAfter(inChild([direct!], prefix, work), 1)
      t.strictSame(await core!.cluster.cores(), ['core-a', 'core-b'])
      await core!.until('its lease ended', () => core!.cores.length === 1)
      t.strictSame(core!.cores, ['core-a'])
    })
  })

  t.test('a large commit of a process that was killed is there whole or not at all', async (t) => {
    const prefix = newPrefix()
    const open = opener([direct!], prefix)
    const many = 4000
    for (const lines of [1, 3]) {
      const work = `
        for (let n = Number((await store.load()).settings.get('s0') ?? 0) + 1; ; n++) {
          const commit = store.commit(Array.from({ length: ${many} }, (_, i) => (
            { kind: 'settings', key: 's' + i, value: String(n) })))
          say(n - 1)
          await commit
        }`
      const acknowledged = Number(await killAfter(inChild([direct!], prefix, work), lines))
      const { settings: kept } = await withStore(open, (store) => store.load())
      const value = Number(kept.get('s0') ?? '0')
      t.ok(value >= acknowledged, `${acknowledged} was acknowledged, ${value} is kept`)
      t.equal(kept.size, value === 0 ? 0 : many)
      t.strictSame(new Set(kept.values()), new Set(value === 0 ? [] : [String(value)]))
    }
    // Whoever commits next is not held up for longer than the gate's lease.
    await withStore(open, async (store) => {
      await store.load()
      await store.commit([setting('s0', 'after')])
    })
  })
})

t.test('three servers', { skip: noEtcd(), buffered: true }, async (t) => {
  const etcd = await EtcdServers.start()
  t.teardown(() => etcd.close())

  t.test(
    'servers killed or hanging, one after another: nothing acknowledged is lost or made twice',
    async (t) => {
      const prefix = newPrefix()
      // Each core asks another server first.
      const openers = [0, 1, 2].map((i) =>
        opener([...etcd.endpoints.slice(i), ...etcd.endpoints.slice(0, i)], prefix),
      )
      const cores = await Promise.all(openers.map((open) => Follower.open(open)))
      let isOver = false
      const work = cores.flatMap((core, i) => [
        countUp(core, 'all', () => isOver),
        countUp(core, `own${i}`, () => isOver),
      ])
      for (let i = 0; i < 3; i++) {
        const rounds = cores.map(({ told }) => told.length)
        const goesOn = (core: Follower, n: number) => core.told.length > rounds[n]! + 10
        if (i === 1) etcd.stop(i)
        else await etcd.kill(i)
        await Promise.all(cores.map((core, n) => core.until('it goes on', () => goesOn(core, n))))
        if (i === 1) etcd.continue(i)
        else await etcd.restart(i)
      }
      isOver = true
      const counts = await Promise.all(work)
      for (const core of cores) await core.until('all is well', () => core.trouble === null)
      await Promise.all(cores.map(({ cluster }) => cluster.caughtUp()))
      const kept = await cores[0]!.store.load()
      for (const core of cores) t.strictSame(sorted(core.directory), sorted(kept))
      t.equal(countOf(kept, 'all'), counts[0]! + counts[2]! + counts[4]!)
      for (const i of [0, 1, 2]) t.equal(countOf(kept, `own${i}`), counts[2 * i + 1], `own${i}`)
      await Promise.all(cores.map(({ store }) => store.close()))
    },
  )

  t.test('without a majority it says so and refuses; with one it is told all it missed', async (t) => {
    const prefix = newPrefix()
    const leader = etcd.leader()
    const others = [0, 1, 2].filter((i) => i !== leader)
    const alone = await Follower.open(opener([etcd.endpoints[leader]!], prefix))
    await alone.commit([setting('n', '0')])
    for (const i of others) etcd.stop(i)
    await alone.until('it says so', () => alone.trouble !== null)
    const refused = await alone.commit([setting('n', '1')]).then(
      () => 'made',
      (error: StoreError) => error.code,
    )
    t.equal(refused, 'unavailable')
    for (const i of others) etcd.continue(i)
    await alone.until('all is well', () => alone.trouble === null)
    await alone.decide(() => [setting('n', '2')])
    t.equal(countOf(await alone.store.load(), 'n'), 2)
    await alone.store.close()
  })
})
