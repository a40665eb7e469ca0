// One core, from bottom to top: what is opened here, in this order, is the architecture.
//
//   store -> what must not be forgotten         geography -> what a map knows
//   echo  -> other hosts reach this one          core      -> the one writer over all three
//   dns, http -> the doors: they read the core's tables and bring requests and reports in
//   clock -> four ticks a second
// Closed in reverse order. Nothing is decided here.

import { mkdirSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Logger, pino } from 'pino'
import { openSqlite } from '../db/sqlite.ts'
import { formatHostPort, isInAny, isLoopbackHost } from '../resolver/address.ts'
import type { Asker, DnsContext, DnsFacts } from '../resolver/dns-answer.ts'
import { type DnsServer, openDns } from '../resolver/dns-server.ts'
import { openEcho } from '../server-agent/protocol/echo-socket.ts'
import { adminTokenPath } from './admin-token.ts'
import type { Config } from './config.ts'
import { Core } from './core.ts'
import { openGeography } from './geography.ts'
import { type HttpListener, openHttp } from './http/listener.ts'
import { Metrics } from './metrics.ts'
import { VERSION } from './version.ts'

const MIGRATIONS = fileURLToPath(new URL('../migrations', import.meta.url))
/** Leases end to a quarter of a second; a gap between two ticks tells that this process was stalled. */
const TICK_MS = 250

export interface RunningCore {
  readonly core: Core
  readonly dns: DnsServer
  readonly http: HttpListener
  close(): Promise<void>
}

/** Opens a whole core. Throws ConfigError, StoreError, or the system's error where it can't listen. */
export async function openCore(config: Config, log: Logger): Promise<RunningCore> {
  const closers: (() => Promise<void> | void)[] = []
  const close = async () => {
    for (const end of closers.splice(0).reverse()) await end()
  }
  try {
    const store = await openStore(config)
    closers.push(() => store.close())

    const geography = openGeography(config.geo)
    if (!config.dns.every(({ host }) => isLoopbackHost(host))) geography?.load()

    let echoKey: Uint8Array | null = null
    const echo = await openEcho({ ...config.echo, key: () => echoKey })
    closers.push(() => echo.close())

    const clock = { nowMs: () => Date.now(), monotonicMs: () => performance.now() }
    const rng = Math.random
    const core = await Core.open({ config, store, geography, echo, clock, rng, log })
    echoKey = core.echoKey
    closers.push(() => core.close())

    const metrics = new Metrics(core)
    const dns = await openDns({
      listen: config.dns,
      context: dnsContext(core, config),
      rate: { exempt: config.resolvers },
      onFacts: (facts, from) => {
        if (facts.basis !== null) metrics.countAnswer('dns', facts.basis, facts.allDown)
        noteDnsDemand(core, config, facts, from)
      },
      onError: (err) => log.error({ err }, 'a DNS query could not be answered'),
    })
    closers.push(() => dns.close())
    metrics.watchDns(dns.stats)
    const http = await openHttp({ core, config, metrics, log, rng, nowMs: clock.nowMs })
    closers.push(() => http.close())

    const timer = setInterval(() => core.tick(), TICK_MS)
    closers.push(() => {
      clearInterval(timer)
      core.drain()
    })
    return { core, dns, http, close }
  } catch (error) {
    await close()
    throw error
  }
}

/** Runs a core until it is told to stop by SIGTERM or SIGINT. */
export async function runCore(config: Config): Promise<void> {
  const log = pino({ level: config.logLevel, base: { core: config.name } }, pino.destination(2))
  const running = await openCore(config, log)
  process.stdout.write(welcome(config))
  const signal = await stopSignal()
  log.info({ signal }, 'stopping')
  await running.close()
}

function openStore(config: Config) {
  mkdirSync(config.data, { recursive: true, mode: 0o700 })
  return openSqlite({ path: join(config.data, 'nearcast.db'), migrations: MIGRATIONS })
}

function dnsContext(core: Core, config: Config): DnsContext {
  return {
    tables: core.tables,
    rng: Math.random,
    operatorFrom: config.operatorFrom,
    nsid: config.name,
    version: null,
    get cookies() {
      return { secrets: core.cookieSecrets, nowSec: Math.floor(Date.now() / 1000) }
    },
    get zone() {
      return { labels: config.zone.split('.'), core: config.name, serial: core.zoneSerial() }
    },
  }
}

/** A UDP source may be forged: where clients are is learnt only from askers that are proven (TCP, a cookie) or listed. */
function noteDnsDemand(core: Core, config: Config, facts: DnsFacts, from: Asker): void {
  const { service, client, bySubnet, isProven } = facts
  if (service === null || client === null) return
  if (isProven || isInAny(config.resolvers, from.address)) {
    core.noteDemand(client, service, !bySubnet)
  }
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
  const url = `${scheme}://${formatHostPort(http)}`
  const local = url === 'http://127.0.0.1:8053' ? '' : ` --core ${url}`
  const data = resolve(config.data) === resolve('data') ? '' : ` --data ${config.data}`
  const address = config.advertise[0]!
  const dig = `dig @${dns.host}${dns.port === 53 ? '' : ` -p ${dns.port}`}`
  return `
Nearcast ${VERSION}: core ${config.name} answers for the zone ${config.zone}

  DNS          ${config.dns.map(formatHostPort).join(', ')} (UDP and TCP)
  HTTP         ${config.http.map((at) => `${scheme}://${formatHostPort(at)}`).join(', ')}
  Admin token  ${relative('.', adminTokenPath(config.data))}

Next, in another terminal, in this folder:

  make a service   npx nearcast service put demo${local}${data}
  join a server    npx nearcast-agent --core ${url} --token "$(npx nearcast token create --service demo${local}${data})" --service demo --name a --address ${address} --port 80
  ask (a third)    ${dig} demo.${config.zone}

`
}
