// A matrix of measured round trips, as files give it: line i, column j = RTT from i to j in ms, empty: not measured.

import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import type { Place } from '../../resolver/directory.ts'

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
    .map((line) => line.split(',').map((cell) => (cell.trim() === '' ? Number.NaN : Number(cell))))
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

function readPlaces(file: string, size: number): Place[] {
  const lines = readText(file).trim().split('\n')
  const columns = lines[0]!.split(',').map((name) => name.trim())
  const [lat, lon] = [columns.indexOf('lat'), columns.indexOf('lon')]
  const fromEnd = (at: number) => at - columns.length
  const places = lines.slice(1).map((line) => {
    // From the end: a name may hold a comma.
    const cells = line.split(',')
    return { lat: Number(cells.at(fromEnd(lat))), lon: Number(cells.at(fromEnd(lon))), accuracyKm: CITY_KM }
  })
  const bad = places.findIndex((place) => !Number.isFinite(place.lat) || !Number.isFinite(place.lon))
  if (lat < 0 || lon < 0 || places.length < size || bad >= 0) {
    throw new Error(
      `${file}: expected a header with lat and lon and then ${size} lines with both, found ${places.length}${bad < 0 ? '' : `; line ${bad + 2} is none`}`,
    )
  }
  return places
}

function readText(file: string): string {
  let bytes: Buffer
  try {
    bytes = readFileSync(file)
  } catch (cause) {
    throw new Error(`${file} can't be read: ${(cause as Error).message}`, { cause })
  }
  return (file.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString('utf8')
}
