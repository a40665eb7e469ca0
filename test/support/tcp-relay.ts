// A relay in front of a TCP port that breaks as networks do: refuses, swallows everything, or breaks off an answer.

import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'

/** - `refuse`: connections end at once. - `swallow`: they stay, and nothing passes either way. */
export type RelayMode = 'open' | 'refuse' | 'swallow'

/** Where a connection is broken off: before the question arrives, or at the first byte of what comes back after it. */
export type BreakPoint = 'question' | 'answer'

interface Trap {
  readonly text: string
  readonly at: BreakPoint
  readonly then: RelayMode
}

export class TcpRelay {
  readonly #server: Server
  readonly #target: number
  readonly #pairs = new Set<readonly [Socket, Socket]>()
  #mode: RelayMode = 'open'
  #trap: Trap | null = null

  static async open(target: string): Promise<TcpRelay> {
    const relay = new TcpRelay(Number(target.split(':')[1]))
    await once(relay.#server, 'listening')
    return relay
  }

  private constructor(target: number) {
    this.#target = target
    this.#server = createServer((client) => this.#join(client)).listen(0, '127.0.0.1')
  }

  get endpoint(): string {
    return `127.0.0.1:${(this.#server.address() as { port: number }).port}`
  }

  set mode(mode: RelayMode) {
    this.#mode = mode
    if (mode === 'refuse') for (const pair of this.#pairs) this.#break(pair)
  }

  /** Breaks off the connection on which `text` is asked, once; what comes after meets `then`. */
  breakOff(text: string, at: BreakPoint, then: RelayMode = 'open'): void {
    this.#trap = { text, at, then }
  }

  /** Whether what breakOff waits for has not come yet. */
  get isSet(): boolean {
    return this.#trap !== null
  }

  close(): void {
    for (const pair of this.#pairs) this.#break(pair)
    this.#server.close()
  }

  #join(client: Socket): void {
    if (this.#mode === 'refuse') return void client.destroy()
    const pair = [client, connect(this.#target, '127.0.0.1')] as const
    this.#pairs.add(pair)
    let isAsked = false
    for (const [i, from] of pair.entries()) {
      const to = pair[1 - i]!
      from.on('data', (bytes) => {
        if (i === 0) isAsked ||= this.#trap !== null && bytes.includes(this.#trap.text)
        if (isAsked && this.#trap !== null && (i === 1 || this.#trap.at === 'question')) {
          const { then } = this.#trap
          this.#trap = null
          this.#break(pair)
          this.mode = then
        } else if (this.#mode !== 'swallow') to.write(bytes)
      })
      from.on('error', () => this.#break(pair))
      from.on('close', () => this.#break(pair))
    }
  }

  #break(pair: readonly [Socket, Socket]): void {
    this.#pairs.delete(pair)
    for (const socket of pair) socket.destroy()
  }
}
