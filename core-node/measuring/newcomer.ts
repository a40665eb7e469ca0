// A newcomer's first coordinate: placed where its first RTTs fit all at once, instead of drifting there.
//
// Vivaldi moves a little at each echo, so that a new host needs hundreds of them; one that measured a dozen
// hosts which know where they are can be placed by landmarks (Ng and Zhang, INFOCOM 2002) and goes on from there.
// On PlanetLab a dozen echoes place a host within 11% (median), which steps alone reach after 64 (docs/locality.md).
// Invariant: no one landmark alone decides; where RTTs contradict each other the least contradictory but one
// count. Pure.

import type { Coordinate } from '../../resolver/directory.ts'
import { placeBySightings, type Sighting } from '../../resolver/placement.ts'

/** A host with less error knows where it is. */
const LANDMARK_ERROR = 0.3
/** Landmarks that place a newcomer: with fewer the fit is worse than the steps; with more it gains little. */
const LEAST_LANDMARKS = 6
const ENOUGH_LANDMARKS = 16
/** Few landmarks always fit: the error is no less than this over their count (measured: 0.25 of 6, 0.1 of 16). */
const FEW_ERROR = 1.5
/** From this mean residual on somebody's RTT, or place, is wrong: honest RTTs fit within 0.05 to 0.15. */
const CONTRADICTION = 0.3

/** Landmark -> what was seen of it. Empty for a host that is new. */
export type FirstSightings = ReadonlyMap<string, Sighting>

/** Whether the first RTTs are all there: from then on the host moves by Vivaldi's steps. */
export function isPlaced(sightings: FirstSightings): boolean {
  return sightings.size >= ENOUGH_LANDMARKS
}

/** With one RTT more: of a landmark heard before the least counts; who does not know where it is, is none. */
export function see(
  sightings: FirstSightings,
  peer: string,
  coordinate: Coordinate | null,
  rttMs: number,
): FirstSightings {
  if (coordinate === null || coordinate.error > LANDMARK_ERROR) return sightings
  const leastMs = Math.min(rttMs, sightings.get(peer)?.rttMs ?? rttMs)
  return new Map(sightings).set(peer, { coordinate, rttMs: leastMs, weight: 1 })
}

/** Where the first RTTs fit best; null: they are too few to say. */
export function placeNewcomer(sightings: FirstSightings): Coordinate | null {
  if (sightings.size < LEAST_LANDMARKS) return null
  const all = [...sightings.values()]
  const whole = placeBySightings(all)
  const best = whole.error < CONTRADICTION ? whole : leastContradictory(all, whole)
  return { ...best, error: Math.max(best.error, FEW_ERROR / all.length) }
}

/** The best fit that leaves one out, if that is clearly better: then it was that one. */
function leastContradictory(all: readonly Sighting[], whole: Coordinate): Coordinate {
  const others = all.map((left) => placeBySightings(all.filter((sighting) => sighting !== left)))
  const best = others.reduce((a, b) => (b.error < a.error ? b : a))
  return best.error < whole.error / 2 ? best : whole
}
