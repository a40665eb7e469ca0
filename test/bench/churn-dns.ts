// DNS questions of bench:churn, by UDP over one socket: is this member found, and is it gone?

import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { encode } from 'dns-packet'
import { ZONE } from './churn-world.ts'

const WAIT_MS = 1000
const IDS = 65_536

export class DnsQuestions {
  readonly #socket: Socket
  readonly #port: number
  readonly #waiting = new Map<number, (addresses: number) => void>()
  #id = 0

  private constructor(socket: Socket, port: number) {
    this.#socket = socket
    this.#port = port
    socket.on('message', (packet) => {
      const id = packet.readUInt16BE(0)
      const resolve = this.#waiting.get(id)
      this.#waiting.delete(id)
      resolve?.(packet.readUInt16BE(6))
    })
  }

  static async open(port: number): Promise<DnsQuestions> {
    const socket = createSocket({ type: 'udp4', recvBufferSize: 4 << 20 })
    socket.bind(0, '127.0.0.1')
    await once(socket, 'listening')
    return new DnsQuestions(socket, port)
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
      this.#socket.send(query, this.#port, '127.0.0.1')
    })
  }

  close(): void {
    this.#socket.close()
  }
}
