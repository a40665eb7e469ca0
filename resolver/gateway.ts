// Gateways: members of one service whose host is live in another as well, so that two overlays can meet there.
//
// A host has one lease and one coordinate for all its services, so a gateway is as near in one as in the other.
// Invariant: a host counts as being in a service where that service would name it: live, with the attributes and
// an address that are asked for. Pure.

import type { Family } from './address.ts'
import { hasAddress, type ServingMember, type ServingService } from './serving.ts'
import type { Tables } from './tables.ts'

/** A service of at most so many members is walked through, some ms; of two larger ones, select finds the way. */
const WALKED_MEMBERS = 5_000

/** The member by which a host takes part in a service, fit to be named; null: it does not. Of several the first by name. */
export function membershipOf(
  tables: Tables,
  { service }: ServingService,
  host: number,
  family: Family | null,
): ServingMember | null {
  let first: ServingMember | null = null
  for (const member of tables.membersOn(host, service.name)) {
    const fit = member.isOffered && hasAddress(member, family)
    if (fit && (first === null || member.name < first.name)) first = member
  }
  return first
}

/** What to choose gateways to `to` from: `from`, or, where `to` is small and the smaller, those of its members that `to` leads to. */
export function gatewayCandidates(tables: Tables, from: ServingService, to: ServingService): ServingService {
  if (to.members.length >= from.members.length || to.members.length > WALKED_MEMBERS) return from
  const hosts = new Set(to.members.map(({ host }) => host))
  const members = [...hosts].flatMap((host) => tables.membersOn(host, from.service.name))
  return { service: from.service, members, index: null }
}
