// The lab's Internet for examples/overlay: a real core, and real agents and nodes, many in this process, on
// addresses of 127.0.0.0/8. Echoes and what nodes say to each other are held for the round trip between
// their cities by the lab's wires; calls of the core are not.
//
// Each host runs several overlays at once, one for each way to choose links, with one agent: they have the
// same names, so the same ring, and what differs between them is the choice. close() takes all of it away.

import { Agent } from 'nearcast-agent'
import { rttBetween } from '../../core-node/lab/internet.ts'
import { type Network, openNetwork } from '../../core-node/lab/network.ts'
import { type LabHost, makeWorld, SLOTS, type World } from '../../core-node/lab/world.ts'
import { OverlayNode } from '../../examples/overlay/node.ts'
import { api, type CoreProcess, startCore } from '../support/processes.ts'

/** One way to choose links: a service of its own. */
export interface Choice {
  readonly service: string
  readonly near: number
  readonly random: number
}

export interface OverlayLab {
  readonly world: World
  /** By service, then by name. */
  readonly nodes: ReadonlyMap<string, ReadonlyMap<string, OverlayNode>>
  /** The true round trip, which only the lab knows, ms. */
  rttMs(a: string, b: string): number
  /** How many hosts have a coordinate. */
  placed(): Promise<number>
  /** How late the wires of the overlays let packets go. */
  readonly lateness: { readonly packets: number; readonly medianMs: number; readonly p99Ms: number }
  close(): Promise<void>
}

interface LabWish {
  readonly hosts: number
  readonly seed: number
  readonly choices: readonly Choice[]
  readonly discoverMs: number
  readonly meetMs: number
}

/** Of the first overlay: the door that others find, and the node behind it; the next has the two after. */
const FIRST_PORT = 18100
/** Joining is some calls and a proof of the address. */
const JOINING_AT_ONCE = 8

export async function openOverlayLab(wish: LabWish): Promise<OverlayLab> {
  const ends: (() => Promise<unknown>)[] = []
  const close = async (): Promise<void> => {
    for (const end of ends.splice(0).reverse()) await end()
  }
  try {
    const { world, networks } = await claimWires(wish)
    ends.push(() => Promise.all(networks.map((network) => network.close())))
    const core = await openCore(world, wish.choices)
    ends.push(() => endCore(core))
    const reply = await api(core, 'POST', 'tokens', { services: wish.choices.map(({ service }) => service) })
    const { secret } = (await reply.json()) as { secret: string }
    const nodes = new Map(wish.choices.map(({ service }) => [service, new Map<string, OverlayNode>()]))
    const agents: Agent[] = []
    ends.push(() => Promise.all(agents.map((agent) => agent.stop())))
    for (let i = 0; i < world.hosts.length; i += JOINING_AT_ONCE) {
      const some = world.hosts.slice(i, i + JOINING_AT_ONCE).map(async (host) => {
        const agent = agentOf(host, core.url, secret)
        agents.push(agent)
        await agent.start()
        for (const [slot, choice] of wish.choices.entries()) {
          const node = nodeOf(host, agent, choice, slot, wish)
          await node.start()
          nodes.get(choice.service)!.set(host.name, node)
        }
      })
      await Promise.all(some)
    }
    ends.push(() =>
      Promise.all([...nodes.values()].flatMap((all) => [...all.values()].map((node) => node.stop()))),
    )
    const sites = new Map(world.hosts.map(({ name, site }) => [name, site]))
    return {
      world,
      nodes,
      rttMs: (a, b) => rttBetween(sites.get(a)!, sites.get(b)!, wish.seed),
      async placed() {
        const { hosts } = (await (await api(core, 'GET', 'hosts')).json()) as {
          hosts: { coordinate: unknown }[]
        }
        return hosts.filter(({ coordinate }) => coordinate !== null).length
      },
      get lateness() {
        return networks[1]!.lateness
      },
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

/** The wires for echoes and for each overlay, on the first loopback addresses that no other lab holds. */
async function claimWires({ hosts, seed, choices }: LabWish): Promise<{ world: World; networks: Network[] }> {
  for (let slot = 0; slot < SLOTS; slot++) {
    const world = makeWorld(seed, hosts, 1, slot)
    const networks: Network[] = []
    try {
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

function nodeOf(host: LabHost, agent: Agent, choice: Choice, slot: number, wish: LabWish): OverlayNode {
  const { door, echo } = portsOf(host, slot)
  const { discoverMs, meetMs } = wish
  const at = { address: host.address, port: echo.port, advertisedPort: door.port }
  return new OverlayNode({ agent, ...at, ...choice, discoverMs, meetMs })
}
