// Packets straight into the functions that answer, one by one: judged, counted, timed, and held to their room.
//
// As if by UDP a packet goes the way that it goes in a server's thread: it lies between other bytes, twice, among zeros
// and among ones, and its reply goes between canaries. What answerDns says is what must come out.

import { DNS_OUTCOMES, type DnsOutcome } from '../../resolver/dns-answer.ts'
import { DnsAnswerer } from '../../resolver/dns-answerer.ts'
import { allocateCounters, counterRow, readCounters } from '../../resolver/dns-counters.ts'
import { ResponseLimiter, rateTable } from '../../resolver/dns-limit.ts'
import { asker } from '../support/dns-fixture.ts'
import { judgeReply } from './dns-judge.ts'
import type { Report } from './dns-report.ts'
import { answerHere, NO_LIMITS, world } from './dns-world.ts'

/** What takes longer holds up all other packets, ms. */
export const STALL_MS = 10
/** From here on a packet is looked at again: was it the packet, or the machine? ms. */
const SUSPICIOUS_MS = 1
const REPEATS = 10

const MARGIN_BYTES = 64
const MOST_PACKET_BYTES = 65_535
/** What a thread has for a reply. */
const ROOM_BYTES = 1280
const CANARY = 0xa5
/** One reply of so many gets less room than it may need. */
const NARROW_EACH = 8

export class DirectFuzz {
  readonly report: Report
  readonly #counters = allocateCounters(1)
  readonly #answerer: DnsAnswerer
  readonly #expected: Partial<Record<DnsOutcome, number>> = {}
  readonly #asker = asker('127.0.0.1').address
  readonly #in = Buffer.alloc(MOST_PACKET_BYTES + 2 * MARGIN_BYTES)
  readonly #out = Buffer.alloc(ROOM_BYTES + 2 * MARGIN_BYTES)
  readonly #canaries = Buffer.alloc(ROOM_BYTES + 2 * MARGIN_BYTES, CANARY)

  constructor(report: Report) {
    this.report = report
    this.#answerer = new DnsAnswerer({
      context: world,
      limiter: new ResponseLimiter(NO_LIMITS, rateTable(NO_LIMITS)),
      counters: counterRow(this.#counters, 0),
      onFacts: () => {},
      sampleEvery: 0,
      onSample: () => {},
      onError: (error) => this.report.blame(`thrown: ${error.stack}`, Buffer.alloc(0)),
    })
  }

  try(packet: Buffer): void {
    for (const via of ['udp', 'tcp'] as const) {
      try {
        const expected = this.#tryFunction(packet, via)
        if (via === 'udp') this.#tryThread(packet, expected)
      } catch (error) {
        this.report.blame(`thrown: ${(error as Error).stack}`, packet)
      }
    }
  }

  /** What was counted is what was answered, each packet once. */
  finish(): void {
    const { udp } = readCounters(this.#counters)
    for (const outcome of DNS_OUTCOMES) {
      const times = this.#expected[outcome] ?? 0
      if (udp[outcome] !== times)
        this.report.blame(`${outcome}: ${times} times, counted ${udp[outcome]}`, Buffer.alloc(0))
    }
  }

  #tryFunction(packet: Buffer, via: 'udp' | 'tcp'): Buffer | null {
    const { reply, facts } = this.#timed(packet, () => answerHere(packet, via))
    const { report } = this
    report.count(facts.outcome)
    // The way of a thread is gone twice.
    if (via === 'udp') this.#expected[facts.outcome] = (this.#expected[facts.outcome] ?? 0) + 2
    if ((reply === null) !== facts.outcome.startsWith('dropped'))
      report.blame(`${facts.outcome}, but a reply of ${reply?.length ?? 0} bytes`, packet)
    if (reply === null) return null
    const bytes = Buffer.from(reply)
    const fault = judgeReply(packet, bytes, via)
    if (fault !== null) report.blame(`${via}: ${fault}`, packet)
    return bytes
  }

  #tryThread(packet: Buffer, expected: Buffer | null): void {
    const room = this.report.packets % NARROW_EACH === 0 ? this.report.packets % ROOM_BYTES : ROOM_BYTES
    const wanted = expected !== null && expected.length <= room ? expected : Buffer.alloc(0)
    for (const around of [0, 0xff]) {
      const end = MARGIN_BYTES + packet.length
      this.#in.fill(around, 0, MARGIN_BYTES)
      packet.copy(this.#in, MARGIN_BYTES)
      this.#in.fill(around, end, end + MARGIN_BYTES)
      this.#out.fill(CANARY)
      const length = this.#answerInto(packet.length, room)
      const reply = this.#out.subarray(MARGIN_BYTES, MARGIN_BYTES + length)
      if (!reply.equals(wanted))
        this.report.blame(`${reply.toString('hex')} where ${wanted.toString('hex')}`, packet)
      if (!this.#isUntouched(0, MARGIN_BYTES) || !this.#isUntouched(MARGIN_BYTES + length, this.#out.length))
        this.report.blame(`something was written outside of ${length} bytes, with room for ${room}`, packet)
    }
  }

  #answerInto(length: number, room: number): number {
    return this.#answerer.answerInto(
      this.#in,
      MARGIN_BYTES,
      length,
      this.#asker,
      5353,
      0,
      this.#out,
      MARGIN_BYTES,
      room,
    )
  }

  #isUntouched(from: number, to: number): boolean {
    return this.#out.compare(this.#canaries, from, to, from, to) === 0
  }

  /** What it takes every time counts, however busy the machine is. */
  #timed<T>(packet: Buffer, answer: () => T): T {
    const timed = () => {
      const startMs = performance.now()
      const answered = answer()
      return { answered, tookMs: performance.now() - startMs }
    }
    const { answered, tookMs } = timed()
    let leastMs = tookMs
    if (tookMs > SUSPICIOUS_MS) for (let i = 0; i < REPEATS; i++) leastMs = Math.min(leastMs, timed().tookMs)
    this.report.slowestMs = Math.max(this.report.slowestMs, leastMs)
    if (leastMs > STALL_MS) this.report.blame(`${leastMs.toFixed(1)} ms`, packet)
    return answered
  }
}
