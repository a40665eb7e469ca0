// How soon hosts' coordinates say something, and how still they stand: hosts that join all at once, measured
// by the planner of echoes and heard by the mesh as in a core, on one slice of RTTs and then on later ones.
//
//   npm run -s bench:coordinates -- --rtt FILE[,LATER...] [--members 50] [--seed 1]

import { parseArgs } from 'node:util'
import { EchoPlanner } from '../../core-node/measuring/echo-planner.ts'
import { HostMesh } from '../../core-node/measuring/mesh.ts'
import { distanceMs, euclideanMs } from '../../resolver/coordinate.ts'
import type { Change, Host } from '../../resolver/directory.ts'
import { Tables } from '../../resolver/tables.ts'
import { seededRng } from '../support/seeded-rng.ts'
import { readMatrix } from './accuracy-matrix.ts'
import { mean, quantile } from './accuracy-score.ts'
import { hostOf, shuffle } from './accuracy-world.ts'

const STEP_MS = 2_000
/** A slice lasts so long, ms; the joining minute is told on its own. */
const SLICE_MS = 15 * 60_000
/** While a buffer is full each echo takes this much longer at most, ms: for one host in ten, in the last third of a slice. */
const BLOAT_MS = 800

function main(args: readonly string[]): void {
  const text = { type: 'string' } as const
  const { values } = parseArgs({ args: [...args], options: { rtt: text, members: text, seed: text } })
  if (values.rtt === undefined)
    throw new Error('--rtt FILE[,LATER...] is missing: the matrices to measure on')
  const slices = values.rtt.split(',').map((file) => readMatrix(file, null))
  const rng = seededRng(Number(values.seed ?? 1))
  const rows = shuffle([...Array(slices[0]!.size).keys()], rng).slice(0, Number(values.members ?? 50))
  const records = rows.map((_, i) => hostOf(i, null))
  const tables = new Tables()
  const [mesh, planner] = [new HostMesh(), new EchoPlanner()]
  const report: Record<string, unknown>[] = []
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
        for (const { from, to } of planner.plan({ tables, hosts: records, home: 'core' }, nowMs, rng)) {
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
    report.push({
      slice: slice.file,
      phase: 'one host in ten behind a full buffer',
      ...run(startMs + 1.5 * SLICE_MS, (host) => host % 10 === 0),
    })
  }
  console.log(JSON.stringify({ hosts: rows.length, phases: report }, null, 1))
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
  return {
    coordinateError: { median: round(quantile(coordinates, 0.5)), p90: round(quantile(coordinates, 0.9)) },
    meshError: { median: round(quantile(meshed, 0.5)), mean: round(mean(meshed)) },
    meshKnown: round(meshed.length / Math.max(1, coordinates.length)),
  }
}

function round(x: number): number {
  return Number(x.toFixed(3))
}

try {
  main(process.argv.slice(2))
} catch (error) {
  console.error((error as Error).message)
  process.exitCode = 2
}
