// The command `nearcast` as a shell sees it: what it sends, prints and ends with.
// A fake core answers what the API says it would; the real one is met in test/e2e.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { DEFAULT_CORE } from '../../core-node/cli/client.ts'
import { SERVICE_FLAGS } from '../../core-node/cli/service.ts'
import { type Column, cellsOf, clip, formatTable, wrap } from '../../core-node/cli/table.ts'
import { openTerminal, printable, type Terminal } from '../../core-node/cli/terminal.ts'
import { runCli } from '../../core-node/cli.ts'
import { ServiceRequest } from '../../core-node/registry/services.ts'
import { CONFIG_KEYS } from '../../core-node/settings/config.ts'

const ROOT = join(import.meta.dirname, '../..')
const BIN = join(ROOT, 'core-node/bin/nearcast.js')

/** What the fake core was asked. */
interface Asked {
  readonly method: string
  readonly url: string
  readonly authorization: string | undefined
  readonly body: unknown
}

interface Reply {
  readonly status?: number
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
}

async function readBody(request: IncomingMessage): Promise<unknown> {
  const body = await text(request)
  return body === '' ? null : JSON.parse(body)
}

/** A core that gives one reply to everything and keeps what it was asked. */
async function openFakeCore(
  test: Test,
  reply: Reply | ((asked: Asked) => Reply),
): Promise<{ url: string; asked: Asked[] }> {
  const asked: Asked[] = []
  const server = createServer(async (request, response) => {
    const { method = '', url = '', headers } = request
    asked.push({ method, url, authorization: headers.authorization, body: await readBody(request) })
    const { status = 200, body, headers: more } = typeof reply === 'function' ? reply(asked.at(-1)!) : reply
    response.writeHead(status, {
      ...more,
      'content-type': status < 400 ? 'application/json' : 'application/problem+json',
    })
    response.end(body === undefined ? '' : JSON.stringify(body))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  test.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked }
}

/** The URL of a port where nobody listens. */
async function closedPort(): Promise<string> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return `http://127.0.0.1:${port}`
}

interface Run {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** Runs a command line in this process. */
async function run(args: readonly string[], options: Partial<Terminal> = {}): Promise<Run> {
  const out: string[] = []
  const err: string[] = []
  const code = await runCli(args, {
    print: (text) => out.push(text),
    warn: (text) => err.push(text),
    width: null,
    colour: false,
    env: {},
    ...options,
  })
  return { code, out: out.join('\n'), err: err.join('\n') }
}

/** Makes this Node say that it is an older one: the bin then hands over to the Node of the dependencies. */
const OLD_NODE = [
  '--import',
  `data:text/javascript,Object.defineProperty(process.versions,'node',{value:'20.1.0'})`,
]

interface BinRun extends Run {
  readonly signal: string | null
}

/** Runs the bin as a process of its own. `kill` resolves when it is to be sent SIGTERM. */
async function runBin(
  args: readonly string[],
  options: { nodeArgs?: readonly string[]; kill?: Promise<void> } = {},
): Promise<BinRun> {
  const child = spawn(process.execPath, [...(options.nodeArgs ?? []), BIN, ...args], {
    env: { PATH: process.env.PATH ?? '' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  options.kill?.then(() => child.kill('SIGTERM'))
  const closed = once(child, 'close')
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)])
  const [code, signal] = await closed
  return { code: code ?? -1, signal, out, err }
}

const SERVICE = {
  name: 'mirror',
  policy: 'nearest',
  ttl: 30,
  minAddrs: 1,
  maxAddrs: 2,
  tieMs: 2,
  stickyMs: 10,
  stickyRatio: 0.8,
  where: { region: 'eu' },
  aliases: ['m', 'cdn.example.org'],
  urlHosts: [],
  join: 'token',
  maxPerPrefix: 0,
  verify: 'echo',
  allDown: 'stale',
  members: { live: 1, total: 2 },
}

const MEMBERS = [
  {
    service: 'mirror',
    name: 'ams1',
    host: 'ams1',
    state: 'live',
    addresses: ['192.0.2.1', '2001:db8::1'],
    port: 443,
    url: 'https://ams1.example.org/a/path/that/is/longer/than/a/window/is/wide/and/goes/on/for/some/time/yet',
    attributes: {},
    weight: 1,
    capacity: 200,
    load: 50,
    health: 'up',
    drained: false,
    sinceMs: 0,
    reachable: true,
  },
  {
    service: 'mirror',
    name: 'fra-with-a-rather-long-name',
    host: 'fra-with-a-rather-long-name',
    state: 'unverified',
    hint: 'its echo does not answer: open UDP port 8054',
    addresses: ['198.51.100.1'],
    port: null,
    url: null,
    attributes: {},
    weight: 1,
    capacity: 1,
    load: null,
    health: 'unknown',
    drained: false,
    sinceMs: 0,
    reachable: null,
  },
]

const LOCALITY = {
  client: '203.0.113.9',
  prefix: '203.0.113.0/24',
  basis: 'measured',
  errorMs: 3,
  place: { lat: 52.37, lon: 4.9, accuracyKm: 20 },
  coordinate: null,
  evidence: [
    { host: 'fra1', rttMs: 17.25, count: 3, ageSec: 3600, kind: 'active' },
    { host: 'ams1', rttMs: 8.04, count: 5, ageSec: 90, kind: 'active' },
  ],
  source: 'geography',
}

const EXPLANATION = {
  service: 'mirror',
  policy: 'nearest',
  client: '203.0.113.9',
  locality: LOCALITY,
  allDown: null,
  members: [
    {
      name: 'ams1',
      host: 'ams1',
      state: 'live',
      ms: 8.04,
      errorMs: 1,
      basis: 'measured',
      cost: 8.04,
      rank: 1,
      reason: null,
      why: 'nearest by measurement',
    },
    {
      name: 'fra1',
      host: 'fra1',
      state: 'live',
      ms: 17.25,
      errorMs: 1,
      basis: 'measured',
      cost: 17.25,
      rank: null,
      reason: 'farther',
      why: 'fits, but ams1 is better and one was asked for',
    },
    {
      name: 'lon1',
      host: 'lon1',
      state: 'drained',
      ms: null,
      errorMs: null,
      basis: 'none',
      cost: null,
      rank: null,
      reason: 'drained',
      why: 'its operator took it out',
    },
  ],
  others: 7,
  wouldProbe: ['lon1', 'par1'],
}

t.test('each command sends the request that the API names', async (t) => {
  const table: readonly [args: string, method: string, url: string, body: unknown][] = [
    ['service put mirror', 'PUT', '/v1/services/mirror', {}],
    [
      'service put mirror --policy hash --ttl 5 --where a=b --where c=d=e --alias x,y --alias z --all-down fallback --fallback-address 192.0.2.1',
      'PUT',
      '/v1/services/mirror',
      {
        policy: 'hash',
        ttl: 5,
        where: { a: 'b', c: 'd=e' },
        aliases: ['x', 'y', 'z'],
        allDown: 'fallback',
        fallbackAddresses: ['192.0.2.1'],
      },
    ],
    ['service list', 'GET', '/v1/services', null],
    ['service show mirror', 'GET', '/v1/services/mirror', null],
    ['service rm mirror', 'DELETE', '/v1/services/mirror', null],
    [
      'member put mirror/lon1 --address 192.0.2.7 --port 443 --attr tier=1 --check tcp://192.0.2.7:443',
      'PUT',
      '/v1/services/mirror/members/lon1',
      { addresses: ['192.0.2.7'], port: 443, attributes: { tier: '1' }, check: 'tcp://192.0.2.7:443' },
    ],
    ['member list mirror', 'GET', '/v1/services/mirror/members', null],
    ['member drain mirror/lon1', 'PUT', '/v1/services/mirror/members/lon1/drain', null],
    ['member undrain mirror/lon1', 'DELETE', '/v1/services/mirror/members/lon1/drain', null],
    ['member rm mirror/lon1', 'DELETE', '/v1/services/mirror/members/lon1', null],
    [
      'token create --service mirror --service game --note n',
      'POST',
      '/v1/tokens',
      { services: ['mirror', 'game'], note: 'n' },
    ],
    ['token create --admin', 'POST', '/v1/tokens', { admin: true }],
    ['token list', 'GET', '/v1/tokens', null],
    ['token revoke t1', 'DELETE', '/v1/tokens/t1', null],
    ['explain mirror 2001:db8::7', 'GET', '/v1/services/mirror/explain?client=2001%3Adb8%3A%3A7', null],
    ['explain mesh 192.0.2.7 --k 20', 'GET', '/v1/services/mesh/explain?client=192.0.2.7&k=20', null],
    ['locality show 2001:db8::7', 'GET', '/v1/localities/2001%3Adb8%3A%3A7', null],
    ['status', 'GET', '/v1/status', null],
  ]
  const core = await openFakeCore(t, { body: {} })
  for (const [args, method, url, body] of table) {
    await run([...args.split(' '), '--core', core.url, '--json'], { env: { NEARCAST_TOKEN: 's3cret' } })
    t.match(core.asked.at(-1), { method, url }, args)
    t.strictSame(core.asked.at(-1)?.body, body, `${args}: its body`)
    t.equal(core.asked.at(-1)?.authorization, 'Bearer s3cret')
  }
  t.equal(core.asked.length, table.length, 'one request each')
})

t.test('the flags of `service put` are the keys of a service request, with their defaults', async (t) => {
  const properties = ServiceRequest.properties as Record<string, { default?: unknown }>
  t.strictSame(
    SERVICE_FLAGS.map(([key]) => key),
    Object.keys(properties),
  )
  for (const [key, , , help] of SERVICE_FLAGS) {
    const expected = properties[key]?.default
    if (expected !== undefined) t.match(help, `(default: ${expected})`, key)
  }
})

t.test('the flags of `core` are the settings', async (t) => {
  const { out, code } = await run(['core', '--help'])
  t.equal(code, 0)
  for (const { flag, takes } of CONFIG_KEYS) t.match(out, takes === 'on|off' ? `${flag} [` : `${flag} <`)
})

t.test('exit codes say 0 done, 1 it failed, 2 wrong use', async (t) => {
  const nobody = await closedPort()
  const table: readonly [args: string, code: number, err: RegExp][] = [
    ['--help', 0, /^$/],
    ['--version', 0, /^$/],
    ['help member', 0, /^$/],
    ['member put --help', 0, /^$/],
    ['', 2, /Usage: nearcast/],
    ['service', 2, /Usage: nearcast service/],
    ['serwice list', 2, /Did you mean service/],
    ['service lst', 2, /unknown command 'lst'/],
    ['service put', 2, /missing required argument 'name'/],
    ['service put Mirror', 2, /"Mirror" is no service's name: expected one DNS label/],
    ['service put mirror --ttl soon', 2, /--ttl <sec>.* Expected a number/],
    ['service put mirror --ttl Infinity', 2, /Expected a number/],
    ['service put mirror --policy best', 2, /Allowed choices are nearest, random/],
    ['service put mirror --where region', 2, /Expected KEY=VALUE/],
    ['service put mirror --color red', 2, /unknown option '--color'/],
    ['service list extra', 2, /too many arguments/],
    ['member put mirror', 2, /"mirror" is no member's name: expected SERVICE\/NAME/],
    ['member drain a/b/c', 2, /expected SERVICE\/NAME/],
    ['member put mirror/lon1', 2, /no address: .*--address IP/],
    ['token create', 2, /either --service NAME or --admin/],
    ['token create --admin --service x', 2, /either --service NAME or --admin/],
    ['explain mirror 300.1.1.1', 2, /"300.1.1.1" is no IP address/],
    ['lab --hosts 0', 2, /Expected a whole number from 1/],
    ['status --core localhost:8053', 2, /--core is "localhost:8053"; expected a core's URL/],
    ['status --core http://127.0.0.1:8053/v1', 2, /expected a core's URL/],
    ['core --ttl 3', 2, /unknown option '--ttl'/],
    ['core --dns somewhere', 2, /dns.*"somewhere".*expected HOST:PORT[\s\S]*npx nearcast core --help/],
    ['check-config /nonexistent.yaml', 1, /nonexistent.yaml/],
    [`status --core ${nobody}`, 1, /no core answers at http:\/\/127.0.0.1:\d+\n.*npm start/],
  ]
  for (const [args, code, err] of table) {
    const result = await run(args === '' ? [] : args.split(' '))
    t.equal(result.code, code, `nearcast ${args}: exit code`)
    t.match(result.err, err, `nearcast ${args}: what it says`)
  }
})

t.test('a problem document becomes its detail, its field and what to do', async (t) => {
  const problem = (status: number, detail: string, field?: string) => ({
    status,
    body: {
      type: 'urn:nearcast:problem:x',
      title: 'X',
      status,
      detail,
      ...(field === undefined ? {} : { field }),
    },
  })
  const table: readonly [Reply, code: number, err: RegExp][] = [
    [problem(400, 'must be <= 86400', 'ttl'), 2, /^nearcast: ttl: must be <= 86400$/],
    [problem(400, 'ttl must be <= 86400', 'ttl'), 2, /^nearcast: ttl must be <= 86400$/],
    [problem(401, 'a token is needed'), 1, /a token is needed\n.*NEARCAST_TOKEN.*admin-token/],
    [problem(403, 'only an administrator may'), 1, /only an administrator may$/m],
    [problem(404, 'there is no service mirror'), 1, /^nearcast: there is no service mirror$/],
    [problem(503, 'evil \u001b[2J detail\nwith lines'), 1, /^nearcast: evil {2}\[2J detail with lines$/],
    [{ status: 502, body: 'bad gateway' }, 1, /answered with HTTP 502, not as a core does/],
    [{ status: 500 }, 1, /answered with HTTP 500, not as a core does/],
  ]
  for (const [reply, code, err] of table) {
    const core = await openFakeCore(t, reply)
    const result = await run(['service', 'put', 'mirror', '--core', core.url])
    t.equal(result.code, code)
    t.match(result.err, err)
    t.equal(result.out, '', 'nothing on standard output')
  }
})

t.test('a success that is not JSON is no success', async (t) => {
  const server = createServer((_request, response) => response.end('<html>hello</html>'))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const { code, err } = await run([
    'status',
    '--core',
    `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
  ])
  t.equal(code, 1)
  t.match(err, /not as a core does/)
})

t.test('the token comes from NEARCAST_TOKEN, else from the data folder', async (t) => {
  const data = t.testdir({ 'admin-token': 'from-file\n' })
  const core = await openFakeCore(t, { body: { services: [] } })
  const list = ['service', 'list', '--core', core.url]
  const table: readonly [args: string[], env: Record<string, string>, sent: string | undefined][] = [
    [['--data', data], {}, 'Bearer from-file'],
    [[], { NEARCAST_DATA: data }, 'Bearer from-file'],
    [['--data', data], { NEARCAST_TOKEN: 'from-env' }, 'Bearer from-env'],
    [['--data', join(data, 'nowhere')], {}, undefined],
  ]
  for (const [args, env, sent] of table) {
    await run([...list, ...args], { env })
    t.equal(core.asked.at(-1)?.authorization, sent)
  }
  await run(['service', 'list'], { env: { NEARCAST_CORE: core.url, NEARCAST_TOKEN: 'x' } })
  t.equal(core.asked.length, table.length + 1, 'NEARCAST_CORE names the core')
})

t.test('a token goes over http:// to no other machine, unless told --insecure', async (t) => {
  const env = { NEARCAST_TOKEN: 's3cret' }
  for (const url of [
    'http://192.0.2.1:8053',
    'http://core.example.org',
    'http://[2001:db8::1]',
    'http://127.0.0.1.example.org',
  ]) {
    const { code, err } = await run(['status', '--core', url], { env })
    t.equal(code, 2, url)
    t.match(err, /the token would travel in the clear.*\n.*--insecure/)
  }
  for (const url of [
    'http://127.0.0.1:9',
    'http://127.8.8.8:9',
    'http://localhost:9',
    'http://[::1]:9',
    'https://127.0.0.1:9',
  ]) {
    const { code, err } = await run(['status', '--core', url], { env })
    t.equal(code, 1, `${url} is tried`)
    t.notMatch(err, /in the clear/)
  }
  const { err } = await run(['status', '--core', 'http://localhost.invalid:9', '--insecure'], { env })
  t.match(err, /can't be reached/, '--insecure: it is tried')
})

t.test('the token of the local data folder is not sent to another machine', async (t) => {
  const before = process.cwd()
  process.chdir(t.testdir({ data: { 'admin-token': 'local' } }))
  t.teardown(() => process.chdir(before))
  const away = await run(['status', '--core', 'http://core.invalid:9'])
  t.notMatch(away.err, /in the clear/, 'without --data there is no token to protect')
  const named = await run(['status', '--core', 'http://core.invalid:9', '--data', 'data'])
  t.match(named.err, /in the clear/, 'with --data there is')
})

t.test('tables fit the window at 60 and at 120 columns, and are whole where there is none', async (t) => {
  const core = await openFakeCore(t, { body: { members: MEMBERS } })
  const list = ['member', 'list', 'mirror', '--core', core.url]
  for (const width of [60, 120]) {
    const { out } = await run(list, { width })
    const lines = out.split('\n').slice(0, 3)
    for (const line of lines) t.ok(cellsOf(line) <= width, `${width}: ${line}`)
    t.match(lines[1], /^ams1 .*live.*443 +25% .*…$/, 'numbers are whole, the URL is clipped')
  }
  const { out } = await run(list)
  t.match(out, MEMBERS[0]!.url)
  t.match(out, 'fra-with-a-rather-long-name: its echo does not answer: open UDP port 8054')
})

t.test('no table line is wider than the window, whatever the widths and writings', async (t) => {
  const texts = [
    '',
    'a',
    'twelve chars',
    '東京都のサーバー',
    'éèê',
    '👍🏽 family 👨‍👩‍👧',
    'x'.repeat(200),
    'several words that can wrap',
  ]
  const columns: Column[] = [{ title: 'ONE' }, { title: 'TWO', kind: 'wrap' }, { title: 'N', kind: 'number' }]
  for (const a of texts) {
    for (const b of texts) {
      for (const width of [20, 33, 60, 120]) {
        const lines = formatTable(columns, [[a, b, '12345']], width)
        for (const line of lines) if (cellsOf(line) > width) t.fail(`${cellsOf(line)} > ${width}: ${line}`)
        if (!lines[1]?.includes('12345')) t.fail(`the number is cut: ${lines[1]}`)
      }
    }
  }
  t.strictSame(formatTable(columns, [['東京', 'b', '1']], null), ['ONE   TWO  N', '東京  b    1'])
})

t.test('text is measured, clipped and wrapped by what a terminal shows', async (t) => {
  const cells: readonly [string, number][] = [
    ['abc', 3],
    ['東京', 4],
    ['e\u0301', 1],
    ['👍🏽', 2],
    ['ｱ', 1],
    ['한국', 4],
    ['', 0],
  ]
  for (const [text, expected] of cells) t.equal(cellsOf(text), expected, JSON.stringify(text))
  t.equal(clip('abcdef', 4), 'abc…')
  t.equal(clip('東京都', 4), '東…', 'no half of a wide character')
  t.equal(clip('abcd', 4), 'abcd')
  t.strictSame(wrap('fits, but others are better', 12), ['fits, but', 'others are', 'better'])
})

t.test('text from elsewhere does not drive the terminal', async (t) => {
  t.equal(printable('a\u001b[31mred\u0007\r\nb\u202ec\u009bd'), 'a [31mred b c d')
  const members = [{ ...MEMBERS[0], url: 'https://x/\u001b]0;title\u0007' }]
  const core = await openFakeCore(t, { body: { members } })
  const { out } = await run(['member', 'list', 'mirror', '--core', core.url])
  t.notMatch(out, '\u001b')
})

t.test('colours are for terminals whose owner wants them', async (t) => {
  const stream = (isTTY: boolean) => ({ isTTY, columns: 100, write: () => true })
  const terminal = (isTTY: boolean, env: Record<string, string>) =>
    openTerminal({ stdout: stream(isTTY), stderr: stream(isTTY), env } as unknown as NodeJS.Process)
  t.match(terminal(true, {}), { colour: true, width: 100 })
  t.match(terminal(true, { NO_COLOR: '1' }), { colour: false, width: 100 })
  t.match(terminal(true, { TERM: 'dumb' }), { colour: false })
  t.match(terminal(false, {}), { colour: false, width: null })

  const core = await openFakeCore(t, { body: { services: [SERVICE] } })
  const list = ['service', 'list', '--core', core.url]
  t.match((await run(list, { colour: true })).out, '\u001b[1mSERVICE')
  t.notMatch((await run(list)).out, '\u001b')
  const child = await runBin(list)
  t.notMatch(child.out, '\u001b', 'a pipe is no terminal')
  t.match(
    child.out,
    /^SERVICE +POLICY +TTL +LIVE +MEMBERS +ALIASES\nmirror +nearest +30 +1 +2 +m cdn.example.org\n$/,
  )
})

t.test(
  'explain prints the locality, the order, each reason, the evidence and what would be probed',
  async (t) => {
    const core = await openFakeCore(t, { body: EXPLANATION })
    const { out } = await run(['explain', 'mirror', '203.0.113.9', '--core', core.url], { width: 80 })
    t.equal(
      out,
      `mirror for 203.0.113.9, policy nearest
203.0.113.0/24   basis: measured, within 3.0 ms
place: 52.37 4.90 (within 20 km, from geography)

#  MEMBER    MS   +-  BASIS     COST  WHY
1  ams1     8.0  1.0  measured   8.0  nearest by measurement
-  fra1    17.3  1.0  measured  17.3  farther: fits, but ams1 is better and one
                                      was asked for
-  lon1       -    -  none         -  drained: its operator took it out
and 7 others, which its index passed over

measured:
HOST  RTT MS  SAMPLES     AGE  BY
ams1     8.0        5    90 s  active
fra1    17.3        3  60 min  active

probed next: lon1, par1`,
    )
    const json = await run(['explain', 'mirror', '203.0.113.9', '--core', core.url, '--json'])
    t.strictSame(JSON.parse(json.out), EXPLANATION, '--json is what the core said')
  },
)

t.test('locality show lists the measurements, nearest first', async (t) => {
  const core = await openFakeCore(t, { body: LOCALITY })
  const { out } = await run(['locality', 'show', '203.0.113.9', '--core', core.url])
  t.match(out, /HOST +RTT MS +SAMPLES +AGE +BY\nams1 +8.0 +5 +90 s +active\nfra1 +17.3 +3 +60 min +active$/)
})

t.test('locality import sends the file in parts that a core takes', async (t) => {
  const lines = Array.from({ length: 10_001 }, (_, i) => `10.${i >> 8}.${i & 255}.0/24 52.5 13.4`)
  const file = join(t.testdir({ 'places.txt': lines.join('\n') }), 'places.txt')
  const core = await openFakeCore(t, ({ body }) => ({
    body: { imported: (body as { entries: [] }).entries.length },
  }))
  const { code, out } = await run(['locality', 'import', file, '--core', core.url])
  t.equal(code, 0)
  t.match(out, '10001 prefixes imported')
  t.strictSame(
    core.asked.map(({ body }) => (body as { entries: [] }).entries.length),
    [2000, 2000, 2000, 2000, 2000, 1],
  )
  t.match(core.asked[5]?.body, {
    source: 'places.txt',
    entries: [{ prefix: '10.39.16.0/24', lat: 52.5, lon: 13.4 }],
  })

  let turn = 0
  const busy = await openFakeCore(t, () => {
    if (turn++ === 3) return { status: 500, body: { detail: 'the disk is full' } }
    const isBusy = turn === 2
    return isBusy
      ? { status: 429, headers: { 'retry-after': '0' }, body: { detail: 'at most 600 a minute' } }
      : { body: { imported: 2000 } }
  })
  const cut = await run(['locality', 'import', file, '--core', busy.url])
  t.equal(cut.code, 1)
  t.match(cut.err, /the disk is full \(4000 prefixes were imported before that\)/)
  t.same(busy.asked[1]?.body, busy.asked[2]?.body, 'a core that asks to come back later is asked again')

  const bad = join(t.testdir({ 'places.txt': '192.0.2.0/24 52.5 13.4\n192.0.2.0/99 1 1\n' }), 'places.txt')
  const refused = await run(['locality', 'import', bad, '--core', core.url])
  t.equal(refused.code, 1)
  t.match(refused.err, /192\.0\.2\.0\/99/)
  t.equal(core.asked.length, 6, 'nothing of it was sent')
  const skipped = await run(['locality', 'import', bad, '--skip-bad', '--core', core.url])
  t.equal(skipped.code, 0)
  t.match(skipped.out, '1 prefixes imported')
})

t.test('a new token stands alone on standard output', async (t) => {
  const token = { id: 't1', secret: 'nc_secret', admin: false, services: ['mirror'], note: '', createdMs: 0 }
  const core = await openFakeCore(t, { body: token })
  const { out, err } = await run(['token', 'create', '--service', 'mirror', '--core', core.url])
  t.equal(out, 'nc_secret')
  t.match(err, `npx nearcast-agent --core ${core.url} --service mirror`)
})

t.test('status exits with 1 where the core is not ready', async (t) => {
  const status = {
    name: 'core1',
    version: '1.0.0',
    zone: 'any.test',
    uptimeSec: 7300,
    ready: false,
    degraded: ['the store is unreachable'],
    services: 1,
    hosts: { live: 1, silent: 0, left: 0 },
    members: { live: 1, other: 0 },
    localities: 3,
    places: 5,
    store: 'sqlite',
    geography: 'geoip-lite',
    counters: {},
  }
  const notReady = await openFakeCore(t, { body: status })
  const result = await run(['status', '--core', notReady.url])
  t.equal(result.code, 1)
  t.match(result.out, /not ready, up 2 h[\s\S]*degraded +the store is unreachable/)
  const ready = await openFakeCore(t, { body: { ...status, ready: true, degraded: [] } })
  t.equal((await run(['status', '--core', ready.url])).code, 0)
})

t.test('check-config tells every mistake', async (t) => {
  const dir = t.testdir({ 'bad.yaml': 'dns: nowhere\ncolour: red\n', 'good.yaml': 'name: core2\n' })
  const bad = await run(['check-config', join(dir, 'bad.yaml')])
  t.equal(bad.code, 1)
  t.match(bad.err, /2 mistakes in .*bad.yaml/)
  t.match(bad.err, /nowhere/)
  t.match(bad.err, /colour/)
  const json = await run(['check-config', join(dir, 'bad.yaml'), '--json'])
  t.equal(JSON.parse(json.out).mistakes.length, 2)
  t.equal((await run(['check-config', join(dir, 'good.yaml')])).code, 0)
})

t.test('the bin is the same program under an older Node: streams and exit code', async (t) => {
  const core = await openFakeCore(t, { body: { services: [] } })
  const list = ['service', 'list', '--json', '--core', core.url]
  for (const nodeArgs of [[], OLD_NODE]) {
    const [good, wrong] = await Promise.all([
      runBin(list, { nodeArgs }),
      runBin(['service', 'put'], { nodeArgs }),
    ])
    t.match(good, { code: 0, err: '' })
    t.strictSame(JSON.parse(good.out), { services: [] })
    t.match(wrong, { code: 2, out: '', err: /missing required argument/ })
  }
})

t.test('a signal to the bin ends the program that it started', async (t) => {
  // A core that never answers, and tells when its caller is gone.
  const gone = Promise.withResolvers<void>()
  const called = Promise.withResolvers<void>()
  const server = createServer((request) => {
    request.socket.once('close', () => gone.resolve())
    called.resolve()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const { signal } = await runBin(['status', '--core', url], { nodeArgs: OLD_NODE, kill: called.promise })
  t.equal(signal, 'SIGTERM', 'it ends as its program did')
  await gone.promise
})

t.test('every command in the help and the hints is one that there is', async (t) => {
  const help = await run(['--help'])
  const groups = [...help.out.matchAll(/^ {2}([a-z-]+) {2,}/gm)].map(([, name]) => name!)
  const texts = [help.out]
  for (const group of groups) {
    const { out } = await run([group, '--help'])
    texts.push(out)
    for (const [, sub] of out.matchAll(/^ {2}([a-z]+) (?:\[options\] )?<?.*$/gm)) {
      if (sub !== 'npx') texts.push((await run([group, sub!, '--help'])).out)
    }
  }
  const sources = ['service', 'member', 'token', 'locality', 'explain', 'core', 'client', 'status']
  for (const name of sources) texts.push(readFileSync(join(ROOT, `core-node/cli/${name}.ts`), 'utf8'))
  const mentioned = new Set<string>()
  for (const text of texts) {
    for (const [, command] of text.matchAll(/npx nearcast ([a-z-]+(?: [a-z]+)?)/g)) mentioned.add(command!)
  }
  t.ok(mentioned.size > 8, 'they are found')
  for (const command of mentioned) {
    const [group = '', sub] = command.split(' ')
    const words = ['service', 'member', 'token', 'locality'].includes(group) && sub ? [group, sub] : [group]
    const { code, out } = await run([...words, '--help'])
    t.equal(code, 0, command)
    t.match(out, `Usage: nearcast ${words.join(' ')}`, command)
  }
  t.match(help.out, DEFAULT_CORE)
})

t.test(
  'a core’s memory is on large pages where the system has them, beside what the operator set',
  { skip: process.platform !== 'linux' },
  async (t) => {
    const listen = ['--dns', '127.0.0.1:0', '--http', '127.0.0.1:0', '--advertise', '127.0.0.1']
    const args = [BIN, 'core', '--data', join(t.testdir(), 'data'), '--geo', 'none', ...listen]
    const child = spawn(process.execPath, args, {
      env: { PATH: process.env.PATH ?? '', GLIBC_TUNABLES: 'glibc.malloc.arena_max=8' },
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    const ended = once(child, 'close')
    // It says welcome once it answers: as the process that was started, begun again.
    const [welcome] = await once(child.stdout.setEncoding('utf8'), 'data')
    t.match(welcome, /core1/)
    // glibc has put a zero byte behind each that it read.
    const environment = readFileSync(`/proc/${child.pid}/environ`, 'utf8').replaceAll(':', '\0')
    t.match(environment, 'GLIBC_TUNABLES=glibc.malloc.arena_max=8\0glibc.malloc.hugetlb=1\0')
    child.kill('SIGTERM')
    t.same(await ended, [0, null])
  },
)
