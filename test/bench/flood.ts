// Whether a flood of DNS queries, twice what is answered, leaves the rest of a core alive: heartbeats, HTTP, members.
//
//   npm run -s bench:flood -- --load PROGRAM [--hosts 1000] [--workers 1] [--seconds 15] [--times 2] [--json]
// PROGRAM: dnsload, or what takes its arguments. The core with all its threads has processor 0 alone, which is the
// hardest: the load, and the hosts that beat by UDP every 2 s under a lease of 8 s, have processor 1. The queries are
// those that cost an answer most (SRV, which no fast path takes). First what is answered at most is measured, then
// that many times as much is sent at a steady rate, then, at once, what is answered at most.

import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'
import { encode } from 'dns-packet'
import { freePort, until } from '../support/processes.ts'
import { IdleHosts, type PulseCounts } from './churn-pulses.ts'
import { CORE, fillStore, SERVICE, ZONE } from './churn-world.ts'
import { readDnsload } from './dns-load.ts'

const { values: options } = parseArgs({
  options: {
    load: { type: 'string' },
    hosts: { type: 'string', default: '1000' },
    workers: { type: 'string', default: '1' },
    seconds: { type: 'string', default: '15' },
    times: { type: 'string', default: '2' },
    json: { type: 'boolean', default: false },
  },
})
if (options.load === undefined) {
  console.error('bench:flood needs --load PROGRAM: a load generator that takes the arguments of dnsload')
  process.exit(2)
}
const LOAD = options.load
const HOSTS = Number(options.hosts)
const SECONDS = Number(options.seconds)
const LEASE_SEC = 8
const BEAT_MS = 2000
const SERVER_CPU = '0'
const LOAD_CPU = '1'
/** Long enough to fill every buffer. */
const CAPACITY_SEC = 3
/** So many may be unanswered before the load holds back: more than a second's worth. */
const FLOOD_OUTSTANDING = 400_000
const ASK_EVERY_MS = 50
const STATUS_EVERY_MS = 500
const CLI = fileURLToPath(new URL('../../core-node/cli.ts', import.meta.url))

interface Doors {
  readonly dns: number
  readonly http: string
}

/** What HTTP was like for a while. */
interface Seen {
  readonly requests: number
  readonly failed: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly maxMs: number
  /** The fewest hosts that were live at any time. */
  readonly leastLive: number
}

async function startCore(data: string): Promise<Doors & { pulse: number; close(): Promise<void> }> {
  const [dns, http, pulse] = [await freePort(), await freePort(), await freePort()]
  const at = (port: number) => `127.0.0.1:${port}`
  const listen = ['--dns', at(dns), '--http', at(http), '--echo', at(pulse)]
  // All come from one address, and are to be answered all the same, in full.
  const unlimited = ['--rrl-exempt-clients', '127.0.0.0/8']
  const flags = [
    '--data',
    data,
    '--name',
    CORE,
    '--zone',
    ZONE,
    '--geo',
    'none',
    '--log-level',
    'warn',
    ...unlimited,
  ]
  const args = [
    '-c',
    SERVER_CPU,
    process.execPath,
    CLI,
    'core',
    ...flags,
    ...listen,
    '--dns-workers',
    options.workers,
  ]
  const core = spawn('taskset', args, { stdio: ['ignore', 'ignore', 'inherit'] })
  await until(
    'the core is ready',
    async () => (await fetch(`http://${at(http)}/readyz`).catch(() => null))?.ok === true,
  )
  const close = async () => {
    const ended = once(core, 'exit')
    core.kill('SIGTERM')
    await ended
  }
  return { dns, http: `http://${at(http)}`, pulse, close }
}

/** Asks the API over and over, as an agent's or an operator's program does, until stopped. */
function watch({ http }: Doors): () => Promise<Seen> {
  const times: number[] = []
  let failed = 0
  let leastLive = Number.POSITIVE_INFINITY
  let isOn = true
  const get = async (path: string) => {
    const startMs = performance.now()
    const reply = await fetch(`${http}${path}`, { signal: AbortSignal.timeout(5000) })
    const body = (await reply.json()) as { hosts?: { live: number } }
    times.push(performance.now() - startMs)
    if (!reply.ok) failed++
    return body
  }
  const fail = () => {
    failed++
  }
  const asking = (async () => {
    for (; isOn; await sleep(ASK_EVERY_MS)) await get(`/v1/services/${SERVICE}/nearest`).catch(fail)
  })()
  const counting = (async () => {
    for (; isOn; await sleep(STATUS_EVERY_MS)) {
      const status = await get('/v1/status').catch(fail)
      if (status?.hosts) leastLive = Math.min(leastLive, status.hosts.live)
    }
  })()
  return async () => {
    isOn = false
    await Promise.all([asking, counting])
    times.sort((a, b) => a - b)
    const at = (share: number) => round(times[Math.min(times.length - 1, Math.floor(share * times.length))]!)
    return { requests: times.length, failed, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1), leastLive }
  }
}

/** `rate`: queries a second, however many are answered; null: as many as are answered. */
async function load(doors: Doors, queries: string, seconds: number, rate: number | null) {
  const pace =
    rate === null ? ['-q', '200', '-S', '8'] : ['-q', `${FLOOD_OUTSTANDING}`, '-S', '16', '-Q', `${rate}`]
  const target = ['-p', `${doors.dns}`, '-d', queries, '-l', `${seconds}`, '-b', '32']
  const { stdout } = await promisify(execFile)('taskset', ['-c', LOAD_CPU, LOAD, ...target, ...pace])
  const sent = Number(/\bsent=(\d+)/.exec(stdout)?.[1])
  const { answers } = readDnsload(stdout)
  return { sentPerSec: Math.round(sent / seconds), answersPerSec: Math.round(answers / seconds) }
}

/** Between two moments. */
function beatsOf(before: PulseCounts, after: PulseCounts) {
  const { due, again, lost } = after
  return { due: due - before.due, sentAgain: again - before.again, lost: lost - before.lost }
}

function writeQueries(path: string): void {
  const questions = [{ type: 'SRV' as const, name: `_http._tcp.${SERVICE}.${ZONE}` }]
  const packet = encode({ type: 'query', id: 1, questions })
  writeFileSync(path, Buffer.concat([Uint8Array.of(packet.length >> 8, packet.length & 0xff), packet]))
}

async function beatByHttp({ http }: Doors, host: string, credential: string): Promise<void> {
  const headers = { 'content-type': 'application/json', authorization: `Bearer ${credential}` }
  const body = JSON.stringify({ beats: [{ host, credential }] })
  const reply = await fetch(`${http}/v1/heartbeats`, { method: 'POST', headers, body })
  if (!reply.ok) throw new Error(`a heartbeat by HTTP: ${reply.status}`)
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}

// Members of a service that have a port, and so an SRV record, are what the world of bench:churn has.
const folder = mkdtempSync(join(tmpdir(), 'nearcast-flood-'))
const data = join(folder, 'data')
const queries = join(folder, 'queries.bin')
writeQueries(queries)
try {
  await fillStore(data, { hosts: HOSTS, members: HOSTS, leaseSec: LEASE_SEC })
  const core = await startCore(data)
  const callByHttp = (host: string, credential: string) => beatByHttp(core, host, credential)
  const idle = new IdleHosts({ hosts: HOSTS, everyMs: BEAT_MS, port: core.pulse, callByHttp })
  await idle.start()
  // Each host has learnt the session, and beats as it does from then on.
  await sleep(2 * BEAT_MS)

  let stop = watch(core)
  await sleep(3000)
  const quiet = await stop()
  const capacity = await load(core, queries, CAPACITY_SEC, null)
  const beats = { ...idle.counts }
  stop = watch(core)
  const flood = await load(core, queries, SECONDS, Number(options.times) * capacity.answersPerSec)
  const during = await stop()
  const after = await load(core, queries, CAPACITY_SEC, null)
  const report = {
    hosts: HOSTS,
    workers: Number(options.workers),
    quiet,
    capacityQps: capacity.answersPerSec,
    flood: {
      ...flood,
      times: round(flood.sentPerSec / capacity.answersPerSec),
      http: during,
      beats: beatsOf(beats, idle.counts),
    },
    afterQps: after.answersPerSec,
  }
  idle.stop()
  await core.close()
  if (options.json) console.log(JSON.stringify(report))
  else console.dir(report, { depth: 4 })
} finally {
  rmSync(folder, { recursive: true, force: true })
}
