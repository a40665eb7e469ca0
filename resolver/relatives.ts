// Relatives: what measured prefixes say of unmeasured ones beside them, by the tree of announced networks.
//
// An address without measurements of its own backs off to the announced prefix around it, and from there to
// the other prefixes of the same AS in the same country (where no country is told: the same place). What
// relatives measured is pooled where they agree: children that agree speak for the whole prefix, children
// that disagree split it into halves that are asked again, and a half that none of them is in has no say.
// Which networks there are is the imports' to say. Pure but for its own memory; written by Tables alone.

import { formatPrefix, type Prefix, prefixOf } from './address.ts'
import type { Evidence } from './directory.ts'
import { isWidest, type PlaceFact, regionOf } from './place-page.ts'
import type { Places } from './place-reader.ts'

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
      if (!isOwn(seen)) continue
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
    evidence.some((seen) => isOwn(seen) && byHost.get(seen.host)!.seen.length > 1)
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
function isOwn({ count, kind }: Evidence): boolean {
  return count > 0 && kind !== 'client'
}

/** Where Tables keeps what was pooled, for a part of a network with one fact, or (null) for a whole AS. */
export interface PooledRows {
  add(part: { prefix: Prefix; factRow: number } | null, evidence: readonly Evidence[]): number
  remove(row: number): void
}

interface Network {
  readonly prefix: Prefix
  /** The fact of the announced prefix: addresses of more specific ones, with other facts, are none of it. */
  readonly factRow: number
  readonly children: Set<string>
  /** By the part's prefix: what stands in which row. */
  parts: Map<string, { readonly row: number; readonly evidence: readonly Evidence[] }>
}

interface System {
  readonly children: Set<string>
  row: number
}

interface Known extends Relative {
  network: string | null
  system: string | null
}

export class Relatives {
  readonly #places: Places
  readonly #rows: PooledRows
  readonly #known = new Map<string, Known>()
  readonly #networks = new Map<string, Network>()
  readonly #systems = new Map<string, System>()
  readonly #byRegion = new Map<string, Set<string>>()
  readonly #dirty = new Set<string>()
  /** AS numbers of which anything is known: what most lookups end at. */
  readonly #asns = new Map<number, number>()

  constructor(places: Places, rows: PooledRows) {
    this.#places = places
    this.#rows = rows
  }

  /** A prefix was measured; null: it no longer is. */
  set(text: string, relative: Relative | null): void {
    const before = this.#known.get(text)
    if (before) {
      this.#leave(text, before)
      this.#known.delete(text)
      this.#byRegion.get(regionOf(before.prefix))!.delete(text)
    }
    if (!relative?.evidence.some(isOwn)) return
    const known: Known = { ...relative, network: null, system: null }
    this.#known.set(text, known)
    const region = regionOf(known.prefix)
    this.#byRegion.set(region, (this.#byRegion.get(region) ?? new Set()).add(text))
    this.#join(text, known)
  }

  /** Imports changed the page of a region. */
  regroup(region: string): void {
    const inside = this.#byRegion.get(region) ?? []
    // The page of what is wider than a region concerns them all.
    for (const text of isWidest(region) ? this.#known.keys() : inside) {
      const known = this.#known.get(text)!
      this.#leave(text, known)
      this.#join(text, known)
    }
  }

  /** Pools anew what changed since it was called last. */
  refresh(): void {
    for (const key of this.#dirty) {
      const network = this.#networks.get(key)
      if (network) this.#poolNetwork(key, network)
      const system = this.#systems.get(key)
      if (system) this.#poolSystem(key, system)
    }
    this.#dirty.clear()
  }

  /** Row of what the AS of an address's place says of it; -1: nothing. */
  rowOfSystem(factRow: number): number {
    if (!this.isSystemKnown(factRow)) return -1
    return this.#systems.get(systemKey(this.#places.fact(factRow)!)!)?.row ?? -1
  }

  /** Whether anything was measured in an AS of that number, in whatever country. */
  isSystemKnown(factRow: number): boolean {
    if (this.#asns.size === 0 || factRow < 0) return false
    const asn = this.#places.asnOf(factRow)
    return asn !== 0 && this.#asns.has(asn)
  }

  #join(text: string, known: Known): void {
    const { value, bits } = this.#places.find(known.prefix.address)
    const fact = this.#places.fact(value)
    if (fact === null) return
    if (bits < known.prefix.bits) {
      const prefix = prefixOf(known.prefix.address, bits)
      known.network = `${formatPrefix(prefix)} ${value}`
      const network = this.#networks.get(known.network) ?? {
        prefix,
        factRow: value,
        children: new Set(),
        parts: new Map(),
      }
      network.children.add(text)
      this.#networks.set(known.network, network)
      this.#dirty.add(known.network)
    }
    known.system = systemKey(fact)
    if (known.system === null) return
    const system = this.#systems.get(known.system) ?? { children: new Set(), row: -1 }
    if (!this.#systems.has(known.system)) this.#asns.set(fact.asn!, (this.#asns.get(fact.asn!) ?? 0) + 1)
    system.children.add(text)
    this.#systems.set(known.system, system)
    this.#dirty.add(known.system)
  }

  #leave(text: string, known: Known): void {
    for (const key of [known.network, known.system]) {
      if (key === null) continue
      this.#networks.get(key)?.children.delete(text)
      this.#systems.get(key)?.children.delete(text)
      this.#dirty.add(key)
    }
    known.network = known.system = null
  }

  #poolNetwork(key: string, network: Network): void {
    const before = network.parts
    const children = Array.from(network.children, (text) => this.#known.get(text)!)
    network.parts = new Map()
    const fresh: [string, Pooled][] = []
    for (const pooled of poolNetwork(network.prefix, children)) {
      const text = formatPrefix(pooled.prefix)
      const part = before.get(text)
      if (part && isSame(part.evidence, pooled.evidence)) {
        network.parts.set(text, part)
        before.delete(text)
      } else fresh.push([text, pooled])
    }
    for (const { row } of before.values()) this.#rows.remove(row)
    for (const [text, { prefix, evidence }] of fresh) {
      const row = this.#rows.add({ prefix, factRow: network.factRow }, evidence)
      network.parts.set(text, { row, evidence })
    }
    if (children.length === 0) this.#networks.delete(key)
  }

  #poolSystem(key: string, system: System): void {
    if (system.row >= 0) this.#rows.remove(system.row)
    system.row = -1
    const children = Array.from(system.children, (text) => this.#known.get(text)!)
    const evidence = poolEvidence(children)
    if (children.length > 0 && evidence !== null && evidence.length > 0) {
      system.row = this.#rows.add(null, evidence)
    }
    if (children.length > 0) return
    this.#systems.delete(key)
    const asn = Number(key.split(' ', 1)[0])
    const left = this.#asns.get(asn)! - 1
    if (left > 0) this.#asns.set(asn, left)
    else this.#asns.delete(asn)
  }
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
