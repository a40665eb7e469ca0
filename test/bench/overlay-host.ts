// One host of bench:overlay inside a network namespace: an agent, and a node in each overlay. Its plan is its
// argument. Tells what its nodes see as lines of JSON, looks keys up as stdin asks, and ends with it.

import { createInterface } from 'node:readline'
import { Agent } from 'nearcast-agent'
import { type Found, OverlayNode } from '../../examples/overlay/node.ts'
import { type Choice, type NodeView, viewOf } from './overlay-stage.ts'

export interface HostPlan {
  readonly name: string
  readonly address: string
  /** URL. */
  readonly core: string
  readonly token: string
  readonly choices: readonly Choice[]
  readonly discoverMs: number
  readonly meetMs: number
}

export interface LookupTask {
  readonly id: number
  readonly service: string
  readonly key: string
}

/** By service what its node sees, or what came of a lookup. */
export type HostLine =
  | { readonly views: Readonly<Record<string, NodeView>> }
  | { readonly id: number; readonly found: Found | null }

const ECHO_PORT = 8054
const FIRST_NODE_PORT = 4001
const TELL_EVERY_MS = 500

const tell = (line: HostLine): void => console.log(JSON.stringify(line))

const { name, address, core, token, choices, discoverMs, meetMs } = JSON.parse(process.argv[2]!) as HostPlan
const agent = new Agent({
  ...{ cores: core, token, name, addresses: [address], insecure: true },
  echo: `${address}:${ECHO_PORT}`,
})
await agent.start()
const nodes = new Map<string, OverlayNode>()
for (const [i, choice] of choices.entries()) {
  const node = new OverlayNode({ agent, address, port: FIRST_NODE_PORT + i, ...choice, discoverMs, meetMs })
  await node.start()
  nodes.set(choice.service, node)
}
setInterval(() => {
  tell({ views: Object.fromEntries([...nodes].map(([service, node]) => [service, viewOf(node)])) })
}, TELL_EVERY_MS)
for await (const line of createInterface({ input: process.stdin })) {
  const { id, service, key } = JSON.parse(line) as LookupTask
  void nodes
    .get(service)!
    .lookup(key)
    .then((found) => tell({ id, found }))
}
process.exit(0)
