// What the lab found, for people (a table and a sentence) and for programs (the record itself).
//
// Prints nothing. The lab alone knows the true round trips; they are used here, to judge, and nowhere else.

import { type Column, formatTable } from '../cli/table.ts'

/** What one client got and should have got. */
export interface Outcome {
  readonly client: string
  readonly address: string
  /** Member names; the one that HTTP told, and the one whose address DNS told. */
  readonly member: string
  readonly dnsMember: string
  readonly rttMs: number
  readonly nearest: string
  readonly nearestRttMs: number
  readonly basis: string
}

/** How the nearest member of one client died. Seconds count from the kill. */
export interface Death {
  readonly member: string
  readonly client: string
  /** When it was last named; null: it still was when the lab gave up. */
  readonly dnsSec: number | null
  readonly httpSec: number | null
  /** Who was named to that client in its place. */
  readonly successor: string
  /** Members that lived and yet were not served at some moment. */
  readonly wronged: readonly string[]
}

export interface LabReport {
  readonly hosts: number
  readonly seed: number
  /** Whether the agents were kept from measuring clients. */
  readonly withheld: boolean
  readonly outcomes: readonly Outcome[]
  /** Median over pairs of hosts: how far predicted round trips are off the true ones, as a share of them. */
  readonly coordinateError: number
  /** null: nobody was killed. */
  readonly death: Death | null
  /** How late the lab's network let packets go. */
  readonly lateness: { readonly packets: number; readonly medianMs: number; readonly p99Ms: number }
  readonly tookSec: number
}

export interface Score {
  readonly clients: number
  readonly optimal: number
  readonly meanPenaltyMs: number
  readonly worstPenaltyMs: number
}

function penaltyMs({ rttMs, nearestRttMs }: Outcome): number {
  return rttMs - nearestRttMs
}

export function score(outcomes: readonly Outcome[]): Score {
  const penalties = outcomes.map(penaltyMs)
  return {
    clients: outcomes.length,
    optimal: penalties.filter((ms) => ms === 0).length,
    meanPenaltyMs: penalties.reduce((sum, ms) => sum + ms, 0) / penalties.length,
    worstPenaltyMs: Math.max(...penalties),
  }
}

const COLUMNS: readonly Column[] = [
  { title: 'client in' },
  { title: 'is sent to' },
  { title: 'ms', kind: 'number' },
  { title: 'true nearest' },
  { title: 'ms', kind: 'number' },
  { title: 'penalty', kind: 'number' },
  { title: 'basis' },
]

/** The table of clients. `width` null: as wide as it needs. */
export function formatOutcomes(outcomes: readonly Outcome[], width: number | null): string[] {
  const rows = outcomes.map((outcome) => [
    outcome.client,
    outcome.member,
    outcome.rttMs.toFixed(1),
    outcome.nearest,
    outcome.nearestRttMs.toFixed(1),
    penaltyMs(outcome) === 0 ? '-' : penaltyMs(outcome).toFixed(1),
    outcome.basis,
  ])
  return formatTable(COLUMNS, rows, width)
}

/** The whole in one line. */
export function formatSummary(report: LabReport): string {
  const { clients, optimal, meanPenaltyMs, worstPenaltyMs } = score(report.outcomes)
  const sent = `${clients} clients: ${optimal} sent to the true nearest, penalty ${meanPenaltyMs.toFixed(1)} ms on average, ${worstPenaltyMs.toFixed(1)} ms at worst`
  if (report.death === null) return `${sent} (measurements of clients withheld)`
  const { dnsSec, httpSec, wronged } = report.death
  const gone = (sec: number | null) => (sec === null ? 'never' : `after ${sec.toFixed(1)} s`)
  const living = wronged.length === 0 ? 'no live one was dropped' : `DROPPED ALIVE: ${wronged.join(', ')}`
  return `${sent}; the dead member was gone ${gone(dnsSec)} (DNS) and ${gone(httpSec)} (HTTP); ${living}`
}
