// The map's correction: by what factor the map is wrong about each host, as those that have measured say.
//
// Simple kriging (Krige 1951; Matheron 1963) of the logarithms of measured over the map's RTT: two hosts near
// each other are seen with like errors, and all are by a client that is badly connected or placed. Unlike a
// weighted mean it counts hosts side by side as one word, not as many. Pure.

import type { Sighting } from './belief.ts'
import type { HostTable } from './host-table.ts'

/**
 * Variances of the logarithm: what all hosts share, what neighbours share and how far that carries, and what
 * each has of its own (detours that nobody else sees, queues). None is critical but the last: with a tenth of it
 * one odd way speaks for a whole region, and WonderProxy's nearest is missed 4% more often.
 */
const SHARED_BY_ALL = 0.1
const SHARED_NEARBY = 0.5
const CARRIES_MS = 60
const OWN = 0.3
/** Below so many ms the ratio of two RTTs says nothing. */
const GRAIN_MS = 3

/** The map's RTT to a host by row, corrected; NaN: the map does not know it. */
export function correctMap(
  hosts: HostTable,
  sightings: readonly Sighting[],
  mapMs: (row: number) => number,
): (row: number) => number {
  const seen = sightings.filter(({ row }) => !Number.isNaN(mapMs(row)))
  const shared = (a: number, b: number) => {
    const apartMs = a === b ? 0 : hosts.rttBetweenMs(a, b)
    return SHARED_BY_ALL + (Number.isNaN(apartMs) ? 0 : SHARED_NEARBY * Math.exp(-apartMs / CARRIES_MS))
  }
  const matrix = seen.map((a, i) => seen.map((b, j) => shared(a.row, b.row) + (i === j ? OWN : 0)))
  const ratios = seen.map(({ row, rttMs }) => Math.log((rttMs + GRAIN_MS) / (mapMs(row) + GRAIN_MS)))
  const weights = solve(matrix, ratios)
  return (row) => {
    const ratio = seen.reduce((sum, sighting, i) => sum + weights[i]! * shared(sighting.row, row), 0)
    return Math.max(0, (mapMs(row) + GRAIN_MS) * Math.exp(ratio) - GRAIN_MS)
  }
}

/** Solves matrix * x = values by elimination. No pivots: each row has variance of its own on the diagonal. */
function solve(matrix: readonly number[][], values: readonly number[]): number[] {
  const x = [...values]
  for (const [i, pivot] of matrix.entries()) {
    for (let k = i + 1; k < x.length; k++) {
      const factor = matrix[k]![i]! / pivot[i]!
      for (let j = i; j < x.length; j++) matrix[k]![j]! -= factor * pivot[j]!
      x[k]! -= factor * x[i]!
    }
  }
  for (let i = x.length - 1; i >= 0; i--) {
    for (let j = i + 1; j < x.length; j++) x[i]! -= matrix[i]![j]! * x[j]!
    x[i]! /= matrix[i]![i]!
  }
  return x
}
