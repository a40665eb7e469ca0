// Near choice: the policy nearest for clients of whom only a cell of the map is known, over flat arrays.
//
// A service's members of one family are laid out once, when one of them changes; choosing among them then reads
// numbers and writes numbers. Invariant: it chooses what select chooses, in the same order and with the same scope
// (a test asks both a hundred thousand times), or says that it can't; select is what it is explained by. Covers
// services whose members are weighed one and all and of whom nobody turns clients away.

import { type Address, type Family, familyOf, IPV4_LOCALITY_BITS, IPV6_LOCALITY_BITS } from './address.ts'
import { hashClient, rendezvousScore } from './hash.ts'
import type { HostTable } from './host-table.ts'
import { TIE_SHARE } from './select.ts'
import type { ServingMember, ServingService } from './serving.ts'

/** No service without an index has more members. */
const MOST_MEMBERS = 512

/** For the choice at hand. */
const msOf = new Float64Array(MOST_MEMBERS)
const scoreOf = new Float64Array(MOST_MEMBERS)
const isTaken = new Uint8Array(MOST_MEMBERS)
/** The least RTT, and up to which one the clients are shared: in an array, since a number that is handed on may be put on the heap. */
const limits = new Float64Array(2)
const LEAST = 0
const SHARED = 1

/** What choose chose last, of whatever service; valid until the next. */
export const chosen = {
  /** Indexes into `members`, best first. */
  picks: new Int32Array(16),
  count: 0,
  scopeBits: 0,
}

export class NearChoice {
  /** In the order of their names, by which equals go. */
  readonly members: readonly ServingMember[]
  /** Of each the address that is served. */
  readonly addresses: readonly Address[]
  readonly #serving: ServingService
  readonly #hosts: HostTable
  readonly #rows: Int32Array
  readonly #hashes: Float64Array
  readonly #capacities: Float64Array
  /** Indexes of their hosts among the vantages as of #drawn. */
  readonly #vantages: Int32Array
  #drawn = -1

  /** null: the service is one for select. */
  static of(serving: ServingService, hosts: HostTable, family: Family): NearChoice | null {
    if (serving.index !== null || serving.service.policy !== 'nearest') return null
    const addressesOf = (member: ServingMember) => (family === 4 ? member.addresses4 : member.addresses6)
    const members = serving.members.filter((member) => member.isOffered && addressesOf(member).length > 0)
    if (members.length === 0 || members.length > MOST_MEMBERS) return null
    if (members.some(({ shedShare }) => shedShare > 0)) return null
    members.sort((a, b) => (a.name < b.name ? -1 : 1))
    const addresses = members.map((member) => addressesOf(member)[0]!)
    // Members that share an address are named once: seldom, and select's caller sees to it.
    if (new Set(addresses.map((address) => String.fromCharCode(...address))).size < members.length)
      return null
    return new NearChoice(serving, hosts, members, addresses)
  }

  private constructor(
    serving: ServingService,
    hosts: HostTable,
    members: readonly ServingMember[],
    addresses: readonly Address[],
  ) {
    this.#serving = serving
    this.#hosts = hosts
    this.members = members
    this.addresses = addresses
    this.#rows = Int32Array.from(members, ({ host }) => host)
    this.#hashes = Float64Array.from(members, ({ hash }) => hash)
    this.#capacities = Float64Array.from(members, ({ capacity }) => capacity)
    this.#vantages = new Int32Array(members.length)
  }

  /** Chooses for a client in a cell, whose scope is `scopeBits`. False: select must. Writes `chosen`. */
  choose(client: Address, cell: number, scopeBits: number): boolean {
    const { tieMs, minAddrs, maxAddrs } = this.#serving.service
    const size = this.members.length
    if (!this.#weigh(cell)) return false
    const sharedMs = limits[LEAST]! + tieMs
    limits[SHARED] = sharedMs
    let tied = 0
    for (let i = 0; i < size; i++) if (msOf[i]! <= sharedMs) tied++
    const first = tied === 1 ? this.#nearest() : this.#share(client)
    const bestMs = msOf[first]!
    const withinMs = bestMs + Math.max(tieMs, bestMs * TIE_SHARE)
    let ties = 0
    for (let i = 0; i < size; i++) if (msOf[i]! <= withinMs) ties++
    const count = Math.min(Math.max(ties, minAddrs), maxAddrs, size)
    this.#pick(first, count, tied)
    chosen.count = count
    const grainBits = familyOf(client) === 4 ? IPV4_LOCALITY_BITS : IPV6_LOCALITY_BITS
    chosen.scopeBits = tied > 1 ? Math.max(grainBits, scopeBits) : size > 1 ? scopeBits : 0
    return true
  }

  /** Each member's RTT into msOf, and the least of them into limits. False: one is not known. */
  #weigh(cell: number): boolean {
    const hosts = this.#hosts
    const vantageMs = hosts.mapMsFrom(cell)
    if (this.#drawn !== hosts.mapDrawn) this.#findVantages()
    let leastMs = Number.POSITIVE_INFINITY
    for (let i = 0; i < this.#rows.length; i++) {
      const vantage = this.#vantages[i]!
      const ms = vantage >= 0 ? vantageMs[vantage]! : hosts.mapMsAt(cell, this.#rows[i]!)
      if (Number.isNaN(ms)) return false
      msOf[i] = ms
      if (ms < leastMs) leastMs = ms
    }
    limits[LEAST] = leastMs
    return true
  }

  #findVantages(): void {
    this.#drawn = this.#hosts.mapDrawn
    for (let i = 0; i < this.#rows.length; i++) this.#vantages[i] = this.#hosts.vantageIndex(this.#rows[i]!)
  }

  #nearest(): number {
    let i = 0
    while (msOf[i] !== limits[LEAST]) i++
    return i
  }

  /** Scores for this client those who share the clients; the best of them. */
  #share(client: Address): number {
    const hash = hashClient(client)
    const limitMs = limits[SHARED]!
    let first = -1
    for (let i = 0; i < this.#rows.length; i++) {
      if (msOf[i]! > limitMs) continue
      scoreOf[i] = rendezvousScore(hash, this.#hashes[i]!, this.#capacities[i]!)
      if (first < 0 || scoreOf[i]! > scoreOf[first]!) first = i
    }
    return first
  }

  /** The first `count`: those that share the clients by score, then the others by RTT. */
  #pick(first: number, count: number, tied: number): void {
    const { picks } = chosen
    const limitMs = limits[SHARED]!
    picks[0] = first
    if (count === 1) return
    const size = this.#rows.length
    isTaken.fill(0, 0, size)
    isTaken[first] = 1
    for (let n = 1; n < count; n++) {
      let next = -1
      for (let i = 0; i < size; i++) {
        if (isTaken[i] === 1 || msOf[i]! <= limitMs !== n < tied) continue
        if (next < 0 || (n < tied ? scoreOf[i]! > scoreOf[next]! : msOf[i]! < msOf[next]!)) next = i
      }
      picks[n] = next
      isTaken[next] = 1
    }
  }
}
