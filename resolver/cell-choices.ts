// Cell choices: of a large service the members that clients of one cell of the map are to choose from, laid out.
//
// A memo of what candidates finds for them, as long as the service and the map stay as they are. Only for cells whose
// candidates are the same for all clients: where select would look for more of them for one client than for another,
// or ask by whom it is asked, nothing is kept but that it is so. How much all services keep is their owner's to bound.
// Looking up allocates nothing.

import type { Family } from './address.ts'
import { ANY_ASK } from './ask.ts'
import { MARGIN, marksOf } from './candidates.ts'
import { CONSIDERED_MEMBERS } from './dns-records.ts'
import { middleOf } from './map-model.ts'
import { NearChoice } from './near-choice.ts'
import { TIE_SHARE } from './select.ts'
import type { ServingService } from './serving.ts'
import type { Tables } from './tables.ts'

export class CellChoices {
  readonly #tables: Tables
  readonly #serving: ServingService
  readonly #onKept: () => void
  /** By cell and family; null: for select. */
  readonly #choices = new Map<number, NearChoice | null>()
  #modelSerial = -1
  #mapSerial = -1

  /** `onKept`: told before one more is kept. */
  constructor(tables: Tables, serving: ServingService, onKept: () => void) {
    this.#tables = tables
    this.#serving = serving
    this.#onKept = onKept
  }

  /** null: select must choose. */
  find(cell: number, family: Family): NearChoice | null {
    const { modelSerial, mapSerial } = this.#tables.hosts
    if (this.#modelSerial !== modelSerial || this.#mapSerial !== mapSerial)
      this.#begin(modelSerial, mapSerial)
    const key = 2 * cell + (family === 4 ? 0 : 1)
    let choice = this.#choices.get(key)
    if (choice === undefined) {
      this.#onKept()
      choice = this.#lookAround(cell, family)
      this.#choices.set(key, choice)
    }
    return choice
  }

  forget(): void {
    this.#choices.clear()
  }

  #begin(modelSerial: number, mapSerial: number): void {
    this.#modelSerial = modelSerial
    this.#mapSerial = mapSerial
    this.#choices.clear()
  }

  #lookAround(cell: number, family: Family): NearChoice | null {
    const { index, service } = this.#serving
    if (index === null) return null
    const ask = { ...ANY_ASK, family, limit: CONSIDERED_MEMBERS }
    const spot = { coordinate: null, place: { ...middleOf(cell), accuracyKm: 0 }, minMs: 0, maxMs: ask.maxMs }
    const wanted = { where: {}, marks: marksOf(ask), barred: NOBODY, fits: () => true, isMore: false }
    const count = ask.limit + MARGIN
    const members = index.near(spot, count, wanted)
    if (members.length !== count) return null
    const { hosts } = this.#tables
    const weighed = members.map((member) => ({ member, ms: hosts.mapMsAt(cell, member.host) }))
    weighed.sort((a, b) => a.ms - b.ms)
    const sharedMs = weighed[0]!.ms + service.tieMs
    // Whoever of the equals is chosen, somebody is farther than its equals: more members could change nothing.
    if (!(weighed.at(-1)!.ms > sharedMs + service.tieMs)) return null
    const withinMs = sharedMs + Math.max(service.tieMs, sharedMs * TIE_SHARE)
    // Who is farther than all that may be named is of no use; but where there is one more, it matters who asks.
    const limitMs = Math.max(withinMs, weighed[Math.max(2, service.maxAddrs) - 1]!.ms)
    const contenders = weighed.filter(({ ms }) => ms <= limitMs).map(({ member }) => member)
    return NearChoice.among(contenders, service, hosts, family)
  }
}

const NOBODY: ReadonlySet<number> = new Set()
