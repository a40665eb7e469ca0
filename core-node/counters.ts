// Named counts that only grow: what was refused and why, what was ordered, heard and decided.
//
// The shells count what the pure functions tell them; metrics and `status` read.

export class Counters {
  readonly #counts = new Map<string, number>()

  add(name: string, by = 1): void {
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + by)
  }

  /** All counts so far, by name, in order of name. */
  snapshot(): Record<string, number> {
    return Object.fromEntries([...this.#counts].sort(([a], [b]) => (a < b ? -1 : 1)))
  }
}
