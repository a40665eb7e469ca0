// Reads everything that is kept in etcd, as it was at one revision: what a start does, and a core that missed more
// than etcd still tells.
//
// Invariant: a record comes from where it was put last: a page, a batch, its own key. Replies are asked for in
// pieces, the next while one is read, and all at the revision of the first: a piece that was compacted away
// meanwhile makes it begin anew.

import { status } from '@grpc/grpc-js'
import { type Directory, emptyDirectory, type LocalityRecord } from '../resolver/directory.ts'
import { LocalityMap } from '../resolver/locality-map.ts'
import { type LocalityPage, packLocalities } from '../resolver/locality-page.ts'
import { PackedLocalities, sharedPage } from '../resolver/packed-localities.ts'
import { type EtcdConnections, EtcdError, LARGE_CALL_MS } from './etcd-connections.ts'
import { bucketOf, type EtcdKeys } from './etcd-keys.ts'
import { type KeyRange, type KeyValue, type RangeReply, under } from './etcd-messages.ts'
import {
  decodePage,
  decodePart,
  decodeRecord,
  type Extras,
  type Kept,
  type Part,
  recordsOf,
  takeExtras,
  ValueError,
} from './etcd-values.ts'
import { StoreError } from './store.ts'

type Kind = keyof Directory

/** All that is kept, as it was at `revision`. */
export interface Listing {
  readonly revision: number
  readonly directory: Directory
  /** Unknown fields of records that have such, by kind and key. */
  readonly extras: Map<string, Extras>
  /** How many records of a bucket have keys of their own. */
  readonly singles: Map<string, number>
  readonly batches: Set<string>
  readonly cores: Set<string>
  /** What may have changed after `since`, by kind: a superset of what did, but for what was removed. */
  readonly suspects: readonly { readonly kind: Kind; readonly key: string }[]
}

/** Pages, parts and single records in one reply: about a megabyte each. */
const PAGES_AT_ONCE = 32
const PARTS_AT_ONCE = 2
const RECORDS_AT_ONCE = 2000
const TRIES = 5

/** Throws StoreError `corrupt` or `newer-database` where something can't be read; EtcdError where etcd can't be. */
export async function listAll(
  connections: EtcdConnections,
  keys: EtcdKeys,
  since: number = Number.POSITIVE_INFINITY,
): Promise<Listing> {
  for (let left = TRIES; ; left--) {
    try {
      const { header } = await connections.ask('KV/Range', { key: keys.head })
      return await new Lister(connections, keys, header.revision, since).list()
    } catch (error) {
      if (left === 0 || !isCompacted(error)) throw error
    }
  }
}

function isCompacted(error: unknown): boolean {
  return error instanceof EtcdError && error.code === status.OUT_OF_RANGE
}

/** The parts of a batch, as they were at `revision`. Throws as listAll; where they are gone, none come. */
export async function* readBatch(
  connections: EtcdConnections,
  keys: EtcdKeys,
  id: string,
  revision: number,
): AsyncGenerator<Part> {
  for await (const kvs of readRange(connections, under(keys.parts(id)), revision, PARTS_AT_ONCE)) {
    for (const kv of kvs) yield readable(kv, decodePart)
  }
}

class Lister {
  readonly #connections: EtcdConnections
  readonly #keys: EtcdKeys
  readonly #since: number
  readonly #revision: number
  readonly #directory = emptyDirectory()
  readonly #extras = new Map<string, Extras>()
  readonly #singles = new Map<string, number>()
  /** Localities in columns, and by which revision they are so. */
  readonly #packed: { readonly page: LocalityPage; readonly revision: number }[] = []
  /** Those that came as records, or were removed, as they were put last. */
  readonly #localities = new Map<string, { readonly kept: Kept; readonly revision: number }>()
  readonly #suspects: { kind: Kind; key: string }[] = []
  /** When each page was put, where there are batches to compare with. */
  readonly #pageRevisions = new Map<string, number>()
  /** By which batch a record is what it is. */
  readonly #batchRevisions = new Map<string, number>()

  constructor(connections: EtcdConnections, keys: EtcdKeys, revision: number, since: number) {
    this.#connections = connections
    this.#keys = keys
    this.#revision = revision
    this.#since = since
  }

  async list(): Promise<Listing> {
    const keys = this.#keys
    await this.#read(keys.pages, PAGES_AT_ONCE, (kv) => this.#takePage(kv))
    const batches: { id: string; revision: number }[] = []
    await this.#read(keys.batches, RECORDS_AT_ONCE, ({ key, mod_revision }) => {
      batches.push({ id: key.toString('utf8', keys.batches.length), revision: mod_revision })
    })
    for (const batch of batches.sort((a, b) => a.revision - b.revision)) await this.#takeBatch(batch)
    const cores = new Set<string>()
    await this.#read(keys.cores, RECORDS_AT_ONCE, ({ key }) => {
      cores.add(key.toString('utf8', keys.cores.length))
    })
    await this.#read(keys.records, RECORDS_AT_ONCE, (kv) => this.#takeSingle(kv))
    return {
      revision: this.#revision,
      directory: { ...this.#directory, localities: this.#mergeLocalities() },
      extras: this.#extras,
      singles: this.#singles,
      batches: new Set(batches.map(({ id }) => id)),
      cores,
      suspects: this.#suspects,
    }
  }

  async #read(prefix: Buffer, limit: number, take: (kv: KeyValue) => void): Promise<void> {
    for await (const kvs of readRange(this.#connections, under(prefix), this.#revision, limit)) {
      for (const kv of kvs) take(kv)
    }
  }

  #takePage(kv: KeyValue): void {
    const bucket = this.#keys.bucketOfPage(kv.key)
    const kind = bucket.slice(0, bucket.indexOf('/')) as Kind
    this.#pageRevisions.set(bucket, kv.mod_revision)
    const { records, localities } = readable(kv, decodePage)
    this.#takePacked(localities, kv.mod_revision)
    // As the version before wrote them.
    const { packed, others } = packLocalities(Object.entries(records))
    this.#takePacked(packed && sharedPage(packed), kv.mod_revision)
    for (const [key, kept] of others) this.#put(kind, key, kept, kv.key, kv.mod_revision)
  }

  async #takeBatch({ id, revision }: { id: string; revision: number }): Promise<void> {
    const from = this.#keys.batch(id)
    // While it is moved to pages: what is in its page by now, or was taken away since.
    const isMoved = (kind: Kind, key: string) =>
      (this.#pageRevisions.get(bucketOf(kind, key)) ?? 0) > revision
    const isMoving = [...this.#pageRevisions.values()].some((at) => at > revision)
    for await (const part of readBatch(this.#connections, this.#keys, id, this.#revision)) {
      const { localities } = part
      const unmoved = () =>
        pageOf(recordsOf({ records: {}, localities }), (key) => !isMoved('localities', key))
      this.#takePacked(isMoving ? unmoved() : localities, revision)
      for (const [kind, key, kept] of part.entries) {
        if (isMoved(kind, key)) continue
        if (kind !== 'localities') this.#batchRevisions.set(idOf(kind, key), revision)
        this.#put(kind, key, kept, from, revision)
      }
    }
  }

  #takePacked(page: LocalityPage | null, revision: number): void {
    if (page === null) return
    this.#packed.push({ page, revision })
    if (revision <= this.#since) return
    for (let row = 0; row < page.size; row++) {
      this.#suspects.push({ kind: 'localities', key: page.keyOf(row) })
    }
  }

  #mergeLocalities(): LocalityMap {
    // Of pages that have one prefix the last one's word holds.
    const pages = this.#packed.sort((a, b) => a.revision - b.revision)
    const packed = PackedLocalities.of(pages.map(({ page }) => page))
    const localities = new LocalityMap(packed)
    for (const [key, { kept, revision }] of this.#localities) {
      const row = packed.rowOfKey(key)
      if (row >= 0 && pages[packed.pageOf(row)]!.revision > revision) {
        // What is in columns has no fields that are unknown here.
        this.#extras.delete(idOf('localities', key))
        continue
      }
      if (kept === null) localities.delete(key)
      else localities.set(key, kept as LocalityRecord)
    }
    return localities
  }

  #takeSingle(kv: KeyValue): void {
    const live = this.#keys.parseLive(kv.key)
    if (live.is !== 'record') return
    const { kind, key, bucket } = live
    this.#singles.set(bucket, (this.#singles.get(bucket) ?? 0) + 1)
    if ((this.#batchRevisions.get(idOf(kind, key)) ?? 0) > kv.mod_revision) return
    this.#put(kind, key, readable(kv, decodeRecord).record, kv.key, kv.mod_revision)
  }

  /** Called a million times at a start: it makes nothing that it does not keep. */
  #put(kind: Kind, key: string, kept: Kept, from: Buffer, revision: number): void {
    const records = this.#directory[kind] as Map<string, unknown>
    if (kind === 'localities') {
      if ((this.#localities.get(key)?.revision ?? 0) > revision) return
      this.#localities.set(key, { kept, revision })
    } else if (kept === null) records.delete(key)
    else records.set(key, kept)
    let extras: Extras | null = null
    try {
      extras = takeExtras(kind, kept)
    } catch (cause) {
      throw unreadable(from, cause)
    }
    if (extras !== null) this.#extras.set(idOf(kind, key), extras)
    else if (this.#extras.size > 0) this.#extras.delete(idOf(kind, key))
    if (revision > this.#since) this.#suspects.push({ kind, key })
  }
}

/** A page of some of what was packed; null: of nothing. */
function pageOf(
  records: Iterable<[key: string, kept: Kept]>,
  isIn: (key: string) => boolean,
): LocalityPage | null {
  const { packed } = packLocalities([...records].filter(([key]) => isIn(key)))
  return packed && sharedPage(packed)
}

/** A record's name among all. */
export function idOf(kind: Kind, key: string): string {
  return `${kind} ${key}`
}

/** The keys of a range in order, some at a time, as they were at one revision. Throws EtcdError. */
export async function* readRange(
  connections: EtcdConnections,
  { key, range_end }: KeyRange,
  revision: number,
  limit: number,
): AsyncGenerator<readonly KeyValue[]> {
  const ask = (from: Buffer): Promise<RangeReply> => {
    const reply = connections.ask(
      'KV/Range',
      { key: from, range_end: range_end!, revision, limit },
      { deadlineMs: LARGE_CALL_MS },
    )
    // It may fail while the piece before it is still read: told when it is its turn.
    reply.catch(() => {})
    return reply
  }
  for (let next: Promise<RangeReply> | null = ask(key); next !== null; ) {
    const { kvs, more }: RangeReply = await next
    next = more ? ask(Buffer.concat([kvs.at(-1)!.key, Buffer.of(0)])) : null
    yield kvs
  }
}

/** Reads a value; says of one that can't be read which it is. Throws StoreError. */
export function readable<T>({ key, value }: KeyValue, read: (value: Buffer) => T): T {
  try {
    return read(value)
  } catch (cause) {
    throw unreadable(key, cause)
  }
}

/** What an operator can do about a ValueError; any other error is as it was. */
function unreadable(key: Buffer, cause: unknown): unknown {
  if (!(cause instanceof ValueError)) return cause
  const advice = cause.isNewer ? 'Update this program.' : 'Put it right, or restore a backup of the store.'
  return new StoreError(
    cause.isNewer ? 'newer-database' : 'corrupt',
    `etcd's key ${key} can't be read: ${cause.message}. ${advice}`,
    { cause },
  )
}
