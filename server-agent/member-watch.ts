// Watches one member of this host: runs its health check and reads its load, each at its own pace, and
// holds what was found last. Tells of changes; whom that concerns is the agent's business.
// Invariant: tries of one member never overlap, and none is under way once stop() has resolved.

import { reasonOf } from './agent-error.ts'
import { type Check, countTry, type Health, runCheck, UNTRIED } from './check.ts'
import { pause } from './deadline.ts'
import { type LoadSource, readLoad } from './load.ts'

/** Loads change over seconds; a heartbeat is not worth a process each time. */
const LOAD_INTERVAL_MS = 5000

export interface CheckPace {
  readonly intervalMs: number
  readonly timeoutMs: number
  /** Good tries in a row that make a member up again, bad ones that make it down. */
  readonly rise: number
  readonly fall: number
}

export interface WatchOptions {
  readonly check: Check | null
  readonly load: LoadSource | null
  readonly pace: CheckPace
  readonly onHealth: (health: Health, detail: string) => void
  /** The load could not be read; told once until it can again. */
  readonly onLoadError: (reason: string) => void
}

export class MemberWatch {
  /** `unknown` without a check, and until its first try ended. */
  health: Health = 'unknown'
  /** null: none is asked for, or it could not be read. */
  load: number | null = null
  readonly #options: WatchOptions
  readonly #stop = new AbortController()
  #first: Promise<unknown> | null = null
  #loops: Promise<unknown> | null = null

  constructor(options: WatchOptions) {
    this.#options = options
  }

  /** Starts watching, once; resolves when the first try and the first load are in. */
  async start(): Promise<void> {
    if (this.#first === null) {
      const { check, load, pace } = this.#options
      const tries = check === null ? null : repeat(pace.intervalMs, this.#stop.signal, this.#checker(check))
      const loads = load === null ? null : repeat(LOAD_INTERVAL_MS, this.#stop.signal, this.#loader(load))
      this.#first = Promise.all([tries?.first, loads?.first])
      this.#loops = Promise.all([tries?.ended, loads?.ended])
    }
    await this.#first
  }

  /** Resolves when no try is under way any more. */
  async stop(): Promise<void> {
    this.#stop.abort(new Error('stopped'))
    await this.#loops
  }

  #checker(check: Check): () => Promise<void> {
    const { pace, onHealth } = this.#options
    let count = UNTRIED
    return async () => {
      const { ok, detail } = await runCheck(check, pace.timeoutMs, this.#stop.signal)
      if (this.#stop.signal.aborted) return
      count = countTry(count, ok, pace.rise, pace.fall)
      if (count.health === this.health) return
      this.health = count.health
      onHealth(this.health, detail)
    }
  }

  #loader(source: LoadSource): () => Promise<void> {
    let failing = false
    return async () => {
      try {
        this.load = await readLoad(source, this.#options.pace.timeoutMs, this.#stop.signal)
        failing = false
      } catch (error) {
        this.load = null
        if (!failing && !this.#stop.signal.aborted) this.#options.onLoadError(reasonOf(error))
        failing = true
      }
    }
  }
}

/** Runs `once` every intervalMs, counted from start to start, and never twice at a time. */
function repeat(
  intervalMs: number,
  stop: AbortSignal,
  once: () => Promise<void>,
): { first: Promise<void>; ended: Promise<void> } {
  const first = once()
  const run = async (): Promise<void> => {
    let startedMs = performance.now()
    await first
    while (!stop.aborted) {
      await pause(startedMs + intervalMs - performance.now(), stop)
      if (stop.aborted) return
      startedMs = performance.now()
      await once()
    }
  }
  return { first, ended: run() }
}
