// Leading labels: with which labels the names of services and aliases begin, as hashes.
//
// Invariant: a label whose hash is not here begins no such name; one whose hash is here perhaps does. So most of what
// random names ask for is known to be nothing without a string of them.

import { hashText } from './hash.ts'

export class LeadingLabels {
  /** How many names begin with a label of that hash. */
  readonly #counts = new Map<number, number>()

  /** A name, one label or several with dots between, in small letters. */
  add(name: string): void {
    const hash = shortened(hashText(firstLabel(name)))
    this.#counts.set(hash, (this.#counts.get(hash) ?? 0) + 1)
  }

  /** One that was added. */
  remove(name: string): void {
    const hash = shortened(hashText(firstLabel(name)))
    const count = this.#counts.get(hash)!
    if (count > 1) this.#counts.set(hash, count - 1)
    else this.#counts.delete(hash)
  }

  /** `hash`: FNV-1a of a label in small letters (see hashText). Allocates nothing. */
  mayHave(hash: number): boolean {
    return this.#counts.has(shortened(hash))
  }
}

/** To what is no object on the heap. */
function shortened(hash: number): number {
  return hash & 0x3fff_ffff
}

function firstLabel(name: string): string {
  const dot = name.indexOf('.')
  return dot < 0 ? name : name.slice(0, dot)
}
