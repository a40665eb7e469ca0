// Answer memo: what was answered to a client address lately, as numbers and addresses.
//
// For clients of whom more is known than a cell of the map, and services that are more than one look over their
// members: select decides, and what it decided is kept here for that very address as long as neither the service nor
// any distance changed. Fixed memory: each has two places where it may be kept, and others have them too. Looking up allocates nothing.

import { type Address, copyWords, type Family, familyOf, wordAt } from './address.ts'
import type { Basis } from './directory.ts'

/** Places. */
const BITS = 15
/** Addresses that an entry has room for. */
export const MEMO_ADDRESSES = 4
/** Words of an entry: four of the client, slot and family, scope, TTL, how many addresses, rank, and the addresses, four each. */
const KEY = 0
const SLOT = 4
const SCOPE = 5
const TTL = 6
const COUNT = 7
const RANK = 8
const ADDRESSES = 9
const STRIDE = ADDRESSES + 4 * MEMO_ADDRESSES

/** What select decided, as far as a plain answer needs it. */
export interface Decided {
  readonly addresses: readonly Address[]
  readonly ttlSec: number
  readonly scopeBits: number
  readonly basis: Basis
  /** See DnsFacts. */
  readonly rank: number
}

export class AnswerMemo {
  readonly words = new Int32Array(STRIDE << BITS)
  /** Of the service and of distances, when it was decided. */
  readonly #serviceSerials = new Float64Array(1 << BITS).fill(-1)
  readonly #distanceSerials = new Float64Array(1 << BITS).fill(-1)
  #turn = 0
  readonly #bases: Basis[] = new Array<Basis>(1 << BITS).fill('none')

  /** The place of what was decided for this client, by a service's slot; -1: nothing that still holds. */
  find(client: Address, slot: number, family: Family, serviceSerial: number, distanceSerial: number): number {
    const at = placeOf(client, slot, family)
    if (this.#isAt(at, client, slot, family, serviceSerial, distanceSerial)) return at
    return this.#isAt(at ^ 1, client, slot, family, serviceSerial, distanceSerial) ? at ^ 1 : -1
  }

  #isAt(
    at: number,
    client: Address,
    slot: number,
    family: Family,
    serviceSerial: number,
    distanceSerial: number,
  ): boolean {
    const { words } = this
    const from = STRIDE * at
    return (
      this.#serviceSerials[at] === serviceSerial &&
      this.#distanceSerials[at] === distanceSerial &&
      words[from + SLOT] === slotWord(slot, family) &&
      words[from + KEY] === wordAt(client, 0) &&
      words[from + KEY + 1] === wordAt(client, 4) &&
      words[from + KEY + 2] === wordAt(client, 8) &&
      words[from + KEY + 3] === wordAt(client, 12)
    )
  }

  /** Keeps at most MEMO_ADDRESSES addresses; the place. */
  keep(
    client: Address,
    slot: number,
    family: Family,
    serviceSerial: number,
    distanceSerial: number,
    decided: Decided,
  ): number {
    const at = this.#placeToGive(placeOf(client, slot, family), distanceSerial)
    const from = STRIDE * at
    copyWords(client, 4, this.words, from + KEY)
    this.words[from + SLOT] = slotWord(slot, family)
    this.words[from + SCOPE] = decided.scopeBits
    this.words[from + TTL] = decided.ttlSec
    this.words[from + COUNT] = decided.addresses.length
    this.words[from + RANK] = decided.rank
    for (const [i, address] of decided.addresses.entries())
      copyWords(address, 4, this.words, from + ADDRESSES + 4 * i)
    this.#bases[at] = decided.basis
    this.#serviceSerials[at] = serviceSerial
    this.#distanceSerials[at] = distanceSerial
    return at
  }

  /** Of the two places of one hash, one of which nothing holds any more, or else the one that was not given last. */
  #placeToGive(at: number, distanceSerial: number): number {
    if (this.#distanceSerials[at] !== distanceSerial) return at
    if (this.#distanceSerials[at ^ 1] !== distanceSerial) return at ^ 1
    this.#turn ^= 1
    return at ^ this.#turn
  }

  scopeBits(at: number): number {
    return this.words[STRIDE * at + SCOPE]!
  }

  ttlSec(at: number): number {
    return this.words[STRIDE * at + TTL]!
  }

  count(at: number): number {
    return this.words[STRIDE * at + COUNT]!
  }

  rank(at: number): number {
    return this.words[STRIDE * at + RANK]!
  }

  basis(at: number): Basis {
    return this.#bases[at]!
  }

  /** Where in `words` the last `count` of the four words of an address stand. */
  addressAt(at: number, index: number, count: 1 | 4): number {
    return STRIDE * at + ADDRESSES + 4 * index + 4 - count
  }
}

function slotWord(slot: number, family: Family): number {
  return 2 * slot + (family === 4 ? 0 : 1)
}

function placeOf(client: Address, slot: number, family: Family): number {
  let hash = slotWord(slot, family)
  for (let at = familyOf(client) === 4 ? 12 : 0; at < 16; at += 4)
    hash = Math.imul(hash ^ wordAt(client, at), 0x9e3779b1) ^ (hash >>> 15)
  return Math.imul(hash ^ (hash >>> 13), 0x85ebca6b) >>> (32 - BITS)
}
