// Relatives: what measured prefixes say of unmeasured ones beside them, by the tree of announced networks.
//
// An address without measurements of its own backs off to the announced prefix around it, and from there to
// the other prefixes of the same AS in the same country (where no country is told: the same place). What
// relatives measured is pooled where they agree: children that agree speak for the whole prefix, children
// that disagree split it into halves that are asked again, and a half that none of them is in has no say.
// Which networks there are is the imports' to say. Pure but for its own memory; written by Tables alone.

import { type Address, contains, formatPrefix, type Prefix, parsePrefix, prefixOf } from './address.ts'
import type { Evidence } from './directory.ts'
import type { PlaceFact } from './place-page.ts'
import type { Places } from './place-reader.ts'
import { type PrefixMatch, PrefixTable } from './prefix-table.ts'

/** Measured prefixes agree when each host sees them within so many ms, or this share of the lower RTT. */
const AGREE_MS = 5
const AGREE_SHARE = 0.2

export interface Relative {
  readonly prefix: Prefix
  readonly evidence: readonly Evidence[]
}

/** Relatives' word for a part of a network. `evidence` has count 0: nobody measured this very prefix. */
export interface Pooled {
  readonly prefix: Prefix
  readonly evidence: readonly Evidence[]
}

/**
 * What children of a network say of it: the widest parts within which those who are there agree. Parts are
 * disjoint and in no order.
 */
export function poolNetwork(network: Prefix, children: readonly Relative[]): Pooled[] {
  if (children.length === 0) return []
  const evidence = poolEvidence(children)
  if (evidence !== null) return evidence.length === 0 ? [] : [{ prefix: network, evidence }]
  const bits = network.bits + 1
  // A child as wide as the part itself can't be split; it speaks for itself.
  if (children.some(({ prefix }) => prefix.bits < bits)) return []
  const left = children.filter(({ prefix }) => !bitAt(prefix, network.bits))
  const right = children.filter(({ prefix }) => bitAt(prefix, network.bits))
  return [left, right].flatMap((half) =>
    half.length === 0 ? [] : poolNetwork(prefixOf(half[0]!.prefix.address, bits), half),
  )
}

function bitAt({ address }: Prefix, bit: number): boolean {
  return (address[bit >> 3]! & (0x80 >> (bit & 7))) !== 0
}

/** What relatives saw from one host. */
interface Views {
  leastMs: number
  mostMs: number
  readonly seen: Evidence[]
}

/** The median RTT of each host; null: they disagree, or some have no host in common with the rest by which to tell. */
export function poolEvidence(relatives: readonly Relative[]): Evidence[] | null {
  const byHost = new Map<string, Views>()
  for (const { evidence } of relatives) {
    for (const seen of evidence) {
      if (!isOwnEvidence(seen)) continue
      const views = byHost.get(seen.host) ?? { leastMs: seen.rttMs, mostMs: seen.rttMs, seen: [] }
      views.leastMs = Math.min(views.leastMs, seen.rttMs)
      views.mostMs = Math.max(views.mostMs, seen.rttMs)
      // At once: in a large network that disagrees, few have to be heard to know it.
      if (views.mostMs - views.leastMs > Math.max(AGREE_MS, AGREE_SHARE * views.leastMs)) return null
      views.seen.push(seen)
      byHost.set(seen.host, views)
    }
  }
  const isTold = ({ evidence }: Relative) =>
    evidence.some((seen) => isOwnEvidence(seen) && byHost.get(seen.host)!.seen.length > 1)
  if (relatives.length > 1 && !relatives.every(isTold)) return null
  const pooled = Array.from(byHost, ([host, { seen }]): Evidence => {
    const rttsMs = seen.map(({ rttMs }) => rttMs).sort((a, b) => a - b)
    const atMs = seen.reduce((latest, { atMs }) => Math.max(latest, atMs), 0)
    const kind = seen.every(({ kind }) => kind === 'passive') ? 'passive' : 'active'
    return { host, rttMs: rttsMs[rttsMs.length >> 1]!, count: 0, atMs, kind }
  })
  return pooled.sort((a, b) => a.rttMs - b.rttMs || (a.host < b.host ? -1 : 1))
}

/** Measured there by a host: neither inherited nor a client's word. */
export function isOwnEvidence({ count, kind }: Evidence): boolean {
  return count > 0 && kind !== 'client'
}

/** Where Tables keeps what was pooled, for a part of a network with one fact, or (null) for a whole AS. */
export interface PooledRows {
  /** `isNews`: somebody may have found something else there before. */
  add(
    part: { prefix: Prefix; factRow: number } | null,
    evidence: readonly Evidence[],
    isNews: boolean,
  ): number
  remove(row: number): void
}

/** What was measured, by rows. */
export interface MeasuredRows {
  relative(row: number): Relative
  prefixOf(row: number): Prefix
  /** Whether a host measured it, for itself. */
  isMeasured(row: number): boolean
  /** Visits the rows of all prefixes inside one, in the order of addresses. */
  visitInside(prefix: Prefix, visit: (row: number) => void): void
}

const EVERYTHING = [parsePrefix('0.0.0.0/0')!, parsePrefix('::/0')!]

interface Announced {
  readonly key: string
  readonly prefix: Prefix
  /** The fact of the announced prefix: addresses of more specific ones, with other facts, are none of it. */
  readonly factRow: number
}

/** What a measured prefix is in; null: it is not told. */
interface Family {
  readonly network: Announced | null
  readonly system: string | null
}

interface Network extends Announced {
  /** Rows. */
  readonly children: Set<number>
  /** By the part's prefix: what stands in which row. null: nobody asked yet. */
  parts: Map<string, { readonly row: number; readonly evidence: readonly Evidence[] }> | null
}

interface System {
  readonly children: Set<number>
  /** -1: it says nothing. null: nobody asked yet. */
  row: number | null
}

export class Relatives {
  readonly #places: Places
  readonly #measured: MeasuredRows
  readonly #rows: PooledRows
  /** By row of what was measured. */
  readonly #families = new Map<number, Family>()
  readonly #networks = new Map<string, Network>()
  /** Those that nobody asked for yet, with their facts. */
  readonly #unasked = new PrefixTable()
  readonly #systems = new Map<string, System>()
  readonly #dirty = new Set<string>()
  /** AS numbers of which anything is known: what most lookups end at. */
  readonly #asns = new Map<number, number>()

  constructor(places: Places, measured: MeasuredRows, rows: PooledRows) {
    this.#places = places
    this.#measured = measured
    this.#rows = rows
  }

  /** What was measured of a row's prefix is another thing than before, or nothing any more. */
  set(row: number): void {
    this.#leave(row)
    if (this.#measured.isMeasured(row)) this.#join(row, this.#familyOf(this.#measured.prefixOf(row)), true)
  }

  /** Takes in all that is there at a start, before anybody asks. */
  load(): void {
    if (this.#places.size === 0) return
    let last: { match: PrefixMatch; around: Prefix; family: Family } | null = null
    const join = (row: number) => {
      if (!this.#measured.isMeasured(row)) return
      const prefix = this.#measured.prefixOf(row)
      const match = this.#places.find(prefix.address)
      // Neighbours are mostly of one network: what that is need not be made for each.
      const isInside = match.bits < prefix.bits
      if (
        !isInside ||
        last === null ||
        !isOfSame(last.match, match) ||
        !contains(last.around, prefix.address)
      ) {
        const family = this.#familyOf(prefix, match)
        last = isInside ? { match, around: family.network?.prefix ?? prefix, family } : null
        this.#join(row, family, false)
      } else this.#join(row, last.family, false)
    }
    for (const everything of EVERYTHING) this.#measured.visitInside(everything, join)
  }

  /** Imports changed the page of a region. */
  regroup(region: string): void {
    this.#measured.visitInside(parsePrefix(region)!, (row) => this.set(row))
  }

  /** Pools anew what changed since it was called last. */
  refresh(): void {
    for (const key of this.#dirty) {
      const network = this.#networks.get(key)
      if (network && (network.parts !== null || network.children.size === 0)) this.#poolNetwork(network, true)
      const system = this.#systems.get(key)
      if (system && (system.row !== null || system.children.size === 0)) this.#poolSystem(key, system)
    }
    this.#dirty.clear()
  }

  /** Somebody asks what is pooled around an address: by all networks, since the word of a wider one of the same fact holds too. */
  prepare(address: Address): void {
    for (;;) {
      const { value, bits } = this.#unasked.find(address)
      if (value < 0) return
      this.#poolNetwork(this.#networks.get(networkKey(prefixOf(address, bits), value))!, false)
    }
  }

  /** Row of what the AS of an address's place says of it; -1: nothing. */
  rowOfSystem(factRow: number): number {
    if (!this.isSystemKnown(factRow)) return -1
    const key = systemKey(this.#places.fact(factRow)!)!
    const system = this.#systems.get(key)
    if (system?.row === null) this.#poolSystem(key, system)
    return system?.row ?? -1
  }

  /** Whether anything was measured in an AS of that number, in whatever country. */
  isSystemKnown(factRow: number): boolean {
    if (this.#asns.size === 0 || factRow < 0) return false
    const asn = this.#places.asnOf(factRow)
    return asn !== 0 && this.#asns.has(asn)
  }

  #familyOf(prefix: Prefix, { value, bits } = this.#places.find(prefix.address)): Family {
    const fact = this.#places.fact(value)
    if (fact === null) return { network: null, system: null }
    const around = prefixOf(prefix.address, bits)
    const network =
      bits < prefix.bits ? { key: networkKey(around, value), prefix: around, factRow: value } : null
    return { network, system: systemKey(fact) }
  }

  /** `isNews`: somebody may have asked where it comes in. */
  #join(row: number, family: Family, isNews: boolean): void {
    const { network, system } = family
    if (network === null && system === null) return
    this.#families.set(row, family)
    if (network !== null) this.#networkAt(network, isNews).children.add(row)
    if (system !== null) this.#systemAt(system, isNews).children.add(row)
    if (isNews) this.#mark(family)
  }

  #leave(row: number): void {
    const family = this.#families.get(row)
    if (family === undefined) return
    this.#families.delete(row)
    this.#networks.get(family.network?.key ?? '')?.children.delete(row)
    this.#systems.get(family.system ?? '')?.children.delete(row)
    this.#mark(family)
  }

  #mark({ network, system }: Family): void {
    if (network !== null) this.#dirty.add(network.key)
    if (system !== null) this.#dirty.add(system)
  }

  #networkAt(announced: Announced, isNews: boolean): Network {
    let network = this.#networks.get(announced.key)
    if (network === undefined) {
      network = { ...announced, children: new Set(), parts: isNews ? new Map() : null }
      if (!isNews) this.#unasked.set(announced.prefix, announced.factRow)
      this.#networks.set(announced.key, network)
    }
    return network
  }

  #systemAt(key: string, isNews: boolean): System {
    let system = this.#systems.get(key)
    if (system === undefined) {
      system = { children: new Set(), row: isNews ? -1 : null }
      this.#systems.set(key, system)
      const asn = asnOf(key)
      this.#asns.set(asn, (this.#asns.get(asn) ?? 0) + 1)
    }
    return system
  }

  #poolNetwork(network: Network, isNews: boolean): void {
    const before = network.parts ?? new Map()
    // Places that changed while all was taken in may have put another of this prefix in its stead.
    if (this.#unasked.get(network.prefix) === network.factRow) this.#unasked.delete(network.prefix)
    const children = Array.from(network.children, (row) => this.#measured.relative(row))
    const parts: Network['parts'] = new Map()
    network.parts = parts
    const fresh: [string, Pooled][] = []
    for (const pooled of poolNetwork(network.prefix, children)) {
      const text = formatPrefix(pooled.prefix)
      const part = before.get(text)
      if (part && isSame(part.evidence, pooled.evidence)) {
        parts.set(text, part)
        before.delete(text)
      } else fresh.push([text, pooled])
    }
    for (const { row } of before.values()) this.#rows.remove(row)
    for (const [text, { prefix, evidence }] of fresh) {
      const row = this.#rows.add({ prefix, factRow: network.factRow }, evidence, isNews)
      parts.set(text, { row, evidence })
    }
    if (children.length === 0) this.#networks.delete(network.key)
  }

  #poolSystem(key: string, system: System): void {
    if (system.row !== null && system.row >= 0) this.#rows.remove(system.row)
    system.row = -1
    const children = Array.from(system.children, (row) => this.#measured.relative(row))
    const evidence = poolEvidence(children)
    if (children.length > 0 && evidence !== null && evidence.length > 0) {
      system.row = this.#rows.add(null, evidence, false)
    }
    if (children.length > 0) return
    this.#systems.delete(key)
    const asn = asnOf(key)
    const left = this.#asns.get(asn)! - 1
    if (left > 0) this.#asns.set(asn, left)
    else this.#asns.delete(asn)
  }
}

function isOfSame(a: PrefixMatch, b: PrefixMatch): boolean {
  return a.value === b.value && a.bits === b.bits
}

function networkKey(prefix: Prefix, factRow: number): string {
  return `${formatPrefix(prefix)} ${factRow}`
}

function isSame(a: readonly Evidence[], b: readonly Evidence[]): boolean {
  return (
    a.length === b.length &&
    a.every((seen, i) => {
      const { host, rttMs, atMs, kind } = b[i]!
      return seen.host === host && seen.rttMs === rttMs && seen.atMs === atMs && seen.kind === kind
    })
  )
}

/** null: its AS is not told. */
function systemKey({ asn, country, place }: PlaceFact): string | null {
  if (asn === null) return null
  return `${asn} ${country ?? `${place.lat} ${place.lon}`}`
}

function asnOf(systemKey: string): number {
  return Number(systemKey.split(' ', 1)[0])
}
