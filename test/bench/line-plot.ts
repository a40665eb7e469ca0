// A plot of lines as SVG, for the documentation: axes with ticks, a colour and a name for each line.

const [WIDTH, HEIGHT, MARGIN] = [640, 400, 56] as const
const COLOURS = ['#888888', '#2a9d4a', '#b5651d', '#8e44ad', '#1f5fbf'] as const

interface Line {
  readonly name: string
  readonly points: readonly (readonly [number, number])[]
}

/** `at`: where on its axis a value is, 0..1. */
export interface Axes {
  readonly title: string
  readonly x: { readonly name: string; readonly ticks: readonly number[]; readonly at: (x: number) => number }
  readonly y: { readonly name: string; readonly ticks: readonly number[]; readonly at: (y: number) => number }
}

export function drawLines(lines: readonly Line[], { title, x, y }: Axes): string {
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
