// Runs inside a network namespace of its own, as root: starts cores with a user on ports below 1024, and prints who
// they are then, in each thread, what they answer, whose files they leave, and how they fail. JSON.

import { execFileSync } from 'node:child_process'
import { chmodSync, chownSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { exchange, queryBytes } from './dns-fixture.ts'
import { api, type CoreProcess, startCore } from './processes.ts'
import { temporaryFolder } from './temporary-folder.ts'

const PORTS = { dnsPort: 53, httpPort: 80 }
const FLAGS = ['--echo', '127.0.0.1:90']

/** What is loaded before, nobody need not be able to read. */
const AS_NOBODY = `
  const { openPrivileges } = await import('${new URL('../../core-node/privileges.ts', import.meta.url)}')
  process.setuid('nobody')
  try { openPrivileges('daemon', console) } catch (error) { console.log(error.message) }
  openPrivileges('nobody', console).drop()
  console.log('it may be nobody')`

const folder = temporaryFolder()
chmodSync(folder, 0o755)
const data = join(folder, 'new', 'data')

/** What the system says of each thread of a process, each different answer once. */
function threadsOf({ process: { pid } }: CoreProcess): string[] {
  const wanted = /^(?:Uid|Gid|Groups|CapPrm|CapEff):/
  const threads = readdirSync(`/proc/${pid}/task`).map((task) =>
    readFileSync(`/proc/${pid}/task/${task}/status`, 'utf8')
      .split('\n')
      .filter((line) => wanted.test(line))
      .map((line) => line.replace(/\s+/g, ' ').trim())
      .join(', '),
  )
  return [...new Set(threads)]
}

const ownersIn = (path: string) => [
  ...new Set([path, ...readdirSync(path).map((name) => join(path, name))].map((at) => statSync(at).uid)),
]

async function stop(core: CoreProcess): Promise<unknown> {
  core.process.kill('SIGTERM')
  return ((await core.ended) as unknown[])[0]
}

async function failure(flags: readonly string[], over: { data?: string } = {}): Promise<string> {
  try {
    await stop(await startCore({ data, ...PORTS, ...over, flags: [...FLAGS, ...flags] }))
    return 'it started'
  } catch (error) {
    return (error as Error).message
  }
}

execFileSync('ip', ['link', 'set', 'lo', 'up'])
const seen: Record<string, unknown> = {}
const flags = [...FLAGS, '--user', 'nobody:daemon']
const core = await startCore({ data, ...PORTS, flags })
seen.threads = threadsOf(core)
seen.put = (await api(core, 'PUT', 'services/kept', { verify: 'none' })).status
seen.answer = (await exchange(queryBytes('kept.any.test', 'A'), 53))?.message.rcode
seen.exitCode = await stop(core)
seen.owners = ownersIn(data)

const again = await startCore({ data, ...PORTS, flags })
seen.kept = (await exchange(queryBytes('kept.any.test', 'A'), 53))?.message.rcode
await stop(again)

seen.unknown = await failure(['--user', 'nosuchuser'])
seen.root = await failure(['--user', 'root'])
seen.another = await failure(['--user', 'daemon'])
const mixed = join(folder, 'mixed')
mkdirSync(join(mixed, 'lost+found'), { recursive: true })
chownSync(mixed, statSync(data).uid, 0)
seen.besideRootsFolder = await failure(['--user', 'nobody'], { data: mixed })
seen.notRoot = execFileSync(process.execPath, ['--input-type=module', '-e', AS_NOBODY], {
  encoding: 'utf8',
}).trim()
process.stdout.write(JSON.stringify(seen))
