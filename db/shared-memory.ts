// A store that several cores of one process share: what Cluster promises, in memory, for tests.
//
// Invariant: commits have one order, and each store is told of those of the others in it; a commit of its own
// resolves in its place among them. A store can be cut off and healed, and a lease ended, by hand: no clocks
// here. What etcd does over the network (db/etcd.ts) passes the same suite.

import { applyChanges, type Change, type Directory, emptyDirectory } from '../resolver/directory.ts'
import { copyOf } from './memory.ts'
import { type Cluster, type ClusterListener, type Store, StoreError } from './store.ts'

/** A store of a SharedMemory, with what a test may do to it. */
export interface SharedMemoryStore extends Store {
  readonly cluster: Cluster
  /** From now on it reaches nobody: commits are refused, nothing is told. Its lease stays until endLease. */
  cut(): void
  heal(): void
}

interface SharedMemoryOptions {
  /** For a core that only follows: commits and leases are refused. */
  readonly readOnly?: boolean
}

/** One commit as the log of all has it. */
interface Entry {
  readonly revision: number
  readonly changes: readonly Change[]
  readonly by: Peer
}

/** The directory that stores share, and their leases. */
export class SharedMemory {
  readonly directory: Directory
  revision = 0
  readonly peers = new Set<Peer>()
  /** Who changed a record last, and when. */
  readonly #changed = new Map<string, Entry>()
  readonly #leases = new Map<string, Peer>()

  /** Shares `directory`, which commits change from now on. */
  constructor(directory: Directory = emptyDirectory()) {
    this.directory = directory
  }

  open({ readOnly = false }: SharedMemoryOptions = {}): SharedMemoryStore {
    const peer = new Peer(this, readOnly)
    this.peers.add(peer)
    return peer
  }

  /** As if the core of this name had not been heard for as long as a lease lasts. */
  endLease(core: string): void {
    const holder = this.#leases.get(core)
    if (holder === undefined) return
    this.setLease(core, null)
    holder.holdAnew()
  }

  get cores(): readonly string[] {
    return [...this.#leases.keys()].sort()
  }

  setLease(core: string, holder: Peer | null): void {
    if (holder === null) this.#leases.delete(core)
    else this.#leases.set(core, holder)
    const { cores } = this
    for (const peer of this.peers) peer.hear({ cores })
  }

  isHeldBy(core: string, peer: Peer): boolean {
    return this.#leases.get(core) === peer
  }

  /** Whether somebody else changed a record of these since `toldRevision`. */
  isStale(changes: readonly Change[], toldRevision: number, by: Peer): boolean {
    return changes.some((change) => {
      const last = this.#changed.get(recordOf(change))
      return last !== undefined && last.by !== by && last.revision > toldRevision
    })
  }

  append(changes: readonly Change[], by: Peer): Entry {
    // Tried on a copy first: a change that can't be applied must leave none of the others behind.
    applyChanges(copyOf(this.directory), changes)
    applyChanges(this.directory, changes)
    const entry = { revision: ++this.revision, changes, by }
    for (const change of changes) this.#changed.set(recordOf(change), entry)
    for (const peer of this.peers) if (peer !== by) peer.hear({ entry })
    return entry
  }
}

function recordOf({ kind, key }: Change): string {
  return `${kind} ${key}`
}

/** What a store is to tell or to do, in this order. */
type News =
  | { readonly entry: Entry }
  | { readonly cores: readonly string[] }
  | { readonly done: () => void; readonly revision?: number }

class Peer implements SharedMemoryStore {
  readonly cluster: Cluster = this
  readonly #shared: SharedMemory
  readonly #readOnly: boolean
  #listener: ClusterListener | null = null
  #toldRevision: number
  #news: News[] = []
  #telling: Promise<void> | null = null
  #isCut = false
  #isClosed = false
  #core: string | null = null

  constructor(shared: SharedMemory, readOnly: boolean) {
    this.#shared = shared
    this.#readOnly = readOnly
    this.#toldRevision = shared.revision
  }

  async load(): Promise<Directory> {
    this.#checkReachable()
    if (this.#listener === null) {
      this.#toldRevision = this.#shared.revision
      this.#news = []
    }
    return copyOf(this.#shared.directory)
  }

  async commit(changes: readonly Change[]): Promise<void> {
    this.#checkWritable()
    if (this.#shared.isStale(changes, this.#toldRevision, this)) {
      throw new StoreError('conflict', 'Another core changed one of these records first.')
    }
    const { revision } = this.#shared.append(changes, this)
    await this.#inTurn(revision)
  }

  follow(listener: ClusterListener): void {
    this.#listener = listener
    // What is waiting since load comes first, but for older news of the cores.
    this.#news = this.#news.filter((news) => !('cores' in news))
    this.hear({ cores: this.#shared.cores })
  }

  async caughtUp(): Promise<void> {
    this.#checkReachable()
    await this.#inTurn()
    // It was cut off meanwhile: what is missing will be told after it was healed.
    this.#checkReachable()
  }

  async cores(): Promise<readonly string[]> {
    this.#checkReachable()
    return this.#shared.cores
  }

  async size(): Promise<null> {
    return null
  }

  async announce(core: string): Promise<void> {
    this.#checkWritable()
    this.#core = core
    this.#shared.setLease(core, this)
  }

  async release(): Promise<void> {
    const core = this.#core
    this.#core = null
    if (core !== null && this.#shared.isHeldBy(core, this)) this.#shared.setLease(core, null)
  }

  /** Its lease ended: it takes a new one as soon as it can. */
  holdAnew(): void {
    const core = this.#core
    if (core === null || this.#isCut || this.#isClosed || this.#shared.isHeldBy(core, this)) return
    this.#shared.setLease(core, this)
  }

  hear(news: News): void {
    if (this.#isClosed) return
    this.#news.push(news)
    if (this.#listener !== null) this.#telling ??= this.#tell()
  }

  cut(): void {
    this.#isCut = true
    this.#listener?.onTrouble('the store can’t be reached')
    // Who waits is told that it can't be had now; what is to be told waits for the healing.
    for (const news of this.#news) if ('done' in news && news.revision === undefined) news.done()
    this.#news = this.#news.filter((news) => !('done' in news) || news.revision !== undefined)
  }

  heal(): void {
    this.#isCut = false
    this.holdAnew()
    this.hear({ done: () => this.#isCut || this.#listener?.onTrouble(null) })
  }

  async close(): Promise<void> {
    if (!this.#isCut) await this.release()
    this.#isClosed = true
    this.#shared.peers.delete(this)
    for (const news of this.#news.splice(0)) if ('done' in news) news.done()
  }

  /** Resolves when all news until now was told. */
  async #inTurn(revision?: number): Promise<void> {
    if (this.#listener === null) return
    await new Promise<void>((done) => this.hear(revision === undefined ? { done } : { done, revision }))
  }

  /** One after another, each in a turn of the event loop of its own: who waited for one acts before the next is told. */
  async #tell(): Promise<void> {
    for (;;) {
      await new Promise((resolve) => setImmediate(resolve))
      if (this.#isCut || this.#isClosed) break
      const news = this.#news.shift()
      if (news === undefined) break
      this.#tellOne(news)
    }
    this.#telling = null
  }

  #tellOne(news: News): void {
    if ('cores' in news) {
      this.#listener!.onCores(news.cores)
    } else if ('entry' in news) {
      this.#toldRevision = news.entry.revision
      this.#listener!.onCommit(news.entry.changes, news.entry.revision)
    } else {
      if (news.revision !== undefined) this.#toldRevision = news.revision
      news.done()
    }
  }

  #checkWritable(): void {
    this.#checkReachable()
    if (this.#readOnly) throw new StoreError('read-only', 'This store was opened to follow only.')
  }

  #checkReachable(): void {
    if (this.#isClosed) throw new StoreError('closed', 'This store was closed.')
    if (this.#isCut) throw new StoreError('unavailable', 'The store can’t be reached.')
  }
}
