// A core as a daemon: started as root it becomes its user, and told to end it answers what was asked before.

import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { CONFIG_KEYS } from '../../core-node/settings/config.ts'
import { queryBytes } from '../support/dns-fixture.ts'
import { noNamespace, runInside } from '../support/namespace.ts'
import { startCore, until } from '../support/processes.ts'

const noRoot = process.getuid?.() === 0 ? noNamespace() : 'only root can become another user'

t.test('started as root, it opens its ports and becomes its user for good', { skip: noRoot }, async (t) => {
  const seen = (await runInside('privileges-inside.ts')) as Record<string, string> & { threads: string[] }
  t.equal(seen.threads.length, 1, 'all threads alike')
  const [uid, gid, groups, permitted, effective] = seen.threads[0]!.split(', ')
  t.match(uid, /^Uid: ([1-9]\d*) \1 \1 \1$/, 'never root again')
  t.match(gid, /^Gid: ([1-9]\d*) \1 \1 \1$/)
  t.match(groups, /^Groups:( [1-9]\d*)*$/)
  t.same([permitted, effective], [`CapPrm: ${'0'.repeat(16)}`, `CapEff: ${'0'.repeat(16)}`])
  t.match(seen, { put: 201, answer: 'NOERROR', exitCode: 0, kept: 'NOERROR' })
  t.same(seen.owners, [Number(uid!.split(' ')[1])], 'the folder and all in it are the user’s')
  t.match(seen.unknown, /user: "nosuchuser": expected a user of this system/)
  t.match(seen.root, /user: "root": expected a user of this system \(that is root itself\)/)
  t.match(seen.another, /data: .* belongs to user \d+: expected daemon \(chown -R daemon /)
  t.match(seen.notRoot, /^user: "daemon": expected to be started as root, or as that user\nit may be nobody$/)
  t.equal(seen.besideRootsFolder, 'it started', 'a file system’s own folder is no matter')
})

t.test('the units of systemd run what is there, with settings that exist', async (t) => {
  const root = join(import.meta.dirname, '../..')
  const unit = readFileSync(join(root, 'systemd/nearcast.service'), 'utf8')
  const [, program = '', flags] = /^ExecStart=\/usr\/bin\/node \/opt\/nearcast\/(\S+) core (.*)$/m.exec(unit)!
  t.ok(existsSync(join(root, program)), program)
  t.equal(flags, '--config /etc/nearcast/core.yaml')
  const [, variable = ''] = /^Environment=(\w+)=/m.exec(unit)!
  t.ok(
    CONFIG_KEYS.some((key) => key.variable === variable),
    variable,
  )
  for (const [, page = ''] of unit.matchAll(/^Documentation=file:\/opt\/nearcast\/(.*)$/gm))
    t.ok(existsSync(join(root, page)), page)
  const agent = readFileSync(join(root, 'systemd/nearcast-agent.service'), 'utf8')
  const manual = readFileSync(join(root, 'server-agent/README.md'), 'utf8')
  t.match(agent, /^ExecStart=\/usr\/bin\/env nearcast-agent --config /m)
  t.match(manual, '`--config FILE`')
  t.match(manual, `\`${/^Environment=(\w+)=/m.exec(agent)![1]}\``)
})

/** Sockets at ports of their own, so that the system spreads them over the server's. */
const SOCKETS = 30
const EACH = 10

t.test('told to end, it answers all that was asked before, by UDP and by TCP', async (t) => {
  const core = await startCore()
  t.teardown(() => core.process.kill('SIGKILL'))
  const query = queryBytes('any.test', 'SOA')
  const tcp = connect(core.dnsPort, '127.0.0.1')
  await once(tcp, 'connect')
  // Until it goes on again nothing is read: the signal is there before all of them.
  core.process.kill('SIGSTOP')
  let answers = 0
  const sockets = Array.from({ length: SOCKETS }, () => createSocket('udp4').on('message', () => answers++))
  t.teardown(() => sockets.map((socket) => socket.close()))
  for (const socket of sockets) for (let i = 0; i < EACH; i++) await send(socket, query, core.dnsPort)
  tcp.write(Buffer.concat([Buffer.from([0, query.length]), query]))
  const answered = once(tcp, 'data')
  core.process.kill('SIGTERM')
  core.process.kill('SIGCONT')
  t.same(await core.ended, [0, null])
  t.ok((await answered)[0].length > query.length)
  await until('all answers are here', () => answers === SOCKETS * EACH, 2000).catch(() => {})
  t.equal(answers, SOCKETS * EACH)
})

function send(socket: Socket, packet: Buffer, port: number): Promise<void> {
  return new Promise((resolve) => socket.send(packet, port, '127.0.0.1', () => resolve()))
}
