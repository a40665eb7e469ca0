// What measuring promises beyond finding the nearest: whom probes leave alone, what is forgotten and when,
// whom clients are kept on, and whose word counts for prefixes that nobody measured.
//
// Each test is about one line of the planner, the mesh, the localities, the relatives or the belief that
// could be lost without anyone noticing. Clocks are numbers, nothing is sent.

import t from 'tap'
import { Demand } from '../../core-node/measuring/demand.ts'
import { Localities, settleIncumbents } from '../../core-node/measuring/localities.ts'
import { HostMesh, MAX_MESH_PEERS } from '../../core-node/measuring/mesh.ts'
import { ProbePlanner, type ProbeRules } from '../../core-node/measuring/planner.ts'
import { type Address, formatPrefix, parseAddress, parsePrefix } from '../../resolver/address.ts'
import { ANY_ASK } from '../../resolver/ask.ts'
import { believe } from '../../resolver/belief.ts'
import type {
  Change,
  Coordinate,
  Host,
  LocalityRecord,
  Member,
  Place,
  Policy,
} from '../../resolver/directory.ts'
import { locate } from '../../resolver/locate.ts'
import { type PlaceEntry, placeChanges } from '../../resolver/place-page.ts'
import { poolNetwork } from '../../resolver/relatives.ts'
import { select } from '../../resolver/select.ts'
import { Tables } from '../../resolver/tables.ts'
import { host, locality, member, service } from '../support/records.ts'

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
const DAY_MS = 24 * HOUR_MS

const ip = (text: string): Address => parseAddress(text)!
const prefix = (text: string) => parsePrefix(text)!
const tablesOf = (...changes: readonly (Change | readonly Change[])[]): Tables => {
  const tables = new Tables()
  tables.apply(changes.flat())
  return tables
}
const hostOf = (name: string, over: Partial<Host> = {}): Host => host(name, [], over).value as Host
const at = (xMs: number): Coordinate => ({
  vec: [xMs, 0, 0, 0, 0, 0, 0, 0],
  heightMs: 1,
  adjustmentMs: 0,
  error: 0.1,
})

// The planner of probes.

const RULES: ProbeRules = { probesPerMinute: 1e6, probesPerHostPerMinute: 1e6, optOut: [], allowPrivate: [] }
const WEB = service('web', { verify: 'none' })

/** The host `hN`, with an agent and an address of its own, and its member of `web`. */
const joins = (n: number, overHost: Partial<Host> = {}, overMember: Partial<Member> = {}): Change[] => [
  host(`h${n}`, [`198.51.100.${n + 1}`], overHost),
  member('web', `h${n}`, overMember),
]
const many = (count: number) => Array.from({ length: count }, (_, n) => joins(n)).flat()

/** Asks a planner again and again and answers for the hosts: who was asked, in order. */
const asked = (
  planner: ProbePlanner,
  tables: Tables,
  demand: Demand,
  { fromMs = 0, rounds = 10, stepMs = 1000, isAnswered = true } = {},
): string[] => {
  const hosts: string[] = []
  for (let round = 0; round < rounds; round++) {
    const nowMs = fromMs + round * stepMs
    for (const probe of planner.plan(tables, demand, nowMs)) {
      hosts.push(probe.host)
      planner.hear(probe.prefix, probe.host, isAnswered, nowMs)
    }
  }
  return hosts
}
const demandOf = (...clients: readonly string[]): Demand => {
  const demand = new Demand()
  for (const client of clients) demand.note(ip(client), 'web', ip(client), 0)
  return demand
}

t.test('one prefix is not probed from everywhere at once, however many hosts there are', async (t) => {
  const tables = tablesOf(WEB, many(50))
  const planner = new ProbePlanner({ ...RULES, probesPerPrefix: 1000 })
  const demand = demandOf('11.0.0.7')
  const inOneMinute = asked(planner, tables, demand, { rounds: 50 })
  t.ok(inOneMinute.length >= 5 && inOneMinute.length <= 20, `${inOneMinute.length} of 50 in one minute`)
  const later = asked(planner, tables, demand, { fromMs: MINUTE_MS, rounds: 50 })
  t.ok(later.length >= 5 && later.length <= 20, `${later.length} in the next`)
  t.equal(new Set([...inOneMinute, ...later]).size, inOneMinute.length + later.length, 'others each time')
})

t.test('where the budget is short, who asks most is measured first', async (t) => {
  const tables = tablesOf(WEB, many(3))
  for (const [busy, quiet] of [
    ['11.0.0.7', '12.0.0.7'],
    ['12.0.0.7', '11.0.0.7'],
  ] as const) {
    for (const order of [
      [busy, busy, quiet],
      [quiet, busy, busy],
    ]) {
      const plan = new ProbePlanner({ ...RULES, probesPerMinute: 1 }).plan(tables, demandOf(...order), 0)
      t.same(
        plan.map(({ address }) => address),
        [ip(busy)],
        order.join(),
      )
    }
  }
})

t.test('only hosts that may be answered measure: those of live members, with an agent', async (t) => {
  const rows: [string, Partial<Host>, Partial<Member>][] = [
    ['down', {}, { health: 'down' }],
    ['drained', {}, { drained: true }],
    ['gone', {}, { left: true }],
    ['silent', { presence: 'silent' }, {}],
    ['without an agent', { agent: false }, {}],
  ]
  for (const [name, overHost, overMember] of rows) {
    const tables = tablesOf(WEB, joins(0), joins(1, overHost, overMember))
    t.same(asked(new ProbePlanner(RULES), tables, demandOf('11.0.0.7')), ['h0'], name)
  }
  const alive = tablesOf(WEB, joins(0), joins(1))
  t.same(asked(new ProbePlanner(RULES), alive, demandOf('11.0.0.7')).sort(), ['h0', 'h1'], 'else both')
})

t.test('services that do not choose by distance set no probes going', async (t) => {
  const isProbed = (policy: Policy) => {
    const tables = tablesOf(service('web', { policy, verify: 'none' }), many(2))
    return asked(new ProbePlanner(RULES), tables, demandOf('11.0.0.7')).length > 0
  }
  const policies: Policy[] = ['nearest', 'failover', 'random', 'weighted', 'hash']
  t.same(policies.filter(isProbed), ['nearest', 'failover'])

  const tables = tablesOf(WEB, joins(0), service('lot', { policy: 'random' }), joins(1)[0]!)
  tables.apply([member('lot', 'h1')])
  const demand = demandOf('11.0.0.7')
  demand.note(ip('11.0.0.7'), 'lot', ip('11.0.0.7'), 0)
  t.same(asked(new ProbePlanner(RULES), tables, demand), ['h0'], 'nor do their hosts help others')
})

t.test(
  'who opted out is never probed; who is private is where that is allowed or a host is there',
  async (t) => {
    const tables = tablesOf(WEB, many(2), host('inside', ['10.0.0.7']))
    const ten = prefix('10.0.0.0/8')
    const rows: [string, string, Partial<ProbeRules>, boolean][] = [
      ['anyone', '11.0.0.7', {}, true],
      ['opted out', '11.0.0.7', { optOut: [prefix('11.0.0.0/24')] }, false],
      ['opted out by one of several', '11.0.0.7', { optOut: [ten, prefix('11.0.0.7/32')] }, false],
      ['beside one who opted out', '11.0.0.7', { optOut: [prefix('11.0.0.8/32')] }, true],
      ['private', '10.0.0.8', {}, false],
      ['private and allowed', '10.0.0.8', { allowPrivate: [ten] }, true],
      ['private beside what is allowed', '192.168.0.8', { allowPrivate: [ten] }, false],
      ['allowed but opted out', '10.0.0.8', { allowPrivate: [ten], optOut: [ten] }, false],
      ['a host of ours', '10.0.0.7', {}, true],
      ['a host of ours that opted out', '10.0.0.7', { optOut: [ten] }, false],
    ]
    for (const [name, client, rules, isProbed] of rows) {
      const planner = new ProbePlanner({ ...RULES, ...rules })
      const told = planner.nextProbes(tables, ip(client), ['web'], 0)
      t.equal(told.length > 0, isProbed, `${name}: told`)
      t.equal(asked(planner, tables, demandOf(client)).length > 0, isProbed, `${name}: done`)
    }
  },
)

t.test('a silent prefix is not woken by what others saw of it', async (t) => {
  const tables = tablesOf(WEB, many(9))
  const planner = new ProbePlanner(RULES)
  const demand = demandOf('11.0.0.7')
  asked(planner, tables, demand, { isAnswered: false })
  t.ok(planner.isSilent('11.0.0.0/24'))
  planner.wake('11.0.0.0/24', 2 * HOUR_MS)
  t.ok(planner.isSilent('11.0.0.0/24'))
  t.same(asked(planner, tables, demand, { fromMs: 2 * HOUR_MS }), [])
})

t.test('who asks no more is forgotten after its round, the silent after their day', async (t) => {
  const tables = tablesOf(WEB, many(4))
  const clients = Array.from({ length: 10 }, (_, i) => `11.${i}.0.7`)
  const [all, another] = [demandOf(...clients), demandOf('12.0.0.7')]
  const planner = new ProbePlanner(RULES)
  t.equal(asked(planner, tables, all).length, 40)
  planner.plan(tables, another, HOUR_MS)
  t.same(asked(planner, tables, all, { fromMs: 2 * HOUR_MS }), [], 'who asks seldom is not probed each time')
  t.same(asked(planner, tables, all, { fromMs: 12 * HOUR_MS }), [], 'nor who asks on')
  planner.plan(tables, demandOf('12.0.0.7', clients[0]!), 13 * HOUR_MS)
  const again = asked(planner, tables, all, { fromMs: 14 * HOUR_MS })
  t.equal(again.length, 36, 'who comes again is new, unlike the one who asked on')

  const mute = new ProbePlanner(RULES)
  const silent = () => clients.filter((_, i) => mute.isSilent(`11.${i}.0.0/24`)).length
  asked(mute, tables, all, { isAnswered: false })
  mute.plan(tables, another, 13 * HOUR_MS)
  t.equal(silent(), 10)
  mute.plan(tables, another, 3 * DAY_MS)
  t.equal(silent(), 0)
})

// The mesh between hosts.

t.test('a record tells an RTT that moved by a sixth, and rests while it moves by a hundredth', async (t) => {
  const hear = (rttMs: number) => {
    const mesh = new HostMesh()
    const before = hostOf('a', { coordinate: at(0), meshMs: { b: 100 } })
    let now = before
    for (let i = 0; i < 20; i++)
      now = mesh.hear(now, hostOf('b', { coordinate: at(100) }), rttMs, () => 0.5).host
    return { ms: now.meshMs?.b, isSame: now.meshMs === before.meshMs }
  }
  t.match(hear(116), { ms: 116 })
  t.match(hear(84), { ms: 84 })
  t.same(hear(101), { ms: 100, isSame: true })
  t.same(hear(99), { ms: 100, isSame: true })
})

t.test('a host that went and comes again begins with nothing, but keeps what its record says', async (t) => {
  const mesh = new HostMesh()
  let old = hostOf('a')
  for (let i = 0; i < 30; i++) old = mesh.hear(old, hostOf('b', { coordinate: at(80) }), 90, () => 0.3).host
  t.same(Object.keys(old.meshMs!), ['b'])
  mesh.forget('a')
  const { host: again } = mesh.hear(hostOf('a'), hostOf('c', { coordinate: at(10) }), 12, () => 0.3)
  const { host: first } = new HostMesh().hear(hostOf('a'), hostOf('c', { coordinate: at(10) }), 12, () => 0.3)
  t.same(again, first, 'as if it had never been there')
  t.same(again.meshMs, { c: 12 })

  mesh.forget('a')
  const { host: loaded } = mesh.hear(hostOf('a', { meshMs: { z: 7 } }), hostOf('c'), 12, () => 0.3)
  t.same(loaded.meshMs, { z: 7, c: 12 })
})

t.test('of too many peers the one longest unheard goes', async (t) => {
  const mesh = new HostMesh()
  let now = hostOf('a')
  const hear = (peer: string) => {
    now = mesh.hear(now, hostOf(peer), 10, () => 0.5).host
  }
  for (let i = 0; i < MAX_MESH_PEERS; i++) hear(`p${i}`)
  hear('p0')
  t.equal(Object.keys(now.meshMs!).length, MAX_MESH_PEERS)
  hear('new')
  const peers = new Set(Object.keys(now.meshMs!))
  t.equal(peers.size, MAX_MESH_PEERS)
  t.same(
    ['p0', 'p1', 'p2', 'new'].filter((name) => peers.has(name)),
    ['p0', 'p2', 'new'],
  )
  hear('newer')
  t.same(
    ['p0', 'p2', 'p3'].filter((name) => name in now.meshMs!),
    ['p0', 'p3'],
  )
})

// Localities.

const P = '203.0.113.0/24'
const fold = (localities: Localities, host: string, rttMs: number, nowMs: number) =>
  localities.fold({ prefix: prefix(P), host, rttsMs: [rttMs, rttMs, rttMs], kind: 'active' }, nowMs)

t.test('evidence of last month is gone, that of yesterday is not', async (t) => {
  const hostsAt = (localities: Localities, nowMs: number) => {
    const [change] = localities.publish(nowMs)
    return (change!.value as LocalityRecord).evidence.map(({ host }) => host).sort()
  }
  const localities = new Localities(new Map())
  fold(localities, 'old', 5, 0)
  fold(localities, 'late', 5, 29 * DAY_MS)
  fold(localities, 'now', 5, 30 * DAY_MS)
  t.same(hostsAt(localities, 30 * DAY_MS), ['late', 'now'])

  const restarted = new Localities(new Map([[P, locality(P, { old: 5 }).value as LocalityRecord]]))
  fold(restarted, 'now', 5, 30 * DAY_MS)
  t.same(hostsAt(restarted, 30 * DAY_MS), ['now'], 'whether or not a store kept it meanwhile')
})

t.test('a long way has changed only when its RTT did by a good share of it', async (t) => {
  const moves = (beforeMs: number, afterMs: number) => {
    const localities = new Localities(new Map())
    fold(localities, 'a', beforeMs, 0)
    fold(localities, 'a', afterMs, HOUR_MS)
    return localities.takeMoved().length > 0
  }
  const rows: [number, number, boolean][] = [
    [200, 220, false],
    [200, 180, false],
    [200, 300, true],
    [200, 110, true],
    [10, 14, false],
    [10, 40, true],
    [1, 3, false],
  ]
  for (const [beforeMs, afterMs, isMoved] of rows)
    t.equal(moves(beforeMs, afterMs), isMoved, `${beforeMs} ms -> ${afterMs} ms`)
})

const settle = (tables: Tables, incumbents: Readonly<Record<string, string>>, ...services: string[]) => {
  const known = tables.locality(tables.localityRow(P))!.record
  const record = { ...known, incumbents }
  tables.apply([{ kind: 'localities', key: P, value: record }])
  const change = settleIncumbents(tables, record, services)
  return change === null ? 'as before' : (change.value as LocalityRecord).incumbents
}
const picksOf = (tables: Tables) =>
  select(tables, tables.service('web')!, locate(tables, ip('203.0.113.9')), ANY_ASK, () => 0)

t.test('who turns clients away only for being full gets them back', async (t) => {
  const tables = tablesOf(WEB, joins(0), joins(1), locality(P, { h0: 10, h1: 100 }))
  t.same(settle(tables, {}, 'web'), { web: 'h0' })
  const report = member('web', 'h0', { capacity: 100, load: 1000 })
  for (let i = 0; i < 200; i++) tables.apply([report])
  const { picks, dropped } = picksOf(tables)
  t.equal(picks[0]?.member.name, 'h1')
  t.match(dropped, [{ member: { name: 'h0' }, reason: 'full' }])
  t.equal(settle(tables, { web: 'h0' }, 'web'), 'as before')
  t.same(settle(tables, {}, 'web'), { web: 'h1' }, 'who was not kept on it goes where there is room')
  tables.apply([member('web', 'h0', { health: 'down' })])
  t.same(settle(tables, { web: 'h0' }, 'web'), { web: 'h1' }, 'who is down does not')
})

t.test('clients are kept on a member only where that was measured', async (t) => {
  const place = (lon: number): Place => ({ lat: 0, lon, accuracyKm: 10 })
  const tables = tablesOf(WEB, joins(0, { place: place(0) }), joins(1, { place: place(50) }), locality(P, {}))
  tables.setGeography({ lookup: () => place(1) })
  t.match(picksOf(tables).picks[0], { member: { name: 'h0' }, basis: 'geo' })
  t.equal(settle(tables, {}, 'web'), 'as before')
  t.equal(settle(tables, { web: 'h1' }, 'web'), 'as before', 'nor is a guess a reason to move them')
  tables.apply([locality(P, { h0: 10, h1: 60 })])
  t.same(settle(tables, {}, 'web'), { web: 'h0' })
  t.same(settle(tables, { web: 'h1' }, 'web'), { web: 'h0' })
})

t.test('who vanished is nobody’s member any more, and the others stay', async (t) => {
  const tables = tablesOf(WEB, joins(0), service('db'), member('db', 'h0'), locality(P, { h0: 10 }))
  t.same(settle(tables, { web: 'h0', db: 'h9', gone: 'h0' }), { web: 'h0' })
  t.same(settle(tables, { db: 'h0' }, 'web'), { web: 'h0', db: 'h0' }, 'one not asked for is as it was')
  t.equal(settle(tables, { web: 'h0', db: 'h0' }), 'as before')
})

// What relatives say.

t.test('a network wider than a region, imported later, makes relatives of all inside it', async (t) => {
  const announced = (text: string): PlaceEntry => ({
    prefix: prefix(text),
    fact: { place: { lat: 1, lon: 2, accuracyKm: 25 }, asn: null, country: null, source: 'test' },
  })
  for (const [network, measured, client] of [
    ['10.0.0.0/8', '10.0.7.0/24', '10.200.0.1'],
    ['2600::/16', '2600:1:1::/48', '2600:ffff:1::1'],
  ] as const) {
    const tables = tablesOf(locality(measured, { a: 10 }))
    const rttMs = () => tables.locality(tables.findEvidence(ip(client)).value)?.evidence[0]?.rttMs
    t.equal(rttMs(), undefined, 'nobody knows who belongs together')
    const imported = placeChanges(new Map(), [announced(network)])
    tables.apply(imported)
    t.equal(rttMs(), 10, network)
    tables.apply(imported.map(({ key }) => ({ kind: 'places', key, value: null })))
    t.equal(rttMs(), undefined, 'and when the import goes, so does their word')
  }
})

t.test('what is measured just as it is announced has no relatives to speak for', async (t) => {
  const fact = { place: { lat: 1, lon: 2, accuracyKm: 25 }, asn: null, country: null, source: 'test' }
  const rowsOf = (network: string) => {
    const tables = tablesOf(placeChanges(new Map(), [{ prefix: prefix(network), fact }]))
    tables.apply([locality('10.0.7.0/24', { a: 10 })])
    return [0, 1, 2, 3].filter((row) => tables.locality(row) !== null).length
  }
  t.equal(rowsOf('10.0.7.0/24'), 1, 'only its own')
  t.equal(rowsOf('10.0.6.0/23'), 2, 'with a neighbour, the neighbour’s as well')
})

t.test('children that are halves speak for their halves, and wider ones for themselves alone', async (t) => {
  const child = (text: string, rttMs: number) => ({
    prefix: prefix(text),
    evidence: [{ host: 'a', rttMs, count: 3, atMs: 0, kind: 'active' as const }],
  })
  const parts = (...children: ReturnType<typeof child>[]) =>
    poolNetwork(prefix('10.0.0.0/16'), children)
      .map(({ prefix, evidence }) => `${formatPrefix(prefix)} ${evidence[0]!.rttMs}`)
      .sort()
  t.same(parts(child('10.0.0.0/17', 10), child('10.0.128.0/17', 90)), ['10.0.0.0/17 10', '10.0.128.0/17 90'])
  t.same(
    parts(child('10.0.0.0/17', 10), child('10.0.1.0/24', 90), child('10.0.128.0/24', 50)),
    ['10.0.128.0/17 50'],
    'one inside another that disagrees: no word for their half',
  )
  t.same(parts(child('10.0.0.0/16', 10), child('10.0.1.0/24', 90)), [], 'nor for the whole')
})

// What is believed.

/** Hosts with the RTTs between them, both ways; `claims` are what one says beside that, whatever the others do. */
const meshOf = (
  rttsMs: Readonly<Record<string, number>>,
  claims: Readonly<Record<string, Readonly<Record<string, number>>>> = {},
  over: Readonly<Record<string, Partial<Host>>> = {},
): Tables => {
  const byHost = new Map<string, Record<string, number>>()
  const tell = (from: string, to: string, ms: number) => byHost.set(from, { ...byHost.get(from), [to]: ms })
  for (const [pair, ms] of Object.entries(rttsMs)) {
    const [a, b] = pair.split('-') as [string, string]
    tell(a, b, ms)
    tell(b, a, ms)
  }
  for (const [from, said] of Object.entries(claims))
    for (const [to, ms] of Object.entries(said)) tell(from, to, ms)
  return tablesOf(Array.from(byHost, ([name, meshMs]) => host(name, [], { ...over[name], meshMs })))
}
const believedOf = (
  tables: Tables,
  rttsMs: Readonly<Record<string, number>>,
  place: Place | null = null,
): ((name: string) => number) => {
  const sightings = Object.entries(rttsMs).map(([name, rttMs]) => {
    return { row: tables.hostRow(name), rttMs, weight: 1 }
  })
  const belief = believe(tables, sightings, place, null)
  return (name) => belief.of(tables.hostRow(name)).ms
}

/** Six honest hosts at 60 ms from each other, and one at 100 ms from each that may claim to be at 5. */
const HONEST = ['a', 'b', 'c', 'd', 'e', 'f']
const RTTS = Object.fromEntries(
  HONEST.flatMap((one, i) => [
    ...HONEST.slice(i + 1).map((other) => [`${one}-${other}`, 60] as const),
    [`liar-${one}`, 100] as const,
  ]),
)
const LIES = Object.fromEntries(HONEST.map((name) => [name, 5]))
/** What a client at the liar's side is seen at. */
const SEEN = { a: 100, b: 100, c: 100 }

t.test('what a host sees that contradicts its peers tells of no one else', async (t) => {
  const stories = (tables: Tables) =>
    [SEEN, { ...SEEN, liar: 1 }, { ...SEEN, liar: 400 }].map((seen) => believedOf(tables, seen)('d'))
  const [without, ...withIt] = stories(meshOf(RTTS, { liar: LIES }))
  t.ok(without! > 0)
  t.same(withIt, [without, without], 'its RTT to the client')
  t.equal(new Set(stories(meshOf(RTTS))).size, 3, 'which would, were it honest')
})

t.test('who contradicts its peers is no witness of hosts that have not measured it', async (t) => {
  // It sees a, b and c as the client does, so it would be the first to be heard of x.
  const story = (claims: Record<string, number>, xMs: number) =>
    believedOf(meshOf({ ...RTTS, 'a-x': 80, 'b-x': 80 }, { liar: { ...claims, x: xMs } }), SEEN)('x')
  t.ok(story(LIES, 1) > 0)
  t.equal(story(LIES, 1), story(LIES, 500))
  t.not(story({}, 1), story({}, 500), 'it would be, were it honest')
})

t.test('nor are its RTTs to prefixes that see the world as a client does', async (t) => {
  const story = (claims: Record<string, number>, ms: number) => {
    const tables = meshOf(RTTS, { liar: claims })
    tables.apply([locality(P, { ...SEEN, d: 100, liar: ms })])
    return believedOf(tables, SEEN)('liar')
  }
  t.ok(story(LIES, 1) > 0)
  t.equal(story(LIES, 1), story(LIES, 500))
  t.not(story({}, 1), story({}, 500), 'they would be, were it honest')
})

t.test('no host is believed farther than the shortest way round to it', async (t) => {
  const tables = meshOf({ 'a-b': 100, 'a-x': 20, 'b-x': 100 })
  for (const seen of [
    { a: 10, b: 100 },
    { b: 100, a: 10 },
  ]) {
    const ms = believedOf(tables, seen)('x')
    t.ok(ms >= 0 && ms <= 30, `${ms} ms by way of a, 30 ms away`)
  }
})

t.test('of two that see the world alike, the nearer on the map is heard more', async (t) => {
  const [here, there]: Place[] = [
    { lat: 47, lon: 8, accuracyKm: 10 },
    { lat: 35, lon: 139, accuracyKm: 10 },
  ]
  const tables = meshOf(
    { 'a-b': 90, 'east-a': 80, 'east-b': 80, 'west-a': 80, 'west-b': 80, 'east-x': 150, 'west-x': 10 },
    {},
    { west: { place: here! }, east: { place: there! } },
  )
  const [fromWest, fromEast] = [here!, there!].map((place) =>
    believedOf(tables, { a: 80, b: 80 }, place)('x'),
  )
  t.ok(fromWest! < fromEast! - 20, `x is ${fromWest} ms from the west and ${fromEast} ms from the east`)
})
