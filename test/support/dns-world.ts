// A world with a bit of everything that decides an answer: mapped and measured clients, hosts among them, services of
// every policy, members that are full, drained, dead or share a host. By a seed, and with changes that keep it moving.

import { parsePrefix } from '../../resolver/address.ts'
import type { Change, Coordinate, PlacePage } from '../../resolver/directory.ts'
import { type PlaceEntry, placeChanges } from '../../resolver/place-page.ts'
import { host, locality, member, service } from './records.ts'
import { seededRng } from './seeded-rng.ts'

const HOSTS = 60
const POLICIES = ['nearest', 'nearest', 'nearest', 'failover', 'hash', 'random', 'weighted'] as const

export interface DnsWorld {
  readonly changes: readonly Change[]
  readonly services: readonly string[]
  readonly rng: () => number
  /** The address of some client, IPv4 or IPv6, text. */
  client(): string
  /** Something that happens. */
  change(): readonly Change[]
}

export function dnsWorld(seed: number): DnsWorld {
  const rng = seededRng(seed)
  const under = (n: number) => Math.floor(rng() * n)
  const spot = () => ({ lat: under(120) - 60 + rng(), lon: under(360) - 180 + rng(), accuracyKm: 25 })
  const networks = Array.from({ length: 120 }, (_, i) => ({
    first: 20 + (i % 12),
    second: under(256),
    bits: 16 + under(9),
  }))
  const client = () => {
    const { first, second } = networks[under(networks.length)]!
    if (rng() < 0.2) return `2a0${under(4)}:${under(40).toString(16)}00:${under(9)}::${under(99)}`
    // A few from where nothing is announced, and from among the hosts.
    const kind = rng()
    if (kind < 0.05) return `100.64.${under(256)}.${under(256)}`
    return `${first}.${second}.${under(kind < 0.5 ? 8 : 256)}.${under(256)}`
  }
  const hostAt = (i: number, over: object = {}) => {
    const { first, second } = networks[(7 * i) % networks.length]!
    const addresses = [
      `${first}.${second}.${i % 8}.${10 + i}`,
      ...(i % 3 === 0 ? [`2a00:${i % 40}00:1::${i}`] : []),
    ]
    const coordinate = i % 4 === 0 ? null : point(i)
    // One in ten is on no map.
    return host(`h${i}`, addresses, { place: i % 10 === 9 ? null : spotOf(i), coordinate, ...over })
  }
  const spots = Array.from({ length: HOSTS }, spot)
  const spotOf = (i: number) => spots[i]!
  const entries: PlaceEntry[] = networks.map(({ first, second, bits }, i) => ({
    prefix: parsePrefix(`${first}.${second}.0.0/${bits}`)!,
    fact: { place: spot(), asn: 1000 + (i % 40), country: 'NL', source: 'test' },
  }))
  for (let i = 0; i < 40; i++) {
    const fact = { place: spot(), asn: 2000 + i, country: null, source: 'test' }
    entries.push({ prefix: parsePrefix(`2a0${i % 4}:${i.toString(16)}00::/32`)!, fact })
  }
  const services = Array.from({ length: 24 }, (_, i) => `s${i}`)
  const putService = (i: number) =>
    service(`s${i}`, {
      policy: POLICIES[i % POLICIES.length]!,
      tieMs: [0, 2, 30][i % 3]!,
      minAddrs: i % 5 === 4 ? 3 : 1,
      maxAddrs: i % 5 === 4 ? 4 : 2,
      ttlSec: 30 + under(3),
      aliases: i % 6 === 0 ? [`www${i}`, `cdn${i}.example.org`] : [],
    })
  const putMember = (i: number, m: number) =>
    member(`s${i}`, `m${m}`, {
      host: `h${(5 * i + m) % HOSTS}`,
      capacity: 1 + under(3),
      load: i % 8 === 7 ? 3 * rng() : null,
      drained: rng() < 0.05,
      health: rng() < 0.1 ? 'down' : 'up',
      attributes: { tier: String(m % 2) },
    })
  const sizeOf = (i: number) => [1, 3, 12, 20, 40][i % 5]!
  const measured = () => {
    const { first, second } = networks[under(networks.length)]!
    const rtts = Object.fromEntries(Array.from({ length: 6 }, () => [`h${under(HOSTS)}`, 5 + 200 * rng()]))
    return locality(`${first}.${second}.${under(8)}.0/24`, rtts)
  }
  const pages = new Map<string, PlacePage>()
  const places = (some: readonly PlaceEntry[]) => {
    const changed = placeChanges(pages, some)
    for (const { key, value } of changed) if (value !== null) pages.set(key, value as PlacePage)
    return changed
  }
  const change = (): readonly Change[] => {
    const i = under(services.length)
    switch (under(8)) {
      case 0:
        return [hostAt(under(HOSTS), { presence: rng() < 0.5 ? 'silent' : 'live' })]
      case 1:
        return [putService(i)]
      case 2:
        return [measured()]
      case 3:
        return places([
          {
            ...entries[under(entries.length)]!,
            fact: { place: spot(), asn: null, country: null, source: 't' },
          },
        ])
      default:
        return [putMember(i, under(sizeOf(i)))]
    }
  }
  const changes = [
    ...Array.from({ length: HOSTS }, (_, i) => hostAt(i)),
    ...services.map((_, i) => putService(i)),
    ...services.flatMap((_, i) => Array.from({ length: sizeOf(i) }, (_, m) => putMember(i, m))),
    ...places(entries),
    ...Array.from({ length: 12 }, measured),
  ]
  return { changes, services, rng, client, change }
}

function point(i: number): Coordinate {
  return { vec: [i, -i, 3 * i, 0, 1, 2, 3, 4], heightMs: 2, adjustmentMs: 0, error: 0.2 }
}
