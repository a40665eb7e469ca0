// Services of very many members: the point tree, the index and the vantages, each beside its obvious slow twin.

import t from 'tap'
import { formatAddress, parseAddress } from '../../resolver/address.ts'
import { ANY_ASK, type Ask } from '../../resolver/ask.ts'
import { CellLists, NO_LIST } from '../../resolver/cell-lists.ts'
import { ChangeRing, KNOWN_CHANGES } from '../../resolver/change-ring.ts'
import { positiveMs } from '../../resolver/coordinate.ts'
import type { Change, Coordinate, Host, Member, Place, Service } from '../../resolver/directory.ts'
import { explain, whyLines } from '../../resolver/explain.ts'
import { IdSet } from '../../resolver/id-set.ts'
import { measuredMs } from '../../resolver/locality-rows.ts'
import { locate, predict } from '../../resolver/locate.ts'
import { PointTree, type Search } from '../../resolver/point-tree.ts'
import { type Selection, select } from '../../resolver/select.ts'
import type { ServingMember } from '../../resolver/serving.ts'
import { Tables } from '../../resolver/tables.ts'
import { aHost, aMember, aService, locality, ofHost, ofMember, ofService } from '../support/records.ts'
import { seededRng } from '../support/seeded-rng.ts'

const ANYTHING: Search = {
  minDistance: Number.NEGATIVE_INFINITY,
  maxDistance: Number.POSITIVE_INFINITY,
  marks: 0,
  accepts: () => true,
}

interface Point {
  readonly values: readonly number[]
  readonly marks: number
}

/** Points in clusters, as sites are; some share a place exactly. */
function drawPoint(rng: () => number): Point {
  const site = Math.floor(rng() * 12)
  const vec = Array.from(
    { length: 8 },
    (_, i) => ((site * (i + 3) * 37) % 200) + (rng() < 0.1 ? 0 : 4 * rng()),
  )
  return { values: [...vec, 10 * rng() - 3], marks: Math.floor(rng() * 8) }
}

function distanceOf(place: readonly number[], { values }: Point): number {
  const squares = place.slice(0, 8).reduce((sum, x, i) => sum + (x - values[i]!) ** 2, 0)
  return Math.sqrt(squares) + values[8]!
}

/** The slow twin: all points weighed one by one. */
function nearestOf(
  points: ReadonlyMap<number, Point>,
  place: readonly number[],
  count: number,
  search: Search,
) {
  return [...points]
    .filter(([id, { marks }]) => (marks & search.marks) === search.marks && search.accepts(id))
    .map(([id, point]) => ({ id, distance: distanceOf(place, point) }))
    .filter(({ distance }) => distance >= search.minDistance && distance <= search.maxDistance)
    .sort((a, b) => a.distance - b.distance)
    .slice(0, count)
}

t.test('a point tree finds what weighing all points finds, whatever came, moved and went', async (t) => {
  const rng = seededRng(1)
  const tree = new PointTree(0)
  const points = new Map<number, Point>()
  let compared = 0
  for (let step = 0; step < 6000; step++) {
    const id = Math.floor(rng() * 1500)
    // First mostly arrivals, at last mostly departures.
    if (rng() < step / 8000) {
      tree.remove(id)
      points.delete(id)
    } else {
      const point = drawPoint(rng)
      tree.put(id, point.values, point.marks, id)
      points.set(id, point)
    }
    if (step % 40 > 0) continue
    const place = drawPoint(rng).values
    const searches = [
      ANYTHING,
      { ...ANYTHING, marks: 5 },
      { ...ANYTHING, minDistance: 30, maxDistance: 120 },
      { ...ANYTHING, accepts: (other: number) => other % 7 === 0 },
    ]
    for (const search of searches) {
      const count = 1 + Math.floor(rng() * 30)
      const found = tree.nearest(place, count, search)
      const wanted = nearestOf(points, place, count, search)
      const distances = [...found.distances.subarray(0, found.count)]
      if (found.count !== wanted.length)
        t.fail(`${found.count} of ${wanted.length} were found at step ${step}`)
      wanted.forEach(({ distance }, i) => {
        if (Math.abs(distance - distances[i]!) > 1e-3) t.fail(`step ${step}: ${distances[i]} for ${distance}`)
      })
      compared += wanted.length
    }
  }
  t.equal(tree.size, points.size)
  t.ok(compared > 5000, `${compared} points compared`)
})

t.test('a point tree empties, and takes a crowd at one place', async (t) => {
  const tree = new PointTree()
  const here = [5, 5, 5, 5, 5, 5, 5, 5, 1]
  for (let id = 0; id < 5000; id++) tree.put(id, here, 0, -id)
  t.equal(tree.nearest(here, 10_000, ANYTHING).count, 5000)
  for (let id = 0; id < 5000; id += 2) tree.remove(id)
  t.equal(tree.nearest(here, 10_000, ANYTHING).count, 2500)
  for (let id = 1; id < 5000; id += 2) tree.remove(id)
  t.equal(tree.size, 0)
  t.equal(tree.nearest(here, 10, ANYTHING).count, 0)
  tree.remove(3)
  tree.put(3, here, 0, 0)
  t.equal(tree.nearest(here, 10, ANYTHING).ids[0], 3)
})

t.test(
  'of points just as near a tree finds those of the lowest rank, in whatever order they came',
  async (t) => {
    const here = [5, 5, 5, 0, 0, 0, 0, 0, 0]
    const nearby = [5, 5, 5.1, 0, 0, 0, 0, 0, 0]
    const ids = Array.from({ length: 1000 }, (_, id) => id)
    for (const order of [
      ids,
      ids.toReversed(),
      ids.toSorted((a, b) => ((7 * a) % 1000) - ((7 * b) % 1000)),
    ]) {
      const tree = new PointTree(0)
      for (const id of order) tree.put(id, id % 100 === 0 ? nearby : here, 0, (id * 389) % 1000)
      const { ids: found, count } = tree.nearest(nearby, 30, ANYTHING)
      const wanted = ids.toSorted(
        (a, b) => Number(a % 100 > 0) - Number(b % 100 > 0) || ((a * 389) % 1000) - ((b * 389) % 1000),
      )
      t.same([...found.subarray(0, count)], wanted.slice(0, 30))
    }
  },
)

t.test('values beyond all RTTs break no point tree', async (t) => {
  const tree = new PointTree(0)
  const far = (x: number) => [x, -x, 0, 0, 0, 0, 0, 0, 0]
  for (let id = 0; id < 600; id++) tree.put(id, far(1e12 * (id % 3)), 0, 0)
  t.equal(tree.nearest(far(0), 200, ANYTHING).distances[199], 0)
  for (let id = 0; id < 600; id++) tree.remove(id)
  t.equal(tree.size, 0)
})

t.test("a list is found until others were written over it, and is nobody else's", async (t) => {
  const lists = new CellLists()
  const [one, other] = [lists.newKeeper(), lists.newKeeper()]
  t.equal(lists.find(one, 5), NO_LIST)
  const large = 1 << 20
  const kept = lists.add(one, 5, large)
  t.equal(lists.find(one, 5), kept)
  t.equal(lists.find(other, 5), NO_LIST)
  t.equal(lists.find(one, 6), NO_LIST)
  const known = [{ cell: 5, place: kept }]
  for (let cell = 6; cell < 200; cell++) {
    known.push({ cell, place: lists.add(one, cell, large) })
    for (const { cell, place } of known.slice(-16)) t.equal(lists.find(one, cell), place)
    for (const { cell } of known.slice(0, -16)) t.equal(lists.find(one, cell), NO_LIST)
  }
  t.ok(lists.add(one, 5, large) + large <= lists.words.length)
})

t.test('changes are known as far as they reach, until too many others came', async (t) => {
  // Also where the numbers of changes come round.
  for (const first of [0, 2 ** 31 - 1]) {
    const second = (first + 1) | 0
    const ring = new ChangeRing(first)
    const place = Float32Array.of(9, 1, 2, 3)
    ring.add(7, [1, 2, 6])
    ring.add(8, null)
    t.same([ring.count, ring.idOf(first), ring.idOf(second)], [(first + 2) | 0, 7, 8])
    t.same([ring.isTouched(first, place, 1, 3), ring.isTouched(first, place, 1, 2.9)], [true, false])
    t.equal(ring.isTouched(second, place, 1, 1e9), false, 'nowhere is far')
    t.equal(ring.isTouched(second, place, 1, Number.POSITIVE_INFINITY), true)
    for (let i = 0; i < KNOWN_CHANGES - 1; i++) ring.add(9, null)
    t.same([ring.isKnownSince(first), ring.isKnownSince(second)], [false, true])
  }
})

t.test('a set of ids gives each an own position and keeps no gaps', async (t) => {
  const set = new IdSet()
  for (const id of [7, 3, 900, 3]) set.add(id)
  set.remove(7)
  set.remove(8)
  t.same(Array.from({ length: set.size }, (_, i) => set.at(i)).sort(), [3, 900])
  t.same([set.has(7), set.has(900), set.size], [false, true, 2])
})

t.test('an RTT that sums up to nothing stays above 0 and keeps its rank', async (t) => {
  t.equal(positiveMs(25), 25)
  const sums = [-40, -3, 0, 1, 3.9, 4, 4.1]
  const bent = sums.map(positiveMs)
  t.ok(
    bent.every((ms, i) => ms > 0 && (i === 0 || ms > bent[i - 1]!)),
    bent.join(' '),
  )
})

// Whole services.

const SERVICE = 'crowd'

interface Crowd {
  readonly tables: Tables
  readonly rng: () => number
  readonly coordinate: () => Coordinate
}

function coordinateIn(rng: () => number): Coordinate {
  const site = Math.floor(rng() * 40)
  return {
    vec: Array.from({ length: 8 }, (_, i) => ((site * (i + 3) * 53) % 160) + 3 * rng()),
    heightMs: 5 * rng(),
    adjustmentMs: 2 * rng() - 1,
    error: 0.2,
  }
}

const addressOf = (i: number) => `10.0.${i >> 8}.${i & 255}`
const nodeHost = (i: number, over: Partial<Host>) => aHost(`n${i}`, { addresses: [addressOf(i)], ...over })
const nodeMember = (i: number, over: Partial<Member> = {}) => aMember(`n${i}`, { service: SERVICE, ...over })

/** 2,000 nodes: all have a coordinate; three in four a port, every fifth is reachable, regions and a few relays. */
function crowd(over: Partial<Service> = {}, size = 2000): Crowd {
  const rng = seededRng(2)
  const tables = new Tables()
  const coordinate = () => coordinateIn(rng)
  const changes: Change[] = [ofService(aService({ name: SERVICE, tieMs: 0, ...over }))]
  for (let i = 0; i < size; i++) {
    const attributes = { region: `r${i % 3}`, ...(i % 100 === 0 && { relay: 'yes' }) }
    changes.push(ofHost(nodeHost(i, { coordinate: coordinate(), reachable: i % 5 === 0 })))
    changes.push(ofMember(nodeMember(i, { attributes, port: i % 4 === 0 ? null : 4000 })))
  }
  tables.apply(changes)
  return { tables, rng, coordinate }
}

function ask({ tables, rng }: Crowd, client: string, wish: Partial<Ask>, indexed = true): Selection {
  const serving = tables.service(SERVICE)!
  const from = locate(tables, parseAddress(client)!)
  const wanted = { ...ANY_ASK, selves: new Set([from.host]), ...wish }
  return select(tables, indexed ? serving : { ...serving, index: null }, from, wanted, rng)
}

const namesOf = ({ picks }: Selection) => picks.map(({ member }) => member.name)

t.test('a large service is answered as a small one is, whatever is asked', async (t) => {
  const world = crowd()
  t.ok(world.tables.service(SERVICE)!.index, 'it has an index')
  const wishes: Record<string, Partial<Ask>> = {
    near: { limit: 20 },
    ring: { limit: 20, minMs: 60, maxMs: 90 },
    region: { limit: 20, where: { region: 'r1' } },
    relays: { limit: 5, where: { relay: 'yes' } },
    relaysOfARegion: { limit: 5, where: { relay: 'yes', region: 'r2' } },
    nobody: { limit: 5, where: { region: 'r9' } },
    ports: { limit: 20, want: 'port' },
    urls: { limit: 20, want: 'url' },
    reachable: { limit: 10, reachableOnly: true },
    ipv6: { limit: 10, family: 6 },
    more: { limit: 1000 },
  }
  let hits = 0
  let wanted = 0
  for (const [name, wish] of Object.entries(wishes)) {
    for (let client = 0; client < 2000; client += 97) {
      const near = ask(world, addressOf(client), { policy: 'nearest', ...wish })
      const truth = namesOf(ask(world, addressOf(client), { policy: 'nearest', ...wish }, false))
      const names = namesOf(near)
      t.equal(names.length, truth.length, `${name} for ${client}: as many`)
      hits += truth.filter((member) => names.includes(member)).length
      wanted += truth.length
    }
  }
  t.ok(hits >= 0.99 * wanted, `${hits} of ${wanted}`)
})

t.test('who is excluded, and the asker itself, never come back, and as many others do', async (t) => {
  const world = crowd()
  const exclude = new Set(namesOf(ask(world, addressOf(9), { policy: 'nearest', limit: 500 })))
  const next = ask(world, addressOf(9), { policy: 'nearest', limit: 20, exclude })
  t.equal(namesOf(next).length, 20)
  t.notOk(namesOf(next).some((name) => exclude.has(name) || name === 'n9'))
  t.same(namesOf(next), namesOf(ask(world, addressOf(9), { policy: 'nearest', limit: 20, exclude }, false)))
  const random = ask(world, addressOf(9), { policy: 'random', limit: 1000, exclude })
  t.equal(new Set(namesOf(random)).size, 1000)
  t.notOk(namesOf(random).some((name) => exclude.has(name) || name === 'n9'))
})

t.test('an index follows who joins, moves, drains, falls silent, changes and leaves', async (t) => {
  const world = crowd()
  const { tables, coordinate, rng } = world
  const number = () => Math.floor(rng() * 2300)
  const fits = (member: ServingMember, where: Record<string, string>) =>
    member.isOffered && Object.entries(where).every(([name, value]) => member.attributes[name] === value)
  let [hits, wanted] = [0, 0]
  for (let round = 0; round < 12; round++) {
    const changes: Change[] = []
    for (let k = 0; k < 60; k++) {
      const i = number()
      const presence = rng() < 0.2 ? ('silent' as const) : ('live' as const)
      changes.push(ofHost(nodeHost(i, { presence, coordinate: rng() < 0.2 ? null : coordinate() })))
      const attributes = { region: `r${Math.floor(rng() * 4)}`, ...(rng() < 0.3 && { relay: 'yes' }) }
      changes.push(ofMember(nodeMember(i, { attributes, drained: rng() < 0.2 })))
      const gone = number()
      changes.push({ kind: 'members', key: `${SERVICE}/n${gone}`, value: null })
    }
    tables.apply(changes)
    for (const where of [{}, { region: 'r1' }, { relay: 'yes' }] as Record<string, string>[]) {
      const wish = { policy: 'nearest', limit: 15, where } as const
      const client = addressOf(number())
      if (locate(tables, parseAddress(client)!).coordinate === null) continue
      const names = namesOf(ask(world, client, wish))
      const truth = namesOf(ask(world, client, wish, false))
      t.equal(names.length, truth.length, `round ${round}: as many`)
      t.ok(
        names.every((name) => fits(tables.member(SERVICE, name)!, where)),
        `round ${round}: all fit`,
      )
      hits += names.filter((name) => truth.includes(name)).length
      wanted += truth.length
    }
  }
  t.ok(hits >= 0.98 * wanted, `${hits} of ${wanted}`)
  const { index, members } = tables.service(SERVICE)!
  t.equal(index!.offered, members.filter(({ isOffered }) => isOffered).length)
  const live = members.filter(({ state }) => state === 'live').length
  t.same([tables.liveMembers(SERVICE), tables.live, tables.liveMembers('other')], [live, live, 0])
})

t.test('a service that shrinks gives its index up, and one that grows gets it', async (t) => {
  const { tables } = crowd({}, 511)
  t.equal(tables.service(SERVICE)!.index, null)
  tables.apply([ofHost(nodeHost(511, {})), ofMember(nodeMember(511))])
  t.equal(tables.service(SERVICE)!.index!.offered, 512)
  const gone = Array.from({ length: 257 }, (_, i): Change => {
    return { kind: 'members', key: `${SERVICE}/n${i}`, value: null }
  })
  tables.apply(gone)
  t.equal(tables.service(SERVICE)!.index, null)
  t.equal(tables.service(SERVICE)!.members.length, 255)
})

t.test('who has measured a member is told its RTT, though its coordinate lies', async (t) => {
  const world = crowd()
  const far = { vec: [900, 0, 0, 0, 0, 0, 0, 0], heightMs: 0, adjustmentMs: 0, error: 0.2 }
  const near = world.coordinate()
  world.tables.apply([
    ofHost(nodeHost(5, { coordinate: far })),
    ofHost(nodeHost(6, { coordinate: near, meshMs: { n5: 0.5 } })),
  ])
  const [first] = ask(world, addressOf(6), { policy: 'nearest', limit: 3 }).picks
  t.match(first, { member: { name: 'n5' }, ms: 0.5 })
  world.tables.apply([locality('192.0.2.0/24', { n5: 1, n7: 80, n8: 90, n9: 100 })])
  const [measured] = ask(world, '192.0.2.1', { policy: 'nearest', limit: 3 }).picks
  t.match(measured, { member: { name: 'n5' }, ms: 1, basis: 'measured' })
})

t.test(
  'a client that is only a place on a map gets members near it, with coordinates or without',
  async (t) => {
    const tables = new Tables()
    const placeOf = (i: number): Place => ({ lat: 60 * Math.sin(i), lon: (i * 47) % 180, accuracyKm: 10 })
    // The space puts them elsewhere than the map, which is all that is known of these clients.
    const coordinateOf = ({ lat, lon }: Place): Coordinate => {
      return {
        vec: [(7 * lon) % 180, (13 * lat) % 60, 0, 0, 0, 0, 0, 0],
        heightMs: 1,
        adjustmentMs: 0,
        error: 0.1,
      }
    }
    const changes: Change[] = [ofService(aService({ name: SERVICE, tieMs: 0 }))]
    for (let i = 0; i < 700; i++) {
      const place = placeOf(i)
      // Some are new: nobody has measured them yet.
      const coordinate = i % 10 === 0 ? null : coordinateOf(place)
      changes.push(ofHost(nodeHost(i, { place, coordinate })), ofMember(nodeMember(i)))
    }
    tables.apply(changes)
    const world = { tables, rng: seededRng(1), coordinate: () => coordinateOf(placeOf(1)) }
    const spots = Array.from({ length: 24 }, (_, k) => ({ lat: 57 * Math.sin(1.7 * k), lon: (31 * k) % 180 }))
    tables.setGeography({
      lookup: (address) => ({ ...spots[Number(formatAddress(address).split('.')[2])]!, accuracyKm: 10 }),
    })
    for (const net of spots.keys()) {
      const { picks } = ask(world, `203.0.${net}.1`, { policy: 'nearest', limit: 10 })
      const truth = ask(world, `203.0.${net}.1`, { policy: 'nearest', limit: 10 }, false).picks
      t.equal(picks.length, 10)
      t.ok(picks[0]!.ms <= 1.1 * truth[0]!.ms, `${net}: ${picks[0]!.ms} ms, at best ${truth[0]!.ms}`)
    }
  },
)

t.test('a client on the map is answered, though the members are in the space alone', async (t) => {
  const world = crowd()
  world.tables.setGeography({
    lookup: (address) =>
      formatAddress(address).startsWith('203.') ? { lat: 50, lon: 10, accuracyKm: 25 } : null,
  })
  t.equal(namesOf(ask(world, '203.0.113.1', { policy: 'nearest', limit: 10 })).length, 10)
  const inTheRing = ask(world, addressOf(7), { policy: 'nearest', limit: 10, maxMs: 0.1 })
  t.same(namesOf(inTheRing), [], 'a ring with nobody in it stays empty')
  // One who alone has a place is found first, and is not all there is.
  const place = { lat: 50, lon: 10, accuracyKm: 25 }
  world.tables.apply([ofHost(nodeHost(9, { place })), ofMember(nodeMember(9))])
  const names = namesOf(ask(world, '203.0.113.1', { policy: 'nearest', limit: 10 }))
  t.equal(names.length, 10)
  t.equal(names[0], 'n9')
})

t.test(
  'a client in the space alone gets those on the map alone as well, behind all whose distance is known',
  async (t) => {
    const place = { lat: 50, lon: 10, accuracyKm: 25 }
    const tables = new Tables()
    const changes: Change[] = [ofService(aService({ name: SERVICE, tieMs: 0 }))]
    for (let i = 0; i < 700; i++) {
      const coordinate = i < 10 ? coordinateIn(seededRng(i)) : null
      changes.push(ofHost(nodeHost(i, { coordinate, place: i < 10 ? null : place })), ofMember(nodeMember(i)))
    }
    tables.apply(changes)
    const world = { tables, rng: seededRng(1), coordinate: () => coordinateIn(seededRng(1)) }
    const names = namesOf(ask(world, addressOf(3), { policy: 'nearest', limit: 20 }))
    t.equal(names.length, 20)
    t.same(
      names.slice(0, 9).sort(),
      [0, 1, 2, 4, 5, 6, 7, 8, 9].map((i) => `n${i}`),
    )
    t.same(namesOf(ask(world, addressOf(3), { policy: 'nearest', limit: 20, maxMs: 1e6 })).length, 9)
  },
)

t.test('one that fits is found among thousands that do not, by who is nowhere as well', async (t) => {
  const tables = new Tables()
  const changes: Change[] = [ofService(aService({ name: SERVICE, tieMs: 0 }))]
  for (let i = 0; i < 6000; i++) {
    changes.push(ofHost(nodeHost(i, {})), ofMember(nodeMember(i, { port: i === 5 ? 4000 : null })))
  }
  tables.apply(changes)
  const world = { tables, rng: seededRng(1), coordinate: () => coordinateIn(seededRng(1)) }
  for (let net = 0; net < 20; net++) {
    const found = ask(world, `198.18.${net}.1`, { policy: 'nearest', limit: 4, want: 'port' })
    t.same(namesOf(found), ['n5'])
    t.equal(found.scopeBits, 0, 'and everybody gets it')
  }
})

t.test('a tier may have any number of members', async (t) => {
  const { tables, rng } = crowd({ policy: 'failover' }, 1)
  const { service, members } = tables.service(SERVICE)!
  const many = Array.from({ length: 150_000 }, (_, i) => ({ ...members[0]!, name: `m${i}` }))
  const from = locate(tables, parseAddress('9.9.9.9')!)
  const { picks } = select(
    tables,
    { service, members: many, index: null },
    from,
    { ...ANY_ASK, limit: 2 },
    rng,
  )
  t.equal(picks.length, 2)
})

t.test('of whom nothing is known, few are weighed', async (t) => {
  const world = crowd({ tieMs: 2 })
  t.ok(ask(world, '198.18.7.1', { policy: 'nearest', limit: 2 }).unweighed > 1900)
})

t.test('who is behind those that were measured to be far is found all the same', async (t) => {
  const world = crowd()
  const client = addressOf(9)
  const near = namesOf(ask(world, client, { policy: 'nearest', limit: 40 }))
  const meshMs = Object.fromEntries(near.map((name) => [name, 5000]))
  const coordinate = world.tables.hosts.coordinateOf(world.tables.hostRow('n9'))
  world.tables.apply([ofHost(nodeHost(9, { coordinate, meshMs }))])
  for (const limit of [1, 5, 30]) {
    const wish = { policy: 'nearest', limit } as const
    t.same(namesOf(ask(world, client, wish)), namesOf(ask(world, client, wish, false)))
  }
})

t.test('a ring about the nearest loses none whose heights and adjustments sum up to nothing', async (t) => {
  const world = crowd()
  const here = (adjustmentMs: number) => ({
    coordinate: { vec: [900, 0, 0, 0, 0, 0, 0, 0], heightMs: 1, adjustmentMs, error: 0.1 },
  })
  world.tables.apply([
    ofHost(nodeHost(9, here(0))),
    ...Array.from({ length: 9 }, (_, i) => ofHost(nodeHost(i, here(-i)))),
  ])
  for (const minMs of [0.3, 1, 2]) {
    const wish = { policy: 'nearest', limit: 9, minMs, maxMs: 20 } as const
    const truth = namesOf(ask(world, addressOf(9), wish, false))
    t.ok(truth.length > 0)
    t.same(namesOf(ask(world, addressOf(9), wish)), truth)
  }
})

t.test('a client beside a host of its own network is sent there, however large the service is', async (t) => {
  const world = crowd()
  const at = { vec: [900, 0, 0, 0, 0, 0, 0, 0], heightMs: 1, adjustmentMs: 0, error: 0.1 }
  // Who seems nearer to the host than the host to itself: it has no height.
  const crowdHosts = Array.from({ length: 100 }, (_, i) =>
    ofHost(nodeHost(i, { coordinate: { ...at, heightMs: 0 } })),
  )
  const kin = nodeHost(500, { addresses: ['11.0.0.1'], coordinate: { ...at, heightMs: 40 } })
  world.tables.apply([...crowdHosts, ofHost(kin)])
  t.same(namesOf(ask(world, '11.0.0.9', { policy: 'nearest', limit: 1 })), ['n500'])
})

t.test(
  'clients of whom nothing is known are spread over a large service, each always to the same',
  async (t) => {
    const world = crowd()
    const first = (client: string) => namesOf(ask(world, client, { policy: 'nearest', limit: 1 }))[0]!
    const firsts = new Set(Array.from({ length: 200 }, (_, i) => first(`198.18.${i}.1`)))
    t.ok(firsts.size > 100, `${firsts.size} different ones`)
    t.equal(first('198.18.7.1'), first('198.18.7.200'))
  },
)

t.test(
  'the full turn clients away in a large service too, and more are looked at until one takes them',
  async (t) => {
    const world = crowd()
    const near = namesOf(ask(world, addressOf(1), { policy: 'nearest', limit: 200 }))
    const full = near.map((name) => {
      const i = Number(name.slice(1))
      return ofMember(nodeMember(i, { load: 100, capacity: 1 }))
    })
    world.tables.apply(full)
    // What is turned away is a share of the prefixes: nearly all, at a load of 100.
    const [pick] = ask(world, addressOf(1), { policy: 'nearest', limit: 1 }).picks
    const [truth] = ask(world, addressOf(1), { policy: 'nearest', limit: 1 }, false).picks
    t.equal(pick!.member.name, truth!.member.name)
  },
)

t.test(
  'members within tieMs share a large service’s clients, though they are more than were looked at first',
  async (t) => {
    const world = crowd({ tieMs: 1e6 })
    const chosen = (indexed: boolean) =>
      Array.from({ length: 40 }, (_, i) =>
        namesOf(ask(world, addressOf(i * 7), { policy: 'nearest', limit: 1 }, indexed)),
      )
    t.same(chosen(true), chosen(false))
  },
)

t.test('a large service none of whose members is live names some of those that were', async (t) => {
  const world = crowd()
  const silent = Array.from({ length: 2000 }, (_, i) =>
    ofHost(nodeHost(i, { presence: 'silent', presenceSinceMs: i })),
  )
  world.tables.apply(silent)
  const selection = ask(world, addressOf(1), { limit: 3 })
  t.equal(selection.allDown?.mode, 'stale')
  t.equal(selection.picks.length, 3)
})

t.test('a story of a large service tells whom it weighed and how many others there are', async (t) => {
  const world = crowd()
  const { tables } = world
  const from = locate(tables, parseAddress(addressOf(4))!)
  const selection = ask(world, addressOf(4), { policy: 'nearest', limit: 10 })
  const story = explain(tables, tables.service(SERVICE)!, from, selection, 0)
  t.equal(story.members.length + story.others, 2000)
  t.ok(story.others > 1900)
  t.match(whyLines(tables, tables.service(SERVICE)!, from, selection).join('\n'), /and \d{4} more/)
})

// Chance.

/** The statistic of Pearson's test that draws are even over `cells`: its mean is cells - 1, its deviation sqrt(2 (cells - 1)). */
function chiSquare(counts: readonly number[]): number {
  const expected = counts.reduce((sum, count) => sum + count, 0) / counts.length
  return counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0)
}

t.test('random members are drawn evenly while others come and go', async (t) => {
  const world = crowd()
  const { tables, rng } = world
  const counts = new Map<string, number>()
  for (let i = 0; i < 1000; i++) counts.set(`n${i}`, 0)
  let going = 2000
  for (let round = 0; round < 4000; round++) {
    // Of the second half members go and others come in their place, so that all positions move.
    const gone = 1000 + Math.floor(rng() * (going - 1000))
    tables.apply([
      { kind: 'members', key: `${SERVICE}/n${gone}`, value: null },
      ofHost(nodeHost(going, {})),
      ofMember(nodeMember(going)),
    ])
    going++
    for (const name of namesOf(ask(world, addressOf(3), { policy: 'random', limit: 20 }))) {
      if (counts.has(name)) counts.set(name, counts.get(name)! + 1)
    }
  }
  const statistic = chiSquare([...counts.values()])
  // 999 degrees of freedom: one in 10,000 even draws exceeds 1170, and one in 10,000 stays under 840.
  t.ok(statistic > 840 && statistic < 1170, `${statistic}`)
})

t.test('of few that fit, each is drawn as often', async (t) => {
  const world = crowd()
  for (const wish of [
    { where: { relay: 'yes' } },
    { reachableOnly: true, where: { region: 'r1' } },
  ] as const) {
    const counts = new Map<string, number>()
    for (let round = 0; round < 4000; round++) {
      for (const name of namesOf(ask(world, addressOf(3), { policy: 'random', limit: 3, ...wish }))) {
        counts.set(name, (counts.get(name) ?? 0) + 1)
      }
    }
    const cells = counts.size
    const statistic = chiSquare([...counts.values()])
    const spread = 4 * Math.sqrt(2 * (cells - 1))
    t.ok(Math.abs(statistic - (cells - 1)) < spread, `${statistic} of ${cells}`)
  }
})

t.test('where fewer fit than are asked for, a draw names them all', async (t) => {
  const world = crowd()
  const names = namesOf(
    ask(world, addressOf(3), { policy: 'random', limit: 1000, reachableOnly: true, where: { region: 'r1' } }),
  )
  const truth = Array.from({ length: 2000 }, (_, i) => i).filter((i) => i % 5 === 0 && i % 3 === 1 && i !== 3)
  t.same(new Set(names), new Set(truth.map((i) => `n${i}`)))
})

// Vantages.

t.test(
  'a place is looked up though a vantage has just gone, and its row tells nothing of who comes next',
  async (t) => {
    const coordinate = coordinateIn(seededRng(1))
    const paris = { lat: 48.9, lon: 2.3, accuracyKm: 10 }
    const sydney = { lat: -33.9, lon: 151.2, accuracyKm: 10 }
    for (const size of [200, 2000]) {
      const { tables } = crowd({}, size)
      const { hosts } = tables
      const change = (name: string, over: Partial<Host> | null) =>
        tables.apply([{ kind: 'hosts', key: name, value: over && aHost(name, over) }])
      const renew = () => {
        for (let i = 0; i < 4000; i++) {
          change(`passing${i}`, { agent: false })
          change(`passing${i}`, null)
        }
      }
      for (let i = 0; i < size; i++) change(`n${i}`, { coordinate, place: { ...paris, lon: i % 10 } })
      renew()
      const first = hosts.vantages()[50]!
      t.ok(hosts.mapMs(paris, first) < 50)
      tables.apply([{ kind: 'members', key: `${SERVICE}/${hosts.nameOf(first)}`, value: null }])
      change(hosts.nameOf(first), null)
      t.ok(hosts.mapMs({ ...paris, lat: 49 }, tables.hostRow('n1')) < 50)
      renew()
      let comers = 0
      while (hosts.recordOf(first) === null && comers < 9000) {
        change(`comer${comers++}`, { agent: false, place: sydney })
      }
      t.ok(hosts.mapMs(paris, first) > 150, `${hosts.nameOf(first)} of ${size}`)
    }
  },
)

t.test('a locality takes no more room for being measured by the last of many hosts', async (t) => {
  const { tables } = crowd()
  tables.apply([locality('192.0.2.0/24', { n1996: 10, n1997: 20, n1998: 30, n1999: 40 })])
  const row = tables.locality(tables.localityRow('192.0.2.0/24'))!
  const bytes = Object.values(row).reduce(
    (sum, part) => sum + (ArrayBuffer.isView(part) ? part.byteLength : 0),
    0,
  )
  t.ok(bytes < 200, `${bytes} bytes`)
  const [first, other] = [tables.hostRow('n1996'), tables.hostRow('n3')]
  t.same([measuredMs(row, first), measuredMs(row, other)], [10, Number.NaN])
})

t.test('of very many hosts a bounded panel speaks for all, those let in by a token first', async (t) => {
  const { tables } = crowd()
  t.equal(tables.hosts.vantages().length, 512)
  const trusted = Array.from({ length: 100 }, (_, k) => {
    return ofHost(nodeHost(3 * k, { tokenId: 'token', coordinate: coordinateIn(seededRng(k)) }))
  })
  tables.apply(trusted)
  // Told once enough has moved, so that a panel of hundreds is not weighed anew for each.
  for (let k = 0; k < 30; k++) {
    tables.apply(
      trusted.map((change, i) =>
        ofHost({ ...(change.value as Host), coordinate: coordinateIn(seededRng(1000 * k + i)) }),
      ),
    )
  }
  const vantages = new Set(tables.hosts.vantages())
  t.equal(vantages.size, 512)
  t.ok(Array.from({ length: 100 }, (_, k) => tables.hostRow(`n${3 * k}`)).every((row) => vantages.has(row)))
})

t.test(
  'a row is given to another host only when nothing that was reckoned from the old one is in use',
  async (t) => {
    const { tables } = crowd()
    tables.apply([locality('192.0.2.0/24', { n5: 10, n7: 20, n8: 30, n9: 40 })])
    const from = () => locate(tables, parseAddress('192.0.2.1')!)
    const before = predict(tables, from(), tables.hostRow('n100'))
    t.ok(before.ms > 0)
    const row = tables.hostRow('n100')
    tables.apply([
      { kind: 'members', key: `${SERVICE}/n100`, value: null },
      { kind: 'hosts', key: 'n100', value: null },
      ofHost(aHost('comer', { coordinate: coordinateIn(seededRng(77)) })),
    ])
    t.not(tables.hostRow('comer'), row)
    for (let i = 0; i < 2000; i++) {
      tables.apply([ofHost(aHost(`x${i}`, {})), { kind: 'hosts', key: `x${i}`, value: null }])
    }
    tables.apply([ofHost(aHost('late', { coordinate: coordinateIn(seededRng(78)) }))])
    t.ok(tables.hosts.size < 4000, `${tables.hosts.size} rows`)
  },
)
