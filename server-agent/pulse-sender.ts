// Sends pulses: heartbeats of one UDP packet, for a host that has nothing to say.
//
// Invariant: beat() ends within two waits (four where it is told to go on from elsewhere), whatever the network
// does, and is true only where the home itself said that this is all it wants; in every other case the caller's
// next step is a heartbeat by HTTP. Where no reply comes several times in a row, UDP is taken for blocked and left
// alone for a while.
// An order or a lease hangs on nothing here. One socket of its own, opened when first used.

import type { Socket } from 'node:dgram'
import { isIPv6 } from 'node:net'
import { bindUdp } from './protocol/echo-socket.ts'
import { MAX_COUNTER, type PulseReply, readPulseReply, SESSION_BYTES, writePulse } from './protocol/pulse.ts'

/** Where a home takes pulses. */
export interface PulseAddress {
  readonly address: string
  readonly port: number
}

/** A reply is waited for so long at most, ms, twice: no way on Earth takes longer. */
const MAX_WAIT_MS = 1000
/** ... and for this share of the time between heartbeats, so that HTTP is in time when it does not come. */
const WAIT_SHARE = 1 / 8
/**
 * After so many pulses in a row without a reply UDP is taken for blocked: the more where it went through before,
 * since then a core that is busy is likelier, and heartbeats by HTTP would make it busier ...
 */
const FAILURES = 3
const FAILURES_ONCE_ANSWERED = 20
/** ... and tried again after so long, twice as long each time, ms. */
const REST_MS = 60_000
const MAX_REST_MS = 3_600_000

export class PulseSender {
  readonly #host: string
  readonly #now: () => number
  #socket: { readonly isIpv6: boolean; readonly socket: Socket } | null = null
  #session: Uint8Array = new Uint8Array(SESSION_BYTES)
  #counter = 0
  #failures = 0
  /** A pulse was answered since UDP was last taken for blocked. */
  #isProven = false
  #restMs = REST_MS
  #restsUntilMs = Number.NEGATIVE_INFINITY
  /** Looks at what comes in while a pulse waits. */
  #receive: (packet: Uint8Array) => void = () => {}
  #giveUp: () => void = () => {}
  #isClosed = false

  /** `host`: whose; `now`: a clock that never jumps, ms. */
  constructor(host: string, now: () => number = () => performance.now()) {
    this.#host = host
    this.#now = now
  }

  /** Whether trying makes sense now. */
  get isReady(): boolean {
    return this.#now() >= this.#restsUntilMs
  }

  /** One pulse. True: the home heard it, and wants nothing else. Never rejects. */
  async beat(to: PulseAddress, key: Uint8Array, heartbeatMs: number): Promise<boolean> {
    const waitMs = Math.min(MAX_WAIT_MS, heartbeatMs * WAIT_SHARE)
    let reply: PulseReply | null = null
    try {
      const socket = await this.#open(to.address)
      reply = await this.#ask(socket, to, key, waitMs)
      // Its session or counter was another: told where to go on, it says so again.
      if (reply?.status === 'resync') reply = await this.#ask(socket, to, key, waitMs)
    } catch {
      // No such socket or way: as good as no reply.
    }
    this.#count(reply !== null)
    return reply?.status === 'ok'
  }

  /** From now on to another home: what came of pulses to the one before says nothing of this one. */
  turn(): void {
    this.#failures = 0
    this.#isProven = false
    this.#restMs = REST_MS
    this.#restsUntilMs = Number.NEGATIVE_INFINITY
  }

  /** A pulse under way ends as one without a reply. */
  close(): void {
    this.#isClosed = true
    this.#giveUp()
    this.#closeSocket()
  }

  #closeSocket(): void {
    this.#socket?.socket.close()
    this.#socket = null
  }

  /** Sends a pulse, and once more where no reply comes in time; a late reply to the first counts, too. */
  #ask(socket: Socket, to: PulseAddress, key: Uint8Array, waitMs: number): Promise<PulseReply | null> {
    return new Promise((resolve) => {
      const sent: Uint8Array[] = []
      const end = (reply: PulseReply | null): void => {
        clearTimeout(timer)
        this.#receive = () => {}
        this.#giveUp = () => {}
        resolve(reply)
      }
      const send = (): void => {
        if (this.#counter >= MAX_COUNTER) this.#counter = 0
        const pulse = writePulse({ host: this.#host, session: this.#session, counter: ++this.#counter }, key)
        sent.push(pulse)
        socket.send(pulse, to.port, to.address)
      }
      const late = (): void => {
        if (sent.length === 2) end(null)
        else {
          timer = setTimeout(late, waitMs)
          send()
        }
      }
      this.#receive = (packet) => {
        const replies = sent.map((pulse) => readPulseReply(packet, pulse, key))
        const reply = replies.find((it) => it !== null)
        if (reply === undefined) return
        if (reply.status === 'resync') {
          this.#session = reply.session
          this.#counter = reply.counter
        }
        end(reply)
      }
      this.#giveUp = () => end(null)
      let timer = setTimeout(late, waitMs)
      send()
    })
  }

  async #open(address: string): Promise<Socket> {
    const isIpv6 = isIPv6(address)
    if (this.#socket !== null && this.#socket.isIpv6 !== isIpv6) this.#closeSocket()
    if (this.#socket === null) {
      const socket = await bindUdp(isIpv6 ? '::' : '0.0.0.0', 0)
      if (this.#isClosed) {
        socket.close()
        throw new Error('closed')
      }
      socket.on('message', (packet) => this.#receive(packet))
      // An unreachable port is a reply that does not come.
      socket.on('error', () => {})
      socket.unref()
      this.#socket = { isIpv6, socket }
    }
    return this.#socket.socket
  }

  #count(answered: boolean): void {
    if (answered) {
      this.#isProven = true
      this.#failures = 0
      this.#restMs = REST_MS
      return
    }
    if (++this.#failures < (this.#isProven ? FAILURES_ONCE_ANSWERED : FAILURES)) return
    this.#failures = 0
    this.#isProven = false
    this.#restsUntilMs = this.#now() + this.#restMs
    this.#restMs = Math.min(MAX_REST_MS, 2 * this.#restMs)
  }
}
