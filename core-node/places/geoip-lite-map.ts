// The places of the package geoip-lite as flat columns that all threads share: a third of the memory that the
// package's own code takes in each thread that loads it.
//
// Reads the package's data files: ranges of addresses in order, each with a city's number and a place. Ranges
// that touch and say the same are joined. Invariant: says of each public address what the package says (a test
// compares them), and as it does of IPv6 looks at the first half alone. A file of another form is an error.

import { closeSync, openSync, readFileSync, readSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { type Address, familyOf } from '../../resolver/address.ts'
import type { Place } from '../../resolver/directory.ts'
import { COUNTRY_ACCURACY_KM } from './gazetteer.ts'

/** Of one family: where each run of addresses begins (IPv6: the first half), and what it says. */
interface Runs {
  readonly starts: Uint32Array
  /** Second words of the beginnings; IPv4: none. */
  readonly tails: Uint32Array
  /** Degrees by 10,000. */
  readonly lats: Int32Array
  readonly lons: Int32Array
  /** 0: nothing is known. */
  readonly radiiKm: Uint16Array
}

/** What may be handed to other threads as it is. */
export interface GeoipLiteMap {
  readonly 4: Runs
  readonly 6: Runs
}

const DEGREE_STEPS = 10_000
/** A range: first and last address, number of its city, latitude, longitude, radius; highest bytes first. */
const ADDRESS_BYTES = { 4: 4, 6: 16 } as const
const RANGE_BYTES = { 4: 24, 6: 48 } as const
/** A city: country, region, ..., name; all three of fixed length, filled up with zeros. */
const CITY_BYTES = 88
const REGION_AT = 2
const NAME_AT = 42
const NO_CITY = 0xffff_ffff
/** The files take a hundred megabytes: never all of it at a time. */
const RANGES_AT_ONCE = 20_000

/** Reads the package's files: some tenths of a second. Throws where they are not as expected. */
export function readGeoipLite(): GeoipLiteMap {
  const folder =
    process.env.GEODATADIR ?? join(dirname(createRequire(import.meta.url).resolve('geoip-lite')), '../data')
  const cities = readFileSync(join(folder, 'geoip-city-names.dat'))
  const runsOf = (family: 4 | 6, file: string) => joinRanges(family, join(folder, file), cities)
  return { 4: runsOf(4, 'geoip-city.dat'), 6: runsOf(6, 'geoip-city6.dat') }
}

/** null: not known. */
export function placeInGeoipLite(map: GeoipLiteMap, address: Address): Place | null {
  const family = familyOf(address)
  const { starts, tails, lats, lons, radiiKm } = map[family]
  const word = (at: number) =>
    ((address[at]! << 24) | (address[at + 1]! << 16) | (address[at + 2]! << 8) | address[at + 3]!) >>> 0
  const head = word(family === 4 ? 12 : 0)
  const tail = family === 4 ? 0 : word(4)
  let low = -1
  let high = starts.length
  while (high - low > 1) {
    const middle = (low + high) >>> 1
    const start = starts[middle]!
    if (start < head || (start === head && (family === 4 || tails[middle]! <= tail))) low = middle
    else high = middle
  }
  if (low < 0 || radiiKm[low] === 0) return null
  return { lat: lats[low]! / DEGREE_STEPS, lon: lons[low]! / DEGREE_STEPS, accuracyKm: radiiKm[low]! }
}

function joinRanges(family: 4 | 6, path: string, cities: Buffer): Runs {
  const bytes = RANGE_BYTES[family]
  const { size } = statSync(path)
  if (size === 0 || size % bytes !== 0) throw new Error(`geoip-lite: ${path} has another form`)
  // Each range may leave a gap behind it.
  const runs = new RunWriter(family, (2 * size) / bytes + 1)
  const part = Buffer.alloc(RANGES_AT_ONCE * bytes)
  const file = openSync(path, 'r')
  try {
    for (let left = size; left > 0; left -= part.length) {
      const length = Math.min(left, part.length)
      if (readSync(file, part, 0, length, null) !== length) throw new Error(`geoip-lite: ${path} is cut off`)
      addRanges(family, part.subarray(0, length), cities, runs)
    }
  } finally {
    closeSync(file)
  }
  return runs.finish()
}

function addRanges(family: 4 | 6, ranges: Buffer, cities: Buffer, runs: RunWriter): void {
  const bytes = RANGE_BYTES[family]
  const factAt = 2 * ADDRESS_BYTES[family]
  const view = new DataView(ranges.buffer, ranges.byteOffset, ranges.length)
  for (let at = 0; at < ranges.length; at += bytes) {
    const city = view.getUint32(at + factAt)
    const radiusKm =
      city === NO_CITY ? 0 : radiusOf(view.getUint32(at + factAt + 12), cities, CITY_BYTES * city)
    const end = at + ADDRESS_BYTES[family]
    runs.add(
      view.getUint32(at),
      family === 4 ? 0 : view.getUint32(at + 4),
      view.getUint32(end),
      family === 4 ? 0 : view.getUint32(end + 4),
      view.getInt32(at + factAt + 4),
      view.getInt32(at + factAt + 8),
      radiusKm,
    )
  }
}

/** A record without region and city is a country's. */
function radiusOf(areaKm: number, cities: Buffer, city: number): number {
  if (areaKm === 0) return 0
  const isCountry = cities[city + REGION_AT] === 0 && cities[city + NAME_AT] === 0
  return Math.max(isCountry ? COUNTRY_ACCURACY_KM : 1, areaKm)
}

/** Puts ranges together as they come, in order. */
class RunWriter {
  readonly #runs: Runs
  readonly #family: 4 | 6
  #used = 0
  /** The first address behind the last range. */
  #nextHead = 0
  #nextTail = 0

  constructor(family: 4 | 6, most: number) {
    this.#family = family
    this.#runs = columns(family, most, (bytes) => new ArrayBuffer(bytes))
  }

  add(
    head: number,
    tail: number,
    endHead: number,
    endTail: number,
    lat: number,
    lon: number,
    radiusKm: number,
  ): void {
    // Parts of one /64 begin where another already did: the first says what all of it is.
    const isLate = head < this.#nextHead || (head === this.#nextHead && tail < this.#nextTail)
    if (isLate && (endHead < this.#nextHead || (endHead === this.#nextHead && endTail < this.#nextTail)))
      return
    const isBehindGap = !isLate && (head !== this.#nextHead || tail !== this.#nextTail)
    if (isBehindGap) this.#begin(this.#nextHead, this.#nextTail, 0, 0, 0)
    this.#begin(isLate ? this.#nextHead : head, isLate ? this.#nextTail : tail, lat, lon, radiusKm)
    const carries = this.#family === 4 || endTail === 0xffff_ffff
    this.#nextHead = endHead + (carries ? 1 : 0)
    this.#nextTail = carries ? 0 : endTail + 1
  }

  /** What is behind the last range is not known. */
  finish(): Runs {
    if (this.#nextHead <= 0xffff_ffff) this.#begin(this.#nextHead, this.#nextTail, 0, 0, 0)
    const used = columns(this.#family, this.#used, (bytes) => new SharedArrayBuffer(bytes))
    for (const key of ['starts', 'tails', 'lats', 'lons', 'radiiKm'] as const)
      used[key].set(this.#runs[key].subarray(0, used[key].length))
    return used
  }

  #begin(head: number, tail: number, lat: number, lon: number, radiusKm: number): void {
    const { starts, tails, lats, lons, radiiKm } = this.#runs
    const last = this.#used - 1
    const isSame =
      last >= 0 &&
      radiiKm[last] === radiusKm &&
      (radiusKm === 0 || (lats[last] === lat && lons[last] === lon))
    if (isSame) return
    starts[this.#used] = head
    if (this.#family === 6) tails[this.#used] = tail
    lats[this.#used] = lat
    lons[this.#used] = lon
    radiiKm[this.#used] = radiusKm
    this.#used++
  }
}

function columns(
  family: 4 | 6,
  rows: number,
  allocate: (bytes: number) => ArrayBuffer | SharedArrayBuffer,
): Runs {
  return {
    starts: new Uint32Array(allocate(4 * rows)),
    tails: new Uint32Array(allocate(family === 4 ? 0 : 4 * rows)),
    lats: new Int32Array(allocate(4 * rows)),
    lons: new Int32Array(allocate(4 * rows)),
    radiiKm: new Uint16Array(allocate(2 * rows)),
  }
}
