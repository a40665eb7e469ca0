// The index of the books: what the rules ask of all records at once, kept up with each change, so that no
// decision walks hosts or members.
//
// Invariant: it says what walking the books would say, whatever the order in which records come and go.
// A host's record may come after its members' and go before them. Reads the books, changes nothing. Pure.

import type { Directory, Host, Member, Presence, Service } from '../../resolver/directory.ts'
import { isLimited, networkAt, networksOf } from './crowd.ts'
import type { Records } from './draft-map.ts'
import { Grouping } from './grouping.ts'

interface Indexed {
  readonly services: Records<Service>
  readonly hosts: Records<Host>
  readonly members: Records<Member>
}

export class BookIndex {
  readonly #books: Indexed
  readonly #membersOf = new Grouping()
  /** Service -> members, those that left included. */
  readonly #sizes = new Map<string, number>()
  /** Network -> hosts that joined from there without a token. */
  readonly #openHosts = new Map<string, number>()
  /** Of services that limit it: network -> members in it. */
  readonly #crowds = new Map<string, Map<string, number>>()
  /** Hosts with agent that left, and that fell silent; roughly those longest gone first. */
  readonly #gone = { left: new Set<string>(), silent: new Set<string>() }
  readonly #presence = { live: 0, silent: 0, left: 0 }

  constructor(books: Indexed) {
    this.#books = books
  }

  /** Keys of the members on a host, those that left included. */
  membersOf(host: string): Iterable<string> {
    return this.#membersOf.of(host)
  }

  memberCount(host: string): number {
    return this.#membersOf.count(host)
  }

  /** Members of a service, those that left included. */
  sizeOf(service: string): number {
    return this.#sizes.get(service) ?? 0
  }

  /** Hosts that joined without a token from the /24 (/48) of an address. */
  openHostsNear(address: string): number {
    return this.#openHosts.get(networkAt(address)) ?? 0
  }

  /** Members, without those that left, that a service with a limit has in a network, as crowd.ts says. */
  crowdIn(service: string, network: string): number {
    return this.#crowds.get(service)?.get(network) ?? 0
  }

  /** Names of hosts that left, roughly the longest gone first. */
  get left(): ReadonlySet<string> {
    return this.#gone.left
  }

  get silent(): ReadonlySet<string> {
    return this.#gone.silent
  }

  /** Hosts by presence. */
  get presence(): Readonly<Record<Presence, number>> {
    return this.#presence
  }

  /** A record became another; undefined: none. The books say so already. */
  follow(kind: keyof Directory, key: string, before: unknown, after: unknown): void {
    if (before === after) return
    if (kind === 'members') this.#followMember(key, before as Member | undefined, after as Member | undefined)
    else if (kind === 'hosts') this.#followHost(key, before as Host | undefined, after as Host | undefined)
    else if (kind === 'services')
      this.#followService(key, before as Service | undefined, after as Service | undefined)
  }

  #followMember(key: string, before: Member | undefined, after: Member | undefined): void {
    if (before?.host !== after?.host) {
      if (before) this.#membersOf.delete(before.host, key)
      if (after) this.#membersOf.add(after.host, key)
      if (before) count(this.#sizes, before.service, -1)
      if (after) count(this.#sizes, after.service, 1)
    } else if (before?.left === after?.left) return
    this.#countInCrowd(before, this.#hostOf(before), -1)
    this.#countInCrowd(after, this.#hostOf(after), 1)
  }

  #hostOf(member: Member | undefined): Host | undefined {
    return member && this.#books.hosts.get(member.host)
  }

  #countInCrowd(member: Member | undefined, host: Host | undefined, by: 1 | -1): void {
    const crowd = member && this.#crowds.get(member.service)
    if (!crowd || member.left || !host) return
    for (const network of networksOf(host)) count(crowd, network, by)
  }

  #followHost(name: string, before: Host | undefined, after: Host | undefined): void {
    if (before) this.#presence[before.presence]--
    if (after) this.#presence[after.presence]++
    if (before?.presence !== after?.presence || before?.agent !== after?.agent) this.#followGone(name, after)
    this.#countOpen(before, -1)
    this.#countOpen(after, 1)
    if (this.#crowds.size === 0 || (before && after && isAtOnePlace(before, after))) return
    for (const key of this.membersOf(name)) {
      const member = this.#books.members.get(key)
      this.#countInCrowd(member, before, -1)
      this.#countInCrowd(member, after, 1)
    }
  }

  #followGone(name: string, host: Host | undefined): void {
    this.#gone.left.delete(name)
    this.#gone.silent.delete(name)
    if (host?.agent && host.presence !== 'live') this.#gone[host.presence].add(name)
  }

  #countOpen(host: Host | undefined, by: 1 | -1): void {
    if (host?.tokenId !== null || host.publicAddress === null) return
    count(this.#openHosts, networkAt(host.publicAddress), by)
  }

  /** A service that begins to limit its crowds has them counted once. */
  #followService(name: string, before: Service | undefined, after: Service | undefined): void {
    if (limits(before) === limits(after)) return
    this.#crowds.delete(name)
    if (!limits(after)) return
    this.#crowds.set(name, new Map())
    for (const member of this.#books.members.values()) {
      if (member.service === name) this.#countInCrowd(member, this.#hostOf(member), 1)
    }
  }
}

/** Whether nothing changed by which crowds are told. */
function isAtOnePlace(a: Host, b: Host): boolean {
  return a.publicAddress === b.publicAddress && a.proofs === b.proofs
}

function limits(service: Service | undefined): boolean {
  return service !== undefined && isLimited(service)
}

function count(counts: Map<string, number>, key: string, by: 1 | -1): void {
  const next = (counts.get(key) ?? 0) + by
  if (next === 0) counts.delete(key)
  else counts.set(key, next)
}
