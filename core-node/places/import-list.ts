// What a file of places says, in columns: a million entries as objects would take some hundred megabytes.
//
// Keeps the order of the file. Knows of the order of addresses whether it is that, and finds prefixes that
// stand there twice. Nothing is checked here: that is the reader's.

import type { Prefix } from '../../resolver/address.ts'
import type { Place } from '../../resolver/directory.ts'

export interface ImportEntry {
  readonly prefix: Prefix
  readonly place: Place
  /** The network that announces it, 1..2^32-1; null: not told. */
  readonly asn: number | null
  /** ISO 3166-1, two capital letters; null: not told. */
  readonly country: string | null
}

/** A prefix that stands in the file again. */
export interface Repetition {
  readonly index: number
  readonly firstIndex: number
}

const FIRST_CAPACITY = 1024
const WORDS = 4

export class ImportList {
  #words = new Uint32Array(WORDS * FIRST_CAPACITY)
  #lengths = new Uint8Array(FIRST_CAPACITY)
  #places = new Float64Array(3 * FIRST_CAPACITY)
  #asns = new Uint32Array(FIRST_CAPACITY)
  #countries = new Uint16Array(FIRST_CAPACITY)
  #lines = new Uint32Array(FIRST_CAPACITY)
  #length = 0
  #isInOrder = true

  get length(): number {
    return this.#length
  }

  /** `line`: where it stands in the file, for whoever must tell. */
  push({ prefix, place, asn, country }: ImportEntry, line: number): void {
    const i = this.#length
    if (i === this.#lengths.length) this.#grow()
    const view = new DataView(prefix.address.buffer, prefix.address.byteOffset)
    for (let word = 0; word < WORDS; word++) this.#words[WORDS * i + word] = view.getUint32(4 * word)
    this.#lengths[i] = prefix.bits
    this.#places[3 * i] = place.lat
    this.#places[3 * i + 1] = place.lon
    this.#places[3 * i + 2] = place.accuracyKm
    this.#asns[i] = asn ?? 0
    this.#countries[i] = country === null ? 0 : (country.charCodeAt(0) << 8) | country.charCodeAt(1)
    this.#lines[i] = line
    if (i > 0 && this.#compare(i - 1, i) >= 0) this.#isInOrder = false
    this.#length++
  }

  at(i: number): ImportEntry {
    const address = new Uint8Array(16)
    const view = new DataView(address.buffer)
    for (let word = 0; word < WORDS; word++) view.setUint32(4 * word, this.#words[WORDS * i + word]!)
    const country = this.#countries[i]!
    return {
      prefix: { address, bits: this.#lengths[i]! },
      place: {
        lat: this.#places[3 * i]!,
        lon: this.#places[3 * i + 1]!,
        accuracyKm: this.#places[3 * i + 2]!,
      },
      asn: this.#asns[i] === 0 ? null : this.#asns[i]!,
      country: country === 0 ? null : String.fromCharCode(country >> 8, country & 0xff),
    }
  }

  lineOf(i: number): number {
    return this.#lines[i]!
  }

  *[Symbol.iterator](): Generator<ImportEntry> {
    for (let i = 0; i < this.#length; i++) yield this.at(i)
  }

  /** Indices by first address, shorter prefixes first, equal ones as they stand. */
  order(): Uint32Array {
    const order = Uint32Array.from({ length: this.#length }, (_, i) => i)
    return this.#isInOrder ? order : order.sort((a, b) => this.#compare(a, b) || a - b)
  }

  /** Prefixes that stood there before. */
  repetitions(): Repetition[] {
    if (this.#isInOrder) return []
    const order = this.order()
    const found: Repetition[] = []
    let first = order[0]!
    for (const index of order.subarray(1)) {
      if (this.#compare(first, index) === 0) found.push({ index, firstIndex: first })
      else first = index
    }
    return found
  }

  /** Takes entries out; the others keep their order. */
  remove(indices: ReadonlySet<number>): void {
    const kept = new ImportList()
    for (let i = 0; i < this.#length; i++) if (!indices.has(i)) kept.push(this.at(i), this.#lines[i]!)
    this.#words = kept.#words
    this.#lengths = kept.#lengths
    this.#places = kept.#places
    this.#asns = kept.#asns
    this.#countries = kept.#countries
    this.#lines = kept.#lines
    this.#length = kept.#length
    this.#isInOrder = kept.#isInOrder
  }

  #compare(a: number, b: number): number {
    for (let word = 0; word < WORDS; word++) {
      const difference = this.#words[WORDS * a + word]! - this.#words[WORDS * b + word]!
      if (difference !== 0) return difference
    }
    return this.#lengths[a]! - this.#lengths[b]!
  }

  #grow(): void {
    const capacity = 2 * this.#lengths.length
    const widen = <T extends Uint8Array | Uint16Array | Uint32Array | Float64Array>(from: T, to: T): T => {
      to.set(from)
      return to
    }
    this.#words = widen(this.#words, new Uint32Array(WORDS * capacity))
    this.#lengths = widen(this.#lengths, new Uint8Array(capacity))
    this.#places = widen(this.#places, new Float64Array(3 * capacity))
    this.#asns = widen(this.#asns, new Uint32Array(capacity))
    this.#countries = widen(this.#countries, new Uint16Array(capacity))
    this.#lines = widen(this.#lines, new Uint32Array(capacity))
  }
}
