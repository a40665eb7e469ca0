// The same with real packets: a core and hosts as processes in network namespaces of their own, where each
// packet, echo, lookup or call of the core, takes as long as a matrix of measured round trips says.
//
// Needs what bench:live needs (docs/live-benchmark.md); says why where it can't be.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Found } from '../../examples/overlay/node.ts'
import { readMatrix } from './accuracy-matrix.ts'
import { type Inside, LiveNetwork, NoNetwork, type Worker, whyNoNetwork } from './live-network.ts'
import { drawLiveWorld, type LiveWorld, type Machine } from './live-world.ts'
import type { HostLine, HostPlan, LookupTask } from './overlay-host.ts'
import type { MeasuredNode, NodeView, OverlayStage, StageWish } from './overlay-stage.ts'

const CLI = fileURLToPath(new URL('../../core-node/cli.ts', import.meta.url))
const HOST = fileURLToPath(new URL('overlay-host.ts', import.meta.url))
const IN_A_CLONE = '--conditions=nearcast-clone'
const CORE_PORT = 8053
const OPERATOR_URL = `http://127.0.0.1:${CORE_PORT}`
const READY_WITHIN_MS = 120_000
/** Processes that start at the same time. */
const STARTING_AT_ONCE = 4
/** What the whole may take, seconds: the network ends then. */
const AT_MOST_SEC = 1800

/** A host's process, heard. */
class RemoteHost {
  views: Readonly<Record<string, NodeView>> | null = null
  readonly #program: Inside
  readonly #waiting = new Map<number, (found: Found | null) => void>()
  #lastId = 0

  constructor(network: LiveNetwork, machine: Machine, plan: HostPlan) {
    const argv = [IN_A_CLONE, HOST, JSON.stringify(plan)]
    this.#program = network.start(plan.name, machine, argv, (line) => this.#hear(JSON.parse(line)))
  }

  lookup(service: string, key: string): Promise<Found | null> {
    return new Promise((resolve) => {
      const task: LookupTask = { id: ++this.#lastId, service, key }
      this.#waiting.set(task.id, resolve)
      this.#program.say(JSON.stringify(task))
    })
  }

  #hear(line: HostLine): void {
    if ('views' in line) this.views = line.views
    else this.#waiting.get(line.id)?.(line.found)
  }
}

/** Rejects with NoNetwork where there can be none here. */
export async function openOverlayNamespaces(
  wish: StageWish,
  delaynet: string,
  rtt: string,
): Promise<OverlayStage> {
  const why = whyNoNetwork(delaynet)
  if (why !== null) throw new NoNetwork(why)
  const matrix = readMatrix(rtt, null)
  const world = drawLiveWorld(matrix, { agents: wish.hosts, clients: 0, silent: 0, seed: wish.seed })
  const network = new LiveNetwork(world)
  try {
    await network.open(delaynet, AT_MOST_SEC)
    const operator = network.actFor(world.core)
    const token = await startCore(network, world, operator, wish)
    const hosts = await startHosts(network, world, wish, token)
    return stageOf(network, world, operator, hosts, wish)
  } catch (error) {
    await network.close()
    throw error
  }
}

/** Resolves to a token to join by. */
async function startCore(
  network: LiveNetwork,
  { core }: LiveWorld,
  operator: Worker,
  { choices }: StageWish,
): Promise<string> {
  const data = join(network.folder, 'core')
  const settings = {
    ...{ data, name: 'core', dns: `${core.address}:53`, echo: `${core.address}:8054`, geo: 'none' },
    http: `${core.address}:${CORE_PORT},127.0.0.1:${CORE_PORT}`,
    ...{ 'probe-private': '10.0.0.0/8', 'probe-clients': 'off', 'log-level': 'warn' },
  }
  const flags = Object.entries(settings).flatMap(([key, value]) => [`--${key}`, value])
  network.start('the core', core, [CLI, 'core', ...flags], () => {})
  const call = <T>(method: string, path: string, token: string | null, body: unknown): Promise<T> =>
    operator.perform<T>({ do: 'fetch', method, url: `${OPERATOR_URL}${path}`, token, body })
  await until(network, 'the core is ready', () => call('GET', '/readyz', null, null).then(() => true))
  const admin = readFileSync(join(data, 'admin-token'), 'utf8').trim()
  const services = choices.map(({ service }) => service)
  for (const service of services) await call('PUT', `/v1/services/${service}`, admin, {})
  const { secret } = await call<{ secret: string }>('POST', '/v1/tokens', admin, { services })
  return secret
}

async function startHosts(
  network: LiveNetwork,
  world: LiveWorld,
  { choices, discoverMs, meetMs }: StageWish,
  token: string,
): Promise<Map<string, RemoteHost>> {
  const core = `http://${world.core.address}:${CORE_PORT}`
  const hosts = new Map<string, RemoteHost>()
  for (let i = 0; i < world.agents.length; i += STARTING_AT_ONCE) {
    const some = world.agents.slice(i, i + STARTING_AT_ONCE).map((machine) => {
      const { name, address } = machine
      const host = new RemoteHost(network, machine, {
        name,
        address,
        core,
        token,
        choices,
        discoverMs,
        meetMs,
      })
      hosts.set(name, host)
      return host
    })
    await until(network, 'hosts run', async () => some.every(({ views }) => views !== null))
  }
  return hosts
}

function stageOf(
  network: LiveNetwork,
  world: LiveWorld,
  operator: Worker,
  hosts: ReadonlyMap<string, RemoteHost>,
  { choices }: StageWish,
): OverlayStage {
  const machines = new Map(world.agents.map((machine) => [machine.name, machine]))
  const nodesOf = (service: string) =>
    new Map([...hosts].map(([name, host]) => [name, measured(host, service)] as const))
  return {
    nodes: new Map(choices.map(({ service }) => [service, nodesOf(service)] as const)),
    rttMs: (a, b) => world.rttMs(machines.get(a)!, machines.get(b)!),
    async placed() {
      const url = `${OPERATOR_URL}/v1/hosts`
      const token = readFileSync(join(network.folder, 'core', 'admin-token'), 'utf8').trim()
      const task = { do: 'fetch', method: 'GET', url, token, body: null } as const
      const reply = await operator.perform<{ hosts: { coordinate: unknown }[] }>(task)
      return reply.hosts.filter(({ coordinate }) => coordinate !== null).length
    },
    about: 'Namespaces: every packet took as long as the matrix says.',
    close: () => network.close(),
  }
}

function measured(host: RemoteHost, service: string): MeasuredNode {
  return {
    get view() {
      return host.views![service]!
    },
    lookup: (key) => host.lookup(service, key),
  }
}

async function until(network: LiveNetwork, what: string, holds: () => Promise<boolean>): Promise<void> {
  const endMs = performance.now() + READY_WITHIN_MS
  while (!(await holds().catch(() => false))) {
    network.check()
    if (performance.now() > endMs) throw new Error(`not within ${READY_WITHIN_MS / 1000} s: ${what}`)
    await sleep(250)
  }
}
