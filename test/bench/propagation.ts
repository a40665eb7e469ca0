// How soon all cores answer alike: a member's death at one core, and thousands that register at once.
//
//   npm run -s bench:propagation -- [--deaths 200] [--members 10000] [--per-host 1] [--json]
// Three real cores over three real etcd servers, all on this machine. A death is told to the member's home by a
// heartbeat; the clock runs from that being sent until each of the two other cores answers DNS without the member. A
// crowd registers at all three cores at once, over HTTP; the clock runs from the first request until each of
// the cores counts all of them live.

import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { EtcdServers } from '../support/etcd-servers.ts'
import { api, type CoreProcess, startCore } from '../support/processes.ts'
import { DnsQuestions } from './churn-dns.ts'
import { HttpPool } from './churn-http.ts'

const { values: options } = parseArgs({
  options: {
    deaths: { type: 'string', default: '200' },
    members: { type: 'string', default: '10000' },
    'per-host': { type: 'string', default: '1' },
    json: { type: 'boolean', default: false },
  },
})
const DEATHS = Number(options.deaths)
const MEMBERS = Number(options.members)
const PER_HOST = Number(options['per-host'])
const SERVICE = 'web'
const CONNECTIONS = 64
/** No host is to beat while this runs. */
const LEASE_SEC = 300
const ASK_EVERY_MS = 2
const COUNT_EVERY_MS = 100
const GIVE_UP_MS = 60_000
const APART_MS = 40

interface Door {
  readonly core: CoreProcess
  readonly http: HttpPool
  readonly dns: DnsQuestions
}

interface Mortal {
  readonly name: string
  readonly credential: string
  readonly home: Door
}

async function register(door: Door, token: string, host: string, members: number): Promise<string> {
  const body = {
    addresses: [addressOf(host)],
    leaseSec: LEASE_SEC,
    members: Array.from({ length: members }, (_, i) => ({
      service: SERVICE,
      name: members === 1 ? host : `${host}-${i}`,
      port: 80,
      health: 'up',
    })),
  }
  const reply = await door.http.use((connection) =>
    connection.request('PUT', `/v1/hosts/${host}`, token, body),
  )
  if (reply.status !== 200) throw new Error(`${host}: ${reply.status} ${reply.body}`)
  return (JSON.parse(reply.body) as { credential: string }).credential
}

/** One of its own, by its number. */
function addressOf(host: string): string {
  const number = Number(host.replace(/\D/g, '')) + (host.startsWith('d') ? 1 << 16 : 0)
  return `10.${(number >> 16) & 255}.${(number >> 8) & 255}.${number & 255}`
}

async function secondsUntilSettled(
  doors: readonly Door[],
  members: number,
  startMs: number,
): Promise<number[]> {
  return Promise.all(
    doors.map(async ({ core }) => {
      while (performance.now() - startMs < GIVE_UP_MS) {
        const status = (await (await api(core, 'GET', 'status')).json()) as { members: { live: number } }
        if (status.members.live >= members) return (performance.now() - startMs) / 1000
        await sleep(COUNT_EVERY_MS)
      }
      throw new Error(`${core.url} knows fewer than ${members} members after ${GIVE_UP_MS} ms`)
    }),
  )
}

async function crowd(doors: readonly Door[], token: string): Promise<Record<string, unknown>> {
  const hosts = Math.ceil(MEMBERS / PER_HOST)
  const startMs = performance.now()
  const settled = secondsUntilSettled(doors, hosts * PER_HOST + doors.length, startMs)
  const joins = Array.from({ length: hosts }, (_, i) =>
    register(doors[i % doors.length]!, token, `c${i}`, PER_HOST),
  )
  await Promise.all(joins)
  const answeredSec = (performance.now() - startMs) / 1000
  return {
    members: hosts * PER_HOST,
    hosts,
    'last answered s': round(answeredSec),
    'settled everywhere s': round(Math.max(...(await settled))),
  }
}

async function deaths(doors: readonly Door[], token: string): Promise<Record<string, unknown>> {
  const mortals = await Promise.all(
    Array.from({ length: DEATHS }, async (_, i): Promise<Mortal> => {
      const home = doors[i % doors.length]!
      return { name: `d${i}`, home, credential: await register(home, token, `d${i}`, 1) }
    }),
  )
  await sleep(2000)
  const ownMs: number[] = []
  const othersMs: number[] = []
  for (const mortal of mortals) {
    const others = doors.filter((door) => door !== mortal.home)
    const startMs = performance.now()
    const members = [{ service: SERVICE, name: mortal.name, health: 'down' }]
    const beats = [{ host: mortal.name, credential: mortal.credential, members }]
    const said = mortal.home.http.use((connection) =>
      connection.request('POST', '/v1/heartbeats', mortal.credential, { beats }),
    )
    othersMs.push(...(await Promise.all(others.map((door) => msUntilGone(door, mortal.name, startMs)))))
    ownMs.push(await msUntilGone(mortal.home, mortal.name, startMs))
    await said
    await sleep(APART_MS)
  }
  return {
    deaths: DEATHS,
    'others p50 / p99 / max ms': spread(othersMs),
    'home itself p50 / p99 / max ms': spread(ownMs),
  }
}

async function msUntilGone({ dns }: Door, member: string, startMs: number): Promise<number> {
  while (performance.now() - startMs < GIVE_UP_MS) {
    if ((await dns.find(member, SERVICE)) === 0) return performance.now() - startMs
    await sleep(ASK_EVERY_MS)
  }
  throw new Error(`${member} is still answered with after ${GIVE_UP_MS} ms`)
}

function spread(values: readonly number[]): string {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!
  return [at(0.5), at(0.99), at(1)].map(round).join(' / ')
}

const round = (value: number) => Math.round(value * 100) / 100

const etcd = await EtcdServers.start({ count: 3 })
const cores: CoreProcess[] = []
const doors: Door[] = []
try {
  for (const name of ['a', 'b', 'c']) {
    const flags = ['--name', name, '--store', etcd.url, '--requests-per-minute', '1000000']
    const core = await startCore({ flags })
    cores.push(core)
    const http = new HttpPool(Number(new URL(core.url).port), CONNECTIONS)
    doors.push({ core, http, dns: await DnsQuestions.open(core.dnsPort) })
  }
  await api(cores[0]!, 'PUT', `services/${SERVICE}`, { verify: 'none' })
  const { secret } = (await (await api(cores[0]!, 'POST', 'tokens', { services: [SERVICE] })).json()) as {
    secret: string
  }
  await sleep(1000)
  const result = { crowd: await crowd(doors, secret), deaths: await deaths(doors, secret) }
  if (options.json) console.log(JSON.stringify(result))
  else for (const [what, row] of Object.entries(result)) console.table({ [what]: row })
} finally {
  for (const { http, dns } of doors) {
    http.close()
    dns.close()
  }
  for (const { process } of cores) process.kill('SIGKILL')
  await etcd.close()
}
