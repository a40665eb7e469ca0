// The package as its users get it: packed, installed in an empty place by the Node of this machine (20 or
// later, not the one of this clone), run as a command, imported, and type-checked.
//
// Needs npm and its registry; says so and skips where they can't be reached.

import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, globSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t from 'tap'
import { api, askDns, nearcast, startCore, until } from '../support/processes.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
/** Without this clone's own programs, so that `node` and `npm` are the machine's. */
const path = process.env.PATH!.split(delimiter).filter((folder) => !folder.includes('node_modules'))
const env = { ...process.env, PATH: path.join(delimiter) }
/** tap puts its hooks into every Node that a test starts, by this variable; no user has them. */
const UNHOOKED = ['-u', 'NODE_OPTIONS']
const execute = promisify(execFile)
const run = (file: string, args: readonly string[], cwd: string = root) =>
  execute('env', [...UNHOOKED, file, ...args], { env, cwd })

/** Why npm can't do it here; null: it can. */
async function whyNot(): Promise<string | null> {
  try {
    await run('npm', ['view', 'typebox', 'version', '--fetch-retries=0', '--fetch-timeout=8000'])
    return null
  } catch (error) {
    return `npm or its registry can't be reached: ${String((error as { stderr?: string }).stderr ?? error).split('\n', 1)[0]}`
  }
}

/** npm's warnings, but for those about the settings of who runs the test. */
function warningsIn(text: string): string[] {
  return text
    .split('\n')
    .filter((line) => /warn|deprecated/i.test(line) && !/Unknown (user|env) config/.test(line))
}

const skip = await whyNot()

t.test(
  'the packed agent installs, runs and type-checks away from its clone',
  { skip: skip ?? false },
  async (t) => {
    const folder = t.testdir()
    const prefix = join(folder, 'prefix')
    const packed = await run(
      'npm',
      ['pack', '--json', '--pack-destination', folder],
      join(root, 'server-agent'),
    )
    const [{ filename, files }] = JSON.parse(packed.stdout) as [
      { filename: string; files: { path: string }[] },
    ]
    const names = files.map((file) => file.path)
    for (const name of [
      'README.md',
      'bin/nearcast-agent.js',
      'dist/agent.js',
      'dist/agent.d.ts',
      'dist/cli.js',
    ]) {
      t.ok(names.includes(name), name)
    }
    t.same(
      names.filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts')),
      [],
      'no sources',
    )

    const installed = await run('npm', ['install', '-g', '--prefix', prefix, join(folder, filename)])
    t.same(warningsIn(installed.stderr + installed.stdout), [], 'no warning')
    t.same(globSync('**/{*.node,binding.gyp}', { cwd: prefix }), [], 'nothing to compile')
    const home = join(prefix, 'lib', 'node_modules', 'nearcast-agent')

    await t.test('as a command, with a running core', async (t) => {
      const core = await startCore()
      t.teardown(() => core.process.kill('SIGKILL'))
      await api(core, 'PUT', 'services/mirror', {})
      const token = (await nearcast(core, 'token', 'create', '--service', 'mirror')).out.trim()
      const args = ['--core', core.url, '--token', token, '--name', 'a', '--service', 'mirror']
      const here = ['--address', '127.0.8.1', '--echo', '127.0.8.1:0', '--state', join(folder, 'state')]
      const command = [...UNHOOKED, join(prefix, 'bin', 'nearcast-agent'), ...args, ...here]
      const child = spawn('env', command, { env })
      t.teardown(() => child.kill('SIGKILL'))
      let said = ''
      child.stderr.on('data', (text) => {
        said += text
      })
      await until(
        'it is answered with',
        async () => (await askDns(core, 'mirror.any.test'))?.[0] === '127.0.8.1',
      )
      child.kill('SIGTERM')
      t.same(await once(child, 'close'), [0, null])
      t.match(said, /^joined mirror\/a at .*\nleft\n$/, 'and Node has nothing to warn of')
      t.match(await (await api(core, 'GET', 'services/mirror/members/a')).json(), { state: 'left' })
      t.ok(existsSync(join(folder, 'state', 'a.json')), 'its credential is kept')
    })

    await t.test('as a library', async (t) => {
      const consumer = join(folder, 'consumer')
      mkdirSync(join(consumer, 'node_modules'), { recursive: true })
      symlinkSync(home, join(consumer, 'node_modules', 'nearcast-agent'), 'dir')
      writeFileSync(join(consumer, 'package.json'), '{"type":"module"}')
      // The example of its README, which must not be wrong.
      const readme = readFileSync(join(home, 'README.md'), 'utf8')
      const example = /```ts\n([\s\S]*?)```/.exec(readme)?.[1]
      t.match(example, /from 'nearcast-agent'/)
      writeFileSync(
        join(consumer, 'example.ts'),
        `${example}\n// @ts-expect-error: a port is a number\nnew Agent({ cores: '', members: [{ service: 's', port: '80' }] })\n`,
      )
      writeFileSync(
        join(consumer, 'tsconfig.json'),
        JSON.stringify({
          compilerOptions: {
            ...{ strict: true, noEmit: true, module: 'nodenext', target: 'es2022', lib: ['es2022'] },
            ...{ types: ['node'], typeRoots: [join(root, 'node_modules', '@types')] },
          },
        }),
      )
      const tsc = join(root, 'node_modules', '.bin', 'tsc')
      const checked = await run(tsc, ['-p', consumer]).catch((error: { stdout: string }) => error)
      t.equal(checked.stdout, '', 'its types check')

      writeFileSync(
        join(consumer, 'run.js'),
        `import { Agent } from 'nearcast-agent'\ntry { new Agent({ cores: 'x' }) } catch (error) { console.log(error.code, error.key) }\n`,
      )
      const ran = await run('node', ['run.js'], consumer)
      t.same([ran.stdout, ran.stderr], ['bad-option cores\n', ''])
    })
  },
)
