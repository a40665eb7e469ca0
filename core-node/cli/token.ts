// `nearcast token`: credentials for the API.
//
// A secret is shown once, when it is made, and alone on standard output, so that a script can take it;
// the core keeps only its hash.

import type { Command } from 'commander'
import { isLoopbackHost } from '../../resolver/address.ts'
import type { TokenView } from '../http/schemas.ts'
import { readList, readService } from './arguments.ts'
import { apiPath, type CoreOptions, openClient, talksToCore } from './client.ts'
import { printTable } from './table.ts'
import { printJson, type Terminal, wrongUse } from './terminal.ts'

interface CreateOptions extends CoreOptions {
  readonly service?: readonly string[]
  readonly admin?: boolean
  readonly note?: string
}

export function addTokenCommands(command: Command, terminal: Terminal): void {
  const create = command
    .command('create')
    .description('make a token; its secret is shown once')
    .option('--service <name>', 'whose members it may register; repeatable', readList)
    .option('--admin', 'it may do everything')
    .option('--note <text>', 'what it is for, to know it again')
  talksToCore(create)
    .action((options: CreateOptions) => createToken(options, terminal))
    .addHelpText(
      'after',
      `
Example:
  npx nearcast token create --service mirror --note "servers in Amsterdam"

The secret alone is on standard output: TOKEN=$(npx nearcast token create --service mirror)`,
    )
  talksToCore(command.command('list').description('all tokens, without secrets')).action(
    (options: CoreOptions) => list(options, terminal),
  )
  talksToCore(command.command('revoke').description('end a token').argument('<id>'))
    .action((id: string, options: CoreOptions) => revoke(id, options, terminal))
    .addHelpText('after', '\nHosts that joined with it keep their own credentials.')
}

async function createToken(options: CreateOptions, terminal: Terminal): Promise<void> {
  const services = (options.service ?? []).map(readService)
  if ((services.length === 0) === !options.admin) {
    throw wrongUse('say what the token is for: either --service NAME or --admin')
  }
  const client = openClient(options, terminal)
  const what = options.admin ? { admin: true } : { services }
  const body = options.note === undefined ? what : { ...what, note: options.note }
  const token = await client.request<TokenView & { secret: string }>('POST', apiPath('tokens'), body)
  if (options.json) return printJson(terminal, token)
  terminal.warn(`token ${token.id} for ${describeScope(token)}; this is shown once:`)
  terminal.print(token.secret)
  if (options.admin) return
  // A core on loopback is for agents on this machine, where they run from the clone.
  const here = isLoopbackHost(new URL(client.url).hostname)
  terminal.warn(
    `Next, on ${here ? 'this machine' : 'a server'}: NEARCAST_TOKEN=TOKEN ${here ? 'npx ' : ''}nearcast-agent --core ${client.url} --service ${services[0]}`,
  )
}

async function list(options: CoreOptions, terminal: Terminal): Promise<void> {
  const { tokens } = await openClient(options, terminal).request<{ tokens: TokenView[] }>(
    'GET',
    apiPath('tokens'),
  )
  if (options.json) return printJson(terminal, { tokens })
  const columns = [{ title: 'ID' }, { title: 'FOR' }, { title: 'CREATED' }, { title: 'NOTE' }] as const
  const rows = tokens.map((token) => [
    token.id,
    describeScope(token),
    new Date(token.createdMs).toISOString().slice(0, 16).replace('T', ' '),
    token.note,
  ])
  printTable(terminal, columns, rows)
}

async function revoke(id: string, options: CoreOptions, terminal: Terminal): Promise<void> {
  await openClient(options, terminal).request('DELETE', apiPath('tokens', id))
  if (options.json) return printJson(terminal, { revoked: id })
  terminal.print(`token ${id}: revoked`)
}

function describeScope(token: TokenView): string {
  return token.admin ? 'everything' : token.services.join(' ')
}
