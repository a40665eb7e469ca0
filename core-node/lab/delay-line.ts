// A delay line: runs each action so many milliseconds after it was put in, to well under one.
//
// Invariant: nothing leaves before its time, and what leaves is in the order of its deadlines.
// A timer of Node is a whole millisecond off, so it only gets us near; the last stretch is spun
// through the event loop, which goes on serving sockets meanwhile. How late each action really left
// is kept, since that is the error of every round trip that the lab emulates.

/** A timer may be this late or this early, ms: what remains after it is spun. */
const TIMER_SLACK_MS = 1.5

interface Waiting {
  readonly deadlineMs: number
  readonly action: () => void
}

export class DelayLine {
  /** Soonest last. */
  readonly #waiting: Waiting[] = []
  readonly #latenessMs: number[] = []
  #timer: NodeJS.Timeout | null = null
  #spinning: NodeJS.Immediate | null = null
  #closed = false

  /** Runs `action` in `delayMs`, counted from `sinceMs` of performance.now(). */
  after(delayMs: number, action: () => void, sinceMs = performance.now()): void {
    if (this.#closed) return
    const deadlineMs = sinceMs + delayMs
    let at = this.#waiting.length
    // Cost: few packets are under way at a time, and most of them leave before the new one.
    while (at > 0 && this.#waiting[at - 1]!.deadlineMs <= deadlineMs) at--
    this.#waiting.splice(at, 0, { deadlineMs, action })
    if (at === this.#waiting.length - 1) this.#wait()
  }

  /** How late actions left, ms: NaN before the first. `share` 0.5 is the median. */
  lateness(share: number): number {
    const sorted = this.#latenessMs.toSorted((a, b) => a - b)
    return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN
  }

  get passed(): number {
    return this.#latenessMs.length
  }

  /** Drops what still waits. */
  close(): void {
    this.#closed = true
    this.#waiting.length = 0
    this.#stop()
  }

  #wait(): void {
    this.#stop()
    const next = this.#waiting.at(-1)
    if (next === undefined) return
    const remainingMs = next.deadlineMs - performance.now()
    if (remainingMs > TIMER_SLACK_MS) {
      this.#timer = setTimeout(() => this.#wait(), Math.floor(remainingMs - TIMER_SLACK_MS))
    } else {
      this.#spinning = setImmediate(() => this.#release())
    }
  }

  #release(): void {
    for (let next = this.#waiting.at(-1); next !== undefined; next = this.#waiting.at(-1)) {
      const lateMs = performance.now() - next.deadlineMs
      if (lateMs < 0) break
      this.#waiting.pop()
      this.#latenessMs.push(lateMs)
      next.action()
    }
    this.#wait()
  }

  #stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    if (this.#spinning !== null) clearImmediate(this.#spinning)
    this.#timer = null
    this.#spinning = null
  }
}
