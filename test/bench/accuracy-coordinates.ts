// How soon hosts' coordinates say something, and how still they stand: hosts that join all at once, measured
// by the planner of echoes and heard by the mesh as in a core, on one slice of RTTs and then on later ones; and
// what the mesh keeps of a pair whose RTTs were measured over time (accuracy-series.ts).
//
//   npm run -s bench:coordinates -- --rtt FILE[,LATER...] [--members 50] [--newcomers N] [--seed 1]
//   npm run -s bench:coordinates -- --series FILE[,FILE...] [--seed 1]

import { parseArgs } from 'node:util'
import { EchoPlanner } from '../../core-node/measuring/echo-planner.ts'
import { HostMesh } from '../../core-node/measuring/mesh.ts'
import { distanceMs, euclideanMs } from '../../resolver/coordinate.ts'
import type { Change, Host } from '../../resolver/directory.ts'
import { Tables } from '../../resolver/tables.ts'
import { seededRng } from '../support/seeded-rng.ts'
import { readCount, readFiles } from './accuracy-arguments.ts'
import { readMatrix } from './accuracy-matrix.ts'
import { joinNewcomers } from './accuracy-newcomers.ts'
import { mean, quantile } from './accuracy-score.ts'
import { replaySeries } from './accuracy-series.ts'
import { hostOf, shuffle } from './accuracy-world.ts'

const STEP_MS = 2_000
/** A slice lasts so long, ms; the joining minute is told on its own. */
const SLICE_MS = 15 * 60_000
/** While a buffer is full each echo takes this much longer at most, ms: for one host in ten, in the last third of a slice. */
const BLOAT_MS = 800

const USAGE = `usage: npm run -s bench:coordinates -- --rtt FILE[,LATER...] [--members 50] [--newcomers N] [--seed 1]
       npm run -s bench:coordinates -- --series FILE[,FILE...] [--seed 1]`

export interface Wish {
  readonly rtt: readonly string[]
  readonly series: readonly string[]
  readonly members: number
  /** Hosts that join after the members have settled on the last slice. */
  readonly newcomers: number
  readonly seed: number
}

/** Throws an Error that names the argument and what was expected of it. */
export function readWish(args: readonly string[]): Wish {
  const text = { type: 'string' } as const
  const options = { rtt: text, series: text, members: text, newcomers: text, seed: text }
  const { values } = parseArgs({ args: [...args], options })
  const [rtt, series] = [readFiles('rtt', values.rtt), readFiles('series', values.series)]
  if (rtt.length + series.length === 0)
    throw new Error('--rtt FILE[,LATER...] or --series FILE[,FILE...] is missing: what to measure on')
  const lone = (['members', 'newcomers'] as const).find((name) => values[name] !== undefined)
  if (rtt.length === 0 && lone !== undefined)
    throw new Error(`--${lone} goes with --rtt: a series is of one pair`)
  const members = readCount('members', values.members, 50, 2)
  const newcomers = readCount('newcomers', values.newcomers, 0, 0)
  return { rtt, series, members, newcomers, seed: readCount('seed', values.seed, 1, 0) }
}

/** Hosts that join at once, on one matrix after another. */
function runSlices({ rtt, members, newcomers, seed }: Wish): Record<string, unknown> {
  const slices = rtt.map((file) => readMatrix(file, null))
  const { size } = slices[0]!
  const other = slices.find((slice) => slice.size !== size)
  if (other) throw new Error(`${other.file}: expected ${size} rows as in ${rtt[0]}, found ${other.size}`)
  if (members + newcomers > size)
    throw new Error(`--members ${members} --newcomers ${newcomers}: ${rtt[0]} has ${size} rows`)
  const rng = seededRng(seed)
  const shuffled = shuffle([...Array(size).keys()], rng)
  const [rows, newRows] = [shuffled.slice(0, members), shuffled.slice(members, members + newcomers)]
  const records = rows.map((_, i) => hostOf(i, null))
  const tables = new Tables()
  const [mesh, planner] = [new HostMesh(), new EchoPlanner('core')]
  for (const host of records) planner.follow(host.name, host, 0)
  const report: Record<string, unknown>[] = []
  let settled: readonly Host[] = []
  let nowMs = 0
  let echoes = 0
  let told = 0
  for (const [index, slice] of slices.entries()) {
    const run = (untilMs: number, bloated: (host: number) => boolean) => {
      const before = records.map((host) => host.coordinate)
      ;[echoes, told] = [0, 0]
      const fromMs = nowMs
      for (; nowMs < untilMs; nowMs += STEP_MS) {
        const changes: Change[] = []
        for (const { from, to } of planner.plan(tables, nowMs, rng)) {
          const [a, b] = [Number(from.slice(1)), Number(to.slice(1))]
          const queueMs = bloated(a) || bloated(b) ? BLOAT_MS * rng() : 0
          const rttMs = slice.rttMs(rows[a]!, rows[b]!) * (1 + 0.05 * rng()) + queueMs
          echoes++
          if (Number.isNaN(rttMs)) continue
          const { host } = mesh.hear(records[a]!, records[b]!, rttMs, rng)
          if (host === records[a]) continue
          records[a] = host
          told++
          changes.push({ kind: 'hosts', key: host.name, value: host })
        }
        tables.apply(changes)
      }
      const minutes = (nowMs - fromMs) / 60_000
      const moved = records.flatMap((host, i) => {
        const old = before[i]
        return old && host.coordinate ? [euclideanMs(old.vec, host.coordinate.vec) / minutes] : []
      })
      return {
        minutes,
        echoesPerHostMinute: round(echoes / records.length / minutes),
        toldPerHostMinute: round(told / records.length / minutes),
        driftMsPerMinute: moved.length === 0 ? null : round(quantile(moved, 0.5)),
        ...errorsOf(records, rows, slice.rttMs),
      }
    }
    const calm = () => false
    const startMs = nowMs
    if (index === 0) report.push({ slice: slice.file, phase: 'first minute', ...run(60_000, calm) })
    report.push({ slice: slice.file, phase: 'settled', ...run(startMs + SLICE_MS, calm) })
    settled = [...records]
    report.push({
      slice: slice.file,
      phase: 'one host in ten behind a full buffer',
      ...run(startMs + 1.5 * SLICE_MS, (host) => host % 10 === 0),
    })
  }
  if (newcomers === 0) return { hosts: rows.length, phases: report }
  const joined = joinNewcomers(slices.at(-1)!, settled, rows, newRows, rng)
  return { hosts: rows.length, phases: report, newcomers: joined }
}

/** Relative errors of the coordinates over all pairs, and of the mesh over those that it knows. */
function errorsOf(
  records: readonly Host[],
  rows: readonly number[],
  truthMs: (a: number, b: number) => number,
) {
  const coordinates: number[] = []
  const meshed: number[] = []
  for (const [i, a] of records.entries()) {
    for (const [j, b] of records.entries()) {
      const ms = truthMs(rows[i]!, rows[j]!)
      if (i === j || !(ms > 0) || !a.coordinate || !b.coordinate) continue
      coordinates.push(Math.abs(distanceMs(a.coordinate, b.coordinate) - ms) / ms)
      const seenMs = a.meshMs?.[b.name]
      if (seenMs !== undefined) meshed.push(Math.abs(seenMs - ms) / ms)
    }
  }
  if (meshed.length === 0) return { coordinateError: null, meshError: null, meshKnown: 0 }
  return {
    coordinateError: { median: round(quantile(coordinates, 0.5)), p90: round(quantile(coordinates, 0.9)) },
    meshError: { median: round(quantile(meshed, 0.5)), mean: round(mean(meshed)) },
    meshKnown: round(meshed.length / Math.max(1, coordinates.length)),
  }
}

function round(x: number): number {
  return Number(x.toFixed(3))
}

function main(args: readonly string[]): void {
  try {
    const wish = readWish(args)
    const series = wish.series.map((file) => replaySeries(file, seededRng(wish.seed)))
    const report = {
      ...(wish.rtt.length > 0 ? runSlices(wish) : {}),
      ...(series.length > 0 ? { series } : {}),
    }
    console.log(JSON.stringify(report, null, 1))
  } catch (error) {
    console.error(`${(error as Error).message}\n${USAGE}`)
    process.exitCode = 2
  }
}

if (import.meta.main) main(process.argv.slice(2))
