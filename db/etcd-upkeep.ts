// What keeps etcd small and a start short: records move to their bucket's page, old revisions are compacted away.
//
// Invariant: moving changes no record: a bucket's page is put and its single keys taken away in one transaction, which
// fails where one of them, or a batch, came meanwhile; so it is right whoever does it, and one core, the first of
// those that hold leases, does it for all. What it reads it reads from etcd, a few buckets at a time.

import { setImmediate as nextTurn } from 'node:timers/promises'
import { type EtcdConnections, EtcdError, LARGE_CALL_MS } from './etcd-connections.ts'
import type { Told } from './etcd-events.ts'
import { bucketOf, type EtcdKeys } from './etcd-keys.ts'
import { readBatch, readRange } from './etcd-listing.ts'
import {
  type Compare,
  changedIn,
  isAbsent,
  type KeyValue,
  type Op,
  put,
  range,
  remove,
  type TxnReply,
  type TxnRequest,
  under,
} from './etcd-messages.ts'
import {
  type BatchEntry,
  decodePage,
  decodeRecord,
  encodeFacts,
  encodePage,
  entriesOf,
  type Kept,
  type PageRecords,
  type Part,
  recordsOf,
  SCHEMA,
  ValueError,
} from './etcd-values.ts'
import { StoreError } from './store.ts'

interface UpkeepOptions {
  readonly connections: EtcdConnections
  readonly keys: EtcdKeys
  /** How pages are written (see encodePage). */
  readonly inColumns: boolean
  /** Whether it falls to this core. */
  readonly isMine: () => boolean
}

/** A batch's records of one bucket. */
interface BatchShare {
  readonly revision: number
  readonly entries: readonly BatchEntry[]
}

/** A bucket to be moved to its page, with what batches hold of it, the oldest first. */
interface Due {
  readonly bucket: string
  readonly shares: readonly BatchShare[]
}

const TICK_MS = 1000
/** Records of a bucket with keys of their own, from which they are moved: each start reads these one by one. */
const SINGLES = 32
/** Some 100 kB to read each, in one reply. */
const BUCKETS_AT_ONCE = 12
const MOVES_A_TICK = 8
/** For a bucket that is changed while it is moved. */
const TRIES = 3
/** etcd takes requests of 1.5 MiB by default. */
const BYTES_AT_ONCE = 1_200_000
/** Revisions stay readable for one round at least: so long a core may be cut off and go on from where it was. */
const ROUND_TICKS = 300
/** Rounds after which a process that did not commit any more is forgotten: a day. */
const WRITER_ROUNDS = 288

export class EtcdUpkeep {
  readonly #options: UpkeepOptions
  #singles = new Map<string, number>()
  #batches = new Set<string>()
  #timer: NodeJS.Timeout | undefined
  #isBusy = false
  #isClosed = false
  #ticks = 0
  /** What the next round compacts up to; 0: not known yet. */
  #compactRevision = 0
  /** Batches that are being staged, and writers, as the last round saw them: by revision, and for how many rounds. */
  #intents = new Map<string, number>()
  #writers = new Map<string, { readonly revision: number; readonly rounds: number }>()

  constructor(options: UpkeepOptions) {
    this.#options = options
  }

  /** What a listing found. */
  reset(singles: ReadonlyMap<string, number>, batches: ReadonlySet<string>): void {
    this.#singles = new Map(singles)
    this.#batches = new Set(batches)
  }

  hear({ singles, folded, batch, batchesWent }: Told): void {
    for (const bucket of singles) this.#singles.set(bucket, (this.#singles.get(bucket) ?? 0) + 1)
    for (const bucket of folded) this.#singles.delete(bucket)
    if (batch !== null) this.#batches.add(batch)
    for (const id of batchesWent) this.#batches.delete(id)
  }

  start(): void {
    this.#timer = setInterval(() => void this.#tick(), TICK_MS)
    this.#timer.unref()
  }

  close(): void {
    this.#isClosed = true
    clearInterval(this.#timer)
  }

  async #tick(): Promise<void> {
    if (this.#isBusy || !this.#options.isMine()) return
    this.#isBusy = true
    try {
      await this.tidy()
      if (++this.#ticks % ROUND_TICKS === 0) await this.#clean()
    } catch (error) {
      // It is tried again, by this core or another; what etcd refuses shows in commits too.
      if (!(error instanceof EtcdError || error instanceof StoreError || error instanceof ValueError))
        throw error
    } finally {
      this.#isBusy = false
    }
  }

  /** Moves what is due to pages, within bounds. Throws EtcdError, StoreError. */
  async tidy(): Promise<void> {
    if (this.#batches.size > 0) return this.#moveBatches([...this.#batches])
    const due = [...this.#singles]
      .filter(([, count]) => count >= SINGLES)
      .slice(0, MOVES_A_TICK * BUCKETS_AT_ONCE)
    const folded = await this.#foldedRevision()
    // A batch that this core was not told of yet would be passed over by the pages: then nothing is moved.
    const noBatch: Compare = { ...under(this.#options.keys.batches), ...isAbsent(this.#options.keys.batches) }
    const mover = new Mover(this.#options, folded, [noBatch])
    for (let from = 0; from < due.length && !this.#isClosed; from += BUCKETS_AT_ONCE) {
      const buckets = due.slice(from, from + BUCKETS_AT_ONCE).map(([bucket]) => ({ bucket, shares: [] }))
      if (!(await mover.move(buckets))) return
    }
  }

  async #foldedRevision(): Promise<number> {
    const { connections, keys } = this.#options
    const { kvs } = await connections.ask('KV/Range', { key: keys.folded })
    return kvs[0]?.mod_revision ?? 0
  }

  /** All batches together: a page that is put must hold what each of them says of its bucket. */
  async #moveBatches(ids: readonly string[]): Promise<void> {
    const { connections, keys } = this.#options
    const folded = await this.#foldedRevision()
    const found = await connections.ask('KV/Range', under(keys.batches))
    const batches = found.kvs.map(({ key, mod_revision }) => ({
      id: key.toString('utf8', keys.batches.length),
      revision: mod_revision,
    }))
    const gone = ids.filter((id) => !batches.some((batch) => batch.id === id))
    for (const id of gone) this.#batches.delete(id)
    batches.sort((a, b) => a.revision - b.revision)
    const readers = batches.map(
      ({ id, revision }) =>
        new ShareReader(readBatch(connections, keys, id, found.header.revision), revision),
    )
    const mover = new Mover(this.#options, folded)
    for (let due: Due[] = []; !this.#isClosed; ) {
      const next = await nextBucket(readers)
      if (next !== null) due.push(next)
      if (due.length === BUCKETS_AT_ONCE || (next === null && due.length > 0)) {
        // A batch or another core came between: begun anew, with what is moved already passed over.
        if (!(await mover.move(due))) return
        due = []
      }
      if (next === null) break
    }
    if (this.#isClosed) return
    await connections.ask('KV/Txn', {
      compare: [],
      success: batches.flatMap(({ id }) => [
        remove({ key: keys.batch(id) }),
        remove({ key: keys.intent(id) }),
        remove(under(keys.parts(id))),
      ]),
    })
  }

  /** Once a round: compacts what is a round old, and forgets what was begun and never ended. */
  async #clean(): Promise<void> {
    const { connections, keys } = this.#options
    const { header } = await connections.ask('KV/Range', { key: keys.head })
    const revision = this.#compactRevision
    this.#compactRevision = header.revision
    await this.#forgetIntents(header.revision)
    await this.#forgetWriters(header.revision)
    if (revision === 0) return
    await connections.send('KV/Compact', { revision }).catch((error: unknown) => {
      // Somebody else may have compacted further already.
      if (!(error instanceof EtcdError) || error.outcome !== 'refused') throw error
    })
  }

  async #forgetIntents(revision: number): Promise<void> {
    const { connections, keys } = this.#options
    const seen = new Map<string, number>()
    for await (const kvs of readRange(connections, under(keys.staged), revision, 100)) {
      for (const { key, mod_revision } of kvs) seen.set(keys.idOfStaged(key), mod_revision)
    }
    for (const [id, last] of seen) {
      // Its newest part is as old as a round: whoever staged it is gone. Who is not will find its intent missing.
      if (this.#intents.get(id) !== last) continue
      await connections.ask('KV/Txn', {
        compare: [isAbsent(keys.batch(id))],
        success: [remove({ key: keys.intent(id) }), remove(under(keys.parts(id)))],
      })
    }
    this.#intents = seen
  }

  async #forgetWriters(revision: number): Promise<void> {
    const { connections, keys } = this.#options
    const seen = new Map<string, { revision: number; rounds: number }>()
    for await (const kvs of readRange(connections, under(keys.writers), revision, 1000)) {
      for (const { key, mod_revision } of kvs) {
        const id = key.toString()
        const before = this.#writers.get(id)
        const rounds = before?.revision === mod_revision ? before.rounds + 1 : 0
        if (rounds < WRITER_ROUNDS) seen.set(id, { revision: mod_revision, rounds })
        else {
          await connections.ask('KV/Txn', {
            compare: [changedIn(key, mod_revision)],
            success: [remove({ key })],
          })
        }
      }
    }
    this.#writers = seen
  }
}

/** Moves buckets to their pages, some in a transaction. */
class Mover {
  readonly #options: UpkeepOptions
  readonly #compare: readonly Compare[]
  #folded: number

  /** `folded`: when the last move or batch was, as far as is known; `compare`: what else must hold. */
  constructor(options: UpkeepOptions, folded: number, compare: readonly Compare[] = []) {
    this.#options = options
    this.#folded = folded
    this.#compare = compare
  }

  /** False: something came between, or a bucket is changed too often; what was moved stays so. */
  async move(due: readonly Due[]): Promise<boolean> {
    let left = await this.#moveOnce(due)
    // Those that were changed in that moment: alone, which takes a shorter one.
    for (let tries = 0; left !== null && left.length > 0 && tries < TRIES; tries++) {
      const still: Due[] = []
      for (const one of left) {
        const again = await this.#moveOnce([one])
        if (again === null) return false
        still.push(...again)
      }
      left = still
    }
    return left?.length === 0
  }

  /** Those that were changed meanwhile; null: what all stands on did. */
  async #moveOnce(due: readonly Due[]): Promise<Due[] | null> {
    const { keys, inColumns } = this.#options
    const asked = due.flatMap(({ bucket }) => [
      range({ key: keys.page(bucket) }),
      range(under(keys.recordsOf(bucket))),
    ])
    const found = await this.#transact({ compare: [], success: [range({ key: keys.folded }), ...asked] })
    const [folded, ...ranges] = found.responses.map(({ response_range }) => response_range?.kvs ?? [])
    if ((folded?.[0]?.mod_revision ?? 0) !== this.#folded) return null
    const left: Due[] = []
    let moves: Move[] = []
    for (const [i, one] of due.entries()) {
      const page = ranges[2 * i]![0] ?? null
      const singles = ranges[2 * i + 1]!
      // Moved already, before this was begun anew.
      if (singles.length === 0 && one.shares.every(({ revision }) => revision < (page?.mod_revision ?? 0)))
        continue
      const { v, records } = mergeBucket(keys, page, one.shares, singles)
      const value = encodePage(v, records, inColumns)
      const bytes = moves.reduce((sum, move) => sum + move.value.length, value.length)
      if (bytes > BYTES_AT_ONCE && moves.length > 0) {
        const unmoved = await this.#put(moves, found.header.revision)
        if (unmoved === null) return null
        left.push(...unmoved)
        moves = []
      }
      moves.push({ due: one, pageRevision: page?.mod_revision ?? 0, value })
      await nextTurn()
    }
    const unmoved = await this.#put(moves, found.header.revision)
    return unmoved === null ? null : [...left, ...unmoved]
  }

  /** Each by a transaction of its own inside one: those that were changed after `revision`, or null for all. */
  async #put(moves: readonly Move[], revision: number): Promise<Due[] | null> {
    if (moves.length === 0) return []
    const { keys } = this.#options
    const each = moves.map(({ due: { bucket }, pageRevision, value }): Op => {
      const page = keys.page(bucket)
      const singles = under(keys.recordsOf(bucket))
      return {
        request_txn: {
          compare: [
            changedIn(page, pageRevision),
            { ...singles, result: 'LESS', target: 'MOD', mod_revision: revision + 1 },
          ],
          success: [put(page, value), remove(singles)],
        },
      }
    })
    const reply = await this.#transact({
      compare: [changedIn(keys.folded, this.#folded), ...this.#compare],
      success: [put(keys.folded, encodeFacts({})), ...each],
    })
    if (!reply.succeeded) return null
    this.#folded = reply.header.revision
    return moves.filter((_, i) => !reply.responses[i + 1]!.response_txn!.succeeded).map(({ due }) => due)
  }

  #transact(txn: TxnRequest): Promise<TxnReply> {
    return this.#options.connections.ask('KV/Txn', txn, { deadlineMs: LARGE_CALL_MS })
  }
}

interface Move {
  readonly due: Due
  readonly pageRevision: number
  readonly value: Buffer
}

/** What a bucket's page is to hold, with all that came after it: each record as it was put last. Throws ValueError. */
export function mergeBucket(
  keys: EtcdKeys,
  page: KeyValue | null,
  shares: readonly BatchShare[],
  singles: readonly KeyValue[],
): { v: number; records: PageRecords } {
  const before = page === null ? { v: SCHEMA, records: {}, localities: null } : decodePage(page.value)
  const records = new Map<string, { kept: Kept; revision: number }>()
  let { v } = before
  const set = (key: string, kept: Kept, revision: number) => {
    if (revision > (records.get(key)?.revision ?? 0)) records.set(key, { kept, revision })
  }
  for (const [key, kept] of recordsOf(before)) set(key, kept, page!.mod_revision)
  for (const { revision, entries } of shares) {
    if (revision < (page?.mod_revision ?? 0)) continue
    for (const [, key, kept] of entries) set(key, kept, revision)
  }
  for (const { key, value, mod_revision } of singles) {
    const live = keys.parseLive(key)
    const single = decodeRecord(value)
    v = Math.max(v, single.v)
    if (live.is === 'record') set(live.key, single.record, mod_revision)
  }
  const kept = [...records]
    .filter(([, { kept }]) => kept !== null)
    .map(([key, { kept }]) => [key, kept] as const)
  return { v, records: Object.fromEntries(kept) }
}

function inBuckets(entries: Iterable<BatchEntry>): BatchEntry[] {
  const keyed = Array.from(entries, (entry) => ({ entry, bucket: bucketOf(entry[0], entry[1]) }))
  return keyed
    .sort((a, b) => (a.bucket < b.bucket ? -1 : a.bucket > b.bucket ? 1 : 0))
    .map(({ entry }) => entry)
}

/** A batch's records bucket by bucket: its parts are in that order. */
class ShareReader {
  readonly revision: number
  readonly #parts: AsyncGenerator<Part>
  #entries: readonly BatchEntry[] = []
  #at = 0

  constructor(parts: AsyncGenerator<Part>, revision: number) {
    this.#parts = parts
    this.revision = revision
  }

  /** The bucket that comes next; null: none does. */
  async peek(): Promise<string | null> {
    if (this.#at === this.#entries.length) {
      const next = await this.#parts.next()
      if (next.done) return null
      this.#entries = inBuckets(entriesOf(next.value))
      this.#at = 0
    }
    const [kind, key] = this.#entries[this.#at]!
    return bucketOf(kind, key)
  }

  /** All that it holds of the bucket that comes next. */
  async take(bucket: string): Promise<BatchEntry[]> {
    const entries: BatchEntry[] = []
    while ((await this.peek()) === bucket) entries.push(this.#entries[this.#at++]!)
    return entries
  }
}

async function nextBucket(readers: readonly ShareReader[]): Promise<Due | null> {
  const heads = await Promise.all(readers.map((reader) => reader.peek()))
  const [bucket] = heads.filter((head) => head !== null).sort()
  if (bucket === undefined) return null
  const shares: BatchShare[] = []
  for (const [i, reader] of readers.entries()) {
    if (heads[i] === bucket) shares.push({ revision: reader.revision, entries: await reader.take(bucket) })
  }
  return { bucket, shares }
}
