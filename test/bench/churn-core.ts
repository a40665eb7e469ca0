// The core of bench:churn in a process of its own: a core as main.ts opens it, and on request what it took.
//
// Takes the data folder as its argument; tells its ports when it is ready, and answers each message of its
// parent with what it used and did since the last one.

import { monitorEventLoopDelay } from 'node:perf_hooks'
import { pino } from 'pino'
import { openCore } from '../../core-node/main.ts'
import { loadConfig } from '../../core-node/settings/config.ts'
import { CORE, ZONE } from './churn-world.ts'

export interface CorePorts {
  readonly http: number
  readonly dns: number
  readonly pulse: number
  /** From the start of the process until all doors were open. */
  readonly readySec: number
  readonly rssMiB: number
}

export interface CoreUse {
  readonly cpuSec: number
  readonly wallSec: number
  readonly rssMiB: number
  readonly heapMiB: number
  /** How late the event loop came round: the longest, and the 99th percentile, ms. */
  readonly stallMaxMs: number
  readonly stallP99Ms: number
  readonly counters: Readonly<Record<string, number>>
  readonly pulses: Readonly<Record<string, number>>
  readonly hosts: Readonly<Record<string, number>>
}

/** The histogram measures its own pace too: it comes round this often when nothing holds it up. */
const RESOLUTION_MS = 2
const flags = {
  data: process.argv[2]!,
  name: CORE,
  zone: ZONE,
  geo: 'none',
  dns: '127.0.0.1:0',
  http: '127.0.0.1:0',
  echo: '127.0.0.1:0',
  logLevel: 'error',
  resolvers: '127.0.0.0/8',
  requestsPerMinute: '1000000',
}

const mib = (bytes: number): number => Math.round(bytes / (1 << 20))

const config = loadConfig({ flags, env: {}, file: null })
const running = await openCore(config, pino({ level: config.logLevel }, pino.destination(2)))
const { core, dns, http } = running
const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
delay.enable()
let since = { cpu: process.cpuUsage(), wallMs: performance.now() }

function use(): CoreUse {
  const cpu = process.cpuUsage(since.cpu)
  const wallMs = performance.now()
  const memory = process.memoryUsage()
  const told: CoreUse = {
    cpuSec: (cpu.user + cpu.system) / 1e6,
    wallSec: (wallMs - since.wallMs) / 1000,
    rssMiB: mib(memory.rss),
    heapMiB: mib(memory.heapUsed),
    stallMaxMs: delay.max / 1e6 - RESOLUTION_MS,
    stallP99Ms: Math.max(0, delay.percentile(99) / 1e6 - RESOLUTION_MS),
    counters: core.counters.snapshot(),
    pulses: { ...core.pulseCounts },
    hosts: core.hostCounts,
  }
  delay.reset()
  since = { cpu: process.cpuUsage(), wallMs }
  return told
}

process.on('message', (message) => {
  if (message === 'use') process.send!(use())
  else void running.close().then(() => process.exit(0))
})
const ports: CorePorts = {
  http: http.addresses[0]!.port,
  dns: dns.addresses[0]!.port,
  pulse: core.pulsePort,
  readySec: performance.now() / 1000,
  rssMiB: mib(process.memoryUsage().rss),
}
process.send!(ports)
