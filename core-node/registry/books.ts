// The books: the directory as it is decided so far, which is what the rules decide by.
//
// That is what is published, and on top of it the draft: what was decided and is on its way to the store.
// So decisions see those before them, while all who answer see only what is kept.
// Invariant: nothing but this class writes the directory. After withdraw() the books, their indexes too,
// say what they would had the draft never been; after settle() the directory says what the books said, with
// what was measured or came from other cores meanwhile. Pure.

import type { Change, Directory, Host, Member, PlacePage, Service, Token } from '../../resolver/directory.ts'
import { BookIndex } from './book-index.ts'
import { DraftMap, type Records } from './draft-map.ts'
import { idOf, withMeasured } from './merging.ts'

/** A change that took effect, with the record before it; null: there was none. */
export type Applied = {
  [K in Change['kind']]: Extract<Change, { kind: K }> & {
    readonly before: Extract<Change, { kind: K }>['value']
  }
}[Change['kind']]

type AnyMap = DraftMap<unknown>

/** One step of the draft: what it replaced, to take it back, and what was published when it was made. */
interface Step {
  readonly kind: keyof Directory
  readonly key: string
  readonly replaced: unknown
  readonly below: unknown
}

export class Books {
  readonly #maps: { readonly [K in keyof Directory]: AnyMap }
  readonly #index: BookIndex
  readonly #steps: Step[] = []
  /** Drafted records of which another core's were told meanwhile. */
  readonly #overtaken = new Set<string>()

  readonly services: Records<Service>
  readonly hosts: Records<Host>
  readonly members: Records<Member>
  readonly tokens: Records<Token>
  readonly places: Records<PlacePage>
  readonly settings: Records<string>

  /** From now on writes `directory`. */
  constructor(directory: Directory) {
    const services = new DraftMap(directory.services)
    const hosts = new DraftMap(directory.hosts)
    const members = new DraftMap(directory.members)
    const tokens = new DraftMap(directory.tokens)
    const localities = new DraftMap(directory.localities)
    const places = new DraftMap(directory.places)
    const settings = new DraftMap(directory.settings)
    this.#maps = { services, hosts, members, tokens, localities, places, settings } as Record<
      keyof Directory,
      AnyMap
    >
    this.services = services
    this.hosts = hosts
    this.members = members
    this.tokens = tokens
    this.places = places
    this.settings = settings
    this.#index = new BookIndex(this)
    for (const kind of ['services', 'hosts', 'members'] as const) {
      for (const [key, value] of directory[kind]) this.#index.follow(kind, key, undefined, value)
    }
  }

  /** What is to be found of records by something else than their key. */
  get index(): Omit<BookIndex, 'follow'> {
    return this.#index
  }

  /** A change that sets a record to what the books say by now. */
  refreshed({ kind, key }: Pick<Change, 'kind' | 'key'>): Change {
    return { kind, key, value: this.#maps[kind].get(key) ?? null } as Change
  }

  /** A record as it is published; null: there is none. */
  published({ kind, key }: Pick<Change, 'kind' | 'key'>): unknown {
    return this.#maps[kind].below(key) ?? null
  }

  /** Whether anything is decided that is not kept yet. */
  get isDrafted(): boolean {
    return this.#steps.length > 0
  }

  /** Puts what was decided into the draft. */
  draft(changes: readonly Change[]): void {
    for (const { kind, key, value } of changes) {
      const map = this.#maps[kind]
      this.#steps.push({ kind, key, replaced: map.drafted(key), below: map.below(key) })
      this.#redraft(kind, key, value)
    }
  }

  /** Runs a decision that builds on changes of its own: what it drafts is gone again when it ends. */
  trying<T>(decide: () => T): T {
    const mark = this.#steps.length
    try {
      return decide()
    } finally {
      this.#takeBack(mark)
    }
  }

  /** The draft was not kept: it never was. */
  withdraw(): void {
    this.#takeBack(0)
    this.#overtaken.clear()
  }

  /**
   * The draft was kept, by these changes: it becomes the directory. What was measured of a record since it was drafted
   * stays; a record that another core's overtook stays that one's, which was decided on this: its changes are left out.
   */
  settle(changes: readonly Change[]): Applied[] {
    const drafted = new Map<string, { base: unknown; now: unknown }>()
    for (const { kind, key, below } of this.#steps.splice(0)) {
      const map = this.#maps[kind]
      map.draft(key, undefined)
      const id = idOf({ kind, key })
      if (!drafted.has(id)) drafted.set(id, { base: below, now: map.below(key) })
    }
    const last = new Map(changes.map((change) => [idOf(change), change]))
    const applied: Applied[] = []
    for (const change of changes) {
      const id = idOf(change)
      const isLast = last.get(id) === change
      const { base, now } = drafted.get(id)!
      const isOvertaken = this.#overtaken.has(id)
      const isMerged = isLast && !isOvertaken && now !== base
      const value = isMerged ? withMeasured(change.kind, base, now, change.value) : change.value
      if (!isOvertaken) applied.push(this.#write({ ...change, value } as Change))
      // The index says what was drafted.
      const holds = isOvertaken ? now : value
      if (isLast && holds !== change.value) this.#reindex(change, holds)
    }
    this.#overtaken.clear()
    return applied
  }

  /** What other cores committed, later than what was kept of ours and whatever is drafted. */
  hear(changes: readonly Change[]): Applied[] {
    for (const change of changes) {
      if (this.#maps[change.kind].drafted(change.key) !== undefined) this.#overtaken.add(idOf(change))
    }
    return this.publish(changes)
  }

  /** Changes that are told before they are kept, past the draft: where it says otherwise of a record, it will be right. */
  publish(changes: readonly Change[]): Applied[] {
    return changes.map((change) => {
      const { kind, key } = change
      const map = this.#maps[kind]
      if (map.drafted(key) !== undefined) return this.#write(change)
      const before = map.get(key)
      const applied = this.#write(change)
      this.#index.follow(kind, key, before, map.get(key))
      return applied
    })
  }

  #reindex({ kind, key, value }: Change, holds: unknown): void {
    this.#index.follow(kind, key, value ?? undefined, holds ?? undefined)
  }

  #write(change: Change): Applied {
    const map = this.#maps[change.kind]
    const before = map.below(change.key) ?? null
    map.set(change.key, change.value)
    return { ...change, before } as Applied
  }

  #redraft(kind: keyof Directory, key: string, value: unknown): void {
    const map = this.#maps[kind]
    const before = map.get(key)
    map.draft(key, value)
    this.#index.follow(kind, key, before, map.get(key))
  }

  #takeBack(mark: number): void {
    while (this.#steps.length > mark) {
      const { kind, key, replaced } = this.#steps.pop()!
      this.#redraft(kind, key, replaced)
    }
  }
}
