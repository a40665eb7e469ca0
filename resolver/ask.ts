// The question that is asked of a service's members, and what a member becomes once it is weighed.
//
// Types, and the question without any wish. What select, candidates, crowd, spread and the index say to each other;
// no behaviour, so that none of them needs another for its words. All numbers of time are ms.

import type { Family } from './address.ts'
import type { Basis, Policy, Predicate } from './directory.ts'
import type { Locality } from './locate.ts'
import type { ServingMember, ServingService } from './serving.ts'
import type { Tables } from './tables.ts'

/** What members are ordered by: how near they are, how much they carry, or both. */
export type Sort = 'latency' | 'load' | 'both'
export const SORTS: readonly Sort[] = ['latency', 'load', 'both']

export interface Ask {
  readonly family: Family | null
  /** What a pick must have to be of use. */
  readonly want: 'address' | 'port' | 'url'
  /** At most so many picks, 0..1000. */
  readonly limit: number
  /** On top of the service's own predicate. */
  readonly where: Predicate
  readonly exclude: ReadonlySet<string>
  /** Rows of hosts that are the asker, or that it can't be told from: never picked. */
  readonly selves: ReadonlySet<number>
  /** A ring of distances; 0 and Infinity: no ring. */
  readonly minMs: number
  readonly maxMs: number
  readonly reachableOnly: boolean
  /** Only gateways to this service: members whose host is live in it as well. null: any. */
  readonly alsoIn: ServingService | null
  /** At most this share (0 < share <= 1) of the limit, and at least one, from one network while others are to be had; 1: any. */
  readonly networkShare: number
  /**
   * With the policy nearest: in this order, equals by chance, so that many who ask from one place don't all get
   * the same. null: by distance, equals by the client's prefix, so that a client that asks again gets the same.
   */
  readonly spread: Sort | null
  /** Instead of the service's own. */
  readonly policy: Policy | null
  /** Likewise: members within so many ms of the best share the clients. */
  readonly tieMs: number | null
}

/** Asks for any address, with no wish of its own: spread it and change what differs. */
export const ANY_ASK: Ask = {
  family: null,
  want: 'address',
  limit: 16,
  where: {},
  exclude: new Set(),
  selves: new Set(),
  minMs: 0,
  maxMs: Number.POSITIVE_INFINITY,
  reachableOnly: false,
  alsoIn: null,
  networkShare: 1,
  spread: null,
  policy: null,
  tieMs: null,
}

export interface Weighed {
  readonly member: ServingMember
  /** Predicted RTT; NaN where nothing is known. */
  readonly ms: number
  readonly basis: Basis
  readonly errorMs: number
  /** What the order goes by: ms plus the cost of load. */
  readonly cost: number
}

/** Numbers in [0, 1), from whoever calls. */
export type Rng = () => number

/** What is asked, by whom, of what. */
export interface Asked {
  readonly tables: Tables
  readonly serving: ServingService
  readonly locality: Locality
  readonly ask: Ask
  readonly policy: Policy
}
