// Passive evidence: what `ss` prints, lines as several versions of it write them, becomes RTTs by client
// prefix; and once for real, from a TCP connection to what the core knows.

import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import t from 'tap'
import { resolveOptions } from '../../server-agent/options.ts'
import { ClientRtts, clientPrefix, parseSs } from '../../server-agent/passive.ts'
import { listConnections, openPassiveWatch } from '../../server-agent/passive-watch.ts'
import { tcpPortOf } from '../../server-agent/requests.ts'
import { nearcast, startAgent, startCore, until } from '../support/processes.ts'
import { seededRng } from '../support/seeded-rng.ts'

const FIGURES =
  '\t cubic wscale:7,7 rto:244 rtt:43.1/2.4 ato:40 mss:1448 rcv_rtt:71 pmtu:1500 minrtt:41.875 snd_wnd:64256'

function listed(local: string, peer: string, figures = FIGURES): string {
  return `0      0      ${local} ${peer}              \n${figures}\n`
}

t.test('each connection that ss lists is one client with its least RTT', async (t) => {
  const cases: [text: string, address: string | null, rttMs?: number][] = [
    [listed('192.0.2.1:443', '198.51.100.7:51234'), '198.51.100.7', 41.875],
    [listed('[2001:db8::1]:443', '[2001:db8:7:8::9]:51234'), '2001:db8:7:8::9', 41.875],
    // A socket that listens on [::] has its IPv4 clients mapped.
    [listed('[::ffff:192.0.2.1]:443', '[::ffff:198.51.100.7]:51234'), '198.51.100.7', 41.875],
    [listed('192.0.2.1%eth0:443', '198.51.100.7:51234'), '198.51.100.7', 41.875],
    // -O: all on one line; and with the state before it.
    [`0 0 192.0.2.1:443 198.51.100.7:51234${FIGURES}\n`, '198.51.100.7', 41.875],
    [`ESTAB 0 0 192.0.2.1:443 198.51.100.7:51234 ino:7\n${FIGURES}\n`, '198.51.100.7', 41.875],
    // Kernels before 4.9 know no least RTT.
    [
      listed('192.0.2.1:443', '198.51.100.7:1', '\t cubic rto:244 rtt:43.1/2.4 rcv_rtt:71'),
      '198.51.100.7',
      43.1,
    ],
    // bbr's own mrtt is not it.
    [
      listed('192.0.2.1:443', '198.51.100.7:1', '\t bbr rtt:9/1 bbr:(bw:1bps,mrtt:8) minrtt:7.5'),
      '198.51.100.7',
      7.5,
    ],
    // What never leaves this machine or its link says nothing of anyone's way.
    [listed('127.0.0.1:443', '127.0.0.1:51234'), null],
    [listed('[::ffff:192.0.2.1]:443', '192.0.2.1:51234'), null],
    [listed('[fe80::1%eth0]:443', '[fe80::2]:51234'), null],
    [listed('[fe80::1]%eth0:443', '[fe80::2]%eth0:51234'), null],
    [listed('169.254.0.1:443', '169.254.0.2:51234'), null],
    // No RTT, or none that a network gives.
    [listed('192.0.2.1:443', '198.51.100.7:1', '\t cubic rto:1000 mss:1448'), null],
    [listed('192.0.2.1:443', '198.51.100.7:1', '\t cubic minrtt:0 mss:1448'), null],
    [listed('192.0.2.1:443', '198.51.100.7:1', '\t cubic minrtt:20000 mss:1448'), null],
    [listed('192.0.2.1:443', '198.51.100.7:1', '\t cubic minrtt:1.2.3 mss:1448'), null],
    [listed('192.0.2.1:443', 'client.example.net:1'), null],
    [listed('192.0.2.1:443', '*:*'), null],
    [listed('192.0.2.1:443', '999.51.100.7:1'), null],
    [FIGURES, null],
    ['', null],
  ]
  for (const [text, address, rttMs] of cases) {
    const seen = parseSs(text).map((one) => [one.address, one.rttMs])
    t.same(seen, address === null ? [] : [[address, rttMs]], text.trim())
  }
  const many = `${cases.map(([text]) => text).join('')}\n`
  t.equal(parseSs(many).length, cases.filter(([, address]) => address !== null).length, 'and all at once')
})

t.test('no mutation of a listing, and no cut, makes the parser throw', async (t) => {
  const random = seededRng(3)
  const good =
    listed('[2001:db8::1%eth0]:443', '[::ffff:198.51.100.7]:51234') + listed('192.0.2.1:80', '[2001:db8::]:9')
  for (let cut = 0; cut <= good.length; cut++) parseSs(good.slice(cut))
  for (let i = 0; i < 5000; i++) {
    const bytes = Buffer.from(good)
    for (let n = 0; n < 4; n++) bytes[Math.floor(random() * bytes.length)] = random() * 256
    for (const { address, rttMs } of parseSs(bytes.toString('latin1'))) {
      if (!/^[0-9a-f.:]+$/i.test(address) || !(rttMs > 0 && rttMs <= 10_000)) t.fail(bytes.toString('latin1'))
      if (/NaN/.test(clientPrefix(address))) t.fail(`no prefix of ${address}`)
    }
  }
})

t.test('clients of one /24 or /48 are one prefix however they are written', async (t) => {
  const alike: [string, string][] = [
    ['198.51.100.1', '198.51.100.254'],
    ['2001:db8:7::1', '2001:0db8:0007:ffff::2'],
    ['2001:db8::1', '2001:db8:0:1:2:3:4:5'],
    ['2001:DB8::', '2001:db8:0:5::'],
    ['::1', '0:0:0:1::'],
  ]
  for (const [a, b] of alike) t.equal(clientPrefix(a), clientPrefix(b), `${a} ${b}`)
  const different: [string, string][] = [
    ['198.51.100.1', '198.51.101.1'],
    ['2001:db8:7::1', '2001:db8:70::1'],
    ['2001:db8::7:0:0:0', '2001:db8:7::'],
  ]
  for (const [a, b] of different) t.not(clientPrefix(a), clientPrefix(b), `${a} ${b}`)
})

t.test('a prefix is told by the lower quartile of its connections, each of which counts once', async (t) => {
  const rtts = new ClientRtts()
  const seen = (port: number, rttMs: number, address = '198.51.100.7') => ({
    key: `${address}:${port}`,
    address,
    rttMs,
  })
  const first = [seen(1, 50), seen(2, 20), seen(3, 40), seen(4, 30), seen(5, 9, '203.0.113.9')]
  rtts.note([...first, first[0]!], 0)
  t.same(rtts.take(0), [
    { address: '198.51.100.7', rttMs: 30, count: 4 },
    { address: '203.0.113.9', rttMs: 9, count: 1 },
  ])
  t.same(rtts.take(100), [], 'told')
  rtts.note([...first, seen(6, 25)], 10_000)
  t.same(rtts.take(10_000), [], 'not twice in a minute')
  rtts.note([...first, seen(6, 25)], 60_000)
  t.same(rtts.take(60_000), [{ address: '198.51.100.7', rttMs: 25, count: 1 }], 'only what is new')
  rtts.note(first, 599_000)
  t.same(rtts.take(599_000), [], 'what lasts says nothing new')
  rtts.note(first, 600_000)
  t.same(
    rtts.take(600_000).map(({ count }) => count),
    [4, 1],
    'but after ten minutes it does',
  )
})

t.test(
  'a flood of clients is told in parts, the most connected first, and remembered within bounds',
  async (t) => {
    const rtts = new ClientRtts()
    const flood = Array.from({ length: 30_000 }, (_, i) => {
      const address = `10.${i >> 8}.${i & 255}.1`.replace(
        /^10\.(\d+)/,
        (_, n) => `${11 + Math.floor(n / 100)}.${n % 100}`,
      )
      return { key: String(i), address, rttMs: 5 }
    })
    rtts.note([...flood, { key: 'again', address: flood[700]!.address, rttMs: 4 }], 0)
    const told = rtts.take(0)
    t.equal(told.length, 500)
    t.same(told[0], { address: flood[700]!.address, rttMs: 4, count: 2 })
    let total = 500
    for (let part = rtts.take(1); part.length > 0; part = rtts.take(1)) total += part.length
    t.equal(total, 20_000)
  },
)

t.test('connections are looked at only where the operator says so, on ports that members have', async (t) => {
  const options = { cores: 'http://127.0.0.1:1', members: [{ service: 's', url: 'https://a.example/' }] }
  t.equal(resolveOptions(options, 'h').passive, null)
  t.equal(resolveOptions({ ...options, passive: 'ss' }, 'h').passive, 'ss')
  t.throws(() => resolveOptions({ ...options, passive: 'yes' as 'ss' }, 'h'), {
    code: 'bad-option',
    key: 'passive',
  })
  const ports = [
    { service: 's' },
    { service: 's', port: 7777, url: 'https://a.example/' },
    { service: 's', url: 'https://a.example/' },
    { service: 's', url: 'http://a.example/x' },
    { service: 's', url: 'http://a.example:8080/' },
  ].map((member) => tcpPortOf(resolveOptions({ ...options, members: [member] }, 'h').members[0]!))
  t.same(ports, [undefined, 7777, 443, 80, 8080])
})

t.test('where there is no ss, that is said once and the rest goes on', async (t) => {
  const { PATH } = process.env
  process.env.PATH = '/nowhere'
  t.teardown(() => {
    process.env.PATH = PATH
  })
  const warnings: string[] = []
  const watch = openPassiveWatch({
    ports: () => [80],
    tell: async () => {},
    warn: (text) => warnings.push(text),
    everyMs: 5,
  })
  await until('it was said', () => warnings.length > 0)
  await new Promise((resolve) => setTimeout(resolve, 50))
  await watch.close()
  t.equal(warnings.length, 1)
  t.match(warnings[0], /ss/)
})

const noSs = spawnSync('ss', ['-V']).error === undefined ? false : 'there is no ss on this machine'

t.test('a client’s real connection becomes passive evidence in the core', { skip: noSs }, async (t) => {
  const server = createServer((socket) => socket.write('welcome\n')).listen(0, '0.0.0.0')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const client = connect({ port, host: '127.0.8.1', localAddress: '127.0.9.1' })
  t.teardown(() => {
    client.destroy()
    server.close()
  })
  await once(client, 'data')
  const [seen, ...others] = parseSs(await listConnections([port], new AbortController().signal))
  t.equal(seen?.address, '127.0.9.1', 'as ss lists it')
  t.same(others, [], 'of this port only the server’s end')

  const core = await startCore()
  t.teardown(() => core.process.kill('SIGKILL'))
  await nearcast(core, 'service', 'put', 'mirror')
  const token = JSON.parse(
    (await nearcast(core, 'token', 'create', '--service', 'mirror', '--json')).out,
  ).secret
  const flags = [
    '--service',
    'mirror',
    '--address',
    '127.0.8.1',
    '--echo',
    '127.0.8.1:0',
    '--port',
    String(port),
  ]
  const agent = startAgent(core, token, 'h1', [...flags, '--passive', 'ss'])
  t.teardown(() => agent.process.kill('SIGKILL'))
  let evidence: { host: string; kind: string; rttMs: number }[] = []
  await until('the core knows it', async () => {
    const reply = await fetch(`${core.url}/v1/localities/127.0.9.77`)
    evidence = ((await reply.json()) as { evidence?: typeof evidence }).evidence ?? []
    return evidence.length > 0
  })
  t.match(evidence, [{ host: 'h1', kind: 'passive' }])
  t.ok(evidence[0]!.rttMs < 100, `${evidence[0]!.rttMs} ms over loopback`)
})
