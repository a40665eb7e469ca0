// Runs inside a network namespace of its own: gives it addresses, serves DNS at the wildcards there (with the
// argument `workers`: in threads), asks each address over UDP and TCP, and prints from where each reply came: JSON,
// `{ asked: answeredFrom }`.

import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { openDns } from '../../resolver/dns-server.ts'
import { context, DIRECTORY, exchange, queryBytes } from './dns-fixture.ts'
import { workersOf } from './dns-workers.ts'

const FIRST = ['192.0.2.1', '192.0.2.2', '2001:db8::1', '2001:db8::2']
/** Where the client is: a socket at the wildcard would reply to it from there, or from anywhere else. */
const CLIENT = ['198.51.100.9', '2001:db8:ff::9']
const LATER = ['192.0.2.3', '2001:db8::3']
const ip = (...args: string[]) => execFileSync('ip', args)
const query = queryBytes('any.test', 'SOA')

function addAddress(address: string): void {
  // Nothing needs to be tried for being taken here: nodad has an IPv6 address at once.
  const more = address.includes(':') ? ['/128', 'nodad'] : ['/32']
  ip('addr', 'add', `${address}${more[0]}`, 'dev', 'lo', ...more.slice(1))
}

async function overUdp(address: string, port: number): Promise<string> {
  const from = CLIENT[address.includes(':') ? 1 : 0]!
  const seen = await exchange(query, port, { to: address, from, limitMs: 2000 })
  return seen?.sender ?? 'nowhere'
}

async function overTcp(address: string, port: number): Promise<string> {
  const socket = connect(port, address)
  socket.write(Buffer.concat([Buffer.from([0, query.length]), query]))
  await once(socket, 'data')
  socket.destroy()
  return 'answered'
}

ip('link', 'set', 'lo', 'up')
for (const address of [...CLIENT, ...FIRST]) addAddress(address)
const listen = ['0.0.0.0', '::'].map((host) => ({ host, port: 5300 }))
const workers = process.argv[2] === 'workers' ? { workers: workersOf(DIRECTORY) } : {}
const server = await openDns({ listen, context, addressesEveryMs: 20, ...workers })
const seen: Record<string, string> = {}
for (const address of FIRST) {
  seen[address] = await overUdp(address, 5300)
  seen[`${address} TCP`] = await overTcp(address, 5300)
}
for (const address of LATER) {
  addAddress(address)
  for (let tries = 0; tries < 100 && seen[address] !== address; tries++) {
    await sleep(20)
    seen[address] = await overUdp(address, 5300)
  }
}
await server.close()
process.stdout.write(JSON.stringify(seen))
