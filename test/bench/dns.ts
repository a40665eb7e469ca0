// How many questions a second the DNS server answers, beside other servers in the same run, each on one processor.
//
//   npm run -s bench:dns -- [--prefixes FILE] [--load PROGRAM] [--rounds 5] [--seconds 3] [--rate 100000]
//                           [--servers nearcast,gdnsd,knot,pdns] [--seed 1] [--grow] [--json]
// 1,000 services of 20 members on 200 hosts, and a table of announced prefixes: FILE is what `nearcast locality import`
// takes, gzipped or not; without it one of the same size and shape is made. Questions are A with a random client's
// /24. Each server runs on processor 0 and the load on 1; rounds take turns. Linux with taskset.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { seededRng } from '../support/seeded-rng.ts'
import { readCount } from './accuracy-arguments.ts'
import { type LoadProgram, type LoadResult, loadProgram, runLoad } from './dns-load.ts'
import { foreignShare, momentOf, residentMiB } from './dns-machine.ts'
import { questionFile } from './dns-questions.ts'
import {
  checkAnswers,
  type DnsServerProcess,
  findProgram,
  installedPeers,
  startNearcast,
  startPeer,
} from './dns-servers.ts'
import { type DnsWorld, drawDnsWorld, makeNetworks, readNetworks } from './dns-world.ts'

const USAGE =
  'usage: npm run -s bench:dns -- [--prefixes FILE] [--load PROGRAM] [--rounds 5] [--seconds 3] [--rate 100000] [--servers NAME,...] [--seed 1] [--json]'
/** As many IPv4 prefixes as the Internet announces. */
const PREFIXES = 968_428
const HOSTS = 200
const SERVICES = 1000
const MEMBERS = 20
const SERVER_CPU = 0
const LOAD_CPU = 1
/** Different questions, asked round and round: more than any server's cache of answers holds. */
const QUESTIONS = 200_000
const CHECKED = 200
/** A round in which others took more of the machine than this says nothing. */
const MAX_FOREIGN = 0.12

interface Wish {
  readonly prefixes: string | null
  readonly load: LoadProgram
  readonly rounds: number
  readonly seconds: number
  readonly rate: number
  readonly servers: readonly string[] | null
  readonly seed: number
  readonly json: boolean
}

function readWish(args: readonly string[]): Wish {
  const text = { type: 'string' } as const
  const options = {
    ...{ prefixes: text, load: text, rounds: text, seconds: text, rate: text, servers: text, seed: text },
    json: { type: 'boolean' },
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
    servers: values.servers?.split(',') ?? null,
    seed: readCount('seed', values.seed, 1, 0),
    json: values.json ?? false,
  }
}

interface Round extends LoadResult {
  /** Processor time of the server for each answer, us. */
  readonly usPerQuery: number
  readonly foreign: number
}

interface Measured {
  readonly server: DnsServerProcess
  readonly atMost: Round[]
  readonly atRate: Round[]
}

async function measure(wish: Wish, folder: string): Promise<object> {
  const rng = seededRng(wish.seed)
  const networks = wish.prefixes === null ? makeNetworks(PREFIXES, rng) : readNetworks(wish.prefixes)
  const world = drawDnsWorld({ hosts: HOSTS, services: SERVICES, members: MEMBERS }, networks, rng)
  const queries = join(folder, 'queries')
  writeFileSync(queries, questionFile(world, QUESTIONS, rng))
  const servers: DnsServerProcess[] = []
  try {
    for await (const server of startServers(wish, folder, world)) {
      servers.push(server)
      await checkAnswers(server, world, CHECKED, rng)
    }
    const measured = await runRounds(wish, servers, queries)
    return report(wish, world, measured)
  } finally {
    await Promise.all(servers.map((server) => server.close()))
  }
}

async function* startServers(wish: Wish, folder: string, world: DnsWorld): AsyncIterable<DnsServerProcess> {
  const isWanted = (name: string) => wish.servers === null || wish.servers.includes(name)
  if (isWanted('nearcast')) yield startNearcast(folder, world, seededRng(wish.seed), SERVER_CPU)
  for (const peer of installedPeers())
    if (isWanted(peer.name)) yield startPeer(peer, folder, world, SERVER_CPU)
}

async function runRounds(
  { load, rounds, seconds, rate }: Wish,
  servers: readonly DnsServerProcess[],
  queries: string,
): Promise<Measured[]> {
  const measured = servers.map((server): Measured => ({ server, atMost: [], atRate: [] }))
  const run = async ({ pid, port }: DnsServerProcess, pace: number | null): Promise<Round> => {
    const before = momentOf(pid)
    const result = await runLoad(load, { port, queries, cpu: LOAD_CPU, seconds, rate: pace })
    const after = momentOf(pid)
    const usPerQuery = ((after.serverSec - before.serverSec) * 1e6) / result.answers
    return { ...result, usPerQuery, foreign: foreignShare(before, after) }
  }
  // The first load is not counted: what runs in a JIT is compiled in it.
  for (const { server } of measured) await run(server, null)
  for (let round = 0; round < rounds; round++) {
    for (const { server, atMost } of measured) atMost.push(await run(server, null))
  }
  for (let round = 0; round < rounds; round++) {
    for (const { server, atRate } of measured) atRate.push(await run(server, rate))
  }
  return measured
}

/** The rounds that count: those that others left alone, or all where that is too few. */
function clean(rounds: readonly Round[]): readonly Round[] {
  const quiet = rounds.filter(({ foreign }) => foreign <= MAX_FOREIGN)
  return quiet.length * 2 > rounds.length ? quiet : rounds
}

function medianOf(rounds: readonly Round[], tell: (round: Round) => number | null): number | null {
  const values = clean(rounds)
    .map(tell)
    .filter((value) => value !== null)
    .sort((a, b) => a - b)
  return values.length === 0 ? null : values[values.length >> 1]!
}

interface Figures {
  readonly qps: number
  readonly usPerQuery: number
  readonly p50us: number | null
  readonly p99us: number | null
  /** Answers a second where `rate` were asked. */
  readonly qpsAtRate: number
  readonly qpsLeast: number
  readonly qpsMost: number
  readonly lost: number
  readonly errors: number
  readonly startSec: number
  readonly rssMiB: number
  readonly dirtyRounds: number
  readonly serves: string
}

function figuresOf({ server, atMost, atRate }: Measured): Figures {
  const all = [...atMost, ...atRate]
  const sum = (tell: (round: Round) => number) => all.reduce((total, round) => total + tell(round), 0)
  const rates = clean(atMost).map(({ qps }) => qps)
  return {
    qps: Math.round(medianOf(atMost, ({ qps }) => qps)!),
    usPerQuery: rounded(medianOf(atMost, ({ usPerQuery }) => usPerQuery)!),
    p50us: medianOf(atRate, ({ p50us }) => p50us),
    p99us: medianOf(atRate, ({ p99us }) => p99us),
    qpsAtRate: Math.round(medianOf(atRate, ({ qps }) => qps)!),
    qpsLeast: Math.round(Math.min(...rates)),
    qpsMost: Math.round(Math.max(...rates)),
    lost: sum(({ lost }) => lost),
    errors: sum(({ errors }) => errors),
    startSec: rounded(server.startSec),
    rssMiB: residentMiB(server.pid),
    dirtyRounds: all.filter(({ foreign }) => foreign > MAX_FOREIGN).length,
    serves: server.serves,
  }
}

function report(wish: Wish, { networks }: DnsWorld, measured: readonly Measured[]): object {
  const servers = Object.fromEntries(measured.map((each) => [each.server.name, figuresOf(each)]))
  const ours = servers.nearcast
  const compared = (tell: (figures: Figures) => number | null) =>
    Object.fromEntries(
      Object.entries(servers).flatMap(([name, figures]) => {
        const [own, other] = [ours === undefined ? null : tell(ours), tell(figures)]
        return name === 'nearcast' || own === null || other === null ? [] : [[name, rounded(own / other)]]
      }),
    )
  const foreign = measured.flatMap(({ atMost, atRate }) =>
    [...atMost, ...atRate].map((round) => round.foreign),
  )
  return {
    servers,
    ratio: compared(({ qps }) => qps),
    cpuRatio: compared(({ usPerQuery }) => usPerQuery),
    p99Ratio: compared(({ p99us }) => p99us),
    world: {
      hosts: HOSTS,
      services: SERVICES,
      members: MEMBERS,
      prefixes: networks.length,
      table: wish.prefixes,
    },
    load: wish.load.path,
    rounds: wish.rounds,
    seconds: wish.seconds,
    rate: wish.rate,
    foreign: {
      most: rounded(Math.max(...foreign)),
      mean: rounded(foreign.reduce((a, b) => a + b, 0) / foreign.length),
    },
    node: process.version,
  }
}

function rounded(value: number): number {
  return Math.round(value * 100) / 100
}

const COLUMNS = [
  'qps',
  'usPerQuery',
  'p50us',
  'p99us',
  'rssMiB',
  'startSec',
  'lost',
  'errors',
  'dirtyRounds',
] as const

function print(result: object): void {
  const { servers, ...rest } = result as { servers: Record<string, Figures> }
  const lines = [
    ['server', ...COLUMNS],
    ...Object.entries(servers).map(([name, figures]) => [
      name,
      ...COLUMNS.map((column) => `${figures[column] ?? '-'}`),
    ]),
  ]
  const widths = lines[0]!.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)))
  for (const line of lines) console.log(line.map((cell, i) => cell.padStart(widths[i]!)).join('  '))
  for (const [name, { serves }] of Object.entries(servers)) console.log(`${name}: ${serves}`)
  for (const [name, value] of Object.entries(rest)) console.log(`${name}: ${JSON.stringify(value)}`)
}

const folder = mkdtempSync(join(tmpdir(), 'nearcast-dns-'))
try {
  const wish = readWish(process.argv.slice(2))
  const result = await measure(wish, folder)
  if (wish.json) console.log(JSON.stringify(result))
  else print(result)
} catch (error) {
  console.error(`${(error as Error).message}\n${USAGE}`)
  process.exitCode = 2
} finally {
  rmSync(folder, { recursive: true, force: true })
}
