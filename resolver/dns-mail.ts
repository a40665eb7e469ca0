// What the core's thread and the threads that answer DNS tell each other.
//
// Invariant: mail comes in the order in which it was sent, and all of it is data: records, bytes, memory that
// is shared. A worker that took all of it knows what the core's own tables know. No sockets, no threads here.

import type { MessagePort } from 'node:worker_threads'
import type { Prefix } from './address.ts'
import type { Change } from './directory.ts'
import type { Asker, DnsFacts } from './dns-answer.ts'
import type { CountedDemand } from './dns-demand.ts'
import type { RateLimits } from './dns-limit.ts'
import type { MmsgSocket } from './mmsg.ts'
import type { PackedMemory } from './packed-localities.ts'
import type { PlaceMemory } from './place-reader.ts'

/** What never changes while a worker runs. */
export interface WorkerSetup {
  /** Zones, first labels first; see DnsContext. */
  readonly zones: readonly { readonly labels: readonly string[]; readonly core: string }[]
  readonly operatorFrom: readonly Prefix[]
  readonly nsid: string | null
  readonly version: string | null
  readonly limits: RateLimits
  /** Whom the limits are for, shared by all threads. */
  readonly accounts: SharedArrayBuffer
  /** Whose queries are proven demand. */
  readonly resolvers: readonly Prefix[]
  /** One of so many packets is told of; 0: none. */
  readonly sampleEvery: number
}

/** To a worker. */
export type WorkerMail =
  /** Records that came, changed or went, and the zones' serials with them. */
  | { readonly kind: 'changes'; readonly changes: readonly Change[]; readonly serials: readonly number[] }
  /** Where imported places are read from now on; changes that come later may need it. */
  | { readonly kind: 'places'; readonly memory: PlaceMemory }
  /** Localities as the start found them; comes once, after the first places and before all changes. */
  | { readonly kind: 'localities'; readonly memory: PackedMemory }
  | { readonly kind: 'cookies'; readonly secrets: readonly Uint8Array[] | null }
  /** From now on it answers what comes to these, and nothing else. */
  | { readonly kind: 'sockets'; readonly sockets: readonly MmsgSocket[] }

/** One packet of the sampled ones. */
export interface DnsSample {
  readonly facts: DnsFacts
  readonly from: Asker
}

/** From a worker. */
export type WorkerReport =
  /** It took all mail up to its first sockets and answers. */
  | { readonly kind: 'ready' }
  | {
      readonly kind: 'facts'
      readonly demand: readonly CountedDemand[]
      readonly samples: readonly DnsSample[]
    }
  | { readonly kind: 'error'; readonly error: Error }

/** Words of the memory that a worker looks at between two batches: a letter costs a post, a glance does not. */
export const SIGNAL = { mail: 0, end: 1, words: 2 } as const

/** What a worker is started with. */
export interface WorkerStart {
  readonly setup: WorkerSetup
  readonly counters: SharedArrayBuffer
  readonly row: number
  readonly signals: SharedArrayBuffer
  readonly port: MessagePort
}
