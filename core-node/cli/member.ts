// `nearcast member`: members without an agent (put), and what any member is (list, drain, undrain, rm).
//
// A member with an agent registers itself; an administrator's `put` is for a server that runs none.
// Draining takes a member out of new answers and leaves it alive.

import type { Command } from 'commander'
import type { MemberReply } from '../../server-agent/protocol/messages.ts'
import type { MemberView } from '../http/schemas.ts'
import { readList, readMember, readNumber, readPair, readService } from './arguments.ts'
import { apiPath, type CoreOptions, openClient, talksToCore } from './client.ts'
import { printTable } from './table.ts'
import { printable, printJson, type Terminal, wrongUse } from './terminal.ts'

interface PutOptions extends CoreOptions {
  readonly address?: readonly string[]
  readonly host?: string
  readonly port?: number
  readonly url?: string
  readonly attr?: Readonly<Record<string, string>>
  readonly weight?: number
  readonly capacity?: number
  readonly check?: string
}

export function addMemberCommands(command: Command, terminal: Terminal): void {
  addPut(command, terminal)
  talksToCore(command.command('list').description("a service's members").argument('<service>')).action(
    (service: string, options: CoreOptions) => list(readService(service), options, terminal),
  )
  const drain = command.command('drain').description('take a member out of answers; it stays alive')
  talksToCore(drain.argument('<service/name>'))
    .action((member: string, options: CoreOptions) => setDrained(member, true, options, terminal))
    .addHelpText(
      'after',
      '\nResolvers may keep its address for the TTL of the service. Next: npx nearcast member undrain',
    )
  talksToCore(
    command.command('undrain').description('let it be answered with again').argument('<service/name>'),
  ).action((member: string, options: CoreOptions) => setDrained(member, false, options, terminal))
  talksToCore(command.command('rm').description('remove a member').argument('<service/name>')).action(
    (member: string, options: CoreOptions) => remove(member, options, terminal),
  )
}

function addPut(command: Command, terminal: Terminal): void {
  const put = command
    .command('put')
    .description('a server without agent: hosts near it check it')
    .argument('<service/name>')
    .option('--address <ip>', 'where it serves; repeatable, best first', readList)
    .option('--host <name>', 'the host (with an agent) that it runs on, instead of --address')
    .option('--port <n>', 'for SRV answers and checks', readNumber)
    .option('--url <url>', 'base URL for redirects')
    .option('--attr <key=value>', 'an attribute; repeatable (tier=N orders members under failover)', readPair)
    .option('--weight <n>', 'its share under the policy weighted (default: 1)', readNumber)
    .option('--capacity <n>', 'what it can carry, in its own unit (default: 1)', readNumber)
    .option(
      '--check <url>',
      'what is checked: tcp://HOST:PORT or http(s)://... (default: a connection to --port)',
    )
  talksToCore(put)
    .action((member: string, options: PutOptions) => putMember(member, options, terminal))
    .addHelpText(
      'after',
      `
Example:
  npx nearcast member put mirror/lon1 --address 192.0.2.7 --url https://lon1.example.org/ --check tcp://192.0.2.7:443

Where you can run nearcast-agent on the server, that is better: it measures and it knows its own health.
Next: npx nearcast member list SERVICE`,
    )
}

async function putMember(member: string, options: PutOptions, terminal: Terminal): Promise<void> {
  const { service, name, key } = readMember(member)
  if (!options.address?.length && options.host === undefined) {
    throw wrongUse('no address: say where it serves with --address IP (or on which host, --host NAME)')
  }
  const { address, attr, host, port, url, weight, capacity, check } = options
  const body = { host, addresses: address, port, url, attributes: attr, weight, capacity, check }
  const path = apiPath('services', service, 'members', name)
  const reply = await openClient(options, terminal).request<MemberReply>('PUT', path, body)
  if (options.json) return printJson(terminal, reply)
  terminal.print(`member ${key}: ${printable(reply.state)}`)
  if (reply.hint) terminal.print(printable(reply.hint))
}

async function list(service: string, options: CoreOptions, terminal: Terminal): Promise<void> {
  const members = await listMembers(service, options, terminal)
  if (options.json) return printJson(terminal, { members })
  if (members.length === 0) {
    return terminal.print(`${service} has no members. Next: npx nearcast token create --service ${service}`)
  }
  const columns = [
    { title: 'MEMBER' },
    { title: 'HOST' },
    { title: 'STATE' },
    { title: 'ADDRESSES' },
    { title: 'PORT', kind: 'number' },
    { title: 'LOAD', kind: 'number' },
    { title: 'URL' },
  ] as const
  const rows = members.map((member) => [
    member.name,
    member.host,
    member.state,
    member.addresses.join(' '),
    `${member.port ?? '-'}`,
    member.load === null ? '-' : `${Math.round((100 * member.load) / member.capacity)}%`,
    member.url ?? '-',
  ])
  printTable(terminal, columns, rows)
  for (const { name, hint } of members) if (hint) terminal.print(`${name}: ${printable(hint)}`)
}

/** All of them, page by page. */
async function listMembers(service: string, options: CoreOptions, terminal: Terminal): Promise<MemberView[]> {
  const client = openClient(options, terminal)
  const path = apiPath('services', service, 'members')
  const members: MemberView[] = []
  for (let next: string | null = ''; next !== null; ) {
    const query: string = next === '' ? '' : `?after=${encodeURIComponent(next)}`
    const page: { members: MemberView[]; next?: string | null } = await client.request('GET', path + query)
    members.push(...page.members)
    // A core of an earlier version tells all at once.
    next = page.next ?? null
  }
  return members
}

async function setDrained(
  member: string,
  drained: boolean,
  options: CoreOptions,
  terminal: Terminal,
): Promise<void> {
  const { service, name, key } = readMember(member)
  const path = apiPath('services', service, 'members', name, 'drain')
  const reply = await openClient(options, terminal).request(drained ? 'PUT' : 'DELETE', path)
  if (options.json) return printJson(terminal, reply)
  terminal.print(
    drained
      ? `member ${key}: drained; npx nearcast member undrain ${key} brings it back`
      : `member ${key}: back in answers`,
  )
}

async function remove(member: string, options: CoreOptions, terminal: Terminal): Promise<void> {
  const { service, name, key } = readMember(member)
  await openClient(options, terminal).request('DELETE', apiPath('services', service, 'members', name))
  if (options.json) return printJson(terminal, { removed: key })
  terminal.print(`member ${key}: removed`)
}
