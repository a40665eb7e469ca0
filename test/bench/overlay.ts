// `npm run bench:overlay`: what choosing its links by Nearcast is worth to an overlay. The nodes of
// examples/overlay on the lab's Internet, in two overlays at once on the same hosts with the same ring: one
// chooses fingers by Nearcast's near members, the other by lot among random ones. Links and lookups of both.

import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { formatTable } from '../../core-node/cli/table.ts'
import type { OverlayNode } from '../../examples/overlay/node.ts'
import { seededRng } from '../support/seeded-rng.ts'
import { readCount } from './accuracy-arguments.ts'
import { type Choice, type OverlayLab, openOverlayLab } from './overlay-lab.ts'
import { bestLinks, isWhole, ownerOf, ringNeighbors, type Spread, spreadOf } from './overlay-rings.ts'

const USAGE = `npm run -s bench:overlay -- [--hosts 100] [--seed 1] [--settle 60] [--lookups 2000] [--json]
  --settle  seconds from the last node's start to the first lookup`

/** Both ask for as many members, and choose from them. */
const CANDIDATES = 36
const RANDOM = 4
const CHOICES: readonly Choice[] = [
  { service: 'by-nearcast', near: CANDIDATES - RANDOM, random: RANDOM },
  { service: 'by-lot', near: 0, random: CANDIDATES },
]
const DISCOVER_MS = 10_000
const MEET_MS = 4_000
const WHOLE_WITHIN_MS = 60_000
const LOOKUPS_AT_ONCE = 8

function readOptions(argv: readonly string[]) {
  const text = { type: 'string' } as const
  const { values } = parseArgs({
    args: [...argv],
    options: { hosts: text, seed: text, settle: text, lookups: text, json: { type: 'boolean' } },
  })
  return {
    hosts: readCount('hosts', values.hosts, 100, 8, 200),
    seed: readCount('seed', values.seed, 1, 0),
    settleSec: readCount('settle', values.settle, 60, 0, 3600),
    lookups: readCount('lookups', values.lookups, 2000, 1, 100_000),
    json: values.json ?? false,
  }
}

type Options = ReturnType<typeof readOptions>
type Nodes = ReadonlyMap<string, OverlayNode>

/** What one overlay showed. Milliseconds as its own nodes measured them. */
interface Shown {
  readonly service: string
  readonly linksPerNode: number
  readonly linkMs: Spread
  /** Links that a node chose. */
  readonly fingerMs: Spread
  /** Links that the ring dictates. */
  readonly besideMs: Spread
  /** The mean link if every finger were the nearest at its distance, by the true round trips. */
  readonly bestLinkMs: number
  readonly lookupMs: Spread
  readonly hops: number
  /** Lookups without an answer, and those that found another than the true owner. */
  readonly unanswered: number
  readonly wrong: number
}

function linksOf({ rttMs }: OverlayLab, nodes: Nodes) {
  const names = [...nodes.keys()]
  const fingers: number[] = []
  const beside: number[] = []
  const best: number[] = []
  for (const [name, node] of nodes) {
    const given = new Set(ringNeighbors(name, names))
    for (const link of node.links) (given.has(link.peer.name) ? beside : fingers).push(link.rttMs!)
    best.push(...bestLinks(name, names, (other) => rttMs(name, other)).map((other) => rttMs(name, other)))
  }
  const all = [...fingers, ...beside]
  return {
    linksPerNode: all.length / names.length,
    ...{ linkMs: spreadOf(all), fingerMs: spreadOf(fingers), besideMs: spreadOf(beside) },
    bestLinkMs: spreadOf(best).mean,
  }
}

/** The same lookups from the same nodes in every overlay. */
async function lookUp(nodes: Nodes, { lookups, seed }: Options) {
  const names = [...nodes.keys()]
  const rng = seededRng(seed)
  const wanted = Array.from({ length: lookups }, (_, i) => {
    const from = names[Math.floor(rng() * names.length)]!
    return { from, key: `key ${i}` }
  })
  const found: { ms: number; hops: number }[] = []
  let unanswered = 0
  let wrong = 0
  const work = async (): Promise<void> => {
    for (let next = wanted.pop(); next !== undefined; next = wanted.pop()) {
      const answer = await nodes.get(next.from)!.lookup(next.key)
      if (answer === null) unanswered++
      else found.push(answer)
      if (answer !== null && answer.owner.name !== ownerOf(next.key, names)) wrong++
    }
  }
  await Promise.all(Array.from({ length: LOOKUPS_AT_ONCE }, work))
  const hops = found.reduce((sum, one) => sum + one.hops, 0) / found.length
  return { lookupMs: spreadOf(found.map(({ ms }) => ms)), hops, unanswered, wrong }
}

async function untilWhole({ nodes }: OverlayLab): Promise<void> {
  const endMs = performance.now() + WHOLE_WITHIN_MS
  const isReady = (all: Nodes) =>
    isWhole(new Map([...all].map(([name, node]) => [name, node.successor?.name ?? null])))
  while (![...nodes.values()].every(isReady)) {
    if (performance.now() > endMs) throw new Error(`no whole ring within ${WHOLE_WITHIN_MS / 1000} s`)
    await sleep(250)
  }
}

async function measure(lab: OverlayLab, options: Options) {
  await sleep(1000 * options.settleSec)
  await untilWhole(lab)
  const placed = await lab.placed()
  const overlays: Shown[] = []
  for (const [service, nodes] of lab.nodes) {
    overlays.push({ service, ...linksOf(lab, nodes), ...(await lookUp(nodes, options)) })
  }
  const [ours, lot] = overlays as [Shown, Shown]
  const factor = {
    link: lot.linkMs.mean / ours.linkMs.mean,
    finger: lot.fingerMs.mean / ours.fingerMs.mean,
    lookup: lot.lookupMs.mean / ours.lookupMs.mean,
  }
  return { ...options, hostsWithCoordinate: placed, overlays, factor, lateness: lab.lateness }
}

function print({ overlays, factor, lateness, hosts, seed }: Awaited<ReturnType<typeof measure>>): void {
  const ms = ({ mean, p50, p90 }: Spread) => [mean, p50, p90].map((value) => value.toFixed(0)).join(' / ')
  const column = (title: string) => ({ title, kind: 'number' }) as const
  const titles = ['links', 'link ms', 'finger ms', 'beside ms', 'best link', 'lookup ms', 'hops', 'failed']
  const rows = overlays.map((one) => [
    one.service,
    one.linksPerNode.toFixed(1),
    ...[ms(one.linkMs), ms(one.fingerMs), ms(one.besideMs)],
    one.bestLinkMs.toFixed(0),
    ms(one.lookupMs),
    one.hops.toFixed(2),
    `${one.unanswered} + ${one.wrong}`,
  ])
  for (const line of formatTable([{ title: 'overlay' }, ...titles.map(column)], rows, null)) console.log(line)
  const times = (value: number) => `${value.toFixed(2)} times`
  console.log(
    `\n${hosts} hosts, seed ${seed}; mean / median / 90th percentile. By Nearcast the mean link is ${times(factor.link)} shorter,`,
    `a chosen one ${times(factor.finger)}, the mean lookup ${times(factor.lookup)} faster.`,
    `Packets were held ${lateness.medianMs.toFixed(2)} ms too long (median), ${lateness.p99Ms.toFixed(1)} ms (p99).`,
  )
}

async function main(): Promise<void> {
  const options = readOptions(process.argv.slice(2))
  const { hosts, seed } = options
  const wish = { hosts, seed, choices: CHOICES, discoverMs: DISCOVER_MS, meetMs: MEET_MS }
  const lab = await openOverlayLab(wish)
  try {
    const result = await measure(lab, options)
    if (options.json) console.log(JSON.stringify(result, null, 2))
    else print(result)
  } finally {
    await lab.close()
  }
}

try {
  await main()
} catch (error) {
  console.error((error as Error).message)
  const isMistake = /^--/.test((error as Error).message) || error instanceof TypeError
  if (isMistake) console.error(USAGE)
  process.exitCode = isMistake ? 2 : 1
}
