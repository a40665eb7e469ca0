// Runs inside a network namespace of its own: the server at the addresses of three cores, port 53; above it a root
// that delegates the zone with glue; Unbound in front, which knows nothing but that root. Asks Unbound the questions
// given as JSON, [name, type, client][], and prints the answers to each.

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { openDns } from '../../resolver/dns-server.ts'
import { context, exchange, queryBytes, subnet } from './dns-fixture.ts'
import { until } from './processes.ts'
import { temporaryFolder } from './temporary-folder.ts'

const CORES = { ams: '192.0.2.10', nyc: '198.51.100.10', tok: '203.0.113.10' }
const RESOLVER_PORT = 5301

/** Root and parent in one: the zone's NS with their glue, and an operator's own name that leads into the zone. */
const ROOT = `. 60 IN SOA root. nobody. 1 60 60 60 60
. 60 IN NS root.
root. 60 IN A 192.0.2.1
www.operator.example. 60 IN CNAME mirror.any.test.
${Object.entries(CORES)
  .map(
    ([name, address]) =>
      `any.test. 60 IN NS ${name}.core.any.test.\n${name}.core.any.test. 60 IN A ${address}\n`,
  )
  .join('')}`

const configuration = (folder: string) => `server:
  interface: 127.0.0.1@${RESOLVER_PORT}
  access-control: 127.0.0.0/8 allow
  local-zone: "test." nodefault
  module-config: "subnetcache iterator"
  client-subnet-zone: any.test
  directory: "${folder}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  num-threads: 1
remote-control:
  control-enable: no
auth-zone:
  name: "."
  zonefile: "root.zone"
  for-downstream: no
  for-upstream: yes
  fallback-enabled: no
`

execFileSync('ip', ['link', 'set', 'lo', 'up'])
for (const address of Object.values(CORES)) execFileSync('ip', ['addr', 'add', `${address}/32`, 'dev', 'lo'])
const server = await openDns({ listen: [{ host: '0.0.0.0', port: 53 }], context })
const folder = temporaryFolder()
writeFileSync(join(folder, 'root.zone'), ROOT)
writeFileSync(join(folder, 'unbound.conf'), configuration(folder))
const unbound = spawn('unbound', ['-d', '-c', join(folder, 'unbound.conf')], { stdio: 'ignore' })
const gone = once(unbound, 'exit')
process.once('exit', () => unbound.kill('SIGKILL'))
const probe = queryBytes('any.test', 'SOA')
await until('unbound answers', async () => (await exchange(probe, RESOLVER_PORT, { limitMs: 500 })) !== null)

const seen: string[][] = []
for (const [name, type, client] of JSON.parse(process.argv[2]!) as [string, string, string | null][]) {
  const options = client === null ? [] : [subnet(client, 24)]
  const reply = await exchange(queryBytes(name, type, options), RESOLVER_PORT)
  seen.push(reply === null ? ['none'] : [reply.message.rcode, ...[...reply.answers].sort()])
}
unbound.kill('SIGKILL')
await gone
await server.close()
process.stdout.write(JSON.stringify(seen))
