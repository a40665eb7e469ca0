// The command: one node of the overlay, with an agent of its own, on this machine.
//
// Prints its links when they change, and looks up each line that is typed. With --json it prints the same
// as records, a line each, for programs that run many. Ends with its input or a signal, and leaves then.

import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { Agent } from 'nearcast-agent'
import { OverlayNode } from './node.ts'

const USAGE = `npm run -s overlay -- --core URL --token SECRET --name NAME --port N [options]
  --service overlay   the service whose members the nodes are
  --address IP        where the node listens and is reached; default 127.0.0.1
  --near 32           near members to ask for at each discovery; 0: choose by lot
  --random 4          random members to ask for; 0: near ones only
  --discover 30       seconds from one discovery to the next
  --insecure          lets the token travel over http:// beyond this machine
  --json              print JSON lines`

/** How often it looks whether its links have changed. */
const LOOK_MS = 1000
const MEET_MS = 2000

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
      ...{ insecure: flag, json: flag },
    },
  })
  const { core, token, name } = values
  if (core === undefined || token === undefined || name === undefined)
    throw new TypeError('--core, --token and --name are needed')
  const near = whole('near', values.near, 0, 500)
  const random = whole('random', values.random, 0, 500)
  if (near + random === 0) throw new TypeError('--near and --random: both are 0, expected one from 1 on')
  const port = whole('port', values.port, 1, 65_535)
  const discoverMs = 1000 * whole('discover', values.discover, 1, 3600)
  return { ...values, core, token, name, port, near, random, discoverMs }
}

function whole(key: string, text: string | undefined, min: number, max: number): number {
  const value = Number(text)
  if (Number.isInteger(value) && value >= min && value <= max) return value
  throw new TypeError(`--${key}: got ${text ?? 'nothing'}, expected a whole number from ${min} to ${max}`)
}

/** What is told of a node's links. */
function viewOf(node: OverlayNode) {
  const links = node.links.map(({ peer, rttMs }) => ({ name: peer.name, ms: Number(rttMs!.toFixed(1)) }))
  return { successor: node.successor?.name ?? null, links }
}

async function run(): Promise<void> {
  const { core, token, name, address, insecure, json, ...rest } = readOptions(process.argv.slice(2))
  const print = (record: object, line: string): void => console.log(json ? JSON.stringify(record) : line)
  const agent = new Agent({
    ...{ cores: core, token, name, insecure },
    ...{ addresses: [address], echo: `${address}:0` },
  })
  agent.on('warning', (warning) => console.error(warning))
  await agent.start()
  const node = new OverlayNode({ agent, address, meetMs: MEET_MS, ...rest })
  await node.start()
  const ends = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => ends.abort())
  let told = ''
  const looking = setInterval(() => {
    const view = viewOf(node)
    const line = describe(view)
    const news = json ? JSON.stringify(view) : line
    if (news !== told) print(view, line)
    told = news
  }, LOOK_MS)
  const input = createInterface({ input: process.stdin, signal: ends.signal })
  for await (const key of input) {
    const found = await node.lookup(key)
    const line =
      found === null ? 'no answer' : `${found.owner.name} (${found.hops} hops, ${found.ms.toFixed(0)} ms)`
    print(
      { key, owner: found?.owner.name ?? null, hops: found?.hops ?? null, ms: found?.ms ?? null },
      `${key}: ${line}`,
    )
  }
  clearInterval(looking)
  await node.stop()
  await agent.stop()
}

function describe({ successor, links }: ReturnType<typeof viewOf>): string {
  const mean = links.reduce((sum, { ms }) => sum + ms, 0) / links.length
  const far = links.length === 0 ? '' : `, ${mean.toFixed(1)} ms on average`
  return `${links.length} links${far}; next on the ring: ${successor ?? 'nobody'}`
}

try {
  await run()
} catch (error) {
  console.error((error as Error).message)
  if (error instanceof TypeError) console.error(USAGE)
  process.exitCode = error instanceof TypeError ? 2 : 1
}
