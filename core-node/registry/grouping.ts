// A grouping: which keys belong to which group, for a million groups of mostly one key.
//
// A group of one is the key itself, without a set around it: that is all that most groups ever are.
// Invariant: a group without keys takes no room. Pure.

export class Grouping {
  readonly #groups = new Map<string, string | Set<string>>()

  add(group: string, key: string): void {
    const known = this.#groups.get(group)
    if (known === undefined) this.#groups.set(group, key)
    else if (known instanceof Set) known.add(key)
    else if (known !== key) this.#groups.set(group, new Set([known, key]))
  }

  delete(group: string, key: string): void {
    const known = this.#groups.get(group)
    if (known instanceof Set) {
      known.delete(key)
      if (known.size === 1) this.#groups.set(group, known.values().next().value!)
    } else if (known === key) this.#groups.delete(group)
  }

  /** The keys of a group, in no order that means anything. */
  of(group: string): Iterable<string> {
    const known = this.#groups.get(group)
    if (known === undefined) return []
    return known instanceof Set ? known : [known]
  }

  /** The groups that have keys. */
  groups(): Iterable<string> {
    return this.#groups.keys()
  }

  count(group: string): number {
    const known = this.#groups.get(group)
    if (known === undefined) return 0
    return known instanceof Set ? known.size : 1
  }
}
