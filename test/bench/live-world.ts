// The live benchmark's world: which cities of a matrix are agents, which are clients and what those
// answer, and how good the answers are that clients got. Pure: a seed gives the same world again.

import type { Place } from '../../resolver/directory.ts'
import { seededRng } from '../support/seeded-rng.ts'
import type { Matrix } from './accuracy-matrix.ts'

/** What a client answers: DNS queries, connections (by refusing them), pings, or nothing at all. */
export type ClientKind = 'dns' | 'tcp' | 'icmp' | 'silent'

/** One namespace. */
export interface Machine {
  /** Its number in the network. */
  readonly index: number
  readonly name: string
  /** Alone in its /16, so that it stands for a network of its own. */
  readonly address: string
  readonly place: Place | null
}

export interface Client extends Machine {
  readonly kind: ClientKind
}

export interface LiveWorld {
  readonly core: Machine
  readonly agents: readonly Machine[]
  readonly clients: readonly Client[]
  readonly machines: readonly Machine[]
  /** The same in both directions. */
  rttMs(a: Machine, b: Machine): number
}

export interface WorldWish {
  readonly agents: number
  readonly clients: number
  /** Share of the clients that answer nothing. */
  readonly silent: number
  readonly seed: number
}

/** What the others answer, in turn. */
const ANSWERING: readonly ClientKind[] = ['dns', 'tcp', 'icmp']
/** 10.FIRST.7.9 and on. */
const FIRST_NET = 110
export const MAX_MACHINES = 256 - FIRST_NET

/** Draws the cities. Throws an Error where the matrix has too few that were measured to each other. */
export function drawLiveWorld(matrix: Matrix, wish: WorldWish): LiveWorld {
  const rows = drawRows(matrix, 1 + wish.agents + wish.clients, seededRng(wish.seed))
  const machine = (index: number, name: string): Machine => {
    const place = matrix.places?.[rows[index]!] ?? null
    return { index, name, address: `10.${FIRST_NET + index}.7.9`, place }
  }
  const core = machine(0, 'core')
  const agents = Array.from({ length: wish.agents }, (_, i) => machine(1 + i, `a${i}`))
  const silent = Math.round(wish.silent * wish.clients)
  const clients = Array.from({ length: wish.clients }, (_, i): Client => {
    const kind = i < silent ? 'silent' : ANSWERING[i % ANSWERING.length]!
    return { ...machine(1 + wish.agents + i, `c${i}`), kind }
  })
  const rttMs = (a: Machine, b: Machine) =>
    a.index === b.index
      ? 0
      : matrix.rttMs(rows[Math.max(a.index, b.index)]!, rows[Math.min(a.index, b.index)]!)
  return { core, agents, clients, machines: [core, ...agents, ...clients], rttMs }
}

/** Rows in random order, left out those with a gap to one before. */
function drawRows(matrix: Matrix, count: number, rng: () => number): number[] {
  const left = Array.from({ length: matrix.size }, (_, row) => row)
  const rows: number[] = []
  while (rows.length < count) {
    if (left.length === 0) throw new Error(`${matrix.file}: expected ${count} cities measured to each other`)
    const [row] = left.splice(Math.floor(rng() * left.length), 1)
    if (rows.every((other) => matrix.rttMs(row!, other) > 0)) rows.push(row!)
  }
  return rows
}

/** What one client was told; no address: no answer. */
export interface Told {
  readonly client: Client
  readonly addresses: readonly string[]
}

export interface Score {
  readonly clients: number
  /** Share of the addresses told that are the true nearest agent's; a client without an answer got a wrong one. */
  readonly optimal: number
  /** RTT over that to the true nearest, of every address told, ms. */
  readonly meanPenaltyMs: number | null
  readonly p90PenaltyMs: number | null
  readonly unanswered: number
}

/** Every address told is scored; each client weighs the same. */
export function scoreAnswers(world: LiveWorld, told: readonly Told[]): Score {
  const penalties: number[] = []
  let optimal = 0
  let unanswered = 0
  for (const { client, addresses } of told) {
    const own = addresses.map((address) => penaltyMs(world, client, address))
    if (own.length === 0) {
      unanswered++
      continue
    }
    optimal += own.filter((ms) => ms === 0).length / own.length
    penalties.push(own.reduce((sum, ms) => sum + ms, 0) / own.length)
  }
  penalties.sort((a, b) => a - b)
  const mean = penalties.reduce((sum, ms) => sum + ms, 0) / penalties.length
  return {
    clients: told.length,
    optimal: rounded(optimal / told.length, 3),
    meanPenaltyMs: penalties.length === 0 ? null : rounded(mean, 2),
    p90PenaltyMs: penalties.length === 0 ? null : rounded(quantile(penalties, 0.9), 2),
    unanswered,
  }
}

/** How much farther an address is than the true nearest, ms; Infinity for one that is no agent's. */
export function penaltyMs(world: LiveWorld, client: Client, address: string): number {
  const agent = world.agents.find((one) => one.address === address)
  if (agent === undefined) return Number.POSITIVE_INFINITY
  return world.rttMs(client, agent) - world.rttMs(client, nearestTo(world, client))
}

export function nearestTo(world: LiveWorld, client: Client): Machine {
  return world.agents.reduce((best, one) =>
    world.rttMs(client, one) < world.rttMs(client, best) ? one : best,
  )
}

/** Of sorted values, at least one. */
export function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!
}

export function rounded(value: number, digits: number): number {
  return Number(value.toFixed(digits))
}
