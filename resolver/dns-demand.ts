// Which demand a DNS query proves: a client that probes may go to, or none; and many of them put together.
//
// Pure but for the counts' own memory. Invariant: a UDP source may be forged, and a forged query must aim no probes. So it counts only
// where the asker is proven (TCP, a cookie of ours) or is a resolver that the operator listed; whom such
// an asker names by Client Subnet is believed, but has not come itself.

import { type Address, formatPrefix, isInAny, localityPrefix, type Prefix } from './address.ts'
import type { DnsFacts } from './dns-answer.ts'

/** As Core.noteDemand takes it. */
export interface Demand {
  readonly client: Address
  readonly service: string
  /** The asker is the client: it came itself, so it may be probed. */
  readonly direct: boolean
}

/** null: nothing was selected for a client, or nobody vouches for the asker. */
export function provenDemand(
  { service, client, bySubnet, isProven }: DnsFacts,
  asker: Address,
  resolvers: readonly Prefix[],
): Demand | null {
  if (service === null || client === null) return null
  return isProven || isInAny(resolvers, asker) ? { client, service, direct: !bySubnet } : null
}

/** What one client prefix asked one service for, so many times. */
export interface CountedDemand extends Demand {
  readonly times: number
}

/** Clients and services remembered between two takings: more prove themselves within a quarter of a second nowhere. */
const MAX_DEMANDS = 4096

/** Demand until it is told: each client prefix and service once, however often it asked. */
export class DemandCounts {
  #counts = new Map<string, { -readonly [K in keyof CountedDemand]: CountedDemand[K] }>()

  note({ client, service, direct }: Demand): void {
    const key = `${formatPrefix(localityPrefix(client))} ${direct} ${service}`
    const known = this.#counts.get(key)
    if (known !== undefined) known.times++
    else if (this.#counts.size < MAX_DEMANDS) this.#counts.set(key, { client, service, direct, times: 1 })
  }

  /** All since they were taken last. */
  take(): CountedDemand[] {
    const counts = [...this.#counts.values()]
    this.#counts.clear()
    return counts
  }
}
