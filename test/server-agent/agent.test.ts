// The agent against a fake core that speaks the real protocol over real HTTP: echo, checks, orders,
// settings, the life of an Agent, and the command with its signals.

import { type ChildProcess, spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer, type ServerResponse } from 'node:http'
import { type AddressInfo, createServer as createTcpServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { Agent, type AgentOptions } from '../../server-agent/agent.ts'
import { AgentError } from '../../server-agent/agent-error.ts'
import { countTry, type Health, parseCheck, runCheck, UNTRIED } from '../../server-agent/check.ts'
import { answersQuery, parsePing, rootQuery } from '../../server-agent/client-probe.ts'
import { backoffMs, isFinal } from '../../server-agent/core-client.ts'
import { parseLoad, parseLoadSource, readLoad } from '../../server-agent/load.ts'
import { labelFrom, resolveOptions } from '../../server-agent/options.ts'
import { isProbeable, Prober } from '../../server-agent/prober.ts'
import {
  answerEcho,
  ECHO_BYTES,
  isEchoReply,
  newProber,
  proberKey,
  writeEchoRequest,
} from '../../server-agent/protocol/echo.ts'
import { type EchoSocket, openEcho } from '../../server-agent/protocol/echo-socket.ts'
import type { OrderResult } from '../../server-agent/protocol/messages.ts'
import { TokenBuckets } from '../../server-agent/protocol/token-bucket.ts'
import { withSettings } from '../../server-agent/settings.ts'
import { seededRng } from '../support/seeded-rng.ts'
import { FakeCore, problem } from './fake-core.ts'

const HOUR_MS = 3_600_000
const hostKey = new Uint8Array(32).fill(7)
const prober = newProber(1000 * HOUR_MS, new Uint8Array(12).fill(9))
const key = proberKey(hostKey, prober)
const nonce = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)

async function until(what: string, holds: () => boolean, limitMs = 5000): Promise<void> {
  const endMs = performance.now() + limitMs
  while (!holds()) {
    if (performance.now() > endMs) throw new Error(`not within ${limitMs} ms: ${what}`)
    await sleep(5)
  }
}

// ---- echo ----

t.test('an echo request and its reply have the bytes that the protocol fixes', async (t) => {
  const request = Buffer.from(writeEchoRequest(prober, key, nonce))
  t.equal(
    request.toString('hex'),
    '4e43454301010000' +
      '000003e8090909090909090909090909' +
      '0102030405060708' +
      '499802261d4ee437c2adb2977da223aa',
  )
  const answer = answerEcho(request, hostKey, 1000 * HOUR_MS)
  t.ok('reply' in answer)
  if (!('reply' in answer)) return
  t.equal(
    Buffer.from(answer.reply).toString('hex'),
    '4e43454301020000' +
      '000003e8090909090909090909090909' +
      '0102030405060708' +
      '07f961537a0cd4bf976b0f839f1a1852',
  )
  t.ok(isEchoReply(answer.reply, key, nonce))
  t.notOk(isEchoReply(request, key, nonce), 'a request is no reply')
  t.notOk(isEchoReply(answer.reply, proberKey(hostKey, new Uint8Array(16)), nonce), 'wrong key')
  t.notOk(isEchoReply(answer.reply, key, new Uint8Array(8)), 'wrong nonce')
  t.same(answerEcho(answer.reply, hostKey, 1000 * HOUR_MS), { drop: 'shape' }, 'no reply to a reply')
  t.same(answerEcho(request, new Uint8Array(32), 1000 * HOUR_MS), { drop: 'mac' }, 'another host’s key')
})

t.test('a prober is believed for 48 hours and no longer, on either side of now', async (t) => {
  const request = writeEchoRequest(prober, key, nonce)
  for (const [hours, expected] of [
    [1000 - 49, 'age'],
    [1000 - 48, null],
    [1000 + 48, null],
    [1000 + 49, 'age'],
  ] as const) {
    const answer = answerEcho(request, hostKey, hours * HOUR_MS)
    t.equal('drop' in answer ? answer.drop : null, expected, `at hour ${hours}`)
  }
})

t.test('every length, and every flipped bit of a good request, gets no reply', async (t) => {
  const request = writeEchoRequest(prober, key, nonce)
  const longer = new Uint8Array(512)
  longer.set(request)
  let answered = 0
  for (let length = 0; length <= 512; length++) {
    if ('reply' in answerEcho(longer.subarray(0, length), hostKey, 1000 * HOUR_MS)) answered++
  }
  t.equal(answered, 1, `only ${ECHO_BYTES} bytes are a request`)
  for (let bit = 0; bit < ECHO_BYTES * 8; bit++) {
    const mutant = Uint8Array.from(request)
    mutant[bit >> 3]! ^= 1 << (bit & 7)
    if ('reply' in answerEcho(mutant, hostKey, 1000 * HOUR_MS)) t.fail(`bit ${bit} is not covered`)
  }
})

t.test('1,000 malformed packets get no reply and are all counted by reason', async (t) => {
  const echo = await openEcho({ host: '127.0.0.1', port: 0, key: () => hostKey })
  const attacker = createSocket('udp4')
  t.teardown(() => Promise.all([echo.close(), attacker.close()]))
  let replies = 0
  attacker.on('message', () => replies++)
  const random = seededRng(1)
  const good = writeEchoRequest(newProber(Date.now(), new Uint8Array(12)), key, nonce)
  for (let sent = 0; sent < 1000; sent++) {
    const packet = Uint8Array.from({ length: Math.floor(random() * 100) }, () => random() * 256)
    if (sent % 2 === 0) packet.set(good.subarray(0, packet.length))
    attacker.send(packet, echo.port, '127.0.0.1')
    if (sent % 50 === 49) await until('they came', () => echo.stats.received === sent + 1)
  }
  const { received, answered, matched, dropped } = echo.stats
  t.equal(received, 1000)
  t.equal(answered + matched, 0)
  t.equal(
    Object.values(dropped).reduce((sum, count) => sum + count),
    1000,
  )
  t.ok(dropped.shape > 900)
  const asker = await openEcho({ host: '127.0.0.1', port: 0, key: () => null })
  t.teardown(() => asker.close())
  t.equal((await ping(asker, echo, 3)).rttsMs.length, 3, 'and it still answers a good one')
  t.equal(replies, 0)
})

function ping(from: EchoSocket, to: EchoSocket, count: number, address = '127.0.0.1') {
  const fresh = newProber(Date.now(), new Uint8Array(12))
  const target = { address, port: to.port, prober: fresh, key: proberKey(hostKey, fresh) }
  return from.ping({ ...target, count, intervalMs: 1, timeoutMs: 1000 })
}

t.test(
  'an echo socket on :: measures both families, many at once, and is rate-limited per source',
  async (t) => {
    const target = await openEcho({ host: '::', port: 0, key: () => hostKey, steadyNow: () => 0 })
    const asker = await openEcho({ host: '::', port: 0, key: () => null })
    t.teardown(() => Promise.all([target.close(), asker.close()]))
    const both = await Promise.all([ping(asker, target, 4), ping(asker, target, 4, '::1')])
    for (const { rttsMs, sent } of both) {
      t.equal(sent, 4)
      t.equal(rttsMs.length, 4)
      t.ok(rttsMs.every((ms) => ms > 0 && ms < 500))
    }
    const many = await Promise.all(Array.from({ length: 30 }, () => ping(asker, target, 10)))
    const answered = many.reduce((sum, { rttsMs }) => sum + rttsMs.length, 0)
    t.equal(answered, 196, 'with the clock standing still, a source gets its 200 at once and no more')
    t.equal(target.stats.dropped['source-limit'], 300 - 196)
  },
)

t.test('an echo that nobody answers, or that can’t be sent, costs its timeout and is no RTT', async (t) => {
  const silent = await openEcho({ host: '127.0.0.1', port: 0, key: () => null })
  const asker = await openEcho({ host: '127.0.0.1', port: 0, key: () => null })
  t.teardown(() => asker.close())
  const request = { port: silent.port, prober, key, count: 2, intervalMs: 1 }
  const lost = await asker.ping({ ...request, address: '127.0.0.1', timeoutMs: 30 })
  t.same(lost, { rttsMs: [], sent: 2 })
  t.equal(silent.stats.dropped['no-key'], 2)
  t.same(await asker.ping({ ...request, address: '::1', timeoutMs: 60_000 }), { rttsMs: [], sent: 2 })
  const waiting = asker.ping({ ...request, address: '127.0.0.1', timeoutMs: 60_000 })
  await until('sent', () => silent.stats.received === 4)
  await Promise.all([asker.close(), silent.close()])
  t.same(await waiting, { rttsMs: [], sent: 2 }, 'close ends what waits')
  await t.rejects(openEcho({ host: '192.0.2.1', port: 0, key: () => null }), { code: 'EADDRNOTAVAIL' })
})

t.test('a token bucket never grants more than burst + time * rate in any span', async (t) => {
  const random = seededRng(2)
  const buckets = new TokenBuckets({ perSec: 10, burst: 20, maxKeys: 2 })
  const granted: number[] = []
  let nowMs = 0
  for (let i = 0; i < 3000; i++) {
    nowMs += random() < 0.9 ? random() * 20 : random() * 3000
    if (buckets.take('a', nowMs)) granted.push(nowMs)
  }
  t.ok(granted.length > 200)
  let worst = 0
  for (let from = 0; from < granted.length; from++) {
    for (let to = from; to < granted.length; to++) {
      worst = Math.max(worst, to - from + 1 - (20 + (granted[to]! - granted[from]!) / 100))
    }
  }
  t.ok(worst <= 1e-9, `over by ${worst}`)
  t.ok(buckets.take('b', nowMs, 20))
  t.notOk(buckets.take('b', nowMs))
  t.ok(buckets.take('c', nowMs))
})

// ---- checks and loads ----

t.test('the first check counts at once, then rise and fall do', async (t) => {
  const story = (tries: string, rise: number, fall: number): string => {
    let count = UNTRIED
    const letters: Record<Health, string> = { up: 'u', down: 'd', unknown: '?' }
    const after = [...tries].map((one) => {
      count = countTry(count, one === '+', rise, fall)
      return letters[count.health]
    })
    return after.join('')
  }
  t.equal(story('+', 2, 3), 'u')
  t.equal(story('-', 2, 3), 'd')
  t.equal(story('+--+--+---', 2, 3), 'uuuuuuuuud', 'a good one in between starts the count again')
  t.equal(story('-+-+-++', 2, 3), 'ddddddu')
  t.equal(story('+-+-', 1, 1), 'udud')
})

t.test('check texts are understood or refused', async (t) => {
  t.match(parseCheck('tcp://127.0.0.1:80'), { kind: 'tcp', host: '127.0.0.1', port: 80 })
  t.match(parseCheck('tcp://[::1]:65535'), { kind: 'tcp', host: '::1', port: 65_535 })
  t.match(parseCheck('exec: true '), { kind: 'exec', command: 'true' })
  t.match(parseCheck('https://h/x?y'), { kind: 'http' })
  for (const text of [
    '',
    'tcp://h',
    'tcp://h:0',
    'tcp://h:65536',
    'exec:',
    'udp://h:1',
    'http://',
    'file:///x',
    'h:80',
  ]) {
    t.equal(parseCheck(text), null, text)
  }
})

t.test('a check tells well from not well in time, and leaves nothing behind', async (t) => {
  const server = createServer((request, response) => {
    if (request.url === '/hang') return
    response.statusCode = Number(request.url!.slice(1))
    response.end('x'.repeat(100_000))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const port = (server.address() as AddressInfo).port
  const closed = await closedPort()
  const mark = join(t.testdir(), 'survived')
  const cases: readonly (readonly [string, boolean, RegExp])[] = [
    [`tcp://127.0.0.1:${port}`, true, /connected/],
    [`tcp://127.0.0.1:${closed}`, false, /refused/],
    [`http://127.0.0.1:${port}/200`, true, /200/],
    [`http://127.0.0.1:${port}/302`, true, /302/],
    [`http://127.0.0.1:${port}/404`, false, /404/],
    [`http://127.0.0.1:${port}/500`, false, /500/],
    [`http://127.0.0.1:${port}/hang`, false, /no answer in 300 ms/],
    [`https://127.0.0.1:${port}/200`, false, /./],
    [`http://127.0.0.1:${closed}/`, false, /ECONNREFUSED/],
    ['exec:true', true, /exit 0/],
    ['exec:exit 3', false, /exit 3/],
    ['exec:kill -9 $$', false, /signal/],
    [`exec:(sleep 1; touch ${mark}) & sleep 30`, false, /no answer in 300 ms/],
    [`exec:(sleep 1; touch ${mark}) & exit 0`, true, /exit 0/],
  ]
  await Promise.all(
    cases.map(async ([text, ok, detail]) => {
      const startMs = performance.now()
      const outcome = await runCheck(parseCheck(text)!, 300)
      t.equal(outcome.ok, ok, text)
      t.match(outcome.detail, detail, text)
      t.ok(performance.now() - startMs < 900, `${text} ends in time`)
    }),
  )
  t.match(await runCheck({ kind: 'call', call: () => false }, 300), { ok: false })
  t.match(await runCheck({ kind: 'call', call: () => new Promise(() => {}) }, 20), { ok: false })
  t.equal(await new Promise((resolve) => server.getConnections((_, open) => resolve(open))), 0)
  await sleep(1100)
  t.notOk(existsSync(mark), 'no child of a check outlived it')
})

t.test('a load is a number >= 0 or nothing', async (t) => {
  for (const [text, load] of [
    ['0', 0],
    [' 12.5\n', 12.5],
    ['1e3', 1000],
    ['', null],
    ['x', null],
    ['-1', null],
    ['NaN', null],
    ['Infinity', null],
    ['1 2', null],
    ['1e16', null],
  ] as const) {
    t.equal(parseLoad(text), load, JSON.stringify(text))
  }
  const server = createServer((request, response) => response.end(request.url === '/n' ? '7.5' : '{"a":1}'))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  t.equal(await readLoad(parseLoadSource(`${base}/n`)!, 1000), 7.5)
  await t.rejects(readLoad(parseLoadSource(`${base}/o`)!, 1000), /is not a number/)
  t.equal(await readLoad(parseLoadSource('exec:echo 3; sleep 0.01; echo')!, 1000), 3)
  await t.rejects(readLoad(parseLoadSource('exec:echo 3; exit 1')!, 1000), /exit 1/)
  t.equal(await readLoad({ kind: 'call', call: () => 4 }, 1000), 4)
  t.equal(parseLoadSource('echo 3'), null)
})

async function closedPort(): Promise<number> {
  const server = createTcpServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

// ---- options and settings ----

t.test('a wrong option is named with its value and what is expected', async (t) => {
  const good = { cores: 'http://127.0.0.1:1', members: [{ service: 's' }] }
  const resolve = (options: object) =>
    resolveOptions({ ...good, ...options } as AgentOptions, 'Web_01.example.net')
  t.equal(resolve({}).name, 'web-01')
  t.equal(labelFrom('-..'), 'host')
  const wrong: readonly (readonly [object, RegExp])[] = [
    [{ cores: [] }, /^cores: got nothing, expected the URL/],
    [{ cores: 'ftp://x' }, /^cores: got 'ftp:\/\/x', expected an http/],
    [{ cores: 'http://core.example.net' }, /^cores: .*expected https:.*insecure/],
    [{ cores: 'http://127.0.0.1.example.net' }, /in the clear/],
    [{ cores: 'https://u:p@h/' }, /without user/],
    [{ name: 'Web' }, /^name: got 'Web', expected one DNS label/],
    [{ nmae: 'x' }, /^nmae: there is no such key; there are cores, /],
    [{ addresses: ['300.1.1.1'] }, /^addresses: got '300.1.1.1'/],
    [{ addresses: '192.0.2.1' }, /^addresses: .* a list/],
    [{ token: 'a b' }, /^token: got '\.\.\.', expected the secret/],
    [{ echo: 'localhost:1' }, /^echo: got 'localhost:1', expected ADDRESS:PORT/],
    [{ echoAdvertise: '192.0.2.1:0' }, /^echoAdvertise: /],
    [{ leaseSec: 2 }, /^leaseSec: got 2, expected a number from 3 to 300/],
    [{ checkFall: 1.5 }, /^checkFall: got 1.5, expected a whole number/],
    [{ place: { lat: 91, lon: 0 } }, /^place.lat: got 91/],
    [
      { members: [{ service: 's' }, { service: 's', port: '80' }] },
      /^members\[1\]\.port: got '80', expected a whole/,
    ],
    [{ members: [{}] }, /^members\[0\]\.service: got nothing/],
    [{ members: [{ service: 's', url: 'x' }] }, /^members\[0\]\.url: got 'x'/],
    [{ members: [{ service: 's', check: 'ping' }] }, /^members\[0\]\.check: got 'ping', expected tcp/],
    [{ members: [{ service: 's', load: '3' }] }, /^members\[0\]\.load: /],
    [
      { members: [{ service: 's', capacity: 0 }] },
      /^members\[0\]\.capacity: got 0, expected a number above 0/,
    ],
    [{ members: [{ service: 's', attributes: { K: 'v' } }] }, /^members\[0\]\.attributes: got 'K'/],
    [{ members: [{ service: 's', attributes: { k: 1 } }] }, /^members\[0\]\.attributes\.k: got 1/],
  ]
  for (const [options, message] of wrong) {
    t.throws(() => resolve(options), { code: 'bad-option', message }, JSON.stringify(options))
  }
  t.throws(() => new Agent({ ...good, members: [{ service: 's' }, { service: 's' }] }), /there twice/)
  for (const core of [
    'http://localhost:1',
    'http://[::1]:1',
    'http://127.9.9.9',
    'https://core.example.net/x',
  ]) {
    t.equal(resolve({ cores: core }).cores.length, 1, core)
  }
  t.equal(resolve({ cores: 'http://core.example.net', insecure: true }).cores.length, 1)
})

t.test(
  'flags win over variables, which win over the file, and errors name where a value was set',
  async (t) => {
    const file = join(
      t.testdir({
        'one.yaml': 'core: http://127.0.0.1:3\nport: 3\nservice: f\nattr: { tier: 1 }\ncheck-interval: 0.5\n',
        'many.yaml':
          'core: http://127.0.0.1:3\nmembers:\n  - { service: a, attr: { k: v } }\n  - { service: b, port: 0 }\n',
        'odd.yaml': 'cores: x\n',
        'list.yaml': '- x\n',
      }),
    )
    const settle = (flags: object, env: object = {}) =>
      withSettings(flags as never, env as NodeJS.ProcessEnv, (options) => resolveOptions(options, 'h'))
    const all = settle(
      {
        config: join(file, 'one.yaml'),
        core: 'http://127.0.0.1:1,http://127.0.0.1:11',
        attr: ['a=1', 'b=x=y'],
      },
      { NEARCAST_CORE: 'http://127.0.0.1:2', NEARCAST_PORT: '2', STATE_DIRECTORY: '/s' },
    )
    t.same(
      all.cores.map(({ port }) => port),
      ['1', '11'],
    )
    t.match(all, {
      stateDir: '/s',
      pace: { intervalMs: 500, timeoutMs: 2000 },
      echo: { host: '::', port: 8054 },
    })
    t.match(all.members, [{ service: 'f', port: 2, attributes: { a: '1', b: 'x=y' } }])
    t.same(settle({ config: join(file, 'one.yaml') }).members[0]!.attributes, { tier: '1' })
    const core = { core: 'http://127.0.0.1:1' }
    const wrong: readonly (readonly [object, object, RegExp])[] = [
      [core, {}, /^--service: got nothing/],
      [{ ...core, service: 's', port: '8o' }, {}, /^--port: got '8o', expected a whole number/],
      [{ ...core, service: 's' }, { NEARCAST_PORT: '0' }, /^NEARCAST_PORT: got 0/],
      [{ ...core, service: 's', attr: ['k'] }, {}, /^--attr\.k: got nothing/],
      [{ ...core, service: 's', place: '1,2,3' }, {}, /^--place: got '1,2,3'/],
      [{ service: 's' }, {}, /^--core: got nothing/],
      [{ config: join(file, 'many.yaml') }, {}, /^members\[1\]\.port in .*many.yaml: got 0/],
      [{ config: join(file, 'many.yaml'), url: 'http://x' }, {}, /^--url: .*one or the other/],
      [
        { config: join(file, 'odd.yaml') },
        {},
        /^cores in .*odd.yaml: there is no such key; there are members, core/,
      ],
      [{ config: join(file, 'list.yaml') }, {}, /^--config: .* holds no keys/],
      [{ config: join(file, 'none.yaml') }, {}, /^--config: can't read .*ENOENT/],
    ]
    for (const [flags, env, message] of wrong) {
      t.throws(() => settle(flags, env), { code: 'bad-option', message }, String(message))
    }
  },
)

t.test('retries wait from an eighth of a second up to 8 seconds, never in step', async (t) => {
  t.same(
    [1, 2, 3, 6, 50].map((failures) => backoffMs(failures, () => 0)),
    [125, 250, 500, 4000, 4000],
  )
  t.equal(backoffMs(50, () => 0.999_999) > 7999, true)
})

t.test(
  'a taken name is waited for until the lease of before has surely ended, other refusals are final',
  async (t) => {
    const taken = new AgentError('refused', 'taken', { status: 409 })
    for (const [waitedMs, leaseSec, expected] of [
      [30_000, undefined, false],
      [30_001, undefined, true],
      [31_000, 30, false],
      [60_001, 30, true],
      [599_000, 300, false],
    ] as const) {
      t.equal(isFinal(taken, waitedMs, leaseSec), expected, `${waitedMs} ms, a lease of ${leaseSec} s`)
    }
    t.ok(isFinal(new AgentError('refused', 'no', { status: 403 }), 0))
    t.notOk(isFinal(new AgentError('unreachable', 'gone'), 1e9))
  },
)

// ---- the agent ----

async function openCore(t: Test): Promise<FakeCore> {
  const core = await new FakeCore().open()
  t.teardown(() => core.close())
  return core
}

function newAgent(t: Test, core: FakeCore | readonly FakeCore[], options: Partial<AgentOptions> = {}): Agent {
  const agent = new Agent({
    cores: [core].flat().map(({ url }) => url),
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

t.test('an agent joins, tells what changed and only that, and leaves', async (t) => {
  const core = await openCore(t)
  let ok = true
  let load = 1
  const member = {
    service: 'mirror',
    port: 80,
    url: 'http://127.0.0.1/pub',
    attributes: { k: 'v' },
    capacity: 9,
  }
  const agent = newAgent(t, core, {
    members: [{ ...member, check: () => ok, load: () => load }],
    checkIntervalMs: 100,
    checkFall: 1,
  })
  const joined = await agent.start()
  t.match(joined, {
    core: core.url,
    home: 'fake',
    host: 'a',
    members: [{ service: 'mirror', state: 'unverified' }],
  })
  t.match(core.heard[0], { method: 'GET', path: '/v1/services/core/nearest?k=8', bearer: null })
  t.match(core.heard[1], { method: 'PUT', path: '/v1/hosts/a', bearer: 'good-token' })
  t.match(core.heard[1]!.body, {
    addresses: ['127.0.0.1'],
    echo: { address: '127.0.0.1', port: agent.echoPort },
  })
  t.match(core.heard[2], {
    method: 'PUT',
    path: '/v1/services/mirror/members/a',
    bearer: core.hosts.get('a'),
  })
  t.match(core.heard[2]!.body, { port: 80, url: 'http://127.0.0.1/pub', capacity: 9, load: 1, health: 'up' })
  await until('two heartbeats', () => core.beats.length >= 2)
  t.same(
    core.beats.flatMap((beat) => beat.members),
    [],
    'nothing changed, nothing is said',
  )
  ok = false
  const seen = core.beats.length
  await until('the bad news', () => core.beats.slice(seen).some((beat) => beat.members.length > 0))
  await until('more heartbeats', () => core.beats.length > seen + 3)
  t.same(
    core.beats.slice(seen).flatMap((beat) => beat.members),
    [{ service: 'mirror', name: 'a', health: 'down' }],
    'once',
  )
  load = 2
  t.equal(core.invalid.length, 0)
  await agent.stop()
  t.match(core.heard.at(-1), { method: 'DELETE', path: '/v1/hosts/a' }, 'the last word is goodbye')
  t.equal(core.hosts.size, 0)
  await t.rejects(agent.start(), /once/)
})

t.test('a heartbeat that was lost tells its news again', async (t) => {
  const core = await openCore(t)
  let ok = true
  const agent = newAgent(t, core, {
    members: [{ service: 'mirror', check: () => ok }],
    checkIntervalMs: 100,
    checkFall: 1,
  })
  await agent.start()
  let lost = 0
  core.override = ({ body }, response) => {
    if (lost > 0 || body?.beats?.[0].members.length === 0) return false
    lost++
    response.destroy()
    return true
  }
  ok = false
  await until('told twice', () => core.beats.filter((beat) => beat.members.length > 0).length === 2)
  t.equal(lost, 1)
  t.equal(
    core.heard.filter(({ path }) => path === '/v1/hosts/a').length,
    1,
    'one lost heartbeat is no lost core',
  )
})

t.test('an agent that its core no longer knows registers again at once', async (t) => {
  const core = await openCore(t)
  const agent = newAgent(t, core)
  await agent.start()
  core.hosts.clear()
  core.members.clear()
  await until('it is back', () => core.members.has('mirror/a'))
  t.equal(agent.joined?.core, core.url)
  t.ok(
    core.heard.some(({ bearer, path }) => path === '/v1/hosts/a' && bearer?.startsWith('own-')),
    'credential first',
  )
})

t.test('who joined without a token joins so again when its credential is forgotten', async (t) => {
  const core = await openCore(t)
  core.isOpen = true
  const stateDir = t.testdir()
  const first = newAgent(t, core, { token: undefined, stateDir })
  await first.start()
  core.hosts.clear()
  await until('it is back', () => core.hosts.has('a'))
  await first.stop()
  t.equal(core.hosts.size, 0, 'a goodbye, after which nobody remembers it')
  const second = newAgent(t, core, { token: undefined, stateDir })
  await second.start()
  t.match(readFileSync(join(stateDir, 'a.json'), 'utf8'), core.hosts.get('a')!)
})

t.test('a member that is refused when its host registers again leaves the host its name', async (t) => {
  const core = await openCore(t)
  const agent = newAgent(t, core, { members: [{ service: 'mirror' }, { service: 'gone' }] })
  await agent.start()
  let unknown = 1
  core.override = ({ path, method, body }, response) => {
    const isRefused = method === 'PUT' && (body?.members !== undefined || path.includes('/gone/'))
    const isUnknown = path === '/v1/heartbeats' && unknown-- > 0
    if (!isRefused && !isUnknown) return false
    response.writeHead(isRefused ? 404 : 200, { 'content-type': 'application/problem+json' })
    const refusal = { ...problem(404, 'there is no service gone'), field: 'members.1' }
    response.end(
      JSON.stringify(isRefused ? refusal : { beats: [{ host: 'a', status: 'unknown', orders: [] }] }),
    )
    return true
  }
  const warned = once(agent, 'warning')
  t.match(await warned, [/gone\/a: .*no service gone/])
  const beats = core.beats.length
  await until('it is heard again', () => core.beats.length > beats + 2)
  const again = core.heard.slice(3)
  t.notOk(
    again.some(({ bearer }) => bearer === core.token),
    'its own credential does',
  )
})

t.test('an agent whose core dies is with the next one after two failures', async (t) => {
  const [one, two] = [await openCore(t), await openCore(t)]
  const agent = newAgent(t, [one, two])
  const lost: string[] = []
  agent.on('lost', ({ core }) => lost.push(core))
  await agent.start()
  const startMs = performance.now()
  one.close()
  await until('it joined the second', () => two.members.has('mirror/a'))
  t.ok(performance.now() - startMs < 2000)
  t.same(lost, [one.url])
  await agent.stop()
  t.equal(two.hosts.size, 0)
})

t.test('goodbye waits for a core that hangs, but not for ever', async (t) => {
  const core = await openCore(t)
  const agent = newAgent(t, core)
  await agent.start()
  core.override = () => true
  const warned = once(agent, 'warning')
  const startMs = performance.now()
  await agent.stop()
  t.ok(performance.now() - startMs < 5500)
  t.match(await warned, [/no core could be told/])
})

t.test('a core that lies, babbles or breaks never ends the agent, and is left when it can be', async (t) => {
  const lies: readonly (readonly [string, (response: ServerResponse) => void])[] = [
    ['nothing', () => {}],
    ['garbage', (response) => response.end('{"beats": [')],
    ['wrong types', (response) => response.end('{"beats":[{"host":"a","status":7,"orders":{}}]}')],
    ['null', (response) => response.end('null')],
    ['another host’s beat', (response) => response.end('{"beats":[{"host":"b","status":"ok","orders":[]}]}')],
    ['500', (response) => response.writeHead(500).end('oops')],
    ['404 of some web server', (response) => response.writeHead(404).end('<html>')],
    ['a redirect', (response) => response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end()],
    ['5 MB', (response) => response.end('x'.repeat(5_000_000))],
    [
      'half a body',
      (response) => response.writeHead(200, { 'content-length': '99' }).write('{') && response.destroy(),
    ],
    ['a refusal', (response) => response.writeHead(400).end(JSON.stringify(problem(400, 'no')))],
  ]
  await Promise.all(
    lies.map(async ([name, lie]) => {
      const [bad, good] = [await openCore(t), await openCore(t)]
      const agent = newAgent(t, [bad, good])
      await agent.start()
      bad.override = (_, response) => {
        lie(response)
        return true
      }
      await until(`it left a core that says ${name}`, () => good.members.has('mirror/a'), 10_000)
      t.pass(name)
    }),
  )
})

t.test('a core that takes joins and refuses heartbeats is not hurried', async (t) => {
  const core = await openCore(t)
  const agent = newAgent(t, core)
  const warnings: string[] = []
  agent.on('warning', (message) => warnings.push(message))
  core.override = ({ path }, response) => {
    if (path !== '/v1/heartbeats') return false
    response.writeHead(400).end(JSON.stringify(problem(400, 'no heartbeats today')))
    return true
  }
  await agent.start()
  await sleep(1500)
  t.ok(
    core.beats.length >= 3 && core.beats.length <= 5,
    `${core.beats.length} in 1.5 s, each later than the last`,
  )
  t.match(warnings[0], /no heartbeats today/)
})

t.test('start fails with a reason where no waiting would help, and leaves nothing running', async (t) => {
  const core = await openCore(t)
  await t.rejects(newAgent(t, core, { token: 'wrong' }).start(), {
    code: 'refused',
    status: 401,
    message: /nobody has this/,
  })
  await t.rejects(newAgent(t, core, { members: [{ service: 'nosuch' }] }).start(), {
    code: 'refused',
    message: /no service nosuch/,
  })
  t.equal(core.hosts.size, 0, 'the host that had no member has left')
  core.hosts.set('a', 'someone else')
  const second = newAgent(t, core)
  const warned = once(second, 'warning')
  const starting = second.start()
  t.match(await warned, [/held by another host; trying again/])
  await Promise.all([t.rejects(starting, { code: 'stopped' }), second.stop()])
  t.equal(core.hosts.get('a'), 'someone else', 'who was refused a name removes nobody')
  const taken = await openEcho({ host: '127.0.0.1', port: 0, key: () => null })
  t.teardown(() => taken.close())
  await t.rejects(newAgent(t, core, { echo: `127.0.0.1:${taken.port}` }).start(), {
    code: 'bad-option',
    message: /^echo: can't listen.*EADDRINUSE/,
  })
  const alone = newAgent(t, core, { cores: `http://127.0.0.1:${await closedPort()}` })
  const refused = once(alone, 'warning')
  const stopped = t.rejects(alone.start(), { code: 'stopped' })
  t.match(await refused, [/ECONNREFUSED.*trying again/])
  await Promise.all([stopped, alone.stop()])
})

t.test('a restarted agent finds itself again by the credential it kept, for itself alone', async (t) => {
  const core = await openCore(t)
  const stateDir = join(t.testdir(), 'deep', 'state')
  const first = newAgent(t, core, { stateDir })
  await first.start()
  const file = join(stateDir, 'a.json')
  t.equal(statSync(file).mode & 0o777, 0o600)
  t.equal(statSync(stateDir).mode & 0o777, 0o700)
  t.match(readFileSync(file, 'utf8'), core.hosts.get('a')!)
  const credential = core.hosts.get('a')
  // As after kill -9: the host is still there, and a token alone would be refused.
  const second = newAgent(t, core, { stateDir, token: undefined })
  await second.start()
  t.equal(core.hosts.get('a'), credential)
  await second.stop()
  await first.stop()
  writeFileSync(file, '{"credential":"stale"}')
  const third = newAgent(t, core, { stateDir })
  await third.start()
  t.match(readFileSync(file, 'utf8'), core.hosts.get('a')!, 'a stale one gives way to what the token brings')
  await third.stop()
  writeFileSync(file, 'not json')
  await newAgent(t, core, { stateDir }).start()
  const blocked = newAgent(t, await openCore(t), { stateDir: join(file, 'no', 'folder') })
  const warned = once(blocked, 'warning')
  await blocked.start()
  t.match(await warned, [/credential is not kept/])
})

t.test('without addresses the host is known by the one that the core sees', async (t) => {
  const core = await openCore(t)
  core.publicAddress = '198.51.100.7'
  const { addresses } = await newAgent(t, core, { addresses: [] }).start()
  const puts = core.heard.filter(({ path }) => path === '/v1/hosts/a')
  t.same(
    puts.map(({ body }) => body.addresses),
    [['127.0.0.1'], ['198.51.100.7']],
  )
  t.same(addresses, ['198.51.100.7'])
  t.same(puts[1]!.body.echo.address, undefined, 'a listening address that is not the host’s is not told')
  const behind = newAgent(t, core, { name: 'b', echoAdvertise: '203.0.113.1:99' })
  await behind.start()
  t.same(core.heard.find(({ path }) => path === '/v1/hosts/b')!.body.echo, {
    address: '203.0.113.1',
    port: 99,
  })
})

t.test('an overlay node joins and leaves services while it runs, and asks for peers', async (t) => {
  const core = await openCore(t)
  const agent = newAgent(t, core, { members: [] })
  t.equal(await agent.join('one'), null)
  await agent.start()
  t.match(await agent.join('two', { name: 'x', port: 7 }), { service: 'two', member: 'x' })
  t.same([...core.members], ['one/a', 'two/x'])
  await t.rejects(agent.join('two', { name: 'x' }), /there twice/)
  await t.rejects(agent.join('nosuch'), { code: 'refused', status: 404 })
  await t.rejects(agent.leave('nosuch'), /no member nosuch/, 'and it is not tried again')
  await agent.drain('one')
  t.match(core.heard.at(-1), { method: 'PUT', path: '/v1/services/one/members/a/drain' })
  await agent.leave('one')
  t.same([...core.members], ['two/x'])
  t.same(
    (await agent.neighbors('two', { k: 5, exclude: ['x', 'y'], where: { a: 'b c' }, minMs: 1 })).members,
    [],
  )
  t.equal(core.heard.at(-1)!.path, '/v1/services/two/neighbors?k=5&minMs=1&exclude=x,y&where=a%3Ab%20c')
  t.equal(core.heard.at(-1)!.bearer, core.hosts.get('a'))
  await agent.nearest('two')
  await agent.random('two', { k: 2 })
  t.same((await agent.bootstrap('two', { near: 3, random: 1, sort: 'both' })).near, [])
  t.equal(core.heard.at(-1)!.path, '/v1/services/two/bootstrap?near=3&random=1&sort=both')
  const { to, members } = await agent.gateways('two', 'other', { near: '192.0.2.1', reachable: true })
  t.same([to, members], ['other', []])
  t.equal(core.heard.at(-1)!.path, '/v1/services/two/gateways?near=192.0.2.1&reachable=true&to=other')
  const known = Array.from({ length: 500 }, (_, i) => `node-${i}-of-a-long-name`)
  await agent.random('two', { k: 2, exclude: known, where: { a: 'b' } })
  t.match(core.heard.at(-1)!, { method: 'POST', path: '/v1/services/two/random' }, 'too long for a URL')
  t.same(core.heard.at(-1)!.body, { k: 2, exclude: known, where: ['a:b'] })
  core.override = (_, response) => {
    response.end('{"members":[{}]}')
    return true
  }
  await t.rejects(agent.nearest('two'), { code: 'bad-reply' })
})

// ---- orders ----

/** An order to echo what holds hostKey on this port. */
function echoOrder(port: number) {
  const fresh = newProber(Date.now(), new Uint8Array(12))
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
  return {
    ...{ kind: 'echo', urgent: false, host: 'b', address: '127.0.0.1', port, count: 3 },
    ...{ prober: hex(fresh), key: hex(proberKey(hostKey, fresh)) },
  }
}

t.test('a member that left, or whose join had no answer, is no member once a core hears again', async (t) => {
  const core = await openCore(t)
  const agent = newAgent(t, core)
  await agent.start()
  await agent.join('game')
  core.override = (_, response) => {
    response.destroy()
    return true
  }
  await t.rejects(agent.leave('game'), { code: 'unreachable' })
  t.ok(core.members.has('game/a'))
  core.override = () => false
  await until('the core knows', () => !core.members.has('game/a'))
  core.override = ({ method, path }, response) => {
    if (method !== 'PUT' || !path.includes('/relay/')) return false
    core.members.add('relay/a')
    response.destroy()
    return true
  }
  await t.rejects(agent.join('relay'), { code: 'unreachable' })
  await until('it is none', () => !core.members.has('relay/a'))
  core.override = () => false
  await agent.join('relay')
  const seen = core.beats.length
  await until('it is heard', () => core.beats.length > seen + 2)
  t.ok(core.members.has('relay/a'), 'and may join again')
})

t.test('orders are carried out and reported, and forbidden ones are not', async (t) => {
  const core = await openCore(t)
  const agent = newAgent(t, core)
  const target = await openEcho({ host: '127.0.0.1', port: 0, key: () => hostKey })
  const resolver = createSocket('udp4')
  resolver.on('message', (query, from) => {
    const answer = Buffer.from(query)
    answer[2] = 0x80
    resolver.send(Buffer.of(0, 0, 0x80), from.port, from.address) // one that is none comes first
    resolver.send(answer, from.port, from.address)
  })
  resolver.bind(0, '127.0.0.1')
  await once(resolver, 'listening')
  t.teardown(() => Promise.all([target.close(), resolver.close()]))
  const mark = join(t.testdir(), 'ran')
  const closed = await closedPort()
  const echo = echoOrder(target.port)
  const client = { kind: 'client', address: '127.0.0.1', count: 2 }
  await agent.start()
  core.orders = [
    { ...echo, id: 'echo' },
    {
      ...client,
      id: 'dns',
      methods: [
        { kind: 'dns', port: resolver.address().port },
        { kind: 'dns', port: closed },
      ],
    },
    { ...client, id: 'unreachable', methods: [{ kind: 'dns', port: closed }] },
    { ...client, id: 'tcp', methods: [{ kind: 'tcp', port: core.port }] },
    { ...client, id: 'refused', methods: [{ kind: 'tcp', port: closed }, { kind: 'icmp' }] },
    { kind: 'check', id: 'well', check: `tcp://127.0.0.1:${core.port}`, timeoutMs: 500 },
    { kind: 'check', id: 'ill', check: `http://127.0.0.1:${closed}/`, timeoutMs: 500 },
    { kind: 'check', id: 'exec', check: `exec:touch ${mark}`, timeoutMs: 500 },
    { ...client, id: 'multicast', address: '224.0.0.1', methods: [{ kind: 'icmp' }] },
    { ...echo, id: 'unspecified', address: '0.0.0.0' },
    { ...echo, id: 'no key', key: '' },
    { kind: 'newer', id: 'newer' },
    null,
  ]
  await until('all results', () => core.results.length >= 10)
  const results = Object.fromEntries(core.results.map((result) => [result.id, result]))
  t.match(results.echo, { sent: 3 })
  t.equal(results.echo!.rttsMs.length, 3)
  t.match(results.dns, { sent: 2, detail: 'dns' })
  t.equal(results.dns!.rttsMs.length, 2)
  t.equal(results.unreachable!.rttsMs.length, 2, 'what no resolver listens on answers by ICMP')
  t.match(results.tcp, { detail: 'tcp' })
  t.match(results.refused, { detail: 'tcp' }, 'a refusal is an RTT')
  t.match(results.well, { ok: true, detail: 'connected' })
  t.match(results.ill, { ok: false, detail: /ECONNREFUSED/ })
  t.match(results.exec, { rttsMs: [], sent: 0, detail: /not a check for an agent/ })
  t.match(results.multicast, { rttsMs: [], sent: 0, detail: /not probed/ })
  t.match(results.unspecified, { rttsMs: [], sent: 0, detail: /not probed/ })
  t.notOk(existsSync(mark))
  t.match(agent.stats?.orders, { accepted: 8, malformed: 3, forbidden: 2 })
  t.equal(core.invalid.length, 0)
})

t.test('a change of health, a second opinion and a client’s RTT are told at once', async (t) => {
  const core = await openCore(t)
  core.heartbeatSec = 75
  let ok = true
  const member = { service: 'mirror', check: () => ok }
  const agent = newAgent(t, core, { members: [member], checkIntervalMs: 100, checkFall: 1 })
  await agent.start()
  const client = {
    kind: 'client',
    id: 'c',
    address: '127.0.0.1',
    methods: [{ kind: 'tcp', port: 9 }],
    count: 1,
  }
  core.orders = [{ ...echoOrder(agent.echoPort!), id: 'u', urgent: true }, client]
  await sleep(250)
  t.equal(core.beats.length, 0)
  ok = false
  await until('all three', () => core.results.length === 2)
  t.same(core.beats[0].members, [{ service: 'mirror', name: 'a', health: 'down' }])
  t.match(
    core.results.toSorted((a, b) => (a.id < b.id ? -1 : 1)),
    [
      { id: 'c', sent: 1, rttsMs: [Number] },
      { id: 'u', sent: 3, rttsMs: [Number, Number, Number] },
    ],
  )
})

t.test('whatever a core orders, an agent sends no more than its own limit', async (t) => {
  const echo = await openEcho({ host: '127.0.0.1', port: 0, key: () => null })
  const target = await openEcho({ host: '127.0.0.1', port: 0, key: () => hostKey })
  t.teardown(() => Promise.all([echo.close(), target.close()]))
  let nowMs = 0
  const results: OrderResult[] = []
  const greedy = new Prober({
    echo,
    perMinute: 40,
    steadyNow: () => nowMs,
    report: (result) => results.push(result),
  })
  const flood = (round: number) =>
    Array.from({ length: 5000 }, (_, i) => ({
      ...echoOrder(target.port),
      ...{ id: `${round}-${i}`, urgent: i % 2 === 0, count: 1 },
    }))
  for (nowMs = 0; nowMs < 60_000; nowMs += 20_000) greedy.accept(flood(nowMs))
  await until('what was accepted is sent', () => target.stats.received >= greedy.stats.accepted)
  t.equal(greedy.stats.accepted, 30, '10 at once and 10 in each of two 20 seconds')
  t.equal(greedy.stats.limited, 15_000 - 30)
  t.match(results[0], { sent: 0, detail: /limit of 40 probes a minute/ })
  await greedy.stop()
})

t.test('only unicast addresses are probed', async (t) => {
  for (const address of ['192.0.2.1', '127.0.0.1', '10.0.0.1', '2001:db8::1', '::1'])
    t.ok(isProbeable(address), address)
  for (const address of [
    '0.0.0.0',
    '0.1.2.3',
    '224.0.0.1',
    '239.1.1.1',
    '255.255.255.255',
    '::',
    'ff02::1',
    'fe80::1%eth0',
    '::ffff:224.0.0.1',
    'example.net',
    '',
    '1',
  ]) {
    t.notOk(isProbeable(address), address)
  }
})

t.test('the DNS probe is 17 bytes, and only an answer with its id counts', async (t) => {
  t.equal(Buffer.from(rootQuery(0xabcd)).toString('hex'), 'abcd000000010000000000000000020001')
  t.ok(answersQuery(Uint8Array.of(0xab, 0xcd, 0x84, 0x05, 0, 0, 0, 0, 0, 0, 0, 0), 0xabcd))
  t.notOk(answersQuery(rootQuery(0xabcd), 0xabcd), 'a query is no answer')
  t.notOk(answersQuery(Uint8Array.of(0xab, 0xce, 0x84, 0x05, 0, 0, 0, 0, 0, 0, 0, 0), 0xabcd))
  t.notOk(answersQuery(Uint8Array.of(0xab, 0xcd, 0x84), 0xabcd))
})

t.test('ICMP goes by the system’s ping, from the host’s own address', async (t) => {
  const folder = t.testdir({
    ping: `#!/bin/sh
printf '%s ' "$@" > "$(dirname "$0")/args"
echo '64 bytes from 192.0.2.1: icmp_seq=1 ttl=57 time=12.3 ms'
echo '64 bytes from 192.0.2.1: icmp_seq=2 ttl=57 time<1 ms'
`,
  })
  chmodSync(join(folder, 'ping'), 0o755)
  const path = process.env.PATH
  process.env.PATH = `${folder}:${path}`
  t.teardown(() => {
    process.env.PATH = path
  })
  const core = await openCore(t)
  core.orders = [{ kind: 'client', id: 'p', address: '192.0.2.1', count: 2, methods: [{ kind: 'icmp' }] }]
  await newAgent(t, core).start()
  await until('its result', () => core.results.length === 1)
  t.match(core.results[0], { rttsMs: [12.3, 1], sent: 2, detail: 'icmp' })
  t.match(readFileSync(join(folder, 'args'), 'utf8'), /^-n -c 2 -i 0.2 -[wt] 2 -I 127.0.0.1 192.0.2.1 $/)
  t.same(parsePing('PING\n1 packets transmitted, 0 received\n'), [])
})

// ---- the command ----

const bin = fileURLToPath(new URL('../../server-agent/bin/nearcast-agent.js', import.meta.url))

function runCommand(t: Test, args: readonly string[], env: Record<string, string> = {}) {
  const child = spawn(process.execPath, [bin, ...args], {
    env: { PATH: process.env.PATH, XDG_STATE_HOME: t.testdirName, HOME: t.testdirName, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  const run = {
    child: child as ChildProcess,
    out: '',
    err: '',
    ended: once(child, 'close') as Promise<[number | null]>,
  }
  child.stdout.on('data', (text) => (run.out += text))
  child.stderr.on('data', (text) => (run.err += text))
  return run
}

t.test('the command joins, and on SIGTERM its members are gone before it exits', async (t) => {
  t.testdir()
  const core = await openCore(t)
  const args = [
    '--core',
    core.url,
    '--name',
    'a',
    '--service',
    'mirror',
    '--port',
    '80',
    '--echo',
    '127.0.0.1:0',
  ]
  const run = runCommand(t, args, { NEARCAST_TOKEN: 'good-token' })
  await until('it joined', () => core.members.has('mirror/a'))
  await until('it says so', () => run.err.includes('\n  it is'))
  // The goodbye takes its time; the command must wait for it.
  let gone = false
  core.override = ({ method }, response) => {
    if (method !== 'DELETE') return false
    setTimeout(() => {
      gone = true
      response.end('{}')
    }, 300)
    return true
  }
  run.child.kill('SIGTERM')
  t.same(await run.ended, [0, null])
  t.ok(gone)
  t.equal(run.err, `joined mirror/a at ${core.url}\n  it is unverified: wait for its echo\nleft\n`)
  t.equal(run.out, '')
})

t.test('with --json each event is a line, and a second signal ends it at once', async (t) => {
  t.testdir()
  const core = await openCore(t)
  const run = runCommand(t, [
    '--core',
    core.url,
    '--token',
    'good-token',
    '--name',
    'a',
    '--service',
    'm',
    '--echo',
    '127.0.0.1:0',
    '--json',
  ])
  await until('it joined', () => run.out.includes('\n'))
  t.match(JSON.parse(run.out), { event: 'joined', host: 'a', members: [{ service: 'm', member: 'a' }] })
  core.override = () => true
  run.child.kill('SIGINT')
  await until('it says goodbye', () => core.heard.some(({ method }) => method === 'DELETE'))
  run.child.kill('SIGINT')
  t.same(await run.ended, [1, null])
})

t.test('wrong use is exit code 2 with what to do, a refusal is 1', async (t) => {
  t.testdir()
  const core = await openCore(t)
  // Each host has its own name: those who share a folder for credentials would find each other's.
  const at = (name: string) => ['--core', core.url, '--name', name, '--echo', '127.0.0.1:0']
  const cases: readonly (readonly [readonly string[], number, RegExp])[] = [
    [[], 2, /--service: got nothing, expected the name of the service/],
    [['--service', 's'], 2, /--core: got nothing, expected the URL of a core/],
    [['--nonsense'], 2, /unknown option '--nonsense'.*--help/s],
    [
      [...at('a'), '--service', 's', '--port', '99999'],
      2,
      /--port: got 99999, expected a number from 1 to 65535/,
    ],
    [['--core', 'http://192.0.2.1', '--service', 's'], 2, /--core: .*in the clear; `insecure`/],
    [
      [...at('b'), '--service', 's', '--token', 'wrong'],
      1,
      /can't join: .*nobody has this credential.*token create/s,
    ],
    [[...at('c'), '--service', 'nosuch', '--token', 'good-token'], 1, /no service nosuch.*service put/s],
    [['--help'], 0, /^$/],
  ]
  await Promise.all(
    cases.map(async ([args, code, message]) => {
      const run = runCommand(t, args)
      t.same(await run.ended, [code, null], args.join(' '))
      t.match(run.err, message)
      if (code === 0) t.match(run.out, /Examples:/)
    }),
  )
})
