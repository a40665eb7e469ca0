// The books: the directory as it is decided so far, which is what the rules decide by.
//
// That is what is published, and on top of it the draft: what was decided and is on its way to the store.
// So decisions see those before them, while all who answer see only what is kept.
// Invariant: nothing but this class writes the directory. After withdraw() the books, their indexes too,
// say what they would had the draft never been; after settle() the directory says what the books said.
// Pure.

import type { Change, Directory, Host, Member, PlacePage, Service, Token } from '../../resolver/directory.ts'
import { BookIndex } from './book-index.ts'
import { DraftMap, type Records } from './draft-map.ts'

/** A change that took effect, with the record before it; null: there was none. */
export type Applied = {
  [K in Change['kind']]: Extract<Change, { kind: K }> & {
    readonly before: Extract<Change, { kind: K }>['value']
  }
}[Change['kind']]

type AnyMap = DraftMap<unknown>

export class Books {
  readonly #maps: { readonly [K in keyof Directory]: AnyMap }
  readonly #index: BookIndex
  /** What each step of the draft replaced, to take it back. */
  readonly #steps: { readonly kind: keyof Directory; readonly key: string; readonly replaced: unknown }[] = []

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

  /** A change that sets a record to what it is by now: what waited must not undo what was decided meanwhile. */
  refreshed({ kind, key }: Change): Change {
    return { kind, key, value: this.#maps[kind].get(key) ?? null } as Change
  }

  /** Whether anything is decided that is not kept yet. */
  get isDrafted(): boolean {
    return this.#steps.length > 0
  }

  /** Puts what was decided into the draft. */
  draft(changes: readonly Change[]): void {
    for (const { kind, key, value } of changes) {
      const map = this.#maps[kind]
      this.#steps.push({ kind, key, replaced: map.drafted(key) })
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
  }

  /** The draft was kept, by these changes: it becomes the directory. */
  settle(changes: readonly Change[]): Applied[] {
    for (const { kind, key } of this.#steps.splice(0)) this.#maps[kind].draft(key, undefined)
    return changes.map((change) => this.#write(change))
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
