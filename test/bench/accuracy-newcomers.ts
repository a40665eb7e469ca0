// How many echoes a newcomer needs: hosts that join one after another those who know where they are, placed by
// the mesh as in a core, and beside it by Vivaldi's steps alone on the same echoes.

import { type CoordinateState, observe, startCoordinate } from '../../core-node/measuring/coordinates.ts'
import { HostMesh } from '../../core-node/measuring/mesh.ts'
import { distanceMs } from '../../resolver/coordinate.ts'
import type { Coordinate, Host } from '../../resolver/directory.ts'
import type { Matrix } from './accuracy-matrix.ts'
import { quantile } from './accuracy-score.ts'
import { hostOf, type Rng } from './accuracy-world.ts'

/** After so many echoes each, errors are told. */
const TOLD_AFTER = [4, 6, 8, 12, 16, 32, 64, 192]

export interface NewcomerPhase {
  readonly echoes: number
  /** Relative errors over all pairs of newcomers: of the mesh, and of Vivaldi's steps alone. */
  readonly placed: { readonly median: number; readonly p90: number }
  readonly bySteps: { readonly median: number; readonly p90: number }
}

/** `settled` are at `rows` of the matrix; the newcomers at `newRows` each echo one drawn of them at a time. */
export function joinNewcomers(
  matrix: Matrix,
  settled: readonly Host[],
  rows: readonly number[],
  newRows: readonly number[],
  rng: Rng,
): NewcomerPhase[] {
  const mesh = new HostMesh()
  const hosts = newRows.map((_, i) => hostOf(settled.length + i, null))
  const states: CoordinateState[] = newRows.map(() => startCoordinate())
  const phases: NewcomerPhase[] = []
  for (let echo = 1; echo <= TOLD_AFTER.at(-1)!; echo++) {
    for (const [i, row] of newRows.entries()) {
      const at = Math.floor(settled.length * rng())
      const peer = settled[at]!
      const rttMs = matrix.rttMs(row, rows[at]!) * (1 + 0.05 * rng())
      if (Number.isNaN(rttMs) || peer.coordinate === null) continue
      hosts[i] = mesh.hear(hosts[i]!, peer, rttMs, rng).host
      states[i] = observe(states[i]!, peer.name, peer.coordinate, rttMs, rng).state
    }
    if (!TOLD_AFTER.includes(echo)) continue
    const placed = errorsOf(matrix, newRows, (i) => hosts[i]!.coordinate)
    const bySteps = errorsOf(matrix, newRows, (i) => states[i]!.coordinate)
    phases.push({ echoes: echo, placed, bySteps })
  }
  return phases
}

function errorsOf(
  matrix: Matrix,
  rows: readonly number[],
  coordinateOf: (i: number) => Coordinate | null,
): { median: number; p90: number } {
  const errors: number[] = []
  for (const [i, row] of rows.entries()) {
    for (const [j, other] of rows.entries()) {
      const [a, b, ms] = [coordinateOf(i), coordinateOf(j), matrix.rttMs(row, other)]
      if (i !== j && a !== null && b !== null && ms > 0) errors.push(Math.abs(distanceMs(a, b) - ms) / ms)
    }
  }
  const at = (share: number) => Number(quantile(errors, share).toFixed(3))
  return { median: at(0.5), p90: at(0.9) }
}
