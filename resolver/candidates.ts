// Candidates: of a service's members those that are worth weighing for one question.
//
// Of an ordinary service that is all of them. Of a large one the index (member-index.ts) is asked: by distance for
// the nearest by their coordinates, whoever was measured, and the member that the client was sent to last; for chance
// for as many draws. So a measured RTT always counts; where the choice stands on estimates alone (a client that is no
// host), who is nearest by the estimate but not among the nearest by coordinate may be missed; by load, who is idle
// but not among the nearest MAX_CANDIDATES is. The policies hash, weighted and failover, and a service of which nobody
// is live, weigh all, or a bounded part. Pure.

import type { Ask, Asked, Rng } from './ask.ts'
import { crowdsOf, isOf } from './crowd.ts'
import { isIndexed } from './directory.ts'
import { hashClient } from './hash.ts'
import type { Locality } from './locate.ts'
import { cellAt, middleOf } from './map-model.ts'
import { MARKS, type MemberIndex, type Spot, type Wanted } from './member-index.ts'
import type { ServingMember } from './serving.ts'

export interface Candidates {
  readonly members: readonly ServingMember[]
  /** No more are to be had, or none that could matter. */
  readonly isAll: boolean
}

/** Of a client that is no host, so many more than asked for: its estimates are not its coordinate's. */
export const MARGIN = 32
/** No more candidates than these are weighed, whatever is asked. */
export const MAX_CANDIDATES = 4096
/** Members of a service all of whose members are down that are looked at for the least stale. */
const MAX_STALE = 512

/** `reach` says how far to look: 1 at first, then more where that was not enough. `fits`: whether a member may be chosen at all. */
export function candidates(
  asked: Asked,
  reach: number,
  fits: (member: ServingMember) => boolean,
  rng: Rng,
): Candidates {
  const { serving, ask, policy } = asked
  const { index, members } = serving
  if (index === null || !isIndexed(policy)) return { members, isAll: true }
  if (index.offered === 0) return { members: members.slice(0, MAX_STALE), isAll: true }
  const few = index.fewWith(ask.where)
  if (few !== null) return { members: few, isAll: true }
  const wanted = {
    where: ask.where,
    marks: marksOf(ask),
    barred: barredOf(asked, index),
    fits,
    isMore: ask.alsoIn !== null,
  }
  const count = Math.min(MAX_CANDIDATES, reach * ask.limit)
  if (policy === 'random' && !isRing(ask)) {
    const drawn = index.draw(count, wanted, rng)
    return { members: drawn, isAll: drawn.length < count || count === MAX_CANDIDATES }
  }
  return nearCandidates(asked, index, reach, wanted, rng)
}

/** What the index is to find members by. */
export function marksOf(ask: Ask): number {
  const family = ask.family === null ? 0 : ask.family === 4 ? MARKS.ipv4 : MARKS.ipv6
  const want = { address: family, port: family | MARKS.port, url: MARKS.url }[ask.want]
  return ask.reachableOnly ? want | MARKS.reachable : want
}

/** Whom the asker named, and itself. */
function barredOf({ tables, serving, ask }: Asked, index: MemberIndex): ReadonlySet<number> {
  const own = [...ask.selves].flatMap((row) => tables.membersOn(row, serving.service.name))
  const names = [...ask.exclude, ...own.map(({ name }) => name)]
  return new Set(names.flatMap((name) => index.idOf(name) ?? []))
}

function nearCandidates(
  asked: Asked,
  index: MemberIndex,
  reach: number,
  wanted: Wanted,
  rng: Rng,
): Candidates {
  const { locality, ask } = asked
  const margin = locality.host >= 0 ? 0 : MARGIN
  let count = Math.min(MAX_CANDIDATES, reach * (ask.limit + margin))
  const spot = spotOf(locality, ask)
  const anybody = (which: Wanted) =>
    ask.spread !== null
      ? index.draw(count, which, rng)
      : index.walk(hashClient(locality.client), count, which)
  const find = (which: Wanted) => {
    if (spot.coordinate === null && spot.place === null) return anybody(which)
    const near = index.near(spot, count, which)
    // Where the client is may be known on the map alone or in the space alone, and where the members are in the other.
    const isBlind = spot.coordinate === null || (spot.place === null && !isRing(ask))
    return near.length < count && isBlind ? [...new Set([...near, ...anybody(which)])] : near
  }
  let found = find(wanted)
  // Who was measured may be farther than its coordinate says, and the next behind it nearer.
  for (const wish = count; found.length >= count && count < MAX_CANDIDATES; found = find(wanted)) {
    if (found.length - countMeasured(asked, found) >= wish) break
    count = Math.min(MAX_CANDIDATES, 2 * count)
  }
  const isAll = found.length < count
  const others = isAll ? [] : beyondCrowds(asked, found, wanted, find)
  return {
    members: [...new Set([...found, ...others, ...knownMembers(asked)])],
    isAll: isAll || count === MAX_CANDIDATES,
  }
}

/** To how many of some members a client that is a host has measured the way. */
function countMeasured({ tables, locality: { host } }: Asked, members: readonly ServingMember[]): number {
  if (host < 0) return 0
  return members.filter((member) => !Number.isNaN(tables.hosts.measuredBetweenMs(host, member.host))).length
}

/**
 * Where so many of the found are of few networks that a list would name more of these than their share: others,
 * found by leaving those networks out, until the list has its places filled or there are no more.
 */
function beyondCrowds(
  { serving: { service }, ask }: Asked,
  found: readonly ServingMember[],
  wanted: Wanted,
  find: (wanted: Wanted) => ServingMember[],
): ServingMember[] {
  const others: ServingMember[] = []
  const left = new Set<number>()
  for (;;) {
    const known = left.size
    for (const network of crowdsOf(service, [...found, ...others], ask.limit, ask.networkShare))
      left.add(network)
    if (left.size === known) return others
    const fits = (member: ServingMember) => wanted.fits(member) && !isOf(member, service, left)
    const more = find({ ...wanted, fits, isMore: true })
    if (more.length === 0) return others
    others.push(...more)
  }
}

/** Whether only members within some distances are asked for. */
export function isRing({ minMs, maxMs }: Ask): boolean {
  return minMs > 0 || maxMs < Number.POSITIVE_INFINITY
}

/** Where the index is asked from; of a place, as the map tells them apart. Rings are widened by what the estimates may be off by; select is exact. */
function spotOf(locality: Locality, { minMs, maxMs }: Ask): Spot {
  const { host, coordinate, place } = locality
  const errorMs = host >= 0 ? 0 : locality.errorMs
  return {
    coordinate,
    place: place && { ...place, ...middleOf(cellAt(place.lat, place.lon)) },
    minMs: minMs - errorMs,
    maxMs: maxMs + errorMs,
  }
}

/** Members that hosts measured the way to, those of its kin, and the one that the client is kept on. */
function knownMembers({ tables, serving, locality }: Asked): ServingMember[] {
  const { service } = serving
  const known = tables.locality(locality.row)
  const rows =
    locality.host >= 0
      ? [...tables.hosts.peersOf(locality.host), locality.host]
      : (known?.evidenceHosts ?? [locality.kin])
  const members = Array.from(rows).flatMap((row) => tables.membersOn(row, service.name))
  const incumbent = known?.record.incumbents[service.name]
  const kept = incumbent === undefined ? null : tables.member(service.name, incumbent)
  return kept === null ? members : [...members, kept]
}
