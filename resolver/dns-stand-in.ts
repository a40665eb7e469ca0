// The stand-in: while no worker answers DNS over UDP, the core's own thread does, whenever it has a turn.
//
// So a core answers as soon as it knows what it must, though its workers are still being told; and a worker that dies
// silences nobody. It looks at the workers' sockets by a timer: slower than a worker by far, and for seconds only.

import type { PacketHandler } from './dns-answer.ts'
import type { Fault } from './dns-counters.ts'
import type { MmsgSocket } from './mmsg.ts'
import { PacketBatch } from './packet-batch.ts'

/** Between two looks at the sockets, ms: as short as timers are. */
const LOOK_EVERY_MS = 1

export class StandIn {
  readonly #answer: PacketHandler
  readonly #onFault: (fault: Fault) => void
  #look: (() => void) | null = null
  #timer: NodeJS.Timeout | null = null

  /** `onFault`: told of what the system would not do. */
  constructor(answer: PacketHandler, onFault: (fault: Fault) => void) {
    this.#answer = answer
    this.#onFault = onFault
  }

  /** `sockets` is asked at each look. */
  begin(sockets: () => readonly MmsgSocket[]): void {
    if (this.#look !== null) return
    const batch = new PacketBatch()
    this.#look = () => {
      for (const socket of sockets()) this.#serve(batch, socket)
    }
    this.#timer = setInterval(this.#look, LOOK_EVERY_MS)
  }

  /** After a last look. */
  end(): void {
    this.#look?.()
    this.#look = null
    if (this.#timer !== null) clearInterval(this.#timer)
    this.#timer = null
  }

  /** One batch: what else there is to do has its turn before the next. */
  #serve(batch: PacketBatch, socket: MmsgSocket): void {
    const count = batch.receive(socket, false)
    if (count < 0) this.#onFault('unreceived')
    for (let i = 0; i < count; i++) {
      const address = new Uint8Array(16)
      batch.copyAddress(i, address)
      const at = batch.packetAt(i)
      const packet = batch.bytes.slice(at, at + batch.lengthOf(i))
      const reply = this.#answer(packet, address, batch.portOf(i), 'udp', 0)
      if (reply === null || reply.length > batch.replyLimit) continue
      batch.bytes.set(reply, batch.replyAt)
      batch.reply(i, reply.length)
    }
    for (let unsent = batch.send(socket); unsent > 0; unsent--) this.#onFault('unsent')
  }
}
