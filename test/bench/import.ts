// What importing whole tables of announced prefixes costs a running core, and what starting with them does.
//
//   npm run -s bench:import -- --table FILE [--table FILE ...] [--json]
// A real core over SQLite and the real command `locality import`, while DNS queries are asked one after
// another and timed; then the core is stopped, started again and asked where a client is. Linux tells the memory.
// What of a wait is the core's doing is told apart: beside it a bare echo is asked in the same way, and for each answer
// it is read how long the core's DNS worker ran meanwhile, and how long it waited for a processor.

import { type ChildProcess, spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { encode } from 'dns-packet'
import { hasMmsg } from '../../resolver/mmsg.ts'
import { takeShortTurns } from '../../resolver/thread-turns.ts'
import { api, type CoreProcess, freePort, nearcast, startCore, until } from '../support/processes.ts'
import { openThreadTimes, type ThreadTimes } from './thread-times.ts'

const { values: options } = parseArgs({
  options: { table: { type: 'string', multiple: true }, json: { type: 'boolean', default: false } },
})
if (options.table === undefined) {
  console.error('bench:import needs --table FILE: what `nearcast locality import` takes')
  process.exit(2)
}

/** MiB; null where the system does not tell. */
function residentMiB(core: CoreProcess): number | null {
  try {
    const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${core.process.pid}/status`, 'utf8'))?.[1]
    return Math.round(Number(kib) / 1024)
  } catch {
    return null
  }
}

const ASK_EVERY_MS = 2
/** An answer that is late, ms. */
const LATE_MS = 5
const SLOWEST = 5
const WARM_MS = 1000
const IDLE_MS = 2000

interface Ask extends Partial<ThreadTimes> {
  readonly ms: number
}

/**
 * Asks one query after another, each 2 ms after the answer to the one before, until stopped. `times`: those of the
 * thread that answers; what it did until the next query is asked counts for the one before.
 */
function askMeanwhile(port: number, times: (() => ThreadTimes) | null): () => Promise<Ask[]> {
  const socket = createSocket('udp4')
  const query = encode({ type: 'query', id: 1, questions: [{ name: 'core.any.test', type: 'A' }] })
  const asks: Ask[] = []
  let going = true
  const asking = (async () => {
    let before = times?.()
    while (going) {
      const startMs = performance.now()
      socket.send(query, port, '127.0.0.1')
      await once(socket, 'message')
      const ms = performance.now() - startMs
      await new Promise((resolve) => setTimeout(resolve, ASK_EVERY_MS))
      const after = times?.()
      asks.push(before && after ? { ms, ...between(before, after) } : { ms })
      before = after
    }
    socket.close()
  })()
  return async () => {
    going = false
    await asking
    return asks
  }
}

function between(before: ThreadTimes, after: ThreadTimes): ThreadTimes {
  return { ranMs: after.ranMs - before.ranMs, waitedMs: after.waitedMs - before.waitedMs }
}

/** Both at once: the core's DNS and the echo. */
function askBoth(core: CoreProcess, echoPort: number | null): () => Promise<object> {
  const stopCore = askMeanwhile(core.dnsPort, openThreadTimes(core.process.pid!, 'dns-'))
  const stopEcho = echoPort === null ? null : askMeanwhile(echoPort, null)
  return async () => {
    const [asks, echoes] = await Promise.all([stopCore(), stopEcho?.() ?? null])
    const told = asks.filter((ask) => ask.ranMs !== undefined)
    const slowest = asks.toSorted((a, b) => b.ms - a.ms).slice(0, SLOWEST)
    return {
      answers: spread(asks.map(({ ms }) => ms)),
      echo: echoes && spread(echoes.map(({ ms }) => ms)),
      workerRan: told.length === 0 ? null : spread(told.map(({ ranMs }) => ranMs!)),
      workerWaited: told.length === 0 ? null : spread(told.map(({ waitedMs }) => waitedMs!)),
      slowest: slowest.map((ask) =>
        Object.fromEntries(Object.entries(ask).map(([of, ms]) => [of, round(ms)])),
      ),
    }
  }
}

async function askFor(ms: number, core: CoreProcess, echoPort: number | null): Promise<object> {
  const stop = askBoth(core, echoPort)
  await new Promise((resolve) => setTimeout(resolve, ms))
  return stop()
}

function spread(times: number[]): object {
  times.sort((a, b) => a - b)
  const at = (share: number) => round(times[Math.min(times.length - 1, Math.floor(share * times.length))]!)
  return {
    queries: times.length,
    p50Ms: at(0.5),
    p99Ms: at(0.99),
    p999Ms: at(0.999),
    maxMs: at(1),
    late: times.filter((ms) => ms > LATE_MS).length,
  }
}

/** null: not on this system. */
async function startEcho(): Promise<{ readonly process: ChildProcess; readonly port: number } | null> {
  if (!hasMmsg()) return null
  const port = await freePort()
  const file = fileURLToPath(new URL('echo-peer.ts', import.meta.url))
  const peer = spawn(process.execPath, [file, `${port}`], { stdio: 'inherit' })
  const socket = createSocket('udp4')
  const heard = once(socket, 'message')
  const knocking = setInterval(() => socket.send('?', port, '127.0.0.1'), 50)
  await heard
  clearInterval(knocking)
  socket.close()
  return { process: peer, port }
}

async function places(core: CoreProcess): Promise<number> {
  return ((await (await api(core, 'GET', 'status')).json()) as { places: number }).places
}

async function stop(core: CoreProcess): Promise<void> {
  core.process.kill('SIGTERM')
  await core.ended
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}

// It is not to wait for its own turn when it times others.
if (hasMmsg()) takeShortTurns(100)
const echo = await startEcho()
const core = await startCore()
const { data } = core
let running = core
try {
  const emptyMiB = residentMiB(core)
  // Not counted: what is compiled when it is first asked for, and a worker that is still starting.
  await askFor(WARM_MS, core, echo?.port ?? null)
  const idleTimes = await askFor(IDLE_MS, core, echo?.port ?? null)
  const imports = []
  for (const file of options.table) {
    const before = await places(core)
    const stopAsking = askBoth(core, echo?.port ?? null)
    const startMs = performance.now()
    const { code, err } = await nearcast(core, 'locality', 'import', file)
    const sec = round((performance.now() - startMs) / 1000)
    const waits = await stopAsking()
    if (code !== 0) throw new Error(err)
    imports.push({
      file,
      places: (await places(core)) - before,
      sec,
      ...waits,
      residentMiB: residentMiB(core),
    })
  }
  await stop(core)

  // What was imported last is somewhere: its first place must be told again.
  const startMs = performance.now()
  running = await startCore({ data })
  const readySec = round((performance.now() - startMs) / 1000)
  const known = await places(running)
  await until('a client is placed', async () => {
    const reply = await api(running, 'GET', 'localities/1.0.4.9')
    return ((await reply.json()) as { place: object | null }).place !== null
  })
  const report = {
    empty: { residentMiB: emptyMiB, ...idleTimes },
    imports,
    databaseMiB: round(statSync(join(data, 'nearcast.db')).size / 2 ** 20),
    restart: {
      readySec,
      firstPlaceSec: round((performance.now() - startMs) / 1000),
      places: known,
      residentMiB: residentMiB(running),
    },
  }
  console.log(JSON.stringify(report, null, options.json ? 0 : 2))
} finally {
  echo?.process.kill()
  await stop(running)
  rmSync(data, { recursive: true, force: true })
}
