// Homes: which core hears a host, and who judges it when that core is gone.
//
// A host's home is the core that holds its lease; other cores hear of it through the store alone. When a
// home's own lease in the store has ended, each of its hosts falls to one of the cores that are left, by
// rendezvous hashing (Thaler and Ravishankar, 1998), so that all cores agree on whom without a word.
// A core that holds no lease itself judges nobody but its own. Pure but for its own memory.

import type { Host } from '../resolver/directory.ts'
import { hashShare, hashText } from '../resolver/hash.ts'
import { Grouping } from './registry/grouping.ts'

export class Homes {
  readonly #self: string | null
  readonly #isAlone: boolean
  readonly #hostsOf = new Grouping()
  #cores: readonly string[] = []

  /** `self`: null for a core that only follows; `isAlone`: no other core shares the store, and all hosts are this core's. */
  constructor(self: string | null, isAlone: boolean) {
    this.#self = self
    this.#isAlone = isAlone
  }

  /** The names of the cores that hold a lease in the store. */
  get cores(): readonly string[] {
    return this.#cores
  }

  get holdsLease(): boolean {
    return this.#self !== null && this.#cores.includes(this.#self)
  }

  /** Cores that hosts of this one could go to. */
  get others(): number {
    return this.#cores.length - Number(this.holdsLease)
  }

  hearCores(names: readonly string[]): void {
    this.#cores = names
  }

  /** A host's record became another; null: none. */
  follow(name: string, before: Host | null, after: Host | null): void {
    if (before?.home === after?.home) return
    if (before) this.#hostsOf.delete(before.home, name)
    if (after) this.#hostsOf.add(after.home, name)
  }

  /** Whether this core is a host's home: it hears its heartbeats, and gives it its orders. */
  isOwn(host: Pick<Host, 'home'>): boolean {
    return this.#isAlone || host.home === this.#self
  }

  /** Whether a host's home is gone and this core judges it. */
  isOrphanOfMine({ name, home }: Pick<Host, 'name' | 'home'>): boolean {
    if (this.#isAlone || !this.holdsLease || this.#cores.includes(home)) return false
    return chosenOf(name, this.#cores) === this.#self
  }

  /** The hosts whose homes are gone and that this core judges, among them those cores themselves. */
  *orphans(): Iterable<string> {
    for (const home of this.#hostsOf.groups()) {
      if (this.#cores.includes(home)) continue
      for (const name of this.#hostsOf.of(home)) if (this.isOrphanOfMine({ name, home })) yield name
    }
  }

  /** Whether this core is the one of all that does what one must do. `what`: of equal lots another each. */
  isChosenFor(what: string): boolean {
    return this.#isAlone || (this.holdsLease && chosenOf(what, this.#cores) === this.#self)
  }
}

/** Of these cores the one that something falls to. */
function chosenOf(what: string, cores: readonly string[]): string | null {
  const lot = hashText(what)
  let [chosen, best] = [null as string | null, -1]
  for (const core of cores) {
    const share = hashShare(lot, hashText(core))
    if (share > best) [chosen, best] = [core, share]
  }
  return chosen
}
