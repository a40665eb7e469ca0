// What a method's answers were worth: the penalty of each, and whether what it claimed was so.

import type { Matrix } from './accuracy-matrix.ts'
import type { World } from './accuracy-world.ts'

export interface Claim {
  readonly ms: number
  readonly errorMs: number
  readonly basis: string
}

/** What a method said of one client: after 0, 1, 2 ... probes where it tells so; the last counts. */
export interface Outcome {
  readonly answers: readonly { readonly host: number; readonly claim: Claim | null }[]
  readonly probes: number
}

interface Scored {
  readonly penaltiesMs: readonly number[]
  readonly probes: number
  readonly claim: Claim | null
  readonly missMs: number
}

/** One method's trials. */
export type Score = Scored[]

/**
 * Adds a trial, judged by `truth`. Only honest hosts can be the true nearest; who names a liar pays what it
 * really costs the client.
 */
export function addScore(score: Score, outcome: Outcome, world: World, client: number, truth: Matrix): void {
  const rttsMs = world.hosts.map((row) => orFar(truth.rttMs(row, client)))
  const bestMs = Math.min(...rttsMs.filter((_, i) => !world.isLiar[i]))
  const worstMs = Math.max(...rttsMs.filter(Number.isFinite))
  const penaltiesMs = outcome.answers.map(({ host }) =>
    Math.max(0, Math.min(rttsMs[host]!, worstMs) - bestMs),
  )
  const { host, claim } = outcome.answers.at(-1)!
  const missMs = claim === null ? Number.NaN : Math.abs(claim.ms - rttsMs[host]!)
  score.push({ penaltiesMs, probes: outcome.probes, claim, missMs })
}

export interface Summary {
  readonly optimal: number
  readonly meanPenaltyMs: number
  readonly p50: number
  readonly p90: number
  readonly p99: number
  readonly probesPerClient: number
  /** Share of the claims that were kept; null: the method claims nothing. */
  readonly calibration: number | null
  /** Claims by what they stood on: how many, how many kept, and how wide half of them are. */
  readonly claims?: Readonly<Record<string, { count: number; kept: number; medianMs: number }>>
  /** As it stood after 0, 1, 2 ... probes; who was done before counts on. */
  readonly byProbes?: readonly { probes: number; optimal: number; meanPenaltyMs: number }[]
}

export function summarise(score: Score): Summary {
  const last = score.map((s) => s.penaltiesMs.at(-1)!)
  const claimed = score.filter((s) => s.claim !== null && Number.isFinite(s.claim.errorMs))
  const steps = Math.max(...score.map((s) => s.penaltiesMs.length))
  const told: Summary = {
    ...judge(last),
    p50: round(quantile(last, 0.5), 2),
    p90: round(quantile(last, 0.9), 2),
    p99: round(quantile(last, 0.99), 2),
    probesPerClient: round(mean(score.map((s) => s.probes)), 2),
    calibration: claimed.length === 0 ? null : round(shareKept(claimed), 4),
  }
  if (score.every((s) => s.claim === null)) return told
  const bases = [...new Set(claimed.map((s) => s.claim!.basis))].sort()
  const claims = bases.map((basis) => {
    const these = claimed.filter((s) => s.claim!.basis === basis)
    const widths = these.map((s) => s.claim!.errorMs)
    return [
      basis,
      { count: these.length, kept: round(shareKept(these), 4), medianMs: round(quantile(widths, 0.5), 2) },
    ] as const
  })
  const byProbes = Array.from({ length: steps }, (_, probes) => ({
    probes,
    ...judge(penaltiesAfter(score, probes)),
  }))
  return { ...told, claims: Object.fromEntries(claims), byProbes }
}

/** Each trial's penalty after so many probes. */
export function penaltiesAfter(score: Score, probes: number): number[] {
  return score.map(({ penaltiesMs }) => penaltiesMs[Math.min(probes, penaltiesMs.length - 1)]!)
}

function judge(penaltiesMs: readonly number[]): { optimal: number; meanPenaltyMs: number } {
  return {
    optimal: round(penaltiesMs.filter((ms) => ms === 0).length / penaltiesMs.length, 4),
    meanPenaltyMs: round(mean(penaltiesMs), 3),
  }
}

function shareKept(claimed: Score): number {
  return mean(claimed.map((s) => Number(s.missMs <= s.claim!.errorMs)))
}

export function mean(numbers: readonly number[]): number {
  return numbers.reduce((sum, x) => sum + x, 0) / numbers.length
}

export function quantile(numbers: readonly number[], share: number): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!
}

function round(x: number, digits: number): number {
  return Number(x.toFixed(digits))
}

function orFar(ms: number): number {
  return Number.isNaN(ms) ? Number.POSITIVE_INFINITY : ms
}
