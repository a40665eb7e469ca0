// The experiment of Castro et al. at a fiftieth of its size, with pinned figures; and what its figures rest on:
// routes as the policy has them, addresses as networks give them out, a judge that counts as its slow twin does.

import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import t from 'tap'
import { formatAddress, formatPrefix, localityPrefix, prefixOf } from '../../resolver/address.ts'
import { seededRng } from '../support/seeded-rng.ts'
import { quantile } from './accuracy-score.ts'
import { type GroupReport, type Row, readWish, runScribe, type Wish } from './scribe.ts'
import { anycastCosts, joinCosts } from './scribe-costs.ts'
import { PAPER_SIZE, Topology, type TopologySize } from './scribe-topology.ts'
import { type Addresses, Group, ScribeWorld } from './scribe-world.ts'

const SMALL: TopologySize = { transitDomains: 5, transitRouters: 2, stubDomains: 5, stubRouters: 10 }
const WISH: Wish = {
  size: SMALL,
  nodes: 2_000,
  groups: [600],
  sources: 30,
  probes: 9,
  vantages: 40,
  addresses: ['networks', 'scattered'],
  seed: 1,
  json: true,
}

t.test('the topology is as large as the paper’s, and its round trips are pinned', async (t) => {
  const topology = new Topology(PAPER_SIZE, seededRng(1))
  t.equal(topology.routers, 5_050)
  t.equal(topology.stubRouters, 5_000)
  const draw = seededRng(2)
  const router = () => Math.floor(topology.stubRouters * draw())
  const apart = Array.from({ length: 5_000 }, () => topology.rttMs(router(), router()))
  const inside = Array.from({ length: 5_000 }, () => {
    const a = router()
    return topology.rttMs(a, a - (a % 10) + Math.floor(10 * draw()))
  })
  const deciles = (msOf: readonly number[]) =>
    [0.1, 0.5, 0.9].map((share) => Math.round(quantile(msOf, share)))
  t.same(deciles(apart), [83, 202, 289], 'between any two nodes, ms')
  t.same(deciles(inside), [4, 9, 14], 'between two of one stub domain, ms')
})

t.test('routes are symmetric, stay inside a stub domain, and leave it by its one gateway', async (t) => {
  const topology = new Topology(SMALL, seededRng(3))
  const routers = [...Array(topology.stubRouters).keys()]
  const draw = seededRng(4)
  const pick = () => routers[Math.floor(routers.length * draw())]!
  for (let i = 0; i < 2_000; i++) {
    const [a, b, c] = [pick(), pick(), pick()]
    const ms = topology.rttMs(a, b)
    if (Math.abs(ms - topology.rttMs(b, a)) > 1e-9) t.fail(`${a} ${b}: ${ms}`)
    if (a === b ? ms !== 4 : !(ms > 4)) t.fail(`${a} ${b}: ${ms}`)
    // What two routers of a domain see of two others outside differs by as much: they leave by one way.
    const other = a - (a % 10) + ((a + 3) % 10)
    const isOutside = [b, c].every((there) => topology.stubDomainOf(there) !== topology.stubDomainOf(a))
    const [toB, toC] = [b, c].map((there) => topology.rttMs(a, there) - topology.rttMs(other, there))
    if (isOutside && Math.abs(toB! - toC!) > 1e-9) t.fail(`${a} ${other}: ${toB} ${toC}`)
  }
  t.not(topology.transitOf(0), topology.transitOf(topology.stubRouters - 1))
})

t.test(
  'nodes of a router share a /24, those of a stub domain an announced /20, or nothing at all',
  async (t) => {
    const world = (addresses: Addresses) => new ScribeWorld(SMALL, 2_000, addresses, seededRng(5))
    const networks = world('networks')
    const nodes = [...Array(2_000).keys()]
    const textOf = (at: ScribeWorld) => nodes.map((node) => formatAddress(at.addressOf(node)))
    const given = textOf(networks)
    t.equal(new Set(given).size, 2_000)
    const announced = new Set(networks.announcements().map(({ prefix }) => formatPrefix(prefix)))
    t.equal(announced.size, 50)
    const routerOf = new Map<string, number>()
    for (const node of nodes) {
      const address = networks.addressOf(node)
      const router = networks.routerOf(node)
      const grain = formatPrefix(localityPrefix(address))
      if ((routerOf.get(grain) ?? router) !== router) t.fail(`${grain} is at two routers`)
      routerOf.set(grain, router)
      if (!announced.has(formatPrefix(prefixOf(address, 96 + 20)))) t.fail(`${grain} is not announced`)
    }
    const mixed = textOf(world('mixed'))
    t.same(mixed.toSorted(), given.toSorted(), 'the same addresses')
    const moved = mixed.filter((text, node) => text !== given[node]).length
    t.ok(moved > 150 && moved < 250, `${moved} of 2,000 at another node`)
    const scattered = world('scattered')
    t.equal(new Set(nodes.map((node) => formatPrefix(localityPrefix(scattered.addressOf(node))))).size, 2_000)
    t.same(scattered.announcements(), [])
    t.throws(() => new ScribeWorld(SMALL, 200_000, 'networks', seededRng(5)), /too many/)
  },
)

t.test('the judge counts who is closer as a scan of all members does', async (t) => {
  const world = new ScribeWorld(SMALL, 2_000, 'networks', seededRng(6))
  const members = Array.from({ length: 300 }, (_, i) => 3 * i)
  const group = new Group(world, members)
  for (let source = 1; source < 2_000; source += 50) {
    const receiver = members[source % 300]!
    const msOf = members.map((member) => world.rttMs(source, member))
    const receiverMs = world.rttMs(source, receiver)
    t.same(group.judge(source, receiver), {
      closer: msOf.filter((ms) => ms < receiverMs).length / 300,
      stretch: receiverMs / Math.min(...msOf),
    })
  }
})

t.test('every question, order, packet, reply and report is a message', async (t) => {
  t.same(anycastCosts(4, 20), { withoutProbing: 3, withProbing: 4.6, withProbingForItAlone: 35 })
  t.same(joinCosts(16, 4), { ofKnownHost: 2, ofNewHost: 66, upkeepPerMinute: 16 })
})

t.test('a small world’s figures stay as good as they were, and come again with the same seed', async (t) => {
  const { routers, groups } = runScribe(WISH)
  const [{ rows: plain, byAddresses }] = groups as [GroupReport]
  const [networks, scattered] = byAddresses.map(({ rows }) => rows)
  t.equal(routers, 510)
  const rowOf = (rows: readonly Row[] | undefined, way: string) => rows!.find((row) => row.way.includes(way))!
  const rows: [row: Row, closerP90: number, stretch: number, probes: number][] = [
    [rowOf(networks, 'first answer'), 0.01, 1.2, 0],
    [rowOf(networks, 'at most 9'), 0.004, 1.05, 4],
    [rowOf(plain, 'coordinates'), 0.12, 6, 0],
    [rowOf(scattered, 'at most 9'), 0.09, 5, 9],
  ]
  for (const [{ way, closer, stretch, probes }, ...most] of rows) {
    const told = [closer.p90, stretch.mean, probes]
    t.ok(
      told.every((figure, i) => figure <= most[i]!),
      `${way}: ${told.join(', ')} of ${most.join(', ')}`,
    )
  }
  t.ok(rowOf(plain, 'by chance').closer.p90 > 0.8, 'by chance it is anybody')
  const few = { ...WISH, groups: [60], sources: 5, probes: 4 }
  t.same(runScribe(few), runScribe(few))
})

t.test('an argument that can give no figure is named, with what was expected of it', async (t) => {
  const wrong: [args: string[], message: RegExp][] = [
    [['--groups', '2500,x'], /^--groups x: expected a whole number of at least 2$/],
    [['--groups', '99500'], /^--groups 99500: with 1000 sources that is more than the 100000 nodes$/],
    [['--addresses', 'real'], /^--addresses real: expected some of networks, mixed, scattered$/],
    [['--sources', '0'], /^--sources 0/],
    [['--probes', '-1'], /--probes|'-1'/],
  ]
  for (const [args, message] of wrong) t.throws(() => readWish(args), { message })
  t.match(readWish([]), { groups: [2_500, 25_000], sources: 1_000, nodes: 100_000, probes: 9 })
  const file = join(import.meta.dirname, 'scribe.ts')
  const { status, stderr } = spawnSync(process.execPath, [file, '--sources', 'many'], { encoding: 'utf8' })
  t.equal(status, 2)
  t.match(stderr, /^--sources many: .*\nusage:/)
})
