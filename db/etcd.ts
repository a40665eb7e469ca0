// The Store that many cores share, in etcd: https://etcd.io. One order of all commits, each told to all others.
//
//   commit  -> etcd-commits.ts   compare-and-set transactions
//   load    -> etcd-listing.ts   pages, batches and single records at one revision
//   follow  <- etcd-watch.ts     what others committed, from there on
//   lease   -> etcd-lease.ts     which cores are there
//   upkeep  -> etcd-upkeep.ts    records to their pages, old revisions away
// Invariant: it holds what it was told of and committed itself, which is what the core holds too: from that it tells
// what is different where a watch can't go on. Telling is one thing after another, in the order of revisions.

import { isDeepStrictEqual } from 'node:util'
import { applyChanges, type Change, type Directory, emptyDirectory } from '../resolver/directory.ts'
import { EtcdCommits, unavailable } from './etcd-commits.ts'
import { type EtcdAccess, EtcdConnections } from './etcd-connections.ts'
import type { Told } from './etcd-events.ts'
import { EtcdKeys, FIRST_LAYOUT_IN_COLUMNS, LAYOUTS } from './etcd-keys.ts'
import { EtcdLease } from './etcd-lease.ts'
import { idOf, type Listing, listAll, readable, readBatch } from './etcd-listing.ts'
import { isAbsent, put, range, under } from './etcd-messages.ts'
import { EtcdUpkeep } from './etcd-upkeep.ts'
import {
  decodeFacts,
  type Extras,
  encodeFacts,
  entriesOf,
  type Kept,
  takeExtras,
  toKept,
} from './etcd-values.ts'
import { EtcdWatch } from './etcd-watch.ts'
import { copyOf } from './memory.ts'
import { type Cluster, type ClusterListener, type Store, StoreError, type StoreSize } from './store.ts'

export interface EtcdOptions extends EtcdAccess {
  /** Of all keys; ends in a slash. */
  readonly prefix: string
  /** It follows only: commits and leases are refused, and nothing is written. */
  readonly readOnly?: boolean
}

/** How long what was committed may take to be told, ms. */
const TELL_MS = 5000

/** Throws StoreError `unavailable`, or `newer-database` where a newer program arranged what is kept. */
export async function openEtcd(options: EtcdOptions): Promise<Store> {
  const keys = new EtcdKeys(options.prefix)
  const connections = new EtcdConnections(options)
  try {
    const begun = await checkLayout(connections, keys, options.readOnly ?? false)
    return new EtcdStore(connections, keys, begun, options.readOnly ?? false)
  } catch (error) {
    connections.close()
    throw unavailable(error)
  }
}

/** What a store was found to be. */
interface Begun {
  readonly revision: number
  /** How localities are written (see encodePage). */
  readonly inColumns: boolean
}

/** What etcd's revision is, once it is sure that this program knows how things are kept there. */
async function checkLayout(connections: EtcdConnections, keys: EtcdKeys, readOnly: boolean): Promise<Begun> {
  const last = LAYOUTS.at(-1)!
  const { header, responses } = await connections.ask('KV/Txn', {
    compare: [isAbsent(keys.layout)],
    success: readOnly ? [] : [put(keys.layout, encodeFacts({ layout: last }))],
    failure: [range({ key: keys.layout })],
  })
  const [kept] = responses[0]?.response_range?.kvs ?? []
  const layout = kept === undefined ? last : (readable(kept, decodeFacts).layout as number)
  if (LAYOUTS.includes(layout))
    return { revision: header.revision, inColumns: layout >= FIRST_LAYOUT_IN_COLUMNS }
  throw new StoreError(
    'newer-database',
    `etcd's key ${keys.layout} says layout ${layout}, and this program knows ${LAYOUTS.join(' and ')}. Update this program.`,
  )
}

/** What is to be told, in its place. */
type News =
  | { readonly told: Told }
  | { readonly listing: Listing; readonly done: () => void }
  | { readonly trouble: string | null }

class EtcdStore implements Store, Cluster {
  readonly cluster: Cluster = this
  readonly #connections: EtcdConnections
  readonly #keys: EtcdKeys
  readonly #readOnly: boolean
  readonly #commits: EtcdCommits
  readonly #upkeep: EtcdUpkeep
  /** What the core holds: as it was at #toldRevision, and what it committed itself. */
  #directory: Directory = emptyDirectory()
  #extras = new Map<string, Extras>()
  /** When records were put that this process committed after #toldRevision. */
  readonly #own = new Map<string, number>()
  #cores = new Set<string>()
  #toldRevision: number
  #listener: ClusterListener | null = null
  #watch: EtcdWatch | null = null
  #lease: EtcdLease | null = null
  #core: string | null = null
  #news: News[] = []
  #isTelling = false
  readonly #waiting = new Set<{ readonly revision: number; readonly done: (isTold: boolean) => void }>()
  /** Why all is not well, by part; and what was told of it last. */
  readonly #troubles = new Map<'watch' | 'commit' | 'lease', string>()
  #toldTrouble: string | null = null
  #isClosed = false

  constructor(
    connections: EtcdConnections,
    keys: EtcdKeys,
    { revision, inColumns }: Begun,
    readOnly: boolean,
  ) {
    this.#connections = connections
    this.#keys = keys
    this.#readOnly = readOnly
    this.#toldRevision = revision
    this.#commits = new EtcdCommits({
      connections,
      keys,
      inColumns,
      toldRevision: () => this.#toldRevision,
      toldUpTo: (revision) => this.#toldUpTo(revision),
      toKept: (change) => this.#toKept(change),
      onMade: (changes, revision) => this.#keepOwn(changes, revision),
      onUndecided: (reason) => this.#trouble('commit', reason),
    })
    this.#upkeep = new EtcdUpkeep({
      connections,
      keys,
      inColumns,
      isMine: () => this.#core !== null && this.#core === [...this.#cores].sort()[0],
    })
  }

  async load(): Promise<Directory> {
    this.#checkOpen()
    const listing = await this.#guard(listAll(this.#connections, this.#keys))
    if (this.#listener === null) {
      this.#directory = copyOf(listing.directory)
      this.#take(listing)
    }
    return listing.directory
  }

  #take({ extras, cores, revision, singles, batches }: Listing): void {
    this.#extras = extras
    this.#cores = cores
    this.#upkeep.reset(singles, batches)
    this.#moveTo(revision)
  }

  async commit(changes: readonly Change[]): Promise<void> {
    this.#checkWritable()
    if (changes.length > 0) await this.#commits.commit(changes)
  }

  #keepOwn(changes: readonly Change[], revision: number): void {
    applyChanges(this.#directory, changes)
    for (const { kind, key, value } of changes) if (value === null) this.#extras.delete(idOf(kind, key))
    if (this.#listener === null) return
    for (const { kind, key } of changes) this.#own.set(idOf(kind, key), revision)
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    await this.release().catch(() => {})
    this.#isClosed = true
    this.#watch?.close()
    this.#upkeep.close()
    this.#commits.close()
    for (const { done } of this.#waiting) done(false)
    this.#connections.close()
  }

  // ---- the cluster

  follow(listener: ClusterListener): void {
    this.#listener = listener
    this.#watch = new EtcdWatch(
      {
        connections: this.#connections,
        keys: this.#keys,
        onTold: (all) => this.#hear(...all.map((told) => ({ told }))),
        relist: () => this.#relist(),
        onTrouble: (reason) => this.#trouble('watch', reason),
      },
      this.#toldRevision,
    )
    listener.onCores(this.#coreNames)
    if (!this.#readOnly) this.#upkeep.start()
  }

  async caughtUp(): Promise<void> {
    this.#checkOpen()
    if (this.#listener === null) return
    const { kvs } = await this.#guard(this.#connections.ask('KV/Range', { key: this.#keys.head }))
    const isTold = await this.#toldUpTo(kvs[0]?.mod_revision ?? 0)
    this.#checkOpen()
    if (!isTold) {
      throw new StoreError('unavailable', `What others committed was not told within ${TELL_MS} ms.`)
    }
  }

  async announce(core: string): Promise<void> {
    this.#checkWritable()
    await this.release()
    this.#core = core
    this.#lease = await this.#guard(
      EtcdLease.hold({
        connections: this.#connections,
        keys: this.#keys,
        core,
        writer: this.#commits.writer,
        onTrouble: (reason) => this.#trouble('lease', reason),
      }),
    )
  }

  async release(): Promise<void> {
    const lease = this.#lease
    this.#lease = null
    this.#core = null
    if (lease !== null) await this.#guard(lease.release())
  }

  async cores(): Promise<readonly string[]> {
    this.#checkOpen()
    const { cores } = this.#keys
    const all = this.#connections.ask('KV/Range', { ...under(cores), keys_only: true })
    return (await this.#guard(all)).kvs.map(({ key }) => key.toString('utf8', cores.length))
  }

  async size(): Promise<StoreSize> {
    this.#checkOpen()
    const { dbSize, dbSizeInUse } = await this.#guard(this.#connections.ask('Maintenance/Status', {}))
    return { fileBytes: dbSize, usedBytes: dbSizeInUse }
  }

  // ---- telling

  get #coreNames(): readonly string[] {
    return [...this.#cores].sort()
  }

  #hear(...news: readonly News[]): void {
    this.#news.push(...news)
    if (!this.#isTelling) void this.#tell()
  }

  async #tell(): Promise<void> {
    this.#isTelling = true
    for (let news = this.#news.shift(); news !== undefined && !this.#isClosed; news = this.#news.shift()) {
      if ('told' in news) await this.#tellRevision(news.told)
      else if ('listing' in news) this.#tellDifference(news.listing, news.done)
      else this.#tellTrouble(news.trouble)
    }
    this.#isTelling = false
  }

  async #tellRevision(told: Told): Promise<void> {
    this.#upkeep.hear(told)
    if (told.commit !== null && this.#commits.sawCommit(told.commit, told.revision)) {
      this.#moveTo(told.revision)
      // Whoever made it acts on it before what came after is told.
      await nextTurn()
    } else {
      const changes = told.batch === null ? told.changes : await this.#readBatch(told, told.batch)
      if (told.doubt !== null) return this.#doubt(told.doubt)
      this.#tellChanges(changes, told.extras, told.revision)
    }
    this.#tellCores(told)
  }

  async #readBatch(told: Told, id: string): Promise<Change[]> {
    const changes: Change[] = []
    try {
      for await (const part of readBatch(this.#connections, this.#keys, id, told.revision)) {
        for (const [kind, key, kept] of entriesOf(part)) {
          const extras = takeExtras(kind, kept)
          if (extras !== null) told.extras.set(changes.length, extras)
          changes.push({ kind, key, value: kept } as Change)
        }
      }
      if (changes.length === 0) told.doubt = `the records of the commit ${id} are gone`
    } catch (error) {
      told.doubt = (error as Error).message
    }
    return changes
  }

  #tellChanges(changes: readonly Change[], extras: Told['extras'], revision: number): void {
    for (const [i, { kind, key }] of changes.entries()) {
      const unknown = extras.get(i)
      if (unknown !== undefined) this.#extras.set(idOf(kind, key), unknown)
      else if (this.#extras.size > 0) this.#extras.delete(idOf(kind, key))
    }
    if (changes.length > 0) {
      applyChanges(this.#directory, changes)
      this.#commits.hear(changes)
      this.#listener!.onCommit(changes, revision)
    }
    this.#moveTo(revision)
  }

  #tellCores({ coresCame, coresWent }: Told): void {
    const before = this.#coreNames.join()
    for (const name of coresCame) this.#cores.add(name)
    for (const name of coresWent) this.#cores.delete(name)
    if (this.#coreNames.join() !== before) this.#listener!.onCores(this.#coreNames)
  }

  #moveTo(revision: number): void {
    this.#toldRevision = revision
    this.#commits.forgetOwn(revision)
    for (const [id, at] of this.#own) if (at <= revision) this.#own.delete(id)
    for (const waiting of this.#waiting) if (waiting.revision <= revision) waiting.done(true)
  }

  /** What was told may not be what is kept: the watch ends, and all is listed. */
  #doubt(reason: string): void {
    this.#news = this.#news.filter((news) => !('told' in news))
    this.#watch!.doubt(reason)
  }

  async #relist(): Promise<number> {
    const listing = await listAll(this.#connections, this.#keys, this.#toldRevision)
    // If a commit of ours is in it, its maker must act on it before what may have come after is told.
    const writer = { key: this.#keys.writer(this.#commits.writer), revision: listing.revision }
    const [last] = (await this.#connections.ask('KV/Range', writer)).kvs
    if (last !== undefined) this.#commits.sawCommit(String(decodeFacts(last.value).id), last.mod_revision)
    await nextTurn()
    await new Promise<void>((done) => this.#hear({ listing, done }))
    return listing.revision
  }

  #tellDifference(listing: Listing, done: () => void): void {
    const isNewerHere = (id: string) => (this.#own.get(id) ?? 0) > listing.revision
    const changes = differences(this.#directory, listing).filter(
      ({ kind, key }) => !isNewerHere(idOf(kind, key)),
    )
    applyChanges(this.#directory, changes)
    this.#take(listing)
    if (changes.length > 0) {
      this.#commits.hear(changes)
      this.#listener!.onCommit(changes, listing.revision)
    }
    this.#listener!.onCores(this.#coreNames)
    done()
  }

  #trouble(part: 'watch' | 'commit' | 'lease', reason: string | null): void {
    if (reason === null) this.#troubles.delete(part)
    else this.#troubles.set(part, reason)
    const [trouble = null] = this.#troubles.values()
    if (!this.#isClosed) this.#hear({ trouble })
  }

  #tellTrouble(trouble: string | null): void {
    if (trouble === this.#toldTrouble) return
    this.#toldTrouble = trouble
    this.#listener?.onTrouble(trouble)
  }

  #toldUpTo(revision: number): Promise<boolean> {
    if (revision <= this.#toldRevision) return Promise.resolve(true)
    if (this.#listener === null || this.#isClosed) return Promise.resolve(false)
    return new Promise((resolve) => {
      const done = (isTold: boolean) => {
        clearTimeout(timer)
        this.#waiting.delete(waiting)
        resolve(isTold)
      }
      const waiting = { revision, done }
      const timer = setTimeout(done, TELL_MS, false)
      this.#waiting.add(waiting)
    })
  }

  // ---- at the edge

  #toKept({ kind, key, value }: Change): Kept {
    return toKept(kind, value, this.#extras.get(idOf(kind, key)))
  }

  async #guard<T>(work: Promise<T>): Promise<T> {
    try {
      return await work
    } catch (error) {
      throw unavailable(error)
    }
  }

  #checkWritable(): void {
    this.#checkOpen()
    if (this.#readOnly) throw new StoreError('read-only', 'This store was opened to follow only.')
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new StoreError('closed', 'This store was closed.')
  }
}

/** What makes `before` into what is listed. */
function differences(before: Directory, { directory, suspects }: Listing): Change[] {
  const changed = new Map<string, Change>()
  for (const { kind, key } of suspects) {
    const value = directory[kind].get(key)
    if (value !== undefined && !isDeepStrictEqual(before[kind].get(key), value)) {
      changed.set(idOf(kind, key), { kind, key, value } as Change)
    }
  }
  const changes = [...changed.values()]
  for (const kind of Object.keys(before) as (keyof Directory)[]) {
    for (const key of missing(before, directory, kind)) changes.push({ kind, key, value: null } as Change)
  }
  return changes
}

function* missing(before: Directory, now: Directory, kind: keyof Directory): Iterable<string> {
  if (kind === 'localities') yield* before.localities.missingIn(now.localities)
  else for (const key of before[kind].keys()) if (!now[kind].has(key)) yield key
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
