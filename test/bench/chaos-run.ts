// Plays a run of the chaos bench in namespaces of its own: starts chaos-stage.ts there, and hears it out.
//
// Needs Linux, root, `ip`, `unshare`, `nsenter`, `etcd` and /dev/net/tun; says what is missing. Invariant: when it
// ends, or this process does, nothing is left: all that runs is in a PID namespace whose first process ends with its
// stdin, and the network namespaces end with who is in them.

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { History } from './chaos-history.ts'
import type { Run, StageLine } from './chaos-stage.ts'

const STAGE = fileURLToPath(new URL('chaos-stage.ts', import.meta.url))
const OWN_NAMESPACES = ['--net', '--pid', '--fork', '--kill-child', '--mount-proc']
const NEEDED = ['ip', 'unshare', 'nsenter', 'etcd']

/** Why it can't be played here; null: it can. */
export function whyNoChaos(): string | null {
  if (process.platform !== 'linux') return 'network namespaces are a thing of Linux'
  if (process.getuid?.() !== 0) return 'network namespaces with slow ways between them need root'
  if (!existsSync('/dev/net/tun')) return 'there is no /dev/net/tun'
  for (const program of NEEDED) {
    const { error } = spawnSync(program, ['--version'], { stdio: 'ignore' })
    if (error !== undefined) return `there is no program ${program}`
  }
  const probe = [...OWN_NAMESPACES, 'ip', 'link', 'add', 'probe', 'type', 'veth']
  const { status, stderr } = spawnSync('unshare', probe, { encoding: 'utf8' })
  return status === 0 ? null : `no network namespace with a cable can be made here: ${stderr.trim()}`
}

/** `say` is told what happens, a line each. Rejects where the stage ends without a history. */
export async function playChaos(run: Omit<Run, 'folder'>, say: (line: string) => void): Promise<History> {
  const folder = mkdtempSync(join(tmpdir(), 'nearcast-chaos-'))
  const program = [process.execPath, STAGE, JSON.stringify({ ...run, folder } satisfies Run)]
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^NEARCAST_|^NODE_OPTIONS$/.test(name)),
  )
  try {
    const child = spawn('unshare', [...OWN_NAMESPACES, ...program], { stdio: ['pipe', 'pipe', 'pipe'], env })
    let history: History | null = null
    let errors = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      errors += text
    })
    createInterface({ input: child.stdout }).on('line', (line) => {
      const told = JSON.parse(line) as StageLine
      if ('says' in told) say(told.says)
      else history = told.history
    })
    await once(child, 'close')
    if (history === null) throw new Error(`the run did not come to its end: ${errors.trim()}`)
    return history
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
