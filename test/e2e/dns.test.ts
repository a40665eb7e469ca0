// A core's DNS as its settings say: several zones, aliases, what strangers are told, a serial that moves with the
// directory, and cookies that outlive the process.

import packet from 'dns-packet'
import t from 'tap'
import { exchange, queryBytes } from '../support/dns-fixture.ts'
import { api, type CoreProcess, startCore } from '../support/processes.ts'

async function send(core: CoreProcess, bytes: Uint8Array) {
  const seen = await exchange(bytes, core.dnsPort)
  if (seen === null) throw new Error('no answer')
  return seen
}

t.test('a core answers DNS as its settings say, and again after a restart', async (t) => {
  const flags = ['--zone', 'any.test,cast.example.org', '--dns-id', 'fra 1', '--dns-version', 'a core']
  const core = await startCore({ flags: [...flags, '--name', 'one'] })
  t.teardown(() => core.process.kill('SIGKILL'))
  const chaos = async (name: string) => {
    const questions = [{ name, type: 'TXT' as const, class: 'CH' as const }]
    return (await send(core, packet.encode({ type: 'query', id: 1, questions }))).answers
  }
  t.same(await chaos('id.server'), ['TXT fra 1'])
  t.same(await chaos('version.bind'), ['TXT a core'])
  const nsid = await send(core, queryBytes('any.test', 'SOA', [{ code: 3, data: Buffer.alloc(0) }]))
  t.equal(nsid.options[0]!.data!.toString(), 'fra 1')

  const serial = async (zone: string) => {
    const { message } = await send(core, queryBytes(zone, 'SOA'))
    return (message.answers![0] as { data: { serial: number } }).data.serial
  }
  const before = await serial('any.test')
  const put = await api(core, 'PUT', 'services/mirror', { aliases: ['www.cast.example.org'], verify: 'none' })
  t.ok(put.ok)
  t.ok((await serial('any.test')) > before, 'a service came')
  t.equal(await serial('cast.example.org'), await serial('any.test'))
  for (const zone of ['any.test', 'cast.example.org']) {
    const { answers, authority } = await send(core, queryBytes(`www.${zone}`, 'A'))
    t.same(answers, [`CNAME mirror.${zone}`], 'nobody there yet')
    t.same(authority, [`SOA ${zone} one.core.${zone} 10`])
    const { answers: names, additional } = await send(core, queryBytes(zone, 'NS'))
    t.same([names, additional], [[`NS one.core.${zone}`], ['A 127.0.0.1']])
  }

  const cookie = async (of: CoreProcess, shown: Buffer) => {
    const { options } = await send(of, queryBytes('any.test', 'SOA', [{ code: 10, data: shown }]))
    return options[0]!.data!
  }
  const made = await cookie(core, Buffer.alloc(8, 1))
  core.process.kill('SIGTERM')
  await core.ended
  const again = await startCore({ ...core, flags: [...flags, '--name', 'one'] })
  t.teardown(() => again.process.kill('SIGKILL'))
  t.same(await cookie(again, made), made, 'a cookie made before is as good as new')
})
