// Locate: client address -> what is known of where it is, down the ladder
// member > measured > coordinate > geo > none, and how wide a prefix shares that answer.
//
// Pure: reads the compiled tables, no clock, no chance, no I/O.

import { type Address, familyOf, IPV4_LOCALITY_BITS, IPV6_LOCALITY_BITS, localityPrefix } from './address.ts'
import type { Basis, Coordinate, Evidence, Place } from './directory.ts'
import { fibreFloorMs, geoRttMs, greatCircleKm } from './geo.ts'
import { placeBySightings, type Sighting } from './placement.ts'
import type { LocalityRow, Tables } from './tables.ts'

export interface Locality {
  readonly client: Address
  /**
   * Bits (of the 16-byte form) of the largest prefix around the client inside which every address
   * gets this same locality: a disjoint partition, so a more specific entry never hides under it.
   */
  readonly scopeBits: number
  readonly basis: Basis
  /** Row of the host that the client is; -1: it is none. */
  readonly host: number
  /** Row of the locality with evidence; -1: none. */
  readonly row: number
  readonly coordinate: Coordinate | null
  readonly place: Place | null
  /** How far off a predicted RTT may be (9 of 10 are within it), ms; Infinity on basis none. */
  readonly errorMs: number
}

/** One predicted RTT, with the rung that it stands on (which may be lower than the locality's). */
export interface Prediction {
  /** NaN where nothing is known. */
  readonly ms: number
  readonly basis: Basis
  readonly errorMs: number
}

const UNKNOWN: Prediction = { ms: Number.NaN, basis: 'none', errorMs: Number.POSITIVE_INFINITY }

/**
 * How many samples of an RTT outrank what was predicted without it; fewer are blended with the
 * prediction in proportion. Active probes come in threes and repeat within a few ms, so two tell;
 * passive ones (a TCP stack's estimate) contain delayed answers; a client says what it likes.
 */
const SAMPLES_TO_TRUST = { active: 2, passive: 3, client: 8 } as const
/**
 * A client's own word, and an RTT inherited from a neighbouring prefix (count 0), never do more than
 * half; and a client's word places it only while too few hosts have measured it.
 */
const MAX_UNPROVEN_SHARE = 0.5
/** RTTs that place a prefix in the space: with fewer the fit is worse than a guess from the map. */
const MIN_SIGHTINGS = 3
/** Residuals of an RTT speak for hosts within about so many ms of the one that measured it (tried: 10, 30, 60, 120). */
const RESIDUAL_REACH_MS = 60
/** Weight of "no correction" beside the residuals. */
const RESIDUAL_DOUBT = 0.5
/** Hosts around a place that are asked what they see, how far their view carries, and the weight of the map beside them. */
const NEAR_HOSTS = 8
const NEAR_REACH_KM = 2000
const MAP_WEIGHT = 3

/** What is known of where a client is. */
export function locate(tables: Tables, client: Address): Locality {
  const { value: host, scopeBits: hostScope } = tables.hosts.findAt(client)
  const { value: row, scopeBits: evidenceScope } = tables.findEvidence(client)
  const { value: placeRow, scopeBits: placeScope } = tables.places.find(client)
  const known = tables.locality(row)
  let scopeBits = Math.max(hostScope, evidenceScope, placeScope)
  let place =
    (host >= 0 ? tables.hosts.placeOf(host) : null) ?? tables.places.fact(placeRow)?.place ?? null
  if (!place && tables.geography) {
    // One question for the whole grain, so that no address inside it is placed differently.
    scopeBits = Math.max(scopeBits, familyOf(client) === 4 ? IPV4_LOCALITY_BITS : IPV6_LOCALITY_BITS)
    place = tables.geography.lookup(localityPrefix(client).address)
  }
  const own = host >= 0 ? tables.hosts.coordinateOf(host) : null
  const coordinate = own ?? (known && placed(tables, known).coordinate)
  const basis = basisOf(host, known, coordinate, place)
  return {
    client,
    scopeBits,
    basis,
    host,
    row,
    coordinate,
    place,
    errorMs: errorOf(basis, coordinate, place),
  }
}

/** The RTT between a located client and a host, from the best rung of the ladder that reaches both. */
export function predict(tables: Tables, locality: Locality, hostRow: number): Prediction {
  if (hostRow === locality.host && hostRow >= 0) return { ms: 0, basis: 'member', errorMs: 0 }
  const known = tables.locality(locality.row)
  const at = known ? known.evidenceHosts.indexOf(hostRow) : -1
  if (!known || at < 0) return predictUnmeasured(tables, locality, known, hostRow)
  const rttMs = known.evidenceMs[at]!
  const share = trustOf(known.evidence[at]!)
  if (share === 1) return { ms: rttMs, basis: 'measured', errorMs: measuredErrorMs(rttMs) }
  const prior = predictUnmeasured(tables, locality, known, hostRow)
  if (prior.basis === 'none') return { ms: rttMs, basis: 'measured', errorMs: rttMs }
  return { ...prior, ms: share * rttMs + (1 - share) * prior.ms }
}

/** How far evidence outranks a prediction, 0..1. */
export function trustOf({ kind, count }: Evidence): number {
  const share = Math.min(1, count / SAMPLES_TO_TRUST[kind])
  if (count === 0) return MAX_UNPROVEN_SHARE
  return kind === 'client' ? Math.min(share, MAX_UNPROVEN_SHARE) : share
}

function predictUnmeasured(
  tables: Tables,
  locality: Locality,
  known: LocalityRow | null,
  hostRow: number,
): Prediction {
  const { coordinate, host, place } = locality
  if (coordinate && tables.hosts.hasCoordinate(hostRow)) {
    const ms = tables.hosts.distanceToMs(coordinate, hostRow)
    if (host >= 0) return { ms, basis: 'member', errorMs: coordinateErrorMs(coordinate, ms) }
    const corrected = Math.max(0, ms + residualAt(tables, known!, hostRow))
    return { ms: corrected, basis: 'coordinate', errorMs: coordinateErrorMs(coordinate, corrected) }
  }
  const hostPlace = place && tables.hosts.placeOf(hostRow)
  if (!place || !hostPlace) return UNKNOWN
  const ms = predictByMap(tables, place, hostPlace, hostRow)
  return { ms, basis: 'geo', errorMs: geoErrorMs(place, ms) }
}

/**
 * The map's guess, corrected by how far it is wrong for the hosts around the client (simple kriging of
 * its residuals): where they take a detour to that host, so will the client.
 */
function predictByMap(tables: Tables, place: Place, hostPlace: Place, hostRow: number): number {
  const guessMs = geoRttMs(greatCircleKm(place, hostPlace))
  if (!tables.hosts.hasCoordinate(hostRow)) return guessMs
  const near = tables.hosts.near(place, NEAR_HOSTS)
  let sum = 0
  let total = MAP_WEIGHT
  for (let i = 0; i < near.rows.length; i++) {
    const row = near.rows[i]!
    if (row === hostRow) continue
    const weight = Math.exp(-((near.km[i]! / NEAR_REACH_KM) ** 2))
    const seenMs = tables.hosts.distanceBetweenMs(row, hostRow)
    sum += weight * (seenMs - geoRttMs(greatCircleKm(tables.hosts.placeOf(row)!, hostPlace)))
    total += weight
  }
  return Math.max(fibreFloorMs(greatCircleKm(place, hostPlace)), guessMs + sum / total)
}

/** A row's place in the space with what the fit leaves over at each of its hosts; worked out when first asked for. */
function placed(tables: Tables, known: LocalityRow): LocalityRow['memo'] {
  const { memo } = known
  if (memo.coordinatesSerial === tables.hosts.coordinatesSerial) return memo
  const proven = sightingsOf(tables, known, (e) => e.kind !== 'client')
  const sightings = proven.length >= MIN_SIGHTINGS ? proven : sightingsOf(tables, known, () => true)
  const coordinate = sightings.length >= MIN_SIGHTINGS ? placeBySightings(sightings) : null
  memo.coordinatesSerial = tables.hosts.coordinatesSerial
  memo.coordinate = coordinate
  memo.residuals = coordinate
    ? sightings.map(({ row, rttMs, weight }) => {
        return { row, weight, ms: rttMs - tables.hosts.distanceToMs(coordinate, row) }
      })
    : []
  return memo
}

/** A row's evidence as far as `counts` says and its hosts have coordinates. */
function sightingsOf(
  tables: Tables,
  { evidence, evidenceHosts }: LocalityRow,
  counts: (evidence: Evidence) => boolean,
): (Sighting & { row: number })[] {
  const sightings: (Sighting & { row: number })[] = []
  evidence.forEach((e, i) => {
    const row = evidenceHosts[i]!
    const coordinate = counts(e) ? tables.hosts.coordinateOf(row) : null
    if (coordinate) sightings.push({ row, coordinate, rttMs: e.rttMs, weight: trustOf(e) })
  })
  return sightings
}

/** What the fit leaves over for a host, by the residuals of the hosts near it. */
function residualAt(tables: Tables, known: LocalityRow, hostRow: number): number {
  let sum = 0
  let total = RESIDUAL_DOUBT
  for (const residual of known.memo.residuals) {
    const apartMs = tables.hosts.distanceBetweenMs(residual.row, hostRow)
    const weight = residual.weight * Math.exp(-((apartMs / RESIDUAL_REACH_MS) ** 2))
    sum += weight * residual.ms
    total += weight
  }
  return sum / total
}

function basisOf(
  host: number,
  known: LocalityRow | null,
  coordinate: Coordinate | null,
  place: Place | null,
): Basis {
  if (host >= 0) return 'member'
  if (known?.evidence.some((e) => trustOf(e) === 1)) return 'measured'
  if (coordinate) return 'coordinate'
  return place ? 'geo' : 'none'
}

// How far off each rung may be: 9 of 10 were within it on the matrices of PlanetLab and WonderProxy.

/** An RTT that was measured comes again within a tenth, give or take a queue. */
function measuredErrorMs(rttMs: number): number {
  return 2 + 0.1 * rttMs
}

function coordinateErrorMs(coordinate: Coordinate, ms: number): number {
  return 10 + ms * (0.2 + coordinate.error)
}

function geoErrorMs(place: Place, ms: number): number {
  return 20 + 0.4 * ms + geoRttMs(place.accuracyKm) - geoRttMs(0)
}

/** An RTT of medium length, for which a locality's own error is told, ms. */
const TYPICAL_MS = 50

function errorOf(basis: Basis, coordinate: Coordinate | null, place: Place | null): number {
  if (basis === 'measured') return measuredErrorMs(TYPICAL_MS)
  if (coordinate) return coordinateErrorMs(coordinate, TYPICAL_MS)
  return place ? geoErrorMs(place, TYPICAL_MS) : Number.POSITIVE_INFINITY
}
