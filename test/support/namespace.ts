// A network of a test's own: a program inside a fresh network namespace, where it is root and may have any address
// and port. Linux; needs root or the right to make user namespaces, and the programs `unshare` and `ip`.

import { execFile, spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const UNSHARE = [...(process.getuid?.() === 0 ? [] : ['--user', '--map-root-user']), '--net']

/** false: there can be such a network here; else why not, for `skip`. */
export function noNamespace(): string | false {
  const { status } = spawnSync('unshare', [...UNSHARE, 'ip', 'link', 'set', 'lo', 'up'])
  return status === 0 ? false : 'no network namespace of its own is to be had'
}

/** Runs one of the programs beside this file to its end: what it printed, as JSON. */
export async function runInside(file: string, ...args: string[]): Promise<unknown> {
  const program = fileURLToPath(new URL(file, import.meta.url))
  const { stdout } = await promisify(execFile)('unshare', [...UNSHARE, process.execPath, program, ...args])
  return JSON.parse(stdout)
}
