// What the partition is played with: the plan that an island is given, what it tells, and the report of the
// whole. Pure: types, and the round trips between made-up places.

import type { Choice } from './overlay-stage.ts'

/** By the third number of an address 10.77.N.M: where that lies on a line, ms. */
export type Places = Readonly<Record<string, number>>

export interface IslandPlan {
  /** Names of hosts; the address of the i-th is `network`.(i+1). */
  readonly hosts: readonly string[]
  /** The first three numbers of its addresses. */
  readonly network: string
  readonly places: Places
  /** URL. */
  readonly core: string
  readonly token: string
  readonly choices: readonly Choice[]
  readonly leaseSec: number
  readonly discoverMs: number
  readonly meetMs: number
}

/** What an island tells of its nodes. */
export interface IslandView {
  /** By service, by name: the next on the ring. */
  readonly successors: Readonly<Record<string, Readonly<Record<string, string | null>>>>
  /** By service: links to other islands, over all nodes. */
  readonly linksAbroad: Readonly<Record<string, number>>
  /** Hosts to which Nearcast names nobody of another island among their near members. */
  readonly homely: number
}

/** `between`: the islands lose each other, and both keep the core; `island`: the second loses all else. */
export type Cut = 'between' | 'island'

export interface PartitionPlan {
  readonly cut: Cut
  /** Hosts of each of the two. */
  readonly islands: readonly [number, number]
  readonly discoverSec: number
  /** How long the cut lasts at least; it lasts until the islands have forgotten each other in any case. */
  readonly cutSec: number
}

/** One overlay at one moment. */
export interface OverlayState {
  /** Sizes of its rings. */
  readonly rings: readonly number[]
  /** Links between the islands. */
  readonly linksAbroad: number
}

/** One overlay from before the cut to the end. */
export interface OverlayStory extends Choice {
  readonly before: OverlayState
  readonly apart: OverlayState
  readonly atEnd: OverlayState
  /** From the end of the cut to one whole ring, seconds; null: not while it was watched. */
  readonly wholeAfterSec: number | null
}

/** `cutSec` is how long the cut really lasted. */
export interface PartitionReport extends PartitionPlan {
  /** From the cut until no node had a link to the other island, and each island a ring of its own. */
  readonly forgottenAfterSec: number
  /** How long it was watched from the end of the cut on. */
  readonly watchedSec: number
  readonly overlays: readonly OverlayStory[]
}

/** What the stage tells: what happens, and at last the report. */
export type StageLine = { readonly says: string } | { readonly report: PartitionReport }

/** The way to a neighbour, there and back. */
const LOCAL_MS = 4

/** The round trip between two addresses, ms. */
export function rttBetweenPlaces(places: Places, a: string, b: string): number {
  const place = (address: string): number => places[address.split('.')[2]!]!
  return LOCAL_MS + Math.abs(place(a) - place(b))
}
