// What the benchmarks of examples/overlay judge by: which rings its nodes form, whose a key truly is, and
// how near links could be at best. Pure: the truth about the nodes comes as arguments.

import { besides, chosen, nearestTo, pointOf } from '../../examples/overlay/ring.ts'

/**
 * The rings that nodes form by pointing at their successors, the largest first, each from its first name on.
 * Nodes that point into a ring without being on it, or at nobody, are on none.
 */
export function ringsOf(successors: ReadonlyMap<string, string | null>): string[][] {
  const rings: string[][] = []
  const seen = new Set<string>()
  for (const start of [...successors.keys()].sort()) {
    const path: string[] = []
    let at: string | null = start
    while (at !== null && !seen.has(at)) {
      seen.add(at)
      path.push(at)
      at = successors.get(at) ?? null
    }
    const from = at === null ? -1 : path.indexOf(at)
    if (from >= 0) rings.push(path.slice(from))
  }
  return rings.sort((a, b) => b.length - a.length)
}

/** Whether the nodes form one ring, in the order of their points. */
export function isWhole(successors: ReadonlyMap<string, string | null>): boolean {
  const [ring, ...others] = ringsOf(successors)
  return others.length === 0 && ring?.length === successors.size && isInOrder(ring)
}

function isInOrder(ring: readonly string[]): boolean {
  const points = ring.map(pointOf)
  return points.filter((point, i) => points[(i + 1) % points.length]! < point).length <= 1
}

/** Whose a key is, of all nodes. */
export function ownerOf(key: string, names: Iterable<string>): string {
  return nearestTo(pointOf(key), withPoints(names))!.name
}

/** The names that a node would link to, if each finger were the one that costs least. */
export function bestLinks(name: string, names: readonly string[], cost: (other: string) => number): string[] {
  const others = withPoints(names.filter((other) => other !== name))
  return [...chosen(pointOf(name), others, (other) => cost(other.name))].map((other) => other.name)
}

/** The names that lie beside a node: its links that are given and not chosen. */
export function ringNeighbors(name: string, names: readonly string[]): string[] {
  const others = withPoints(names.filter((other) => other !== name))
  return besides(pointOf(name), others).map((other) => other.name)
}

function withPoints(names: Iterable<string>): { name: string; point: number }[] {
  return [...names].map((name) => ({ name, point: pointOf(name) }))
}

export interface Spread {
  readonly mean: number
  readonly p50: number
  readonly p90: number
}

/** Of at least one value. */
export function spreadOf(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!
  return { mean: sorted.reduce((sum, value) => sum + value, 0) / sorted.length, p50: at(0.5), p90: at(0.9) }
}
