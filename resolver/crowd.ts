// Crowd: who floods an open service from one network fills no list of it.
//
// A network is an IPv4 /16 or an IPv6 /32: about what one provider or one attacker has. Of a list's places one
// network gets a share, and at least one; more only where the others leave places empty: then half, then all.
// Invariant: a member counts where it has proved to be, never where it says it is, so that nobody can crowd
// out a network that is not his own. Picks stay in the order they came in. Pure.

import { type Address, familyOf } from './address.ts'
import type { Service } from './directory.ts'
import type { Weighed } from './select.ts'
import type { ServingMember } from './serving.ts'

/** Of the places of a list, what the members of one network get while others are to be had. */
export const NETWORK_SHARE = 1 / 4

/** An IPv4 /16 or IPv6 /32 as one number. */
export function networkOf(address: Address): number {
  if (familyOf(address) === 4) return (address[12]! << 8) | address[13]!
  return (address[0]! << 24) | (address[1]! << 16) | (address[2]! << 8) | address[3]!
}

/** Where a member has proved to be: its addresses, unless the service takes them unproven; then where it joined from. */
function networksOf(member: ServingMember, verify: Service['verify']): number[] {
  const networks: number[] = []
  if (verify !== 'none') {
    for (const address of member.addresses4) addTo(networks, networkOf(address))
    for (const address of member.addresses6) addTo(networks, networkOf(address))
  }
  return networks.length > 0 ? networks : [member.joinedFrom]
}

function addTo(networks: number[], network: number): void {
  if (!networks.includes(network)) networks.push(network)
}

export interface Picked {
  readonly picks: readonly Weighed[]
  /** Passed over for picks that came after them. */
  readonly crowded: readonly Weighed[]
  /** After the last pick: the places were taken. */
  readonly rest: readonly Weighed[]
}

/** The first `limit` of `ordered` of whose networks none has more than `share` of the places while others are to be had. */
export function pickUncrowded(
  { verify }: Service,
  ordered: readonly Weighed[],
  limit: number,
  share: number,
): Picked {
  if (share >= 1) return { picks: ordered.slice(0, limit), crowded: [], rest: ordered.slice(limit) }
  const taken = new Map<number, number>()
  const isPicked = new Uint8Array(ordered.length)
  let end = 0
  let count = 0
  let waiting = ordered.map((_, i) => i)
  for (let part = share; waiting.length > 0 && count < limit; part *= 2) {
    const places = Math.max(1, Math.floor(part * limit))
    const refused: number[] = []
    for (const i of waiting) {
      if (count === limit) break
      const networks = networksOf(ordered[i]!.member, verify)
      if (networks.every((network) => (taken.get(network) ?? 0) < places)) {
        for (const network of networks) taken.set(network, (taken.get(network) ?? 0) + 1)
        isPicked[i] = 1
        end = Math.max(end, i + 1)
        count++
      } else refused.push(i)
    }
    waiting = refused
  }
  const before = ordered.slice(0, end)
  return {
    picks: before.filter((_, i) => isPicked[i] === 1),
    crowded: before.filter((_, i) => isPicked[i] === 0),
    rest: ordered.slice(end),
  }
}
