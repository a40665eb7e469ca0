// The host table: hosts as rows of flat typed arrays, found by name and by address.
//
// A row's number stays the same while a record or a reference (a member, evidence) needs it, so that
// references may come before the record and outlive it. Knows distances between hosts, in the coordinate
// space and on the map; knows nothing of services. Written by Tables alone. However many hosts there are, what
// is reckoned from many of them at once (the map, triangles, witnesses) is reckoned from a bounded panel: the vantages.

import { type Address, formatAddress, type Prefix, parseAddress } from './address.ts'
import type { CellRows } from './cell-rows.ts'
import { DIMENSIONS, MAX_USABLE_ERROR, positiveMs } from './coordinate.ts'
import type { Coordinate, Geography, Host, Place } from './directory.ts'
import { hashText } from './hash.ts'
import { cellAt, MapModel } from './map-model.ts'
import { Panel } from './panel.ts'
import { PrefixTable } from './prefix-table.ts'

interface Slot {
  readonly name: string
  /** null: only referred to, by members or evidence, and not (or no longer) a record. */
  host: Host | null
  /** Members, evidence entries and the record itself that keep the row. */
  references: number
  /** Keys of its members. */
  members: readonly string[]
  /** Addresses at which the row is found now, canonical text. */
  indexed: readonly string[]
  /** Row of another host -> RTT that this one measured to it, ms. */
  meshMs: ReadonlyMap<number, number>
}

/** Whether a host's word tells of others, and whether it makes its RTTs up. */
interface Judgement {
  readonly isWitness: boolean
  readonly isLiar: boolean
}

/** Numbers a row has in `coordinates`: vec, height, adjustment, error. NaN first: no coordinate. */
const COORDINATE_STRIDE = DIMENSIONS + 3
/** Numbers a row has in `places`: lat, lon, accuracyKm. NaN first: no place. */
const PLACE_STRIDE = 3

/**
 * A settled host tells about two changes a minute (bench:coordinates), so estimates lag by a minute; among so few
 * hosts that reckoning anew costs nothing they don't lag.
 */
const MOVES_PER_HOST = 2
const MOVES_AT_ONCE = 10
/**
 * Hosts whose views of the world are weighed for everybody: what each tells of a client repeats the others' long
 * before so many, and their matrices take 2 MB each.
 */
const VANTAGES = 512
/** Of more vantages than these, who comes or goes counts as a move: their matrices take too long to be made anew for each. */
const VANTAGES_TOLD_AT_ONCE = 128
/** Rows of hosts that went are given to others after so many, though nothing else moved. */
const MAX_RETIRED = 1024
const NO_COORDINATE = 1e9
const NO_MEMBERS: readonly string[] = []
const NO_MESH: ReadonlyMap<number, number> = new Map()
/**
 * Two ends' RTTs of one path differ by a few percent (for all but eight of WonderProxy's 244 cities by under 5%
 * on three quarters of their paths): whose differ by more tells nothing of others. Four honest cities differ by
 * up to 0.45, now longer and now shorter; who halves or doubles his RTTs is off by 0.5 and more, and always to
 * one side. Logarithms; differences of a few ms count for nothing.
 */
const MAX_WITNESS_CONTRADICTION = 0.2
const MAX_HONEST_CONTRADICTION = 0.5
const MAX_HONEST_BIAS = 0.2
/** Up to a quarter of the hosts may lie and make nobody else a liar; who lies to fewer than that of the others is not found out. */
const CONTRADICTORS = 0.75
const CONTRADICTION_GRAIN_MS = 5
/** Peers that must have measured back before anyone is distrusted. */
const MIN_CONTRADICTIONS = 3

export class HostTable {
  readonly #slots: (Slot | null)[] = []
  readonly #rowOf = new Map<string, number>()
  readonly #freeRows: number[] = []
  /** Freed, but what was reckoned from them may still be in use. */
  readonly #retiredRows: number[] = []
  #coordinates = new Float64Array(16 * COORDINATE_STRIDE).fill(Number.NaN)
  #places = new Float64Array(16 * PLACE_STRIDE).fill(Number.NaN)
  readonly #addresses = new PrefixTable()
  readonly #hostsAtAddress = new Map<string, number[]>()
  #geography: Geography | null = null
  #modelSerial = 0
  #moves = 0
  #mapSerial = 0
  #isMapMoved = false
  readonly #map = new MapModel()
  readonly #panel = new Panel(VANTAGES, () => this.#seats(), rankOf)
  #vantages: readonly number[] = []
  #vantagesSerial = -1
  readonly #judgements = new Map<number, Judgement>()
  #judgedSerial = -1
  readonly #onAddress: (prefix: Prefix) => void

  /** `onAddress`: told where a host is found from now on, or no longer. */
  constructor(onAddress: (prefix: Prefix) => void = () => {}) {
    this.#onAddress = onAddress
  }

  /**
   * Grows when what is known of the distances between hosts changed: at once for a host that comes or goes,
   * for coordinates and RTTs once enough of them moved, so that estimates are not reckoned anew all the time.
   */
  get modelSerial(): number {
    return this.#modelSerial
  }

  /** Grows when a host appears on, moves on or leaves the map of hosts with place and coordinate. */
  get mapSerial(): number {
    return this.#mapSerial
  }

  /** Row of the live host that proved this address (of several, the first by name; -1: none), and how wide that answer holds. */
  findAt(address: Address): { value: number; scopeBits: number } {
    return this.#addresses.find(address)
  }

  /** Rows of all live hosts that proved this address, by name: several behind one NAT, or on one machine. */
  rowsAt(address: Address): readonly number[] {
    return this.#hostsAtAddress.get(formatAddress(address)) ?? []
  }

  /**
   * Visits the rows of live hosts by their proven addresses inside the prefix of `bits` around an address, those
   * that share most bits with it first, until `visit` says false. Of several hosts at one address the first by name.
   */
  visitNear(address: Address, bits: number, visit: (row: number, sharedBits: number) => boolean): void {
    this.#addresses.visitInside({ address, bits }, visit)
  }

  /** Rows are below this. */
  get size(): number {
    return this.#slots.length
  }

  /** Row of a host by name; -1: neither a record nor referred to. */
  rowOf(name: string): number {
    return this.#rowOf.get(name) ?? -1
  }

  nameOf(row: number): string {
    return this.#slots[row]?.name ?? ''
  }

  /** The record of a row; null: only referred to. */
  recordOf(row: number): Host | null {
    return this.#slots[row]?.host ?? null
  }

  /** Keys of the members that a host has, in no order. */
  membersOf(row: number): readonly string[] {
    return this.#slots[row]?.members ?? NO_MEMBERS
  }

  /**
   * Rows of the hosts whose views are weighed for everybody, in order: all hosts, or of very many those who were let
   * in by a token before others, and of these an even sample that is the same on every core. As of modelSerial.
   */
  vantages(): readonly number[] {
    if (this.#vantagesSerial !== this.#modelSerial) {
      this.#vantagesSerial = this.#modelSerial
      const rows = Array.from(this.#panel.keys(), (seat) => this.rowOf(seat.slice(1)))
      this.#vantages = rows.sort((a, b) => a - b)
    }
    return this.#vantages.filter((row) => this.recordOf(row) !== null)
  }

  hasCoordinate(row: number): boolean {
    const first = this.#coordinates[row * COORDINATE_STRIDE]
    return first !== undefined && !Number.isNaN(first)
  }

  /** How sure a host's coordinate is (see Coordinate); above all others where it has none. */
  errorOf(row: number): number {
    return this.hasCoordinate(row)
      ? this.#coordinates[row * COORDINATE_STRIDE + DIMENSIONS + 2]!
      : NO_COORDINATE
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

  /**
   * Writes a host's point of the space into `to`: its place, and how far above it the host is (height and adjustment),
   * DIMENSIONS + 1 numbers. False: it has none.
   */
  copyPoint(row: number, to: Float64Array): boolean {
    if (!this.hasCoordinate(row)) return false
    const at = row * COORDINATE_STRIDE
    for (let i = 0; i < DIMENSIONS; i++) to[i] = this.#coordinates[at + i]!
    to[DIMENSIONS] = this.#coordinates[at + DIMENSIONS]! + this.#coordinates[at + DIMENSIONS + 1]!
    return true
  }

  /** Predicted RTT between two hosts, ms. NaN: one of them has no coordinate. */
  distanceBetweenMs(a: number, b: number): number {
    const numbers = this.#coordinates
    const atA = a * COORDINATE_STRIDE
    const atB = b * COORDINATE_STRIDE
    let sum = 0
    for (let i = 0; i < DIMENSIONS; i++) {
      const d = numbers[atA + i]! - numbers[atB + i]!
      sum += d * d
    }
    const heightsMs = numbers[atA + DIMENSIONS]! + numbers[atB + DIMENSIONS]!
    const adjustmentsMs = numbers[atA + DIMENSIONS + 1]! + numbers[atB + DIMENSIONS + 1]!
    return positiveMs(Math.sqrt(sum) + heightsMs + adjustmentsMs)
  }

  /** Rows of the hosts that one has measured the way to. */
  peersOf(row: number): Iterable<number> {
    return this.#slots[row]?.meshMs.keys() ?? []
  }

  /** The RTT that two hosts measured between them, ms, the mean of both ways, or of the one that is a witness; NaN: neither did. */
  measuredBetweenMs(a: number, b: number): number {
    const there = this.#slots[a]?.meshMs.get(b)
    const back = this.#slots[b]?.meshMs.get(a)
    if (there === undefined || back === undefined) return there ?? back ?? Number.NaN
    if (this.isWitness(a) === this.isWitness(b)) return (there + back) / 2
    return this.isWitness(a) ? there : back
  }

  /**
   * Whether what a host sees tells of others: a round trip takes as long from either end, so who differs from
   * many of those that measured it back is no witness.
   */
  isWitness(row: number): boolean {
    return this.#judgementOf(row).isWitness
  }

  /** Whether a host differs from its peers by more than bad ways explain, or to one side: it makes its RTTs up, and is not believed of itself either. */
  isLiar(row: number): boolean {
    return this.#judgementOf(row).isLiar
  }

  #judgementOf(row: number): Judgement {
    if (this.#judgedSerial !== this.#modelSerial) {
      this.#judgedSerial = this.#modelSerial
      this.#judgements.clear()
    }
    let judgement = this.#judgements.get(row)
    if (judgement === undefined) {
      judgement = judge(this.#contradictions(row))
      this.#judgements.set(row, judgement)
    }
    return judgement
  }

  /** By how much a host's RTTs differ from what each of its peers measured back, as logarithms. */
  #contradictions(row: number): number[] {
    const differences: number[] = []
    for (const [peer, there] of this.#slots[row]?.meshMs ?? []) {
      const back = this.#slots[peer]?.meshMs.get(row)
      if (back === undefined) continue
      differences.push(Math.log((there + CONTRADICTION_GRAIN_MS) / (back + CONTRADICTION_GRAIN_MS)))
    }
    return differences
  }

  /** The RTT between two hosts, ms: measured, else predicted. NaN: neither is to be had. */
  rttBetweenMs(a: number, b: number): number {
    const measuredMs = this.measuredBetweenMs(a, b)
    return Number.isNaN(measuredMs) ? this.distanceBetweenMs(a, b) : measuredMs
  }

  /** Where a host is: as its operator says, else by the geography of its first address; null: unknown. */
  placeOf(row: number): Place | null {
    const at = row * PLACE_STRIDE
    const lat = this.#places[at]
    if (lat === undefined || Number.isNaN(lat)) return null
    return { lat, lon: this.#places[at + 1]!, accuracyKm: this.#places[at + 2]! }
  }

  /** What the map says of the RTT from a place to a host by row, ms; NaN: the host has no place. */
  mapMs({ lat, lon }: Place, row: number): number {
    return this.#map.rttMs(this, cellAt(lat, lon), row)
  }

  /** The same from a cell of the map (see cellAt). */
  mapMsAt(cell: number, row: number): number {
    return this.#map.rttMs(this, cell, row)
  }

  /** The same in units of MS_PER_UNIT (see cell-rows.ts), of which it is always a whole number. */
  mapUnitsAt(cell: number, row: number): number {
    return this.#map.rttUnits(this, cell, row)
  }

  /** The cell's row in mapCells, where the RTTs to the vantages stand by their indexes, which hold until `mapDrawn` grows. */
  mapRow(cell: number): number {
    return this.#map.cellRow(this, cell)
  }

  get mapCells(): CellRows {
    return this.#map.cells
  }

  get mapDrawn(): number {
    return this.#map.drawn
  }

  /** -1: not a vantage with a place. */
  vantageIndex(row: number): number {
    return this.#map.vantageIndex(row)
  }

  // Writing.

  /** A row for a host that a record refers to, made if need be; kept until it is released as often. */
  keep(name: string): number {
    let row = this.#rowOf.get(name)
    if (row === undefined) {
      row = this.#freeRows.pop() ?? this.#slots.length
      this.#rowOf.set(name, row)
      this.#slots[row] = {
        name,
        host: null,
        references: 0,
        members: NO_MEMBERS,
        indexed: [],
        meshMs: NO_MESH,
      }
      this.#coordinates = roomFor(this.#coordinates, (row + 1) * COORDINATE_STRIDE)
      this.#places = roomFor(this.#places, (row + 1) * PLACE_STRIDE)
    }
    this.#slots[row]!.references++
    return row
  }

  release(row: number): void {
    const slot = this.#slots[row]!
    if (--slot.references > 0) return
    this.#slots[row] = null
    this.#rowOf.delete(slot.name)
    this.#retiredRows.push(row)
    if (this.#retiredRows.length > MAX_RETIRED + this.#slots.length / 4) this.#renew()
  }

  /** Sets a host's record, or with null removes it. Its row, if it (still) has one; -1: it was not known. */
  set(name: string, host: Host | null): number {
    const isKnown = this.recordOf(this.rowOf(name)) !== null
    if (!host && !isKnown) return -1
    const row = isKnown ? this.rowOf(name) : this.keep(name)
    const before = this.#slots[row]!.host
    this.#slots[row]!.host = host
    this.#reseat(before, host)
    const isNew = before === null || host === null || (before.coordinate === null && host.coordinate !== null)
    if (before?.meshMs !== host?.meshMs) this.#writeMesh(row)
    this.#indexAddresses(row)
    if (before === null || before.coordinate !== host?.coordinate) this.#writeCoordinate(row)
    this.#writePlace(row)
    if (isNew) this.#noteMove(row, true)
    if (!host) this.release(row)
    return row
  }

  addMember(row: number, key: string): void {
    const slot = this.#slots[row]!
    if (!slot.members.includes(key)) slot.members = [...slot.members, key]
  }

  removeMember(row: number, key: string): void {
    const slot = this.#slots[row]!
    slot.members = slot.members.filter((other) => other !== key)
  }

  /** Hosts without a place of their own get theirs from it, anew. */
  setGeography(geography: Geography | null): void {
    this.#geography = geography
    for (let row = 0; row < this.#slots.length; row++) if (this.#slots[row]) this.#writePlace(row)
  }

  /** Brings the address table up to the host's proven addresses; only live hosts are found by address. */
  #indexAddresses(row: number): void {
    const slot = this.#slots[row]!
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
    this.#onAddress(prefix)
    const rows = this.#hostsAtAddress.get(text) ?? []
    const at = this.#placeByName(rows, this.nameOf(row))
    if (present) rows.splice(at, 0, row)
    else if (rows[at] === row) rows.splice(at, 1)
    if (rows.length === 0) {
      this.#hostsAtAddress.delete(text)
      this.#addresses.delete(prefix)
    } else {
      this.#hostsAtAddress.set(text, rows)
      this.#addresses.set(prefix, rows[0]!)
    }
  }

  /** Where in rows ordered by name one of this name is, or would be: behind a NAT there may be thousands. */
  #placeByName(rows: readonly number[], name: string): number {
    let [low, high] = [0, rows.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.nameOf(rows[middle]!) < name) low = middle + 1
      else high = middle
    }
    return low
  }

  #writeCoordinate(row: number): void {
    const coordinate = this.#slots[row]!.host?.coordinate
    const at = row * COORDINATE_STRIDE
    if (coordinate && coordinate.error < MAX_USABLE_ERROR) {
      if (!this.hasCoordinate(row)) this.#noteMapMove(row)
      this.#coordinates.set(coordinate.vec, at)
      this.#coordinates.set([coordinate.heightMs, coordinate.adjustmentMs, coordinate.error], at + DIMENSIONS)
    } else {
      if (this.hasCoordinate(row)) this.#noteMapMove(row)
      this.#coordinates.fill(Number.NaN, at, at + COORDINATE_STRIDE)
    }
    this.#noteMove(row, false)
  }

  #writeMesh(row: number): void {
    const slot = this.#slots[row]!
    const before = slot.meshMs
    slot.meshMs = new Map(Object.entries(slot.host?.meshMs ?? {}).map(([name, ms]) => [this.keep(name), ms]))
    // After the new ones were taken: a row that both name must not be given away between.
    for (const peer of before.keys()) this.release(peer)
    this.#noteMove(row, false)
  }

  /** Counts what moved, and lets what is reckoned from the distances be reckoned anew once enough did, or at once for who comes or goes. */
  #noteMove(row: number, isComing: boolean): void {
    if (!this.#isVantage(row)) return
    const size = Math.min(VANTAGES, this.#slots.length)
    const isTold = isComing && size <= VANTAGES_TOLD_AT_ONCE
    if (isTold || ++this.#moves >= (size < MOVES_AT_ONCE ? 1 : MOVES_PER_HOST * size)) this.#renew()
  }

  /** The same for who appears on, moves on or leaves the map. */
  #noteMapMove(row: number): void {
    if (!this.#isVantage(row)) return
    if (Math.min(VANTAGES, this.#slots.length) <= VANTAGES_TOLD_AT_ONCE) this.#mapSerial++
    else this.#isMapMoved = true
  }

  #renew(): void {
    this.#moves = 0
    this.#modelSerial++
    if (this.#isMapMoved) this.#mapSerial++
    this.#isMapMoved = false
    for (const row of this.#retiredRows.splice(0)) this.#freeRows.push(row)
  }

  // The panel. A seat is the host's class (0 before 1 before 2) and its name.

  #reseat(before: Host | null, after: Host | null): void {
    const [from, to] = [before && seatOf(before), after && seatOf(after)]
    if (from === to) return
    const isLeft = from !== null && this.#panel.remove(from)
    const isTaken = to !== null && this.#panel.add(to)
    // Drawn anew before a row of one who left it can be another's.
    if ((isLeft || isTaken) && this.#slots.length > VANTAGES) this.#isMapMoved = true
  }

  *#seats(): Iterable<string> {
    for (const slot of this.#slots) if (slot?.host) yield seatOf(slot.host)
  }

  #isVantage(row: number): boolean {
    if (this.#slots.length <= VANTAGES) return true
    const host = this.recordOf(row)
    // A host that goes has no seat by then: only those of a small panel are missed at once.
    return host !== null && this.#panel.has(seatOf(host))
  }

  #writePlace(row: number): void {
    const host = this.#slots[row]!.host
    const first = host?.place ? null : parseAddress(host?.addresses[0] ?? '')
    const place = host?.place ?? (first && this.#geography?.lookup(first)) ?? null
    const at = row * PLACE_STRIDE
    const before = this.placeOf(row)
    if (place) this.#places.set([place.lat, place.lon, place.accuracyKm], at)
    else this.#places.fill(Number.NaN, at, at + PLACE_STRIDE)
    if (before?.lat !== place?.lat || before?.lon !== place?.lon) this.#noteMapMove(row)
  }
}

/** Those who can tell of the world, and of them those who were let in by a token, come first. */
function seatOf({ name, agent, presence, tokenId }: Host): string {
  if (!agent || presence !== 'live') return `2${name}`
  return tokenId === null ? `1${name}` : `0${name}`
}

function rankOf(seat: string): number {
  return Number(seat[0]) * 2 ** 32 + hashText(seat.slice(1))
}

/** By how much a host's RTTs differ from what its peers measured back, as logarithms. */
function judge(differences: readonly number[]): Judgement {
  if (differences.length < MIN_CONTRADICTIONS) return { isWitness: true, isLiar: false }
  const bias = Math.abs(quantile(differences, 0.5))
  const contradiction = quantile(differences.map(Math.abs), CONTRADICTORS)
  return {
    isWitness: contradiction <= MAX_WITNESS_CONTRADICTION,
    isLiar: contradiction > MAX_HONEST_CONTRADICTION || bias > MAX_HONEST_BIAS,
  }
}

function quantile(numbers: readonly number[], share: number): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(share * numbers.length)]!
}

/** The same numbers in an array at least so long, doubled when it must grow; new room is NaN. */
function roomFor(numbers: Float64Array<ArrayBuffer>, length: number): Float64Array<ArrayBuffer> {
  if (numbers.length >= length) return numbers
  const grown = new Float64Array(Math.max(length, 2 * numbers.length)).fill(Number.NaN)
  grown.set(numbers)
  return grown
}
