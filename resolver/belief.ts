// Belief: from the RTTs in hand to what the RTT to every other host may be.
//
// Three witnesses are heard for each host, and weighed by how well they fit what was measured: the bounds
// that triangles with measured hosts set (Hotz 1994; Guyton and Schwartz, SIGCOMM 1995), softened since on
// the Internet they break; those who see the world alike, hosts and well measured prefixes (nearest-neighbour
// regression on their RTTs); and the map. Pure and deterministic: every core believes alike.

import type { Place } from './directory.ts'
import { type LocalityRow, measuredMs } from './locality-rows.ts'
import { correctMap } from './map-correction.ts'
import type { Tables } from './tables.ts'

/** One RTT in hand, from a host to the client. */
export interface Sighting {
  readonly row: number
  readonly rttMs: number
  /** How much it counts, above 0, 1 for full. */
  readonly weight: number
}

/** What is believed of the RTT to one host. */
export interface Estimate {
  /** What the RTT is taken to be: rather too long than too short, since the shortest of many guesses is chosen. NaN: nothing is known. */
  readonly ms: number
  /** What it may well be if the host is lucky: the planner asks the lowest first. NaN: nothing is known. */
  readonly hopeMs: number
  /** No less than this by the triangles, softened: who can't be near need not be asked. 0: no triangle says so. */
  readonly floorMs: number
  /** 9 of 10 RTTs are within it of `ms`. */
  readonly errorMs: number
}

/** What is believed of every host, worked out for each when it is first asked of. */
export interface Belief {
  of(row: number): Estimate
}

const NOTHING: Estimate = {
  ms: Number.NaN,
  hopeMs: Number.NaN,
  floorMs: 0,
  errorMs: Number.POSITIVE_INFINITY,
}

/** Below so many ms RTTs differ by chance: differences are taken of RTTs plus this. */
const GRAIN_MS = 20
/** How much of the strictest lower bound the second strictest takes: one broken triangle rules nobody out. */
const SOFTENING = 0.3
/** Where between its bounds a host's RTT is hoped, and where it is taken, to be. */
const HOPE_BETWEEN = 0.2
const TAKEN_BETWEEN = 0.7
/** The same among what the alike see: shares of their weight. */
const HOPE_QUANTILE = 0.3
const TAKEN_QUANTILE = 0.7
/** How fast a witness's weight falls with how far it is apart (a logarithm), and how many are heard. */
const SHARPNESS = 14
const MAX_WITNESSES = 24
/** The alike count as much as the triangles when the most alike of them is so far apart. */
const ALIKE_APART = 0.08
/** From a host to itself, ms: what a client at its side sees. */
const SELF_MS = 1
/** How much a map that fits what was measured counts beside the triangles, and how far apart (a logarithm) it may be before it is taken for wrong. */
const MAP_TRUST = 10
const MAP_REACH = 0.6

/** What is believed of a client that was seen so, at a place (null: not known); `self` is its own row, which is no witness. */
export function believe(
  tables: Tables,
  sightings: readonly Sighting[],
  place: Place | null,
  self: LocalityRow | null,
): Belief {
  const { hosts } = tables
  const honest = sightings.filter(({ row }) => hosts.isWitness(row))
  const mapMs = place === null ? null : (row: number) => hosts.mapMs(place, row)
  const mapWeight = mapMs === null ? 0 : weighMap(honest, mapMs)
  const correctedMs = mapMs === null ? null : correctMap(hosts, honest, mapMs)
  const alike = findAlike(tables, honest, self, (row) => mapMs?.(row) ?? Number.NaN, mapWeight)
  const estimate = (row: number): Estimate => {
    const words: Word[] = []
    const bounds = boundsOf(tables, honest, row)
    if (bounds !== null) {
      const reachMs = Math.max(0, bounds.upperMs - bounds.lowerMs)
      const [hopeMs, ms] = [bounds.lowerMs + HOPE_BETWEEN * reachMs, bounds.lowerMs + TAKEN_BETWEEN * reachMs]
      words.push({ hopeMs, ms, errorMs: reachMs, weight: 1 })
    }
    const seen = alike && mixOf(alike, row)
    if (seen) words.push({ ...seen, weight: ALIKE_APART / alike.apart })
    const guessMs = correctedMs?.(row) ?? Number.NaN
    if (!Number.isNaN(guessMs))
      words.push({ hopeMs: guessMs, ms: guessMs, errorMs: MAP_ERROR_SHARE * guessMs, weight: mapWeight })
    return words.length === 0 ? NOTHING : weighUp(words, bounds?.lowerMs ?? 0)
  }
  return remembering(estimate, (row) => hosts.recordOf(row) !== null)
}

/** Rows are given to other hosts only after beliefs are worked out anew, so what was said of one may be kept. */
function remembering(estimate: (row: number) => Estimate, isHost: (row: number) => boolean): Belief {
  const memo = new Map<number, Estimate>()
  return {
    of(row) {
      if (!isHost(row)) return NOTHING
      let known = memo.get(row)
      if (known === undefined) {
        known = estimate(row)
        if (memo.size >= MEMO_SIZE) memo.clear()
        memo.set(row, known)
      }
      return known
    },
  }
}

/** Estimates kept for one client: those of all hosts of an ordinary installation, and of those near it in a vast one. */
const MEMO_SIZE = 1024

/** What one witness says of a host. */
interface Word {
  readonly hopeMs: number
  readonly ms: number
  /** How far off its own word may be. */
  readonly errorMs: number
  readonly weight: number
}

function weighUp(words: readonly Word[], floorMs: number): Estimate {
  let [hope, ms, error, total] = [0, 0, 0, 0]
  for (const word of words) {
    hope += word.weight * word.hopeMs
    ms += word.weight * word.ms
    error += word.weight * word.errorMs
    total += word.weight
  }
  const disagreement = Math.max(
    ...words.map((word) => (word.weight / total) * Math.abs(word.ms - ms / total)),
  )
  const errorMs = ERROR_BASE_MS + ERROR_SHARE * (error / total + disagreement)
  return { ms: ms / total, hopeMs: hope / total, floorMs, errorMs }
}

/** What even the surest guess is off by: 9 of 10 were within it on the matrices of PlanetLab and WonderProxy. */
const ERROR_BASE_MS = 5
const ERROR_SHARE = 0.7
const MAP_ERROR_SHARE = 0.4

/** How far two RTTs differ, as a logarithm: near hosts decide who is nearest, so relative differences count. */
function apart(aMs: number, bMs: number): number {
  return Math.abs(Math.log((aMs + GRAIN_MS) / (bMs + GRAIN_MS)))
}

function boundsOf(
  { hosts }: Tables,
  sightings: readonly Sighting[],
  row: number,
): { lowerMs: number; upperMs: number } | null {
  let [first, second, upperMs] = [0, 0, Number.POSITIVE_INFINITY]
  for (const sighting of sightings) {
    const apartMs = sighting.row === row ? 0 : hosts.rttBetweenMs(sighting.row, row)
    if (Number.isNaN(apartMs)) continue
    const lowerMs = Math.abs(apartMs - sighting.rttMs)
    if (lowerMs > first) {
      second = first
      first = lowerMs
    } else if (lowerMs > second) second = lowerMs
    upperMs = Math.min(upperMs, apartMs + sighting.rttMs)
  }
  if (upperMs === Number.POSITIVE_INFINITY) return null
  return { lowerMs: (1 - SOFTENING) * first + SOFTENING * second, upperMs }
}

/** One who sees the world alike: its RTT to a host (NaN: not known), and how much its word counts. */
interface Witness {
  readonly msTo: (row: number) => number
  readonly weight: number
}

interface Alike {
  readonly witnesses: readonly Witness[]
  /** How far the most alike of them is apart. */
  readonly apart: number
}

/** Hosts and well measured prefixes whose RTTs to the hosts in hand are like the client's. */
function findAlike(
  tables: Tables,
  sightings: readonly Sighting[],
  self: LocalityRow | null,
  byMapMs: (row: number) => number,
  mapWeight: number,
): Alike | null {
  if (sightings.length === 0) return null
  const { hosts } = tables
  const found: { msTo: (row: number) => number; apart: number; share: number }[] = []
  const nearness = (mapWeight / MAP_TRUST) ** 2
  /** `awayMs`: how far the witness itself is from the client by the map, NaN: not known. */
  const consider = (msTo: (row: number) => number, awayMs: number) => {
    let [sum, common] = [0, 0]
    for (const { row, rttMs } of sightings) {
      const ms = msTo(row)
      if (Number.isNaN(ms)) continue
      sum += apart(rttMs, ms)
      common++
    }
    if (common === 0) return
    const share = common / sightings.length
    if (!Number.isNaN(awayMs)) {
      sum += nearness * apart(awayMs, SELF_MS)
      common += nearness
    }
    found.push({ msTo, apart: sum / common, share })
  }
  for (const host of hosts.vantages()) {
    if (!hosts.isWitness(host)) continue
    consider((row) => (row === host ? SELF_MS : hosts.rttBetweenMs(host, row)), byMapMs(host))
  }
  for (const panel of tables.panel()) {
    if (panel === self) continue
    consider((row) => (hosts.isWitness(row) ? measuredMs(panel, row) : Number.NaN), Number.NaN)
  }
  if (found.length === 0) return null
  found.sort((a, b) => a.apart - b.apart)
  const least = found[0]!.apart
  const sharpness = SHARPNESS * Math.sqrt(sightings.length)
  const witnesses = found.slice(0, MAX_WITNESSES).map(({ msTo, apart, share }) => {
    return { msTo, weight: share * Math.exp(-sharpness * (apart - least)) }
  })
  return { witnesses: witnesses.filter(({ weight }) => weight > 1e-3), apart: Math.max(least, 1e-3) }
}

/** What the alike see of a host. */
function mixOf({ witnesses }: Alike, row: number): Omit<Word, 'weight'> | null {
  const seen: { ms: number; weight: number }[] = []
  let total = 0
  for (const { msTo, weight } of witnesses) {
    const ms = msTo(row)
    if (Number.isNaN(ms)) continue
    seen.push({ ms, weight })
    total += weight
  }
  if (seen.length === 0) return null
  seen.sort((a, b) => a.ms - b.ms)
  const quantile = (share: number) => {
    let sum = 0
    for (const { ms, weight } of seen) {
      sum += weight
      if (sum >= share * total) return ms
    }
    return seen.at(-1)!.ms
  }
  return {
    ms: quantile(TAKEN_QUANTILE),
    hopeMs: quantile(HOPE_QUANTILE),
    errorMs: quantile(0.95) - quantile(0.05),
  }
}

/** How much the map's word counts: it is believed as far as it fits what was measured. */
function weighMap(sightings: readonly Sighting[], mapMs: (row: number) => number): number {
  let [sum, common] = [0, 0]
  for (const { row, rttMs } of sightings) {
    if (Number.isNaN(mapMs(row))) continue
    sum += apart(rttMs, mapMs(row))
    common++
  }
  const away = common === 0 ? 0 : sum / common
  return MAP_TRUST * Math.exp(-((away / MAP_REACH) ** 2))
}
