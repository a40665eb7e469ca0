// What happened in a run of the chaos bench, as it was written down: what was done to whom, what clients were
// answered, what writers were told, and what the cores held in the end.
//
// All times are ms of one machine's monotonic clock, counted from the run's start. Pure: types, and what reads
// them off; no judgement: that is chaos-checker.ts'.

export type Kind = 'core' | 'etcd' | 'agent'

/** One process from its start to its end. */
export interface Life {
  readonly node: string
  readonly startedMs: number
  /** From when it does its work: a core is ready, an agent has joined; null: never. */
  readyMs: number | null
  /** When it was killed or told to leave; null: it lives. */
  endedMs: number | null
  how: 'killed' | 'left' | null
}

export interface Span {
  readonly fromMs: number
  readonly toMs: number
}

/** Nothing passes between two nodes. */
export interface Cut extends Span {
  readonly a: string
  readonly b: string
}

/** An agent said that it joined a core. */
export interface Homing {
  readonly atMs: number
  readonly agent: string
  readonly core: string
}

/** One question to one core, or (`core` null) to one after another until one answered. */
export interface Answer {
  readonly via: 'dns' | 'http'
  readonly core: string | null
  readonly question: string
  readonly askedMs: number
  /** When the answer came, or when it was given up. */
  readonly atMs: number
  /** null: none came. Else the agents that it named. */
  readonly named: readonly string[] | null
  /** The answer names every live member there is. */
  readonly isWhole: boolean
}

export interface Write {
  /** `services/w1`, `drained/batch/a01`, `tokens/...`: one thing. */
  readonly key: string
  /** Unique among the writes of the key; null: it removes the thing. */
  readonly value: string | null
  readonly core: string
  readonly askedMs: number
  readonly atMs: number
  /** `unknown`: no answer, so it may have been made, or may yet be. */
  readonly outcome: 'made' | 'refused' | 'unknown'
}

export interface Ending {
  /** Everything runs, and nothing is cut, from then on. */
  readonly healedMs: number
  /** How long after that every record had been seen equal at all cores; null: it never was. */
  readonly equalAfterMs: number | null
  /** How long after that all records were, at one moment; null: they never were. */
  readonly wholeAfterMs: number | null
  /** Where they differed last, for people. */
  readonly differences: readonly string[]
  /** What the directory holds of each written key. */
  readonly held: Readonly<Record<string, string>>
}

export interface History {
  readonly cores: readonly string[]
  readonly etcds: readonly string[]
  readonly agents: readonly string[]
  readonly lives: readonly Life[]
  readonly cuts: readonly Cut[]
  readonly homings: readonly Homing[]
  readonly answers: readonly Answer[]
  readonly writes: readonly Write[]
  /** What was done, a line each, for people. */
  readonly log: readonly { readonly atMs: number; readonly what: string }[]
  readonly ending: Ending
}

/** Whether a process of the node did its work at all times of a span. */
export function isUp(history: History, node: string, { fromMs, toMs }: Span): boolean {
  return history.lives.some(
    (life) =>
      life.node === node &&
      life.readyMs !== null &&
      life.readyMs <= fromMs &&
      (life.endedMs === null || life.endedMs >= toMs),
  )
}

export function areCut(history: History, a: string, b: string, atMs: number): boolean {
  return history.cuts.some(
    (cut) =>
      cut.fromMs <= atMs && atMs < cut.toMs && ((cut.a === a && cut.b === b) || (cut.a === b && cut.b === a)),
  )
}

/** The moments at which anything about processes or cuts changed, in order. */
export function turningPoints({ lives, cuts }: History): number[] {
  const times = [
    ...lives.flatMap(({ startedMs, readyMs, endedMs }) => [startedMs, readyMs, endedMs]),
    ...cuts.flatMap(({ fromMs, toMs }) => [fromMs, toMs]),
  ]
  return [...new Set(times.filter((time) => time !== null))].toSorted((a, b) => a - b)
}
