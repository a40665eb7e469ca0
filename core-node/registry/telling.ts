// Telling: which news of a host is worth a record of its own, and with it a word to every other core.
//
// A core alone tells all that alters its answers. Among several a home tells what changes others' choices:
// a load by more than a quarter or over a bound where clients are moved, a coordinate by more than its error, an
// RTT by more than a quarter. What is not told is not answered with at home either: so all cores answer from
// the same records, and a quiet cluster's directories are equal. (PIAS's two tiers: Ballani, Francis, 2005.) Pure.

import { euclideanMs, MAX_USABLE_ERROR } from '../../resolver/coordinate.ts'
import type { Coordinate } from '../../resolver/directory.ts'

export interface Telling {
  /** Loads in the unit of capacity; null: not told. */
  isLoadNews(told: number | null, now: number | null, capacity: number): boolean
  isPlaceNews(told: Coordinate | null, now: Coordinate): boolean
  isRttNews(toldMs: number, nowMs: number): boolean
}

/** What moved by less is told as it was, so that records rest, and what is reckoned from them, while nothing happens. */
const ALONE = { rttMs: 0.5, rttShare: 0.05, moveMs: 3, error: 0.1 }
const SHARED = { rttMs: 2, rttShare: 0.25, moveMs: 3, errorRatio: 2, loadShare: 0.25 }
/** Clients are moved away from a member at its capacity, and come back below this share of it. */
const SHED_SHARES = [1, 0.8]

/** Of a core that shares its store with nobody. */
export const TELLING_ALONE: Telling = {
  isLoadNews: (told, now) => told !== now,
  isPlaceNews(told, now) {
    if (told === null || isUsable(told) !== isUsable(now)) return true
    return movedMs(told, now) > ALONE.moveMs || Math.abs(told.error - now.error) > ALONE.error
  },
  isRttNews: (toldMs, nowMs) => Math.abs(nowMs - toldMs) > Math.max(ALONE.rttMs, ALONE.rttShare * toldMs),
}

/** Of one core among several. */
export const TELLING_SHARED: Telling = {
  isLoadNews(told, now, capacity) {
    if (told === null || now === null || told === now) return told !== now
    if (SHED_SHARES.some((share) => told >= share * capacity !== now >= share * capacity)) return true
    return Math.abs(now - told) > SHARED.loadShare * Math.max(told, now)
  },
  isPlaceNews(told, now) {
    if (told === null || isUsable(told) !== isUsable(now)) return true
    const ratio = told.error / Math.max(now.error, Number.EPSILON)
    if (isUsable(now) && (ratio > SHARED.errorRatio || ratio < 1 / SHARED.errorRatio)) return true
    return movedMs(told, now) > Math.max(SHARED.moveMs, now.error * fromCentreMs(now))
  },
  isRttNews: (toldMs, nowMs) => Math.abs(nowMs - toldMs) > Math.max(SHARED.rttMs, SHARED.rttShare * toldMs),
}

function isUsable({ error }: Coordinate): boolean {
  return error < MAX_USABLE_ERROR
}

function movedMs(a: Coordinate, b: Coordinate): number {
  const heightsMs = Math.abs(a.heightMs - b.heightMs) + Math.abs(a.adjustmentMs - b.adjustmentMs)
  return euclideanMs(a.vec, b.vec) + heightsMs
}

/** What the error, which is relative, is a share of: as far as it is to the middle of all, an ordinary distance. */
function fromCentreMs({ vec, heightMs }: Coordinate): number {
  return Math.hypot(...vec) + heightMs
}
