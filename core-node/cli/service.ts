// `nearcast service`: make, list, show and remove services.
//
// `put` says the whole service, as PUT does: what is left out gets its default. Flags are the keys of
// ServiceRequest in core-node/registry/services.ts (a test holds them together); their ranges are the core's to judge.

import { type Command, Option } from 'commander'
import { POLICIES } from '../../resolver/directory.ts'
import type { ServiceReply } from '../http/schemas.ts'
import { readList, readNumber, readPair, readService } from './arguments.ts'
import { apiPath, type CoreOptions, openClient, talksToCore } from './client.ts'
import { printTable } from './table.ts'
import { paint, printable, printJson, type Terminal } from './terminal.ts'

type FlagKind = 'number' | 'text' | 'pairs' | 'list'

/** The flags of `service put`: the request's key, the flag, how it is read (or what it may be), what it says. */
export const SERVICE_FLAGS: readonly (readonly [
  key: string,
  flag: string,
  FlagKind | readonly string[],
  help: string,
])[] = [
  ['policy', '--policy <name>', POLICIES, 'how members are ordered (default: nearest)'],
  ['ttl', '--ttl <sec>', 'number', 'how long resolvers keep an answer (default: 30)'],
  ['minAddrs', '--min-addrs <n>', 'number', 'addresses in a DNS answer, at least (default: 1)'],
  ['maxAddrs', '--max-addrs <n>', 'number', 'addresses in a DNS answer, at most (default: 2)'],
  ['tieMs', '--tie-ms <ms>', 'number', 'members this close share the clients (default: 2)'],
  ['stickyMs', '--sticky-ms <ms>', 'number', 'clients move for a gain of this much (default: 10) ...'],
  ['stickyRatio', '--sticky-ratio <share>', 'number', '... and to this share of the old RTT (default: 0.8)'],
  ['where', '--where <key=value>', 'pairs', 'an attribute that members must have; repeatable'],
  ['aliases', '--alias <name>', 'list', 'another name for it; repeatable'],
  ['urlHosts', '--url-host <name>', 'list', "a host name that members' URLs may use; repeatable"],
  ['join', '--join <who>', ['token', 'open'], 'who may join (default: token)'],
  [
    'maxPerPrefix',
    '--max-per-prefix <n>',
    'number',
    'members from one /24 (/48), at most; 0: any (default: 0)',
  ],
  ['verify', '--verify <how>', ['echo', 'seen', 'none'], 'how an address is proven (default: echo)'],
  [
    'allDown',
    '--all-down <mode>',
    ['stale', 'fallback', 'empty'],
    'the answer when no member is live (default: stale)',
  ],
  ['fallbackAddresses', '--fallback-address <ip>', 'list', 'for --all-down fallback; repeatable'],
  ['fallbackUrl', '--fallback-url <url>', 'text', 'for --all-down fallback'],
]

export function addServiceCommands(command: Command, terminal: Terminal): void {
  addPut(command, terminal)
  talksToCore(command.command('list').description('all services'))
    .action((options: CoreOptions) => list(options, terminal))
    .addHelpText('after', '\nNext: npx nearcast service show NAME, npx nearcast member list NAME')
  talksToCore(command.command('show').description('one service, all of its keys').argument('<name>')).action(
    (name: string, options: CoreOptions) => show(readService(name), options, terminal),
  )
  talksToCore(
    command.command('rm').description('remove a service and its members').argument('<name>'),
  ).action((name: string, options: CoreOptions) => remove(readService(name), options, terminal))
}

function addPut(command: Command, terminal: Terminal): void {
  const put = command
    .command('put')
    .description('make a service, or say it anew: what is left out gets its default')
  put.argument('<name>', 'one DNS label: clients ask for NAME.ZONE')
  for (const [, flag, kind, help] of SERVICE_FLAGS) put.addOption(flagOption(flag, kind, help))
  talksToCore(put)
    .action((name: string, options: CoreOptions) => putService(readService(name), options, terminal))
    .addHelpText(
      'after',
      `
Examples:
  npx nearcast service put mirror
  npx nearcast service put game --policy nearest --ttl 20 --tie-ms 5 --where region=eu
  npx nearcast service put vpn --policy failover --all-down fallback --fallback-address 192.0.2.1

Next: npx nearcast token create --service NAME, then nearcast-agent on each server.`,
    )
}

function flagOption(flag: string, kind: FlagKind | readonly string[], help: string): Option {
  const option = new Option(flag, help)
  switch (kind) {
    case 'text':
      return option
    case 'number':
      return option.argParser(readNumber)
    case 'pairs':
      return option.argParser(readPair)
    case 'list':
      return option.argParser(readList)
    default:
      return option.choices(kind)
  }
}

/** What was typed, as the core's ServiceRequest. */
function serviceRequest(options: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const request: Record<string, unknown> = {}
  for (const [key, flag] of SERVICE_FLAGS) {
    const value = options[new Option(flag).attributeName()]
    if (value !== undefined) request[key] = value
  }
  return request
}

async function putService(name: string, options: CoreOptions, terminal: Terminal): Promise<void> {
  const client = openClient(options, terminal)
  const body = serviceRequest(options as Readonly<Record<string, unknown>>)
  const service = await client.request<ServiceReply>('PUT', apiPath('services', name), body)
  if (options.json) return printJson(terminal, service)
  terminal.print(`service ${name}: policy ${service.policy}, ttl ${service.ttl} s, ${countMembers(service)}`)
  if (service.members.total > 0) return
  terminal.print(`Next: npx nearcast token create --service ${name}     (a token for its servers' agents)`)
}

async function list(options: CoreOptions, terminal: Terminal): Promise<void> {
  const { services } = await openClient(options, terminal).request<{ services: ServiceReply[] }>(
    'GET',
    apiPath('services'),
  )
  if (options.json) return printJson(terminal, { services })
  if (services.length === 0) return terminal.print('No services yet. Next: npx nearcast service put NAME')
  const rows = services.map((service) => [
    service.name,
    service.policy,
    `${service.ttl}`,
    `${service.members.live}`,
    `${service.members.total}`,
    service.aliases.join(' '),
  ])
  const columns = [
    { title: 'SERVICE' },
    { title: 'POLICY' },
    { title: 'TTL', kind: 'number' },
    { title: 'LIVE', kind: 'number' },
    { title: 'MEMBERS', kind: 'number' },
    { title: 'ALIASES' },
  ] as const
  printTable(terminal, columns, rows)
}

async function show(name: string, options: CoreOptions, terminal: Terminal): Promise<void> {
  const service = await openClient(options, terminal).request<ServiceReply>('GET', apiPath('services', name))
  if (options.json) return printJson(terminal, service)
  terminal.print(paint(terminal, 'bold', name))
  for (const [key, value] of Object.entries({ ...service, members: countMembers(service) })) {
    if (key !== 'name') terminal.print(`${paint(terminal, 'dim', key.padEnd(17))}  ${describe(value)}`)
  }
}

async function remove(name: string, options: CoreOptions, terminal: Terminal): Promise<void> {
  await openClient(options, terminal).request('DELETE', apiPath('services', name))
  if (options.json) return printJson(terminal, { removed: name })
  terminal.print(`service ${name}: removed`)
}

function countMembers({ members }: ServiceReply): string {
  if (members.total === 0) return 'no members yet'
  return `${members.live} of ${members.total} ${members.total === 1 ? 'member' : 'members'} live`
}

/** A value on one line: lists by spaces, maps as key=value, `-` for nothing. */
function describe(value: unknown): string {
  if (value === null || value === '') return '-'
  if (typeof value !== 'object') return printable(String(value))
  const items = Array.isArray(value) ? value : Object.entries(value).map(([key, item]) => `${key}=${item}`)
  return items.length === 0 ? '-' : printable(items.join(' '))
}
