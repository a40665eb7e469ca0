// Which demand a DNS query proves: a client that probes may go to, or none.
//
// Pure. Invariant: a UDP source may be forged, and a forged query must aim no probes. So it counts only
// where the asker is proven (TCP, a cookie of ours) or is a resolver that the operator listed; whom such
// an asker names by Client Subnet is believed, but has not come itself.

import { type Address, isInAny, type Prefix } from '../../resolver/address.ts'
import type { DnsFacts } from '../../resolver/dns-answer.ts'

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
