// A set of names from which some are drawn at random, in a time that does not depend on how many there are.
//
// Pure but for its own memory: chance by argument.

export class HostDraw {
  readonly #names: string[] = []
  readonly #places = new Map<string, number>()

  get size(): number {
    return this.#names.length
  }

  /** All of them; in the order in which they came, as long as none went. */
  get names(): readonly string[] {
    return this.#names
  }

  has(name: string): boolean {
    return this.#places.has(name)
  }

  /** Puts a name in or takes it out. */
  set(name: string, isIn: boolean): void {
    const place = this.#places.get(name)
    if (isIn && place === undefined) this.#places.set(name, this.#names.push(name) - 1)
    else if (!isIn && place !== undefined) this.#remove(name, place)
  }

  /** Up to `count` different ones, each equally likely (Floyd's sampling, CACM 1987). */
  draw(count: number, rng: () => number): string[] {
    const all = this.#names.length
    const drawn = new Set<number>()
    for (let last = Math.max(0, all - count); last < all; last++) {
      const any = Math.floor(rng() * (last + 1))
      drawn.add(drawn.has(any) ? last : any)
    }
    return Array.from(drawn, (place) => this.#names[place]!)
  }

  #remove(name: string, place: number): void {
    this.#places.delete(name)
    const last = this.#names.pop()!
    if (last === name) return
    this.#names[place] = last
    this.#places.set(last, place)
  }
}
