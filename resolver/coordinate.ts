// Distances in the network coordinate space. Reading only: updates are the home core's work.
//
// Vivaldi with height (Dabek et al., SIGCOMM 2004, section 5.4) and Serf's adjustment term
// (Ledlie, Gardner, Seltzer, NSDI 2007): rtt(a,b) = |a.vec - b.vec| + a.height + b.height,
// plus both adjustments where the sum stays positive. Unit: ms everywhere.

import type { Coordinate } from './directory.ts'

/** Serf's choice: errors fall until about 8 dimensions and no further. */
export const DIMENSIONS = 8

/** From this error on a coordinate is about as wrong as it is long (a host's first few samples, or a liar): nobody relies on it. */
export const MAX_USABLE_ERROR = 1

/** Length of the straight line between the Euclidean parts, ms. */
export function euclideanMs(a: readonly number[], b: readonly number[]): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) {
    const d = a[i]! - b[i]!
    sum += d * d
  }
  return Math.sqrt(sum)
}

/** Predicted RTT without the adjustments, ms. */
export function rawDistanceMs(a: Coordinate, b: Coordinate): number {
  return euclideanMs(a.vec, b.vec) + a.heightMs + b.heightMs
}

/** Predicted RTT, ms. Adjustments that would make it negative are left out, as in Serf. */
export function distanceMs(a: Coordinate, b: Coordinate): number {
  const raw = rawDistanceMs(a, b)
  const adjusted = raw + a.adjustmentMs + b.adjustmentMs
  return adjusted > 0 ? adjusted : raw
}

/** Below so many ms a sum of straight line, heights and adjustments is bent, so that it stays above 0. */
const BENT_BELOW_MS = 4

/**
 * An RTT of what heights and adjustments sum up to, which may be negative among near hosts. Serf leaves the
 * adjustments out there: a good rule for updates, but by it a host at -1 is farther than one at 1. This keeps the
 * order: who sums up to less is nearer.
 */
export function positiveMs(sumMs: number): number {
  return sumMs >= BENT_BELOW_MS ? sumMs : BENT_BELOW_MS * Math.exp(sumMs / BENT_BELOW_MS - 1)
}

/** The sum that positiveMs makes so many ms of. */
export function sumOfMs(ms: number): number {
  return ms >= BENT_BELOW_MS ? ms : BENT_BELOW_MS * (1 + Math.log(ms / BENT_BELOW_MS))
}

/** All numbers finite, the right dimension, height not negative: the only coordinates ever stored. */
export function isSaneCoordinate(c: Coordinate, dimensions: number = DIMENSIONS): boolean {
  return (
    c.vec.length === dimensions &&
    c.vec.every(Number.isFinite) &&
    Number.isFinite(c.heightMs) &&
    c.heightMs >= 0 &&
    Number.isFinite(c.adjustmentMs) &&
    Number.isFinite(c.error) &&
    c.error >= 0
  )
}
