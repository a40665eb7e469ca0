// A door in front of an echo: holds what comes in for as long as its way would take, and passes it on.
// So two islands that are one cable apart look to Nearcast as far from each other as they are said to be.

import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { DelayLine } from '../../core-node/lab/delay-line.ts'

export interface DoorOptions {
  /** Where others find the echo. */
  readonly address: string
  readonly port: number
  /** Where it is, on the same machine. */
  readonly echo: { readonly address: string; readonly port: number }
  /** The round trip of who sends from an address, ms. */
  readonly rttMs: (from: string) => number
}

/** Opens it. Rejects with the system's error. */
export async function openDoor(options: DoorOptions): Promise<{ close(): void }> {
  const { address, port, echo, rttMs } = options
  const line = new DelayLine()
  const outside = await bind(address, port)
  /** Whoever sends has a socket of its own towards the echo, so that answers find their way back. */
  const inside = new Map<string, Socket>()
  outside.on('message', async (packet, from) => {
    const arrivedMs = performance.now()
    const sender = `${from.address} ${from.port}`
    const known = inside.get(sender) ?? createSocket('udp4')
    if (!inside.has(sender)) {
      inside.set(sender, known)
      known.on('error', () => {})
      known.on('message', (reply) => outside.send(reply, from.port, from.address, () => {}))
    }
    line.after(rttMs(from.address), () => known.send(packet, echo.port, echo.address, () => {}), arrivedMs)
  })
  return {
    close() {
      line.close()
      for (const socket of [outside, ...inside.values()]) socket.close()
    },
  }
}

async function bind(address: string, port: number): Promise<Socket> {
  const socket = createSocket('udp4')
  socket.bind(port, address)
  await once(socket, 'listening')
  socket.on('error', () => {})
  return socket
}
