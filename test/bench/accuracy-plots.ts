// Plots of what the benchmark found, as SVG: how many clients pay how much, and what a further probe is worth.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { mean, penaltiesAfter, quantile, type Score } from './accuracy-score.ts'

const [WIDTH, HEIGHT, MARGIN] = [640, 400, 56] as const
const COLOURS = ['#888888', '#2a9d4a', '#b5651d', '#8e44ad', '#1f5fbf'] as const

interface Line {
  readonly name: string
  readonly points: readonly (readonly [number, number])[]
}

interface Axes {
  readonly title: string
  readonly x: { readonly name: string; readonly ticks: readonly number[]; readonly at: (x: number) => number }
  readonly y: { readonly name: string; readonly ticks: readonly number[]; readonly at: (y: number) => number }
}

/** Writes penalty-cdf.svg and, where a method tells how it stood after each probe, penalty-by-probes.svg. */
export function drawPlots(folder: string, scores: ReadonlyMap<string, Score>): void {
  mkdirSync(folder, { recursive: true })
  const cdfs = [...scores].map(([name, score]) => ({
    name,
    points: cdfOf(penaltiesAfter(score, Number.MAX_SAFE_INTEGER)),
  }))
  writeFileSync(join(folder, 'penalty-cdf.svg'), draw(cdfs, CDF_AXES))
  const steps = Math.max(...[...scores.values()].flat().map((s) => s.penaltiesMs.length))
  if (steps < 2) return
  const lines = [...scores].map(([name, score]) => ({
    name,
    points: Array.from({ length: steps }, (_, n) => [n, mean(penaltiesAfter(score, n))] as const),
  }))
  writeFileSync(join(folder, 'penalty-by-probes.svg'), draw(lines, probeAxes(steps - 1)))
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

function draw(lines: readonly Line[], { title, x, y }: Axes): string {
  const left = (at: number) => (MARGIN + at * (WIDTH - 2 * MARGIN)).toFixed(1)
  const down = (at: number) => (HEIGHT - MARGIN - at * (HEIGHT - 2 * MARGIN)).toFixed(1)
  const grid = [
    ...x.ticks.map(
      (tick) =>
        `<path class="grid" d="M${left(x.at(tick))} ${down(0)}V${down(1)}"/><text x="${left(x.at(tick))}" y="${HEIGHT - MARGIN + 16}" text-anchor="middle">${tick}</text>`,
    ),
    ...y.ticks.map(
      (tick) =>
        `<path class="grid" d="M${left(0)} ${down(y.at(tick))}H${left(1)}"/><text x="${MARGIN - 6}" y="${Number(down(y.at(tick))) + 4}" text-anchor="end">${tick}</text>`,
    ),
  ]
  const curves = lines.map(({ name, points }, i) => {
    const path = points.map(([px, py]) => `${left(x.at(px))} ${down(y.at(py))}`).join('L')
    const keyY = MARGIN + 16 * (i + 1)
    return `<path class="line" stroke="${COLOURS[i % COLOURS.length]}" d="M${path}"/><text x="${WIDTH - MARGIN + 4}" y="${keyY}" fill="${COLOURS[i % COLOURS.length]}">${name}</text>`
  })
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH + 24} ${HEIGHT}" font-family="sans-serif" font-size="12">
<style>.grid{stroke:#ddd;fill:none}.line{fill:none;stroke-width:2}</style>
<rect width="100%" height="100%" fill="white"/>
<text x="${WIDTH / 2}" y="24" text-anchor="middle" font-size="14">${title}</text>
${grid.join('\n')}
${curves.join('\n')}
<text x="${WIDTH / 2}" y="${HEIGHT - 12}" text-anchor="middle">${x.name}</text>
<text x="16" y="${HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 16 ${HEIGHT / 2})">${y.name}</text>
</svg>
`
}
