// DNS over UDP: one socket, one packet in, one packet out.
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

/** `shared`: other sockets may have the same port at a wider or narrower address; the narrowest gets the packet. */
export async function openDnsUdp(options: {
  readonly host: string
  readonly port: number
  readonly shared: boolean
  readonly answer: PacketHandler
  readonly onSendError: () => void
}): Promise<UdpServer> {
  const ipv6 = options.host.includes(':')
  const socket = createSocket({
    type: ipv6 ? 'udp6' : 'udp4',
    ipv6Only: ipv6,
    reuseAddr: options.shared,
    // Only IP addresses are sent to: node need not put them through its resolver.
    lookup: (address, _options, callback) => callback(null, address, 0),
  })
  await bind(socket, options.port, options.host)
  try {
    socket.setRecvBufferSize(RECEIVE_BUFFER_BYTES)
  } catch {
    // Less room costs packets in a burst, and nothing else.
  }
  serve(socket, options.answer, options.onSendError)
  return {
    port: socket.address().port,
    close: () => new Promise((resolve) => socket.close(() => resolve())),
  }
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
