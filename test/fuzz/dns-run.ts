// One run over packets, each of three ways: straight into the function that answers, over UDP, over TCP.
//
// The packets are the same for each way. What a server counted must be what the function says here of each packet;
// where responses are limited, only the sum can be the same.

import { DNS_OUTCOMES } from '../../resolver/dns-answer.ts'
import { seededRng } from '../support/seeded-rng.ts'
import { DirectFuzz } from './dns-direct.ts'
import { everyLength, mutator, ownPackets } from './dns-packets.ts'
import { Report } from './dns-report.ts'
import {
  type Counts,
  MOST_SENT_BYTES,
  openTarget,
  type ServerKind,
  sendTcp,
  sendUdp,
  total,
} from './dns-sockets.ts'
import { answerHere } from './dns-world.ts'

export interface Plan {
  readonly seed: number
  /** Beside the own ones. */
  readonly corpus: readonly Buffer[]
  /** Mutations for each way. */
  readonly count: number
  /** As many of them as fit into so long for each way; 0: all. */
  readonly seconds: number
}

function* packets({ seed, corpus, count, seconds }: Plan): Generator<Buffer> {
  const own = ownPackets()
  const rng = seededRng(seed)
  yield* corpus
  yield* own
  yield* everyLength(own, rng)
  const next = mutator(corpus.length > 0 ? [corpus, own] : [own], rng)
  const endMs = seconds > 0 ? performance.now() + seconds * 1000 : Number.POSITIVE_INFINITY
  for (let i = 0; i < count && performance.now() < endMs; i++) yield next()
}

/** Straight into the functions, as if by UDP and as if by TCP. */
export function runDirect(plan: Plan): Report {
  const direct = new DirectFuzz(new Report())
  for (const packet of packets(plan)) direct.try(packet)
  direct.finish()
  return direct.report
}

export async function runSockets(plan: Plan, via: 'udp' | 'tcp', server: ServerKind): Promise<Report> {
  const report = new Report()
  const expected: Record<string, number> = {}
  const sendable = function* () {
    for (const packet of packets(plan)) {
      if (packet.length > MOST_SENT_BYTES) continue
      const { outcome } = answerHere(packet, via).facts
      expected[outcome] = (expected[outcome] ?? 0) + 1
      yield packet
    }
  }
  const target = await openTarget(server)
  try {
    report.packets = await (via === 'udp' ? sendUdp : sendTcp)(target, sendable(), report)
    compareCounts(report, via, await target.counts(), server.limited ? null : expected)
  } catch (error) {
    report.blame(`it ended: ${(error as Error).message}`, Buffer.alloc(0))
  } finally {
    target.close()
  }
  return report
}

function compareCounts(
  report: Report,
  via: 'udp' | 'tcp',
  counts: Counts,
  expected: Readonly<Record<string, number>> | null,
): void {
  const nothing = Buffer.alloc(0)
  const all = total(counts[via])
  if (all !== report.packets) report.blame(`${report.packets} packets, ${all} counted`, nothing)
  for (const outcome of DNS_OUTCOMES) {
    const [here, there] = [expected?.[outcome] ?? 0, counts[via][outcome]]
    if (expected !== null && here !== there) report.blame(`${outcome}: ${here} here, ${there} there`, nothing)
  }
  for (const error of counts.errors) report.blame(`the server failed: ${error}`, nothing)
  report.longestStallMs = counts.longestStallMs
}
