// What cores tell each other while nothing happens: commits and records a second, of many quiet hosts.
//
//   npm run -s bench:quiet -- [--hosts 100000] [--seconds 120] [--cores 3] [--swing 0.1] [--json]
// Cores in one process over one store in memory, on a clock that the program moves. Quiet is not still: each host
// beats every ten seconds with a load that swings about its mean by a tenth (--swing), and answers the echo orders
// that it gets with RTTs up to 10% over those of its place. They have been there for weeks: they know where they
// are and whom they measure.

import { parseArgs } from 'node:util'
import { Core } from '../../core-node/core.ts'
import { hashSecret } from '../../core-node/registry/credentials.ts'
import { loadConfig } from '../../core-node/settings/config.ts'
import { SharedMemory } from '../../db/shared-memory.ts'
import { applyChanges, type Change, emptyDirectory } from '../../resolver/directory.ts'
import { openEcho } from '../../server-agent/protocol/echo-socket.ts'
import type { Beat, Order, OrderResult } from '../../server-agent/protocol/messages.ts'
import { aHost, aMember, aService, ofHost, ofMember, ofService } from '../support/records.ts'
import { seededRng } from '../support/seeded-rng.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

const { values: options } = parseArgs({
  options: {
    hosts: { type: 'string', default: '100000' },
    seconds: { type: 'string', default: '120' },
    cores: { type: 'string', default: '3' },
    swing: { type: 'string', default: '0.1' },
    json: { type: 'boolean', default: false },
  },
})
const HOSTS = Number(options.hosts)
const SECONDS = Number(options.seconds)
const SWING = Number(options.swing)
const CORES = Array.from({ length: Number(options.cores) }, (_, i) => `core${i}`)
const BEAT_SEC = 10
const LEASE_SEC = 30
const STEP_MS = 250
/** Whom a host measures, as the planner lets it. */
const PEERS = 32
const WARM_SEC = 12

const rng = seededRng(11)
const clock = { ms: 0, epochMs: () => Date.UTC(2026, 0, 1) + clock.ms, monotonicMs: () => clock.ms }

/** Places: a plane of 200 ms, and a way to the net. */
const places = Array.from({ length: HOSTS }, () => [200 * rng(), 200 * rng(), 1 + 4 * rng()] as const)
const rttMs = (a: number, b: number) => {
  const [ax, ay, ah] = places[a]!
  const [bx, by, bh] = places[b]!
  return Math.hypot(ax - bx, ay - by) + ah + bh
}
const meanLoad = (i: number) => 20 + (i % 50)
const credential = (i: number) => `nch_quiet-${i}`
const homeOf = (i: number) => i % CORES.length

function world(): SharedMemory {
  const changes: Change[] = [ofService(aService({ verify: 'none' }))]
  for (let i = 0; i < HOSTS; i++) {
    const [x, y, heightMs] = places[i]!
    const peers = Array.from({ length: PEERS }, () => Math.floor(rng() * HOSTS)).filter((peer) => peer !== i)
    const address = `10.${(i >> 16) & 255}.${(i >> 8) & 255}.${i & 255}`
    changes.push(
      ofHost(
        aHost(`h${i}`, {
          addresses: [address],
          echo: { address, port: 4000 },
          echoKey: '00'.repeat(32),
          home: CORES[homeOf(i)]!,
          leaseSec: LEASE_SEC,
          coordinate: { vec: [x, y, 0, 0, 0, 0, 0, 0], heightMs, adjustmentMs: 0, error: 0.1 },
          meshMs: Object.fromEntries(peers.map((peer) => [`h${peer}`, rttMs(i, peer)])),
          credentialHash: hashSecret(credential(i)),
          tokenId: 'weeks-ago',
        }),
      ),
      ofMember(aMember(`h${i}`, { port: 80, capacity: 100, load: meanLoad(i) })),
    )
  }
  const directory = emptyDirectory()
  applyChanges(directory, changes)
  return new SharedMemory(directory)
}

async function openCore(shared: SharedMemory, name: string): Promise<Core> {
  const flags = {
    name,
    data: temporaryFolder(),
    store: 'etcd://127.0.0.1:1',
    geo: 'none',
    dns: '127.0.0.1:0',
    http: '127.0.0.1:0',
  }
  const config = loadConfig({ flags, env: {}, file: null })
  const echo = await openEcho({ host: '127.0.0.1', port: 0, key: () => null })
  const log = { info() {}, warn() {}, error() {} }
  return Core.open({ config, store: shared.open(), geography: null, echo, clock, rng, log })
}

/** What the hosts will report with their next beats. */
const results: (OrderResult[] | undefined)[] = []

function carryOut(host: number, orders: readonly Order[]): void {
  const done = orders.flatMap((order) => {
    if (order.kind !== 'echo' || !order.host.startsWith('h')) return []
    const ms = rttMs(host, Number(order.host.slice(1))) * (1 + 0.1 * rng())
    return [{ id: order.id, rttsMs: [ms], sent: 1 }]
  })
  if (done.length > 0) results[host] = done
}

/** One step: a fortieth of all hosts beats, at the homes they have. */
async function step(cores: readonly Core[], number: number, swing: number): Promise<void> {
  clock.ms += STEP_MS
  const turns = (BEAT_SEC * 1000) / STEP_MS
  for (const [c, core] of cores.entries()) {
    const hosts: number[] = []
    for (let i = number % turns; i < HOSTS; i += turns) if (homeOf(i) === c) hosts.push(i)
    for (let at = 0; at < hosts.length; at += 1000) {
      const part = hosts.slice(at, at + 1000)
      const beats = part.map((i): Beat => {
        const load = meanLoad(i) * (1 + swing * (2 * rng() - 1))
        const done = results[i] ?? []
        results[i] = undefined
        return {
          host: `h${i}`,
          credential: credential(i),
          members: [{ service: 'web', name: `h${i}`, load }],
          results: done,
        }
      })
      const reply = await core.heartbeat({ beats })
      for (const [j, { orders }] of reply.beats.entries()) carryOut(part[j]!, orders)
    }
    core.tick()
  }
  for (let turn = 0; turn < 8; turn++) await new Promise((resolve) => setImmediate(resolve))
}

interface Told {
  readonly commits: number
  readonly records: number
  readonly echoes: number
}

function told(cores: readonly Core[]): Told {
  const sum = (what: string) => cores.reduce((all, core) => all + (core.counters.snapshot()[what] ?? 0), 0)
  return { commits: sum('store.commits'), records: sum('store.changes'), echoes: sum('results.mesh') }
}

async function measure(cores: readonly Core[], swing: number): Promise<Record<string, number>> {
  const steps = (seconds: number) => (seconds * 1000) / STEP_MS
  for (let i = 0; i < steps(WARM_SEC); i++) await step(cores, i, swing)
  const before = told(cores)
  for (let i = 0; i < steps(SECONDS); i++) await step(cores, i, swing)
  const after = told(cores)
  const perSec = (what: keyof Told) => Math.round((100 * (after[what] - before[what])) / SECONDS) / 100
  return {
    'commits a second': perSec('commits'),
    'records a second': perSec('records'),
    'echoes a second': perSec('echoes'),
  }
}

const shared = world()
const cores: Core[] = []
for (const name of CORES) cores.push(await openCore(shared, name))
const heartbeats = HOSTS / BEAT_SEC
const result = {
  hosts: HOSTS,
  cores: CORES.length,
  seconds: SECONDS,
  'heartbeats a second': heartbeats,
  'loads swing by': SWING,
  told: await measure(cores, SWING),
}
if (options.json) console.log(JSON.stringify(result))
else {
  console.log(
    `${HOSTS} hosts at ${CORES.length} cores, ${heartbeats} heartbeats a second, all cores together:`,
  )
  console.table({ [`loads swing by ${SWING}`]: result.told })
}
process.exit(0)
