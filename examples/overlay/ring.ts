// The ring: where a node is on it, whose a key is, and which of the peers that it knows a node keeps.
//
// Every name has a point on a circle of 2^32; a key belongs to the node nearest to its point. A node keeps
// its next nodes on either side, which makes lookups right, and for each distance (half of the circle, a
// quarter, ...) a few fingers, which makes them short. Any node at about that distance will do as a finger,
// so that is where a node is free to choose near ones: Chord (Stoica et al., SIGCOMM 2001) with proximity
// neighbour selection (Gummadi et al., SIGCOMM 2003). Pure: no sockets, no clock, no chance.

/** How to reach a node. */
export interface Peer {
  readonly name: string
  readonly address: string
  readonly port: number
}

/** A peer that a node may keep. */
export interface Known {
  readonly point: number
}

/** Nodes kept on either side: so many may die at once and the ring still closes. */
export const SIDE = 2
/** Fingers kept for each distance. */
const FINGERS = 2
const CIRCLE = 2 ** 32

/** Where a name is: FNV-1a, then murmur3's finaliser, so that like names lie apart. */
export function pointOf(name: string): number {
  let hash = 0x811c9dc5
  for (const character of name) hash = Math.imul(hash ^ character.codePointAt(0)!, 0x01000193)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}

/** The shorter way round from one point to another. */
export function distance(a: number, b: number): number {
  const clockwise = (b - a + CIRCLE) % CIRCLE
  return Math.min(clockwise, CIRCLE - clockwise)
}

/** Whose a key is among these; null: there are none. */
export function nearestTo<T extends Known>(key: number, all: Iterable<T>): T | null {
  let best: T | null = null
  for (const one of all) {
    if (best === null || distance(one.point, key) < distance(best.point, key)) best = one
  }
  return best
}

/** The next SIDE of these on either side of a point, the next one clockwise first. */
export function besides<T extends Known>(point: number, all: readonly T[]): T[] {
  const clockwise = (one: T): number => (one.point - point + CIRCLE) % CIRCLE
  const sorted = [...all].sort((a, b) => clockwise(a) - clockwise(b))
  return [...new Set([...sorted.slice(0, SIDE), ...sorted.slice(-SIDE)])]
}

/** Those that a node at `point` keeps: its next ones, and of each distance the fingers that cost least. */
export function chosen<T extends Known>(point: number, all: readonly T[], cost: (one: T) => number): Set<T> {
  const keep = new Set(besides(point, all))
  const kept = new Map<number, number>()
  for (const one of [...all].sort((a, b) => cost(a) - cost(b))) {
    const scale = Math.floor(Math.log2(distance(point, one.point)))
    const count = kept.get(scale) ?? 0
    if (count < FINGERS) keep.add(one)
    kept.set(scale, count + 1)
  }
  return keep
}
