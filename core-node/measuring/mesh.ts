// The mesh: what hosts see of each other, folded from their echoes to one RTT a pair and a coordinate a host.
//
// Of a pair's last echoes the lower quartile is kept, since queues only ever add: a host under load for a
// minute keeps its place. A host's own echoes move its own record and nobody else's. Bounded: so many
// peers a host, the longest unheard forgotten first. Pure but for its own memory: chance by argument.

import { euclideanMs, MAX_USABLE_ERROR } from '../../resolver/coordinate.ts'
import type { Coordinate, Host } from '../../resolver/directory.ts'
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
/** Echoes of a pair that the quartile is taken of. */
const WINDOW = 8
/** What moved by less is told as it was, so that records rest, and what is reckoned from them, while nothing happens. */
const TELL_RTT_MS = 0.5
const TELL_RTT_SHARE = 0.05
const TELL_MOVE_MS = 3
const TELL_ERROR = 0.1

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
  readonly #hosts = new Map<string, HostMemory>()

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
    if (isMoved(memory.told, memory.coordinate.coordinate)) memory.told = memory.coordinate.coordinate
    this.#remember(memory, peer.name, rttMs)
    const { told, meshMs } = memory
    const isToldAlready = host.coordinate === told && host.meshMs === meshMs
    return { host: isToldAlready ? host : { ...host, coordinate: told, meshMs }, refused: null }
  }

  /** A host is gone: nothing is kept of it, nor of the ways to it. */
  forget(name: string): void {
    this.#hosts.delete(name)
    for (const memory of this.#hosts.values()) {
      if (!memory.windowsMs.delete(name)) continue
      const { [name]: _, ...rest } = memory.meshMs
      memory.meshMs = rest
    }
  }

  #memoryOf(host: Host): HostMemory {
    let memory = this.#hosts.get(host.name)
    if (!memory) {
      const meshMs = host.meshMs ?? {}
      const windowsMs = new Map(Object.entries(meshMs).map(([name, ms]) => [name, [ms]]))
      const first = host.coordinate === null ? new Map() : null
      const coordinate = startCoordinate(host.coordinate)
      memory = { coordinate, first, told: host.coordinate, windowsMs, meshMs }
      this.#hosts.set(host.name, memory)
    }
    return memory
  }

  #remember(memory: HostMemory, peer: string, rttMs: number): void {
    const { windowsMs } = memory
    const window = [...(windowsMs.get(peer) ?? []), rttMs].slice(-WINDOW)
    windowsMs.delete(peer)
    windowsMs.set(peer, window)
    const told = memory.meshMs[peer]
    const nowMs = quartileMs(window)
    const isNews = told === undefined || Math.abs(nowMs - told) > Math.max(TELL_RTT_MS, TELL_RTT_SHARE * told)
    if (windowsMs.size <= MAX_MESH_PEERS && !isNews) return
    const next: Record<string, number> = { ...memory.meshMs, [peer]: nowMs }
    while (windowsMs.size > MAX_MESH_PEERS) {
      const oldest = windowsMs.keys().next().value!
      windowsMs.delete(oldest)
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

/** Whether a coordinate is another than the one that was told, or has become of use. */
function isMoved(told: Coordinate | null, now: Coordinate): boolean {
  if (told === null || told.error < MAX_USABLE_ERROR !== now.error < MAX_USABLE_ERROR) return true
  const heightsMs = Math.abs(told.heightMs - now.heightMs) + Math.abs(told.adjustmentMs - now.adjustmentMs)
  return (
    euclideanMs(told.vec, now.vec) + heightsMs > TELL_MOVE_MS || Math.abs(told.error - now.error) > TELL_ERROR
  )
}
