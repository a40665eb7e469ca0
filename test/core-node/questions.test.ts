// What overlay nodes ask over HTTP, with a real core behind it: near another point, for a node behind NAT, for
// gateways, with many names to exclude; and what each answer says of its members.

import { request } from 'node:http'
import t, { type Test } from 'tap'
import { openApi } from '../../core-node/http/api.ts'
import type { Api, HttpContext } from '../../core-node/http/context.ts'
import { openHttp } from '../../core-node/http/listener.ts'
import { Metrics } from '../../core-node/metrics.ts'
import { formatAddress, parseAddress } from '../../resolver/address.ts'
import type { Change, Coordinate, Host, Member } from '../../resolver/directory.ts'
import { ask } from '../../server-agent/answers.ts'
import { ADMIN, openCoreFixture } from '../support/core-fixture.ts'
import { aHost, aMember, ofHost, ofMember } from '../support/records.ts'
import { seededRng } from '../support/seeded-rng.ts'

const STRANGER = '203.0.113.9'

interface Answered {
  readonly name: string
  readonly ms: number | null
  readonly reachable: boolean | null
}
interface Reply {
  readonly members: readonly Answered[]
  readonly near: readonly Answered[]
  readonly random: readonly Answered[]
}

interface Fixture {
  readonly context: HttpContext
  readonly api: Api
  /** A question of `from`, as anyone asks it. */
  readonly get: (path: string, from?: string, headers?: Record<string, string>) => Promise<Reply>
  /** Puts records straight into the tables that answer. */
  readonly apply: (...changes: Change[]) => void
}

/** A core with the open overlays `mesh` and `other`; the operator sits at 192.0.2.128/25, a proxy in 10.0.0.0/8. */
async function openFixture(t: Test): Promise<Fixture> {
  const { core, config, clock, close } = await openCoreFixture({
    flags: {
      requestsPerMinute: '1000000',
      operatorFrom: '192.0.2.128/25',
      trustedProxies: '10.0.0.0/8',
    },
  })
  t.teardown(close)
  const log = { info() {}, warn() {}, error() {} }
  const metrics = new Metrics(core)
  const context = { core, config, metrics, log, rng: seededRng(1), epochMs: () => clock.epochMs() }
  await core.putService(ADMIN, 'mesh', { join: 'open', verify: 'seen' })
  await core.putService(ADMIN, 'other', { join: 'open', verify: 'seen' })
  const api = await openApi(context)
  t.teardown(() => api.close())
  const get = async (path: string, from = STRANGER, headers = {}) => {
    const reply = await api.inject({ url: `/v1/services/${path}`, remoteAddress: from, headers })
    t.equal(reply.statusCode, 200, `${path}: ${reply.body.slice(0, 300)}`)
    return reply.json()
  }
  return { context, api, get, apply: (...changes) => core.tables.apply(changes) }
}

/** A point so many ms from the origin. */
const at = (ms: number): Coordinate => ({
  vec: [ms, 0, 0, 0, 0, 0, 0, 0],
  heightMs: 0,
  adjustmentMs: 0,
  error: 0.1,
})

const node = (name: string, address: string, host: Partial<Host> = {}, member: Partial<Member> = {}) => [
  ofHost(aHost(name, { addresses: [address], publicAddress: address, ...host })),
  ofMember(aMember(name, { service: 'mesh', port: 7000, ...member })),
]

const names = (members: readonly Answered[]) => members.map(({ name }) => name)

t.test('near measures from another point, for the caller, who is left out', async (t) => {
  const { api, get, apply, context } = await openFixture(t)
  const noted: string[] = []
  Object.defineProperty(context.core, 'noteDemand', {
    value: (client: Uint8Array, service: string) => noted.push(`${formatAddress(client)} ${service}`),
  })
  const operator = '192.0.2.200'
  apply(
    ...node('caller', operator, { coordinate: at(0) }),
    ...node('a', '100.64.0.1', { coordinate: at(10) }),
    ...node('b', '100.65.0.1', { coordinate: at(50) }),
    ...node('c', '100.66.0.1', { coordinate: at(90) }),
  )
  t.same(names((await get('mesh/neighbors', operator)).members), ['a', 'b', 'c'])
  t.same(noted.splice(0), [`${operator} mesh`])

  const far = await get('mesh/neighbors?near=100.66.0.1', operator)
  t.same(
    far.members.map(({ name, ms }) => [name, Math.round(ms!)]),
    [
      ['c', 0],
      ['b', 40],
      ['a', 80],
    ],
    'the member that is there is one of them, the caller is none',
  )
  t.match(far, { near: '100.66.0.1', client: operator, scope: /^100\./ })
  t.match(
    far,
    { ticket: context.core.ticketFor(parseAddress(operator)!) },
    'leave to report from where it is',
  )
  const asClient = await get('mesh/neighbors?client=100.66.0.1', operator)
  t.same(names(asClient.members), ['b', 'a', 'caller'], 'as that client it would be itself')
  t.same([asClient.near, (asClient as unknown as { client: string }).client], [undefined, '100.66.0.1'])
  t.same(names((await get('mesh/nearest?near=100.65.0.1&k=2', operator)).members).slice(0, 1), ['b'])
  t.same(names((await get('mesh/neighbors?near=100.66.0.1&minMs=30&maxMs=50', operator)).members), ['b'])
  const mine = await get(`mesh/neighbors?near=${operator}`, operator)
  t.equal(mine.near, undefined, 'one’s own place is no other point')
  t.same(noted, [`${operator} mesh`], 'and to ask for another point is nobody’s demand')

  const refused = await api.inject({
    url: '/v1/services/mesh/neighbors?near=100.66.0.1',
    remoteAddress: STRANGER,
  })
  t.equal(refused.statusCode, 401)
  const wrong = await api.inject({
    url: '/v1/services/mesh/gateways?to=other&near=here',
    remoteAddress: operator,
  })
  t.match([wrong.statusCode, wrong.json()], [400, { field: 'near', detail: /not an IP address/ }])
})

t.test('behind one NAT a node with its credential sees the other, and without none of both', async (t) => {
  const { api, get, apply } = await openFixture(t)
  const nat = '198.51.100.7'
  const credentials: string[] = []
  for (const [i, name] of ['left', 'right'].entries()) {
    const host = await api.inject({
      method: 'PUT',
      url: `/v1/hosts/${name}`,
      remoteAddress: nat,
      payload: { addresses: [nat] },
    })
    t.match(host.json(), { reachable: null, publicAddress: nat })
    credentials.push(`Bearer ${host.json().credential}`)
    const member = await api.inject({
      method: 'PUT',
      url: `/v1/services/mesh/members/${name}`,
      remoteAddress: nat,
      headers: { authorization: credentials[i]! },
      payload: { port: 7000 + i },
    })
    t.equal(member.json().state, 'live', member.body)
  }
  apply(...node('far', '100.64.0.1'))
  for (const list of ['neighbors', 'random', 'bootstrap?random=0']) {
    const named = async (headers: Record<string, string>, from = nat) => {
      const { members, near } = await get(`mesh/${list}`, from, headers)
      return names(members ?? near).sort()
    }
    t.same(await named({}), ['far'], `${list}: it could be either`)
    t.same(await named({ authorization: credentials[0]! }), ['far', 'right'], list)
    t.same(await named({ authorization: credentials[1]! }), ['far', 'left'], list)
    t.same(await named({ 'x-forwarded-for': nat }, '10.0.0.1'), ['far'], `${list}: by a named proxy`)
    t.same(
      await named({ 'x-forwarded-for': nat }),
      ['far'],
      `${list}: a header that nobody vouches for changes nothing`,
    )
    t.same(await named({ 'x-forwarded-for': nat }, STRANGER), ['far', 'left', 'right'], list)
  }
  const roaming = await get('mesh/neighbors', '192.0.2.5', { authorization: credentials[1]! })
  t.match(
    roaming,
    { basis: 'none', scope: '192.0.2.5/32', client: '192.0.2.5' },
    'for itself alone, wherever it is',
  )
  const { members } = await get('mesh/neighbors', nat, { authorization: credentials[1]! })
  t.not(members.find(({ name }) => name === 'left')!.ms, 0, 'another host at its address is not itself')
  t.same(
    names((await get(`mesh/neighbors?client=${nat}`, '192.0.2.200')).members),
    ['far'],
    'asked for by another, that client is both',
  )
  const byOther = await get(`mesh/neighbors?client=${nat}`, '192.0.2.200', {
    authorization: credentials[0]!,
  })
  t.same(names(byOther.members), ['far'], 'whose credential that one shows says nothing of the client')
  t.same(
    names((await get('mesh/nearest?k=5', nat)).members).sort(),
    ['far', 'left', 'right'],
    'what a client gets',
  )
})

t.test('every answered member says whether it can be reached, and lists are filtered by it', async (t) => {
  const { get, apply } = await openFixture(t)
  apply(
    ...node('open', '100.64.0.1', { reachable: true }),
    ...node('behind-nat', '100.65.0.1', { reachable: false }),
    ...node('untried', '100.66.0.1', { reachable: null }),
  )
  const said = (members: readonly Answered[]) =>
    Object.fromEntries(members.map(({ name, reachable }) => [name, reachable]))
  const all = { open: true, 'behind-nat': false, untried: null }
  t.same(said((await get('mesh/nearest?k=5')).members), all)
  t.same(said((await get('mesh/neighbors')).members), all)
  t.same(said((await get('mesh/random')).members), all)
  const { near, random } = await get('mesh/bootstrap?near=2&random=1')
  t.same(said([...near, ...random]), all)
  for (const list of ['nearest', 'neighbors', 'random'])
    t.same(names((await get(`mesh/${list}?reachable=true&k=5`)).members), ['open'])
  t.same(names((await get('mesh/bootstrap?reachable=true')).near), ['open'])
})

t.test(
  'joins are shared out by chance, links that are asked for again stay, load can order both',
  async (t) => {
    const { api, get, apply } = await openFixture(t)
    apply(
      ...Array.from({ length: 40 }, (_, i) =>
        node(`n${i}`, `100.${64 + i}.0.1`, {}, { capacity: 10, load: i < 20 ? 2 : 9 }),
      ).flat(),
    )
    const count = async (path: string, times: number) => {
      const named = new Map<string, number>()
      for (let i = 0; i < times; i++) {
        const { members, near } = await get(path)
        for (const name of names(members ?? near)) named.set(name, (named.get(name) ?? 0) + 1)
      }
      return named
    }
    const byLatency = await count('mesh/bootstrap?near=4&random=0', 400)
    t.equal(byLatency.size, 40, 'nothing is known of distances, so all are equals')
    const idle = [...byLatency]
      .filter(([name]) => Number(name.slice(1)) < 20)
      .reduce((sum, [, n]) => sum + n, 0)
    t.ok(idle > 1_200, `in proportion to free capacity, 8 to 1: ${idle} of 1600`)
    for (const sort of ['load', 'both'])
      t.equal((await count(`mesh/neighbors?k=4&sort=${sort}`, 100)).size, 20, `${sort}: the idle half`)
    t.equal((await count('mesh/bootstrap?near=4&random=0&sort=load', 100)).size, 20)
    for (const path of ['mesh/neighbors?k=4', 'mesh/neighbors?k=4&sort=latency', 'mesh/nearest?k=4'])
      t.same([...(await count(path, 20)).values()], [20, 20, 20, 20], path)
    const wrong = await api.inject('/v1/services/mesh/bootstrap?sort=speed')
    t.match([wrong.statusCode, wrong.json()], [400, { field: 'sort', detail: /latency or load or both/ }])
  },
)

t.test(
  'neighbors are the nearest, in their order, whatever tie the service’s clients are shared by',
  async (t) => {
    const { context, get, apply } = await openFixture(t)
    await context.core.putService(ADMIN, 'mesh', { join: 'open', verify: 'seen', tieMs: 1000 })
    apply(
      ...node('asker', STRANGER, { coordinate: at(0) }),
      ...Array.from({ length: 700 }, (_, i) =>
        node(`n${i}`, `100.${i & 127}.${i >> 7}.1`, { coordinate: at(1 + i / 10) }),
      ).flat(),
    )
    const { members } = await get('mesh/neighbors?k=20')
    t.same(
      names(members),
      Array.from({ length: 20 }, (_, i) => `n${i}`),
    )
    t.not(names((await get('mesh/nearest?k=20')).members).join(), names(members).join())
  },
)

t.test('gateways tell how to reach a host in both services', async (t) => {
  const { api, get, apply, context } = await openFixture(t)
  const inOther = (name: string, member: Partial<Member> = {}) =>
    ofMember(aMember(`${name}-o`, { service: 'other', host: name, port: 9000, ...member }))
  apply(
    ...node('bridge', '100.64.0.1', { coordinate: at(60) }, { attributes: { region: 'eu' } }),
    inOther('bridge'),
    ...node('nearer', '100.65.0.1', { coordinate: at(20) }),
    inOther('nearer', { attributes: { role: 'relay' } }),
    ...node('ill', '100.66.0.1', { coordinate: at(1) }),
    inOther('ill', { health: 'down' }),
    ...node('mesh-only', '100.67.0.1', { coordinate: at(1) }),
    ...node('self', STRANGER, { coordinate: at(0) }),
    inOther('self'),
  )
  const reply = await get('mesh/gateways?to=other')
  t.same(names(reply.members), ['nearer', 'bridge'], 'live in both, nearest first, not the asker')
  t.match(reply, { service: 'mesh', to: 'other', allDown: null })
  t.match(reply.members[0], {
    name: 'nearer',
    addresses: ['100.65.0.1'],
    port: 7000,
    reachable: true,
    to: {
      service: 'other',
      name: 'nearer-o',
      host: 'nearer',
      addresses: ['100.65.0.1'],
      port: 9000,
      attributes: { role: 'relay' },
    },
  })
  const back = await get('other/gateways?to=mesh&k=1')
  t.match(back, { service: 'other', to: 'mesh', members: [{ name: 'nearer-o', to: { name: 'nearer' } }] })
  t.equal(back.members.length, 1)
  t.same(names((await get('mesh/gateways?to=other&where=region:eu')).members), ['bridge'])
  t.same(names((await get('mesh/gateways?to=other&exclude=bridge,nearer')).members), [])
  t.same(names((await get('mesh/gateways?to=other&minMs=30')).members), ['bridge'])
  t.same(names((await get('mesh/gateways?to=other&near=100.64.0.1', '192.0.2.200')).members), [
    'bridge',
    'nearer',
    'self',
  ])
  await context.core.putService(ADMIN, 'empty', {})
  t.match(await get('mesh/gateways?to=empty'), { members: [], allDown: null, ttlSec: 30 })
  t.match(await get('empty/gateways?to=mesh'), { members: [], allDown: 'empty' })
  for (const [query, status, field] of [
    ['', 400, 'to'],
    ['?to=nil', 404, 'to'],
  ] as const) {
    const wrong = await api.inject({ url: `/v1/services/mesh/gateways${query}`, remoteAddress: STRANGER })
    t.match([wrong.statusCode, wrong.json()], [status, { field }])
  }
})

t.test('five hundred names to exclude fit a body; a URL holds what 8,192 characters do', async (t) => {
  const { context, apply } = await openFixture(t)
  const listener = await openHttp(context)
  t.teardown(() => listener.close())
  const { port } = listener.addresses[0]!
  const longName = (i: number) => `n${i}-`.padEnd(62, 'x').concat('z')
  apply(
    ...Array.from({ length: 503 }, (_, i) => node(longName(i), `100.${i >> 8}.${i & 255}.1`)).flat(),
    ...Array.from({ length: 500 }, (_, i) => node(`peer-${i}`, `101.${i >> 8}.${i & 255}.1`)).flat(),
  )
  const call = (method: string, path: string, body?: object): Promise<{ status: number; body: string }> =>
    new Promise((resolve, reject) => {
      const headers = body === undefined ? {} : { 'content-type': 'application/json' }
      const asked = request({ host: '127.0.0.1', port, method, path, headers }, (reply) => {
        let text = ''
        reply.on('data', (part) => (text += part))
        reply.on('end', () => resolve({ status: reply.statusCode!, body: text }))
      })
      asked.on('error', reject).end(body === undefined ? undefined : JSON.stringify(body))
    })
  /** By the call that the agent library would make. */
  const exclude = async (list: readonly string[], more = {}) => {
    const { method, path, body } = ask('mesh', 'random', { k: 1000, exclude: list, ...more }, {
      Check: () => true,
    } as never)
    const reply = await call(method, path, body)
    t.equal(reply.status, 200, reply.body.slice(0, 200))
    return { method, members: names(JSON.parse(reply.body).members) }
  }
  const short = Array.from({ length: 500 }, (_, i) => `peer-${i}`)
  const long = Array.from({ length: 500 }, (_, i) => longName(i))
  const left = await exclude(short)
  t.same(
    [left.method, left.members.length],
    ['GET', 503],
    '500 names of an overlay that names its nodes shortly',
  )
  const rest = await exclude(long, { where: {} })
  t.same([rest.method, rest.members.length], ['POST', 503])
  t.ok(rest.members.includes(longName(500)) && !rest.members.includes(longName(499)))

  const get = (list: readonly string[]) => call('GET', `/v1/services/mesh/random?k=1&exclude=${list}`)
  t.equal((await get(long.slice(0, 127))).status, 200)
  t.equal((await get(long.slice(0, 128))).status, 414)
  const tooMany = { exclude: [...long, 'one-more'] }
  for (const list of ['nearest', 'neighbors', 'random', 'bootstrap']) {
    t.equal((await call('POST', `/v1/services/mesh/${list}`, { exclude: long })).status, 200, list)
    const wrong = await call('POST', `/v1/services/mesh/${list}`, tooMany)
    t.match([wrong.status, JSON.parse(wrong.body)], [400, { field: 'exclude', detail: /at most 500/ }])
  }
  const gateways = await call('POST', '/v1/services/mesh/gateways', { to: 'other', exclude: long })
  t.equal(gateways.status, 200, gateways.body)
  const typed = await call('POST', '/v1/services/mesh/random', { k: '5' })
  t.match([typed.status, JSON.parse(typed.body)], [400, { field: 'k' }], 'a body is taken as it is')
})

t.test('a flood from one network is seen in no list beyond its share, and explained', async (t) => {
  const { get, api, apply } = await openFixture(t)
  apply(
    ...node('victim', STRANGER, { coordinate: at(0) }),
    ...Array.from({ length: 2_000 }, (_, i) =>
      node(`fake${i}`, `100.66.${i >> 8}.${i & 255}`, { coordinate: at(1) }),
    ).flat(),
    ...Array.from({ length: 100 }, (_, i) =>
      node(`n${i}`, `101.${i}.0.1`, { coordinate: at(50 + i) }),
    ).flat(),
  )
  for (const path of [
    'nearest?k=20',
    'neighbors?k=20',
    'neighbors?k=20&sort=load',
    'random?k=20',
    'bootstrap?near=20&random=20',
  ]) {
    const { members, near, random } = await get(`mesh/${path}`)
    for (const list of members === undefined ? [near, random] : [members]) {
      const fakes = names(list).filter((name) => name.startsWith('fake')).length
      t.same([list.length, fakes <= 5], [20, true], `${path}: ${fakes} fakes of ${list.length}`)
    }
  }
  const why = await api.inject({ url: `/v1/services/mesh/explain?client=${STRANGER}&k=20` })
  t.equal(why.statusCode, 200, why.body.slice(0, 200))
  const crowded = why.json().members.find(({ reason }: { reason: string }) => reason === 'crowded')
  t.match(crowded, { name: /^fake/, rank: null, why: /others of its network have/ })
})
