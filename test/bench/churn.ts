// What hosts that come and go cost one core: joins, finds and leaves a second, beside the heartbeats of many idle hosts.
//
//   npm run -s bench:churn -- [--hosts 100000] [--members N] [--joins 2000] [--seconds 60] [--by host|member] [--json]
// A real core over SQLite in a process of its own; this process is the load. The store is filled first with idle
// hosts, which then send a pulse every 10 s under a lease of 30 s. A newcomer joins by one message (--by host: a
// new host with its member; member: a known host takes part in the service `second`... ), is looked for by DNS by
// another node, and leaves half a second after it came; then it must not be found any more.

import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { CorePorts, CoreUse } from './churn-core.ts'
import { DnsQuestions } from './churn-dns.ts'
import { HttpPool } from './churn-http.ts'
import { IdleHosts } from './churn-pulses.ts'
import { fillStore, SERVICE, TOKEN } from './churn-world.ts'

const { values: options } = parseArgs({
  options: {
    hosts: { type: 'string', default: '100000' },
    members: { type: 'string' },
    joins: { type: 'string', default: '2000' },
    seconds: { type: 'string', default: '60' },
    profile: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
})
const HOSTS = Number(options.hosts)
const MEMBERS = Number(options.members ?? options.hosts)
const JOINS_PER_SEC = Number(options.joins)
const SECONDS = Number(options.seconds)
const LEASE_SEC = 30
const BEAT_SEC = 10
/** How long a newcomer stays. */
const STAY_MS = 500
const CONNECTIONS = 256
const STEP_MS = 5
/** Looked for again so soon where it was not found. */
const FIND_AGAIN_MS = 5
const FIND_TRIES = 40

interface Times {
  readonly join: number[]
  readonly find: number[]
  readonly leave: number[]
}

interface Outcome {
  joined: number
  left: number
  foundAtOnce: number
  foundLater: number
  neverFound: number
  foundAfterLeaving: number
  refused: number
}

function startCore(data: string): ChildProcess {
  const file = fileURLToPath(new URL('churn-core.ts', import.meta.url))
  const profile = options.profile === undefined ? [] : ['--cpu-prof', '--cpu-prof-dir', options.profile]
  return fork(file, [data], { execArgv: ['--max-old-space-size=16000', ...profile] })
}

async function told<T>(core: ChildProcess, message?: string): Promise<T> {
  if (message !== undefined) core.send(message)
  const [reply] = await once(core, 'message')
  return reply as T
}

/** One newcomer's life. */
async function live(
  i: number,
  pool: HttpPool,
  dns: DnsQuestions,
  times: Times,
  outcome: Outcome,
): Promise<void> {
  const name = `new${i}`
  const startMs = performance.now()
  const credential = await pool.use(async (connection) => {
    const body = {
      addresses: [connection.from],
      leaseSec: LEASE_SEC,
      members: [{ service: SERVICE, port: 4000 }],
    }
    const { status, body: reply } = await connection.request('PUT', `/v1/hosts/${name}`, TOKEN, body)
    if (status === 200) return JSON.parse(reply).credential as string
    if (outcome.refused++ === 0) console.error(`a join was refused: ${status} ${reply}`)
    return null
  })
  if (credential === null) return
  const joinedMs = performance.now()
  times.join.push(joinedMs - startMs)
  outcome.joined++
  await find(name, dns, times, outcome)
  await sleep(Math.max(0, STAY_MS - (performance.now() - startMs)))
  const leaveMs = performance.now()
  const { status } = await pool.use((connection) =>
    connection.request('DELETE', `/v1/hosts/${name}`, credential),
  )
  if (status !== 204) return
  times.leave.push(performance.now() - leaveMs)
  outcome.left++
  if ((await dns.find(name)) > 0) outcome.foundAfterLeaving++
}

async function find(name: string, dns: DnsQuestions, times: Times, outcome: Outcome): Promise<void> {
  const startMs = performance.now()
  for (let tries = 0; tries < FIND_TRIES; tries++) {
    if ((await dns.find(name)) > 0) {
      times.find.push(performance.now() - startMs)
      if (tries === 0) outcome.foundAtOnce++
      else outcome.foundLater++
      return
    }
    await sleep(FIND_AGAIN_MS)
  }
  outcome.neverFound++
}

/** Newcomers, so many a second, for so long; ends when the last has left. */
async function churn(pool: HttpPool, dns: DnsQuestions, times: Times, outcome: Outcome): Promise<void> {
  const startMs = performance.now()
  const lives: Promise<void>[] = []
  while (performance.now() - startMs < SECONDS * 1000) {
    const due = Math.floor(((performance.now() - startMs) / 1000) * JOINS_PER_SEC)
    while (lives.length < due) lives.push(live(lives.length, pool, dns, times, outcome))
    await sleep(STEP_MS)
  }
  await Promise.all(lives)
}

function spread(times: number[]): { p50Ms: number; p99Ms: number; maxMs: number } {
  const sorted = times.toSorted((a, b) => a - b)
  const at = (share: number) =>
    round(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN)
  return { p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) }
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}

const data = mkdtempSync(join(tmpdir(), 'nearcast-churn-'))
try {
  await fillStore(data, { hosts: HOSTS, members: MEMBERS, leaseSec: LEASE_SEC })
  const core = startCore(data)
  const ports = await told<CorePorts>(core)
  const pool = new HttpPool(ports.http, CONNECTIONS)
  const dns = await DnsQuestions.open(ports.dns)
  const idle = new IdleHosts({
    hosts: HOSTS,
    everyMs: BEAT_SEC * 1000,
    port: ports.pulse,
    callByHttp: async (host, credential) => {
      await pool.use((connection) =>
        connection.request('POST', '/v1/heartbeats', credential, { beats: [{ host, credential }] }),
      )
    },
  })
  await idle.start()
  await sleep(BEAT_SEC * 1000)
  const settled = await told<CoreUse>(core, 'use')
  await sleep(BEAT_SEC * 1000)
  const atRest = await told<CoreUse>(core, 'use')
  const before = { ...idle.counts }
  const times: Times = { join: [], find: [], leave: [] }
  const outcome: Outcome = {
    joined: 0,
    left: 0,
    foundAtOnce: 0,
    foundLater: 0,
    neverFound: 0,
    foundAfterLeaving: 0,
    refused: 0,
  }
  const loadCpu = process.cpuUsage()
  await churn(pool, dns, times, outcome)
  const load = process.cpuUsage(loadCpu)
  const busy = await told<CoreUse>(core, 'use')
  const after = { ...idle.counts }
  idle.stop()
  const during = Object.fromEntries(
    Object.entries(after).map(([key, count]) => [key, count - before[key as keyof typeof before]]),
  )
  const result = {
    ports,
    settled,
    atRest,
    busy,
    during,
    outcome,
    loadCpuShare: round((load.user + load.system) / 1e6 / busy.wallSec),
    times: { join: spread(times.join), find: spread(times.find), leave: spread(times.leave) },
    falseDeaths: busy.counters['liveness.silent'] ?? 0,
  }
  console.log(JSON.stringify(result, null, options.json ? 0 : 2))
  core.send('stop')
  await once(core, 'exit')
  pool.close()
  dns.close()
} finally {
  rmSync(data, { recursive: true, force: true })
}
