// The DNS server, from the bytes of a query to the bytes of its answer, and over real sockets.
//
// dns-packet (another's codec) reads what ours writes; dig, kdig and drill ask the real server where they
// are installed. Edge packets are golden bytes. The rule of Client Subnet scopes is tested as it is meant:
// a cache that honours them never gives an answer that asking directly would not.

import { execFile } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { connect, type Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import { promisify } from 'node:util'
import packet, { type Packet } from 'dns-packet'
import t from 'tap'
import {
  addressFromBytes,
  contains,
  type Prefix,
  parseAddress,
  parsePrefix,
  prefixOf,
} from '../../resolver/address.ts'
import type { Change, Host, LocalityRecord, Member, Service } from '../../resolver/directory.ts'
import {
  type Asker,
  answerDns,
  DNS_OUTCOMES,
  type DnsContext,
  type DnsFacts,
} from '../../resolver/dns-answer.ts'
import { RateLimiter } from '../../resolver/dns-limit.ts'
import { openDns } from '../../resolver/dns-server.ts'
import { parseQuery, readClientSubnet } from '../../resolver/dns-wire.ts'
import { DnsWriter } from '../../resolver/dns-writer.ts'
import { placeChanges } from '../../resolver/place-page.ts'
import { Tables } from '../../resolver/tables.ts'

// What the tests ask about.

const ZONE = ['any', 'test']

function seededRng(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let x = Math.imul(state ^ (state >>> 15), 1 | state)
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32
  }
}

function service(name: string, over: Partial<Service> = {}): Change {
  const value: Service = {
    name,
    policy: 'nearest',
    ttlSec: 30,
    minAddrs: 1,
    maxAddrs: 2,
    tieMs: 2,
    stickyMs: 10,
    stickyRatio: 0.8,
    where: {},
    aliases: [],
    urlHosts: [],
    join: 'token',
    maxPerPrefix: 0,
    verify: 'none',
    allDown: { mode: 'stale' },
    ...over,
  }
  return { kind: 'services', key: name, value }
}

function host(name: string, addresses: readonly string[], over: Partial<Host> = {}): Change {
  const value: Host = {
    name,
    agent: true,
    addresses,
    proofs: Object.fromEntries(addresses.map((address) => [address, 'echo' as const])),
    echo: null,
    echoKey: '',
    publicAddress: null,
    publicPort: null,
    reachable: true,
    home: 'core-a',
    leaseSec: 8,
    presence: 'live',
    presenceSinceMs: 0,
    coordinate: null,
    place: null,
    credentialHash: null,
    tokenId: null,
    ...over,
  }
  return { kind: 'hosts', key: name, value }
}

function member(service: string, name: string, over: Partial<Member> = {}): Change {
  const value: Member = {
    service,
    name,
    host: name,
    addresses: [],
    port: null,
    url: null,
    attributes: {},
    weight: 1,
    capacity: 1,
    load: null,
    health: 'up',
    drained: false,
    check: null,
    left: false,
    ...over,
  }
  return { kind: 'members', key: `${service}/${name}`, value }
}

function locality(prefix: string, rtts: Readonly<Record<string, number>>): Change {
  const evidence = Object.entries(rtts).map(([host, rttMs]) => ({
    host,
    rttMs,
    count: 20,
    atMs: 0,
    kind: 'active' as const,
  }))
  const value: LocalityRecord = { prefix, evidence, incumbents: {} }
  return { kind: 'localities', key: prefix, value }
}

/** Clients of 100.64.1.0/24 are near ams, those of 100.64.2.0/24 near nyc, those of 2001:db8:c::/48 near tok. */
const DIRECTORY: readonly Change[] = [
  host('ams', ['192.0.2.10', '2001:db8:a::10']),
  host('nyc', ['198.51.100.10', '2001:db8:b::10']),
  host('tok', ['203.0.113.10']),
  host('gone', ['203.0.113.66'], { presence: 'silent', presenceSinceMs: 1 }),
  host('dead', ['203.0.113.77', '2001:db8:dd::1'], { presence: 'silent', presenceSinceMs: 2 }),
  service('core', { maxAddrs: 1 }),
  ...['ams', 'nyc', 'tok'].map((name) => member('core', name)),
  service('mirror', { aliases: ['www', 'mirror.example.org'], maxAddrs: 1 }),
  member('mirror', 'ams', { port: 443, url: 'https://192.0.2.10/pub' }),
  member('mirror', 'nyc', { port: 8443, url: 'https://198.51.100.10:8443/', capacity: 3 }),
  member('mirror', 'tok', { port: 80, url: 'http://203.0.113.10/' }),
  member('mirror', 'gone', { port: 443 }),
  member('mirror', 'rest', { host: 'tok', drained: true }),
  service('pair', { minAddrs: 2, ttlSec: 7 }),
  ...['ams', 'nyc', 'tok'].map((name) => member('pair', name)),
  member('pair', 'ams-2', { host: 'ams' }),
  service('dice', { policy: 'random', maxAddrs: 1 }),
  ...['ams', 'nyc', 'tok'].map((name) => member('dice', name)),
  service('last'),
  member('last', 'gone'),
  member('last', 'dead', { port: 9 }),
  service('spare', { allDown: { mode: 'fallback', addresses: ['192.0.2.99', '2001:db8::99'], url: null } }),
  member('spare', 'gone'),
  service('void', { allDown: { mode: 'empty' } }),
  member('void', 'gone'),
  service('wide', { minAddrs: 16, maxAddrs: 16 }),
  ...Array.from({ length: 16 }, (_, i) => host(`wide-${i}`, [`198.18.0.${i + 1}`, `2001:db8:f::${i + 1}`])),
  ...Array.from({ length: 16 }, (_, i) => member('wide', `wide-${i}`, { port: 1000 + i })),
  locality('100.64.1.0/24', { ams: 5, nyc: 80, tok: 240 }),
  locality('100.64.2.0/24', { ams: 80, nyc: 6, tok: 170 }),
  locality('2001:db8:c::/48', { ams: 250, nyc: 170, tok: 9 }),
]

function contextOf(changes: readonly Change[], over: Partial<DnsContext> = {}): DnsContext {
  const tables = new Tables()
  tables.apply(changes)
  return {
    tables,
    zone: { labels: ZONE, core: 'core-a', serial: 4_000_000_001 },
    rng: seededRng(1),
    operatorFrom: [parsePrefix('192.0.2.128/25')!],
    nsid: 'core-a',
    version: null,
    cookies: null,
    ...over,
  }
}

const context = contextOf(DIRECTORY)

function asker(address = '100.64.1.9', via: Asker['via'] = 'udp'): Asker {
  return { address: parseAddress(address)!, port: 5353, via, limited: null }
}

interface EcsOption {
  readonly code: 'CLIENT_SUBNET'
  readonly ip: string
  readonly sourcePrefixLength: number
}

function subnet(ip: string, sourcePrefixLength: number): EcsOption {
  return { code: 'CLIENT_SUBNET', ip, sourcePrefixLength }
}

/** Types that dns-packet has no name for. */
const UNNAMED_TYPES: Readonly<Record<string, number>> = { SVCB: 64, HTTPS: 65, TYPE666: 666 }

/** A query as dns-packet writes it. `options`: EDNS options; null: no EDNS. */
function queryBytes(
  name: string,
  type: string,
  options: readonly unknown[] | null = [],
  over: object = {},
): Buffer {
  const opt = { type: 'OPT', name: '.', udpPayloadSize: 1232, flags: 0, options: options ?? [] }
  const bytes = packet.encode({
    type: 'query',
    id: 0x1234,
    flags: packet.RECURSION_DESIRED,
    questions: [{ type: type as 'A', name, class: 'IN' }],
    additionals: options === null ? [] : [{ ...opt, ...over } as never],
  })
  const unnamed = UNNAMED_TYPES[type]
  if (unnamed !== undefined) bytes.writeUInt16BE(unnamed, 12 + name.length + 2)
  return bytes
}

interface Seen {
  readonly bytes: Uint8Array
  readonly message: Packet & { rcode: string }
  readonly facts: DnsFacts
  /** Answer, authority and additional as `TYPE value`, OPT left out. */
  readonly answers: string[]
  readonly authority: string[]
  readonly additional: string[]
  readonly options: readonly {
    code: number
    type?: string
    data?: Buffer
    scopePrefixLength?: number
    sourcePrefixLength?: number
    ip?: string
  }[]
}

function ask(bytes: Uint8Array, from = asker(), using = context): Seen {
  const { reply, facts } = answerDns(using, bytes, from)
  if (reply === null) throw new Error(`no reply: ${facts.outcome}`)
  return { ...read(reply), facts }
}

function read(reply: Uint8Array): Omit<Seen, 'facts'> {
  const message = packet.decode(Buffer.from(reply)) as unknown as Seen['message']
  const opt = message.additionals?.find((record) => record.type === 'OPT') as unknown as
    | { options: Seen['options'] }
    | undefined
  return {
    bytes: reply,
    message,
    answers: tell(message.answers),
    authority: tell(message.authorities),
    additional: tell(message.additionals),
    options: opt?.options ?? [],
  }
}

function tell(records: Packet['answers']): string[] {
  return (records ?? [])
    .filter(({ type }) => type !== 'OPT')
    .map((record) => {
      const { type, data } = record as { type: string; data: unknown }
      if (type === 'SRV') {
        const { priority, weight, port, target } = data as Record<string, unknown>
        return `SRV ${priority} ${weight} ${port} ${target}`
      }
      if (type === 'SOA')
        return `SOA ${record.name} ${(data as { mname: string }).mname} ${(data as { minimum: number }).minimum}`
      const text =
        type === 'TXT' ? (data as Buffer[]).join('') : typeof data === 'string' ? data : JSON.stringify(data)
      return `${type} ${text}`
    })
}

const SOA = 'SOA any.test core-a.core.any.test 10'
const IS_AUTHORITATIVE = packet.AUTHORITATIVE_ANSWER
const IS_TRUNCATED = packet.TRUNCATED_RESPONSE

// Names and what they are answered with.

t.test('every name of the contract gets its answer', async (t) => {
  const table: readonly {
    readonly ask: string
    readonly from?: string
    readonly rcode?: string
    readonly answers?: readonly string[]
    readonly authority?: readonly string[]
  }[] = [
    { ask: 'mirror.any.test A', answers: ['A 192.0.2.10'] },
    { ask: 'mirror.any.test A', from: '100.64.2.9', answers: ['A 198.51.100.10'] },
    { ask: 'mirror.any.test AAAA', from: '100.64.2.9', answers: ['AAAA 2001:db8:b::10'] },
    { ask: 'mirror.any.test A', from: '2001:db8:c::9', answers: ['A 203.0.113.10'] },
    { ask: 'mirror.any.test MX', authority: [SOA] },
    { ask: 'mirror.any.test TYPE666', authority: [SOA] },
    { ask: 'mirror.any.test SOA', authority: [SOA] },
    { ask: 'mirror.any.test NS', authority: [SOA] },
    { ask: 'www.any.test A', answers: ['A 192.0.2.10'] },
    { ask: 'mirror.example.org A', from: '100.64.2.9', answers: ['A 198.51.100.10'] },
    { ask: 'mirror.example.org TXT', authority: ['SOA mirror.example.org core-a.core.any.test 10'] },
    { ask: 'mirror.example.org SOA', answers: ['SOA mirror.example.org core-a.core.any.test 10'] },
    {
      ask: 'nobody.mirror.example.org A',
      rcode: 'NXDOMAIN',
      authority: ['SOA mirror.example.org core-a.core.any.test 10'],
    },
    { ask: 'nyc.mirror.example.org A', answers: ['A 198.51.100.10'] },
    { ask: 'tok.mirror.any.test A', answers: ['A 203.0.113.10'] },
    { ask: 'tok.mirror.any.test AAAA', authority: [SOA] },
    { ask: 'ams.mirror.any.test AAAA', answers: ['AAAA 2001:db8:a::10'] },
    { ask: 'gone.mirror.any.test A', authority: [SOA] },
    { ask: 'rest.mirror.any.test A', answers: ['A 203.0.113.10'] },
    { ask: 'nobody.mirror.any.test A', rcode: 'NXDOMAIN', authority: [SOA] },
    { ask: 'x.ams.mirror.any.test A', rcode: 'NXDOMAIN', authority: [SOA] },
    { ask: 'nothing.any.test A', rcode: 'NXDOMAIN', authority: [SOA] },
    { ask: '_tcp.mirror.any.test SRV', authority: [SOA] },
    { ask: '_udp.mirror.any.test A', authority: [SOA] },
    { ask: '_tcp.nothing.any.test SRV', rcode: 'NXDOMAIN', authority: [SOA] },
    { ask: '_https._tcp.mirror.any.test A', authority: [SOA] },
    { ask: '_x._sctp.mirror.any.test SRV', rcode: 'NXDOMAIN', authority: [SOA] },
    { ask: '_https._tcp.pair.any.test SRV', authority: [SOA] },
    { ask: 'any.test SOA', answers: [SOA] },
    { ask: 'any.test A', authority: [SOA] },
    { ask: 'any.test ANY', answers: ['HINFO {"cpu":"RFC8482","os":""}'] },
    { ask: 'mirror.any.test ANY', answers: ['HINFO {"cpu":"RFC8482","os":""}'] },
    { ask: 'nothing.any.test ANY', rcode: 'NXDOMAIN', authority: [SOA] },
    { ask: 'any.test AXFR', rcode: 'REFUSED' },
    { ask: 'mirror.any.test IXFR', rcode: 'REFUSED' },
    { ask: 'example.com A', rcode: 'REFUSED' },
    { ask: 'example.org A', rcode: 'REFUSED' },
    { ask: 'test A', rcode: 'REFUSED' },
    { ask: 'mirror A', rcode: 'REFUSED' },
    { ask: 'www A', rcode: 'REFUSED' },
    { ask: '. NS', rcode: 'REFUSED' },
    { ask: 'notany.test A', rcode: 'REFUSED' },
    { ask: '_why.mirror.any.test TXT', rcode: 'REFUSED' },
    { ask: '_why.mirror.any.test A', from: '127.0.0.1', authority: [SOA] },
  ]
  for (const row of table) {
    const [name, type] = row.ask.split(' ') as [string, string]
    const asked = ask(queryBytes(name, type), asker(row.from))
    const label = `${row.ask} from ${row.from ?? 'near ams'}`
    t.equal(asked.message.rcode, row.rcode ?? 'NOERROR', label)
    t.same(asked.answers, row.answers ?? [], `${label}: answers`)
    t.same(asked.authority, row.authority ?? [], `${label}: authority`)
    t.equal((asked.message.flags! & IS_AUTHORITATIVE) !== 0, row.rcode !== 'REFUSED', `${label}: AA`)
    t.equal(asked.message.flags! & packet.RECURSION_AVAILABLE, 0, `${label}: RA`)
    t.equal(asked.message.flags! & packet.RECURSION_DESIRED, packet.RECURSION_DESIRED, `${label}: RD copied`)
  }
})

t.test('SRV names the members with ports, the equally good by capacity, with their addresses', async (t) => {
  const near = ask(queryBytes('_https._tcp.mirror.any.test', 'SRV'))
  t.same(near.answers, [
    'SRV 0 333 443 ams.mirror.any.test',
    'SRV 1 1000 8443 nyc.mirror.any.test',
    'SRV 2 333 80 tok.mirror.any.test',
  ])
  t.same(near.additional, [
    'A 192.0.2.10',
    'AAAA 2001:db8:a::10',
    'A 198.51.100.10',
    'AAAA 2001:db8:b::10',
    'A 203.0.113.10',
  ])
  const ties = ask(queryBytes('_1000._udp.wide.any.test', 'SRV')).answers
  t.ok(
    ties.length === 4 && ties.every((record) => record.startsWith('SRV 0 1000 ')),
    'as good as each other, one priority',
  )
})

t.test('HTTPS and SVCB name the members with https URLs, with ports and address hints', async (t) => {
  const { reply } = answerDns(context, queryBytes('mirror.any.test', 'HTTPS', null), asker())
  const seen = packet.decode(Buffer.from(reply!))
  t.equal(seen.answers!.length, 2, 'tok has only http')
  // RFC 9460, 2.2: priority, target uncompressed, then keys in ascending order: port 3, ipv4hint 4, ipv6hint 6.
  const hex = Buffer.from(reply!).toString('hex')
  const target = (name: string) => `03${Buffer.from(name).toString('hex')}066d6972726f7203616e79047465737400`
  t.match(hex, `0001${target('ams')}00040004c000020a0006001020010db8000a00000000000000000010`)
  t.match(hex, `0002${target('nyc')}0003000220fb00040004c633640a0006001020010db8000b00000000000000000010`)
  const svcb = Buffer.from(ask(queryBytes('mirror.any.test', 'SVCB', null)).bytes).toString('hex')
  t.equal(svcb, hex.replaceAll('00410001', '00400001'), 'SVCB: the same')
  t.equal(ask(queryBytes('pair.any.test', 'HTTPS', null)).facts.outcome, 'nodata')
})

t.test(
  'NS are the three cores nearest to the resolver, whatever the client, with glue, and one far one',
  async (t) => {
    const cores = ['c1', 'c2', 'c3', 'c4', 'c5', 'c6']
    const five = contextOf([
      service('core'),
      ...cores.flatMap((name, i) => [host(name, [`192.0.2.${i + 1}`]), member('core', name)]),
      locality('100.64.1.0/24', { c1: 60, c2: 50, c3: 10, c4: 20, c5: 30, c6: 40 }),
      locality('100.64.2.0/24', { c1: 10, c2: 20, c3: 30, c4: 40, c5: 50, c6: 60 }),
    ])
    const seen = ask(queryBytes('any.test', 'NS', [subnet('100.64.2.0', 24)]), asker('100.64.1.9'), five)
    t.same(
      seen.answers,
      ['c3', 'c4', 'c5', 'c1'].map((name) => `NS ${name}.core.any.test`),
    )
    t.same(seen.additional, ['A 192.0.2.3', 'A 192.0.2.4', 'A 192.0.2.5', 'A 192.0.2.1'])
    t.equal(seen.options[0]!.scopePrefixLength, 0)
    t.same(
      ask(queryBytes('any.test', 'NS'), asker(), contextOf([])).answers,
      ['NS core-a.core.any.test'],
      'alone, we are it',
    )
    t.same(ask(queryBytes('mirror.example.org', 'NS')).answers.length, 3, 'an alias is an apex of its own')
  },
)

t.test('an address answer has the TTL and the number of addresses of its service, each once', async (t) => {
  const seen = ask(queryBytes('pair.any.test', 'A'))
  t.same(
    seen.message.answers!.map((record) => (record as { ttl: number }).ttl),
    [7],
    'ams and ams-2 have one address',
  )
  t.same(ask(queryBytes('pair.any.test', 'A'), asker('100.64.2.9')).answers, [
    'A 198.51.100.10',
    'A 192.0.2.10',
  ])
  t.equal(ask(queryBytes('wide.any.test', 'A')).answers.length, 16)
})

t.test('when no member is live the service says what is answered', async (t) => {
  const stale = ask(queryBytes('last.any.test', 'A'))
  t.same(stale.answers, ['A 203.0.113.77'], 'the one that fell silent last')
  t.equal((stale.message.answers![0] as { ttl: number }).ttl, 5)
  t.equal(stale.options.find(({ code }) => code === 15)!.data!.readUInt16BE(0), 3, 'EDE 3: stale')
  t.match(stale.facts, { allDown: 'stale', outcome: 'answered' })
  t.same(ask(queryBytes('last.any.test', 'A', null)).options, [], 'no EDNS, no EDE')
  t.same(ask(queryBytes('_x._tcp.last.any.test', 'SRV')).answers, ['SRV 0 1000 9 dead.last.any.test'])
  t.same(
    ask(queryBytes('dead.last.any.test', 'A')).answers,
    ['A 203.0.113.77'],
    'what SRV points at resolves',
  )
  t.same(ask(queryBytes('spare.any.test', 'A')).answers, ['A 192.0.2.99'])
  t.same(ask(queryBytes('spare.any.test', 'AAAA')).answers, ['AAAA 2001:db8::99'])
  t.match(ask(queryBytes('spare.any.test', 'A')).facts, { allDown: 'fallback' })
  const empty = ask(queryBytes('void.any.test', 'A'))
  t.same([empty.message.rcode, empty.answers, empty.authority], ['NOERROR', [], [SOA]])
  t.match(empty.facts, { allDown: 'empty', outcome: 'nodata' })
})

t.test('_why tells operators why, and nobody else', async (t) => {
  const bytes = queryBytes('_why.mirror.any.test', 'TXT', [subnet('100.64.2.0', 24)])
  for (const from of ['127.0.0.1', '::1', '192.0.2.200']) {
    const seen = ask(bytes, asker(from))
    t.match(seen.answers[0]!, 'TXT client 100.64.2.0 as 100.64.2.0/24, basis measured', from)
    t.ok(
      seen.answers.some((line) => line.startsWith('TXT 1 nyc: 6 ms')),
      `${from}: nyc is first`,
    )
    t.ok(
      seen.answers.some((line) => line.includes('tok') && line.includes('170 ms')),
      `${from}: tok is weighed`,
    )
  }
  for (const from of ['192.0.2.1', '100.64.2.1', '2001:db8::1'])
    t.equal(ask(bytes, asker(from)).message.rcode, 'REFUSED', from)
})

t.test('a service may have the zone’s own name', async (t) => {
  const using = contextOf([...DIRECTORY, service('mirror', { aliases: ['any.test'], maxAddrs: 1 })])
  t.same(ask(queryBytes('any.test', 'A'), asker(), using).answers, ['A 192.0.2.10'])
  t.same(ask(queryBytes('any.test', 'SOA'), asker(), using).answers, [SOA])
  t.same(ask(queryBytes('any.test', 'NS'), asker(), using).answers.length, 3)
})

t.test('the letters of a question come back as they were sent', async (t) => {
  const seen = ask(queryBytes('mIrRoR.aNy.TEST', 'A'))
  t.equal(seen.message.questions![0]!.name, 'mIrRoR.aNy.TEST')
  t.same(seen.answers, ['A 192.0.2.10'])
})

t.test('a label that holds a dot is no two labels', async (t) => {
  const dotted = queryBytes('mirror.any.test', 'A', null)
  const asOne = Buffer.concat([
    dotted.subarray(0, 12),
    Buffer.from('\x12mirror.example.org\0\0\x01\0\x01', 'latin1'),
  ])
  t.equal(ask(asOne).message.rcode, 'REFUSED')
  const inZone = Buffer.concat([
    dotted.subarray(0, 12),
    Buffer.from('\x12mirror.example.org\x03any\x04test\0\0\x01\0\x01', 'latin1'),
  ])
  t.equal(ask(inZone).facts.outcome, 'nxdomain')
})

t.test('CHAOS answers configured text, other classes are refused', async (t) => {
  const chaos = (name: string, type = 'TXT', className = 'CH') =>
    packet.encode({
      type: 'query',
      id: 1,
      questions: [{ name, type: type as 'TXT', class: className as 'CH' }],
    })
  const named = contextOf(DIRECTORY, { version: 'nearcast' })
  t.same(ask(chaos('version.bind'), asker(), named).answers, ['TXT nearcast'])
  t.same(ask(chaos('id.server'), asker(), named).answers, ['TXT core-a'])
  t.equal(ask(chaos('version.bind')).message.rcode, 'REFUSED', 'nothing configured')
  t.equal(ask(chaos('version.bind', 'A'), asker(), named).message.rcode, 'REFUSED')
  t.equal(ask(chaos('mirror.any.test'), asker(), named).message.rcode, 'REFUSED')
  t.equal(ask(chaos('mirror.any.test', 'A', 'HS')).message.rcode, 'REFUSED')
})

// EDNS.

t.test('EDNS options are answered in kind, and unknown ones and flags are left out', async (t) => {
  const seen = ask(
    queryBytes(
      'any.test',
      'SOA',
      [
        { code: 100, data: Buffer.from('x') },
        { code: 3, data: Buffer.alloc(0) },
        { code: 10, data: Buffer.alloc(8) },
      ],
      {
        flags: 0xffff,
      },
    ),
  )
  t.same(seen.answers, [SOA])
  t.same(
    seen.options.map(({ code }) => code),
    [3],
  )
  t.same(seen.options[0]!.data!.toString(), 'core-a')
  const opt = seen.message.additionals!.find(({ type }) => type === 'OPT') as {
    flags: number
    udpPayloadSize: number
  }
  t.match(opt, { flags: 0x8000, udpPayloadSize: 1232 }, 'DO is copied, the rest is zero')
  t.notOk(ask(queryBytes('any.test', 'SOA', null)).message.additionals?.length, 'none asked, none answered')
})

t.test('cookies prove an address, are the same on every core, and are rolled with overlap', async (t) => {
  const hex = (text: string) => Buffer.from(text, 'hex')
  const old = hex('e5e973e5a6b2a43f48e7dc849e37bfcf')
  const fresh = hex('445536bcd2513298075a5d379663c962')
  const show = (cookie: string, from: string, nowSec: number, secrets = [old]) => {
    const using = contextOf([], { cookies: { secrets, nowSec } })
    const seen = ask(queryBytes('any.test', 'SOA', [{ code: 10, data: hex(cookie) }]), asker(from), using)
    return [seen.options.find(({ code }) => code === 10)!.data!.toString('hex'), seen.facts.isProven] as const
  }
  // RFC 9018, A.1 and A.4.
  const made = '2464c4abcf10c957010000005cf79f111f8130c3eee29480'
  t.same(show('2464c4abcf10c957', '198.51.100.100', 0x5cf79f11), [made, false])
  t.same(
    show('22681ab97d52c298', '2001:db8:220:1:59de:d0f4:8769:82b8', 0x5cf7c579, [
      hex('dd3bdf9344b678b185a6f5cb60fca715'),
    ]),
    ['22681ab97d52c298010000005cf7c57926556bd0934c72f8', false],
  )
  const at = 0x5cf79f11
  t.same(show(made, '198.51.100.100', at + 1000), [made, true], 'as good as new')
  t.match(
    show(made, '198.51.100.100', at + 2000),
    [/^2464c4abcf10c957010000005cf7a6e1/, true],
    'renewed in good time',
  )
  t.match(
    show(made, '198.51.100.100', at + 10, [fresh, old]),
    [/^2464c4abcf10c957/, true],
    'made with the secret before',
  )
  t.notSame(show(made, '198.51.100.100', at + 10, [fresh, old])[0], made, '... and renewed with the new one')
  t.same(show(made, '198.51.100.100', at + 10, [fresh])[1], false, 'the old secret is gone')
  t.same(show(made, '198.51.100.100', at - 299)[1], true, 'another core’s clock is ahead')
  t.same(show(made, '198.51.100.100', at - 301)[1], false, 'from the future')
  t.same(show(made, '198.51.100.100', at + 3601)[1], false, 'too old')
  t.same(show(made, '198.51.100.101', at)[1], false, 'someone else’s')
  for (let i = 0; i < 48; i++) {
    const forged = `${made.slice(0, i)}${((Number.parseInt(made[i]!, 16) + 1) % 16).toString(16)}${made.slice(i + 1)}`
    if (show(forged, '198.51.100.100', at)[1]) t.fail(`digit ${i} does not matter`)
  }
  t.equal(
    ask(queryBytes('any.test', 'SOA'), asker('192.0.2.1', 'tcp')).facts.isProven,
    true,
    'TCP proves it too',
  )
})

t.test('another EDNS version gets BADVERS and ours, whatever its options', async (t) => {
  for (const options of [[], [{ code: 8, data: Buffer.from([9]) }]]) {
    const seen = ask(queryBytes('any.test', 'SOA', options, { ednsVersion: 1 }))
    const opt = seen.message.additionals![0] as { extendedRcode: number; ednsVersion: number }
    t.match(opt, { extendedRcode: 1, ednsVersion: 0 })
    t.match([seen.message.rcode, seen.answers.length, seen.facts.outcome], ['NOERROR', 0, 'badvers'])
  }
})

t.test('a malformed option gets FORMERR, with OPT', async (t) => {
  const bad: readonly (readonly [string, number, string])[] = [
    // Client Subnet as option data, in part restated from the tests of Knot DNS and gdnsd.
    ['empty', 8, ''],
    ['incomplete header', 8, '000100'],
    ['family 10', 8, '000a0000ff'],
    ['family 3', 8, '00030000'],
    ['family 0 with a source', 8, '00000800ff'],
    ['family 3 source 128', 8, `00038000${'00'.repeat(16)}`],
    ['too many octets and bits', 8, '00010b00ffffffff'],
    ['bits past the prefix', 8, '00010b00ffff'],
    ['IPv4 source 33', 8, '00012100aabbccddee'],
    ['scope in a query', 8, '00020805ff'],
    ['scope as long as the source', 8, '00020606ff'],
    ['scope 129', 8, '00020681ff'],
    ['source 0 with octets', 8, '00010000ff00'],
    ['one octet too many', 8, '00010100ff00'],
    ['IPv4 /32 with 3 octets', 8, '00012000000000'],
    ['IPv6 /128 with 15 octets', 8, `00028000${'00'.repeat(15)}`],
    ['IPv6 source 129', 8, `00028100${'00'.repeat(17)}`],
    ['cookie of 7', 10, '00'.repeat(7)],
    ['cookie of 9', 10, '00'.repeat(9)],
    ['cookie of 15', 10, '00'.repeat(15)],
    ['cookie of 41', 10, '00'.repeat(41)],
  ]
  for (const [name, code, hex] of bad) {
    const seen = ask(queryBytes('mirror.any.test', 'A', [{ code, data: Buffer.from(hex, 'hex') }]))
    t.same(
      [seen.message.rcode, seen.answers.length, seen.message.additionals!.length],
      ['FORMERR', 0, 1],
      name,
    )
    t.equal(seen.message.flags! & IS_AUTHORITATIVE, 0, `${name}: AA`)
  }
})

t.test('Client Subnet is read as RFC 7871 writes it', async (t) => {
  const good: readonly (readonly [string, number, string | null])[] = [
    ['00000000', 0, null],
    ['00010000', 0, null],
    ['00020000', 0, null],
    ['00010f00fffe', 15, '255.254.0.0'],
    ['00011000ffff', 16, '255.255.0.0'],
    ['00011100ffff80', 17, '255.255.128.0'],
    ['00012000aabbccdd', 32, '170.187.204.221'],
    ['0002380020010db8000100', 56, '2001:db8:1::'],
    ['00022d0020010db80000', 45, '2001:db8::'],
  ]
  for (const [hex, sourceBits, address] of good) {
    const read = readClientSubnet(Buffer.from(hex, 'hex'))
    t.match(read, { sourceBits, address: address === null ? null : parseAddress(address)! }, hex)
    const seen = ask(queryBytes('any.test', 'SOA', [{ code: 8, data: Buffer.from(hex, 'hex') }]))
    const at = Buffer.from(seen.bytes)
      .toString('hex')
      .lastIndexOf(`0008${(hex.length / 2).toString(16).padStart(4, '0')}`)
    t.equal(
      Buffer.from(seen.bytes)
        .toString('hex')
        .slice(at + 8, at + 8 + hex.length),
      hex,
      `${hex}: echoed, scope 0 for SOA`,
    )
  }
})

t.test('the scope says for whom else an answer holds, and 0 where it is everyone’s', async (t) => {
  const scope = (name: string, type: string, ip: string, source: number, from = '198.51.100.53') => {
    const seen = ask(queryBytes(name, type, [subnet(ip, source)]), asker(from))
    return { scope: seen.options[0]!.scopePrefixLength, answers: seen.answers, facts: seen.facts }
  }
  t.match(scope('mirror.any.test', 'A', '100.64.1.0', 24), {
    scope: 24,
    answers: ['A 192.0.2.10'],
    facts: { bySubnet: true, basis: 'measured' },
  })
  t.match(scope('mirror.any.test', 'A', '100.64.2.0', 24), { scope: 24, answers: ['A 198.51.100.10'] })
  t.match(scope('mirror.any.test', 'A', '100.64.1.77', 32), { scope: 24 }, 'shorter than the source')
  t.match(scope('mirror.any.test', 'A', '2001:db8:c:8000::', 56), { scope: 48, answers: ['A 203.0.113.10'] })
  t.match(
    scope('mirror.any.test', 'A', '0.0.0.0', 0, '100.64.2.53'),
    { scope: 0, answers: ['A 198.51.100.10'], facts: { bySubnet: false } },
    'source 0: the resolver counts',
  )
  t.match(scope('dice.any.test', 'A', '100.64.1.0', 24), { scope: 0 }, 'chance is no function of the client')
  t.match(scope('mirror.any.test', 'MX', '100.64.1.0', 24), { scope: 0 }, 'NODATA')
  t.match(scope('nothing.any.test', 'A', '100.64.1.0', 24), { scope: 0 }, 'NXDOMAIN')
  t.match(scope('any.test', 'SOA', '100.64.1.0', 24), { scope: 0 })
  t.match(scope('ams.mirror.any.test', 'A', '100.64.1.0', 24), { scope: 0 }, 'a member is where it is')
  t.match(scope('last.any.test', 'A', '100.64.1.0', 24), { scope: 0 }, 'all down')
})

t.test('a cache that honours scopes never gives an answer that asking directly would not', async (t) => {
  const rng = seededRng(7)
  const pick = (n: number) => Math.floor(rng() * n)
  let hits = 0
  let lent = 0
  for (let round = 0; round < 25; round++) {
    const hosts = Array.from({ length: 6 }, (_, i) => `h${i}`)
    // Hosts are clients too; prefixes of all lengths nest in each other; some services tie, shed and hash.
    const randomClient = (ipv6: boolean) => {
      const bytes = ipv6
        ? [0x20, 1, 0xd, pick(3), pick(3), pick(3) * 64, pick(2) * 128, pick(2), 0, 0, 0, 0, 0, 0, 0, pick(4)]
        : [100, 64 + pick(3), pick(4) * 64, pick(8)]
      return addressFromBytes(ipv6 ? 6 : 4, Uint8Array.from(bytes))!
    }
    const text = (bits: number, ipv6: boolean) => {
      const at = prefixOf(randomClient(ipv6), bits).address
      return `${ipv6 ? groups(at) : at.subarray(12).join('.')}/${ipv6 ? bits : bits - 96}`
    }
    // Every other round has imports: nested announcements of few networks in few places, so that what was
    // measured is lent to relatives, and halves agree, disagree and lie beside other networks.
    const lat = () => 20 * pick(5) - 40
    const announced = Array.from({ length: round % 2 === 0 ? 0 : 25 }, (_, i) => {
      const ipv6 = i % 2 === 0
      const place = { lat: lat(), lon: 10, accuracyKm: 25 }
      const fact = { place, asn: 64_500 + pick(3), country: 'CH', source: 'table' }
      return { prefix: parsePrefix(text(ipv6 ? 24 + pick(30) : 106 + pick(15), ipv6))!, fact }
    })
    const using = contextOf([
      ...placeChanges(new Map(), announced),
      ...hosts.map((name, i) =>
        host(name, [`100.64.0.${i}`, `2001:d00::${i + 1}`], {
          place: { lat: lat(), lon: 10, accuracyKm: 1 },
        }),
      ),
      service('near', { maxAddrs: 1 + pick(3), tieMs: [0, 2, 40][pick(3)]! }),
      service('hash', { policy: 'hash' }),
      service('fail', { policy: 'failover' }),
      ...['near', 'hash', 'fail'].flatMap((name) =>
        hosts.map((of, i) =>
          member(name, of, {
            port: 1,
            load: pick(3) === 0 ? 1.5 : 0.2,
            capacity: 1,
            attributes: { tier: String(i % 2) },
          }),
        ),
      ),
      ...Array.from({ length: 12 }, (_, i) => {
        const ipv6 = i % 2 === 0
        const grain = ipv6 ? 48 : 120
        const bits = announced.length > 0 ? grain : ipv6 ? 16 + pick(113) : 104 + pick(25)
        return locality(text(bits, ipv6), Object.fromEntries(hosts.map((name) => [name, 1 + pick(8) * 20])))
      }),
    ])
    for (const name of [
      'near.any.test A',
      'hash.any.test AAAA',
      'fail.any.test A',
      '_x._tcp.near.any.test SRV',
    ]) {
      const [owner, type] = name.split(' ') as [string, string]
      const cache: { prefix: Prefix; source: number | null; answers: string }[] = []
      for (let i = 0; i < 120; i++) {
        const ipv6 = rng() < 0.5
        const source = ipv6 ? [32, 48, 56, 64, 128][pick(5)]! : 96 + [16, 20, 24, 32][pick(4)]!
        const client = prefixOf(randomClient(ipv6), source).address
        const ip = ipv6 ? groups(client) : client.subarray(12).join('.')
        const seen = ask(
          queryBytes(owner, type, [subnet(ip, ipv6 ? source : source - 96)]),
          asker('198.51.100.53'),
          using,
        )
        const direct = seen.answers.join()
        const known = using.tables.locality(using.tables.findEvidence(client).value)
        if (known?.evidence.every(({ count }) => count === 0)) lent++
        for (const { prefix, source: only, answers } of cache) {
          if (!contains(prefix, client) || prefix.bits > source || (only !== null && only !== source))
            continue
          hits++
          if (answers !== direct)
            t.fail(`${name} for ${ip}/${source} in /${prefix.bits}: ${answers}, directly ${direct}`)
        }
        const scope = seen.options[0]!.scopePrefixLength! + (ipv6 ? 0 : 96)
        // A scope past the source: the answer is for some of those only, and holds for whoever asks as widely.
        const only = scope > source ? source : null
        cache.push({ prefix: prefixOf(client, only ?? scope), source: only, answers: direct })
      }
    }
  }
  t.ok(hits > 5000, `${hits} answers out of the cache`)
  t.ok(lent > 500, `${lent} of them by what relatives measured`)
})

function groups(address: Uint8Array): string {
  return (Buffer.from(address).toString('hex').match(/.{4}/g) ?? []).join(':')
}

// Packets that are no sane queries.

t.test('golden edge packets end in their outcome', async (t) => {
  const name = '066d6972726f7203616e790474657374000001' // mirror.any.test A, class missing
  const opt = '00002904d0000000000000'
  const table: readonly (readonly [string, string, DnsFacts['outcome'], string | null])[] = [
    ['nothing', '', 'dropped-short', null],
    ['11 bytes', '00'.repeat(11), 'dropped-short', null],
    ['a response', '123480000001000000000000', 'dropped-response', null],
    ['four counts of ffff', `12340000${'ffff'.repeat(4)}`, 'formerr', '123480010000000000000000'],
    ['no question', '123401000000000000000000', 'formerr', '123481010000000000000000'],
    [
      'two questions',
      `123400000002000000000000${name}0001${name}0001`,
      'formerr',
      '123480010000000000000000',
    ],
    [
      'header only, opcode 15',
      '1234780000000000000000 00'.replace(' ', ''),
      'notimp',
      '1234f8040000000000000000',
    ],
    ['NOTIFY', `123420000001000000000000${name}0001`, 'notimp', '1234a0040000000000000000'],
    ['UPDATE', `123428000001000000000000${name}0001`, 'notimp', '1234a8040000000000000000'],
    ['question cut', `123400000001000000000000${name}00`, 'formerr', '123480010000000000000000'],
    [
      'name without end',
      '12340000000100000000000006 6d6972'.replace(' ', ''),
      'formerr',
      '123480010000000000000000',
    ],
    [
      'name that points at itself',
      '123400000001000000000000c00c00010001',
      'formerr',
      '123480010000000000000000',
    ],
    ['label type 0x40', '12340000000100000000000041006d00010001', 'formerr', '123480010000000000000000'],
    [
      'label of 64',
      `12340000000100000000000040${'61'.repeat(64)}0000010001`,
      'formerr',
      '123480010000000000000000',
    ],
    [
      'name of 256',
      `123400000001000000000000${`3f${'61'.repeat(63)}`.repeat(3)}3f${'61'.repeat(63)}0000010001`,
      'formerr',
      '123480010000000000000000',
    ],
    [
      'name of 255',
      `123400000001000000000000${`3f${'61'.repeat(63)}`.repeat(3)}3d${'61'.repeat(61)}0000010001`,
      'refused',
      null,
    ],
    [
      'bytes behind the end',
      `123400000001000000000000${name}000100`,
      'formerr',
      `123480010001000000000000${name}0001`,
    ],
    [
      'a record that is not there',
      `123400000001000000000001${name}0001`,
      'formerr',
      `123480010001000000000000${name}0001`,
    ],
    [
      'OPT in the answer section',
      `123400000001000100000000${name}0001${opt}`,
      'formerr',
      `123480010001000000000000${name}0001`,
    ],
    [
      'two OPT',
      `123400000001000000000002${name}0001${opt}${opt}`,
      'formerr',
      `123480010001000000000000${name}0001`,
    ],
    [
      'OPT with an owner',
      `123400000001000000000001${name}00010161${opt}`,
      'formerr',
      `123480010001000000000000${name}0001`,
    ],
    [
      'OPT by a pointer',
      `123400000001000000000001${name}0001c00c${opt.slice(2)}`,
      'formerr',
      `123480010001000000000000${name}0001`,
    ],
    [
      'OPT longer than the packet',
      `123400000001000000000001${name}000100002904d0000000000004`,
      'formerr',
      `123480010001000000000000${name}0001`,
    ],
    [
      'option longer than OPT',
      `123400000001000000000001${name}000100002904d00000000000040008ffff`,
      'formerr',
      `123480010001000000000001${name}0001${opt}`,
    ],
    [
      'option header cut',
      `123400000001000000000001${name}000100002904d0000000000003000800`,
      'formerr',
      `123480010001000000000001${name}0001${opt}`,
    ],
    [
      'pointer forward',
      `123400000001000000000001${name}0001c0ff00010001000000000000`,
      'formerr',
      `123480010001000000000000${name}0001`,
    ],
    [
      'pointer at itself',
      `123400000001000000000001${name}0001c02100010001000000000000`,
      'formerr',
      `123480010001000000000000${name}0001`,
    ],
    [
      'pointer into the header',
      `123400000001000000000001${name}0001c00200010001000000000000`,
      'formerr',
      `123480010001000000000000${name}0001`,
    ],
    [
      'seventeen records',
      `123400000001000000000011${name}0001${'00'.repeat(11).repeat(17)}`,
      'formerr',
      `123480010001000000000000${name}0001`,
    ],
    // dig's own question, RD and AD set, with a COOKIE, and one with records beside OPT: sane.
    [
      'as dig asks',
      `123401200001000000000001${name}00010000290 4d000000000000c000a00080102030405060708`.replace(' ', ''),
      'answered',
      null,
    ],
    [
      'a TSIG beside the question',
      `123401000001000000000001${name}0001c00c00fa00ff000000000000`,
      'answered',
      null,
    ],
  ]
  for (const [what, hex, outcome, expected] of table) {
    const { reply, facts } = answerDns(context, Buffer.from(hex, 'hex'), asker())
    t.equal(facts.outcome, outcome, what)
    if (outcome.startsWith('dropped')) t.equal(reply, null, what)
    else if (expected !== null) t.equal(Buffer.from(reply!).toString('hex'), expected, what)
  }
  const portZero = { ...asker(), port: 0 }
  t.match(answerDns(context, queryBytes('any.test', 'SOA'), portZero), {
    reply: null,
    facts: { outcome: 'dropped-port-zero' },
  })
})

const SEEDS = [
  queryBytes('mirror.any.test', 'A', [subnet('100.64.1.0', 24), { code: 3, data: Buffer.alloc(0) }]),
  queryBytes('_https._tcp.mirror.any.test', 'SRV', [{ code: 10, data: Buffer.alloc(24) }]),
  queryBytes('any.test', 'NS', [], { flags: 0x8000 }),
  queryBytes('_why.wide.any.test', 'TXT', null),
  queryBytes('wide.any.test', 'AAAA', [subnet('2001:db8:c::', 56)]),
]

/** What holds of every packet's end, whatever the packet. */
function checkAnything(t: Tap, bytes: Uint8Array, from: Asker): void {
  const { reply, facts } = answerDns(context, bytes, from)
  if (!DNS_OUTCOMES.includes(facts.outcome)) t.fail(`outcome ${facts.outcome}`)
  if ((reply === null) !== facts.outcome.startsWith('dropped')) t.fail(`${facts.outcome} and ${reply}`)
  if (reply === null) return
  if (from.via === 'udp' && reply.length > 1232) t.fail(`${reply.length} bytes`)
  if (reply[0] !== bytes[0] || reply[1] !== bytes[1] || (reply[2]! & 0xf8) !== ((bytes[2]! & 0x78) | 0x80))
    t.fail('not its reply')
  if (facts.outcome === 'answered' && !facts.truncated && reply[7] === 0) t.fail('answered without answers')
  packet.decode(Buffer.from(reply))
}

type Tap = Pick<typeof t, 'fail'>

t.test('no length and no mutation makes it throw or say more than it may', async (t) => {
  const rng = seededRng(11)
  const pick = (n: number) => Math.floor(rng() * n)
  const from = asker('127.0.0.1')
  for (let length = 0; length <= 512; length++) {
    const noise = Buffer.from(Array.from({ length }, () => pick(256)))
    if (length > 2) noise[2]! &= 0x7f
    checkAnything(t, noise, from)
    for (const seed of SEEDS)
      checkAnything(t, Buffer.concat([seed, Buffer.alloc(512)]).subarray(0, length), from)
  }
  for (let i = 0; i < 20_000; i++) {
    const bytes = Buffer.from(SEEDS[i % SEEDS.length]!)
    for (let changes = 1 + pick(4); changes > 0; changes--) {
      // Never the bit that makes it a response, or most would end there.
      const at = pick(bytes.length)
      bytes[at] = [pick(256), 0, 0xff, 0xc0, bytes[at]! ^ (1 << pick(8))][pick(5)]!
      if (at === 2) bytes[2]! &= 0x7f
    }
    checkAnything(
      t,
      pick(8) === 0 ? bytes.subarray(0, pick(bytes.length)) : bytes,
      i % 2 ? from : asker('127.0.0.1', 'tcp'),
    )
  }
  t.pass('20,000 mutations')
})

t.test(
  'what does not fit is cut with TC and without records, and keeps its OPT and Client Subnet',
  async (t) => {
    const plain = ask(queryBytes('wide.any.test', 'AAAA', null))
    t.ok(plain.bytes.length <= 512 && !plain.facts.truncated, '16 IPv6 addresses fit 512 bytes')
    const why = queryBytes('_why.wide.any.test', 'TXT', null)
    const cut = ask(why, asker('127.0.0.1'))
    t.same(
      [cut.answers.length, cut.message.flags! & IS_TRUNCATED, cut.facts.truncated],
      [0, IS_TRUNCATED, true],
    )
    t.same(cut.facts.outcome, 'answered')
    t.ok(ask(why, asker('127.0.0.1', 'tcp')).answers.length > 8, 'whole over TCP')
    const small = ask(
      queryBytes('_why.wide.any.test', 'TXT', [subnet('100.64.1.0', 24)], { udpPayloadSize: 100 }),
      asker('127.0.0.1'),
    )
    t.same(
      [small.facts.truncated, small.options.length],
      [true, 1],
      'a payload size under 512 is 512, and cut it keeps ECS',
    )
    const srv = ask(queryBytes('_x._tcp.wide.any.test', 'SRV', null))
    t.same(
      [srv.answers.length, srv.facts.truncated],
      [4, false],
      'additional records are left out without a word',
    )
    t.ok(srv.bytes.length <= 512)
    const large = ask(
      queryBytes('_why.wide.any.test', 'TXT', [], { udpPayloadSize: 65_000 }),
      asker('127.0.0.1'),
    )
    t.ok(large.bytes.length <= 1232, 'a greater payload size is 1232')
  },
)

t.test('the writer places nothing past its limit, and leaves no trace of what did not fit', async (t) => {
  const bytes = queryBytes('mirror.any.test', 'SRV', null)
  const query = parseQuery(bytes)
  if (typeof query === 'string') throw new Error(query)
  const record = (target: readonly string[]) =>
    ({ owner: query.question!.labels, ttlSec: 1, type: 33, priority: 0, weight: 0, port: 1, target }) as const
  for (let limit = 12; limit < 160; limit++) {
    const writer = new DnsWriter(limit)
    writer.header(1, 0x8000)
    const fits = [
      writer.question(bytes, query.question!),
      writer.record('answer', record(['long-label-that-may-not-fit', 'x', 'any', 'test'])),
      writer.record('answer', record(['y', 'x', 'any', 'test'])),
      writer.record('additional', {
        owner: ['y', 'x', 'any', 'test'],
        ttlSec: 1,
        type: 1,
        address: parseAddress('192.0.2.1')!,
      }),
    ]
    const reply = writer.finish()
    if (reply.length > limit) t.fail(`${reply.length} bytes of ${limit}`)
    const message = packet.decode(Buffer.from(reply))
    const counted = [message.questions, message.answers, message.additionals].map(
      (section) => section?.length ?? 0,
    )
    t.same(counted, [fits[0] ? 1 : 0, Number(fits[1]) + Number(fits[2]), fits[3] ? 1 : 0], `${limit} bytes`)
    if (fits[3]) t.equal(message.additionals![0]!.name, 'y.x.any.test')
  }
})

// Over sockets.

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

t.test(
  'a flood of queries from one prefix gets its share of replies, then TC or nothing, unless it shows a cookie',
  async (t) => {
    const limiter = new RateLimiter({ repliesPerSec: 100, exempt: [parsePrefix('198.51.100.0/24')!] })
    const flood = (from: string, atMs: number, count: number) => {
      const told = { null: 0, slip: 0, drop: 0 }
      for (let i = 0; i < count; i++) told[`${limiter.take(parseAddress(from)!, atMs)}`]++
      return told
    }
    t.same(flood('203.0.113.1', 0, 300), { null: 100, slip: 100, drop: 100 })
    t.same(flood('203.0.113.99', 0, 10), { null: 0, slip: 5, drop: 5 }, 'its /24 is one asker')
    t.same(flood('203.0.114.1', 0, 10), { null: 10, slip: 0, drop: 0 }, 'another is another')
    t.same(flood('203.0.113.1', 500, 100), { null: 50, slip: 25, drop: 25 }, 'half a second later')
    t.same(flood('2001:db8:0:aa01::1', 0, 100).null + flood('2001:db8:0:aaff::1', 0, 100).null, 100, 'a /56')
    t.same(
      flood('198.51.100.1', 0, 1000).null + flood('127.0.0.1', 0, 1000).null + flood('::1', 0, 1000).null,
      3000,
      'exempt',
    )
    t.same(new RateLimiter({ repliesPerSec: 0, exempt: [] }).take(parseAddress('192.0.2.1')!, 0), null)

    const using = contextOf(DIRECTORY, { cookies: { secrets: [Buffer.alloc(16, 1)], nowSec: 1e9 } })
    const bytes = queryBytes('mirror.any.test', 'A', [
      subnet('100.64.1.0', 24),
      { code: 10, data: Buffer.alloc(8) },
    ])
    t.match(answerDns(using, bytes, { ...asker(), limited: 'drop' }), {
      reply: null,
      facts: { outcome: 'dropped-limited' },
    })
    const slipped = ask(bytes, { ...asker(), limited: 'slip' }, using)
    t.same(
      [slipped.answers.length, slipped.message.flags! & IS_TRUNCATED, slipped.facts.outcome],
      [0, IS_TRUNCATED, 'slipped'],
    )
    const cookie = slipped.options.find(({ code }) => code === 10)!.data!
    const shown = queryBytes('mirror.any.test', 'A', [subnet('100.64.1.0', 24), { code: 10, data: cookie }])
    t.same(
      ask(shown, { ...asker(), limited: 'drop' }, using).answers,
      ['A 192.0.2.10'],
      'with the cookie that it got',
    )
  },
)

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
  const limits = { connections: 4, connectionsPerAddress: 2, idleMs: 500, queryBytes: 600 }
  const server = await openDns({ listen: LOOPBACK, context, tcp: limits })
  t.teardown(() => server.close())
  const { port } = server.addresses[0]!
  const open = (from: string) => {
    const socket = connect({ port, host: '127.0.0.1', localAddress: from })
    return { socket, ...readTcp(socket) }
  }
  const first = open('127.0.0.1')
  const second = open('127.0.0.1')
  await sleep(30)
  await open('127.0.0.1').ended
  t.match(server.stats.connections, { open: 2, refused: 1 }, 'a third from one address')
  const others = ['127.0.0.2', '127.0.0.3', '127.0.0.4'].map(open)
  await others[2]!.ended
  t.match(server.stats.connections, { open: 4, refused: 2 }, 'a fifth in all')
  second.socket.write(Buffer.from([0xff, 0xff, 0]))
  await second.ended
  t.equal(server.stats.connections.cut, 1, 'a query of 65,535 bytes')
  // A trickle (here: of empty messages) keeps nothing alive; queries that get answers do.
  const trickle = setInterval(() => others[0]!.socket.write(Buffer.from([0])), 20)
  const busy = setInterval(() => first.socket.write(framed(queryBytes('any.test', 'SOA'))), 20)
  t.teardown(() => [trickle, busy].map(clearInterval))
  await Promise.all([others[0]!.ended, others[1]!.ended])
  clearInterval(trickle)
  await sleep(100)
  t.match(server.stats.connections, { open: 1, cut: 3 })
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
