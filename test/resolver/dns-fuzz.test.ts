// The DNS server under packets that nobody should send: every length and 20,000 mutations into the functions, and as
// many over sockets; and that the judge of replies finds what is wrong with one. With a corpus: npm run fuzz:dns.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { judgeReply } from '../fuzz/dns-judge.ts'
import { readPackets } from '../fuzz/dns-packets.ts'
import type { Report } from '../fuzz/dns-report.ts'
import { type Plan, runDirect, runSockets } from '../fuzz/dns-run.ts'
import { answerHere } from '../fuzz/dns-world.ts'
import { queryBytes, subnet } from '../support/dns-fixture.ts'
import { noWorkers } from '../support/dns-workers.ts'

const PLAN: Plan = { seed: 11, corpus: [], count: 20_000, seconds: 0 }
/** Four ways, 20,000 in all. */
const SOCKETS: Plan = { ...PLAN, seed: 12, count: 5000 }

/** The run found nothing, and looked at something. */
function isClean(t: Tap, report: Report, least = SOCKETS.count): void {
  t.strictSame([report.faultCount, report.faults], [0, []])
  t.ok(report.packets > least, `${report.packets} packets`)
}
type Tap = Pick<typeof t, 'strictSame' | 'ok'>

t.test('no length and no mutation makes the server throw, or say what it may not', async (t) => {
  const report = runDirect(PLAN)
  isClean(t, report, PLAN.count)
  for (const outcome of ['answered', 'nodata', 'nxdomain', 'refused', 'formerr', 'badvers', 'notimp'])
    t.ok(report.outcomes[outcome]! > 100, `${outcome} ${report.outcomes[outcome]} times`)
})

t.test('over UDP, every packet is counted once, and its reply is right', async (t) => {
  isClean(t, await runSockets(SOCKETS, 'udp', { limited: false, workers: 0 }))
})

t.test('threads count every packet once, and reply as one does', { skip: noWorkers() }, async (t) => {
  isClean(t, await runSockets(SOCKETS, 'udp', { limited: false, workers: 2 }))
})

t.test('over TCP, every packet is counted once, and its reply is right', async (t) => {
  isClean(t, await runSockets(SOCKETS, 'tcp', { limited: false, workers: 0 }))
})

t.test('where responses are limited, every packet is counted once', async (t) => {
  isClean(t, await runSockets(SOCKETS, 'udp', { limited: true, workers: noWorkers() ? 0 : 2 }))
})

t.test('a reply that is wrong is found', async (t) => {
  const query = queryBytes('mirror.any.test', 'A', [subnet('100.64.1.0', 24)])
  const good = Buffer.from(answerHere(query, 'udp').reply!)
  t.equal(judgeReply(query, good, 'udp'), null)
  const changed = (at: number, value: number) => {
    const reply = Buffer.from(good)
    reply[at] = value
    return reply
  }
  const response = Buffer.from(query)
  response[2]! |= 0x80
  const small = queryBytes('_why.wide.any.test', 'TXT', [], { udpPayloadSize: 512 })
  const plain = queryBytes('_why.wide.any.test', 'TXT', null)
  const whole = (asked: Buffer) => Buffer.from(answerHere(asked, 'tcp').reply!)
  const table: readonly (readonly [string, Buffer, Buffer, RegExp])[] = [
    ['another id', query, changed(0, 1), /id/],
    ['no response', query, changed(2, good[2]! & 0x7f), /QR/],
    ['another opcode', query, changed(2, good[2]! | 0x10), /opcode/],
    ['RA', query, changed(3, 0x80), /RA/],
    ['another question', query, changed(14, 0x58), /question/],
    ['TC with answers', query, changed(2, good[2]! | 2), /TC/],
    ['an error with answers', query, changed(3, 3), /rcode 3/],
    ['more answers than there are', query, changed(7, 9), /read|behind/],
    ['fewer', query, changed(7, 0), /behind|read/],
    ['cut', query, good.subarray(0, -3), /read|behind/],
    ['bytes behind its end', query, Buffer.concat([good, Buffer.alloc(2)]), /behind/],
    ['to a response', response, good, /no query/],
    ['too long for what was said', small, whole(small), /512 may be/],
    ['too long without EDNS', plain, whole(plain), /512 may be/],
  ]
  for (const [name, asked, reply, expected] of table) t.match(judgeReply(asked, reply, 'udp'), expected, name)
})

t.test('a file of packets is read, or refused', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'nearcast-packets-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'packets')
  writeFileSync(file, Buffer.from('0200616200000100ff', 'hex'))
  t.strictSame(readPackets(file), [Buffer.from('ab'), Buffer.alloc(0), Buffer.from([0xff])])
  for (const cut of ['02', '0300ab']) {
    writeFileSync(file, Buffer.from(cut, 'hex'))
    t.throws(() => readPackets(file), /behind its length/)
  }
})
