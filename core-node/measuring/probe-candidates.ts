// Probe candidates: the hosts that may measure the way to one client next, the most promising first.
//
// By what the RTTs in hand let hope (see belief.ts), once there are any; before, by the map, or else the most
// central ones, whose RTT tells most of the rest. Hosts of the client's own network come before all others (see
// kin.ts). Of a service that is large enough for an index only those are weighed that are near where the client is
// taken to be, and a sample of the vantages, which tells where that is. Pure: remembers nothing.

import { type Address, type Family, familyOf } from '../../resolver/address.ts'
import type { Belief } from '../../resolver/belief.ts'
import { type Coordinate, isByDistance } from '../../resolver/directory.ts'
import { type Kin, kinOf } from '../../resolver/kin.ts'
import { measuredMs } from '../../resolver/locality-rows.ts'
import { believed, type Locality, locate, predict } from '../../resolver/locate.ts'
import { MARKS } from '../../resolver/member-index.ts'
import { isOwnEvidence } from '../../resolver/relatives.ts'
import type { ServingService } from '../../resolver/serving.ts'
import type { Tables } from '../../resolver/tables.ts'
import { MAX_RTT_MS } from '../../server-agent/protocol/messages.ts'

/** A host and the distance that it may well have, ms. */
export interface Candidate {
  readonly row: number
  readonly ms: number
}

/**
 * A host is not worth asking when even this share of its lower bound is over the best RTT. Triangles are
 * broken, so less than 1: of 20 hosts on PlanetLab 0.35 asks 6.2 and finds 96%, 0.1 asks 8.0 and finds 97%.
 */
const TRIANGLE_SLACK = 0.1
/**
 * Nor is one that is hoped at over so much more than the best RTT: of 20 hosts on PlanetLab a ratio of 4 asks 6.9
 * in place of 8.0 and finds as many, 3 asks 6.4 and misses 0.3% more.
 */
const HOPELESS_RATIO = 4
const HOPELESS_MS = 10
/**
 * Hosts of the client's own network that are asked first, and from which RTT on one of them is not near, ms:
 * what is announced as one spans a city or a small country, or it tells nothing.
 */
const MAX_KIN = 5
const KIN_MS = 25
/** A host in the client's own /24 (/48) and so near is beside it: nobody else is asked. */
const NEIGHBOUR_MS = 5
/** Hosts, and well measured prefixes, that stand for all when the most central is looked for. */
const CENTRE_SAMPLE = 64
/** Of a large service's hosts so many near ones and so many vantages are weighed. */
const NEAR = 128
const FAR = 128
const NOBODY: ReadonlySet<number> = new Set()

/** Hosts of the services' members that `isOpen` says may be asked and that may yet be nearer than all who measured. */
export function rankCandidates(
  tables: Tables,
  client: Address,
  services: Iterable<string>,
  isOpen: (row: number) => boolean,
): Candidate[] {
  const locality = locate(tables, client)
  const asked = askedOf(tables, services, familyOf(client))
  const measured = measuredOf(tables, locality)
  const kin = kinOf(tables, client, asked.has, MAX_KIN)
  if (isBeside(kin, measured)) return []
  const rows = rowsOf(tables, locality, asked).filter(isOpen)
  // What hosts saw that serve no more still tells where the client is, but is nothing to be better than.
  const bestMs = Math.min(...measured.filter(({ row }) => asked.has(row)).map(({ ms }) => ms))
  const ranked =
    measured.length > 0
      ? rankByBelief(believed(tables, tables.locality(locality.row)!, locality.place), bestMs, rows)
      : rankByPrior(tables, locality, rows)
  ranked.sort((a, b) => a.ms - b.ms || (tables.hostName(a.row) < tables.hostName(b.row) ? -1 : 1))
  const first = kinToAsk(kin, measured).filter(isOpen)
  return [...first.map((row) => ({ row, ms: 0 })), ...ranked.filter(({ row }) => !first.includes(row))]
}

// Who could be asked at all.

/** What a client asks for: services by distance, in one family. */
interface Asked {
  readonly family: Family
  readonly services: readonly ServingService[]
  /** Whether a host's distance decides an answer: one of its members is offered, it has an agent and an address of the family. */
  readonly has: (row: number) => boolean
}

function askedOf(tables: Tables, names: Iterable<string>, family: Family): Asked {
  const services = [...names].flatMap((name) => {
    const serving = tables.service(name)
    return serving && isByDistance(serving.service.policy) ? [serving] : []
  })
  const has = (row: number) =>
    isAble(tables, row, family) &&
    services.some(({ service }) => tables.membersOn(row, service.name).some(({ isOffered }) => isOffered))
  return { family, services, has }
}

function isAble(tables: Tables, row: number, family: Family): boolean {
  const host = tables.hosts.recordOf(row)
  return host?.agent === true && host.addresses.some((address) => address.includes(':') === (family === 6))
}

/** Of small services all hosts; of large ones those around where the client is taken to be, and some of the vantages. */
function rowsOf(tables: Tables, locality: Locality, { family, services, has }: Asked): number[] {
  const rows = new Set<number>()
  const large = services.filter(({ index }) => index !== null)
  for (const { index, members } of services) {
    if (index !== null) continue
    for (const { host, isOffered } of members) if (isOffered && isAble(tables, host, family)) rows.add(host)
  }
  if (large.length === 0) return [...rows]
  const far = sample(tables.hosts.vantages().filter(has), FAR)
  const centre = locality.coordinate ?? coordinateOfNearest(tables, locality, far)
  for (const row of far) rows.add(row)
  for (const serving of large) for (const row of nearIn(serving, centre, tables, family)) rows.add(row)
  return [...rows]
}

/** Evenly out of all. */
function sample(rows: readonly number[], count: number): number[] {
  const step = Math.max(1, rows.length / count)
  return Array.from({ length: Math.min(count, rows.length) }, (_, i) => rows[Math.floor(i * step)]!)
}

/** The coordinate of the host that is taken to be nearest: the client is somewhere around. */
function coordinateOfNearest(tables: Tables, locality: Locality, rows: readonly number[]): Coordinate | null {
  let [nearest, nearestMs] = [-1, Number.POSITIVE_INFINITY]
  for (const row of rows) {
    const { ms } = predict(tables, locality, row)
    if (ms < nearestMs) [nearest, nearestMs] = [row, ms]
  }
  return nearest < 0 ? null : tables.hosts.coordinateOf(nearest)
}

function nearIn(
  { index }: ServingService,
  coordinate: Coordinate | null,
  tables: Tables,
  family: Family,
): number[] {
  if (index === null || coordinate === null) return []
  const spot = { coordinate, place: null, minMs: 0, maxMs: Number.POSITIVE_INFINITY }
  const marks = family === 4 ? MARKS.ipv4 : MARKS.ipv6
  const near = index.near(spot, NEAR, { where: {}, marks, barred: NOBODY, fits: () => true, isMore: false })
  return near.map(({ host }) => host).filter((row) => isAble(tables, row, family))
}

/** What hosts themselves measured, liars left out. */
function measuredOf(tables: Tables, { row }: Locality): Candidate[] {
  const known = tables.locality(row)
  const measured: Candidate[] = []
  known?.evidence.forEach((seen, i) => {
    const host = known.evidenceHosts[i]!
    if (isOwnEvidence(seen) && !tables.hosts.isLiar(host)) measured.push({ row: host, ms: seen.rttMs })
  })
  return measured
}

// Kin.

function isBeside(kin: readonly Kin[], measured: readonly Candidate[]): boolean {
  const neighbours = kin.filter(({ isNeighbour }) => isNeighbour).map(({ row }) => row)
  return measured.some(({ row, ms }) => ms <= NEIGHBOUR_MS && neighbours.includes(row))
}

/** Kin are asked until two of them, and most, were found to be far: their network is spread out, or the client is elsewhere. */
function kinToAsk(kin: readonly Kin[], measured: readonly Candidate[]): number[] {
  const rows = kin.map(({ row }) => row)
  const asked = measured.filter(({ row }) => rows.includes(row))
  const far = asked.filter(({ ms }) => ms > KIN_MS)
  return far.length >= 2 && 2 * far.length > asked.length ? [] : rows
}

// In which order.

/** By what the RTTs in hand let hope. A host of which nothing is known may be anywhere: it is asked first. */
function rankByBelief(belief: Belief, bestMs: number, rows: readonly number[]): Candidate[] {
  return rows
    .map((row) => ({ row, ...belief.of(row) }))
    .filter(({ floorMs }) => TRIANGLE_SLACK * floorMs <= bestMs)
    .filter(({ hopeMs }) => !(hopeMs > HOPELESS_RATIO * bestMs + HOPELESS_MS))
    .map(({ row, hopeMs }) => ({ row, ms: Number.isNaN(hopeMs) ? 0 : hopeMs }))
}

/** Without an RTT: by the map; where that says nothing, the most central first, whose RTT tells most of the rest. */
function rankByPrior(tables: Tables, locality: Locality, rows: readonly number[]): Candidate[] {
  const sample = rows.slice(0, CENTRE_SAMPLE)
  const panel = [...tables.panel()].slice(0, CENTRE_SAMPLE)
  return rows.map((row) => {
    const { ms } = predict(tables, locality, row)
    if (!Number.isNaN(ms)) return { row, ms }
    const seenMs = sample
      .filter((other) => other !== row)
      .map((other) => tables.hosts.rttBetweenMs(row, other))
    for (const known of panel) seenMs.push(measuredMs(known, row))
    // Behind all of which the map knows something.
    return { row, ms: MAX_RTT_MS + middleMs(seenMs.filter((seen) => !Number.isNaN(seen))) }
  })
}

/** A mean in which the near count more than the far: of square roots. Infinity of nothing. */
function middleMs(rttsMs: readonly number[]): number {
  if (rttsMs.length === 0) return Number.POSITIVE_INFINITY
  return (rttsMs.reduce((sum, ms) => sum + Math.sqrt(ms), 0) / rttsMs.length) ** 2
}
