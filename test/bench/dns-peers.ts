// The servers that bench:dns compares with, as Debian has them, each told the same world in its own words.
//
// gdnsd: a map of all prefixes, each with the regions in order of distance; the services' members by region.
// Knot, mod-geoip by subnets: a list for each name, so only as many subnets as it holds in memory as large as ours.
// PowerDNS, shared LUA records: pickclosest among the members' addresses, by an MMDB of all prefixes.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { formatPrefix, IPV4_OFFSET_BITS, prefixOf } from '../../resolver/address.ts'
import { greatCircleKm } from '../../resolver/geo.ts'
import { newMatch, PrefixTable } from '../../resolver/prefix-table.ts'
import { writeMmdb } from '../core-node/mmdb-writer.ts'
import { type DnsQuestion, ZONE } from './dns-questions.ts'
import type { DnsWorld } from './dns-world.ts'

/** How a server is started, and what answers of it are right. */
export interface Launch {
  readonly command: string
  readonly args: readonly string[]
  /** Whether this is what the server was told to answer. */
  isRight(question: DnsQuestion, addresses: readonly string[]): boolean | Promise<boolean>
}

export interface Peer {
  readonly name: 'gdnsd' | 'knot' | 'pdns'
  readonly program: string
  /** What it was given, for the reader of the table. */
  readonly serves: string
  prepare(folder: string, world: DnsWorld, port: number): Launch
}

const TTL_SEC = 30
/** Knot takes 0.4 GB for so many subnets of 1,000 names: all /10. */
const KNOT_SUBNET_BITS = 10
/** PowerDNS goes by a distance of its own, not by the great circle's: whom it names may be so much farther than the nearest. */
const PDNS_FARTHER = 1.3
const PDNS_FARTHER_KM = 200

export const PEERS: readonly Peer[] = [
  {
    name: 'gdnsd',
    program: 'gdnsd',
    serves: 'plugin_geoip: a nets map of all prefixes, 20 datacenters',
    prepare: prepareGdnsd,
  },
  {
    name: 'knot',
    program: 'knotd',
    serves: `mod-geoip: subnets, all /${KNOT_SUBNET_BITS} of each name`,
    prepare: prepareKnot,
  },
  {
    name: 'pdns',
    program: 'pdns_server',
    serves: 'enable-lua-records=shared: pickclosest, an MMDB of all prefixes',
    prepare: preparePdns,
  },
]

function prepareGdnsd(folder: string, world: DnsWorld, port: number): Launch {
  const orderOf = regionOrders(world)
  const net = ({ prefix, fact }: DnsWorld['networks'][number]) =>
    `${formatPrefix(prefix)} => [${orderOf(fact.place).map((region) => `r${region}`)}]`
  const resources = world.services.map(({ name, hosts }) => {
    const addresses = hosts.map((i) => `r${world.hosts[i]!.region} => ${world.hosts[i]!.address}`)
    return `${name} => { map => world, dcmap => { ${addresses.join(', ')} } }`
  })
  const folders = ['run', 'state', 'zones'].map((name) => join(folder, name))
  for (const each of folders) mkdirSync(each)
  const nets = join(folder, 'nets')
  writeFileSync(nets, world.networks.map(net).join('\n'))
  writeFileSync(
    join(folder, 'config'),
    `options => { listen => [127.0.0.1:${port}], run_dir => ${folders[0]}, state_dir => ${folders[1]},
      udp_threads => 1, tcp_threads => 1 }
    plugins => { geoip => {
      maps => { world => { datacenters => [${world.regions.map((_, i) => `r${i}`)}], nets => ${nets} } }
      resources => {\n${resources.join('\n')}\n}
    } }`,
  )
  writeFileSync(
    join(folder, 'zones', ZONE),
    zoneFile(world, (name) => `${TTL_SEC} DYNA geoip!${name}`),
  )
  const placeOf = placesOf(world)
  return {
    command: 'gdnsd',
    args: ['-c', folder, 'start'],
    isRight: (question, addresses) => {
      const region = orderOf(placeOf(question))[0]!
      return addresses.length === 1 && addresses[0] === memberIn(world, question.service, region)
    },
  }
}

function prepareKnot(folder: string, world: DnsWorld, port: number): Launch {
  const orderOf = regionOrders(world)
  const blocks = new Map<string, number>()
  const blockOf = (address: Uint8Array) =>
    formatPrefix(prefixOf(address, IPV4_OFFSET_BITS + KNOT_SUBNET_BITS))
  // Many prefixes are in one of them: the first speaks for all.
  for (const { prefix, fact } of world.networks) {
    const block = blockOf(prefix.address)
    if (prefix.bits >= IPV4_OFFSET_BITS + KNOT_SUBNET_BITS && !blocks.has(block))
      blocks.set(block, orderOf(fact.place)[0]!)
  }
  const names = world.services.map(({ name }, service) => {
    const nets = Array.from(
      blocks,
      ([net, region]) => `  - net: ${net}\n    A: ${memberIn(world, service, region)}`,
    )
    return `${name}.${ZONE}:\n${nets.join('\n')}`
  })
  writeFileSync(join(folder, 'geo.conf'), `${names.join('\n')}\n`)
  writeFileSync(
    join(folder, ZONE),
    zoneFile(world, (_, service) => `${TTL_SEC} A ${memberIn(world, service, 0)}`),
  )
  writeFileSync(
    join(folder, 'knot.conf'),
    `server:
    rundir: "${folder}"
    listen: 127.0.0.1@${port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
    edns-client-subnet: on
database:
    storage: "${join(folder, 'db')}"
mod-geoip:
  - id: world
    config-file: "${join(folder, 'geo.conf')}"
    ttl: ${TTL_SEC}
    mode: subnet
template:
  - id: default
    storage: "${folder}"
    zonefile-load: whole
    journal-content: none
zone:
  - domain: ${ZONE}
    file: ${ZONE}
    module: mod-geoip/world
`,
  )
  return {
    command: 'knotd',
    args: ['-c', join(folder, 'knot.conf')],
    isRight: ({ service, client }, addresses) => {
      const region = blocks.get(blockOf(client)) ?? 0
      return addresses.length === 1 && addresses[0] === memberIn(world, service, region)
    },
  }
}

function preparePdns(folder: string, world: DnsWorld, port: number): Launch {
  const records = new Map<
    string,
    { location: { latitude: number; longitude: number; accuracy_radius: number } }
  >()
  // Without a radius it takes a place for none.
  const recordOf = ({ lat, lon }: { readonly lat: number; readonly lon: number }) => {
    const key = `${lat} ${lon}`
    const known = records.get(key) ?? { location: { latitude: lat, longitude: lon, accuracy_radius: 25 } }
    records.set(key, known)
    return known
  }
  const networks = world.networks.map(
    ({ prefix, fact }) => [formatPrefix(prefix), recordOf(fact.place)] as const,
  )
  // Where the members are is looked up in the same database.
  const hosts = world.hosts.map((host) => [`${host.address}/32`, recordOf(host)] as const)
  writeFileSync(join(folder, 'world.mmdb'), writeMmdb({ ipVersion: 4, networks: [...networks, ...hosts] }))
  const addressesOf = (service: number) => world.services[service]!.hosts.map((i) => world.hosts[i]!.address)
  writeFileSync(
    join(folder, ZONE),
    zoneFile(world, (_, service) => {
      const list = addressesOf(service).map((address) => `'${address}'`)
      return `${TTL_SEC} LUA A "pickclosest({${list}})"`
    }),
  )
  writeFileSync(
    join(folder, 'named.conf'),
    `zone "${ZONE}" { type master; file "${join(folder, ZONE)}"; };\n`,
  )
  writeFileSync(
    join(folder, 'pdns.conf'),
    `launch=bind,geoip
bind-config=${join(folder, 'named.conf')}
geoip-database-files=mmdb:${join(folder, 'world.mmdb')}
enable-lua-records=shared
edns-subnet-processing=yes
local-address=127.0.0.1
local-port=${port}
receiver-threads=1
distributor-threads=1
socket-dir=${folder}
loglevel=3
`,
  )
  const placeOf = placesOf(world)
  return {
    command: 'pdns_server',
    args: ['--daemon=no', '--guardian=no', `--config-dir=${folder}`],
    isRight: (question, addresses) => {
      const place = placeOf(question)
      const km = new Map(
        world.services[question.service]!.hosts.map((i) => {
          const host = world.hosts[i]!
          return [host.address, greatCircleKm(place, host)]
        }),
      )
      const found = addresses.length === 1 ? km.get(addresses[0]!) : undefined
      return found !== undefined && found <= PDNS_FARTHER * Math.min(...km.values()) + PDNS_FARTHER_KM
    },
  }
}

function zoneFile(world: DnsWorld, recordOf: (name: string, service: number) => string): string {
  const apex = `$ORIGIN ${ZONE}.\n@ 10 SOA ns hostmaster 1 7200 900 1209600 10\n@ 10 NS ns\nns 10 A 192.0.2.53\n`
  return `${apex}${world.services.map(({ name }, i) => `${name} ${recordOf(name, i)}`).join('\n')}\n`
}

/** The regions in order of distance from a place; many prefixes are in one place. */
function regionOrders({
  regions,
}: DnsWorld): (place: { readonly lat: number; readonly lon: number }) => number[] {
  const orders = new Map<string, number[]>()
  return (place) => {
    const key = `${place.lat} ${place.lon}`
    let order = orders.get(key)
    if (order === undefined) {
      const km = regions.map((region) => greatCircleKm(place, region))
      order = [...km.keys()].sort((a, b) => km[a]! - km[b]!)
      orders.set(key, order)
    }
    return order
  }
}

/** The place of the longest prefix around a client. */
function placesOf({ networks }: DnsWorld): (question: DnsQuestion) => { lat: number; lon: number } {
  const table = new PrefixTable()
  networks.forEach(({ prefix }, i) => {
    table.set(prefix, i)
  })
  const match = newMatch()
  return ({ client }) => networks[table.find(client, match).value]!.fact.place
}

function memberIn(world: DnsWorld, service: number, region: number): string {
  const { hosts } = world.services[service]!
  return world.hosts[hosts.find((i) => world.hosts[i]!.region === region)!]!.address
}
