// Throws packets at the DNS server and says what went wrong: a corpus, every length, and seeded mutations, straight
// into the function that answers, and over UDP and TCP into a server.
//
//   npm run -s fuzz:dns -- [--packets FILE] [--seed 1] [--count 100000] [--seconds N] [--workers 2] [--json]
// FILE: packets, each behind its length as uint16, little end first; gzipped or not. `--count`: mutations for each of
// each way; `--seconds`: as many as fit into so long for each. No crash, no packet that takes over 10 ms, no reply
// over its limit, id and question echoed, replies that another codec reads, every packet counted once. Exit code 1:
// a fault was found.

import { parseArgs } from 'node:util'
import { hasMmsg } from '../../resolver/mmsg.ts'
import { readCount } from '../bench/accuracy-arguments.ts'
import { STALL_MS } from './dns-direct.ts'
import { readPackets } from './dns-packets.ts'
import type { Report } from './dns-report.ts'
import { type Plan, runDirect, runSockets } from './dns-run.ts'

const { values: options } = parseArgs({
  options: {
    packets: { type: 'string' },
    seed: { type: 'string' },
    count: { type: 'string' },
    seconds: { type: 'string' },
    workers: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
})
const seconds = readCount('seconds', options.seconds, 0, 1)
const plan: Plan = {
  seed: readCount('seed', options.seed, 1, 0),
  corpus: options.packets === undefined ? [] : readPackets(options.packets),
  count: readCount('count', options.count, seconds > 0 ? Number.MAX_SAFE_INTEGER : 100_000, 0),
  seconds,
}

const workers = readCount('workers', options.workers, hasMmsg() ? 2 : 0, 0, 64)
const own = { limited: false, workers: 0 }
const reports: Record<string, Report> = {
  direct: runDirect(plan),
  ...(workers > 0 && {
    [`udp, ${workers} threads`]: await runSockets(plan, 'udp', { limited: false, workers }),
  }),
  'udp, one thread': await runSockets(plan, 'udp', own),
  tcp: await runSockets(plan, 'tcp', own),
  'udp, responses limited': await runSockets(plan, 'udp', { limited: true, workers }),
}
for (const report of Object.values(reports))
  if (report.longestStallMs > STALL_MS)
    report.blame(`the server stalled for ${report.longestStallMs.toFixed(1)} ms`, Buffer.alloc(0))
if (options.json) console.log(JSON.stringify({ seed: plan.seed, corpus: plan.corpus.length, reports }))
else for (const [way, report] of Object.entries(reports)) tell(way, report)
if (Object.values(reports).some(({ faultCount }) => faultCount > 0)) process.exitCode = 1

function tell(way: string, report: Report): void {
  const { packets, faultCount, slowestMs, longestStallMs, outcomes, faults } = report
  const slowest =
    slowestMs > 0
      ? `slowest packet ${slowestMs.toFixed(2)} ms`
      : `longest stall of the server's loop ${longestStallMs.toFixed(1)} ms`
  console.log(`${way}: ${packets} packets, ${faultCount} faults, ${slowest}`)
  console.log(
    `  ${Object.entries(outcomes)
      .map(([outcome, times]) => `${outcome} ${times}`)
      .join(', ')}`,
  )
  for (const { what, packet } of faults) console.log(`  ${what}\n    ${packet}`)
}
