// Installs what is missing, and only that: runs before `npm start` and, with --dev, before `npm test`.
//
// Invariant: when nothing is missing it changes nothing, says nothing and is done in milliseconds; what
// is installed already (the test tools, say) is never removed. Plain JavaScript without dependencies,
// for any Node from 20 on: nothing is installed yet. It does not update: versions are the lock file's.

import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const modules = join(root, 'node_modules')
const lockFile = join(modules, '.nearcast-install')

/** The packages by folder, as a lock file lists them; none where there is no such file. */
function packagesOf(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8')).packages
  } catch {
    return {}
  }
}

/** Names of packages that are wanted and not there in the version wanted. */
function missingPackages(dev) {
  const wanted = packagesOf(join(root, 'package-lock.json'))
  const installed = packagesOf(join(modules, '.package-lock.json'))
  const missing = []
  for (const [folder, entry] of Object.entries(wanted)) {
    if (!folder.startsWith('node_modules/') || entry.optional) continue
    if ((entry.dev || entry.devOptional) && !dev) continue
    const there = entry.link ? existsSync(join(root, folder)) : installed[folder]?.version === entry.version
    if (!there) missing.push(folder.slice('node_modules/'.length))
  }
  // npm's own list outlives a folder that somebody deleted: the direct ones are looked at themselves.
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  const direct = { ...manifest.dependencies, ...(dev ? manifest.devDependencies : {}) }
  for (const name of Object.keys(direct)) {
    if (!existsSync(join(modules, name, 'package.json')) && !missing.includes(name)) missing.push(name)
  }
  return missing
}

/** Runs npm, which is the one that runs us or else the one on the PATH. Returns null or what went wrong. */
function npm(args) {
  const under = process.env.npm_execpath
  const options = { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }
  const result = under?.endsWith('.js')
    ? spawnSync(process.execPath, [under, ...args], options)
    : spawnSync('npm', args, { ...options, shell: process.platform === 'win32' })
  if (result.error) return `npm can't be run: ${result.error.message}`
  return result.status === 0 ? null : `${result.stderr}${result.stdout}`.trim()
}

/** Ends with one paragraph: what was tried, what npm said of it, what to do. */
function fail(what, detail) {
  const reasons = detail
    .split('\n')
    .map((line) => line.replace(/^npm (error|ERR!) ?/, '').trim())
    .filter((line) => line !== '' && !/^(at |A complete log)/.test(line) && !line.startsWith('npm warn'))
  process.stderr.write(
    `nearcast: ${what} failed: ${reasons.slice(0, 6).join('; ')}. ` +
      'Check that this machine reaches the npm registry and may write to node_modules, then run the same command again.\n',
  )
  process.exit(1)
}

/** True when process `pid` still runs. */
function isAlive(pid) {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error.code === 'EPERM'
  }
}

/** Waits until no other start installs here; then this one may. A lock whose owner is dead is taken over. */
function takeLock() {
  mkdirSync(modules, { recursive: true })
  for (;;) {
    try {
      writeFileSync(lockFile, `${process.pid}`, { flag: 'wx' })
      process.on('exit', () => rmSync(lockFile, { force: true }))
      return
    } catch (error) {
      if (error.code !== 'EEXIST') fail('installing', error.message)
    }
    let owner = 0
    try {
      owner = Number(readFileSync(lockFile, 'utf8'))
    } catch {
      continue // it was given back in this moment
    }
    // An empty file (0) is a lock that is being written just now.
    if (owner > 0 && !isAlive(owner)) rmSync(lockFile, { force: true })
    else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200)
  }
}

function installPackages(dev) {
  process.stderr.write(`nearcast: installing what ${dev ? 'the tests need' : 'running needs'} (once)\n`)
  // Scripts of packages stay off but for `node`, which fetches the program for this machine: less code
  // is trusted, and better-sqlite3 uses the binary in its package instead of asking for a compiler.
  // --no-save: the lock file is read, never written.
  const kind = dev ? '--include=dev' : '--omit=dev'
  // Retries wait for 2 and 4 s, not for npm's 10 and 60: offline, the error should come while one looks.
  const patience = ['--fetch-retry-mintimeout=2000', '--fetch-retry-maxtimeout=4000']
  const quiet = ['--no-audit', '--no-fund', '--loglevel=error', '--no-update-notifier']
  const failure =
    npm(['install', kind, '--ignore-scripts', '--no-save', ...patience, ...quiet]) ??
    npm(['rebuild', 'node', ...quiet])
  if (failure !== null) fail('npm install', failure)
}

/**
 * tap compiles its set of plugins into itself, and comes with the default set: .taprc leaves TypeScript
 * to Node. Left to the first run, that run would still load the old set and fail.
 */
function isTapBuilt() {
  try {
    const built = readFileSync(join(modules, '@tapjs/test/test-built/dist/esm/index.js'), 'utf8')
    return !built.includes('@tapjs/typescript')
  } catch {
    return false
  }
}

function buildTap() {
  const program = join(modules, '.bin', 'node')
  const tap = join(modules, 'tap', 'dist', 'esm', 'run.mjs')
  const result = spawnSync(program, [tap, 'build'], {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  if (result.status !== 0 || !isTapBuilt()) {
    fail('building tap', `${result.error?.message ?? ''}${result.stderr ?? ''}${result.stdout ?? ''}`)
  }
}

function main() {
  const dev = process.argv.includes('--dev')
  const isDone = () =>
    missingPackages(dev).length === 0 && existsSync(join(modules, '.bin', 'node')) && (!dev || isTapBuilt())
  if (isDone()) return
  takeLock()
  if (isDone()) return // another start has done it meanwhile
  const hasDev = existsSync(join(modules, 'tap')) // --omit=dev would take it away
  if (missingPackages(dev).length > 0 || !existsSync(join(modules, '.bin', 'node')))
    installPackages(dev || hasDev)
  if (dev && !isTapBuilt()) buildTap()
}

main()
