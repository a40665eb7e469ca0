// The compiled tables: the one form of the data that every answer reads, on every path.
//
// One writer (the core) puts changes in; locate and select only read. Hosts, members and localities
// are rows; what a query touches is in flat typed arrays indexed by row. A row's number stays the same
// while anything refers to it, so records may come in any order (a member before its host).
// Invariant: after apply() the tables say what compiling the whole directory afresh would, except the
// shed shares, which remember (see nextShedShare).

import { type Address, familyOf, type Prefix, parseAddress, parsePrefix } from './address.ts'
import { DIMENSIONS, MAX_USABLE_ERROR } from './coordinate.ts'
import type {
  Change,
  Coordinate,
  Evidence,
  Host,
  LocalityRecord,
  Member,
  Place,
  Proof,
  Service,
} from './directory.ts'
import { memberKey } from './directory.ts'
import { greatCircleKm } from './geo.ts'
import { hashText } from './hash.ts'
import { PrefixTable } from './prefix-table.ts'

/** Why a member is not up for choice at all; `live` where it is. */
export type MemberState = 'live' | 'silent' | 'left' | 'down' | 'drained' | 'unverified'

/** A member as answers need it: parsed once, when its record changes. */
export interface ServingMember {
  readonly service: string
  readonly name: string
  /** Row of its host. */
  readonly host: number
  readonly hostName: string
  readonly state: MemberState
  /** Proven addresses as the service's `verify` asks, by family, best first. */
  readonly addresses4: readonly Address[]
  readonly addresses6: readonly Address[]
  readonly port: number | null
  readonly url: string | null
  readonly attributes: Readonly<Record<string, string>>
  readonly weight: number
  readonly capacity: number
  readonly load: number | null
  /** Share of client prefixes (0..1) that it turns away for being full; see the policy `nearest`. */
  readonly shedShare: number
  /** Tier under `failover`: attribute `tier`, default 0. */
  readonly tier: number
  readonly reachable: boolean | null
  /** When its host fell silent or it went down, epoch ms; orders the stale. */
  readonly sinceMs: number
  /** Of its full name: places it in rendezvous hashing. */
  readonly hash: number
}

/** A service with all of its members, whatever their state. */
export interface ServingService {
  readonly service: Service
  readonly members: readonly ServingMember[]
}

/** An address's place on the map, by whatever database is loaded. */
export interface Geography {
  /** null: not known. Never throws. */
  lookup(address: Address): { lat: number; lon: number; accuracyKm: number } | null
}

/** A prefix's place in the coordinate space, and how far off that is at each host that measured it. */
export interface PlacementMemo {
  coordinatesSerial: number
  coordinate: Coordinate | null
  residuals: readonly { readonly row: number; readonly ms: number; readonly weight: number }[]
}

/** A locality as locate reads it: evidence in columns, hosts by row. */
export interface LocalityRow {
  readonly record: LocalityRecord
  readonly prefix: Prefix
  readonly evidenceHosts: Int32Array
  readonly evidenceMs: Float64Array
  readonly evidence: readonly Evidence[]
  /** What locate last worked out for this row, from the coordinates of that serial: a memo, never truth. */
  readonly memo: PlacementMemo
}

interface HostSlot {
  readonly name: string
  /** null: only referred to, by members or evidence, and not (or no longer) a record. */
  host: Host | null
  /** Members, evidence entries and the record itself that keep the row. */
  references: number
  /** Keys of its members. */
  readonly members: Set<string>
  /** Addresses at which the row is found now, canonical text. */
  indexed: readonly string[]
}

interface ServiceSlot {
  service: Service | null
  serving: ServingService | null
  readonly members: ServingMember[]
  readonly indexOf: Map<string, number>
}

/** Numbers a host row has in `coordinates`: vec, height, adjustment, error. NaN first: no coordinate. */
const COORDINATE_STRIDE = DIMENSIONS + 3
/** Numbers a host row has in `places`: lat, lon, accuracyKm. NaN first: no place. */
const PLACE_STRIDE = 3

/** Places whose near hosts are remembered: a map database knows some 100,000 cities, few of them ask. */
const NEAR_MEMO_SIZE = 20_000

export class Tables {
  #serial = 0
  #coordinatesSerial = 0
  #mapSerial = 0
  #geography: Geography | null = null

  readonly #hosts: (HostSlot | null)[] = []
  readonly #hostRows = new Map<string, number>()
  readonly #freeHostRows: number[] = []
  #coordinates = new Float64Array(16 * COORDINATE_STRIDE).fill(Number.NaN)
  #places = new Float64Array(16 * PLACE_STRIDE).fill(Number.NaN)
  readonly #addresses = new PrefixTable()
  readonly #hostsAtAddress = new Map<string, number[]>()

  readonly #services = new Map<string, ServiceSlot>()
  readonly #aliases = new Map<string, string>()
  readonly #members = new Map<string, Member>()

  readonly #localities: (LocalityRow | null)[] = []
  readonly #localityRows = new Map<string, number>()
  readonly #freeLocalityRows: number[] = []
  // Apart, so that a finer record of one kind does not hide a coarser one of the other.
  readonly #evidencePrefixes = new PrefixTable()
  readonly #placePrefixes = new PrefixTable()

  readonly #nearMemo = new Map<string, { rows: Int32Array; km: Float64Array }>()
  #nearMemoSerial = -1

  /** Grows with each change that can alter an answer. */
  get serial(): number {
    return this.#serial
  }

  /** Grows when any host's coordinate changes. */
  get coordinatesSerial(): number {
    return this.#coordinatesSerial
  }

  /** Grows when a host appears on, moves on or leaves the map of hosts with place and coordinate. */
  get mapSerial(): number {
    return this.#mapSerial
  }

  get geography(): Geography | null {
    return this.#geography
  }

  /** Takes changes in, in order. A change costs at most the members of the host or service that it names. */
  apply(changes: readonly Change[]): void {
    for (const change of changes) {
      if (change.kind === 'tokens' || change.kind === 'settings') continue
      if (change.kind === 'services') this.#setService(change.key, change.value)
      else if (change.kind === 'hosts') this.#setHost(change.key, change.value)
      else if (change.kind === 'members') this.#setMember(change.key, change.value)
      else this.#setLocality(change.key, change.value)
      this.#serial++
    }
  }

  /** Sets what places addresses on the map; null: nothing does. Hosts without a place of their own get theirs anew. */
  setGeography(geography: Geography | null): void {
    this.#geography = geography
    for (let row = 0; row < this.#hosts.length; row++) if (this.#hosts[row]) this.#writePlace(row)
    this.#serial++
  }

  /** A service by its name, an alias label or an alias full name; lower case, no final dot. */
  service(name: string): ServingService | null {
    const named = this.#services.get(name)?.serving
    if (named) return named
    const target = this.#aliases.get(name)
    return target === undefined ? null : (this.#services.get(target)?.serving ?? null)
  }

  /** Every service there is. */
  *services(): Iterable<ServingService> {
    for (const slot of this.#services.values()) if (slot.serving) yield slot.serving
  }

  member(service: string, name: string): ServingMember | null {
    const slot = this.#services.get(service)
    const index = slot?.indexOf.get(name)
    return index === undefined ? null : slot!.members[index]!
  }

  /** Row of the live host that proved this address; -1: none. Of several, the first by name. */
  hostRowAt(address: Address): number {
    return this.#addresses.find(address).value
  }

  /** As hostRowAt, with the bits of the prefix around the address in which that answer holds. */
  findHost(address: Address): { value: number; scopeBits: number } {
    return this.#addresses.find(address)
  }

  /** Row of a host by name; -1: neither a record nor referred to. */
  hostRow(name: string): number {
    return this.#hostRows.get(name) ?? -1
  }

  hostName(row: number): string {
    return this.#hosts[row]?.name ?? ''
  }

  /** The record of a host row; null: only referred to. */
  host(row: number): Host | null {
    return this.#hosts[row]?.host ?? null
  }

  /** One more than the highest row in use. */
  get hostRowCount(): number {
    return this.#hosts.length
  }

  hasCoordinate(row: number): boolean {
    return !Number.isNaN(this.#coordinates[row * COORDINATE_STRIDE]!)
  }

  coordinateOf(row: number): Coordinate | null {
    if (!this.hasCoordinate(row)) return null
    const at = row * COORDINATE_STRIDE
    const numbers = this.#coordinates
    return {
      vec: Array.from(numbers.subarray(at, at + DIMENSIONS)),
      heightMs: numbers[at + DIMENSIONS]!,
      adjustmentMs: numbers[at + DIMENSIONS + 1]!,
      error: numbers[at + DIMENSIONS + 2]!,
    }
  }

  /** As coordinate.ts' distanceMs from a coordinate to a host's, without making an object. NaN: the host has none. */
  distanceToHostMs(from: Coordinate, row: number): number {
    const numbers = this.#coordinates
    const at = row * COORDINATE_STRIDE
    let sum = 0
    for (let i = 0; i < DIMENSIONS; i++) {
      const d = from.vec[i]! - numbers[at + i]!
      sum += d * d
    }
    return this.#withHeights(Math.sqrt(sum), from.heightMs, from.adjustmentMs, at)
  }

  /** Predicted RTT between two hosts, ms. NaN: one of them has no coordinate. */
  distanceBetweenHostsMs(a: number, b: number): number {
    const numbers = this.#coordinates
    const atA = a * COORDINATE_STRIDE
    const atB = b * COORDINATE_STRIDE
    let sum = 0
    for (let i = 0; i < DIMENSIONS; i++) {
      const d = numbers[atA + i]! - numbers[atB + i]!
      sum += d * d
    }
    return this.#withHeights(Math.sqrt(sum), numbers[atA + DIMENSIONS]!, numbers[atA + DIMENSIONS + 1]!, atB)
  }

  #withHeights(straightMs: number, heightMs: number, adjustmentMs: number, at: number): number {
    const raw = straightMs + heightMs + this.#coordinates[at + DIMENSIONS]!
    const adjusted = raw + adjustmentMs + this.#coordinates[at + DIMENSIONS + 1]!
    return adjusted > 0 ? adjusted : raw
  }

  /** Where a host is: as its operator says, else by the geography of its first address; null: unknown. */
  placeOf(row: number): Place | null {
    const at = row * PLACE_STRIDE
    const lat = this.#places[at]
    if (lat === undefined || Number.isNaN(lat)) return null
    return { lat, lon: this.#places[at + 1]!, accuracyKm: this.#places[at + 2]! }
  }

  /** Row of the longest prefix around the address with evidence; -1: none. */
  findEvidence(address: Address): { value: number; scopeBits: number } {
    return this.#evidencePrefixes.find(address)
  }

  /** Row of the longest prefix around the address with a place; -1: none. */
  findPlace(address: Address): { value: number; scopeBits: number } {
    return this.#placePrefixes.find(address)
  }

  locality(row: number): LocalityRow | null {
    return this.#localities[row] ?? null
  }

  /** Row of a locality by its prefix text; -1: none. */
  localityRow(prefix: string): number {
    return this.#localityRows.get(prefix) ?? -1
  }

  get localityCount(): number {
    return this.#localityRows.size
  }

  /**
   * The `count` hosts nearest to a place, of those with a place and a coordinate, nearest first, with
   * their distances. Kept for places asked before until the map changes; O(hosts) for a new one.
   */
  nearHosts(place: Place, count: number): { rows: Int32Array; km: Float64Array } {
    const key = `${place.lat},${place.lon},${count}`
    if (this.#nearMemoSerial !== this.#mapSerial || this.#nearMemo.size >= NEAR_MEMO_SIZE)
      this.#nearMemo.clear()
    this.#nearMemoSerial = this.#mapSerial
    let near = this.#nearMemo.get(key)
    if (!near) {
      const found: { row: number; km: number }[] = []
      for (let row = 0; row < this.#hosts.length; row++) {
        const at = this.hasCoordinate(row) ? this.placeOf(row) : null
        if (at) found.push({ row, km: greatCircleKm(place, at) })
      }
      found.sort((a, b) => a.km - b.km || (this.hostName(a.row) < this.hostName(b.row) ? -1 : 1))
      found.length = Math.min(count, found.length)
      near = { rows: Int32Array.from(found, (f) => f.row), km: Float64Array.from(found, (f) => f.km) }
      this.#nearMemo.set(key, near)
    }
    return near
  }

  // Services and members.

  #slot(name: string): ServiceSlot {
    let slot = this.#services.get(name)
    if (!slot) {
      slot = { service: null, serving: null, members: [], indexOf: new Map() }
      this.#services.set(name, slot)
    }
    return slot
  }

  #setService(name: string, service: Service | null): void {
    const slot = this.#slot(name)
    for (const alias of slot.service?.aliases ?? []) {
      if (this.#aliases.get(alias) === name) this.#aliases.delete(alias)
    }
    slot.service = service
    slot.serving = service && { service, members: slot.members }
    for (const alias of service?.aliases ?? []) this.#aliases.set(alias, name)
    for (const member of [...slot.indexOf.keys()]) this.#compileMember(memberKey(name, member))
    if (!service && slot.members.length === 0) this.#services.delete(name)
  }

  #setMember(key: string, member: Member | null): void {
    const before = this.#members.get(key)
    if (member) {
      const row = this.#keepHostRow(member.host)
      this.#hosts[row]!.members.add(key)
      this.#members.set(key, member)
      const share = this.member(member.service, member.name)?.shedShare ?? 0
      this.#compileMember(key, nextShedShare(share, member.load, member.capacity))
    } else this.#members.delete(key)
    if (!before) return
    const row = this.#hostRows.get(before.host)!
    if (member?.host !== before.host) this.#hosts[row]!.members.delete(key)
    this.#releaseHostRow(row)
    if (!member) this.#removeServing(before)
  }

  /** Without a share: it stays what it was, since no load was reported. */
  #compileMember(key: string, shedShare?: number): void {
    const member = this.#members.get(key)!
    const slot = this.#slot(member.service)
    const row = this.#hostRows.get(member.host)!
    const index = slot.indexOf.get(member.name) ?? slot.members.length
    const share = shedShare ?? slot.members[index]!.shedShare
    slot.indexOf.set(member.name, index)
    slot.members[index] = compileMember(member, slot.service, this.#hosts[row]!.host, row, share)
  }

  #removeServing(member: Member): void {
    const slot = this.#slot(member.service)
    const index = slot.indexOf.get(member.name)!
    const last = slot.members.pop()!
    slot.indexOf.delete(member.name)
    if (last.name !== member.name) {
      slot.members[index] = last
      slot.indexOf.set(last.name, index)
    }
    if (!slot.service && slot.members.length === 0) this.#services.delete(member.service)
  }

  // Hosts.

  #keepHostRow(name: string): number {
    let row = this.#hostRows.get(name)
    if (row === undefined) {
      row = this.#freeHostRows.pop() ?? this.#hosts.length
      this.#hostRows.set(name, row)
      this.#hosts[row] = { name, host: null, references: 0, members: new Set(), indexed: [] }
      this.#coordinates = roomFor(this.#coordinates, (row + 1) * COORDINATE_STRIDE)
      this.#places = roomFor(this.#places, (row + 1) * PLACE_STRIDE)
    }
    this.#hosts[row]!.references++
    return row
  }

  #releaseHostRow(row: number): void {
    const slot = this.#hosts[row]!
    if (--slot.references > 0) return
    this.#hosts[row] = null
    this.#hostRows.delete(slot.name)
    this.#freeHostRows.push(row)
  }

  #setHost(name: string, host: Host | null): void {
    const known = this.host(this.hostRow(name)) !== null
    if (!host && !known) return
    const row = known ? this.#hostRows.get(name)! : this.#keepHostRow(name)
    const slot = this.#hosts[row]!
    slot.host = host
    this.#indexAddresses(row)
    this.#writeCoordinate(row)
    this.#writePlace(row)
    for (const key of slot.members) this.#compileMember(key)
    if (!host) this.#releaseHostRow(row)
  }

  /** Brings the address table up to the host's proven addresses; only live hosts are found by address. */
  #indexAddresses(row: number): void {
    const slot = this.#hosts[row]!
    const host = slot.host
    const wanted = host?.presence === 'live' ? host.addresses.filter((a) => host.proofs[a] !== undefined) : []
    for (const text of slot.indexed) if (!wanted.includes(text)) this.#moveAddress(text, row, false)
    for (const text of wanted) if (!slot.indexed.includes(text)) this.#moveAddress(text, row, true)
    slot.indexed = wanted
  }

  /** Several hosts may share an address (behind NAT, or on one machine): the first by name is found, on every core alike. */
  #moveAddress(text: string, row: number, present: boolean): void {
    const address = parseAddress(text)
    if (!address) return
    const prefix = { address, bits: 128 }
    const rows = (this.#hostsAtAddress.get(text) ?? []).filter((other) => other !== row)
    if (present) rows.push(row)
    rows.sort((a, b) => (this.hostName(a) < this.hostName(b) ? -1 : 1))
    if (rows.length === 0) {
      this.#hostsAtAddress.delete(text)
      this.#addresses.delete(prefix)
    } else {
      this.#hostsAtAddress.set(text, rows)
      this.#addresses.set(prefix, rows[0]!)
    }
  }

  #writeCoordinate(row: number): void {
    const coordinate = this.#hosts[row]!.host?.coordinate
    const at = row * COORDINATE_STRIDE
    if (coordinate && coordinate.error < MAX_USABLE_ERROR) {
      if (!this.hasCoordinate(row)) this.#mapSerial++
      this.#coordinates.set(coordinate.vec, at)
      this.#coordinates.set([coordinate.heightMs, coordinate.adjustmentMs, coordinate.error], at + DIMENSIONS)
    } else {
      if (this.hasCoordinate(row)) this.#mapSerial++
      this.#coordinates.fill(Number.NaN, at, at + COORDINATE_STRIDE)
    }
    this.#coordinatesSerial++
  }

  #writePlace(row: number): void {
    const host = this.#hosts[row]!.host
    const first = host?.place ? null : parseAddress(host?.addresses[0] ?? '')
    const place = host?.place ?? (first && this.#geography?.lookup(first)) ?? null
    const at = row * PLACE_STRIDE
    const before = this.placeOf(row)
    if (place) this.#places.set([place.lat, place.lon, place.accuracyKm], at)
    else this.#places.fill(Number.NaN, at, at + PLACE_STRIDE)
    if (before?.lat !== place?.lat || before?.lon !== place?.lon) this.#mapSerial++
  }

  // Localities.

  #setLocality(text: string, record: LocalityRecord | null): void {
    const prefix = parsePrefix(text)
    const known = this.#localityRows.get(text)
    if (!prefix || (!record && known === undefined)) return
    const before = known === undefined ? null : this.#localities[known]!
    const row = known ?? this.#freeLocalityRows.pop() ?? this.#localities.length
    this.#localities[row] = record && this.#compileLocality(prefix, record)
    if (record) this.#localityRows.set(text, row)
    else {
      this.#localityRows.delete(text)
      this.#freeLocalityRows.push(row)
    }
    setOrDelete(this.#evidencePrefixes, prefix, row, (record?.evidence.length ?? 0) > 0)
    setOrDelete(this.#placePrefixes, prefix, row, (record?.place ?? null) !== null)
    // After the new row took its references: a host row that both name must not be given away between.
    for (const host of before?.evidenceHosts ?? []) this.#releaseHostRow(host)
  }

  #compileLocality(prefix: Prefix, record: LocalityRecord): LocalityRow {
    return {
      record,
      prefix,
      evidenceHosts: Int32Array.from(record.evidence, (e) => this.#keepHostRow(e.host)),
      evidenceMs: Float64Array.from(record.evidence, (e) => e.rttMs),
      evidence: record.evidence,
      memo: { coordinatesSerial: -1, coordinate: null, residuals: [] },
    }
  }
}

/** The state of a member: the first that applies of left, silent, drained, down, unverified; else live. */
export function memberState(member: Member, host: Host | null, hasProvenAddress: boolean): MemberState {
  if (host?.presence === 'left' || member.left) return 'left'
  if (!host || host.presence === 'silent') return 'silent'
  if (member.drained) return 'drained'
  if (member.health === 'down') return 'down'
  return hasProvenAddress ? 'live' : 'unverified'
}

/** Whether a proof (undefined: none) is enough for what the service asks. */
export function isProofEnough(verify: Service['verify'], proof: Proof | undefined): boolean {
  if (verify === 'none') return true
  if (verify === 'seen') return proof !== undefined
  return proof === 'echo' || proof === 'vouched'
}

/** Where a member's load should settle once it has begun to shed: between the end (80%) and the start (100%). */
const SHED_AIM = 0.9
const SHED_END = 0.8
/** Clients follow a new share only after a TTL (30 s), about 16 reports of load: within that it no more than doubles. */
const SHED_REPORTS = 16

/**
 * The share of client prefixes that a member turns away from now on. Shedding starts when load reaches
 * capacity, with the excess over 90% of it; grows a little with each report that is still as high; is
 * held in between; ends under 80%.
 */
export function nextShedShare(share: number, load: number | null, capacity: number): number {
  if (load === null || load < SHED_END * capacity) return 0
  if (load < capacity) return share
  const excess = 1 - (SHED_AIM * capacity) / load
  return Math.min(1, Math.max(excess, share + excess / SHED_REPORTS))
}

function compileMember(
  member: Member,
  service: Service | null,
  host: Host | null,
  row: number,
  shedShare: number,
): ServingMember {
  const verify = service?.verify ?? 'echo'
  const texts = member.addresses.length > 0 ? member.addresses : (host?.addresses ?? [])
  const addresses = texts
    .filter((text) => isProofEnough(verify, host?.proofs[text]))
    .map(parseAddress)
    .filter((address) => address !== null)
  const tier = Number(member.attributes.tier ?? 0)
  return {
    service: member.service,
    name: member.name,
    host: row,
    hostName: member.host,
    state: memberState(member, host, addresses.length > 0),
    addresses4: addresses.filter((a) => familyOf(a) === 4),
    addresses6: addresses.filter((a) => familyOf(a) === 6),
    port: member.port,
    url: member.url,
    attributes: member.attributes,
    weight: member.weight,
    capacity: member.capacity,
    load: member.load,
    shedShare,
    tier: Number.isFinite(tier) ? tier : 0,
    reachable: host?.reachable ?? null,
    sinceMs: host?.presenceSinceMs ?? 0,
    hash: hashText(memberKey(member.service, member.name)),
  }
}

function setOrDelete(table: PrefixTable, prefix: Prefix, row: number, present: boolean): void {
  if (present) table.set(prefix, row)
  else table.delete(prefix)
}

/** The same numbers in an array at least so long, doubled when it must grow; new room is NaN. */
function roomFor(numbers: Float64Array<ArrayBuffer>, length: number): Float64Array<ArrayBuffer> {
  if (numbers.length >= length) return numbers
  const grown = new Float64Array(Math.max(length, 2 * numbers.length)).fill(Number.NaN)
  grown.set(numbers)
  return grown
}
