// Localities in columns: what is packed comes out again, and tables that start with it say what others do.
//
// Slow twins throughout: a plain Map for the map, tables told record by record for the tables.

import t, { type Test } from 'tap'
import { type Address, contains, parseAddress, parsePrefix, prefixOf } from '../../resolver/address.ts'
import type { Change, Evidence, LocalityRecord, PlacePage } from '../../resolver/directory.ts'
import { LocalityMap } from '../../resolver/locality-map.ts'
import { type LocalityPage, openLocalityPage, packLocalities } from '../../resolver/locality-page.ts'
import { measuredMs } from '../../resolver/locality-rows.ts'
import { locate, predict } from '../../resolver/locate.ts'
import { PackedLocalities, sharedPage } from '../../resolver/packed-localities.ts'
import { placeChanges } from '../../resolver/place-page.ts'
import { Tables } from '../../resolver/tables.ts'
import { aHost, ofHost } from '../support/records.ts'
import { seededRng } from '../support/seeded-rng.ts'

const rng = seededRng(26)
const pick = (n: number) => Math.floor(rng() * n)
const oneOf = <T>(items: readonly T[]): T => items[pick(items.length)]!
const address = (text: string): Address => parseAddress(text)!

const evidence = (host: string, over: Partial<Evidence> = {}): Evidence => ({
  host,
  rttMs: 12.345678901234567,
  count: 3,
  atMs: 1_790_000_000_123.5,
  kind: 'active',
  ...over,
})
const locality = (prefix: string, seen: readonly Evidence[] = [evidence('a')]): LocalityRecord => ({
  prefix,
  evidence: seen,
  incumbents: {},
})
const keyed = (...records: LocalityRecord[]) => records.map((record) => [record.prefix, record] as const)
const pageOf = (...records: LocalityRecord[]): LocalityPage =>
  openLocalityPage(packLocalities(keyed(...records)).packed!)!
const packedOf = (...pages: LocalityRecord[][]) =>
  PackedLocalities.of(pages.map((records) => pageOf(...records)))

t.test('what is packed comes out as it went in', async (t) => {
  const awkward: LocalityRecord[] = [
    locality('2001:db8:1::/48', [evidence('v6', { kind: 'client', count: 0 })]),
    locality('0.0.0.0/0'),
    locality('::/0'),
    locality('255.255.255.255/32', [
      evidence('z', { rttMs: 0, atMs: 0, count: 0xffff_ffff }),
      evidence('', { rttMs: -0.1, kind: 'passive' }),
      evidence('z', { rttMs: 1e300 }),
    ]),
    { ...locality('192.0.2.0/24'), incumbents: { web: 'paris', 'm.example': 'z', 'not by alphabet': '' } },
  ]
  const { packed, others } = packLocalities(keyed(...awkward))
  t.same(others, [])
  const page = openLocalityPage(packed!)!
  const all = Array.from({ length: page.size }, (_, row) => page.recordOf(row))
  t.strictSame(new Map(keyed(...all)), new Map(keyed(...awkward)))
  const { incumbents } = all.find(({ prefix }) => prefix === '192.0.2.0/24')!
  t.same(Object.keys(incumbents), ['web', 'm.example', 'not by alphabet'], 'in its order')
})

t.test('what has no place in the columns is given back', async (t) => {
  const fits = locality('192.0.2.0/24')
  const misfits: [string, unknown][] = [
    ['none', { ...fits, evidence: [] }],
    ['a field of a newer version', { ...fits, colour: 'blue' }],
    ['one inside evidence', { ...fits, evidence: [{ ...evidence('a'), colour: 'blue' }] }],
    ['another kind', { ...fits, evidence: [evidence('a', { kind: 'guess' as 'active' })] }],
    ['evidence that is none', { ...fits, evidence: [null] }],
    ['half a sample', { ...fits, evidence: [evidence('a', { count: 0.5 })] }],
    ['too many', { ...fits, evidence: [evidence('a', { count: 2 ** 32 })] }],
    ['other letters', { ...fits, evidence: [evidence('zürich')] }],
    ['a member that is none', { ...fits, incumbents: { web: null } }],
    ['no incumbents', { prefix: fits.prefix, evidence: fits.evidence }],
    ['removed', null],
    ['text', 'text'],
  ]
  for (const [what, value] of misfits) {
    const { packed, others } = packLocalities([
      [fits.prefix, value],
      ['198.51.100.0/24', locality('198.51.100.0/24')],
    ])
    t.same(others, [[fits.prefix, value]], what)
    t.equal(openLocalityPage(packed!)?.size, 1)
  }
  for (const key of ['192.0.2.1/24', '192.0.2.0', '2001:DB8::/48', 'paris', ''])
    t.match(packLocalities([[key, locality(key)]]), { packed: null, others: [[key, {}]] }, `a key ${key}`)
  t.match(packLocalities([['192.0.2.0/24', locality('192.0.3.0/24')]]), { packed: null }, 'another’s key')
})

t.test('bytes that are no page are none, whatever they are, and no reading of others throws', async (t) => {
  const whole = packLocalities(
    keyed(
      { ...locality('192.0.2.0/24', [evidence('a'), evidence('b')]), incumbents: { web: 'a' } },
      locality('2001:db8::/48'),
    ),
  ).packed!
  for (let length = 0; length < whole.length; length++)
    t.equal(openLocalityPage(whole.slice(0, length)), null)
  t.equal(openLocalityPage(new Uint8Array([...whole, 0])), null)
  let opened = 0
  for (let i = 0; i < whole.length; i++) {
    for (const byte of [0, 1, 2, 0x7f, 0xff]) {
      const page = openLocalityPage(whole.with(i, byte))
      for (let row = 0; row < (page?.size ?? 0); row++)
        if (parsePrefix(page!.recordOf(row).prefix) === null) t.fail('a prefix that is none')
      if (page !== null) opened++
    }
  }
  t.ok(opened > 100, `${opened} were pages`)
})

t.test('of pages that have one prefix the last one’s word holds', async (t) => {
  const [first, second] = [locality('192.0.2.0/24', [evidence('old')]), locality('192.0.2.0/24')]
  const packed = packedOf(
    [first, locality('192.0.0.0/16'), locality('2001:db8::/48', [evidence('old')])],
    [locality('192.0.2.0/25'), second],
    [locality('2001:db8::/48')],
  )
  const map = new LocalityMap(packed)
  t.equal(map.size, 4)
  t.same([...map.keys()].sort(), ['192.0.0.0/16', '192.0.2.0/24', '192.0.2.0/25', '2001:db8::/48'])
  t.strictSame(map.get('192.0.2.0/24'), second)
  t.equal(packed.pageOf(packed.rowOfKey('192.0.2.0/24')), 1)
  for (const record of map.values()) t.same(record.evidence, [evidence('a')])
})

t.test('of many records those that fit are packed, and all are there', async (t) => {
  const records = new Map(
    keyed(
      ...Array.from({ length: 9000 }, (_, i) =>
        locality(`11.${i >> 8}.${i & 255}.0/24`, i % 1000 === 0 ? [] : [evidence('a', { atMs: i })]),
      ),
    ),
  )
  const map = LocalityMap.packing(records)
  t.equal(map.packed.size, 8991)
  t.equal(map.size, 9000)
  t.strictSame(
    new Map([...map].sort(([a], [b]) => (a < b ? -1 : 1))),
    new Map([...records].sort(([a], [b]) => (a < b ? -1 : 1))),
  )
})

t.test('the map of them is as any map, and its copies are their own', async (t) => {
  const key = () => (rng() < 0.2 ? `2001:db8:${1 + pick(20)}::/48` : `10.0.${pick(60)}.0/24`)
  const start = new Map(
    keyed(...Array.from({ length: 60 }, () => locality(key(), [evidence(`h${pick(9)}`)]))),
  )
  const records = [...start.values()]
  let map = new LocalityMap(packedOf(records.slice(0, 20), records.slice(20)))
  let twin: Map<string, LocalityRecord> = new Map(start)
  const isAlike = (what: string) => {
    const inOrder = (of: Iterable<readonly [string, LocalityRecord]>) =>
      [...of].sort(([a], [b]) => (a < b ? -1 : 1))
    t.equal(map.size, twin.size, what)
    t.strictSame(inOrder(map), inOrder(twin), what)
    t.strictSame([...map.keys()].sort(), [...twin.keys()].sort())
    t.strictSame(new Set(map.values()).size, twin.size)
    const again = new Map(start)
    for (const { key, value } of map.changes() as Iterable<Change & { kind: 'localities' }>) {
      if (value === null) t.ok(again.delete(key), 'only what was there is removed')
      else again.set(key, value)
    }
    t.strictSame(inOrder(again), inOrder(twin), 'its changes make it of what was packed')
    let visited = 0
    map.forEach((record, at, of) => {
      visited += Number(twin.get(at)?.prefix === record.prefix && of === map)
    })
    t.equal(visited, twin.size)
  }
  isAlike('at the start')
  const old: [LocalityMap, Map<string, LocalityRecord>][] = []
  for (let step = 0; step < 400; step++) {
    const at = key()
    if (rng() < 0.5) {
      const record = locality(at, [evidence(`n${pick(9)}`)])
      t.equal(map.set(at, record), map)
      twin.set(at, record)
    } else t.equal(map.delete(at), twin.delete(at))
    const asked = key()
    t.strictSame(map.get(asked), twin.get(asked))
    t.equal(map.has(asked), twin.has(asked))
    if (step % 50 > 0) continue
    isAlike(`step ${step}`)
    old.push([map, twin])
    ;[map, twin] = [map.copy(), new Map(twin)]
  }
  for ([map, twin] of old) isAlike('a copy took nothing with it')
  const [[before], [after]] = [old[0]!, old.at(-1)!]
  t.same(
    [...before.missingIn(after)].sort(),
    [...before.keys()].filter((at) => !after.has(at)).sort(),
    'what one has and the other has not',
  )
  const other = new LocalityMap(packedOf([locality('10.0.1.0/24')]))
  t.same([...other.missingIn(map)], map.has('10.0.1.0/24') ? [] : ['10.0.1.0/24'], 'of other pages, too')
  map.clear()
  t.same([map.size, [...map], map.get('10.0.1.0/24')], [0, [], undefined])
})

// Tables.

/** A small world whose prefixes, announced and measured, lie inside and beside each other. */
const randomText = () => `11.${pick(2)}.${oneOf([0, 1, 2, 64, 128, 130])}.0`
const randomLocality = (): LocalityRecord => {
  const hosts = ['a', 'b', 'c', 'd', 'e', 'nobody'].slice(pick(3), oneOf([1, 2, 3, 6, 6]))
  const seen = hosts.map((host) => {
    const kind = oneOf(['client', 'passive', 'active', 'active', 'active', 'active'] as const)
    return evidence(host, { rttMs: 10 + 4 * pick(4), count: oneOf([0, 1, 3, 3, 3, 3, 3, 3]), kind })
  })
  const prefix = rng() < 0.1 ? `2001:db8:${1 + pick(3)}::/48` : `${randomText()}/${oneOf([24, 24, 24, 32])}`
  return { prefix, evidence: seen, incumbents: rng() < 0.3 ? { web: 'a' } : {} }
}
const randomPlace = (pages: Map<string, PlacePage>): Change => {
  const text = rng() < 0.1 ? '2001:db8::' : randomText()
  const prefix = prefixOf(address(text), text.includes(':') ? 32 : 112 + pick(9))
  const fact = {
    place: { lat: pick(2), lon: 5, accuracyKm: 9 },
    asn: pick(3) === 0 ? null : 64_500 + pick(3),
    country: pick(2) === 0 ? 'CH' : null,
    source: 'list.csv',
  }
  const [change] = placeChanges(pages, [{ prefix, fact }])
  if (change?.kind !== 'places') throw new Error('no page')
  pages.set(change.key, change.value!)
  return change
}
const hostChanges = ['a', 'b', 'c', 'd', 'e'].map((name, i) => {
  const coordinate = { vec: [9 * i, i, 0, 0, 0, 0, 0, 0], heightMs: 1, adjustmentMs: 0, error: 0.1 }
  return ofHost(aHost(name, { addresses: [`198.51.100.${i + 1}`], coordinate }))
})
const clients = [
  ...Array.from({ length: 60 }, (_, i) => address(`11.${i % 2}.${(i * 37) % 200}.9`)),
  ...[0, 1, 2, 9].map((i) => address(`2001:db8:${i}::9`)),
]

/** What is said of one client. */
const tell = (tables: Tables, client: Address) => {
  const found = locate(tables, client)
  const row = tables.locality(found.row)
  return {
    of: row?.record.prefix,
    evidence: row?.evidence,
    incumbents: row?.record.incumbents,
    basis: found.basis,
    coordinate: found.coordinate,
    predicted: ['a', 'b', 'c', 'd', 'e'].map((name) => predict(tables, found, tables.hostRow(name))),
  }
}
const panelOf = (tables: Tables) => Array.from(tables.panel(), ({ record }) => record)

function randomWorld() {
  const pages = new Map<string, PlacePage>()
  const places = Array.from({ length: pick(20) }, () => randomPlace(pages))
  const records = new Map(keyed(...Array.from({ length: 5 + pick(40) }, randomLocality)))
  const { packed, others } = packLocalities(records)
  const old = keyed(...[...records.values()].slice(0, 5).map((it) => locality(it.prefix, [evidence('old')])))
  const localities = new LocalityMap(
    PackedLocalities.of([packLocalities(old).packed!, packed!].map((bytes) => sharedPage(bytes)!)),
  )
  for (const [key, record] of others) localities.set(key, record)
  for (const [key] of old) if (!records.has(key)) localities.delete(key)
  return { pages, places, records, localities }
}

t.test(
  'tables that start with packed localities say what others do, then and after any change',
  async (t) => {
    for (let round = 0; round < 40; round++) {
      const { pages, places, records, localities } = randomWorld()
      const packed = new Tables()
      packed.apply([...hostChanges, ...places])
      const { packed: start } = localities
      // As in another thread, every second time; and with room for few that were looked at.
      packed.load(round % 2 === 0 ? start : PackedLocalities.over(start.memory), 1 + pick(9))
      packed.apply([...localities.changes()])
      const plain = new Tables()
      plain.apply([
        ...hostChanges,
        ...places,
        ...Array.from(records, ([key, value]): Change => ({ kind: 'localities', key, value })),
      ])
      // What somebody who asks keeps, as long as nothing is told of it.
      const kept = new Map<Address, string | null>()
      packed.onClientsMoved((prefix) => {
        for (const client of [...kept.keys()])
          if (prefix === null || contains(prefix, client)) kept.delete(client)
      })
      const compare = (what: string) => {
        const asked = clients.filter(() => rng() < 0.3)
        const told = asked.map((client) => tell(packed, client))
        t.equal(JSON.stringify(told), JSON.stringify(asked.map((client) => tell(plain, client))), what)
        for (const [i, client] of asked.entries()) {
          kept.set(client, found(packed, client))
          const { scopeBits } = packed.findEvidence(client)
          const near = clients.find(
            (other) => other !== client && contains(prefixOf(client, scopeBits), other),
          )
          if (near && JSON.stringify(tell(packed, near).evidence) !== JSON.stringify(told[i]!.evidence))
            t.fail(`${what}: ${client} and ${near} are of one scope and find different things`)
        }
        t.equal(JSON.stringify(panelOf(packed)), JSON.stringify(panelOf(plain)), `${what}: the panel`)
      }
      compare(`round ${round}`)
      for (let step = 0; step < 9; step++) {
        const change = randomChange(records, pages)
        packed.apply([change])
        plain.apply([change])
        for (const [client, prefix] of kept)
          if (found(packed, client) !== prefix) t.fail(`${client} was told nothing and finds something else`)
        if (step % 3 === 0) compare(`round ${round}, step ${step}`)
      }
      forgetAll(t, packed, records)
    }
  },
)

t.test('a network inside another of its fact has its word, whoever asked first', async (t) => {
  const fact = (country: string) => {
    return { place: { lat: 1, lon: 5, accuracyKm: 9 }, asn: null, country, source: 'list.csv' }
  }
  const places = placeChanges(new Map(), [
    { prefix: parsePrefix('11.1.0.0/16')!, fact: fact('CH') },
    { prefix: parsePrefix('11.1.64.0/18')!, fact: fact('FR') },
    { prefix: parsePrefix('11.1.64.0/24')!, fact: fact('CH') },
  ])
  const records = ['11.1.1.0/24', '11.1.2.0/24'].map((prefix) => locality(prefix))
  const [packed, plain] = [new Tables(), new Tables()]
  packed.apply(places)
  packed.load(packedOf(records))
  plain.apply([
    ...places,
    ...records.map((value): Change => ({ kind: 'localities', key: value.prefix, value })),
  ])
  for (const tables of [packed, plain]) {
    const all = ['11.1.64.9', '11.1.65.9', '11.1.3.9', '11.1.64.9'].map((text) =>
      found(tables, address(text)),
    )
    t.same(all, ['11.1.0.0/16', null, '11.1.0.0/16', '11.1.0.0/16'])
  }
})

/** Of which prefix something is known; null: of none, or only of the AS, of which nothing is told by prefixes. */
function found(tables: Tables, client: Address): string | null {
  const of = tables.locality(tables.findEvidence(client).value)?.record.prefix ?? '::/0'
  return of === '::/0' ? null : of
}

function randomChange(records: Map<string, LocalityRecord>, pages: Map<string, PlacePage>): Change {
  if (rng() < 0.15) return randomPlace(pages)
  const value = randomLocality()
  const key = rng() < 0.5 && records.size > 0 ? oneOf([...records.keys()]) : value.prefix
  if (rng() < 0.4) {
    records.delete(key)
    return { kind: 'localities', key, value: null }
  }
  const record = { ...value, prefix: key }
  records.set(key, record)
  return { kind: 'localities', key, value: record }
}

function forgetAll(t: Test, tables: Tables, records: ReadonlyMap<string, LocalityRecord>): void {
  tables.apply([
    ...Array.from(records.keys(), (key): Change => ({ kind: 'localities', key, value: null })),
    ...hostChanges.map(({ key }): Change => ({ kind: 'hosts', key, value: null })),
  ])
  t.same(
    clients.filter((client) => tables.findEvidence(client).value >= 0),
    [],
  )
  t.same(
    ['a', 'b', 'c', 'd', 'e', 'nobody'].filter((name) => tables.hostRow(name) >= 0),
    [],
    'nothing refers to hosts any more',
  )
  t.equal(tables.localityRow('11.0.0.0/24'), -1)
}

t.test('of too many that were looked at one goes for each that comes, but for the panel', async (t) => {
  const well = ['a', 'b', 'c', 'd'].map((host) => evidence(host))
  const records = Array.from({ length: 40 }, (_, i) =>
    locality(`11.0.${i}.0/24`, i === 1 ? well : [evidence('a')]),
  )
  const tables = new Tables()
  tables.load(packedOf(records), 10)
  const look = (i: number) => tables.locality(tables.findEvidence(address(`11.0.${i}.9`)).value)
  const seen = records.map((_, i) => look(i))
  // From the newest on: those that are there still are none the older for it.
  const kept = [39, 38, 37, 36, 35, 34, 33, 32, 31].filter((i) => look(i) === seen[i])
  t.equal(kept.length, 9, 'the last ones')
  t.equal(look(1), seen[1], 'the one in the panel')
  t.not(look(0), seen[0])
  t.strictSame(look(0)?.record, records[0])
})

t.test('what is looked at for one client is not forgotten while it is', async (t) => {
  const witnessed = ['a', 'b', 'c', 'nobody'].map((host) => evidence(host))
  const tables = new Tables()
  const records = [locality('11.0.0.0/24', [evidence('nobody')]), locality('11.0.1.0/24', witnessed)]
  tables.load(packedOf(records), 1)
  tables.locality(tables.findEvidence(address('11.0.0.9')).value)
  const nobody = tables.hostRow('nobody')
  const [witness] = tables.panel()
  t.equal(measuredMs(witness!, nobody), evidence('nobody').rttMs, 'both know one host by one row')
})

t.test('localities are loaded once, and first', async (t) => {
  const tables = new Tables()
  tables.apply([{ kind: 'localities', key: '192.0.2.0/24', value: locality('192.0.2.0/24') }])
  t.throws(() => tables.load(packedOf([locality('192.0.2.0/24')])), /first/)
})

t.test('the panel is the same of many, however they came', async (t) => {
  const records = Array.from({ length: 3000 }, (_, i) => {
    const hosts = ['a', 'b', 'c', 'd', 'e'].slice(pick(4))
    return locality(
      i % 5 === 0 ? `2001:db8:${(i + 1).toString(16)}::/48` : `11.${i >> 8}.${i & 255}.0/24`,
      hosts.map((host) => evidence(host)),
    )
  })
  const [packed, plain] = [new Tables(), new Tables()]
  packed.load(packedOf(records.slice(0, 700), records.slice(700)))
  const changes = records.map((value): Change => ({ kind: 'localities', key: value.prefix, value }))
  plain.apply(changes)
  t.equal(panelOf(packed).length, 256)
  t.same(panelOf(packed), panelOf(plain))
  // More of them go than are kept at hand.
  for (const record of records.slice(0, 2900)) {
    const gone: Change[] = [{ kind: 'localities', key: record.prefix, value: null }]
    packed.apply(gone)
    plain.apply(gone)
  }
  t.same(panelOf(packed), panelOf(plain))
  t.ok(panelOf(packed).length > 0)
})
