// Agents among several cores: which one they find, stay with, leave and come back to. The choice with a clock of
// the test's own; the life of an Agent against fake cores that share one directory, over real HTTP.

import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { Agent, type AgentOptions } from '../../server-agent/agent.ts'
import { CoreList, type KnownCore } from '../../server-agent/core-list.ts'
import { findCore } from '../../server-agent/core-search.ts'
import { FakeCore, problem } from './fake-core.ts'

const MINUTE_MS = 60_000

async function until(what: string, holds: () => boolean, limitMs = 8000): Promise<void> {
  const endMs = performance.now() + limitMs
  while (!holds()) {
    if (performance.now() > endMs) throw new Error(`not within ${limitMs} ms: ${what}`)
    await sleep(5)
  }
}

// ---- which core to try

const url = (name: string): string => `https://${name}.example:8053`
const core = (name: string, ms: number | null): KnownCore => ({ name, url: url(name), ms })

/** The core at a URL takes the host. */
function settle(list: CoreList, at: string, name: string, nowMs: number): void {
  list.current = at
  list.settle(name, nowMs)
}

function listOf(...configured: string[]): CoreList {
  return new CoreList(
    configured.map((name) => new URL(`${url(name)}/`)),
    false,
  )
}

t.test(
  'configured cores come in their order while nobody knows how near they are, near ones first after that',
  async (t) => {
    const list = listOf('a', 'b')
    t.equal(list.current, url('a'))
    t.same(list.candidates(0), [url('a'), url('b')])
    t.ok(list.learn([core('c', null), core('b', null)]))
    t.same(list.candidates(0), [url('a'), url('b'), url('c')], 'a list without distances has no order')
    t.notOk(list.learn([core('b', 9), core('c', 20)]), 'the same cores')
    t.same(list.candidates(0), [url('b'), url('c'), url('a')], 'a configured one is never forgotten')
    t.notOk(list.learn([]), 'no list says that there are no cores')
    t.same(list.told.length, 2)
  },
)

t.test('a core that failed is tried after all others for half a minute, longest ago first', async (t) => {
  const list = listOf('a', 'b', 'c')
  list.fail(url('a'), 1000)
  list.fail(url('b'), 2000)
  t.same(list.candidates(3000), [url('c'), url('a'), url('b')])
  t.ok(list.hasFailed(url('a'), 30_999))
  t.same(list.candidates(31_000), [url('a'), url('c'), url('b')])
  settle(list, url('b'), 'b', 31_000)
  t.same(list.candidates(31_000), [url('a'), url('b'), url('c')], 'who took this host is well')
})

t.test('a core is known by the URL at which it answered, whatever it tells of itself', async (t) => {
  const list = new CoreList([new URL('https://cast.example/')], false)
  settle(list, 'https://cast.example', 'b', 0)
  list.learn([{ ...core('b', 1), url: 'https://192.0.2.1:8053/' }, core('c', 2)])
  t.same(list.candidates(0), ['https://cast.example', url('c')])
})

t.test('what a core tells can’t lead a secret to where configuration would not', async (t) => {
  const told = [
    'http://192.0.2.1:8053/',
    'http://127.0.0.1:8053/',
    'ftp://192.0.2.1/',
    'https://user@192.0.2.1/',
    'https://192.0.2.1/?x',
    'nonsense',
    'https://192.0.2.2:8053/',
  ].map((url, i) => ({ name: `n${i}`, url, ms: 1 }))
  const learnt = (configured: string, insecure: boolean): string[] => {
    const list = new CoreList([new URL(configured)], insecure)
    list.learn(told)
    return list.told.map(({ url }) => url)
  }
  t.same(learnt('https://cast.example', false), ['https://192.0.2.2:8053'])
  t.same(learnt('http://cast.example', true), ['http://192.0.2.1:8053', 'https://192.0.2.2:8053'])
  t.same(learnt('http://127.0.0.1:8053', false), ['http://127.0.0.1:8053', 'https://192.0.2.2:8053'])
})

t.test(
  'a home is left for one that is clearly nearer twice in a row, and not within ten minutes of the last change',
  async (t) => {
    const list = listOf('a')
    const look = (homeMs: number, otherMs: number | null, nowMs: number): string | null => {
      list.learn([core('b', otherMs), core('a', homeMs)])
      return list.look(nowMs)
    }
    settle(list, url('a'), 'a', 0)
    t.equal(look(100, 20, 11 * MINUTE_MS), null, 'once')
    t.equal(look(100, 20, 12 * MINUTE_MS), url('b'), 'twice')
    settle(list, url('b'), 'b', 12 * MINUTE_MS)
    list.learn([core('a', 5), core('b', 80)])
    for (const minute of [13, 14, 21]) t.equal(list.look(minute * MINUTE_MS), null, `minute ${minute}`)
    t.equal(list.look(22 * MINUTE_MS), url('a'))
    list.fail(url('a'), 22 * MINUTE_MS)
    t.equal(list.look(22 * MINUTE_MS), null, 'not to one that failed just now')
    settle(list, url('a'), 'a', 23 * MINUTE_MS)
    const steady: readonly (readonly [number, number | null, string])[] = [
      [12, 3, 'less than 10 ms is no gain'],
      [100, 75, 'nor is a quarter'],
      [100, null, 'nor what nobody measured'],
    ]
    for (const [homeMs, otherMs, why] of steady) {
      for (const minute of [40, 50, 60]) t.equal(look(homeMs, otherMs, minute * MINUTE_MS), null, why)
    }
  },
)

// ---- finding one that answers

/** Where nothing listens. */
const closedUrl = 'http://127.0.0.1:49151'

/** A port that takes connections and never says a word. */
async function silentUrl(t: Test): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return `http://127.0.0.1:${(server.address() as { port: number }).port}`
}

t.test('however many cores hang, the first that answers is found, and the others are told of', async (t) => {
  const [live] = await cluster(t, 1)
  const silent = [await silentUrl(t), closedUrl, await silentUrl(t)]
  const never = new AbortController().signal
  const found = await findCore([...silent, live!.url, closedUrl], never)
  t.equal(found.url, live!.url)
  t.same(found.silent, silent)
  t.same(
    found.cores.map(({ name, ms }) => [name, ms]),
    [['one', 5]],
  )
  live!.override = (_, response) => {
    response.writeHead(401, { 'content-type': 'application/problem+json' })
    response.end(JSON.stringify(problem(401, 'no')))
    return true
  }
  t.same(
    await findCore([live!.url], never),
    { url: live!.url, cores: [], silent: [] },
    'a refusal is an answer',
  )
  await t.rejects(findCore([closedUrl, silent[0]!], never), /ECONNREFUSED/)
  await t.rejects(findCore([silent[0]!], AbortSignal.abort()), /stopped/)
})

t.test('a core without a URL is not told of, nor is a distance that is a guess', async (t) => {
  const [one] = await cluster(t, 1)
  one!.cores = [member('one', one!.url, { basis: 'none' }), member('three', null)]
  const { cores } = await findCore([one!.url], new AbortController().signal)
  t.same(cores, [{ name: 'one', url: one!.url, ms: null }])
})

// ---- the life of an agent

function member(name: string, url: string | null, more: object = {}): object {
  const contact = { name, host: name, addresses: ['127.0.0.1'], port: 1, url, attributes: {} }
  return { ...contact, reachable: true, ms: 5, errorMs: 1, basis: 'member', ...more }
}

/** Cores that share one directory and know of each other, the first nearest. */
async function cluster(t: Test, count: number): Promise<FakeCore[]> {
  const shared = { hosts: new Map<string, string>(), members: new Set<string>() }
  const names = ['one', 'two', 'three'].slice(0, count)
  const cores = await Promise.all(names.map((name) => new FakeCore(name, shared).open()))
  for (const core of cores)
    core.cores = cores.map(({ name, url }, i) => member(name, url, { ms: 5 + 20 * i }))
  t.teardown(() => {
    for (const core of cores) core.close()
  })
  return cores
}

function newAgent(t: Test, cores: readonly FakeCore[], options: Partial<AgentOptions> = {}): Agent {
  const agent = new Agent({
    cores: cores.map(({ url }) => url),
    token: 'good-token',
    name: 'a',
    addresses: ['127.0.0.1'],
    echo: '127.0.0.1:0',
    members: [{ service: 'mirror' }],
    random: () => 0,
    ...options,
  })
  t.teardown(() => agent.stop())
  return agent
}

const puts = (core: FakeCore) =>
  core.heard.filter(({ method, path }) => method === 'PUT' && path === '/v1/hosts/a')

/** Every heartbeat and join in the order of time, by the core that heard it. */
function homesOf(cores: readonly FakeCore[]): string[] {
  const heard = cores.flatMap(({ name, heard }) =>
    heard
      .filter(({ path, method }) => path === '/v1/heartbeats' || (method === 'PUT' && path === '/v1/hosts/a'))
      .map(({ atMs }) => ({ name, atMs })),
  )
  const names = heard.toSorted((a, b) => a.atMs - b.atMs).map(({ name }) => name)
  return names.filter((name, i) => name !== names[i - 1])
}

t.test('an agent joins the nearest core that any configured one tells of', async (t) => {
  const [one, two] = await cluster(t, 2)
  const agent = newAgent(t, [two!])
  const joined = await agent.start()
  t.match(joined, { core: one!.url, home: 'one' })
  await until('it is heard there', () => one!.beats.length > 2)
  t.equal(two!.beats.length, 0)
  await agent.stop()
  t.same(homesOf([one!, two!]), ['one'])
})

const troubles: Readonly<Record<string, (core: FakeCore) => void>> = {
  'is dead': (core) => core.close(),
  hangs: (core) => {
    core.override = () => true
  },
  'answers 503 to all': (core) => {
    core.override = (_, response) => {
      response.writeHead(503, { 'content-type': 'application/problem+json' })
      response.end(JSON.stringify(problem(503, 'not now')))
      return true
    }
  },
}
for (const [what, befall] of Object.entries(troubles)) {
  t.test(`an agent whose home ${what} is with the next core, as the host that it was`, async (t) => {
    const cores = await cluster(t, 3)
    const [one, two, three] = cores as [FakeCore, FakeCore, FakeCore]
    const agent = newAgent(t, [one], { stateDir: t.testdir() })
    const lost: string[] = []
    agent.on('lost', ({ core }) => lost.push(core))
    await agent.start()
    const credential = one.hosts.get('a')
    await until('it is heard', () => one.beats.length > 0)
    befall(one)
    await until('it is heard at the next', () => two.beats.length > 0)
    t.same(lost, [one.url])
    t.equal(puts(two)[0]!.bearer, credential, 'by its own credential')
    t.equal(puts(two)[0]!.body.members[0].service, 'mirror')
    befall(two)
    await until('it is heard at the last', () => three.beats.length > 2)
    t.equal(three.hosts.get('a'), credential)
    t.same(homesOf(cores), ['one', 'two', 'three'], 'never at two at once, and back at none')
  })
}

t.test('a core that asks its hosts to move goes on hearing them until another has taken them', async (t) => {
  const cores = await cluster(t, 3)
  const [one, two, three] = cores as [FakeCore, FakeCore, FakeCore]
  const full: FakeCore['override'] = ({ method }, response) => {
    if (method === 'PUT') response.writeHead(503).end('{}')
    return method === 'PUT'
  }
  two.override = full
  three.override = full
  const agent = newAgent(t, [one])
  await agent.start()
  const lost: unknown[] = []
  agent.on('lost', (event) => lost.push(event))
  one.moving = true
  await until('both others were tried', () => puts(two).length > 0 && puts(three).length > 0)
  const beats = one.beats.length
  await until('its home hears it all the same', () => one.beats.length > beats + 2)
  t.equal(agent.joined?.home, 'one')
  three.override = () => false
  await until('it went', () => three.beats.length > 0)
  t.equal(agent.joined?.home, 'three')
  one.moving = false
  const atOne = one.beats.length
  await until('it stays there', () => three.beats.length > 4)
  t.equal(one.beats.length, atOne)
  t.same(lost, [])
  await agent.stop()
  t.equal(one.hosts.size, 0)
})

t.test('a core that does not know the host any more takes it anew, and it stays there', async (t) => {
  const cores = await cluster(t, 2)
  const [one, two] = cores as [FakeCore, FakeCore]
  const both = two.cores
  two.cores = [member('two', two.url)]
  const agent = newAgent(t, [two])
  await agent.start()
  two.cores = both
  await until('it is heard', () => two.beats.length > 0)
  let unknown = 1
  two.override = ({ path }, response) => {
    if (path !== '/v1/heartbeats' || unknown-- <= 0) return false
    response.end(JSON.stringify({ beats: [{ host: 'a', status: 'unknown', orders: [] }] }))
    return true
  }
  await until('it registered again', () => puts(two).length === 2)
  t.equal(puts(one).length, 0, 'though one that it could hear of is nearer')
})

t.test('a restarted agent finds a core though the configured one is gone', async (t) => {
  const cores = await cluster(t, 2)
  const [one, two] = cores as [FakeCore, FakeCore]
  const stateDir = t.testdir()
  const first = newAgent(t, [one], { stateDir })
  await first.start()
  const kept = JSON.parse(readFileSync(join(stateDir, 'a.json'), 'utf8'))
  t.match(kept, { credential: one.hosts.get('a'), cores: [{ name: 'one' }, { name: 'two', url: two.url }] })
  one.close()
  const second = newAgent(t, [one], { stateDir, token: undefined })
  t.match(await second.start(), { core: two.url, home: 'two' })
  t.equal(puts(two)[0]!.bearer, kept.credential)
})

t.test('a refusal at the first join is final only when every core says so', async (t) => {
  const cores = await cluster(t, 2)
  const [one, two] = cores as [FakeCore, FakeCore]
  one.override = ({ method }, response) => {
    if (method !== 'PUT') return false
    response.writeHead(401, { 'content-type': 'application/problem+json' })
    response.end(JSON.stringify(problem(401, 'nobody has this token')))
    return true
  }
  t.match(await newAgent(t, cores).start(), { home: 'two' }, 'one may not have heard of a token yet')
  two.override = one.override
  await t.rejects(newAgent(t, cores, { name: 'b' }).start(), { code: 'refused', status: 401 })
})
