// `nearcast lab`: starts the small Internet of core-node/lab on this machine.
//
// Nothing is decided here: the lab checks its numbers, tells its story and cleans up after itself; this
// gives it its flags and passes on how it ended.

import type { Command } from 'commander'
import { MAX_HOSTS } from '../lab/world.ts'
import { readCount } from './arguments.ts'
import { CommandFailure, type Terminal, wrongUse } from './terminal.ts'

interface LabFlags {
  readonly hosts: number
  readonly seed: number
  readonly json?: boolean
}

export function addLabCommand(command: Command, terminal: Terminal): void {
  command
    .option('--hosts <n>', 'servers with agents', readCount, 30)
    .option('--seed <n>', 'which Internet: the same seed gives the same one', readCount, 1)
    .option('--json', 'print JSON')
    .action((flags: LabFlags) => startLab(flags, terminal))
    .addHelpText(
      'after',
      `
Real cores and agents as processes on 127.0.0.0/8, the round trips between cities emulated; no root, Linux.
Prints for clients in cities of the world the member chosen, its RTT and the true nearest; then kills the
nearest member of one and shows how long answers still named it. Ctrl-C leaves nothing behind.`,
    )
}

async function startLab({ hosts, seed, json }: LabFlags, terminal: Terminal): Promise<void> {
  if (process.platform !== 'linux') {
    throw new CommandFailure('the lab needs Linux, where all of 127.0.0.0/8 is this machine')
  }
  if (hosts < 2 || hosts > MAX_HOSTS) throw wrongUse(`--hosts: got ${hosts}, expected 2 to ${MAX_HOSTS}`)
  const { runLab } = await import('../lab/lab.ts')
  const exitCode = await runLab({ hosts, seed, json: json === true, out: terminal.print })
  if (exitCode !== 0) throw new CommandFailure('') // it has told why
}
