// The DNS benchmark compares servers by what it tells them: the same world, questions that are what resolvers send,
// and figures that are read rightly from what other programs print.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { decode } from 'dns-packet'
import t from 'tap'
import { formatPrefix, parseAddress, parsePrefix } from '../../resolver/address.ts'
import { greatCircleKm } from '../../resolver/geo.ts'
import type { PlaceEntry } from '../../resolver/place-page.ts'
import { newMatch, PrefixTable } from '../../resolver/prefix-table.ts'
import { seededRng } from '../support/seeded-rng.ts'
import { readWish } from './dns.ts'
import { loadProgram, readDnsload, readDnsperf } from './dns-load.ts'
import { PEERS } from './dns-peers.ts'
import { drawQuestion, questionFile } from './dns-questions.ts'
import { drawDnsWorld, makeNetworks, someOf } from './dns-world.ts'

const rng = () => seededRng(5)
const small = () => drawDnsWorld({ hosts: 40, services: 9, members: 20 }, makeNetworks(3000, rng()), rng())

t.test('each service has a member in each region, and hosts are where their region is', async (t) => {
  const { hosts, services, regions } = drawDnsWorld({ hosts: 200, services: 9, members: 20 }, [], rng())
  t.equal(regions.length, 20)
  for (const service of services) {
    const there = service.hosts.map((i) => hosts[i]!.region).sort((a, b) => a - b)
    t.strictSame(there, [...regions.keys()], service.name)
  }
  t.ok(
    hosts.every((host) => greatCircleKm(host, regions[host.region]!) < 1500),
    'within a day of its middle by car',
  )
  t.equal(new Set(hosts.map(({ lat, lon }) => `${lat} ${lon}`)).size, 200, 'each in a city of its own')
  const more = drawDnsWorld({ hosts: 40, services: 3, members: 33 }, [], rng())
  for (const service of more.services) t.equal(new Set(service.hosts).size, 33, 'no host twice')
})

t.test(
  'a table that is made up is nested as the Internet’s, and neighbours are in the same places',
  async (t) => {
    const networks = makeNetworks(20_000, rng())
    const lengths = networks.map(({ prefix }) => prefix.bits - 96)
    t.ok(Math.abs(networks.length - 20_000) < 50, `${networks.length}`)
    const share24 = lengths.filter((bits) => bits === 24).length / networks.length
    t.ok(Math.abs(share24 - 0.606) < 0.01, `${share24} are /24`)
    t.equal(new Set(networks.map(({ prefix }) => formatPrefix(prefix))).size, networks.length, 'each once')
    t.ok(new Set(networks.map(({ fact }) => fact.place.lat)).size < networks.length)
    t.strictSame(makeNetworks(500, rng()), makeNetworks(500, rng()), 'by its seed')
    const some = someOf(networks, 100, rng())
    t.equal(new Set(some).size, 100)
  },
)

t.test('questions are of the world’s services and clients, as packets one behind the other', async (t) => {
  const world = small()
  const table = new PrefixTable()
  for (const { prefix } of world.networks) table.set(prefix, 1)
  const file = questionFile(world, 50, rng())
  let at = 0
  let asked = 0
  for (; at < file.length; asked++) {
    const bytes = file.readUInt16BE(at)
    const { questions, additionals, flag_rd } = decode(file.subarray(at + 2, at + 2 + bytes)) as never as {
      questions: { name: string; type: string }[]
      additionals: { udpPayloadSize: number; options: { ip: string; sourcePrefixLength: number }[] }[]
      flag_rd: boolean
    }
    t.match(questions, [{ type: 'A', name: /^s[0-8]\.any\.test$/ }])
    const [option] = additionals[0]!.options
    t.match(option, { sourcePrefixLength: 24, scopePrefixLength: 0 })
    t.equal(table.find(parseAddress(option!.ip)!, newMatch()).value, 1, 'announced')
    t.notOk(flag_rd)
    at += 2 + bytes
  }
  t.equal(asked, 50)
})

t.test('every server is told to send a client to the same region, however prefixes are nested', async (t) => {
  const inside = (text: string, lat: number, lon: number): PlaceEntry => ({
    prefix: parsePrefix(text)!,
    fact: { place: { lat, lon, accuracyKm: 25 }, asn: null, country: null, source: 'bench' },
  })
  const networks = [inside('203.0.0.0/10', 35.7, 139.7), inside('203.0.113.0/24', -33.9, 151.2)]
  const world = drawDnsWorld({ hosts: 40, services: 2, members: 20 }, networks, rng())
  const [tokyo, sydney] = [18, 19].map((region) =>
    world.services[1]!.hosts.map((i) => world.hosts[i]!).find((host) => host.region === region),
  )
  const folder = t.testdir({ gdnsd: {}, knot: {}, pdns: {} })
  const question = { ...drawQuestion(world, rng()), service: 1, client: parseAddress('203.0.113.0')! }
  for (const peer of PEERS) {
    const own = join(folder, peer.name)
    const launch = peer.prepare(own, world, 5399)
    t.equal(await launch.isRight(question, ['192.0.2.99']), false, `${peer.name}: nobody's address`)
    // Knot's subnets are wider than that network.
    const right = peer.name === 'knot' ? tokyo! : sydney!
    t.equal(await launch.isRight(question, [right.address]), true, peer.name)
  }
  const nets = readFileSync(join(folder, 'gdnsd', 'nets'), 'utf8').split('\n')
  t.match(nets, [/^203\.0\.0\.0\/10 => \[r18,/, /^203\.0\.113\.0\/24 => \[r19,/])
  t.match(
    readFileSync(join(folder, 'knot', 'geo.conf'), 'utf8'),
    `s1.any.test:\n  - net: 203.0.0.0/10\n    A: ${tokyo!.address}`,
  )
})

t.test('what load programs print is read', async (t) => {
  t.equal(loadProgram('/opt/dnsperf').kind, 'dnsperf')
  t.equal(loadProgram('./dnsload').kind, 'dnsload')
  const line =
    'qps=306100 sent=918310 recv=918305 lost=5 stray=0 err=0 noerror=918300 nx=5 other=0 avg_us=650 p50=36 p90=60 p99=86 p999=210 gen_cpu=99%\n'
  const loaded = { qps: 306_100, answers: 918_305, lost: 5, errors: 5, p50us: 36, p99us: 86 }
  t.strictSame(readDnsload(line), loaded)
  t.throws(() => readDnsload('cannot bind'), /told no qps: cannot bind/)
  const text = `  Queries sent:         300
  Queries completed:    290 (96.67%)
  Queries lost:         10 (3.33%)

  Response codes:       NOERROR 280 (96.55%), NXDOMAIN 10 (3.45%)
  Queries per second:   1234.500000
`
  const told = { qps: 1234.5, answers: 290, lost: 10, errors: 10, p50us: null, p99us: null }
  t.strictSame(readDnsperf(text), told)
  t.throws(() => readDnsperf('Error: no servers'), /dnsperf told no/)
})

t.test('a wrong argument is named', async (t) => {
  const wish = (...args: string[]) => readWish(['--load', 'dnsload', ...args])
  t.throws(() => wish('--rounds', '0'), /^--rounds 0: expected a whole number/)
  t.throws(
    () => wish('--servers', 'nearcast,bind'),
    /^--servers bind: expected some of nearcast, gdnsd, knot, pdns/,
  )
  t.match(wish('--servers', 'nearcast'), {
    servers: ['nearcast'],
    rate: 100_000,
    prefixes: null,
    grow: false,
  })
})
