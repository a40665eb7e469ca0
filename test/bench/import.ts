// What importing whole tables of announced prefixes costs a running core, and what starting with them does.
//
//   npm run -s bench:import -- --table FILE [--table FILE ...] [--json]
// A real core over SQLite and the real command `locality import`, while DNS queries are asked one after
// another and timed; then the core is stopped, started again and asked where a client is. Linux tells the memory.

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { encode } from 'dns-packet'
import { api, type CoreProcess, nearcast, startCore, until } from '../support/processes.ts'

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

/** Asks one query after another, each 2 ms after the answer to the one before, until stopped; the times in ms. */
function askMeanwhile(core: CoreProcess): () => Promise<number[]> {
  const socket = createSocket('udp4')
  const query = encode({ type: 'query', id: 1, questions: [{ name: 'core.any.test', type: 'A' }] })
  const times: number[] = []
  let going = true
  const asking = (async () => {
    while (going) {
      const startMs = performance.now()
      socket.send(query, core.dnsPort, '127.0.0.1')
      await once(socket, 'message')
      times.push(performance.now() - startMs)
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
    socket.close()
  })()
  return async () => {
    going = false
    await asking
    return times
  }
}

function spread(times: number[]): object {
  times.sort((a, b) => a - b)
  const at = (share: number) => round(times[Math.min(times.length - 1, Math.floor(share * times.length))]!)
  return { queries: times.length, p50Ms: at(0.5), p99Ms: at(0.99), p999Ms: at(0.999), maxMs: at(1) }
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

const core = await startCore()
const { data } = core
let running = core
try {
  const emptyMiB = residentMiB(core)
  const idle = askMeanwhile(core)
  await new Promise((resolve) => setTimeout(resolve, 2000))
  const idleTimes = spread(await idle())
  const imports = []
  for (const file of options.table) {
    const before = await places(core)
    const stopAsking = askMeanwhile(core)
    const startMs = performance.now()
    const { code, err } = await nearcast(core, 'locality', 'import', file)
    const sec = round((performance.now() - startMs) / 1000)
    const answers = spread(await stopAsking())
    if (code !== 0) throw new Error(err)
    imports.push({
      file,
      places: (await places(core)) - before,
      sec,
      answers,
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
    empty: { residentMiB: emptyMiB, answers: idleTimes },
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
  await stop(running)
  rmSync(data, { recursive: true, force: true })
}
