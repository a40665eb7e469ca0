// Runs inside a network namespace of its own: sends DNS workers a query from source port 0, which only a raw socket
// can, then an ordinary one, and prints what was counted and answered: JSON.

import { execFileSync } from 'node:child_process'
import koffi from 'koffi'
import { openDns } from '../../resolver/dns-server.ts'
import { context, DIRECTORY, exchange, queryBytes } from './dns-fixture.ts'
import { workersOf } from './dns-workers.ts'

const AF_INET = 2
const SOCK_RAW = 3
const IPPROTO_UDP = 17
const PORT = 5300

execFileSync('ip', ['link', 'set', 'lo', 'up'])
const listen = [{ host: '127.0.0.1', port: PORT }]
const server = await openDns({ listen, context, workers: workersOf(DIRECTORY, { count: 1 }) })

const libc = koffi.load(null)
const socket = libc.func('socket', 'int', ['int', 'int', 'int'])
const sendto = libc.func('sendto', 'long', ['int', 'void *', 'size_t', 'int', 'void *', 'uint'])
const query = queryBytes('mirror.any.test', 'A')
/** Source port, target port, length and no checksum. */
const header = Buffer.alloc(8)
header.writeUInt16BE(PORT, 2)
header.writeUInt16BE(8 + query.length, 4)
const target = Buffer.alloc(16)
target.writeUInt16LE(AF_INET, 0)
target.set([127, 0, 0, 1], 4)
const packet = Buffer.concat([header, query])
const raw = socket(AF_INET, SOCK_RAW, IPPROTO_UDP) as number
const sent = sendto(raw, packet, packet.length, 0, target, target.length) as number

const answered = (await exchange(query, PORT)) !== null
const { 'dropped-port-zero': dropped, answered: counted } = server.stats.udp
await server.close()
process.stdout.write(JSON.stringify({ sent: sent === packet.length, answered, dropped, counted }))
