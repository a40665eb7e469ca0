// A world for one draw of hosts: what they report (liars make it up), and the records that a core has of
// them after their echoes, made by the code that makes them in a core: EchoPlanner plans, HostMesh hears.

import { EchoPlanner } from '../../core-node/measuring/echo-planner.ts'
import { HostMesh } from '../../core-node/measuring/mesh.ts'
import type { Change, Host, Place } from '../../resolver/directory.ts'
import { Tables } from '../../resolver/tables.ts'
import { aHost, aService, member, ofHost, ofService } from '../support/records.ts'
import type { Matrix } from './accuracy-matrix.ts'

export type Rng = () => number

export interface World {
  readonly matrix: Matrix
  /** Rows of the matrix that are hosts; host i is called `h` + i. */
  readonly hosts: readonly number[]
  readonly isLiar: readonly boolean[]
  /** What host i says it measured to a row of the matrix, ms; NaN: no answer. */
  reportMs(host: number, row: number): number
  /** Service, hosts with their mesh, and members: what a core's tables are compiled from. */
  readonly changes: readonly Change[]
}

export const SERVICE = 'bench'

/** The neutral policy: the nearest alone is right, nothing is kept from before, ties are not shared out. */
const NEAREST = aService({
  name: SERVICE,
  maxAddrs: 1,
  tieMs: 0,
  stickyMs: 0,
  stickyRatio: 1,
  allDown: { mode: 'empty' },
})

/** Hosts probe each other for so long before the first client comes, ms: as many minutes as their first hour's echoes need at most. */
const SETTLE_MS = 20 * 60_000
const STEP_MS = 2_000

/** How a liar makes RTTs up. Colluders all say what they would see from one other place. */
export type LieKind = 'lone' | 'colluding'

export interface WorldWish {
  readonly hosts: number
  readonly liarShare: number
  readonly lieKind: LieKind
}

export function drawWorld(matrix: Matrix, wish: WorldWish, rng: Rng): World {
  const rows = shuffle(
    Array.from({ length: matrix.size }, (_, row) => row),
    rng,
  )
  const hosts = rows.slice(0, wish.hosts)
  const liars = countLiars(wish.liarShare, hosts.length)
  const isLiar = hosts.map((_, i) => i < liars)
  const collusion = colludingLie(rows[wish.hosts]!)
  const lies = hosts.slice(0, liars).map(() => (wish.lieKind === 'lone' ? drawLoneLie(rng) : collusion))
  const made = new Map<number, number>()
  const reportMs = (host: number, row: number) => {
    const trueMs = matrix.rttMs(hosts[host]!, row)
    if (!isLiar[host]) return trueMs
    // A liar keeps to its word: the same question gets the same answer.
    const key = host * matrix.size + row
    const told = made.get(key) ?? lies[host]!(matrix, row, trueMs, rng)
    made.set(key, told)
    return told
  }
  const records = echoAround(hosts, reportMs, matrix.places, rng)
  const changes: Change[] = [
    ofService(NEAREST),
    ...records.flatMap((value) => [ofHost(value), member(SERVICE, value.name)]),
  ]
  return { matrix, hosts, isLiar, reportMs, changes }
}

/** How many of so many hosts lie. */
export function countLiars(share: number, hosts: number): number {
  return Math.round(share * hosts)
}

type Lie = (matrix: Matrix, row: number, trueMs: number, rng: Rng) => number

const RANDOM_MS = 300

const LONE_LIES: readonly Lie[] = [
  (_matrix, _row, trueMs) => trueMs / 2,
  (_matrix, _row, trueMs) => trueMs * 2,
  (_matrix, _row, _trueMs, rng) => RANDOM_MS * rng(),
]

/** Who lies alone has one way to, whichever host it is. */
function drawLoneLie(rng: Rng): Lie {
  return LONE_LIES[Math.floor(rng() * LONE_LIES.length)]!
}

const colludingLie =
  (from: number): Lie =>
  (matrix, row, trueMs, rng) => {
    const ms = row === from ? 1 : matrix.rttMs(from, row)
    return Number.isNaN(trueMs) ? Number.NaN : ms * (1 + 0.05 * rng())
  }

/** The hosts' records after they have echoed each other as the planner of echoes has them do. */
function echoAround(
  rows: readonly number[],
  reportMs: (host: number, row: number) => number,
  places: readonly Place[] | null,
  rng: Rng,
): Host[] {
  const records = rows.map((row, i) => hostOf(i, places?.[row] ?? null))
  const tables = new Tables()
  const mesh = new HostMesh()
  const planner = new EchoPlanner('core')
  for (const host of records) planner.follow(host.name, host, 0)
  const known = new Set<string>()
  const pairs = rows.length * (rows.length - 1)
  for (let nowMs = 0; nowMs < SETTLE_MS && (nowMs < 120_000 || known.size < pairs); nowMs += STEP_MS) {
    const touched = new Set<number>()
    for (const { from, to } of planner.plan(tables, nowMs, rng)) {
      const [a, b] = [Number(from.slice(1)), Number(to.slice(1))]
      known.add(`${a} ${b}`)
      const rttMs = reportMs(a, rows[b]!)
      if (Number.isNaN(rttMs)) continue
      const { host } = mesh.hear(records[a]!, records[b]!, rttMs, rng)
      if (host !== records[a]) touched.add(a)
      records[a] = host
    }
    tables.apply([...touched].map((i) => ofHost(records[i]!)))
  }
  return records
}

export function hostOf(i: number, place: Place | null): Host {
  const address = `9.${i >> 8}.${i & 255}.1`
  return aHost(`h${i}`, { addresses: [address], echo: { address, port: 7 }, home: 'core', place })
}

export function shuffle<T>(items: readonly T[], rng: Rng): T[] {
  const mixed = [...items]
  for (let i = mixed.length - 1; i > 0; i--) {
    const j = Math.floor(rng() * (i + 1))
    ;[mixed[i], mixed[j]] = [mixed[j]!, mixed[i]!]
  }
  return mixed
}
