// How often the nearest is really named: Nearcast's own locality engine and other people's methods, on
// matrices of measured round trips. A trial: some rows are hosts that know their mesh, another row is a
// client prefix; a method may have hosts measure the way to it a few times, and then names a host.
//
//   npm run -s bench:accuracy -- --rtt NAME.rtt.csv.gz [--nodes NAME.nodes.csv] [--members 20] [--probes 9] ...

import { parseArgs } from 'node:util'
import { formatPrefix, prefixOf } from '../../resolver/address.ts'
import type { Place } from '../../resolver/directory.ts'
import { seededRng } from '../support/seeded-rng.ts'
import { readCount, readNumber } from './accuracy-arguments.ts'
import { type Matrix, readMatrix } from './accuracy-matrix.ts'
import { addressesOf, NearcastBench, type NearcastTrial, SITE_BITS } from './accuracy-nearcast.ts'
import { nearestByMap, searchRings, VivaldiPeer } from './accuracy-peers.ts'
import { drawPlots } from './accuracy-plots.ts'
import { addScore, mean, type Outcome, type Score, summarise } from './accuracy-score.ts'
import { countLiars, drawWorld, type Rng, shuffle, type World } from './accuracy-world.ts'

const METHODS = ['random', 'geo', 'vivaldi', 'meridian', 'nearcast'] as const
type Method = (typeof METHODS)[number]

/** Clients tried with one draw of hosts, and of those, such as share one history. */
const CLIENTS_PER_DRAW = 40
const CLIENTS_PER_HISTORY = 8

export interface Wish {
  readonly rtt: string
  readonly nodes: string | null
  readonly next: string | null
  readonly members: number
  readonly probes: number
  readonly trials: number
  readonly seed: number
  readonly warm: number
  readonly apartMs: number
  readonly geoWrong: number
  readonly liars: number
  readonly answering: number
  readonly methods: readonly Method[]
  readonly plots: string | null
  readonly json: boolean
}

const USAGE = `usage: npm run -s bench:accuracy -- --rtt FILE [--nodes FILE] [--members 20] [--probes 9] [--trials 2000]
  [--seed 1] [--warm N --apart 5] [--geo-wrong SHARE] [--liars SHARE] [--next FILE] [--answering SHARE]
  [--method all | ${METHODS.join(',')}] [--plots DIR] [--json]
  FILE: NAME.rtt.csv(.gz), line i, column j = RTT from i to j in ms; nodes: index,name,country,lat,lon`

/** Throws an Error that names the argument and what was expected of it. */
export function readWish(args: readonly string[]): Wish {
  const text = { type: 'string' } as const
  const { values } = parseArgs({
    args: [...args],
    options: {
      rtt: text,
      nodes: text,
      next: text,
      members: text,
      probes: text,
      trials: text,
      seed: text,
      warm: text,
      apart: text,
      'geo-wrong': text,
      liars: text,
      answering: text,
      method: text,
      plots: text,
      json: { type: 'boolean' },
    },
  })
  const empty = (['rtt', 'nodes', 'next', 'plots'] as const).find((name) => values[name]?.trim() === '')
  if (empty !== undefined)
    throw new Error(`--${empty} '': expected a ${empty === 'plots' ? 'folder' : 'file'}`)
  if (values.rtt === undefined) throw new Error('--rtt FILE is missing: the matrix to measure on')
  const named = (values.method ?? 'all').split(',')
  const unknown = named.find((name) => name !== 'all' && !(METHODS as readonly string[]).includes(name))
  if (unknown !== undefined)
    throw new Error(`--method ${unknown}: expected all or some of ${METHODS.join(', ')}`)
  const share = (name: 'geo-wrong' | 'liars' | 'answering', fallback: number) =>
    readNumber(name, values[name], fallback, 0, 1)
  const wish: Wish = {
    rtt: values.rtt,
    nodes: values.nodes ?? null,
    next: values.next ?? null,
    members: readCount('members', values.members, 20, 1),
    probes: readCount('probes', values.probes, 9, 0),
    trials: readCount('trials', values.trials, 2000, 1),
    seed: readCount('seed', values.seed, 1, 0),
    warm: readCount('warm', values.warm, 0, 0),
    apartMs: readNumber('apart', values.apart, 5, 0),
    geoWrong: share('geo-wrong', 0),
    liars: share('liars', 0),
    answering: share('answering', 1),
    methods: METHODS.filter((method) => named.includes('all') || named.includes(method)),
    plots: values.plots ?? null,
    json: values.json ?? false,
  }
  if (wish.nodes === null && values['geo-wrong'] !== undefined)
    throw new Error('--geo-wrong needs --nodes FILE: without places none can be wrong')
  if (wish.nodes === null && named.includes('geo'))
    throw new Error('--method geo needs --nodes FILE: the places of the rows')
  if (countLiars(wish.liars, wish.members) >= wish.members)
    throw new Error(
      `--liars ${values.liars}: of ${wish.members} hosts none would be honest, and only those are scored`,
    )
  return wish
}

interface Trial extends NearcastTrial {
  readonly world: World
  readonly bench: NearcastBench
  /** Rows in its history: fewer than were asked for where too few are apart from the client. */
  readonly warmed: number
}

/** All trials, those of one draw of hosts and one history after another. */
function* drawTrials(wish: Wish, matrix: Matrix, rng: Rng): Generator<Trial> {
  const addresses = addressesOf(matrix.size, matrix.rttMs)
  const addressOf = (row: number) => addresses[row]!
  const siteOf = (row: number) => formatPrefix(prefixOf(addressOf(row), SITE_BITS))
  for (let drawn = 0, left = wish.trials; left > 0; drawn++) {
    const lieKind = drawn % 2 === 0 ? 'lone' : 'colluding'
    const world = drawWorld(matrix, { hosts: wish.members, liarShare: wish.liars, lieKind }, rng)
    const isHost = new Set(world.hosts)
    const rows = shuffle(
      Array.from({ length: matrix.size }, (_, row) => row).filter((row) => !isHost.has(row)),
      rng,
    )
    const clients = rows.slice(0, Math.min(CLIENTS_PER_DRAW, left))
    for (let at = 0; at < clients.length; at += CLIENTS_PER_HISTORY) {
      const group = clients.slice(at, at + CLIENTS_PER_HISTORY)
      const bench = new NearcastBench(world, addressOf)
      const isNear = (row: number) => group.some((client) => matrix.rttMs(client, row) <= wish.apartMs)
      const history = rows.filter((row) => !group.includes(row) && !isNear(row)).slice(0, wish.warm)
      if (wish.warm > 0 && history.length === 0)
        throw new Error(`--warm ${wish.warm} --apart ${wish.apartMs}: no row is so far from the clients`)
      for (const row of history) bench.warm(row)
      for (const row of group) {
        const answering = rng() < wish.answering
        const kin = answering ? [] : rows.filter((other) => other !== row && siteOf(other) === siteOf(row))
        const relatives = kin.filter(() => rng() < wish.answering)
        yield {
          row,
          answering,
          place: placeOf(row, wish, matrix, rng),
          relatives,
          world,
          bench,
          warmed: history.length,
        }
      }
    }
    left -= clients.length
  }
}

/** Where geography has a client: for a share of them, in any other city. */
function placeOf(row: number, { geoWrong }: Wish, { places, size }: Matrix, rng: Rng): Place | null {
  if (!places) return null
  return rng() < geoWrong ? places[Math.floor(rng() * size)]! : places[row]!
}

function run(wish: Wish): { report: unknown; scores: ReadonlyMap<Method, Score> } {
  const matrix = readMatrix(wish.rtt, wish.nodes)
  const next = wish.next === null ? matrix : readMatrix(wish.next, null)
  if (next.size !== matrix.size)
    throw new Error(`${next.file}: expected ${matrix.size} rows as in ${wish.rtt}, found ${next.size}`)
  if (matrix.size <= wish.members + wish.warm)
    throw new Error(
      `${wish.rtt}: ${matrix.size} rows are too few for ${wish.members} hosts, ${wish.warm} in history and a client`,
    )
  const methods = wish.methods.filter((method) => method !== 'geo' || matrix.places !== null)
  const vivaldi = methods.includes('vivaldi') ? new VivaldiPeer(matrix, seededRng(wish.seed + 1)) : null
  const rngs = new Map(methods.map((method, i) => [method, seededRng(wish.seed + 100 * (i + 1))]))
  const scores = new Map<Method, Score>(methods.map((method) => [method, []]))
  const floor: Score = []
  const warmed: number[] = []
  for (const trial of drawTrials(wish, matrix, seededRng(wish.seed))) {
    warmed.push(trial.warmed)
    for (const method of methods) {
      const outcome = tryMethod(method, trial, wish, rngs.get(method)!, vivaldi)
      addScore(scores.get(method)!, outcome, trial.world, trial.row, next)
    }
    addScore(
      floor,
      { answers: [{ host: trueNearest(trial, matrix), claim: null }], probes: 0 },
      trial.world,
      trial.row,
      next,
    )
  }
  const report = {
    file: wish.rtt,
    hosts: wish.members,
    probes: wish.probes,
    trials: wish.trials,
    settings: settingsOf(wish, warmed),
    // What the true nearest of the measured slice is worth on the later one: no measurement finds more.
    ...(next === matrix ? {} : { noiseFloor: summarise(floor) }),
    methods: Object.fromEntries(methods.map((method) => [method, summarise(scores.get(method)!)])),
  }
  return { report, scores }
}

/** The honest host that is nearest by a matrix. */
function trueNearest({ world, row }: Trial, matrix: Matrix): number {
  const ms = (i: number) => (world.isLiar[i] ? Number.NaN : matrix.rttMs(world.hosts[i]!, row))
  let best = -1
  for (const i of world.hosts.keys()) if (!Number.isNaN(ms(i)) && (best < 0 || ms(i) < ms(best))) best = i
  return best
}

function tryMethod(method: Method, trial: Trial, wish: Wish, rng: Rng, vivaldi: VivaldiPeer | null): Outcome {
  const { world, row, place } = trial
  const named = (host: number, probes = 0): Outcome => ({ answers: [{ host, claim: null }], probes })
  if (method === 'random') return named(Math.floor(rng() * world.hosts.length))
  if (method === 'geo') return named(nearestByMap(place!, world.hosts, world.matrix.places!))
  if (method === 'vivaldi') return named(vivaldi!.nearest(row, world.hosts))
  if (method === 'meridian') {
    const { host, probes } = searchRings(row, world.hosts, world.matrix, rng)
    return named(host, probes)
  }
  const { answers, probes } = trial.bench.run(trial, wish.probes)
  return {
    answers: answers.map(({ host, ms, errorMs, basis }) => ({ host, claim: { ms, errorMs, basis } })),
    probes,
  }
}

/** Settings that are not their defaults, so that a figure says how it came about. */
function settingsOf(wish: Wish, warmed: readonly number[]): Record<string, unknown> {
  const { seed, warm, apartMs, geoWrong, liars, answering, next, nodes } = wish
  return {
    seed,
    ...(nodes === null ? {} : { nodes }),
    ...(warm === 0
      ? {}
      : { warm, apartMs, warmed: { least: Math.min(...warmed), mean: Number(mean(warmed).toFixed(1)) } }),
    ...(geoWrong === 0 ? {} : { geoWrong }),
    ...(liars === 0 ? {} : { liars }),
    ...(answering === 1 ? {} : { answering }),
    ...(next === null ? {} : { next }),
  }
}

function main(args: readonly string[]): void {
  try {
    const wish = readWish(args)
    const { report, scores } = run(wish)
    if (wish.plots !== null) drawPlots(wish.plots, scores)
    console.log(JSON.stringify(report, null, wish.json ? undefined : 2))
  } catch (error) {
    console.error(`${(error as Error).message}\n${USAGE}`)
    process.exitCode = 2
  }
}

if (import.meta.main) main(process.argv.slice(2))
