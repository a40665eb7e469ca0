// The answer engine: tables, locate, select, explain; each promise of its contract as a sentence.

import t from 'tap'
import { type Address, formatAddress, parseAddress, parsePrefix, prefixOf } from '../../resolver/address.ts'
import { ANY_ASK, type Ask } from '../../resolver/ask.ts'
import {
  applyChanges,
  type Change,
  type Coordinate,
  type Directory,
  emptyDirectory,
  type Geography,
  type Host,
  type LocalityRecord,
  type Member,
  type Place,
  type Service,
} from '../../resolver/directory.ts'
import { explain, explainLocality, whyLines } from '../../resolver/explain.ts'
import { fibreFloorMs, geoRttMs, greatCircleKm } from '../../resolver/geo.ts'
import { hashClient, hashShare, hashText } from '../../resolver/hash.ts'
import { locate, predict } from '../../resolver/locate.ts'
import { correctMap } from '../../resolver/map-correction.ts'
import { Panel } from '../../resolver/panel.ts'
import { placeChanges } from '../../resolver/place-page.ts'
import { placeBySightings } from '../../resolver/placement.ts'
import { answerCount, type Selection, select } from '../../resolver/select.ts'
import { isProofEnough, memberState, nextShedShare } from '../../resolver/serving.ts'
import { Tables } from '../../resolver/tables.ts'
import * as records from '../support/records.ts'
import { ofHost, ofLocality, ofMember, ofService } from '../support/records.ts'
import { seededRng } from '../support/seeded-rng.ts'

const aService = (wish: Partial<Service> = {}): Service => records.aService({ verify: 'echo', ...wish })

const aHost = (name: string, wish: Partial<Host> = {}): Host =>
  records.aHost(name, { addresses: [`198.51.100.${1 + (hashText(name) % 254)}`], home: 'c1', ...wish })

const aMember = (name: string, wish: Partial<Member> = {}): Member =>
  records.aMember(name, { port: 80, url: `https://${name}.example/`, ...wish })

/** A point on a line through the space: distances are differences, apart from the heights. */
const at = (x: number, heightMs = 0): Coordinate => ({
  vec: [x, 0, 0, 0, 0, 0, 0, 0],
  heightMs,
  adjustmentMs: 0,
  error: 0.1,
})

/** The page of a region, with these imported places added to those that it has. */
const aPlace = (text: string, place: Place, pages: Directory['places'] = new Map()): Change => {
  const fact = { place, asn: null, country: null, source: 'list.csv' }
  return placeChanges(pages, [{ prefix: parsePrefix(text)!, fact }])[0]!
}

const aLocality = (prefix: string, wish: Partial<LocalityRecord> = {}): LocalityRecord => ({
  prefix,
  evidence: [],
  incumbents: {},
  ...wish,
})

const seen = (host: string, rttMs: number, count = 3, kind: 'active' | 'passive' | 'client' = 'active') => ({
  host,
  rttMs,
  count,
  atMs: 1000,
  kind,
})

const compile = (...changes: Change[]): Tables => {
  const tables = new Tables()
  tables.apply(changes)
  return tables
}

const ip = (text: string): Address => parseAddress(text)!

/** Asks for a client, with a chance that is the same each time. */
const ask = (tables: Tables, client: string, wish: Partial<Ask> = {}, service = 'web'): Selection =>
  select(tables, tables.service(service)!, locate(tables, ip(client)), { ...ANY_ASK, ...wish }, seededRng(1))

const names = (selection: Selection): string[] => selection.picks.map((p) => p.member.name)
const reasons = (selection: Selection): Record<string, string> =>
  Object.fromEntries(selection.dropped.map((d) => [d.member.name, d.reason]))

const CLIENT = '203.0.113.9'
/** Members a, b, c at these RTTs from CLIENT's /24. */
const measuredWorld = (
  msOf: Record<string, number>,
  service: Partial<Service> = {},
  members: Record<string, Partial<Member>> = {},
) =>
  compile(
    ofService(aService(service)),
    ...Object.keys(msOf).flatMap((name, i) => [
      ofHost(aHost(name, { addresses: [`198.51.100.${i + 1}`], presenceSinceMs: i })),
      ofMember(aMember(name, members[name])),
    ]),
    ofLocality(aLocality('203.0.113.0/24', { evidence: Object.entries(msOf).map(([h, ms]) => seen(h, ms)) })),
  )

// Tables.

t.test('the tables say the same whatever way the records came in', async (t) => {
  const rng = seededRng(42)
  const pick = <T>(items: readonly T[]): T => items[Math.floor(rng() * items.length)]!
  const hostNames = ['h1', 'h2', 'h3', 'h4', 'h5']
  const directory = emptyDirectory()
  const randomChange = (): Change => {
    const name = pick(hostNames)
    const gone = rng() < 0.25
    const kind = pick(['services', 'hosts', 'members', 'localities', 'places'] as const)
    if (kind === 'services') {
      const service = pick(['web', 'db'])
      const value = aService({
        name: service,
        verify: pick(['echo', 'seen', 'none']),
        aliases: rng() < 0.5 ? [`${service}-alias`] : [],
      })
      return { kind, key: service, value: gone ? null : value }
    }
    if (kind === 'hosts') {
      const value = aHost(name, {
        addresses: [`192.0.2.${1 + Math.floor(rng() * 4)}`],
        presence: pick(['live', 'live', 'silent', 'left']),
        coordinate: rng() < 0.7 ? at(100 * rng()) : null,
        place: rng() < 0.5 ? { lat: 90 * rng(), lon: 90 * rng(), accuracyKm: 10 } : null,
      })
      return { kind, key: name, value: gone ? null : value }
    }
    if (kind === 'members') {
      const value = aMember(pick(['m1', 'm2', 'm3']), {
        service: pick(['web', 'db']),
        host: name,
        health: pick(['up', 'down']),
      })
      return { kind, key: `${value.service}/${value.name}`, value: gone ? null : value }
    }
    const prefix = pick(['203.0.113.0/24', '203.0.112.0/20', '192.0.2.0/24', '2001:db8::/48'])
    const evidence =
      rng() < 0.7 ? hostNames.slice(0, 1 + Math.floor(4 * rng())).map((h) => seen(h, 50 * rng())) : []
    if (kind === 'places') {
      const change = aPlace(prefix, { lat: 10, lon: 10 * rng(), accuracyKm: 10 }, directory.places)
      return gone ? ({ ...change, value: null } as Change) : change
    }
    return { kind, key: prefix, value: gone ? null : aLocality(prefix, { evidence }) }
  }
  const clients = ['203.0.113.9', '203.0.114.1', '192.0.2.1', '192.0.2.3', '2001:db8::1', '8.8.8.8']
  const told = (tables: Tables) =>
    clients.map((client) => {
      const locality = locate(tables, ip(client))
      const answers = ['web', 'db', 'web-alias'].map((name) => {
        const serving = tables.service(name)
        if (!serving) return null
        const selection = select(tables, serving, locality, ANY_ASK, () => 0.5)
        const story = explain(tables, serving, locality, selection, 0)
        return [...story.members].sort((a, b) => (a.name < b.name ? -1 : 1))
      })
      return {
        at: tables.hostName(tables.hostRowAt(ip(client))),
        where: explainLocality(tables, locality, 0),
        answers,
      }
    })
  const grown = new Tables()
  for (let step = 0; step < 1500; step++) {
    const change = randomChange()
    applyChanges(directory, [change])
    grown.apply([change])
    if (step % 15 > 0) continue
    const records: Change[] = []
    for (const kind of ['localities', 'places', 'members', 'hosts', 'services'] as const) {
      for (const [key, value] of directory[kind]) records.push({ kind, key, value } as Change)
    }
    t.same(told(grown), told(compile(...records)), `step ${step}`)
  }
})

t.test('a member is left, silent, drained, down, unverified or live, the first that applies', async (t) => {
  const live = aHost('h')
  const rows: [string, Partial<Member>, Host | null, boolean][] = [
    ['live', {}, live, true],
    ['live', { health: 'unknown' }, live, true],
    ['unverified', {}, live, false],
    ['down', { health: 'down' }, live, false],
    ['drained', { health: 'down', drained: true }, live, true],
    ['silent', { drained: true }, aHost('h', { presence: 'silent' }), true],
    ['silent', {}, null, true],
    ['left', { drained: true }, aHost('h', { presence: 'left' }), true],
    ['left', { left: true, health: 'down' }, live, true],
  ]
  for (const [state, wish, host, proven] of rows)
    t.equal(memberState(aMember('m', wish), host, proven), state)
})

t.test('an address is served once it is proven as the service asks', async (t) => {
  const table = {
    echo: [true, false, true, false],
    seen: [true, true, true, false],
    none: [true, true, true, true],
  }
  for (const [verify, enough] of Object.entries(table)) {
    const got = (['echo', 'seen', 'vouched', undefined] as const).map((p) =>
      isProofEnough(verify as 'echo', p),
    )
    t.same(got, enough, verify)
  }
  const host = aHost('a', {
    addresses: ['192.0.2.1', '192.0.2.2', '2001:db8::1'],
    proofs: { '192.0.2.2': 'echo' },
  })
  const member = compile(ofService(aService()), ofHost(host), ofMember(aMember('a'))).member('web', 'a')!
  t.same(member.addresses4.map(formatAddress), ['192.0.2.2'])
  t.same(member.addresses6, [])
})

t.test('a live host is found by its proven addresses, a silent one is not', async (t) => {
  const tables = compile(
    ofHost(aHost('b', { addresses: ['192.0.2.1'] })),
    ofHost(aHost('a', { addresses: ['192.0.2.1'] })),
  )
  const name = () => tables.hostName(tables.hostRowAt(ip('192.0.2.1')))
  t.equal(name(), 'a', 'of two at one address the first by name')
  tables.apply([ofHost(aHost('a', { addresses: ['192.0.2.1'], presence: 'silent' }))])
  t.equal(name(), 'b')
  tables.apply([ofHost(aHost('b', { addresses: ['192.0.2.1'], proofs: {} }))])
  t.equal(tables.hostRowAt(ip('192.0.2.1')), -1)
})

t.test('shedding starts at capacity, grows while load stays high, is held, and ends under 80%', async (t) => {
  t.equal(nextShedShare(0, null, 10), 0)
  t.equal(nextShedShare(0, 9.9, 10), 0, 'not before capacity')
  t.ok(nextShedShare(0, 10, 10) > 0, 'at capacity')
  t.ok(nextShedShare(0, 20, 10) >= 0.5, 'at least the excess')
  const held = nextShedShare(0, 12, 10)
  t.ok(nextShedShare(held, 12, 10) > held, 'grows')
  t.equal(nextShedShare(held, 9, 10), held, 'held')
  t.equal(nextShedShare(held, 8, 10), held, 'held at 80%')
  t.equal(nextShedShare(held, 7.9, 10), 0, 'ends')
  t.ok(nextShedShare(1, 1e9, 10) <= 1)
  const tables = compile(
    ofService(aService()),
    ofHost(aHost('a')),
    ofMember(aMember('a', { capacity: 10, load: 15 })),
  )
  const share = () => tables.member('web', 'a')!.shedShare
  const begun = share()
  tables.apply([ofHost(aHost('a', { coordinate: at(1) }))])
  t.equal(share(), begun, 'a change of the host is no report of load')
  tables.apply([ofMember(aMember('a', { capacity: 10, load: 9 }))])
  t.equal(share(), begun, 'remembered from report to report')
})

// Locate.

const geographyOf = (places: Record<string, [number, number]>): Geography => ({
  lookup(address) {
    const found = places[formatAddress(address)]
    return found ? { lat: found[0], lon: found[1], accuracyKm: 20 } : null
  },
})

t.test(
  'what is known of a client goes down the ladder member, measured, coordinate, geo, none',
  async (t) => {
    const tables = compile(
      ofHost(
        aHost('a', {
          addresses: ['192.0.2.1'],
          coordinate: at(0),
          place: { lat: 50, lon: 8, accuracyKm: 1 },
        }),
      ),
      ofHost(
        aHost('b', {
          addresses: ['192.0.2.2'],
          coordinate: at(40),
          place: { lat: 40, lon: -74, accuracyKm: 1 },
        }),
      ),
      ofHost(aHost('c', { addresses: ['192.0.2.3'], coordinate: at(100) })),
      ofLocality(aLocality('203.0.113.0/24', { evidence: [seen('a', 10), seen('b', 30), seen('x', 90)] })),
      ofLocality(
        aLocality('198.18.0.0/24', { evidence: [seen('a', 10, 1), seen('b', 30, 1), seen('c', 90, 1)] }),
      ),
      aPlace('198.19.0.0/16', { lat: 50, lon: 9, accuracyKm: 50 }),
    )
    const bases: Record<string, string> = {
      '192.0.2.1': 'member',
      '203.0.113.77': 'measured',
      '198.18.0.5': 'coordinate',
      '198.19.200.1': 'geo',
      '9.9.9.9': 'none',
    }
    for (const [client, basis] of Object.entries(bases))
      t.equal(locate(tables, ip(client)).basis, basis, client)

    const from = (client: string, host: string) =>
      predict(tables, locate(tables, ip(client)), tables.hostRow(host))
    t.same(from('192.0.2.1', 'a'), { ms: 0, basis: 'member', errorMs: 0 })
    t.equal(from('192.0.2.1', 'c').ms, 100)
    t.match(from('203.0.113.77', 'b'), { ms: 30, basis: 'measured' })
    const bounded = from('203.0.113.77', 'c')
    t.equal(bounded.basis, 'coordinate')
    t.ok(bounded.ms >= 70 && bounded.ms <= 110, `between its triangles' bounds: ${bounded.ms}`)
    const guessed = from('198.18.0.5', 'c')
    t.equal(guessed.basis, 'coordinate', 'one sample does not outrank the fit')
    t.ok(Math.abs(guessed.ms - 90) < 15, `but moves it: ${guessed.ms}`)
    t.ok(
      from('198.19.0.1', 'a').ms < from('198.19.0.1', 'b').ms,
      'Frankfurt is nearer to Frankfurt than New York',
    )
    t.match(
      from('198.19.0.1', 'c'),
      { ms: Number.NaN, basis: 'none' },
      'a host without place is not on the map',
    )
  },
)

t.test('a client’s own word about itself never outranks a prediction', async (t) => {
  const hosts = ['a', 'b', 'c', 'd'].map((n, i) => ofHost(aHost(n, { coordinate: at(30 * i, 1) })))
  const honest = [seen('a', 31), seen('b', 2), seen('c', 32)]
  const with_ = (...more: ReturnType<typeof seen>[]) => {
    const tables = compile(
      ...hosts,
      ofLocality(aLocality('203.0.113.0/24', { evidence: [...honest, ...more] })),
    )
    return predict(tables, locate(tables, ip(CLIENT)), tables.hostRow('d'))
  }
  const fair = with_()
  const lied = with_(seen('d', 0, 1_000_000, 'client'))
  t.equal(lied.basis, 'coordinate')
  t.ok(lied.ms > fair.ms / 3, `${lied.ms} against ${fair.ms}`)
})

t.test('geography moves a prefix by its /24 or /48 as one, and a place on record outranks it', async (t) => {
  const tables = compile(
    ofHost(aHost('a', { addresses: ['192.0.2.1'] })),
    aPlace('198.19.0.0/16', { lat: 1, lon: 1, accuracyKm: 50 }),
  )
  tables.setGeography(
    geographyOf({ '203.0.113.0': [50, 8], '2001:db8:1::': [40, -74], '192.0.2.1': [48, 2] }),
  )
  t.match(locate(tables, ip('203.0.113.200')), { basis: 'geo', scopeBits: 120, place: { lat: 50 } })
  t.match(locate(tables, ip('2001:db8:1:2::3')), { basis: 'geo', scopeBits: 48, place: { lat: 40 } })
  t.match(locate(tables, ip('198.19.7.7')), { scopeBits: 112, place: { lat: 1 } })
  t.match(tables.hosts.placeOf(tables.hostRow('a')), { lat: 48 }, 'hosts without a place get theirs')
  t.equal(tables.hosts.placeOf(999), null)
})

// Belief.

/** Hosts in a plane, each with RTTs to all the others as `seenMs` has it. */
const meshedHosts = (
  spots: readonly (readonly [number, number])[],
  seenMs: (from: number, to: number, ms: number) => number = (_from, _to, ms) => ms,
) =>
  spots.map(([x, y], from) => {
    const meshMs: Record<string, number> = {}
    for (const [to, [ox, oy]] of spots.entries())
      if (to !== from) meshMs[`h${to}`] = seenMs(from, to, 2 + Math.hypot(x - ox, y - oy))
    return ofHost(aHost(`h${from}`, { addresses: [`198.51.100.${from + 1}`], meshMs }))
  })
const randomSpots = (count: number, seed: number) => {
  const rng = seededRng(seed)
  return Array.from({ length: count }, () => [200 * rng(), 200 * rng()] as const)
}

t.test(
  'RTTs in hand bound all others by triangles, and what is claimed is kept by nine of ten',
  async (t) => {
    const spots = randomSpots(30, 3)
    const clients = randomSpots(40, 4)
    let kept = 0
    let all = 0
    for (const [cx, cy] of clients) {
      const rttMs = (host: number) => 2 + Math.hypot(cx - spots[host]![0], cy - spots[host]![1])
      const evidence = [0, 7, 13, 21].map((host) => seen(`h${host}`, rttMs(host)))
      const tables = compile(...meshedHosts(spots), ofLocality(aLocality('203.0.113.0/24', { evidence })))
      const locality = locate(tables, ip(CLIENT))
      for (const host of spots.keys()) {
        const { ms, basis, errorMs } = predict(tables, locality, tables.hostRow(`h${host}`))
        if (basis === 'measured') continue
        t.equal(basis, 'coordinate')
        all++
        if (Math.abs(ms - rttMs(host)) <= errorMs) kept++
      }
    }
    t.ok(kept >= 0.9 * all, `${kept} of ${all}`)
  },
)

t.test('a well measured prefix that sees the world alike tells what the next one may see', async (t) => {
  // Two hosts stand at the same distances from all others and from the probed one, but the old prefix saw one of them near.
  const hosts = meshedHosts([
    [0, 0],
    [100, 0],
    [0, 100],
    [60, 60],
    [-60, -60],
  ])
  const old = [seen('h0', 85), seen('h1', 76), seen('h2', 74), seen('h3', 5), seen('h4', 170)]
  const fresh = [seen('h0', 86), seen('h1', 77)]
  const told = (...history: Change[]) => {
    const tables = compile(...hosts, ...history, ofLocality(aLocality('203.0.113.0/24', { evidence: fresh })))
    return predict(tables, locate(tables, ip(CLIENT)), tables.hostRow('h3')).ms
  }
  const alone = told()
  const taught = told(ofLocality(aLocality('192.0.2.0/24', { evidence: old })))
  t.ok(taught < 0.8 * alone, `${taught} after ${alone}`)
  const three = ofLocality(aLocality('192.0.2.0/24', { evidence: old.slice(0, 3) }))
  t.equal(told(three), alone, 'three RTTs make no witness')
})

t.test('a host that contradicts its peers weighs nothing, and who is lied about stays trusted', async (t) => {
  const spots = randomSpots(20, 5)
  const lies: Record<string, (ms: number, to: number) => number> = {
    halved: (ms) => ms / 2,
    doubled: (ms) => ms * 2,
    'made up': (_ms, to) => 7 * (to + 1),
  }
  for (const [kind, lie] of Object.entries(lies)) {
    const hosts = meshedHosts(spots, (from, to, ms) => (from < 2 ? lie(ms, to) : ms * (1 + 0.02 * (to % 2))))
    const evidence = [seen('h0', 1), seen('h5', 60), seen('h9', 80)]
    const tables = compile(...hosts, ofLocality(aLocality('203.0.113.0/24', { evidence })))
    const trusted = spots.map((_, i) => tables.hosts.isWitness(tables.hostRow(`h${i}`)))
    t.same(
      trusted,
      spots.map((_, i) => i >= 2),
      kind,
    )
    t.not(
      predict(tables, locate(tables, ip(CLIENT)), tables.hostRow('h0')).basis,
      'measured',
      'its word on a client',
    )
    const [a, b] = [tables.hostRow('h0'), tables.hostRow('h5')]
    const trueMs = 2 + Math.hypot(spots[0]![0] - spots[5]![0], spots[0]![1] - spots[5]![1])
    t.ok(
      Math.abs(tables.hosts.rttBetweenMs(a, b) - trueMs) < 0.03 * trueMs,
      'the others’ word on the way to it stands',
    )
  }
})

t.test('an honest host with unsteady ways is no witness, but is believed of itself', async (t) => {
  const spots = randomSpots(20, 5)
  const hosts = meshedHosts(spots, (from, to, ms) => (from === 0 ? ms * [1.4, 1, 0.72][to % 3]! : ms))
  const evidence = [seen('h0', 1), seen('h5', 60), seen('h9', 80)]
  const tables = compile(...hosts, ofLocality(aLocality('203.0.113.0/24', { evidence })))
  const row = tables.hostRow('h0')
  t.notOk(tables.hosts.isWitness(row))
  t.notOk(tables.hosts.isLiar(row))
  const told = predict(tables, locate(tables, ip(CLIENT)), row)
  t.match(told, { ms: 1, basis: 'measured' })
})

t.test('estimates among many hosts lag until enough moved, and are then as if compiled afresh', async (t) => {
  const spots = randomSpots(12, 9)
  const tables = compile(
    ...meshedHosts(spots),
    ofLocality(aLocality('203.0.113.0/24', { evidence: [seen('h0', 40), seen('h1', 50), seen('h2', 60)] })),
  )
  const told = (of: Tables) =>
    spots.map((_, i) => predict(of, locate(of, ip(CLIENT)), of.hostRow(`h${i}`)).ms)
  const before = told(tables)
  const moved = (share: number) => meshedHosts(spots, (_from, _to, ms) => share * ms)
  tables.apply(moved(1.5).slice(0, 1))
  t.same(told(tables), before, 'one of twelve moved')
  const measured = ofLocality(aLocality('203.0.113.0/24', { evidence: [seen('h3', 7)] }))
  tables.apply([measured])
  t.equal(told(tables)[3], 7, 'what was measured is told at once')
  for (const share of [1.2, 1.5]) tables.apply(moved(share))
  tables.apply(moved(2))
  const last = moved(2)[11]!
  tables.apply([last])
  t.same(told(tables), told(compile(...moved(2), measured)), 'two moves a host')
})

t.test('hosts side by side correct the map as one, and neighbours more than who is far', async (t) => {
  // Hosts 0 and 1 stand side by side, 2 is 10 ms from both, 3 is far from all.
  const hosts = compile(
    ...meshedHosts([
      [0, 0],
      [1, 0],
      [10, 0],
      [400, 0],
    ]),
  ).hosts
  const rows = [0, 1, 2, 3].map((i) => hosts.rowOf(`h${i}`))
  const mapMs = () => 50
  const corrected = (seen: readonly number[]) =>
    correctMap(
      hosts,
      seen.map((i) => ({ row: rows[i]!, rttMs: 100, weight: 1 })),
      mapMs,
    )
  t.equal(corrected([])(rows[2]!), 50, 'nothing measured')
  const [one, two, apart] = [[0], [0, 1], [0, 3]].map(corrected)
  t.ok(one!(rows[2]!) > 65 && one!(rows[2]!) < 100, 'towards what its neighbour saw')
  t.ok(one!(rows[3]!) > 50 && one!(rows[3]!) < 60, 'a little everywhere')
  t.ok(two!(rows[2]!) - one!(rows[2]!) < (one!(rows[2]!) - 50) / 2, 'a twin adds little')
  t.ok(apart!(rows[3]!) > one!(rows[3]!) + 10)
})

t.test('a wrong place on the map is outvoted by RTTs', async (t) => {
  const cities: [number, number][] = [
    [52.4, 4.9],
    [50.1, 8.7],
    [48.9, 2.3],
    [40.7, -74],
    [39, -77.5],
    [35.7, 139.7],
    [1.3, 103.8],
  ]
  const rttMs = (a: readonly number[], b: readonly number[]) =>
    geoRttMs(greatCircleKm({ lat: a[0]!, lon: a[1]! }, { lat: b[0]!, lon: b[1]! }))
  const hosts = cities.map((city, i) => {
    const meshMs: Record<string, number> = {}
    for (const [j, other] of cities.entries()) if (j !== i) meshMs[`h${j}`] = rttMs(city, other)
    const place = { lat: city[0], lon: city[1], accuracyKm: 10 }
    return ofHost(aHost(`h${i}`, { addresses: [`198.51.100.${i + 1}`], meshMs, place }))
  })
  const members = cities.map((_, i) => ofMember(aMember(`h${i}`)))
  const tokyo = [35.6, 139.8] as const
  const world = (evidence: ReturnType<typeof seen>[]) => {
    const tables = compile(
      ofService(aService()),
      ...hosts,
      ...members,
      ofLocality(aLocality('203.0.113.0/24', { evidence })),
    )
    tables.setGeography(geographyOf({ '203.0.113.0': [51, 5] }))
    return tables
  }
  t.equal(names(ask(world([]), CLIENT))[0], 'h0', 'nothing else being known the map is followed')
  const measured = [0, 1, 3].map((i) => seen(`h${i}`, rttMs(tokyo, cities[i]!)))
  t.ok(['h5', 'h6'].includes(names(ask(world(measured), CLIENT))[0]!), 'three RTTs put the client in Asia')
})

t.test('until it was measured a client is taken to be beside a host of its own network', async (t) => {
  const place = { lat: 50, lon: 10, accuracyKm: 25 }
  const hosts = [
    aHost('near', { addresses: ['11.0.3.1'], coordinate: at(100, 1), place }),
    aHost('between', { addresses: ['12.0.0.1'], coordinate: at(90, 1), place }),
    aHost('far', { addresses: ['13.0.0.1'], coordinate: at(0, 1), place }),
    aHost('lost', { addresses: ['11.0.4.1'], place: { ...place, lat: -40 } }),
  ]
  const tables = compile(
    ofService(aService()),
    ...hosts.flatMap((host) => [ofHost(host), ofMember(aMember(host.name))]),
  )
  tables.setGeography({ lookup: () => place })
  const told = (client: string) => {
    const locality = locate(tables, ip(client))
    const selection = select(tables, tables.service('web')!, locality, ANY_ASK, () => 0)
    const lines = whyLines(tables, tables.service('web')!, locality, selection)
    const kin = explainLocality(tables, locality, 0).kin
    return { kin, basis: selection.basis, order: names(selection), isSaid: /beside near/.test(lines.join()) }
  }
  const beside = { kin: 'near', basis: 'coordinate', isSaid: true }
  t.match(told('11.0.4.9'), beside, 'one that has no coordinate stands for nobody')
  t.same(told('11.0.4.9').order.slice(0, 3), ['near', 'between', 'far'])
  t.match(told('11.0.200.9'), { kin: null, basis: 'geo', isSaid: false }, 'a /20')
  t.match(told('10.0.3.9'), { kin: null }, 'a private range says nothing')
  t.match(told('11.0.3.1'), { kin: null, basis: 'member' }, 'a host is where it is')
  const peers = ['between', 'far', 'lost']
  const rttTo = (names: readonly string[], ms: number) => Object.fromEntries(names.map((name) => [name, ms]))
  const saying = (ms: number) =>
    hosts.map((host) =>
      ofHost({ ...host, meshMs: host.name === 'near' ? rttTo(peers, ms) : rttTo(['near'], 100) }),
    )
  tables.apply(saying(10))
  t.match(told('11.0.4.9'), { kin: null }, 'who makes RTTs up stands for nobody')
  tables.apply(saying(100))
  t.match(told('11.0.4.9'), beside)
  tables.apply([ofLocality(aLocality('11.0.4.0/24', { evidence: [seen('far', 5)] }))])
  const { kin, order } = told('11.0.4.9')
  t.same([kin, order[0]], [null, 'far'], 'what was measured outranks the guess')
})

t.test('a host that is elsewhere than its address does not draw its neighbours’ clients away', async (t) => {
  const kinAmong = (x: number, y: number, z: number | null) => {
    const spots = [['11.0.4.8', x] as const, ['11.0.5.1', y] as const, ['11.0.6.1', z] as const]
    const tables = compile(
      ...spots.flatMap(([address, spot], i) =>
        spot === null ? [] : [ofHost(aHost('xyz'[i]!, { addresses: [address], coordinate: at(spot, 1) }))],
      ),
    )
    return explainLocality(tables, locate(tables, ip('11.0.4.9')), 0).kin
  }
  t.equal(kinAmong(0, 10, 20), 'x', 'the nearest address')
  t.equal(kinAmong(150, 10, 20), 'y', 'unless the next two agree without it')
  t.equal(kinAmong(150, 10, 140), 'x', 'with it one of them')
  t.equal(kinAmong(150, 10, 300), 'x', 'nor where none agrees with another')
  t.equal(kinAmong(150, 10, null), 'x', 'one word against one')
})

t.test('a client is placed where its RTTs put it', async (t) => {
  const c = (x: number, y: number): Coordinate => ({ ...at(x), vec: [x, y, 0, 0, 0, 0, 0, 0] })
  const corners = [c(0, 0), c(100, 0), c(0, 100), c(100, 100)]
  const truth = [20, 30] as const
  const sightings = corners.map((coordinate) => ({
    coordinate,
    rttMs: Math.hypot(coordinate.vec[0]! - truth[0], coordinate.vec[1]! - truth[1]),
    weight: 1,
  }))
  const placed = placeBySightings(sightings)
  t.ok(Math.hypot(placed.vec[0]! - 20, placed.vec[1]! - 30) + placed.heightMs < 5, JSON.stringify(placed))
  t.ok(placed.error < 0.05)
  t.same(placeBySightings(sightings), placed, 'every core places it alike')
})

t.test('the map knows great circles, and light in fibre', async (t) => {
  const paris = { lat: 48.8566, lon: 2.3522 }
  const newYork = { lat: 40.7128, lon: -74.006 }
  t.ok(Math.abs(greatCircleKm(paris, newYork) - 5837) < 5)
  t.equal(greatCircleKm(paris, paris), 0)
  t.ok(Math.abs(greatCircleKm({ lat: 0, lon: 0 }, { lat: 0, lon: 180 }) - 20015) < 2, 'antipodes')
  t.ok(geoRttMs(5837) > fibreFloorMs(5837))
})

// Select.

t.test('nearest orders members by RTT and gives a reason for each passed over', async (t) => {
  const tables = measuredWorld({ far: 80, near: 5, mid: 30 })
  t.same(names(ask(tables, CLIENT)), ['near', 'mid', 'far'])
  const one = ask(tables, CLIENT, { limit: 1 })
  t.same(names(one), ['near'])
  t.same(reasons(one), { mid: 'farther', far: 'farther' })
  t.match(one, { basis: 'measured', scopeBits: 120, ttlSec: 30, allDown: null })
})

t.test('every reason to pass a member over is told', async (t) => {
  const rows: [string, Partial<Member>, Partial<Host>, Partial<Ask>][] = [
    ['silent', {}, { presence: 'silent' }, {}],
    ['left', {}, { presence: 'left' }, {}],
    ['down', { health: 'down' }, {}, {}],
    ['drained', { drained: true }, {}, {}],
    ['unverified', {}, { proofs: {} }, {}],
    ['family', {}, {}, { family: 6 }],
    ['no-port', { port: null }, {}, { want: 'port' }],
    ['no-url', { url: null }, {}, { want: 'url' }],
    ['where', { attributes: { tier: 'free' } }, {}, { where: { tier: 'paid' } }],
    ['excluded', {}, {}, { exclude: new Set(['b']) }],
    ['unreachable', {}, { reachable: null }, { reachableOnly: true }],
    ['too-near', {}, {}, { minMs: 25 }],
    ['too-far', {}, {}, { maxMs: 15 }],
    ['full', { load: 1e9 }, {}, {}],
    ['farther', {}, {}, { limit: 1 }],
  ]
  for (const [reason, member, host, wish] of rows) {
    const other = { addresses: ['192.0.2.7', '2001:db8::7'] }
    const tables = compile(
      ofService(aService()),
      ofHost(aHost('a', other)),
      ofMember(aMember('a', { attributes: { tier: 'paid' } })),
      ofHost(aHost('b', { addresses: ['192.0.2.8'], ...host })),
      ofMember(aMember('b', member)),
      ofLocality(
        aLocality('203.0.113.0/24', {
          evidence: [seen('a', reason === 'too-near' ? 30 : 10), seen('b', 20)],
        }),
      ),
    )
    t.match(reasons(ask(tables, CLIENT, wish)), { b: reason }, reason)
  }
  const tables = measuredWorld({ a: 10, b: 20 })
  t.match(reasons(ask(tables, CLIENT, { selves: new Set([tables.hostRow('b')]) })), { b: 'self' })
  t.match(
    reasons(
      ask(measuredWorld({ a: 10, b: 20 }, { where: { x: 'y' } }, { a: { attributes: { x: 'y' } } }), CLIENT),
    ),
    {
      b: 'where',
    },
  )
})

t.test(
  'members within tieMs share the clients by capacity, and one that leaves moves only its own',
  async (t) => {
    const prefixes = Array.from({ length: 3000 }, (_, i) => `100.${i >> 8}.${i & 255}.0`)
    const world = (...members: [string, number, number][]) => {
      const tables = compile(ofService(aService({ tieMs: 3 })))
      for (const [name, ms, capacity] of members) {
        tables.apply([ofHost(aHost(name)), ofMember(aMember(name, { capacity }))])
        tables.apply(
          prefixes.map((p) =>
            ofLocality(
              aLocality(`${p}/24`, {
                evidence: [
                  ...(tables.locality(tables.localityRow(`${p}/24`))?.evidence ?? []),
                  seen(name, ms),
                ],
              }),
            ),
          ),
        )
      }
      return tables
    }
    const all = world(['a', 10, 1], ['b', 12, 3], ['c', 13.5, 5])
    const less = world(['a', 10, 1], ['c', 13.5, 5])
    let b = 0
    for (const prefix of prefixes) {
      const first = names(ask(all, prefix))[0]
      t.not(first, 'c', 'too far for a tie')
      if (first === 'b') b++
      else if (names(ask(less, prefix))[0] !== first) t.fail('moved though its member stayed')
    }
    t.ok(Math.abs(b / prefixes.length - 0.75) < 0.03, `three quarters of the capacity: ${b}`)
  },
)

t.test(
  'a locality leaves its member only for a gain of stickyMs that is also clear in proportion',
  async (t) => {
    const rows: [number, number, string][] = [
      [50, 45, 'old'], // 5 ms: not enough
      [50, 41, 'old'], // 9 ms
      [50, 39, 'new'], // 11 ms and 78%
      [100, 85, 'old'], // 15 ms, but 85%
      [100, 79, 'new'],
      [9, 1, 'old'],
    ]
    for (const [oldMs, newMs, winner] of rows) {
      const tables = measuredWorld({ old: oldMs, new: newMs })
      const evidence = [seen('old', oldMs), seen('new', newMs)]
      tables.apply([ofLocality(aLocality('203.0.113.0/24', { evidence, incumbents: { web: 'old' } }))])
      t.equal(names(ask(tables, CLIENT))[0], winner, `${oldMs} -> ${newMs}`)
    }
    const dead = measuredWorld({ old: 10, new: 90 }, {}, { old: { health: 'down' } })
    dead.apply([
      ofLocality(aLocality('203.0.113.0/24', { evidence: [seen('new', 90)], incumbents: { web: 'old' } })),
    ])
    t.same(names(ask(dead, CLIENT)), ['new'], 'a dead one is left at once')
  },
)

t.test(
  'a full member turns away its share of prefixes; when all are full the least loaded comes first',
  async (t) => {
    const clients = Array.from({ length: 2000 }, (_, i) =>
      `100.64.${i >> 8}.${i & 255}`.replace('64', String(64 + (i >> 8))),
    )
    const hosts = [ofHost(aHost('a', { coordinate: at(0) })), ofHost(aHost('b', { coordinate: at(50) }))]
    const world = (a: Partial<Member>, b: Partial<Member>) =>
      compile(
        ofService(aService()),
        ...hosts,
        ofMember(aMember('a', a)),
        ofMember(aMember('b', b)),
        ofLocality(aLocality('100.0.0.0/8', { evidence: [seen('a', 5), seen('b', 50)] })),
      )
    const tables = world({ capacity: 10, load: 15 }, {})
    const share = tables.member('web', 'a')!.shedShare
    const prefixes = clients.map((_, i) => `100.${i >> 8}.${i & 255}.1`)
    const moved = prefixes.filter((client) => names(ask(tables, client))[0] === 'b').length
    t.ok(Math.abs(moved / prefixes.length - share) < 0.04, `${moved} of ${prefixes.length} for ${share}`)
    t.equal(ask(tables, prefixes[0]!).scopeBits, 120, 'the hash of the /24 decided')
    const full = world({ capacity: 10, load: 1e6 }, { capacity: 10, load: 5e5 })
    t.same(names(ask(full, prefixes[0]!)), ['b', 'a'])
  },
)

t.test('where nothing is known clients are spread by capacity, each staying where it is', async (t) => {
  const tables = compile(
    ofService(aService()),
    ...['a', 'b'].flatMap((n) => [ofHost(aHost(n)), ofMember(aMember(n, { capacity: n === 'a' ? 1 : 4 }))]),
  )
  let b = 0
  for (let i = 0; i < 2000; i++) {
    const first = names(ask(tables, `9.${i >> 8}.${i & 255}.1`))[0]
    if (first === 'b') b++
    if (i < 50) t.equal(names(ask(tables, `9.${i >> 8}.${i & 255}.200`))[0], first)
  }
  t.ok(Math.abs(b / 2000 - 0.8) < 0.04, `${b}`)
  t.match(ask(tables, '9.9.9.9'), { basis: 'none', scopeBits: 120, ties: 2 })
})

t.test('random is uniform, weighted is by weight, hash stays, failover goes by tier', async (t) => {
  const rng = seededRng(9)
  const members = {
    a: { weight: 1, attributes: { tier: '1' } },
    b: { weight: 3 },
    c: { weight: 0, attributes: { tier: '1' } },
  }
  const counts = (policy: 'random' | 'weighted') => {
    const tables = measuredWorld({ a: 1, b: 2, c: 3 }, { policy }, members)
    const serving = tables.service('web')!
    const locality = locate(tables, ip(CLIENT))
    const got: Record<string, number> = { a: 0, b: 0, c: 0 }
    for (let i = 0; i < 6000; i++) got[names(select(tables, serving, locality, ANY_ASK, rng))[0]!]!++
    return got
  }
  for (const n of Object.values(counts('random'))) t.ok(Math.abs(n - 2000) < 150, `${n}`)
  const { a, b, c } = counts('weighted')
  t.ok(Math.abs(a! - 1500) < 150 && Math.abs(b! - 4500) < 150, `${a} ${b}`)
  t.equal(c, 0, 'weight 0: only where nothing else is left')

  const hash = measuredWorld({ a: 1, b: 2, c: 3 }, { policy: 'hash' }, members)
  t.same(ask(hash, '203.0.113.1').picks, ask(hash, '203.0.113.250').picks)
  t.equal(names(ask(hash, CLIENT)).at(-1), 'c')
  t.equal(ask(hash, CLIENT).scopeBits, 120)

  const failover = measuredWorld({ a: 5, b: 90, c: 1 }, { policy: 'failover' }, members)
  t.same(names(ask(failover, CLIENT)), ['b', 'c', 'a'])
  t.equal(ask(failover, CLIENT, { limit: 1 }).scopeBits, 0, 'one member in the first tier: the same for all')
  t.equal(ask(failover, CLIENT).scopeBits, 120)
  for (const policy of ['random', 'weighted'] as const)
    t.equal(ask(failover, CLIENT, { policy }).scopeBits, 0)
})

t.test('a full tier gives way to the next tier, not to its own fullest', async (t) => {
  const members = { a: { load: 1e9 }, b: { load: 1e8 }, c: { attributes: { tier: '1' } } }
  t.same(names(ask(measuredWorld({ a: 1, b: 2, c: 90 }, { policy: 'failover' }, members), CLIENT)), ['c'])
})

t.test('when no member is live the service does as it says', async (t) => {
  const down: Record<string, Partial<Member>> = {
    gone: {},
    quiet: {},
    sick: { health: 'down' },
    parked: { drained: true },
  }
  const world = (allDown: Service['allDown']) => {
    const tables = measuredWorld({ gone: 1, quiet: 2, sick: 3, parked: 4 }, { allDown }, down)
    tables.apply([
      ofHost(aHost('gone', { presence: 'silent', presenceSinceMs: 10 })),
      ofHost(aHost('quiet', { presence: 'silent', presenceSinceMs: 20 })),
    ])
    return tables
  }
  const stale = ask(world({ mode: 'stale' }), CLIENT)
  t.same(
    names(stale),
    ['sick', 'quiet', 'gone'],
    'heard hosts first, then the last to fall silent; never the drained',
  )
  t.match(stale, { ttlSec: 5, ties: 1, scopeBits: 0, allDown: { mode: 'stale' } })
  t.match(reasons(stale), { parked: 'drained' })
  const fallback = { mode: 'fallback', addresses: ['192.0.2.99'], url: null } as const
  t.match(ask(world(fallback), CLIENT), { picks: [], allDown: fallback })
  t.match(ask(world({ mode: 'empty' }), CLIENT), { picks: [], allDown: { mode: 'empty' } })
  t.equal(
    ask(measuredWorld({ a: 1 }), CLIENT, { family: 6 }).allDown,
    null,
    'a live one of another family is not all down',
  )
})

t.test('DNS names as many addresses as are good, within the service’s bounds', async (t) => {
  const rows: [Record<string, number>, Partial<Service>, number][] = [
    [{ a: 10, b: 11.9 }, {}, 2], // within 20%
    [{ a: 10, b: 13 }, {}, 1],
    [{ a: 10, b: 13 }, { minAddrs: 2 }, 2],
    [{ a: 1, b: 2.5, c: 2.9 }, {}, 2], // within tieMs, at most maxAddrs
    [{ a: 1, b: 2.5, c: 2.9 }, { maxAddrs: 4 }, 3],
    [{ a: 1 }, { minAddrs: 3, maxAddrs: 4 }, 1],
    [{ a: 1, b: 1 }, { policy: 'random' }, 2],
    [{ a: 1, b: 1 }, { policy: 'weighted' }, 1],
  ]
  for (const [msOf, service, count] of rows) {
    const tables = measuredWorld(msOf, service)
    t.equal(
      answerCount(ask(tables, CLIENT), tables.service('web')!.service),
      count,
      JSON.stringify([msOf, service]),
    )
  }
})

t.test('a cache that honours scopes never gives an answer that asking directly would not', async (t) => {
  const rng = seededRng(77)
  const small = () => Math.floor(rng() * 4)
  // In public ranges hosts of the client's own network stand for it, in private ones they do not.
  let range = 10
  const address = () => `${range}.${small()}.${small()}.${small()}`
  for (let round = 0; round < 120; round++) {
    range = round < 60 ? 10 : 11
    const directory = emptyDirectory()
    const tables = compile(
      ofService(
        aService({
          policy: (['nearest', 'hash', 'failover'] as const)[round % 3]!,
          tieMs: round % 2 ? 20 : 0,
        }),
      ),
    )
    for (const [i, name] of ['a', 'b', 'c'].slice(0, 1 + (round % 3)).entries()) {
      const host = aHost(name, {
        addresses: [address()],
        coordinate: rng() < 0.6 ? at(100 * rng()) : null,
        place: { lat: 60 * rng(), lon: 60 * rng(), accuracyKm: 1 },
      })
      const load = rng() < 0.3 ? 1.3 : null
      tables.apply([ofHost(host), ofMember(aMember(name, { load, attributes: { tier: String(i % 2) } }))])
    }
    for (let i = 0; i < 6; i++) {
      const bits = [8, 14, 15, 16, 22, 23, 24, 30, 32][Math.floor(rng() * 9)]!
      const { address: base } = prefixOf(ip(address()), 96 + bits)
      const evidence =
        rng() < 0.6 ? [seen('a', 90 * rng()), seen('b', 90 * rng(), 1), seen('c', 90 * rng())] : []
      const place = { lat: 60 * rng(), lon: 60 * rng(), accuracyKm: 1 }
      if (rng() < 0.5) {
        const change = aPlace(`${formatAddress(base)}/${bits}`, place, directory.places)
        applyChanges(directory, [change])
        tables.apply([change])
      }
      tables.apply([
        ofLocality(
          aLocality(`${formatAddress(base)}/${bits}`, {
            evidence,
            incumbents: rng() < 0.3 ? { web: 'b' } : {},
          }),
        ),
      ])
    }
    if (rng() < 0.5)
      tables.setGeography({ lookup: (a) => ({ lat: 10 * a[14]!, lon: 10 * a[13]!, accuracyKm: 9 }) })
    for (let i = 0; i < 25; i++) {
      const asked = address()
      const cached = ask(tables, asked)
      const other = ip(address())
      const inScope =
        prefixOf(other, cached.scopeBits).address.join() ===
        prefixOf(ip(asked), cached.scopeBits).address.join()
      if (!inScope) continue
      const direct = ask(tables, formatAddress(other))
      t.same(
        [names(direct), direct.ties, direct.scopeBits],
        [names(cached), cached.ties, cached.scopeBits],
        `${asked}/${cached.scopeBits} ${formatAddress(other)}`,
      )
    }
  }
})

t.test('hashes tell prefixes apart at /24 and /48 and spread evenly', async (t) => {
  t.equal(hashClient(ip('192.0.2.1')), hashClient(ip('192.0.2.254')))
  t.not(hashClient(ip('192.0.2.1')), hashClient(ip('192.0.3.1')))
  t.equal(hashClient(ip('2001:db8:1:2::')), hashClient(ip('2001:db8:1:ffff::1')))
  t.not(hashClient(ip('2001:db8:1::')), hashClient(ip('2001:db8:2::')))
  const bins = new Array<number>(10).fill(0)
  for (let i = 0; i < 10_000; i++)
    bins[Math.floor(10 * hashShare(hashClient(ip(`10.${i >> 8}.${i & 255}.0`)), 7))]!++
  for (const bin of bins) t.ok(Math.abs(bin - 1000) < 120, `${bin}`)
})

// Explain.

t.test('an explanation names every member once, is JSON, and fits TXT strings', async (t) => {
  const longName = `m${'x'.repeat(60)}`
  const tables = measuredWorld(
    { a: 10, b: 20, [longName]: 30 },
    {},
    { b: { health: 'down' }, a: { load: 2 } },
  )
  tables.apply([ofMember(aMember('lost', { host: 'nowhere' }))])
  const serving = tables.service('web')!
  const locality = locate(tables, ip(CLIENT))
  const selection = select(tables, serving, locality, ANY_ASK, seededRng(1))
  const story = explain(tables, serving, locality, selection, 61_000, ['z'])
  t.same(JSON.parse(JSON.stringify(story)), story, 'nothing is lost on the way through JSON')
  t.same(story.members.map((m) => m.name).sort(), ['a', 'b', 'lost', longName].sort())
  t.match(story, { service: 'web', policy: 'nearest', client: CLIENT, allDown: null, wouldProbe: ['z'] })
  t.match(story.locality, {
    prefix: '203.0.113.0/24',
    basis: 'measured',
    evidence: [{ host: 'a', ageSec: 60 }],
  })
  t.match(
    story.members.find((m) => m.name === 'b'),
    { rank: null, reason: 'down', state: 'down', ms: 20 },
  )
  t.match(
    story.members.find((m) => m.name === 'lost'),
    { reason: 'silent', ms: null, errorMs: null },
  )
  for (const line of whyLines(tables, serving, locality, selection)) {
    t.ok(Buffer.byteLength(line) <= 255 && /^[\x20-\x7e]+$/.test(line), line)
  }
})

t.test('when all are full every client goes to the least relative load', async (t) => {
  const loads = {
    a: { capacity: 10, load: 30 },
    b: { capacity: 30, load: 60 },
    c: { capacity: 20, load: 100 },
  }
  const tables = measuredWorld({ a: 1, b: 200, c: 100 }, {}, loads)
  for (let i = 0; i < 100; i++) t.equal(names(ask(tables, `203.0.${i}.1`))[0], 'b')
})

t.test('where all weights are 0 each is as likely as the others', async (t) => {
  const rng = seededRng(3)
  const none = { a: { weight: 0 }, b: { weight: 0 }, c: { weight: 0 } }
  const weighted = measuredWorld({ a: 1, b: 2, c: 3 }, { policy: 'weighted' }, none)
  const hash = measuredWorld({ a: 1, b: 2, c: 3 }, { policy: 'hash' }, none)
  const drawn: Record<string, number> = { a: 0, b: 0, c: 0 }
  const hashed: Record<string, number> = { a: 0, b: 0, c: 0 }
  const serving = weighted.service('web')!
  for (let i = 0; i < 3000; i++) {
    drawn[names(select(weighted, serving, locate(weighted, ip(CLIENT)), ANY_ASK, rng))[0]!]!++
    hashed[names(ask(hash, `9.${i >> 8}.${i & 255}.1`))[0]!]!++
  }
  for (const count of [...Object.values(drawn), ...Object.values(hashed)]) {
    t.ok(Math.abs(count - 1000) < 120, `${count}`)
  }
})

t.test('whom an operator drained is not brought back when its host falls silent', async (t) => {
  const tables = compile(
    ofService(aService()),
    ofHost(aHost('a', { presence: 'silent' })),
    ofHost(aHost('b', { presence: 'silent' })),
    ofMember(aMember('a', { drained: true })),
    ofMember(aMember('b')),
  )
  t.same(names(ask(tables, CLIENT)), ['b'])
})

t.test(
  'the panel is those whose keys hash lowest, whatever came and went, and everyone is looked through rarely',
  async (t) => {
    const rng = seededRng(7)
    const size = 16
    const all = new Set<string>()
    let told = 0
    const panel = new Panel(size, function* () {
      for (const key of all) {
        told++
        yield key
      }
    })
    const wanted = () => [...all].sort((a, b) => hashText(a) - hashText(b) || (a < b ? -1 : 1)).slice(0, size)
    const change = (key: string) => {
      const before = wanted().includes(key)
      const isHere = all.delete(key)
      if (!isHere) all.add(key)
      const moved = isHere ? panel.remove(key) : panel.add(key)
      t.equal(moved, isHere ? before : wanted().includes(key))
      t.equal(panel.has(key), moved && !isHere)
    }
    for (let i = 0; i < 3000; i++) {
      change(`k${Math.floor(rng() * (i < 1500 ? 200 : 60))}`)
      t.same([...panel.keys()], wanted())
    }
    all.clear()
    const large = new Panel(size, function* () {
      for (const key of all) {
        told++
        yield key
      }
    })
    told = 0
    const keys = Array.from({ length: 20_000 }, (_, i) => `key ${i}`)
    for (const key of keys) {
      all.add(key)
      large.add(key)
    }
    t.equal(told, 0, 'nobody but who comes is looked at')
    for (const key of keys) {
      all.delete(key)
      large.remove(key)
    }
    t.ok(told < 3 * keys.length, `${told} looked at for ${keys.length} that went`)
  },
)
