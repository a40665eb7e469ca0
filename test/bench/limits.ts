// What limiting a response costs: nanoseconds for each, and bytes of heap, by who floods.
//
//   npm run -s bench:limits [-- --count 5000000] [--json]
// "not watched": plain answers, which have no limit by default. Sources are spoofed ones, each a prefix of its own, or
// the same one each time. Times are of this machine.

import { parseArgs } from 'node:util'
import { parsePrefix } from '../../resolver/address.ts'
import { RATE_LIMITS, RESPONSE, ResponseLimiter, rateTable } from '../../resolver/dns-limit.ts'
import { seededRng } from '../support/seeded-rng.ts'
import { readCount } from './accuracy-arguments.ts'

const { values: options } = parseArgs({
  options: { count: { type: 'string' }, json: { type: 'boolean', default: false } },
})
const count = readCount('count', options.count, 5_000_000, 1000)

const SOURCES = 1 << 20
const limits = { ...RATE_LIMITS, exemptClients: [parsePrefix('192.0.2.0/24')!] }

/** IPv4 or IPv6 addresses, 16 bytes each, one behind the other. */
function sources(of: number, family: 4 | 6): Uint8Array {
  const rng = seededRng(1)
  const bytes = new Uint8Array(16 * of)
  for (let i = 0; i < of; i++) {
    if (family === 4) bytes.fill(0xff, 16 * i + 10, 16 * i + 12)
    for (let at = family === 4 ? 12 : 0; at < 16; at++) bytes[16 * i + at] = 1 + Math.floor(rng() * 223)
  }
  return bytes
}

interface Measured {
  readonly flood: string
  readonly ns: number
  readonly heapBytes: number
}

function measure(flood: string, addresses: Uint8Array, replyBytes: number): Measured {
  const limiter = new ResponseLimiter(limits, rateTable(limits))
  const mask = addresses.length / 16 - 1
  const kind = replyBytes === 50 ? RESPONSE.ANSWER : RESPONSE.NXDOMAIN
  const run = (times: number) => {
    let refused = 0
    for (let i = 0; i < times; i++) {
      if (!limiter.watches(kind, 40, replyBytes)) continue
      refused += limiter.judge(kind, 7, 40, replyBytes, addresses, 16 * (i & mask), 1e6 + i / 300)
    }
    return refused
  }
  run(100_000)
  const heapBefore = process.memoryUsage().heapUsed
  const startMs = performance.now()
  run(count)
  const tookMs = performance.now() - startMs
  const heapBytes = Math.max(0, process.memoryUsage().heapUsed - heapBefore) / count
  return { flood, ns: (tookMs * 1e6) / count, heapBytes }
}

const results = [
  measure('not watched', sources(1, 4), 50),
  measure('one IPv4 source', sources(1, 4), 100),
  measure('a million IPv4 sources', sources(SOURCES, 4), 100),
  measure('one IPv6 source', sources(1, 6), 100),
  measure('a million IPv6 sources', sources(SOURCES, 6), 100),
]
if (options.json) console.log(JSON.stringify({ count, results }))
else {
  console.log('| flood | ns a response | bytes of heap |\n| --- | ---: | ---: |')
  for (const { flood, ns, heapBytes } of results)
    console.log(`| ${flood} | ${ns.toFixed(0)} | ${heapBytes.toFixed(2)} |`)
}
