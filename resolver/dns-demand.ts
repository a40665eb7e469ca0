// Which demand a DNS query proves: whose client probes may go to, or nobody's; and much of it put together.
//
// Pure but for the counts' own memory. Invariant: a UDP source may be forged, and a forged query must aim no probes. So
// it counts only where the asker is proven (TCP, a cookie of ours) or is a resolver that the operator listed; whom such
// an asker names by Client Subnet is believed, but has not come itself. Noting allocates nothing for what was noted before.

import { type Address, familyOf, isInAny, type Prefix, wordAt } from './address.ts'
import type { DnsFacts } from './dns-answer.ts'

/** What one client prefix asked one service for, so many times since it was told last. */
export interface CountedDemand {
  readonly client: Address
  readonly service: string
  /** The asker is the client: it came itself, so it may be probed. */
  readonly direct: boolean
  readonly times: number
}

/** Whether something was selected for a client, and somebody vouches for the asker. */
export function isDemandProven(
  { service, client, isProven }: DnsFacts,
  asker: Address,
  resolvers: readonly Prefix[],
): boolean {
  if (service === null || client === null) return false
  return isProven || (resolvers.length > 0 && isInAny(resolvers, asker))
}

/** Clients and services remembered between two takings: more prove themselves within a quarter of a second nowhere. */
const MAX_DEMANDS = 4096
const PLACES = 2 * MAX_DEMANDS
/** Of a key: two words of the client's prefix, and one of the service and of whether it came itself. */
const KEY_WORDS = 3
/** The first word of an IPv4 prefix; no IPv6 network has it. */
const IPV4_KEY = 0xffff_ffff

/** Demand until it is told: each client prefix (/24 or /48) and service once, however often it asked. */
export class DemandCounts {
  /** Index of an entry, plus one; 0: free. */
  readonly #places = new Uint16Array(PLACES)
  readonly #keys = new Uint32Array(KEY_WORDS * MAX_DEMANDS)
  readonly #addresses = new Uint8Array(16 * MAX_DEMANDS)
  readonly #times = new Float64Array(MAX_DEMANDS)
  readonly #services = new Map<string, number>()
  #size = 0

  /** What is demand, see isDemandProven. */
  note({ client, service, bySubnet }: DnsFacts): void {
    const at = this.#find(client!, 2 * this.#numberOf(service!) + (bySubnet ? 0 : 1))
    if (at >= 0) this.#times[at]!++
  }

  /** All since they were taken last. */
  take(): CountedDemand[] {
    const names = [...this.#services.keys()]
    const demands = Array.from({ length: this.#size }, (_, at) => {
      const key = this.#keys[KEY_WORDS * at + 2]!
      return {
        client: this.#addresses.slice(16 * at, 16 * at + 16),
        service: names[key >> 1]!,
        direct: (key & 1) === 1,
        times: this.#times[at]!,
      }
    })
    if (this.#size > 0) this.#places.fill(0)
    this.#services.clear()
    this.#size = 0
    return demands
  }

  #numberOf(service: string): number {
    const known = this.#services.get(service)
    if (known !== undefined) return known
    this.#services.set(service, this.#services.size)
    return this.#services.size - 1
  }

  /** The entry of a key, made where there is none; -1: there is no more room. */
  #find(client: Address, key: number): number {
    const isIpv4 = familyOf(client) === 4
    const high = isIpv4 ? IPV4_KEY : wordAt(client, 0) >>> 0
    const low = isIpv4
      ? (client[12]! << 16) | (client[13]! << 8) | client[14]!
      : (client[4]! << 8) | client[5]!
    const keys = this.#keys
    let place =
      (Math.imul(high ^ Math.imul(low ^ Math.imul(key, 0x9e3779b1), 0x85ebca6b), 0xc2b2ae35) >>> 0) % PLACES
    for (; this.#places[place] !== 0; place = (place + 1) % PLACES) {
      const at = this.#places[place]! - 1
      const from = KEY_WORDS * at
      if (keys[from] === high && keys[from + 1] === low && keys[from + 2] === key) return at
    }
    if (this.#size === MAX_DEMANDS) return -1
    const at = this.#size++
    this.#places[place] = at + 1
    keys[KEY_WORDS * at] = high
    keys[KEY_WORDS * at + 1] = low
    keys[KEY_WORDS * at + 2] = key
    this.#addresses.set(client, 16 * at)
    this.#times[at] = 0
    return at
  }
}
