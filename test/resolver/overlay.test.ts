// What overlay nodes ask of select: lists that no network fills, joins that are shared out, rings, regions and
// gateways; each promise as a sentence.

import t from 'tap'
import { parseAddress } from '../../resolver/address.ts'
import { ANY_ASK, type Ask } from '../../resolver/ask.ts'
import type { Change, Coordinate, Host, Member, Service } from '../../resolver/directory.ts'
import { gatewayCandidates } from '../../resolver/gateway.ts'
import { locate } from '../../resolver/locate.ts'
import { type Selection, select } from '../../resolver/select.ts'
import { Tables } from '../../resolver/tables.ts'
import { aHost, aMember, aService, ofHost, ofLocality, ofMember, ofService } from '../support/records.ts'
import { seededRng } from '../support/seeded-rng.ts'

const QUARTER = 1 / 4

/** A point so many ms from the origin along one axis. */
const at = (ms: number, axis = 0): Coordinate => ({
  vec: Array.from({ length: 8 }, (_, i) => (i === axis ? ms : 0)),
  heightMs: 0,
  adjustmentMs: 0,
  error: 0.1,
})

const compile = (changes: readonly Change[]): Tables => {
  const tables = new Tables()
  tables.apply(changes)
  return tables
}

/** A member on a host of its own, at an address that it joined from and proved. */
const node = (
  name: string,
  address: string,
  wish: { host?: Partial<Host>; member?: Partial<Member> } = {},
): Change[] => [
  ofHost(aHost(name, { addresses: [address], publicAddress: address, ...wish.host })),
  ofMember(aMember(name, { service: 'mesh', ...wish.member })),
]

const aMesh = (wish: Partial<Service> = {}): Change =>
  ofService(aService({ name: 'mesh', join: 'open', verify: 'seen', ...wish }))

const rng = seededRng(1)
const ask = (tables: Tables, client: string, wish: Partial<Ask> = {}, service = 'mesh'): Selection => {
  const wanted: Ask = { ...ANY_ASK, policy: 'nearest', ...wish }
  return select(tables, tables.service(service)!, locate(tables, parseAddress(client)!), wanted, rng)
}
const names = (selection: Selection): string[] => selection.picks.map(({ member }) => member.name)
const reasonOf = (selection: Selection, name: string): string | undefined =>
  selection.dropped.find(({ member }) => member.name === name)?.reason

// No network fills a list.

const VICTIM = '198.18.0.1'
const FAKES = 2_000
/** 2,000 fakes, each within 2 ms of the victim, and 60 honest members in 30 networks, 30 to 90 ms away. */
const floodedMesh = (
  addressOf: (i: number) => string,
  honestAddressOf: (i: number) => string,
  service: Partial<Service> = {},
): Tables =>
  compile([
    aMesh(service),
    ...node('victim', VICTIM, { host: { coordinate: at(0) } }),
    ...Array.from({ length: FAKES }, (_, i) =>
      node(`fake${i}`, addressOf(i), { host: { coordinate: at(i / FAKES, 1) } }),
    ).flat(),
    ...Array.from({ length: 60 }, (_, i) =>
      node(`honest${i}`, honestAddressOf(i), { host: { coordinate: at(30 + i) } }),
    ).flat(),
  ])
const isFake = (name: string) => name.startsWith('fake')
/** Every way of asking for a list. */
const LISTS: readonly Partial<Ask>[] = [
  {},
  { tieMs: 0 },
  { policy: 'random' },
  { spread: 'latency' },
  { spread: 'load' },
  { spread: 'both' },
]

t.test('2,000 fakes from one network around a victim get a quarter of each of its lists', async (t) => {
  const worlds = {
    'IPv4 /16': floodedMesh(
      (i) => `100.66.${i >> 8}.${i & 255}`,
      (i) => `100.${100 + (i >> 1)}.0.${i + 1}`,
    ),
    'IPv6 /32': floodedMesh(
      (i) => `2001:db8:${i.toString(16)}::1`,
      (i) => `2001:${(0x1000 + (i >> 1)).toString(16)}::${i + 1}`,
    ),
  }
  for (const [world, tables] of Object.entries(worlds)) {
    const selves = new Set([tables.hostRow('victim')])
    for (const wish of LISTS) {
      for (const limit of [1, 2, 3, 4, 5, 16, 20, 50]) {
        const what = `${world}, ${JSON.stringify(wish)}, k=${limit}`
        const found = ask(tables, VICTIM, { ...wish, selves, limit, networkShare: QUARTER })
        t.equal(names(found).length, limit, `${what}: as many as asked`)
        const fakes = names(found).filter(isFake).length
        if (fakes > Math.max(1, Math.floor(limit / 4))) t.fail(`${what}: ${fakes} fakes`)
        t.equal(found.dropped.length + found.unweighed + limit, FAKES + 61)
      }
    }
    const open = ask(tables, VICTIM, { selves, limit: 20 })
    t.ok(names(open).every(isFake), 'without the share they fill it')
    const near = ask(tables, VICTIM, { selves, limit: 20, networkShare: QUARTER })
    t.ok(names(near).slice(0, 5).every(isFake), 'they come first, being nearest')
    t.same(
      names(near).slice(5),
      Array.from({ length: 15 }, (_, i) => `honest${i}`),
    )
    const crowded = near.dropped.filter(({ reason }) => reason === 'crowded')
    t.ok(crowded.length > 0 && crowded.every(({ member }) => isFake(member.name)))
    t.equal(reasonOf(near, 'honest15'), 'farther')
    t.equal(near.ties, 5, 'equals that were passed over are none of the named')
  }
})

t.test('who asks for no near members costs no look at all networks', async (t) => {
  const tables = compile([
    aMesh(),
    ...Array.from({ length: 2_000 }, (_, i) =>
      node(`n${i}`, `${1 + (i >> 8)}.${i & 255}.0.1`, { host: { coordinate: at(i / 10) } }),
    ).flat(),
  ])
  const found = ask(tables, '9.9.9.9', { limit: 0, spread: 'latency', networkShare: QUARTER })
  t.same(names(found), [])
  t.ok(found.unweighed > 1_900, `${found.unweighed} were left alone`)
})

t.test('a network gets more of a list only as far as others leave places empty', async (t) => {
  const world = (others: number) =>
    compile([
      aMesh(),
      ...Array.from({ length: 40 }, (_, i) => node(`crowd${i}`, `100.66.0.${i + 1}`)).flat(),
      ...Array.from({ length: others }, (_, i) => node(`other${i}`, `100.${100 + i}.0.1`)).flat(),
    ])
  const crowd = (others: number, limit: number, networkShare = QUARTER) =>
    names(ask(world(others), '9.9.9.9', { limit, networkShare })).filter((name) => name.startsWith('crowd'))
      .length
  t.equal(crowd(30, 20), 5)
  t.equal(crowd(15, 20), 5)
  t.equal(crowd(12, 20), 8)
  t.equal(crowd(3, 20), 17)
  t.equal(crowd(0, 20), 20, 'an overlay on one campus is whole')
  const { dropped } = ask(world(0), '9.9.9.9', { limit: 20, networkShare: QUARTER })
  t.ok(
    dropped.every(({ reason }) => reason === 'farther'),
    'and who is passed over there is so for those before, not for others’ sake',
  )
  t.equal(crowd(0, 100), 40)
  // Half before all: with 25 of a second network and none else, it gets as many places as the first.
  const two = compile([
    aMesh(),
    ...Array.from({ length: 40 }, (_, i) => node(`a${i}`, `100.66.0.${i + 1}`)).flat(),
    ...Array.from({ length: 25 }, (_, i) => node(`b${i}`, `100.67.0.${i + 1}`)).flat(),
  ])
  const half = names(ask(two, '9.9.9.9', { policy: 'random', limit: 20, networkShare: QUARTER }))
  t.equal(half.filter((name) => name.startsWith('a')).length, 10)
})

t.test('claiming addresses elsewhere gives no place, and takes none from who is there', async (t) => {
  const honest = Array.from({ length: 20 }, (_, i) => `100.${100 + i}.0.1`)
  const claims = Array.from({ length: 300 }, (_, i) =>
    node(`fake${i}`, `100.66.${i >> 8}.${i & 255}`, {
      host: { addresses: [`9.${i & 255}.0.1`, ...honest], proofs: {}, coordinate: at(1) },
    }),
  ).flat()
  const tables = compile([
    aMesh({ verify: 'none' }),
    ...claims,
    ...honest.flatMap((address, i) => node(`honest${i}`, address, { host: { coordinate: at(50) } })),
  ])
  for (const wish of LISTS) {
    const found = names(ask(tables, '9.9.9.9', { ...wish, limit: 24, networkShare: QUARTER }))
    t.equal(found.filter(isFake).length, 6)
    t.equal(found.filter((name) => !isFake(name)).length, 18)
  }
})

t.test('random draws stay uniform over networks of one size, and over members of one network', async (t) => {
  const worlds = {
    many: Array.from({ length: 30 }, (_, i) => `100.${100 + Math.floor(i / 3)}.0.${i + 1}`),
    one: Array.from({ length: 30 }, (_, i) => `100.66.0.${i + 1}`),
  }
  for (const [world, addresses] of Object.entries(worlds)) {
    const tables = compile([aMesh(), ...addresses.flatMap((address, i) => node(`n${i}`, address))])
    const drawn = new Map<string, number>()
    for (let i = 0; i < 6_000; i++) {
      const found = ask(tables, '9.9.9.9', { policy: 'random', limit: 5, networkShare: QUARTER })
      for (const name of names(found)) drawn.set(name, (drawn.get(name) ?? 0) + 1)
    }
    // 30,000 draws over 30: 1,000 each. Chi-square with 29 degrees of freedom: over 58.3 once in a thousand.
    const chi = [...drawn.values()].reduce((sum, count) => sum + (count - 1_000) ** 2 / 1_000, 0)
    t.equal(drawn.size, 30)
    t.ok(chi < 58.3, `${world}: ${chi}`)
  }
})

// Joins are shared out.

const NAT = '203.0.113.9'
/** Members whose RTT from NAT's /24 is `ms`. */
const measured = (
  rows: readonly { name: string; ms: number; member?: Partial<Member> }[],
  service: Partial<Service> = {},
): Tables =>
  compile([
    aMesh({ tieMs: 5, ...service }),
    ...rows.flatMap(({ name, member }, i) =>
      node(name, `100.${i >> 8}.${i & 255}.1`, member === undefined ? {} : { member }),
    ),
    ofLocality({
      prefix: '203.0.113.0/24',
      evidence: rows.map(({ name, ms }) => ({ host: name, rttMs: ms, count: 3, atMs: 0, kind: 'active' })),
      incumbents: {},
    }),
  ])

/** How often each member is named in so many joins. */
const joins = (
  tables: Tables,
  count: number,
  clientOf: (i: number) => string,
  wish: Partial<Ask>,
): Map<string, number> => {
  const named = new Map<string, number>()
  for (let i = 0; i < count; i++) {
    for (const name of names(ask(tables, clientOf(i), wish))) named.set(name, (named.get(name) ?? 0) + 1)
  }
  return named
}

t.test(
  'with 10,000 joins no member is named 3 times its fair share, from one prefix or from many',
  async (t) => {
    // 30 within the tie, 20 well beyond.
    const tables = measured(
      Array.from({ length: 50 }, (_, i) => ({ name: `n${i}`, ms: i < 30 ? 10 + i / 10 : 60 + i })),
    )
    const worlds = {
      // Where nothing is known of prefixes all 50 are equals.
      'one prefix': { clientOf: () => NAT, equals: 30 },
      'many prefixes': { clientOf: (i: number) => `9.${i >> 8}.${i & 255}.1`, equals: 50 },
    }
    for (const [where, { clientOf, equals }] of Object.entries(worlds)) {
      for (const spread of ['latency', 'load', 'both'] as const) {
        // No load is told, so by load alone all are equals.
        const sharing = spread === 'load' ? 50 : equals
        const named = joins(tables, 10_000, clientOf, { spread, limit: 4 })
        const shares = Math.max(...named.values()) / ((10_000 * 4) / sharing)
        t.ok(shares < 1.3, `${where}, ${spread}: ${shares.toFixed(2)} fair shares at most`)
        t.equal(named.size, sharing, 'and everyone within the tie is named')
      }
    }
    const steady = joins(tables, 500, () => NAT, { spread: null, limit: 4 })
    t.equal(Math.max(...steady.values()), 500, 'by prefix alone all behind one NAT get the same')
  },
)

t.test(
  'in a large service joins are shared out among all within the tie, near or of unknown distance',
  async (t) => {
    const tables = compile([
      aMesh({ tieMs: 5 }),
      ...node('asker', VICTIM, { host: { coordinate: at(0) } }),
      ...Array.from({ length: 600 }, (_, i) =>
        node(`n${i}`, `100.${i % 200}.${i >> 8}.${i & 255}`, {
          host: { coordinate: at(i < 300 ? 10 + i / 100 : 40 + i) },
        }),
      ).flat(),
    ])
    t.ok(tables.service('mesh')!.index !== null)
    const selves = new Set([tables.hostRow('asker')])
    for (const [client, equals] of [
      [VICTIM, 300],
      ['9.9.9.9', 601],
    ] as const) {
      const wish: Partial<Ask> = { selves, spread: 'latency', limit: 4, networkShare: QUARTER }
      const named = joins(tables, 2_000, () => client, wish)
      const shares = Math.max(...named.values()) / ((2_000 * 4) / equals)
      t.ok(shares < 3, `${client}: ${shares.toFixed(2)} fair shares at most`)
      t.ok(named.size > 0.99 * (equals - 1), `${named.size} of ${equals} are named`)
    }
    tables.apply(
      Array.from({ length: 600 }, (_, i) =>
        node(`n${i}`, `100.${i % 200}.${i >> 8}.${i & 255}`, {
          host: { coordinate: at(i < 300 ? 10 + i / 100 : 40 + i) },
          member: { capacity: 10, load: i === 599 || i === 450 ? 0 : 9 },
        }),
      ).flat(),
    )
    const idle = (sort: Ask['spread']) =>
      names(ask(tables, VICTIM, { selves, spread: sort, limit: 2 })).sort()
    t.same(idle('load'), ['n450', 'n599'], 'by load the idle are found wherever they are')
    const near = (name: string) => Number(name.slice(1)) < 300
    t.ok(idle('both').every(near), 'by both, not so far away')
    const carry = (loadOf: (i: number) => number) =>
      tables.apply(
        Array.from({ length: 600 }, (_, i) =>
          ofMember(aMember(`n${i}`, { service: 'mesh', capacity: 10, load: loadOf(i) })),
        ),
      )
    carry((i) => (i < 590 ? 10 : 5))
    t.equal(
      idle('latency').filter((name) => name !== 'asker' && Number(name.slice(1)) >= 590).length,
      2,
      'behind 590 that are full',
    )
    carry(() => 10)
    t.equal(idle('latency').length, 2, 'where all are full somebody is named all the same')
  },
)

t.test('by latency, by load or by both: ties aside, the order is that of the cost', async (t) => {
  const rows = [
    { name: 'near-busy', ms: 5, member: { capacity: 10, load: 9 } },
    { name: 'near-untold', ms: 10 },
    { name: 'mid-idle', ms: 20, member: { capacity: 10, load: 0 } },
    { name: 'far-idle', ms: 150, member: { capacity: 100, load: 1 } },
  ]
  const tables = measured(rows, { tieMs: 0 })
  const order = (spread: Ask['spread']) => names(ask(tables, NAT, { spread }))
  t.same(order('latency'), ['near-busy', 'near-untold', 'mid-idle', 'far-idle'])
  t.same(order('load'), ['mid-idle', 'far-idle', 'near-untold', 'near-busy'])
  // 5 + 180, 10 + 20, 20 + 0, 150 + 0.2 ms.
  t.same(order('both'), ['mid-idle', 'near-untold', 'far-idle', 'near-busy'])
  const unknown = measured([...rows, { name: 'lost', ms: 1 }], { tieMs: 0 })
  unknown.apply([
    ofLocality({
      prefix: '203.0.113.0/24',
      evidence: rows.map(({ name, ms }) => ({ host: name, rttMs: ms, count: 3, atMs: 0, kind: 'active' })),
      incumbents: {},
    }),
  ])
  t.equal(names(ask(unknown, NAT, { spread: 'both' })).at(-1), 'lost', 'unknown distance comes last')
})

t.test(
  'an answer by chance says that the place counts, not the prefix; one by load alone, neither',
  async (t) => {
    const tables = measured([
      { name: 'a', ms: 10 },
      { name: 'b', ms: 11 },
    ])
    const scope = (spread: Ask['spread']) => ask(tables, NAT, { spread }).scopeBits
    t.equal(scope('load'), 0)
    t.equal(scope('latency'), locate(tables, parseAddress(NAT)!).scopeBits)
    t.equal(scope('both'), scope('latency'))
  },
)

// Rings, regions, oneself.

t.test('a ring holds who is in it, a region who says so, and nobody of whom it is not known', async (t) => {
  const rows = Array.from({ length: 40 }, (_, i) => ({
    name: `n${i}`,
    ms: 5 * i + 1,
    member: { attributes: { region: i % 2 === 0 ? 'eu' : 'us', tier: i % 4 === 0 ? '0' : '1' } },
  }))
  const tables = measured(rows, { tieMs: 0 })
  tables.apply(node('unknown', '100.200.0.1', { member: { attributes: { region: 'eu' } } }))
  const within = (minMs: number, maxMs: number, where = {}) =>
    names(ask(tables, NAT, { minMs, maxMs, where, limit: 1000 }))
  const expected = (minMs: number, maxMs: number) =>
    rows.filter(({ ms }) => ms >= minMs && ms <= maxMs).map(({ name }) => name)
  for (const [minMs, maxMs] of [
    [0, 50],
    [50, 100],
    [51, 51],
    [100, 1e9],
    [0, 0.5],
  ] as const)
    t.same(within(minMs, maxMs), expected(minMs, maxMs), `${minMs}..${maxMs}`)
  t.same(within(20, 40, { region: 'eu' }), ['n4', 'n6'])
  t.same(within(20, 40, { region: 'eu', tier: '0' }), ['n4'])
  t.equal(
    within(0, Number.POSITIVE_INFINITY, { region: 'eu' }).length,
    21,
    'a region alone needs no distance',
  )
  const random = names(ask(tables, NAT, { policy: 'random', maxMs: 50, where: { region: 'us' }, limit: 9 }))
  t.ok(random.length > 0 && random.every((name) => rows.find((row) => row.name === name)!.ms <= 50))
  t.equal(reasonOf(ask(tables, NAT, { maxMs: 50 }), 'unknown'), 'too-far')
})

t.test('all hosts of an address are found, and who shows which it is stands where that one is', async (t) => {
  const tables = compile([
    aMesh(),
    ...node('left', NAT, { host: { coordinate: at(0) } }),
    ...node('right', NAT, { host: { coordinate: at(0, 1) } }),
    ...node('gone', NAT, { host: { presence: 'silent' } }),
    ...node('far', '100.64.0.1', { host: { coordinate: at(80) } }),
  ])
  const client = parseAddress(NAT)!
  const rows = tables.hosts.rowsAt(client)
  t.same(
    rows.map((row) => tables.hostName(row)),
    ['left', 'right'],
  )
  t.same(tables.hosts.rowsAt(parseAddress('9.9.9.9')!), [])
  t.same(names(ask(tables, NAT, { selves: new Set(rows) })), ['far'])
  const right = tables.hostRow('right')
  const selves = new Set([right])
  const locality = locate(tables, client, right)
  const own = select(tables, tables.service('mesh')!, locality, { ...ANY_ASK, selves }, rng)
  t.same(names(own), ['left', 'far'])
  t.equal(locality.host, right)
  t.equal(Math.round(own.picks[1]!.ms), Math.round(Math.hypot(80, 0)), 'measured from itself')
})

// Gateways.

t.test('a gateway is live in both services, whichever of the two is walked through', async (t) => {
  const part = (name: string, service: string, wish: Partial<Member> = {}) =>
    ofMember(aMember(`${name}-${service}`, { service, host: name, port: 1000 + service.length, ...wish }))
  const hosts = ['both', 'a-only', 'b-only', 'down-in-b', 'left-b', 'wrong-region', 'twice', 'silent', 'self']
  const changes = [
    ofService(aService({ name: 'a' })),
    ofService(aService({ name: 'bb', where: { region: 'eu' } })),
    ...hosts.map((name, i) =>
      ofHost(
        aHost(name, {
          addresses: [`192.0.2.${i + 1}`],
          coordinate: at(10 * i),
          presence: name === 'silent' ? 'silent' : 'live',
        }),
      ),
    ),
    ...hosts.filter((name) => name !== 'b-only').map((name) => part(name, 'a')),
    ...['both', 'b-only', 'silent', 'self'].map((name) => part(name, 'bb', { attributes: { region: 'eu' } })),
    part('down-in-b', 'bb', { attributes: { region: 'eu' }, health: 'down' }),
    part('left-b', 'bb', { attributes: { region: 'eu' }, left: true }),
    part('wrong-region', 'bb', { attributes: { region: 'us' } }),
    part('twice', 'bb', { attributes: { region: 'eu' }, drained: true }),
    ofMember(aMember('a-second', { service: 'bb', host: 'twice', port: 9, attributes: { region: 'eu' } })),
  ]
  const tables = compile(changes)
  const between = (from: string, to: string) => {
    const other = tables.service(to)!
    const serving = gatewayCandidates(tables, tables.service(from)!, other)
    const selves = new Set([tables.hostRow('self')])
    const wanted: Ask = { ...ANY_ASK, policy: 'nearest', alsoIn: other, selves }
    return select(tables, serving, locate(tables, parseAddress('192.0.2.9')!), wanted, rng)
  }
  const hostsOf = (selection: Selection) => selection.picks.map(({ member }) => member.hostName)
  t.same(hostsOf(between('a', 'bb')), ['twice', 'both'], 'nearest to the asker first')
  t.same(hostsOf(between('bb', 'a')), ['twice', 'both'])
  t.equal(reasonOf(between('a', 'bb'), 'down-in-b-a'), 'not-in-both')
  t.equal(reasonOf(between('a', 'bb'), 'wrong-region-a'), 'not-in-both')

  const crowd = Array.from({ length: 300 }, (_, i) => [
    ofHost(aHost(`h${i}`, { addresses: [`192.0.3.${i % 250}`], coordinate: at(200 + i) })),
    part(`h${i}`, 'a'),
  ]).flat()
  tables.apply(crowd)
  const small = gatewayCandidates(tables, tables.service('a')!, tables.service('bb')!)
  t.ok(small.members.length < 10, 'of a large service only those that the small one leads to')
  t.equal(gatewayCandidates(tables, tables.service('bb')!, tables.service('a')!), tables.service('bb'))
  t.same(hostsOf(between('a', 'bb')), ['twice', 'both'])

  // Two large ones with few hosts in common.
  tables.apply(
    ['a', 'bb'].flatMap((service) =>
      Array.from({ length: service === 'a' ? 6_000 : 7_000 }, (_, i) => [
        ofHost(aHost(`${service}${i}`, { addresses: [`10.${i >> 8}.${i & 255}.1`], coordinate: at(5) })),
        part(`${service}${i}`, service, { attributes: { region: 'eu' } }),
      ]).flat(),
    ),
  )
  t.same(hostsOf(between('a', 'bb')), ['twice', 'both'], 'behind thousands that are nearer, and no gateways')
  t.same(hostsOf(between('bb', 'a')), ['twice', 'both'])
})
