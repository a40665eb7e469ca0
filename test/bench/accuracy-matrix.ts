// A matrix of measured round trips, as files give it: line i, column j = RTT from i to j in ms, empty: not measured.

import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import type { Place } from '../../resolver/directory.ts'
import { numberOf } from './accuracy-arguments.ts'

export interface Matrix {
  readonly file: string
  readonly size: number
  /** The RTT between two rows, ms: from a to b, else from b to a; NaN: never measured. */
  rttMs(a: number, b: number): number
  /** Where the rows are; null: not told. */
  readonly places: readonly Place[] | null
}

/** How well a city's middle stands for what is in it, km. */
const CITY_KM = 25

/** Reads FILE (csv, csv.gz) and the file of its nodes (index,name,country,lat,lon). Throws an Error that says what is wrong. */
export function readMatrix(file: string, nodesFile: string | null): Matrix {
  const rows = readText(file)
    .trim()
    .split('\n')
    .map((line, i) => line.split(',').map((cell) => rttOf(cell, `${file}: line ${i + 1}`)))
  const size = rows.length
  const odd = rows.findIndex((row) => row.length !== size)
  if (odd >= 0)
    throw new Error(
      `${file}: line ${odd + 1} has ${rows[odd]!.length} cells, expected ${size} as there are lines`,
    )
  const cells = Float64Array.from(rows.flat())
  const rttMs = (a: number, b: number) => {
    const there = cells[a * size + b]!
    return Number.isNaN(there) ? cells[b * size + a]! : there
  }
  return { file, size, rttMs, places: nodesFile === null ? null : readPlaces(nodesFile, size) }
}

/** A cell's RTT, ms; empty: NaN. */
function rttOf(cell: string, at: string): number {
  const rttMs = numberOf(cell)
  if (rttMs >= 0 || cell.trim() === '') return rttMs
  throw new Error(`${at}: expected an RTT in ms or nothing, found ${cell.trim()}`)
}

function readPlaces(file: string, size: number): Place[] {
  const lines = readText(file).trim().split('\n')
  const columns = lines[0]!.split(',').map((name) => name.trim())
  const [lat, lon] = [columns.indexOf('lat'), columns.indexOf('lon')]
  if (lat < 0 || lon < 0) throw new Error(`${file}: expected a header with lat and lon, found ${lines[0]}`)
  if (lines.length - 1 !== size)
    throw new Error(
      `${file}: expected ${size} lines after the header, as the matrix has, found ${lines.length - 1}`,
    )
  const places = lines.slice(1).map((line) => {
    // From the end: a name may hold a comma.
    const cells = line.split(',')
    const numberAt = (column: number) => numberOf(cells.at(column - columns.length) ?? '')
    return { lat: numberAt(lat), lon: numberAt(lon), accuracyKm: CITY_KM }
  })
  const bad = places.findIndex(({ lat, lon }) => !(Math.abs(lat) <= 90 && Math.abs(lon) <= 180))
  if (bad >= 0)
    throw new Error(`${file}: line ${bad + 2}: expected lat and lon in degrees, found ${lines[bad + 1]}`)
  return places
}

/** A file's text, unpacked where its name says gz. Throws an Error that names it. */
export function readText(file: string): string {
  try {
    const bytes = readFileSync(file)
    return (file.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString('utf8')
  } catch (cause) {
    throw new Error(`${file} can't be read: ${(cause as Error).message}`, { cause })
  }
}
