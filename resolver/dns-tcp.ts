// DNS over TCP (RFC 7766): each message behind two bytes of length, any number on one connection.
//
// Invariant: what clients can hold is bounded: connections, the bytes of one unfinished query, replies
// that they don't read (nothing more is read or answered until those are gone), and how long one of them
// keeps the others waiting. An answer waits for nothing but its turn, so replies leave in the order of the
// queries. A connection lives while it brings queries that get answers: a slow trickle keeps none alive;
// and where there are too many, the one that was idle longest makes room. Keepalive: RFC 7828.

import { createServer, type Server, type Socket } from 'node:net'
import { type Address, familyOf, parsePeerAddress } from './address.ts'
import type { PacketHandler } from './dns-answer.ts'

export interface TcpLimits {
  /** Connections at one time, in all and from one client: an IPv4 address, or a /56 of IPv6. */
  readonly connections: number
  readonly connectionsPerClient: number
  /** How long a connection may bring nothing that is answered, or not take its replies, ms. */
  readonly idleMs: number
  /** Longest query taken, bytes. */
  readonly queryBytes: number
}

export interface TcpStats {
  /** Now. */
  open: number
  accepted: number
  /** For being too many from one client. */
  refused: number
  /** Ended by us: idle, in the way of a new one, or a query too long. */
  cut: number
}

export interface TcpServer {
  /** Ends at once, connections too. */
  close(): Promise<void>
}

/** RFC 7766, 6.2.3: "on the order of a few seconds"; no query that we answer needs 4 KiB. */
const LIMITS: TcpLimits = { connections: 1000, connectionsPerClient: 50, idleMs: 10_000, queryBytes: 4096 }
/** With so large a part of the connections in use, clients are told to close theirs when they have their replies. */
const CROWDED_SHARE = 0.75
/** Queries of one connection that are answered before others have their turn: about half a millisecond. */
const TURN_QUERIES = 50
/** Bytes of the 16-byte form that tell clients apart. */
const CLIENT_BYTES = { 4: 16, 6: 7 } as const

export async function openDnsTcp(options: {
  readonly host: string
  readonly port: number
  readonly answer: PacketHandler
  readonly connections: TcpConnections
  readonly onError: (error: Error) => void
}): Promise<TcpServer> {
  const { connections, answer } = options
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    // A peer that resets the connection is no event of ours: 'close' follows.
    socket.on('error', () => {})
    const peer = socket.remoteAddress
    const address = peer === undefined ? null : parsePeerAddress(peer)
    if (address === null || !connections.admit(socket, address)) return socket.destroy()
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    new Conversation(socket, address, connections, answer)
  })
  await listen(server, options)
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        for (const socket of sockets) socket.destroy()
      }),
  }
}

function listen(
  server: Server,
  { host, port, onError }: { host: string; port: number; onError: (error: Error) => void },
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ host, port, ipv6Only: true }, () => {
      server.removeListener('error', reject)
      // Such as EMFILE on accept: the next connection is tried as if nothing was.
      server.on('error', onError)
      resolve()
    })
  })
}

/** The open connections of all ports together: who gets one, and who loses his. */
export class TcpConnections {
  readonly limits: TcpLimits
  readonly stats: TcpStats = { open: 0, accepted: 0, refused: 0, cut: 0 }
  /** The one that was idle longest first. */
  readonly #sockets = new Set<Socket>()
  readonly #openOf = new Map<string, number>()

  constructor(limits: Partial<TcpLimits>) {
    this.limits = { ...LIMITS, ...limits }
  }

  /** False: there is no room for another from this client. */
  admit(socket: Socket, address: Address): boolean {
    const client = clientKey(address)
    const fromSame = this.#openOf.get(client) ?? 0
    if (fromSame >= this.limits.connectionsPerClient) {
      this.stats.refused++
      return false
    }
    const [idlest] = this.#sockets
    if (this.#sockets.size >= this.limits.connections) this.cut(idlest!)
    this.#openOf.set(client, fromSame + 1)
    this.#sockets.add(socket)
    this.stats.accepted++
    this.stats.open++
    socket.on('close', () => this.#forget(socket, client))
    return true
  }

  /** It was answered just now. */
  noteAnswer(socket: Socket): void {
    if (this.#sockets.delete(socket)) this.#sockets.add(socket)
  }

  /** How long a connection may lie idle from now on, as its client is told, ms. */
  get idleMs(): number {
    const { connections, idleMs } = this.limits
    return this.#sockets.size > connections * CROWDED_SHARE ? 0 : idleMs
  }

  cut(socket: Socket): void {
    if (!this.#sockets.delete(socket)) return
    this.stats.cut++
    socket.destroy()
  }

  #forget(socket: Socket, client: string): void {
    this.stats.open--
    this.#sockets.delete(socket)
    const left = this.#openOf.get(client)! - 1
    if (left === 0) this.#openOf.delete(client)
    else this.#openOf.set(client, left)
  }
}

function clientKey(address: Address): string {
  return Buffer.from(address.subarray(0, CLIENT_BYTES[familyOf(address)])).toString('latin1')
}

/** One connection, from its first byte to its last. */
class Conversation {
  readonly #socket: Socket
  readonly #connections: TcpConnections
  /** One whole query -> its reply. */
  readonly #answer: (query: Uint8Array) => Uint8Array | null
  readonly #idle: NodeJS.Timeout
  #received: Buffer = Buffer.alloc(0)
  /** The client has said all: the connection ends with the last reply. */
  #isEnded = false
  #isWaitingItsTurn = false

  constructor(socket: Socket, address: Address, connections: TcpConnections, answer: PacketHandler) {
    const port = socket.remotePort!
    this.#socket = socket
    this.#connections = connections
    this.#answer = (query) => answer(query, address, port, 'tcp', connections.idleMs)
    this.#idle = setTimeout(() => connections.cut(socket), connections.limits.idleMs)
    socket.on('data', (chunk) => {
      this.#received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk])
      this.#proceed()
    })
    socket.on('drain', () => this.#proceed())
    socket.on('end', () => {
      this.#isEnded = true
      this.#proceed()
    })
    socket.on('close', () => clearTimeout(this.#idle))
  }

  #proceed(): void {
    const socket = this.#socket
    if (this.#isWaitingItsTurn || socket.destroyed) return
    // Replies of a turn leave together, in as few segments as they fill.
    socket.cork()
    const hasMore = this.#takeTurn()
    socket.uncork()
    if (socket.writableNeedDrain) socket.pause()
    else if (hasMore) this.#waitForTurn()
    else if (this.#isEnded) socket.end()
    else socket.resume()
  }

  #waitForTurn(): void {
    this.#socket.pause()
    this.#isWaitingItsTurn = true
    setImmediate(() => {
      this.#isWaitingItsTurn = false
      this.#proceed()
    })
  }

  /** Answers queries at hand, as far as their replies are taken, a turn's worth at most. True: there may be more. */
  #takeTurn(): boolean {
    let hasAnswered = false
    let query: Buffer | null = null
    for (let taken = 0; taken < TURN_QUERIES && !this.#socket.writableNeedDrain; taken++) {
      query = this.#nextQuery()
      if (query === null) break
      const reply = this.#answer(query)
      if (reply === null) continue
      hasAnswered = true
      this.#socket.write(framed(reply))
    }
    if (hasAnswered) {
      this.#idle.refresh()
      this.#connections.noteAnswer(this.#socket)
    }
    return query !== null
  }

  /** The next whole query; null: it is not all there yet, or never will be. */
  #nextQuery(): Buffer | null {
    if (this.#received.length < 2) return null
    const end = 2 + this.#received.readUInt16BE(0)
    if (end - 2 > this.#connections.limits.queryBytes) {
      this.#connections.cut(this.#socket)
      return null
    }
    if (this.#received.length < end) return null
    const query = this.#received.subarray(2, end)
    this.#received = this.#received.subarray(end)
    return query
  }
}

/** In one piece with its length, so that it leaves in one segment (RFC 7766, 8). */
function framed(reply: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(2 + reply.length)
  bytes.writeUInt16BE(reply.length, 0)
  bytes.set(reply, 2)
  return bytes
}
