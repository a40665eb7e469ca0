// DNS over UDP: one packet in, one packet out, by a few sockets of one port.
//
// Invariant: no packet and no failed send throws past this file. Knows nothing of what it carries.

import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { type Address, parsePeerAddress } from './address.ts'
import type { PacketHandler } from './dns-answer.ts'

export interface UdpServer {
  readonly port: number
  close(): Promise<void>
}

/** Room for a burst while the process is busy with something else: about 20,000 queries, bytes. The system may give less. */
const RECEIVE_BUFFER_BYTES = 4 << 20
/** Addresses of recent askers, parsed: resolvers come again and again. */
const ASKERS_REMEMBERED = 10_000

/**
 * Sockets that hear one port. Node takes 32 packets from a socket each time round its loop, so a process that is busy
 * with all else of a core answers no more than that with one; the system spreads who asks over them.
 */
const EARS = 4

/** `shared`: other sockets may have the same port at a wider or narrower address; the narrowest gets the packet. */
export async function openDnsUdp(options: {
  readonly host: string
  readonly port: number
  readonly shared: boolean
  readonly answer: PacketHandler
  readonly onSendError: () => void
}): Promise<UdpServer> {
  const first = await bindOne(options, options.port, false)
  const { port } = first.address()
  // Bound once by itself, so that a port which another program has is refused; then shared among the ears.
  await closed(first)
  const sockets: Socket[] = []
  try {
    while (sockets.length < EARS) sockets.push(await bindOne(options, port, true))
  } catch {
    // No such thing on this system: one does.
  }
  if (sockets.length === 0) sockets.push(await bindOne(options, port, false))
  for (const socket of sockets) serve(socket, options.answer, options.onSendError)
  return {
    port,
    close: async () => {
      await Promise.all(sockets.map(closed))
    },
  }
}

async function bindOne(
  { host, shared }: { readonly host: string; readonly shared: boolean },
  port: number,
  reusePort: boolean,
): Promise<Socket> {
  const ipv6 = host.includes(':')
  const socket = createSocket({
    type: ipv6 ? 'udp6' : 'udp4',
    ipv6Only: ipv6,
    reuseAddr: shared,
    reusePort,
    // Only IP addresses are sent to: node need not put them through its resolver.
    lookup: (address, _options, callback) => callback(null, address, 0),
  })
  await bind(socket, port, host)
  try {
    socket.setRecvBufferSize(RECEIVE_BUFFER_BYTES)
  } catch {
    // Less room costs packets in a burst, and nothing else.
  }
  return socket
}

function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.close(() => resolve()))
}

function bind(socket: Socket, port: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('error', (error) => {
      socket.close()
      reject(error)
    })
    socket.bind(port, host, () => {
      socket.removeAllListeners('error')
      resolve()
    })
  })
}

function serve(socket: Socket, answer: PacketHandler, onSendError: () => void): void {
  const askers = new Map<string, Address>()
  socket.on('error', onSendError)
  socket.on('message', (packet: Buffer, { address, port }: RemoteInfo) => {
    const reply = answer(packet, askerAddress(askers, address), port, 'udp', 0)
    if (reply === null) return
    try {
      socket.send(reply, port, address)
    } catch {
      onSendError()
    }
  })
}

function askerAddress(askers: Map<string, Address>, text: string): Address {
  let address = askers.get(text)
  if (address === undefined) {
    if (askers.size >= ASKERS_REMEMBERED) askers.clear()
    address = parsePeerAddress(text)!
    askers.set(text, address)
  }
  return address
}
