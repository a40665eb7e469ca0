// The daemon as a process: logs to standard error, a welcome to its terminal, an end by signal.
//
// What runs is main.ts' to say; what is logged and told is for whoever started it. The welcome's commands
// are meant to be pasted, so they hold what differs from the defaults and nothing else.

import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { relative, resolve } from 'node:path'
import { pino } from 'pino'
import { formatHostPort } from '../../resolver/address.ts'
import { openCore } from '../main.ts'
import { adminTokenPath } from '../registry/admin-token.ts'
import type { Config } from '../settings/config.ts'
import { VERSION } from '../version.ts'
import { DEFAULT_CORE } from './client.ts'
import type { Terminal } from './terminal.ts'

/** Runs a core until it is told to stop by SIGTERM or SIGINT. */
export async function runCore(config: Config, terminal: Terminal): Promise<void> {
  const log = pino({ level: config.logLevel, base: { core: config.name } }, pino.destination(2))
  const running = await openCore(config, log)
  stayWithoutReader()
  terminal.print(welcome(config))
  // Without a log to open anew, the signal is what it always is: the terminal is gone.
  if (config.queryLog !== null) process.on('SIGHUP', () => running.reopenLogs())
  const signal = await stopSignal()
  log.info({ signal }, 'stopping')
  await running.close()
}

/** Whoever read the welcome or the query log may go: a command has nothing more to do then, a core has. */
function stayWithoutReader(): void {
  process.stdout.removeAllListeners('error').on('error', () => {})
}

function stopSignal(): Promise<string> {
  return new Promise((resolve) => {
    process.once('SIGTERM', () => resolve('SIGTERM'))
    process.once('SIGINT', () => resolve('SIGINT'))
  })
}

/** What a newcomer needs next; each command works when pasted into another terminal in this folder. */
function welcome(config: Config): string {
  const dns = config.dns[0]!
  const http = config.http[0]!
  const scheme = config.tlsCert === null ? 'http' : 'https'
  const url = `${scheme}://${formatHostPort({ ...http, host: nameOf(config) })}`
  const local = url === DEFAULT_CORE ? '' : ` --core ${url}`
  const data =
    resolve(config.data) === resolve('data') ? '' : ` --data '${config.data.replaceAll("'", "'\\''")}'`
  const address = config.advertise[0]!
  const dig = `dig @${hereOf(dns.host)}${dns.port === 53 ? '' : ` -p ${dns.port}`}`
  return `
Nearcast ${VERSION}: core ${config.name} answers for the zone${config.zone.length > 1 ? 's' : ''} ${config.zone.join(', ')}

  DNS          ${config.dns.map(formatHostPort).join(', ')} (UDP and TCP)
  HTTP         ${config.http.map((at) => `${scheme}://${formatHostPort(at)}`).join(', ')}
  Admin token  ${relative('.', adminTokenPath(config.data))}

Next, in another terminal, in this folder:

  make a service   npx nearcast service put demo${local}${data}
  join a server    NEARCAST_TOKEN="$(npx nearcast token create --service demo${local}${data})" npx nearcast-agent --core ${url} --service demo --name a --address ${address} --port 80
  ask (a third)    ${dig} demo.${config.zone[0]}
`
}

/** What HTTP clients call this core: by the name in its certificate, or by its address. */
function nameOf({ http, tlsCert }: Config): string {
  if (tlsCert === null) return hereOf(http[0]!.host)
  const names = new X509Certificate(readFileSync(tlsCert)).subjectAltName ?? ''
  return /DNS:([^*,\s]+)/.exec(names)?.[1] ?? hereOf(http[0]!.host)
}

/** Where this machine reaches what listens on all addresses. */
function hereOf(host: string): string {
  if (host === '0.0.0.0') return '127.0.0.1'
  return host === '::' ? '::1' : host
}
