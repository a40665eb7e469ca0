// The HTTP door with a real core behind it: who is the client, who may see what, what each route tells,
// and that nothing which comes in wrong does more than get counted. Sockets where bytes matter, inject elsewhere.

import { execFileSync, spawnSync } from 'node:child_process'
import { copyFileSync, readFileSync, renameSync } from 'node:fs'
import { Agent, type IncomingHttpHeaders, request } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { type PeerCertificate, connect as tlsConnect } from 'node:tls'
import t, { type Test } from 'tap'
import type { TSchema } from 'typebox'
import { Compile } from 'typebox/compile'
import { openApi } from '../../core-node/http/api.ts'
import { type Client, clientOf } from '../../core-node/http/client-address.ts'
import type { HttpContext } from '../../core-node/http/context.ts'
import { type HttpListener, openHttp } from '../../core-node/http/listener.ts'
import { pageOf } from '../../core-node/http/page.ts'
import { readTarget } from '../../core-node/http/target.ts'
import { Metrics } from '../../core-node/metrics.ts'
import { SharedMemory } from '../../db/shared-memory.ts'
import { formatAddress, parsePrefix } from '../../resolver/address.ts'
import type { DnsFacts, DnsOutcome } from '../../resolver/dns-answer.ts'
import {
  allocateCounters,
  countDuration,
  counterRow,
  countFacts,
  countFault,
  OUTCOME_AT,
  readCounters,
  SLOT,
} from '../../resolver/dns-counters.ts'
import { ProblemDocument } from '../../server-agent/protocol/messages.ts'
import { ADMIN, type CoreFixture, openCoreFixture, peer, testConfig } from '../support/core-fixture.ts'
import { seededRng } from '../support/seeded-rng.ts'

const REMOTE = '203.0.113.9'
const isProblem = Compile(ProblemDocument)

interface Fixture extends CoreFixture {
  readonly context: HttpContext
  readonly logged: string[]
}

/** A core with the service `mirror` (members a..d with URLs) and the open overlay `mesh`. */
async function openFixture(t: Test, flags: Record<string, string> = {}): Promise<Fixture> {
  const fixture = await openCoreFixture({ flags: { requestsPerMinute: '100000', ...flags } })
  t.teardown(() => fixture.close())
  const { core, config } = fixture
  const logged: string[] = []
  const write = (_facts: object, message: string) => void logged.push(message)
  const log = { info: write, warn: write, error: write }
  const context = {
    core,
    config,
    metrics: new Metrics(core),
    log,
    rng: seededRng(1),
    epochMs: () => fixture.clock.epochMs(),
  }
  await core.putService(ADMIN, 'mirror', { urlHosts: ['*.example.org'], policy: 'failover' })
  for (const [i, name] of ['a', 'b', 'c', 'd'].entries()) {
    const request = {
      addresses: [`192.0.2.${i + 1}`],
      url: `https://${name}.example.org/base/`,
      attributes: { tier: String(i), color: i % 2 === 0 ? 'red' : 'blue' },
    }
    await core.putMember(ADMIN, 'mirror', name, request, peer('127.0.0.1'))
  }
  await core.putService(ADMIN, 'mesh', { join: 'open', verify: 'none' })
  return { ...fixture, context, logged }
}

async function openListener(t: Test, context: HttpContext): Promise<HttpListener> {
  const listener = await openHttp(context)
  t.teardown(() => listener.close())
  return listener
}

/** Sends bytes as they are; resolves with all that came back when the connection has ended. */
function exchange(port: number, bytes: string | Buffer, waitMs = 5_000): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' })
    const chunks: Buffer[] = []
    socket.setTimeout(waitMs, () => socket.destroy())
    socket.on('data', (chunk) => chunks.push(chunk))
    socket.on('error', () => {})
    socket.on('close', () => resolve(Buffer.concat(chunks).toString('latin1')))
    socket.end(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes)
  })
}

const statusOf = (reply: string) => Number(/^HTTP\/1\.1 (\d{3})/.exec(reply)?.[1] ?? 0)

t.test('the client is the peer, or the right-most hop that is no trusted proxy', async (t) => {
  const trusted = ['10.0.0.0/8', '2001:db8:ffff::/48', '127.0.0.1'].map((text) => parsePrefix(text)!)
  const table: [peer: string, forwarded: string[], client: string | null, port?: number][] = [
    ['198.51.100.1', [], '198.51.100.1', 1234],
    ['::ffff:198.51.100.1', [], '198.51.100.1', 1234],
    ['fe80::1%eth0', [], 'fe80::1', 1234],
    ['198.51.100.1', ['192.0.2.1'], '198.51.100.1', 1234],
    ['10.0.0.1', [], '10.0.0.1', 1234],
    ['10.0.0.1', ['192.0.2.1'], '192.0.2.1', 0],
    ['::ffff:10.0.0.1', ['::ffff:192.0.2.1'], '192.0.2.1', 0],
    ['10.0.0.1', ['127.0.0.1, 192.0.2.66, 192.0.2.1'], '192.0.2.1', 0],
    ['10.0.0.1', ['192.0.2.1, 10.0.0.2 ,10.0.0.3'], '192.0.2.1', 0],
    ['10.0.0.1', ['192.0.2.66', '192.0.2.1', '10.0.0.2'], '192.0.2.1', 0],
    ['10.0.0.1', ['192.0.2.1:8080'], '192.0.2.1', 8080],
    ['10.0.0.1', ['[2001:db8::1]:8080'], '2001:db8::1', 8080],
    ['10.0.0.1', ['[2001:db8::1]'], '2001:db8::1', 0],
    ['10.0.0.1', ['"[2001:db8::1]:8080"'], '2001:db8::1', 8080],
    ['10.0.0.1', ['2001:db8::1'], '2001:db8::1', 0],
    ['2001:db8:ffff::1', ['2001:db8:1::1'], '2001:db8:1::1', 0],
    ['10.0.0.1', ['10.0.0.9, 10.0.0.2'], '10.0.0.9', 0],
    ['10.0.0.1', ['garbage, 192.0.2.1'], '192.0.2.1', 0],
    ['10.0.0.1', ['192.0.2.1, garbage'], null],
    ['10.0.0.1', ['192.0.2.1,'], null],
    ['10.0.0.1', [''], null],
    ['10.0.0.1', ['unknown'], null],
    ['10.0.0.1', ['192.0.2.1:99999'], null],
    ['10.0.0.1', ['[192.0.2.1'], null],
    ['10.0.0.1', ['192.0.2.1 evil'], null],
    ['10.0.0.1', ['192.0.2.256'], null],
  ]
  for (const [address, forwardedFor, expected, port] of table) {
    const found = clientOf({ address, port: 1234, forwardedFor, forwardedOtherwise: false }, trusted)
    const seen = found && [formatAddress(found.address), found.port]
    t.same(seen, expected === null ? null : [expected, port], `${address} ${JSON.stringify(forwardedFor)}`)
  }
  const behind = (address: string, forwardedFor: string[], forwardedOtherwise = false): Client | null =>
    clientOf({ address, port: 1, forwardedFor, forwardedOtherwise }, trusted)
  t.equal(behind('198.51.100.1', ['127.0.0.1'])?.behindUnknownProxy, true)
  t.equal(behind('198.51.100.1', [], true)?.behindUnknownProxy, true)
  t.equal(behind('198.51.100.1', [])?.behindUnknownProxy, false)
  t.equal(behind('10.0.0.1', ['192.0.2.1'])?.behindUnknownProxy, false)
  t.equal(
    clientOf({ address: undefined, port: undefined, forwardedFor: [], forwardedOtherwise: false }, []),
    null,
  )
})

t.test('a request target means the same in origin and in absolute form', async (t) => {
  const table: [target: string, hosts: string[], read: unknown][] = [
    ['/a?b=c', ['M.Any.Test.:80'], { host: 'm.any.test', path: '/a', query: '?b=c' }],
    ['http://m.any.test:81/a?b', ['other'], { host: 'm.any.test', path: '/a', query: '?b' }],
    ['HTTPS://m.any.test?b', [], { host: 'm.any.test', path: '/', query: '?b' }],
    ['//evil.example/x', ['h'], { host: 'h', path: '//evil.example/x', query: '' }],
    ['/', ['[2001:db8::1]:80'], { host: '[2001:db8::1]', path: '/', query: '' }],
    ['/', [], { host: '', path: '/', query: '' }],
    ['/', ['a', 'b'], 'bad-host'],
    ['/', ['user@m.any.test'], 'bad-host'],
    ['http://user@m.any.test/', ['h'], 'bad-host'],
    ['http://m.any.test\\@evil.example/', ['h'], 'bad-host'],
    ['/', ['m.any.test/evil'], 'bad-host'],
    ['/', ['mïrror.any.test'], 'bad-host'],
    ['*', ['h'], 'bad-target'],
    ['m.any.test:443', ['h'], 'bad-target'],
    ['ftp://m.any.test/', ['h'], 'bad-target'],
    [`/${'a'.repeat(8192)}`, ['h'], 'target-too-long'],
  ]
  for (const [target, hosts, read] of table)
    t.same(readTarget(target, hosts), read, `${target.slice(0, 50)} ${hosts}`)
})

t.test('redirect attacks over the wire end in 4xx or at the member', async (t) => {
  const { context } = await openFixture(t)
  const { port } = (await openListener(t, context)).addresses[0]!
  const get = (target: string, host = 'h', more = '') =>
    exchange(port, `GET ${target} HTTP/1.1\r\nHost: ${host}\r\n${more}\r\n`)
  const table: [target: string, host: string, answer: number | string][] = [
    ['/r/mirror/x?q=1', 'h', 'https://a.example.org/base/x?q=1'],
    ['//evil.example/x', 'mirror.any.test', 'https://a.example.org/base/evil.example/x'],
    ['/r/mirror//evil.example/x', 'h', 'https://a.example.org/base/evil.example/x'],
    ['/\\evil.example', 'mirror.any.test', 400],
    ['/r/mirror/%0d%0aSet-Cookie:%20a=b', 'h', 400],
    ['/r/mirror/x?%0D%0Ax', 'h', 400],
    ['/r/mirror/..%2f..%2fx', 'h', 400],
    ['/r/mirror/../../x', 'h', 400],
    ['http://mirror.any.test/x', 'evil.example', 'https://a.example.org/base/x'],
    ['http://evil.example/r/mirror/x', 'h', 'https://a.example.org/base/x'],
    ['http://user:pw@mirror.any.test/x', 'h', 400],
    ['http://mirror.any.test@evil.example/x', 'h', 400],
    ['/x', 'mirror.any.test@evil.example', 400],
    ['/x', 'mïrror.any.test', 400],
    ['/r/mirror/caf\xe9', 'h', 400],
    ['/r/mirror/caf%E9', 'h', 'https://a.example.org/base/caf%E9'],
    ['/r/m%69rror/x', 'h', 404],
    ['/r/../v1/services', 'h', 404],
    [`/r/mirror/${'a'.repeat(9000)}`, 'h', 414],
    [`/r/mirror/${'a'.repeat(20_000)}`, 'h', 431],
  ]
  for (const [target, host, answer] of table) {
    const reply = await get(target, host)
    const location = /^Location: (.*)\r$/m.exec(reply)?.[1]
    if (typeof answer === 'number') {
      t.equal(statusOf(reply), answer, `${target.slice(0, 60)} at ${host}`)
      t.notOk(location)
      t.ok(isProblem.Check(JSON.parse(reply.slice(reply.indexOf('\r\n\r\n')))), 'a problem document')
    } else t.equal(location, answer, `${target} at ${host}`)
  }
  const head = await exchange(port, 'HEAD /r/mirror/x HTTP/1.1\r\nHost: h\r\n\r\n')
  t.match(head, /^HTTP\/1\.1 302[\s\S]*X-Nearcast-Member: a\r\n/)
  t.equal(head.slice(head.indexOf('\r\n\r\n') + 4), '', 'HEAD has no body')
  t.match(
    await exchange(port, 'PUT /r/mirror/x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi'),
    /^HTTP\/1\.1 405[\s\S]*Allow: GET, HEAD\r\n/,
  )
  t.equal(statusOf(await exchange(port, 'GET /x HTTP/1.1\r\n\r\n')), 400, 'no Host')
  t.equal(statusOf(await exchange(port, 'GET /healthz HTTP/1.0\r\n\r\n')), 200, 'HTTP/1.0 needs none')
  t.equal(statusOf(await exchange(port, 'GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n')), 400, 'two Hosts')
})

t.test('a thousand malformed requests are counted and change nothing', async (t) => {
  const { context, core } = await openFixture(t)
  const { port } = (await openListener(t, context)).addresses[0]!
  const before = JSON.stringify([
    ...core.directory.services,
    ...core.directory.members,
    ...core.directory.hosts,
  ])
  const rng = seededRng(20061)
  const pick = <T>(items: readonly T[]): T => items[Math.floor(rng() * items.length)]!
  const seeds = [
    'GET /r/mirror/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n',
    'PUT /v1/services/x HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{"ttl":"12"}',
    'POST /v1/heartbeats HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n0\r\n\r\n',
    'GET /v1/services/mirror/nearest?k=%zz&client=:: HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: ,\r\n\r\n',
    'DELETE /v1/hosts/core1 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer \xff\r\n\r\n',
    'CONNECT a:1 HTTP/1.1\r\nHost: h\r\n\r\n',
    'GET / HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\n\r\n',
    'GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  ]
  const mutate = (text: string): Buffer => {
    const bytes = Buffer.from(text, 'latin1')
    for (let i = 0; i < 1 + rng() * 6; i++) bytes[Math.floor(rng() * bytes.length)] = Math.floor(rng() * 256)
    return rng() < 0.2 ? bytes.subarray(0, Math.floor(rng() * bytes.length)) : bytes
  }
  const seen = new Map<number, number>()
  for (let i = 0; i < 1000; i += 20) {
    const batch = Array.from({ length: 20 }, () => exchange(port, mutate(pick(seeds)), 2_000))
    for (const reply of await Promise.all(batch))
      seen.set(statusOf(reply), (seen.get(statusOf(reply)) ?? 0) + 1)
  }
  const statuses = [...seen.keys()].sort()
  t.ok(
    statuses.every((status) => status < 500),
    `statuses ${statuses}`,
  )
  t.ok((seen.get(400) ?? 0) > 300, `${seen.get(400)} got 400`)
  t.equal(
    JSON.stringify([...core.directory.services, ...core.directory.members, ...core.directory.hosts]),
    before,
  )
  t.equal(statusOf(await exchange(port, seeds[0]!)), 302, 'and it goes on answering')
  t.same((await counts(context)).refused > 300, true, 'counted')
})

async function counts({ metrics }: HttpContext): Promise<{ refused: number; requests: number }> {
  const text = await metrics.render()
  const sum = (name: string) =>
    [...text.matchAll(new RegExp(`^${name}\\{.*\\} (\\d+)$`, 'gm'))].reduce(
      (total, [, n]) => total + Number(n),
      0,
    )
  return { refused: sum('nearcast_refused_total'), requests: sum('nearcast_http_requests_total') }
}

t.test('each route opens to whom it should and to no one else', async (t) => {
  const { context, core } = await openFixture(t, {
    operatorFrom: '192.0.2.128/25',
    trustedProxies: '10.0.0.0/8',
  })
  const api = await openApi(context)
  t.teardown(() => api.close())
  const { secret: admin } = await core.createToken(ADMIN, { admin: true })
  const { secret: token } = await core.createToken(ADMIN, { services: ['mirror'] })
  const joined = await api.inject({
    method: 'PUT',
    url: '/v1/hosts/h1',
    remoteAddress: REMOTE,
    headers: { authorization: `Bearer ${token}` },
    payload: { addresses: [REMOTE] },
  })
  t.equal(joined.statusCode, 200, joined.body)
  const credential = joined.json().credential as string
  const hosts = async (query: string) => (await api.inject({ url: `/v1/hosts?${query}` })).json()
  t.match(await hosts('after=core0&limit=1'), { hosts: [{ name: 'core1' }], next: 'core1' })
  t.match((await hosts('after=g')).hosts[0], { name: 'h1' })

  const who = {
    stranger: { remoteAddress: REMOTE },
    proxied: { remoteAddress: '10.0.0.1', headers: { 'x-forwarded-for': '127.0.0.1, 203.0.113.9' } },
    // nginx on this machine that nobody named: all its clients look local.
    unnamedProxy: { remoteAddress: '127.0.0.1', headers: { 'x-forwarded-for': REMOTE } },
    rebound: { remoteAddress: '127.0.0.1', headers: { host: 'evil.example' } },
    local: { remoteAddress: '127.0.0.1' },
    local6: { remoteAddress: '::1', headers: { host: '[::1]:8053' } },
    operator: { remoteAddress: '192.0.2.200' },
    host: { remoteAddress: REMOTE, headers: { authorization: `Bearer ${credential}` } },
    token: { remoteAddress: REMOTE, headers: { authorization: `Bearer ${token}` } },
    admin: { remoteAddress: REMOTE, headers: { authorization: `Bearer ${admin}` } },
    liar: { remoteAddress: '127.0.0.1', headers: { authorization: 'Bearer nonsense' } },
    basic: { remoteAddress: '127.0.0.1', headers: { authorization: 'Basic YTpi' } },
  } as const
  type Who = keyof typeof who
  const outside: Who[] = ['stranger', 'proxied', 'unnamedProxy', 'rebound']
  const everyone: Who[] = [...outside, 'local', 'local6', 'operator', 'host', 'token', 'admin']
  const inside: Who[] = ['local', 'local6', 'operator', 'token', 'admin']
  const routes: [method: 'GET' | 'PUT' | 'POST' | 'DELETE', url: string, allowed: Who[], payload?: object][] =
    [
      ['GET', '/healthz', everyone],
      ['GET', '/readyz', everyone],
      ['GET', '/openapi.json', everyone],
      ['GET', '/docs', everyone],
      ['GET', '/v1/services/mirror/nearest', everyone],
      ['GET', '/v1/services/mirror/neighbors', everyone],
      ['GET', '/v1/services/mirror/random', everyone],
      ['GET', '/v1/services/mirror/bootstrap', everyone],
      ['GET', '/v1/services/mirror/gateways?to=mesh', everyone],
      ['POST', '/v1/services/mirror/neighbors', everyone, { exclude: ['a'] }],
      ['GET', '/v1/localities/me', everyone],
      ['GET', '/v1/services/mirror/nearest?client=198.51.100.7', inside],
      ['GET', '/v1/services/mirror/random?client=198.51.100.7', inside],
      ['GET', '/v1/services/mirror/neighbors?near=198.51.100.7', inside],
      ['POST', '/v1/services/mirror/gateways', inside, { to: 'mesh', near: '198.51.100.7' }],
      ['GET', '/v1/services/mirror/explain', inside],
      ['GET', '/v1/localities/198.51.100.7', inside],
      ['GET', '/metrics', inside],
      ['GET', '/v1/status', inside],
      ['GET', '/v1/services', ['admin']],
      ['GET', '/v1/services/mirror', ['admin']],
      ['GET', '/v1/services/mirror/members', inside],
      ['GET', '/v1/services/mirror/members/a', inside],
      ['GET', '/v1/hosts', inside],
      ['GET', '/v1/hosts/h1', inside],
      ['GET', '/v1/tokens', ['admin']],
      ['GET', '/v1/directory', ['admin']],
      ['GET', '/v1/directory/hosts', ['admin']],
      ['POST', '/v1/tokens', ['admin'], { services: ['mirror'] }],
      ['PUT', '/v1/services/new', ['admin'], {}],
      ['DELETE', '/v1/services/new', ['admin']],
      ['PUT', '/v1/services/mirror/members/a/drain', ['admin']],
      ['DELETE', '/v1/services/mirror/members/a/drain', ['admin']],
      [
        'POST',
        '/v1/localities',
        ['admin'],
        { source: 's', entries: [{ prefix: '198.51.100.0/24', lat: 1, lon: 2 }] },
      ],
      // A token speaks for the hosts that joined by it.
      ['PUT', '/v1/services/mirror/members/h1', ['host', 'token'], { port: 80 }],
      ['DELETE', '/v1/services/mirror/members/h1', ['host']],
    ]
  for (const [method, url, allowed, payload] of routes) {
    for (const name of Object.keys(who) as Who[]) {
      if (method === 'PUT' && url.endsWith('members/h1') && name === 'admin') continue
      if (method === 'DELETE' && url.endsWith('members/h1') && name === 'admin') continue
      const reply = await api.inject({ method, url, ...who[name], ...(payload ? { payload } : {}) })
      const refusal = ['host', 'token'].includes(name) ? 403 : 401
      const asExpected = allowed.includes(name) ? reply.statusCode < 300 : reply.statusCode === refusal
      t.ok(asExpected, `${name}: ${method} ${url} -> ${reply.statusCode}`)
      if (reply.statusCode === 401) t.match(reply.headers['www-authenticate'], /^Bearer/)
    }
  }
})

t.test('every error is a problem document that names the field', async (t) => {
  const { context, core, logged } = await openFixture(t)
  const api = await openApi(context)
  t.teardown(() => api.close())
  const { secret } = await core.createToken(ADMIN, { admin: true })
  const json = 'application/json'
  const table: [
    method: 'GET' | 'PUT' | 'POST' | 'PATCH',
    url: string,
    body: string | null,
    type: string,
    status: number,
    field?: string,
  ][] = [
    ['GET', '/v1/services/mirror/nearest?k=0', null, '', 400, 'k'],
    ['GET', '/v1/services/mirror/nearest?k=1.5', null, '', 400, 'k'],
    ['GET', '/v1/services/mirror/nearest?k=1x', null, '', 400, 'k'],
    ['GET', '/v1/services/mirror/nearest?k=', null, '', 400, 'k'],
    ['GET', '/v1/services/mirror/nearest?k=1&k=2', null, '', 400, 'k'],
    ['GET', '/v1/services/mirror/nearest?K=1', null, '', 400, 'K'],
    ['GET', '/v1/services/mirror/nearest?__proto__=1', null, '', 400],
    ['GET', '/v1/services/mirror/nearest?family=5', null, '', 400, 'family'],
    ['GET', '/v1/services/mirror/nearest?client=no', null, '', 400, 'client'],
    ['GET', '/v1/services/mirror/neighbors?maxMs=-1', null, '', 400, 'maxMs'],
    ['GET', '/v1/services/mirror/neighbors?maxMs=1e9', null, '', 400, 'maxMs'],
    ['GET', '/v1/services/mirror/neighbors?where=color', null, '', 400, 'where'],
    ['GET', '/v1/services/mirror/neighbors?reachable=yes', null, '', 400, 'reachable'],
    ['GET', `/v1/services/mirror/random?exclude=${'a,'.repeat(501)}`, null, '', 400, 'exclude'],
    ['GET', '/v1/services/nothing/nearest', null, '', 404, 'service'],
    ['GET', '/v1/services/%zz/nearest', null, '', 400],
    ['GET', `/v1/services/${'a'.repeat(301)}/nearest`, null, '', 414],
    ['GET', '/v1/services/UPPER', null, '', 400, 'service'],
    ['GET', '/v1/localities/no', null, '', 400, 'address'],
    ['GET', '/v1/nothing', null, '', 404],
    ['PATCH', '/v1/services', '', '', 405],
    ['PUT', '/v1/services/s', '{"ttl":', json, 400],
    ['PUT', '/v1/services/s', '{"__proto__":{}}', json, 400],
    ['PUT', '/v1/services/s', '', json, 400],
    ['PUT', '/v1/services/s', '[]', json, 400],
    ['PUT', '/v1/services/s', '{}', 'text/plain', 415],
    ['PUT', '/v1/services/s', '{"ttl":"30"}', 'application/json\t; charset=x', 400, 'ttl'],
    ['PUT', '/v1/services/s', '{"ttl":"30"}', json, 400, 'ttl'],
    ['PUT', '/v1/services/s', '{"ttl":1e999}', json, 400, 'ttl'],
    ['PUT', '/v1/services/s', '{"policy":"fastest"}', json, 400, 'policy'],
    ['PUT', '/v1/services/s', '{"nope":1}', json, 400, 'nope'],
    ['PUT', '/v1/services/s', '{"where":{"Bad Key":"1"}}', json, 400, 'where.Bad Key'],
    ['PUT', '/v1/services/s', '{"aliases":["a",1]}', json, 400, 'aliases.1'],
    ['PUT', '/v1/services/s', '{"minAddrs":3,"maxAddrs":2}', json, 400, 'minAddrs'],
    ['PUT', '/v1/services/s', `{"where":{"a":"${'x'.repeat(70_000)}"}}`, json, 413],
    ['PUT', '/v1/hosts/h', '{}', json, 400, 'addresses'],
    ['PUT', '/v1/hosts/h', '{"addresses":["192.0.2.1"],"echo":{"port":70000}}', json, 400, 'echo.port'],
    [
      'POST',
      '/v1/heartbeats',
      '{"beats":[{"host":"h","credential":"x","members":[{"service":"S","name":"n"}]}]}',
      json,
      400,
      'beats.0.members.0.service',
    ],
    ['POST', '/v1/measurements', '{"rtts":[{"rttMs":null}]}', json, 400, 'rtts.0.rttMs'],
    [
      'POST',
      '/v1/localities',
      '{"source":"s","entries":[{"prefix":"192.0.2.1/24","lat":0,"lon":0}]}',
      json,
      400,
      'entries.0.prefix',
    ],
  ]
  for (const [method, url, payload, type, status, field] of table) {
    const headers = { authorization: `Bearer ${secret}`, ...(type ? { 'content-type': type } : {}) }
    const reply = await api.inject({ method, url, headers, ...(payload === null ? {} : { payload }) })
    const name = `${method} ${url.slice(0, 60)} ${payload?.slice(0, 60) ?? ''}`
    t.equal(reply.statusCode, status, `${name} -> ${reply.body.slice(0, 200)}`)
    t.match(reply.headers['content-type'], /^application\/problem\+json/, name)
    const problem = reply.json()
    t.ok(isProblem.Check(problem), name)
    t.equal(problem.status, status)
    if (field !== undefined) t.equal(problem.field, field, `${name}: ${problem.detail}`)
  }
  t.equal(core.directory.services.has('s'), false)

  Object.defineProperty(core, 'status', {
    value: () => {
      throw new Error('secret words')
    },
  })
  const failed = await api.inject('/v1/status')
  t.equal(failed.statusCode, 500)
  t.ok(isProblem.Check(failed.json()))
  t.notMatch(failed.body, /secret words/)
  t.same(logged, ['a request failed'])
})

t.test('what is not in the books is not found, in words that name it', async (t) => {
  const { context, core } = await openFixture(t)
  const api = await openApi(context)
  t.teardown(() => api.close())
  const { secret } = await core.createToken(ADMIN, { admin: true })
  const table: ['GET' | 'PUT' | 'DELETE', string, RegExp][] = [
    ['GET', '/v1/services/nil', /service 'nil'/],
    ['DELETE', '/v1/services/nil', /service 'nil'/],
    ['GET', '/v1/services/nil/members', /service 'nil'/],
    ['GET', '/v1/services/mirror/members/nil', /member 'mirror\/nil'/],
    ['DELETE', '/v1/services/mirror/members/nil', /member 'mirror\/nil'/],
    ['PUT', '/v1/services/mirror/members/nil/drain', /member 'mirror\/nil'/],
    ['DELETE', '/v1/services/mirror/members/nil/drain', /member 'mirror\/nil'/],
    ['GET', '/v1/hosts/nil', /host 'nil'/],
    ['DELETE', '/v1/hosts/nil', /host 'nil'/],
    ['DELETE', '/v1/tokens/nil', /token 'nil'/],
  ]
  for (const [method, url, words] of table) {
    const reply = await api.inject({ method, url, headers: { authorization: `Bearer ${secret}` } })
    t.equal(reply.statusCode, 404, `${method} ${url} -> ${reply.body.slice(0, 200)}`)
    t.match(reply.json().detail, words)
  }
})

t.test('nodes of an overlay get others: near, in a ring, random, never themselves', async (t) => {
  const { context, core } = await openFixture(t)
  const api = await openApi(context)
  t.teardown(() => api.close())
  const credentials = new Map<string, string>()
  for (let i = 1; i <= 30; i++) {
    const name = `n${i}`
    // n1 and n2 sit behind one NAT.
    const remoteAddress = `203.0.113.${i === 2 ? 1 : i}`
    const host = await api.inject({
      method: 'PUT',
      url: `/v1/hosts/${name}`,
      remoteAddress,
      payload: { addresses: [remoteAddress] },
    })
    t.equal(host.statusCode, 200, host.body)
    credentials.set(name, host.json().credential)
    const member = await api.inject({
      method: 'PUT',
      url: `/v1/services/mesh/members/${name}`,
      remoteAddress,
      headers: { authorization: `Bearer ${host.json().credential}` },
      payload: { port: 7000, attributes: { half: String(i % 2) } },
    })
    t.equal(member.json().state, 'live', member.body)
  }
  const ask = async (path: string, from: string, name?: string) => {
    const headers = name === undefined ? {} : { authorization: `Bearer ${credentials.get(name)}` }
    const reply = await api.inject({ url: `/v1/services/mesh/${path}`, remoteAddress: from, headers })
    t.equal(reply.statusCode, 200, reply.body)
    return reply.json()
  }
  const names = (members: { name: string }[]) => members.map(({ name }) => name)

  const neighbors = await ask('neighbors', '203.0.113.5')
  t.equal(neighbors.members.length, 20)
  t.notOk(names(neighbors.members).includes('n5'), 'known by its address')
  t.match(neighbors, { service: 'mesh', client: '203.0.113.5', allDown: null, ticket: /./ })
  for (const name of ['n1', 'n2']) {
    const found = names((await ask('neighbors?k=100', '203.0.113.1', name)).members)
    t.equal(found.length, 29)
    t.notOk(found.includes(name), `${name} is known by its credential`)
  }
  const known = names(neighbors.members)
  const others = names(
    (await ask(`neighbors?k=100&exclude=${known.slice(0, 10)}&exclude=${known.slice(10)}`, '203.0.113.5'))
      .members,
  )
  t.same([...known, ...others, 'n5'].sort(), [...credentials.keys()].sort(), 'exclude pages through all')
  t.equal((await ask('neighbors?k=100&where=half:1', '198.51.100.7')).members.length, 15)
  t.equal(
    (await ask('neighbors?k=100&where=half:1&where=half:0', '198.51.100.7')).members.length,
    15,
    'the last word on one attribute counts',
  )
  t.same(
    (await ask('neighbors?minMs=0&maxMs=10', '198.51.100.7')).members,
    [],
    'what is not known to be in the ring is not',
  )
  t.same((await ask('neighbors?reachable=true', '198.51.100.7')).members, [], 'nobody was tried from outside')
  t.same((await ask('nearest?family=6', '198.51.100.7')).members, [])

  const drawn = new Map<string, number>()
  for (let i = 0; i < 600; i++) {
    const found = names((await ask('random?k=5', '203.0.113.5')).members)
    t.equal(new Set(found).size, 5)
    for (const name of found) drawn.set(name, (drawn.get(name) ?? 0) + 1)
  }
  t.equal(drawn.size, 29)
  // 3000 draws over 29 nodes: 103 each, standard deviation 9.
  t.ok(
    [...drawn.values()].every((count) => count > 60 && count < 150),
    `${[...drawn.values()]}`,
  )

  const both = await ask('bootstrap?near=20&random=20', '203.0.113.5')
  t.equal(both.near.length, 20)
  t.equal(both.random.length, 9, 'all that are left')
  t.equal(new Set(names([...both.near, ...both.random])).size, 29)
  const none = await ask('bootstrap?near=0&random=2', '203.0.113.5')
  t.same([none.near.length, none.random.length], [0, 2])

  for (const name of credentials.keys()) await core.removeHost(ADMIN, name)
  const empty = await ask('random', '198.51.100.7')
  t.match(empty, { members: [], allDown: 'empty' })
})

t.test('an answer tells demand only of who asks for itself', async (t) => {
  const { context, core } = await openFixture(t)
  const noted: string[] = []
  Object.defineProperty(core, 'noteDemand', {
    value: (client: Uint8Array, service: string, proven: boolean) =>
      noted.push(`${formatAddress(client)} ${service} ${proven}`),
  })
  const api = await openApi(context)
  t.teardown(() => api.close())
  const own = await api.inject({ url: '/v1/services/mirror/nearest', remoteAddress: REMOTE })
  t.equal(own.headers['access-control-allow-origin'], '*')
  const others = await api.inject({ url: `/v1/services/mirror/nearest?client=${REMOTE}` })
  const inside = await api.inject('/v1/services/mirror/explain')
  t.equal(inside.statusCode, 200)
  for (const { headers } of [others, inside]) t.equal(headers['access-control-allow-origin'], undefined)
  t.equal(others.json().client, REMOTE)
  t.same(own.json().members, others.json().members, 'and both get the same')
  t.equal(own.headers['cache-control'], 'no-store')
  t.same(noted, [`${REMOTE} mirror true`])
})

t.test('requests a minute are limited for each address, heartbeats and health are not', async (t) => {
  const { context } = await openFixture(t, { requestsPerMinute: '5' })
  const api = await openApi(context)
  t.teardown(() => api.close())
  const times = async (n: number, url: string, remoteAddress: string, method: 'GET' | 'POST' = 'GET') => {
    const seen: number[] = []
    for (let i = 0; i < n; i++)
      seen.push(
        (
          await api.inject({
            method,
            url,
            remoteAddress,
            ...(method === 'POST' ? { payload: { beats: [] } } : {}),
          })
        ).statusCode,
      )
    return seen
  }
  t.same(await times(7, '/v1/localities/me', REMOTE), [200, 200, 200, 200, 200, 429, 429])
  const refused = await api.inject({ url: '/v1/localities/me', remoteAddress: REMOTE })
  t.match(refused.json(), { type: 'urn:nearcast:problem:too-many', status: 429 })
  t.match(refused.headers['retry-after'], /^\d+$/)
  t.same(await times(1, '/v1/nothing', REMOTE), [429], 'unknown paths count')
  t.same(await times(1, '/v1/localities/me', '203.0.113.10'), [200], 'others are not touched')
  t.same(await times(9, '/healthz', REMOTE), Array(9).fill(200))
  t.same(
    await times(9, '/v1/heartbeats', REMOTE, 'POST'),
    Array(9).fill(400),
    'wrong, and not for their number',
  )
  t.same(await times(5, '/v1/localities/me', '2001:db8::1'), Array(5).fill(200))
  t.same(await times(1, '/v1/localities/me', '2001:db8::ffff:1'), [429], 'a /64 is one client')
  t.same(await times(1, '/v1/localities/me', '2001:db8:0:1::1'), [200])
  const guesses: number[] = []
  for (let i = 0; i < 7; i++) {
    const headers = { authorization: `Bearer guess${i}` }
    guesses.push((await api.inject({ url: '/v1/status', remoteAddress: '203.0.113.11', headers })).statusCode)
  }
  t.same(guesses, [401, 401, 401, 401, 401, 429, 429], 'guesses of tokens count')
})

interface OpenApiDocument {
  readonly openapi: string
  readonly paths: Record<string, Record<string, OpenApiOperation>>
  readonly components: { readonly securitySchemes: Record<string, unknown> }
}
interface OpenApiOperation {
  readonly operationId?: string
  readonly summary?: string
  readonly tags?: string[]
  readonly security?: Record<string, unknown>[]
  readonly parameters?: { readonly in: string; readonly name: string; readonly required?: boolean }[]
  readonly requestBody?: { readonly content: Record<string, { readonly schema: TSchema }> }
  readonly responses: Record<
    string,
    { readonly description: string; readonly content?: Record<string, { readonly schema: TSchema }> }
  >
}

/** `get /v1/x/{y}` for each route in the router's drawing of itself, HEAD left out. */
function routesOf(drawing: string): string[] {
  const path: string[] = []
  return drawing.split('\n').flatMap((line) => {
    const [, indent, part, methods] = /^([│ ]*)[├└]── (\S+) \((.*)\)$/.exec(line) ?? []
    if (part === undefined) return []
    path.length = indent!.length / 4
    path.push(part)
    const url = path.join('').replace(/:(\w+)/g, '{$1}')
    return methods!
      .split(', ')
      .flatMap((method) => (method === 'HEAD' ? [] : [`${method.toLowerCase()} ${url}`]))
  })
}

t.test('the OpenAPI document tells every route, and replies are as it says', async (t) => {
  const { context, core } = await openFixture(t)
  const api = await openApi(context)
  t.teardown(() => api.close())
  const document = (await api.inject('/openapi.json')).json() as OpenApiDocument
  t.equal(document.openapi, '3.1.0')
  t.notMatch(JSON.stringify(document), /"\$ref":|Default Response/)
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  )
  const ids = operations.map(({ operation }) => operation.operationId)
  t.equal(new Set(ids).size, ids.length, 'operation ids are unique')
  for (const { path, method, operation } of operations) {
    const name = `${method} ${path}`
    t.ok(
      operation.operationId && operation.summary && operation.tags?.length === 1 && operation.security,
      name,
    )
    const inPath = [...path.matchAll(/\{(\w+)\}/g)].map(([, parameter]) => parameter)
    const declared = (operation.parameters ?? []).filter(
      (parameter) => parameter.in === 'path' && parameter.required,
    )
    t.same(declared.map((parameter) => parameter.name).sort(), inPath.sort(), `${name}: path parameters`)
    for (const scheme of (operation.security ?? []).flatMap(Object.keys))
      t.ok(document.components.securitySchemes[scheme])
    t.equal(
      ['put', 'post'].includes(method) && !path.endsWith('/drain'),
      operation.requestBody !== undefined,
      `${name}: body`,
    )
    const statuses = Object.keys(operation.responses)
    t.ok(statuses.some((status) => status < '400') && statuses.includes('400'), `${name}: ${statuses}`)
  }
  const routed = routesOf(api.printRoutes({ commonPrefix: false })).filter(
    (route) => !/^\w+ \/docs/.test(route),
  )
  const told = operations
    .map(({ path, method }) => `${method} ${path}`)
    .filter((route) => !route.includes('/r/'))
  t.same(told.sort(), routed.sort(), 'the router has these routes and no others')

  const { secret } = await core.createToken(ADMIN, { admin: true })
  const headers = { authorization: `Bearer ${secret}` }
  const calls: [
    method: 'GET' | 'PUT' | 'POST' | 'DELETE',
    path: string,
    url: string,
    status: number,
    payload?: object,
  ][] = [
    [
      'PUT',
      '/v1/services/{service}',
      '/v1/services/s',
      201,
      { policy: 'random', allDown: 'fallback', fallbackUrl: 'https://f.example.org' },
    ],
    ['PUT', '/v1/services/{service}', '/v1/services/s', 200, { policy: 'hash' }],
    ['GET', '/v1/services/{service}', '/v1/services/mirror', 200],
    ['GET', '/v1/services', '/v1/services', 200],
    ['PUT', '/v1/hosts/{host}', '/v1/hosts/h', 200, { addresses: [REMOTE], place: { lat: 1, lon: 2 } }],
    ['GET', '/v1/hosts/{host}', '/v1/hosts/h', 200],
    ['GET', '/v1/hosts', '/v1/hosts', 200],
    [
      'PUT',
      '/v1/services/{service}/members/{member}',
      '/v1/services/s/members/m',
      200,
      { addresses: ['192.0.2.77'], port: 80 },
    ],
    ['GET', '/v1/services/{service}/members/{member}', '/v1/services/s/members/m', 200],
    ['GET', '/v1/services/{service}/members', '/v1/services/mirror/members', 200],
    ['PUT', '/v1/services/{service}/members/{member}/drain', '/v1/services/s/members/m/drain', 200],
    ['DELETE', '/v1/services/{service}/members/{member}/drain', '/v1/services/s/members/m/drain', 200],
    [
      'POST',
      '/v1/localities',
      '/v1/localities',
      200,
      { source: 'feed', entries: [{ prefix: '198.51.100.0/24', lat: 1, lon: 2 }] },
    ],
    ['GET', '/v1/localities/{address}', '/v1/localities/198.51.100.7', 200],
    ['GET', '/v1/services/{service}/nearest', '/v1/services/mirror/nearest?k=3&client=198.51.100.7', 200],
    ['GET', '/v1/services/{service}/neighbors', '/v1/services/mirror/neighbors', 200],
    ['GET', '/v1/services/{service}/random', '/v1/services/mirror/random', 200],
    ['GET', '/v1/services/{service}/bootstrap', '/v1/services/mirror/bootstrap?sort=both', 200],
    ['POST', '/v1/services/{service}/nearest', '/v1/services/mirror/nearest', 200, { k: 2, exclude: ['a'] }],
    ['POST', '/v1/services/{service}/neighbors', '/v1/services/mirror/neighbors', 200, { near: '192.0.2.1' }],
    ['POST', '/v1/services/{service}/random', '/v1/services/mirror/random', 200, { exclude: ['a'] }],
    ['POST', '/v1/services/{service}/bootstrap', '/v1/services/mirror/bootstrap', 200, { near: 1 }],
    ['PUT', '/v1/services/{service}/members/{member}', '/v1/services/s/members/h', 200, { host: 'h' }],
    ['PUT', '/v1/services/{service}/members/{member}', '/v1/services/mirror/members/h', 200, { host: 'h' }],
    ['GET', '/v1/services/{service}/gateways', '/v1/services/mirror/gateways?to=s', 200],
    ['POST', '/v1/services/{service}/gateways', '/v1/services/mirror/gateways', 200, { to: 's' }],
    ['GET', '/v1/services/{service}/explain', '/v1/services/mirror/explain?client=198.51.100.7', 200],
    ['POST', '/v1/heartbeats', '/v1/heartbeats', 200, { beats: [{ host: 'h', credential: 'no' }] }],
    ['POST', '/v1/tokens', '/v1/tokens', 201, { services: ['mirror'], note: 'n' }],
    ['GET', '/v1/tokens', '/v1/tokens', 200],
    ['GET', '/v1/status', '/v1/status', 200],
    ['GET', '/v1/directory', '/v1/directory', 200],
    ['GET', '/v1/directory/{kind}', '/v1/directory/hosts', 200],
    ['GET', '/healthz', '/healthz', 200],
    ['GET', '/readyz', '/readyz', 200],
    ['DELETE', '/v1/services/{service}/members/{member}', '/v1/services/s/members/m', 204],
    ['DELETE', '/v1/hosts/{host}', '/v1/hosts/h', 204],
    ['DELETE', '/v1/services/{service}', '/v1/services/s', 204],
  ]
  for (const [method, path, url, status, payload] of calls) {
    const reply = await api.inject({
      method,
      url,
      headers,
      remoteAddress: REMOTE,
      ...(payload ? { payload } : {}),
    })
    t.equal(reply.statusCode, status, `${method} ${url}: ${reply.body}`)
    const schema =
      document.paths[path]?.[method.toLowerCase()]?.responses[status]?.content?.['application/json']?.schema
    if (status === 204) t.equal(reply.body, '')
    else if (schema === undefined) t.fail(`${method} ${path} ${status} has no schema`)
    else t.same([...Compile(schema).Errors(reply.json())], [], `${method} ${url} is as documented`)
    if (method === 'GET') {
      t.notMatch(reply.body, /echoKey|credentialHash|secret|"hash":/, 'no secret')
      const head = await api.inject({ method: 'HEAD', url, headers, remoteAddress: REMOTE })
      t.same([head.statusCode, head.body], [200, ''], `HEAD ${url}`)
    }
  }
})

t.test('the documentation needs nothing from elsewhere', async (t) => {
  const { context } = await openFixture(t)
  const api = await openApi(context)
  t.teardown(() => api.close())
  const page = await api.inject('/docs/')
  t.notMatch(page.headers['content-security-policy'], /https?:|upgrade-insecure|validator/)
  const assets = [...page.body.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, url]) => url!)
  t.ok(assets.length >= 4)
  for (const url of assets)
    t.equal((await api.inject(new URL(url, 'http://h/docs/').pathname)).statusCode, 200, url)
})

/** Of an A query of 40 bytes that was answered with 60. */
function dnsFacts(over: Partial<DnsFacts>): DnsFacts {
  return {
    outcome: 'answered',
    type: 1,
    labels: ['mirror', 'any', 'test'],
    service: 'mirror',
    client: null,
    bySubnet: false,
    basis: 'geo',
    member: 'a',
    ms: 20,
    rank: 1,
    allDown: null,
    queryBytes: 40,
    replyBytes: 60,
    truncated: false,
    limited: null,
    isProven: false,
    ...over,
  }
}

t.test('metrics add up, and no label names a client or a service', async (t) => {
  const { context } = await openFixture(t)
  const listener = await openListener(t, context)
  const { port } = listener.addresses[0]!
  const before = await counts(context)
  await exchange(port, 'GET /r/mirror/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
  await exchange(port, 'GET /v1/services/mirror/nearest HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
  await exchange(port, 'GET /nothing HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
  await exchange(port, 'nonsense\r\n\r\n')
  await exchange(port, 'GET /x HTTP/1.1\r\n\r\n')
  const after = await counts(context)
  t.same([after.requests - before.requests, after.refused - before.refused], [3, 2])
  const counters = allocateCounters(1)
  const row = counterRow(counters, 0)
  for (const [outcome, times] of Object.entries({ answered: 3, nxdomain: 2, 'dropped-short': 5 } as const))
    for (const slots of [SLOT.udp, SLOT.tcp]) row[slots + OUTCOME_AT[outcome as DnsOutcome]] = times
  row[SLOT.basis] = 4
  for (let i = 0; i < 6; i++) countFault(row, 'truncated')
  const connections = { open: 1, accepted: 5, refused: 0, cut: 2 }
  for (const rank of [1, 1, 2, 7, 30, 0]) countFacts(row, dnsFacts({ rank }), 'udp', 4)
  const dropped = {
    outcome: 'dropped-limited',
    type: 99,
    basis: null,
    replyBytes: 0,
    limited: 'drop',
  } as const
  for (let i = 0; i < 4; i++) countFacts(row, dnsFacts(dropped), 'udp', 6)
  countFacts(row, dnsFacts({ outcome: 'nxdomain', type: 65, basis: null, replyBytes: 600 }), 'tcp', 4)
  countDuration(row, 'udp', 0.03, 64)
  context.metrics.watchDns({ ...readCounters(counters), connections, restarts: 1 })
  for (let scrape = 0; scrape < 2; scrape++) {
    const text = await context.metrics.render()
    for (const line of [
      'nearcast_http_requests_total{route="redirect",status="302"} 1',
      'nearcast_http_requests_total{route="answers",status="200"} 1',
      'nearcast_http_requests_total{route="other",status="404"} 1',
      'nearcast_refused_total{door="http",reason="bad-host"} 1',
      'nearcast_answers_total{door="http",basis="none"} 2',
      'nearcast_answers_total{door="dns",basis="member"} 4',
      'nearcast_answers_total{door="dns",basis="geo"} 6',
      'nearcast_members{state="live"} 5',
      'nearcast_hosts{presence="live"} 5',
      'nearcast_services 3',
      'nearcast_ready 1',
      'nearcast_dns_requests_total{proto="udp",family="1",type="A"} 6',
      'nearcast_dns_requests_total{proto="udp",family="2",type="other"} 4',
      'nearcast_dns_requests_total{proto="tcp",family="1",type="HTTPS"} 1',
      'nearcast_dns_responses_total{proto="tcp",outcome="nxdomain",rcode="NXDOMAIN"} 3',
      'nearcast_dns_responses_total{proto="udp",outcome="dropped-short",rcode="none"} 5',
      'nearcast_dns_truncated_total 6',
      'nearcast_dns_worker_restarts_total 1',
      'nearcast_dns_limited_total{verdict="drop"} 4',
      'nearcast_dns_bytes_total{direction="out",outcome="answered"} 360',
      'nearcast_dns_rank_total{rank="1"} 2',
      'nearcast_dns_rank_total{rank="4-10"} 1',
      'nearcast_dns_rank_total{rank="more"} 1',
      'nearcast_dns_rank_total{rank="unknown"} 1',
      '# TYPE nearcast_dns_request_duration_seconds histogram',
      'nearcast_dns_request_duration_seconds_bucket{proto="udp",le="0.00002"} 0',
      'nearcast_dns_request_duration_seconds_bucket{proto="udp",le="0.00005"} 64',
      'nearcast_dns_request_duration_seconds_bucket{proto="udp",le="+Inf"} 64',
      'nearcast_dns_request_duration_seconds_count{proto="udp"} 64',
      'nearcast_dns_request_size_bytes_sum{proto="udp"} 400',
      'nearcast_dns_response_size_bytes_count{proto="udp"} 6',
      'nearcast_dns_response_size_bytes_bucket{proto="tcp",le="511"} 0',
      'nearcast_dns_response_size_bytes_bucket{proto="tcp",le="1023"} 1',
    ])
      t.ok(text.split('\n').includes(line), line)
    t.notMatch(text, /127\.0\.0\.1|192\.0\.2|mirror/)
  }
})

t.test('the metrics that the documentation names are there', async (t) => {
  const { context } = await openFixture(t)
  const connections = { open: 0, accepted: 0, refused: 0, cut: 0 }
  context.metrics.watchDns({ ...readCounters(allocateCounters(1)), connections, restarts: 0 })
  context.metrics.watchQueryLog({ written: 0, dropped: 0 })
  const text = await context.metrics.render()
  const page = readFileSync(new URL('../../docs/dns.md', import.meta.url), 'utf8')
  const named = new Set((page.match(/nearcast_[a-z_]+/g) ?? []).map((name) => name.replace(/_bucket$/, '')))
  t.ok(named.size > 15)
  for (const name of named) t.match(text, `# TYPE ${name} `, name)
})

t.test('readiness follows the core, liveness does not', async (t) => {
  const { context, core } = await openFixture(t)
  const api = await openApi(context)
  t.teardown(() => api.close())
  t.same((await api.inject('/readyz')).json(), { ready: true, degraded: [] })
  t.same((await api.inject('/readyz?strict')).json(), { ready: true, degraded: [] })
  core.drain()
  const reply = await api.inject('/readyz')
  t.equal(reply.statusCode, 503)
  t.match(reply.json().detail, /shutting down/)
  t.match(reply.headers['retry-after'], /\d/)
  t.equal((await api.inject('/healthz')).statusCode, 200)
})

t.test(
  'what is degraded is ready all the same, but for who asks strictly; metrics tell of the cluster',
  async (t) => {
    const shared = new SharedMemory()
    const store = shared.open()
    const config = testConfig({ name: 'a', store: 'etcd://127.0.0.1:1' })
    const { core, clock, run, close } = await openCoreFixture({ config, store })
    t.teardown(close)
    await run(1000)
    const metrics = new Metrics(core)
    const log = { info() {}, warn() {}, error() {} }
    const context = { core, config, metrics, log, rng: seededRng(1), epochMs: () => clock.epochMs() }
    const api = await openApi(context)
    t.teardown(() => api.close())
    const lines = async () =>
      (await metrics.render()).split('\n').filter((line) => /^nearcast_cluster_[a-z_]+ /.test(line))
    t.match(await lines(), [
      'nearcast_cluster_connected 1',
      'nearcast_cluster_behind_seconds 0',
      'nearcast_cluster_lease_held 1',
      'nearcast_cluster_cores 1',
    ])
    store.cut()
    clock.move(7000)
    const ready = await api.inject('/readyz')
    t.equal(ready.statusCode, 200)
    t.match(ready.json(), { ready: true, degraded: [/store/] })
    const strict = await api.inject('/readyz?strict')
    t.equal(strict.statusCode, 503)
    t.match(strict.json().detail, /store/)
    t.match(await lines(), ['nearcast_cluster_connected 0', 'nearcast_cluster_behind_seconds 7'])
    store.heal()
    await run(1000)
    t.equal((await api.inject('/readyz?strict')).statusCode, 200)
  },
)

t.test('a token that comes in the clear is told once', async (t) => {
  const { context, core, logged } = await openFixture(t)
  const api = await openApi(context)
  t.teardown(() => api.close())
  const { secret } = await core.createToken(ADMIN, { admin: true })
  const headers = { authorization: `bearer ${secret}` }
  await api.inject({ url: '/v1/status', headers })
  t.same(logged, [], 'loopback is no wire')
  for (let i = 0; i < 2; i++) await api.inject({ url: '/v1/status', headers, remoteAddress: REMOTE })
  t.equal(logged.length, 1)
  t.match(logged[0], /in the clear/)
})

t.test('closing ends soon, whatever connections are open', async (t) => {
  const { context } = await openFixture(t)
  const listener = await openHttp(context)
  const { port } = listener.addresses[0]!
  const agent = new Agent({ keepAlive: true })
  t.teardown(() => agent.destroy())
  const headers = await new Promise<IncomingHttpHeaders>((resolve) => {
    request({ port, path: '/healthz', agent }, (reply) =>
      reply.resume().on('end', () => resolve(reply.headers)),
    ).end()
  })
  t.equal(headers.connection, 'keep-alive')
  const half = connect(port, '127.0.0.1').on('error', () => {})
  half.write('POST /v1/heartbeats HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n')
  await new Promise((resolve) => half.once('connect', resolve))
  const startMs = performance.now()
  await listener.close()
  t.ok(performance.now() - startMs < 3_000, 'within its grace')
  half.destroy()
  t.equal(statusOf(await exchange(port, 'GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n')), 0, 'nothing listens')
  const again = await openHttp({
    ...context,
    config: { ...context.config, http: [{ host: '127.0.0.1', port }] },
  })
  await t.rejects(
    openHttp({ ...context, config: { ...context.config, http: [{ host: '127.0.0.1', port }] } }),
    {
      message: `http: can't listen on 127.0.0.1:${port}: another program listens there: stop it or choose another port`,
    },
  )
  await again.close()
})

const noOpenssl = spawnSync('openssl', ['version']).status === 0 ? false : 'openssl is not installed'
t.test(
  'a certificate is taken up when its files change, and a bad one is not',
  { skip: noOpenssl },
  async (t) => {
    const folder = t.testdir()
    const make = (name: string) => {
      const files = ['-keyout', join(folder, `${name}.key`), '-out', join(folder, `${name}.crt`)]
      const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']
      execFileSync('openssl', ['req', '-x509', ...kind, '-subj', `/CN=${name}`, ...files], {
        stdio: 'ignore',
      })
    }
    for (const name of ['first', 'second', 'third']) make(name)
    const use = (cert: string, key: string) => {
      for (const [from, to] of [
        [`${cert}.crt`, 'tls.crt'],
        [`${key}.key`, 'tls.key'],
      ] as const) {
        copyFileSync(join(folder, from), join(folder, `${to}.new`))
        renameSync(join(folder, `${to}.new`), join(folder, to))
      }
    }
    use('first', 'first')
    const { context, logged } = await openFixture(t, {
      tlsCert: join(folder, 'tls.crt'),
      tlsKey: join(folder, 'tls.key'),
    })
    const { port } = (await openListener(t, context)).addresses[0]!
    const served = () =>
      new Promise<string>((resolve, reject) => {
        const socket = tlsConnect({ port, host: '127.0.0.1', rejectUnauthorized: false }, () => {
          resolve(String((socket.getPeerCertificate() as PeerCertificate).subject.CN))
          socket.destroy()
        }).on('error', reject)
      })
    const until = async (condition: () => boolean | Promise<boolean>) => {
      for (let i = 0; i < 100 && !(await condition()); i++)
        await new Promise((resolve) => setTimeout(resolve, 50))
    }
    t.equal(await served(), 'first')
    use('second', 'second')
    await until(async () => (await served()) === 'second')
    t.equal(await served(), 'second')
    const told = logged.length
    use('third', 'first')
    await until(() => logged.length > told)
    t.match(logged.at(-1), /old one stays/)
    t.equal(await served(), 'second')
    t.equal(statusOf(await exchange(port, 'GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n')), 0, 'no plain http')
    await until(async () => /door="tls"/.test(await context.metrics.render()))
    t.match(await context.metrics.render(), /nearcast_refused_total\{door="tls",reason="handshake"\} 1/)
  },
)

t.test('large heartbeats of nobody are refused after a while, small ones never', async (t) => {
  const { context } = await openFixture(t)
  const api = await openApi(context)
  t.teardown(() => api.close())
  const post = (count: number) =>
    api.inject({
      method: 'POST',
      url: '/v1/heartbeats',
      payload: {
        beats: Array.from({ length: count }, () => ({ host: 'nobody', credential: 'x'.repeat(100) })),
      },
    })
  let refused = 0
  for (let i = 0; i < 80; i++) if ((await post(200)).statusCode === 429) refused++
  t.ok(refused >= 15 && refused <= 20, `${refused} of 80`)
  t.equal((await post(1)).statusCode, 200)
})

t.test('long lists are told by pages, each name once', async (t) => {
  const names = Array.from({ length: 57 }, (_, i) => ({ name: `m${(i * 37) % 57}` }))
  for (const limit of [1, 5, 56, 57, 58]) {
    const told: string[] = []
    for (let after: string | null = ''; after !== null; ) {
      const { page, next }: ReturnType<typeof pageOf> = pageOf(names, { after, limit })
      t.ok(page.length <= limit)
      told.push(...page.map(({ name }) => name))
      after = next
    }
    t.same(told, names.map(({ name }) => name).sort(), `${limit} at a time`)
  }
  t.same(pageOf([], {}), { page: [], next: null })
})

t.test(
  'two cores that hold the same say so in whatever order they heard of it, and no secret with it',
  async (t) => {
    const openBoth = async () => {
      const fixture = await openFixture(t)
      const api = await openApi(fixture.context)
      t.teardown(() => api.close())
      const { secret } = await fixture.core.createToken(ADMIN, { admin: true })
      const headers = { authorization: `Bearer ${secret}` }
      const get = async (url: string) => (await api.inject({ url, headers })).json()
      return { core: fixture.core, get, services: async () => (await get('/v1/directory')).kinds.services }
    }
    const [one, two] = [await openBoth(), await openBoth()]
    await one.core.putService(ADMIN, 'x', { ttl: 9, where: { a: '1', b: '2' } })
    await one.core.putService(ADMIN, 'y', {})
    await two.core.putService(ADMIN, 'y', {})
    await two.core.putService(ADMIN, 'x', { where: { b: '2', a: '1' }, ttl: 9 })
    t.match(await one.services(), { records: 5, digest: /^[0-9a-f]{64}$/ })
    t.same(await one.services(), await two.services())
    await two.core.putService(ADMIN, 'x', { ttl: 10, where: { a: '1', b: '2' } })
    t.not((await one.services()).digest, (await two.services()).digest)
    const told = await one.get('/v1/directory/services')
    t.match(told, { x: { name: 'x', ttlSec: 9 }, y: {} })
    t.same(Object.keys(told).toSorted(), [...one.core.directory.services.keys()].toSorted())
    const settings = [...one.core.directory.settings.values()]
    t.ok(settings.length > 0)
    const shown = JSON.stringify([
      await one.get('/v1/directory/settings'),
      await one.get('/v1/directory/hosts'),
    ])
    for (const secret of [...settings, ...one.core.directory.hosts.values()].flatMap((it) =>
      typeof it === 'string' ? it : it.echoKey,
    ))
      t.notOk(secret !== '' && shown.includes(secret))
  },
)
