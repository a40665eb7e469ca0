// Spread: members in order for one of many that ask from the same place, so that they don't all get the same.
//
// The order is by cost (`sort`); those within tieMs of the best are equals, and so are those within tieMs of the
// best after them, and so on. Equals are shared out by chance in proportion to free capacity: ten thousand nodes
// behind one NAT are one client prefix, so what hashing prefixes does for DNS would send them all the same way.
// Invariant: nobody who is full comes before one who is not. Pure: chance is an argument.

import type { Rng, Sort, Weighed } from './ask.ts'
import type { Service } from './directory.ts'
import { sortBy, weightedKey } from './ranking.ts'

/** Relative load of a member that tells none: neither favoured for its silence nor shunned. */
const UNTOLD_LOAD = 0.5
/**
 * What a member makes wait that is half full, ms. A queue makes wait in proportion to r / (1 - r) at relative load r
 * (M/M/1), so one that is half full gives way to an idle one 20 ms farther, on the same continent; at 90% to one
 * 180 ms farther, about anywhere on Earth.
 */
const HALF_FULL_MS = 20
/** A distance of which nothing is known: beyond all others; among such the load still tells them apart. */
const UNKNOWN_MS = 1e6
/** Where anyone may join, capacity is anyone's word: beyond so many times the median of its equals it draws nobody. */
const MAX_FAIR_SHARES = 3

/** `ordered` begins with `ties` equals; `full` are those that can take no more, least relative load first. */
export interface Spread {
  readonly ordered: readonly Weighed[]
  readonly full: readonly Weighed[]
  readonly ties: number
}

/**
 * Orders members by `sort`, equals by chance. Where all are full they are the order: some member must be named.
 * `isAll`: there are no others than these.
 */
export function spread(
  service: Service,
  fit: readonly Weighed[],
  isAll: boolean,
  sort: Sort,
  rng: Rng,
): Spread {
  const isFull = ({ member: { load, capacity } }: Weighed) => load !== null && load >= capacity
  const full = sortBy(fit.filter(isFull), relativeLoad)
  if (full.length === fit.length) {
    return isAll
      ? { ordered: full, full: [], ties: Math.min(1, full.length) }
      : { ordered: [], full, ties: 0 }
  }
  const open = fit.filter((w) => !isFull(w)).map((w) => ({ ...w, cost: costOf(w, sort) }))
  const bands = bandsOf(
    sortBy(open, ({ cost }) => cost),
    service.tieMs,
  )
  return {
    ordered: bands.flatMap((band) => shareOut(service, band, rng)),
    full,
    ties: bands[0]!.length,
  }
}

/** In ms: the way there, the wait there, or both. */
function costOf(weighed: Weighed, sort: Sort): number {
  const r = relativeLoad(weighed)
  const waitMs = sort === 'latency' ? 0 : (HALF_FULL_MS * r) / (1 - r)
  const wayMs = sort === 'load' ? 0 : Number.isNaN(weighed.ms) ? UNKNOWN_MS : weighed.ms
  return wayMs + waitMs
}

function relativeLoad({ member: { load, capacity } }: Weighed): number {
  return load === null ? UNTOLD_LOAD : load / capacity
}

/** Cut where one costs over tieMs more than the first since the last cut. */
function bandsOf(byCost: readonly Weighed[], tieMs: number): Weighed[][] {
  const bands: Weighed[][] = []
  let limit = Number.NEGATIVE_INFINITY
  for (const weighed of byCost) {
    if (weighed.cost > limit) {
      bands.push([])
      limit = weighed.cost + tieMs
    }
    bands.at(-1)!.push(weighed)
  }
  return bands
}

/** Equals in an order drawn by free capacity. */
function shareOut(service: Service, equals: readonly Weighed[], rng: Rng): Weighed[] {
  const free = (w: Weighed) => w.member.capacity * (1 - relativeLoad(w))
  const most = service.join === 'open' ? MAX_FAIR_SHARES * median(equals.map(free)) : Number.POSITIVE_INFINITY
  return sortBy(equals, (w) => weightedKey(Math.min(free(w), most), rng()))
}

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[numbers.length >> 1]!
}
