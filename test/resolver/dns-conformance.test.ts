// What an authoritative server must do with each flag, opcode, EDNS version, option and type, asked by dig itself:
// the questions that the DNS compliance reports of registries and resolver makers are made of.

import { execFile, spawnSync } from 'node:child_process'
import { promisify } from 'node:util'
import t from 'tap'
import { openDns } from '../../resolver/dns-server.ts'
import { contextOf, DIRECTORY } from '../support/dns-fixture.ts'

const run = promisify(execFile)
const skip = spawnSync('dig', ['-v']).error === undefined ? false : 'dig is not installed'
const ZONE = 'any.test'
const context = contextOf(DIRECTORY, { cookies: { secrets: [Buffer.alloc(16, 7)], nowSec: 1e9 } })

/** What dig shows of one reply. */
interface Shown {
  readonly status: string
  readonly opcode: string
  /** As dig writes them, but `qr`: `aa rd`. */
  readonly flags: string
  /** Records: question, answer, authority, additional. */
  readonly counts: string
  /** The line of OPT, such as `version: 0, flags: do; udp: 1232`; empty: none. */
  readonly edns: string
  /** Options of the reply, by dig's names, without what they hold. */
  readonly options: readonly string[]
  /** Of all records, in order. */
  readonly types: readonly string[]
}

function readShown(text: string): Shown {
  const part = (pattern: RegExp) => pattern.exec(text)?.[1]?.trim() ?? ''
  const opt = part(/;; OPT PSEUDOSECTION:\n([\s\S]*?)\n(?:;;|$)/).split('\n')
  return {
    status: part(/status: (\w+)/),
    opcode: part(/opcode: (\w+)/),
    flags: part(/;; flags: qr ?([^;]*);/),
    counts: [...(/QUERY: (\d+), ANSWER: (\d+), AUTHORITY: (\d+), ADDITIONAL: (\d+)/.exec(text) ?? [])]
      .slice(1)
      .join(' '),
    edns: opt[0]!.replace('; EDNS: ', ''),
    options: opt.slice(1).map((line) => /^; ([A-Z-]+)/.exec(line)?.[1] ?? line),
    types: [...text.matchAll(/^[\w.]+\s+\d+\s+IN\s+(\w+)/gm)].map(([, type]) => type!),
  }
}

const PLAIN = '+noedns +noad +norec'
const EDNS = '+edns=0 +nocookie +noad +norec'
const NEWER = '+edns=1 +noednsneg +nocookie +noad +norec'
const COOKIE = '+cookie=0102030405060708'
const SOA_PLAIN = { status: 'NOERROR', flags: 'aa', counts: '1 1 0 0', edns: '', types: ['SOA'] }
const SOA_EDNS = {
  status: 'NOERROR',
  flags: 'aa',
  counts: '1 1 0 1',
  edns: 'version: 0, flags:; udp: 1232',
  options: [] as string[],
  types: ['SOA'],
}
const SOA_DO = { ...SOA_EDNS, edns: 'version: 0, flags: do; udp: 1232' }
const NODATA_DO = { ...SOA_DO, counts: '1 0 1 1' }
const BADVERS = {
  status: 'BADVERS',
  flags: '',
  counts: '1 0 0 1',
  edns: SOA_EDNS.edns,
  options: [],
  types: [],
}
const NOTIMP = { status: 'NOTIMP', flags: '', counts: '0 0 0 0', edns: '', opcode: 'RESERVED15' }

const TABLE: readonly (readonly [args: string, expected: Partial<Shown>])[] = [
  // Without EDNS: flags that a query has no business with change nothing and don't come back.
  [`${PLAIN} SOA`, SOA_PLAIN],
  [`${PLAIN} +aaflag SOA`, SOA_PLAIN],
  [`${PLAIN} +ad SOA`, SOA_PLAIN],
  [`${PLAIN} +cd SOA`, SOA_PLAIN],
  [`${PLAIN} +raflag SOA`, SOA_PLAIN],
  ['+noedns +noad +rec SOA', { ...SOA_PLAIN, flags: 'aa rd' }],
  [`${PLAIN} +tcflag SOA`, SOA_PLAIN],
  [`${PLAIN} +zflag SOA`, SOA_PLAIN],
  [`${PLAIN} +header-only +opcode=15`, NOTIMP],
  ['+noedns +header-only +opcode=15 +tcflag +rec +raflag +cd +ad +aaflag +zflag', { ...NOTIMP, flags: 'rd' }],
  [`${PLAIN} TYPE666`, { ...SOA_PLAIN, counts: '1 0 1 0' }],
  [`${PLAIN} +tcp SOA`, SOA_PLAIN],
  // EDNS 0: known options are answered, unknown ones and flags are not echoed.
  [`${EDNS} SOA`, SOA_EDNS],
  [`${EDNS} +dnssec +ignore +bufsize=512 DNSKEY`, NODATA_DO],
  [`${EDNS} +ednsopt=100 SOA`, SOA_EDNS],
  [`${EDNS} +dnssec SOA`, SOA_DO],
  [`${EDNS} +dnssec +cd SOA`, SOA_DO],
  [`${EDNS} +ednsflags=0x0080 SOA`, SOA_EDNS],
  [`${EDNS} +nsid SOA`, { ...SOA_EDNS, options: ['NSID'] }],
  [`+edns=0 +noad +norec ${COOKIE} SOA`, { ...SOA_EDNS, options: ['COOKIE'] }],
  [`${EDNS} +expire SOA`, SOA_EDNS],
  [`${EDNS} +subnet=0.0.0.0/0 SOA`, { ...SOA_EDNS, options: ['CLIENT-SUBNET'] }],
  [
    `+edns=0 +noad +norec +nsid +subnet=0.0.0.0/0 +expire ${COOKIE} SOA`,
    { ...SOA_EDNS, options: ['CLIENT-SUBNET', 'NSID', 'COOKIE'] },
  ],
  [`${EDNS} +dnssec +bufsize=512 +tcp DNSKEY`, NODATA_DO],
  [`${EDNS} +tcp +keepalive SOA`, { ...SOA_EDNS, options: ['TCP'] }],
  // Another version: ours is told, and nothing else is.
  [`${NEWER} SOA`, BADVERS],
  [`${NEWER} +ednsopt=100 SOA`, BADVERS],
  [`${NEWER} +dnssec SOA`, { ...BADVERS, edns: SOA_DO.edns }],
  [`${NEWER} +nsid SOA`, BADVERS],
  [`+edns=1 +noednsneg +noad +norec ${COOKIE} SOA`, BADVERS],
  [`${NEWER} +expire SOA`, BADVERS],
  [`${NEWER} +subnet=0.0.0.0/0 SOA`, BADVERS],
  // As BIND 9.11 and its dig ask.
  [`+edns=0 ${COOKIE} +noad +norec +dnssec SOA`, { ...SOA_DO, options: ['COOKIE'] }],
  [`+edns=0 ${COOKIE} +ad +rec SOA`, { ...SOA_EDNS, flags: 'aa rd', options: ['COOKIE'] }],
]

t.test('dig’s compliance questions get the answers of a good server', { skip }, async (t) => {
  const server = await openDns({ listen: [{ host: '127.0.0.1', port: 0 }], context })
  t.teardown(() => server.close())
  const port = String(server.addresses[0]!.port)
  const rows = [...TABLE]
  const askAll = async () => {
    for (let row = rows.shift(); row !== undefined; row = rows.shift()) {
      const [args, expected] = row
      const { stdout } = await run('dig', ['@127.0.0.1', '-p', port, '+tries=1', ...args.split(' '), ZONE])
      const shown = readShown(stdout)
      const told = Object.keys(expected).map((key) => [key, shown[key as keyof Shown]])
      t.same(Object.fromEntries(told), expected, `dig ${args}`)
    }
  }
  await Promise.all([askAll(), askAll(), askAll(), askAll()])
})
