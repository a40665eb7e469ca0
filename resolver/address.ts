// Addresses and prefixes, bytes first: one form for both families.
//
// An Address is always 16 bytes; IPv4 is ::ffff:a.b.c.d, so there is one table and one code path.
// A Prefix counts bits in that form: IPv4 192.0.2.0/24 has 120 bits. People see families' own lengths.
// Parsing never throws: null for what is no address.

/** 16 bytes, network order. */
export type Address = Uint8Array
export type Family = 4 | 6

export interface Prefix {
  readonly address: Address
  /** 0..128, counted in the 16-byte form. */
  readonly bits: number
}

/** How many bits of the 16-byte form stand before an IPv4 address. */
export const IPV4_OFFSET_BITS = 96
/** The first grain of localities: what a client is taken for, in bits of the 16-byte form. */
export const IPV4_LOCALITY_BITS = 24 + IPV4_OFFSET_BITS
export const IPV6_LOCALITY_BITS = 48
