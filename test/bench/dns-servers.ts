// The servers of bench:dns as processes: started on one processor, asked until they answer rightly, and ended.
//
// A server that answers anything else than it was told to is not measured: that is an error of the benchmark.

import { type ChildProcess, spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { accessSync, constants, mkdirSync, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { decode, type StringAnswer } from 'dns-packet'
import { formatAddress } from '../../resolver/address.ts'
import type { Rng } from '../../resolver/ask.ts'
import { freePort, until } from '../support/processes.ts'
import { type Launch, PEERS, type Peer } from './dns-peers.ts'
import { type DnsQuestion, drawQuestion, queryPacket } from './dns-questions.ts'
import { type DnsWorld, fillDnsStore } from './dns-world.ts'

export interface DnsServerProcess {
  readonly name: 'nearcast' | Peer['name']
  readonly serves: string
  readonly pid: number
  readonly port: number
  /** From the start of its process to the first right answer. */
  readonly startSec: number
  isRight: Launch['isRight']
  close(): Promise<void>
}

/** As users start it. It goes on in the same process. */
const NEARCAST = fileURLToPath(new URL('../../core-node/bin/nearcast.js', import.meta.url))
const START_LIMIT_MS = 120_000
const ASK_EVERY_MS = 20
/** Debian keeps servers where only root's PATH leads. */
const MORE_PATHS = ['/usr/sbin', '/usr/local/sbin']

/** Whether a program is there to be started. */
export function findProgram(name: string): string | null {
  const folders = [...(process.env.PATH ?? '').split(delimiter), ...MORE_PATHS]
  return (
    folders
      .map((folder) => join(folder, name))
      .find((path) => {
        try {
          accessSync(path, constants.X_OK)
          return true
        } catch {
          return false
        }
      }) ?? null
  )
}

export const installedPeers = (): Peer[] => PEERS.filter(({ program }) => findProgram(program) !== null)

/** A core with one DNS worker over a store that holds the world. */
export async function startNearcast(
  folder: string,
  world: DnsWorld,
  rng: Rng,
  cpu: number,
): Promise<DnsServerProcess> {
  const data = join(folder, 'nearcast')
  mkdirSync(data, { recursive: true })
  await fillDnsStore(data, world, rng)
  const [port, http] = [await freePort(), await freePort()]
  const listen = ['--dns', `127.0.0.1:${port}`, '--http', `127.0.0.1:${http}`]
  const args = [NEARCAST, 'core', '--data', data, ...listen, '--dns-workers', '1', '--log-level', 'warn']
  const launch = { command: process.execPath, args, isRight: nearestByApi(world, data, http) }
  const server = await start('nearcast', 'the whole core', launch, world, port, cpu)
  // It answers DNS a moment before HTTP, by which its answers are checked.
  await until(
    'HTTP answers',
    async () => (await fetch(`http://127.0.0.1:${http}/readyz`).catch(() => null))?.ok === true,
  )
  return server
}

export async function startPeer(
  peer: Peer,
  folder: string,
  world: DnsWorld,
  cpu: number,
): Promise<DnsServerProcess> {
  const own = join(folder, peer.name)
  mkdirSync(own)
  const port = await freePort()
  const launch = peer.prepare(own, world, port)
  return start(peer.name, peer.serves, { ...launch, command: findProgram(peer.program)! }, world, port, cpu)
}

async function start(
  name: DnsServerProcess['name'],
  serves: string,
  { command, args, isRight }: Launch,
  world: DnsWorld,
  port: number,
  cpu: number,
): Promise<DnsServerProcess> {
  const startMs = performance.now()
  const child = spawn('taskset', ['-c', `${cpu}`, command, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  let text = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (part) => (text = (text + part).slice(-4000)))
  const question = { service: 0, network: 0, client: world.networks[0]!.prefix.address }
  try {
    await firstAnswer(child, world, question, port)
  } catch (error) {
    child.kill('SIGKILL')
    throw new Error(`${name} does not answer: ${(error as Error).message}\n${text}`, { cause: error })
  }
  const startSec = (performance.now() - startMs) / 1000
  return { name, serves, pid: child.pid!, port, startSec, isRight, close: () => end(child) }
}

async function firstAnswer(
  child: ChildProcess,
  world: DnsWorld,
  question: DnsQuestion,
  port: number,
): Promise<void> {
  const limitMs = performance.now() + START_LIMIT_MS
  while (((await ask(world, question, port)) ?? []).length === 0) {
    if (child.exitCode !== null) throw new Error(`it ended with ${child.exitCode}`)
    if (performance.now() > limitMs) throw new Error(`not within ${START_LIMIT_MS / 1000} s`)
    await sleep(ASK_EVERY_MS)
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  await ended
}

/** The addresses that a question is answered with; null: no answer in time, or an error. */
async function ask(world: DnsWorld, question: DnsQuestion, port: number): Promise<string[] | null> {
  const socket = createSocket('udp4')
  try {
    socket.connect(port, '127.0.0.1')
    await once(socket, 'connect')
    socket.send(queryPacket(world, question, 1))
    const [reply] = (await once(socket, 'message', { signal: AbortSignal.timeout(1000) })) as [Buffer]
    const { answers, ...head } = decode(reply)
    if ((head as unknown as { rcode: string }).rcode !== 'NOERROR') return null
    return (answers as StringAnswer[]).filter(({ type }) => type === 'A').map(({ data }) => data)
  } catch {
    return null
  } finally {
    socket.close()
  }
}

/** Asks so many questions one after another. Throws where an answer is not the one that the server was told to give. */
export async function checkAnswers(
  server: DnsServerProcess,
  world: DnsWorld,
  count: number,
  rng: Rng,
): Promise<void> {
  for (let i = 0; i < count; i++) {
    const question = drawQuestion(world, rng)
    const addresses = await ask(world, question, server.port)
    if (addresses !== null && (await server.isRight(question, addresses))) continue
    const { name } = world.services[question.service]!
    const told = addresses?.join(' ') ?? 'no answer'
    throw new Error(`${server.name} answers ${formatAddress(question.client)} for ${name} wrongly: ${told}`)
  }
}

interface Nearest {
  readonly members: readonly { readonly addresses: readonly string[]; readonly ms: number }[]
}

/** Members that are so near to each other share the clients (docs/locality.md): any of them is right. */
const TIE_MS = 2
const TIE_SHARE = 0.2

/** What the API says to the same question, of as many members as DNS considers. */
function nearestByApi(world: DnsWorld, data: string, port: number): Launch['isRight'] {
  return async ({ service, client }, addresses) => {
    const token = readFileSync(join(data, 'admin-token'), 'utf8').trim()
    const { name } = world.services[service]!
    const url = `http://127.0.0.1:${port}/v1/services/${name}/nearest?k=32&client=${formatAddress(client)}`
    const reply = await fetch(url, { headers: { authorization: `Bearer ${token}` } })
    const { members } = (await reply.json()) as Nearest
    const leastMs = Math.min(...members.map(({ ms }) => ms))
    const near = members.filter(({ ms }) => ms <= leastMs + Math.max(TIE_MS, TIE_SHARE * leastMs))
    const right = near.flatMap((member) => member.addresses)
    return addresses.length > 0 && addresses.every((address) => right.includes(address))
  }
}
