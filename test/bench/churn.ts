// What hosts that come and go cost one core: joins, finds and leaves a second, beside the heartbeats of many idle hosts.
//
//   npm run -s bench:churn -- [--hosts 100000] [--members N] [--joins 2000] [--seconds 60] [--by host|member] [--json]
// A real core over SQLite in a process of its own; this process is the load. The store is filled first with idle
// hosts, which then beat every 10 s by UDP under a lease of 30 s. A newcomer joins by one message (--by host: a new
// host with its member; member: an idle host's second member), is looked for by DNS by another node, leaves half a
// second after it came, and must then not be found any more. --seconds 0 only loads and rests; it and
// --transport, which measures heartbeats by kept-alive HTTP instead of newcomers, tell the rest of what a core needs.

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
import { HttpConnection, HttpPool } from './churn-http.ts'
import { IdleHosts } from './churn-pulses.ts'
import { fillStore, hostCredential, hostName, SECOND_SERVICE, SERVICE, TOKEN } from './churn-world.ts'

const { values: options } = parseArgs({
  options: {
    hosts: { type: 'string', default: '100000' },
    members: { type: 'string' },
    joins: { type: 'string', default: '2000' },
    seconds: { type: 'string', default: '60' },
    by: { type: 'string', default: 'host' },
    transport: { type: 'boolean', default: false },
    profile: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
})
const HOSTS = Number(options.hosts)
const MEMBERS = Number(options.members ?? options.hosts)
const JOINS_PER_SEC = Number(options.joins)
const SECONDS = Number(options.seconds)
const isByHost = options.by === 'host'
const LEASE_SEC = 30
const BEAT_SEC = 10
/** How long a newcomer stays. */
const STAY_MS = 500
const CONNECTIONS = 256
const STEP_MS = 5
/** Looked for again so soon where it was not found. */
const FIND_AGAIN_MS = 5
const FIND_TRIES = 40
/** With --transport. */
const IDLE_CONNECTIONS = 4096
const HTTP_BEATS_MS = 5000

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
  /** When the last join was answered. */
  lastJoinMs: number
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

/** One newcomer: how it joins and leaves, and by what name it is found. */
interface Newcomer {
  readonly name: string
  readonly service: string
  /** Rejects where it is refused. */
  join(pool: HttpPool): Promise<void>
  leave(pool: HttpPool): Promise<void>
}

/** A host that nobody knew, with its member. */
function newHost(i: number): Newcomer {
  const name = `new${i}`
  let credential = ''
  return {
    name,
    service: SERVICE,
    join: (pool) =>
      pool.use(async (connection) => {
        const members = [{ service: SERVICE, port: 4000 }]
        const body = { addresses: [connection.from], leaseSec: LEASE_SEC, members }
        const { status, body: reply } = await connection.request('PUT', `/v1/hosts/${name}`, TOKEN, body)
        if (status !== 200) throw new Error(`a join was refused: ${status} ${reply}`)
        credential = JSON.parse(reply).credential
      }),
    leave: (pool) => pool.use((connection) => expect204(connection, `/v1/hosts/${name}`, credential)),
  }
}

/** A known host that takes part in another service for a while. */
function newMember(i: number): Newcomer {
  const host = i % HOSTS
  const name = hostName(host)
  const path = `/v1/services/${SECOND_SERVICE}/members/${name}`
  return {
    name,
    service: SECOND_SERVICE,
    join: (pool) =>
      pool.use(async (connection) => {
        const { status, body } = await connection.request('PUT', path, hostCredential(host), { port: 4001 })
        if (status !== 200) throw new Error(`a join was refused: ${status} ${body}`)
      }),
    leave: (pool) => pool.use((connection) => expect204(connection, path, hostCredential(host))),
  }
}

async function expect204(connection: HttpConnection, path: string, secret: string): Promise<void> {
  const { status, body } = await connection.request('DELETE', path, secret)
  if (status !== 204) throw new Error(`a leave was refused: ${status} ${body}`)
}

/** One newcomer's life. */
async function live(
  newcomer: Newcomer,
  pool: HttpPool,
  dns: DnsQuestions,
  times: Times,
  outcome: Outcome,
): Promise<void> {
  const startMs = performance.now()
  await newcomer.join(pool)
  times.join.push(performance.now() - startMs)
  outcome.joined++
  outcome.lastJoinMs = performance.now()
  await find(newcomer, dns, times, outcome)
  await sleep(Math.max(0, STAY_MS - (performance.now() - startMs)))
  const leaveMs = performance.now()
  await newcomer.leave(pool)
  times.leave.push(performance.now() - leaveMs)
  outcome.left++
  if ((await dns.find(newcomer.name, newcomer.service)) > 0) outcome.foundAfterLeaving++
}

async function find(
  { name, service }: Newcomer,
  dns: DnsQuestions,
  times: Times,
  outcome: Outcome,
): Promise<void> {
  const startMs = performance.now()
  for (let tries = 0; tries < FIND_TRIES; tries++) {
    if ((await dns.find(name, service)) > 0) {
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
    while (lives.length < due) {
      const newcomer = isByHost ? newHost(lives.length) : newMember(lives.length)
      lives.push(live(newcomer, pool, dns, times, outcome))
    }
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

/** Heartbeats by kept-alive HTTP, one host a connection, and what idle connections hold: to weigh against pulses. */
async function measureHttpBeats(core: ChildProcess, port: number): Promise<Record<string, number>> {
  const before = await told<CoreUse>(core, 'use')
  const idle = Array.from(
    { length: IDLE_CONNECTIONS },
    (_, i) => new HttpConnection(port, `127.2.${i >> 6}.${(i & 63) + 1}`),
  )
  const beat = (connection: HttpConnection, i: number) => {
    const body = { beats: [{ host: hostName(i % HOSTS), credential: hostCredential(i % HOSTS) }] }
    return connection.request('POST', '/v1/heartbeats', hostCredential(i % HOSTS), body)
  }
  for (let i = 0; i < idle.length; i += CONNECTIONS)
    await Promise.all(idle.slice(i, i + CONNECTIONS).map(beat))
  const opened = await told<CoreUse>(core, 'use')
  let beats = 0
  const untilMs = performance.now() + HTTP_BEATS_MS
  const loop = async (connection: HttpConnection, i: number) => {
    for (; performance.now() < untilMs; beats++) await beat(connection, i + beats)
  }
  await Promise.all(idle.slice(0, CONNECTIONS).map(loop))
  const after = await told<CoreUse>(core, 'use')
  for (const connection of idle) connection.close()
  return {
    beatsPerSec: Math.round(beats / after.wallSec),
    cpuMicrosPerBeat: round((after.cpuSec / beats) * 1e6),
    kibPerConnection: round(((opened.rssMiB - before.rssMiB) * 1024) / idle.length),
  }
}

/** What is told of one span of the core's life. */
function spanOf(
  use: CoreUse,
  before: Record<string, number>,
  after: Record<string, number>,
): Record<string, number> {
  const since = (name: string) => (after[name] ?? 0) - (before[name] ?? 0)
  return {
    seconds: round(use.wallSec),
    heartbeatsPerSec: Math.round(since('answered') / use.wallSec),
    heartbeatsSentAgain: since('again'),
    heartbeatsLostByUdp: since('lost'),
    heartbeatsByHttp: since('called'),
    cpuShare: round(use.cpuSec / use.wallSec),
    stallMaxMs: round(use.stallMaxMs),
    stallP99Ms: round(use.stallP99Ms),
    rssMiB: use.rssMiB,
    falseDeaths: use.hosts.silent ?? 0,
  }
}

function print(result: Record<string, unknown>): void {
  if (options.json) {
    console.log(JSON.stringify(result))
    return
  }
  for (const [part, values] of Object.entries(result)) {
    const cells = Object.entries(values as object).map(([name, value]) => {
      const shown = typeof value === 'object' ? Object.values(value as object).join(' / ') : value
      return `  ${name.padEnd(24)} ${shown}`
    })
    console.log(`${part}\n${cells.join('\n')}`)
  }
}

async function run(data: string): Promise<Record<string, unknown>> {
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
      const body = { beats: [{ host, credential }] }
      await pool.use((connection) => connection.request('POST', '/v1/heartbeats', credential, body))
    },
  })
  await idle.start()
  // The first round tells each host the session; the second is what an idle minute is like.
  await sleep(BEAT_SEC * 1000)
  await told<CoreUse>(core, 'use')
  const atFirst = { ...idle.counts }
  await sleep(BEAT_SEC * 1000)
  const rest = await told<CoreUse>(core, 'use')
  const rested = { ...idle.counts }
  const result: Record<string, unknown> = {
    world: { hosts: HOSTS, members: MEMBERS, readySec: round(ports.readySec), rssMiB: ports.rssMiB },
    rest: spanOf(rest, { ...atFirst }, { ...rested }),
  }
  if (options.transport) result.httpHeartbeats = await measureHttpBeats(core, ports.http)
  else if (SECONDS > 0) Object.assign(result, await runChurn(core, idle, pool, dns))
  idle.stop()
  core.send('stop')
  await once(core, 'exit')
  pool.close()
  dns.close()
  return result
}

async function runChurn(
  core: ChildProcess,
  idle: IdleHosts,
  pool: HttpPool,
  dns: DnsQuestions,
): Promise<Record<string, unknown>> {
  const times: Times = { join: [], find: [], leave: [] }
  const outcome: Outcome = {
    joined: 0,
    left: 0,
    foundAtOnce: 0,
    foundLater: 0,
    neverFound: 0,
    foundAfterLeaving: 0,
    lastJoinMs: 0,
  }
  const before = { ...idle.counts }
  const loadBefore = process.cpuUsage()
  const startMs = performance.now()
  await churn(pool, dns, times, outcome)
  const load = process.cpuUsage(loadBefore)
  const use = await told<CoreUse>(core, 'use')
  const [seconds, after] = [use.wallSec, { ...idle.counts }]
  const joinedSec = (outcome.lastJoinMs - startMs) / 1000
  const beats = after.answered - before.answered
  return {
    churn: {
      by: options.by,
      joinsPerSec: Math.round(outcome.joined / joinedSec),
      leavesPerSec: Math.round(outcome.left / joinedSec),
      joined: outcome.joined,
      left: outcome.left,
      foundAtOnce: outcome.foundAtOnce,
      foundLater: outcome.foundLater,
      neverFound: outcome.neverFound,
      foundAfterLeaving: outcome.foundAfterLeaving,
      'join p50 / p99 / max ms': spread(times.join),
      'find p50 / p99 / max ms': spread(times.find),
      'leave p50 / p99 / max ms': spread(times.leave),
      ...spanOf(use, { ...before }, after),
      loadCpuShare: round((load.user + load.system) / 1e6 / seconds),
      commits: use.counters['store.commits'],
    },
    messages: {
      perJoin: 1,
      perLeave: 1,
      perIdleHostMinute: round(
        ((beats + after.again - before.again + after.called - before.called) / HOSTS / seconds) * 60,
      ),
    },
  }
}

const data = mkdtempSync(join(tmpdir(), 'nearcast-churn-'))
try {
  print(await run(data))
} finally {
  rmSync(data, { recursive: true, force: true })
}
