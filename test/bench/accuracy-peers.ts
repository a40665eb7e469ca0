// Other people's methods, to compare with: by chance, by the map, Vivaldi with the client taking part, and
// Meridian's closest-node search (Wong, Slivkins, Sirer, SIGCOMM 2005). Restated from the papers.

import { type CoordinateState, observe, startCoordinate } from '../../core-node/measuring/coordinates.ts'
import { distanceMs } from '../../resolver/coordinate.ts'
import type { Place } from '../../resolver/directory.ts'
import { greatCircleKm } from '../../resolver/geo.ts'
import type { Matrix } from './accuracy-matrix.ts'
import { type Rng, shuffle } from './accuracy-world.ts'

/** The host (index) that is nearest by great circle. */
export function nearestByMap(place: Place, hosts: readonly number[], places: readonly Place[]): number {
  return least(hosts, (row) => greatCircleKm(place, places[row]!))
}

/** Neighbours of a node, and samples that each takes from each of them. */
const NEIGHBOURS = 32
const SAMPLES = 80

/** Every row of the matrix takes part in Vivaldi, with Serf's settings, all hearing from 32 neighbours of their own. */
export class VivaldiPeer {
  readonly #states: CoordinateState[]

  constructor(matrix: Matrix, rng: Rng) {
    const rows = Array.from({ length: matrix.size }, (_, row) => row)
    const neighbours = rows.map((row) =>
      shuffle(rows, rng)
        .filter((other) => other !== row && !Number.isNaN(matrix.rttMs(row, other)))
        .slice(0, NEIGHBOURS),
    )
    this.#states = rows.map(() => startCoordinate())
    for (let round = 0; round < NEIGHBOURS * SAMPLES; round++) {
      for (const row of rows) {
        const others = neighbours[row]!
        const other = others[Math.floor(rng() * others.length)]!
        const peer = this.#states[other]!.coordinate
        this.#states[row] = observe(this.#states[row]!, `${other}`, peer, matrix.rttMs(row, other), rng).state
      }
    }
  }

  nearest(client: number, hosts: readonly number[]): number {
    const from = this.#states[client]!.coordinate
    return least(hosts, (row) => distanceMs(from, this.#states[row]!.coordinate))
  }
}

/** The paper's settings: rings of radii 2^i ms with 16 members each, and an answer must be half as far to go on. */
const RING_SIZE = 16
const BETA = 0.5

/** Closest-node search from a host drawn by chance. Every RTT to the client that is asked for is a probe. */
export function searchRings(
  client: number,
  hosts: readonly number[],
  matrix: Matrix,
  rng: Rng,
): { host: number; probes: number } {
  const asked = new Map<number, number>()
  const ask = (i: number) => {
    const ms = asked.get(i) ?? orFar(matrix.rttMs(client, hosts[i]!))
    asked.set(i, ms)
    return ms
  }
  let at = Math.floor(rng() * hosts.length)
  for (;;) {
    const ms = ask(at)
    const [lower, upper] = [(1 - BETA) * ms, (1 + BETA) * ms]
    const members = ringMembers(at, hosts, matrix, rng)
    const between = members.filter(({ apartMs }) => apartMs >= lower && apartMs <= upper)
    for (const { host } of between) ask(host)
    const best = between.reduce((a, b) => (ask(b.host) < ask(a) ? b.host : a), at)
    if (best === at || ask(best) > BETA * ms) {
      const nearest = [...asked].reduce((a, b) => (b[1] < a[1] ? b : a))
      return { host: nearest[0], probes: asked.size }
    }
    at = best
  }
}

function ringMembers(
  at: number,
  hosts: readonly number[],
  matrix: Matrix,
  rng: Rng,
): { host: number; apartMs: number }[] {
  const rings = new Map<number, { host: number; apartMs: number }[]>()
  const others = shuffle([...hosts.keys()], rng)
  for (const host of others) {
    const apartMs = matrix.rttMs(hosts[at]!, hosts[host]!)
    if (host === at || Number.isNaN(apartMs)) continue
    const index = Math.max(0, Math.ceil(Math.log2(apartMs)))
    const ring = rings.get(index) ?? []
    if (ring.length < RING_SIZE) ring.push({ host, apartMs })
    rings.set(index, ring)
  }
  return [...rings.values()].flat()
}

function least(hosts: readonly number[], key: (row: number) => number): number {
  let best = 0
  for (let i = 1; i < hosts.length; i++) if (orFar(key(hosts[i]!)) < orFar(key(hosts[best]!))) best = i
  return best
}

function orFar(ms: number): number {
  return Number.isNaN(ms) ? Number.POSITIVE_INFINITY : ms
}
