// Real recursive resolvers in front of the server: whatever they have in their caches, a client gets what it
// would get by asking directly. Unbound sends Client Subnet and caches by scope; Knot Resolver does neither.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { addressFromBytes, prefixOf } from '../../resolver/address.ts'
import type { Change } from '../../resolver/directory.ts'
import type { DnsContext } from '../../resolver/dns-answer.ts'
import { type DnsServer, openDns } from '../../resolver/dns-server.ts'
import {
  ask,
  asker,
  contextOf,
  DIRECTORY,
  exchange,
  queryBytes,
  type Seen,
  subnet,
} from '../support/dns-fixture.ts'
import { noNamespace, runInside } from '../support/namespace.ts'
import { freePort, until } from '../support/processes.ts'
import { host, locality, member, service } from '../support/records.ts'
import { seededRng } from '../support/seeded-rng.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

const rng = seededRng(20)
const pick = (n: number) => Math.floor(rng() * n)

/** A client somewhere in few networks, so that caches have many chances to answer for the wrong one. */
function randomClient(ipv6: boolean): Uint8Array {
  const bytes = ipv6
    ? [0x20, 1, 0xd, 0xb8, pick(2), pick(4) * 64, pick(2) * 128, pick(4), 0, 0, 0, 0, 0, 0, 0, pick(4)]
    : [127, 64 + pick(2), pick(8) * 32 + pick(2), 1 + pick(250)]
  return addressFromBytes(ipv6 ? 6 : 4, Uint8Array.from(bytes))!
}

function textOf(address: Uint8Array, ipv6: boolean): string {
  const groups = () => (Buffer.from(address).toString('hex').match(/.{4}/g) ?? []).join(':')
  return ipv6 ? groups() : address.subarray(12).join('.')
}

/** Hosts that are near to nested networks of all sizes, and services that choose among them in every way. */
function world(): Change[] {
  const hosts = Array.from({ length: 6 }, (_, i) => `h${i}`)
  const networks = Array.from({ length: 80 }, (_, i) => {
    const ipv6 = i % 4 === 0
    const bits = ipv6 ? 33 + pick(28) : 8 + pick(21)
    const at = prefixOf(randomClient(ipv6), ipv6 ? bits : 96 + bits).address
    return `${textOf(at, ipv6)}/${bits}`
  })
  return [
    ...DIRECTORY,
    ...hosts.map((name, i) => host(name, [`192.0.2.${100 + i}`, `2001:db8:f00::${i + 1}`])),
    service('near', { aliases: ['close'], maxAddrs: 1 }),
    service('ties', { maxAddrs: 3, tieMs: 40 }),
    service('hash', { policy: 'hash' }),
    ...['near', 'ties', 'hash'].flatMap((of) => hosts.map((name) => member(of, name, { port: 443 }))),
    ...networks.map((network) =>
      locality(network, Object.fromEntries(hosts.map((name) => [name, 1 + pick(8) * 20]))),
    ),
  ]
}

const context = contextOf(world())
const QUESTIONS = [
  'near.any.test A',
  'near.any.test AAAA',
  'close.any.test A',
  'ties.any.test A',
  'hash.any.test A',
  '_https._tcp.near.any.test SRV',
  'near.any.test MX',
  'h1.near.any.test A',
  'nobody.near.any.test A',
  '_tcp.near.any.test A',
] as const

/** What two replies must have in common: a resolver may turn the records of a set round. */
function essence(seen: Pick<Seen, 'message' | 'answers'> | null): string {
  return seen === null ? 'no answer' : [seen.message.rcode, ...[...seen.answers].sort()].join('\n')
}

interface Resolver {
  readonly port: number
  readonly server: DnsServer
}

function missing(program: string): string | false {
  return spawnSync('sh', ['-c', `command -v ${program}`]).status === 0 ? false : `${program} is not installed`
}

/** Starts a server and a resolver in front of it, which `configure` writes the files of. */
async function openResolver(
  t: { teardown(end: () => unknown): void },
  using: DnsContext,
  program: string,
  configure: (folder: string, port: number, serverPort: number) => string[],
): Promise<Resolver> {
  const server = await openDns({ listen: [{ host: '127.0.0.1', port: 0 }], context: using })
  t.teardown(() => server.close())
  const port = await freePort()
  const folder = temporaryFolder()
  const args = configure(folder, port, server.addresses[0]!.port)
  const child: ChildProcess = spawn(program, args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream!.on('data', (part) => (output += part))
  const gone = once(child, 'exit')
  process.once('exit', () => child.kill('SIGKILL'))
  t.teardown(async () => {
    child.kill('SIGKILL')
    await gone
  })
  const probe = queryBytes('any.test', 'SOA')
  await until(`${program} answers`, async () => {
    if (child.exitCode !== null) throw new Error(`${program} ended: ${output}`)
    return (await exchange(probe, port, { limitMs: 500 }))?.message.rcode === 'NOERROR'
  })
  return { port, server }
}

/** Unbound, which tells the server of its clients as far as these many bits. */
function unbound(most: { readonly ipv4: number; readonly ipv6: number }) {
  return (folder: string, port: number, serverPort: number): string[] => {
    const file = join(folder, 'unbound.conf')
    const text = `server:
  interface: 127.0.0.1@${port}
  access-control: 127.0.0.0/8 allow
  do-not-query-localhost: no
  local-zone: "test." nodefault
  module-config: "subnetcache iterator"
  send-client-subnet: 127.0.0.1
  client-subnet-always-forward: yes
  max-client-subnet-ipv4: ${most.ipv4}
  max-client-subnet-ipv6: ${most.ipv6}
  directory: "${folder}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  num-threads: 1
remote-control:
  control-enable: no
stub-zone:
  name: "any.test"
  stub-addr: 127.0.0.1@${serverPort}
`
    writeFileSync(file, text)
    return ['-d', '-c', file]
  }
}

const received = ({ server }: Resolver) => Object.values(server.stats.udp).reduce((a, b) => a + b, 0)

for (const most of [
  { ipv4: 24, ipv6: 56 },
  { ipv4: 32, ipv6: 128 },
]) {
  t.test(
    `behind unbound, sending /${most.ipv4} and /${most.ipv6}, every client gets what it would get directly`,
    { skip: missing('unbound') },
    async (t) => {
      const resolver = await openResolver(t, context, 'unbound', unbound(most))
      const before = received(resolver)
      let asked = 0
      for (const question of QUESTIONS) {
        const [name, type] = question.split(' ') as [string, string]
        for (let i = 0; i < 120; i++) {
          const ipv6 = i % 3 === 0
          const address = randomClient(ipv6)
          const bits = Math.min(ipv6 ? most.ipv6 : most.ipv4, ipv6 ? 128 : 32)
          const told = subnet(textOf(prefixOf(address, ipv6 ? bits : 96 + bits).address, ipv6), bits)
          const direct = ask(queryBytes(name, type, [told]), asker('127.0.0.1'), context)
          // The resolver's own clients say nothing, and it tells where they are; others come through forwarders.
          const own = !ipv6 && i % 2 === 0
          const query = own
            ? queryBytes(name, type)
            : queryBytes(name, type, [subnet(textOf(address, ipv6), ipv6 ? 128 : 32)])
          const seen = await exchange(query, resolver.port, own ? { from: textOf(address, false) } : {})
          asked++
          const label = `${question} for ${textOf(address, ipv6)}, ${own ? 'its own' : 'forwarded'}`
          if (essence(seen) !== essence(direct)) t.equal(essence(seen), essence(direct), label)
        }
      }
      const upstream = received(resolver) - before
      t.ok(upstream < asked / 2, `${upstream} of ${asked} were asked of the server, the others were cached`)
    },
  )
}

/** Knot Resolver, which knows no Client Subnet: all its clients are where it is. */
function knotResolver(folder: string, port: number, serverPort: number): string[] {
  const file = join(folder, 'kresd.conf')
  const text = `net.listen('127.0.0.1', ${port}, { kind = 'dns' })
trust_anchors.remove('.')
modules.unload('ta_update')
modules.unload('ta_signal_query')
modules.unload('priming')
cache.size = 10 * MB
policy.add(policy.suffix(policy.STUB('127.0.0.1@${serverPort}'), { todname('any.test.') }))
`
  writeFileSync(file, text)
  return ['--noninteractive', '--config', file, folder]
}

t.test(
  'behind Knot Resolver, which names no clients, they get what it would get, once a TTL',
  { skip: missing('kresd') },
  async (t) => {
    const resolver = await openResolver(t, context, 'kresd', knotResolver)
    for (const question of QUESTIONS) {
      const [name, type] = question.split(' ') as [string, string]
      const direct = ask(queryBytes(name, type), asker('127.0.0.1'), context)
      const before = received(resolver)
      for (const from of ['127.0.0.1', '127.64.0.1', '127.65.32.7']) {
        const seen = await exchange(queryBytes(name, type), resolver.port, { from })
        t.equal(essence(seen), essence(direct), `${question} from ${from}`)
      }
      t.ok(received(resolver) - before <= 1, `${question}: asked of the server once`)
    }
  },
)

t.test(
  'a resolver that knows only the root finds the cores by their glue, and follows names that lead here',
  { skip: missing('unbound') || noNamespace() },
  async (t) => {
    const questions: readonly (readonly [string, string, string | null])[] = [
      ['any.test', 'NS', null],
      ['mirror.any.test', 'A', '100.64.1.0'],
      ['mirror.any.test', 'A', '100.64.2.0'],
      ['www.any.test', 'A', '100.64.2.0'],
      ['www.operator.example', 'A', '100.64.2.0'],
      ['www.operator.example', 'A', '100.64.1.0'],
      ['_https._tcp.mirror.any.test', 'SRV', '100.64.1.0'],
      ['tok.core.any.test', 'A', null],
      ['nobody.any.test', 'A', null],
    ]
    t.same(await runInside('dns-delegation-inside.ts', JSON.stringify(questions)), [
      ['NOERROR', 'NS ams.core.any.test', 'NS nyc.core.any.test', 'NS tok.core.any.test'],
      ['NOERROR', 'A 192.0.2.10'],
      ['NOERROR', 'A 198.51.100.10'],
      ['NOERROR', 'A 198.51.100.10', 'CNAME mirror.any.test'],
      ['NOERROR', 'A 198.51.100.10', 'CNAME mirror.any.test'],
      ['NOERROR', 'A 192.0.2.10', 'CNAME mirror.any.test'],
      [
        'NOERROR',
        'SRV 0 333 443 ams.mirror.any.test',
        'SRV 1 1000 8443 nyc.mirror.any.test',
        'SRV 2 333 80 tok.mirror.any.test',
      ],
      ['NOERROR', 'A 203.0.113.10'],
      ['NXDOMAIN'],
    ])
  },
)
