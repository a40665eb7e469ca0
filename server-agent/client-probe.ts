// Measures the way to a client's address by what an ordinary host may send: a DNS query, a TCP
// connection, or the system's `ping`.
//
// Each method is one function: (address, count, ...) -> RTTs. What gets no answer twice in a row is left
// alone: two packets into silence are polite, more are not. Source addresses are bound where given, so
// that the RTT is that of the host's own address.

import { randomInt } from 'node:crypto'
import { isIPv4, isIPv6 } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { withDeadline } from './deadline.ts'
import { runProgram } from './program.ts'
import { bindUdp } from './protocol/echo-socket.ts'
import { connectTcp } from './tcp-connect.ts'

/** An answer later than this places nobody: half the Earth and back by satellite takes less. */
const ANSWER_MS = 1500
/** Between tries: they are three or so, and no burst. */
const GAP_MS = 50
const MAX_SILENT = 2
/** ping lets only root go faster. */
const PING_GAP_MS = 200

export interface ProbeTarget {
  readonly address: string
  readonly count: number
  /** Local address to come from; undefined: the system's choice. */
  readonly source: string | undefined
}

/** `. NS` to a resolver: whatever it answers, refusals too, is an RTT; so is a closed port's own refusal. */
export function probeDns(target: ProbeTarget, port: number, stop: AbortSignal): Promise<number[]> {
  return repeat(target.count, stop, (signal) => askRoot(target, port, signal))
}

/** A TCP handshake, or its refusal. */
export function probeTcp(target: ProbeTarget, port: number, stop: AbortSignal): Promise<number[]> {
  return repeat(target.count, stop, async (signal) => {
    const { rttMs } = await connectTcp(target.address, port, signal, target.source)
    return rttMs
  })
}

/** The system's ping; nothing where there is none. */
export async function probeIcmp(target: ProbeTarget, stop: AbortSignal): Promise<number[]> {
  const source = target.source === undefined ? [] : ['-I', target.source]
  const waitSec = Math.ceil((target.count * PING_GAP_MS + ANSWER_MS) / 1000)
  // Ends itself after waitSec with what it has: -w in Linux and BusyBox, -t in the BSDs.
  const limit = [process.platform === 'linux' ? '-w' : '-t', String(waitSec)]
  const gap = ['-i', String(PING_GAP_MS / 1000)]
  const args = ['-n', '-c', String(target.count), ...gap, ...limit, ...source, target.address]
  try {
    const { stdout } = await withDeadline(waitSec * 1000 + 500, stop, (signal) =>
      runProgram('ping', args, signal),
    )
    return parsePing(stdout)
  } catch {
    return []
  }
}

/** The times in what ping prints, ms. */
export function parsePing(output: string): number[] {
  return [...output.matchAll(/\btime[=<]([0-9.]+) ?ms/g)].map((match) => Number(match[1]))
}

/** Tries one after another; a try that rejects has no RTT. */
async function repeat(
  count: number,
  stop: AbortSignal,
  tryOnce: (signal: AbortSignal) => Promise<number>,
): Promise<number[]> {
  const rttsMs: number[] = []
  let silent = 0
  for (let tries = 0; tries < count && silent < MAX_SILENT && !stop.aborted; tries++) {
    if (tries > 0) await sleep(GAP_MS)
    try {
      rttsMs.push(await withDeadline(ANSWER_MS, stop, tryOnce))
      silent = 0
    } catch {
      silent++
    }
  }
  return rttsMs
}

/** The 17 bytes of a query for `. NS`, no recursion wished: it costs a resolver nothing but the answer. */
export function rootQuery(id: number): Uint8Array {
  return Uint8Array.of(id >> 8, id & 255, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1)
}

/** True for an answer to the query with this id: header at least, QR set. */
export function answersQuery(packet: Uint8Array, id: number): boolean {
  return packet.length >= 12 && ((packet[0]! << 8) | packet[1]!) === id && (packet[2]! & 0x80) !== 0
}

async function askRoot(target: ProbeTarget, port: number, signal: AbortSignal): Promise<number> {
  const socket = await bindUdp(target.source ?? (isIPv4(target.address) ? '0.0.0.0' : '::'), 0)
  try {
    return await new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason))
      const id = randomInt(0x10000)
      let sentAtMs = 0
      socket.on('error', (error: NodeJS.ErrnoException) => {
        // ICMP port unreachable: by RFC 1122 that comes from the host itself.
        if (error.code === 'ECONNREFUSED' && sentAtMs > 0) resolve(performance.now() - sentAtMs)
        else reject(error)
      })
      socket.on('connect', () => {
        sentAtMs = performance.now()
        socket.send(rootQuery(id))
      })
      socket.on('message', (packet) => {
        if (answersQuery(packet, id)) resolve(performance.now() - sentAtMs)
      })
      // Connected, so that the system drops what comes from anyone else and tells of a closed port.
      socket.connect(port, target.address)
    })
  } finally {
    socket.close()
  }
}

/** The source to use towards `address`, where `own` is specific and of the same family. */
export function sourceFor(own: string, address: string): string | undefined {
  if (own === '::' || own === '0.0.0.0') return undefined
  return isIPv6(own) === isIPv6(address) ? own : undefined
}
