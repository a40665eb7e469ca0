// DNS workers for tests: real threads, fed with records that a test changes.

import { applyChanges, type Change, type Directory, emptyDirectory } from '../../resolver/directory.ts'
import type { WorkersOptions } from '../../resolver/dns-workers.ts'
import { LocalityMap } from '../../resolver/locality-map.ts'
import { hasMmsg } from '../../resolver/mmsg.ts'
import type { PackedLocalities } from '../../resolver/packed-localities.ts'
import type { PlaceMemory } from '../../resolver/place-reader.ts'
import { PlaceTable, type SharedPlaces } from '../../resolver/place-table.ts'
import type { Tables } from '../../resolver/tables.ts'

/** false: workers can answer UDP here; else why not, for `skip`. */
export function noWorkers(): string | false {
  return hasMmsg() ? false : 'the system has no recvmmsg, or koffi no binary for it'
}

/** A directory as a core has it: localities packed as a start found them; what is published is in the tables first, then told. */
export class TestFeed {
  readonly #directory: Directory
  readonly #tables: Tables | null
  readonly places = new PlaceTable()
  #listener: (changes: readonly Change[]) => void = () => {}

  constructor(changes: readonly Change[], tables: Tables | null = null) {
    const directory = emptyDirectory()
    applyChanges(directory, changes)
    this.#directory = { ...directory, localities: LocalityMap.packing(directory.localities) }
    this.#tables = tables
  }

  get packedLocalities(): PackedLocalities {
    return this.#directory.localities.packed
  }

  *records(): Iterable<readonly Change[]> {
    for (const kind of ['services', 'hosts', 'members'] as const) {
      const records: ReadonlyMap<string, unknown> = this.#directory[kind]
      yield Array.from(records, ([key, value]) => ({ kind, key, value }) as Change)
    }
    yield [...this.#directory.localities.changes()]
  }

  subscribe(listener: (changes: readonly Change[]) => void): () => void {
    this.#listener = listener
    return () => {
      this.#listener = () => {}
    }
  }

  sharePlaces(onMoved: (memory: PlaceMemory) => void): SharedPlaces {
    return this.places.share(onMoved)
  }

  publish(...changes: Change[]): void {
    applyChanges(this.#directory, changes)
    this.#tables?.apply(changes)
    for (const { kind, key, value } of changes)
      if (kind === 'places') this.places.setPage(key, value?.packed ?? null)
    this.tell(...changes)
  }

  /** What nobody keeps. */
  tell(...changes: Change[]): void {
    this.#listener(changes)
  }
}

export function workersOf(
  feed: readonly Change[] | TestFeed,
  over: Partial<WorkersOptions> = {},
): WorkersOptions & { resolvers: [] } {
  return {
    count: 2,
    entry: new URL('../../core-node/dns-thread.ts', import.meta.url),
    data: () => ({ geo: 'none', geography: null }),
    feed: feed instanceof TestFeed ? feed : new TestFeed(feed),
    resolvers: [],
    ...over,
  }
}
