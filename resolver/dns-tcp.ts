// DNS over TCP (RFC 7766): each message behind two bytes of length, any number on one connection.
//
// Invariant: what one client can hold is bounded: connections, the bytes of one unfinished query, and
// replies it does not read (nothing more is read or answered until they are gone). Queries are answered
// in the order they came. A connection lives while it brings queries that get answers: a slow trickle
// keeps none alive.

import { createServer, type Socket } from 'node:net'
import { type Address, parsePeerAddress } from './address.ts'
import type { PacketHandler } from './dns-answer.ts'

export interface TcpLimits {
  /** Connections at one time, in all and from one address. */
  readonly connections: number
  readonly connectionsPerAddress: number
  /** How long a connection may bring nothing that is answered, or not take its replies, ms. */
  readonly idleMs: number
  /** Longest query taken, bytes. */
  readonly queryBytes: number
}

export interface TcpStats {
  /** Now. */
  open: number
  accepted: number
  /** For being too many. */
  refused: number
  /** Ended by us: idle, or a query too long. */
  cut: number
}

export interface TcpServer {
  /** Ends at once, connections too. */
  close(): Promise<void>
}

/** RFC 7766, 6.2.3: "on the order of a few seconds"; no query that we answer needs 4 KiB. */
const LIMITS: TcpLimits = { connections: 1000, connectionsPerAddress: 50, idleMs: 10_000, queryBytes: 4096 }

export async function openDnsTcp(options: {
  readonly host: string
  readonly port: number
  readonly answer: PacketHandler
  readonly stats: TcpStats
  readonly limits: Partial<TcpLimits>
  readonly onError: (error: Error) => void
}): Promise<TcpServer> {
  const { answer, stats } = options
  const limits = { ...LIMITS, ...options.limits }
  const sockets = new Set<Socket>()
  const openFrom = new Map<string, number>()

  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    const peer = socket.remoteAddress
    const address = peer === undefined ? null : parsePeerAddress(peer)
    const fromSame = openFrom.get(peer!) ?? 0
    if (address === null || stats.open >= limits.connections || fromSame >= limits.connectionsPerAddress) {
      stats.refused++
      socket.on('error', () => {})
      return socket.destroy()
    }
    stats.accepted++
    stats.open++
    sockets.add(socket)
    openFrom.set(peer!, fromSame + 1)
    socket.on('close', () => {
      stats.open--
      sockets.delete(socket)
      const left = openFrom.get(peer!)! - 1
      if (left === 0) openFrom.delete(peer!)
      else openFrom.set(peer!, left)
    })
    converse(socket, address, limits, answer, stats)
  })

  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen({ host: options.host, port: options.port, ipv6Only: true }, () => {
      server.removeListener('error', reject)
      // Such as EMFILE on accept: the next connection is tried as if nothing was.
      server.on('error', options.onError)
      resolve()
    })
  })
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        for (const socket of sockets) socket.destroy()
      }),
  }
}

/** One connection, from its first byte to its last. */
function converse(
  socket: Socket,
  address: Address,
  limits: TcpLimits,
  answer: PacketHandler,
  stats: TcpStats,
): void {
  const port = socket.remotePort!
  let received: Buffer = Buffer.alloc(0)
  let isEnded = false
  const cut = () => {
    stats.cut++
    socket.destroy()
  }
  const idle = setTimeout(cut, limits.idleMs)

  /** Answers the whole queries at hand, as far as their replies are taken. */
  const proceed = () => {
    while (!socket.writableNeedDrain && !socket.destroyed && received.length >= 2) {
      const length = received.readUInt16BE(0)
      if (length > limits.queryBytes) return cut()
      if (received.length < 2 + length) break
      const reply = answer(received.subarray(2, 2 + length), address, port, 'tcp')
      received = received.subarray(2 + length)
      if (reply === null) continue
      idle.refresh()
      socket.write(framed(reply))
    }
    if (socket.writableNeedDrain) socket.pause()
    else if (isEnded) socket.end()
    else socket.resume()
  }

  socket.on('data', (chunk) => {
    received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
    proceed()
  })
  socket.on('drain', proceed)
  socket.on('end', () => {
    isEnded = true
    proceed()
  })
  // A peer that resets the connection is no event of ours: 'close' follows.
  socket.on('error', () => {})
  socket.on('close', () => clearTimeout(idle))
}

/** In one piece with its length, so that it leaves in one segment (RFC 7766, 8). */
function framed(reply: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(2 + reply.length)
  bytes.writeUInt16BE(reply.length, 0)
  bytes.set(reply, 2)
  return bytes
}
