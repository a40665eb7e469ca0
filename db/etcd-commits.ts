// Commits to etcd, one after another: each all or none, refused where another core changed a record first, and
// never told to have failed where it was made.
//
// Invariant: a commit is made by one transaction that compares that none of its records was changed after what this
// core was told of, and puts them. One too large for that closes the gate first, for all others to wait, and puts
// them in nested transactions, or makes a batch true that was staged before. Each puts its id to its process's own
// key and compares that with the commit before: so it can be sent again until it is answered.
// https://etcd.io/docs/v3.4/learning/api/#transaction

import { randomBytes } from 'node:crypto'
import { setTimeout as wait } from 'node:timers/promises'
import type { Change } from '../resolver/directory.ts'
import { type EtcdConnections, EtcdError, LARGE_CALL_MS } from './etcd-connections.ts'
import { bucketOf, type EtcdKeys } from './etcd-keys.ts'
import { grantLease, newLeaseId } from './etcd-lease.ts'
import { idOf } from './etcd-listing.ts'
import {
  type Compare,
  changedIn,
  isAbsent,
  isThere,
  type KeyValue,
  type Op,
  put,
  range,
  remove,
  type TxnReply,
  type TxnRequest,
  unchangedSince,
} from './etcd-messages.ts'
import {
  type BatchEntry,
  decodeFacts,
  encodeFacts,
  encodeParts,
  encodeRecord,
  type Kept,
} from './etcd-values.ts'
import { StoreError } from './store.ts'

interface CommitsOptions {
  readonly connections: EtcdConnections
  readonly keys: EtcdKeys
  /** How batches are written (see encodePage). */
  readonly inColumns: boolean
  /** Up to which revision this core knows of what others did. */
  readonly toldRevision: () => number
  /** Resolves when it does up to `revision`; false: it can't be told, or not within some seconds. */
  readonly toldUpTo: (revision: number) => Promise<boolean>
  /** The record as it is kept: with the fields that this program does not know. */
  readonly toKept: (change: Change) => Kept
  /** Told of each commit that was made, before its maker is. */
  readonly onMade: (changes: readonly Change[], revision: number) => void
  /** Why a commit is undecided; null: none is any more. */
  readonly onUndecided: (reason: string | null) => void
}

/** One commit, until it is decided. */
interface Pending {
  readonly id: string
  /** By record: only what each comes to in the end. */
  readonly changes: ReadonlyMap<string, Change>
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
  /** Another core changed one of its records since it was decided on. */
  isStale: boolean
  /** It was sent, and what came of it is not known yet. */
  isUndecided: boolean
  isOver: boolean
}

/** A record as it is put. */
interface Put {
  readonly key: Buffer
  readonly value: Buffer
}

/** etcd takes 128 comparisons or operations in a transaction by default; some are for the commit itself. */
const RECORDS_IN_ONE = 120
/** In nested transactions, whose operations count against what those around them left: 60 times 60. */
const NESTED = 60
const RECORDS_NESTED = NESTED * NESTED
/** etcd takes requests of 1.5 MiB by default. */
const BYTES_IN_ONE = 1_000_000
/** Records of a batch's part, before packing. */
const PART_BYTES = 1_200_000
/** The gate opens by itself so long after whoever closed it has died, seconds. */
const GATE_SEC = 10
/** Between tries, ms. */
const RETRY_MS = [5, 20, 50, 100, 200, 400, 800] as const
/** Tries at a closed gate: longer than it can stay closed. */
const GATE_TRIES = 25

export class EtcdCommits {
  /** This process among all that ever wrote here. */
  readonly writer = randomBytes(8).toString('hex')
  readonly #options: CommitsOptions
  readonly #writerKey: Buffer
  /** When our last commit was made; 0: there was none. */
  #writerRevision = 0
  #count = 0
  readonly #pending: Pending[] = []
  #working: Promise<void> | null = null
  /** Keys that we put after what we were told of, in the order of their revisions. */
  readonly #own = new Map<string, number>()

  constructor(options: CommitsOptions) {
    this.#options = options
    this.#writerKey = options.keys.writer(this.writer)
  }

  /** Throws StoreError `conflict`, `unavailable`, `closed`; TypeError for a kind that there is not. */
  commit(changes: readonly Change[]): Promise<void> {
    const last = new Map(changes.map((change) => [idOf(change.kind, change.key), change]))
    // What can't be kept is found before anything is sent.
    for (const change of last.values()) this.#options.toKept(change)
    return new Promise<void>((resolve, reject) => {
      this.#pending.push({
        id: `${this.writer}:${++this.#count}`,
        changes: last,
        resolve,
        reject,
        isStale: false,
        isUndecided: false,
        isOver: false,
      })
      this.#working ??= this.#work()
    })
  }

  /** Another core changed these: who wanted to change one of them decided on what is no more. */
  hear(changes: readonly Change[]): void {
    for (const pending of this.#pending) {
      pending.isStale ||= changes.some(({ kind, key }) => pending.changes.has(idOf(kind, key)))
    }
  }

  /** The commit of this id was seen among all. False: it is none of ours. */
  sawCommit(id: string, revision: number): boolean {
    if (!id.startsWith(`${this.writer}:`)) return false
    const [pending] = this.#pending
    if (pending?.id === id) this.#made(pending, revision)
    return true
  }

  /** Up to here this core knows all, its own included. */
  forgetOwn(toldRevision: number): void {
    for (const [key, revision] of this.#own) {
      if (revision > toldRevision) break
      this.#own.delete(key)
    }
  }

  /** Those that wait are refused with `closed`, whatever became of them. */
  close(): void {
    for (const pending of this.#pending)
      this.#end(pending, new StoreError('closed', 'This store was closed.'))
  }

  async #work(): Promise<void> {
    for (let pending = this.#pending[0]; pending !== undefined; pending = this.#pending[0]) {
      try {
        if (!pending.isOver) await this.#make(pending)
      } catch (error) {
        this.#end(pending, error)
      }
      if (this.#pending[0] === pending) this.#pending.shift()
    }
    this.#working = null
  }

  #end(pending: Pending, error: unknown): void {
    if (pending.isOver) return
    pending.isOver = true
    if (pending.isUndecided) this.#options.onUndecided(null)
    if (error === null) pending.resolve()
    else pending.reject(error)
  }

  #made(pending: Pending, revision: number): void {
    if (pending.isOver) return
    this.#writerRevision = revision
    this.#options.onMade([...pending.changes.values()], revision)
    this.#end(pending, null)
  }

  async #make(pending: Pending): Promise<void> {
    const { keys, toKept } = this.#options
    if (pending.changes.size > RECORDS_NESTED) return this.#makeBatch(pending)
    const puts = Array.from(pending.changes.values(), (change): Put => {
      return { key: keys.record(change.kind, change.key), value: encodeRecord(toKept(change)) }
    })
    const bytes = puts.reduce((sum, { key, value }) => sum + key.length + value.length, 0)
    if (bytes > BYTES_IN_ONE) return this.#makeBatch(pending)
    if (puts.length > RECORDS_IN_ONE) return this.#makeBehindGate(pending, [], nested(puts), puts)
    return this.#makeAtOnce(pending, puts)
  }

  // ---- in one transaction

  async #makeAtOnce(pending: Pending, puts: readonly Put[]): Promise<void> {
    const { keys, toldRevision } = this.#options
    for (let tries = 0; !pending.isOver; tries++) {
      checkFresh(pending)
      const asOf = toldRevision()
      const answer = await this.#transact(pending, puts, {
        compare: [
          changedIn(this.#writerKey, this.#writerRevision),
          isAbsent(keys.gate),
          this.#isUnchanged(keys.folded, asOf),
          ...puts.map(({ key }) => this.#isUnchanged(key, asOf)),
        ],
        success: [...this.#signature(pending), ...puts.map(({ key, value }) => put(key, value))],
      })
      if (answer === null) return
      if (answer.gate === null) await this.#learn(answer)
      else await waitForGate(pending, tries)
    }
  }

  /** Waits until this core was told of whatever a transaction failed on. Throws StoreError `conflict` where it can't be. */
  async #learn({ head, folded }: Refusal): Promise<void> {
    const revision = Math.max(head?.mod_revision ?? 0, folded?.mod_revision ?? 0)
    if (!(await this.#options.toldUpTo(revision))) throw conflict()
  }

  // ---- behind the gate

  /** Stages it first: nobody sees the parts until one transaction puts the batch's key. */
  async #makeBatch(pending: Pending): Promise<void> {
    const { connections, keys, inColumns, toKept } = this.#options
    const sorted = inBuckets(pending.changes.values())
    const entries = function* (): Generator<BatchEntry> {
      for (const change of sorted) yield [change.kind, change.key, toKept(change)]
    }
    const options = { deadlineMs: LARGE_CALL_MS }
    let index = 0
    try {
      await connections.ask('KV/Put', { key: keys.intent(pending.id), value: encodeFacts({}) })
      for (const value of encodeParts(entries(), PART_BYTES, inColumns)) {
        if (pending.isOver) return
        await connections.ask('KV/Put', { key: keys.part(pending.id, index++), value }, options)
      }
    } catch (error) {
      throw unavailable(error)
    }
    const marks = [
      put(keys.batch(pending.id), encodeFacts({ parts: index })),
      put(keys.folded, encodeFacts({})),
    ]
    await this.#makeBehindGate(pending, [isThere(keys.intent(pending.id))], marks, [
      { key: keys.folded, value: Buffer.of() },
    ])
  }

  /** Does `ops`, which put `puts`, while nobody else commits. */
  async #makeBehindGate(
    pending: Pending,
    compare: readonly Compare[],
    ops: readonly Op[],
    puts: readonly Put[],
  ): Promise<void> {
    const { keys, toldRevision } = this.#options
    for (let tries = 0; !pending.isOver; tries++) {
      checkFresh(pending)
      const gate = await this.#closeGate(pending, tries)
      if (gate === null) {
        await waitForGate(pending, tries)
        continue
      }
      try {
        await this.#options.toldUpTo(gate.revision)
        checkFresh(pending)
        const answer = await this.#transact(pending, puts, {
          compare: [
            changedIn(this.#writerKey, this.#writerRevision),
            changedIn(keys.gate, gate.revision),
            // Nobody committed since; for who was told up to the closing that is so already.
            this.#isUnchanged(keys.head, toldRevision()),
            ...compare,
          ],
          success: [...this.#signature(pending), remove({ key: keys.gate }), ...ops],
        })
        if (answer === null) return
        // It was closed for too long, and opened by itself: all anew. Else somebody was first.
        if (answer.gate?.mod_revision === gate.revision) throw conflict()
      } finally {
        // With its lease the gate's key goes, where the transaction did not take it away.
        await this.#options.connections.ask('Lease/LeaseRevoke', { ID: gate.lease }).catch(() => {})
      }
    }
  }

  /** null: another core has closed it. */
  async #closeGate(pending: Pending, tries: number): Promise<{ revision: number; lease: number } | null> {
    const { connections, keys } = this.#options
    const lease = newLeaseId()
    const by = `${pending.id}:${tries}`
    try {
      await grantLease(connections, lease, GATE_SEC)
      const reply = await connections.ask('KV/Txn', {
        compare: [isAbsent(keys.gate)],
        success: [put(keys.gate, encodeFacts({ by }), lease)],
        failure: [range({ key: keys.gate })],
      })
      if (reply.succeeded) return { revision: reply.header.revision, lease }
      const held = reply.responses[0]?.response_range?.kvs[0]
      // A try before may have closed it, though nothing came back.
      const isOurs = held !== undefined && decodeFacts(held.value).by === by
      return isOurs ? { revision: held.mod_revision, lease } : null
    } catch (error) {
      connections.ask('Lease/LeaseRevoke', { ID: lease }).catch(() => {})
      if (!pending.isUndecided) throw unavailable(error)
      return null
    }
  }

  // ---- sending

  /** What every commit puts: whose it is, and that there was one. */
  #signature({ id }: Pending): Op[] {
    const value = encodeFacts({ id })
    return [put(this.#writerKey, value), put(this.#options.keys.head, value)]
  }

  /** Sends it until it is answered. null: that decided it; else what stood against it. */
  async #transact(
    pending: Pending,
    puts: readonly Put[],
    txn: Pick<TxnRequest, 'compare' | 'success'>,
  ): Promise<Refusal | null> {
    const { keys } = this.#options
    const asked = [{ key: this.#writerKey }, { key: keys.gate }, { key: keys.head }, { key: keys.folded }]
    const reply = await this.#send(pending, { ...txn, failure: asked.map(range) })
    if (reply === null) return null
    const [writer, gate, head, folded] = reply.responses.map(
      ({ response_range }) => response_range?.kvs[0] ?? null,
    )
    if (reply.succeeded || (writer && decodeFacts(writer.value).id === pending.id)) {
      const revision = reply.succeeded ? reply.header.revision : writer!.mod_revision
      for (const { key } of [...puts, { key: keys.head }]) this.#remember(key, revision)
      this.#made(pending, revision)
      return null
    }
    // Somebody may have taken our key away: then this is what there is.
    this.#writerRevision = writer?.mod_revision ?? 0
    return { gate: gate ?? null, head: head ?? null, folded: folded ?? null }
  }

  /** null: it is over without an answer, since it was seen among all commits or the store was closed. */
  async #send(pending: Pending, txn: TxnRequest): Promise<TxnReply | null> {
    for (let tries = 0; !pending.isOver; tries++) {
      try {
        return await this.#options.connections.send('KV/Txn', txn)
      } catch (error) {
        if (pending.isOver) return null
        if (!(error instanceof EtcdError)) throw error
        if (error.outcome === 'unknown' && !pending.isUndecided) {
          pending.isUndecided = true
          this.#options.onUndecided(`it is not known yet whether a change was kept: ${error.message}`)
        }
        if (!pending.isUndecided) throw unavailable(error)
        await pause(tries)
      }
    }
    return null
  }

  #isUnchanged(key: Buffer, asOf: number): Compare {
    const own = this.#own.get(key.toString())
    return own === undefined || own <= asOf ? unchangedSince(key, asOf) : changedIn(key, own)
  }

  #remember(key: Buffer, revision: number): void {
    const name = key.toString()
    // Moved to the end: forgetOwn goes by the order of revisions.
    this.#own.delete(name)
    this.#own.set(name, revision)
  }
}

/** What a transaction found that did not succeed. */
interface Refusal {
  readonly gate: KeyValue | null
  readonly head: KeyValue | null
  readonly folded: KeyValue | null
}

/** By bucket, as whoever takes them to their pages reads them. */
function inBuckets(changes: Iterable<Change>): Change[] {
  const keyed = Array.from(changes, (change) => ({ bucket: bucketOf(change.kind, change.key), change }))
  keyed.sort((a, b) => (a.bucket < b.bucket ? -1 : a.bucket > b.bucket ? 1 : 0))
  return keyed.map(({ change }) => change)
}

function nested(puts: readonly Put[]): Op[] {
  const ops: Op[] = []
  for (let from = 0; from < puts.length; from += NESTED) {
    const success = puts.slice(from, from + NESTED).map(({ key, value }) => put(key, value))
    ops.push({ request_txn: { compare: [], success } })
  }
  return ops
}

function checkFresh({ isStale }: Pending): void {
  if (isStale) throw conflict()
}

async function waitForGate(pending: Pending, tries: number): Promise<void> {
  if (tries > GATE_TRIES && !pending.isUndecided) {
    throw new StoreError('unavailable', 'Another core has held up all changes for too long; try again later.')
  }
  await pause(tries)
}

/** Longer with each try, and not all in step. */
function pause(tries: number): Promise<void> {
  return wait((RETRY_MS[tries] ?? RETRY_MS.at(-1)!) * (0.5 + Math.random()))
}

function conflict(): StoreError {
  return new StoreError('conflict', 'Another core changed one of these records first.')
}

/** What did not reach etcd, or was not taken by it. */
export function unavailable(error: unknown): unknown {
  if (!(error instanceof EtcdError)) return error
  const hint = /database space exceeded/.test(error.message)
    ? ' It is full: compact and defragment it, or raise its quota, then disarm the alarm (etcdctl alarm disarm).'
    : ''
  return new StoreError('unavailable', `${error.message}.${hint}`, { cause: error })
}
