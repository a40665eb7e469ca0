// Near choice: the policy nearest for clients of whom only a cell of the map is known, over flat arrays.
//
// A service's members of one family are laid out once, when one of them changes; choosing among them then reads
// numbers and writes numbers. Finds who contends (contenders.ts chooses): where each member is on a vantage of its
// own, along the cell's row of RTTs from the nearest on, which is done after a few however many there are; else all
// are weighed. Covers services whose members are weighed one and all and of whom nobody turns clients away.

import {
  type Address,
  copyWords,
  type Family,
  familyOf,
  IPV4_LOCALITY_BITS,
  IPV6_LOCALITY_BITS,
} from './address.ts'
import { MS_PER_UNIT } from './cell-rows.ts'
import { chooseAmong, chosen, contenders, MOST_CONTENDERS } from './contenders.ts'
import type { Service } from './directory.ts'
import type { HostTable } from './host-table.ts'
import type { ServingMember, ServingService } from './serving.ts'

/** So few are weighed sooner than looked for among all vantages. */
const FEW_MEMBERS = 12

/** Of all members, for the choice at hand. */
const msOf = new Float64Array(MOST_CONTENDERS)
/** Up to which RTT clients are shared, and that of the last one taken: in an array, since a number that is handed on may be put on the heap. */
const limits = new Float64Array(2)
const SHARED = 0
const LAST = 1

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
  readonly #service: Service
  readonly #rows: Int32Array
  readonly #hashes: Int32Array
  /** null: all are alike. */
  readonly #capacities: Float64Array | null
  #drawn = -1
  /** Each member is on a vantage of its own: by vantages, whether and which member it has. */
  #isMapped = false
  #hasMember = new Uint32Array(0)
  #memberAt = new Uint16Array(0)

  /** null: the service is one for select. */
  static of(
    { service, index, members: all }: ServingService,
    hosts: HostTable,
    family: Family,
  ): NearChoice | null {
    if (service.policy !== 'nearest' || index !== null || all.length > MOST_CONTENDERS) return null
    const addressesOf = (member: ServingMember) => (family === 4 ? member.addresses4 : member.addresses6)
    const members = all.filter((member) => member.isOffered && addressesOf(member).length > 0)
    if (members.length === 0 || members.some(({ shedShare }) => shedShare > 0)) return null
    members.sort((a, b) => (a.name < b.name ? -1 : 1))
    const addresses = members.map((member) => addressesOf(member)[0]!)
    // Members that share an address are named once: seldom, and left to who knows how.
    if (new Set(addresses.map((address) => String.fromCharCode(...address))).size < members.length)
      return null
    return new NearChoice(service, hosts, members, addresses, family)
  }

  private constructor(
    service: Service,
    hosts: HostTable,
    members: readonly ServingMember[],
    addresses: readonly Address[],
    family: Family,
  ) {
    this.ttlSec = service.ttlSec
    this.words = family === 4 ? 1 : 4
    this.#hosts = hosts
    this.#size = members.length
    this.#service = service
    this.#rows = Int32Array.from(members, ({ host }) => host)
    this.#hashes = Int32Array.from(members, ({ hash }) => hash)
    const isEven = members.every(({ capacity }) => capacity === members[0]!.capacity)
    this.#capacities = isEven ? null : Float64Array.from(members, ({ capacity }) => capacity)
    this.layout = new Int32Array(members.length * (1 + this.words))
    for (const [i, address] of addresses.entries())
      copyWords(address, this.words, this.layout, this.addressAt(i))
  }

  /** Where in the layout a member's address stands. */
  addressAt(member: number): number {
    return this.#size + member * this.words
  }

  /** Chooses for a client in a cell, whose scope is `scopeBits`. False: select must. Writes `chosen`. */
  choose(client: Address, cell: number, scopeBits: number): boolean {
    const row = this.#hosts.mapRow(cell)
    if (this.#drawn !== this.#hosts.mapDrawn) this.#findVantages()
    if (this.#isMapped) this.#gather(row)
    else if (!this.#weigh(cell, row)) return false
    if (!chooseAmong(client, this.#service, this.#hashes, this.#capacities)) return false
    chosen.scopeBits = this.#size > 1 ? sharedScope(client, scopeBits) : 0
    return true
  }

  /** Contenders, along the vantages from the nearest on. */
  #gather(row: number): void {
    const rows = this.#hosts.mapCells
    const sorted = rows.sortedChunkOf(row)
    const start = rows.startOf(row)
    const end = start + rows.width
    const { members, ms } = contenders
    const { tieMs, maxAddrs } = this.#service
    let sharedMs = 0
    let [count, tied] = [0, 0]
    for (
      let at = this.#nextMember(sorted, start, end);
      at < end;
      at = this.#nextMember(sorted, at + 1, end)
    ) {
      const ownMs = (sorted[at]! >>> 16) * MS_PER_UNIT
      if (count === 0) sharedMs = ownMs + tieMs
      if (ownMs <= sharedMs) tied++
      // Of equals all are needed, since their order hangs on their names.
      else if (count >= maxAddrs && ownMs > ms[count - 1]!) break
      members[count] = this.#memberAt[sorted[at]! & 0xffff]!
      ms[count++] = ownMs
    }
    contenders.count = count
    contenders.tied = tied
    this.#sortEquals()
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

  /** Those beyond who shares the clients: equals by their names. */
  #sortEquals(): void {
    const { members, ms, count, tied } = contenders
    for (let i = tied + 1; i < count; i++) {
      const member = members[i]!
      let at = i
      for (; at > tied && ms[at - 1] === ms[i] && members[at - 1]! > member; at--)
        members[at] = members[at - 1]!
      members[at] = member
    }
  }

  /** Contenders, by a look at all. False: the RTT to one is not known. */
  #weigh(cell: number, row: number): boolean {
    const hosts = this.#hosts
    const rtts = hosts.mapCells.chunkOf(row)
    const start = hosts.mapCells.startOf(row)
    const { layout } = this
    let leastMs = Number.POSITIVE_INFINITY
    for (let i = 0; i < this.#size; i++) {
      const vantage = layout[i]!
      const ms = vantage >= 0 ? rtts[start + vantage]! * MS_PER_UNIT : hosts.mapMsAt(cell, this.#rows[i]!)
      if (Number.isNaN(ms)) return false
      msOf[i] = ms
      if (ms < leastMs) leastMs = ms
    }
    limits[SHARED] = leastMs + this.#service.tieMs
    this.#takeNearest()
    return true
  }

  /** Of all that were weighed those who share the clients, then the nearest of the others. */
  #takeNearest(): void {
    const size = this.#size
    let count = 0
    for (let i = 0; i < size; i++) if (msOf[i]! <= limits[SHARED]!) this.#take(count++, i)
    contenders.tied = count
    const most = Math.min(size, this.#service.maxAddrs)
    limits[LAST] = limits[SHARED]!
    for (let last = size; count < most; count++) {
      last = this.#nextBehind(last)
      limits[LAST] = msOf[last]!
      this.#take(count, last)
    }
    contenders.count = count
  }

  /** The nearest of those beyond the last limit, or just there and of a later name than `last`. */
  #nextBehind(last: number): number {
    const size = this.#size
    let next = -1
    for (let i = 0; i < size; i++) {
      if (msOf[i]! < limits[LAST]! || (msOf[i] === limits[LAST] && i <= last)) continue
      if (next < 0 || msOf[i]! < msOf[next]!) next = i
    }
    return next
  }

  #take(place: number, member: number): void {
    contenders.members[place] = member
    contenders.ms[place] = msOf[member]!
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
}

/** The scope of what was chosen of several: where clients are shared, each /24 (/48) has its own. */
export function sharedScope(client: Address, scopeBits: number): number {
  if (contenders.tied <= 1) return scopeBits
  return Math.max(familyOf(client) === 4 ? IPV4_LOCALITY_BITS : IPV6_LOCALITY_BITS, scopeBits)
}
