// The registry's rule for crowds: of a service with `join: open`, one network holds at most maxPerPrefix members.
//
// Pure, as caller.ts says. A network is a /24 or a /48, and a host is in each where it has proved to be: the one
// that it joined from, and those of its proven addresses. What it only claims counts against itself when it joins
// (it may be proven there once it is in), and never against others, whom it could keep out by it. The rule holds
// for every way in: joining, moving to another network, and proving an address afterwards.

import { formatPrefix, localityPrefix, parseAddress } from '../../resolver/address.ts'
import { type Host, type Member, memberKey, type Service } from '../../resolver/directory.ts'
import { Problem } from '../problem.ts'
import type { Books } from './books.ts'

/** Throws Problem where a network of the host has no room for one more member, `name`, of the service. */
export function refuseCrowd(books: Books, service: Service, name: string, host: Host): void {
  if (!isLimited(service)) return
  const before = books.members.get(memberKey(service.name, name))
  const known = before === undefined || before.left ? undefined : books.hosts.get(before.host)
  const own = known === undefined ? new Set() : networksOf(known)
  const claimed = host.addresses.map(networkAt)
  for (const network of new Set([...networksOf(host), ...claimed])) {
    const others = books.index.crowdIn(service.name, network) - (own.has(network) ? 1 : 0)
    if (others < service.maxPerPrefix) continue
    throw new Problem(
      'conflict',
      `'${service.name}' takes ${service.maxPerPrefix} members from one network, and ${network} has them`,
    )
  }
}

/** Which of a host's `members` have no room where `host` now is and `before` was not: they are out of their services. */
export function crowdedOut(books: Books, before: Host, host: Host, members: readonly Member[]): Member[] {
  const known = networksOf(before)
  const entered = [...networksOf(host)].filter((network) => !known.has(network))
  if (entered.length === 0) return []
  const stay = new Map<string, number>()
  return members.filter((member) => {
    const service = books.services.get(member.service)
    if (member.left || service === undefined || !isLimited(service)) return false
    const own = stay.get(service.name) ?? 0
    const hasRoom = entered.every(
      (network) => books.index.crowdIn(service.name, network) + own < service.maxPerPrefix,
    )
    if (hasRoom) stay.set(service.name, own + 1)
    return !hasRoom
  })
}

/** Whether a service limits its crowds. */
export function isLimited(service: Service): boolean {
  return service.join === 'open' && service.maxPerPrefix > 0
}

/** Where a host has proved to be. */
export function networksOf({ publicAddress, proofs }: Host): Set<string> {
  const proven = Object.keys(proofs)
  return new Set((publicAddress === null ? proven : [publicAddress, ...proven]).map(networkAt))
}

/** The /24 or /48 of an address. */
export function networkAt(address: string): string {
  return formatPrefix(localityPrefix(parseAddress(address)!))
}
