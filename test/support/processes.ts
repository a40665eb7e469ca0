// Real processes for end-to-end tests: a core, agents and commands, as a user starts them.

import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { decode, encode, type StringAnswer } from 'dns-packet'
import { temporaryFolder } from './temporary-folder.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const CLI = join(ROOT, 'core-node', 'cli.ts')
const AGENT = join(ROOT, 'server-agent', 'bin', 'nearcast-agent.js')

export interface Child {
  readonly process: ChildProcess
  /** Everything that it wrote so far, both streams. */
  output(): string
  /** Resolves when it has ended. */
  readonly ended: Promise<unknown>
}

export interface CoreProcess extends Child {
  readonly data: string
  readonly dnsPort: number
  readonly url: string
}

function start(file: string, args: readonly string[]): Child {
  const process_ = spawn(process.execPath, [file, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  let text = ''
  for (const stream of [process_.stdout, process_.stderr]) stream.on('data', (part) => (text += part))
  return { process: process_, output: () => text, ended: once(process_, 'exit') }
}

/** A port that is free for TCP and UDP now. */
export async function freePort(): Promise<number> {
  for (;;) {
    const tcp = createServer().listen(0, '127.0.0.1')
    await once(tcp, 'listening')
    const { port } = tcp.address() as { port: number }
    const udp = createSocket('udp4')
    const free = await new Promise<boolean>((resolve) => {
      udp.once('error', () => resolve(false))
      udp.bind(port, '127.0.0.1', () => resolve(true))
    })
    if (free) udp.close()
    tcp.close()
    if (free) return port
  }
}

/** Starts a core and waits until it is ready; the same options start it again over the same data. */
export async function startCore(
  again: { data?: string; dnsPort?: number; httpPort?: number; flags?: string[]; limitMs?: number } = {},
): Promise<CoreProcess> {
  const data = again.data ?? temporaryFolder()
  const dnsPort = again.dnsPort ?? (await freePort())
  const httpPort = again.httpPort ?? (await freePort())
  const url = `http://127.0.0.1:${httpPort}`
  const listen = ['--dns', `127.0.0.1:${dnsPort}`, '--http', `127.0.0.1:${httpPort}`]
  const flags = [
    'core',
    '--data',
    data,
    '--geo',
    'none',
    '--log-level',
    'warn',
    ...listen,
    ...(again.flags ?? []),
  ]
  const child = start(CLI, flags)
  const isReady = async () => {
    if (child.process.exitCode !== null) throw new Error(`the core ended: ${child.output()}`)
    return (await fetch(`${url}/readyz`).catch(() => null))?.ok === true
  }
  await until(`the core at ${url} is ready`, isReady, again.limitMs)
  return { ...child, data, dnsPort, url }
}

export function startAgent(core: CoreProcess, token: string, name: string, args: readonly string[]): Child {
  const state = join(core.data, `agent-${name}`)
  return start(AGENT, ['--core', core.url, '--token', token, '--name', name, '--state', state, ...args])
}

/** Runs `nearcast` to its end. */
export function nearcast(
  core: CoreProcess,
  ...args: string[]
): Promise<{ code: number; out: string; err: string }> {
  return new Promise((resolve) => {
    const command = [CLI, ...args, '--core', core.url, '--data', core.data]
    execFile(process.execPath, command, (error, out, err) => {
      resolve({ code: typeof error?.code === 'number' ? error.code : error ? -1 : 0, out, err })
    })
  })
}

/** One call of the API as administrator. */
export async function api(core: CoreProcess, method: string, path: string, body?: object): Promise<Response> {
  const authorization = `Bearer ${readFileSync(join(core.data, 'admin-token'), 'utf8').trim()}`
  const json = body === undefined ? {} : { body: JSON.stringify(body) }
  const headers = { authorization, ...(body === undefined ? {} : { 'content-type': 'application/json' }) }
  return fetch(`${core.url}/v1/${path}`, { method, headers, ...json })
}

/** The addresses in the answer to one A query over UDP, in order; null: no answer within a second. */
export async function askDns(core: CoreProcess, name: string): Promise<string[] | null> {
  const socket = createSocket('udp4')
  try {
    const query = encode({ type: 'query', id: 7, questions: [{ name, type: 'A' }] })
    socket.send(query, core.dnsPort, '127.0.0.1')
    const [reply] = (await once(socket, 'message', { signal: AbortSignal.timeout(1000) })) as [Buffer]
    const answers = (decode(reply).answers ?? []) as StringAnswer[]
    return answers.filter((answer) => answer.type === 'A').map((answer) => answer.data)
  } catch {
    return null
  } finally {
    socket.close()
  }
}

/** Waits until `holds`, asking each 50 ms; throws after `limitMs`. */
export async function until(
  what: string,
  holds: () => Promise<boolean> | boolean,
  limitMs = 20_000,
): Promise<void> {
  const end = Date.now() + limitMs
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(`not within ${limitMs} ms: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
