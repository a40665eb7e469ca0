// Crowd: who floods an open service from one network fills no list of it.
//
// A network is an IPv4 /16 or an IPv6 /32: about what one provider or one attacker has. Of a list's places one
// network gets a share, and at least one; more only where the others leave places empty: then half, then all.
// Invariant: a member counts where it has proved to be, never where it says it is, so that nobody can crowd
// out a network that is not his own. Picks stay in the order they came in. Pure.

import { type Address, familyOf } from './address.ts'
import type { Weighed } from './ask.ts'
import type { Service } from './directory.ts'
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

/** Whether a member is of one of these networks. */
export function isOf(member: ServingMember, { verify }: Service, networks: ReadonlySet<number>): boolean {
  return networksOf(member, verify).some((network) => networks.has(network))
}

/** Networks that have their share of a list of these members, where that leaves places empty; none: it is filled. */
export function crowdsOf(
  { verify }: Service,
  members: readonly ServingMember[],
  limit: number,
  share: number,
): number[] {
  if (share >= 1 || limit < 1) return []
  const places = placesOf(limit, share)
  const taken = new Map<number, number>()
  let left = limit
  for (const member of new Set(members)) {
    const networks = networksOf(member, verify)
    if (!take(taken, networks, places)) continue
    if (--left === 0) return []
  }
  return [...taken].flatMap(([network, count]) => (count === places ? network : []))
}

/** Of `limit` places, those that one network may have. */
function placesOf(limit: number, share: number): number {
  return Math.max(1, Math.floor(share * limit))
}

/** Takes a place for a member of these networks; false: one of them has as many as it may. */
function take(taken: Map<number, number>, networks: readonly number[], places: number): boolean {
  if (networks.some((network) => (taken.get(network) ?? 0) >= places)) return false
  for (const network of networks) taken.set(network, (taken.get(network) ?? 0) + 1)
  return true
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
    const places = placesOf(limit, part)
    const refused: number[] = []
    for (const i of waiting) {
      if (count === limit) break
      if (take(taken, networksOf(ordered[i]!.member, verify), places)) {
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
