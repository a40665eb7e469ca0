// The lab's Internet for examples/overlay: a real core, and real agents and nodes, many in this process, on
// addresses of 127.0.0.0/8. Echoes and what nodes say to each other are held for the round trip between
// their cities by the lab's wires; calls of the core are not.
//
// Invariant: the core learns of distances by what agents measured, and by nothing else. close() takes all
// of it away.

import { Agent } from 'nearcast-agent'
import { rttBetween } from '../../core-node/lab/internet.ts'
import { type Network, openNetwork } from '../../core-node/lab/network.ts'
import { type LabHost, makeWorld, SLOTS, type World } from '../../core-node/lab/world.ts'
import { OverlayNode } from '../../examples/overlay/node.ts'
import { bindUdp } from '../../server-agent/protocol/echo-socket.ts'
import { api, type CoreProcess, startCore } from '../support/processes.ts'
import { type Choice, type MeasuredNode, type OverlayStage, type StageWish, viewOf } from './overlay-stage.ts'

/** Of the first overlay: the door that others find, and the node behind it; the next has the two after. */
const FIRST_PORT = 18100
/** Joining is some calls and a proof of the address. */
const JOINING_AT_ONCE = 8

/** What undoes what was done so far; the last first. */
type Ends = (() => Promise<unknown>)[]
type Nodes = Map<string, Map<string, MeasuredNode>>

export async function openOverlayLab(wish: StageWish): Promise<OverlayStage> {
  const ends: Ends = []
  const close = async (): Promise<void> => {
    // What can't say goodbye any more keeps nothing else open.
    for (const end of ends.splice(0).reverse()) await end().catch(() => {})
  }
  try {
    const { world, networks } = await claimWires(wish)
    ends.push(() => Promise.all(networks.map((network) => network.close())))
    const core = await openCore(world, wish.choices)
    ends.push(() => endCore(core))
    const nodes = await startHosts(world, core, wish, ends)
    const sites = new Map(world.hosts.map(({ name, site }) => [name, site]))
    return {
      nodes,
      rttMs: (a, b) => rttBetween(sites.get(a)!, sites.get(b)!, wish.seed),
      placed: () => countPlaced(core),
      get about() {
        return aboutWires(networks.slice(1))
      },
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

/** All agents, and a node of each in every overlay. */
async function startHosts(world: World, core: CoreProcess, wish: StageWish, ends: Ends): Promise<Nodes> {
  const services = wish.choices.map(({ service }) => service)
  const reply = await api(core, 'POST', 'tokens', { services })
  const { secret } = (await reply.json()) as { secret: string }
  const nodes: Nodes = new Map(services.map((service) => [service, new Map()]))
  const agents: Agent[] = []
  const started: OverlayNode[] = []
  ends.push(() => Promise.allSettled(agents.map((agent) => agent.stop())))
  ends.push(() => Promise.allSettled(started.map((node) => node.stop())))
  const startHost = async (host: LabHost): Promise<void> => {
    const agent = agentOf(host, core.url, secret)
    agents.push(agent)
    await agent.start()
    for (const [slot, choice] of wish.choices.entries()) {
      const node = nodeOf(host, agent, choice, slot, wish)
      await node.start()
      started.push(node)
      nodes.get(choice.service)!.set(host.name, measured(node))
    }
  }
  for (let i = 0; i < world.hosts.length; i += JOINING_AT_ONCE) {
    await Promise.all(world.hosts.slice(i, i + JOINING_AT_ONCE).map(startHost))
  }
  return nodes
}

function measured(node: OverlayNode): MeasuredNode {
  return {
    get view() {
      return viewOf(node)
    },
    lookup: (key) => node.lookup(key),
  }
}

async function countPlaced(core: CoreProcess): Promise<number> {
  const reply = await api(core, 'GET', 'hosts')
  const { hosts } = (await reply.json()) as { hosts: { coordinate: unknown }[] }
  return hosts.filter(({ coordinate }) => coordinate !== null).length
}

function aboutWires(networks: readonly Network[]): string {
  const [median, p99] = [
    Math.max(...networks.map(({ lateness }) => lateness.medianMs)),
    Math.max(...networks.map(({ lateness }) => lateness.p99Ms)),
  ]
  return `Lab: packets were held ${median.toFixed(2)} ms too long (median), ${p99.toFixed(1)} ms (p99).`
}

/** The wires for echoes and for each overlay, on the first loopback addresses that no other lab holds. */
async function claimWires({
  hosts,
  seed,
  choices,
}: StageWish): Promise<{ world: World; networks: Network[] }> {
  for (let slot = 0; slot < SLOTS; slot++) {
    const world = makeWorld(seed, hosts, 1, slot)
    const networks: Network[] = []
    try {
      // A core that outlived its lab would be in the way of ours.
      const echo = await bindUdp(world.core.echo.address, world.core.echo.port)
      echo.close()
      const common = { clients: [], clientDnsPort: 0, seed }
      networks.push(await openNetwork({ ...common, machines: [world.core, ...world.hosts] }))
      for (const i of choices.keys()) {
        const machines = world.hosts.map((host) => ({ ...host, ...portsOf(host, i) }))
        networks.push(await openNetwork({ ...common, machines }))
      }
      return { world, networks }
    } catch (error) {
      await Promise.all(networks.map((network) => network.close()))
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
    }
  }
  throw new Error('all places for a lab on this machine are taken: end other labs')
}

function portsOf({ address }: LabHost, choice: number) {
  const port = FIRST_PORT + 2 * choice
  return { door: { address, port }, echo: { address, port: port + 1 } }
}

async function openCore({ core }: World, choices: readonly Choice[]): Promise<CoreProcess> {
  const { echo, door } = core
  const process = await startCore({
    flags: [
      ...['--echo', `${echo.address}:${echo.port}`, '--advertise', door.address],
      // All of the lab's questions come from one address.
      ...['--requests-per-minute', '1000000', '--probe-clients', 'off'],
    ],
  })
  for (const { service } of choices) await api(process, 'PUT', `services/${service}`, {})
  return process
}

async function endCore({ process, ended }: CoreProcess): Promise<void> {
  process.kill('SIGTERM')
  await ended
}

function agentOf({ name, address, echo, door }: LabHost, core: string, token: string): Agent {
  return new Agent({
    ...{ cores: core, token, name, addresses: [address] },
    ...{ echo: `${echo.address}:${echo.port}`, echoAdvertise: `${door.address}:${door.port}` },
  })
}

function nodeOf(host: LabHost, agent: Agent, choice: Choice, slot: number, wish: StageWish): OverlayNode {
  const { door, echo } = portsOf(host, slot)
  const { discoverMs, meetMs } = wish
  const at = { address: host.address, port: echo.port, advertisedPort: door.port }
  return new OverlayNode({ agent, ...at, ...choice, discoverMs, meetMs })
}
