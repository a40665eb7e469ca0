// One island of the partition: its hosts, in one process inside a network namespace of their own. Reads
// its plan from the first line of stdin, then tells a line of JSON whenever what its nodes point at
// changed. Ends with stdin. Every host has one agent and a node in each overlay.

import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { Agent } from 'nearcast-agent'
import { OverlayNode } from '../../examples/overlay/node.ts'
import { openDoor } from './partition-door.ts'
import { type IslandPlan, type IslandView, rttBetweenPlaces } from './partition-plan.ts'

interface Host {
  readonly agent: Agent
  /** By service. */
  readonly nodes: ReadonlyMap<string, OverlayNode>
}

const ECHO_PORT = 7001
const DOOR_PORT = 7002
const FIRST_NODE_PORT = 7003
const TELL_EVERY_MS = 100
const LOOK_AROUND_MS = 1000

function setUpNetwork({ hosts, network }: IslandPlan): void {
  const addresses = hosts.map((_, i) => `addr add ${network}.${i + 1}/24 dev cable`)
  const lines = ['link set lo up', 'link set cable up', ...addresses, `route add default via ${network}.254`]
  execFileSync('ip', ['-batch', '-'], {
    input: `${lines.join('\n')}\n`,
    stdio: ['pipe', 'ignore', 'inherit'],
  })
}

async function startHost(plan: IslandPlan, name: string, address: string): Promise<Host> {
  const { core, token, leaseSec, discoverMs, meetMs } = plan
  const rttMs = (from: string): number => rttBetweenPlaces(plan.places, from, address)
  await openDoor({ address, port: DOOR_PORT, echo: { address, port: ECHO_PORT }, rttMs })
  const agent = new Agent({
    ...{ cores: core, token, name, addresses: [address], leaseSec, insecure: true },
    ...{ echo: `${address}:${ECHO_PORT}`, echoAdvertise: `${address}:${DOOR_PORT}` },
  })
  await agent.start()
  const nodes = plan.choices.map((choice, i) => {
    const port = FIRST_NODE_PORT + i
    return new OverlayNode({ agent, address, port, ...choice, discoverMs, meetMs })
  })
  await Promise.all(nodes.map((node) => node.start()))
  return { agent, nodes: new Map(nodes.map((node, i) => [plan.choices[i]!.service, node])) }
}

async function countHomely({ choices }: IslandPlan, hosts: ReadonlyMap<string, Host>): Promise<number> {
  const { service, near, random } = choices[0]!
  const isHomely = async ({ agent }: Host): Promise<boolean> => {
    const { members } = await agent.neighbors(service, { k: near + random })
    return members.every((member) => hosts.has(member.name))
  }
  const settled = await Promise.allSettled([...hosts.values()].map(isHomely))
  return settled.filter((one) => one.status === 'fulfilled' && one.value).length
}

function viewOf({ choices }: IslandPlan, hosts: ReadonlyMap<string, Host>, homely: number): IslandView {
  const successors: Record<string, Record<string, string | null>> = {}
  const linksAbroad: Record<string, number> = {}
  for (const { service } of choices) {
    const nodes = [...hosts].map(([name, host]) => [name, host.nodes.get(service)!] as const)
    successors[service] = Object.fromEntries(
      nodes.map(([name, node]) => [name, node.successor?.name ?? null]),
    )
    const links = nodes.flatMap(([, node]) => node.links)
    linksAbroad[service] = links.filter(({ peer }) => !hosts.has(peer.name)).length
  }
  return { successors, linksAbroad, homely }
}

const input = createInterface({ input: process.stdin })
const [line] = (await once(input, 'line')) as [string]
const plan = JSON.parse(line) as IslandPlan
setUpNetwork(plan)
const starting = plan.hosts.map(async (name, i): Promise<[string, Host]> => {
  return [name, await startHost(plan, name, `${plan.network}.${i + 1}`)]
})
const hosts = new Map(await Promise.all(starting))
let homely = 0
let told = ''
setInterval(async () => {
  homely = await countHomely(plan, hosts)
}, LOOK_AROUND_MS)
setInterval(() => {
  const view = JSON.stringify(viewOf(plan, hosts, homely))
  if (view !== told) console.log(view)
  told = view
}, TELL_EVERY_MS)
await once(input, 'close')
process.exit(0)
