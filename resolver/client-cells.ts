// Client cells: of most clients all that is known is where on the map they are, and what was found out once about a
// client's /24 (/48) is kept here: the cell of the map, and how wide it holds.
//
// A memo of locate, never truth: an entry counts as long as nothing changed in its part of the address space, of which
// the tables tell. Of whom more is known, or who has a host in the own network, is only noted that it is so. Fixed
// memory: each has a few places where it may be kept, side by side, since memory is what looking up waits for. find
// allocates nothing unless it must ask locate.

import {
  type Address,
  familyOf,
  IPV4_LOCALITY_BITS,
  IPV4_OFFSET_BITS,
  IPV6_LOCALITY_BITS,
  type Prefix,
  wordAt,
} from './address.ts'
import { networkBits } from './kin.ts'
import { locate } from './locate.ts'
import { cellAt } from './map-model.ts'
import type { Tables } from './tables.ts'

/**
 * What is known is one word: a number (a row of a place, or a cell), its kind, and the scope in the family's own bits.
 * 0: nothing.
 */
const SCOPE_MASK = 0x3f
const KIND_SHIFT = 6
const NUMBER_SHIFT = 8
const KIND = { place: 1, cell: 2, other: 3 } as const
const MOST_NUMBER = 2 ** (32 - NUMBER_SHIFT) - 1

/**
 * IPv4: sets of four entries, a million in all, as many as there are announced networks. The number of a /24, mixed, is
 * the number of its set and a tag. An entry is two words: the tag with the ages of all and of the /24's part, and what is
 * known. What is older than its part or than all counts no more, so that to forget is to count one up.
 */
const NETWORK_BITS = 24
const SET4_BITS = 18
const TAG_BITS = NETWORK_BITS - SET4_BITS
const TAG_MASK = (1 << TAG_BITS) - 1
const AGE_BITS = (32 - TAG_BITS) / 2
const AGE_MASK = (1 << AGE_BITS) - 1
const ENTRY4_WORDS = 2
const SET4_WORDS = 4 * ENTRY4_WORDS
/** IPv6: sets of two entries, each two words of key and what is known. */
const SET6_BITS = 17
const ENTRY6_WORDS = 3
const SET6_WORDS = 2 * ENTRY6_WORDS
/**
 * First words of the IPv6 networks that are kept, 100::/8 and up to multicast: no one above is a client, though anyone
 * may name it as one; and beside IPv4's own place in IPv6 a scope may end where IPv4 begins, whose changes are told apart.
 */
const IPV6_FROM = 0x0100_0000
const IPV6_UNTIL = 0xff00_0000

/**
 * Of IPv4, what holds for no more than a /16 changes only by what changes within it. What is wider may change by
 * anything: by /16, it counts as of so many changes.
 */
const PART_BITS = 16
const NETWORKS_OF_PART = 256
/** A change of so many parts at once is no longer looked for entry by entry. */
const MOST_PARTS = 64
/** The same of IPv6 scopes that are wider: seldom, and not kept. */
const LEAST_IPV6_SCOPE = 9

export class ClientCells {
  /** What find found: the cell, and the scope in bits of the 16-byte form. */
  cell = 0
  scopeBits = 0

  readonly #tables: Tables
  readonly #sets4 = new Uint32Array(SET4_WORDS << SET4_BITS)
  readonly #sets6 = new Uint32Array(SET6_WORDS << SET6_BITS)
  #ipv4Changes = 1
  readonly #wideAsOf = new Uint32Array(1 << PART_BITS)
  readonly #ageOf = new Uint16Array(1 << PART_BITS)
  #age = 0
  /** Part of all IPv6 keys, so that with a change all of them are others. */
  #ipv6Changes = 0
  /** Of imported places, as of which all that is kept was found. */
  #turn: number

  constructor(tables: Tables) {
    this.#tables = tables
    this.#turn = tables.places.turn
    tables.onClientsMoved((prefix) => this.#forget(prefix))
  }

  /** Whether a client's cell is all that an answer depends on; then `cell` and `scopeBits` say which. */
  find(client: Address): boolean {
    const { turn } = this.#tables.places
    // Places changed, and the changes that tell of it may be on their way: what is kept may be of rows that are others' now.
    if (turn !== this.#turn) {
      this.#turn = turn
      this.#forgetAll()
    }
    return familyOf(client) === 4 ? this.#find4(client) : this.#find6(client)
  }

  #find4(client: Address): boolean {
    const part = (client[12]! << 8) | client[13]!
    const mixed = mixOf((part << 8) | client[14]!)
    let known = this.#get4(part, mixed)
    if (known === 0 || ((known & SCOPE_MASK) <= PART_BITS && this.#wideAsOf[part] !== this.#ipv4Changes)) {
      known = this.#look(client, IPV4_LOCALITY_BITS, IPV4_OFFSET_BITS)
      if ((known & SCOPE_MASK) <= PART_BITS && this.#wideAsOf[part] !== this.#ipv4Changes) {
        this.#forgetPart(part)
        this.#wideAsOf[part] = this.#ipv4Changes
      }
      this.#put4(part, mixed, known)
    }
    return this.#take(known, IPV4_OFFSET_BITS)
  }

  #find6(client: Address): boolean {
    const high = wordAt(client, 0) >>> 0
    if (high < IPV6_FROM || high >= IPV6_UNTIL) return false
    const low = ((this.#ipv6Changes << 16) | (client[4]! << 8) | client[5]!) >>> 0
    let known = this.#get6(high, low)
    if (known === 0) {
      known = this.#look(client, IPV6_LOCALITY_BITS, 0)
      if ((known & SCOPE_MASK) < LEAST_IPV6_SCOPE) known = KIND.other << KIND_SHIFT
      this.#put6(high, low, known)
    }
    return this.#take(known, 0)
  }

  #take(known: number, offsetBits: number): boolean {
    const kind = (known >>> KIND_SHIFT) & 3
    const number = known >>> NUMBER_SHIFT
    if (kind === KIND.other) return false
    if (kind === KIND.place) {
      // What is known of a whole AS is in no part of the address space.
      if (this.#tables.isSystemKnown(number)) return false
      this.cell = this.#tables.places.cellOf(number)
    } else this.cell = number
    this.scopeBits = (known & SCOPE_MASK) + offsetBits
    return true
  }

  /** What locate says, as one word. */
  #look(client: Address, grainBits: number, offsetBits: number): number {
    const tables = this.#tables
    const { host, row, coordinate, place, scopeBits } = locate(tables, client)
    const announced = tables.places.find(client)
    const hasKin = tables.hosts.findAt(client).scopeBits > networkBits(client, announced)
    if (host >= 0 || row >= 0 || hasKin || coordinate !== null || place === null || scopeBits > grainBits)
      return (KIND.other << KIND_SHIFT) | Math.min(scopeBits - offsetBits, SCOPE_MASK)
    const isPlace = announced.value >= 0 && announced.value <= MOST_NUMBER
    const number = isPlace ? announced.value : cellAt(place.lat, place.lon)
    const kind = isPlace ? KIND.place : KIND.cell
    return ((number << NUMBER_SHIFT) | (kind << KIND_SHIFT) | (scopeBits - offsetBits)) >>> 0
  }

  // The memo's own.

  #keyOf(part: number, mixed: number): number {
    const ages = (this.#age << AGE_BITS) | this.#ageOf[part]!
    return ((ages << TAG_BITS) | (mixed & TAG_MASK)) >>> 0
  }

  #get4(part: number, mixed: number): number {
    const sets = this.#sets4
    const at = set4At(mixed)
    const key = this.#keyOf(part, mixed)
    if (sets[at] === key) return sets[at + 1]!
    for (let entry = at + ENTRY4_WORDS; entry < at + SET4_WORDS; entry += ENTRY4_WORDS)
      if (sets[entry] === key) return sets[entry + 1]!
    return 0
  }

  /** The first of a set is the one that came last, in the place of what is forgotten of the same network or of the oldest. */
  #put4(part: number, mixed: number, known: number): void {
    const sets = this.#sets4
    const at = set4At(mixed)
    const tag = mixed & TAG_MASK
    let entry = at
    while (
      entry < at + SET4_WORDS - ENTRY4_WORDS &&
      (sets[entry]! & TAG_MASK) !== tag &&
      sets[entry + 1] !== 0
    )
      entry += ENTRY4_WORDS
    for (; entry > at; entry--) sets[entry + 1] = sets[entry - 1]!
    sets[at] = this.#keyOf(part, mixed)
    sets[at + 1] = known
  }

  #get6(high: number, low: number): number {
    const sets = this.#sets6
    const at = set6At(high, low)
    if (sets[at] === high && sets[at + 1] === low) return sets[at + 2]!
    return sets[at + 3] === high && sets[at + 4] === low ? sets[at + 5]! : 0
  }

  #put6(high: number, low: number, known: number): void {
    const sets = this.#sets6
    const at = set6At(high, low)
    if (sets[at] !== high || sets[at + 1] !== low) sets.copyWithin(at + ENTRY6_WORDS, at, at + ENTRY6_WORDS)
    sets[at] = high
    sets[at + 1] = low
    sets[at + 2] = known
  }

  /** Something changed for the addresses of a prefix, and how far it reaches around them; null: for all. */
  #forget(prefix: Prefix | null): void {
    if (prefix === null) {
      this.#forgetAll()
      return
    }
    if (prefix.bits < IPV4_OFFSET_BITS || familyOf(prefix.address) === 6) {
      this.#forgetIpv6()
      return
    }
    this.#ipv4Changes = (this.#ipv4Changes + 1) >>> 0
    const { address, bits } = prefix
    const parts = 1 << Math.max(0, PART_BITS - (bits - IPV4_OFFSET_BITS))
    const first = (address[12]! << 8) | address[13]!
    if (parts > MOST_PARTS) this.#forgetAll()
    else for (let part = first; part < first + parts; part++) this.#forgetPart(part)
  }

  #forgetPart(part: number): void {
    const age = (this.#ageOf[part]! + 1) & AGE_MASK
    this.#ageOf[part] = age
    if (age === 0) this.#clearPart(part)
  }

  /** Ages come round: what is left of so long ago would count again. */
  #clearPart(part: number): void {
    const sets = this.#sets4
    for (let network = part << 8; network < (part << 8) + NETWORKS_OF_PART; network++) {
      const mixed = mixOf(network)
      const at = set4At(mixed)
      for (let entry = at; entry < at + SET4_WORDS; entry += ENTRY4_WORDS)
        if ((sets[entry]! & TAG_MASK) === (mixed & TAG_MASK)) sets[entry + 1] = 0
    }
  }

  #forgetAll(): void {
    this.#age = (this.#age + 1) & AGE_MASK
    if (this.#age === 0) this.#sets4.fill(0)
    this.#forgetIpv6()
  }

  /** Round about, what was kept as many changes ago would count again. */
  #forgetIpv6(): void {
    this.#ipv6Changes = (this.#ipv6Changes + 1) & 0xffff
    if (this.#ipv6Changes === 0) this.#sets6.fill(0)
  }
}

/** The number of a /24 as another of as many bits, no two alike. */
function mixOf(network: number): number {
  return Math.imul(network, 0x9e3779b1) & ((1 << NETWORK_BITS) - 1)
}

/** Where the set of a mixed number begins. */
function set4At(mixed: number): number {
  return (mixed >> TAG_BITS) * SET4_WORDS
}

function set6At(high: number, low: number): number {
  const hash = Math.imul(high ^ Math.imul(low, 0x9e3779b1), 0x85ebca6b)
  return ((hash ^ (hash >>> 15)) >>> (32 - SET6_BITS)) * SET6_WORDS
}
