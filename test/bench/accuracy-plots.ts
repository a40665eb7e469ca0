// Plots of what the benchmark found, as SVG: how many clients pay how much, and what a further probe is worth.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { mean, penaltiesAfter, quantile, type Score } from './accuracy-score.ts'
import { type Axes, drawLines } from './line-plot.ts'

/** Writes penalty-cdf.svg and, where a method tells how it stood after each probe, penalty-by-probes.svg. */
export function drawPlots(folder: string, scores: ReadonlyMap<string, Score>): void {
  mkdirSync(folder, { recursive: true })
  const cdfs = [...scores].map(([name, score]) => ({
    name,
    points: cdfOf(penaltiesAfter(score, Number.MAX_SAFE_INTEGER)),
  }))
  writeFileSync(join(folder, 'penalty-cdf.svg'), drawLines(cdfs, CDF_AXES))
  const steps = Math.max(...[...scores.values()].flat().map((s) => s.penaltiesMs.length))
  if (steps < 2) return
  const lines = [...scores].map(([name, score]) => ({
    name,
    points: Array.from({ length: steps }, (_, n) => [n, mean(penaltiesAfter(score, n))] as const),
  }))
  writeFileSync(join(folder, 'penalty-by-probes.svg'), drawLines(lines, probeAxes(steps - 1)))
}

/** Penalties are shown from 0 to 1000 ms, on a scale that is linear below 1 ms and logarithmic above. */
const squeeze = (ms: number) => Math.log10(1 + Math.min(ms, 1000)) / Math.log10(1001)

const CDF_AXES: Axes = {
  title: 'Share of clients that pay at most so much over the true nearest',
  x: { name: 'penalty, ms', ticks: [0, 1, 3, 10, 30, 100, 300, 1000], at: squeeze },
  y: { name: 'share of clients', ticks: [0, 0.25, 0.5, 0.75, 1], at: (share) => share },
}

const probeAxes = (most: number): Axes => ({
  title: 'Mean penalty after so many probes',
  x: { name: 'probes', ticks: Array.from({ length: most + 1 }, (_, n) => n), at: (n) => n / most },
  y: { name: 'mean penalty, ms', ticks: [0, 1, 3, 10, 30, 100, 300], at: squeeze },
})

const CDF_POINTS = 200

function cdfOf(penaltiesMs: readonly number[]): [number, number][] {
  const zero = penaltiesMs.filter((ms) => ms === 0).length / penaltiesMs.length
  const rest = Array.from({ length: CDF_POINTS + 1 }, (_, i) => i / CDF_POINTS).filter(
    (share) => share > zero,
  )
  return [[0, zero], ...rest.map((share): [number, number] => [quantile(penaltiesMs, share), share])]
}
