// The judge of the chaos bench: a history that keeps every promise passes, and one that breaks a promise is found
// out, each kind; and the plan keeps what it says of itself.

import t from 'tap'
import { check, PROMISED } from './chaos-checker.ts'
import { Agreement, differences, heldOf } from './chaos-dump.ts'
import type { Answer, History, Life, Write } from './chaos-history.ts'
import { measure } from './chaos-measures.ts'
import { type Cast, drawPlan, rollingPlan, type Step } from './chaos-plan.ts'
import { strandedSpans, unwellSpans } from './chaos-reach.ts'

const CORES = ['core1', 'core2', 'core3']
const ETCDS = ['etcd1', 'etcd2', 'etcd3']
const AGENTS = ['a', 'b']
const END_MS = 100_000

const life = (
  node: string,
  readyMs: number,
  endedMs: number | null = null,
  how: Life['how'] = null,
): Life => ({
  ...{ node, startedMs: readyMs - 500, readyMs, endedMs },
  how: endedMs === null ? null : (how ?? 'killed'),
})

/** What a core says each second of all live members: those that `named` tells. */
function views(core: string, named: (atMs: number) => readonly string[] | null): Answer[] {
  return Array.from({ length: END_MS / 1000 }, (_, i) => {
    const askedMs = 1000 * i
    const question = 'all'
    return { via: 'http', core, question, askedMs, atMs: askedMs + 5, named: named(askedMs), isWhole: true }
  })
}

function historyOf(more: Partial<History> = {}): History {
  const nodes = [...ETCDS, ...CORES, ...AGENTS]
  return {
    ...{ cores: CORES, etcds: ETCDS, agents: AGENTS },
    lives: nodes.map((node) => life(node, -1000)),
    cuts: [],
    homings: AGENTS.map((agent) => ({ atMs: -1000, agent, core: 'core1' })),
    answers: CORES.flatMap((core) => views(core, () => AGENTS)),
    writes: [],
    log: [],
    ending: { healedMs: END_MS, equalAfterMs: 200, wholeAfterMs: 300, differences: [], held: {} },
    ...more,
  }
}

/** The lives of all, with those of one node replaced. */
const livesWith = (...lives: readonly Life[]): Life[] => [
  ...historyOf().lives.filter(({ node }) => lives.every((one) => one.node !== node)),
  ...lives,
]

const rulesOf = (history: History): string[] => check(history, PROMISED).map(({ rule }) => rule)

t.test('a history in which nothing is wrong passes', async (t) => {
  t.same(check(historyOf(), PROMISED), [])
})

t.test('a member that is named longer than 10 s after its death is found', async (t) => {
  const dies = (lastNamedMs: number, more: Partial<History> = {}): History =>
    historyOf({
      lives: livesWith(life('a', -1000, 20_000)),
      answers: CORES.flatMap((core) => views(core, (atMs) => (atMs <= lastNamedMs ? AGENTS : ['b']))),
      ...more,
    })
  t.same(rulesOf(dies(30_000)), [])
  const found = check(dies(33_000), PROMISED)
  t.same(
    found.map(({ rule, atMs }) => [rule, atMs]),
    CORES.map(() => ['a dead member is named no more', 33_000]),
  )
  t.match(found[0]!.evidence, /core1 names a .* 13\.0 s after it died/)
  const withHome = livesWith(life('a', -1000, 20_000), life('core1', -1000, 14_000), life('core1', 60_000))
  t.same(rulesOf(dies(40_000, { lives: withHome })), [], '20 s where its home died within a lease of it')
  t.equal(rulesOf(dies(42_000, { lives: withHome })).length, 3, 'and no longer')
  const cut = ETCDS.map((b) => ({ a: 'core2', b, fromMs: 15_000, toMs: 28_000 }))
  t.same(
    check(dies(37_000, { cuts: cut }), PROMISED).map(({ evidence }) => evidence.slice(0, 5)),
    ['core1', 'core3'],
    'a core that was cut off has the time of the cut besides',
  )
  const lost = livesWith(life('a', -1000, 20_000), life('etcd1', -1000, 27_500), life('etcd1', 40_000))
  t.same(rulesOf(dies(32_000, { lives: lost })), [], 'a server of the store that is lost meanwhile delays it')
  t.equal(rulesOf(dies(34_000, { lives: lost })).length, 3, 'by no more than 3 s')
  const back = livesWith(life('a', -1000, 20_000), life('a', 26_000))
  t.same(rulesOf(dies(60_000, { lives: back })).slice(0, 1), [
    'a live member is not out for more than a lease',
  ])
  t.same(
    rulesOf(historyOf({ lives: back, answers: CORES.flatMap((core) => views(core, () => AGENTS)) })),
    [],
    'who is back may be named',
  )
  const slow = { ...views('core1', () => AGENTS)[36]!, askedMs: 35_000, atMs: 38_500 }
  const backLater = livesWith(life('a', -1000, 20_000), life('a', 38_000))
  t.same(
    rulesOf(dies(30_000, { lives: backLater, answers: [slow] })),
    [],
    'by an answer that took so long, too',
  )
})

t.test('a live member that is left out for longer than a lease is found, once', async (t) => {
  const out = (fromMs: number, toMs: number, more: Partial<History> = {}): History =>
    historyOf({
      answers: CORES.flatMap((core) =>
        views(core, (atMs) => (core === 'core2' && atMs >= fromMs && atMs < toMs ? ['b'] : AGENTS)),
      ),
      ...more,
    })
  t.same(rulesOf(out(40_000, 49_000)), [])
  const found = check(out(40_000, 60_000), PROMISED)
  t.same(
    found.map(({ rule }) => rule),
    ['a live member is not out for more than a lease'],
  )
  t.match(found[0]!.evidence, /core2 leaves out a from 40000 ms/)
  const isolated = [...CORES, ...ETCDS].map((b) => ({ a: 'a', b, fromMs: 40_000, toMs: 55_000 }))
  t.same(
    rulesOf(out(45_000, 62_000, { cuts: isolated })),
    [],
    'who reaches no core may be out, and a lease more',
  )
  t.equal(rulesOf(out(45_000, 75_000, { cuts: isolated })).length, 1)
  const halfCut = [{ a: 'a', b: 'core1', fromMs: 40_000, toMs: 80_000 }]
  t.equal(rulesOf(out(45_000, 60_000, { cuts: halfCut })).length, 1, 'one bad way takes nobody out')
  const cutOff = ETCDS.map((b) => ({ a: 'core2', b, fromMs: 40_000, toMs: 50_000 }))
  t.same(rulesOf(out(41_000, 55_000, { cuts: cutOff })), [], 'a core that was cut off catches up first')
  const stopped = livesWith(life('a', -1000, 40_000, 'left'))
  t.same(
    rulesOf(out(40_000, 90_000, { lives: stopped })).filter((rule) => rule.includes('live')),
    [],
  )
})

t.test('a question that a running core does not answer is found, and one that nobody answers', async (t) => {
  const unanswered = (core: string | null): Answer => ({
    ...{ via: 'dns', core, question: 'mirror', askedMs: 30_000, atMs: 33_000 },
    ...{ named: null, isWhole: false },
  })
  const withAnswer = (core: string | null, lives = historyOf().lives): History =>
    historyOf({ lives, answers: [...historyOf().answers, unanswered(core)] })
  t.same(rulesOf(withAnswer('core1')), ['a core that runs answers'])
  t.same(rulesOf(withAnswer(null)), ['some core answers'])
  const dying = livesWith(life('core1', -1000, 32_000), life('core1', 40_000))
  t.same(rulesOf(withAnswer('core1', dying)), [], 'one that was killed meanwhile owes no answer')
  t.same(rulesOf(withAnswer(null, dying)), ['some core answers'])
})

t.test(
  'a write that was lost, overwritten by an older one, refused and made, or invented is found',
  async (t) => {
    const write = (value: string | null, atMs: number, outcome: Write['outcome'] = 'made'): Write => ({
      ...{ key: 'services/x', value, core: 'core1', askedMs: atMs - 10, atMs },
      outcome,
    })
    const judge = (held: string | null, ...writes: readonly Write[]): string[] => {
      const ending = { ...historyOf().ending, held: held === null ? {} : { 'services/x': held } }
      return rulesOf(historyOf({ writes, ending }))
    }
    const lost = ['a write that was acknowledged is there']
    t.same(judge('v2', write('v1', 100), write('v2', 200)), [])
    t.same(judge('v1', write('v1', 100), write('v2', 200)), lost, 'an older one')
    t.same(judge(null, write('v1', 100)), lost, 'none at all')
    t.same(judge('v1', write('v1', 100), write(null, 200)), lost, 'a removal')
    t.same(judge('v1', write('v1', 205), write('v2', 200)), [], 'either of two at the same time')
    t.same(
      judge('v2', write('v1', 100), write('v2', 200, 'unknown')),
      [],
      'one without an answer may be made',
    )
    t.same(judge('v1', write('v1', 100), write('v2', 200, 'unknown')), [], 'or not')
    t.same(judge('v1', write('v1', 100, 'unknown'), write('v2', 200)), [], 'or later')
    t.same(judge('v2', write('v1', 100), write('v2', 200, 'refused')), [
      'a write that was refused was not made',
    ])
    t.same(judge(null, write(null, 100, 'refused')), [])
    t.same(judge('v9', write('v1', 100)), ['nothing is there that nobody wrote'])
    const stranger = { ...historyOf().ending, held: { 'services/y': 'v' } }
    t.same(rulesOf(historyOf({ ending: stranger })), ['nothing is there that nobody wrote'])
  },
)

t.test('cores that do not agree in time are found, with what differs', async (t) => {
  const ending = { ...historyOf().ending, differences: ['hosts/a: core1 has 1, core2 has 2'] }
  const rule = 'all cores agree after healing'
  t.match(check(historyOf({ ending: { ...ending, equalAfterMs: 5100 } }), PROMISED), [
    { rule, evidence: /5\.1 s/ },
  ])
  t.match(check(historyOf({ ending: { ...ending, equalAfterMs: null } }), PROMISED), [
    { rule, evidence: /never did: hosts\/a/ },
  ])
  t.match(check(historyOf({ ending: { ...ending, wholeAfterMs: null } }), PROMISED), [{ rule }])
  const hold = (a: number, b: number): string => JSON.stringify({ hosts: { a, b } })
  const agreement = new Agreement()
  t.notOk(agreement.look([hold(1, 1), hold(1, 2)]))
  t.notOk(
    agreement.look([hold(2, 3), hold(1, 2)]),
    'one that differs since is agreed on, one that always did is not',
  )
  t.ok(agreement.look([hold(3, 2), hold(1, 2)]))
  t.notOk(new Agreement().look([hold(1, 1), JSON.stringify({ hosts: { a: 1 } })]), 'one that a core lacks')
})

t.test(
  'who is cut off from a majority of the store is unwell, and who reaches no well core is stranded',
  async (t) => {
    const inside = (spans: readonly { fromMs: number; toMs: number }[]) =>
      spans.filter(({ fromMs }) => fromMs > 0).map(({ fromMs, toMs }) => [fromMs, toMs])
    const one = [{ a: 'core1', b: 'etcd1', fromMs: 10, toMs: 20 }]
    t.same(inside(unwellSpans(historyOf({ cuts: one }), 'core1')), [], 'two of three servers are enough')
    const minority = [
      { a: 'etcd1', b: 'etcd2', fromMs: 10, toMs: 20 },
      { a: 'etcd1', b: 'etcd3', fromMs: 10, toMs: 20 },
      { a: 'core1', b: 'etcd2', fromMs: 12, toMs: 30 },
      { a: 'core1', b: 'etcd3', fromMs: 12, toMs: 30 },
    ]
    t.same(
      inside(unwellSpans(historyOf({ cuts: minority }), 'core1')),
      [[12, 20]],
      'one of the minority is none',
    )
    const twoDown = livesWith(life('etcd1', -1000, 10), life('etcd2', -1000, 15), life('etcd2', 40))
    for (const core of CORES) t.same(inside(unwellSpans(historyOf({ lives: twoDown }), core)), [[15, 40]])
    t.same(inside(strandedSpans(historyOf({ lives: twoDown }), 'a')), [[15, 40]])
    const cuts = CORES.map((b, i) => ({ a: 'a', b, fromMs: 10 * (i + 1), toMs: 50 + i }))
    t.same(inside(strandedSpans(historyOf({ cuts }), 'a')), [[30, 50]])
  },
)

t.test(
  'a plan repeats, mends all that it does, and takes down no more than one of a kind at once',
  async (t) => {
    const agents = Array.from({ length: 30 }, (_, i) => `agent${i}`)
    const cast: Cast = { cores: CORES, etcds: ETCDS, agents }
    const kinds = new Set<string>()
    const isDown = ({ fault }: Step): boolean => fault.do === 'kill' || fault.do === 'restart'
    for (let seed = 1; seed <= 50; seed++) {
      const plan = drawPlan(cast, seed, 180_000)
      t.same(plan, drawPlan(cast, seed, 180_000))
      t.ok(plan.length > 15, `seed ${seed}: ${plan.length} faults`)
      for (const step of plan) {
        kinds.add(step.fault.do)
        t.ok(step.fromMs < step.toMs && step.toMs <= 180_000)
        if (!isDown(step) || !('node' in step.fault)) continue
        const { node } = step.fault
        const kind = [CORES, ETCDS].find((names) => names.includes(node))
        const others = plan.filter(
          (other) =>
            other !== step && isDown(other) && 'node' in other.fault && kind?.includes(other.fault.node),
        )
        t.notOk(others.some((other) => other.fromMs < step.toMs && step.fromMs < other.toMs))
      }
    }
    t.same([...kinds].toSorted(), ['clock', 'cut', 'isolate', 'kill', 'restart', 'slow'])
    t.same(
      rollingPlan(cast, 1000, 20_000).map(({ fault, fromMs, toMs }) => [fault, fromMs, toMs]),
      CORES.map((node, i) => [{ do: 'restart', node }, 10_000 + 21_000 * i, 11_000 + 21_000 * i]),
    )
  },
)

t.test('figures and differences are taken off a history and off what cores hold', async (t) => {
  const history = historyOf({
    lives: livesWith(life('a', -1000, 20_000), life('a', 60_000)),
    homings: [...historyOf().homings, { atMs: 60_000, agent: 'a', core: 'core2' }],
    answers: views('core1', (atMs) => (atMs <= 26_000 || atMs >= 60_000 ? AGENTS : ['b'])),
    log: [
      { atMs: 1, what: 'kill -9 a' },
      { atMs: 2, what: 'cut a from core1' },
      { atMs: 3, what: 'cut core1 off from everybody' },
      { atMs: 4, what: 'over: kill -9 a' },
    ],
  })
  t.match(measure(history), {
    faults: { 'kill -9': 1, cut: 1, 'cut off': 1 },
    ...{ answers: 100, unanswered: 0, deaths: 1, moves: 1 },
    namedAfterDeathMs: { median: 6000, longest: 6000 },
  })
  const dump = (drained: boolean): string =>
    JSON.stringify({
      services: { 'written-1': { urlHosts: ['v1'] }, mirror: { urlHosts: [] } },
      members: { 'batch/a': { service: 'batch', name: 'a', drained } },
    })
  t.same(heldOf(dump(true), 'batch'), { 'services/written-1': 'v1', 'drained/batch/a': 'drained' })
  t.match(differences(['core1', 'core2'], [dump(true), dump(false)]), [
    /^members\/batch\/a: core1 has .*true.*, core2/,
  ])
  t.match(differences(['core1', 'core2'], [dump(true), 'Error: no answer']), [
    /services/,
    /services/,
    /members/,
    /whole/,
  ])
})
