// A world of very many overlay nodes for bench:members: sites that the coordinates of a mesh were found for, and
// around each of them nodes, some in large sites and some in small ones, a little apart and each with a height.
//
// Without a matrix the sites lie at random on a globe, with ways between them that wind by chance. Every node is a
// host and a member of one service, in one of eight regions, one in a hundred a relay.

import { observe, startCoordinate } from '../../core-node/measuring/coordinates.ts'
import type { Rng } from '../../resolver/ask.ts'
import type { Change, Coordinate } from '../../resolver/directory.ts'
import { fibreFloorMs, greatCircleKm } from '../../resolver/geo.ts'
import { aHost, aMember, aService, ofHost, ofMember, ofService } from '../support/records.ts'
import { type Matrix, readMatrix } from './accuracy-matrix.ts'

export const SERVICE = 'overlay'
const REGIONS = 8
const RELAY_EVERY = 100
/** Sites of the world that is made up. */
const SITES = 250
/** Rounds in which each site measures one other: errors fall no further then. */
const ROUNDS = 400
/** Access links: a mean above the site's own height, ms. */
const MEAN_HEIGHT_MS = 4

export interface OverlayWorld {
  /** Nodes by number: a host's coordinate. */
  coordinate(rng: Rng): Coordinate
}

/** `spreadMs`: how far nodes of one site are apart in each dimension (a standard deviation). */
export function drawOverlayWorld(rtt: string | null, spreadMs: number, rng: Rng): OverlayWorld {
  const matrix = rtt === null ? makeMatrix(rng) : readMatrix(rtt, null)
  const sites = placeSites(matrix, rng)
  const weights = sites.map((_, i) => 1 / (i + 1))
  const pick = picker(weights, rng)
  return {
    coordinate: () => {
      const site = sites[pick()]!
      return {
        vec: site.vec.map((x) => x + spreadMs * gauss(rng)),
        heightMs: site.heightMs - MEAN_HEIGHT_MS * Math.log(1 - rng()),
        adjustmentMs: site.adjustmentMs,
        error: 0.2,
      }
    },
  }
}

/** The service and so many nodes of it, as changes. */
export function* overlayChanges(world: OverlayWorld, nodes: number, rng: Rng): Generator<Change> {
  yield ofService(aService({ name: SERVICE, tieMs: 0, verify: 'none' }))
  for (let i = 0; i < nodes; i++) yield* nodeChanges(i, world.coordinate(rng))
}

export function nodeChanges(i: number, coordinate: Coordinate): [Change, Change] {
  const addresses = [`10.${(i >> 16) & 255}.${(i >> 8) & 255}.${i & 255}`]
  const attributes = { region: `r${i % REGIONS}`, ...(i % RELAY_EVERY === 0 && { relay: 'yes' }) }
  return [
    ofHost(aHost(`n${i}`, { addresses, coordinate })),
    ofMember(aMember(`n${i}`, { service: SERVICE, port: 4000, attributes })),
  ]
}

function placeSites(matrix: Matrix, rng: Rng): Coordinate[] {
  const states = Array.from({ length: matrix.size }, () => startCoordinate())
  for (let round = 0; round < ROUNDS; round++) {
    for (let i = 0; i < matrix.size; i++) {
      const j = Math.floor(rng() * matrix.size)
      const rttMs = matrix.rttMs(i, j)
      if (i === j || Number.isNaN(rttMs)) continue
      states[i] = observe(states[i]!, `s${j}`, states[j]!.coordinate, rttMs, rng).state
    }
  }
  return states.map(({ coordinate }) => coordinate)
}

function makeMatrix(rng: Rng): Matrix {
  const places = Array.from({ length: SITES }, () => ({
    lat: (Math.asin(2 * rng() - 1) * 180) / Math.PI,
    lon: 360 * rng() - 180,
  }))
  const detours = new Map<string, number>()
  const rttMs = (i: number, j: number) => {
    const key = i < j ? `${i} ${j}` : `${j} ${i}`
    const detour = detours.get(key) ?? 1.2 + rng()
    detours.set(key, detour)
    return 2 + detour * fibreFloorMs(greatCircleKm(places[i]!, places[j]!))
  }
  return { file: 'made up', size: SITES, rttMs, places: null }
}

/** Draws a place in the list, each as often as its weight says. */
function picker(weights: readonly number[], rng: Rng): () => number {
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  let sum = 0
  const ends = weights.map((weight) => {
    sum += weight / total
    return sum
  })
  return () => {
    const draw = rng()
    const at = ends.findIndex((end) => end > draw)
    return at < 0 ? ends.length - 1 : at
  }
}

/** A number of the normal distribution (Box and Muller 1958). */
function gauss(rng: Rng): number {
  return Math.sqrt(-2 * Math.log(1 - rng())) * Math.cos(2 * Math.PI * rng())
}
