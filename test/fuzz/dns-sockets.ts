// Packets over UDP and TCP to a server in a process of its own, which counts them: its replies are judged, and
// its counts are held against what the function that answers says in this process.
//
// Never more is under way than the server's buffers hold, so that nothing is lost on the way.

import { fork } from 'node:child_process'
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { connect } from 'node:net'
import { fileURLToPath } from 'node:url'
import type { DnsOutcome } from '../../resolver/dns-answer.ts'
import { judgeReply } from './dns-judge.ts'
import type { Report } from './dns-report.ts'

export interface Counts {
  readonly udp: Readonly<Record<DnsOutcome, number>>
  readonly tcp: Readonly<Record<DnsOutcome, number>>
  readonly errors: readonly string[]
  readonly longestStallMs: number
}

export interface Target {
  readonly port: number
  counts(): Promise<Counts>
  close(): void
}

/**
 * What may be under way at one time, bytes as the system counts them in a socket's buffer: half of what it gives by
 * default. Beside its bytes, twice at most, each packet and each reply takes some room.
 */
const WINDOW_BYTES = 100_000
const PACKET_ROOM_BYTES = 1024
/** How long the server may take to count them, ms. */
const PATIENCE_MS = 20_000
/** No longer ones: TCP closes the connection at such, and UDP can't carry much more. */
export const MOST_SENT_BYTES = 4096

export interface ServerKind {
  /** Responses are limited as they are by default. */
  readonly limited: boolean
  /** Threads for UDP; 0: the server's own. */
  readonly workers: number
}

export async function openTarget({ limited, workers }: ServerKind): Promise<Target> {
  const target = fileURLToPath(new URL('dns-target.ts', import.meta.url))
  const child = fork(target, [limited ? 'limited' : 'unlimited', `${workers}`])
  const gone = new AbortController()
  child.once('exit', (code, signal) => gone.abort(new Error(`the server ended: ${signal ?? code}`)))
  const told = async () => (await once(child, 'message', { signal: gone.signal }))[0]
  const port = (await told()) as number
  const counts = async () => {
    child.send('counts')
    return (await told()) as Counts
  }
  return { port, counts, close: () => child.kill('SIGKILL') }
}

export const total = (counts: Readonly<Record<string, number>>) =>
  Object.values(counts).reduce((sum, count) => sum + count, 0)

/**
 * All packets by UDP, each with an id of its own, and as many at a time as are counted before the next come. Every
 * packet that the server counts as answered must have brought its reply.
 */
export async function sendUdp(target: Target, packets: Iterable<Buffer>, report: Report): Promise<number> {
  const socket = createSocket('udp4')
  socket.connect(target.port, '127.0.0.1')
  await once(socket, 'connect')
  const asked = new Map<number, Buffer>()
  let replies = 0
  socket.on('message', (reply: Buffer) => {
    replies++
    judgeUdp(asked, reply, report)
  })
  let count = 0
  for (const group of groups(packets)) {
    for (const bytes of group) {
      const packet = withId(bytes, count++ & 0xffff)
      if (packet.length >= 2) asked.set(packet.readUInt16BE(0), packet)
      await send(socket, packet)
    }
    const isDone = await isSoon(async () => {
      const { udp } = await target.counts()
      return total(udp) >= count && replies >= answered(udp)
    })
    if (isDone) continue
    report.blame('from here on not all packets were counted, or not all replies came', group[0]!)
    break
  }
  socket.close()
  return count
}

function answered(counts: Counts['udp']): number {
  return (
    total(counts) -
    total(Object.fromEntries(Object.entries(counts).filter(([outcome]) => outcome.startsWith('dropped'))))
  )
}

function judgeUdp(asked: Map<number, Buffer>, reply: Buffer, report: Report): void {
  const packet = asked.get(reply.length < 2 ? -1 : reply.readUInt16BE(0))
  if (packet === undefined) {
    report.blame('a reply that nothing was asked for', reply)
    return
  }
  report.count(`rcode ${reply[3]! & 15}`)
  const fault = judgeReply(packet, reply, 'udp')
  if (fault !== null) report.blame(`udp: ${fault}`, packet)
}

async function isSoon(holds: () => Promise<boolean>): Promise<boolean> {
  const endMs = performance.now() + PATIENCE_MS
  while (!(await holds())) {
    if (performance.now() > endMs) return false
    await new Promise((resolve) => setImmediate(resolve))
  }
  return true
}

function send(socket: Socket, packet: Buffer): Promise<void> {
  return new Promise((resolve, reject) =>
    socket.send(packet, (error) => (error === null ? resolve() : reject(error))),
  )
}

function withId(bytes: Buffer, id: number): Buffer {
  const packet = Buffer.from(bytes)
  if (packet.length >= 2) packet.writeUInt16BE(id, 0)
  return packet
}

/** All packets by TCP, a group a connection: replies come in their order, and the server ends with the last. */
export async function sendTcp(target: Target, packets: Iterable<Buffer>, report: Report): Promise<number> {
  let count = 0
  for (const group of groups(packets)) {
    const asked = group.map((bytes, i) => withId(bytes, (count + i) & 0xffff))
    count += group.length
    const socket = connect(target.port, '127.0.0.1')
    socket.on('error', (error) => report.blame(`tcp: ${error.message}`, group[0]!))
    const received: Buffer[] = []
    socket.on('data', (part) => received.push(part))
    const ended = once(socket, 'close')
    socket.end(Buffer.concat(asked.flatMap((packet) => [lengthOf(packet), packet])))
    await ended
    judgeStream(asked, Buffer.concat(received), report)
  }
  return count
}

function lengthOf(packet: Buffer): Buffer {
  return Buffer.from([packet.length >> 8, packet.length & 0xff])
}

function judgeStream(asked: readonly Buffer[], stream: Buffer, report: Report): void {
  let next = 0
  for (let at = 0; at + 2 <= stream.length; at += 2 + stream.readUInt16BE(at)) {
    const reply = stream.subarray(at + 2, at + 2 + stream.readUInt16BE(at))
    const isFor = (packet: Buffer) => packet.length >= 2 && packet.subarray(0, 2).equals(reply.subarray(0, 2))
    while (next < asked.length && !isFor(asked[next]!)) next++
    if (next === asked.length) {
      report.blame('a reply that is in no order', reply)
      return
    }
    report.count(`rcode ${reply[3]! & 15}`)
    const fault = judgeReply(asked[next]!, reply, 'tcp')
    if (fault !== null) report.blame(`tcp: ${fault}`, asked[next]!)
    next++
  }
}

function* groups(packets: Iterable<Buffer>): Generator<Buffer[]> {
  let group: Buffer[] = []
  let bytes = 0
  for (const packet of packets) {
    group.push(packet)
    bytes += PACKET_ROOM_BYTES + 2 * packet.length
    if (bytes < WINDOW_BYTES) continue
    yield group
    group = []
    bytes = 0
  }
  if (group.length > 0) yield group
}
