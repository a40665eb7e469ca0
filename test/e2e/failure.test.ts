// What happens when things die, with real processes, sockets and signals: agents and cores are killed,
// stopped and ended while clients ask by DNS and HTTP all the time.

import t from 'tap'
import {
  api,
  askDns,
  type Child,
  type CoreProcess,
  nearcast,
  startAgent,
  startCore,
  until,
} from '../support/processes.ts'

t.setTimeout(180_000)

const NAMES = ['a', 'b', 'c', 'd', 'e']

interface Fleet {
  readonly core: CoreProcess
  readonly agents: Map<string, Child>
}

const addressOf = (name: string) => `127.0.7.${NAMES.indexOf(name) + 1}`

async function startFleet(core: CoreProcess): Promise<Fleet> {
  await nearcast(core, 'service', 'put', 'mirror', '--max-addrs', '16', '--min-addrs', '16')
  const token = (await nearcast(core, 'token', 'create', '--service', 'mirror')).out.trim()
  const agents = new Map<string, Child>()
  for (const name of NAMES) {
    const address = addressOf(name)
    const args = [
      '--service',
      'mirror',
      '--address',
      address,
      '--echo',
      `${address}:0`,
      '--url',
      `http://${address}/`,
    ]
    agents.set(name, startAgent(core, token, name, args))
  }
  const fleet = { core, agents }
  await until('all agents are live', async () => (await named(fleet)).length === NAMES.length)
  return fleet
}

/** Members that DNS names now. */
async function named({ core }: Fleet): Promise<string[]> {
  const addresses = await askDns(core, 'mirror.any.test')
  return NAMES.filter((name) => addresses?.includes(addressOf(name)))
}

/** Members that the API would send a client to now. */
async function redirected({ core }: Fleet): Promise<string[]> {
  const reply = (await (await api(core, 'GET', 'services/mirror/neighbors?k=16')).json()) as {
    members: { name: string }[]
  }
  return reply.members.map((member) => member.name).sort()
}

async function endFleet({ core, agents }: Fleet): Promise<void> {
  for (const child of agents.values()) child.process.kill('SIGKILL')
  core.process.kill('SIGTERM')
  await core.ended
}

/** Asks every 100 ms while `work` runs; tells which of `live` were ever missing, and when each name was last seen. */
async function watch(fleet: Fleet, live: readonly string[], work: () => Promise<void>) {
  const missing = new Set<string>()
  const lastSeenMs = new Map<string, number>()
  let over = false
  const watching = (async () => {
    while (!over) {
      const [dns, http] = await Promise.all([named(fleet), redirected(fleet)])
      for (const name of [...dns, ...http]) lastSeenMs.set(name, Date.now())
      for (const name of live) if (!dns.includes(name) || !http.includes(name)) missing.add(name)
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  })()
  await work()
  over = true
  await watching
  return { missing: [...missing], lastSeenMs }
}

t.test('members leave when they should and never when they should not', { timeout: 120_000 }, async (t) => {
  const core = await startCore()
  const fleet = await startFleet(core)
  t.teardown(() => endFleet(fleet))

  await t.test(
    'an agent that is killed is out of DNS and HTTP within 10 s, and nobody else ever is',
    async (t) => {
      const killedMs = Date.now()
      const { missing, lastSeenMs } = await watch(fleet, ['b', 'c', 'd', 'e'], async () => {
        fleet.agents.get('a')!.process.kill('SIGKILL')
        await new Promise((resolve) => setTimeout(resolve, 11_000))
      })
      t.same(missing, [])
      const tookMs = lastSeenMs.get('a')! - killedMs
      t.ok(tookMs <= 10_000, `named for ${tookMs} ms more`)
      const dead = await askDns(core, 'a.mirror.any.test')
      t.same(dead, [], 'its own name is known but has no address')
    },
  )

  await t.test('an agent that is asked to end is out of the answers before it exits', async (t) => {
    const child = fleet.agents.get('b')!
    child.process.kill('SIGTERM')
    await child.ended
    t.same(await named(fleet), ['c', 'd', 'e'])
    t.equal(child.process.exitCode, 0)
  })

  await t.test('an agent that is started again finds itself again by its state', async (t) => {
    const args = ['--service', 'mirror', '--address', addressOf('b'), '--echo', `${addressOf('b')}:0`]
    fleet.agents.set('b', startAgent(core, 'nct_no-token-is-needed', 'b', args))
    await until('b is back', async () => (await named(fleet)).includes('b'))
    t.pass('with its credential alone')
  })

  await t.test('a core that is stopped for 15 s and goes on drops nobody', { timeout: 60_000 }, async (t) => {
    core.process.kill('SIGSTOP')
    await new Promise((resolve) => setTimeout(resolve, 15_000))
    core.process.kill('SIGCONT')
    const { missing } = await watch(
      fleet,
      ['b', 'c', 'd', 'e'],
      () => new Promise((resolve) => setTimeout(resolve, 9_000)),
    )
    t.same(missing, [])
  })
})

t.test('what a core acknowledged is there after kill -9 in the middle of registrations', async (t) => {
  let core = await startCore()
  t.teardown(() => core.process.kill('SIGKILL'))
  await api(core, 'PUT', 'services/load', { verify: 'none' })
  const acknowledged = new Set<string>()
  let serial = 0
  for (let round = 0; round < 3; round++) {
    const stopMs = Date.now() + 300 + 150 * round
    const register = async () => {
      while (core.process.exitCode === null && core.process.signalCode === null) {
        const name = `m${serial++}`
        const body = { addresses: ['127.0.0.1'], port: 9 }
        const reply = await api(core, 'PUT', `services/load/members/${name}`, body).catch(() => null)
        if (reply?.ok) acknowledged.add(name)
        if (Date.now() > stopMs) core.process.kill('SIGKILL')
      }
    }
    await Promise.all(Array.from({ length: 8 }, register))
    await core.ended
    const { data, dnsPort, url } = core
    core = await startCore({ data, dnsPort, httpPort: Number(new URL(url).port) })
    const reply = (await (await api(core, 'GET', 'services/load/members?limit=10000')).json()) as {
      members: { name: string }[]
    }
    const kept = new Set(reply.members.map((member) => member.name))
    t.same(
      [...acknowledged].filter((name) => !kept.has(name)),
      [],
      `of ${acknowledged.size} after kill ${round + 1}`,
    )
  }
  t.ok(acknowledged.size > 20, 'and it was many')
})
