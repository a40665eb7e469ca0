// Tables for people: columns that fit the window.
//
// Invariant: no line is wider than the width asked for, unless the columns that keep their width (numbers:
// half a number is a wrong one) leave no room. Width is counted in terminal cells, so wide characters stay
// in line (UAX #11). Pure but for printTable: rows in, lines out. Not for programs: those read --json.

import { paint, printable, type Terminal } from './terminal.ts'

export interface Column {
  readonly title: string
  /** `clip` (default): too long ends in an ellipsis; `wrap`: goes on below; `number`: right-aligned, never narrowed. */
  readonly kind?: 'clip' | 'wrap' | 'number'
}

/** Between two columns. */
const GAP = '  '
/** Narrower than this, a column says nothing. */
const MIN_CELLS = 5

/** Prints a table as wide as the terminal, the titles bold. */
export function printTable(
  terminal: Terminal,
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
): void {
  const [titles, ...lines] = formatTable(columns, rows, terminal.width)
  terminal.print([paint(terminal, 'bold', titles!), ...lines].join('\n'))
}

/** Lines of a table, the titles first. `width` null: as wide as it needs. */
export function formatTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  width: number | null,
): string[] {
  const cells = [columns.map((column) => column.title), ...rows.map((row) => row.map(printable))]
  const natural = columns.map((_, i) => Math.max(...cells.map((row) => cellsOf(row[i]!))))
  const widths = width === null ? natural : narrow(columns, natural, width)
  return cells.flatMap((row) => formatRow(columns, row, widths))
}

/** Takes from the widest column that may give, one cell at a time, until all fit. */
function narrow(columns: readonly Column[], natural: readonly number[], width: number): number[] {
  const widths = [...natural]
  let excess = widths.reduce((sum, cells) => sum + cells, GAP.length * (widths.length - 1)) - width
  while (excess > 0) {
    let widest = -1
    for (const [i, cells] of widths.entries()) {
      if (columns[i]!.kind === 'number' || cells <= MIN_CELLS) continue
      if (widest === -1 || cells > widths[widest]!) widest = i
    }
    if (widest === -1) break
    widths[widest]! -= 1
    excess -= 1
  }
  return widths
}

/** One row: as many lines as its longest wrapped cell. */
function formatRow(columns: readonly Column[], row: readonly string[], widths: readonly number[]): string[] {
  const parts = columns.map((column, i) => {
    const text = row[i]!
    if (cellsOf(text) <= widths[i]!) return [text]
    return column.kind === 'wrap' ? wrap(text, widths[i]!) : [clip(text, widths[i]!)]
  })
  const height = Math.max(...parts.map((lines) => lines.length))
  return Array.from({ length: height }, (_, line) =>
    columns
      .map((column, i) => pad(parts[i]![line] ?? '', widths[i]!, column.kind === 'number'))
      .join(GAP)
      .trimEnd(),
  )
}

function pad(text: string, width: number, left: boolean): string {
  const space = ' '.repeat(Math.max(0, width - cellsOf(text)))
  return left ? space + text : text + space
}

const graphemes = new Intl.Segmenter('en', { granularity: 'grapheme' })

/** As much of the text as fits, the last cell an ellipsis. */
export function clip(text: string, width: number): string {
  if (cellsOf(text) <= width) return text
  let kept = ''
  let cells = 0
  for (const { segment } of graphemes.segment(text)) {
    const more = graphemeCells(segment)
    if (cells + more > width - 1) break
    kept += segment
    cells += more
  }
  return `${kept}…`
}

/** The words on lines of at most `width` cells; a word longer than a line is clipped. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const last = lines.at(-1)
    if (last !== undefined && cellsOf(last) + 1 + cellsOf(word) <= width)
      lines[lines.length - 1] = `${last} ${word}`
    else lines.push(clip(word, width))
  }
  return lines
}

/** How many cells of a terminal the text covers. */
export function cellsOf(text: string): number {
  if (/^[\x20-\x7e]*$/.test(text)) return text.length
  let cells = 0
  for (const { segment } of graphemes.segment(text)) cells += graphemeCells(segment)
  return cells
}

/** East Asian Wide and Fullwidth (UAX #11), by block. */
const WIDE =
  /^[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97c\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{20000}-\u{3fffd}]/u

/** A grapheme as people see it: nothing, one cell, or two (East Asian writing, emoji). */
function graphemeCells(grapheme: string): number {
  if (/^[\p{Mn}\p{Me}\p{Cf}]+$/u.test(grapheme)) return 0
  return WIDE.test(grapheme) || /\p{Emoji_Presentation}|\ufe0f/u.test(grapheme) ? 2 : 1
}
