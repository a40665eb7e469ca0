// The query log: what a line says, where lines go, and what happens when they can't.

import { execFile } from 'node:child_process'
import { existsSync, readFileSync, renameSync, statSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { openCore } from '../../core-node/main.ts'
import { queryLine } from '../../core-node/query-line.ts'
import { QueryLog } from '../../core-node/query-log.ts'
import { answerDns } from '../../resolver/dns-answer.ts'
import { testConfig } from '../support/core-fixture.ts'
import { asker, context, queryBytes, subnet } from '../support/dns-fixture.ts'
import { askDns, startCore, until } from '../support/processes.ts'

const AT_MS = Date.UTC(2026, 10, 20, 12, 0, 0, 5)

function lineOf(packet: Uint8Array, from = asker(), whole = false): Record<string, unknown> {
  const text = queryLine(answerDns(context, packet, from).facts, from, AT_MS, whole)
  t.notMatch(text, /[\n\r]/)
  return JSON.parse(text)
}

t.test('a line tells who asked what, and what was said', async (t) => {
  const packet = queryBytes('mirror.any.test', 'A', [subnet('100.64.2.77', 32)])
  t.strictSame(lineOf(packet, asker('192.0.2.129')), {
    time: '2026-11-20T12:00:00.005Z',
    proto: 'udp',
    asker: '192.0.2.0/24',
    ecs: '100.64.2.0/24',
    name: 'mirror.any.test.',
    type: 'A',
    outcome: 'answered',
    rcode: 'NOERROR',
    service: 'mirror',
    member: 'nyc',
    basis: 'measured',
    ms: 6,
    queryBytes: packet.length,
    replyBytes: packet.length + 16,
    truncated: false,
  })
  t.match(lineOf(packet, asker('192.0.2.129', 'tcp'), true), {
    proto: 'tcp',
    asker: '192.0.2.129',
    ecs: '100.64.2.77',
  })
})

t.test('addresses are cut to the network of a site', async (t) => {
  const query = queryBytes('mirror.any.test', 'AAAA', [subnet('2001:db8:c:4242::1', 128)])
  const line = lineOf(query, asker('2001:db8:1:2:3::4'))
  t.same([line.asker, line.ecs], ['2001:db8:1::/48', '2001:db8:c::/48'])
  t.equal(lineOf(queryBytes('any.test', 'SOA', [subnet('100.64.2.0', 24)])).ecs, null, 'nobody was chosen')
})

t.test('whatever a name holds, it is one line and reads as in a zone file', async (t) => {
  // A label of a dot, a quote, a line feed and a byte above ASCII; then the root.
  const name = Buffer.from([5, 0x61, 0x2e, 0x22, 0x0a, 0xe9, 0])
  const packet = Buffer.concat([
    queryBytes('x', 'A', null).subarray(0, 12),
    name,
    Buffer.from([0xff, 0, 0, 1]),
  ])
  t.match(lineOf(packet), {
    name: 'a\\.\\"\\010\\233.',
    type: 'TYPE65280',
    rcode: 'REFUSED',
    member: null,
    ms: null,
  })
  t.match(lineOf(Buffer.alloc(5)), {
    name: null,
    type: null,
    outcome: 'dropped-short',
    rcode: null,
    replyBytes: 0,
  })
})

async function openLog(t: Test): Promise<{ log: QueryLog; file: string; troubles: Error[] }> {
  const file = join(t.testdir(), 'queries.log')
  const troubles: Error[] = []
  const log = await QueryLog.open({ file, onTrouble: (error) => troubles.push(error) })
  t.teardown(() => log.close())
  return { log, file, troubles }
}

const settled = (log: QueryLog, lines: number) =>
  until(`${lines} lines`, () => log.counts.written + log.counts.dropped === lines)

t.test('lines are written whole and in order', async (t) => {
  const { log, file } = await openLog(t)
  const lines = Array.from({ length: 5000 }, (_, i) => `line ${i}`)
  for (const line of lines) log.add(line)
  await log.close()
  t.equal(readFileSync(file, 'utf8'), `${lines.join('\n')}\n`)
  t.same(log.counts, { written: 5000, dropped: 0 })
  t.equal(statSync(file).mode & 0o007, 0, 'not for everybody to read')
})

t.test('logrotate may move the file away and have it opened anew', async (t) => {
  const { log, file } = await openLog(t)
  log.add('one')
  await settled(log, 1)
  renameSync(file, `${file}.1`)
  log.add('two')
  await settled(log, 2)
  t.notOk(existsSync(file), 'until it is told, it writes on where it was')
  log.reopen()
  log.add('three')
  await log.close()
  t.equal(readFileSync(`${file}.1`, 'utf8'), 'one\ntwo\n')
  t.equal(readFileSync(file, 'utf8'), 'three\n')
})

t.test('or copy it and truncate it under way', async (t) => {
  const { log, file } = await openLog(t)
  log.add('one')
  await settled(log, 1)
  truncateSync(file)
  log.add('two')
  await log.close()
  t.equal(readFileSync(file, 'utf8'), 'two\n', 'with no hole before it')
})

t.test(
  'a file that takes nothing costs lines, and nothing else',
  { skip: existsSync('/dev/full') ? false : 'there is no /dev/full' },
  async (t) => {
    const troubles: Error[] = []
    const log = await QueryLog.open({ file: '/dev/full', onTrouble: (error) => troubles.push(error) })
    for (let i = 0; i < 3; i++) {
      log.add('lost')
      await settled(log, i + 1)
    }
    await log.close()
    t.same(log.counts, { written: 0, dropped: 3 })
    t.match(troubles, [{ code: 'ENOSPC' }], 'told once')
    t.equal(troubles.length, 1)
  },
)

t.test('what can not be written as fast as it comes is dropped and counted', async (t) => {
  const { log, file } = await openLog(t)
  const line = 'x'.repeat(1023)
  // Nothing is written before this turn of the event loop ends.
  for (let i = 0; i < 5000; i++) log.add(line)
  await log.close()
  t.same(log.counts, { written: 4096, dropped: 904 }, 'four MiB wait, no more')
  t.equal(statSync(file).size, 4 << 20)
})

t.test('a file that can not be opened stops the start, and says which', async (t) => {
  const config = testConfig({ queryLog: join(t.testdir(), 'no-such-folder', 'x') })
  await t.rejects(openCore(config, pino({ level: 'silent' })), /query-log: can't write .*no-such-folder/)
})

const dig = promisify(execFile)

for (const dnsWorkers of ['0', '1']) {
  t.test(
    `a core with ${dnsWorkers} workers logs each packet, by UDP and by TCP, where all are sampled`,
    async (t) => {
      const file = join(t.testdir(), 'queries.log')
      const running = await openCore(
        testConfig({ queryLog: file, queryLogSample: '1', dnsWorkers }),
        pino({ level: 'silent' }),
      )
      t.teardown(() => running.close())
      const at = ['@127.0.0.1', '-p', `${running.dns.addresses[0]!.port}`]
      await dig('dig', [...at, 'core.any.test', 'A', '+subnet=198.51.100.0/24'])
      await dig('dig', [...at, 'nothing.any.test', 'HTTPS', '+tcp'])
      const lines = () => readFileSync(file, 'utf8').trim().split('\n').filter(Boolean)
      await until('two lines', () => lines().length === 2)
      const told = lines()
        .map((line) => JSON.parse(line))
        .sort((a, b) => b.proto.localeCompare(a.proto))
      t.match(told, [
        {
          proto: 'udp',
          name: 'core.any.test.',
          ecs: '198.51.100.0/24',
          member: 'core1',
          asker: '127.0.0.0/24',
        },
        { proto: 'tcp', name: 'nothing.any.test.', type: 'HTTPS', rcode: 'NXDOMAIN', service: null },
      ])
      t.ok(Math.abs(Date.parse(told[0].time) - Date.now()) < 60_000)
    },
  )
}

t.test('SIGHUP has a running core go on in a new file', async (t) => {
  const file = join(t.testdir(), 'queries.log')
  const core = await startCore({ flags: ['--query-log', file, '--query-log-sample', '1'] })
  t.teardown(async () => {
    core.process.kill('SIGTERM')
    await core.ended
  })
  const hasLine = (path: string) => () =>
    existsSync(path) && readFileSync(path, 'utf8').includes('core.any.test')
  await askDns(core, 'core.any.test')
  await until('the first line', hasLine(file))
  renameSync(file, `${file}.1`)
  core.process.kill('SIGHUP')
  await until('a new file', () => existsSync(file))
  await askDns(core, 'core.any.test')
  await until('a line in the new file', hasLine(file))
})

t.test('a reader of standard output that goes takes no core with it', async (t) => {
  const core = await startCore({ flags: ['--query-log', '-', '--query-log-sample', '1'] })
  t.teardown(async () => {
    core.process.kill('SIGTERM')
    await core.ended
  })
  await askDns(core, 'core.any.test')
  await until('a line', () => core.output().includes('core.any.test'))
  core.process.stdout!.destroy()
  await until('lines are lost', async () => {
    await askDns(core, 'core.any.test')
    return core.output().includes('lines of the query log are lost')
  })
  t.same(await askDns(core, 'core.any.test'), ['127.0.0.1'])
  t.equal(core.process.exitCode, null)
})
