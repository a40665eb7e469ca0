// Three real cores over three real etcd servers, with real agents: what users see when a core or a server dies.

import { once } from 'node:events'
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

const home = async (core: CoreProcess, host: string) =>
  ((await (await api(core, 'GET', `hosts/${host}`)).json()) as { home?: string }).home

t.test(
  'a core and a server die by kill -9: no answer fails, hosts find a new home, the dead leave',
  { skip },
  async (t) => {
    const cluster = await startCluster(t)
    const { etcd, cores } = cluster
    const [a, b, c] = cores as [CoreProcess, CoreProcess, CoreProcess]
    await agentAt(cluster, c, 'stays', '127.0.0.21')
    const dies = await agentAt(cluster, c, 'dies', '127.0.0.22')
    await agentAt(cluster, a, 'other', '127.0.0.23')
    await until(
      'all are answered with everywhere',
      answers(cores, ['127.0.0.21', '127.0.0.22', '127.0.0.23']),
    )

    etcd.kill(etcd.leader())
    c.process.kill('SIGKILL')
    dies.process.kill('SIGKILL')
    await once(c.process, 'exit').catch(() => {})
    const failed: string[] = []
    let isOver = false
    const asking = (async () => {
      while (!isOver) {
        for (const core of [a, b]) {
          const got = await askDns(core, 'web.any.test')
          if (got === null || !got.includes('127.0.0.23') || !got.includes('127.0.0.21'))
            failed.push(String(got))
        }
      }
    })()
    await until('the dead one is out', answers([a, b], ['127.0.0.21', '127.0.0.23']), 30_000)
    isOver = true
    await asking
    t.same(failed, [], 'while nobody else ever left')
    const put = await api(b, 'PUT', 'services/more', {})
    t.equal(put.status, 201, 'two servers of three take changes')
    await until('and all know of them', async () => (await api(a, 'GET', 'services/more')).ok)
    await until('its last host has a home', async () => (await home(a, 'stays')) !== 'c')
  },
)
