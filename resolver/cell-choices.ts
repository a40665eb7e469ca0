// Cell choices: the policy nearest in a large service for clients of whom only a cell of the map is known.
//
// Whom select would weigh for such clients, and of these those who contend, is worked out once for each cell and kept
// as a list of numbers (cell-lists.ts), which choosing then reads (contenders.ts). Invariant: it chooses what select
// does, or says that it can't. A list holds until a member changes that is no farther from the cell than those who
// were weighed, or the map does; what changes elsewhere costs a look at the change. Of one family. Finding allocates
// nothing unless a list must be made.

import type { Address, Family } from './address.ts'
import { ANY_ASK } from './ask.ts'
import { MARGIN, MAX_CANDIDATES, marksOf } from './candidates.ts'
import { type CellLists, NO_LIST } from './cell-lists.ts'
import { MS_PER_UNIT } from './cell-rows.ts'
import { chooseAmong, chosen, contenders, MOST_CONTENDERS } from './contenders.ts'
import { CONSIDERED_MEMBERS } from './dns-records.ts'
import { middleOf } from './map-model.ts'
import { MemberColumns } from './member-columns.ts'
import { globeOf, type MemberIndex } from './member-index.ts'
import { sharedScope } from './near-choice.ts'
import { REACH_GROWTH } from './select.ts'
import type { ServingService } from './serving.ts'
import type { Tables } from './tables.ts'

/**
 * Words of a list: as of which change it is known to hold; as floats, how far around which point of the globe changes
 * matter; how many contend (0: it is for select), and how many of them share the clients; the least RTT in units. Then
 * those who share the clients, a word each: number, and by how much its RTT is longer; then others, two words each.
 */
const AS_OF = 0
const REACH = 1
const POINT = 2
const COUNT = 5
const TIED = 6
const LEAST = 7
const HEAD_WORDS = 8
const ID_BITS = 21
const MOST_ID = 2 ** ID_BITS - 1
const MOST_UNITS_MORE = 2 ** (32 - ID_BITS) - 1
/** Points are kept as 32-bit floats: so much farther still counts as within reach. Some meters. */
const REACH_SLACK = 1e-3

/** Weighed members by their numbers, with their RTTs in units. */
interface Weighed {
  readonly ids: Int32Array
  readonly units: Float64Array
  /** Places in both, in order: by RTT, equal ones by name. */
  readonly order: readonly number[]
}

export class CellChoices {
  readonly ttlSec: number
  readonly #tables: Tables
  readonly #serving: ServingService
  readonly #index: MemberIndex
  readonly #lists: CellLists
  readonly #columns: MemberColumns
  readonly #ask: typeof ANY_ASK
  #keeper = 0
  #modelSerial = -1
  #mapSerial = -1

  /** null: the service is one for select, or for near-choice.ts. */
  static of(tables: Tables, serving: ServingService, lists: CellLists, family: Family): CellChoices | null {
    if (serving.index === null || serving.service.policy !== 'nearest') return null
    return new CellChoices(tables, serving, serving.index, lists, family)
  }

  private constructor(
    tables: Tables,
    serving: ServingService,
    index: MemberIndex,
    lists: CellLists,
    family: Family,
  ) {
    this.ttlSec = serving.service.ttlSec
    this.#tables = tables
    this.#serving = serving
    this.#index = index
    this.#lists = lists
    this.#columns = new MemberColumns(serving.members, family, index.changes)
    this.#ask = { ...ANY_ASK, family, limit: CONSIDERED_MEMBERS }
  }

  /** Where the words of addresses are. */
  get layout(): Int32Array {
    return this.#columns.addresses
  }

  addressAt(member: number): number {
    return member * this.#columns.words
  }

  /** Chooses for a client in a cell, whose scope is `scopeBits`. False: select must. Writes `chosen`. */
  choose(client: Address, cell: number, scopeBits: number): boolean {
    const { modelSerial, mapSerial } = this.#tables.hosts
    if (this.#modelSerial !== modelSerial || this.#mapSerial !== mapSerial)
      this.#begin(modelSerial, mapSerial)
    const columns = this.#columns
    columns.follow()
    const kept = this.#lists.find(this.#keeper, cell)
    const list = kept !== NO_LIST && this.#isCurrent(kept) ? kept : this.#make(cell)
    if (!this.#open(list)) return false
    if (!chooseAmong(client, this.#serving.service, columns.hashes, columns.capacities)) return false
    chosen.scopeBits = sharedScope(client, scopeBits)
    return true
  }

  /** What was kept is nobody's from now on. */
  #begin(modelSerial: number, mapSerial: number): void {
    this.#modelSerial = modelSerial
    this.#mapSerial = mapSerial
    this.#keeper = this.#lists.newKeeper()
  }

  #isCurrent(list: number): boolean {
    const { words, floats } = this.#lists
    const { changes } = this.#index
    const asOf = words[list + AS_OF]!
    if (asOf === changes.count) return true
    if (!changes.isKnownSince(asOf)) return false
    if (changes.isTouched(asOf, floats, list + POINT, floats[list + REACH]!)) return false
    words[list + AS_OF] = changes.count
    return true
  }

  /** Its members become the contenders. False: it is for select. */
  #open(list: number): boolean {
    const { words } = this.#lists
    const count = words[list + COUNT]!
    if (count === 0) return false
    const tied = words[list + TIED]!
    const least = words[list + LEAST]!
    const { members, ms } = contenders
    let at = list + HEAD_WORDS
    for (let i = 0; i < tied; i++, at++) {
      const word = words[at]!
      members[i] = word & MOST_ID
      ms[i] = (least + (word >>> ID_BITS)) * MS_PER_UNIT
    }
    for (let i = tied; i < count; i++, at += 2) {
      members[i] = words[at]!
      ms[i] = words[at + 1]! * MS_PER_UNIT
    }
    contenders.count = count
    contenders.tied = tied
    return true
  }

  // Making a list.

  /** Looks as far around the cell as select would; where the list begins. */
  #make(cell: number): number {
    const { tieMs } = this.#serving.service
    const marks = marksOf(this.#ask)
    for (let reach = 1; ; reach *= REACH_GROWTH) {
      const count = Math.min(MAX_CANDIDATES, reach * (this.#ask.limit + MARGIN))
      const found = this.#index.nearPlace(middleOf(cell), count, marks)
      // Where there are no more on the map, others are weighed, and not the same ones for each client.
      if (found.count < count) return this.#keep(cell, Number.POSITIVE_INFINITY, null)
      const farthest = found.distances[count - 1]!
      const weighed = this.#weigh(cell, found.ids.slice(0, count))
      const units = (place: number) => weighed.units[weighed.order[place]!]!
      const isEnough =
        tieMs === 0 ||
        units(count - 1) * MS_PER_UNIT > units(0) * MS_PER_UNIT + tieMs ||
        count === MAX_CANDIDATES
      if (isEnough) return this.#keep(cell, farthest + REACH_SLACK, weighed)
    }
  }

  #weigh(cell: number, ids: Int32Array): Weighed {
    const { hosts } = this.#tables
    const { members } = this.#serving
    const units = Float64Array.from(ids, (id) => hosts.mapUnitsAt(cell, members[id]!.host))
    const order = Array.from(ids.keys()).sort(
      (a, b) => units[a]! - units[b]! || (members[ids[a]!]!.name < members[ids[b]!]!.name ? -1 : 1),
    )
    return { ids, units, order }
  }

  #keep(cell: number, reach: number, weighed: Weighed | null): number {
    const { tieMs, maxAddrs } = this.#serving.service
    const order = weighed?.order ?? []
    const least = weighed?.units[order[0]!] ?? 0
    const sharedMs = least * MS_PER_UNIT + tieMs
    let tied = order.findIndex((place) => weighed!.units[place]! * MS_PER_UNIT > sharedMs)
    if (tied < 0) tied = order.length
    const count = Math.max(tied, Math.min(maxAddrs, order.length))
    const isKept = weighed !== null && this.#isPlain(weighed, count, tied)
    const list = this.#lists.add(this.#keeper, cell, HEAD_WORDS + (isKept ? 2 * count - tied : 0))
    const { words, floats } = this.#lists
    words[list + AS_OF] = this.#index.changes.count
    floats[list + REACH] = reach
    const point = globeOf(middleOf(cell))
    for (let axis = 0; axis < 3; axis++) floats[list + POINT + axis] = point[axis]!
    words[list + COUNT] = isKept ? count : 0
    words[list + TIED] = tied
    words[list + LEAST] = least
    if (isKept) this.#write(list, weighed, count, tied)
    return list
  }

  /** Whether a list can say who is chosen: nobody turns clients away, and none of those who may be named is like another. */
  #isPlain({ ids, units, order }: Weighed, count: number, tied: number): boolean {
    const { members } = this.#serving
    if (count > MOST_CONTENDERS || units[order[tied - 1]!]! - units[order[0]!]! > MOST_UNITS_MORE)
      return false
    if (ids.some((id) => id > MOST_ID || members[id]!.shedShare > 0)) return false
    const { addresses, words } = this.#columns
    const named = order.slice(0, count).map((place) => {
      const at = ids[place]! * words
      return addresses.subarray(at, at + words).join()
    })
    return new Set(named).size === count
  }

  #write(list: number, { ids, units, order }: Weighed, count: number, tied: number): void {
    const { words } = this.#lists
    let at = list + HEAD_WORDS
    for (let i = 0; i < count; i++) {
      const place = order[i]!
      if (i < tied) words[at++] = ids[place]! | ((units[place]! - units[order[0]!]!) << ID_BITS)
      else {
        words[at++] = ids[place]!
        words[at++] = units[place]!
      }
    }
  }
}
