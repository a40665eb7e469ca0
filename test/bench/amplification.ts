// How much longer than its query each kind of DNS response is: what a spoofed source could gain over UDP.
//
//   npm run -s bench:amplification [-- --json]
// Two services of one zone: a usual one (three members, IPv4 and IPv6, two of them named) and one at the limits (16 addresses, names of
// 63 letters, several addresses a host, EDNS for 1,232 bytes). Bytes are of DNS, as amplification is counted.

import { parseArgs } from 'node:util'
import { parsePrefix } from '../../resolver/address.ts'
import { answerDns, type DnsReply } from '../../resolver/dns-answer.ts'
import { RATE_LIMITS, ResponseLimiter, rateTable } from '../../resolver/dns-limit.ts'
import { asker, contextOf, queryBytes, subnet } from '../support/dns-fixture.ts'
import { host, locality, member, service } from '../support/records.ts'

const { values: options } = parseArgs({ options: { json: { type: 'boolean', default: false } } })

/** As long as a label may be. */
const long = (i: number) => `${'m'.repeat(61)}${String(i).padStart(2, '0')}`
const USUAL = ['ams', 'nyc', 'tok']
const LARGEST = Array.from({ length: 16 }, (_, i) => long(i))
const addresses = (i: number, count: number) =>
  Array.from({ length: count }, (_, j) => [`192.0.2.${8 * i + j}`, `2001:db8::${i}:${j}`]).flat()

const COOKIES = { secrets: [Buffer.alloc(16, 1)], nowSec: 1e9 }
const over = { cookies: COOKIES, nsid: 'core1', version: 'Nearcast' } as const
const zone = { labels: ['cast', 'example', 'org'], core: 'core1', serial: 1 }

function contextFor(name: string, members: readonly string[], addressCount: number) {
  const maxAddrs = members.length > 3 ? members.length : 2
  return contextOf(
    [
      ...members.map((at, i) => host(at, addresses(i, addressCount))),
      service('core'),
      ...members.slice(0, 4).map((at) => member('core', at)),
      service(name, { aliases: ['www'], maxAddrs, minAddrs: maxAddrs > 2 ? maxAddrs : 1 }),
      ...members.map((at, i) => member(name, at, { port: 8443, url: `https://192.0.2.${8 * i}:8443/` })),
      locality('100.64.1.0/24', Object.fromEntries(members.map((at, i) => [at, 20 + i]))),
    ],
    { ...over, zones: [zone], operatorFrom: [parsePrefix('100.64.1.0/24')!] },
  )
}

interface Kind {
  readonly kind: string
  readonly name: string
  readonly type: string
  readonly options?: readonly unknown[] | null
}

const ECS = subnet('100.64.1.0', 24)
const COOKIE = { code: 10, data: Buffer.alloc(8) }
const NSID = { code: 3, data: Buffer.alloc(0) }

const kindsOf = (of: string, member: string): readonly Kind[] => [
  { kind: 'A', name: of, type: 'A' },
  { kind: 'A, Client Subnet', name: of, type: 'A', options: [ECS] },
  { kind: 'AAAA', name: of, type: 'AAAA' },
  { kind: 'A of an alias', name: 'www', type: 'A' },
  { kind: 'A of a member', name: `${member}.${of}`, type: 'A' },
  { kind: 'SRV', name: `_s._tcp.${of}`, type: 'SRV' },
  { kind: 'HTTPS', name: of, type: 'HTTPS' },
  { kind: 'NS', name: '', type: 'NS' },
  { kind: 'SOA', name: '', type: 'SOA' },
  { kind: 'TXT of _why', name: `_why.${of}`, type: 'TXT' },
  { kind: 'ANY', name: of, type: 'ANY' },
  { kind: 'NODATA', name: of, type: 'MX' },
  { kind: 'NXDOMAIN', name: 'x', type: 'A' },
  { kind: 'REFUSED', name: 'example.net', type: 'A' },
  { kind: 'NOTIMP', name: of, type: 'TKEY' },
  { kind: 'A, cookie', name: of, type: 'A', options: [COOKIE] },
  { kind: 'A, NSID', name: of, type: 'A', options: [NSID] },
]

interface Measured {
  readonly kind: string
  readonly queryBytes: number
  readonly replyBytes: number
  readonly times: number
  readonly cut: boolean
  /** The response that is one too many for the default limits is not sent whole. */
  readonly limited: boolean
}

function measure(world: ReturnType<typeof contextFor>, kinds: readonly Kind[], edns: boolean): Measured[] {
  return kinds.map(({ kind, name, type, options: asked = edns ? [] : null }) => {
    const isOther = name.startsWith('example.')
    const full = isOther ? name : [name, ...zone.labels].filter((label) => label !== '').join('.')
    const query = queryBytes(full, type, asked)
    const from = { ...asker('100.64.1.9'), nowMs: 1e6 }
    const limiter = new ResponseLimiter(RATE_LIMITS, rateTable(RATE_LIMITS))
    const first = answerDns(world, query, from, limiter)
    let last: DnsReply = first
    for (let i = 0; i < 1000; i++) last = answerDns(world, query, from, limiter)
    const replyBytes = first.reply!.length
    const times = replyBytes / query.length
    const { truncated } = first.facts
    const limited = last.facts.limited !== null
    return { kind, queryBytes: query.length, replyBytes, times, cut: truncated, limited }
  })
}

const usual = measure(contextFor('mirror', USUAL, 1), kindsOf('mirror', 'ams'), false)
const largest = measure(contextFor('s', LARGEST, 4), kindsOf('s', long(0)), true)

if (options.json) console.log(JSON.stringify({ usual, largest }))
else {
  console.log(
    '| response | query, bytes | response | times | at the limits: query | response | times | limited by default |',
  )
  console.log('| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |')
  for (const [i, u] of usual.entries()) {
    const l = largest[i]!
    const limited = u.limited ? 'yes' : l.limited ? 'at the limits' : 'no'
    const cells = [u.kind, u.queryBytes, u.replyBytes, u.times.toFixed(1), l.queryBytes]
    console.log(
      `| ${[...cells, `${l.replyBytes}${l.cut ? ' (TC)' : ''}`, l.times.toFixed(1), limited].join(' | ')} |`,
    )
  }
}
