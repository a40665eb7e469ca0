// The writers of the chaos bench: change services, drains and tokens at any core all the time, and tell of each
// write and what was said to it as a line of JSON. Several write the same things at once. `stop` on stdin ends it
// when what is under way has ended.

import { createInterface } from 'node:readline'
import { seededRng } from '../support/seeded-rng.ts'
import type { Write } from './chaos-history.ts'

export interface WriterPlan {
  readonly cores: readonly { readonly name: string; readonly address: string }[]
  readonly token: string
  /** Members of this service are drained and taken back. */
  readonly service: string
  readonly members: readonly string[]
  readonly seed: number
}

const WRITERS = 4
const PAUSE_MS = 150
const SERVICES = 6
const CALL_MS = 3000

/** What a core says that sent a change to the store and has no answer: it may be made yet. */
const UNDECIDED = /is not known yet/

const plan = JSON.parse(process.argv[2]!) as WriterPlan
const rng = seededRng(plan.seed)
const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6
const oneOf = <T>(list: readonly T[]): T => list[Math.floor(rng() * list.length)]!
let count = 0
let isOver = false

interface Change {
  readonly key: string
  readonly value: string | null
  readonly method: 'PUT' | 'DELETE'
  readonly path: string
  readonly body?: object
}

/** A service is put with a new value, or removed; a member is drained, or taken back. */
function drawChange(): Change {
  const chance = rng()
  if (chance < 0.6) {
    const name = `written-${Math.floor(rng() * SERVICES)}`
    const path = `/v1/services/${name}`
    if (chance < 0.1) return { key: `services/${name}`, value: null, method: 'DELETE', path }
    const value = `v${++count}.example`
    return { key: `services/${name}`, value, method: 'PUT', path, body: { urlHosts: [value] } }
  }
  const member = oneOf(plan.members)
  const path = `/v1/services/${plan.service}/members/${member}/drain`
  const isDrain = chance < 0.8
  const key = `drained/${plan.service}/${member}`
  return { key, value: isDrain ? 'drained' : null, method: isDrain ? 'PUT' : 'DELETE', path }
}

async function write(): Promise<void> {
  const { name: core, address } = oneOf(plan.cores)
  const { key, value, method, path, body } = drawChange()
  const askedMs = nowMs()
  const outcome = await send(`http://${address}:8053${path}`, method, body)
  console.log(
    JSON.stringify({ write: { key, value, core, askedMs, atMs: nowMs(), outcome } satisfies Write }),
  )
}

async function send(url: string, method: string, body: object | undefined): Promise<Write['outcome']> {
  try {
    const reply = await fetch(url, {
      method,
      headers: {
        authorization: `Bearer ${plan.token}`,
        ...(body && { 'content-type': 'application/json' }),
      },
      ...(body && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(CALL_MS),
    })
    const text = await reply.text()
    if (reply.ok) return 'made'
    return reply.status === 503 && UNDECIDED.test(text) ? 'unknown' : 'refused'
  } catch (error) {
    const { code } = ((error as Error).cause ?? {}) as NodeJS.ErrnoException
    // Nobody listened: nothing was sent.
    return code === 'ECONNREFUSED' ? 'refused' : 'unknown'
  }
}

async function keepWriting(): Promise<void> {
  while (!isOver) {
    await write()
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS * (0.5 + rng())))
  }
}

createInterface({ input: process.stdin }).on('line', () => {
  isOver = true
})
process.stdin.on('end', () => process.exit(0))
await Promise.all(Array.from({ length: WRITERS }, keepWriting))
console.log(JSON.stringify({ over: true }))
