// Plays one run of the chaos bench, inside network and process namespaces of its own, whose first process it is: builds
// the network, starts everybody, does what the plan says, lets clients and writers go on all the while, mends all,
// and waits for the cores to agree. Tells the history as a line of JSON; judges nothing.
//
// The run is its argument. It ends with stdin, and all that it started ends with it.

import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { ChaosCast, DRAINED_SERVICE, makeFolders, SERVICE, ZONE } from './chaos-cast.ts'
import type { ClientPlan } from './chaos-client.ts'
import { Agreement, differences, heldOf, readDump } from './chaos-dump.ts'
import type { Answer, Cut, Ending, History, Write } from './chaos-history.ts'
import { ChaosNetwork } from './chaos-network.ts'
import type { Cast, Fault, Step } from './chaos-plan.ts'
import type { WriterPlan } from './chaos-writer.ts'

export interface Run {
  readonly cast: Cast
  readonly steps: readonly Step[]
  readonly forMs: number
  readonly seed: number
  /** For what is kept while it runs: not there yet. */
  readonly folder: string
  /** Where each program's last words go; null: nowhere. */
  readonly logs: string | null
}

export type StageLine = { readonly says: string } | { readonly history: History }

/** Agents that start at the same time. */
const AT_ONCE = 5
/** From when all agents have joined until the plan begins: they measure each other most in their first seconds. */
const SETTLE_MS = 10_000
/** How long after healing the cores are given to agree, at the most. */
const AGREE_WITHIN_MS = 60_000
const AGREE_EVERY_MS = 250

const run = JSON.parse(process.argv[2]!) as Run
const { cast } = run
const monotonicMs = (): number => Number(process.hrtime.bigint()) / 1e6
const startMs = monotonicMs()
/** Since the run's start. */
const nowMs = (): number => monotonicMs() - startMs
const tell = (line: StageLine): void => console.log(JSON.stringify(line))

const log: { atMs: number; what: string }[] = []
const cuts: Cut[] = []
const answers: Answer[] = []
const writes: Write[] = []

function say(what: string): void {
  log.push({ atMs: nowMs(), what })
  tell({ says: `${(nowMs() / 1000).toFixed(1).padStart(6)} s  ${what}` })
}

// ---- what is done

/** Does it; resolves to what undoes it. */
async function commit(network: ChaosNetwork, play: ChaosCast, fault: Fault): Promise<() => void> {
  say(inWords(fault))
  switch (fault.do) {
    case 'kill':
      await play.kill(fault.node)
      return () => play.start(fault.node)
    case 'restart': {
      const left = play.leave(fault.node)
      return () => void left.then(() => play.start(fault.node))
    }
    case 'cut':
      return cutOff(network, fault.a, [fault.b])
    case 'isolate':
      return cutOff(
        network,
        fault.node,
        [...cast.cores, ...cast.etcds, ...cast.agents].filter((other) => other !== fault.node),
      )
    case 'slow':
      network.slow(fault.a, fault.b, fault.byMs)
      return () => network.quicken(fault.a, fault.b)
    case 'clock':
      play.setClock(fault.node, fault.byMs)
      return () => play.setClock(fault.node, 0)
  }
}

function cutOff(network: ChaosNetwork, node: string, others: readonly string[]): () => void {
  const fromMs = nowMs()
  for (const other of others) network.cut(node, other)
  return () => {
    for (const other of others) {
      network.mend(node, other)
      cuts.push({ a: node, b: other, fromMs, toMs: nowMs() })
    }
  }
}

function inWords(fault: Fault): string {
  switch (fault.do) {
    case 'kill':
      return `kill -9 ${fault.node}`
    case 'restart':
      return `restart ${fault.node}`
    case 'cut':
      return `cut ${fault.a} from ${fault.b}`
    case 'isolate':
      return `cut ${fault.node} off from everybody`
    case 'slow':
      return `${fault.a} and ${fault.b} are ${fault.byMs.toFixed(0)} ms farther apart`
    case 'clock':
      return `the clock of ${fault.node} jumps by ${(fault.byMs / 60_000).toFixed(0)} min`
  }
}

/** Does each step at its time, and undoes it. Resolves when all is undone. */
async function playSteps(network: ChaosNetwork, play: ChaosCast): Promise<void> {
  const beginMs = nowMs()
  const until = (atMs: number): Promise<void> => sleep(Math.max(0, beginMs + atMs - nowMs()))
  const all = run.steps.map(async ({ fault, fromMs, toMs }) => {
    await until(fromMs)
    const undo = await commit(network, play, fault)
    await until(toMs)
    say(`over: ${inWords(fault)}`)
    undo()
  })
  await Promise.all([...all, until(run.forMs)])
}

// ---- who asks and writes

function startBeside(
  file: string,
  plan: ClientPlan | WriterPlan,
  hear: (line: string) => void,
): ChildProcess {
  const script = fileURLToPath(new URL(file, import.meta.url))
  const child = spawn(process.execPath, [script, JSON.stringify(plan)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  createInterface({ input: child.stdout }).on('line', hear)
  child.stdin.on('error', () => {})
  return child
}

function startClients(network: ChaosNetwork): ChildProcess {
  const agents = Object.fromEntries(cast.agents.map((agent) => [network.addressOf(agent), agent]))
  const plan: ClientPlan = { cores: coresAt(network), zone: ZONE, service: SERVICE, agents, seed: run.seed }
  return startBeside('chaos-client.ts', plan, (line) => {
    const { answer } = JSON.parse(line) as { answer: Answer }
    answers.push({ ...answer, askedMs: answer.askedMs - startMs, atMs: answer.atMs - startMs })
  })
}

/** Resolves, when called, once no write is under way any more. */
function startWriters(network: ChaosNetwork, token: string): () => Promise<void> {
  const members = cast.agents
  const plan: WriterPlan = {
    cores: coresAt(network),
    token,
    service: DRAINED_SERVICE,
    members,
    seed: run.seed,
  }
  let over = (): void => {}
  const isOver = new Promise<void>((resolve) => {
    over = resolve
  })
  const child = startBeside('chaos-writer.ts', plan, (line) => {
    const told = JSON.parse(line) as { write: Write } | { over: true }
    if ('over' in told) over()
    else
      writes.push({ ...told.write, askedMs: told.write.askedMs - startMs, atMs: told.write.atMs - startMs })
  })
  return async () => {
    child.stdin!.write('stop\n')
    await isOver
  }
}

function coresAt(network: ChaosNetwork): { name: string; address: string }[] {
  return cast.cores.map((name) => ({ name, address: network.addressOf(name) }))
}

// ---- the beginning and the end

async function startAll(play: ChaosCast): Promise<string> {
  for (const etcd of cast.etcds) play.start(etcd)
  await play.ready(cast.etcds)
  // One after another at first: who comes first makes the administrator's token.
  for (const core of cast.cores) {
    play.start(core)
    await play.ready([core])
  }
  const admin = readFileSync(join(play.dataOf(cast.cores[0]!), 'admin-token'), 'utf8').trim()
  const services = [SERVICE, DRAINED_SERVICE]
  const put = (path: string, method: string, body: object): Promise<Response> =>
    fetch(`${play.urlOf(cast.cores[0]!)}${path}`, {
      method,
      headers: { authorization: `Bearer ${admin}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
  for (const service of services) await put(`/v1/services/${service}`, 'PUT', { minAddrs: 2, maxAddrs: 4 })
  const reply = await put('/v1/tokens', 'POST', { services })
  play.token = ((await reply.json()) as { secret: string }).secret
  for (let i = 0; i < cast.agents.length; i += AT_ONCE) {
    const some = cast.agents.slice(i, i + AT_ONCE)
    for (const agent of some) play.start(agent)
    await play.ready(some)
  }
  return admin
}

async function end(play: ChaosCast, admin: string, stopWriting: () => Promise<void>): Promise<Ending> {
  await play.ready([...cast.etcds, ...cast.cores])
  await stopWriting()
  const healedMs = nowMs()
  say('everything is mended')
  const read = (): Promise<string[]> =>
    Promise.all(cast.cores.map((core) => readDump(play.urlOf(core), admin).catch((error) => String(error))))
  const agreement = new Agreement()
  const sinceMs = (): number => nowMs() - healedMs
  let equalAfterMs: number | null = null
  let differing: string[] = []
  let dumps: string[]
  for (;;) {
    dumps = await read()
    if (equalAfterMs === null && agreement.look(dumps)) equalAfterMs = sinceMs()
    if (new Set(dumps).size === 1 || sinceMs() > AGREE_WITHIN_MS) break
    // What differed last tells why it took so long.
    differing = differences(cast.cores, dumps)
    await sleep(AGREE_EVERY_MS)
  }
  const isWhole = new Set(dumps).size === 1
  say(isWhole ? 'all cores hold the same' : 'the cores do not hold the same')
  return {
    healedMs,
    equalAfterMs,
    wholeAfterMs: isWhole ? sinceMs() : null,
    differences: differing,
    held: heldOf(dumps[0]!, DRAINED_SERVICE),
  }
}

async function play(): Promise<History> {
  mkdirSync(run.folder, { recursive: true, mode: 0o700 })
  const nodes = [...cast.etcds, ...cast.cores, ...cast.agents]
  makeFolders(run.folder, nodes)
  const network = await ChaosNetwork.open(nodes)
  const play = new ChaosCast(cast, network, run.folder, nowMs)
  try {
    const admin = await startAll(play)
    say(`${nodes.length} programs run`)
    await sleep(SETTLE_MS)
    startClients(network)
    const stopWriting = startWriters(network, admin)
    await playSteps(network, play)
    const ending = await end(play, admin, stopWriting)
    return { ...cast, lives: play.lives, cuts, homings: play.homings, answers, writes, log, ending }
  } finally {
    if (run.logs !== null) keepWords(play, run.logs)
  }
}

function keepWords(play: ChaosCast, folder: string): void {
  mkdirSync(folder, { recursive: true })
  for (const [node, lines] of play.said) writeFileSync(join(folder, `${node}.log`), `${lines.join('\n')}\n`)
}

process.stdin.on('end', () => process.exit(1)).resume()
const line = `${JSON.stringify({ history: await play() } satisfies StageLine)}\n`
process.stdout.write(line, () => process.exit(0))
