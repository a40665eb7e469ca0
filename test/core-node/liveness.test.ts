// Liveness as scenarios on a fake clock: a little world of hosts that beat every 2 s and answer echoes,
// a core that ticks four times a second, and cuts between them.

import t from 'tap'
import { DueQueue } from '../../core-node/due-queue.ts'
import { Liveness, VOUCH_MS } from '../../core-node/liveness.ts'
import { seededRng } from '../support/seeded-rng.ts'

const LEASE_MS = 8000
const BEAT_MS = 2000
const TICK_MS = 250
/** An asked host fetches the order with its next beat, tries for a second, and reports. */
const OPINION_MS = 3000

interface WorldHost {
  alive: boolean
  /** The way between it and the core is cut. */
  cut: boolean
  beatAtMs: number
}

class World {
  nowMs = 0
  readonly hosts = new Map<string, WorldHost>()
  readonly liveness = new Liveness('core1', 0)
  readonly silent: { host: string; atMs: number }[] = []
  readonly vouched: string[] = []
  readonly rng = seededRng(7)
  /** The core's own network is gone. */
  coreCut = false
  readonly later: { atMs: number; run: () => void }[] = []

  constructor(count: number) {
    for (let i = 0; i < count; i++) {
      const host = { alive: true, cut: false, beatAtMs: Math.floor(this.rng() * BEAT_MS) }
      this.hosts.set(`h${i}`, host)
      this.liveness.hear(`h${i}`, LEASE_MS, 0, true)
    }
  }

  host(name: string): WorldHost {
    return this.hosts.get(name)!
  }

  run(forMs: number): void {
    const endMs = this.nowMs + forMs
    while (this.nowMs < endMs) {
      this.nowMs += TICK_MS
      this.#beats()
      this.#due()
      this.tick()
    }
  }

  /** Time goes by while the core does not run; the beats that came meanwhile wait in its sockets. */
  stall(forMs: number): void {
    this.nowMs += forMs
    this.tick()
    for (const [name, host] of this.hosts) {
      host.beatAtMs = this.nowMs + Math.floor(this.rng() * BEAT_MS)
      if (this.#reachesCore(host)) this.liveness.hear(name, LEASE_MS, this.nowMs, true)
    }
  }

  tick(): void {
    for (const fact of this.liveness.tick(this.nowMs, this.rng)) {
      if (fact.kind === 'silent') this.silent.push({ host: fact.host, atMs: this.nowMs })
      else if (fact.kind === 'vouched') this.vouched.push(fact.host)
      else for (const asker of fact.askers) this.#ask(fact.host, asker)
    }
  }

  #due(): void {
    const waiting = this.later.splice(0)
    for (const item of waiting) {
      if (item.atMs <= this.nowMs) item.run()
      else this.later.push(item)
    }
  }

  #reachesCore(host: WorldHost): boolean {
    return host.alive && !host.cut && !this.coreCut
  }

  #beats(): void {
    for (const [name, host] of this.hosts) {
      if (this.nowMs < host.beatAtMs) continue
      host.beatAtMs += BEAT_MS
      if (this.#reachesCore(host)) this.liveness.hear(name, LEASE_MS, this.nowMs, true)
    }
  }

  #ask(target: string, asker: string): void {
    const home = asker === 'core1'
    const by = this.hosts.get(asker)
    const run = () => {
      if (!home && !this.#reachesCore(by!)) return
      const host = this.host(target)
      this.liveness.hearOpinion(target, asker, home ? this.#reachesCore(host) : host.alive)
    }
    this.later.push({ atMs: this.nowMs + (home ? 1000 : OPINION_MS - 500), run })
  }
}

t.test('a host that stops is silent within its lease, over 100 hosts one after another', (t) => {
  const world = new World(130)
  world.run(10_000)
  for (let i = 0; i < 100; i++) {
    const name = `h${i}`
    world.host(name).alive = false
    const stoppedMs = world.nowMs
    world.run(9000)
    const gone = world.silent.find((fact) => fact.host === name)
    t.ok(gone && gone.atMs - stoppedMs <= LEASE_MS + TICK_MS, `${name} is gone in time`)
  }
  t.equal(world.silent.length, 100, 'and nobody else')
  t.end()
})

t.test('a bad path between the core and one host takes it out only after a minute', (t) => {
  const world = new World(10)
  world.run(4000)
  world.host('h3').cut = true
  world.run(VOUCH_MS)
  t.same(world.silent, [], 'kept while others reach it')
  t.same(world.vouched, ['h3'])
  world.run(15_000)
  t.same(
    world.silent.map((fact) => fact.host),
    ['h3'],
    'at most so long',
  )
  t.end()
})

t.test('a bad path that heals in time leaves no trace', (t) => {
  const world = new World(10)
  world.run(4000)
  world.host('h3').cut = true
  world.run(30_000)
  world.host('h3').cut = false
  world.run(120_000)
  t.same(world.silent, [])
  t.end()
})

t.test(
  'a core whose own network is gone suspects itself, keeps all, and loses nobody when it is back',
  (t) => {
    for (const count of [3, 4, 30]) {
      const world = new World(count)
      world.run(4000)
      world.coreCut = true
      world.run(60_000)
      t.same(world.silent, [], `${count} hosts are kept`)
      t.match(world.liveness.suspicion, /suspects its own network/)
      world.coreCut = false
      world.run(60_000)
      t.same(world.silent, [], 'also afterwards')
      t.equal(world.liveness.suspicion, null)
    }
    t.end()
  },
)

t.test('most hosts may die together, where others are left to say so', (t) => {
  const world = new World(5)
  world.run(4000)
  for (const name of ['h0', 'h1', 'h2']) world.host(name).alive = false
  world.run(LEASE_MS + BEAT_MS)
  t.same(world.silent.map((fact) => fact.host).sort(), ['h0', 'h1', 'h2'])
  t.end()
})

t.test('when all die together they are given up after a minute', (t) => {
  const world = new World(3)
  world.run(4000)
  for (const host of world.hosts.values()) host.alive = false
  world.run(VOUCH_MS)
  t.same(world.silent, [])
  world.run(LEASE_MS + BEAT_MS)
  t.equal(world.silent.length, 3)
  t.end()
})

t.test('who joined openly neither judges the others nor makes the core doubt itself', (t) => {
  const liveness = new Liveness('core1', 0)
  const asked: (readonly string[])[] = []
  const silent: string[] = []
  liveness.hear('mine', LEASE_MS, 0, true)
  for (let i = 0; i < 300; i++) liveness.hear(`crowd${i}`, LEASE_MS, 0, false)
  for (let nowMs = 0; nowMs <= 9000; nowMs += TICK_MS) {
    if (nowMs % BEAT_MS === 0 && nowMs < 4000)
      for (let i = 0; i < 10; i++) liveness.hear(`crowd${i}`, LEASE_MS, nowMs, false)
    for (const fact of liveness.tick(nowMs, () => 0.5)) {
      if (fact.kind === 'silent') silent.push(fact.host)
      if (fact.kind === 'ask' && fact.host === 'mine') asked.push(fact.askers)
      if (fact.kind === 'ask') liveness.hearOpinion(fact.host, 'core1', false)
    }
  }
  t.same(asked, [['core1']])
  t.ok(silent.includes('mine'))
  t.notOk(silent.includes('crowd50'), 'the crowd’s own silence is held against the core for a while')
  t.end()
})

t.test('hosts that died during the core’s own trouble leave after it', (t) => {
  const world = new World(12)
  world.run(4000)
  world.coreCut = true
  world.run(20_000)
  world.host('h5').alive = false
  world.run(20_000)
  world.coreCut = false
  world.run(2 * LEASE_MS + 4000)
  t.same(
    world.silent.map((fact) => fact.host),
    ['h5'],
  )
  t.end()
})

t.test('a core that was stopped for 15 s takes nobody out', (t) => {
  const world = new World(20)
  world.run(4000)
  world.stall(15_000)
  t.same(world.silent, [])
  world.run(30_000)
  t.same(world.silent, [])
  t.end()
})

t.test('who dies right after the core was stopped is given no more time than others', (t) => {
  const world = new World(4)
  world.run(4000)
  world.nowMs += 60_000
  for (const name of world.hosts.keys()) world.liveness.hear(name, LEASE_MS, world.nowMs, true)
  for (const host of world.hosts.values()) host.beatAtMs = world.nowMs + 500
  world.host('h0').alive = false
  world.run(LEASE_MS + TICK_MS)
  t.same(
    world.silent.map((fact) => fact.host),
    ['h0'],
  )
  t.end()
})

t.test('a host without others to ask is judged by the core alone', (t) => {
  const world = new World(1)
  world.run(4000)
  world.host('h0').alive = false
  world.run(9000)
  t.equal(world.silent.length, 1)
  t.end()
})

t.test('two of three may die together', (t) => {
  const world = new World(3)
  world.run(4000)
  world.host('h0').alive = false
  world.host('h1').alive = false
  world.run(10_000)
  t.same(world.silent.map((fact) => fact.host).sort(), ['h0', 'h1'])
  t.end()
})

t.test('single lost heartbeats never lead to asking', (t) => {
  const world = new World(20)
  world.run(4000)
  for (let round = 0; round < 30; round++) {
    const host = world.host(`h${Math.floor(world.rng() * 20)}`)
    host.beatAtMs += BEAT_MS
    world.run(4000)
  }
  t.same(world.silent, [])
  t.end()
})

t.test('opinions that nobody asked for change nothing', (t) => {
  const liveness = new Liveness('core1', 0)
  liveness.hear('a', LEASE_MS, 0, true)
  for (let nowMs = 0; nowMs <= 5000; nowMs += TICK_MS) liveness.tick(nowMs, () => 0)
  liveness.hearOpinion('a', 'stranger', true)
  liveness.hearOpinion('nobody', 'core1', true)
  liveness.hearOpinion('a', 'core1', false)
  liveness.hearOpinion('a', 'core1', true)
  t.match(
    liveness.tick(5250, () => 0),
    [{ kind: 'silent', host: 'a' }],
  )
  t.end()
})

t.test('a host that changes its lease is judged by the new one from then on', (t) => {
  const liveness = new Liveness('core1', 0)
  liveness.hear('a', 300_000, 0, true)
  liveness.hear('a', LEASE_MS, 1000, true)
  const facts = []
  for (let nowMs = 0; nowMs <= 1000 + LEASE_MS; nowMs += TICK_MS) facts.push(...liveness.tick(nowMs, () => 0))
  t.match(facts, [
    { kind: 'ask', host: 'a' },
    { kind: 'silent', host: 'a' },
  ])
  t.equal(facts.length, 2)
  t.end()
})

t.test('a host that left is asked about no more, also where it comes back under its name', (t) => {
  const liveness = new Liveness('core1', 0)
  for (let round = 0; round < 50; round++) {
    liveness.hear('a', LEASE_MS, round * 1000, true)
    if (round % 2 === 0) liveness.forget('a')
    t.same(
      liveness.tick(round * 1000, () => 0),
      [],
    )
  }
  t.equal(liveness.size, 1)
  t.end()
})

t.test('askers are drawn from all who are heard, each as likely as the next', (t) => {
  const rng = seededRng(3)
  const counts = new Map<string, number>()
  for (let round = 0; round < 300; round++) {
    const liveness = new Liveness('core1', 0)
    liveness.hear('silent', LEASE_MS, 0, true)
    for (let i = 0; i < 20; i++) liveness.hear(`h${i}`, LEASE_MS, 1000, true)
    for (let nowMs = TICK_MS; nowMs < 5000; nowMs += TICK_MS) liveness.tick(nowMs, rng)
    const [fact] = liveness.tick(5000, rng)
    t.match(fact, { kind: 'ask', host: 'silent' })
    const askers = fact?.kind === 'ask' ? fact.askers : []
    if (new Set(askers).size !== 4 || askers.at(-1) !== 'core1') t.fail(askers.join())
    for (const asker of askers.slice(0, 3)) counts.set(asker, (counts.get(asker) ?? 0) + 1)
  }
  t.equal(counts.size, 20)
  t.ok(Math.min(...counts.values()) > 20 && Math.max(...counts.values()) < 75, 'about 45 each')
  t.end()
})

t.test('what is due comes in order of time, then of coming, as a sorted list would have it', (t) => {
  const rng = seededRng(9)
  const queue = new DueQueue<number>()
  let listed: { dueMs: number; n: number }[] = []
  for (let n = 0, nowMs = 0; n < 3000; n++) {
    const dueMs = nowMs + Math.floor(50 * rng())
    queue.add(n, dueMs)
    listed.push({ dueMs, n })
    if (rng() < 0.8) continue
    nowMs += Math.floor(20 * rng())
    const taken: number[] = []
    for (let item = queue.take(nowMs); item !== null; item = queue.take(nowMs)) taken.push(item)
    const due = listed.filter((entry) => entry.dueMs <= nowMs).sort((a, b) => a.dueMs - b.dueMs || a.n - b.n)
    listed = listed.filter((entry) => entry.dueMs > nowMs)
    t.same(
      taken,
      due.map((entry) => entry.n),
    )
    t.equal(queue.size, listed.length)
  }
  t.end()
})
