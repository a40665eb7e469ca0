#!/usr/bin/env node
// The command `nearcast`, whatever Node runs it: hands over to core-node/cli.ts under Node 24 or newer.
//
// Plain JavaScript for any Node from 20 on. An older Node starts the Node 24 that the dependencies brought
// as a child, with its terminal, its signals and its exit code: a caller sees one program. A core is given its
// environment before it begins, since the C library reads that once.

import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import module from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const program = join(root, 'node_modules', '.bin', 'node')

if (!existsSync(join(root, 'node_modules', 'commander'))) {
  process.stderr.write(`nearcast: its dependencies are not installed. Run \`npm start\` in ${root} once.\n`)
  process.exitCode = 1
} else if (Number.parseInt(process.versions.node, 10) >= 24) {
  if (wantsLargePages()) runAnew()
  // What TypeScript becomes is kept: later starts take half the time and 25 MB less. Not to be had: no harm.
  module.enableCompileCache(join(root, 'node_modules', '.cache', 'nearcast'))
  const { runProcess } = await import('../cli.ts')
  await runProcess()
} else {
  runUnderNewer()
}

/**
 * A core's tables are read here and there, and on pages of 4 KiB much of that is finding the page: large ones are
 * worth some percent of all answers, and take 5 MiB more. glibc asks for them where its setting says so.
 */
function wantsLargePages() {
  const isSaid = tunables().some((tunable) => tunable.startsWith('glibc.malloc.hugetlb='))
  return process.platform === 'linux' && process.argv[2] === 'core' && !isSaid
}

/** What the operator set of glibc. It ends each with a zero byte when it has read them, so the variable tells the first only. */
function tunables() {
  try {
    return readFileSync('/proc/self/environ', 'latin1')
      .split('\0')
      .map((line) => line.replace(/^GLIBC_TUNABLES=/, ''))
      .flatMap((line) => (line.startsWith('glibc.') ? line.split(':') : []))
  } catch {
    return []
  }
}

/** The environment for that, with what the operator set. */
function withLargePages() {
  return { ...process.env, GLIBC_TUNABLES: [...tunables(), 'glibc.malloc.hugetlb=1'].join(':') }
}

/** This process begins again; where it can't, it goes on as it is. */
function runAnew() {
  const args = [process.execPath, ...process.execArgv, ...process.argv.slice(1)]
  process.execve?.(process.execPath, args, withLargePages())
}

function runUnderNewer() {
  const args = [fileURLToPath(import.meta.url), ...process.argv.slice(2)]
  const env = wantsLargePages() ? withLargePages() : process.env
  const child = spawn(program, args, { stdio: 'inherit', env })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => {
      // Ctrl-C reaches the child from the terminal itself; twice would mean more than once.
      if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal)
    })
  }
  child.on('error', (error) => {
    process.stderr.write(
      `nearcast: ${program} can't be run (${error.message}). Run \`npm start\` in ${root} once.\n`,
    )
    process.exitCode = 1
  })
  child.on('exit', (code, signal) => {
    if (signal === null) {
      process.exitCode = code ?? 1
      return
    }
    process.removeAllListeners(signal)
    process.kill(process.pid, signal)
  })
}
