// Coordinates' updates: one RTT seen by a host moves that host's coordinate, and nobody else's.
//
// Vivaldi with height (Dabek, Cox, Kaashoek, Morris, SIGCOMM 2004, sections 3-5.4) as Serf runs it:
// latency filter, adjustment term and gravity of Ledlie, Gardner and Seltzer (NSDI 2007, sections 5
// and 6). Here besides, so that a lie has a bound: a sample moves a coordinate by no more than maxStepMs,
// and counts for no more error than errorMax and no longer distance than its RTT (see missOf).
// Pure: a state goes in with its sample, a new state comes out. Unit: ms everywhere (Serf's is seconds).

import { DIMENSIONS, distanceMs, isSaneCoordinate, rawDistanceMs } from '../../resolver/coordinate.ts'
import type { Coordinate } from '../../resolver/directory.ts'
import { MAX_RTT_MS } from '../../server-agent/protocol/messages.ts'

/** Numbers in [0, 1). */
export type Rng = () => number

export interface Knobs {
  readonly dimensions: number
  /** Error of who knows nothing, and the most it can be. */
  readonly errorMax: number
  /** Vivaldi's c_e and c_c: how far one sample moves the error and the coordinate. */
  readonly errorShare: number
  readonly moveShare: number
  /** Samples in the adjustment term's mean. 0: no adjustment. */
  readonly adjustmentWindow: number
  readonly heightMinMs: number
  /** RTTs of one pair of which the median is taken. */
  readonly filterSize: number
  /** Distance from the origin at which gravity pulls by a second at each sample, ms. */
  readonly gravityRhoMs: number
  /** The farthest that one sample moves a coordinate, ms. */
  readonly maxStepMs: number
  /** Peers whose last RTTs are remembered; the longest unheard is forgotten first. */
  readonly maxPeers: number
}

/** Serf's settings. maxStepMs: a quarter (moveShare) of 400 ms, which is above nearly every honest RTT. */
export const KNOBS: Knobs = {
  dimensions: DIMENSIONS,
  errorMax: 1.5,
  errorShare: 0.25,
  moveShare: 0.25,
  adjustmentWindow: 20,
  heightMinMs: 0.01,
  filterSize: 3,
  gravityRhoMs: 150_000,
  maxStepMs: 100,
  maxPeers: 64,
}

/** A coordinate with the memory that its updates need. */
export interface CoordinateState {
  readonly coordinate: Coordinate
  /** Residuals of the last samples, oldest overwritten first. */
  readonly residualsMs: readonly number[]
  readonly nextResidual: number
  /** Peer -> its last RTTs, oldest first. */
  readonly windowsMs: ReadonlyMap<string, readonly number[]>
  /** How often the coordinate had become senseless and was begun anew. */
  readonly resets: number
}

/** Why a sample was not taken. */
export type SampleRefusal = 'bad-peer' | 'bad-rtt'

/** A host that knows nothing yet: at the origin, or at `coordinate` when it was known before. */
export function startCoordinate(coordinate: Coordinate | null = null, knobs: Knobs = KNOBS): CoordinateState {
  return {
    coordinate: coordinate ?? origin(knobs),
    residualsMs: new Array<number>(knobs.adjustmentWindow).fill(0),
    nextResidual: 0,
    windowsMs: new Map(),
    resets: 0,
  }
}

/**
 * Takes in one RTT, 0..10,000 ms, from the host of `state` to a peer whose coordinate is given. A sample
 * that no network gives (NaN, negative, absurd; a senseless peer) is refused and the state stays as it is.
 */
export function observe(
  state: CoordinateState,
  peer: string,
  peerCoordinate: Coordinate,
  rttMs: number,
  rng: Rng,
  knobs: Knobs = KNOBS,
): { state: CoordinateState; refused: SampleRefusal | null } {
  if (!isSaneCoordinate(peerCoordinate, knobs.dimensions)) return { state, refused: 'bad-peer' }
  if (!(rttMs >= 0 && rttMs <= MAX_RTT_MS)) return { state, refused: 'bad-rtt' }

  const { windowMs, medianMs } = filterRtt(state.windowsMs.get(peer) ?? [], rttMs, knobs.filterSize)
  const windowsMs = remember(state.windowsMs, peer, windowMs, knobs.maxPeers)
  const moved = attract(state.coordinate, peerCoordinate, medianMs, rng, knobs)
  const residualsMs = state.residualsMs.slice()
  if (residualsMs.length > 0)
    residualsMs[state.nextResidual] = missOf(medianMs, rawDistanceMs(moved, peerCoordinate))
  const coordinate = fall({ ...moved, adjustmentMs: adjustmentOf(residualsMs) }, rng, knobs)

  if (!isSaneCoordinate(coordinate, knobs.dimensions)) {
    return { state: { ...startCoordinate(null, knobs), windowsMs, resets: state.resets + 1 }, refused: null }
  }
  const nextResidual = (state.nextResidual + 1) % Math.max(1, knobs.adjustmentWindow)
  return { state: { ...state, coordinate, residualsMs, nextResidual, windowsMs }, refused: null }
}

/** Adds an RTT to a pair's window and gives the median of it (of an even number: the upper), so that one outlier moves nothing. */
export function filterRtt(
  windowMs: readonly number[],
  rttMs: number,
  size: number,
): { windowMs: readonly number[]; medianMs: number } {
  const window = [...windowMs, rttMs].slice(-size)
  const sorted = window.toSorted((a, b) => a - b)
  return { windowMs: window, medianMs: sorted[sorted.length >> 1]! }
}

/** Below this a distance is taken for none, ms (Serf's 1e-6 s). */
const ZERO_MS = 1e-3

/** A push of `forceMs` (negative: a pull) away from `other`, by at most maxStepMs in the plane and in height. */
export function applyForce(
  c: Coordinate,
  forceMs: number,
  other: Coordinate,
  rng: Rng,
  knobs: Knobs,
): Coordinate {
  const force = Math.max(-knobs.maxStepMs, Math.min(knobs.maxStepMs, forceMs))
  const { unit, lengthMs } = directionFrom(other.vec, c.vec, rng)
  const vec = c.vec.map((x, i) => x + unit[i]! * force)
  if (lengthMs <= ZERO_MS) return { ...c, vec }
  const lift = ((c.heightMs + other.heightMs) * force) / lengthMs
  const step = Math.max(-knobs.maxStepMs, Math.min(knobs.maxStepMs, lift))
  return { ...c, vec, heightMs: Math.max(knobs.heightMinMs, c.heightMs + step) }
}

/** The unit vector from `from` to `to`, and how far apart they are; in any direction where they are at one spot. */
export function directionFrom(
  from: readonly number[],
  to: readonly number[],
  rng: Rng,
): { unit: number[]; lengthMs: number } {
  const apart = to.map((x, i) => x - from[i]!)
  const lengthMs = Math.hypot(...apart)
  if (lengthMs > ZERO_MS) return { unit: apart.map((x) => x / lengthMs), lengthMs }
  const any = to.map(() => rng() - 0.5)
  const anyLength = Math.hypot(...any)
  if (anyLength > 1e-6) return { unit: any.map((x) => x / anyLength), lengthMs: 0 }
  return { unit: to.map((_, i) => (i === 0 ? 1 : 0)), lengthMs: 0 }
}

/** Vivaldi's step (Dabek et al., figure 3): towards the distance that was measured, by how sure each side is. */
function attract(c: Coordinate, peer: Coordinate, rttMs: number, rng: Rng, knobs: Knobs): Coordinate {
  const rtt = Math.max(rttMs, ZERO_MS)
  const predicted = distanceMs(c, peer)
  const missMs = missOf(rtt, predicted)
  const wrongness = Math.min(knobs.errorMax, Math.abs(missMs) / rtt)
  const weight = c.error / Math.max(c.error + peer.error, 1e-6)
  const errorShare = knobs.errorShare * weight
  const error = Math.min(knobs.errorMax, c.error * (1 - errorShare) + wrongness * errorShare)
  return applyForce({ ...c, error }, knobs.moveShare * weight * missMs, peer, rng, knobs)
}

/** Misses below this are never cut, ms: two hosts of one site may honestly be pushed apart by those far from both. */
const FREE_MISS_MS = 50

/**
 * By how much a prediction missed, ms. One that was too long counts for no more than the RTT: so a peer
 * that lied itself far away pulls its neighbours by their small RTT, not by the large distance.
 */
function missOf(rttMs: number, predictedMs: number): number {
  return Math.max(-Math.max(rttMs, FREE_MISS_MS), rttMs - predictedMs)
}

/** Half the mean residual: the other half is the other side's (Ledlie et al., section 6). */
function adjustmentOf(residualsMs: readonly number[]): number {
  if (residualsMs.length === 0) return 0
  return residualsMs.reduce((sum, r) => sum + r, 0) / (2 * residualsMs.length)
}

/** Gravity: keeps the whole space from drifting away (Ledlie et al., section 5). */
function fall(c: Coordinate, rng: Rng, knobs: Knobs): Coordinate {
  const centre = origin(knobs)
  const forceMs = -1000 * (distanceMs(centre, c) / knobs.gravityRhoMs) ** 2
  return applyForce(c, forceMs, centre, rng, knobs)
}

function origin(knobs: Knobs): Coordinate {
  return {
    vec: new Array<number>(knobs.dimensions).fill(0),
    heightMs: knobs.heightMinMs,
    adjustmentMs: 0,
    error: knobs.errorMax,
  }
}

function remember(
  windows: ReadonlyMap<string, readonly number[]>,
  peer: string,
  windowMs: readonly number[],
  maxPeers: number,
): ReadonlyMap<string, readonly number[]> {
  const kept = new Map(windows)
  kept.delete(peer)
  kept.set(peer, windowMs)
  if (kept.size > maxPeers) kept.delete(kept.keys().next().value!)
  return kept
}
