// The experiment of Castro, Druschel, Kermarrec and Rowstron, "Scalable Application-level Anycast for Highly
// Dynamic Groups" (NGC 2003), with Nearcast's parts in place of Scribe's: how many members of a large group are
// closer to a source than the one that its anycast comes to, and what that costs in messages.
//
//   npm run -s bench:scribe -- [--groups 2500,25000] [--sources 1000] [--addresses networks,scattered] [--json]

import { parseArgs } from 'node:util'
import type { Host } from '../../resolver/directory.ts'
import { seededRng } from '../support/seeded-rng.ts'
import { readCount } from './accuracy-arguments.ts'
import { mean, quantile } from './accuracy-score.ts'
import { shuffle } from './accuracy-world.ts'
import { ScribeAnycast } from './scribe-anycast.ts'
import { type AnycastCosts, anycastCosts, type JoinCosts, joinCosts } from './scribe-costs.ts'
import { hostAt, JOIN_ECHOES, ScribeHosts } from './scribe-hosts.ts'
import { PAPER_SIZE, type TopologySize } from './scribe-topology.ts'
import { type Addresses, Group, ScribeWorld, type Verdict } from './scribe-world.ts'

const ADDRESSES: readonly Addresses[] = ['networks', 'mixed', 'scattered']
/** Probes after which the answers are told. */
const STEPS = [0, 1, 3, 6, 9]
/** What the paper reports: members closer for 90% of anycasts, and messages. */
const PAPER: Readonly<Record<number, { closerP90: number }>> = {
  2500: { closerP90: 0.07 },
  25000: { closerP90: 0.0015 },
}
const PAPER_MESSAGES = { anycast: [2.1, 2.9], join: [2.3, 3.5] }

const USAGE = `usage: npm run -s bench:scribe -- [--groups 2500,25000] [--sources 1000] [--nodes 100000] [--probes 9] [--vantages 128]
  [--addresses ${ADDRESSES.join(',')}] [--seed 1] [--json]`

export interface Wish {
  readonly size: TopologySize
  readonly nodes: number
  readonly groups: readonly number[]
  readonly sources: number
  readonly probes: number
  /** Hosts that the others measure. */
  readonly vantages: number
  readonly addresses: readonly Addresses[]
  readonly seed: number
  readonly json: boolean
}

/** Throws an Error that names the argument and what was expected of it. */
export function readWish(args: readonly string[]): Wish {
  const text = { type: 'string' } as const
  const options = {
    groups: text,
    sources: text,
    nodes: text,
    probes: text,
    vantages: text,
    addresses: text,
    seed: text,
  }
  const { values } = parseArgs({ args: [...args], options: { ...options, json: { type: 'boolean' } } })
  const nodes = readCount('nodes', values.nodes, 100_000, 10)
  const sources = readCount('sources', values.sources, 1_000, 1)
  const groups = (values.groups ?? '2500,25000').split(',').map((one) => readCount('groups', one, 0, 2))
  const large = groups.find((members) => members + sources > nodes)
  if (large !== undefined)
    throw new Error(`--groups ${large}: with ${sources} sources that is more than the ${nodes} nodes`)
  const addresses = (values.addresses ?? ADDRESSES.join(',')).split(',')
  const unknown = addresses.find((name) => !(ADDRESSES as readonly string[]).includes(name))
  if (unknown !== undefined)
    throw new Error(`--addresses ${unknown}: expected some of ${ADDRESSES.join(', ')}`)
  return {
    size: PAPER_SIZE,
    nodes,
    groups,
    sources,
    probes: readCount('probes', values.probes, 9, 0),
    vantages: readCount('vantages', values.vantages, 128, JOIN_ECHOES),
    addresses: ADDRESSES.filter((name) => addresses.includes(name)),
    seed: readCount('seed', values.seed, 1, 0),
    json: values.json ?? false,
  }
}

/** One way to choose the receiver. Shares are of the group's members. */
export interface Row {
  readonly way: string
  /** Probes of a source's network, in the mean. */
  readonly probes: number
  readonly closer: { readonly mean: number; readonly p50: number; readonly p90: number }
  /** The RTT to the receiver over that to the nearest. */
  readonly stretch: { readonly mean: number; readonly p90: number }
}

export interface GroupReport {
  readonly members: number
  readonly paperCloserP90: number | null
  /** Ways that do not look at addresses. */
  readonly rows: readonly Row[]
  readonly byAddresses: readonly AddressesReport[]
  readonly messagesPerJoin: JoinCosts
  readonly echoes: { readonly perJoin: number; readonly perMinuteSettled: number }
}

export interface AddressesReport {
  readonly addresses: Addresses
  readonly rows: readonly Row[]
  readonly messagesPerAnycast: AnycastCosts
}

export interface Report {
  readonly routers: number
  readonly nodes: number
  readonly sources: number
  readonly seed: number
  readonly paperMessages: typeof PAPER_MESSAGES
  readonly groups: readonly GroupReport[]
}

export function runScribe(wish: Wish): Report {
  const { nodes, sources, seed } = wish
  // With the same seed all have the same topology, and the same nodes at the same routers.
  const worlds = wish.addresses.map((kind) => new ScribeWorld(wish.size, nodes, kind, seededRng(seed)))
  const groups = wish.groups.map((members) => runGroup(worlds, members, wish))
  const { routers } = worlds[0]!.topology
  return { routers, nodes, sources, seed, paperMessages: PAPER_MESSAGES, groups }
}

function runGroup(worlds: readonly ScribeWorld[], size: number, wish: Wish): GroupReport {
  const rng = seededRng(wish.seed + size)
  const nodes = shuffle([...Array(wish.nodes).keys()], rng)
  const [members, sources] = [nodes.slice(0, size), nodes.slice(size, size + wish.sources)]
  const [world] = worlds
  const group = new Group(world!, members)
  const hosts = new ScribeHosts(world!, members, wish.vantages, rng)
  const [joined, asHosts] = [hosts.join(members), hosts.join(sources)]
  const echoes = { perJoin: hosts.echoesPerJoin, perMinuteSettled: hosts.echoesPerMinute() }

  const judge = (name: (source: number, i: number) => number) =>
    sources.map((source, i) => group.judge(source, name(source, i)))
  const byChance = judge(() => members[Math.floor(members.length * rng())]!)
  const anycast = new ScribeAnycast(world!, joined, rng)
  const byCoordinate = judge((source, i) => anycast.askAsHost(source, asHosts[i]!))
  return {
    members: size,
    paperCloserP90: PAPER[size]?.closerP90 ?? null,
    rows: [
      rowOf('a member by chance', 0, byChance),
      rowOf('by coordinates, the source being a host', 0, byCoordinate),
    ],
    byAddresses: worlds.map((at) => askAll(at, joined, group, sources, wish)),
    messagesPerJoin: joinCosts(echoes.perJoin, echoes.perMinuteSettled),
    echoes,
  }
}

/** Every source's anycast, in a core that knows the members by their addresses in this world. */
function askAll(
  world: ScribeWorld,
  joined: readonly Host[],
  group: Group,
  sources: readonly number[],
  wish: Wish,
): AddressesReport {
  const hosts = joined.map((host) => hostAt(world, host))
  const anycast = new ScribeAnycast(world, hosts, seededRng(wish.seed))
  const named = sources.map((source) => anycast.ask(source, wish.probes))
  const after = (probes: number) => {
    const sent = named.map((answers) => Math.min(probes, answers.length - 1))
    const verdicts = sources.map((source, i) => group.judge(source, named[i]![sent[i]!]!))
    return rowOf(probes === 0 ? 'no probe: the first answer' : `at most ${probes}`, mean(sent), verdicts)
  }
  const rows = [...STEPS.filter((probes) => probes < wish.probes), wish.probes].map(after)
  const askers = world.addresses === 'scattered' ? 1 : world.nodes / world.topology.stubRouters
  const messagesPerAnycast = anycastCosts(rows.at(-1)!.probes, askers)
  return { addresses: world.addresses, rows, messagesPerAnycast }
}

function rowOf(way: string, probes: number, verdicts: readonly Verdict[]): Row {
  const [closer, stretch] = [verdicts.map((v) => v.closer), verdicts.map((v) => v.stretch)]
  return {
    way,
    probes,
    closer: { mean: mean(closer), p50: quantile(closer, 0.5), p90: quantile(closer, 0.9) },
    stretch: { mean: mean(stretch), p90: quantile(stretch, 0.9) },
  }
}

// What is printed.

const ADDRESS_WORDS: Readonly<Record<Addresses, string>> = {
  networks: 'addresses by network',
  mixed: "addresses by network, of one node in ten another network's",
  scattered: 'addresses that tell nothing',
}

function print({ routers, nodes, sources, seed, groups }: Report): void {
  console.log(`${nodes} nodes on ${routers} routers, ${sources} anycasts a group, seed ${seed}`)
  for (const report of groups) printGroup(report)
  const [low, high] = PAPER_MESSAGES.anycast
  const [least, most] = PAPER_MESSAGES.join
  console.log(`\nCastro et al.: ${low} to ${high} messages an anycast, ${least} to ${most} a join`)
}

function printGroup({ members, paperCloserP90, rows, byAddresses, messagesPerJoin }: GroupReport): void {
  console.log(`\n${members} members`)
  const published = paperCloserP90 === null ? '' : `< ${percent(paperCloserP90)}`
  const table = [
    ['', 'probes', 'closer mean', 'p50', 'p90', 'stretch mean', 'p90'],
    ...(paperCloserP90 === null ? [] : [['Scribe, as published', '', '', '', published, '', '']]),
    ...rows.map(cellsOf),
    ...byAddresses.flatMap(({ addresses, rows }) => [
      [`${ADDRESS_WORDS[addresses]}:`, '', '', '', '', '', ''],
      ...rows.map(cellsOf),
    ]),
  ]
  printTable(table)
  for (const { addresses, messagesPerAnycast } of byAddresses) {
    const { withoutProbing, withProbing, withProbingForItAlone } = messagesPerAnycast
    console.log(
      `messages an anycast, ${addresses}: ${withoutProbing}; with probing ${round(withProbing)} where each node asks once a day, ${round(withProbingForItAlone)} for one alone`,
    )
  }
  const { ofKnownHost, ofNewHost, upkeepPerMinute } = messagesPerJoin
  console.log(
    `messages a join: ${ofKnownHost}; ${round(ofNewHost)} of a new host with its coordinate; ${round(upkeepPerMinute)} a minute to keep that`,
  )
}

function cellsOf({ way, probes, closer, stretch }: Row): string[] {
  return [
    way,
    probes.toFixed(1),
    ...[closer.mean, closer.p50, closer.p90].map(percent),
    ...[stretch.mean, stretch.p90].map((x) => x.toFixed(2)),
  ]
}

function printTable(rows: readonly (readonly string[])[]): void {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  for (const row of rows)
    console.log(
      row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  '),
    )
}

function percent(share: number): string {
  return `${(100 * share).toFixed(3)}%`
}

function round(x: number): number {
  return Number(x.toFixed(1))
}

function main(args: readonly string[]): void {
  try {
    const wish = readWish(args)
    const report = runScribe(wish)
    if (wish.json) console.log(JSON.stringify(report))
    else print(report)
  } catch (error) {
    console.error(`${(error as Error).message}\n${USAGE}`)
    process.exitCode = 2
  }
}

if (import.meta.main) main(process.argv.slice(2))
