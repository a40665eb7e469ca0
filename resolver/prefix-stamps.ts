// Stamps: when which part of the address space was last given another meaning.
//
// Whoever remembers what was found for an address remembers its stamp too, and asks anew once that has grown. A
// stamp covers an IPv4 /16, or all of IPv6; what holds for more than a /16 hangs on all that changes anywhere
// in IPv4. Counts only; knows nothing of what changed.

import { familyOf, IPV4_OFFSET_BITS, type Prefix } from './address.ts'

/** Of the families' own bits: the grain of IPv4 stamps. */
export const STAMP_BITS = 16

export class PrefixStamps {
  readonly #parts = new Uint32Array(1 << STAMP_BITS)
  #ipv4 = 1
  #ipv6 = 1
  /** Counts for all parts at once. */
  #all = 0

  /** Of an IPv4 /16, by its number. */
  ofPart(part: number): number {
    return this.#parts[part]! + this.#all
  }

  /** Of all IPv4 addresses. */
  get ipv4(): number {
    return this.#ipv4
  }

  get ipv6(): number {
    return this.#ipv6
  }

  touch({ address, bits }: Prefix): void {
    if (bits < IPV4_OFFSET_BITS || familyOf(address) === 6) {
      this.#ipv6++
      return
    }
    this.#ipv4++
    const first = (address[12]! << 8) | address[13]!
    const count = 1 << Math.max(0, STAMP_BITS - (bits - IPV4_OFFSET_BITS))
    for (let part = first; part < first + count; part++) this.#parts[part]!++
  }

  touchAll(): void {
    this.#ipv4++
    this.#ipv6++
    this.#all++
  }
}
