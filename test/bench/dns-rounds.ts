// The rounds of bench:dns: servers are loaded in turn, what each took is told, and the median counts.
//
// A round in which other programs took much of the machine is called dirty; dirty rounds count only where clean ones
// are not more than half.

import {
  type Askers,
  BUSY_ASKERS,
  type LoadProgram,
  type LoadResult,
  runLoad,
  SINGLE_ASKERS,
} from './dns-load.ts'
import { foreignShare, momentOf, residentMiB } from './dns-machine.ts'
import type { DnsServerProcess } from './dns-servers.ts'

/** Servers run on the one processor and the load on the other. */
export const SERVER_CPU = 0
const LOAD_CPU = 1
/** A round in which others took more of the machine than this says nothing. */
const MAX_FOREIGN = 0.12

export interface RoundsWish {
  readonly load: LoadProgram
  readonly rounds: number
  readonly seconds: number
  /** Queries a second of the second half. */
  readonly rate: number
}

interface Round extends LoadResult {
  /** Processor time of the server for each answer, us. */
  readonly usPerQuery: number
  readonly foreign: number
}

export interface Measured {
  readonly server: DnsServerProcess
  readonly atMost: Round[]
  /** The same by askers with one query under way each. */
  readonly single: Round[]
  readonly atRate: Round[]
}

/** Loads that are not counted: until the file of questions was gone through so often, but no more than these. */
const WARM_TURNS = 5
const MOST_WARM_LOADS = 6

/** Loads the servers in turn with a file of so many questions, `rounds` times each: first as hard as they take it, by askers of two kinds, then at a steady rate. */
export async function runRounds(
  { load, rounds, seconds, rate }: RoundsWish,
  servers: readonly DnsServerProcess[],
  queries: string,
  questions: number,
): Promise<Measured[]> {
  const measured = servers.map((server): Measured => ({ server, atMost: [], single: [], atRate: [] }))
  const run = async (
    { pid, port }: DnsServerProcess,
    pace: number | null,
    askers: Askers = BUSY_ASKERS,
  ): Promise<Round> => {
    const before = momentOf(pid)
    const result = await runLoad(load, { port, queries, cpu: LOAD_CPU, seconds, rate: pace, askers })
    const after = momentOf(pid)
    const usPerQuery = ((after.serverSec - before.serverSec) * 1e6) / result.answers
    return { ...result, usPerQuery, foreign: foreignShare(before, after) }
  }
  for (const { server } of measured) {
    // Not counted: what runs in a JIT is compiled meanwhile, and who keeps what it was asked once has been asked it.
    let answers = 0
    for (let i = 0; i < MOST_WARM_LOADS && answers < WARM_TURNS * questions; i++)
      answers += (await run(server, null)).answers
  }
  for (let round = 0; round < rounds; round++) {
    for (const { server, atMost } of measured) atMost.push(await run(server, null))
  }
  for (let round = 0; round < rounds; round++) {
    for (const { server, single } of measured) single.push(await run(server, null, SINGLE_ASKERS))
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

export interface Figures {
  readonly qps: number
  readonly usPerQuery: number
  /** The same by askers with one query under way each. */
  readonly singleQps: number
  readonly singleUsPerQuery: number
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
  /** Rounds of which others took much, and how much of the machine they took on average. */
  readonly dirtyRounds: number
  readonly foreign: number
  readonly serves: string
}

export function figuresOf({ server, atMost, single, atRate }: Measured): Figures {
  const all = [...atMost, ...single, ...atRate]
  const sum = (tell: (round: Round) => number) => all.reduce((total, round) => total + tell(round), 0)
  const rates = clean(atMost).map(({ qps }) => qps)
  return {
    qps: Math.round(medianOf(atMost, ({ qps }) => qps)!),
    usPerQuery: rounded(medianOf(atMost, ({ usPerQuery }) => usPerQuery)!),
    singleQps: Math.round(medianOf(single, ({ qps }) => qps)!),
    singleUsPerQuery: rounded(medianOf(single, ({ usPerQuery }) => usPerQuery)!),
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
    foreign: rounded(sum(({ foreign }) => foreign) / all.length),
    serves: server.serves,
  }
}

export function rounded(value: number): number {
  return Math.round(value * 100) / 100
}
