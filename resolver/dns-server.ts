// The sockets of the DNS server: UDP and TCP on the same ports, a thin shell over answerDns.
//
// Invariant: each packet received is counted under exactly one outcome, for each transport; no packet,
// no send and no asker ends the process. Replies leave from the address that was asked. Decides nothing
// about answers.

import { setTimeout as sleep } from 'node:timers/promises'
import { isWildcard } from './address.ts'
import { openUdpAtAll } from './dns-addresses.ts'
import type { Asker, DnsContext, DnsFacts, PacketHandler } from './dns-answer.ts'
import { DnsAnswerer } from './dns-answerer.ts'
import { sharedNowMs } from './dns-clock.ts'
import {
  allocateCounters,
  countDuration,
  counterRow,
  countFault,
  type DnsCounts,
  type Fault,
  readCounters,
} from './dns-counters.ts'
import { RATE_LIMITS, type RateLimits, ResponseLimiter, rateTable } from './dns-limit.ts'
import type { DnsSample, WorkerSetup } from './dns-mail.ts'
import { openDnsTcp, TcpConnections, type TcpLimits, type TcpServer, type TcpStats } from './dns-tcp.ts'
import { openDnsUdp, type UdpServer } from './dns-udp.ts'
import { DnsWorkers, type WorkersOptions } from './dns-workers.ts'
import { listenError } from './listen-error.ts'
import { hasMmsg } from './mmsg.ts'

interface DnsListen {
  /** An IP address; 0.0.0.0 is all of IPv4 and :: all of IPv6 only. */
  readonly host: string
  /** 0: any that is free for UDP and TCP. */
  readonly port: number
}

export interface DnsServerOptions {
  readonly listen: readonly DnsListen[]
  /** Read anew for each query. */
  readonly context: DnsContext
  readonly tcp?: Partial<TcpLimits>
  /** Of replies over UDP. */
  readonly rate?: Partial<RateLimits>
  /** Answers UDP in threads of their own, where the system can; absent: in this one, as TCP always is. */
  readonly workers?: WorkersOptions & Pick<WorkerSetup, 'resolvers'>
  /** How often new addresses of this machine are looked for, where a wildcard is listened on, ms. */
  readonly addressesEveryMs?: number
  /** Told of each packet just before its reply leaves, but for those that workers answer. Must not throw. */
  readonly onFacts?: (facts: DnsFacts, from: Asker) => void
  /** Told of one of so many packets, whoever answers them; of those of workers a little later. Must not throw. */
  readonly sample?: { readonly every: number; readonly onSample: (sample: DnsSample) => void }
  /** Told of what should never happen: a failure inside answering, or of a socket. */
  readonly onError?: (error: Error) => void
}

export interface DnsStats extends DnsCounts {
  readonly connections: TcpStats
  /** Workers that died and were started anew. */
  readonly restarts: number
}

export interface DnsServer {
  /** Where it listens, ports as they came out, in the order of `listen`. */
  readonly addresses: readonly DnsListen[]
  /** Live: read it whenever it is wanted. */
  readonly stats: DnsStats
  /** Threads that answer UDP; 0: this one does. */
  readonly workers: number
  /** All of these answer, or the end came first: until then this thread answers in their place. */
  readonly ready: Promise<void>
  /** Ends at once: open TCP connections are cut. Idempotent. */
  close(): Promise<void>
}

/** An operator who adds an address tries it after a few seconds. */
const ADDRESSES_EVERY_MS = 5000
/** How long what was already sent to us is still answered after the end was asked for. */
const LAST_ANSWERS_MS = 50
/** The free UDP port that the system picks may be taken for TCP: so often another is tried. */
const PORT_ATTEMPTS = 20

/** Listens on all of `listen`, or throws an error that names the one that can't be had. */
export async function openDns(options: DnsServerOptions): Promise<DnsServer> {
  const connections = new TcpConnections(options.tcp ?? {})
  const workerCount = options.workers !== undefined && hasMmsg() ? options.workers.count : 0
  const counters = allocateCounters(1 + workerCount)
  const own = counterRow(counters, 0)
  const onError = options.onError ?? (() => {})
  const limits = { ...RATE_LIMITS, ...options.rate }
  const accounts = rateTable(limits)
  const answerer = new DnsAnswerer({
    context: options.context,
    limiter: new ResponseLimiter(limits, accounts),
    counters: own,
    onFacts: options.onFacts ?? (() => {}),
    sampleEvery: options.sample?.every ?? 0,
    onSample: (facts, from) => options.sample?.onSample({ facts, from }),
    onError,
  })
  const answer: PacketHandler = (packet, address, port, via, idleMs) => {
    const nowMs = sharedNowMs()
    const reply = answerer.answer(packet, address, port, via, idleMs, nowMs)
    countDuration(own, via, sharedNowMs() - nowMs, 1)
    return reply
  }
  const onFault = (fault: Fault) => countFault(own, fault)
  const openTcp = (host: string, port: number) => openDnsTcp({ host, port, answer, connections, onError })
  const workers =
    workerCount === 0
      ? null
      : openWorkers(options as Required<DnsServerOptions>, {
          limits,
          accounts,
          counters,
          answer,
          onFault,
          onError,
        })
  const stats: DnsStats = {
    ...readCounters(counters),
    connections: connections.stats,
    get restarts() {
      return workers?.restarts ?? 0
    },
  }
  const openUdp = workers
    ? async (host: string, port: number) => workers.listen(host, port)
    : ownUdp(options, answer, () => onFault('unsent'), onError)

  const opened: Sockets[] = []
  const close = async () => {
    // What waits in the sockets was asked before the end.
    await (workers ? workers.close() : sleep(LAST_ANSWERS_MS))
    await Promise.all(opened.splice(0).map((sockets) => sockets.close()))
  }
  const addresses: DnsListen[] = []
  try {
    for (const { host, port } of options.listen) {
      const sockets = await openSockets(host, port, openUdp, openTcp)
      opened.push(sockets)
      addresses.push({ host, port: sockets.port })
    }
    workers?.start()
  } catch (error) {
    await close()
    throw error
  }
  return { addresses, stats, workers: workerCount, ready: workers?.ready ?? Promise.resolve(), close }
}

type OpenUdp = (host: string, port: number) => Promise<UdpServer>

/** Sockets of this thread: one at each address where a wildcard is listened on. */
function ownUdp(
  options: DnsServerOptions,
  answer: PacketHandler,
  onSendError: () => void,
  onError: (error: Error) => void,
): OpenUdp {
  const everyMs = options.addressesEveryMs ?? ADDRESSES_EVERY_MS
  const open = (host: string, port: number, shared: boolean) =>
    openDnsUdp({ host, port, shared, answer, onSendError })
  return (host, port) =>
    isWildcard(host)
      ? openUdpAtAll({
          wildcard: host,
          port,
          everyMs,
          open: (at, samePort) => open(at, samePort, true),
          onError,
        })
      : open(host, port, false)
}

function openWorkers(
  { workers, context, sample }: Required<Pick<DnsServerOptions, 'workers' | 'context'>> & DnsServerOptions,
  shared: {
    readonly limits: RateLimits
    readonly accounts: SharedArrayBuffer
    readonly counters: SharedArrayBuffer
    readonly answer: PacketHandler
    readonly onFault: (fault: Fault) => void
    readonly onError: (error: Error) => void
  },
): DnsWorkers {
  const setup: WorkerSetup = {
    zones: context.zones.map(({ labels, core }) => ({ labels, core })),
    operatorFrom: context.operatorFrom,
    nsid: context.nsid,
    version: context.version,
    limits: shared.limits,
    accounts: shared.accounts,
    resolvers: workers.resolvers,
    sampleEvery: sample?.every ?? 0,
  }
  const onSample = sample?.onSample ?? (() => {})
  return new DnsWorkers(workers, {
    onSample,
    setup,
    context,
    counters: shared.counters,
    answer: shared.answer,
    onFault: shared.onFault,
    onError: shared.onError,
  })
}

interface Sockets {
  readonly port: number
  close(): Promise<void>
}

/** UDP and TCP on one port. TCP tells whether another server is there already: its sockets never share a port. */
async function openSockets(
  host: string,
  port: number,
  openUdp: OpenUdp,
  openTcp: (host: string, port: number) => Promise<TcpServer>,
): Promise<Sockets> {
  for (let attempt = 1; ; attempt++) {
    const opened: (UdpServer | TcpServer)[] = []
    const close = async () => {
      await Promise.all(opened.map((socket) => socket.close()))
    }
    try {
      const udp = await openUdp(host, port)
      opened.push(udp)
      opened.push(await openTcp(host, udp.port))
      return { port: udp.port, close }
    } catch (error) {
      await close()
      const { code } = error as NodeJS.ErrnoException
      if (port !== 0 || code !== 'EADDRINUSE' || attempt === PORT_ATTEMPTS) {
        throw listenError('dns', { host, port }, error as NodeJS.ErrnoException)
      }
    }
  }
}
