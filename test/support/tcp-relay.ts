// A relay in front of a TCP port that breaks as networks do: refuses, swallows everything, or breaks off an answer.

import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'

/** - `refuse`: connections end at once. - `swallow`: they stay, and nothing passes either way. */
export type RelayMode = 'open' | 'refuse' | 'swallow'

/**
 * Where a connection is broken off: before the question arrives; at the first byte of what comes back after it; or
 * by whoever set the trap, for from the question on nothing comes back.
 */
export type BreakPoint = 'question' | 'answer' | 'by-hand'

interface Trap {
  readonly text: string
  readonly at: BreakPoint
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
    this.#trap = null
    if (mode === 'refuse') for (const pair of this.#pairs) this.#break(pair)
  }

  /** Breaks off the connection on which `text` is asked, once. */
  breakOff(text: string, at: BreakPoint): void {
    this.#trap = { text, at }
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
        const at = isAsked ? this.#trap?.at : undefined
        if (i === 1 && at === 'by-hand') return
        if (this.#trap !== null && (at === 'question' || (i === 1 && at === 'answer'))) {
          this.#trap = null
          this.#break(pair)
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
