// A queue of what is due when: the next one is found without looking at the others.
//
// A binary heap (Williams, 1964). Things of equal time come in the order in which they were added. Nothing is
// ever taken out before its time: whoever put it in sees when it comes whether it still matters, and puts it
// in again where that is later. So a time that keeps moving, as a lease's does, costs nothing while it
// moves. Pure: clock by argument.

interface Entry<T> {
  readonly dueMs: number
  readonly order: number
  readonly item: T
}

export class DueQueue<T> {
  readonly #heap: Entry<T>[] = []
  #order = 0

  get size(): number {
    return this.#heap.length
  }

  add(item: T, dueMs: number): void {
    const heap = this.#heap
    const entry = { dueMs, order: this.#order++, item }
    let at = heap.length
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (!isBefore(entry, heap[parent]!)) break
      heap[at] = heap[parent]!
      at = parent
    }
    heap[at] = entry
  }

  /** Takes the first of what is due by now; null: nothing is. */
  take(nowMs: number): T | null {
    const heap = this.#heap
    const first = heap[0]
    if (first === undefined || first.dueMs > nowMs) return null
    const last = heap.pop()!
    if (heap.length > 0) this.#sink(last)
    return first.item
  }

  /** Puts an entry at the top and lets it down to where it belongs. */
  #sink(entry: Entry<T>): void {
    const heap = this.#heap
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++
      if (!isBefore(heap[child]!, entry)) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = entry
  }
}

function isBefore(a: Entry<unknown>, b: Entry<unknown>): boolean {
  return a.dueMs === b.dueMs ? a.order < b.order : a.dueMs < b.dueMs
}
