// What a name in the DNS means here: labels -> a service, a member, the zone itself, or nothing.
//
//   ZONE, SERVICE.ZONE, MEMBER.SERVICE.ZONE, _NAME._tcp.SERVICE.ZONE, _why.SERVICE.ZONE
//
// and, in the place of SERVICE.ZONE, every full name that a service lists among its aliases (a zone's
// own name too: then that is the service, and still has SOA and NS). An alias of one label, ALIAS.ZONE, leads
// to SERVICE.ZONE. All zones hold the same names. Pure; reads the compiled tables only. An empty
// non-terminal (_tcp.SERVICE.ZONE) exists (RFC 8020).

import type { Name } from './dns-wire.ts'
import type { ServingMember, ServingService } from './serving.ts'
import type { Tables } from './tables.ts'

/** A zone that we are authoritative for. */
export interface Zone {
  /** Lower case. */
  readonly labels: Name
  /** This core's member name in the service `core`. */
  readonly core: string
  /** SOA serial now, 0..2^32-1. */
  readonly serial: number
}

/** All of them, none within another; the first is where names stand that aliases outside all of them lead to. */
export type Zones = readonly [Zone, ...Zone[]]

/** A name that belongs to a service. `apex`: where the SOA of a negative answer stands: the zone, or an alias outside it. */
export interface ServiceName {
  readonly zone: Zone
  readonly apex: Name
  readonly serving: ServingService
}

export type Meaning =
  | { readonly kind: 'outside' }
  | { readonly kind: 'apex'; readonly zone: Zone; readonly apex: Name }
  | { readonly kind: 'nothing'; readonly zone: Zone; readonly apex: Name }
  | ({ readonly kind: 'service' | 'alias' | 'empty' | 'srv' | 'why' } & ServiceName)
  | ({ readonly kind: 'member'; readonly member: ServingMember } & ServiceName)

/** How many labels may stand before a service: _NAME._tcp. */
export const MOST_BEFORE_SERVICE = 2

/** `name`: lower case labels. */
export function meaningOf(tables: Tables, zones: Zones, name: Name): Meaning {
  const zone = zones.find(({ labels }) => endsWith(name, labels))
  if (zone === undefined) return meaningOutside(tables, zones[0], name)
  const apex = zone.labels
  const before = name.length - apex.length
  if (before === 0) {
    const serving = findService(tables, apex)
    return serving ? { kind: 'service', zone, apex, serving } : { kind: 'apex', zone, apex }
  }
  const label = name[before - 1]!
  const serving = findService(tables, [label]) ?? findService(tables, [label, ...apex])
  if (serving === null) return { kind: 'nothing', zone, apex }
  if (before === 1 && label !== serving.service.name) return { kind: 'alias', zone, apex, serving }
  return meaningBelow(tables, { zone, apex, serving }, name.slice(0, before - 1))
}

/** Full names outside the zone that operators point here: the longest alias that the name ends with. */
function meaningOutside(tables: Tables, zone: Zone, name: Name): Meaning {
  for (let before = 0; before <= MOST_BEFORE_SERVICE && name.length - before > 1; before++) {
    const apex = name.slice(before)
    const serving = findService(tables, apex)
    if (serving) return meaningBelow(tables, { zone, apex, serving }, name.slice(0, before))
  }
  return { kind: 'outside' }
}

/** A label with a dot inside is no part of a name that an operator can write, and must not read as two. */
function findService(tables: Tables, labels: Name): ServingService | null {
  return labels.some((label) => label.includes('.')) ? null : tables.service(labels.join('.'))
}

function meaningBelow(tables: Tables, of: ServiceName, before: Name): Meaning {
  const last = before.at(-1)
  if (last === undefined) return { kind: 'service', ...of }
  const isProtocol = last === '_tcp' || last === '_udp'
  if (before.length === 2 && isProtocol && before[0]!.startsWith('_')) return { kind: 'srv', ...of }
  if (before.length > 1) return { kind: 'nothing', zone: of.zone, apex: of.apex }
  if (isProtocol) return { kind: 'empty', ...of }
  if (last === '_why') return { kind: 'why', ...of }
  const member = tables.member(of.serving.service.name, last)
  return member ? { kind: 'member', ...of, member } : { kind: 'nothing', zone: of.zone, apex: of.apex }
}

function endsWith(name: Name, suffix: Name): boolean {
  const offset = name.length - suffix.length
  return offset >= 0 && suffix.every((label, i) => label === name[offset + i])
}
