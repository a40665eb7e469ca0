// Locate: client address -> what is known of where it is, down the ladder
// member > measured > coordinate > geo > none, and how wide a prefix shares that answer.
//
// Pure: reads the compiled tables, no clock, no chance, no I/O.

import { type Address, familyOf, IPV4_LOCALITY_BITS, IPV6_LOCALITY_BITS, localityPrefix } from './address.ts'
import { type Belief, believe, type Sighting } from './belief.ts'
import type { Basis, Coordinate, Evidence, Place } from './directory.ts'
import { geoRttMs } from './geo.ts'
import { kinOf, networkBits } from './kin.ts'
import type { LocalityRow } from './locality-rows.ts'
import { placeBySightings } from './placement.ts'
import type { Tables } from './tables.ts'

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
  /** Row of the host of the client's own network that stands for it as long as nobody measured it; -1: none. */
  readonly kin: number
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
/** What nobody ordered is capped: a host that makes RTTs up must not outrank what was measured to order. */
const MAX_SHARE: Readonly<Record<Evidence['kind'], number>> = {
  active: 1,
  passive: 0.75,
  client: MAX_UNPROVEN_SHARE,
}
/** RTTs that place a prefix in the space: with fewer the fit is worse than a guess from the map. */
const MIN_SIGHTINGS = 3

/** From a client to a host of its own network, ms: within a site less, across a city more. */
const KIN_MS = 5
/**
 * A host farther than this from others of its network, ms, may be elsewhere; they are beside each other when their
 * own distance is no more than this share of it (coordinates put neighbours too far apart: each has its height).
 */
const KIN_FAR_MS = 30
const KIN_AGREE = 0.6

/**
 * What is known of where a client is. `asHost`: the row of the host that it has shown to be; -1: it has shown
 * nothing, and is taken for the host at its address, if there is one (of several behind one NAT, the first).
 */
export function locate(tables: Tables, client: Address, asHost = -1): Locality {
  const { value: found, scopeBits: hostScope } = tables.hosts.findAt(client)
  const host = asHost >= 0 ? asHost : found
  const { value: row, scopeBits: evidenceScope } = tables.findEvidence(client)
  const announced = tables.places.find(client)
  const known = tables.locality(row)
  let scopeBits = Math.max(hostScope, evidenceScope, announced.scopeBits)
  let place =
    (host >= 0 ? tables.hosts.placeOf(host) : null) ?? tables.places.fact(announced.value)?.place ?? null
  if (!place && tables.geography) {
    // One question for the whole grain, so that no address inside it is placed differently.
    scopeBits = Math.max(scopeBits, familyOf(client) === 4 ? IPV4_LOCALITY_BITS : IPV6_LOCALITY_BITS)
    place = tables.geography.lookup(localityPrefix(client).address)
  }
  // Inside the hosts' scope there is no host: where the network is no wider it has none, and all of it has the same kin.
  const isAlone = host >= 0 || known !== null || hostScope <= networkBits(client, announced)
  const kin = isAlone ? -1 : kinRow(tables, client)
  const own = host >= 0 || kin >= 0 ? tables.hosts.coordinateOf(host >= 0 ? host : kin) : null
  const coordinate = own ?? (known && placed(tables, known))
  const basis = basisOf(host, known, coordinate, place)
  return {
    client,
    scopeBits,
    basis,
    host,
    row,
    kin,
    coordinate,
    place,
    errorMs: errorOf(basis, coordinate, place),
  }
}

/**
 * The host that stands for its network: whose address is nearest to the client's, unless it is far from the next
 * two, and these are beside each other. Then it is elsewhere than its address, or says so; no host alone draws
 * its neighbours' clients away.
 */
function kinRow(tables: Tables, client: Address): number {
  const { hosts } = tables
  const isHeard = (row: number) => hosts.hasCoordinate(row) && hosts.isWitness(row) && !hosts.isLiar(row)
  const [first, second, third] = kinOf(tables, client, isHeard, 3).map(({ row }) => row)
  if (first === undefined) return -1
  if (second === undefined || third === undefined) return first
  const awayMs = Math.min(hosts.rttBetweenMs(first, second), hosts.rttBetweenMs(first, third))
  const isAlone = awayMs > KIN_FAR_MS && hosts.rttBetweenMs(second, third) < KIN_AGREE * awayMs
  return isAlone ? second : first
}

/** The RTT between a located client and a host, from the best rung of the ladder that reaches both. */
export function predict(tables: Tables, locality: Locality, hostRow: number): Prediction {
  if (hostRow === locality.host && hostRow >= 0) return { ms: 0, basis: 'member', errorMs: 0 }
  const known = tables.locality(locality.row)
  const at = known ? known.evidenceHosts.indexOf(hostRow) : -1
  if (!known || at < 0) return predictUnmeasured(tables, locality, known, hostRow)
  const rttMs = known.evidenceMs[at]!
  const share = trustOf(known.evidence[at]!)
  if (tables.hosts.isLiar(hostRow)) {
    // The word of who makes RTTs up counts only against itself.
    const others = predictUnmeasured(tables, locality, known, hostRow)
    return rttMs > others.ms ? { ...others, ms: rttMs } : others
  }
  if (share === 1) return { ms: rttMs, basis: 'measured', errorMs: measuredErrorMs(rttMs) }
  const prior = predictUnmeasured(tables, locality, known, hostRow)
  if (prior.basis === 'none') return { ms: rttMs, basis: 'measured', errorMs: rttMs }
  // A client's word counts within what the prediction leaves open.
  const isClients = known.evidence[at]!.kind === 'client'
  const word = isClients
    ? Math.max(prior.ms - prior.errorMs, Math.min(rttMs, prior.ms + prior.errorMs))
    : rttMs
  return { ...prior, ms: share * word + (1 - share) * prior.ms }
}

/** How far evidence outranks a prediction, 0..1. */
export function trustOf({ kind, count }: Evidence): number {
  const share = Math.min(1, count / SAMPLES_TO_TRUST[kind])
  if (count === 0) return MAX_UNPROVEN_SHARE
  return Math.min(share, MAX_SHARE[kind])
}

function predictUnmeasured(
  tables: Tables,
  locality: Locality,
  known: LocalityRow | null,
  hostRow: number,
): Prediction {
  const { coordinate, host, kin, place } = locality
  if (kin >= 0) {
    const ms = hostRow === kin ? KIN_MS : tables.hosts.rttBetweenMs(kin, hostRow)
    if (!Number.isNaN(ms)) return { ms, basis: 'coordinate', errorMs: coordinateErrorMs(coordinate, ms) }
  } else if (host >= 0) {
    const measuredMs = tables.hosts.rttBetweenMs(host, hostRow)
    if (!Number.isNaN(measuredMs))
      return { ms: measuredMs, basis: 'member', errorMs: coordinateErrorMs(coordinate, measuredMs) }
  } else if (known && (!place || known.evidence.some(({ kind }) => kind !== 'client'))) {
    // Clients' word alone never outvotes the map.
    const { ms, errorMs } = believed(tables, known, place).of(hostRow)
    if (ms >= 0) return { ms, basis: 'coordinate', errorMs }
  }
  if (!place) return UNKNOWN
  const ms = tables.hosts.mapMs(place, hostRow)
  return Number.isNaN(ms) ? UNKNOWN : { ms, basis: 'geo', errorMs: geoErrorMs(place, ms) }
}

/** What a row's evidence makes believe of the hosts' RTTs; worked out when first asked for. */
export function believed(tables: Tables, known: LocalityRow, place: Place | null): Belief {
  const memo = memoOf(tables, known)
  if (memo.belief === null || memo.place?.lat !== place?.lat || memo.place?.lon !== place?.lon) {
    memo.belief = believe(tables, sightingsOf(known), place, known)
    memo.place = place
  }
  return memo.belief
}

/** A row's place in the space; worked out when first asked for. */
function placed(tables: Tables, known: LocalityRow): Coordinate | null {
  const memo = memoOf(tables, known)
  return memo.coordinate
}

function memoOf(tables: Tables, known: LocalityRow): LocalityRow['memo'] {
  const { memo } = known
  const { modelSerial } = tables.hosts
  const { panelSerial } = tables
  if (memo.modelSerial === modelSerial && memo.panelSerial === panelSerial) return memo
  memo.modelSerial = modelSerial
  memo.panelSerial = panelSerial
  memo.belief = null
  const sightings = sightingsOf(known).flatMap(({ row, rttMs, weight }) => {
    const coordinate = tables.hosts.coordinateOf(row)
    return coordinate ? [{ coordinate, rttMs, weight }] : []
  })
  memo.coordinate = sightings.length >= MIN_SIGHTINGS ? placeBySightings(sightings) : null
  return memo
}

/** The evidence that places a row: its clients' own word only while too few hosts have measured it. */
export function sightingsOf({ evidence, evidenceHosts }: LocalityRow): Sighting[] {
  const all = evidence.map((e, i) => ({ row: evidenceHosts[i]!, rttMs: e.rttMs, weight: trustOf(e) }))
  const proven = all.filter((_, i) => evidence[i]!.kind !== 'client')
  return proven.length >= MIN_SIGHTINGS ? proven : all
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

/** An RTT that was measured comes again within a few percent, give or take a queue: so it was between slices days apart. */
function measuredErrorMs(rttMs: number): number {
  return 1 + 0.06 * rttMs
}

function coordinateErrorMs(coordinate: Coordinate | null, ms: number): number {
  return 10 + ms * (0.2 + (coordinate?.error ?? 0))
}

function geoErrorMs(place: Place, ms: number): number {
  return 23 + 0.4 * ms + geoRttMs(place.accuracyKm) - geoRttMs(0)
}

/** An RTT of medium length, for which a locality's own error is told, ms. */
const TYPICAL_MS = 50

function errorOf(basis: Basis, coordinate: Coordinate | null, place: Place | null): number {
  if (basis === 'measured') return measuredErrorMs(TYPICAL_MS)
  if (coordinate) return coordinateErrorMs(coordinate, TYPICAL_MS)
  return place ? geoErrorMs(place, TYPICAL_MS) : Number.POSITIVE_INFINITY
}
