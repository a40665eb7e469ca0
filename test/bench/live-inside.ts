// Runs inside one namespace and does there what it is told on stdin, a line of JSON each; answers on
// stdout. As a client it asks a core by DNS over TCP, which proves its address, and answers or swallows
// DNS probes where its flags say so; beside the core it makes the operator's calls of the API. Ends with stdin.

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { type Packet, type StringAnswer, streamDecode, streamEncode } from 'dns-packet'

export type Task =
  /** The A records of a name. */
  | { readonly do: 'ask'; readonly server: string; readonly name: string }
  | {
      readonly do: 'fetch'
      readonly method: string
      readonly url: string
      readonly token: string | null
      readonly body: unknown
    }
  /** Stays connected, as a client that uses a member would. */
  | { readonly do: 'connect'; readonly address: string; readonly port: number }
  | { readonly do: 'listen'; readonly address: string; readonly port: number }

export type Done = { readonly id: number; readonly result?: unknown; readonly error?: string }

const ASK_MS = 5000
let connection: Socket | null = null

async function ask(server: string, name: string): Promise<string[]> {
  const socket = connect({ host: server, port: 53, signal: AbortSignal.timeout(ASK_MS) })
  try {
    await once(socket, 'connect')
    socket.write(streamEncode({ type: 'query', id: 7, questions: [{ type: 'A', name }] } as Packet))
    let bytes = Buffer.alloc(0)
    for await (const part of socket) {
      bytes = Buffer.concat([bytes, part as Buffer])
      if (bytes.length >= 2 && bytes.length >= 2 + bytes.readUInt16BE(0)) break
    }
    const answers = (streamDecode(bytes).answers ?? []) as StringAnswer[]
    return answers.filter(({ type }) => type === 'A').map(({ data }) => data)
  } finally {
    socket.destroy()
  }
}

async function call(task: Task & { do: 'fetch' }): Promise<unknown> {
  const reply = await fetch(task.url, {
    method: task.method,
    signal: AbortSignal.timeout(ASK_MS),
    headers: {
      ...(task.token === null ? {} : { authorization: `Bearer ${task.token}` }),
      ...(task.body === null ? {} : { 'content-type': 'application/json' }),
    },
    body: task.body === null ? null : JSON.stringify(task.body),
  })
  const text = await reply.text()
  if (!reply.ok) throw new Error(`${task.method} ${task.url}: ${reply.status} ${text}`)
  return text.startsWith('{') ? JSON.parse(text) : text
}

async function stayConnected(address: string, port: number): Promise<boolean> {
  if (connection?.remoteAddress === address && !connection.destroyed) return true
  connection?.destroy()
  connection = connect({ host: address, port, signal: AbortSignal.timeout(ASK_MS) })
  connection.on('error', () => {})
  await once(connection, 'connect')
  return true
}

async function listen(address: string, port: number): Promise<boolean> {
  const server = createServer((socket) => socket.on('error', () => {}).resume())
  await once(server.listen(port, address), 'listening')
  return true
}

function carryOut(task: Task): Promise<unknown> {
  switch (task.do) {
    case 'ask':
      return ask(task.server, task.name)
    case 'fetch':
      return call(task)
    case 'connect':
      return stayConnected(task.address, task.port)
    case 'listen':
      return listen(task.address, task.port)
  }
}

/** A resolver that refuses everybody (a header with QR and REFUSED is an answer), or one that says nothing. */
function openResolver(address: string, answers: boolean): void {
  const socket = createSocket('udp4')
  socket.on('message', (query, { port, address: from }) => {
    if (answers && query.length >= 12) {
      const reply = Uint8Array.of(query[0]!, query[1]!, 0x80, 5, 0, 0, 0, 0, 0, 0, 0, 0)
      socket.send(reply, port, from)
    }
  })
  socket.bind(53, address)
}

const tell = (done: Done): void => {
  process.stdout.write(`${JSON.stringify(done)}\n`)
}

const [, , resolver, address] = process.argv
if (resolver !== undefined) openResolver(address!, resolver === 'answer-dns')
for await (const line of createInterface({ input: process.stdin })) {
  const { id, task } = JSON.parse(line) as { id: number; task: Task }
  carryOut(task).then(
    (result) => tell({ id, result }),
    (error: Error) => tell({ id, error: error.message }),
  )
}
process.exit(0)
