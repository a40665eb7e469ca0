// How many questions a second the DNS server answers, beside other servers in the same run, each on one processor.
//
//   npm run -s bench:dns -- [--prefixes FILE] [--load PROGRAM] [--rounds 5] [--seconds 3] [--rate 100000]
//                           [--servers nearcast,gdnsd,knot,pdns] [--seed 1] [--grow [--plot FILE]] [--json]
// 1,000 services of 20 members on 200 hosts, and a table of announced prefixes: FILE is what `nearcast locality import`
// takes, gzipped or not; without it one of the same size and shape is made. Questions are A with a random client's
// /24. Each server runs on processor 0 and the load on 1; rounds take turns. --grow: the core alone, in
// worlds of more and fewer members and prefixes. Linux with taskset.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { Rng } from '../../resolver/ask.ts'
import { seededRng } from '../support/seeded-rng.ts'
import { readCount } from './accuracy-arguments.ts'
import { type LoadProgram, loadProgram } from './dns-load.ts'
import { PEERS } from './dns-peers.ts'
import { questionFile } from './dns-questions.ts'
import { type Figures, figuresOf, rounded, runRounds, SERVER_CPU } from './dns-rounds.ts'
import {
  checkAnswers,
  type DnsServerProcess,
  findProgram,
  installedPeers,
  startNearcast,
  startPeer,
} from './dns-servers.ts'
import { type DnsWorld, drawDnsWorld, makeNetworks, readNetworks, someOf } from './dns-world.ts'
import { drawLines } from './line-plot.ts'

const USAGE =
  'usage: npm run -s bench:dns -- [--prefixes FILE] [--load PROGRAM] [--rounds 5] [--seconds 3] [--rate 100000] [--servers NAME,...] [--seed 1] [--grow [--plot FILE]] [--json]'
/** As many IPv4 prefixes as the Internet announces. */
const PREFIXES = 968_428
const HOSTS = 200
const SERVICES = 1000
const MEMBERS = 20
/** Different questions, asked round and round: more than any server's cache of answers holds. */
const QUESTIONS = 200_000
const CHECKED = 200

interface Wish {
  readonly prefixes: string | null
  readonly load: LoadProgram
  readonly rounds: number
  readonly seconds: number
  readonly rate: number
  readonly servers: readonly string[] | null
  readonly seed: number
  readonly grow: boolean
  /** With grow: where a plot is written; null: nowhere. */
  readonly plot: string | null
  readonly json: boolean
}

/** Throws an Error that names what is wrong. */
export function readWish(args: readonly string[]): Wish {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean' } as const
  const options = {
    ...{ prefixes: text, load: text, rounds: text, seconds: text, rate: text },
    ...{ servers: text, seed: text, plot: text },
    ...{ grow: flag, json: flag },
  } as const
  const { values } = parseArgs({ args: [...args], options })
  const load = values.load ?? findProgram('dnsperf')
  if (load === null) throw new Error('--load: dnsperf is not installed, and no other program was named')
  if (findProgram('taskset') === null)
    throw new Error('taskset is not installed: it keeps servers and load apart')
  return {
    prefixes: values.prefixes ?? null,
    load: loadProgram(load),
    rounds: readCount('rounds', values.rounds, 5, 1),
    seconds: readCount('seconds', values.seconds, 3, 1),
    rate: readCount('rate', values.rate, 100_000, 1),
    servers: values.servers === undefined ? null : readServers(values.servers),
    seed: readCount('seed', values.seed, 1, 0),
    grow: values.grow ?? false,
    plot: values.plot ?? null,
    json: values.json ?? false,
  }
}

function readServers(text: string): string[] {
  const known = ['nearcast', ...PEERS.map(({ name }) => name)]
  const there = ['nearcast', ...installedPeers().map(({ name }) => name)]
  return text.split(',').map((name) => {
    if (!known.includes(name as 'nearcast'))
      throw new Error(`--servers ${name}: expected some of ${known.join(', ')}`)
    if (!there.includes(name as 'nearcast')) throw new Error(`--servers ${name}: it is not installed`)
    return name
  })
}

async function compare(wish: Wish, folder: string): Promise<object> {
  const rng = seededRng(wish.seed)
  const networks = wish.prefixes === null ? makeNetworks(PREFIXES, rng) : readNetworks(wish.prefixes)
  const world = drawDnsWorld({ hosts: HOSTS, services: SERVICES, members: MEMBERS }, networks, rng)
  return report(wish, world, await measure(wish, wish.servers, folder, world, rng))
}

/** `names`: which servers; null: all that are there. */
async function measure(
  wish: Wish,
  names: readonly string[] | null,
  folder: string,
  world: DnsWorld,
  rng: Rng,
): Promise<Map<string, Figures>> {
  const queries = join(folder, 'queries')
  writeFileSync(queries, questionFile(world, QUESTIONS, rng))
  const servers: DnsServerProcess[] = []
  try {
    for await (const server of startServers(wish, names, folder, world)) {
      servers.push(server)
      await checkAnswers(server, world, CHECKED, rng)
    }
    const measured = await runRounds(wish, servers, queries, QUESTIONS)
    return new Map(measured.map((each) => [each.server.name, figuresOf(each)]))
  } finally {
    await Promise.all(servers.map((server) => server.close()))
  }
}

async function* startServers(
  wish: Wish,
  names: readonly string[] | null,
  folder: string,
  world: DnsWorld,
): AsyncIterable<DnsServerProcess> {
  const isWanted = (name: string) => names === null || names.includes(name)
  if (isWanted('nearcast')) yield startNearcast(folder, world, seededRng(wish.seed), SERVER_CPU)
  for (const peer of installedPeers())
    if (isWanted(peer.name)) yield startPeer(peer, folder, world, SERVER_CPU)
}

function report(wish: Wish, { networks }: DnsWorld, figures: ReadonlyMap<string, Figures>): object {
  const ours = figures.get('nearcast')
  const compared = (tell: (figures: Figures) => number | null) => {
    const ratios: Record<string, number> = {}
    for (const [name, theirs] of figures) {
      const [own, other] = [ours === undefined ? null : tell(ours), tell(theirs)]
      if (name !== 'nearcast' && own !== null && other !== null) ratios[name] = rounded(own / other)
    }
    return ratios
  }
  return {
    servers: Object.fromEntries(figures),
    ratio: compared(({ qps }) => qps),
    cpuRatio: compared(({ usPerQuery }) => usPerQuery),
    singleRatio: compared(({ singleQps }) => singleQps),
    singleCpuRatio: compared(({ singleUsPerQuery }) => singleUsPerQuery),
    p99Ratio: compared(({ p99us }) => p99us),
    world: {
      hosts: HOSTS,
      services: SERVICES,
      members: MEMBERS,
      prefixes: networks.length,
      table: wish.prefixes,
    },
    ...conditions(wish),
  }
}

const conditions = ({ load, rounds, seconds, rate }: Wish) => ({
  load: load.path,
  rounds,
  seconds,
  rate,
  node: process.version,
})

// How cost grows.

interface GrownWorld {
  readonly members: number
  readonly services: number
  readonly hosts: number
  readonly prefixes: number
}

interface GrownRow extends GrownWorld, Figures {}

/** One after another, a server and its load for each. */
async function grow(wish: Wish, folder: string): Promise<object> {
  const networks =
    wish.prefixes === null ? makeNetworks(PREFIXES, seededRng(wish.seed)) : readNetworks(wish.prefixes)
  const rows: GrownRow[] = []
  for (const [i, { prefixes, ...size }] of grownWorlds(networks.length).entries()) {
    const rng = seededRng(wish.seed)
    const some = prefixes === networks.length ? networks : someOf(networks, prefixes, rng)
    const own = join(folder, `${i}`)
    mkdirSync(own)
    const figures = await measure(wish, ['nearcast'], own, drawDnsWorld(size, some, rng), rng)
    rows.push({ ...size, prefixes, ...figures.get('nearcast')! })
    rmSync(own, { recursive: true })
  }
  if (wish.plot !== null) writeFileSync(wish.plot, drawGrowth(rows))
  return { rows, ...conditions(wish) }
}

/** Members in all are no more than 100,000: 10,000 of each of ten services, on as many hosts. */
function grownWorlds(most: number): GrownWorld[] {
  const usual = { members: MEMBERS, services: SERVICES, hosts: HOSTS, prefixes: most }
  return [
    { ...usual, members: 1 },
    usual,
    { ...usual, members: 100 },
    { ...usual, members: 10_000, services: 10, hosts: 10_000 },
    { ...usual, prefixes: 10_000 },
    { ...usual, prefixes: 100_000 },
  ]
}

/** Both kinds of growth on one scale of powers of ten. */
function drawGrowth(rows: readonly GrownRow[]): string {
  const most = Math.max(...rows.map(({ prefixes }) => prefixes))
  const line = (of: 'members' | 'prefixes', isOn: (row: GrownRow) => boolean) =>
    rows
      .filter(isOn)
      .map((row) => [row[of], row.usPerQuery] as const)
      .sort(([a], [b]) => a - b)
  const lines = [
    { name: 'members', points: line('members', ({ prefixes }) => prefixes === most) },
    { name: 'prefixes', points: line('prefixes', ({ members }) => members === MEMBERS) },
  ]
  const top = Math.ceil(Math.max(...rows.map(({ usPerQuery }) => usPerQuery)))
  return drawLines(lines, {
    title: 'What a query costs, by members of a service and by prefixes of the table',
    x: {
      name: 'members of each service, and prefixes',
      ticks: [1, 10, 100, 1000, 10_000, 100_000, 1_000_000],
      at: (x) => Math.log10(x) / 6,
    },
    y: {
      name: 'processor time, us',
      ticks: Array.from({ length: top + 1 }, (_, us) => us),
      at: (us) => us / top,
    },
  })
}

const COLUMNS = [
  'qps',
  'usPerQuery',
  'singleQps',
  'singleUsPerQuery',
  'p50us',
  'p99us',
  'rssMiB',
  'startSec',
  'lost',
  'errors',
  'dirtyRounds',
] as const

const GROWN = ['members', 'services', 'hosts', 'prefixes'] as const

function print(result: object): void {
  const {
    servers = {},
    rows = [],
    ...rest
  } = result as { servers?: Record<string, Figures>; rows?: GrownRow[] }
  const cells = (row: object, columns: readonly string[]) =>
    columns.map((column) => `${(row as Record<string, unknown>)[column] ?? '-'}`)
  const lines =
    rows.length > 0
      ? [[...GROWN, ...COLUMNS], ...rows.map((row) => cells(row, [...GROWN, ...COLUMNS]))]
      : [
          ['server', ...COLUMNS],
          ...Object.entries(servers).map(([name, row]) => [name, ...cells(row, COLUMNS)]),
        ]
  const widths = lines[0]!.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)))
  for (const line of lines) console.log(line.map((cell, i) => cell.padStart(widths[i]!)).join('  '))
  for (const [name, { serves }] of Object.entries(servers)) console.log(`${name}: ${serves}`)
  for (const [name, value] of Object.entries(rest)) console.log(`${name}: ${JSON.stringify(value)}`)
}

if (import.meta.main) {
  const folder = mkdtempSync(join(tmpdir(), 'nearcast-dns-'))
  try {
    const wish = readWish(process.argv.slice(2))
    const result = await (wish.grow ? grow : compare)(wish, folder)
    if (wish.json) console.log(JSON.stringify(result))
    else print(result)
  } catch (error) {
    console.error(`${(error as Error).message}\n${USAGE}`)
    process.exitCode = 2
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
