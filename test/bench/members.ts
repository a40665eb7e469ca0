// A service of very many members, as overlays have: how fast its near, filtered and random members are found, how
// soon one joins and leaves, what each takes of memory, and how that grows.
//
//   npm run -s bench:members -- [--rtt FILE] [--members 1000,10000,100000,1000000] [--spread 2] [--seed 1] [--json]
//
// Rates are of processor time on one core. `index` is the search alone, `select` the whole decision as every answer
// makes it. Recall is against all members, weighed one by one. Nodes of one site are `spread` ms apart in each
// dimension (a standard deviation).

import { parseArgs } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { parseAddress } from '../../resolver/address.ts'
import { ANY_ASK, type Ask } from '../../resolver/ask.ts'
import type { Change } from '../../resolver/directory.ts'
import { type Locality, locate } from '../../resolver/locate.ts'
import { MemberIndex } from '../../resolver/member-index.ts'
import { select } from '../../resolver/select.ts'
import { Tables } from '../../resolver/tables.ts'
import { seededRng } from '../support/seeded-rng.ts'
import { readCount, readNumber } from './accuracy-arguments.ts'
import { drawOverlayWorld, nodeChanges, type OverlayWorld, overlayChanges, SERVICE } from './members-world.ts'

const USAGE =
  'usage: npm run -s bench:members -- [--rtt FILE] [--members N,N,...] [--spread 2] [--seed 1] [--json]'
const NEIGHBOURS = 20
const RANDOMS = 5
/** A rate is the best of so many rounds of so long a time: other work on the machine only ever slows it. */
const ROUNDS = 3
const ROUND_MS = 400
const RECALL_QUESTIONS = 100
const CHURN = 20_000
const BATCH = 10_000
const NOBODY: ReadonlySet<number> = new Set()

interface Wish {
  readonly rtt: string | null
  readonly members: readonly number[]
  readonly spreadMs: number
  readonly seed: number
  readonly json: boolean
}

function readWish(args: readonly string[]): Wish {
  const text = { type: 'string' } as const
  const options = { rtt: text, members: text, spread: text, seed: text, json: { type: 'boolean' } } as const
  const { values } = parseArgs({ args: [...args], options })
  const members = (values.members ?? '1000,10000,100000,1000000').split(',')
  return {
    rtt: values.rtt ?? null,
    members: members.map((count) => readCount('members', count, 0, 1000, 10_000_000)),
    spreadMs: readNumber('spread', values.spread, 2, 0, 100),
    seed: readCount('seed', values.seed, 1, 0),
    json: values.json ?? false,
  }
}

interface Row {
  readonly members: number
  /** A second. */
  readonly nearIndex: number
  readonly nearSelect: number
  readonly nearRegion: number
  readonly nearRelay: number
  readonly ring: number
  readonly drawIndex: number
  readonly random: number
  /** Of the 20 nearest, the share that is found. */
  readonly recall: number
  readonly recallRegion: number
  readonly joinUs: number
  readonly leaveUs: number
  /** The longest of all joins and leaves, of wall time. */
  readonly worstMs: number
  /** Of the index alone; of all that the tables and the records take. */
  readonly indexBytes: number
  readonly allBytes: number
}

function measure(members: number, { rtt, spreadMs, seed }: Wish): Row {
  const rng = seededRng(seed)
  const world = drawOverlayWorld(rtt, spreadMs, rng)
  const before = usedBytes()
  const tables = new Tables()
  fill(tables, overlayChanges(world, members, rng))
  const allBytes = (usedBytes() - before) / members
  const asks = askers(tables, members, rng)
  const near = { policy: 'nearest', limit: NEIGHBOURS } as const
  return {
    members,
    nearIndex: rateOf(() => searchIndex(tables, asks())),
    nearSelect: rateOf(() => choose(tables, asks(), near, rng)),
    nearRegion: rateOf(() => choose(tables, asks(), { ...near, where: { region: 'r3' } }, rng)),
    nearRelay: rateOf(() => choose(tables, asks(), { ...near, where: { region: 'r4', relay: 'yes' } }, rng)),
    ring: rateOf(() => choose(tables, asks(), { ...near, minMs: 40, maxMs: 60 }, rng)),
    drawIndex: rateOf(() => drawFrom(tables, rng)),
    random: rateOf(() => choose(tables, asks(), { policy: 'random', limit: RANDOMS }, rng)),
    recall: recallOf(tables, asks, {}, rng),
    recallRegion: recallOf(tables, asks, { region: 'r3' }, rng),
    ...churn(tables, world, members, rng),
    indexBytes: indexBytes(tables),
    allBytes,
  }
}

function fill(tables: Tables, changes: Iterable<Change>): void {
  let batch: Change[] = []
  for (const change of changes) {
    batch.push(change)
    if (batch.length < BATCH) continue
    tables.apply(batch)
    batch = []
  }
  tables.apply(batch)
}

/** Members that ask, one after another: hosts, as overlay nodes are. */
function askers(tables: Tables, members: number, rng: () => number): () => Locality {
  const localities = Array.from({ length: 2000 }, () => {
    const i = Math.floor(rng() * members)
    return locate(tables, parseAddress(`10.${(i >> 16) & 255}.${(i >> 8) & 255}.${i & 255}`)!)
  })
  let next = 0
  return () => localities[next++ % localities.length]!
}

function searchIndex(tables: Tables, { coordinate }: Locality): void {
  const spot = { coordinate, place: null, minMs: 0, maxMs: Number.POSITIVE_INFINITY }
  tables
    .service(SERVICE)!
    .index!.near(spot, NEIGHBOURS, { where: {}, marks: 0, barred: NOBODY, isMore: false, fits: () => true })
}

function drawFrom(tables: Tables, rng: () => number): void {
  const { index } = tables.service(SERVICE)!
  index!.draw(
    RANDOMS,
    { where: {}, marks: 0, barred: NOBODY, fits: ({ isOffered }) => isOffered, isMore: false },
    rng,
  )
}

function choose(tables: Tables, locality: Locality, ask: Partial<Ask>, rng: () => number): string[] {
  const wanted = { ...ANY_ASK, selves: new Set([locality.host]), ...ask }
  const { picks } = select(tables, tables.service(SERVICE)!, locality, wanted, rng)
  return picks.map(({ member }) => member.name)
}

function recallOf(
  tables: Tables,
  asks: () => Locality,
  where: Readonly<Record<string, string>>,
  rng: () => number,
): number {
  const { service, members } = tables.service(SERVICE)!
  const all = { service, members, index: null }
  let found = 0
  for (let i = 0; i < RECALL_QUESTIONS; i++) {
    const locality = asks()
    const ask = {
      ...ANY_ASK,
      selves: new Set([locality.host]),
      where,
      policy: 'nearest',
      limit: NEIGHBOURS,
    } as const
    const truth = new Set(select(tables, all, locality, ask, rng).picks.map(({ member }) => member.name))
    for (const name of choose(tables, locality, ask, rng)) if (truth.has(name)) found++
  }
  return found / (RECALL_QUESTIONS * NEIGHBOURS)
}

/** New hosts with a member each join, in the middle of all others, and leave. */
function churn(
  tables: Tables,
  world: OverlayWorld,
  members: number,
  rng: () => number,
): Pick<Row, 'joinUs' | 'leaveUs' | 'worstMs'> {
  const count = Math.min(members, CHURN)
  const comers = Array.from({ length: count }, (_, i) => nodeChanges(members + i, world.coordinate(rng)))
  const goers = comers.map(
    ([host, member]) =>
      [
        { ...member, value: null },
        { ...host, value: null },
      ] as const,
  )
  let worstMs = 0
  const run = (changes: readonly (readonly Change[])[]) => {
    const startMs = processorMs()
    for (const change of changes) {
      const beforeMs = performance.now()
      tables.apply(change)
      worstMs = Math.max(worstMs, performance.now() - beforeMs)
    }
    return (1000 * (processorMs() - startMs)) / count
  }
  const [joinUs, leaveUs] = [run(comers), run(goers)]
  return { joinUs, leaveUs, worstMs }
}

/** What an index of the same members takes, all of it: made anew, and counted by the memory that it took. */
function indexBytes(tables: Tables): number {
  const { members } = tables.service(SERVICE)!
  const before = usedBytes()
  const index = new MemberIndex(tables.hosts, new Map())
  for (let i = 0; i < members.length; i++) index.put(i, members[i]!)
  const bytes = (usedBytes() - before) / members.length
  if (index.offered !== members.length) throw new Error('the index lost members')
  return bytes
}

/** How often a second, of processor time. */
function rateOf(run: () => void): number {
  let best = 0
  for (let round = 0; round < ROUNDS; round++) {
    const startMs = processorMs()
    let done = 0
    let usedMs = 0
    while (usedMs < ROUND_MS) {
      for (let i = 0; i < 20; i++) run()
      done += 20
      usedMs = processorMs() - startMs
    }
    best = Math.max(best, (1000 * done) / usedMs)
  }
  return best
}

function processorMs(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

function usedBytes(): number {
  // What a first pass lets go of a second one frees.
  collect()
  collect()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

const COLUMNS: readonly (readonly [string, (row: Row) => string])[] = [
  ['members', (row) => `${row.members}`],
  ['near /s', (row) => row.nearIndex.toFixed(0)],
  ['select /s', (row) => row.nearSelect.toFixed(0)],
  ['region /s', (row) => row.nearRegion.toFixed(0)],
  ['relay /s', (row) => row.nearRelay.toFixed(0)],
  ['ring /s', (row) => row.ring.toFixed(0)],
  ['draw /s', (row) => row.drawIndex.toFixed(0)],
  ['random /s', (row) => row.random.toFixed(0)],
  ['recall', (row) => row.recall.toFixed(4)],
  ['of region', (row) => row.recallRegion.toFixed(4)],
  ['join us', (row) => row.joinUs.toFixed(1)],
  ['leave us', (row) => row.leaveUs.toFixed(1)],
  ['worst ms', (row) => row.worstMs.toFixed(1)],
  ['index B', (row) => row.indexBytes.toFixed(0)],
  ['all B', (row) => row.allBytes.toFixed(0)],
]

function print(rows: readonly Row[]): void {
  const lines = [COLUMNS.map(([name]) => name), ...rows.map((row) => COLUMNS.map(([, tell]) => tell(row)))]
  const widths = COLUMNS.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)))
  for (const line of lines) console.log(line.map((cell, i) => cell.padStart(widths[i]!)).join('  '))
}

try {
  const wish = readWish(process.argv.slice(2))
  const rows = wish.members.map((members) => measure(members, wish))
  if (wish.json)
    console.log(JSON.stringify({ rtt: wish.rtt, spreadMs: wish.spreadMs, seed: wish.seed, rows }))
  else print(rows)
} catch (error) {
  console.error(`${(error as Error).message}\n${USAGE}`)
  process.exitCode = 2
}
