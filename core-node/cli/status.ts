// `nearcast status`: how a core is, for people and for scripts.
//
// Exit 0 only where the core is ready; what works only in part is told beside it and is no failure.

import type { Command } from 'commander'
import type { CoreStatus } from '../core.ts'
import { apiPath, type CoreOptions, openClient, talksToCore } from './client.ts'
import { CommandFailure, paint, printable, printJson, type Terminal } from './terminal.ts'

export function addStatusCommand(command: Command, terminal: Terminal): void {
  talksToCore(command)
    .action((options: CoreOptions) => status(options, terminal))
    .addHelpText(
      'after',
      '\nExit code: 0 ready, 1 not ready or no answer. Counters are in --json and at /metrics.',
    )
}

async function status(options: CoreOptions, terminal: Terminal): Promise<void> {
  const core = await openClient(options, terminal).request<CoreStatus>('GET', apiPath('status'))
  if (options.json) printJson(terminal, core)
  else printStatus(core, terminal)
  if (!core.ready) throw new CommandFailure(`core ${core.name} is not ready`)
}

function printStatus(core: CoreStatus, terminal: Terminal): void {
  const { hosts, members } = core
  const state = core.ready ? paint(terminal, 'green', 'ready') : paint(terminal, 'yellow', 'not ready')
  const lines = {
    core: `${core.name} ${core.version}, ${state}, up ${formatUptime(core.uptimeSec)}`,
    zone: core.zone,
    services: `${core.services}`,
    hosts: `${hosts.live} live, ${hosts.silent} silent, ${hosts.left} left`,
    members: `${members.live} live, ${members.other} other`,
    localities: `${core.localities} measured, ${core.places} imported`,
    store: printable(core.store),
    ...(core.cluster && { cluster: clusterLine(core.cluster) }),
    geography: printable(core.geography),
  }
  for (const [key, value] of Object.entries(lines)) {
    terminal.print(`${paint(terminal, 'dim', key.padEnd(10))}  ${value}`)
  }
  for (const reason of core.degraded)
    terminal.print(paint(terminal, 'yellow', `degraded    ${printable(reason)}`))
}

function clusterLine(cluster: NonNullable<CoreStatus['cluster']>): string {
  const { connected, behindSec, lease, cores, orphans, storeBytes } = cluster
  const parts = [
    connected ? 'connected' : `cut off for ${formatUptime(behindSec)}`,
    lease
      ? `one of ${cores.length} cores (${cores.map(printable).join(', ')})`
      : `${cores.length} cores beside it`,
    ...(orphans > 0 ? [`${orphans} hosts of cores that are gone`] : []),
    ...(storeBytes === null ? [] : [`${(storeBytes / 1e6).toFixed(1)} MB stored`]),
  ]
  return parts.join(', ')
}

function formatUptime(sec: number): string {
  if (sec < 120) return `${Math.floor(sec)} s`
  if (sec < 7200) return `${Math.floor(sec / 60)} min`
  return sec < 172_800 ? `${Math.floor(sec / 3600)} h` : `${Math.floor(sec / 86_400)} d`
}
