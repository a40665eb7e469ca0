// Plain questions by the million, in a process of their own: prints, as JSON, how much the heap grew a question.

import { parseAddress } from '../../resolver/address.ts'
import { PlainAnswers } from '../../resolver/dns-plain.ts'
import { contextOf, queryBytes, subnet } from './dns-fixture.ts'
import { dnsWorld } from './dns-world.ts'

const ASKED = 500
const TIMES = 400
const ROUNDS = 6

const world = dnsWorld(5)
const answers = new PlainAnswers(contextOf(world.changes))
const from = parseAddress('192.0.2.1')!
const out = new Uint8Array(1232)
const packets = Array.from({ length: ASKED }, (_, i) => {
  const client = world.client()
  return queryBytes(`s${i % 24}.any.test`, 'A', [subnet(client, client.includes(':') ? 48 : 24)])
})
const nowhere = Array.from({ length: ASKED }, (_, i) => queryBytes(`n${7919 * i}.any.test`, 'A'))
const isPlain = (packet: Uint8Array) => answers.answer(packet, 0, packet.length, from, out, 0, out.length) > 0
const plain = [...packets, ...nowhere].filter(isPlain)

function grow(): number {
  const before = process.memoryUsage().heapUsed
  for (let i = 0; i < TIMES; i++) for (const packet of plain) isPlain(packet)
  return (process.memoryUsage().heapUsed - before) / (TIMES * plain.length)
}

// What is compiled in the first rounds takes memory, and the compiler itself now and then: not each time.
const bytes = Array.from({ length: ROUNDS }, grow)
process.stdout.write(JSON.stringify({ asked: 2 * ASKED, plain: plain.length, bytes: bytes.slice(1) }))
