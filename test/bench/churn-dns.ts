// DNS questions of bench:churn, by UDP: is this member found, and is it gone?

import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { encode } from 'dns-packet'
import { ZONE } from './churn-world.ts'

const WAIT_MS = 1000
const IDS = 65_536
/** Many who ask. */
const SOCKETS = 64

export class DnsQuestions {
  readonly #sockets: readonly Socket[]
  readonly #port: number
  readonly #waiting = new Map<number, (addresses: number) => void>()
  #id = 0

  private constructor(sockets: readonly Socket[], port: number) {
    this.#sockets = sockets
    this.#port = port
    for (const socket of sockets) {
      socket.on('message', (packet) => {
        const id = packet.readUInt16BE(0)
        const resolve = this.#waiting.get(id)
        this.#waiting.delete(id)
        resolve?.(packet.readUInt16BE(6))
      })
    }
  }

  static async open(port: number): Promise<DnsQuestions> {
    const sockets = Array.from({ length: SOCKETS }, () =>
      createSocket({ type: 'udp4', recvBufferSize: 1 << 20 }).bind(0, '127.0.0.1'),
    )
    await Promise.all(sockets.map((socket) => once(socket, 'listening')))
    return new DnsQuestions(sockets, port)
  }

  /** How many addresses a member of the service is found at; -1: no answer came in time. */
  find(member: string, service: string): Promise<number> {
    const id = this.#id++ % IDS
    const name = `${member}.${service}.${ZONE}`
    const query = encode({ type: 'query', id, questions: [{ type: 'A', name }] })
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id)
        resolve(-1)
      }, WAIT_MS)
      this.#waiting.set(id, (addresses) => {
        clearTimeout(timer)
        resolve(addresses)
      })
      this.#sockets[id % SOCKETS]!.send(query, this.#port, '127.0.0.1')
    })
  }

  close(): void {
    for (const socket of this.#sockets) socket.close()
  }
}
