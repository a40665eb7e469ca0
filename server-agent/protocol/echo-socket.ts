// The echo's socket: answers echoes that come in, and times those that it sends.
//
// One UDP socket does both, on both families where it listens on '::'. Invariant: every packet that
// comes in is counted once, as answered, as matched (a reply that was waited for), as a guest's, or as dropped
// with its reason. A reply is known by its nonce and MAC and not by its source, since a host with several
// addresses may answer from another than the one asked.

import { randomBytes } from 'node:crypto'
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { isIPv4, isIPv6 } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { answerEcho, type EchoDrop, isEchoReply, NONCE_BYTES, replyNonce, writeEchoRequest } from './echo.ts'
import { TokenBuckets } from './token-bucket.ts'

/** Answers to one source: ten times what a core that times every few seconds ever asks. */
const PER_SOURCE = { perSec: 100, burst: 200, maxKeys: 4096 }
/** Answers in all: 2,000 a second are 0.8 Mbit/s, which no host should notice. */
const IN_TOTAL = { perSec: 2000, burst: 4000 }
/** Between the echoes of one ping: far enough apart that one full queue does not spoil them all, ms. */
const DEFAULT_INTERVAL_MS = 20

export interface EchoSocketOptions {
  /** Address to listen on; '::' takes both families (only IPv4 where the system has no IPv6). */
  readonly host: string
  /** 0: any free one. */
  readonly port: number
  /** This host's own key, 32 bytes; null while it has none, and then nothing is answered. */
  readonly key: () => Uint8Array | null
  /** Another protocol on the same port: its reply to a packet (null: none), or false for what is not its own. */
  readonly guest?: (packet: Uint8Array) => Uint8Array | null | false
  /**
   * Sockets to listen with, default 1. Node takes 32 packets from a socket each time round its loop, so a process
   * that is busy hears no more than that; whoever hears from very many needs more ears.
   */
  readonly ears?: number
  /** Room for packets that wait while this process is busy, as far as the system gives it. */
  readonly receiveBufferBytes?: number
  /** Epoch ms, for the age of probers. */
  readonly now?: () => number
  /** Monotonic ms, for the rate limits. */
  readonly steadyNow?: () => number
}

export interface PingRequest {
  readonly address: string
  readonly port: number
  readonly prober: Uint8Array
  readonly key: Uint8Array
  /** How many echoes, at least 1. */
  readonly count: number
  readonly intervalMs?: number
  /** How long each echo is waited for. */
  readonly timeoutMs: number
}

export interface PingResult {
  /** One for each reply that came, in the order of sending. */
  readonly rttsMs: number[]
  readonly sent: number
}

export type EchoSocketDrop =
  | EchoDrop
  | 'no-key'
  | 'unexpected-reply'
  | 'source-port'
  | 'source-limit'
  | 'total-limit'

export interface EchoStats {
  /** = answered + matched + guests + the sum of dropped. */
  received: number
  answered: number
  matched: number
  /** Packets of another protocol, whoever takes them counts what came of them. */
  guests: number
  dropped: Record<EchoSocketDrop, number>
  /** Sends that the system refused. */
  sendErrors: number
}

interface Waiting {
  readonly key: Uint8Array
  readonly nonce: Uint8Array
  /** When the reply came, by performance.now(); null: none will. */
  settle(receivedAtMs: number | null): void
}

/** Opens the socket. Rejects with the system's error (EADDRINUSE, EADDRNOTAVAIL, EACCES) when it can't listen. */
export async function openEcho(options: EchoSocketOptions): Promise<EchoSocket> {
  const { host, port, receiveBufferBytes, ears = 1 } = options
  const open = async (address: string): Promise<EchoSocket> => {
    const sockets =
      ears > 1
        ? await bindEars(address, port, ears, receiveBufferBytes)
        : [await bindUdp(address, port, { receiveBufferBytes })]
    return new EchoSocket(sockets, options)
  }
  try {
    return await open(host)
  } catch (error) {
    const noIpv6 = (error as NodeJS.ErrnoException).code === 'EAFNOSUPPORT' && host === '::'
    if (!noIpv6) throw error
    return open('0.0.0.0')
  }
}

/**
 * Several sockets on one port, among which the system spreads those who send; only one where it can't. The first
 * is bound once by itself, so that a port which another program has is still refused.
 */
async function bindEars(
  host: string,
  port: number,
  ears: number,
  receiveBufferBytes?: number,
): Promise<Socket[]> {
  const alone = await bindUdp(host, port, { receiveBufferBytes })
  const bound = alone.address().port
  await new Promise<void>((resolve) => alone.close(() => resolve()))
  const sockets: Socket[] = []
  try {
    while (sockets.length < ears)
      sockets.push(await bindUdp(host, bound, { receiveBufferBytes, reusePort: true }))
  } catch {
    // No such thing on this system: one does.
  }
  return sockets.length > 0 ? sockets : [await bindUdp(host, bound, { receiveBufferBytes })]
}

export class EchoSocket {
  readonly address: string
  readonly port: number
  readonly stats: EchoStats = {
    received: 0,
    answered: 0,
    matched: 0,
    guests: 0,
    dropped: {
      shape: 0,
      age: 0,
      mac: 0,
      'no-key': 0,
      'unexpected-reply': 0,
      'source-port': 0,
      'source-limit': 0,
      'total-limit': 0,
    },
    sendErrors: 0,
  }
  readonly #sockets: readonly Socket[]
  readonly #ipv6: boolean
  readonly #key: () => Uint8Array | null
  readonly #now: () => number
  readonly #steadyNow: () => number
  readonly #guest: EchoSocketOptions['guest']
  readonly #perSource = new TokenBuckets(PER_SOURCE)
  readonly #inTotal = new TokenBuckets(IN_TOTAL)
  /** Nonce in hex -> who waits for its reply. */
  readonly #waiting = new Map<string, Waiting>()
  #closing: Promise<void> | null = null

  /** Takes bound sockets of one address and port over; use openEcho. */
  constructor(sockets: readonly Socket[], options: EchoSocketOptions) {
    const bound = sockets[0]!.address()
    this.address = bound.address
    this.port = bound.port
    this.#sockets = sockets
    this.#ipv6 = bound.family === 'IPv6'
    this.#key = options.key
    this.#now = options.now ?? Date.now
    this.#steadyNow = options.steadyNow ?? (() => performance.now())
    this.#guest = options.guest
    for (const socket of sockets) {
      socket.on('message', (packet, from) => this.#receive(packet, from))
      socket.on('error', () => this.stats.sendErrors++)
    }
  }

  /** Sends `count` echoes and waits for their replies. Never rejects: what got lost has no RTT. */
  async ping(request: PingRequest): Promise<PingResult> {
    const echoes: Promise<number | null>[] = []
    while (echoes.length < request.count && this.#closing === null) {
      if (echoes.length > 0) await sleep(request.intervalMs ?? DEFAULT_INTERVAL_MS)
      echoes.push(this.#echo(request))
    }
    const rttsMs = (await Promise.all(echoes)).filter((rttMs) => rttMs !== null)
    return { rttsMs, sent: echoes.length }
  }

  /** Stops at once; pings under way end with what they have. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= new Promise((resolve) => {
      for (const waiting of this.#waiting.values()) waiting.settle(null)
      let open = this.#sockets.length
      const closed = (): void => {
        if (--open === 0) resolve()
      }
      for (const socket of this.#sockets) socket.close(closed)
    })
    return this.#closing
  }

  /** One echo: its RTT, or null where none came. */
  #echo(request: PingRequest): Promise<number | null> {
    return new Promise((resolve) => {
      const nonce = randomBytes(NONCE_BYTES)
      const name = nonce.toString('hex')
      const packet = writeEchoRequest(request.prober, request.key, nonce)
      const settle = (receivedAtMs: number | null): void => {
        clearTimeout(timer)
        this.#waiting.delete(name)
        resolve(receivedAtMs === null ? null : receivedAtMs - sentAtMs)
      }
      const timer = setTimeout(settle, request.timeoutMs, null)
      this.#waiting.set(name, { key: request.key, nonce, settle })
      // Taken last before the send, as the other is first on receipt: this end's MACs are not part of the RTT.
      const sentAtMs = performance.now()
      this.#send(packet, request.port, request.address, () => settle(null))
    })
  }

  #receive(packet: Uint8Array, from: RemoteInfo): void {
    const receivedAtMs = performance.now()
    this.stats.received++
    if (this.#guest !== undefined && this.#takeAsGuest(packet, from)) return
    const nonce = replyNonce(packet)
    const drop = nonce === null ? this.#answer(packet, from) : this.#match(packet, nonce, receivedAtMs)
    if (drop !== null) this.stats.dropped[drop]++
  }

  /** Whether the packet is the guest's: then it was counted, and answered if there was anything to say. */
  #takeAsGuest(packet: Uint8Array, from: RemoteInfo): boolean {
    // A send to port 0 throws in Node; nobody honest sends from it.
    const reply = from.port === 0 ? false : this.#guest!(packet)
    if (reply === false) return false
    this.stats.guests++
    if (reply !== null) this.#send(reply, from.port, from.address, () => {})
    return true
  }

  /** Answers a request; or says why not. */
  #answer(packet: Uint8Array, from: RemoteInfo): EchoSocketDrop | null {
    const hostKey = this.#key()
    if (hostKey === null) return 'no-key'
    // A send to port 0 throws in Node; nobody honest sends from it.
    if (from.port === 0) return 'source-port'
    const answer = answerEcho(packet, hostKey, this.#now())
    if ('drop' in answer) return answer.drop
    // Limits count only what has a good MAC: who forges another's source can't use up its share.
    const steadyMs = this.#steadyNow()
    if (!this.#perSource.take(from.address, steadyMs)) return 'source-limit'
    if (!this.#inTotal.take('', steadyMs)) return 'total-limit'
    this.stats.answered++
    this.#send(answer.reply, from.port, from.address, () => {})
    return null
  }

  /** Gives a reply to the echo that waits for it; or says why not. */
  #match(packet: Uint8Array, nonce: Uint8Array, receivedAtMs: number): EchoSocketDrop | null {
    const waiting = this.#waiting.get(Buffer.from(nonce).toString('hex'))
    if (waiting === undefined || !isEchoReply(packet, waiting.key, waiting.nonce)) return 'unexpected-reply'
    this.stats.matched++
    waiting.settle(receivedAtMs)
    return null
  }

  #send(packet: Uint8Array, port: number, address: string, failed: () => void): void {
    const fail = (): void => {
      this.stats.sendErrors++
      failed()
    }
    try {
      const to = this.#ipv6 && isIPv4(address) ? `::ffff:${address}` : address
      this.#sockets[0]!.send(packet, port, to, (error) => {
        if (error !== null) fail()
      })
    } catch {
      fail()
    }
  }
}

/** A UDP socket bound to `host`, which asks no resolver anything: it only ever sends to addresses. */
export async function bindUdp(
  host: string,
  port: number,
  more: { readonly receiveBufferBytes?: number | undefined; readonly reusePort?: boolean } = {},
): Promise<Socket> {
  const { receiveBufferBytes, reusePort } = more
  const socket = createSocket({
    type: isIPv6(host) ? 'udp6' : 'udp4',
    ...(receiveBufferBytes !== undefined && { recvBufferSize: receiveBufferBytes }),
    ...(reusePort !== undefined && { reusePort }),
    lookup: (address, _options, done) => done(null, address, isIPv6(address) ? 6 : 4),
  })
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject)
      socket.bind(port, host, resolve)
    })
  } catch (error) {
    socket.close()
    throw error
  }
  socket.removeAllListeners('error')
  return socket
}
