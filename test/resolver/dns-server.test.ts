// The DNS server over real sockets: clients (dig, kdig and drill, where they are installed), a resolver in
// front of it, and who sends too much, too slowly or reads too little.

import { execFile } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import { promisify } from 'node:util'
import packet from 'dns-packet'
import t from 'tap'
import type { DnsFacts } from '../../resolver/dns-answer.ts'
import { openDns } from '../../resolver/dns-server.ts'
import type { Tables } from '../../resolver/tables.ts'
import { ask, context, queryBytes, read, type Seen } from '../support/dns-fixture.ts'
import { noNamespace, runInside } from '../support/namespace.ts'

const LOOPBACK = [{ host: '127.0.0.1', port: 0 }]

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

/** Messages as they come out of a DNS over TCP connection, and its end. */
function readTcp(socket: Socket): { messages: Buffer[]; ended: Promise<void> } {
  let received = Buffer.alloc(0)
  const messages: Buffer[] = []
  socket.on('data', (chunk) => {
    received = Buffer.concat([received, chunk])
    while (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) {
      messages.push(received.subarray(2, 2 + received.readUInt16BE(0)))
      received = received.subarray(2 + received.readUInt16BE(0))
    }
  })
  socket.on('error', () => {})
  return { messages, ended: new Promise((resolve) => socket.on('close', () => resolve())) }
}

function framed(bytes: Uint8Array): Buffer {
  return Buffer.concat([Uint8Array.of(bytes.length >> 8, bytes.length & 0xff), bytes])
}

t.test('real clients get their answers', async (t) => {
  const server = await openDns({ listen: LOOPBACK, context })
  t.teardown(() => server.close())
  const { port } = server.addresses[0]!
  const run = promisify(execFile)
  const table: readonly (readonly [string, readonly string[], RegExp])[] = [
    ['dig', ['mirror.any.test', '+short', '+subnet=100.64.2.0/24'], /^198\.51\.100\.10\n$/],
    ['dig', ['mirror.any.test', '+subnet=100.64.2.0/24'], /CLIENT-SUBNET: 100\.64\.2\.0\/24\/24/],
    ['dig', ['mirror.any.test', '+subnet=2001:db8:c:5500::/56'], /CLIENT-SUBNET: 2001:db8:c:5500::\/56\/48/],
    ['dig', ['mirror.any.test', '+subnet=0'], /status: NOERROR/],
    ['dig', ['mirror.any.test', '+tcp', '+short', '+subnet=100.64.1.0/24'], /^192\.0\.2\.10\n$/],
    [
      'dig',
      ['mirror.any.test', 'HTTPS', '+short', '+subnet=100.64.2.0/24'],
      /^1 nyc\.mirror\.any\.test\. port=8443 ipv4hint=198\.51\.100\.10 ipv6hint=2001:db8:b::10$/m,
    ],
    ['dig', ['_why.mirror.any.test', 'TXT', '+short', '+subnet=100.64.2.0/24'], /"1 nyc: 6 ms/],
    ['dig', ['_why.wide.any.test', 'TXT', '+noedns'], /Truncated, retrying in TCP mode[\s\S]*and 8 more/],
    ['dig', ['www.any.test', '+subnet=100.64.2.0/24', '+short'], /^mirror\.any\.test\.\n198\.51\.100\.10\n$/],
    ['dig', ['any.test', 'NS'], /ADDITIONAL: 6[\s\S]*ams\.core\.any\.test\./],
    ['dig', ['any.test', 'SOA', '+nsid', '+dnssec'], /flags: do;[\s\S]*NSID: .*core-a/],
    ['dig', ['any.test', 'SOA', '+edns=1', '+noednsneg'], /status: BADVERS/],
    ['dig', ['any.test', 'SOA', '+opcode=15', '+header-only', '+noedns'], /status: NOTIMP/],
    ['dig', ['example.com'], /status: REFUSED/],
    ['dig', ['last.any.test'], /EDE: 3 \(Stale Answer\)/],
    ['dig', ['any.test', 'AXFR'], /Transfer failed|REFUSED/],
    ['dig', ['_x._udp.wide.any.test', 'SRV'], /IN\tSRV\t0 1000 10/],
    ['dig', ['any.test', 'TYPE666'], /status: NOERROR[\s\S]*SOA/],
    [
      'kdig',
      ['mirror.any.test', '+subnet=100.64.2.0/24'],
      /CLIENT-SUBNET: 100\.64\.2\.0\/24\/24[\s\S]*198\.51\.100\.10/,
    ],
    ['kdig', ['mirror.any.test', 'HTTPS'], /IN\s+HTTPS\s+1 ams\.mirror\.any\.test\. ipv4hint=192\.0\.2\.10/],
    ['kdig', ['_https._tcp.mirror.any.test', 'SRV', '+tcp'], /IN\s+SRV\s+0 333 443 ams\.mirror\.any\.test\./],
    ['drill', ['_https._tcp.mirror.any.test', 'SRV'], /SRV\s+0 333 443 ams\.mirror\.any\.test\./],
    [
      'drill',
      ['nothing.any.test'],
      /NXDOMAIN[\s\S]*SOA\s+core-a\.core\.any\.test\. hostmaster\.any\.test\. 4000000001/,
    ],
  ]
  const missing = new Set<string>()
  for (const program of ['dig', 'kdig', 'drill']) {
    await run(program, [program === 'kdig' ? '--version' : '-v']).catch(
      (error) => error.code === 'ENOENT' && missing.add(program),
    )
  }
  // As asked from loopback, which is near nobody, the resolver's place is that of ams here.
  for (const [program, args, expected] of table) {
    const name = `${program} ${args.join(' ')}`
    if (missing.has(program)) {
      t.pass(name, { skip: `${program} is not installed` })
      continue
    }
    const near =
      program === 'drill' || args.some((arg) => arg.startsWith('+subnet')) ? [] : ['+subnet=100.64.1.0/24']
    const subnetArgs = /BADVERS|Truncated|Transfer|NOTIMP/.test(expected.source) ? [] : near
    const { stdout } = await run(program, [
      ...(program === 'drill' ? ['-p', `${port}`, '@127.0.0.1'] : ['@127.0.0.1', '-p', `${port}`]),
      ...args,
      ...subnetArgs,
    ])
    t.match(stdout, expected, name)
  }
})

t.test('a resolver in front of it works, and follows its names', async (t) => {
  const server = await openDns({ listen: LOOPBACK, context })
  t.teardown(() => server.close())
  const { default: dns } = await import('node:dns/promises')
  const resolver = new dns.Resolver()
  resolver.setServers([`127.0.0.1:${server.addresses[0]!.port}`])
  t.same(await resolver.resolveSrv('_https._tcp.wide.any.test').then((all) => all.length), 4)
  t.same(await resolver.resolve4('tok.mirror.any.test'), ['203.0.113.10'])
  t.match(await resolver.resolveSoa('any.test'), { serial: 4_000_000_001, minttl: 10 })
  await t.rejects(resolver.resolve4('nothing.any.test'), { code: 'ENOTFOUND' })
  await t.rejects(resolver.resolve6('tok.mirror.any.test'), { code: 'ENODATA' })
})

t.test('every packet over UDP and TCP is counted once', async (t) => {
  const told: DnsFacts[] = []
  const server = await openDns({ listen: LOOPBACK, context, onFacts: (facts) => told.push(facts) })
  t.teardown(() => server.close())
  const { port } = server.addresses[0]!
  const client = createSocket('udp4')
  t.teardown(() => client.close())
  const packets = [
    queryBytes('mirror.any.test', 'A'),
    queryBytes('example.com', 'A'),
    Buffer.from('nonsense'),
    Buffer.alloc(40, 0xff),
    Buffer.alloc(0),
  ]
  for (let i = 0; i < 100; i++) client.send(packets[i % packets.length]!, port, '127.0.0.1')
  const tcp = connect(port, '127.0.0.1')
  const { messages, ended } = readTcp(tcp)
  tcp.end(Buffer.concat(packets.map(framed)))
  await ended
  for (let waited = 0; told.length < 105 && waited < 2000; waited += 10) await sleep(10)
  const sum = (counts: Readonly<Record<string, number>>) => Object.values(counts).reduce((a, b) => a + b, 0)
  t.match(server.stats.udp, { answered: 20, refused: 20, 'dropped-short': 40, 'dropped-response': 20 })
  t.match(server.stats.tcp, { answered: 1, refused: 1, 'dropped-short': 2, 'dropped-response': 1 })
  t.same([sum(server.stats.udp), sum(server.stats.tcp), told.length, messages.length], [100, 5, 105, 2])
  t.match(server.stats.connections, { open: 0, accepted: 1, refused: 0, cut: 0 })
})

t.test('a failure inside is answered with SERVFAIL, and told', async (t) => {
  const errors: Error[] = []
  const broken = { ...context, tables: null as unknown as Tables }
  const server = await openDns({ listen: LOOPBACK, context: broken, onError: (error) => errors.push(error) })
  t.teardown(() => server.close())
  const client = createSocket('udp4')
  t.teardown(() => client.close())
  const reply = new Promise<Buffer>((resolve) => client.once('message', resolve))
  client.send(queryBytes('mirror.any.test', 'A'), server.addresses[0]!.port, '127.0.0.1')
  t.equal((packet.decode(await reply) as unknown as Seen['message']).rcode, 'SERVFAIL')
  t.same([server.stats.udp.servfail, errors.length], [1, 1])
})

t.test('TCP answers pipelined queries in order, split wherever the stream is', async (t) => {
  const server = await openDns({ listen: LOOPBACK, context })
  t.teardown(() => server.close())
  const tcp = connect(server.addresses[0]!.port, '127.0.0.1')
  const { messages, ended } = readTcp(tcp)
  const names = Array.from({ length: 300 }, (_, i) => `x${i}.any.test`)
  const stream = Buffer.concat(names.map((name) => framed(queryBytes(name, 'A'))))
  for (let at = 0; at < 600; at += 7) {
    tcp.write(stream.subarray(at, Math.min(at + 7, 600)))
    if (at % 70 === 0) await sleep(1)
  }
  tcp.end(stream.subarray(600))
  await ended
  t.same(
    messages.map((message) => packet.decode(message).questions![0]!.name),
    names,
  )
})

t.test('no connection is answered more than its turn’s worth before others have theirs', async (t) => {
  let most = 0
  let inTurn = 0
  const onFacts = () => {
    inTurn++
    most = Math.max(most, inTurn)
    if (inTurn === 1) setImmediate(() => (inTurn = 0))
  }
  const server = await openDns({ listen: LOOPBACK, context, onFacts })
  t.teardown(() => server.close())
  const tcp = connect(server.addresses[0]!.port, '127.0.0.1')
  const { messages, ended } = readTcp(tcp)
  const question = framed(queryBytes('any.test', 'SOA'))
  tcp.end(Buffer.concat(Array.from({ length: 2000 }, () => question)))
  await ended
  t.equal(messages.length, 2000)
  // The end of one turn and the next may fall between two looks of this test.
  t.ok(most < 100, `${most} in a turn`)
})

t.test('a TCP client learns how long it may be idle, if it asks', async (t) => {
  const server = await openDns({ listen: LOOPBACK, context, tcp: { connections: 4, idleMs: 2500 } })
  t.teardown(() => server.close())
  const { port } = server.addresses[0]!
  const keepAlive = { code: 11, data: Buffer.alloc(0) }
  const askFor = async (options: readonly unknown[]) => {
    const socket = connect(port, '127.0.0.1')
    const { messages } = readTcp(socket)
    t.teardown(() => socket.destroy())
    socket.write(framed(queryBytes('any.test', 'SOA', options)))
    while (messages.length === 0) await once(socket, 'data')
    const { options: told, message } = read(messages[0]!)
    return [message.rcode, ...told.map(({ code, data }) => `${code} ${data!.toString('hex')}`)]
  }
  t.same(await askFor([keepAlive]), ['NOERROR', '11 0019'], '25 tenths of a second')
  t.same(await askFor([]), ['NOERROR'])
  t.same(
    await askFor([{ code: 11, data: Buffer.from([0, 9]) }]),
    ['FORMERR'],
    'the time is the server’s to say',
  )
  t.same(await askFor([keepAlive]), ['NOERROR', '11 0000'], 'in a crowd: not at all')
  for (const data of [Buffer.alloc(0), Buffer.from([0, 9])])
    t.same(ask(queryBytes('any.test', 'SOA', [{ code: 11, data }])).options, [], 'it means nothing over UDP')
})

t.test('a client that does not read is not read from, and gets all once it does', async (t) => {
  const server = await openDns({ listen: LOOPBACK, context, tcp: { idleMs: 5000 } })
  t.teardown(() => server.close())
  const tcp = connect(server.addresses[0]!.port, '127.0.0.1')
  const question = framed(queryBytes('_why.wide.any.test', 'TXT'))
  const count = 20_000
  tcp.pause()
  tcp.end(Buffer.concat(Array.from({ length: count }, () => question)))
  let before = -1
  while (before !== server.stats.tcp.answered || before === 0) {
    before = server.stats.tcp.answered
    await sleep(50)
  }
  t.ok(before < count, `${before} of ${count} were answered into the buffers`)
  const { messages, ended } = readTcp(tcp)
  tcp.resume()
  await ended
  t.equal(messages.length, count)
})

t.test('TCP connections are bounded in number, length and time', async (t) => {
  const limits = { connections: 5, connectionsPerClient: 2, idleMs: 500, queryBytes: 600 }
  const server = await openDns({ listen: LOOPBACK, context, tcp: limits })
  t.teardown(() => server.close())
  const { port } = server.addresses[0]!
  const open = (from: string) => {
    const socket = connect({ port, host: '127.0.0.1', localAddress: from })
    return { socket, ...readTcp(socket) }
  }
  const idlest = open('127.0.0.1')
  const first = open('127.0.0.1')
  await sleep(30)
  await open('127.0.0.1').ended
  t.match(server.stats.connections, { open: 2, refused: 1 }, 'a third from one address')
  const others = ['127.0.0.2', '127.0.0.3', '127.0.0.4'].map(open)
  await sleep(30)
  first.socket.write(framed(queryBytes('any.test', 'SOA')))
  const second = open('127.0.0.5')
  await idlest.ended
  t.match(server.stats.connections, { open: 5, refused: 1, cut: 1 }, 'the idlest makes room for a sixth')
  second.socket.write(Buffer.from([0xff, 0xff, 0]))
  await second.ended
  t.equal(server.stats.connections.cut, 2, 'a query of 65,535 bytes')
  // A trickle (here: of empty messages) keeps nothing alive; queries that get answers do.
  const trickle = setInterval(() => others[0]!.socket.write(Buffer.from([0])), 20)
  const busy = setInterval(() => first.socket.write(framed(queryBytes('any.test', 'SOA'))), 20)
  t.teardown(() => [trickle, busy].map(clearInterval))
  await Promise.all(others.map(({ ended }) => ended))
  clearInterval(trickle)
  await sleep(100)
  t.match(server.stats.connections, { open: 1, cut: 5 })
  t.ok(first.messages.length > 5)
})

t.test(
  'it listens on all that it was told, on one port for UDP and TCP, and says what it can’t have',
  async (t) => {
    const hasIpv6 = Object.values(networkInterfaces()).some((all) =>
      all?.some(({ address }) => address === '::1'),
    )
    if (!hasIpv6) t.pass('::1', { skip: 'this machine has no IPv6 loopback' })
    const hosts = hasIpv6 ? ['0.0.0.0', '::1'] : ['0.0.0.0']
    const server = await openDns({ listen: hosts.map((host) => ({ host, port: 0 })), context })
    t.teardown(() => server.close())
    for (const { host, port } of server.addresses) {
      const to = host === '::1' ? '::1' : '127.0.0.1'
      const udp = createSocket(host === '::1' ? 'udp6' : 'udp4')
      const reply = new Promise<string>((resolve) =>
        udp.once('message', (_, { address }) => resolve(address)),
      )
      udp.send(queryBytes('any.test', 'SOA'), port, to)
      t.equal(await reply, to, `${host}: from the address that was asked`)
      udp.close()
      const tcp = connect(port, to)
      const { messages, ended } = readTcp(tcp)
      tcp.end(framed(queryBytes('any.test', 'SOA')))
      await ended
      t.equal(messages.length, 1, `${host}: TCP`)
    }
    const taken = server.addresses[0]!
    await t.rejects(openDns({ listen: [{ host: '127.0.0.1', port: 0 }, taken], context }), {
      message: `dns: can't listen on 0.0.0.0:${taken.port}: another program listens there: stop it or choose another port`,
    })
    await t.rejects(openDns({ listen: [{ host: '192.0.2.1', port: 0 }], context }), {
      message: /192\.0\.2\.1:0: this machine does not have/,
    })
  },
)

t.test(
  'replies leave from the address that was asked, also where that came later',
  { skip: noNamespace() },
  async (t) => {
    t.same(await runInside('dns-addresses-inside.ts'), {
      '192.0.2.1': '192.0.2.1',
      '192.0.2.1 TCP': 'answered',
      '192.0.2.2': '192.0.2.2',
      '192.0.2.2 TCP': 'answered',
      '2001:db8::1': '2001:db8::1',
      '2001:db8::1 TCP': 'answered',
      '2001:db8::2': '2001:db8::2',
      '2001:db8::2 TCP': 'answered',
      '192.0.2.3': '192.0.2.3',
      '2001:db8::3': '2001:db8::3',
    })
  },
)

t.test('close ends at once, however many are connected', async (t) => {
  const server = await openDns({ listen: LOOPBACK, context })
  const sockets = Array.from({ length: 5 }, () => readTcp(connect(server.addresses[0]!.port, '127.0.0.1')))
  await sleep(30)
  const start = performance.now()
  await server.close()
  await server.close()
  t.ok(performance.now() - start < 2000, 'long before they would be idle')
  await Promise.all(sockets.map(({ ended }) => ended))
})
