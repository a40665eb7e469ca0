// A small HTTP client for loads: kept-alive connections from addresses of their own, one request at a time
// each, as fast as node:net gets. It reads status and body of replies with a Content-Length, as a core sends them.

import { connect, type Socket } from 'node:net'

export interface HttpReply {
  readonly status: number
  readonly body: string
}

const END = Buffer.from('\r\n\r\n')

export class HttpConnection {
  /** The address that it comes from. */
  readonly from: string
  readonly #port: number
  /** null: not connected, or closed since: a core ends idle connections. */
  #socket: Socket | null = null
  #received: Buffer = Buffer.alloc(0)
  #waiting: { resolve: (reply: HttpReply) => void; reject: (error: Error) => void } | null = null

  constructor(port: number, from: string) {
    this.from = from
    this.#port = port
  }

  #connect(): Socket {
    const socket = connect({ host: '127.0.0.1', port: this.#port, localAddress: this.from })
    socket.setNoDelay(true)
    socket.on('data', (part) => this.#receive(part))
    socket.on('error', (error) => this.#waiting?.reject(error))
    socket.on('close', () => {
      this.#socket = null
      this.#received = Buffer.alloc(0)
      this.#waiting?.reject(new Error('the core closed the connection'))
    })
    return socket
  }

  request(method: string, path: string, secret: string, body: unknown = null): Promise<HttpReply> {
    const text = body === null ? '' : JSON.stringify(body)
    const type = body === null ? '' : 'Content-Type: application/json\r\n'
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject }
      this.#socket ??= this.#connect()
      this.#socket.write(
        `${method} ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ${secret}\r\n${type}Content-Length: ${text.length}\r\n\r\n${text}`,
      )
    })
  }

  close(): void {
    this.#waiting = null
    this.#socket?.destroy()
  }

  #receive(part: Buffer): void {
    this.#received = this.#received.length === 0 ? part : Buffer.concat([this.#received, part])
    const headEnd = this.#received.indexOf(END)
    if (headEnd < 0) return
    const head = this.#received.toString('latin1', 0, headEnd)
    const length = Number(/^content-length: *(\d+)/im.exec(head)?.[1] ?? 0)
    const end = headEnd + END.length + length
    if (this.#received.length < end) return
    const body = this.#received.toString('utf8', headEnd + END.length, end)
    this.#received = this.#received.subarray(end)
    const waiting = this.#waiting
    this.#waiting = null
    waiting?.resolve({ status: Number(head.slice(9, 12)), body })
  }
}

/** Connections that are taken and given back; whoever finds none waits. */
export class HttpPool {
  readonly #free: HttpConnection[]
  readonly #all: readonly HttpConnection[]
  readonly #waiting: ((connection: HttpConnection) => void)[] = []

  constructor(port: number, count: number) {
    this.#all = Array.from(
      { length: count },
      (_, i) => new HttpConnection(port, `127.1.${i >> 8}.${i & 255 || 1}`),
    )
    this.#free = [...this.#all]
  }

  async use<T>(work: (connection: HttpConnection) => Promise<T>): Promise<T> {
    const connection =
      this.#free.shift() ?? (await new Promise<HttpConnection>((resolve) => this.#waiting.push(resolve)))
    try {
      return await work(connection)
    } finally {
      const next = this.#waiting.shift()
      if (next) next(connection)
      else this.#free.push(connection)
    }
  }

  close(): void {
    for (const connection of this.#all) connection.close()
  }
}
