// Three real cores over three real etcd servers, with real agents: what users see when a core or a server dies.

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Answer, decode, encode } from 'dns-packet'
import t, { type Test } from 'tap'
import { EtcdServers, noEtcd } from '../support/etcd-servers.ts'
import {
  api,
  askDns,
  type Child,
  type CoreProcess,
  startAgent,
  startCore,
  until,
} from '../support/processes.ts'

const skip = noEtcd()
// Nine processes start, and leases end.
t.setTimeout(120_000)
const NAMES = ['a', 'b', 'c']
const WEB = ['--service', 'web', '--port', '80']

interface Cluster {
  readonly etcd: EtcdServers
  readonly cores: CoreProcess[]
  readonly agents: Child[]
}

async function startCluster(t: Test): Promise<Cluster> {
  const etcd = await EtcdServers.start({ count: 3 })
  const start = (name: string) => startCore({ flags: ['--name', name, '--store', etcd.url] })
  const cores = await Promise.all(NAMES.map(start))
  const cluster = { etcd, cores, agents: [] }
  t.teardown(() => end(cluster))
  const put = await api(cores[0]!, 'PUT', 'services/web', { verify: 'none', maxAddrs: 8, minAddrs: 8 })
  if (!put.ok) throw new Error(await put.text())
  return cluster
}

async function end({ etcd, cores, agents }: Cluster): Promise<void> {
  for (const child of [...agents, ...cores]) child.process.kill('SIGKILL')
  await etcd.close()
}

async function agentAt(cluster: Cluster, core: CoreProcess, name: string, address: string): Promise<Child> {
  const token = (await (await api(core, 'POST', 'tokens', { services: ['web'] })).json()) as {
    secret: string
  }
  const agent = startAgent(core, token.secret, name, [...WEB, '--address', address])
  cluster.agents.push(agent)
  return agent
}

/** Every core of these answers with exactly these addresses. */
const answers = (cores: readonly CoreProcess[], addresses: readonly string[]) => async () => {
  const all = await Promise.all(cores.map((core) => askDns(core, 'web.any.test')))
  return all.every((got) => got !== null && [...got].sort().join() === [...addresses].sort().join())
}

/** As a resolver asks: again where a packet was lost. */
async function resolve(core: CoreProcess): Promise<string[] | null> {
  for (let tries = 1; ; tries++) {
    const got = await askDns(core, 'web.any.test')
    if (got !== null || tries === 3) return got
  }
}

/** What a core holds, as digests by kind. */
async function digest(core: CoreProcess): Promise<string> {
  const { kinds } = (await (await api(core, 'GET', 'directory')).json()) as { kinds: object }
  return JSON.stringify(kinds)
}

const readiness = async (core: CoreProcess, query = '') => {
  const reply = await fetch(`${core.url}/readyz${query}`)
  return { status: reply.status, ...((await reply.json()) as { degraded?: string[] }) }
}

/** Agents choose their home themselves. */
async function homeOf(
  cores: readonly CoreProcess[],
  host: string,
  asked: CoreProcess = cores[0]!,
): Promise<CoreProcess> {
  const { home } = (await (await api(asked, 'GET', `hosts/${host}`)).json()) as { home: string }
  return cores[NAMES.indexOf(home)]!
}

t.test(
  'a core and a server die by kill -9: no answer fails, hosts find a new home, the dead leave',
  { skip },
  async (t) => {
    const cluster = await startCluster(t)
    const { etcd, cores } = cluster
    await agentAt(cluster, cores[2]!, 'stays', '127.0.0.21')
    const dies = await agentAt(cluster, cores[2]!, 'dies', '127.0.0.22')
    await agentAt(cluster, cores[0]!, 'other', '127.0.0.23')
    await until(
      'all are answered with everywhere',
      answers(cores, ['127.0.0.21', '127.0.0.22', '127.0.0.23']),
    )

    const its = await homeOf(cores, 'dies')
    const [a, b] = cores.filter((core) => core !== its) as [CoreProcess, CoreProcess]
    const killedMs = performance.now()
    etcd.kill(etcd.leader())
    its.process.kill('SIGKILL')
    dies.process.kill('SIGKILL')
    const failed: string[] = []
    let isOver = false
    const asking = (async () => {
      while (!isOver) {
        for (const core of [a, b]) {
          const got = await resolve(core)
          if (got === null || !got.includes('127.0.0.23') || !got.includes('127.0.0.21'))
            failed.push(String(got))
        }
      }
    })()
    await until('the dead one is out', answers([a, b], ['127.0.0.21', '127.0.0.23']), 30_000)
    t.comment(`out ${Math.round(performance.now() - killedMs)} ms after it died with its home`)
    isOver = true
    await asking
    t.same(failed, [], 'while nobody else ever left')
    const put = await api(b, 'PUT', 'services/more', {})
    t.equal(put.status, 201, 'two servers of three take changes')
    await until('and all know of them', async () => (await api(a, 'GET', 'services/more')).ok)
    for (const name of ['stays', 'other']) {
      await until(`${name} has a home`, async () => (await homeOf(cores, name, a)) !== its)
    }
  },
)

t.test('who follows a store that no core has begun yet answers, cookies or not', { skip }, async (t) => {
  const etcd = await EtcdServers.start({ count: 1 })
  t.teardown(() => etcd.close())
  const follower = await startCore({ flags: ['--name', 'early', '--store', etcd.url, '--follow'] })
  t.teardown(() => follower.process.kill('SIGKILL'))
  const socket = createSocket('udp4')
  t.teardown(() => socket.close())
  const cookie = { code: 'COOKIE', data: Buffer.from('0123456789abcdef', 'hex') } as const
  for (const options of [[], [cookie]]) {
    const opt = { type: 'OPT', name: '.', udpPayloadSize: 1232, flags: 0, options } as unknown as Answer
    const questions = [{ name: 'any.test', type: 'SOA' }] as const
    socket.send(
      encode({ type: 'query', id: 7, questions: [...questions], additionals: [opt] }),
      follower.dnsPort,
    )
    const [reply] = (await once(socket, 'message', { signal: AbortSignal.timeout(5000) })) as [Buffer]
    t.match(decode(reply), { rcode: 'NOERROR', answers: [{ type: 'SOA' }] })
  }
})

t.test('a core that starts before its etcd does waits for it', { skip }, async (t) => {
  const etcd = await EtcdServers.start({ count: 1 })
  t.teardown(() => etcd.close())
  await etcd.kill(0)
  const starting = startCore({ flags: ['--name', 'early', '--store', etcd.url], limitMs: 60_000 })
  t.teardown(async () => (await starting.catch(() => null))?.process.kill('SIGKILL'))
  // Longer than one try takes.
  await Promise.race([starting, sleep(5000)])
  await etcd.restart(0)
  const core = await starting
  t.match(core.output(), /the store does not answer yet/)
})

t.test(
  'without etcd all cores answer on, refuse what they may not decide, and are equal again soon after',
  { skip },
  async (t) => {
    const cluster = await startCluster(t)
    const { etcd, cores } = cluster
    const [a, b] = cores as [CoreProcess, CoreProcess, CoreProcess]
    const follower = await startCore({ flags: ['--name', 'far', '--store', etcd.url, '--follow'] })
    t.teardown(() => follower.process.kill('SIGKILL'))
    await agentAt(cluster, a, 'one', '127.0.0.21')
    const dies = await agentAt(cluster, b, 'dies', '127.0.0.22')
    const both = ['127.0.0.21', '127.0.0.22']
    await until('all are answered with, by the follower too', answers([...cores, follower], both))
    t.same(await readiness(a, '?strict'), { status: 200, ready: true, degraded: [] })
    t.equal((await askDns(follower, 'far.core.any.test'))?.length, 0, 'it is none of the cores')

    const its = await homeOf(cores, 'dies')
    for (const i of [0, 1, 2]) etcd.stop(i)
    dies.process.kill('SIGKILL')
    const isDegraded = async () => (await readiness(b)).degraded!.length > 0
    await until('it is noticed', isDegraded)
    t.equal((await readiness(b)).status, 200)
    t.equal((await readiness(b, '?strict')).status, 503)
    t.equal((await api(b, 'PUT', 'services/refused', {})).status, 503)
    await until('its home answers without the dead', answers([its], ['127.0.0.21']))
    const [other] = cores.filter((core) => core !== its)
    t.same((await resolve(other!))?.sort(), both, 'whom the others can’t know of')
    t.same((await resolve(follower))?.sort(), both)

    for (const i of [0, 1, 2]) etcd.continue(i)
    const healedMs = performance.now()
    const areWell = async () =>
      (await Promise.all(cores.map((core) => readiness(core, '?strict')))).every(
        ({ status }) => status === 200,
      )
    const areEqual = async () => new Set(await Promise.all(cores.map(digest))).size === 1
    await until('all are well and equal', async () => (await areWell()) && (await areEqual()))
    t.comment(`equal ${Math.round(performance.now() - healedMs)} ms after etcd was back`)
    await until('the dead is out everywhere', answers([...cores, follower], ['127.0.0.21']))
  },
)

t.test('a core that is told to stop hands its hosts over before it ends', { skip }, async (t) => {
  const cluster = await startCluster(t)
  const { cores } = cluster
  await agentAt(cluster, cores[2]!, 'one', '127.0.0.21')
  await until('it is answered with everywhere', answers(cores, ['127.0.0.21']))
  const its = await homeOf(cores, 'one')
  const others = cores.filter((core) => core !== its)
  const startMs = performance.now()
  its.process.kill('SIGTERM')
  const failed: string[] = []
  let isOver = false
  const asking = (async () => {
    while (!isOver) {
      const got = await resolve(others[0]!)
      if (got?.join() !== '127.0.0.21') failed.push(String(got))
    }
  })()
  await its.ended
  t.comment(`ended after ${Math.round(performance.now() - startMs)} ms`)
  t.equal(its.process.exitCode, 0, its.output())
  t.not(await homeOf(cores, 'one', others[0]!), its, 'its host had moved by then')
  const left = async () =>
    (await askDns(others[1]!, `${NAMES[cores.indexOf(its)]}.core.any.test`))?.length === 0
  await until('it is no core any more', left)
  isOver = true
  await asking
  t.same(failed, [])
})
