// Localities as rows: what locate reads of each, and which row is whose.
//
// Those that a start found lie packed in the first rows and are compiled when somebody first looks at one; of too many
// of these, the first are forgotten again. All others are compiled as they come. Invariant: a row's number stays
// the same as long as its locality does; host rows are kept by rows that are compiled, and by these alone.
// Written by Tables alone.

import { type Prefix, parsePrefix } from './address.ts'
import type { Belief } from './belief.ts'
import type { Coordinate, Evidence, LocalityRecord, Place } from './directory.ts'
import type { HostTable } from './host-table.ts'
import type { PackedLocalities } from './packed-localities.ts'
import { isOwnEvidence, type Relative } from './relatives.ts'

/** A prefix's place in the coordinate space, and what is believed of its RTTs with one place on the map. */
export interface LocalityMemo {
  /** Of the hosts' distances and of the panel when it was worked out. */
  modelSerial: number
  panelSerial: number
  place: Place | null
  coordinate: Coordinate | null
  belief: Belief | null
}

/** A locality as locate reads it: evidence in columns, hosts by row. */
export interface LocalityRow {
  readonly record: LocalityRecord
  readonly prefix: Prefix
  readonly evidenceHosts: Int32Array
  readonly evidenceMs: Float64Array
  readonly evidence: readonly Evidence[]
  /** What locate last worked out for this row, from the coordinates of that serial: a memo, never truth. */
  readonly memo: LocalityMemo
}

/** The RTT that a host itself measured to a locality, ms; NaN: it did not. */
export function measuredMs({ evidence, evidenceHosts }: LocalityRow, host: number): number {
  const at = evidenceHosts.indexOf(host)
  if (at < 0) return Number.NaN
  const seen = evidence[at]!
  return isOwnEvidence(seen) ? seen.rttMs : Number.NaN
}

/** Packed localities that stay compiled once they were looked at: about a kilobyte each. */
export const MAX_UNPACKED = 200_000

export class LocalityRows {
  readonly #hosts: HostTable
  readonly #isHeard: (prefix: string) => boolean
  /** null: nothing, or packed and not compiled. */
  readonly #rows: (LocalityRow | null)[] = []
  /** By prefix text, but for those that are packed. */
  readonly #rowOf = new Map<string, number>()
  readonly #freeRows: number[] = []
  #packed: PackedLocalities | null = null
  /** 1: what is packed is what this row is. */
  #isPacked = new Uint8Array(0)
  /** Packed rows that were compiled, one after the other, from which place on they still are, and how many may be. */
  readonly #unpacked: number[] = []
  #oldest = 0
  #maxUnpacked = 0

  /** `isHeard`: whom many ask for, so that it is not forgotten. */
  constructor(hosts: HostTable, isHeard: (prefix: string) => boolean) {
    this.#hosts = hosts
    this.#isHeard = isHeard
  }

  at(row: number): LocalityRow | null {
    return this.#rows[row] ?? (this.#isPacked[row] === 1 ? this.#unpack(row) : null)
  }

  /** Row of a locality by its prefix text; -1: none. */
  rowOf(text: string): number {
    const row = this.#rowOf.get(text)
    if (row !== undefined || this.#packed === null) return row ?? -1
    const packed = this.#packed.rowOfKey(text)
    return packed >= 0 && this.#isPacked[packed] === 1 ? packed : -1
  }

  /** Prefix texts of all that are not pooled, with their rows. */
  *entries(): Iterable<readonly [prefix: string, row: number]> {
    yield* this.#rowOf
    for (const [row, isPacked] of this.#isPacked.entries()) {
      if (isPacked === 1) yield [this.#packed!.keyOf(row), row]
    }
  }

  // Of a row, without compiling it.

  prefixOf(row: number): Prefix {
    return this.#rows[row]?.prefix ?? this.#packed!.prefixOf(row)
  }

  relative(row: number): Relative {
    return this.#rows[row] ?? new PackedRelative(this.#packed!, row)
  }

  hasEvidence(row: number): boolean {
    return this.#isPacked[row] === 1 || (this.#rows[row]?.evidence.length ?? 0) > 0
  }

  /** How many hosts measured it themselves: neither inherited nor a client's word. */
  ownEvidence(row: number): number {
    if (this.#isPacked[row] === 1) return this.#packed!.ownEvidence(row)
    let own = 0
    for (const seen of this.#rows[row]?.evidence ?? []) if (isOwnEvidence(seen)) own++
    return own
  }

  // Writing.

  /** Takes in what a start found, as rows from 0 on. Throws where other rows came first. */
  load(packed: PackedLocalities, maxUnpacked: number): void {
    if (this.#rows.length > 0) throw new Error('Localities are loaded once, and first')
    this.#packed = packed
    this.#maxUnpacked = maxUnpacked
    this.#isPacked = new Uint8Array(packed.rows)
    for (let row = 0; row < packed.rows; row++) {
      this.#rows.push(null)
      if (packed.holds(row)) this.#isPacked[row] = 1
      else this.#freeRows.push(row)
    }
  }

  /** Sets what is known of a prefix; its row. */
  set(text: string, record: LocalityRecord): number {
    const known = this.rowOf(text)
    const row = known >= 0 ? known : this.#takeRow()
    const before = this.#rows[row] ?? null
    this.#rows[row] = this.#compile(parsePrefix(text)!, record)
    this.#isPacked[row] = 0
    this.#rowOf.set(text, row)
    // After the new row took its references: a host row that both name must not be given away between.
    this.#releaseHosts(before)
    return row
  }

  /** Forgets a prefix that is known. */
  delete(text: string): void {
    const row = this.rowOf(text)
    this.#rowOf.delete(text)
    this.remove(row)
  }

  /** A row that is found by nothing but its number. */
  add(prefix: Prefix, record: LocalityRecord): number {
    const row = this.#takeRow()
    this.#rows[row] = this.#compile(prefix, record)
    return row
  }

  remove(row: number): void {
    const before = this.#rows[row] ?? null
    this.#rows[row] = null
    this.#isPacked[row] = 0
    this.#freeRows.push(row)
    this.#releaseHosts(before)
  }

  /**
   * Forgets those too many that were compiled first; what is asked for again is compiled again. Not while somebody reads
   * one: a host that is known by these alone has another row when it is heard of again.
   */
  forgetSurplus(): void {
    const unpacked = this.#unpacked
    // Each once: those that are heard stay.
    let left = unpacked.length - this.#oldest
    while (unpacked.length - this.#oldest > this.#maxUnpacked && left-- > 0) this.#forgetOldest()
    if (this.#oldest <= this.#maxUnpacked) return
    unpacked.splice(0, this.#oldest)
    this.#oldest = 0
  }

  #takeRow(): number {
    return this.#freeRows.pop() ?? this.#rows.length
  }

  #compile(prefix: Prefix, record: LocalityRecord): LocalityRow {
    return {
      record,
      prefix,
      evidenceHosts: Int32Array.from(record.evidence, (e) => this.#hosts.keep(e.host)),
      evidenceMs: Float64Array.from(record.evidence, (e) => e.rttMs),
      evidence: record.evidence,
      memo: { modelSerial: -1, panelSerial: -1, place: null, coordinate: null, belief: null },
    }
  }

  #releaseHosts(row: LocalityRow | null): void {
    for (const host of row?.evidenceHosts ?? []) this.#hosts.release(host)
  }

  #unpack(row: number): LocalityRow {
    const compiled = this.#compile(this.#packed!.prefixOf(row), this.#packed!.recordOf(row))
    this.#rows[row] = compiled
    this.#unpacked.push(row)
    return compiled
  }

  #forgetOldest(): void {
    const row = this.#unpacked[this.#oldest++]!
    if (this.#isPacked[row] === 0) return
    const compiled = this.#rows[row]!
    if (this.#isHeard(compiled.record.prefix)) {
      this.#unpacked.push(row)
      return
    }
    this.#rows[row] = null
    this.#releaseHosts(compiled)
  }
}

/** Read when it is heard: of very many relatives that disagree, few are. */
class PackedRelative implements Relative {
  readonly #packed: PackedLocalities
  readonly #row: number
  #prefix: Prefix | null = null
  #evidence: readonly Evidence[] | null = null

  constructor(packed: PackedLocalities, row: number) {
    this.#packed = packed
    this.#row = row
  }

  get prefix(): Prefix {
    this.#prefix ??= this.#packed.prefixOf(this.#row)
    return this.#prefix
  }

  get evidence(): readonly Evidence[] {
    this.#evidence ??= this.#packed.evidenceOf(this.#row)
    return this.#evidence
  }
}
