// The mesh: what hosts see of each other, folded from their echoes to one RTT a pair and a coordinate a host.
//
// Of a pair's last echoes the lower quartile is kept, since queues only ever add: a host under load for a
// minute keeps its place. A host's own echoes move its own record and nobody else's. Bounded: so many
// peers a host, the longest unheard forgotten first. Pure but for its own memory: chance by argument.

import type { Coordinate, Host } from '../../resolver/directory.ts'
import { TELLING_ALONE, type Telling } from '../registry/telling.ts'
import {
  type CoordinateState,
  observe,
  type Rng,
  type SampleRefusal,
  startCoordinate,
} from './coordinates.ts'
import { quartileMs } from './localities.ts'
import { type FirstSightings, isPlaced, placeNewcomer, see } from './newcomer.ts'

/** Peers whose RTTs are kept for one host: all of an ordinary service's, and some 5 kB. */
export const MAX_MESH_PEERS = 128
/**
 * Hosts whose last RTTs are remembered, those heard last: some 5 kB each among many. The others' begin with what
 * their records say, as after a restart of the core.
 */
const MAX_HOSTS = 20_000
/** Echoes of a pair that the quartile is taken of. */
const WINDOW = 8
interface HostMemory {
  coordinate: CoordinateState
  /** What a newcomer saw first; null: it knows where it is. */
  first: FirstSightings | null
  /** As its record says; null: it has none yet. */
  told: Coordinate | null
  /** Peer -> its last RTTs, oldest first; the peer longest unheard first. */
  readonly windowsMs: Map<string, number[]>
  meshMs: Readonly<Record<string, number>>
}

export class HostMesh {
  /** The one longest unheard first. */
  readonly #hosts = new Map<string, HostMemory>()
  /** Peer -> the hosts that remember RTTs to it. */
  readonly #measuredBy = new Map<string, Set<string>>()
  readonly #telling: Telling
  readonly #maxHosts: number

  constructor(telling: Telling = TELLING_ALONE, maxHosts: number = MAX_HOSTS) {
    this.#telling = telling
    this.#maxHosts = maxHosts
  }

  /**
   * `host` measured the way to `peer` (the least RTT of one round of echoes, 0..10,000 ms): its record as
   * it stands after that, the very same where nothing is worth telling; or why the RTT was not taken.
   */
  hear(host: Host, peer: Host, rttMs: number, rng: Rng): { host: Host; refused: SampleRefusal | null } {
    const memory = this.#memoryOf(host)
    const other = peer.coordinate ?? startCoordinate().coordinate
    const { state, refused } = observe(memory.coordinate, peer.name, other, rttMs, rng)
    if (refused !== null) return { host, refused }
    memory.coordinate = state
    if (memory.first !== null) settle(memory, peer, rttMs)
    const { coordinate } = memory.coordinate
    if (this.#telling.isPlaceNews(memory.told, coordinate)) memory.told = coordinate
    this.#remember(host.name, memory, peer.name, rttMs)
    const { told, meshMs } = memory
    const isToldAlready = host.coordinate === told && host.meshMs === meshMs
    return { host: isToldAlready ? host : { ...host, coordinate: told, meshMs }, refused: null }
  }

  /** A host is gone: nothing is kept of it, nor of the ways to it. Costs those that measured it, not all. */
  forget(name: string): void {
    this.#drop(name)
    for (const host of this.#measuredBy.get(name) ?? []) {
      const memory = this.#hosts.get(host)!
      memory.windowsMs.delete(name)
      const { [name]: _, ...rest } = memory.meshMs
      memory.meshMs = rest
    }
    this.#measuredBy.delete(name)
  }

  /** Another core is its home now, and measures on from its record. */
  release(name: string): void {
    this.#drop(name)
  }

  #drop(name: string): void {
    for (const peer of this.#hosts.get(name)?.windowsMs.keys() ?? []) this.#unlink(name, peer)
    this.#hosts.delete(name)
  }

  #link(host: string, peer: string): void {
    const hosts = this.#measuredBy.get(peer)
    if (hosts) hosts.add(host)
    else this.#measuredBy.set(peer, new Set([host]))
  }

  #unlink(host: string, peer: string): void {
    const hosts = this.#measuredBy.get(peer)
    hosts?.delete(host)
    if (hosts?.size === 0) this.#measuredBy.delete(peer)
  }

  #memoryOf(host: Host): HostMemory {
    const memory = this.#hosts.get(host.name) ?? this.#begin(host)
    this.#hosts.delete(host.name)
    this.#hosts.set(host.name, memory)
    if (this.#hosts.size > this.#maxHosts) this.#drop(this.#hosts.keys().next().value!)
    return memory
  }

  #begin({ name, coordinate, meshMs = {} }: Host): HostMemory {
    const windowsMs = new Map(Object.entries(meshMs).map(([peer, ms]) => [peer, [ms]]))
    for (const peer of windowsMs.keys()) this.#link(name, peer)
    const first = coordinate === null ? new Map() : null
    return { coordinate: startCoordinate(coordinate), first, told: coordinate, windowsMs, meshMs }
  }

  #remember(host: string, memory: HostMemory, peer: string, rttMs: number): void {
    const { windowsMs } = memory
    const window = [...(windowsMs.get(peer) ?? []), rttMs].slice(-WINDOW)
    windowsMs.delete(peer)
    windowsMs.set(peer, window)
    this.#link(host, peer)
    const told = memory.meshMs[peer]
    const nowMs = quartileMs(window)
    const isNews = told === undefined || this.#telling.isRttNews(told, nowMs)
    if (windowsMs.size <= MAX_MESH_PEERS && !isNews) return
    const next: Record<string, number> = { ...memory.meshMs, [peer]: nowMs }
    while (windowsMs.size > MAX_MESH_PEERS) {
      const oldest = windowsMs.keys().next().value!
      windowsMs.delete(oldest)
      this.#unlink(host, oldest)
      delete next[oldest]
    }
    memory.meshMs = next
  }
}

/** A newcomer's place by its first RTTs, as long as that is surer than where Vivaldi's steps have brought it. */
function settle(memory: HostMemory, peer: Host, rttMs: number): void {
  const before = memory.first!
  const first = see(before, peer.name, peer.coordinate, rttMs)
  memory.first = isPlaced(first) ? null : first
  const placed = first.size > before.size ? placeNewcomer(first) : null
  if (placed !== null && placed.error < memory.coordinate.coordinate.error)
    memory.coordinate = { ...memory.coordinate, coordinate: placed }
}
