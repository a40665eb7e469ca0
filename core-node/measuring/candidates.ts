// Candidates: the hosts that may measure the way to one client next, the most promising first.
//
// By what the RTTs in hand let hope (see belief.ts), once there are any; before, by the map, or else the most
// central ones, whose RTT tells most of the rest. Hosts of the client's own network come before all others (see
// kin.ts). Of very many hosts only those are weighed that are near where the client is taken to be, and a sample of
// the vantages, which tells where that is. Pure: reads the compiled tables, remembers nothing.

import { type Address, familyOf } from '../../resolver/address.ts'
import type { Belief } from '../../resolver/belief.ts'
import type { Coordinate } from '../../resolver/directory.ts'
import { isByDistance } from '../../resolver/directory.ts'
import { type Kin, kinOf } from '../../resolver/kin.ts'
import { believed, type Locality, locate, predict } from '../../resolver/locate.ts'
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
/** All hosts are weighed up to so many; of more, so many near ones and so many vantages. */
const FEW = 256
const NEAR = 128
const FAR = 128

/** Hosts of the services' live members that `isOpen` says may be asked and that may yet be nearer than all who measured. */
export function rankCandidates(
  tables: Tables,
  client: Address,
  services: Iterable<string>,
  isOpen: (row: number) => boolean,
): Candidate[] {
  const locality = locate(tables, client)
  const candidates = candidateRows(tables, services, familyOf(client))
  const measured = measuredOf(tables, locality)
  const kin = kinOf(tables, client, (row) => candidates.has(row), MAX_KIN)
  if (isBeside(kin, measured)) return []
  const rows = shortlist(tables, locality, candidates).filter(isOpen)
  const ranked =
    measured.length > 0
      ? rankByBelief(tables, locality, candidates, measured, rows)
      : rankByPrior(tables, locality, rows)
  ranked.sort((a, b) => a.ms - b.ms || (tables.hostName(a.row) < tables.hostName(b.row) ? -1 : 1))
  const first = kinToAsk(kin, measured).filter(isOpen)
  return [...first.map((row) => ({ row, ms: 0 })), ...ranked.filter(({ row }) => !first.includes(row))]
}

/** Rows of the hosts whose distance to a client decides an answer: those of live members, with an agent and an address of its family. */
function candidateRows(tables: Tables, services: Iterable<string>, family: 4 | 6): Set<number> {
  const rows = new Set<number>()
  const isAble = (row: number) => {
    const host = tables.hosts.recordOf(row)
    return host?.agent && host.addresses.some((address) => address.includes(':') === (family === 6))
  }
  for (const name of services) {
    const serving = tables.service(name)
    if (!serving || !isByDistance(serving.service.policy)) continue
    for (const { host, state } of serving.members) if (state === 'live' && isAble(host)) rows.add(host)
  }
  return rows
}

/** What hosts themselves measured, liars left out. */
function measuredOf(tables: Tables, { row }: Locality): Candidate[] {
  const known = tables.locality(row)
  const measured: Candidate[] = []
  known?.evidence.forEach(({ count, rttMs, kind }, i) => {
    const host = known.evidenceHosts[i]!
    if (count > 0 && kind !== 'client' && !tables.hosts.isLiar(host)) measured.push({ row: host, ms: rttMs })
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

// Which of very many are weighed.

function shortlist(tables: Tables, locality: Locality, candidates: ReadonlySet<number>): number[] {
  if (candidates.size <= FEW) return [...candidates]
  const vantages = tables.hosts.vantages().filter((row) => candidates.has(row))
  const step = Math.max(1, vantages.length / FAR)
  const far = Array.from(
    { length: Math.min(FAR, vantages.length) },
    (_, i) => vantages[Math.floor(i * step)]!,
  )
  const centre = locality.coordinate ?? coordinateOfNearest(tables, locality, far)
  const near = centre === null ? [] : nearestTo(tables, centre, candidates)
  return [...new Set([...near, ...far])]
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

function nearestTo(tables: Tables, centre: Coordinate, rows: Iterable<number>): number[] {
  const keyed: Candidate[] = []
  for (const row of rows) {
    const ms = tables.hosts.distanceToMs(centre, row)
    if (!Number.isNaN(ms)) keyed.push({ row, ms })
  }
  keyed.sort((a, b) => a.ms - b.ms)
  return keyed.slice(0, NEAR).map(({ row }) => row)
}

// In which order.

/** By what the RTTs in hand let hope. A host of which nothing is known may be anywhere: it is asked first. */
function rankByBelief(
  tables: Tables,
  locality: Locality,
  candidates: ReadonlySet<number>,
  measured: readonly Candidate[],
  rows: readonly number[],
): Candidate[] {
  const belief: Belief = believed(tables, tables.locality(locality.row)!, locality.place)
  // What hosts saw that serve no more still tells where the client is, but is nothing to be better than.
  const bestMs = Math.min(...measured.filter(({ row }) => candidates.has(row)).map(({ ms }) => ms))
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
    for (const known of panel) seenMs.push(known.msByHost[row] ?? Number.NaN)
    // Behind all of which the map knows something.
    return { row, ms: MAX_RTT_MS + middleMs(seenMs.filter((seen) => !Number.isNaN(seen))) }
  })
}

/** A mean in which the near count more than the far: of square roots. Infinity of nothing. */
function middleMs(rttsMs: readonly number[]): number {
  if (rttsMs.length === 0) return Number.POSITIVE_INFINITY
  return (rttsMs.reduce((sum, ms) => sum + Math.sqrt(ms), 0) / rttsMs.length) ** 2
}
