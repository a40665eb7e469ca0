// The pure rules of many cores: who judges whom, what is worth telling, whose clock counts, when secrets are rolled.

import t from 'tap'
import { Homes } from '../../core-node/homes.ts'
import { Liveness, type LivenessFact, VOUCH_MS } from '../../core-node/liveness.ts'
import { dumpOf } from '../../core-node/registry/dump.ts'
import { cookieSecrets, dueSecrets } from '../../core-node/registry/shared-secrets.ts'
import { TELLING_ALONE, TELLING_SHARED } from '../../core-node/registry/telling.ts'
import { SteadyClock } from '../../core-node/steady-clock.ts'
import { applyChanges, emptyDirectory } from '../../resolver/directory.ts'
import { aHost, locality, ofHost } from '../support/records.ts'
import { seededRng } from '../support/seeded-rng.ts'

const NAMES = ['a', 'b', 'c', 'd']
const HOSTS = Array.from({ length: 300 }, (_, i) => `h${i}`)

/** The homes as each core knows them, with all hosts at d. */
function homesOf(cores: readonly string[]): Map<string, Homes> {
  return new Map(
    NAMES.map((name) => {
      const homes = new Homes(name, false)
      for (const host of HOSTS) homes.follow(host, null, aHost(host, { home: 'd' }))
      homes.hearCores(cores)
      return [name, homes]
    }),
  )
}

t.test(
  'the hosts of a lost home fall to one core each, evenly, and few move when another goes',
  async (t) => {
    const judgesOf = (cores: readonly string[]) => {
      const judges = new Map<string, string[]>(HOSTS.map((host) => [host, []]))
      for (const [name, homes] of homesOf(cores)) {
        for (const host of homes.orphans()) judges.get(host)!.push(name)
      }
      return judges
    }
    const three = judgesOf(['a', 'b', 'c'])
    for (const [host, judges] of three) t.equal(judges.length, 1, host)
    for (const name of ['a', 'b', 'c']) {
      const share = [...three.values()].filter(([judge]) => judge === name).length
      t.ok(share > 70 && share < 130, `${name} judges ${share} of 300`)
    }
    const two = judgesOf(['a', 'b'])
    for (const [host, [judge]] of three) if (judge !== 'c') t.same(two.get(host), [judge], host)
  },
)

t.test('a core without a lease, and one that follows, judge nobody; alone all are its own', async (t) => {
  t.same([...homesOf(['b', 'c']).get('a')!.orphans()], [])
  const follower = new Homes(null, false)
  follower.follow('h', null, aHost('h', { home: 'd' }))
  follower.hearCores(['a', 'b'])
  t.same([...follower.orphans()], [])
  t.notOk(follower.isChosenFor('upkeep'))
  const alone = new Homes('renamed', true)
  t.ok(alone.isOwn(aHost('h', { home: 'core1' })))
  t.ok(alone.isChosenFor('upkeep'))
})

t.test('a home that is back, or another, ends the judging', async (t) => {
  const homes = homesOf(['a']).get('a')!
  t.equal([...homes.orphans()].length, 300)
  homes.follow('h1', aHost('h1', { home: 'd' }), aHost('h1', { home: 'a' }))
  t.equal([...homes.orphans()].length, 299)
  homes.hearCores(['a', 'd'])
  t.same([...homes.orphans()], [])
})

t.test('a core that suspects its own network gives up no orphans, and asks anew when it is back', (t) => {
  const liveness = new Liveness('a', 0)
  const own = ['h0', 'h1', 'h2', 'h3']
  for (const name of own) liveness.hear(name, 8000, 0, true)
  liveness.adopt('orphan', 8000, 0, true)
  let nowMs = 0
  const run = (ms: number, isBack: boolean) => {
    const facts: LivenessFact[] = []
    for (const end = nowMs + ms; nowMs < end; ) {
      nowMs += 250
      if (isBack) for (const name of own) liveness.hear(name, 8000, nowMs, true)
      facts.push(...liveness.tick(nowMs, () => 0.5))
    }
    return facts.filter(({ host }) => host === 'orphan').map(({ kind }) => kind)
  }
  t.same(run(20_000, false), ['ask'])
  t.match(liveness.suspicion, /suspects its own network/)
  t.same(run(7000, true), ['ask'])
  t.equal(liveness.suspicion, null)
  t.same(run(1250, true), ['silent'], 'nobody reached it then either')
  t.end()
})

t.test('orphans stay as long as anyone reaches them, however many are gone at once', async (t) => {
  const liveness = new Liveness('a', 0)
  const rng = seededRng(3)
  const names = Array.from({ length: 20 }, (_, i) => `o${i}`)
  for (const name of names) liveness.adopt(name, 8000, 0, true)
  t.notOk(liveness.expects('o0'), 'no heartbeat is')
  t.ok(liveness.adopts('o0'))
  const silent: string[] = []
  const run = (fromMs: number, untilMs: number, reached: (host: string) => boolean) => {
    for (let nowMs = fromMs; nowMs < untilMs; nowMs += 250) {
      const facts: LivenessFact[] = liveness.tick(nowMs, rng)
      for (const fact of facts) {
        if (fact.kind === 'silent') silent.push(fact.host)
        else if (fact.kind === 'ask')
          for (const asker of fact.askers) liveness.hearOpinion(fact.host, asker, reached(fact.host))
      }
    }
  }
  run(0, 8250, (host) => host === 'o7' || host === 'o8')
  t.same(silent.sort(), names.filter((name) => name !== 'o7' && name !== 'o8').sort())
  t.equal(liveness.suspicion, null, 'their silence says nothing of this core')
  silent.length = 0
  run(8250, 3 * VOUCH_MS, () => true)
  t.same(silent, [], 'no matter how long')
  liveness.hear('o7', 8000, 3 * VOUCH_MS, true)
  t.ok(liveness.expects('o7'), 'which registered')
  run(3 * VOUCH_MS, 3 * VOUCH_MS + 9000, (host) => host === 'o8')
  t.same(silent, ['o7'])
  liveness.releaseOrphans(() => false)
  t.equal(liveness.size, 0)
})

t.test('loads are news by more than a quarter, or over a bound where clients are moved', async (t) => {
  const { isLoadNews } = TELLING_SHARED
  const table: [told: number | null, now: number | null, news: boolean][] = [
    [null, 0, true],
    [5, null, true],
    [null, null, false],
    [40, 50, false],
    [40, 54, true],
    [54, 40, true],
    [50, 40, false],
    [0, 0, false],
    [0, 1, true],
    [95, 100, true],
    [81, 79, true],
    [110, 120, false],
  ]
  for (const [told, now, news] of table) t.equal(isLoadNews(told, now, 100), news, `${told} to ${now}`)
  t.ok(TELLING_ALONE.isLoadNews(40, 41, 100), 'alone every one is')
})

t.test('a coordinate is news when it moved by more than its error, or is of use at last', async (t) => {
  const at = (x: number, error: number) => ({
    vec: [x, 0, 0, 0, 0, 0, 0, 0],
    heightMs: 1,
    adjustmentMs: 0,
    error,
  })
  const { isPlaceNews } = TELLING_SHARED
  t.ok(isPlaceNews(null, at(1, 1.5)))
  t.notOk(isPlaceNews(at(100, 0.1), at(109, 0.1)))
  t.ok(isPlaceNews(at(100, 0.1), at(112, 0.1)))
  t.notOk(isPlaceNews(at(5, 0.1), at(7, 0.1)), 'nor by what chance makes of it')
  t.ok(isPlaceNews(at(100, 1.4), at(100, 0.2)))
  t.ok(isPlaceNews(at(100, 0.4), at(100, 0.15)), 'or much surer')
  t.notOk(TELLING_SHARED.isRttNews(100, 120))
  t.ok(TELLING_SHARED.isRttNews(100, 130))
  t.notOk(TELLING_SHARED.isRttNews(1, 2.5))
})

t.test('small corrections of the clock are followed, jumps are not, until it is right again', async (t) => {
  const system = { epoch: 1e12, ms: 0 }
  const clock = new SteadyClock({ epochMs: () => system.epoch + system.ms, monotonicMs: () => system.ms })
  const hour = 3600_000
  system.epoch += hour
  t.equal(clock.epochMs(), 1e12 + hour)
  const years = 9 * 365 * 24 * hour
  for (const jump of [years, -years]) {
    system.epoch += jump
    system.ms += 5000
    t.equal(clock.epochMs(), 1e12 + hour + system.ms)
    t.match(clock.trouble, /clock jumped by -?3285 days/)
    system.epoch -= jump
    t.equal(clock.trouble, null)
  }
})

t.test(
  'secrets are rolled by how long they were seen; a stamp of years ago or to come rolls nothing',
  async (t) => {
    const [day, year] = [24 * 3600_000, 365 * 24 * 3600_000]
    const now = 1e12
    let made = 0
    const hex = (bytes: number) => String(++made).padStart(2 * bytes, '0')
    const settings = new Map<string, string>()
    const roll = (epochMs: number, seenMs: number) => {
      const changes = dueSecrets(settings, { epochMs, seenMs }, hex)
      for (const { key, value } of changes) settings.set(key, value as string)
      return changes.length
    }
    t.equal(roll(now, 0), 2, 'made where there are none')
    t.equal(roll(now + day, 0), 0, 'nor by who has only just seen it')
    t.equal(roll(now + year, 2 * 3600_000), 0)
    t.equal(roll(now - year, 2 * 3600_000), 0)
    t.equal(roll(now - year, day), 1, 'but by who has seen it for a day, whatever its clock says')
    t.equal(roll(now, 1000), 0, 'and no other rolls it back')
    t.equal(roll(now, day / 2), 0)
    t.equal(roll(now - year + day, 2 * 3600_000), 1)
    t.equal(cookieSecrets(settings).length, 2)
  },
)

t.test('equal directories are equal text, in whatever order they came to be', async (t) => {
  const changes = [...NAMES.map((name) => ofHost(aHost(name))), locality('192.0.2.0/24', { a: 5 })]
  const [one, other] = [emptyDirectory(), emptyDirectory()]
  applyChanges(one, changes)
  applyChanges(other, changes.toReversed())
  const { name, ...rest } = aHost('a')
  other.hosts.set('a', { ...rest, name })
  t.equal(dumpOf(one), dumpOf(other))
  t.same(Object.keys(JSON.parse(dumpOf(one)).hosts), NAMES)
  other.hosts.set('a', aHost('a', { meshMs: { b: 3 } }))
  t.not(dumpOf(one), dumpOf(other))
  t.equal(dumpOf(one, true), dumpOf(other, true))
})
