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
  IPV4_OFFSET_BITS,
  localityPrefix,
  type Prefix,
  parseAddress,
  specialKind,
} from './address.ts'
import type { Host } from './directory.ts'
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

/** At most `limit` live hosts of the client's network that fit, those that share most bits with it first. */
export function kinOf(tables: Tables, client: Address, fits: (row: number) => boolean, limit: number): Kin[] {
  // Private and special ranges are given out anew in every house: who shares one need not be near.
  if (specialKind(client) !== null) return []
  const family = familyOf(client)
  const network = tables.places.find(client)
  const bits = network.value < 0 ? NETWORK_BITS[family] : Math.max(network.bits, WIDEST_BITS[family])
  const around = { address: client, bits }
  const grain = localityPrefix(client)
  const found = new Map<number, Kin>()
  let looked = 0
  tables.hosts.visitNear(client, bits, (row) => {
    if (fits(row) && !found.has(row)) {
      // A more specific announcement inside is another network.
      const addresses = addressesIn(around, tables.hosts.recordOf(row)!).filter(
        (address) => tables.places.find(address).value === network.value,
      )
      const isNeighbour = addresses.some((address) => contains(grain, address))
      if (addresses.length > 0) found.set(row, { row, isNeighbour })
    }
    return found.size < limit && ++looked < MAX_LOOKED
  })
  return [...found.values()]
}

function addressesIn(prefix: Prefix, { addresses }: Host): Address[] {
  return addresses.flatMap((text) => {
    const address = parseAddress(text)
    return address !== null && contains(prefix, address) ? [address] : []
  })
}
