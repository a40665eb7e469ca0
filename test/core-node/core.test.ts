// The core as a whole, without its doors: what it remembers, whom it believes, and what it goes on
// doing when its store does not.

import { createSocket } from 'node:dgram'
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { pino } from 'pino'
import t from 'tap'
import { AddressProofs } from '../../core-node/address-proofs.ts'
import { openCore } from '../../core-node/main.ts'
import { Problem } from '../../core-node/problem.ts'
import { hashSecret } from '../../core-node/registry/credentials.ts'
import { openMemory } from '../../db/memory.ts'
import { type Store, StoreError } from '../../db/store.ts'
import { parseAddress, parsePrefix } from '../../resolver/address.ts'
import { emptyDirectory } from '../../resolver/directory.ts'
import type { DnsFacts } from '../../resolver/dns-answer.ts'
import { DemandCounts, isDemandProven } from '../../resolver/dns-demand.ts'
import { openEcho } from '../../server-agent/protocol/echo-socket.ts'
import type { OrderResult } from '../../server-agent/protocol/messages.ts'
import { readPulseReply, writePulse } from '../../server-agent/protocol/pulse.ts'
import { ADMIN, type CoreFixture, openCoreFixture, peer, testConfig } from '../support/core-fixture.ts'
import { aHost } from '../support/records.ts'

const HERE = peer('127.0.0.1')

/** A host that joined, by its credential, with one member of `mirror`. */
async function join1(fixture: CoreFixture, name: string, request: object = {}): Promise<string> {
  const { core, config } = fixture
  const admin = core.authenticate(readFileSync(join(config.data, 'admin-token'), 'utf8').trim())
  const { credential } = await core.putHost(admin, name, { addresses: ['127.0.0.1'], ...request }, HERE)
  const caller = core.authenticate(credential!)
  await core.putMember(caller, 'mirror', name, { port: 80 }, HERE)
  return credential!
}

const beat = (host: string, credential: string, more: { members?: object[]; results?: OrderResult[] } = {}) =>
  ({ beats: [{ host, credential, ...more }] }) as Parameters<CoreFixture['core']['heartbeat']>[0]
const state = ({ core }: CoreFixture, name: string) => core.tables.member('mirror', name)?.state

/** A store whose disk can be full for a while. */
function fullableStore(): { store: Store; disk: { full: boolean } } {
  const memory = openMemory()
  const disk = { full: false }
  const full = () => Promise.reject(new StoreError('unavailable', 'disk full'))
  const commit: Store['commit'] = (changes) => (disk.full ? full() : memory.commit(changes))
  return { store: { ...memory, commit }, disk }
}

async function withMirror(fixture: CoreFixture): Promise<CoreFixture> {
  await fixture.core.putService(ADMIN, 'mirror', {})
  return fixture
}

t.test('the admin token is made once, kept in a file for its owner only, and stored as a hash', async (t) => {
  const config = testConfig()
  const store = openMemory()
  const first = await openCoreFixture({ config, store })
  const file = join(config.data, 'admin-token')
  const secret = readFileSync(file, 'utf8').trim()
  t.equal(statSync(file).mode & 0o777, 0o600)
  t.match(first.core.authenticate(secret), { kind: 'admin' })
  t.same(
    [...first.core.directory.tokens.values()].map((token) => token.hash),
    [hashSecret(secret)],
  )
  await first.close()
  const second = await openCoreFixture({ config, store })
  t.equal(readFileSync(file, 'utf8').trim(), secret)
  t.equal(second.core.directory.tokens.size, 1)
  await second.close()
})

t.test('a core is a member of its own service core from the first moment', async (t) => {
  const fixture = await openCoreFixture()
  t.match(fixture.core.tables.service('core')?.members, [{ name: 'core1', state: 'live' }])
  await fixture.close()
  const flags = { http: '127.0.0.1:9', advertise: '192.0.2.1' }
  for (const [more, url] of [
    [{}, 'http://192.0.2.1:9/'],
    [{ httpUrl: 'https://one.example' }, 'https://one.example/'],
  ] as const) {
    const named = await openCoreFixture({ flags: { ...flags, ...more } })
    t.match(named.core.tables.service('core')?.members, [{ url }], 'where others are told to find it')
    await named.close()
  }
})

t.test('a join can be repeated until its host showed what came with it, by a pulse too', async (t) => {
  const fixture = await withMirror(await openCoreFixture())
  const { core } = fixture
  const { secret } = await core.createToken(ADMIN, { services: ['mirror'] })
  const token = core.authenticate(secret)
  const join = () => core.putHost(token, 'a', { addresses: ['127.0.0.1'] }, HERE)
  const say = (echoKey: string, session: Uint8Array) => {
    const key = Buffer.from(echoKey, 'hex')
    const pulse = writePulse({ host: 'a', session, counter: 1 }, key)
    return readPulseReply(core.hearPulse(pulse) as Uint8Array, pulse, key)!
  }
  const { session } = say((await join()).echoKey, new Uint8Array(8))
  const second = await join()
  t.match(second, { credential: /^nch_/ }, 'what renews nothing may be old, and shows nothing')
  t.match(say(second.echoKey, session), { status: 'ok' })
  await t.rejects(join(), { code: 'conflict' })
  await fixture.close()
})

t.test(
  'a host that is heard while it is being given up stays, and is given up when it is not heard again',
  async (t) => {
    const memory = openMemory()
    let release: (() => void) | null = null
    let isSlow = false
    const commit: Store['commit'] = async (changes) => {
      if (isSlow) await new Promise<void>((resolve) => (release = resolve))
      return memory.commit(changes)
    }
    const fixture = await withMirror(await openCoreFixture({ store: { ...memory, commit } }))
    const a = await join1(fixture, 'a')
    await fixture.run(1000)
    isSlow = true
    while (release === null) await fixture.run(250)
    isSlow = false
    const beaten = fixture.core.heartbeat(beat('a', a))
    ;(release as () => void)()
    t.match(await beaten, { beats: [{ status: 'ok' }] })
    await fixture.core.putService(ADMIN, 'after-all-that', {})
    t.equal(state(fixture, 'a'), 'live')
    await fixture.run(10_000)
    t.equal(state(fixture, 'a'), 'silent')
    await fixture.close()
  },
)

t.test(
  'a trial of addresses out of its turn puts off no other, and what was not tried shows nothing',
  async (t) => {
    const host = aHost('a', { addresses: ['192.0.2.1'], proofs: {}, echo: { address: '192.0.2.1', port: 7 } })
    const directory = emptyDirectory()
    directory.hosts.set('a', host)
    let tries = 0
    let writes = 0
    const proofs = new AddressProofs({
      directory,
      reach: async () => ++tries < 0,
      write: async () => void writes++,
    })
    proofs.expect(host, 0)
    for (let i = 0; i < 5; i++) await proofs.prove('a', i)
    for (const [atMs, nextMs] of [
      [250, 10_250],
      [10_250, 30_250],
      [30_250, 70_250],
    ] as const) {
      t.same(proofs.due(atMs), ['a'])
      await proofs.prove('a', atMs)
      t.same(proofs.due(nextMs - 1), [], 'in its turn less and less often')
    }
    for (let i = 0; i < 100; i++) await proofs.prove('a', 60_000)
    t.ok(tries < 100)
    t.equal(writes, tries, 'what was not tried is not told')
  },
)

t.test('an address that was not proven is tried again by a core that starts again', async (t) => {
  const store = openMemory()
  const before = await withMirror(await openCoreFixture({ store }))
  let key: Uint8Array | null = null
  const echo = await openEcho({ host: '127.0.0.1', port: 0, key: () => key })
  const { secret } = await before.core.createToken(ADMIN, { services: ['mirror'] })
  const reply = await before.core.putHost(
    before.core.authenticate(secret),
    'a',
    { addresses: ['127.0.0.1'], echo: { port: echo.port }, leaseSec: 300 },
    HERE,
  )
  await before.core.putMember(before.core.authenticate(reply.credential!), 'mirror', 'a', {}, HERE)
  t.equal(state(before, 'a'), 'unverified')
  await before.close()
  key = Buffer.from(reply.echoKey, 'hex')
  const after = await openCoreFixture({ store, clock: before.clock })
  for (let i = 0; i < 400 && state(after, 'a') !== 'live'; i++) {
    await after.run(250)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  t.equal(state(after, 'a'), 'live', 'without a word of it')
  await after.close()
  await echo.close()
})

t.test(
  'a core that starts again serves whom it knew, and drops in time who does not come back',
  async (t) => {
    const store = openMemory()
    const before = await withMirror(await openCoreFixture({ store }))
    const a = await join1(before, 'a')
    await join1(before, 'b')
    await before.close()

    const after = await openCoreFixture({ store, clock: before.clock })
    t.equal(state(after, 'a'), 'live', 'at once')
    t.equal(state(after, 'b'), 'live', 'also who was not heard yet')
    for (let i = 0; i < 5; i++) {
      t.match(await after.core.heartbeat(beat('a', a)), { beats: [{ status: 'ok' }] })
      await after.run(2000)
    }
    t.equal(state(after, 'a'), 'live')
    t.equal(state(after, 'b'), 'silent')
    t.equal(after.core.tables.member('mirror', 'b')?.hostName, 'b', 'known, though dead')
    await after.close()
  },
)

t.test('a silent host that is heard again is live at once', async (t) => {
  const fixture = await withMirror(await openCoreFixture())
  const credential = await join1(fixture, 'a')
  await fixture.run(10_000)
  t.equal(state(fixture, 'a'), 'silent')
  await fixture.core.heartbeat(beat('a', credential))
  t.equal(state(fixture, 'a'), 'live')
  await fixture.close()
})

t.test('a host that joins and leaves by one commit is not waited for', async (t) => {
  const fixture = await withMirror(await openCoreFixture())
  const { core } = fixture
  const credential = await join1(fixture, 'a')
  const caller = core.authenticate(credential)
  await Promise.all([
    core.putHost(caller, 'a', { addresses: ['127.0.0.1'], leaseSec: 9 }, HERE),
    core.removeHost(caller, 'a'),
  ])
  await fixture.run(20_000)
  t.equal(core.status().counters['liveness.ask'], undefined)
  await fixture.close()
})

t.test(
  'a goodbye is in the tables when it is acknowledged, and its credential must register again',
  async (t) => {
    const fixture = await withMirror(await openCoreFixture())
    const credential = await join1(fixture, 'a')
    await fixture.core.removeHost(fixture.core.authenticate(credential), 'a')
    t.equal(state(fixture, 'a'), 'left')
    t.match(await fixture.core.heartbeat(beat('a', credential)), { beats: [{ status: 'unknown' }] })
    await fixture.close()
  },
)

t.test('a heartbeat with a wrong credential changes nothing and is counted', async (t) => {
  const fixture = await withMirror(await openCoreFixture())
  const a = await join1(fixture, 'a')
  await join1(fixture, 'b')
  const lie = { members: [{ service: 'mirror', name: 'b', health: 'down' }] }
  t.match(await fixture.core.heartbeat(beat('b', a, lie)), { beats: [{ status: 'unknown' }] })
  t.match(await fixture.core.heartbeat(beat('a', a, lie)), { beats: [{ status: 'ok' }] })
  t.equal(state(fixture, 'b'), 'live', 'nor does a host’s word about another’s member')
  t.match(fixture.core.status().counters, { 'heartbeats.unknown': 1 })
  await fixture.close()
})

t.test('a health flip is stored and answered with; a load is answered with', async (t) => {
  const fixture = await withMirror(await openCoreFixture())
  const a = await join1(fixture, 'a')
  await fixture.core.heartbeat(
    beat('a', a, { members: [{ service: 'mirror', name: 'a', health: 'down', load: 0.5 }] }),
  )
  t.equal(state(fixture, 'a'), 'down')
  t.equal(fixture.core.tables.member('mirror', 'a')?.load, 0.5)
  t.equal((await fixture.store.load()).members.get('mirror/a')?.health, 'down')
  await fixture.close()
})

t.test('an address is proven by the echo behind it, and served only then', async (t) => {
  const fixture = await withMirror(await openCoreFixture())
  const { core } = fixture
  const { secret } = await core.createToken(ADMIN, { services: ['mirror'] })
  let key: Uint8Array | null = null
  const echo = await openEcho({ host: '127.0.0.1', port: 0, key: () => key })
  const request = { addresses: ['127.0.0.1'], echo: { port: echo.port } }
  const reply = await core.putHost(core.authenticate(secret), 'a', request, HERE)
  t.match(reply, { reachable: null, proofs: { '127.0.0.1': 'seen' } })
  const caller = core.authenticate(reply.credential!)
  t.match(await core.putMember(caller, 'mirror', 'a', {}, HERE), { state: 'unverified', hint: /echo/ })
  key = Buffer.from(reply.echoKey, 'hex')
  t.match(await core.putMember(caller, 'mirror', 'a', {}, HERE), { state: 'live' })
  t.match(await core.putHost(caller, 'a', request, HERE), {
    reachable: true,
    proofs: { '127.0.0.1': 'echo' },
  })
  t.equal(state(fixture, 'a'), 'live')
  await echo.close()
  await fixture.close()
})

t.test('an address is proven though its echo takes longer than half of the time there is', async (t) => {
  const { core, close } = await openCoreFixture()
  await core.putService(ADMIN, 'mirror', {})
  const { secret } = await core.createToken(ADMIN, { services: ['mirror'] })
  let key: Uint8Array | null = null
  const echo = await openEcho({ host: '127.0.0.1', port: 0, key: () => key })
  // Far away: what the core sends takes 450 ms.
  const far = createSocket('udp4')
  const onTheirWay: NodeJS.Timeout[] = []
  let corePort = 0
  far.on('message', (packet, from) => {
    if (from.port === echo.port) return far.send(packet, corePort, '127.0.0.1')
    corePort = from.port
    onTheirWay.push(setTimeout(() => far.send(packet, echo.port, '127.0.0.1'), 450))
  })
  await new Promise<void>((resolve) => far.bind(0, '127.0.0.1', resolve))
  const request = { addresses: ['127.0.0.1'], echo: { port: far.address().port } }
  const reply = await core.putHost(core.authenticate(secret), 'a', request, HERE)
  key = Buffer.from(reply.echoKey, 'hex')
  t.match(await core.putMember(core.authenticate(reply.credential!), 'mirror', 'a', {}, HERE), {
    state: 'live',
  })
  for (const packet of onTheirWay) clearTimeout(packet)
  await Promise.all([new Promise<void>((resolve) => far.close(() => resolve())), echo.close(), close()])
})

t.test('a host that is not heard but whose echo answers is kept at first', async (t) => {
  const fixture = await withMirror(await openCoreFixture())
  let key: Uint8Array | null = null
  const echo = await openEcho({ host: '127.0.0.1', port: 0, key: () => key })
  const { core } = fixture
  const reply = await core.putHost(ADMIN, 'a', { addresses: ['127.0.0.1'], echo: { port: echo.port } }, HERE)
  key = Buffer.from(reply.echoKey, 'hex')
  await core.putMember(ADMIN, 'mirror', 'a', { host: 'a' }, HERE)
  for (let i = 0; i < 60; i++) {
    await fixture.run(250)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  t.equal(state(fixture, 'a'), 'live', '15 s without a heartbeat')
  await echo.close()
  await fixture.close()
})

t.test('a result that was not ordered, or makes no sense, moves nothing and is counted', async (t) => {
  const fixture = await withMirror(await openCoreFixture())
  const a = await join1(fixture, 'a')
  const results = [{ id: 'made-up', rttsMs: [1], sent: 1 }]
  await fixture.core.heartbeat(beat('a', a, { results }))
  t.match(fixture.core.status().counters, { 'results.unasked': 1 })
  t.equal(fixture.core.directory.hosts.get('a')?.coordinate, null)
  await fixture.close()
})

t.test('members without agent are checked by the core where there is nobody else', async (t) => {
  const fixture = await withMirror(await openCoreFixture())
  await fixture.core.putMember(ADMIN, 'mirror', 'old', { addresses: ['127.0.0.1'], port: 9 }, HERE)
  t.equal(state(fixture, 'old'), 'live', 'until a check says otherwise')
  for (let i = 0; i < 24; i++) {
    await fixture.run(250)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  t.equal(state(fixture, 'old'), 'down', 'nothing listens on port 9')
  await fixture.close()
})

t.test('when the store takes no changes they are refused, answers go on, and status says so', async (t) => {
  const { store, disk } = fullableStore()
  const fixture = await withMirror(await openCoreFixture({ store }))
  const a = await join1(fixture, 'a')
  disk.full = true
  await t.rejects(fixture.core.putService(ADMIN, 'game', {}), { code: 'unavailable' })
  t.equal(fixture.core.tables.service('game'), null)
  t.equal(state(fixture, 'a'), 'live')
  t.match(await fixture.core.heartbeat(beat('a', a)), { beats: [{ status: 'ok' }] }, 'leases go on')
  t.match(fixture.core.status(), { ready: true, degraded: [/disk full/] })
  disk.full = false
  await t.rejects(
    fixture.core.putService(ADMIN, 'game', {}),
    { code: 'unavailable' },
    'not tried for a second',
  )
  await fixture.run(1000)
  await fixture.core.putService(ADMIN, 'game', {})
  t.same(fixture.core.status().degraded, [])
  await fixture.close()
})

t.test(
  'a hundred registrations of one name at once end in one host and one credential that works',
  async (t) => {
    const fixture = await withMirror(await openCoreFixture())
    const { secret } = await fixture.core.createToken(ADMIN, { services: ['mirror'] })
    const caller = fixture.core.authenticate(secret)
    const replies = await Promise.allSettled(
      Array.from({ length: 100 }, () =>
        fixture.core.putHost(caller, 'a', { addresses: ['127.0.0.1'] }, HERE),
      ),
    )
    const joined = replies.filter((reply) => reply.status === 'fulfilled')
    t.equal(joined.length, 1)
    t.ok(replies.every((reply) => reply.status === 'fulfilled' || reply.reason instanceof Problem))
    t.same(fixture.core.authenticate(joined[0]!.value.credential!), { kind: 'host', host: 'a' })
    await fixture.close()
  },
)

t.test('a client with a ticket may report RTTs; without one, or from elsewhere, it may not', async (t) => {
  const fixture = await withMirror(await openCoreFixture())
  await join1(fixture, 'a')
  const client = peer('185.0.0.7')
  const ticket = fixture.core.ticketFor(client.address)
  const rtts = [{ member: 'a', rttMs: 12 }]
  const anonymous = fixture.core.authenticate(null)
  t.throws(() => fixture.core.measure(anonymous, { service: 'mirror', rtts }, client), {
    code: 'unauthorized',
  })
  t.throws(() => fixture.core.measure(anonymous, { ticket, service: 'mirror', rtts }, peer('203.0.113.1')), {
    code: 'forbidden',
  })
  t.same(fixture.core.measure(anonymous, { ticket, service: 'mirror', rtts }, client), {
    accepted: 1,
    refused: 0,
  })
  const absurd = [
    { member: 'a', rttMs: -1 },
    { member: 'a', rttMs: 1e9 },
    { member: 'nobody', rttMs: 5 },
  ]
  t.same(fixture.core.measure(anonymous, { ticket, service: 'mirror', rtts: absurd }, client), {
    accepted: 0,
    refused: 3,
  })
  t.ok(parseAddress('185.0.0.7'))
  await fixture.close()
})

t.test('a DNS query counts as demand where its asker is proven or listed, and only then', (t) => {
  const client = parseAddress('185.0.0.7')!
  const asker = parseAddress('192.0.2.53')!
  const facts: DnsFacts = {
    outcome: 'answered',
    type: 1,
    service: 'mirror',
    client,
    bySubnet: false,
    basis: 'geo',
    labels: ['mirror', 'any', 'test'],
    member: 'a',
    ms: 20,
    rank: 1,
    queryBytes: 40,
    replyBytes: 56,
    allDown: null,
    truncated: false,
    limited: null,
    isProven: true,
  }
  const listed = [parsePrefix('192.0.2.0/24')!]
  t.equal(isDemandProven(facts, asker, []), true)
  t.equal(isDemandProven({ ...facts, isProven: false }, asker, []), false, 'its source may be forged')
  t.equal(isDemandProven({ ...facts, isProven: false }, asker, listed), true)
  t.equal(isDemandProven({ ...facts, isProven: false }, parseAddress('203.0.113.1')!, listed), false)
  t.equal(isDemandProven({ ...facts, client: null }, asker, listed), false, 'nothing was selected')
  t.equal(isDemandProven({ ...facts, service: null }, asker, listed), false)

  const counts = new DemandCounts()
  for (const last of [7, 8, 9]) counts.note({ ...facts, client: parseAddress(`185.0.0.${last}`)! })
  counts.note({ ...facts, bySubnet: true })
  counts.note({ ...facts, service: 'game' })
  counts.note({ ...facts, client: parseAddress('2a00:1:2::7')! })
  const direct = { client, service: 'mirror', direct: true, times: 3 }
  const expected = [
    direct,
    { ...direct, direct: false, times: 1 },
    { ...direct, service: 'game', times: 1 },
    { ...direct, client: parseAddress('2a00:1:2::7')!, times: 1 },
  ]
  t.same(counts.take(), expected, 'each prefix and service once')
  t.same(counts.take(), [], 'and told once')
  for (let i = 0; i < 5000; i++)
    counts.note({ ...facts, client: parseAddress(`185.${i >> 8}.${i & 255}.1`)! })
  t.equal(counts.take().length, 4096, 'no more than there is room for')
  t.end()
})

t.test(
  'the dead, the ill and those who leave are out of answers also when that can not be stored',
  async (t) => {
    const { store, disk } = fullableStore()
    const fixture = await withMirror(await openCoreFixture({ store }))
    const { core } = fixture
    await join1(fixture, 'dead')
    const ill = await join1(fixture, 'ill')
    const leaving = await join1(fixture, 'leaving')
    disk.full = true
    await core.heartbeat(beat('ill', ill, { members: [{ service: 'mirror', name: 'ill', health: 'down' }] }))
    await core.removeHost(core.authenticate(leaving), 'leaving')
    t.equal(state(fixture, 'ill'), 'down')
    t.equal(state(fixture, 'leaving'), 'left')
    for (let i = 0; i < 5; i++) {
      await core.heartbeat(beat('ill', ill))
      await fixture.run(2000)
    }
    t.equal(state(fixture, 'dead'), 'silent')
    disk.full = false
    await fixture.run(6000)
    const kept = await store.load()
    t.equal(kept.hosts.get('dead')?.presence, 'silent', 'stored when the store is back')
    t.equal(kept.members.get('mirror/ill')?.health, 'down')
    t.equal(kept.hosts.get('leaving')?.presence, 'left')
    await fixture.close()
  },
)

t.test('a redirect never leads to an address of a host that is not proven', async (t) => {
  const fixture = await withMirror(await openCoreFixture())
  const { core } = fixture
  await core.putService(ADMIN, 'mirror', { verify: 'seen' })
  const { secret } = await core.createToken(ADMIN, { services: ['mirror'] })
  const addresses = ['127.0.0.1', '203.0.113.9']
  const { credential } = await core.putHost(core.authenticate(secret), 'a', { addresses }, HERE)
  const caller = core.authenticate(credential!)
  await core.putMember(caller, 'mirror', 'a', { url: 'http://203.0.113.9/victim/' }, HERE)
  t.equal(core.tables.member('mirror', 'a')?.url, null)
  await core.putMember(caller, 'mirror', 'a', { url: 'http://127.0.0.1/own/' }, HERE)
  t.equal(core.tables.member('mirror', 'a')?.url, 'http://127.0.0.1/own/')
  await fixture.close()
})

t.test('who joined openly is neither a checker of others’ members nor believed as a host', async (t) => {
  const fixture = await withMirror(await openCoreFixture())
  const { core } = fixture
  await core.putService(ADMIN, 'overlay', { join: 'open' })
  await core.putMember(ADMIN, 'mirror', 'old', { addresses: ['127.0.0.1'], port: 9 }, HERE)
  const { secret } = await core.createToken(ADMIN, { services: ['mirror'] })
  const open = await core.putHost(core.authenticate(null), '0a', { addresses: ['127.0.0.1'] }, HERE)
  const mine = await core.putHost(core.authenticate(secret), 'z', { addresses: ['127.0.0.1'] }, HERE)
  await fixture.run(250)
  const kinds = async (host: string, credential: string) =>
    (await core.heartbeat(beat(host, credential))).beats[0]!.orders.map((order) => order.kind)
  t.notOk((await kinds('0a', open.credential!)).includes('check'))
  t.ok((await kinds('z', mine.credential!)).includes('check'))

  const rtts = [{ address: '185.0.0.7', rttMs: 3, count: 8 }]
  core.measure(core.authenticate(open.credential!), { rtts }, HERE)
  core.measure(core.authenticate(mine.credential!), { rtts }, HERE)
  t.match(core.directory.localities.get('185.0.0.0/24')?.evidence, [
    { host: '0a', kind: 'client', count: 1 },
    { host: 'z', kind: 'passive', count: 8 },
  ])
  await fixture.close()
})

t.test('nobody is sent to measure an address that is not proven to be its host’s', async (t) => {
  const fixture = await withMirror(await openCoreFixture())
  const { core } = fixture
  const { secret } = await core.createToken(ADMIN, { services: ['mirror'] })
  const join = (name: string, address: string) =>
    core.putHost(core.authenticate(secret), name, { addresses: [address], echo: { port: 5 } }, HERE)
  const prober = await join('prober', '127.0.0.1')
  await join('victim', '127.0.0.2')
  const targets = new Set<string>()
  for (let i = 0; i < 10; i++) {
    await fixture.run(1000)
    const { beats } = await core.heartbeat(beat('prober', prober.credential!))
    for (const order of beats[0]!.orders) if (order.kind === 'echo') targets.add(order.host)
  }
  t.same([...targets], ['core1'])
  await fixture.close()
})

t.test('RTTs to addresses that no client has, and a flood of prefixes, are refused', async (t) => {
  const fixture = await withMirror(await openCoreFixture())
  const { core } = fixture
  const { secret } = await core.createToken(ADMIN, { services: ['mirror'] })
  const { credential } = await core.putHost(
    core.authenticate(secret),
    'a',
    { addresses: ['127.0.0.1'] },
    HERE,
  )
  const caller = core.authenticate(credential!)
  const of = (addresses: string[]) => ({ rtts: addresses.map((address) => ({ address, rttMs: 1 })) })
  const senseless = ['10.0.0.1', '224.0.0.1', '0.0.0.0', '::5', 'ff02::1', '192.0.2.1', 'nonsense']
  t.same(core.measure(caller, of(senseless), HERE), { accepted: 0, refused: senseless.length })
  const many = Array.from({ length: 1500 }, (_, i) => `185.${i >> 8}.${i & 255}.1`)
  t.same(core.measure(caller, of(many), HERE), { accepted: 1000, refused: 500 })
  t.equal(core.directory.localities.size, 1000)
  await fixture.close()
})

t.test('a client is probed by what it answered before', async (t) => {
  const fixture = await withMirror(await openCoreFixture())
  const { core } = fixture
  const { secret } = await core.createToken(ADMIN, { services: ['mirror'] })
  const credentials: [string, string][] = []
  for (const name of ['a', 'b']) {
    const { credential } = await core.putHost(
      core.authenticate(secret),
      name,
      { addresses: ['127.0.0.1'] },
      HERE,
    )
    await core.putService(ADMIN, 'mirror', { verify: 'none' })
    await core.putMember(core.authenticate(credential!), 'mirror', name, { port: 80 }, HERE)
    credentials.push([name, credential!])
  }
  const asked: string[][] = []
  for (let i = 0; i < 8; i++) {
    core.noteDemand(parseAddress('127.9.9.9')!, 'mirror', true)
    await fixture.run(1000)
    for (const [name, credential] of credentials) {
      const { beats } = await core.heartbeat(beat(name, credential))
      for (const order of beats[0]!.orders) {
        if (order.kind !== 'client') continue
        asked.push(order.methods.map(({ kind }) => kind))
        const results = [{ id: order.id, rttsMs: [5, 5, 5], sent: 3, detail: 'icmp' }]
        await core.heartbeat(beat(name, credential, { results }))
      }
    }
  }
  t.same(asked, [
    ['dns', 'tcp', 'icmp'],
    ['icmp', 'dns', 'tcp'],
  ])
  await fixture.close()
})

t.test('a core whose machine’s clock jumped by years says so', async (t) => {
  const running = await openCore(testConfig(), pino({ level: 'silent' }))
  const now = Date.now
  t.teardown(() => {
    Date.now = now
    return running.close()
  })
  t.same(running.core.readiness().degraded, [])
  Date.now = () => now() + 2000 * 86_400_000
  t.match(running.core.readiness().degraded, [/clock jumped by 2000 days/])
})
