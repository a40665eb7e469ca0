// `nearcast explain`: why a client gets the member it gets, for people.
//
// Prints the core's own decision, in its order: nothing is decided or sorted anew here.

import type { Command } from 'commander'
import type { Story } from '../../resolver/explain.ts'
import { readCount, readService } from './arguments.ts'
import { apiPath, type CoreOptions, openClient, talksToCore } from './client.ts'
import { describeLocality, formatMs, printEvidence, readClient } from './locality.ts'
import { printTable } from './table.ts'
import { paint, printable, printJson, type Terminal } from './terminal.ts'

const COLUMNS = [
  { title: '#', kind: 'number' },
  { title: 'MEMBER' },
  { title: 'MS', kind: 'number' },
  { title: '+-', kind: 'number' },
  { title: 'BASIS' },
  { title: 'COST', kind: 'number' },
  { title: 'WHY', kind: 'wrap' },
] as const

export function addExplainCommand(command: Command, terminal: Terminal): void {
  talksToCore(command.argument('<service>').argument('<client-ip>'))
    .option('--k <n>', 'as a list of so many members is chosen, not as DNS answers', readCount)
    .action((service: string, ip: string, options: ExplainOptions) =>
      explain(readService(service), readClient(ip), options, terminal),
    )
    .addHelpText(
      'after',
      `
Example:
  npx nearcast explain core 127.0.0.1
  npx nearcast explain overlay 192.0.2.7 --k 20

# is the place in the answer, - a member passed over. MS is the predicted round trip, +- how far off it
may be, BASIS what it stands on (member, measured, coordinate, geo, none), COST is MS plus the cost of load.`,
    )
}

interface ExplainOptions extends CoreOptions {
  readonly k?: number
}

async function explain(
  service: string,
  client: string,
  options: ExplainOptions,
  terminal: Terminal,
): Promise<void> {
  const asList = options.k === undefined ? '' : `&k=${options.k}`
  const path = `${apiPath('services', service, 'explain')}?client=${encodeURIComponent(client)}${asList}`
  const decision = await openClient(options, terminal).request<Story>('GET', path)
  if (options.json) return printJson(terminal, decision)
  terminal.print(paint(terminal, 'bold', `${service} for ${client}, policy ${printable(decision.policy)}`))
  for (const line of describeLocality(decision.locality)) terminal.print(line)
  if (decision.allDown !== null) {
    terminal.print(
      paint(terminal, 'yellow', `no member is live: answered by allDown ${printable(decision.allDown)}`),
    )
  }
  terminal.print('')
  if (decision.members.length === 0) {
    return terminal.print(`${service} has no members. Next: npx nearcast token create --service ${service}`)
  }
  printMembers(decision.members, terminal)
  if (decision.others > 0) terminal.print(`and ${decision.others} others, which its index passed over`)
  const { evidence } = decision.locality
  if (evidence.length > 0) {
    terminal.print('\nmeasured:')
    printEvidence(evidence, terminal)
  }
  if (decision.wouldProbe.length > 0) {
    terminal.print(`\nprobed next: ${decision.wouldProbe.map(printable).join(', ')}`)
  }
}

function printMembers(members: Story['members'], terminal: Terminal): void {
  const rows = members.map(({ name, rank, ms, errorMs, basis, cost, reason, why }) => [
    `${rank ?? '-'}`,
    name,
    formatMs(ms),
    formatMs(errorMs),
    basis,
    formatMs(cost),
    reason === null ? why : `${reason}: ${why}`,
  ])
  printTable(terminal, COLUMNS, rows)
}
