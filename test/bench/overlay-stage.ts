// What bench:overlay measures, wherever the nodes run: hosts that take part in several overlays at once, one
// for each way to choose links. They have the same names, so the same ring; what differs is the choice.

import type { Found, OverlayNode } from '../../examples/overlay/node.ts'

/** One way to choose links: a service of its own. */
export interface Choice {
  readonly service: string
  readonly near: number
  readonly random: number
}

export interface StageWish {
  readonly hosts: number
  readonly seed: number
  readonly choices: readonly Choice[]
  readonly discoverMs: number
  readonly meetMs: number
}

/** What a node tells of itself. */
export interface NodeView {
  readonly successor: string | null
  /** Round trips as the node sees them, ms. */
  readonly links: readonly { readonly name: string; readonly ms: number }[]
}

export interface MeasuredNode {
  readonly view: NodeView
  /** null: no answer. */
  lookup(key: string): Promise<Found | null>
}

export interface OverlayStage {
  /** By service, then by name. */
  readonly nodes: ReadonlyMap<string, ReadonlyMap<string, MeasuredNode>>
  /** The true round trip, which no core and no node is told, ms. */
  rttMs(a: string, b: string): number
  /** How many hosts have a coordinate. */
  placed(): Promise<number>
  /** What the stage itself has to say of how exact it is. */
  readonly about: string
  close(): Promise<void>
}

export function viewOf(node: OverlayNode): NodeView {
  const links = node.links.map(({ peer, rttMs }) => ({ name: peer.name, ms: rttMs! }))
  return { successor: node.successor?.name ?? null, links }
}
