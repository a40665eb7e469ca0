// Placement: RTTs -> a coordinate, for clients that run no agent and so take no part in Vivaldi.
//
// A client is placed where its RTTs to hosts with known coordinates fit best (Ng and Zhang, INFOCOM
// 2002, section 3: a node placed by landmarks), by descent on the relative errors, since near hosts
// decide who is nearest. Deterministic: every core places a client alike. Does not move any host.

import { DIMENSIONS } from './coordinate.ts'
import type { Coordinate } from './directory.ts'

/** One RTT to a host with a coordinate. */
export interface Sighting {
  readonly coordinate: Coordinate
  readonly rttMs: number
  /** How much it counts, above 0, 1 for full. */
  readonly weight: number
}

/** Steps of the descent: on real matrices the fit changes by less than 1% after so many. */
const STEPS = 60
/** RTTs are judged relative to themselves plus this, so that 0.1 against 0.3 ms is no 200% error. */
const GRAIN_MS = 5

/** Where at least one sighting says that a client is. Its error is the mean relative residual. */
export function placeBySightings(sightings: readonly Sighting[]): Coordinate {
  const vec = startVec(sightings)
  let heightMs = 1
  const gradient = new Float64Array(DIMENSIONS)
  for (let step = 0; step < STEPS; step++) {
    gradient.fill(0)
    let heightGradient = 0
    let total = 0
    for (const { coordinate, rttMs, weight } of sightings) {
      const straight = lengthBetween(vec, coordinate.vec)
      const predicted = straight + heightMs + coordinate.heightMs + coordinate.adjustmentMs
      const pull = (weight / (rttMs + GRAIN_MS) ** 2) * (rttMs - predicted)
      total += weight / (rttMs + GRAIN_MS) ** 2
      for (let i = 0; i < DIMENSIONS; i++) {
        gradient[i]! += (pull * (vec[i]! - coordinate.vec[i]!)) / Math.max(straight, 1e-6)
      }
      heightGradient += pull
    }
    for (let i = 0; i < DIMENSIONS; i++) vec[i]! += gradient[i]! / total
    heightMs = Math.max(0, heightMs + (0.5 * heightGradient) / total)
  }
  return { vec: Array.from(vec), heightMs, adjustmentMs: 0, error: relativeError(vec, heightMs, sightings) }
}

/** The hosts' mean, the near ones counting most. */
function startVec(sightings: readonly Sighting[]): Float64Array {
  const vec = new Float64Array(DIMENSIONS)
  let total = 0
  for (const { coordinate, rttMs, weight } of sightings) {
    const share = weight / (rttMs + GRAIN_MS) ** 2
    total += share
    for (let i = 0; i < DIMENSIONS; i++) vec[i]! += share * coordinate.vec[i]!
  }
  for (let i = 0; i < DIMENSIONS; i++) vec[i]! = vec[i]! / total
  return vec
}

function relativeError(vec: Float64Array, heightMs: number, sightings: readonly Sighting[]): number {
  let sum = 0
  let total = 0
  for (const { coordinate, rttMs, weight } of sightings) {
    const predicted =
      lengthBetween(vec, coordinate.vec) + heightMs + coordinate.heightMs + coordinate.adjustmentMs
    sum += (weight * Math.abs(predicted - rttMs)) / (rttMs + GRAIN_MS)
    total += weight
  }
  return Math.min(1.5, sum / total)
}

function lengthBetween(a: Float64Array, b: readonly number[]): number {
  let sum = 0
  for (let i = 0; i < DIMENSIONS; i++) {
    const d = a[i]! - b[i]!
    sum += d * d
  }
  return Math.sqrt(sum)
}
