// What a watch tells, revision by revision: a commit, cores that came or went, records that only changed place.
//
// Invariant: all that happened in one revision is one Told. What is found that no core of ours does (a key taken
// away by hand, a value that can't be read) is named, and asks for everything to be listed anew. Pure.

import type { Change } from '../resolver/directory.ts'
import type { EtcdKeys } from './etcd-keys.ts'
import type { Event } from './etcd-messages.ts'
import { decodeFacts, decodeRecord, type Extras, takeExtras, ValueError } from './etcd-values.ts'

/** What one revision brought. */
export interface Told {
  readonly revision: number
  /** The id of the commit that this is; null: it is none, or nobody's of ours. */
  commit: string | null
  readonly changes: Change[]
  /** Unknown fields of `changes`, by their place in it. */
  readonly extras: Map<number, Extras>
  /** A batch that became true: its records are to be read. */
  batch: string | null
  readonly coresCame: string[]
  readonly coresWent: string[]
  /** Batches whose records are elsewhere by now. */
  readonly batchesWent: string[]
  /** Buckets where a record got a key of its own, or all lost theirs to the page. */
  readonly singles: string[]
  readonly folded: Set<string>
  /** Why what is known may not be what is kept; null: it is. */
  doubt: string | null
}

/** Groups events, which come in order, by their revision. */
export function readEvents(keys: EtcdKeys, events: readonly Event[]): Told[] {
  const all: Told[] = []
  for (let from = 0; from < events.length; ) {
    const revision = events[from]!.kv.mod_revision
    let to = from + 1
    while (to < events.length && events[to]!.kv.mod_revision === revision) to++
    all.push(readRevision(keys, revision, events.slice(from, to)))
    from = to
  }
  return all
}

function readRevision(keys: EtcdKeys, revision: number, events: readonly Event[]): Told {
  const told: Told = {
    revision,
    commit: null,
    changes: [],
    extras: new Map(),
    batch: null,
    coresCame: [],
    coresWent: [],
    batchesWent: [],
    singles: [],
    folded: new Set(),
    doubt: null,
  }
  const is = (name: Buffer) => events.some(({ type, kv }) => type === 'PUT' && kv.key.equals(name))
  // Without a commit's head, records only went to their pages.
  const isMove = is(keys.folded) && !is(keys.head)
  for (const event of events) {
    try {
      readEvent(keys, event, isMove, told)
    } catch (error) {
      if (!(error instanceof ValueError)) throw error
      told.doubt = `etcd's key ${event.kv.key} can't be read: ${error.message}`
    }
  }
  return told
}

function readEvent(keys: EtcdKeys, { type, kv }: Event, isMove: boolean, told: Told): void {
  const live = keys.parseLive(kv.key)
  const isPut = type === 'PUT'
  switch (live.is) {
    case 'record':
      if (isMove) told.folded.add(live.bucket)
      else if (isPut) {
        if (kv.version === 1) told.singles.push(live.bucket)
        const { record } = decodeRecord(kv.value)
        const extras = takeExtras(live.kind, record)
        if (extras !== null) told.extras.set(told.changes.length, extras)
        told.changes.push({ kind: live.kind, key: live.key, value: record } as Change)
      } else told.doubt = `etcd's key ${kv.key} was taken away by somebody else`
      return
    case 'head':
      if (isPut) told.commit = String(decodeFacts(kv.value).id)
      return
    case 'core':
      if (isPut) told.coresCame.push(live.name)
      else told.coresWent.push(live.name)
      return
    case 'batch':
      if (isPut) told.batch = live.id
      else told.batchesWent.push(live.id)
      return
  }
}
