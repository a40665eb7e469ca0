// The command: one node of the overlay, with an agent of its own, on this machine.
//
// Prints its links when they change, and looks up each line that is typed. With --json it prints the same
// as records, a line each, for programs that run many. A signal ends it, and it leaves then.

import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { Agent } from 'nearcast-agent'
import { OverlayNode } from './node.ts'

const USAGE = `npm run -s overlay -- --core URL --token SECRET --name NAME --port N [options]
  --service overlay   the service whose members the nodes are
  --address 127.0.0.1 where the node listens (UDP) and is reached
  --near 32           near members to ask for at each discovery; 0: choose by lot among random ones
  --random 4          random members to ask for; 0: near ones only
  --discover 30       seconds from one discovery to the next
  --meet 2            seconds from one meeting with each link to the next
  --insecure          lets the token travel over http:// beyond this machine
  --json              print JSON lines`

/** How often it looks whether its links have changed. */
const LOOK_MS = 1000

function readOptions(argv: readonly string[]) {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean', default: false } as const
  const { values } = parseArgs({
    args: [...argv],
    options: {
      ...{ core: text, token: text, name: text, port: text },
      service: { type: 'string', default: 'overlay' },
      address: { type: 'string', default: '127.0.0.1' },
      near: { type: 'string', default: '32' },
      random: { type: 'string', default: '4' },
      discover: { type: 'string', default: '30' },
      meet: { type: 'string', default: '2' },
      ...{ insecure: flag, json: flag },
    },
  })
  const { core, token, name, service, address, insecure, json } = values
  if (core === undefined || token === undefined || name === undefined)
    throw new TypeError('--core, --token and --name are needed')
  const near = whole('near', values.near, 0, 500)
  const random = whole('random', values.random, 0, 500)
  if (near + random === 0) throw new TypeError('--near and --random: both are 0, expected one from 1 on')
  const port = whole('port', values.port, 1, 65_535)
  const discoverMs = 1000 * whole('discover', values.discover, 1, 3600)
  const meetMs = 1000 * whole('meet', values.meet, 1, 3600)
  const node = { service, address, port, near, random, discoverMs, meetMs }
  return { core, token, name, insecure, json, node }
}

function whole(key: string, text: string | undefined, min: number, max: number): number {
  const value = Number(text)
  if (Number.isInteger(value) && value >= min && value <= max) return value
  throw new TypeError(`--${key}: got ${text ?? 'nothing'}, expected a whole number from ${min} to ${max}`)
}

/** What is told of a node. */
function viewOf(node: OverlayNode) {
  const links = node.links.map(({ peer, rttMs }) => ({ name: peer.name, ms: Number(rttMs!.toFixed(1)) }))
  return { successor: node.successor?.name ?? null, links }
}

/** The same as a sentence. */
function describe(name: string, { successor, links }: ReturnType<typeof viewOf>): string {
  if (links.length === 0) return `${name}: alone`
  const meanMs = links.reduce((sum, { ms }) => sum + ms, 0) / links.length
  const names = links.map(({ name }) => name).sort()
  const others = `${links.length} links (${names.join(', ')})`
  return `${name}: ${others}, ${meanMs.toFixed(1)} ms on average; next on the ring: ${successor}`
}

/** Tells of the node whenever its links are others. Returns what ends that. */
function watch(node: OverlayNode, json: boolean): () => void {
  let told = ''
  const timer = setInterval(() => {
    const view = viewOf(node)
    const names = JSON.stringify([view.successor, view.links.map(({ name }) => name).sort()])
    if (names === told && !json) return
    told = names
    console.log(json ? JSON.stringify(view) : describe(node.self.name, view))
  }, LOOK_MS)
  return () => clearInterval(timer)
}

/** Looks up what is typed, until the input or the program ends. */
async function lookUp(node: OverlayNode, json: boolean, signal: AbortSignal): Promise<void> {
  for await (const key of createInterface({ input: process.stdin, signal })) {
    const found = await node.lookup(key)
    const record = { key, owner: found?.owner.name ?? null, path: found?.path ?? null, ms: found?.ms ?? null }
    const way = [node.self.name, ...(found?.path ?? [])].join(' > ')
    const line = found && `${found.owner.name} (${way}, ${found.ms.toFixed(1)} ms)`
    console.log(json ? JSON.stringify(record) : `${key}: ${line ?? 'no answer'}`)
  }
}

async function run(): Promise<void> {
  const { core, token, name, insecure, json, node: options } = readOptions(process.argv.slice(2))
  const { address } = options
  const agent = new Agent({
    ...{ cores: core, token, name, insecure },
    ...{ addresses: [address], echo: `${address}:0` },
  })
  agent.on('warning', (warning) => console.error(warning))
  const ending = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => ending.abort())
  await agent.start()
  const node = new OverlayNode({ agent, ...options })
  await node.start()
  const endWatch = watch(node, json)
  await lookUp(node, json, ending.signal)
  if (!ending.signal.aborted) await once(ending.signal, 'abort')
  endWatch()
  await node.stop()
  await agent.stop()
}

try {
  await run()
} catch (error) {
  const isMistake = error instanceof TypeError
  console.error(isMistake ? `${error.message}\n${USAGE}` : (error as Error).message)
  process.exitCode = isMistake ? 2 : 1
}
