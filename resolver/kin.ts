// Kin: the hosts of a client's own network, by their addresses alone.
//
// Addresses are given out and announced network by network, and most networks are in one place (Krishnamurthy
// and Wang, SIGCOMM 2000; Freedman, Vutukuru, Feamster, Balakrishnan, IMC 2005): before anything was measured, a
// host that proved an address in the client's network is the likeliest to be near, the more so the more bits
// they share. A guess, no more: what is measured outranks it. Pure: reads the compiled tables.

import {
  type Address,
  contains,
  familyOf,
  IPV4_LOCALITY_BITS,
  IPV4_OFFSET_BITS,
  IPV6_LOCALITY_BITS,
  type Prefix,
  parseAddress,
  specialKind,
} from './address.ts'
import type { PrefixMatch } from './prefix-table.ts'
import type { Tables } from './tables.ts'

/** How wide a network is taken to be where no announcement was imported (most of one /20, IPv6 /40, is one network), ... */
const NETWORK_BITS = { 4: 20 + IPV4_OFFSET_BITS, 6: 40 } as const
/** ... and at most: what is announced wider spans countries. */
const WIDEST_BITS = { 4: 16 + IPV4_OFFSET_BITS, 6: 32 } as const
/** Hosts looked at before giving up: a network may be full of those that do not fit. */
const MAX_LOOKED = 256

export interface Kin {
  readonly row: number
  /** It has an address in the client's own /24 (/48). */
  readonly isNeighbour: boolean
}

/** How wide a client's own network is, in bits; `announced`: what the imports say of it. */
export function networkBits(client: Address, announced: PrefixMatch): number {
  const family = familyOf(client)
  return announced.value < 0 ? NETWORK_BITS[family] : Math.max(announced.bits, WIDEST_BITS[family])
}

/** At most `limit` live hosts of the client's network that fit, those that share most bits with it first. */
export function kinOf(tables: Tables, client: Address, fits: (row: number) => boolean, limit: number): Kin[] {
  // Private and special ranges are given out anew in every house: who shares one need not be near.
  if (specialKind(client) !== null) return []
  const announced = tables.places.find(client)
  const around = { address: client, bits: networkBits(client, announced) }
  const grainBits = familyOf(client) === 4 ? IPV4_LOCALITY_BITS : IPV6_LOCALITY_BITS
  const kin: Kin[] = []
  let looked = 0
  tables.hosts.visitNear(client, around.bits, (row, sharedBits) => {
    const isNew = kin.every((other) => other.row !== row)
    if (isNew && fits(row) && isOfNetwork(tables, row, around, announced.value))
      kin.push({ row, isNeighbour: sharedBits >= grainBits })
    return kin.length < limit && ++looked < MAX_LOOKED
  })
  return kin
}

/** Whether an address of a host is of the network itself: a more specific announcement inside is another. */
function isOfNetwork(tables: Tables, row: number, around: Prefix, announced: number): boolean {
  if (tables.places.size === 0) return true
  return tables.hosts.recordOf(row)!.addresses.some((text) => {
    const address = parseAddress(text)
    return address !== null && contains(around, address) && tables.places.find(address).value === announced
  })
}
