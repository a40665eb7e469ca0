// The idle hosts of bench:churn: each sends a pulse every so many seconds, as the agent does: a second one
// where no reply comes in time, and after that a heartbeat by HTTP, which is counted as one that UDP lost.

import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { readPulseReply, SESSION_BYTES, writePulse } from '../../server-agent/protocol/pulse.ts'
import { hostCredential, hostKey, hostName } from './churn-world.ts'

/** As the agent waits at a 30 s lease. */
const WAIT_MS = 900
/** Hosts are looked at this often, and those due send. */
const STEP_MS = 10
/** Hosts send from sockets of their own: many, so that the core's ears share them. */
const SOCKETS = 256
/** Where a pulse's MAC begins: its first 8 bytes name it in the reply. */
const TAG_AT = 84
const NO_SESSION = new Uint8Array(SESSION_BYTES)

/** A heartbeat under way: a reply to any of its packets will do. */
interface Beat {
  readonly host: number
  readonly pulses: Buffer[]
  /** When the last one left. */
  sentMs: number
  isDone: boolean
}

export interface PulseCounts {
  /** Heartbeats that were due. */
  due: number
  /** Answered by UDP, at once or at the second try. */
  answered: number
  /** Packets sent again because no reply came in time. */
  again: number
  /** Told to go on from another session: the first of each host. */
  resynced: number
  /** Told to call by HTTP, or without any reply to both packets: said by HTTP. */
  called: number
  lost: number
}

export class IdleHosts {
  readonly counts: PulseCounts = { due: 0, answered: 0, again: 0, resynced: 0, called: 0, lost: 0 }
  readonly #keys: Buffer[]
  readonly #counters: Uint32Array
  #session: Uint8Array = NO_SESSION
  /** Each host learns the session for itself. */
  readonly #knowsSession: Uint8Array
  readonly #count: number
  readonly #everyMs: number
  readonly #port: number
  readonly #callByHttp: (host: string, credential: string) => Promise<void>
  #sockets: Socket[] = []
  readonly #byTag = new Map<string, Beat>()
  /** In order of sending, each as often as it sent a packet. */
  readonly #due: Beat[] = []
  #dueFrom = 0
  #timer: NodeJS.Timeout | null = null
  #startedMs = 0
  #sentUpTo = 0
  #failure: unknown = null

  /** `callByHttp` says a heartbeat by HTTP. */
  constructor(options: {
    hosts: number
    everyMs: number
    port: number
    callByHttp: (host: string, credential: string) => Promise<void>
  }) {
    this.#count = options.hosts
    this.#everyMs = options.everyMs
    this.#port = options.port
    this.#callByHttp = options.callByHttp
    this.#keys = Array.from({ length: options.hosts }, (_, i) => hostKey(i))
    this.#counters = new Uint32Array(options.hosts)
    this.#knowsSession = new Uint8Array(options.hosts)
  }

  async start(): Promise<void> {
    for (let i = 0; i < SOCKETS; i++) {
      const socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 20 })
      socket.bind(0, '127.0.0.1')
      await once(socket, 'listening')
      socket.on('message', (packet) => this.#receive(packet))
      this.#sockets.push(socket)
    }
    this.#startedMs = performance.now()
    this.#timer = setInterval(() => this.#step(), STEP_MS)
  }

  /** Ends; throws what went wrong meanwhile. */
  stop(): void {
    clearInterval(this.#timer!)
    for (const socket of this.#sockets) socket.close()
    this.#sockets = []
    if (this.#failure !== null) throw this.#failure
  }

  /** Hosts beat one after another, evenly over the time between two heartbeats. */
  #step(): void {
    const nowMs = performance.now()
    const upTo = Math.floor(((nowMs - this.#startedMs) / this.#everyMs) * this.#count)
    for (; this.#sentUpTo < upTo; this.#sentUpTo++) {
      this.counts.due++
      this.#send({ host: this.#sentUpTo % this.#count, pulses: [], sentMs: nowMs, isDone: false })
    }
    for (; this.#dueFrom < this.#due.length; this.#dueFrom++) {
      const beat = this.#due[this.#dueFrom]!
      if (!beat.isDone && nowMs - beat.sentMs < WAIT_MS) break
      if (!beat.isDone) this.#late(beat)
    }
    if (this.#dueFrom < 100_000) return
    this.#due.splice(0, this.#dueFrom)
    this.#dueFrom = 0
  }

  #late(beat: Beat): void {
    if (beat.pulses.length === 1) {
      this.counts.again++
      this.#send(beat)
    } else {
      this.counts.lost++
      this.#end(beat)
      this.#call(beat.host)
    }
  }

  #send(beat: Beat): void {
    const { host } = beat
    const counter = ++this.#counters[host]!
    const session = this.#knowsSession[host] === 1 ? this.#session : NO_SESSION
    const bytes = writePulse({ host: hostName(host), session, counter }, this.#keys[host]!)
    const pulse = Buffer.from(bytes.buffer)
    beat.pulses.push(pulse)
    beat.sentMs = performance.now()
    this.#byTag.set(tagAt(pulse, TAG_AT), beat)
    this.#due.push(beat)
    this.#sockets[host % SOCKETS]?.send(pulse, this.#port, '127.0.0.1')
  }

  #end(beat: Beat): void {
    beat.isDone = true
    for (const pulse of beat.pulses) this.#byTag.delete(tagAt(pulse, TAG_AT))
  }

  #receive(packet: Buffer): void {
    const beat = this.#byTag.get(tagAt(packet, 20))
    if (beat === undefined) return
    const key = this.#keys[beat.host]!
    const reply = beat.pulses.map((pulse) => readPulseReply(packet, pulse, key)).find((it) => it !== null)
    if (reply === undefined) return
    this.#end(beat)
    if (reply.status === 'resync') {
      this.counts.resynced++
      this.#session = reply.session
      this.#knowsSession[beat.host] = 1
      this.#counters[beat.host] = reply.counter
      this.#send({ host: beat.host, pulses: [], sentMs: beat.sentMs, isDone: false })
    } else {
      this.counts.answered++
      if (reply.status === 'call') this.#call(beat.host)
    }
  }

  #call(host: number): void {
    this.counts.called++
    this.#callByHttp(hostName(host), hostCredential(host)).catch((error) => {
      this.#failure ??= error
    })
  }
}

function tagAt(packet: Buffer, at: number): string {
  return packet.toString('latin1', at, at + 8)
}
