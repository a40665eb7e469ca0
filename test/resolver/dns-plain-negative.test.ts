// Negative answers of the fast path are those of the ordinary one, byte for byte, and so is what limits make of them.

import { isDeepStrictEqual } from 'node:util'
import t, { type Test } from 'tap'
import type { Change } from '../../resolver/directory.ts'
import type { DnsContext, DnsFacts } from '../../resolver/dns-answer.ts'
import { DnsAnswerer } from '../../resolver/dns-answerer.ts'
import { allocateCounters, counterRow } from '../../resolver/dns-counters.ts'
import { RATE_LIMITS, type RateLimits, ResponseLimiter, rateTable } from '../../resolver/dns-limit.ts'
import { PlainAnswers } from '../../resolver/dns-plain.ts'
import { PlainNames } from '../../resolver/dns-plain-names.ts'
import { PlainNegatives } from '../../resolver/dns-plain-negative.ts'
import { PlainQuery } from '../../resolver/dns-plain-query.ts'
import { Tables } from '../../resolver/tables.ts'
import { asker, contextOf, queryBytes, subnet } from '../support/dns-fixture.ts'
import { host, member, service } from '../support/records.ts'
import { seededRng } from '../support/seeded-rng.ts'

const NO_LIMITS: RateLimits = {
  ...RATE_LIMITS,
  nxdomainsPerSecond: 0,
  errorsPerSecond: 0,
  amplifiedPerSecond: 0,
}
const ROOM = 1232
const START_MS = 5_000_000

const OLD = service('old', { aliases: ['www', 'old.example.org', 'pages.example.net'] })
const SERVICES: readonly Change[] = [
  host('a', ['192.0.2.1']),
  host('b', ['192.0.2.2', '2001:db8::2']),
  host('gone', ['192.0.2.3'], { presence: 'silent', presenceSinceMs: 1 }),
  service('core', { maxAddrs: 1 }),
  member('core', 'a'),
  OLD,
  member('old', 'a', { port: 80 }),
  service('both', { aliases: ['example.net'] }),
  member('both', 'a', { url: 'https://192.0.2.1/' }),
  member('both', 'b'),
  service('down', { allDown: { mode: 'empty' } }),
  member('down', 'gone'),
  service('empty'),
]
const LABELS = [
  'old',
  'both',
  'down',
  'empty',
  'core',
  'www',
  'pages',
  'a',
  'core-a',
  'hostmaster',
  '_why',
  '_tcp',
  '_https',
  'x!y',
  'late',
  'any',
]
const PARENTS = [
  'any.test',
  'any.test',
  'any.test',
  'example.net',
  'example.org',
  'xany.test',
  'old.any.test',
  'old.example.org',
  'x#any$test',
  'test',
  '',
]
/** What no text has in a label: a dot, and lengths as of the labels any and test. */
const ODD_BYTES = new Map(
  [
    ['!', '.'],
    ['#', '\x03'],
    ['$', '\x04'],
  ].map(([a, b]) => [a!.charCodeAt(0), b!.charCodeAt(0)]),
)
const TYPES = [1, 1, 28, 28, 65, 64, 16, 2, 6, 5, 33, 12, 41, 0, 127, 128, 249, 250, 252, 255, 300]

interface World {
  readonly context: DnsContext
  readonly rng: () => number
  change(): void
  /** `cookie`: the asker's own, for some. */
  query(cookie: Buffer): Uint8Array
}

/** Names that lead somewhere, almost do, or don't, in two zones, while services come and go and serials move. */
function worldOf(seed: number): World {
  const rng = seededRng(seed)
  const pick = <T>(some: readonly T[]) => some[Math.floor(rng() * some.length)]!
  const tables = new Tables()
  tables.apply(SERVICES)
  let serial = 4_000_000_000
  const zone = (name: string, core: string) => ({
    labels: name.split('.'),
    core,
    get serial() {
      return serial
    },
  })
  const zones: DnsContext['zones'] = [zone('any.test', 'core-a'), zone('example.net', 'core-b')]
  const cookies = { secrets: [Buffer.alloc(16, 1)], nowSec: 1_700_000_000 }
  const options = [
    null,
    [],
    [subnet('100.64.1.0', 24)],
    [subnet('2001:db8::', 48)],
    [{ code: 10, data: Buffer.alloc(8) }],
  ]
  const late = service('late', { aliases: ['soon', 'late.example.org', 'old.example.com'] })
  return {
    context: contextOf([], { tables, zones, cookies }),
    rng,
    change: () => {
      serial++
      tables.apply([
        pick([
          OLD,
          service('old'),
          late,
          { ...late, value: null },
          member('empty', 'b'),
          { ...member('empty', 'b'), value: null },
        ]),
      ])
    },
    query: (cookie) => {
      const made = Math.floor(rng() * 36 ** 4).toString(36)
      const labels = Array.from({ length: Math.floor(rng() * 4) }, () => (rng() < 0.4 ? made : pick(LABELS)))
      const name = [...labels, pick(PARENTS)].filter((label) => label !== '').join('.')
      const cased = [...name].map((letter) => (rng() < 0.1 ? letter.toUpperCase() : letter)).join('')
      const bytes = queryBytes(
        cased === '' ? '.' : cased,
        'A',
        rng() < 0.1 ? [{ code: 10, data: cookie }] : pick(options),
      )
      const typeAt = 12 + (name === '' ? 1 : name.length + 2)
      bytes.writeUInt16BE(pick(TYPES), typeAt)
      for (let i = 12; i < typeAt; i++) bytes[i] = ODD_BYTES.get(bytes[i]!) ?? bytes[i]!
      return bytes
    },
  }
}

/** One that answers by the fast path where it can, and one that never does, of the same limits. */
function pairOf({ context }: World, limits: RateLimits) {
  const [fastFacts, slowFacts]: [DnsFacts[], DnsFacts[]] = [[], []]
  const of = (seen: DnsFacts[]) => {
    const counters = counterRow(allocateCounters(1), 0)
    const answerer = new DnsAnswerer({
      context,
      limiter: new ResponseLimiter(limits, rateTable(limits)),
      counters,
      onFacts: (facts) => seen.push({ ...facts, labels: null, member: null, ms: 0 }),
      sampleEvery: 0,
      onSample: () => {},
      onError: (error) => {
        throw error
      },
    })
    return { answerer, counters }
  }
  const [fast, slow] = [of(fastFacts), of(slowFacts)]
  const out = new Uint8Array(ROOM)
  const ask = (packet: Uint8Array, from: string, nowMs: number) => {
    const { address, port } = asker(from)
    const length = fast.answerer.answerInto(packet, 0, packet.length, address, port, nowMs, out, 0, ROOM)
    const reply = slow.answerer.answer(packet, address, port, 'udp', 0, nowMs)
    return {
      fast: Buffer.from(out.subarray(0, length)).toString('hex'),
      slow: Buffer.from(reply ?? []).toString('hex'),
      facts: [fastFacts.pop()!, slowFacts.pop()!] as const,
    }
  }
  return { ask, counts: () => [fast.counters, slow.counters] as const }
}

function compare(
  t: Test,
  seed: number,
  limits: RateLimits,
  count: number,
  stepMs: number,
): Map<string, number> {
  const world = worldOf(seed)
  const { ask, counts } = pairOf(world, limits)
  const outcomes = new Map<string, number>()
  const askers = Array.from({ length: 4 }, (_, i) => `198.51.100.${i}`)
  const cookies = askers.map((from) => {
    const { fast } = ask(
      queryBytes('both.any.test', 'A', [{ code: 10, data: Buffer.alloc(8) }]),
      from,
      START_MS,
    )
    return Buffer.from(fast, 'hex').subarray(-24)
  })
  for (let n = 0; n < count; n++) {
    if (n % 100 === 99) world.change()
    const i = Math.floor(world.rng() * askers.length)
    const packet = world.query(cookies[i]!)
    const seen = ask(packet, askers[i]!, START_MS + n * stepMs)
    const { outcome } = seen.facts[1]
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
    if (seen.fast === seen.slow && isDeepStrictEqual(...seen.facts)) continue
    t.same(seen.facts[0], seen.facts[1], `question ${n}: ${Buffer.from(packet).toString('latin1')}`)
    t.equal(seen.fast, seen.slow)
    break
  }
  t.same(counts()[0], counts()[1], 'both count the same')
  return outcomes
}

t.test(
  'names that lead nowhere are denied as on the ordinary path, while services come and go',
  async (t) => {
    const outcomes = compare(t, 1, NO_LIMITS, 30_000, 1)
    for (const outcome of ['nxdomain', 'nodata', 'refused', 'answered'])
      t.ok((outcomes.get(outcome) ?? 0) > 500, `${outcome}: ${outcomes.get(outcome)}`)
  },
)

t.test('most of it is told without the ordinary path', async (t) => {
  const world = worldOf(2)
  const plain = new PlainAnswers(world.context)
  const out = new Uint8Array(ROOM)
  const { address } = asker()
  const isPlain = (name: string, type: string) => {
    const packet = queryBytes(name, type, [])
    return plain.answer(packet, 0, packet.length, address, out, 0, ROOM) > 0
  }
  t.ok(isPlain('nothing.any.test', 'A'))
  t.ok(isPlain('a.b.nothing.any.test', 'TXT'))
  t.ok(isPlain('elsewhere.invalid', 'A'))
  t.ok(isPlain('old.any.test', 'AAAA'), 'no member has such an address')
  t.ok(isPlain('old.any.test', 'HTTPS'), 'no member has a URL')
  t.ok(isPlain('both.any.test', 'TXT'))
  t.notOk(isPlain('both.any.test', 'HTTPS'))
  t.notOk(isPlain('hostmaster.any.test', 'A'), 'its SOA is like no other’s')
  // Below a service, once its name was asked for.
  t.ok(isPlain('old.example.org', 'A'))
  t.ok(isPlain('nothing.old.any.test', 'A'))
  t.ok(isPlain('no.nothing.old.any.test', 'A'))
  t.ok(isPlain('nothing.old.example.org', 'A'))
  t.notOk(isPlain('a.old.any.test', 'A'), 'a member')
  t.notOk(isPlain('_why.old.any.test', 'TXT'))
})

t.test('what is kept of a negative answer keeps nothing else alive', async (t) => {
  const negatives = new PlainNegatives(worldOf(2).context, new PlainNames())
  const packet = queryBytes('nothing.any.test', 'A', [])
  const query = new PlainQuery()
  t.ok(query.read(packet, 0, packet.length))
  const { authority } = negatives.ofName(packet, 0, packet.length, query)!
  t.ok(authority.length > 0)
  t.equal(authority.buffer.byteLength, authority.length)
})

for (const [what, over] of [
  ['one in two slipped', { slip: 2 }],
  ['none slipped', { slip: 0 }],
  ['all slipped', { slip: 1 }],
  ['only told of', { logOnly: true }],
  [
    'negatives without end, all in all limited',
    { nxdomainsPerSecond: 0, errorsPerSecond: 0, allPerSecond: 20 },
  ],
] as const) {
  t.test(`limits make the same of them: ${what}`, async (t) => {
    const few = { ...RATE_LIMITS, nxdomainsPerSecond: 5, errorsPerSecond: 5, nodataPerSecond: 5, ...over }
    const outcomes = compare(t, 3, few, 6000, 3)
    const limited = (outcomes.get('slipped') ?? 0) + (outcomes.get('dropped-limited') ?? 0)
    t.equal(limited > 500, what !== 'only told of', `${limited} were one too many`)
  })
}
