// Near choice: the policy nearest for clients of whom only a cell of the map is known, over flat arrays.
//
// A service's members of one family are laid out once, when one of them changes; choosing among them then reads
// numbers and writes numbers. Invariant: it chooses what select chooses, in the same order and with the same scope
// (a test asks both a hundred thousand times), or says that it can't; select is what it is explained by. Covers
// services whose members are weighed one and all and of whom nobody turns clients away.

import {
  type Address,
  type Family,
  familyOf,
  IPV4_LOCALITY_BITS,
  IPV6_LOCALITY_BITS,
  wordAt,
} from './address.ts'
import { MS_PER_UNIT } from './cell-rows.ts'
import type { Service } from './directory.ts'
import { hashClient, rendezvousScore } from './hash.ts'
import type { HostTable } from './host-table.ts'
import { TIE_SHARE } from './select.ts'
import type { ServingMember, ServingService } from './serving.ts'

/** No service without an index has more members. */
const MOST_MEMBERS = 512
/** So few are weighed sooner than looked for among all vantages. */
const FEW_MEMBERS = 12

/** For the choice at hand. */
const msOf = new Float64Array(MOST_MEMBERS)
const scoreOf = new Float64Array(MOST_MEMBERS)
const isTaken = new Uint8Array(MOST_MEMBERS)
/** The two least RTTs, up to which one clients are shared, and up to which one others are as good: in an array, since a number that is handed on may be put on the heap. */
const limits = new Float64Array(4)
const LEAST = 0
const SECOND = 1
const SHARED = 2
const TIES = 3

/** What choose chose last, of whatever service; valid until the next. */
export const chosen = {
  /** Members by their number, best first. */
  picks: new Int32Array(16),
  count: 0,
  scopeBits: 0,
  /** The first one's place by RTT: 1 is the nearest. */
  rank: 0,
}

export class NearChoice {
  readonly ttlSec: number
  /** Of an address: 1 or 4. */
  readonly words: 1 | 4
  /**
   * What a choice reads, side by side: by member, in the order of their names, by which equals go, the index of its
   * host among the vantages (-1: it is none), as of #drawn; behind these the words of its address.
   */
  readonly layout: Int32Array
  readonly #hosts: HostTable
  readonly #size: number
  readonly #tieMs: number
  readonly #minAddrs: number
  readonly #maxAddrs: number
  readonly #rows: Int32Array
  readonly #hashes: Float64Array
  readonly #capacities: Float64Array
  #drawn = -1
  /** Each member is on a vantage of its own: by vantages, whether and which member it has. */
  #isMapped = false
  #hasMember = new Uint32Array(0)
  #memberAt = new Uint16Array(0)

  /** Over all members; null: the service is one for select. */
  static of(serving: ServingService, hosts: HostTable, family: Family): NearChoice | null {
    if (serving.index !== null || serving.members.length > MOST_MEMBERS) return null
    return NearChoice.among(serving.members, serving.service, hosts, family)
  }

  /** Over some members of a service, those that clients of one cell are to choose from; null: it is for select. */
  static among(
    some: readonly ServingMember[],
    service: Service,
    hosts: HostTable,
    family: Family,
  ): NearChoice | null {
    if (service.policy !== 'nearest') return null
    const addressesOf = (member: ServingMember) => (family === 4 ? member.addresses4 : member.addresses6)
    const members = some.filter((member) => member.isOffered && addressesOf(member).length > 0)
    if (members.length === 0 || members.some(({ shedShare }) => shedShare > 0)) return null
    members.sort((a, b) => (a.name < b.name ? -1 : 1))
    const addresses = members.map((member) => addressesOf(member)[0]!)
    // Members that share an address are named once: seldom, and left to who knows how.
    if (new Set(addresses.map((address) => String.fromCharCode(...address))).size < members.length)
      return null
    return new NearChoice(service, hosts, members, addresses, family)
  }

  private constructor(
    { ttlSec, tieMs, minAddrs, maxAddrs }: Service,
    hosts: HostTable,
    members: readonly ServingMember[],
    addresses: readonly Address[],
    family: Family,
  ) {
    this.ttlSec = ttlSec
    this.words = family === 4 ? 1 : 4
    this.#hosts = hosts
    this.#size = members.length
    this.#tieMs = tieMs
    this.#minAddrs = minAddrs
    this.#maxAddrs = maxAddrs
    this.#rows = Int32Array.from(members, ({ host }) => host)
    this.#hashes = Float64Array.from(members, ({ hash }) => hash)
    this.#capacities = Float64Array.from(members, ({ capacity }) => capacity)
    this.layout = new Int32Array(members.length * (1 + this.words))
    for (const [i, address] of addresses.entries())
      for (let word = 0; word < this.words; word++)
        this.layout[this.addressAt(i) + word] = wordAt(address, 16 - 4 * (this.words - word))
  }

  /** Where in the layout a member's address stands. */
  addressAt(member: number): number {
    return this.#size + member * this.words
  }

  /** Chooses for a client in a cell, whose scope is `scopeBits`. False: select must. Writes `chosen`. */
  choose(client: Address, cell: number, scopeBits: number): boolean {
    const row = this.#hosts.mapRow(cell)
    if (this.#drawn !== this.#hosts.mapDrawn) this.#findVantages()
    const isFound = this.#findTwo(row)
    if (!isFound && !this.#weigh(cell, row)) return false
    limits[SHARED] = limits[LEAST]! + this.#tieMs
    const isShared = limits[SECOND]! <= limits[SHARED]!
    // The two nearest are all that most need, and are found without a look at the others.
    if (isFound && (isShared || this.#maxAddrs > 2)) this.#weigh(cell, row)
    if (isShared) this.#chooseAmongEquals(client)
    else this.#chooseNearest()
    const grainBits = familyOf(client) === 4 ? IPV4_LOCALITY_BITS : IPV6_LOCALITY_BITS
    chosen.scopeBits = isShared ? Math.max(grainBits, scopeBits) : this.#size > 1 ? scopeBits : 0
    return true
  }

  /**
   * Goes through the vantages from the nearest on until two of them have members: into limits and picks. False: some
   * members are on no vantage, or which of several equals is second hangs on their names.
   */
  #findTwo(row: number): boolean {
    if (!this.#isMapped) return false
    const rows = this.#hosts.mapCells
    const sorted = rows.sortedChunkOf(row)
    const start = rows.startOf(row)
    const end = start + rows.width
    let at = this.#nextMember(sorted, start, end)
    const least = sorted[at]!
    chosen.picks[0] = this.#memberAt[least & 0xffff]!
    limits[LEAST] = (least >>> 16) * MS_PER_UNIT
    limits[SECOND] = Number.POSITIVE_INFINITY
    if (this.#size === 1) return true
    at = this.#nextMember(sorted, at + 1, end)
    const second = sorted[at]!
    chosen.picks[1] = this.#memberAt[second & 0xffff]!
    limits[SECOND] = (second >>> 16) * MS_PER_UNIT
    at = this.#size === 2 ? end : this.#nextMember(sorted, at + 1, end)
    return at === end || sorted[at]! >>> 16 > second >>> 16
  }

  /** Where the next vantage with a member stands; `end`: there is none. */
  #nextMember(sorted: Uint32Array, from: number, end: number): number {
    const hasMember = this.#hasMember
    let at = from
    for (; at < end; at++) {
      const vantage = sorted[at]! & 0xffff
      if ((hasMember[vantage >> 5]! & (1 << (vantage & 31))) !== 0) break
    }
    return at
  }

  /** Each member's RTT into msOf, and the two least of them into limits and picks. False: one is not known. */
  #weigh(cell: number, row: number): boolean {
    const hosts = this.#hosts
    const rtts = hosts.mapCells.chunkOf(row)
    const start = hosts.mapCells.startOf(row)
    const { layout } = this
    const size = this.#size
    let [leastMs, secondMs] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]
    let [nearest, next] = [0, 0]
    for (let i = 0; i < size; i++) {
      const vantage = layout[i]!
      const ms = vantage >= 0 ? rtts[start + vantage]! * MS_PER_UNIT : hosts.mapMsAt(cell, this.#rows[i]!)
      if (Number.isNaN(ms)) return false
      msOf[i] = ms
      if (ms >= secondMs) continue
      if (ms < leastMs) {
        secondMs = leastMs
        next = nearest
        leastMs = ms
        nearest = i
      } else {
        secondMs = ms
        next = i
      }
    }
    limits[LEAST] = leastMs
    limits[SECOND] = secondMs
    chosen.picks[0] = nearest
    chosen.picks[1] = next
    return true
  }

  /** The nearest, which shares its clients with nobody, and those after it. */
  #chooseNearest(): void {
    this.#limitTies(limits[LEAST]!)
    const isAlone = limits[SECOND]! > limits[TIES]!
    // How many are as good need not be known where no more than two are named.
    const ties = isAlone ? 1 : this.#maxAddrs <= 2 ? 2 : this.#countUpTo(TIES)
    this.#take(ties, 1)
    chosen.rank = 1
  }

  /** Of those that share the clients, the one whose this client is. */
  #chooseAmongEquals(client: Address): void {
    const first = this.#share(client)
    chosen.picks[0] = first
    this.#limitTies(msOf[first]!)
    const tied = this.#countUpTo(SHARED)
    this.#take(this.#countUpTo(TIES), tied)
    let nearer = 0
    for (let i = 0; i < this.#size; i++) if (msOf[i]! < msOf[first]!) nearer++
    chosen.rank = 1 + nearer
  }

  /** Up to which RTT others are as good as one. */
  #limitTies(bestMs: number): void {
    limits[TIES] = bestMs + Math.max(this.#tieMs, bestMs * TIE_SHARE)
  }

  #countUpTo(limit: number): number {
    const limitMs = limits[limit]!
    let count = 0
    for (let i = 0; i < this.#size; i++) if (msOf[i]! <= limitMs) count++
    return count
  }

  /** Fills the picks up, where the first, and where `tied` is 1 the second as well, are known. */
  #take(ties: number, tied: number): void {
    const count = Math.min(Math.max(ties, this.#minAddrs), this.#maxAddrs, this.#size)
    chosen.count = count
    if (count > (tied === 1 ? 2 : 1)) this.#pick(count, tied)
  }

  #findVantages(): void {
    this.#drawn = this.#hosts.mapDrawn
    for (let i = 0; i < this.#size; i++) this.layout[i] = this.#hosts.vantageIndex(this.#rows[i]!)
    const vantages = this.layout.subarray(0, this.#size)
    this.#isMapped =
      this.#size > FEW_MEMBERS && !vantages.includes(-1) && new Set(vantages).size === this.#size
    if (this.#isMapped) this.#mapVantages(vantages)
  }

  #mapVantages(vantages: Int32Array): void {
    const { width } = this.#hosts.mapCells
    this.#hasMember = new Uint32Array((width + 31) >> 5)
    this.#memberAt = new Uint16Array(width)
    for (const [i, vantage] of vantages.entries()) {
      this.#hasMember[vantage >> 5]! |= 1 << (vantage & 31)
      this.#memberAt[vantage] = i
    }
  }

  /** Scores for this client those who share the clients; the best of them. */
  #share(client: Address): number {
    const hash = hashClient(client)
    const limitMs = limits[SHARED]!
    let first = -1
    for (let i = 0; i < this.#size; i++) {
      if (msOf[i]! > limitMs) continue
      scoreOf[i] = rendezvousScore(hash, this.#hashes[i]!, this.#capacities[i]!)
      if (first < 0 || scoreOf[i]! > scoreOf[first]!) first = i
    }
    return first
  }

  /** The first `count`: those that share the clients by score, then the others by RTT. */
  #pick(count: number, tied: number): void {
    const { picks } = chosen
    const limitMs = limits[SHARED]!
    const size = this.#size
    isTaken.fill(0, 0, size)
    isTaken[picks[0]!] = 1
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
