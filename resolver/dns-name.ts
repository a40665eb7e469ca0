// What a name in the DNS means here: labels -> a service, a member, the zone itself, or nothing.
//
//   ZONE, SERVICE.ZONE, MEMBER.SERVICE.ZONE, _NAME._tcp.SERVICE.ZONE, _why.SERVICE.ZONE
//
// and, in the place of SERVICE.ZONE, every full name that a service lists among its aliases (the zone's
// own name too: then that is the service, and still has SOA and NS). Pure; reads
// the compiled tables only. An empty non-terminal (_tcp.SERVICE.ZONE) exists (RFC 8020).

import type { Name } from './dns-wire.ts'
import type { ServingMember, ServingService } from './serving.ts'
import type { Tables } from './tables.ts'

/** `apex`: where the SOA of a negative answer stands: the zone, or an alias outside it. */
export type Meaning =
  | { readonly kind: 'outside' }
  | { readonly kind: 'apex'; readonly apex: Name }
  | { readonly kind: 'nothing'; readonly apex: Name }
  | { readonly kind: 'service'; readonly apex: Name; readonly serving: ServingService }
  | { readonly kind: 'empty' | 'srv' | 'why'; readonly apex: Name; readonly serving: ServingService }
  | {
      readonly kind: 'member'
      readonly apex: Name
      readonly serving: ServingService
      readonly member: ServingMember
    }

/** How many labels may stand before a service: _NAME._tcp. */
const MOST_BEFORE_SERVICE = 2

/** `zone`: lower case labels. */
export function meaningOf(tables: Tables, zone: Name, name: Name): Meaning {
  if (!endsWith(name, zone)) return meaningOutside(tables, name)
  const before = name.length - zone.length
  if (before === 0) {
    const serving = findService(tables, zone)
    return serving ? { kind: 'service', apex: zone, serving } : { kind: 'apex', apex: zone }
  }
  const label = name[before - 1]!
  const serving = findService(tables, [label]) ?? findService(tables, [label, ...zone])
  return serving
    ? meaningBelow(tables, serving, zone, name.slice(0, before - 1))
    : { kind: 'nothing', apex: zone }
}

/** Full names outside the zone that operators point here: the longest alias that the name ends with. */
function meaningOutside(tables: Tables, name: Name): Meaning {
  for (let before = 0; before <= MOST_BEFORE_SERVICE && name.length - before > 1; before++) {
    const apex = name.slice(before)
    const serving = findService(tables, apex)
    if (serving) return meaningBelow(tables, serving, apex, name.slice(0, before))
  }
  return { kind: 'outside' }
}

/** A label with a dot inside is no part of a name that an operator can write, and must not read as two. */
function findService(tables: Tables, labels: Name): ServingService | null {
  return labels.some((label) => label.includes('.')) ? null : tables.service(labels.join('.'))
}

function meaningBelow(tables: Tables, serving: ServingService, apex: Name, before: Name): Meaning {
  const last = before.at(-1)
  if (last === undefined) return { kind: 'service', apex, serving }
  const isProtocol = last === '_tcp' || last === '_udp'
  if (before.length === 2 && isProtocol && before[0]!.startsWith('_')) return { kind: 'srv', apex, serving }
  if (before.length > 1) return { kind: 'nothing', apex }
  if (isProtocol) return { kind: 'empty', apex, serving }
  if (last === '_why') return { kind: 'why', apex, serving }
  const member = tables.member(serving.service.name, last)
  return member ? { kind: 'member', apex, serving, member } : { kind: 'nothing', apex }
}

function endsWith(name: Name, suffix: Name): boolean {
  const offset = name.length - suffix.length
  return offset >= 0 && suffix.every((label, i) => label === name[offset + i])
}
