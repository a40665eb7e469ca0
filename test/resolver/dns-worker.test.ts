// DNS answered by threads: real sockets, real threads, and answers that must be those of the core's own thread.

import { execFile } from 'node:child_process'
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { parsePrefix } from '../../resolver/address.ts'
import type { Change } from '../../resolver/directory.ts'
import { answerDns } from '../../resolver/dns-answer.ts'
import { type DnsServer, type DnsServerOptions, openDns } from '../../resolver/dns-server.ts'
import { StandIn } from '../../resolver/dns-stand-in.ts'
import type { WorkersOptions } from '../../resolver/dns-workers.ts'
import { placeChanges } from '../../resolver/place-page.ts'
import {
  asker,
  context,
  contextOf,
  DIRECTORY,
  exchange,
  queryBytes,
  read,
  subnet,
} from '../support/dns-fixture.ts'
import { noWorkers, TestFeed, workersOf } from '../support/dns-workers.ts'
import { noNamespace, runInside } from '../support/namespace.ts'
import { host } from '../support/records.ts'

const LOOPBACK = [{ host: '127.0.0.1', port: 0 }]
/** Elsewhere the core's own thread answers, as its own tests have it. */
const HERE = { skip: noWorkers() }
/** ... and in a network of their own. */
const INSIDE = { skip: noWorkers() || noNamespace() }

interface Serving {
  readonly server: DnsServer
  readonly port: number
  readonly feed: TestFeed
  readonly errors: Error[]
}

async function serve(
  t: Test,
  over: Partial<WorkersOptions> = {},
  options: Partial<DnsServerOptions> = {},
): Promise<Serving> {
  const using = options.context ?? contextOf(DIRECTORY)
  const feed = new TestFeed(DIRECTORY, using.tables)
  const errors: Error[] = []
  const server = await openDns({
    listen: LOOPBACK,
    context: using,
    workers: workersOf(feed, over),
    onError: (error) => errors.push(error),
    ...options,
  })
  t.teardown(() => server.close())
  await server.ready
  return { server, port: server.addresses[0]!.port, feed, errors }
}

/** A client whose port stays, so that the system hands all it asks to one worker. */
async function openClient(t: Test): Promise<Socket> {
  const socket = createSocket('udp4')
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  t.teardown(() => socket.close())
  return socket
}

async function askFrom(socket: Socket, port: number, query: Uint8Array): Promise<ReturnType<typeof read>> {
  socket.send(query, port, '127.0.0.1')
  const [reply] = await once(socket, 'message', { signal: AbortSignal.timeout(5000) })
  return read(reply as Buffer)
}

const total = (counts: Readonly<Record<string, number>>) => Object.values(counts).reduce((a, b) => a + b, 0)

t.test('workers say what the core’s own thread says, each packet counted once', HERE, async (t) => {
  const { server, port } = await serve(t)
  t.equal(server.workers, 2)
  const queries = [
    queryBytes('mirror.any.test', 'A', [subnet('100.64.1.0', 24)]),
    queryBytes('mirror.any.test', 'A', [subnet('100.64.2.0', 24)]),
    queryBytes('wide.any.test', 'AAAA', [subnet('100.64.2.0', 24)]),
    queryBytes('_https._tcp.mirror.any.test', 'SRV', [subnet('100.64.2.0', 24)]),
    queryBytes('any.test', 'SOA'),
    queryBytes('nothing.any.test', 'A'),
    queryBytes('example.com', 'A'),
    queryBytes('www.any.test', 'HTTPS', null),
    queryBytes('_why.mirror.any.test', 'TXT', [subnet('100.64.1.0', 24)]),
  ]
  const clients = await Promise.all(Array.from({ length: 6 }, () => openClient(t)))
  for (const client of clients) {
    for (const query of queries) {
      const { bytes } = await askFrom(client, port, query)
      t.same(Buffer.from(bytes), Buffer.from(answerDns(context, query, asker('127.0.0.1')).reply!))
    }
  }
  t.equal(total(server.stats.udp), clients.length * queries.length)
  t.match(server.stats.udp, { nxdomain: 6, refused: 6 })
  t.equal(total(server.stats.tcp), 0)
})

t.test('while no worker is there the core’s own thread answers, and counts', HERE, async (t) => {
  const errors: Error[] = []
  const server = await openDns({
    listen: LOOPBACK,
    context,
    // A thread that ends as soon as it began, again and again.
    workers: workersOf(new TestFeed(DIRECTORY, context.tables), { entry: new URL('data:text/javascript,') }),
    onError: (error) => errors.push(error),
  })
  const client = await openClient(t)
  const query = queryBytes('mirror.any.test', 'A', [subnet('100.64.2.0', 24)])
  for (let i = 1; i <= 20; i++) {
    const { bytes } = await askFrom(client, server.addresses[0]!.port, query)
    t.same(Buffer.from(bytes), Buffer.from(answerDns(context, query, asker('127.0.0.1')).reply!))
    t.equal(server.stats.udp.answered, i)
  }
  while (errors.length === 0) await sleep(10)
  t.match(errors[0], { message: /died/ })
  await server.close()
  await server.ready
})

t.test('what the system would not hand over to the core’s own thread is counted', HERE, async (t) => {
  const file = openSync('/dev/null', 'r')
  const faults: string[] = []
  const standIn = new StandIn(
    () => null,
    (fault) => faults.push(fault),
  )
  standIn.begin(() => [{ fd: file, family: 4, port: 53, segments: false }])
  standIn.end()
  closeSync(file)
  t.same(faults, ['unreceived'])
})

t.test('dig is answered, over UDP by a worker and over TCP by the core’s thread', HERE, async (t) => {
  const { server, port } = await serve(t)
  const dig = (...args: string[]) =>
    promisify(execFile)('dig', ['@127.0.0.1', '-p', `${port}`, '+subnet=100.64.1.0/24', ...args])
  if ((await dig('-v').catch(() => null)) === null) return t.pass('dig', { skip: 'dig is not installed' })
  t.match((await dig('mirror.any.test')).stdout, /CLIENT-SUBNET: 100\.64\.1\.0\/24\/24[\s\S]*192\.0\.2\.10/)
  t.match((await dig('mirror.any.test', '+tcp')).stdout, /192\.0\.2\.10/)
  t.match(server.stats, { udp: { answered: 1 }, tcp: { answered: 1 } })
})

t.test('what was published is in the next answer of every worker', HERE, async (t) => {
  const { port, feed } = await serve(t)
  const clients = await Promise.all(Array.from({ length: 8 }, () => openClient(t)))
  const query = queryBytes('mirror.any.test', 'A', [subnet('100.64.1.0', 24)])
  for (let round = 0; round < 20; round++) {
    const isDead = round % 2 === 0
    feed.publish(host('ams', ['192.0.2.10', '2001:db8:a::10'], { presence: isDead ? 'silent' : 'live' }))
    const answers = await Promise.all(clients.map((client) => askFrom(client, port, query)))
    t.same(
      new Set(answers.map(({ answers }) => answers.join())),
      new Set([isDead ? 'A 198.51.100.10' : 'A 192.0.2.10']),
    )
  }
})

t.test('serials and cookies are those of the core, as they change', HERE, async (t) => {
  let serial = 7
  let secrets: Uint8Array[] | null = [Buffer.alloc(16, 1)]
  const using = contextOf(DIRECTORY)
  const changing = {
    ...using,
    get zones() {
      return using.zones.map((zone) => ({ ...zone, serial })) as unknown as typeof using.zones
    },
    get cookies() {
      return secrets && { secrets, nowSec: Math.floor(Date.now() / 1000) }
    },
  }
  const { port, feed } = await serve(t, { count: 1 }, { context: changing })
  const query = queryBytes('any.test', 'SOA', [{ code: 10, data: Buffer.alloc(8, 9) }])
  const seen = async () => {
    const { message, options } = (await exchange(query, port))!
    const { data } = message.answers![0] as unknown as { data: { serial: number } }
    return [data.serial, options.filter(({ code }) => code === 10).length]
  }
  t.same(await seen(), [7, 1])
  serial = 9
  feed.publish(host('tok', ['203.0.113.10']))
  t.same(await seen(), [9, 1])
  secrets = null
  feed.tell({ kind: 'settings', key: 'cookie', value: 'secret' })
  t.same(await seen(), [9, 0])
})

t.test('replies leave from the address that was asked', INSIDE, async (t) => {
  const seen = (await runInside('dns-addresses-inside.ts', 'workers')) as Record<string, string>
  t.equal(Object.keys(seen).length, 10)
  for (const [asked, from] of Object.entries(seen))
    t.equal(from, asked.endsWith('TCP') ? 'answered' : asked, asked)
})

t.test('a query from source port 0 is dropped and counted', INSIDE, async (t) => {
  t.same(await runInside('dns-port-zero-inside.ts'), { sent: true, answered: true, dropped: 1, counted: 1 })
})

t.test('replies for which there is no room cost as much as one wait, not one each', INSIDE, async (t) => {
  t.same(await runInside('dns-clogged-inside.ts'), { sent: 6400, answered: 6400, isClogged: true })
})

t.test('imported places that change under load are in the answers, each page as a whole', HERE, async (t) => {
  const { port, feed } = await serve(t)
  const at = (lat: number, lon: number) => ({ lat, lon, accuracyKm: 10 })
  feed.publish(
    host('ams', ['192.0.2.10'], { place: at(52.4, 4.9) }),
    host('nyc', ['198.51.100.10'], { place: at(40.7, -74) }),
    host('tok', ['203.0.113.10'], { place: at(35.7, 139.7) }),
  )
  const pageOf = (lat: number, lon: number): Change => {
    const fact = { place: at(lat, lon), asn: null, country: null, source: 'test' }
    // Another fact beside it each time, so that rows are given to others.
    const other = { ...fact, place: at(lat / 2, lon / 2) }
    const entries = Array.from({ length: 64 }, (_, i) => ({
      prefix: parsePrefix(`100.80.${i}.0/24`)!,
      fact: i % 2 === 0 ? fact : other,
    }))
    return placeChanges(new Map(), entries)[0]!
  }
  const client = await openClient(t)
  const query = queryBytes('mirror.any.test', 'A', [subnet('100.80.8.0', 24)])
  const table = [
    [51, 5, 'A 192.0.2.10'],
    [41, -75, 'A 198.51.100.10'],
    [35, 139, 'A 203.0.113.10'],
  ] as const
  let isOn = true
  const seen = new Set<string>()
  const load = (async () => {
    const other = await openClient(t)
    while (isOn) seen.add((await askFrom(other, port, query)).answers.join())
  })()
  feed.publish(pageOf(51, 5))
  for (let round = 0; round < 60; round++) {
    const [lat, lon, answer] = table[round % table.length]!
    feed.publish(pageOf(lat, lon))
    t.same((await askFrom(client, port, query)).answers, [answer])
  }
  isOn = false
  await load
  const possible = new Set<string>(table.map(([, , answer]) => answer))
  t.same(
    [...seen].filter((answers) => !possible.has(answers)),
    [],
  )
})

t.test('what waits in the sockets is answered before the end', HERE, async (t) => {
  const { server, port } = await serve(t)
  const client = await openClient(t)
  client.setRecvBufferSize(4 << 20)
  let replies = 0
  client.on('message', () => replies++)
  const query = queryBytes('mirror.any.test', 'A', [subnet('100.64.1.0', 24)])
  const asked = 1000
  const sent = Array.from(
    { length: asked },
    () => new Promise((resolve) => client.send(query, port, '127.0.0.1', resolve)),
  )
  await Promise.all(sent)
  await server.close()
  while (replies < asked) {
    const before = replies
    await sleep(200)
    if (replies === before) break
  }
  t.same([replies, server.stats.udp.answered], [asked, asked])
  await server.close()
})

t.test('a worker that dies is started anew, and another answers for it meanwhile', HERE, async (t) => {
  const entry = new URL('../support/dns-mortal-thread.ts', import.meta.url)
  const { server, port, feed, errors } = await serve(t, { entry })
  const clients = await Promise.all(Array.from({ length: 8 }, () => openClient(t)))
  const query = queryBytes('mirror.any.test', 'A', [subnet('100.64.1.0', 24)])
  const askAll = async () => {
    const answers = await Promise.all(clients.map((client) => askFrom(client, port, query)))
    return new Set(answers.map(({ answers }) => answers.join()))
  }
  t.same(await askAll(), new Set(['A 192.0.2.10']))
  clients[0]!.send(queryBytes('mirror.any.test', 'A', [subnet('100.66.6.0', 24)]), port, '127.0.0.1')
  while (server.stats.restarts === 0) await sleep(5)
  t.same(await askAll(), new Set(['A 192.0.2.10']), 'while it is gone')
  feed.publish(host('ams', ['192.0.2.10'], { presence: 'silent' }))
  t.same(await askAll(), new Set(['A 198.51.100.10']))
  // By its successor, which was not there when that was published.
  await sleep(1200)
  t.same(await askAll(), new Set(['A 198.51.100.10']))
  t.equal(server.stats.restarts, 1)
  t.match(
    errors.map(({ message }) => message),
    [/the DNS worker [12] died/],
  )
  t.equal(server.stats.udp.answered, 4 * clients.length)
})

t.test(
  'where there is no thread for a successor, it is tried again and nothing else ends',
  HERE,
  async (t) => {
    const entry = new URL('../support/dns-mortal-thread.ts', import.meta.url)
    let starts = 0
    const data = () => {
      if (++starts === 2) throw new Error('no thread is to be had')
    }
    const { server, port, errors } = await serve(t, { entry, data, count: 1 })
    const ask = (client: string) =>
      exchange(queryBytes('mirror.any.test', 'A', [subnet(client, 24)]), port, { limitMs: 100 })
    await ask('100.66.6.0')
    while (starts < 3) await sleep(10)
    t.same((await ask('100.64.1.0'))?.answers, ['A 192.0.2.10'])
    t.equal(server.stats.restarts, 1)
    t.match(
      errors.map(({ message }) => message),
      [/the DNS worker 1 died/, 'no thread is to be had'],
    )
  },
)

t.test('where there is no thread at all the core’s own answers, and ends in time', HERE, async (t) => {
  const errors: Error[] = []
  const data = () => {
    throw new Error('no thread is to be had')
  }
  const server = await openDns({
    listen: LOOPBACK,
    context,
    workers: workersOf(DIRECTORY, { data }),
    onError: (error) => errors.push(error),
  })
  const query = queryBytes('mirror.any.test', 'A', [subnet('100.64.1.0', 24)])
  t.same((await exchange(query, server.addresses[0]!.port))?.answers, ['A 192.0.2.10'])
  t.match(errors, [{ message: 'no thread is to be had' }, { message: 'no thread is to be had' }])
  await server.close()
})

t.test(
  'proven demand is told, each client and service once a report, and a sample of all packets',
  HERE,
  async (t) => {
    const told: string[] = []
    const samples: string[] = []
    const using = contextOf(DIRECTORY, { cookies: { secrets: [Buffer.alloc(16, 1)], nowSec: 0 } })
    const { port } = await serve(
      t,
      {
        count: 1,
        onDemand: ({ client, service, direct, times }) =>
          told.push(`${client.subarray(12).join('.')} ${service} ${direct} ${times}`),
      },
      {
        sample: { every: 5, onSample: ({ facts }) => samples.push(`${facts.outcome} ${facts.member}`) },
        context: {
          ...using,
          cookies: { secrets: [Buffer.alloc(16, 1)], nowSec: Math.floor(Date.now() / 1000) },
        },
      },
    )
    const client = await openClient(t)
    const near = subnet('100.64.1.0', 24)
    const first = await askFrom(
      client,
      port,
      queryBytes('mirror.any.test', 'A', [near, { code: 10, data: Buffer.alloc(8) }]),
    )
    const cookie = { code: 10, data: first.options.find(({ code }) => code === 10)!.data! }
    for (let i = 0; i < 10; i++)
      await askFrom(client, port, queryBytes('mirror.any.test', 'A', [near, cookie]))
    const times = () => told.reduce((sum, line) => sum + Number(line.split(' ')[3]), 0)
    for (let waited = 0; (times() < 10 || samples.length < 2) && waited < 5000; waited += 20) await sleep(20)
    t.equal(times(), 10)
    t.ok(
      told.every((line) => line.startsWith('100.64.1.0 mirror false')),
      told.join(),
    )
    t.same(samples, ['answered ams', 'answered ams'], 'the fast path leaves none of them without its name')
  },
)

t.test('a thread that asks for short turns stays behind those that it let go before', HERE, async (t) => {
  const inside = fileURLToPath(new URL('../support/thread-turns-inside.ts', import.meta.url))
  const { stdout } = await promisify(execFile)(process.execPath, [inside])
  t.same(JSON.parse(stdout), { isLowered: true, isTaken: true, steps: 1 })
})
