// DNS on the wire: what is no sane query, golden bytes of edge packets, and what fits into a reply.

import packet from 'dns-packet'
import t from 'tap'
import { parseAddress } from '../../resolver/address.ts'
import { answerDns, type DnsFacts } from '../../resolver/dns-answer.ts'
import { parseQuery, readClientSubnet } from '../../resolver/dns-wire.ts'
import { DnsWriter } from '../../resolver/dns-writer.ts'
import {
  ask,
  asker,
  context,
  IS_AUTHORITATIVE,
  IS_TRUNCATED,
  queryBytes,
  subnet,
} from '../support/dns-fixture.ts'

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
    [
      'NOTIFY with OPT',
      `123420000001000000000001${name}0001${opt}`,
      'notimp',
      `1234a0040000000000000001${opt}`,
    ],
    [
      'opcode 15 with nothing but OPT',
      `123478000000000000000001${opt}`,
      'notimp',
      `1234f8040000000000000001${opt}`,
    ],
    ['no question, only OPT', `123400000000000000000001${opt}`, 'formerr', `123480010000000000000001${opt}`],
    ['DSO', '123430000000000000000000', 'notimp', '1234b0040000000000000000'],
    ['a question for OPT', `123400000001000000000000${name.slice(0, -4)}00290001`, 'formerr', null],
    ['a question for TSIG', `123400000001000000000000${name.slice(0, -4)}00fa0001`, 'formerr', null],
    ['a question for TKEY', `123400000001000000000000${name.slice(0, -4)}00f90001`, 'notimp', null],
    ['a question for MAILB', `123400000001000000000000${name.slice(0, -4)}00fd0001`, 'notimp', null],
    ['a question for MAILA', `123400000001000000000000${name.slice(0, -4)}00fe0001`, 'notimp', null],
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
