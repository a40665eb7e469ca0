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

/** Members by their numbers with their RTTs in units, nearest first, and how many of the first share the clients. */
interface Weighed {
  readonly ids: Int32Array
  readonly units: Int32Array
  readonly tied: number
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
      if (found.count < count) return this.#keep(cell, Number.POSITIVE_INFINITY, NOBODY)
      const weighed = this.#weigh(cell, found.ids, count)
      // Somebody farther is known than who shares the clients, or more are not to be had.
      if (tieMs === 0 || weighed.tied < count || count === MAX_CANDIDATES)
        return this.#keep(cell, found.distances[count - 1]! + REACH_SLACK, weighed)
    }
  }

  #weigh(cell: number, ids: Int32Array, count: number): Weighed {
    const { hosts } = this.#tables
    const { rows } = this.#columns
    const keys = new Float64Array(count)
    for (let i = 0; i < count; i++) keys[i] = hosts.mapUnitsAt(cell, rows[ids[i]!]!) * MAX_CANDIDATES + i
    keys.sort()
    const units = Int32Array.from(keys, (key) => Math.floor(key / MAX_CANDIDATES))
    const sharedMs = units[0]! * MS_PER_UNIT + this.#serving.service.tieMs
    let tied = 1
    while (tied < count && units[tied]! * MS_PER_UNIT <= sharedMs) tied++
    return { ids: Int32Array.from(keys, (key) => ids[key % MAX_CANDIDATES]!), units, tied }
  }

  #keep(cell: number, reach: number, weighed: Weighed): number {
    const { tied, units } = weighed
    const count = Math.max(tied, Math.min(this.#serving.service.maxAddrs, units.length))
    if (count > tied) this.#sortEquals(weighed, count)
    const isKept = count > 0 && count <= MOST_CONTENDERS && this.#isPlain(weighed, count)
    const list = this.#lists.add(this.#keeper, cell, HEAD_WORDS + (isKept ? 2 * count - tied : 0))
    const { words, floats } = this.#lists
    words[list + AS_OF] = this.#index.changes.count
    floats[list + REACH] = reach
    floats.set(globeOf(middleOf(cell)).slice(0, 3), list + POINT)
    words[list + COUNT] = isKept ? count : 0
    words[list + TIED] = tied
    words[list + LEAST] = units[0] ?? 0
    if (isKept) this.#write(list + HEAD_WORDS, weighed, count)
    return list
  }

  /** Whether a list of the first `count` can say who is chosen: nobody turns clients away, and no two have one address. */
  #isPlain({ ids, units, tied }: Weighed, count: number): boolean {
    const { areShedding, addresses, words } = this.#columns
    if (units[tied - 1]! - units[0]! > MOST_UNITS_MORE) return false
    if (ids.some((id) => id > MOST_ID || areShedding[id] === 1)) return false
    const named = new Set<number | string>()
    for (let i = 0; i < count; i++) {
      const at = ids[i]! * words
      named.add(words === 1 ? addresses[at]! : addresses.subarray(at, at + words).join())
    }
    return named.size === count
  }

  #write(list: number, { ids, units, tied }: Weighed, count: number): void {
    const { words } = this.#lists
    let at = list
    for (let i = 0; i < tied; i++) words[at++] = ids[i]! | ((units[i]! - units[0]!) << ID_BITS)
    for (let i = tied; i < count; i++) {
      words[at++] = ids[i]!
      words[at++] = units[i]!
    }
  }

  /** Of those who don't share the clients, equals by their names, as far as they are among the first `count`. */
  #sortEquals({ ids, units, tied }: Weighed, count: number): void {
    let end = count
    while (end < units.length && units[end] === units[count - 1]) end++
    const { members } = this.#serving
    const rest = Array.from({ length: end - tied }, (_, i) => ({
      id: ids[tied + i]!,
      units: units[tied + i]!,
    }))
    rest.sort((a, b) => a.units - b.units || (members[a.id]!.name < members[b.id]!.name ? -1 : 1))
    for (const [i, { id }] of rest.entries()) ids[tied + i] = id
  }
}

const NOBODY: Weighed = { ids: new Int32Array(0), units: new Int32Array(0), tied: 0 }
