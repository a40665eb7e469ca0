// A peer of bench:import: sends back what it gets, as a DNS worker would that has nothing to do, with the same calls and
// the same place among the machine's threads. What askers wait for here, they wait for the machine and for themselves.
//
//   node test/bench/echo-peer.ts PORT     until it is ended

import { openMmsgSocket } from '../../resolver/mmsg.ts'
import { PacketBatch } from '../../resolver/packet-batch.ts'
import { lowerPriority, takeShortTurns } from '../../resolver/thread-turns.ts'

/** As of the DNS workers. */
const NICE_STEPS = 2
const TURN_US = 100

lowerPriority(NICE_STEPS)
takeShortTurns(TURN_US)
const socket = openMmsgSocket({ host: '127.0.0.1', port: Number(process.argv[2]), reusePort: false })
const batch = new PacketBatch()
for (;;) {
  const count = batch.receive(socket, true)
  for (let i = 0; i < count; i++) {
    const at = batch.packetAt(i)
    batch.bytes.copyWithin(batch.replyAt, at, at + batch.lengthOf(i))
    batch.reply(i, batch.lengthOf(i))
  }
  batch.send(socket)
}
