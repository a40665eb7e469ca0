// DNS answers, from the bytes of a query to the bytes of its reply: what each name is answered with, and EDNS.
//
// The rule of Client Subnet scopes is tested as it is meant: a cache that honours them never gives an answer
// that asking directly would not.

import packet from 'dns-packet'
import t from 'tap'
import { addressFromBytes, contains, type Prefix, parsePrefix, prefixOf } from '../../resolver/address.ts'
import { answerDns } from '../../resolver/dns-answer.ts'
import { placeChanges } from '../../resolver/place-page.ts'
import {
  ask,
  asker,
  context,
  contextOf,
  DIRECTORY,
  IS_AUTHORITATIVE,
  queryBytes,
  SOA,
  subnet,
} from '../support/dns-fixture.ts'
import { host, locality, member, service } from '../support/records.ts'
import { seededRng } from '../support/seeded-rng.ts'

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
    { ask: 'www.any.test A', answers: ['CNAME mirror.any.test', 'A 192.0.2.10'] },
    { ask: 'www.any.test CNAME', answers: ['CNAME mirror.any.test'] },
    { ask: 'www.any.test ANY', answers: ['CNAME mirror.any.test'] },
    { ask: 'www.any.test MX', answers: ['CNAME mirror.any.test'], authority: [SOA] },
    { ask: 'mirror.any.test CNAME', authority: [SOA] },
    { ask: 'ams.www.any.test A', answers: ['A 192.0.2.10'] },
    { ask: 'nobody.www.any.test A', rcode: 'NXDOMAIN', authority: [SOA] },
    { ask: 'mirror.example.org CNAME', authority: ['SOA mirror.example.org core-a.core.any.test 10'] },
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
    [7, 7],
    'ams and ams-2 have one address: minAddrs is kept by the next',
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

t.test('several zones hold the same names, each with its own NS and its own targets', async (t) => {
  const zone = (name: string) => ({ labels: name.split('.'), core: 'core-a', serial: 1 })
  const using = contextOf(DIRECTORY, { zones: [zone('any.test'), zone('cast.example.org')] })
  const table: readonly (readonly [string, string, readonly string[]])[] = [
    ['mirror.any.test', 'A', ['A 192.0.2.10']],
    ['mirror.cast.example.org', 'A', ['A 192.0.2.10']],
    ['www.cast.example.org', 'A', ['CNAME mirror.cast.example.org', 'A 192.0.2.10']],
    ['cast.example.org', 'SOA', ['SOA cast.example.org core-a.core.cast.example.org 10']],
    ['cast.example.org', 'NS', ['ams', 'nyc', 'tok'].map((name) => `NS ${name}.core.cast.example.org`)],
    [
      '_https._tcp.mirror.cast.example.org',
      'SRV',
      [
        'SRV 0 333 443 ams.mirror.cast.example.org',
        'SRV 1 1000 8443 nyc.mirror.cast.example.org',
        'SRV 2 333 80 tok.mirror.cast.example.org',
      ],
    ],
    ['_https._tcp.mirror.example.org', 'SRV', ask(queryBytes('_https._tcp.mirror.any.test', 'SRV')).answers],
  ]
  for (const [name, type, answers] of table)
    t.same(ask(queryBytes(name, type), asker(), using).answers, answers, `${name} ${type}`)
  t.same(ask(queryBytes('nobody.cast.example.org', 'A'), asker(), using).authority, [
    'SOA cast.example.org core-a.core.cast.example.org 10',
  ])
  t.equal(ask(queryBytes('example.org', 'A'), asker(), using).message.rcode, 'REFUSED')
})

t.test('the scope of an alias is that of what it leads to', async (t) => {
  const seen = ask(queryBytes('www.any.test', 'A', [subnet('100.64.2.0', 24)]))
  t.same(seen.answers, ['CNAME mirror.any.test', 'A 198.51.100.10'])
  t.equal(seen.options[0]!.scopePrefixLength, 24)
  t.equal(
    ask(queryBytes('www.any.test', 'CNAME', [subnet('100.64.2.0', 24)])).options[0]!.scopePrefixLength,
    0,
  )
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

t.test(
  'a type that nothing is known of is NODATA where the name exists, and NXDOMAIN where not',
  async (t) => {
    // A, NS, SOA, AAAA, OPT, SVCB, HTTPS, and from TKEY to ANY.
    const special = new Set([1, 2, 6, 28, 41, 64, 65, 249, 250, 251, 252, 253, 254, 255])
    const wrong: string[] = []
    for (const [name, outcome] of [
      ['any.test', 'nodata'],
      ['mirror.any.test', 'nodata'],
      ['ams.mirror.any.test', 'nodata'],
      ['_tcp.mirror.any.test', 'nodata'],
      ['www.any.test', 'answered'],
      ['nothing.any.test', 'nxdomain'],
      ['example.com', 'refused'],
    ] as const) {
      const bytes = queryBytes(name, 'A', null)
      for (let type = 0; type <= 0xffff; type += type < 300 ? 1 : 61) {
        if (special.has(type)) continue
        bytes.writeUInt16BE(type, bytes.length - 4)
        const { facts } = answerDns(context, bytes, asker())
        if (facts.outcome !== outcome || facts.type !== type)
          wrong.push(`${name} TYPE${type}: ${facts.outcome}`)
      }
      bytes.writeUInt16BE(1, bytes.length - 4)
      for (const asked of [0, 2, 4, 254, 255, 0xffff]) {
        bytes.writeUInt16BE(asked, bytes.length - 2)
        const { facts } = answerDns(context, bytes, asker())
        if (facts.outcome !== 'refused') wrong.push(`${name} CLASS${asked}: ${facts.outcome}`)
      }
    }
    t.same(wrong, [])
  },
)

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
  // RFC 9018, A.2: renewed; A.3: reserved bytes and another client's; A.4: the secret that came after.
  t.same(show(made, '198.51.100.100', 0x5cf7a871), ['2464c4abcf10c957010000005cf7a871d4a564a1442aca77', true])
  t.same(show('fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5', '203.0.113.203', 0x5cf7a9ac), [
    'fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e',
    false,
  ])
  t.same(
    show(
      '22681ab97d52c298010000005cf7c57926556bd0934c72f8',
      '2001:db8:220:1:59de:d0f4:8769:82b8',
      0x5cf7c609,
      [fresh, hex('dd3bdf9344b678b185a6f5cb60fca715')],
    ),
    ['22681ab97d52c298010000005cf7c609a6bb79d16625507a', true],
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

t.test('a query without a question asks only whether a cookie is good', async (t) => {
  const hex = (text: string) => Buffer.from(text, 'hex')
  const using = contextOf([], {
    cookies: { secrets: [hex('e5e973e5a6b2a43f48e7dc849e37bfcf')], nowSec: 0x5cf79f11 },
  })
  const made = '2464c4abcf10c957010000005cf79f111f8130c3eee29480'
  const table = [
    ['2464c4abcf10c957', 'nodata'],
    [made, 'nodata'],
    [`${made.slice(0, -1)}1`, 'badcookie'],
    ['2464c4abcf10c95700112233445566778899', 'badcookie'],
  ] as const
  for (const [shown, outcome] of table) {
    const option = `000a${(shown.length / 2).toString(16).padStart(4, '0')}${shown}`
    const opt = `00002904d000000000${(option.length / 2).toString(16).padStart(4, '0')}${option}`
    const seen = ask(hex(`123400000000000000000001${opt}`), asker('198.51.100.100'), using)
    t.equal(seen.facts.outcome, outcome, shown)
    t.same([seen.message.questions!.length, seen.answers.length, seen.authority.length], [0, 0, 0])
    t.equal(seen.options[0]!.data!.toString('hex'), made, 'and gets a good one')
  }
  t.equal(
    ask(hex(`123400000000000000000001${'00002904d00000000000' + '0c000a00082464c4abcf10c957'}`)).facts
      .outcome,
    'formerr',
    'where cookies are not answered',
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
        const usual = ipv6 ? [32, 48, 56, 64, 128][pick(5)]! : 96 + [16, 20, 24, 32][pick(4)]!
        const source = rng() < 0.7 ? usual : ipv6 ? 1 + pick(128) : 97 + pick(32)
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
