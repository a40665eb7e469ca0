// One core, from bottom to top: what is opened here, in this order, is the architecture.
//
//   privileges -> root for opening ports and nothing else
//   store -> what must not be forgotten         geography -> what a map knows
//   echo  -> other hosts reach this one          core      -> the one writer over all three
//   dns, http -> the doors: they read the core's tables and bring requests and reports in
//   clock -> four ticks a second
// Closed in reverse order. Nothing is decided here.

import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Logger } from 'pino'
import { openSqlite } from '../db/sqlite.ts'
import type { Store } from '../db/store.ts'
import { isLoopbackHost } from '../resolver/address.ts'
import type { Rng } from '../resolver/ask.ts'
import type { DnsContext } from '../resolver/dns-answer.ts'
import { sharedNowMs } from '../resolver/dns-clock.ts'
import { isDemandProven } from '../resolver/dns-demand.ts'
import type { RateLimits } from '../resolver/dns-limit.ts'
import { type DnsServer, type DnsServerOptions, openDns } from '../resolver/dns-server.ts'
import { listenError } from '../resolver/listen-error.ts'
import { openEcho } from '../server-agent/protocol/echo-socket.ts'
import { Core } from './core.ts'
import { type HttpListener, openHttp } from './http/listener.ts'
import { Metrics } from './metrics.ts'
import { openGeography } from './places/geography.ts'
import { openPrivileges, type Privileges } from './privileges.ts'
import { queryLine } from './query-line.ts'
import { QueryLog } from './query-log.ts'
import type { Config } from './settings/config.ts'
import { storeEndpoints } from './settings/config-values.ts'
import { openSharedStore, whenThere } from './shared-store.ts'
import { giveBackMemory } from './spare-memory.ts'
import type { Clock } from './steady-clock.ts'

const MIGRATIONS = fileURLToPath(new URL('../migrations', import.meta.url))
/** Leases end to a quarter of a second; a gap between two ticks tells that this process was stalled. */
const TICK_MS = 250
/** Pulses of 100,000 hosts that come in a few tenths of a second, while this process is busy. */
const RECEIVE_BUFFER_BYTES = 4 << 20
/** Enough to take 10,000 pulses a second where the loop comes round only fifty times. */
const EARS = 8

interface RunningCore {
  readonly core: Core
  readonly dns: DnsServer
  readonly http: HttpListener
  /** Goes on with the query log in a file opened anew, as after it was moved away. */
  reopenLogs(): void
  close(): Promise<void>
}

/** Opens a whole core. Throws ConfigError, StoreError, or the system's error where it can't listen. */
export async function openCore(config: Config, log: Logger): Promise<RunningCore> {
  const closers: (() => Promise<void> | void)[] = []
  const close = async () => {
    for (const end of closers.splice(0).reverse()) await end()
  }
  try {
    const privileges = openPrivileges(config.user, log)
    const store = await openStore(config, privileges, log)
    closers.push(() => store.close())

    const geography = openGeography(config.geo)
    if (!config.dns.every(({ host }) => isLoopbackHost(host))) geography?.load()

    let running: Core | null = null
    let echoKey: Uint8Array | null = null
    const echo = await privileges.asRoot(() =>
      openEcho({
        ...config.echo,
        receiveBufferBytes: RECEIVE_BUFFER_BYTES,
        ears: EARS,
        key: () => echoKey,
        guest: (packet) => (running === null ? false : running.hearPulse(packet)),
      }).catch((error) => {
        throw listenError('echo', config.echo, error)
      }),
    )
    closers.push(() => echo.close())

    const system = { epochMs: () => Date.now(), monotonicMs: () => performance.now() }
    const rng = Math.random
    const core = await Core.open({ config, store, geography, echo, clock: system, rng, log })
    const { clock } = core
    echoKey = core.echoKey
    running = core
    closers.push(() => core.close())

    const metrics = new Metrics(core)
    const queryLog = config.queryLog === null ? null : await openQueryLog(config.queryLog, log)
    if (queryLog !== null) {
      closers.push(() => queryLog.close())
      metrics.watchQueryLog(queryLog.counts)
    }
    const dns = await privileges.asRoot(() =>
      openDns({
        listen: config.dns,
        context: dnsContext(core, config, clock, rng),
        rate: rateLimits(config),
        ...(config.dnsWorkers > 0 && { workers: dnsWorkers(core, config, geography) }),
        onFacts: (facts, from) => {
          if (isDemandProven(facts, from.address, config.resolvers))
            core.noteDemand(facts.client!, facts.service!, !facts.bySubnet)
        },
        ...(queryLog && { sample: sampleFor(queryLog, config, clock) }),
        onError: (err) => log.error({ err }, 'a DNS query could not be answered'),
      }),
    )
    closers.push(() => dns.close())
    metrics.watchDns(dns.stats)
    metrics.watchEcho(echo.stats)
    const http = await privileges.asRoot(() =>
      openHttp({ core, config, metrics, log, rng, epochMs: () => clock.epochMs() }),
    )
    closers.push(() => http.close())
    privileges.drop()

    void dns.ready.then(giveBackMemory)
    const timer = setInterval(() => core.tick(), TICK_MS)
    closers.push(() => clearInterval(timer))
    // Said first, answered to the end: who balances between cores, and every host, has time to look elsewhere.
    closers.push(() => core.handOver())
    return { core, dns, http, reopenLogs: () => queryLog?.reopen(), close }
  } catch (error) {
    await close()
    throw error
  }
}

function openStore(config: Config, privileges: Privileges, log: Logger): Promise<Store> {
  try {
    privileges.makeFolder(config.data)
  } catch (cause) {
    throw new Error(`data: can't use the folder ${config.data}: ${(cause as Error).message}`, { cause })
  }
  if (storeEndpoints(config.store) === null) {
    return openSqlite({ path: join(config.data, 'nearcast.db'), migrations: MIGRATIONS })
  }
  // Keys and passwords may be for root's eyes only.
  return whenThere(() => privileges.asRoot(() => openSharedStore(config, { readOnly: config.follow })), log)
}

async function openQueryLog(file: string, log: Logger): Promise<QueryLog> {
  const onTrouble = (err: Error) => log.warn({ err, file }, 'lines of the query log are lost')
  try {
    return await QueryLog.open({ file, onTrouble })
  } catch (cause) {
    throw new Error(`query-log: can't write ${file}: ${(cause as Error).message}`, { cause })
  }
}

function sampleFor(
  queryLog: QueryLog,
  config: Config,
  clock: Clock,
): NonNullable<DnsServerOptions['sample']> {
  const isWhole = config.queryLogAddresses === 'whole'
  return {
    every: Math.round(1 / config.queryLogSample),
    // Workers tell of what they answered a moment ago.
    onSample: ({ facts, from }) =>
      queryLog.add(queryLine(facts, from, clock.epochMs() - (sharedNowMs() - from.nowMs), isWhole)),
  }
}

function rateLimits(config: Config): RateLimits {
  return {
    responsesPerSecond: config.rrlResponsesPerSecond,
    nodataPerSecond: config.rrlNodataPerSecond,
    nxdomainsPerSecond: config.rrlNxdomainsPerSecond,
    errorsPerSecond: config.rrlErrorsPerSecond,
    amplifiedPerSecond: config.rrlAmplifiedPerSecond,
    allPerSecond: config.rrlAllPerSecond,
    windowSec: config.rrlWindow,
    slip: config.rrlSlip,
    ipv4PrefixLength: config.rrlIpv4PrefixLength,
    ipv6PrefixLength: config.rrlIpv6PrefixLength,
    exemptClients: [...config.rrlExemptClients, ...config.resolvers],
    logOnly: config.rrlLogOnly,
    maxTableSize: config.rrlMaxTableSize,
  }
}

function dnsWorkers(
  core: Core,
  config: Config,
  geography: ReturnType<typeof openGeography>,
): NonNullable<DnsServerOptions['workers']> {
  return {
    count: config.dnsWorkers,
    entry: new URL('./dns-thread.ts', import.meta.url),
    data: () => ({ geo: config.geo, geography: geography?.share() ?? null }),
    feed: core,
    resolvers: config.resolvers,
    onDemand: ({ client, service, direct, times }) => core.noteDemand(client, service, direct, times),
  }
}

function dnsContext(core: Core, config: Config, clock: Clock, rng: Rng): DnsContext {
  const [first, ...others] = config.zone.map((zone) => ({
    labels: zone.split('.'),
    core: config.name,
    get serial() {
      return core.zoneSerial()
    },
  }))
  return {
    tables: core.tables,
    rng,
    operatorFrom: config.operatorFrom,
    nsid: config.dnsId === 'none' ? null : config.dnsId,
    version: config.dnsVersion === 'none' ? null : config.dnsVersion,
    get cookies() {
      const secrets = core.cookieSecrets
      // Who follows a store that no core has begun yet has none.
      return secrets.length === 0 ? null : { secrets, nowSec: Math.floor(clock.epochMs() / 1000) }
    },
    zones: [first!, ...others],
  }
}
