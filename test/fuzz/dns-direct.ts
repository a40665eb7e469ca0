// Packets straight into the function that answers: judged, counted and timed one by one.

import { DNS_OUTCOMES } from '../../resolver/dns-answer.ts'
import { judgeReply } from './dns-judge.ts'
import type { Report } from './dns-report.ts'
import { answerHere } from './dns-world.ts'

/** From here on a packet is looked at again: was it the packet, or the machine? ms. */
const SUSPICIOUS_MS = 1
const REPEATS = 10

/** Answers one packet over one transport. `limitMs`: longer than this no packet may take. */
export function tryPacket(report: Report, packet: Buffer, via: 'udp' | 'tcp', limitMs: number): void {
  try {
    const startMs = performance.now()
    const { reply, facts } = answerHere(packet, via)
    let tookMs = performance.now() - startMs
    report.count(facts.outcome)
    if (tookMs > SUSPICIOUS_MS) tookMs = leastTime(packet, via)
    report.slowestMs = Math.max(report.slowestMs, tookMs)
    if (tookMs > limitMs) report.blame(`${tookMs.toFixed(1)} ms`, packet)
    if (!DNS_OUTCOMES.includes(facts.outcome)) report.blame(`outcome ${facts.outcome}`, packet)
    if ((reply === null) !== facts.outcome.startsWith('dropped'))
      report.blame(`${facts.outcome} and not`, packet)
    const fault = reply === null ? null : judgeReply(packet, Buffer.from(reply), via)
    if (fault !== null) report.blame(`${via}: ${fault}`, packet)
  } catch (error) {
    report.count('thrown')
    report.blame(`thrown: ${(error as Error).stack}`, packet)
  }
}

/** What it takes every time, however busy the machine is. */
function leastTime(packet: Buffer, via: 'udp' | 'tcp'): number {
  let leastMs = Number.POSITIVE_INFINITY
  for (let i = 0; i < REPEATS; i++) {
    const startMs = performance.now()
    answerHere(packet, via)
    leastMs = Math.min(leastMs, performance.now() - startMs)
  }
  return leastMs
}
