// Longest-prefix match: address -> the entry of the most specific prefix around it, and how wide a
// prefix shares that entry.
//
// Invariant: the ranges {scope of each address} are a disjoint partition of all addresses. IPv4 has a table
// of its own, of one word instead of four, and no IPv6 prefix, however short, holds an IPv4 address: one
// word of ::1 must not place half the world. A change costs some microseconds (and the prefixes that lie
// inside the changed one), however large the table is.

import { type Address, familyOf, IPV4_OFFSET_BITS, type Prefix, wordAt } from './address.ts'
import {
  type Allocate,
  findPrefix,
  memoryBytes,
  type PrefixMatch,
  type PrefixMemory,
  prefixCount,
  SortedPrefixes,
  visitAround,
} from './sorted-prefixes.ts'

export type { PrefixMatch } from './sorted-prefixes.ts'

/** Where ::ffff:0:0/96 begins: its third word, the two before being 0. */
const IPV4_WORD = 0xffff

const ordinary: Allocate = (bytes) => new ArrayBuffer(bytes)
const shared: Allocate = (bytes) => new SharedArrayBuffer(bytes)

/** Both families' arrays, for a reader on another thread. */
export interface PrefixTableMemory {
  readonly narrow: PrefixMemory
  readonly wide: PrefixMemory
}

/** Lengths are in bits of the 16-byte form; an IPv4 scope is never below 96. */
export function newMatch(): PrefixMatch {
  return { value: -1, bits: 0, scopeBits: 0 }
}

export class PrefixTable {
  #narrow: SortedPrefixes
  #wide: SortedPrefixes

  /** `shared`: in SharedArrayBuffers, for readers on other threads. */
  constructor(options: { readonly shared: boolean } = { shared: false }, like: PrefixTable | null = null) {
    const allocate = options.shared ? shared : ordinary
    this.#narrow = like === null ? new SortedPrefixes(1, allocate) : like.#narrow.clone()
    this.#wide = like === null ? new SortedPrefixes(4, allocate) : like.#wide.clone()
  }

  /** A table over arrays that another had from which nothing was ever taken, to be read or cloned. */
  static over({ narrow, wide }: PrefixTableMemory): PrefixTable {
    const table = new PrefixTable()
    table.#narrow = SortedPrefixes.over(narrow)
    table.#wide = SortedPrefixes.over(wide)
    return table
  }

  /** How many prefixes are set. */
  get size(): number {
    return prefixCount(this.#narrow.memory) + prefixCount(this.#wide.memory)
  }

  /** What the arrays take, used or not. */
  get bytes(): number {
    return memoryBytes(this.#narrow.memory) + memoryBytes(this.#wide.memory)
  }

  /** The arrays as they are now; when the table grows, it goes on in others and these stand still. */
  get memory(): PrefixTableMemory {
    return { narrow: this.#narrow.memory, wide: this.#wide.memory }
  }

  /** The same in arrays of its own: the same changes keep both alike. */
  clone(): PrefixTable {
    return new PrefixTable({ shared: true }, this)
  }

  /** Writes what it finds into `into`, so that a caller with a record of its own allocates nothing. */
  find(address: Address, into: PrefixMatch = newMatch()): PrefixMatch {
    return findIn(this.#narrow.memory, this.#wide.memory, address, into)
  }

  /** Sets or replaces. `value` is an integer, 0..2^31-1. */
  set(prefix: Prefix, value: number): void {
    if (value < 0 || value !== (value | 0))
      throw new RangeError(`PrefixTable value ${value} is not 0..2^31-1`)
    const { address, bits } = prefix
    if (isIpv4(prefix)) this.#narrow.set(word(address, 12), 0, 0, 0, bits - IPV4_OFFSET_BITS, value)
    else this.#wide.set(word(address, 0), word(address, 4), word(address, 8), word(address, 12), bits, value)
  }

  /** What exactly this prefix was set to; -1: it is not set. */
  get(prefix: Prefix): number {
    const { address, bits } = prefix
    if (isIpv4(prefix)) return this.#narrow.get(word(address, 12), 0, 0, 0, bits - IPV4_OFFSET_BITS)
    return this.#wide.get(word(address, 0), word(address, 4), word(address, 8), word(address, 12), bits)
  }

  /**
   * Visits what is set inside a prefix, what shares most bits with its address first, until `visit` says false.
   * The prefix's address is a whole one: bits behind `bits` count too.
   */
  visitInside({ address, bits }: Prefix, visit: (value: number, sharedBits: number) => boolean): void {
    if (isIpv4({ address, bits })) {
      const visitIpv4 = (value: number, shared: number) => visit(value, shared + IPV4_OFFSET_BITS)
      visitAround(this.#narrow.memory, [word(address, 12), 0, 0, 0], bits - IPV4_OFFSET_BITS, visitIpv4)
    } else {
      const words = [word(address, 0), word(address, 4), word(address, 8), word(address, 12)] as const
      visitAround(this.#wide.memory, words, bits, visit)
    }
  }

  /** Removes exactly this prefix; false where it was not set. */
  delete(prefix: Prefix): boolean {
    const { address, bits } = prefix
    if (isIpv4(prefix)) return this.#narrow.delete(word(address, 12), 0, 0, 0, bits - IPV4_OFFSET_BITS)
    return this.#wide.delete(word(address, 0), word(address, 4), word(address, 8), word(address, 12), bits)
  }
}

/** As PrefixTable.find, over arrays that a table had. */
export function findIn(
  narrow: PrefixMemory,
  wide: PrefixMemory,
  address: Address,
  into: PrefixMatch,
): PrefixMatch {
  const w0 = word(address, 0)
  const w1 = word(address, 4)
  const w2 = word(address, 8)
  const w3 = word(address, 12)
  if (w0 !== 0 || w1 !== 0 || w2 !== IPV4_WORD) {
    findPrefix(wide, w0, w1, w2, w3, into)
    // IPv4 is one more entry beside this address, where it has any.
    if (prefixCount(narrow) > 0) into.scopeBits = Math.max(into.scopeBits, bitsSharedWithIpv4(w0, w1, w2) + 1)
    return into
  }
  findPrefix(narrow, w3, 0, 0, 0, into)
  into.scopeBits += IPV4_OFFSET_BITS
  if (into.value >= 0) into.bits += IPV4_OFFSET_BITS
  return into
}

function isIpv4({ address, bits }: Prefix): boolean {
  return bits >= IPV4_OFFSET_BITS && familyOf(address) === 4
}

function word(address: Address, at: number): number {
  return wordAt(address, at) >>> 0
}

/** How many leading bits the first words of an IPv6 address share with ::ffff:0:0/96: less than 96. */
function bitsSharedWithIpv4(w0: number, w1: number, w2: number): number {
  if (w0 !== 0) return Math.clz32(w0)
  return w1 !== 0 ? 32 + Math.clz32(w1) : 64 + Math.clz32(w2 ^ IPV4_WORD)
}
