#!/usr/bin/env node
// The door of the command, in plain JavaScript that every Node >= 20 runs. In the published package it runs
// what was built; in a clone, the TypeScript sources, under the Node that the clone's dependencies bring
// where this one is too old for them: then signals and the exit code are passed on.

import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const folder = dirname(dirname(fileURLToPath(import.meta.url)))
const source = join(folder, 'cli.ts')

if (!existsSync(source)) {
  await runHere('../dist/cli.js')
} else if (process.features.typescript) {
  await runHere('../cli.ts')
} else {
  runUnder(join(folder, '..', 'node_modules', '.bin', 'node'))
}

/** @param {string} cli */
async function runHere(cli) {
  const { main } = await import(cli)
  const { version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  await main(process.argv.slice(2), version)
}

/** @param {string} node */
function runUnder(node) {
  const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: 'inherit' })
  for (const signal of /** @type {const} */ (['SIGTERM', 'SIGINT', 'SIGHUP'])) {
    process.on(signal, () => child.kill(signal))
  }
  child.on('error', () => {
    process.stderr.write(
      `nearcast-agent: this clone needs its dependencies: run 'npm install' in ${dirname(folder)}\n`,
    )
    process.exit(1)
  })
  child.on('exit', (code, signal) => process.exit(signal === null ? (code ?? 1) : 1))
}
