// Several cores over one store, without their doors: homes and hand-over, what is told and what is not, what a core
// does that is cut off, and what clocks may do. Time is the test's own; the store is one in memory.

import t from 'tap'
import { Problem } from '../../core-node/problem.ts'
import { ClusterFixture, turns } from '../support/cluster-fixture.ts'
import { ADMIN, peer } from '../support/core-fixture.ts'

const HERE = peer('127.0.0.1')
// Echoes are real, and wait where the machine is busy.
t.setTimeout(90_000)
const web = (name: string) => [{ service: 'web', name, port: 80, capacity: 100 }]
const all = (cluster: ClusterFixture, value: unknown) =>
  Object.fromEntries([...cluster.cores.keys()].map((name) => [name, value]))
const outcome = (work: Promise<unknown>) =>
  work.then(
    () => 'done',
    (error) => (error instanceof Problem ? error.code : String(error)),
  )

/** Cores a, b and c with the service web. */
async function three(): Promise<ClusterFixture> {
  const cluster = await ClusterFixture.open('a', 'b', 'c')
  await cluster.core('a').putService(ADMIN, 'web', { verify: 'none' })
  await turns()
  return cluster
}

t.test('cores that start over one store are members of `core`, and share secrets and all else', async (t) => {
  const cluster = await three()
  for (const name of ['a', 'b', 'c']) {
    const members = cluster.core(name).tables.service('core')!.members
    t.same(members.map((member) => `${member.name} ${member.state}`).sort(), ['a live', 'b live', 'c live'])
    t.match(cluster.core(name).status().cluster, { connected: true, lease: true, cores: ['a', 'b', 'c'] })
    t.same(cluster.core(name).cookieSecrets, cluster.core('a').cookieSecrets)
  }
  t.ok(await cluster.areEqualWithin(5000))
  await cluster.close()
})

t.test('a host is heard by its home alone; the others hear what changed', async (t) => {
  const cluster = await three()
  // Without an echo nothing is measured of it.
  const host = await cluster.host('h', 'a', web('m'), false)
  t.same(cluster.live(), all(cluster, ['m']))
  await cluster.run(2000)
  const records = () => [
    cluster.core('b').directory.hosts.get('h'),
    cluster.core('b').directory.members.get('web/m'),
  ]
  const before = records()
  await cluster.run(60_000)
  t.same(cluster.live(), all(cluster, ['m']))
  for (const [i, record] of records().entries()) t.equal(record, before[i], 'a quiet host is no news')
  host.load = 10
  await cluster.run(5000)
  host.load = 11
  await cluster.run(5000)
  const load = (name: string) => cluster.core(name).directory.members.get('web/m')!.load
  t.same(['a', 'b', 'c'].map(load), [10, 10, 10], 'what is not told is not answered with at home either')
  host.load = 14
  await cluster.run(5000)
  t.same(['a', 'b', 'c'].map(load), [14, 14, 14])
  t.ok(await cluster.areEqualWithin(5000), 'byte for byte, with all that is measured')
  await host.stop()
  await cluster.run(10_000)
  t.same(cluster.live(), all(cluster, []))
  const stamp = { presence: 'silent', presenceBy: 'a' }
  for (const name of ['a', 'b', 'c']) t.match(cluster.core(name).directory.hosts.get('h'), stamp)
  await cluster.close()
})

t.test(
  'a heartbeat at another core than the home is not known; to register there moves the home',
  async (t) => {
    const cluster = await three()
    const host = await cluster.host('h', 'a', web('m'))
    host.home = 'b'
    host.mayMove = false
    t.equal(await host.beat(), false)
    t.equal(cluster.core('a').directory.hosts.get('h')!.home, 'a')
    await host.register('b')
    await turns()
    t.same(
      ['a', 'b', 'c'].map((name) => cluster.core(name).directory.hosts.get('h')!.home),
      ['b', 'b', 'b'],
    )
    await cluster.run(30_000)
    t.same(cluster.live(), all(cluster, ['m']), 'its old home expects it no more')
    await cluster.close()
  },
)

t.test('a host that registers in the very turn in which it is given up is live', async (t) => {
  const cluster = await ClusterFixture.open('a')
  const { core, clock } = cluster.cores.get('a')!
  await core.putService(ADMIN, 'web', { verify: 'none' })
  const host = await cluster.host('h', 'a', web('m'), false)
  let given = 0
  for (let quietMs = 5000; given === 0 && quietMs <= 8000; quietMs += 250) {
    host.isDead = false
    await cluster.run(2500)
    host.isDead = true
    const before = core.counters.snapshot()['liveness.silent'] ?? 0
    await cluster.run(quietMs)
    if ((core.counters.snapshot()['liveness.silent'] ?? 0) > before) break
    // Both are decided in one group: registered, then silent.
    const registering = host.register('a')
    clock.move(250)
    core.tick()
    given += (core.counters.snapshot()['liveness.silent'] ?? 0) - before
    await registering
    await turns()
    t.same(cluster.live().a, ['m'], `after ${quietMs} ms`)
  }
  t.equal(given, 1, 'it was given up once in just that turn')
  await cluster.close()
})

t.test(
  'the hosts of a core that dies stay, register elsewhere, and only the dead among them leave',
  async (t) => {
    const cluster = await three()
    const alive = await cluster.host('alive', 'c', web('alive'))
    const deaf = await cluster.host('deaf', 'c', web('deaf'))
    const dead = await cluster.host('dead', 'c', web('dead'))
    const other = await cluster.host('other', 'a', web('other'))
    await cluster.run(12_000)
    deaf.mayMove = false
    await dead.stop()
    cluster.kill('c')
    await cluster.run(8000)
    t.same(cluster.live(), all(cluster, ['alive', 'dead', 'deaf', 'other']), 'through the hand-over')
    cluster.shared.endLease('c')
    await turns()
    const cores = (name: string) =>
      cluster
        .core(name)
        .tables.service('core')!
        .members.filter(({ state }) => state === 'live')
    t.same(
      ['a', 'b'].map((name) => cores(name).length),
      [2, 2],
      'the core itself leaves at once',
    )
    await cluster.run(6000)
    t.same(cluster.live(), all(cluster, ['alive', 'deaf', 'other']), 'within a lease of that')
    await cluster.run(120_000)
    t.same(cluster.live(), all(cluster, ['alive', 'deaf', 'other']), 'who answers echoes stays')
    t.not(alive.home, 'c')
    t.equal(other.home, 'a')
    await deaf.stop()
    await cluster.run(8000)
    t.same(cluster.live(), all(cluster, ['alive', 'other']))
    t.ok(await cluster.areEqualWithin(5000))
    await cluster.close()
  },
)

t.test('members without agent get a new home when theirs is gone', async (t) => {
  const cluster = await three()
  await cluster.core('c').putMember(ADMIN, 'web', 'bare', { addresses: ['192.0.2.1'], port: 80 }, HERE)
  await turns()
  const home = (name: string) => cluster.core(name).directory.hosts.get('bare.web')?.home
  t.same(['a', 'b'].map(home), ['c', 'c'])
  cluster.kill('c')
  cluster.shared.endLease('c')
  await cluster.run(2000)
  t.match(home('a'), /^[ab]$/)
  t.equal(home('b'), home('a'))
  await cluster.close()
})

t.test(
  'a core that is cut off answers on, judges its own hosts, and refuses what it may not decide',
  async (t) => {
    const cluster = await three()
    const alive = await cluster.host('alive', 'c', web('alive'))
    const dies = await cluster.host('dies', 'c', web('dies'))
    const moves = await cluster.host('moves', 'c', web('moves'))
    await cluster.run(4000)
    const { store } = cluster.cores.get('c')!
    store.cut()
    const c = cluster.core('c')
    t.equal(await outcome(c.putService(ADMIN, 'other', {})), 'unavailable')
    t.equal(await outcome(c.removeHost(ADMIN, 'alive')), 'unavailable')
    t.match(c.readiness(), { ready: true, degraded: [/store/] })
    await dies.stop()
    moves.mayMove = false
    moves.home = ''
    await moves.register('a')
    alive.mayMove = false
    await cluster.core('b').putService(ADMIN, 'meanwhile', {})
    await cluster.run(10_000)
    t.same(cluster.live().c, ['alive', 'moves'], 'who is dead is out; who answers echoes stays')
    t.same(cluster.live().a, ['alive', 'dies', 'moves'], 'its lease still lasts: its hosts stay')
    cluster.shared.endLease('c')
    await cluster.run(10_000)
    t.same(cluster.live().b, ['alive', 'moves'], 'judged by others, by echoes')
    t.match(c.status().cluster, { connected: false, behindSec: 20 })
    store.heal()
    await cluster.run(3000)
    t.same(cluster.live(), all(cluster, ['alive', 'moves']))
    t.equal(c.directory.hosts.get('moves')!.home, 'a')
    t.ok(c.directory.services.has('meanwhile'))
    t.match(c.readiness(), { ready: true, degraded: [] })
    t.ok(await cluster.areEqualWithin(2000), 'byte for byte')
    t.same(
      c.tables.service('core')!.members.map(({ state }) => state),
      ['live', 'live', 'live'],
    )
    await cluster.close()
  },
)

t.test(
  'what a cut-off core heard of a host counts no more where that has another home by then',
  async (t) => {
    const cluster = await three()
    const host = await cluster.host('h', 'a', web('m'))
    const health = (name: string) => cluster.core(name).directory.members.get('web/m')?.health
    host.health = 'up'
    await host.beat()
    await turns()
    cluster.cores.get('a')!.store.cut()
    host.health = 'down'
    await host.beat()
    t.equal(health('a'), 'down', 'it answers so')
    host.health = 'up'
    await host.register('b')
    await host.beat()
    // From now on all is as it said.
    host.health = null
    cluster.cores.get('a')!.store.heal()
    await cluster.run(3000)
    t.same(['a', 'b', 'c'].map(health), ['up', 'up', 'up'])
    t.ok(await cluster.areEqualWithin(5000))
    await cluster.close()
  },
)

t.test('a goodbye to a core that is cut off is none to the home that the host went to since', async (t) => {
  const cluster = await three()
  const host = await cluster.host('h', 'a', web('m'))
  cluster.cores.get('a')!.store.cut()
  await cluster.core('a').removeHost({ kind: 'host', host: 'h' }, 'h')
  t.same(cluster.live(), { a: [], b: ['m'], c: ['m'] })
  await host.register('b')
  cluster.cores.get('a')!.store.heal()
  await cluster.run(1000)
  t.same(cluster.live(), all(cluster, ['m']))
  await cluster.close()
})

t.test(
  'of two cores that give one name away, or take the last two admin tokens, one is refused',
  async (t) => {
    const cluster = await three()
    const [a, b] = [cluster.core('a'), cluster.core('b')]
    const named = await Promise.all([
      outcome(a.putService(ADMIN, 'one', { aliases: ['same'] })),
      outcome(b.putService(ADMIN, 'two', { aliases: ['same'] })),
    ])
    t.equal(named.filter((it) => it === 'conflict').length, 1)
    await turns()
    const [first, ...last] = [...a.directory.tokens.keys()]
    await a.revokeToken(ADMIN, first!)
    await turns()
    const revoked = [a.revokeToken(ADMIN, last[0]!), b.revokeToken(ADMIN, last[1]!)]
    t.same((await Promise.all(revoked.map(outcome))).sort(), ['conflict', 'done'])
    await turns()
    t.same([a.directory.tokens.size, b.directory.tokens.size], [1, 1])
    t.ok(await cluster.areEqualWithin(5000))
    await cluster.close()
  },
)

t.test(
  'cores that are all started anew serve whom they knew, and verify before they drop anyone',
  async (t) => {
    const cluster = await three()
    const hosts = [await cluster.host('x', 'a', web('x')), await cluster.host('y', 'c', web('y'))]
    const gone = await cluster.host('gone', 'b', web('gone'))
    await cluster.run(12_000)
    for (const host of [...hosts, gone]) host.isDead = true
    for (const name of ['a', 'b', 'c']) {
      cluster.kill(name)
      cluster.shared.endLease(name)
    }
    await gone.stop()
    await cluster.start('a')
    t.same(cluster.live(), all(cluster, ['gone', 'x', 'y']), 'from the first query on')
    await cluster.run(1000)
    await cluster.start('b')
    await cluster.start('c')
    for (const host of hosts) host.isDead = false
    await cluster.run(30_000)
    t.same(cluster.live(), all(cluster, ['x', 'y']))
    await cluster.close()
  },
)

t.test('a core that stops tells its hosts to move, and leaves when they have', async (t) => {
  const cluster = await three()
  const host = await cluster.host('h', 'c', web('m'))
  await cluster.run(2000)
  const { core, close } = cluster.cores.get('c')!
  const moved = core.handOver()
  await turns()
  t.equal(core.readiness().ready, false)
  const states = (name: string) =>
    cluster
      .core(name)
      .tables.service('core')!
      .members.map((member) => `${member.name} ${member.state}`)
  t.same(states('a').sort(), ['a live', 'b live', 'c left'])
  t.equal(await outcome(host.register('c')), 'unavailable')
  await cluster.run(2250)
  t.not(host.home, 'c')
  await moved
  cluster.cores.delete('c')
  await close()
  await cluster.run(20_000)
  t.same(cluster.live(), all(cluster, ['m']))
  t.same(cluster.core('a').status().cluster?.cores, ['a', 'b'])
  await cluster.close()
})

t.test('a clock that jumps by years kills nobody, and takes nobody’s cookie away', async (t) => {
  const cluster = await three()
  await cluster.host('h', 'a', web('m'))
  const silent = await cluster.host('silent', 'a', web('silent'))
  await silent.stop()
  await cluster.run(12_000)
  const years = 10 * 365 * 24 * 3600_000
  const secrets = cluster.core('a').cookieSecrets
  for (const jumpMs of [years, -years]) {
    cluster.cores.get('a')!.clock.jumpedMs = jumpMs
    await cluster.run(61_000)
    t.same(cluster.live(), all(cluster, ['m']))
    t.match(cluster.core('a').readiness().degraded, [/clock/])
    t.ok(cluster.core('b').directory.hosts.has('silent'), 'nor is anyone forgotten')
    t.same(cluster.core('b').cookieSecrets, secrets)
  }
  await cluster.close()
})

t.test('cookie secrets are rolled once a day among all cores', async (t) => {
  const cluster = await three()
  const [first] = cluster.core('a').cookieSecrets
  for (const { clock } of cluster.cores.values()) clock.move(24 * 3600_000)
  await cluster.run(61_000)
  const [second, before] = cluster.core('b').cookieSecrets
  t.notSame(second, first)
  t.same(before, first)
  await cluster.run(120_000)
  t.same(cluster.core('c').cookieSecrets, [second, before])
  await cluster.close()
})

t.test('a follower answers as the others do, and writes nothing', async (t) => {
  const cluster = await three()
  const host = await cluster.host('h', 'a', web('m'))
  const follower = await cluster.start('far', { follow: 'on' })
  const revision = cluster.shared.revision
  t.same(cluster.live().far, ['m'])
  t.equal(await outcome(follower.core.putService(ADMIN, 'other', {})), 'unavailable')
  t.equal(await outcome(host.register('far')), 'unavailable')
  t.equal(cluster.shared.revision, revision)
  await host.register('a')
  await cluster.core('b').setDrained(ADMIN, 'web', 'm', true)
  await cluster.run(3000)
  t.same(cluster.live(), all(cluster, []))
  t.ok(await cluster.areEqualWithin(5000))
  t.match(follower.core.readiness(), { ready: true, degraded: [] })
  t.same(follower.core.status().cluster?.cores, ['a', 'b', 'c'])
  follower.store.cut()
  const goodbye = follower.core.removeHost({ kind: 'host', host: 'h' }, 'h')
  t.equal(await outcome(goodbye), 'unavailable', 'nor to its own memory, where it is cut off')
  t.ok(follower.core.directory.hosts.has('h'))
  await cluster.close()
})

t.test('thousands that register at once, at all cores, are everywhere soon', async (t) => {
  const cluster = await three()
  const count = 10_000
  const cores = [...cluster.cores.values()].map(({ core }) => core)
  const joins = Array.from({ length: count }, (_, i) => {
    const request = { addresses: [`198.18.${i >> 8}.${i & 255}`], members: web(`m${i}`) }
    return cores[i % 3]!.putHost(ADMIN, `h${i}`, request, HERE)
  })
  await Promise.all(joins)
  await turns(200)
  for (const core of cores) t.equal(core.tables.service('web')!.members.length, count)
  t.equal(new Set(cluster.dumps(true)).size, 1)
  await cluster.close()
})
