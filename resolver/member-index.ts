// The member index: of a large service, the members near a spot, random ones, and those with an attribute,
// without looking at all of them.
//
// Holds who is offered (live, and with what the service asks for), by the ids that the tables give them. Members
// with a coordinate are points of the coordinate space, those with a place points of the globe.
// Attributes that few have are lists of their holders; those that many have are marks that searches prune by.
// Invariant: after put and remove it says what it would, were it made anew. Written by Tables alone; pure.

import { type Address, sameAddress } from './address.ts'
import type { Rng } from './ask.ts'
import { ChangeRing } from './change-ring.ts'
import { DIMENSIONS, sumOfMs } from './coordinate.ts'
import type { Coordinate, Place, Predicate } from './directory.ts'
import { EARTH_KM, fibreKm, leastKm, type Spot as MapSpot, spherePoint } from './geo.ts'
import type { HostTable } from './host-table.ts'
import { IdSet } from './id-set.ts'
import type { Found } from './nearest-heap.ts'
import { PointTree } from './point-tree.ts'
import { hasAttributes, type ServingMember } from './serving.ts'
import { grown, roomFor } from './typed-array.ts'

/** What a question asks of members. */
export interface Wanted {
  readonly where: Predicate
  /** What MARKS must tell of each. */
  readonly marks: number
  /** Never found: a million members are passed by faster by their numbers than by a look at each. */
  readonly barred: ReadonlySet<number>
  /** All of this once more, of one member. */
  readonly fits: (member: ServingMember) => boolean
  /** `fits` asks for more than the rest does: it must be asked of each. */
  readonly isMore: boolean
}

/** Where a question is asked from, as far as that is known. */
export interface Spot {
  readonly coordinate: Coordinate | null
  readonly place: Place | null
  /** Members predicted to be nearer or farther are of no use, ms. */
  readonly minMs: number
  readonly maxMs: number
}

/** Properties that searches prune by; `offSpace`: without a coordinate. All further bits are for attributes. */
export const MARKS = { ipv4: 1, ipv6: 2, url: 4, port: 8, reachable: 16, offSpace: 32 } as const
const FIRST_ATTRIBUTE_BIT = 6
const BITS = 31

/** An attribute with so many holders gets a mark; with fewer, its holders are gone through one by one. */
const MANY_HOLDERS = 512
/** Draws that may fail before all members are looked through: one in some thousands is found in a millisecond by either. */
const MAX_DRAWS = 20_000
/** A globe whose size fits the space's grain: a unit of it is about 10 km. */
const GLOBE_RADIUS = 640

interface Holders {
  readonly ids: Set<number>
  /** Which bit marks them; -1: none does. */
  bit: number
}

export class MemberIndex {
  readonly #hosts: HostTable
  readonly #idOf: ReadonlyMap<string, number>
  /** By id; the last that was put. */
  readonly #members: (ServingMember | undefined)[] = []
  readonly #offered = new IdSet()
  readonly #points = new PointTree()
  /** Exact: what is found around a place changes only by what changes there. */
  readonly #globe = new PointTree(0)
  /** Offered, and nobody knows where. */
  readonly #adrift = new IdSet()
  readonly #holders = new Map<string, Holders>()
  /** By bit: how many attributes it stands for. */
  readonly #sharedBy = new Array<number>(BITS).fill(0)
  /** By id, as of the last put; 0: it is not offered. */
  #marks = new Int32Array(0)
  /** By bit of MARKS: how many have it. */
  readonly #having = new Int32Array(FIRST_ATTRIBUTE_BIT)
  readonly #values = new Float64Array(DIMENSIONS + 1)
  readonly #valuesBefore = new Float64Array(DIMENSIONS + 1)
  /** What changed of what clients of whom only the place is known may be told. */
  readonly changes = new ChangeRing()

  /** `idOf`: by name, the numbers that members are put with, kept up by the caller. */
  constructor(hosts: HostTable, idOf: ReadonlyMap<string, number>) {
    this.#hosts = hosts
    this.#idOf = idOf
  }

  /** A member's number; undefined: it is none of the service. */
  idOf(name: string): number | undefined {
    return this.#idOf.get(name)
  }

  /** Members that are offered. */
  get offered(): number {
    return this.#offered.size
  }

  /** Whether anybody who is offered has one of MARKS. */
  hasAny(mark: number): boolean {
    return this.#having[31 - Math.clz32(mark)]! > 0
  }

  /** Bytes of its arrays; the holders of attributes take some 40 each beside them. */
  get bytes(): number {
    const parts = [this.#points, this.#globe, this.#offered, this.#adrift]
    return parts.reduce((sum, part) => sum + part.bytes, 8 * this.#members.length + this.#marks.byteLength)
  }

  /** A member came or changed, or its host moved. `id`: a small whole number, its own until it is removed. */
  put(id: number, member: ServingMember): void {
    const before = this.#members[id]
    if (!member.isOffered) {
      this.remove(id)
      return
    }
    const wasPlaced = this.#globe.copyValues(id, this.#valuesBefore)
    this.#members[id] = member
    this.#offered.add(id)
    if (before?.attributes !== member.attributes) this.#hold(id, before?.attributes ?? {}, member.attributes)
    this.#settle(id, member)
    this.#noteChange(id, before, member, wasPlaced)
  }

  remove(id: number): void {
    const before = this.#members[id]
    if (before === undefined) return
    this.#members[id] = undefined
    this.changes.add(id, this.#globe.copyValues(id, this.#values) ? this.#values : null)
    this.#offered.remove(id)
    this.#hold(id, before.attributes, {})
    this.#setMarks(id, 0)
    for (const part of [this.#points, this.#globe, this.#adrift]) part.remove(id)
  }

  /** All who have the rarest of some attributes, where these are few; null: all of them are common. */
  fewWith(where: Predicate): ServingMember[] | null {
    let rarest: ReadonlySet<number> | null = null
    for (const [name, value] of Object.entries(where)) {
      const ids = this.#holders.get(keyOf(name, value))?.ids ?? NOBODY
      if (rarest === null || ids.size < rarest.size) rarest = ids
    }
    if (rarest === null || rarest.size > MANY_HOLDERS) return null
    return Array.from(rarest, (id) => this.#members[id]!)
  }

  /**
   * The `count` members nearest to a spot: where its coordinate is known by their coordinates, and those without one by
   * their places; where only its place is, all by their places. Behind them, where these are too few, some of whom
   * nobody knows where they are.
   */
  near(spot: Spot, count: number, wanted: Wanted): ServingMember[] {
    const { coordinate, place } = spot
    const found: ServingMember[] = []
    if (coordinate !== null) this.#findIn(this.#points, coordinate.vec, count, wanted, spaceRing(spot), found)
    const onGlobe = coordinate === null ? wanted : { ...wanted, marks: wanted.marks | MARKS.offSpace }
    if (place !== null) this.#findIn(this.#globe, globeOf(place), count, onGlobe, globeRing(spot), found)
    this.#goAround(this.#adrift, 0, count, wanted, found)
    return found
  }

  /** Of those with `marks` the numbers of the `count` nearest to a place, if they are all on the map; valid until the next search. */
  nearPlace(place: MapSpot, count: number, marks: number): Found {
    return this.#globe.nearest(globeOf(place), count, { ...ANYWHERE, marks, accepts: () => true })
  }

  /** Up to `count` members from one of the order's places on, for askers of whom nothing is known: each gets its own. `from`: a whole number, not negative. */
  walk(from: number, count: number, wanted: Wanted): ServingMember[] {
    const found: ServingMember[] = []
    this.#goAround(this.#offered, from, count, wanted, found)
    return found
  }

  /** All of a set from a position on, until `count` are found: most that don't fit are passed over by their marks. */
  #goAround(ids: IdSet, from: number, count: number, wanted: Wanted, found: ServingMember[]): void {
    const marks = wanted.marks | this.#marksOf(wanted.where)
    for (let i = 0; i < ids.size && found.length < count; i++) {
      const id = ids.at((from + i) % ids.size)
      if ((this.#marks[id]! & marks) === marks && wanted.fits(this.#members[id]!))
        found.push(this.#members[id]!)
    }
  }

  /**
   * `count` members by chance, each set of them as likely as any other; all there are, where these are fewer.
   * Drawn one after another out of all, those that don't fit or were drawn already over again.
   */
  draw(count: number, wanted: Wanted, rng: Rng): ServingMember[] {
    const offered = this.#offered
    const drawn = new Set<ServingMember>()
    for (let tries = 0; drawn.size < count && drawn.size < offered.size && tries < MAX_DRAWS; tries++) {
      const member = this.#members[offered.at(Math.floor(rng() * offered.size))]!
      if (wanted.fits(member)) drawn.add(member)
    }
    if (drawn.size < count && drawn.size < offered.size) this.#drawRest(drawn, count, wanted, rng)
    return [...drawn]
  }

  /** Few fit: all that are left of them are looked up, and it is drawn among these. */
  #drawRest(drawn: Set<ServingMember>, count: number, wanted: Wanted, rng: Rng): void {
    const rest: ServingMember[] = []
    const fits = (member: ServingMember) => !drawn.has(member) && wanted.fits(member)
    this.#goAround(this.#offered, 0, this.#offered.size, { ...wanted, fits }, rest)
    for (let i = 0; drawn.size < count && i < rest.length; i++) {
      const at = i + Math.floor(rng() * (rest.length - i))
      drawn.add(rest[at]!)
      rest[at] = rest[i]!
    }
  }

  #findIn(
    tree: PointTree,
    place: readonly number[],
    count: number,
    wanted: Wanted,
    ring: Ring,
    found: ServingMember[],
  ): void {
    const { ids, count: hits } = tree.nearest(place, count, {
      ...ring,
      marks: wanted.marks | this.#marksOf(wanted.where),
      accepts: this.#filterOf(wanted),
    })
    for (let i = 0; i < hits; i++) found.push(this.#members[ids[i]!]!)
  }

  /** What marks can't tell. */
  #filterOf({ where, barred, fits, isMore }: Wanted): (id: number) => boolean {
    if (isMore) return (id) => fits(this.#members[id]!)
    for (const _ in where) {
      return (id) => !barred.has(id) && hasAttributes(this.#members[id]!, where)
    }
    return (id) => !barred.has(id)
  }

  /** `wasPlaced`: #valuesBefore says where. */
  #noteChange(id: number, before: ServingMember | undefined, after: ServingMember, wasPlaced: boolean): void {
    const isPlaced = this.#globe.copyValues(id, this.#values)
    const hasMoved = isPlaced !== wasPlaced || (isPlaced && !isSamePoint(this.#values, this.#valuesBefore))
    if (before !== undefined && !hasMoved && isChosenAlike(before, after)) return
    if (wasPlaced && hasMoved) this.changes.add(id, this.#valuesBefore)
    this.changes.add(id, isPlaced ? this.#values : null)
  }

  /** Puts an offered member where it is. */
  #settle(id: number, member: ServingMember): void {
    const isPoint = this.#hosts.copyPoint(member.host, this.#values)
    const marks = this.#ownMarks(member) | this.#marksOf(member.attributes) | (isPoint ? 0 : MARKS.offSpace)
    const room = this.#marks.length
    if (id >= room) this.#marks = grown(this.#marks, new Int32Array(roomFor(id + 1, room)))
    this.#setMarks(id, marks)
    const place = this.#hosts.placeOf(member.host)
    if (isPoint) this.#points.put(id, this.#values, marks, member.hash)
    else this.#points.remove(id)
    if (place !== null) this.#globe.put(id, [...globeOf(place), 0], marks, member.hash)
    else this.#globe.remove(id)
    if (isPoint || place !== null) this.#adrift.remove(id)
    else this.#adrift.add(id)
  }

  #setMarks(id: number, marks: number): void {
    const before = this.#marks[id]!
    for (let bit = 0; bit < FIRST_ATTRIBUTE_BIT; bit++)
      this.#having[bit]! += ((marks >> bit) & 1) - ((before >> bit) & 1)
    this.#marks[id] = marks
  }

  #ownMarks(member: ServingMember): number {
    return (
      (member.addresses4.length > 0 ? MARKS.ipv4 : 0) |
      (member.addresses6.length > 0 ? MARKS.ipv6 : 0) |
      (member.url !== null ? MARKS.url : 0) |
      (member.port !== null ? MARKS.port : 0) |
      (member.reachable === true ? MARKS.reachable : 0)
    )
  }

  // Attributes.

  #marksOf(attributes: Predicate): number {
    let marks = 0
    for (const name in attributes) {
      const bit = this.#holders.get(keyOf(name, attributes[name]!))?.bit ?? -1
      if (bit >= 0) marks |= 1 << bit
    }
    return marks
  }

  #hold(id: number, before: Predicate, after: Predicate): void {
    for (const name in before) {
      if (before[name] !== after[name]) this.#letGo(id, keyOf(name, before[name]!))
    }
    for (const name in after) {
      if (before[name] === after[name]) continue
      const key = keyOf(name, after[name]!)
      const holders = this.#holders.get(key) ?? { ids: new Set(), bit: -1 }
      this.#holders.set(key, holders)
      holders.ids.add(id)
      if (holders.bit < 0 && holders.ids.size > MANY_HOLDERS) this.#mark(holders)
    }
  }

  #letGo(id: number, key: string): void {
    const holders = this.#holders.get(key)!
    holders.ids.delete(id)
    if (holders.ids.size === 0) this.#holders.delete(key)
    if (holders.bit >= 0 && holders.ids.size < MANY_HOLDERS / 2) {
      this.#sharedBy[holders.bit]!--
      holders.bit = -1
      this.#settleAll(holders.ids)
    }
  }

  /** Of more attributes than there are bits several share one: their searches prune less. */
  #mark(holders: Holders): void {
    const free = this.#sharedBy.slice(FIRST_ATTRIBUTE_BIT)
    const least = free.indexOf(Math.min(...free)) + FIRST_ATTRIBUTE_BIT
    this.#sharedBy[least]!++
    holders.bit = least
    this.#settleAll(holders.ids)
  }

  #settleAll(ids: Iterable<number>): void {
    for (const id of ids) this.#settle(id, this.#members[id]!)
  }
}

const NOBODY: ReadonlySet<number> = new Set()

/** Distances within which a search looks. */
interface Ring {
  readonly minDistance: number
  readonly maxDistance: number
}

const ANYWHERE: Ring = { minDistance: Number.NEGATIVE_INFINITY, maxDistance: Number.POSITIVE_INFINITY }

/** Whether clients that know both by their places are told the same of them. */
function isChosenAlike(a: ServingMember, b: ServingMember): boolean {
  return (
    a.host === b.host &&
    a.hash === b.hash &&
    a.capacity === b.capacity &&
    a.shedShare === b.shedShare &&
    isSameFirst(a.addresses4, b.addresses4) &&
    isSameFirst(a.addresses6, b.addresses6)
  )
}

function isSameFirst([a]: readonly Address[], [b]: readonly Address[]): boolean {
  return a === undefined || b === undefined ? a === b : sameAddress(a, b)
}

function isSamePoint(a: Float64Array, b: Float64Array): boolean {
  return a[0] === b[0] && a[1] === b[1] && a[2] === b[2]
}

/** Of the space: RTTs less what the spot itself adds to each. */
function spaceRing({ coordinate, minMs, maxMs }: Spot): Ring {
  const ownMs = coordinate === null ? 0 : coordinate.heightMs + coordinate.adjustmentMs
  return {
    minDistance: minMs <= 0 ? Number.NEGATIVE_INFINITY : sumOfMs(minMs) - ownMs,
    maxDistance: maxMs - ownMs,
  }
}

/** Of the globe, where a way may be twice as long as straight, and no RTT is shorter than light allows. */
function globeRing({ minMs, maxMs }: Spot): Ring {
  return {
    minDistance: minMs <= 0 ? Number.NEGATIVE_INFINITY : chordOf(leastKm(minMs)),
    maxDistance: chordOf(fibreKm(maxMs)),
  }
}

/** Straight through a globe of GLOBE_RADIUS; what is as far as its other side is no bound. */
function chordOf(km: number): number {
  const angle = km / EARTH_KM
  return angle >= Math.PI ? Number.POSITIVE_INFINITY : 2 * GLOBE_RADIUS * Math.sin(angle / 2)
}

/** Neither a name nor a value has a line break in it. */
function keyOf(name: string, value: string): string {
  return `${name}\n${value}`
}

export function globeOf(place: MapSpot): number[] {
  const point = new Array<number>(DIMENSIONS).fill(0)
  for (const [axis, value] of spherePoint(place).entries()) point[axis] = GLOBE_RADIUS * value
  return point
}
