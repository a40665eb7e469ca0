// What a choice reads of a large service's members, side by side by their numbers: hashes, capacities, addresses, hosts.
//
// Follows the changes of the member index; after follow() the columns say what making them anew would, of all members
// that a choice may name. Of one family. Pure.

import { copyWords, type Family } from './address.ts'
import type { ChangeRing } from './change-ring.ts'
import type { ServingMember } from './serving.ts'

export class MemberColumns {
  /** Of an address: 1 or 4. */
  readonly words: 1 | 4
  hashes = new Int32Array(0)
  /** As of all; null: all are alike. */
  capacities: Float64Array | null = null
  /** `words` of each. */
  addresses = new Int32Array(0)
  /** Of their hosts. */
  rows = new Int32Array(0)
  /** 1: it turns some clients away. */
  areShedding = new Uint8Array(0)
  readonly #members: readonly ServingMember[]
  readonly #family: Family
  readonly #changes: ChangeRing
  /** Of the changes, those before this one; null: none was read. */
  #seen: number | null = null
  #ownCapacities = new Float64Array(0)
  #usualCapacity = 1

  constructor(members: readonly ServingMember[], family: Family, changes: ChangeRing) {
    this.#members = members
    this.#family = family
    this.#changes = changes
    this.words = family === 4 ? 1 : 4
  }

  follow(): void {
    const { count } = this.#changes
    if (this.#seen === count) return
    if (this.#seen === null || !this.#changes.isKnownSince(this.#seen) || !this.#hasRoom) this.#readAll()
    else
      for (let change = this.#seen; change !== count; change = (change + 1) | 0)
        this.#read(this.#changes.idOf(change))
    this.#seen = count
  }

  get #hasRoom(): boolean {
    return this.#members.length <= this.hashes.length
  }

  #readAll(): void {
    // With room for some more, so that not each newcomer makes them anew.
    const room = Math.ceil(1.25 * this.#members.length)
    this.hashes = new Int32Array(room)
    this.addresses = new Int32Array(this.words * room)
    this.rows = new Int32Array(room)
    this.areShedding = new Uint8Array(room)
    this.#ownCapacities = new Float64Array(room)
    this.capacities = null
    this.#usualCapacity = this.#members[0]?.capacity ?? 1
    for (let id = 0; id < this.#members.length; id++) this.#read(id)
  }

  #read(id: number): void {
    const member = this.#members[id]
    if (member === undefined) return
    this.hashes[id] = member.hash
    this.rows[id] = member.host
    this.areShedding[id] = member.shedShare > 0 ? 1 : 0
    this.#ownCapacities[id] = member.capacity
    if (member.capacity !== this.#usualCapacity) this.capacities = this.#ownCapacities
    const address = (this.#family === 4 ? member.addresses4 : member.addresses6)[0]
    const at = id * this.words
    if (address === undefined) this.addresses.fill(0, at, at + this.words)
    else copyWords(address, this.words, this.addresses, at)
  }
}
