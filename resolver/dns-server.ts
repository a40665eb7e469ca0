// The sockets of the DNS server: UDP and TCP on the same ports, a thin shell over answerDns.
//
// Invariant: each packet received is counted under exactly one outcome, for each transport; no packet,
// no send and no asker ends the process. Replies leave from the address that was asked. Decides nothing
// about answers.

import { setTimeout as sleep } from 'node:timers/promises'
import { isWildcard } from './address.ts'
import { openUdpAtAll } from './dns-addresses.ts'
import {
  type Asker,
  answerDns,
  answerFailure,
  type DnsContext,
  type DnsFacts,
  type DnsReply,
  type PacketHandler,
} from './dns-answer.ts'
import { sharedNowMs } from './dns-clock.ts'
import {
  allocateCounters,
  countBytes,
  counterRow,
  countFacts,
  countFault,
  type DnsCounts,
  readCounters,
} from './dns-counters.ts'
import { RATE_LIMITS, type RateLimits, ResponseLimiter, rateTable } from './dns-limit.ts'
import { openDnsTcp, TcpConnections, type TcpLimits, type TcpServer, type TcpStats } from './dns-tcp.ts'
import { openDnsUdp, type UdpServer } from './dns-udp.ts'
import { listenError } from './listen-error.ts'

interface DnsListen {
  /** An IP address; 0.0.0.0 is all of IPv4 and :: all of IPv6 only. */
  readonly host: string
  /** 0: any that is free for UDP and TCP. */
  readonly port: number
}

interface DnsServerOptions {
  readonly listen: readonly DnsListen[]
  /** Read anew for each query. */
  readonly context: DnsContext
  readonly tcp?: Partial<TcpLimits>
  /** Of replies over UDP. */
  readonly rate?: Partial<RateLimits>
  /** How often new addresses of this machine are looked for, where a wildcard is listened on, ms. */
  readonly addressesEveryMs?: number
  /** Told of each packet just before its reply leaves. Must not throw. */
  readonly onFacts?: (facts: DnsFacts, from: Asker) => void
  /** Told of what should never happen: a failure inside answering, or of a socket. */
  readonly onError?: (error: Error) => void
}

export interface DnsStats extends DnsCounts {
  readonly connections: TcpStats
}

export interface DnsServer {
  /** Where it listens, ports as they came out, in the order of `listen`. */
  readonly addresses: readonly DnsListen[]
  /** Live: read it whenever it is wanted. */
  readonly stats: DnsStats
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
  const counters = allocateCounters(1)
  const counted = counterRow(counters, 0)
  const stats: DnsStats = { ...readCounters(counters), connections: connections.stats }
  const onError = options.onError ?? (() => {})
  const limits = { ...RATE_LIMITS, ...options.rate }
  const limiter = new ResponseLimiter(limits, rateTable(limits))
  const answer: PacketHandler = (packet, address, port, via, idleMs) => {
    const from = { address, port, via, idleMs, nowMs: sharedNowMs() }
    const { reply, facts } = answerSafely(options.context, packet, from, limiter, onError)
    countFacts(counted, facts, via)
    if (via === 'udp') countBytes(counted, facts.outcome, packet.length, reply?.length ?? 0)
    options.onFacts?.(facts, from)
    return reply
  }
  const onSendError = () => {
    countFault(counted, 'unsent')
  }
  const openSocket = (host: string, port: number, shared: boolean) =>
    openDnsUdp({ host, port, shared, answer, onSendError })
  const everyMs = options.addressesEveryMs ?? ADDRESSES_EVERY_MS
  const openUdp = (host: string, port: number) =>
    isWildcard(host)
      ? openUdpAtAll({
          wildcard: host,
          port,
          everyMs,
          open: (at, samePort) => openSocket(at, samePort, true),
          onError,
        })
      : openSocket(host, port, false)
  const openTcp = (host: string, port: number) => openDnsTcp({ host, port, answer, connections, onError })

  const opened: Sockets[] = []
  const close = async () => {
    // What waits in the sockets was asked before the end.
    await sleep(LAST_ANSWERS_MS)
    await Promise.all(opened.splice(0).map((sockets) => sockets.close()))
  }
  const addresses: DnsListen[] = []
  try {
    for (const { host, port } of options.listen) {
      const sockets = await openSockets(host, port, openUdp, openTcp)
      opened.push(sockets)
      addresses.push({ host, port: sockets.port })
    }
  } catch (error) {
    await close()
    throw error
  }
  return { addresses, stats, close }
}

function answerSafely(
  context: DnsContext,
  packet: Uint8Array,
  from: Asker,
  limiter: ResponseLimiter,
  onError: (error: Error) => void,
): DnsReply {
  try {
    return answerDns(context, packet, from, limiter)
  } catch (error) {
    onError(error as Error)
    return answerFailure(packet, from)
  }
}

interface Sockets {
  readonly port: number
  close(): Promise<void>
}

/** UDP and TCP on one port. TCP tells whether another server is there already: its sockets never share a port. */
async function openSockets(
  host: string,
  port: number,
  openUdp: (host: string, port: number) => Promise<UdpServer>,
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
