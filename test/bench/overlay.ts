// `npm run bench:overlay`: what choosing its links by Nearcast is worth to an overlay. The nodes of
// examples/overlay on the lab's Internet, or with real packets in namespaces, in two overlays at once on the
// same hosts with the same ring: one chooses fingers by Nearcast's near members, the other by lot among
// random ones. Links and lookups of both.

import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { formatTable } from '../../core-node/cli/table.ts'
import { seededRng } from '../support/seeded-rng.ts'
import { readCount } from './accuracy-arguments.ts'
import { NoNetwork } from './live-network.ts'
import { openOverlayLab } from './overlay-lab.ts'
import { openOverlayNamespaces } from './overlay-namespaces.ts'
import { bestLinks, isWhole, ownerOf, ringNeighbors, type Spread, spreadOf } from './overlay-rings.ts'
import type { Choice, MeasuredNode, OverlayStage } from './overlay-stage.ts'

const USAGE = `npm run -s bench:overlay -- [--hosts 60] [--seed 1] [--settle 90] [--lookups 1000] [--json]
  --settle S          seconds from the last node's start to the first lookup
  --delaynet PROGRAM --rtt FILE
                      in network namespaces, with the round trips of a matrix, instead of the lab's
                      (see docs/live-benchmark.md; needs root)`

/** Both ask for as many members, and choose from them. */
const CANDIDATES = 36
const RANDOM = 4
const CHOICES: readonly Choice[] = [
  { service: 'by-nearcast', near: CANDIDATES - RANDOM, random: RANDOM },
  { service: 'by-lot', near: 0, random: CANDIDATES },
]
/** Slow enough that hundreds of nodes in one process leave its delay line the time to be exact. */
const DISCOVER_MS = 30_000
const MEET_MS = 10_000
const WHOLE_WITHIN_MS = 60_000
const LOOKUPS_AT_ONCE = 8

function readOptions(argv: readonly string[]) {
  const text = { type: 'string' } as const
  const { values } = parseArgs({
    args: [...argv],
    options: {
      ...{ hosts: text, seed: text, settle: text, lookups: text, delaynet: text, rtt: text },
      json: { type: 'boolean' },
    },
  })
  if ((values.delaynet === undefined) !== (values.rtt === undefined))
    throw new Error('--delaynet and --rtt: expected both or none')
  return {
    hosts: readCount('hosts', values.hosts, 60, 8, 200),
    seed: readCount('seed', values.seed, 1, 0),
    settleSec: readCount('settle', values.settle, 90, 0, 3600),
    lookups: readCount('lookups', values.lookups, 1000, 1, 100_000),
    delaynet: values.delaynet ?? null,
    rtt: values.rtt ?? null,
    json: values.json ?? false,
  }
}

type Options = ReturnType<typeof readOptions>
type Nodes = ReadonlyMap<string, MeasuredNode>

/** What one overlay showed. Links by the true round trips, in ms. */
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
  /** The true round trips along the ways that lookups went, and how long they really took here. */
  readonly lookupMs: Spread
  readonly timedMs: Spread
  readonly hops: number
  /** Lookups without an answer, and those that found another than the true owner. */
  readonly unanswered: number
  readonly wrong: number
}

function linksOf({ rttMs }: OverlayStage, nodes: Nodes) {
  const names = [...nodes.keys()]
  const fingers: number[] = []
  const beside: number[] = []
  const best: number[] = []
  for (const [name, node] of nodes) {
    const given = new Set(ringNeighbors(name, names))
    for (const link of node.view.links) {
      ;(given.has(link.name) ? beside : fingers).push(rttMs(name, link.name))
    }
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
async function lookUp({ rttMs }: OverlayStage, nodes: Nodes, { lookups, seed }: Options) {
  const names = [...nodes.keys()]
  const rng = seededRng(seed)
  const wanted = Array.from({ length: lookups }, (_, i) => {
    const from = names[Math.floor(rng() * names.length)]!
    return { from, key: `key ${i}` }
  })
  const found: { trueMs: number; timedMs: number; hops: number }[] = []
  let unanswered = 0
  let wrong = 0
  const work = async (): Promise<void> => {
    for (let next = wanted.pop(); next !== undefined; next = wanted.pop()) {
      const answer = await nodes.get(next.from)!.lookup(next.key)
      if (answer === null) {
        unanswered++
        continue
      }
      const way = [next.from, ...answer.path]
      const trueMs = answer.path.reduce((sum, name, i) => sum + rttMs(way[i]!, name), 0)
      found.push({ trueMs, timedMs: answer.ms, hops: answer.path.length })
      if (answer.owner.name !== ownerOf(next.key, names)) wrong++
    }
  }
  await Promise.all(Array.from({ length: LOOKUPS_AT_ONCE }, work))
  const hops = found.reduce((sum, one) => sum + one.hops, 0) / found.length
  const lookupMs = spreadOf(found.map(({ trueMs }) => trueMs))
  const timedMs = spreadOf(found.map((one) => one.timedMs))
  return { lookupMs, timedMs, hops, unanswered, wrong }
}

async function untilWhole({ nodes }: OverlayStage): Promise<void> {
  const endMs = performance.now() + WHOLE_WITHIN_MS
  const isReady = (all: Nodes) =>
    isWhole(new Map([...all].map(([name, node]) => [name, node.view.successor])))
  while (![...nodes.values()].every(isReady)) {
    if (performance.now() > endMs) throw new Error(`no whole ring within ${WHOLE_WITHIN_MS / 1000} s`)
    await sleep(250)
  }
}

async function measure(stage: OverlayStage, options: Options) {
  await sleep(1000 * options.settleSec)
  await untilWhole(stage)
  const placed = await stage.placed()
  const overlays: Shown[] = []
  for (const [service, nodes] of stage.nodes) {
    overlays.push({ service, ...linksOf(stage, nodes), ...(await lookUp(stage, nodes, options)) })
  }
  const [ours, lot] = overlays as [Shown, Shown]
  const factor = {
    link: lot.linkMs.mean / ours.linkMs.mean,
    finger: lot.fingerMs.mean / ours.fingerMs.mean,
    lookup: lot.lookupMs.mean / ours.lookupMs.mean,
    timedLookup: lot.timedMs.mean / ours.timedMs.mean,
  }
  return { ...options, hostsWithCoordinate: placed, overlays, factor, about: stage.about }
}

function print({ overlays, factor, about, hosts, seed }: Awaited<ReturnType<typeof measure>>): void {
  const ms = ({ mean, p50, p90 }: Spread) => [mean, p50, p90].map((value) => value.toFixed(0)).join(' / ')
  const column = (title: string) => ({ title, kind: 'number' }) as const
  const titles = [
    'links',
    'link ms',
    'finger ms',
    'beside ms',
    'best link',
    'lookup ms',
    'timed ms',
    'hops',
    'failed',
  ]
  const rows = overlays.map((one) => [
    one.service,
    one.linksPerNode.toFixed(1),
    ...[ms(one.linkMs), ms(one.fingerMs), ms(one.besideMs)],
    one.bestLinkMs.toFixed(0),
    ms(one.lookupMs),
    ms(one.timedMs),
    one.hops.toFixed(2),
    `${one.unanswered} + ${one.wrong}`,
  ])
  for (const line of formatTable([{ title: 'overlay' }, ...titles.map(column)], rows, null)) console.log(line)
  const times = (value: number) => `${value.toFixed(2)} times`
  console.log(
    `\n${hosts} hosts, seed ${seed}; mean / median / 90th percentile. By Nearcast the mean link is ${times(factor.link)} shorter,`,
    `a chosen one ${times(factor.finger)}, the mean lookup ${times(factor.lookup)} faster (as timed here: ${times(factor.timedLookup)}).`,
    about,
  )
}

function openStage({ hosts, seed, delaynet, rtt }: Options): Promise<OverlayStage> {
  const wish = { hosts, seed, choices: CHOICES, discoverMs: DISCOVER_MS, meetMs: MEET_MS }
  return delaynet === null ? openOverlayLab(wish) : openOverlayNamespaces(wish, delaynet, rtt!)
}

async function main(): Promise<number> {
  const options = readOptions(process.argv.slice(2))
  const interrupted = new Promise<never>((_, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.once(signal, () => reject(new Error(`ended by ${signal}`)))
    }
  })
  const opening = openStage(options)
  try {
    const stage = await Promise.race([opening, interrupted])
    const result = await Promise.race([measure(stage, options), interrupted])
    if (options.json) console.log(JSON.stringify(result, null, 2))
    else print(result)
    return 0
  } catch (error) {
    if (!(error instanceof NoNetwork)) throw error
    console.log(options.json ? JSON.stringify({ skipped: error.message }) : `skipped: ${error.message}`)
    return 0
  } finally {
    // Also of one that was interrupted while it opened, nothing stays.
    await opening.then((stage) => stage.close()).catch(() => {})
  }
}

try {
  process.exit(await main())
} catch (error) {
  const { message } = error as Error
  const isMistake = message.startsWith('--') || error instanceof TypeError
  console.error(isMistake ? `${message}\n${USAGE}` : message)
  process.exit(isMistake ? 2 : 1)
}
