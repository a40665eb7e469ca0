// `npm run bench:live`: the locality engine with nothing simulated but the distance. A core, agents and
// clients run as processes in network namespaces whose packets take as long as a matrix of measured
// RTTs says; clients ask by DNS, the planner has its budget, and every address told is scored.
//
// Two services are asked for: `mirror` as it is by default (near members share clients, who stay where
// they are unless another is clearly better) and `exact`, which names the one that is taken for nearest.
// Needs Linux and root, and says why it skips where it can't run. Interrupted, it leaves nothing behind.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { readMatrix } from './accuracy-matrix.ts'
import { LiveNetwork, NoNetwork, type Worker, whyNoNetwork } from './live-network.ts'
import {
  type Client,
  drawLiveWorld,
  type LiveWorld,
  MAX_MACHINES,
  type Machine,
  nearestTo,
  penaltyMs,
  quantile,
  rounded,
  scoreAnswers,
  type Told,
} from './live-world.ts'

const USAGE = `npm run bench:live -- --delaynet PROGRAM --rtt FILE [--nodes FILE] [options] [--json]
  --delaynet PROGRAM  joins network namespaces by delays
  --rtt FILE          matrix of RTTs, ms: line i, column j; csv or csv.gz
  --nodes FILE        index,name,country,lat,lon of its rows; without it nobody has a place
  --agents 20 --clients 20 --silent 0.33 (share of clients that answer nothing) --seed 1
  --settle 60         seconds from the last agent's start to the first question
  --limit 300         seconds for the planner at most; it ends sooner when it rests
  --passive           agents report their clients' TCP round trips, and clients use what they were told`

const CLI = fileURLToPath(new URL('../../core-node/cli.ts', import.meta.url))
const AGENT = fileURLToPath(new URL('../../server-agent/bin/nearcast-agent.js', import.meta.url))
const ZONE = 'any.test'
/** What one of the two adds to or takes from the defaults. */
const SERVICES = {
  mirror: {},
  exact: { ttl: 0, tieMs: 0, stickyMs: 0, stickyRatio: 1, maxAddrs: 1 },
} as const
type ServiceName = keyof typeof SERVICES
const MEMBER_PORT = 8080
const ASK_EVERY_MS = 5_000
/** Without a probe for so long the planner rests: the slowest probe, of a client that answers late, takes ten seconds. */
const QUIET_MS = 25_000
const START_MS = 90_000
/** Beyond what is planned, for starting and ending, seconds. */
const SPARE_SEC = 240

interface Options {
  readonly delaynet: string
  readonly rtt: string
  readonly nodes: string | null
  readonly agents: number
  readonly clients: number
  readonly silent: number
  readonly seed: number
  readonly settle: number
  readonly limit: number
  readonly passive: boolean
  readonly json: boolean
}

/** One probe that an agent carried out by order. */
interface Probe {
  readonly agent: string
  readonly address: string
  readonly atMs: number
  readonly rttsMs: readonly number[]
}

class Mistake extends Error {}

function readOptions(argv: readonly string[]): Options {
  const text = { type: 'string' } as const
  const { values } = parseArgs({
    args: [...argv],
    options: {
      ...{ delaynet: text, rtt: text, nodes: text, agents: text, clients: text, silent: text },
      ...{ seed: text, settle: text, limit: text },
      passive: { type: 'boolean' },
      json: { type: 'boolean' },
    },
  })
  const number = (key: string, given: string | undefined, otherwise: number, min: number, max: number) => {
    const value = given === undefined ? otherwise : Number(given)
    if (!(value >= min && value <= max))
      throw new Mistake(`--${key}: expected a number from ${min} to ${max}`)
    return value
  }
  const { delaynet, rtt } = values
  if (delaynet === undefined || rtt === undefined) throw new Mistake('--delaynet and --rtt are needed')
  const options = {
    delaynet,
    rtt,
    nodes: values.nodes ?? null,
    agents: Math.floor(number('agents', values.agents, 20, 1, MAX_MACHINES)),
    clients: Math.floor(number('clients', values.clients, 20, 1, MAX_MACHINES)),
    silent: number('silent', values.silent, 0.33, 0, 1),
    seed: number('seed', values.seed, 1, 0, 2 ** 32),
    settle: number('settle', values.settle, 60, 0, 600),
    limit: number('limit', values.limit, 300, 1, 1800),
    passive: values.passive ?? false,
    json: values.json ?? false,
  }
  if (1 + options.agents + options.clients > MAX_MACHINES)
    throw new Mistake(`--agents and --clients: expected fewer than ${MAX_MACHINES} together`)
  return options
}

/** The stage: everything started, nobody has asked yet. */
class Stage {
  readonly world: LiveWorld
  readonly probes: Probe[] = []
  readonly #options: Options
  readonly #network: LiveNetwork
  readonly #workers = new Map<string, Worker>()
  #operator!: Worker
  #token: string | null = null

  constructor(world: LiveWorld, network: LiveNetwork, options: Options) {
    this.world = world
    this.#network = network
    this.#options = options
  }

  async open(): Promise<void> {
    const { delaynet, settle, limit } = this.#options
    await this.#network.open(delaynet, settle + limit + SPARE_SEC)
    await this.#startCore()
    for (const client of this.world.clients) {
      const resolver = { dns: ['answer-dns'], icmp: ['swallow-dns'], tcp: [], silent: [] }[client.kind]
      const argv = resolver.length === 0 ? [] : [...resolver, client.address]
      this.#workers.set(client.name, this.#network.actFor(client, argv))
    }
    await this.#startAgents()
  }

  /** What a client is told when it asks; nothing where no answer came. */
  async ask(client: Client, service: ServiceName): Promise<Told> {
    const task = { do: 'ask', server: this.world.core.address, name: `${service}.${ZONE}` } as const
    try {
      return { client, addresses: await this.#workers.get(client.name)!.perform<string[]>(task) }
    } catch {
      this.#network.check()
      return { client, addresses: [] }
    }
  }

  askAll(service: ServiceName): Promise<Told[]> {
    return Promise.all(this.world.clients.map((client) => this.ask(client, service)))
  }

  /** The client stays connected to the first that it was told. */
  async use({ client, addresses: [address] }: Told): Promise<void> {
    if (address === undefined) return
    const task = { do: 'connect', address, port: MEMBER_PORT } as const
    await this.#workers
      .get(client.name)!
      .perform(task)
      .catch(() => this.#network.check())
  }

  /** A call of the API, made beside the core by its operator. */
  api<T>(method: string, path: string, body: unknown = null): Promise<T> {
    const url = `http://127.0.0.1:8053${path}`
    return this.#operator.perform<T>({ do: 'fetch', method, url, token: this.#token, body })
  }

  async #startCore(): Promise<void> {
    const { core } = this.world
    const data = join(this.#network.folder, 'core')
    const settings = {
      data,
      name: 'core',
      zone: ZONE,
      dns: `${core.address}:53`,
      http: `${core.address}:8053,127.0.0.1:8053`,
      echo: `${core.address}:8054`,
      geo: 'none',
      'probe-private': '10.0.0.0/8',
      'log-level': 'warn',
    }
    const flags = Object.entries(settings).flatMap(([key, value]) => [`--${key}`, value])
    this.#network.start('the core', core, [CLI, 'core', ...flags], () => {})
    this.#operator = this.#network.actFor(core)
    await this.#until('the core is ready', () => this.api('GET', '/readyz').then(() => true))
    this.#token = readFileSync(join(data, 'admin-token'), 'utf8').trim()
    for (const [name, service] of Object.entries(SERVICES))
      await this.api('PUT', `/v1/services/${name}`, service)
    const entries = this.world.clients.flatMap(({ address, place }) =>
      place === null
        ? []
        : [{ prefix: `${address.replace(/\d+$/, '0')}/24`, lat: place.lat, lon: place.lon }],
    )
    if (entries.length > 0) await this.api('POST', '/v1/localities', { source: 'nodes', entries })
  }

  async #startAgents(): Promise<void> {
    const services = Object.keys(SERVICES)
    const { secret } = await this.api<{ secret: string }>('POST', '/v1/tokens', { services })
    for (const agent of this.world.agents) {
      const config = join(this.#network.folder, `${agent.name}.yaml`)
      writeFileSync(config, this.#agentConfig(agent, secret), { mode: 0o600 })
      this.#network.start(`the agent ${agent.name}`, agent, [AGENT, '--config', config, '--json'], (line) =>
        this.#hear(agent, line),
      )
      if (this.#options.passive) {
        const task = { do: 'listen', address: agent.address, port: MEMBER_PORT } as const
        await this.#network.actFor(agent).perform(task)
      }
    }
    await this.#until('all members are live', async () => {
      const path = '/v1/services/exact'
      const { members } = await this.api<{ members: { live: number } }>('GET', path)
      return members.live === this.world.agents.length
    })
  }

  #agentConfig({ name, address, place }: Machine, token: string): string {
    return JSON.stringify({
      core: `http://${this.world.core.address}:8053`,
      insecure: true,
      token,
      name,
      address,
      echo: `${address}:8054`,
      state: join(this.#network.folder, name),
      ...(place === null ? {} : { place: `${place.lat},${place.lon}` }),
      ...(this.#options.passive ? { passive: 'ss' } : {}),
      members: Object.keys(SERVICES).map((service) => ({ service, port: MEMBER_PORT })),
    })
  }

  /** The agent's own account of what it was ordered to do. */
  #hear({ name }: Machine, line: string): void {
    const { event, kind, target, result } = JSON.parse(line)
    if (event !== 'order' || kind !== 'client') return
    this.probes.push({ agent: name, address: target, atMs: performance.now(), rttsMs: result.rttsMs })
  }

  async #until(what: string, holds: () => Promise<boolean>): Promise<void> {
    const endMs = performance.now() + START_MS
    let why: unknown
    while (performance.now() < endMs) {
      this.#network.check()
      const held = await holds().catch((error: unknown) => {
        why = error
        return false
      })
      if (held) return
      await sleep(250)
    }
    throw new Error(`not within ${START_MS / 1000} s: ${what}`, { cause: why })
  }
}

/** Lets the clients ask until the planner rests or its time is over; when each was first told its nearest for good, s. */
async function letItPlan(stage: Stage, options: Options, startMs: number): Promise<Map<string, number>> {
  const rightSinceSec = new Map<string, number>()
  while (performance.now() - startMs < options.limit * 1000) {
    const told = await stage.askAll('exact')
    const nowSec = (performance.now() - startMs) / 1000
    for (const { client, addresses } of told) {
      const isRight = addresses.length > 0 && penaltyMs(stage.world, client, addresses[0]!) === 0
      if (!isRight) rightSinceSec.delete(client.name)
      else if (!rightSinceSec.has(client.name)) rightSinceSec.set(client.name, nowSec)
    }
    const mirror = await stage.askAll('mirror')
    if (options.passive) await Promise.all(mirror.map((one) => stage.use(one)))
    const lastMs = stage.probes.at(-1)?.atMs ?? startMs
    if (performance.now() - Math.max(lastMs, startMs) > QUIET_MS && !options.passive) break
    await sleep(ASK_EVERY_MS)
  }
  return rightSinceSec
}

function scoresOf(world: LiveWorld, told: readonly Told[]) {
  const silent = told.filter(({ client }) => client.kind === 'silent')
  const answering = told.filter(({ client }) => client.kind !== 'silent')
  return {
    all: scoreAnswers(world, told),
    answering: answering.length === 0 ? null : scoreAnswers(world, answering),
    silent: silent.length === 0 ? null : scoreAnswers(world, silent),
  }
}

function probesOf(stage: Stage, startMs: number) {
  const { world, probes } = stage
  const perClient = (silent: boolean) => {
    const clients = world.clients.filter(({ kind }) => (kind === 'silent') === silent)
    const asked = probes.filter(({ address }) => clients.some((client) => client.address === address))
    return clients.length === 0 ? null : rounded(asked.length / clients.length, 2)
  }
  const addedMs = probes
    .flatMap(({ agent, address, rttsMs }) => {
      const from = world.agents.find(({ name }) => name === agent)!
      const client = world.clients.find((one) => one.address === address)
      return client === undefined || rttsMs.length === 0
        ? []
        : [Math.min(...rttsMs) - world.rttMs(client, from)]
    })
    .sort((a, b) => a - b)
  const last = probes.at(-1)
  return {
    orders: probes.length,
    answered: probes.filter(({ rttsMs }) => rttsMs.length > 0).length,
    perAnsweringClient: perClient(false),
    perSilentClient: perClient(true),
    lastAtSec: last === undefined ? null : rounded((last.atMs - startMs) / 1000, 1),
    /** What machine and network added to the matrix's RTTs. */
    addedMs:
      addedMs.length === 0
        ? null
        : { p50: rounded(quantile(addedMs, 0.5), 2), p90: rounded(quantile(addedMs, 0.9), 2) },
  }
}

async function describeClients(stage: Stage, told: readonly Told[], since: Map<string, number>) {
  const rows: object[] = []
  for (const { client, addresses } of told) {
    const path = `/v1/localities/${client.address}`
    const known = await stage.api<{ basis: string; errorMs: number | null; evidence: object[] }>('GET', path)
    const [address = null] = addresses
    rows.push({
      client: client.name,
      kind: client.kind,
      told: stage.world.agents.find((agent) => agent.address === address)?.name ?? null,
      nearest: nearestTo(stage.world, client).name,
      penaltyMs: address === null ? null : rounded(penaltyMs(stage.world, client, address), 1),
      rightSinceSec: since.has(client.name) ? rounded(since.get(client.name)!, 1) : null,
      basis: known.basis,
      errorMs: known.errorMs,
      probes: stage.probes.filter((probe) => probe.address === client.address).length,
      evidence: known.evidence.length,
    })
  }
  return rows
}

async function measure(stage: Stage, options: Options) {
  await sleep(options.settle * 1000)
  stage.probes.length = 0
  const startMs = performance.now()
  const first = { exact: await stage.askAll('exact'), mirror: await stage.askAll('mirror') }
  const since = await letItPlan(stage, options, startMs)
  const rested = { exact: await stage.askAll('exact'), mirror: await stage.askAll('mirror') }
  const { world } = stage
  const secs = [...since.values()].sort((a, b) => a - b)
  return {
    file: options.rtt,
    places: options.nodes !== null,
    passive: options.passive,
    agents: options.agents,
    clients: options.clients,
    silentClients: world.clients.filter(({ kind }) => kind === 'silent').length,
    seed: options.seed,
    settleSec: options.settle,
    first: { exact: scoresOf(world, first.exact), mirror: scoresOf(world, first.mirror) },
    rested: { exact: scoresOf(world, rested.exact), mirror: scoresOf(world, rested.mirror) },
    probes: probesOf(stage, startMs),
    /** From its first question until a client was told its nearest for good. */
    secondsToNearest:
      secs.length === 0
        ? null
        : { p50: rounded(quantile(secs, 0.5), 1), p90: rounded(quantile(secs, 0.9), 1) },
    perClient: await describeClients(stage, rested.exact, since),
  }
}

type Result = Awaited<ReturnType<typeof measure>>

function printTable(result: Result): void {
  const line = (when: string, service: ServiceName, scores: Result['first']['exact']) => {
    for (const [who, score] of Object.entries(scores)) {
      if (score === null) continue
      const share = `${(100 * score.optimal).toFixed(0)}%`.padStart(5)
      const penalty = `${score.meanPenaltyMs} ms, p90 ${score.p90PenaltyMs} ms`
      console.log(
        `${when.padEnd(8)}${service.padEnd(8)}${who.padEnd(11)}${share} told their nearest; penalty ${penalty}`,
      )
    }
  }
  for (const service of ['exact', 'mirror'] as const) {
    line('first', service, result.first[service])
    line('rested', service, result.rested[service])
  }
  const { probes, secondsToNearest } = result
  console.log(
    `${probes.orders} probes, ${probes.perAnsweringClient} a client (${probes.perSilentClient} a silent one), the last after ${probes.lastAtSec} s;`,
    `nearest told after ${secondsToNearest?.p50} s (median), ${secondsToNearest?.p90} s (9 of 10)`,
  )
}

function tellSkipped(why: string, json: boolean): void {
  console.log(json ? JSON.stringify({ skipped: why }) : `skipped: ${why}`)
}

async function main(): Promise<number> {
  const options = readOptions(process.argv.slice(2))
  const matrix = readMatrix(options.rtt, options.nodes)
  const world = drawLiveWorld(matrix, options)
  const skip = whyNoNetwork(options.delaynet)
  if (skip !== null) {
    tellSkipped(skip, options.json)
    return 0
  }
  const network = new LiveNetwork(world)
  const interrupted = new Promise<never>((_, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.once(signal, () => reject(new Error(`ended by ${signal}`)))
    }
  })
  try {
    const stage = new Stage(world, network, options)
    const result = await Promise.race([stage.open().then(() => measure(stage, options)), interrupted])
    if (options.json) console.log(JSON.stringify(result, null, 2))
    else printTable(result)
    return 0
  } catch (error) {
    if (!(error instanceof NoNetwork)) throw error
    tellSkipped(error.message, options.json)
    return 0
  } finally {
    await network.close()
  }
}

try {
  process.exit(await main())
} catch (error) {
  const isMistake =
    error instanceof Mistake || (error as NodeJS.ErrnoException).code?.startsWith('ERR_PARSE_ARGS')
  const { message, cause } = error as Error
  console.error(message)
  if (cause instanceof Error && !message.includes(cause.message)) console.error(cause.message)
  if (isMistake) console.error(USAGE)
  process.exit(isMistake ? 2 : 1)
}
