// The fast path against the ordinary one, which is its oracle: the same bytes for every question that it answers, no
// byte outside of the reply, no memory for it.

import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { parseAddress, parsePrefix } from '../../resolver/address.ts'
import type { Change, PlacePage } from '../../resolver/directory.ts'
import { answerDns, type DnsContext } from '../../resolver/dns-answer.ts'
import { NOT_PLAIN, PlainAnswers } from '../../resolver/dns-plain.ts'
import { type PlaceEntry, placeChanges } from '../../resolver/place-page.ts'
import { PlaceReader } from '../../resolver/place-reader.ts'
import { PlaceTable } from '../../resolver/place-table.ts'
import { Tables } from '../../resolver/tables.ts'
import { asker, context, contextOf, queryBytes, read, subnet } from '../support/dns-fixture.ts'
import { dnsWorld } from '../support/dns-world.ts'
import { host, locality, member, service } from '../support/records.ts'
import { seededRng } from '../support/seeded-rng.ts'

const ROOM = 1232
const CANARY = 0xa5
/** What stands before and behind the room for a reply. */
const MARGIN = 64

/** Both paths' replies to one packet: the fast one's (null: it leaves it to the other) and the ordinary one's. */
function both(plain: PlainAnswers, using: DnsContext, packet: Uint8Array, from: string) {
  const out = new Uint8Array(ROOM + 2 * MARGIN).fill(CANARY)
  // Somewhere in a larger buffer, with other bytes around it.
  const around = new Uint8Array(packet.length + 32).fill(0xff)
  around.set(packet, 16)
  const sender = asker(from)
  const end = 16 + packet.length
  const bytes = plain.answer(around, 16, end, sender.address, out, MARGIN, MARGIN + ROOM)
  const isClean = (part: Uint8Array) => part.every((byte) => byte === CANARY)
  if (!isClean(out.subarray(0, MARGIN)) || !isClean(out.subarray(MARGIN + Math.max(0, bytes))))
    throw new Error(`bytes were placed outside of the reply to ${Buffer.from(packet).toString('hex')}`)
  const { reply, facts } = answerDns(using, packet, sender)
  return { fast: bytes === NOT_PLAIN ? null : out.slice(MARGIN, MARGIN + bytes), facts, ordinary: reply }
}

function isSame(a: Uint8Array, b: Uint8Array | null): boolean {
  return b !== null && Buffer.compare(a, b) === 0
}

t.test(
  'the fast path answers a hundred thousand random pairs of service and client as the ordinary one does, while the world changes',
  (t) => {
    const world = dnsWorld(7)
    const tables = new Tables()
    tables.apply(world.changes)
    const using = contextOf([], { tables, rng: seededRng(3) })
    const plain = new PlainAnswers(using)
    let [fast, geo] = [0, 0]
    for (let n = 0; n < 100_000; n++) {
      if (n % 200 === 199) tables.apply(world.change())
      const service = world.services[Math.floor(world.rng() * world.services.length)]!
      const client = world.client()
      const type = world.rng() < 0.8 ? 'A' : 'AAAA'
      const packet = queryBytes(`${service}.any.test`, type, [subnet(client, client.includes(':') ? 56 : 24)])
      const seen = both(plain, using, packet, '192.0.2.1')
      if (seen.fast === null) continue
      fast++
      if (plain.facts.basis === 'geo') geo++
      if (
        !isSame(seen.fast, seen.ordinary) ||
        plain.facts.basis !== seen.facts.basis ||
        plain.facts.rank !== seen.facts.rank ||
        plain.facts.queryBytes !== seen.facts.queryBytes ||
        plain.facts.replyBytes !== seen.facts.replyBytes ||
        plain.facts.client === null
      ) {
        t.fail(`${service} ${type} for ${client}, question ${n}: ${plain.facts.basis}, ${seen.facts.basis}`, {
          fast: Buffer.from(seen.fast).toString('hex'),
          ordinary: Buffer.from(seen.ordinary ?? []).toString('hex'),
        })
        break
      }
    }
    t.ok(fast > 50_000, `${fast} were plain`)
    t.ok(geo > 5_000, `${geo} by the map`)
    t.end()
  },
)

const placeAt = (lat: number, lon: number) => ({ lat, lon, accuracyKm: 10 })
const factAt = (lat: number, lon: number) => ({
  place: placeAt(lat, lon),
  asn: null,
  country: null,
  source: 'test',
})

/** Large services of one crowd of hosts in cities and elsewhere, some on no map, and what may happen to them. */
function crowdedWorld(size: number) {
  const world = dnsWorld(13)
  const { rng } = world
  const under = (n: number) => Math.floor(rng() * n)
  const anywhere = () => ({ lat: 120 * rng() - 60, lon: 360 * rng() - 180, accuracyKm: 25 })
  const cities = Array.from({ length: 3 }, anywhere)
  // Every third is in a city, to the meter where others are.
  const places = Array.from({ length: size }, (_, i) => {
    if (i % 40 === 0) return null
    return i % 3 === 0 ? cities[(i / 3) % cities.length]! : anywhere()
  })
  const putHost = (i: number, over: object = {}) => {
    // Some of the first city share one address.
    const own = i % 45 === 0 ? 45 : i
    const addresses = [`198.18.${own >> 8}.${own & 255}`, ...(i % 2 === 0 ? [`2a07:${i}::1`] : [])]
    return host(`b${i}`, addresses, { place: places[i]!, ...over })
  }
  const rules = [
    { tieMs: 1 },
    { tieMs: 0, maxAddrs: 1 },
    { tieMs: 8, minAddrs: 3, maxAddrs: 4 },
    { tieMs: 2, maxAddrs: 16 },
  ]
  const services = rules.map((_, s) => `big${s}`)
  const putMember = (s: number, i: number, over: object = {}) =>
    member(services[s]!, `m${i}`, { host: `b${i}`, capacity: s === 2 ? 1 + (i % 3) : 1, ...over })
  /** Something that happens; half of the time to whom the last answer named. */
  const change = (named: string | undefined): readonly Change[] => {
    const [, third, fourth] = /^A 198\.18\.(\d+)\.(\d+)$/.exec(named ?? '') ?? []
    const isNamed = third !== undefined && rng() < 0.5
    const [s, i] = [under(services.length), isNamed ? 256 * Number(third) + Number(fourth) : under(size)]
    switch (under(8)) {
      case 0:
        return [putHost(i, { presence: rng() < 0.5 ? 'silent' : 'live' })]
      case 1:
        places[i] = rng() < 0.5 ? anywhere() : cities[under(cities.length)]!
        return [putHost(i)]
      case 2:
        return [putMember(s, i, { load: 2 * rng() })]
      case 3:
        return [{ kind: 'members', key: `${services[s]}/m${i}`, value: null }]
      case 4:
        return world.change()
      case 5:
        return [putMember(s, i, { capacity: 1 + under(3) })]
      default:
        return [putMember(s, i, { drained: rng() < 0.5 })]
    }
  }
  const all = Array.from({ length: size }, (_, i) => i)
  const changes = [
    ...world.changes,
    ...rules.map((rule, s) => service(services[s]!, rule)),
    ...all.map((i) => putHost(i)),
    ...rules.flatMap((_, s) => all.map((i) => putMember(s, i))),
    ...placeChanges(
      new Map(),
      cities.map(({ lat, lon }, c) => ({ prefix: parsePrefix(`60.${c}.0.0/16`)!, fact: factAt(lat, lon) })),
    ),
  ]
  const client = () => (rng() < 0.3 ? `60.${under(cities.length)}.${under(256)}.0` : world.client())
  return { ...world, client, services, changes, change }
}

t.test(
  'of large services the fast path names whom the ordinary one does, while members come, go, move and fill up',
  (t) => {
    const world = crowdedWorld(900)
    const { rng, services } = world
    const tables = new Tables()
    tables.apply(world.changes)
    const using = contextOf([], { tables })
    const plain = new PlainAnswers(using)
    let [geo, changes] = [0, 0]
    let named: string | undefined
    for (let n = 0; n < 20_000; n++) {
      if (n % 10 === 9) {
        tables.apply(world.change(named))
        changes++
      }
      const name = services[Math.floor(rng() * services.length)]!
      const client = world.client()
      const type = rng() < 0.8 ? 'A' : 'AAAA'
      const packet = queryBytes(`${name}.any.test`, type, [subnet(client, client.includes(':') ? 56 : 24)])
      const seen = both(plain, using, packet, '192.0.2.1')
      if (seen.fast === null) continue
      if (plain.facts.basis === 'geo') geo++
      named = read(seen.fast).answers[0]
      if (isSame(seen.fast, seen.ordinary) && plain.facts.rank === seen.facts.rank) continue
      t.fail(`${name} ${type} for ${client}, question ${n}, after ${changes} changes`)
      break
    }
    t.ok(geo > 5000, `${geo} by the map`)
    t.end()
  },
)

t.test(
  'what a large service is known by outlives a change of another service, and not one of its own',
  (t) => {
    const world = crowdedWorld(600)
    const tables = new Tables()
    tables.apply(world.changes)
    const using = contextOf([], { tables })
    const plain = new PlainAnswers(using)
    const packet = queryBytes('big0.any.test', 'A', [subnet('60.1.2.0', 24)])
    const searchesAfter = (change: Change) => {
      tables.apply([change])
      const index = tables.service('big0')!.index!
      const { nearPlace } = index
      let searches = 0
      index.nearPlace = (...asked) => {
        searches++
        return nearPlace.apply(index, asked)
      }
      const { fast, ordinary } = both(plain, using, packet, '192.0.2.1')
      t.same(Buffer.from(fast!), Buffer.from(ordinary!))
      index.nearPlace = nearPlace
      return searches
    }
    t.ok(searchesAfter(service('other')) > 0)
    t.equal(searchesAfter(service('other', { aliases: ['more'] })), 0)
    t.equal(searchesAfter({ ...service('other'), value: null }), 0)
    t.ok(searchesAfter(service('big0', { tieMs: 3, maxAddrs: 4 })) > 0)
    t.end()
  },
)

t.test('what no member of a large service has is denied on the fast path, until one has it', (t) => {
  const hosts = [host('four', ['198.18.0.1']), host('six', ['198.18.0.2', '2a07::2'])]
  const many = Array.from({ length: 600 }, (_, i) => member('big', `m${i}`, { host: 'four' }))
  const tables = new Tables()
  tables.apply([...hosts, service('big'), ...many])
  const using = contextOf([], { tables })
  const plain = new PlainAnswers(using)
  const outcomeOf = (type: string) => {
    const { fast, ordinary, facts } = both(plain, using, queryBytes('big.any.test', type), '192.0.2.1')
    if (fast !== null) t.same(Buffer.from(fast), Buffer.from(ordinary!), type)
    return `${fast === null ? 'slow' : 'fast'} ${facts.outcome}`
  }
  const url = 'https://198.18.0.2/'
  for (const [change, type] of [
    [member('big', 'm7', { host: 'six' }), 'AAAA'],
    [member('big', 'late', { host: 'six' }), 'AAAA'],
    [member('big', 'm7', { host: 'six', url }), 'HTTPS'],
  ] as const) {
    t.equal(outcomeOf(type), 'fast nodata')
    tables.apply([change])
    t.match(outcomeOf(type), 'answered')
    tables.apply([host('six', [])])
    t.equal(outcomeOf(type), 'fast nodata', 'its addresses went')
    tables.apply([hosts[1]!])
    t.match(outcomeOf(type), 'answered')
    tables.apply([{ ...change, value: null }])
    t.equal(outcomeOf(type), 'fast nodata', 'it went')
  }
  tables.apply([host('four', ['198.18.0.1'], { presence: 'silent', presenceSinceMs: 1 })])
  t.equal(outcomeOf('AAAA'), 'slow nodata', 'nobody is live')
  t.end()
})

t.test(
  'members just as far as each other share the clients on both paths, though nothing else is a tie',
  (t) => {
    const fact = { place: { lat: 50, lon: 8, accuracyKm: 10 }, asn: null, country: null, source: 'test' }
    const place = { lat: 48, lon: 2, accuracyKm: 10 }
    const using = contextOf([
      service('even', { tieMs: 0, maxAddrs: 1 }),
      ...['a', 'b'].flatMap((name, i) => [
        host(name, [`198.18.0.${i + 1}`], { place }),
        member('even', name),
      ]),
      ...placeChanges(new Map(), [{ prefix: parsePrefix('24.0.0.0/8')!, fact }]),
    ])
    const plain = new PlainAnswers(using)
    const named = new Set<string>()
    for (let i = 0; i < 40; i++) {
      const seen = both(
        plain,
        using,
        queryBytes('even.any.test', 'A', [subnet(`24.7.${i}.0`, 24)]),
        '192.0.2.1',
      )
      t.same(Buffer.from(seen.fast!), Buffer.from(seen.ordinary!))
      t.equal(plain.facts.basis, 'geo')
      named.add(read(seen.fast!).answers.join())
    }
    t.same([...named].sort(), ['A 198.18.0.1', 'A 198.18.0.2'])
    t.end()
  },
)

t.test('of members just as far as each other those of the first names are named beside the nearest', (t) => {
  const at = (lat: number) => placeAt(lat, 2)
  const using = contextOf([
    service('even', { tieMs: 0, minAddrs: 4, maxAddrs: 4 }),
    // One is near, the others are all in one place, and their names go the other way than their hosts'.
    ...Array.from({ length: 20 }, (_, i) => [
      host(`h${10 + i}`, [`198.18.0.${i + 1}`], { place: at(i === 7 ? 49 : 40) }),
      member('even', `m${40 - i}`, { host: `h${10 + i}` }),
    ]).flat(),
    ...placeChanges(new Map(), [{ prefix: parsePrefix('24.0.0.0/8')!, fact: factAt(50, 2) }]),
  ])
  const plain = new PlainAnswers(using)
  const packet = queryBytes('even.any.test', 'A', [subnet('24.7.1.0', 24)])
  const { fast, ordinary } = both(plain, using, packet, '192.0.2.1')
  t.same(Buffer.from(fast!), Buffer.from(ordinary!))
  t.same(
    read(fast!).answers,
    [8, 20, 19, 18].map((last) => `A 198.18.0.${last}`),
  )
  t.end()
})

t.test('a host that moves on the map changes what a large service is known by far from it', (t) => {
  const places = Array.from({ length: 40 }, (_, i) => placeAt(40 + (i % 8), Math.floor(i / 8)))
  const putHost = (i: number) => {
    const meshMs = Object.fromEntries(places.map((_, j) => [`h${j}`, 5 + ((7 * i * j) % 60)]))
    const vec = [i, 0, 0, 0, 0, 0, 0, 0]
    const coordinate = { vec, heightMs: 1, adjustmentMs: 0, error: 0.1 }
    return host(`h${i}`, [`192.0.2.${i}`], { place: places[i]!, coordinate, meshMs })
  }
  const tables = new Tables()
  tables.apply([
    service('big', { tieMs: 0, verify: 'none' }),
    ...places.map((_, i) => putHost(i)),
    ...Array.from({ length: 700 }, (_, i) =>
      member('big', `m${i}`, { host: `h${i % 40}`, addresses: [`198.18.${i >> 8}.${i & 255}`] }),
    ),
    ...placeChanges(new Map(), [{ prefix: parsePrefix('24.0.0.0/8')!, fact: factAt(44, 2.5) }]),
  ])
  const using = contextOf([], { tables })
  const plain = new PlainAnswers(using)
  const seen = new Set<string>()
  for (let i = 0; i < 40; i++) {
    const packet = queryBytes('big.any.test', 'A', [subnet('24.7.1.0', 24)])
    const { fast, ordinary } = both(plain, using, packet, '198.51.100.1')
    t.same(Buffer.from(fast!), Buffer.from(ordinary!))
    t.equal(plain.facts.basis, 'geo')
    seen.add(read(fast!).answers.join())
    places[i] = placeAt(-30, 100)
    tables.apply([putHost(i)])
  }
  t.ok(seen.size > 2, `${seen.size} different answers`)
  t.end()
})

t.test('all forms of a question come to the same reply on both paths, or to none on the fast one', (t) => {
  const secrets = [new Uint8Array(16).fill(7), new Uint8Array(16).fill(9)]
  const using = { ...context, cookies: { secrets, nowSec: 1_700_000_000 } }
  const plain = new PlainAnswers(using)
  const cookie = { code: 10, data: Buffer.from('0102030405060708', 'hex') }
  const made = both(plain, using, queryBytes('mirror.any.test', 'A', [cookie]), '100.64.1.9')
  const own = { code: 10, data: Buffer.from(made.ordinary!.subarray(-24)) }
  const forms: [string, boolean, Uint8Array][] = [
    ['no EDNS', true, queryBytes('mirror.any.test', 'A', null)],
    ['EDNS without options', true, queryBytes('mirror.any.test', 'A')],
    ['AAAA', true, queryBytes('mirror.any.test', 'AAAA')],
    ['capitals', true, queryBytes('MiRRor.aNy.TesT', 'A')],
    ['an alias elsewhere', true, queryBytes('mirror.example.org', 'A')],
    ['an alias that is a CNAME', false, queryBytes('www.any.test', 'A')],
    ['Client Subnet', true, queryBytes('mirror.any.test', 'A', [subnet('100.64.2.0', 24)])],
    [
      'Client Subnet of a whole address',
      true,
      queryBytes('mirror.any.test', 'A', [subnet('100.64.2.77', 32)]),
    ],
    ['Client Subnet of a few bits', true, queryBytes('mirror.any.test', 'A', [subnet('100.64.0.0', 10)])],
    ['Client Subnet, IPv6', true, queryBytes('mirror.any.test', 'AAAA', [subnet('2001:db8:c::', 48)])],
    ['Client Subnet of nobody', false, queryBytes('mirror.any.test', 'A', [subnet('0.0.0.0', 0)])],
    [
      'two of it',
      false,
      queryBytes('mirror.any.test', 'A', [subnet('100.64.2.0', 24), subnet('100.64.1.0', 24)]),
    ],
    ['a new cookie', true, queryBytes('mirror.any.test', 'A', [cookie])],
    ['our cookie', true, queryBytes('mirror.any.test', 'A', [own])],
    ['subnet and cookie', true, queryBytes('mirror.any.test', 'A', [subnet('100.64.1.0', 24), own])],
    ['cookie and subnet', true, queryBytes('mirror.any.test', 'A', [own, subnet('100.64.1.0', 24)])],
    [
      'an unknown option',
      true,
      queryBytes('mirror.any.test', 'A', [{ code: 65001, data: Buffer.from('x') }]),
    ],
    ['NSID', false, queryBytes('mirror.any.test', 'A', [{ code: 3, data: Buffer.alloc(0) }])],
    ['a small payload', true, queryBytes('mirror.any.test', 'A', [], { udpPayloadSize: 100 })],
    ['DNSSEC OK', true, queryBytes('mirror.any.test', 'A', [], { flags: 0x8000 })],
    ['another version', false, queryBytes('mirror.any.test', 'A', [], { ednsVersion: 1 })],
    ['by chance', false, queryBytes('dice.any.test', 'A')],
    ['nobody is live', false, queryBytes('last.any.test', 'A')],
    ['more addresses than are kept', false, queryBytes('wide.any.test', 'A')],
    ['no such service', true, queryBytes('nothing.any.test', 'A')],
    ['a member', false, queryBytes('ams.mirror.any.test', 'A')],
    ['a type that is not there', true, queryBytes('mirror.any.test', 'TXT')],
    ['a type that is there', false, queryBytes('mirror.any.test', 'HTTPS')],
    ['elsewhere', true, queryBytes('nothing.any.example', 'A')],
    ['elsewhere, by a label that is known here', false, queryBytes('mirror.any.example', 'A')],
  ]
  for (const [what, isPlain, packet] of forms) {
    // Asked twice: the second comes from what was kept.
    for (const time of ['first', 'again']) {
      const { fast, ordinary } = both(plain, using, packet, '100.64.1.9')
      t.equal(fast !== null, isPlain, `${what}, ${time}: ${isPlain ? 'plain' : 'left to the other'}`)
      if (fast !== null) t.same(Buffer.from(fast), Buffer.from(ordinary!), `${what}, ${time}`)
    }
  }
  t.equal(
    both(plain, using, forms.find(([what]) => what === 'our cookie')![2], '100.64.1.9').facts.isProven,
    true,
  )
  t.equal(plain.facts.isProven, true, 'our cookie proves the asker')
  both(plain, using, forms.find(([what]) => what === 'our cookie')![2], '100.64.1.10')
  t.equal(plain.facts.isProven, false, 'and nobody else')
  t.end()
})

t.test(
  'no mutation of a plain question gets another reply than on the ordinary path, and no byte is placed outside',
  (t) => {
    const rng = seededRng(11)
    const plain = new PlainAnswers(context)
    const seeds = [
      queryBytes('mirror.any.test', 'A', [subnet('100.64.2.0', 24)]),
      queryBytes('pair.any.test', 'AAAA', [
        subnet('2001:db8:c::', 48),
        { code: 10, data: Buffer.alloc(8, 1) },
      ]),
      queryBytes('mirror.any.test', 'A', null),
    ]
    let fast = 0
    for (let n = 0; n < 30_000; n++) {
      const packet = Uint8Array.from(seeds[n % seeds.length]!)
      for (let flips = Math.floor(rng() * 4); flips >= 0; flips--)
        packet[Math.floor(rng() * packet.length)]! ^= 1 << Math.floor(rng() * 8)
      const length = rng() < 0.2 ? Math.floor(rng() * packet.length) : packet.length
      const seen = both(plain, context, packet.subarray(0, length), '100.64.1.9')
      if (seen.fast === null) continue
      fast++
      if (isSame(seen.fast, seen.ordinary)) continue
      t.fail(`mutation ${n}`, { packet: Buffer.from(packet.subarray(0, length)).toString('hex') })
      break
    }
    t.ok(fast > 1000, `${fast} of them were plain`)
    t.end()
  },
)

/** Two members far apart, clients on the map, and whether both paths say the same to one of these. */
function mapped(entries: readonly PlaceEntry[]) {
  const tables = new Tables()
  tables.apply([
    host('ams', ['2001:db8::10'], { place: placeAt(52, 5) }),
    host('tok', ['2001:db8::20'], { place: placeAt(35, 139) }),
    service('web', { maxAddrs: 1 }),
    ...['ams', 'tok'].map((name) => member('web', name)),
    ...placeChanges(new Map(), entries),
  ])
  const using = contextOf([], { tables })
  const plain = new PlainAnswers(using)
  const isAlike = (client: string) => {
    const packet = queryBytes('web.any.test', 'AAAA', [subnet(client, client.includes(':') ? 48 : 24)])
    const { fast, ordinary } = both(plain, using, packet, '198.51.100.1')
    return fast !== null && isSame(fast, ordinary)
  }
  return { tables, isAlike }
}

t.test('an IPv6 client whose address no one has is not taken for an IPv4 network that is known', (t) => {
  const { tables, isAlike } = mapped([{ prefix: parsePrefix('5.6.7.0/24')!, fact: factAt(51, 4) }])
  t.ok(isAlike('5.6.7.0'))
  for (let moves = 0; moves < 10; moves++) {
    tables.apply([host('six', [`2001:db8:6::${moves + 1}`])])
    t.ok(isAlike('5.6.7.0'))
    t.ok(isAlike('ffff:ffff:607::'), `after ${moves} moves`)
  }
  t.end()
})

t.test('how wide an answer holds beside the place of IPv4 in IPv6 follows the last IPv4 host', (t) => {
  const { tables, isAlike } = mapped([{ prefix: parsePrefix('::/8')!, fact: factAt(51, 4) }])
  tables.apply([host('old', ['192.0.2.10'])])
  t.ok(isAlike('64:ff9b:1::'))
  tables.apply([host('old', [])])
  t.ok(isAlike('64:ff9b:1::'))
  t.end()
})

t.test('what was decided is decided anew when members that go have distances reckoned anew', (t) => {
  const settled = (i: number, x: number) =>
    host(`h${i}`, [`192.0.2.${i}`], {
      coordinate: { vec: [x, 0, 0, 0, 0, 0, 0, 0], heightMs: 1, adjustmentMs: 0, error: 0.1 },
    })
  const guests = Array.from({ length: 1500 }, (_, i) => member('other', `m${i}`, { host: `nowhere-${i}` }))
  const tables = new Tables()
  tables.apply([
    ...Array.from({ length: 14 }, (_, i) => settled(i, 10 * i)),
    service('web', { maxAddrs: 1, tieMs: 0 }),
    ...[10, 11, 12, 13].map((i) => member('web', `h${i}`)),
    locality('100.64.1.0/24', { h0: 100, h1: 92, h2: 80, h3: 71 }),
    ...guests,
  ])
  const using = contextOf([], { tables })
  const plain = new PlainAnswers(using)
  const packet = queryBytes('web.any.test', 'A', [subnet('100.64.1.0', 24)])
  const seen = new Set<string>()
  const isAlike = () => {
    const { fast, ordinary } = both(plain, using, packet, '198.51.100.1')
    seen.add(Buffer.from(ordinary!).toString('hex'))
    return isSame(fast!, ordinary)
  }
  isAlike()
  // Too few moves to be told at once.
  tables.apply([
    ...[500, 400, 300, 100].map((x, i) => settled(10 + i, x)),
    ...[300, 310, 330, 330].map((x, i) => settled(i, x)),
  ])
  const alike = guests.map(({ key }) => {
    tables.apply([{ kind: 'members', key, value: null }])
    return isAlike()
  })
  t.equal(alike.indexOf(false), -1)
  t.equal(seen.size, 2, 'the answer changed under way')
  t.end()
})

t.test('no client is taken for where a page of which a thread was not told yet has others', (t) => {
  const REGIONS = 12
  const FACTS = 1000
  // As in a thread: places are read where another writes them, and changes come later.
  const written = new PlaceTable()
  const reader = new PlaceReader()
  const mail: (() => void)[] = []
  const shared = written.share((memory) => mail.push(() => reader.follow(memory)))
  reader.follow(shared.memory)
  const tables = new Tables(reader)
  const write = (region: number, near: readonly [number, number], shift: number) => {
    const entries = Array.from({ length: FACTS }, (_, i) => ({
      prefix: parsePrefix(`${20 + region}.${i >> 7}.${i & 127}.0/24`)!,
      fact: factAt(near[0] + i / 1000, near[1] + shift / 1000),
    }))
    const { key, value } = placeChanges(new Map(), entries)[0]!
    written.setPage(key, (value as PlacePage).packed)
    mail.push(() => tables.apply([{ kind: 'places', key, value: null }]))
  }
  const deliver = () => {
    for (const read of mail.splice(0)) read()
  }
  tables.apply([
    host('ams', ['192.0.2.10'], { place: placeAt(52, 5) }),
    host('tok', ['203.0.113.10'], { place: placeAt(35, 139) }),
    service('web', { maxAddrs: 1 }),
    ...['ams', 'tok'].map((name) => member('web', name)),
  ])
  const using = contextOf([], { tables })
  const plain = new PlainAnswers(using)
  const packet = queryBytes('web.any.test', 'A', [subnet('20.0.5.0', 24)])
  let byMap = 0
  const isAlike = () => {
    const { fast, ordinary } = both(plain, using, packet, '198.51.100.1')
    if (plain.facts.basis === 'geo') byMap++
    return fast !== null && isSame(fast, ordinary)
  }
  const near = (region: number) => (region === 0 ? ([51, 4] as const) : ([34, 138] as const))
  let wrong = 0
  for (let shift = 0; shift < 8; shift++) {
    deliver()
    if (!isAlike()) wrong++
    for (let region = 0; region < REGIONS; region++) {
      write(region, near(region), shift)
      if (!isAlike()) wrong++
    }
  }
  t.equal(wrong, 0)
  t.equal(byMap, 7 * (1 + REGIONS), 'once there are pages, by the map')
  shared.end()
  t.end()
})

t.test('after a page of places changed a client is looked for once, as before', (t) => {
  class CountingReader extends PlaceReader {
    finds = 0
    override find(...asked: Parameters<PlaceReader['find']>) {
      this.finds++
      return super.find(...asked)
    }
  }
  const written = new PlaceTable()
  const reader = new CountingReader()
  const shared = written.share((memory) => reader.follow(memory))
  reader.follow(shared.memory)
  const tables = new Tables(reader)
  tables.apply([
    ...['ams', 'tok'].map((name, i) => host(name, [`192.0.2.${i}`], { place: placeAt(50, 100 * i) })),
    service('web', { maxAddrs: 1 }),
    ...['ams', 'tok'].map((name) => member('web', name)),
  ])
  const using = contextOf([], { tables })
  const plain = new PlainAnswers(using)
  const findsOf = (client: string) => {
    reader.finds = 0
    const packet = queryBytes('web.any.test', 'A', [subnet(client, client.includes(':') ? 48 : 24)])
    const out = new Uint8Array(ROOM)
    plain.answer(packet, 0, packet.length, asker().address, out, 0, ROOM)
    return reader.finds
  }
  for (let lon = 0; lon < 5; lon++) {
    const entries = ['20.0.0.0/24', '2a00::/32'].map((text) => ({
      prefix: parsePrefix(text)!,
      fact: factAt(50, lon),
    }))
    for (const { key, value } of placeChanges(new Map(), entries)) {
      written.setPage(key, (value as PlacePage).packed)
      tables.apply([{ kind: 'places', key, value: null }])
    }
    for (const client of ['20.0.0.0', '2a00::']) {
      t.ok(findsOf(client) > 0, `${client}, ${lon}`)
      t.equal(plain.facts.basis, 'geo')
      t.equal(findsOf(client), 0, `${client}, ${lon}, again`)
    }
  }
  shared.end()
  t.end()
})

t.test('what was kept of a client does not count again however often all around it changed', (t) => {
  const ROUND = 1 << 13
  const { tables, isAlike } = mapped([{ prefix: parsePrefix('5.6.7.0/24')!, fact: factAt(51, 4) }])
  const move = (lat: number, lon: number) =>
    tables.apply(placeChanges(new Map(), [{ prefix: parsePrefix('5.6.7.0/24')!, fact: factAt(lat, lon) }]))
  const everywhere = (lat: number, lon: number) => tables.setGeography({ lookup: () => placeAt(lat, lon) })
  t.ok(isAlike('5.6.7.0'))
  for (let i = 1; i < ROUND; i++) move(51, 4)
  move(35, 139)
  t.ok(isAlike('5.6.7.0'))
  tables.apply([{ kind: 'places', key: '5.0.0.0/12', value: null }])
  for (const lon of [5, 139]) {
    everywhere(35, lon)
    t.ok(isAlike('5.6.7.0'))
    for (let i = 0; i < ROUND; i++) everywhere(52, 144 - lon)
  }
  t.ok(isAlike('5.6.7.0'))
  t.end()
})

t.test('where a reply has no room nothing is placed', (t) => {
  const plain = new PlainAnswers(context)
  const packet = queryBytes('mirror.any.test', 'A')
  const from = parseAddress('100.64.1.9')!
  const out = new Uint8Array(200).fill(CANARY)
  const bytes = plain.answer(packet, 0, packet.length, from, out, 0, out.length)
  t.ok(bytes > 0)
  out.fill(CANARY)
  t.equal(plain.answer(packet, 0, packet.length, from, out, 10, 10 + bytes - 1), NOT_PLAIN)
  t.ok(out.every((byte) => byte === CANARY))
  t.equal(plain.answer(packet, 0, packet.length, from, out, 10, 10 + bytes), bytes)
  t.end()
})

t.test('a plain question takes no memory', (t) => {
  // In a process of its own: where coverage is taken, the compiler leaves numbers on the heap.
  const { NODE_V8_COVERAGE: _, NODE_OPTIONS: __, ...env } = process.env
  const inside = fileURLToPath(new URL('../support/dns-plain-inside.ts', import.meta.url))
  const run = spawnSync(process.execPath, [inside], { encoding: 'utf8', env })
  t.equal(run.status, 0, run.stderr)
  const { asked, plain, bytes } = JSON.parse(run.stdout) as { asked: number; plain: number; bytes: number[] }
  t.ok(plain > asked / 2, `${plain} of ${asked} questions are plain`)
  t.ok(Math.min(...bytes.map(Math.abs)) < 1, `bytes a question: ${bytes.map((each) => each.toFixed(2))}`)
  t.end()
})
