// A steady clock: the time of day, by a system whose clock may be set to anything at any moment.
//
// Small corrections are followed. A jump by more than a day is not: from then on time goes on by the clock that never
// jumps, until the system's comes back or the process starts anew. So nobody is forgotten, locked out or
// believed for ever because a clock was once years off. Pure but for its own memory.

/** Where time comes from: the system's, or a test's. */
export interface Clock {
  /** Epoch, ms: for records and people. */
  epochMs(): number
  /** Never jumps, ms: for leases and all else that is decided. */
  monotonicMs(): number
}

/** What leases, tickets, echoes and upkeep take without harm, ms. */
const FOLLOWED_MS = 24 * 3600_000

export class SteadyClock implements Clock {
  readonly #system: Clock
  /** Epoch of the zero of the clock that never jumps. */
  #originMs: number

  constructor(system: Clock) {
    this.#system = system
    this.#originMs = system.epochMs() - system.monotonicMs()
  }

  monotonicMs(): number {
    return this.#system.monotonicMs()
  }

  epochMs(): number {
    const jumpMs = this.jumpMs()
    if (Math.abs(jumpMs) <= FOLLOWED_MS) this.#originMs += jumpMs
    return this.#originMs + this.#system.monotonicMs()
  }

  /** By how much the system's clock is off from what this one says, ms. */
  jumpMs(): number {
    return this.#system.epochMs() - this.#system.monotonicMs() - this.#originMs
  }

  /** What to tell about a jump that is not followed; null: there is none. */
  get trouble(): string | null {
    const days = Math.round(this.jumpMs() / FOLLOWED_MS)
    if (Math.abs(this.jumpMs()) <= FOLLOWED_MS) return null
    return `this machine’s clock jumped by ${days} days: it is not followed until this core is started anew`
  }
}
