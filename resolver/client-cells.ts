// Client cells: of most clients all that is known is where on the map they are, and what was found out once about a
// client's /24 (/48) is kept here: the cell of the map, and how wide it holds.
//
// A memo of locate, never truth: an entry counts as long as nothing changed in its part of the address space (see
// prefix-stamps.ts). Of whom more is known, or who has a host in the own network, is only noted that it is so.
// find allocates nothing unless it must ask locate. Of each family's own memory: IPv4 by pages of a /16, IPv6 by hash.

import {
  type Address,
  familyOf,
  IPV4_LOCALITY_BITS,
  IPV4_OFFSET_BITS,
  IPV6_LOCALITY_BITS,
} from './address.ts'
import { networkBits } from './kin.ts'
import { locate } from './locate.ts'
import { cellAt } from './map-model.ts'
import { STAMP_BITS } from './prefix-stamps.ts'
import type { Tables } from './tables.ts'

/** An entry is one word: a number (a row of a place, or a cell), its kind, and the scope in the family's own bits. 0: not known. */
const SCOPE_MASK = 0x3f
const KIND_SHIFT = 6
const NUMBER_SHIFT = 8
const KIND = { place: 1, cell: 2, other: 3 } as const
const MOST_NUMBER = 2 ** (32 - NUMBER_SHIFT) - 1

/** A /16 has 256 of /24; so many such pages are in one array, which is made when the first of them is needed. */
const PAGE_BITS = 8
const CHUNK_BITS = 8
const CHUNK_PAGES = 1 << CHUNK_BITS

/** Entries for IPv6: of those that fall on one place the last counts. */
const WIDE_BITS = 16
/** So wide scopes of IPv6 end where IPv4 begins, whose changes are stamped apart: seldom, and not kept. */
const LEAST_WIDE_SCOPE = 9

export class ClientCells {
  /** What find found: the cell, and the scope in bits of the 16-byte form. */
  cell = 0
  scopeBits = 0

  readonly #tables: Tables
  /** By /16: which page is its own, plus one; 0: it has none yet. */
  readonly #pageOf = new Uint32Array(1 << STAMP_BITS)
  readonly #chunks: Uint32Array[] = []
  #pages = 0
  /** By page: the stamps of its part, and of all of IPv4, when it was begun. */
  readonly #partStamps = new Float64Array(1 << STAMP_BITS)
  readonly #wholeStamps = new Float64Array(1 << STAMP_BITS)
  readonly #wideKeys = new Uint32Array(2 << WIDE_BITS)
  readonly #wideEntries = new Uint32Array(1 << WIDE_BITS)
  #wideStamp = 0

  constructor(tables: Tables) {
    this.#tables = tables
  }

  /** Whether a client's cell is all that an answer depends on; then `cell` and `scopeBits` say which. */
  find(client: Address): boolean {
    return familyOf(client) === 4 ? this.#find4(client) : this.#find6(client)
  }

  #find4(client: Address): boolean {
    const part = (client[12]! << 8) | client[13]!
    const page = this.#page(part)
    const chunk = this.#chunks[page >> CHUNK_BITS]!
    const at = ((page & (CHUNK_PAGES - 1)) << PAGE_BITS) | client[14]!
    let entry = chunk[at]!
    if (entry !== 0 && (entry & SCOPE_MASK) <= STAMP_BITS && this.#isWholeStale(page)) {
      this.#begin(page, part)
      entry = 0
    }
    if (entry === 0) {
      entry = this.#look(client, IPV4_LOCALITY_BITS, IPV4_OFFSET_BITS)
      if ((entry & SCOPE_MASK) <= STAMP_BITS && this.#isWholeStale(page)) this.#begin(page, part)
      chunk[at] = entry
    }
    return this.#take(entry, IPV4_OFFSET_BITS)
  }

  #isWholeStale(page: number): boolean {
    return this.#wholeStamps[page] !== this.#tables.stamps.ipv4
  }

  /** The page of a /16, begun anew where something changed in it. */
  #page(part: number): number {
    const page = this.#pageOf[part]! - 1
    if (page < 0) return this.#addPage(part)
    if (this.#partStamps[page] !== this.#tables.stamps.ofPart(part)) this.#begin(page, part)
    return page
  }

  #addPage(part: number): number {
    const page = this.#pages++
    this.#pageOf[part] = page + 1
    if ((page & (CHUNK_PAGES - 1)) === 0) this.#chunks.push(new Uint32Array(CHUNK_PAGES << PAGE_BITS))
    this.#begin(page, part)
    return page
  }

  #begin(page: number, part: number): void {
    const first = (page & (CHUNK_PAGES - 1)) << PAGE_BITS
    this.#chunks[page >> CHUNK_BITS]!.fill(0, first, first + (1 << PAGE_BITS))
    this.#partStamps[page] = this.#tables.stamps.ofPart(part)
    this.#wholeStamps[page] = this.#tables.stamps.ipv4
  }

  #find6(client: Address): boolean {
    const { ipv6 } = this.#tables.stamps
    if (this.#wideStamp !== ipv6) {
      this.#wideStamp = ipv6
      this.#wideEntries.fill(0)
    }
    const high = ((client[0]! << 24) | (client[1]! << 16) | (client[2]! << 8) | client[3]!) >>> 0
    const low = (client[4]! << 8) | client[5]!
    const hash = Math.imul(high ^ Math.imul(low, 0x9e3779b1), 0x85ebca6b) >>> (32 - WIDE_BITS)
    let entry = this.#wideEntries[hash]!
    if (entry === 0 || this.#wideKeys[2 * hash] !== high || this.#wideKeys[2 * hash + 1] !== low) {
      entry = this.#look(client, IPV6_LOCALITY_BITS, 0)
      if ((entry & SCOPE_MASK) < LEAST_WIDE_SCOPE) entry = KIND.other << KIND_SHIFT
      this.#wideKeys[2 * hash] = high
      this.#wideKeys[2 * hash + 1] = low
      this.#wideEntries[hash] = entry
    }
    return this.#take(entry, 0)
  }

  #take(entry: number, offsetBits: number): boolean {
    const kind = (entry >>> KIND_SHIFT) & 3
    const number = entry >>> NUMBER_SHIFT
    if (kind === KIND.other) return false
    if (kind === KIND.place) {
      // What is known of a whole AS is in no part of the address space.
      if (this.#tables.isSystemKnown(number)) return false
      this.cell = this.#tables.places.cellOf(number)
    } else this.cell = number
    this.scopeBits = (entry & SCOPE_MASK) + offsetBits
    return true
  }

  /** What locate says, as an entry. */
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
}
