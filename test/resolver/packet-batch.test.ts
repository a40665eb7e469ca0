// Packets by the batch: every asker gets its own replies, each as a packet of its own, however they were handed over.

import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import koffi from 'koffi'
import t, { type Test } from 'tap'
import { closeMmsgSocket, type MmsgSocket, openMmsgSocket } from '../../resolver/mmsg.ts'
import { JOINABLE, PacketBatch } from '../../resolver/packet-batch.ts'
import { noWorkers } from '../support/dns-workers.ts'

const HERE = { skip: noWorkers() }
const SOL_SOCKET = 1
const SO_NO_CHECK = 11
/** The longest reply over UDP. */
const LONGEST = 1232

interface Asker {
  readonly socket: Socket
  /** Text and sender of what came. */
  readonly replies: string[]
}

function open(t: Test, host: string): MmsgSocket {
  const socket = openMmsgSocket({ host, port: 0, reusePort: false })
  t.teardown(() => closeMmsgSocket(socket))
  return socket
}

async function ask(t: Test, family: 4 | 6 = 4): Promise<Asker> {
  const socket = createSocket(`udp${family}`)
  socket.bind(0, family === 4 ? '127.0.0.1' : '::1')
  await once(socket, 'listening')
  t.teardown(() => socket.close())
  const replies: string[] = []
  socket.on('message', (message, { address }) => replies.push(`${message} ${address}`))
  return { socket, replies }
}

async function send({ socket }: Asker, text: string, port: number, address: string): Promise<void> {
  await new Promise((resolve) => socket.send(text, port, address, resolve))
}

/** Takes all that waits, and replies to each packet with what is made of its text; how many came, and were refused. */
function serve(socket: MmsgSocket, replyTo: (text: string) => string): { count: number; refused: number } {
  const batch = new PacketBatch()
  const count = batch.receive(socket, false)
  for (let i = 0; i < count; i++) {
    const at = batch.packetAt(i)
    const reply = Buffer.from(
      replyTo(Buffer.from(batch.bytes.subarray(at, at + batch.lengthOf(i))).toString()),
    )
    batch.bytes.set(reply, batch.replyAt)
    batch.reply(i, reply.length)
  }
  return { count, refused: batch.send(socket) }
}

async function until(asker: Asker, count: number): Promise<string[]> {
  for (let waited = 0; asker.replies.length < count && waited < 2000; waited += 5) await sleep(5)
  return asker.replies.toSorted()
}

/** What is as long as another's of the same kind: the text, and a filling by its first letter. The first and last fall on one place. */
const LENGTHS: Record<string, number> = { a: 40, b: 41, c: 40 + JOINABLE }
const padded = (text: string) => text.padEnd(LENGTHS[text[0]!]!, '.')

for (const { host, family } of [
  { host: '127.0.0.1', family: 4 },
  { host: '::1', family: 6 },
] as const) {
  t.test(`askers whose packets came mixed get their own replies, over IPv${family}`, HERE, async (t) => {
    const server = open(t, host)
    const askers = [await ask(t, family), await ask(t, family), await ask(t, family)]
    const texts = Array.from({ length: 20 }, (_, i) => `${'abc'[i % 3]}${i}`)
    for (const text of texts)
      for (const [i, asker] of askers.entries()) await send(asker, `${text}-${i}`, server.port, host)
    t.same(serve(server, padded), { count: 60, refused: 0 })
    for (const [i, asker] of askers.entries()) {
      const replies = texts.map((text) => `${padded(`${text}-${i}`)} ${host}`)
      t.same(await until(asker, 20), replies.toSorted())
    }
  })
}

t.test('replies to one port leave from the address that each packet asked', HERE, async (t) => {
  const server = open(t, '0.0.0.0')
  const asker = await ask(t)
  for (let i = 0; i < 12; i++) await send(asker, `a${i}`, server.port, `127.0.0.${1 + (i % 3)}`)
  t.same(serve(server, padded), { count: 12, refused: 0 })
  const replies = Array.from({ length: 12 }, (_, i) => `${padded(`a${i}`)} 127.0.0.${1 + (i % 3)}`)
  t.same(await until(asker, 12), replies.toSorted())
})

t.test('a batch of the longest replies is more than one message holds', HERE, async (t) => {
  const server = open(t, '127.0.0.1')
  const asker = await ask(t)
  for (let i = 0; i < 64; i++) await send(asker, `${i}`, server.port, '127.0.0.1')
  t.same(
    serve(server, (text) => text.padEnd(LONGEST, '.')),
    { count: 64, refused: 0 },
  )
  const replies = Array.from({ length: 64 }, (_, i) => `${`${i}`.padEnd(LONGEST, '.')} 127.0.0.1`)
  t.same(await until(asker, 64), replies.toSorted())
})

t.test('where the system takes no segments, replies leave one by one', HERE, async (t) => {
  const setsockopt = koffi.load(null).func('setsockopt', 'int', ['int', 'int', 'int', 'void *', 'uint']) as (
    ...args: unknown[]
  ) => number
  const server = open(t, '127.0.0.1')
  // Linux refuses segments of which it is to reckon no checksums.
  t.equal(setsockopt(server.fd, SOL_SOCKET, SO_NO_CHECK, Buffer.from([1, 0, 0, 0]), 4), 0)
  const askers = [await ask(t), await ask(t)]
  for (let i = 0; i < 10; i++)
    for (const asker of askers) await send(asker, `${'ab'[i % 2]}${i}`, server.port, '127.0.0.1')
  t.same(serve(server, padded), { count: 20, refused: 0 })
  const replies = Array.from({ length: 10 }, (_, i) => `${padded(`${'ab'[i % 2]}${i}`)} 127.0.0.1`)
  for (const asker of askers) t.same(await until(asker, 10), replies.toSorted())
})
