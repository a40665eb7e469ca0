// The documentation as its readers use it: the commands of README.md's quick start and of the agent
// protocol's walk-through, and of the example overlay, are pasted into a shell as they stand there, against a
// core of the test's own (only ports and the data folder are other than the defaults).

import { execFile, spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { type CoreProcess, startCore } from '../support/processes.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
t.setTimeout(180_000)

const missing = ['bash', 'dig', 'curl', 'npx'].filter(
  (name) => spawnSync('sh', ['-c', `command -v ${name}`]).status !== 0,
)
const skip = missing.length === 0 ? false : `${missing.join(', ')} not installed`

/** The text of one section, to the next heading of its level. */
function section(page: string, heading: string): string {
  const text = readFileSync(`${ROOT}/${page}`, 'utf8')
  const after = text.split(`\n## ${heading}\n`)[1]
  if (after === undefined) throw new Error(`${page} has no section '${heading}'`)
  return after.split('\n## ')[0]!
}

/** What a reader would type: sh blocks whole, of console blocks the lines after a `$`. */
function commandsOf(text: string): string {
  const blocks = [...text.matchAll(/```(sh|console)\n([\s\S]*?)```/g)]
  const typed = blocks.map(([, kind, body]) =>
    kind === 'sh'
      ? body!
      : [...body!.matchAll(/^\$ (.*)$/gm)].map(([, line]) => `echo "# $_"\n${line}\n`).join(''),
  )
  return typed.join('\n')
}

/** Pastes commands into a shell in the clone, with the test's ports instead of the default ones. */
function paste(core: CoreProcess, commands: string): Promise<string> {
  const httpPort = new URL(core.url).port
  const script = commands.replaceAll('8053', httpPort).replaceAll('-p 5300', `-p ${core.dnsPort}`)
  const { NODE_OPTIONS: _, ...env } = process.env
  const settings = { NEARCAST_CORE: core.url, NEARCAST_DATA: core.data, TMPDIR: core.data }
  const file = join(core.data, 'pasted.sh')
  // Jobs are process groups: npx would not pass a signal on.
  const ending = 'for job in $(jobs -p); do kill -- -$job; done; wait'
  writeFileSync(file, `set -m\n${script.replaceAll('/tmp/', `${core.data}/`)}\n${ending}\n`)
  return new Promise((resolve) => {
    const options = { cwd: ROOT, env: { ...env, ...settings }, timeout: 90_000 }
    execFile('bash', [file], options, (_error, out, err) => resolve(`${out}\n${err}`))
  })
}

t.test('the quick start of README.md works when pasted', { skip, timeout: 120_000 }, async (t) => {
  const core = await startCore()
  t.teardown(() => core.process.kill('SIGKILL'))
  const quickStart = section('README.md', 'Quick start: three servers on one machine').split(
    'On real servers',
  )[0]!
  const out = await paste(core, commandsOf(quickStart))
  for (const name of ['s1', 's2', 's3']) t.match(out, `joined demo/${name} at ${core.url}`)
  t.match(out, /^127\.0\.0\.1[123]$/m, 'dig names who is as good as the best')
  t.match(out, /HTTP\/1\.1 302 Found\r?\nLocation: http:\/\/127\.0\.0\.1\d:8080\/pub\/iso\/file\?x=1/)
  t.match(out, /s2 .* known from the client being a host itself/)
  t.match(out, /s1 +s1 +left /, 'an agent that was ended')
  t.match(out.slice(out.lastIndexOf('STATE')), /^127\.0\.0\.12$/m, 'what is left after another was killed')
  t.notMatch(out, /nearcast: |command not found|communications error/)
})

t.test('the walk-through of the agent protocol works when pasted', { skip }, async (t) => {
  const core = await startCore()
  t.teardown(() => core.process.kill('SIGKILL'))
  const out = await paste(core, commandsOf(section('docs/agent-protocol.md', 'A host’s life, with curl')))
  t.match(out, '{"service":"relay","member":"h1","host":"h1","state":"live"}')
  t.match(out, /"host":"h1","status":"ok"/)
  t.notMatch(out, /problem/)
})

t.test('the steps of docs/overlays.md work when pasted', { skip, timeout: 120_000 }, async (t) => {
  const core = await startCore()
  t.teardown(() => core.process.kill('SIGKILL'))
  const steps = ['Bootstrap my overlay', 'Keep it near', 'Keep it whole']
  const out = await paste(core, steps.map((step) => commandsOf(section('docs/overlays.md', step))).join('\n'))
  for (let n = 1; n <= 6; n++) t.match(out, `joined mesh/n${n} at ${core.url}`)
  const replies = out.split('\n').flatMap((line) => (line.startsWith('{') ? [JSON.parse(line)] : []))
  const namesOf = (members: readonly { name: string }[]) => members.map(({ name }) => name)
  const [bootstrap, near, ring, aroundN3, random] = replies
  t.equal(new Set([...namesOf(bootstrap.near), ...namesOf(bootstrap.random)]).size, 4)
  t.equal(near.members.length, 2)
  t.notOk(namesOf(near.members).includes('n1'), 'excluded')
  t.ok(namesOf(ring.members).every((name) => ['n4', 'n5', 'n6'].includes(name)))
  t.equal(namesOf(aroundN3.members)[0], 'n3', 'the nearest to 127.0.0.13 is who is there')
  t.equal(random.members.length, 2)
  t.match(out, /mesh for 127\.0\.0\.13, policy nearest/)
  t.notMatch(out, /nearcast: |command not found/)
})

t.test('the example overlay runs when pasted', { skip }, async (t) => {
  const core = await startCore()
  t.teardown(() => core.process.kill('SIGKILL'))
  const out = await paste(core, commandsOf(section('examples/overlay/README.md', 'Run it')))
  for (const name of ['n1', 'n2', 'n3', 'n4'])
    t.match(out, new RegExp(`^${name}: 3 links \\(n.*on the ring: n\\d$`, 'm'))
})
