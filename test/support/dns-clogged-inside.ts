// Runs inside a network namespace of its own: asks a DNS worker in the name of a neighbour that is not there, until the
// replies that wait for it leave its socket no room, and prints what became of the packets: JSON.

import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import koffi from 'koffi'
import { openDns } from '../../resolver/dns-server.ts'
import { context, DIRECTORY, queryBytes } from './dns-fixture.ts'
import { workersOf } from './dns-workers.ts'

const AF_INET = 2
const SOCK_RAW = 3
const IPPROTO_RAW = 255
const IP_BYTES = 20
const UDP_BYTES = 8
const PORT = 5300
const OWN = [10, 9, 0, 1]
const PACKETS = 6400
const AT_ONCE = 64
/** So long all of it may take; a wait for each reply would take many times as long, ms. */
const LIMIT_MS = 10_000

const ip = (...args: string[]) => execFileSync('ip', args)
ip('link', 'set', 'lo', 'up')
ip('link', 'add', 'v0', 'type', 'veth', 'peer', 'name', 'v1')
ip('addr', 'add', `${OWN.join('.')}/24`, 'dev', 'v0')
for (const link of ['v0', 'v1']) ip('link', 'set', link, 'up')
// One neighbour stands for as many as it takes, and is looked for until the end.
writeFileSync('/proc/sys/net/ipv4/neigh/v0/unres_qlen_bytes', String(64 << 20))
writeFileSync('/proc/sys/net/ipv4/neigh/v0/mcast_solicit', '100')

const listen = [{ host: OWN.join('.'), port: PORT }]
const server = await openDns({ listen, context, workers: workersOf(DIRECTORY, { count: 1 }) })

const libc = koffi.load(null)
const socket = libc.func('socket', 'int', ['int', 'int', 'int'])
const sendto = libc.func('sendto', 'long', ['int', 'void *', 'size_t', 'int', 'void *', 'uint'])
const raw = socket(AF_INET, SOCK_RAW, IPPROTO_RAW) as number
const query = queryBytes('mirror.any.test', 'A')
const packet = Buffer.alloc(IP_BYTES + UDP_BYTES + query.length)
packet.set([0x45], 0)
packet.set([64, 17], 8)
packet.set([10, 9, 0, 77], 12)
packet.set(OWN, 16)
packet.writeUInt16BE(PORT, IP_BYTES + 2)
packet.writeUInt16BE(UDP_BYTES + query.length, IP_BYTES + 4)
packet.set(query, IP_BYTES + UDP_BYTES)
const target = Buffer.alloc(16)
target.writeUInt16LE(AF_INET, 0)
target.set(OWN, 4)
const { udp, faults } = server.stats
const endMs = performance.now() + LIMIT_MS
let sent = 0
while (sent < PACKETS && performance.now() < endMs) {
  // No more at once than any receive buffer holds.
  for (let i = 0; i < AT_ONCE; i++) {
    // Replies to one port would be one message, and take little room.
    packet.writeUInt16BE(5353 + i, IP_BYTES)
    sendto(raw, packet, packet.length, 0, target, target.length)
  }
  sent += AT_ONCE
  while (udp.answered < sent && performance.now() < endMs) await sleep(1)
}
const [answered, unsent] = [udp.answered, faults.unsent]
await server.close()
process.stdout.write(JSON.stringify({ sent, answered, isClogged: unsent > 0 }))
