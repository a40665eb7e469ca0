// The server that is fuzzed, as a process of its own: tells its port when it listens, and its counts when asked.
//
//   node test/fuzz/dns-target.ts limited|unlimited WORKERS   (started by dns-sockets.ts, with a channel)

import { RATE_LIMITS } from '../../resolver/dns-limit.ts'
import { openDns } from '../../resolver/dns-server.ts'
import { DIRECTORY } from '../support/dns-fixture.ts'
import { workersOf } from '../support/dns-workers.ts'
import { NO_LIMITS, world } from './dns-world.ts'

const errors: string[] = []
const count = Number(process.argv[3])
const server = await openDns({
  listen: [{ host: '127.0.0.1', port: 0 }],
  context: world,
  rate: process.argv[2] === 'limited' ? RATE_LIMITS : NO_LIMITS,
  ...(count > 0 && { workers: workersOf(DIRECTORY, { count }) }),
  onError: (error) => errors.push(`${error.stack}`),
})
let longestStallMs = 0
let lastMs = performance.now()
let lastCpu = process.threadCpuUsage()
// What this thread worked between two looks: where the machine gave it no time, that is no stall of ours.
setInterval(() => {
  const nowMs = performance.now()
  const cpu = process.threadCpuUsage()
  const workedMs = (cpu.user + cpu.system - lastCpu.user - lastCpu.system) / 1000
  longestStallMs = Math.max(longestStallMs, Math.min(workedMs, nowMs - lastMs))
  lastMs = nowMs
  lastCpu = cpu
}, 1)
process.on('message', () => {
  const { udp, tcp } = server.stats
  process.send!({ udp: { ...udp }, tcp: { ...tcp }, errors, longestStallMs })
})
process.on('disconnect', () => process.exit(0))
await server.ready
process.send!(server.addresses[0]!.port)
