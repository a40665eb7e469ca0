// Response rate limiting: accounts, slips and whom they spare, by numbers and through answers.

import { createSocket } from 'node:dgram'
import t from 'tap'
import { parseAddress, parsePrefix } from '../../resolver/address.ts'
import { answerDns, type DnsReply } from '../../resolver/dns-answer.ts'
import {
  RATE_LIMITS,
  type RateLimits,
  RESPONSE,
  type ResponseKind,
  ResponseLimiter,
  rateTable,
  VERDICT,
} from '../../resolver/dns-limit.ts'
import { openDns } from '../../resolver/dns-server.ts'
import { hashName } from '../../resolver/hash.ts'
import {
  ask,
  asker,
  contextOf,
  DIRECTORY,
  IS_TRUNCATED,
  queryBytes,
  read,
  subnet,
} from '../support/dns-fixture.ts'
import { noWorkers, workersOf } from '../support/dns-workers.ts'
import { seededRng } from '../support/seeded-rng.ts'

/** Any moment of a clock that has run for a while. */
const START_MS = 5_000_000

function limiterOf(over: Partial<RateLimits>): ResponseLimiter {
  const limits = { ...RATE_LIMITS, ...over }
  return new ResponseLimiter(limits, rateTable(limits))
}

interface Flood {
  readonly from: string
  readonly count: number
  readonly atMs?: number
  readonly kind?: ResponseKind
  readonly subject?: number
  readonly replyBytes?: number
}

/** What becomes of so many responses: [sent, slipped, dropped]. A query has 50 bytes, a response too. */
function flood(limiter: ResponseLimiter, how: Flood): number[] {
  const { count, atMs = 0, kind = RESPONSE.ERROR, subject = 0, replyBytes = 50 } = how
  const told = [0, 0, 0]
  const address = parseAddress(how.from)!
  for (let i = 0; i < count; i++)
    told[limiter.judge(kind, subject, 50, replyBytes, address, 0, START_MS + atMs)]!++
  return told
}

t.test('an asker gets a second’s worth of responses at once, and so many a second after that', async (t) => {
  const limiter = limiterOf({ errorsPerSecond: 100 })
  const from = '203.0.113.1'
  t.same(flood(limiter, { from, count: 150 }), [100, 25, 25], 'every second that is too many is slipped')
  t.same(flood(limiter, { from, count: 100, atMs: 1000 }), [50, 25, 25], 'what it owes is paid first')
  t.same(flood(limiter, { from, count: 200, atMs: 60_000 }), [100, 50, 50], 'credit ends at a second’s worth')
})

t.test('a debt ends a window after the last query, however much was asked', async (t) => {
  const limiter = limiterOf({ errorsPerSecond: 10, windowSec: 5, slip: 0 })
  const from = '203.0.113.1'
  t.same(flood(limiter, { from, count: 100_000 }), [10, 0, 99_990])
  t.same(flood(limiter, { from, count: 1, atMs: 4900 }), [0, 0, 1])
  t.same(flood(limiter, { from, count: 1, atMs: 5200 }), [1, 0, 0])
  t.same(flood(limiter, { from, count: 30, atMs: 6300 }), [10, 0, 20], 'as any other')
})

t.test('rates that do not divide a second are kept as well', async (t) => {
  for (const errorsPerSecond of [3, 7, 999, 1_000_000]) {
    const limiter = limiterOf({ errorsPerSecond })
    const count = errorsPerSecond + 10
    t.same(flood(limiter, { from: '203.0.113.1', count, atMs: 0.123 }), [errorsPerSecond, 5, 5])
  }
})

t.test('a prefix is one asker, of the length that was set', async (t) => {
  const sent = (limiter: ResponseLimiter, from: string) => flood(limiter, { from, count: 10 })[0]
  const limiter = limiterOf({ errorsPerSecond: 10 })
  const addresses = ['203.0.113.1', '203.0.113.99', '203.0.114.1', '2001:db8:0:aa01::1', '2001:db8:0:aaff::1']
  t.same(
    addresses.map((from) => sent(limiter, from)),
    [10, 0, 10, 10, 0],
  )
  const odd = limiterOf({ errorsPerSecond: 10, ipv4PrefixLength: 26, ipv6PrefixLength: 0 })
  const others = ['192.0.2.1', '192.0.2.63', '192.0.2.64', '2001:db8::1', '3fff::1', '0.0.0.0', '0.0.0.64']
  t.same(
    others.map((from) => sent(odd, from)),
    [10, 0, 10, 10, 0, 10, 10],
  )
  const whole = limiterOf({ errorsPerSecond: 10, ipv4PrefixLength: 32, ipv6PrefixLength: 128 })
  t.same(
    ['192.0.2.1', '192.0.2.2', '2001:db8::1', '2001:db8::2', '2001:db8::1'].map((from) => sent(whole, from)),
    [10, 10, 10, 10, 0],
  )
})

t.test('an address may stand anywhere in a buffer', async (t) => {
  const limiter = limiterOf({ errorsPerSecond: 10, exemptClients: [parsePrefix('192.0.2.0/24')!] })
  const buffer = Buffer.concat(['203.0.113.1', '192.0.2.1', '2001:db8::1'].map((text) => parseAddress(text)!))
  const sent = [0, 0, 0]
  for (let i = 0; i < 60; i++) {
    const verdict = limiter.judge(RESPONSE.ERROR, 0, 50, 50, buffer, 16 * (i % 3), START_MS)
    if (verdict === VERDICT.SEND) sent[i % 3]!++
  }
  t.same(sent, [10, 20, 10])
})

t.test('each kind of response has its own account, and a limit of 0 is none', async (t) => {
  const from = '203.0.113.1'
  const limiter = limiterOf({ responsesPerSecond: 10, nxdomainsPerSecond: 20, nodataPerSecond: 0 })
  const sent = (kind: ResponseKind, subject: number) => flood(limiter, { from, count: 200, kind, subject })[0]
  t.same([sent(RESPONSE.ANSWER, 1), sent(RESPONSE.ANSWER, 1), sent(RESPONSE.ANSWER, 2)], [10, 0, 10])
  t.same([sent(RESPONSE.NXDOMAIN, 1), sent(RESPONSE.NXDOMAIN, 2), sent(RESPONSE.NXDOMAIN, 2)], [20, 20, 0])
  t.same([sent(RESPONSE.NODATA, 1), sent(RESPONSE.ERROR, 0)], [200, 100])
})

t.test(
  'with nothing set, plain answers have no limit, and those of over three times the query do',
  async (t) => {
    const from = '203.0.113.1'
    const limiter = limiterOf({})
    const sent = (kind: ResponseKind, replyBytes: number, subject: number) =>
      flood(limiter, { from, count: 1000, kind, replyBytes, subject })[0]
    t.same([sent(RESPONSE.ANSWER, 150, 1), sent(RESPONSE.NODATA, 150, 1)], [1000, 1000])
    t.same([sent(RESPONSE.ANSWER, 151, 1), sent(RESPONSE.ANSWER, 500, 2)], [100, 0], 'whatever the name')
    t.equal(sent(RESPONSE.ANSWER, 150, 1), 1000, 'and the others go on')
    t.same(
      [sent(RESPONSE.NXDOMAIN, 500, 1), sent(RESPONSE.ERROR, 500, 1)],
      [100, 100],
      'on their own accounts',
    )
    t.same(
      [
        limiter.watches(RESPONSE.ANSWER, 50, 150),
        limiter.watches(RESPONSE.ANSWER, 50, 151),
        limiter.watches(RESPONSE.NXDOMAIN, 50, 50),
      ],
      [false, true, true],
    )
  },
)

t.test('all responses together may have a limit, which each of them counts for', async (t) => {
  const from = '203.0.113.1'
  const limiter = limiterOf({ allPerSecond: 50, errorsPerSecond: 30 })
  t.ok(limiter.watches(RESPONSE.ANSWER, 50, 50))
  t.same(flood(limiter, { from, count: 40 }), [30, 5, 5])
  t.same(flood(limiter, { from, count: 20, kind: RESPONSE.ANSWER }), [10, 5, 5])
})

t.test('of responses too many every Nth is slipped, none or all', async (t) => {
  const told = (slip: number) =>
    flood(limiterOf({ errorsPerSecond: 10, slip }), { from: '192.0.2.1', count: 40 })
  t.same(
    [told(0), told(1), told(3), told(10)],
    [
      [10, 0, 30],
      [10, 30, 0],
      [10, 10, 20],
      [10, 3, 27],
    ],
  )
})

t.test('two askers in one flood are slipped alike', async (t) => {
  const limiter = limiterOf({ errorsPerSecond: 10 })
  const told = [
    [0, 0, 0],
    [0, 0, 0],
  ]
  const askers = ['192.0.2.1', '198.51.100.1'].map((text) => parseAddress(text)!)
  for (let i = 0; i < 120; i++)
    told[i % 2]![limiter.judge(RESPONSE.ERROR, 0, 50, 50, askers[i % 2]!, 0, START_MS)]!++
  t.same(told, [
    [10, 25, 25],
    [10, 25, 25],
  ])
})

t.test('a flood of spoofed sources wipes no debt out, and takes no memory', async (t) => {
  const limits = { ...RATE_LIMITS, errorsPerSecond: 10, slip: 0, maxTableSize: 1000 }
  const table = rateTable(limits)
  t.equal(table.byteLength, 1024 * 16)
  const limiter = new ResponseLimiter(limits, table)
  const rng = seededRng(7)
  const spoofed = parseAddress('10.0.0.1')!
  const victim = parseAddress('203.0.113.1')!
  let toVictim = 0
  let toOthers = 0
  for (let i = 0; i < 200_000; i++) {
    for (let at = 12; at < 16; at++) spoofed[at] = Math.floor(rng() * 256)
    if (limiter.judge(RESPONSE.ERROR, 0, 50, 50, spoofed, 0, START_MS + i / 100) === VERDICT.SEND) toOthers++
    if (
      i % 10 === 0 &&
      limiter.judge(RESPONSE.ERROR, 0, 50, 50, victim, 0, START_MS + i / 100) === VERDICT.SEND
    )
      toVictim++
  }
  // Two seconds at ten thousand a second: a second's worth at the start, then nothing until the debt is paid.
  t.equal(toVictim, 10)
  t.ok(toOthers > 190_000, `${toOthers} of 200,000 askers that came once were answered`)
})

t.test('whatever a race leaves in the table, an asker is limited and gets its share again', async (t) => {
  for (const left of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -1, 1e300]) {
    const limits = { ...RATE_LIMITS, errorsPerSecond: 10 }
    const table = rateTable(limits)
    const limiter = new ResponseLimiter(limits, table)
    const from = '192.0.2.1'
    flood(limiter, { from, count: 1 })
    new Float64Array(table).fill(left)
    flood(limiter, { from, count: 100 })
    t.same(flood(limiter, { from, count: 100 })[0], 0, `limited after ${left}`)
    t.same(flood(limiter, { from, count: 5, atMs: 20_000 })[0], 5, `answered after ${left}`)
  }
})

t.test('limiters on one table share its accounts, as threads do', async (t) => {
  const table = rateTable(RATE_LIMITS)
  const [one, other] = [new ResponseLimiter(RATE_LIMITS, table), new ResponseLimiter(RATE_LIMITS, table)]
  const from = '192.0.2.1'
  t.same([flood(one!, { from, count: 60 })[0], flood(other!, { from, count: 60 })[0]], [60, 40])
})

t.test('a subject is a name in any case', async (t) => {
  const [upper, lower] = [Buffer.from('xMIRROR'), Buffer.from('ymirror')]
  t.equal(hashName(upper, 1, 7), hashName(lower, 1, 7))
  t.not(hashName(upper, 1, 7), hashName(lower, 1, 6))
})

const COOKIES = { secrets: [Buffer.alloc(16, 1)], nowSec: 1e9 }
const using = contextOf(DIRECTORY, { cookies: COOKIES })

/** Asks so often that all later answers of the kind are too many, and once more for each reply that is wanted. */
function tooMany(limiter: ResponseLimiter, bytes: Uint8Array, address = '192.0.2.53'): DnsReply[] {
  const from = { ...asker(address), nowMs: START_MS }
  const replies = Array.from({ length: 102 }, () => answerDns(using, bytes, from, limiter))
  return replies.slice(-2)
}

t.test('who asks too much gets TC or nothing, and no more bytes than it sent', async (t) => {
  for (const options of [null, [], [subnet('100.64.1.0', 24)], [{ code: 3, data: Buffer.alloc(0) }]]) {
    const bytes = queryBytes('nothing.any.test', 'A', options)
    const [slipped, dropped] = tooMany(limiterOf({}), bytes)
    const { message } = read(slipped!.reply!)
    t.same(
      [message.rcode, message.flags! & IS_TRUNCATED, message.answers!.length],
      ['NOERROR', IS_TRUNCATED, 0],
    )
    t.ok(slipped!.reply!.length <= bytes.length, `${slipped!.reply!.length} bytes for ${bytes.length}`)
    t.match(
      [slipped!.facts, dropped],
      [
        { outcome: 'slipped', limited: 'slip' },
        { reply: null, facts: { outcome: 'dropped-limited', limited: 'drop' } },
      ],
    )
  }
})

t.test('an error is sent as it is where it would be slipped', async (t) => {
  const [slipped, dropped] = tooMany(limiterOf({}), queryBytes('example.com', 'A', null))
  t.match(slipped!.facts, { outcome: 'refused', limited: 'slip' })
  t.equal(read(slipped!.reply!).message.rcode, 'REFUSED')
  t.match(dropped, { reply: null, facts: { outcome: 'dropped-limited' } })
})

t.test('who knows cookies comes again with the one that it gets, and is then not limited', async (t) => {
  const limiter = limiterOf({})
  const options = (data: Buffer) => [{ code: 10, data }]
  const bytes = queryBytes('nothing.any.test', 'A', options(Buffer.alloc(8, 7)))
  const [slipped] = tooMany(limiter, bytes)
  t.match(slipped!.facts, { outcome: 'badcookie', limited: 'slip' })
  t.equal(slipped!.reply!.length, bytes.length + 16, 'longer by the server’s half')
  const cookie = read(slipped!.reply!).options.find(({ code }) => code === 10)!.data!
  const shown = queryBytes('nothing.any.test', 'A', options(cookie))
  t.equal(tooMany(limiter, shown)[1]!.facts.outcome, 'nxdomain')
  t.equal(
    tooMany(limiter, shown, '192.0.2.54')[1]!.facts.outcome,
    'dropped-limited',
    'as another’s it proves nothing',
  )
})

t.test('who comes by TCP is never limited', async (t) => {
  const limiter = limiterOf({ allPerSecond: 1 })
  const from = { ...asker('192.0.2.53', 'tcp'), nowMs: START_MS }
  for (let i = 0; i < 10; i++)
    t.match(answerDns(using, queryBytes('any.test', 'SOA'), from, limiter).facts, { limited: null })
})

t.test(
  'names that are not there have one account for each zone, names that are there one for each type',
  async (t) => {
    const limiter = limiterOf({
      responsesPerSecond: 1,
      nodataPerSecond: 1,
      nxdomainsPerSecond: 1,
      amplifiedPerSecond: 0,
    })
    const table: readonly (readonly [string, string, string])[] = [
      ['a.any.test', 'A', 'nxdomain'],
      ['B.a.any.test', 'TXT', 'dropped'],
      ['nothing.mirror.example.org', 'A', 'nxdomain'],
      ['other.mirror.example.ORG', 'A', 'dropped'],
      ['mirror.any.test', 'A', 'answered'],
      ['MIRROR.any.test', 'A', 'dropped'],
      ['mirror.any.test', 'AAAA', 'answered'],
      ['pair.any.test', 'A', 'answered'],
      ['mirror.any.test', 'MX', 'nodata'],
      ['mirror.any.test', 'CAA', 'dropped'],
      ['pair.any.test', 'MX', 'nodata'],
    ]
    for (const [name, type, expected] of table) {
      const from = { ...asker(), nowMs: START_MS }
      const { outcome, limited } = answerDns(using, queryBytes(name, type), from, limiter).facts
      t.equal(limited === null ? outcome : 'dropped', expected, `${name} ${type}`)
    }
  },
)

t.test('told only to count, it answers everything', async (t) => {
  const limiter = limiterOf({ logOnly: true })
  const [first, second] = tooMany(limiter, queryBytes('nothing.any.test', 'A'))
  t.match(
    [first, second],
    [
      { facts: { outcome: 'nxdomain', limited: 'slip' } },
      { facts: { outcome: 'nxdomain', limited: 'drop' } },
    ],
  )
  t.ok(first!.reply && second!.reply)
  t.equal(ask(queryBytes('nothing.any.test', 'A')).facts.limited, null)
})

t.test('the server limits by default what amplifies and what fails, and counts it', async (t) => {
  const server = await openDns({ listen: [{ host: '127.0.0.1', port: 0 }], context: using })
  t.teardown(() => server.close())
  const client = createSocket('udp4')
  t.teardown(() => client.close())
  let replies = 0
  client.on('message', () => replies++)
  const received = () => Object.values(server.stats.udp).reduce((sum, n) => sum + n, 0)
  /** Never more at a time than a small buffer holds. */
  const flood = async (bytes: Uint8Array, count: number) => {
    const end = received() + count
    while (received() < end) {
      const before = received()
      for (let i = 0; i < 100; i++) client.send(bytes, server.addresses[0]!.port, '127.0.0.1')
      while (received() < before + 100) await new Promise((resolve) => setTimeout(resolve, 1))
    }
  }
  await flood(queryBytes('mirror.any.test', 'A'), 1000)
  const { udp, limited } = server.stats
  t.same([udp.answered, limited.slip, limited.drop], [1000, 0, 0], 'plain answers')
  const startMs = performance.now()
  await flood(queryBytes('wide.any.test', 'A', null), 1000)
  await flood(queryBytes('nothing.any.test', 'A'), 1000)
  await flood(queryBytes('example.com', 'A'), 1000)
  // A second's worth, and what the time that it took has earned.
  const most = 100 * (1 + (performance.now() - startMs) / 1000) + 1
  for (const sent of [udp.answered - 1000, udp.nxdomain])
    t.ok(sent >= 100 && sent <= most, `${sent} of at most ${most.toFixed(0)}`)
  t.ok(udp.refused >= 100 && udp.slipped > 0 && limited.drop > 0)
  t.equal(received(), 4000)
  t.equal(limited.drop, udp['dropped-limited'])
})

t.test('threads that share a port share the accounts', { skip: noWorkers() }, async (t) => {
  const server = await openDns({
    listen: [{ host: '127.0.0.1', port: 0 }],
    context: using,
    workers: workersOf(DIRECTORY, { count: 2 }),
  })
  t.teardown(() => server.close())
  await server.ready
  const { port } = server.addresses[0]!
  // The system hands each port's packets to one of the threads.
  const clients = Array.from({ length: 20 }, () => createSocket('udp4'))
  t.teardown(() => clients.map((client) => client.close()))
  const query = queryBytes('nothing.any.test', 'A')
  const startMs = performance.now()
  for (let i = 0; i < 400; i++) clients[i % clients.length]!.send(query, port, '127.0.0.1')
  const { udp, limited } = server.stats
  while (udp.nxdomain + limited.slip + limited.drop < 400)
    await new Promise((resolve) => setTimeout(resolve, 5))
  // Threads that debit at the same moment may lose a debit; two that shared nothing would send twice as many.
  const most = 1.5 * 100 * (1 + (performance.now() - startMs) / 1000)
  t.ok(udp.nxdomain >= 100 && udp.nxdomain <= most, `${udp.nxdomain} of at most ${most.toFixed(0)}`)
})
