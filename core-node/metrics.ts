// Metrics for Prometheus: what the parts count in plain numbers, in its text format.
//
// Invariant: labels are from closed lists (states, codes, route classes), never a client, host or service,
// so that their number doesn't grow with use. Counting is a plain addition; gauges and the parts' own
// counters are read when someone scrapes. Names follow CoreDNS where it has the same thing.

import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import type { AllDown, Basis } from '../resolver/directory.ts'
import { DNS_OUTCOMES, type DnsOutcome } from '../resolver/dns-answer.ts'
import type { DnsStats } from '../resolver/dns-server.ts'
import { RCODE_OF } from '../resolver/dns-terms.ts'
import type { Histogram } from '../resolver/histogram.ts'
import type { MemberState } from '../resolver/serving.ts'
import type { Tables } from '../resolver/tables.ts'
import type { EchoStats } from '../server-agent/protocol/echo-socket.ts'
import type { CoreStatus } from './core.ts'
import type { ClusterStatus } from './cores.ts'

/** What metrics read of a core. */
interface Measured {
  readonly pulseCounts: Readonly<Record<string, number>>
  readonly tables: Tables
  status(): CoreStatus
}

type Door = 'http' | 'tls'
type Labels = Record<string, string>
/** Tells one labelled number at a scrape. */
type Tell = (labels: Labels, value: number) => void

export class Metrics {
  readonly #registry = new Registry()
  readonly #core: Measured
  /** As it was when the scrape began: taking it walks all hosts and members. */
  #status: CoreStatus
  readonly #requests: Counter
  /** Answers by HTTP; those by DNS are counted where they are made. */
  readonly #answered = new Map<Basis, number>()
  readonly #allDown = new Map<AllDown['mode'], number>()
  #dns: DnsStats | null = null
  readonly #refused: Counter

  constructor(core: Measured) {
    this.#core = core
    this.#status = core.status()
    collectDefaultMetrics({ register: this.#registry })
    this.#requests = this.#counter(
      'nearcast_http_requests_total',
      'HTTP requests answered, by class of route',
      ['route', 'status'],
    )
    this.#refused = this.#counter('nearcast_refused_total', 'What came to a door and was no request', [
      'door',
      'reason',
    ])
    this.#watchAnswers()
    this.#watchCore()
  }

  get contentType(): string {
    return this.#registry.contentType
  }

  /** All metrics in the text format. */
  render(): Promise<string> {
    this.#status = this.#core.status()
    return this.#registry.metrics()
  }

  /** `route`: its class, from a closed list. */
  countRequest(route: string, status: number): void {
    this.#requests.inc({ route, status })
  }

  /** A selection was answered by HTTP; `allDown`: no member was live, and this was done about it. */
  countAnswer(basis: Basis, allDown: AllDown['mode'] | null): void {
    this.#answered.set(basis, (this.#answered.get(basis) ?? 0) + 1)
    if (allDown !== null) this.#allDown.set(allDown, (this.#allDown.get(allDown) ?? 0) + 1)
  }

  /** Something that never became a request. */
  countRefused(door: Door, reason: string): void {
    this.#refused.inc({ door, reason })
  }

  /** Adds what the DNS sockets count. Once, when they are open. */
  watchDns(stats: DnsStats): void {
    this.#dns = stats
    const outcomes: [string, Readonly<Record<DnsOutcome, number>>][] = [
      ['udp', stats.udp],
      ['tcp', stats.tcp],
    ]
    const requests = 'nearcast_dns_requests_total'
    this.#readCounter(requests, 'DNS packets received', ['proto', 'family', 'type'], (tell) => {
      for (const { via, family, type, count } of stats.requests())
        tell({ proto: via, family: FAMILY_LABEL[family], type }, count)
    })
    const responses = 'nearcast_dns_responses_total'
    this.#readCounter(responses, 'What became of DNS packets', ['proto', 'outcome', 'rcode'], (tell) => {
      for (const [proto, counts] of outcomes) {
        for (const [outcome, count] of Object.entries(counts)) {
          tell({ proto, outcome, rcode: RCODE_OF[outcome as DnsOutcome] ?? 'none' }, count)
        }
      }
    })
    const { connections } = stats
    this.#readCounter('nearcast_dns_truncated_total', 'Replies too long for UDP', [], (tell) =>
      tell({}, stats.faults.truncated),
    )
    this.#histogram(
      'nearcast_dns_request_duration_seconds',
      'Time from when packets were taken to when their replies were handed over',
      (via) => stats.durations(via),
    )
    this.#histogram('nearcast_dns_request_size_bytes', 'Size of DNS packets received', (via) =>
      stats.querySizes(via),
    )
    this.#histogram('nearcast_dns_response_size_bytes', 'Size of DNS replies', (via) => stats.replySizes(via))
    const ranks = 'nearcast_dns_rank_total'
    const rankHelp = 'Answers by the place of the member named first, among those that fit, by distance'
    this.#readCounter(ranks, rankHelp, ['rank'], (tell) => {
      for (const [rank, count] of Object.entries(stats.ranks)) tell({ rank }, count)
    })
    const bytes = 'nearcast_dns_bytes_total'
    this.#readCounter(bytes, 'Bytes of DNS over UDP by outcome', ['direction', 'outcome'], (tell) => {
      for (const outcome of DNS_OUTCOMES) {
        tell({ direction: 'in', outcome }, stats.bytesIn[outcome])
        tell({ direction: 'out', outcome }, stats.bytesOut[outcome])
      }
    })
    const limited = 'nearcast_dns_limited_total'
    this.#readCounter(limited, 'Responses that were too many for their askers', ['verdict'], (tell) => {
      for (const verdict of ['slip', 'drop'] as const) tell({ verdict }, stats.limited[verdict])
    })
    this.#readCounter(
      'nearcast_dns_send_errors_total',
      'Replies that the system would not send',
      [],
      (tell) => tell({}, stats.faults.unsent),
    )
    this.#readCounter('nearcast_dns_worker_restarts_total', 'DNS threads that died', [], (tell) =>
      tell({}, stats.restarts),
    )
    this.#readCounter('nearcast_dns_connections_total', 'DNS TCP connections by fate', ['fate'], (tell) => {
      for (const fate of ['accepted', 'refused', 'cut'] as const) tell({ fate }, connections[fate])
    })
    this.#gauge('nearcast_dns_connections_open', 'DNS TCP connections now', [], (tell) =>
      tell({}, connections.open),
    )
  }

  /** Adds what the query log counts. Once, when it is open. */
  watchQueryLog(counts: { readonly written: number; readonly dropped: number }): void {
    const lines = 'nearcast_query_log_lines_total'
    this.#readCounter(
      lines,
      'Lines of the query log: written, or lost for want of room',
      ['fate'],
      (tell) => {
        tell({ fate: 'written' }, counts.written)
        tell({ fate: 'dropped' }, counts.dropped)
      },
    )
  }

  /** Adds what the echo socket counts. Once, when it is open. */
  watchEcho(stats: EchoStats): void {
    const packets = 'nearcast_echo_packets_total'
    this.#readCounter(packets, 'What became of packets at the echo', ['outcome'], (tell) => {
      tell({ outcome: 'answered' }, stats.answered)
      tell({ outcome: 'matched' }, stats.matched)
      tell({ outcome: 'guest' }, stats.guests)
      for (const [reason, count] of Object.entries(stats.dropped))
        tell({ outcome: `dropped-${reason}` }, count)
    })
  }

  #watchAnswers(): void {
    const tellAll = (label: string, http: Iterable<[string, number]>, dns: object, tell: Tell) => {
      for (const [value, count] of http) tell({ door: 'http', [label]: value }, count)
      for (const [value, count] of Object.entries(dns)) tell({ door: 'dns', [label]: value }, count)
    }
    const answers = 'nearcast_answers_total'
    this.#readCounter(answers, 'Answers by door and what they stand on', ['door', 'basis'], (tell) =>
      tellAll('basis', this.#answered, this.#dns?.bases ?? {}, tell),
    )
    const allDown = 'nearcast_all_down_total'
    this.#readCounter(allDown, 'Answers for services without a live member', ['door', 'mode'], (tell) =>
      tellAll('mode', this.#allDown, this.#dns?.allDown ?? {}, tell),
    )
  }

  #watchCore(): void {
    this.#gauge('nearcast_ready', 'Whether clients should be sent here: 1 or 0', [], (tell) =>
      tell({}, this.#status.ready ? 1 : 0),
    )
    this.#gauge('nearcast_degraded', 'How many things work only in part; /readyz tells which', [], (tell) =>
      tell({}, this.#status.degraded.length),
    )
    this.#gauge('nearcast_services', 'Services in the directory', [], (tell) =>
      tell({}, this.#status.services),
    )
    this.#gauge('nearcast_hosts', 'Hosts by presence', ['presence'], (tell) => {
      for (const [presence, count] of Object.entries(this.#status.hosts)) tell({ presence }, count)
    })
    this.#gauge('nearcast_members', 'Members by state', ['state'], (tell) => {
      for (const [state, count] of Object.entries(countMembers(this.#core.tables))) tell({ state }, count)
    })
    this.#gauge('nearcast_localities', 'Client prefixes of which something was measured', [], (tell) =>
      tell({}, this.#status.localities),
    )
    this.#gauge('nearcast_places', 'Prefixes that imports told the place of', [], (tell) =>
      tell({}, this.#status.places),
    )
    this.#watchCluster()
    const pulses = 'nearcast_pulses_total'
    this.#readCounter(pulses, 'What became of heartbeats by UDP', ['outcome'], (tell) => {
      for (const [outcome, count] of Object.entries(this.#core.pulseCounts)) tell({ outcome }, count)
    })
    const events = 'nearcast_events_total'
    this.#readCounter(events, 'What the core heard, ordered, decided and refused', ['event'], (tell) => {
      for (const [event, count] of Object.entries(this.#status.counters)) tell({ event }, count)
    })
  }

  /** Nothing is told of it where no other core shares the store. */
  #watchCluster(): void {
    const gauge = (name: string, help: string, read: (cluster: ClusterStatus) => number | null) =>
      this.#gauge(`nearcast_cluster_${name}`, help, [], (tell) => {
        const { cluster } = this.#status
        const value = cluster && read(cluster)
        if (value !== null) tell({}, value)
      })
    gauge('connected', 'Whether the shared store is in reach and all is known: 1 or 0', (it) =>
      Number(it.connected),
    )
    gauge('behind_seconds', 'For how long it has not been so', (it) => it.behindSec)
    gauge('lease_held', 'Whether the lease of this core in the store is held: 1 or 0', (it) =>
      Number(it.lease),
    )
    gauge('cores', 'Cores that hold a lease', (it) => it.cores.length)
    gauge('unstored', 'Records that are answered with and not stored yet', (it) => it.unstored)
    gauge('orphans', 'Hosts of cores that are gone, judged here', (it) => it.orphans)
    gauge('store_bytes', 'What the shared store takes on its disk', (it) => it.storeBytes)
    const commits = 'nearcast_cluster_commits_total'
    this.#readCounter(commits, 'Commits told to the other cores and heard of them', ['way'], (tell) => {
      tell({ way: 'told' }, this.#status.cluster?.commitsTold ?? 0)
      tell({ way: 'heard' }, this.#status.cluster?.commitsHeard ?? 0)
    })
    const conflicts = 'nearcast_cluster_conflicts_total'
    this.#readCounter(conflicts, 'Commits that another core was first with; decided anew', [], (tell) =>
      tell({}, this.#status.cluster?.conflicts ?? 0),
    )
  }

  #counter(name: string, help: string, labelNames: string[]): Counter {
    return new Counter({ name, help, labelNames, registers: [this.#registry] })
  }

  #gauge(name: string, help: string, labelNames: string[], read: (tell: Tell) => void): void {
    const collect = () => read((labels, value) => gauge.set(labels, value))
    const gauge = new Gauge({ name, help, labelNames, registers: [this.#registry], collect })
  }

  /** Histograms that another part keeps, one for each transport. */
  #histogram(name: string, help: string, read: (via: 'udp' | 'tcp') => Histogram): void {
    const get = async () => ({
      name,
      help,
      type: 'histogram',
      aggregator: 'sum',
      values: (['udp', 'tcp'] as const).flatMap((proto) => bucketsOf(name, proto, read(proto))),
    })
    this.#registry.registerMetric({ name, get } as unknown as Counter)
  }

  /** A counter that another part keeps: told anew at each scrape. */
  #readCounter(name: string, help: string, labelNames: string[], read: (tell: Tell) => void): void {
    const collect = () => {
      counter.reset()
      read((labels, value) => counter.inc(labels, value))
    }
    const counter = new Counter({ name, help, labelNames, registers: [this.#registry], collect })
  }
}

/** Of Prometheus: each bucket holds all that are smaller, too. */
function bucketsOf(name: string, proto: string, { limits, counts, sum }: Histogram): object[] {
  let total = 0
  const buckets = counts.map((count, i) => {
    total += count
    return { metricName: `${name}_bucket`, labels: { proto, le: limits[i] ?? '+Inf' }, value: total }
  })
  return [
    ...buckets,
    { metricName: `${name}_sum`, labels: { proto }, value: sum },
    { metricName: `${name}_count`, labels: { proto }, value: total },
  ]
}

/** As CoreDNS numbers the families of addresses. */
const FAMILY_LABEL = { 4: '1', 6: '2' } as const

function countMembers(tables: Tables): Record<MemberState, number> {
  const counts = { live: 0, silent: 0, left: 0, down: 0, drained: 0, unverified: 0 }
  for (const { members } of tables.services()) for (const { state } of members) counts[state]++
  return counts
}
