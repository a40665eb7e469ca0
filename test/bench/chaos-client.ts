// The clients of the chaos bench: ask every core again and again, by DNS over UDP and by HTTP, and tell of each
// answer as a line of JSON. Ends with stdin.
//
// Two kinds of question. To one core: it counts whether that core, while it runs, answers. To one after another, as a
// resolver does: it counts whether anybody answers. A question over UDP is sent again before it is given up.

import { createSocket } from 'node:dgram'
import { decode, encode, type StringAnswer } from 'dns-packet'
import { seededRng } from '../support/seeded-rng.ts'
import type { Answer } from './chaos-history.ts'

export interface ClientPlan {
  readonly cores: readonly { readonly name: string; readonly address: string }[]
  readonly zone: string
  readonly service: string
  /** Agent by address. */
  readonly agents: Readonly<Record<string, string>>
  readonly seed: number
}

/** Of the same machine's monotonic clock as all others here, ms. */
export const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6

const DNS_EVERY_MS = 200
const VIEW_EVERY_MS = 1000
/** One try over UDP, ms, and how many there are. */
const TRY_MS = 1000
const TRIES = 3
/** A resolver that has another server to ask waits less long. */
const RESOLVER_TRY_MS = 400
const HTTP_MS = 3000

const plan = JSON.parse(process.argv[2]!) as ClientPlan
const rng = seededRng(plan.seed)
const socket = createSocket('udp4')
const waiting = new Map<number, (reply: Buffer) => void>()
let lastId = 0

/** The addresses of an answer, or null where none came in time, or one that says that something is wrong. */
function askOnce(address: string, name: string, waitMs: number): Promise<readonly string[] | null> {
  lastId = (lastId + 1) % 65_536
  const id = lastId
  return new Promise((resolve) => {
    const end = (addresses: readonly string[] | null): void => {
      clearTimeout(timer)
      waiting.delete(id)
      resolve(addresses)
    }
    const timer = setTimeout(() => end(null), waitMs)
    waiting.set(id, (reply) => {
      const { rcode, answers = [] } = decode(reply) as { rcode?: string; answers?: StringAnswer[] }
      if (rcode !== 'NOERROR') end(null)
      else end(answers.filter(({ type }) => type === 'A').map(({ data }) => data))
    })
    socket.send(encode({ type: 'query', id, questions: [{ name, type: 'A' }] }), 53, address)
  })
}

const tell = (answer: Answer): void => console.log(JSON.stringify({ answer }))
const agentsAt = (addresses: readonly string[]): string[] =>
  addresses.flatMap((address) => plan.agents[address] ?? [])

async function askCore(core: string, address: string, name: string): Promise<void> {
  const askedMs = nowMs()
  let addresses: readonly string[] | null = null
  for (let i = 0; i < TRIES && addresses === null; i++) addresses = await askOnce(address, name, TRY_MS)
  const named = addresses && agentsAt(addresses)
  tell({ via: 'dns', core, question: name, askedMs, atMs: nowMs(), named, isWhole: false })
}

/** From a core drawn by chance on, twice round. */
async function askAnyByDns(name: string): Promise<void> {
  const askedMs = nowMs()
  const first = Math.floor(rng() * plan.cores.length)
  let addresses: readonly string[] | null = null
  for (let i = 0; i < 2 * plan.cores.length && addresses === null; i++) {
    const { address } = plan.cores[(first + i) % plan.cores.length]!
    addresses = await askOnce(address, name, RESOLVER_TRY_MS)
  }
  const named = addresses && agentsAt(addresses)
  tell({ via: 'dns', core: null, question: name, askedMs, atMs: nowMs(), named, isWhole: false })
}

interface Members {
  readonly members: readonly { readonly name: string }[]
}

async function get(address: string, path: string, waitMs: number): Promise<readonly string[] | null> {
  try {
    const reply = await fetch(`http://${address}:8053${path}`, { signal: AbortSignal.timeout(waitMs) })
    if (!reply.ok) return null
    return ((await reply.json()) as Members).members.map(({ name }) => name)
  } catch {
    return null
  }
}

async function viewCore(core: string, address: string): Promise<void> {
  const askedMs = nowMs()
  const path = `/v1/services/${plan.service}/random?k=1000`
  const named = await get(address, path, HTTP_MS)
  tell({ via: 'http', core, question: path, askedMs, atMs: nowMs(), named, isWhole: true })
}

async function askAnyByHttp(): Promise<void> {
  const askedMs = nowMs()
  const path = `/v1/services/${plan.service}/nearest`
  const first = Math.floor(rng() * plan.cores.length)
  let named: readonly string[] | null = null
  for (let i = 0; i < 2 * plan.cores.length && named === null; i++) {
    named = await get(plan.cores[(first + i) % plan.cores.length]!.address, path, RESOLVER_TRY_MS * 2)
  }
  tell({ via: 'http', core: null, question: path, askedMs, atMs: nowMs(), named, isWhole: false })
}

socket.on('message', (reply) => {
  if (reply.length >= 12) waiting.get(reply.readUInt16BE(0))?.(reply)
})
const service = `${plan.service}.${plan.zone}`
const names = Object.values(plan.agents).map((agent) => `${agent}.${service}`)
setInterval(() => {
  for (const { name, address } of plan.cores) {
    const isMember = rng() < 0.5
    void askCore(name, address, isMember ? names[Math.floor(rng() * names.length)]! : service)
  }
  void askAnyByDns(service)
}, DNS_EVERY_MS)
setInterval(() => {
  for (const { name, address } of plan.cores) void viewCore(name, address)
  void askAnyByHttp()
}, VIEW_EVERY_MS)
process.stdin.on('end', () => process.exit(0)).resume()
