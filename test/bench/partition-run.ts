// Plays a partition in namespaces of its own: starts partition-stage.ts there, and hears it out.
//
// Needs Linux, `ip` and `unshare`, and root or the right to make user namespaces; says what is missing.
// Invariant: when it ends, or this process does, nothing is left: all that runs is in a PID namespace whose
// first process ends with its stdin, and namespaces and cables end with who is in them.

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { PartitionPlan, PartitionReport, StageLine } from './partition-plan.ts'

const STAGE = fileURLToPath(new URL('partition-stage.ts', import.meta.url))
/** The package nearcast-agent is its sources then. */
const IN_A_CLONE = '--conditions=nearcast-clone'
const OWN_NAMESPACES = ['--net', '--pid', '--fork', '--kill-child', '--mount-proc']

function unshareArguments(): string[] {
  return process.getuid?.() === 0 ? OWN_NAMESPACES : ['--user', '--map-root-user', ...OWN_NAMESPACES]
}

/** Why it can't be played here; null: it can. */
export function whyNoIslands(): string | null {
  if (process.platform !== 'linux') return 'network namespaces are a thing of Linux'
  for (const program of ['ip', 'unshare']) {
    const { error } = spawnSync(program, ['-V'], { stdio: 'ignore' })
    if (error !== undefined) return `there is no program ${program}`
  }
  const probe = [...unshareArguments(), 'ip', 'link', 'add', 'probe', 'type', 'veth']
  const { status, stderr } = spawnSync('unshare', probe, { encoding: 'utf8' })
  return status === 0 ? null : `no network namespace with a cable can be made here: ${stderr.trim()}`
}

/** `say` is told what happens, a line each. Rejects where the stage ends without a report. */
export async function runPartition(
  plan: PartitionPlan,
  say: (line: string) => void,
): Promise<PartitionReport> {
  const program = [process.execPath, IN_A_CLONE, STAGE, JSON.stringify(plan)]
  const { NODE_OPTIONS: _, ...env } = process.env
  const stdio = ['pipe', 'pipe', 'pipe'] as const
  const child = spawn('unshare', [...unshareArguments(), ...program], { stdio: [...stdio], env })
  let report: PartitionReport | null = null
  let errors = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text
  })
  createInterface({ input: child.stdout }).on('line', (line) => {
    const told = JSON.parse(line) as StageLine
    if ('says' in told) say(told.says)
    else report = told.report
  })
  await once(child, 'close')
  if (report === null) throw new Error(`the partition was not played to its end: ${errors.trim()}`)
  return report
}
