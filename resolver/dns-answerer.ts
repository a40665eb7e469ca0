// What becomes of one packet in one thread: rate limit, answer, count, tell; over UDP and TCP alike.
//
// Invariant: never throws; each packet is counted under exactly one outcome; nothing is written outside of
// the room that was given. Pure but for its counters: the clock is an argument, and who is told of facts
// must not throw. Decides nothing about answers.

import { type Address, familyOf } from './address.ts'
import {
  type Asker,
  answerDns,
  answerFailure,
  type DnsContext,
  type DnsFacts,
  type DnsReply,
} from './dns-answer.ts'
import { countFacts } from './dns-counters.ts'
import { RESPONSE, type ResponseLimiter, VERDICT } from './dns-limit.ts'
import { NOT_PLAIN, PlainAnswers } from './dns-plain.ts'

interface AnswererOptions {
  /** Read anew for each query. */
  readonly context: DnsContext
  /** Of replies over UDP. */
  readonly limiter: ResponseLimiter
  /** The slots that this thread counts in. */
  readonly counters: Float64Array
  /** Told of each packet just before its reply leaves. */
  readonly onFacts: (facts: DnsFacts, from: Asker) => void
  /** One of so many packets is told of by onSample; 0: none. */
  readonly sampleEvery: number
  readonly onSample: (facts: DnsFacts, from: Asker) => void
  /** Told of what should never happen: a failure inside answering. */
  readonly onError: (error: Error) => void
}

export class DnsAnswerer {
  readonly #options: AnswererOptions
  /** Made for the first packet that it could be for: who only answers over TCP needs none. */
  #plain: PlainAnswers | null = null
  /** The asker of a plain question; one for all. */
  readonly #plainFrom: { -readonly [K in keyof Asker]: Asker[K] }
  /** Packets until the next that is told of. */
  #untilSample: number

  constructor(options: AnswererOptions) {
    this.#options = options
    this.#plainFrom = { address: new Uint8Array(16), port: 0, via: 'udp', idleMs: 0, nowMs: 0 }
    this.#untilSample = options.sampleEvery
  }

  /**
   * Answers a packet of `bytes`, `at` and `length`, from a UDP port of an address (16 bytes, used again by the caller),
   * into `out` from `outAt` on; the reply's length, `outLimit` at most; 0: nothing is sent. `nowMs`: of any clock that
   * only goes on and is the same for all threads.
   */
  answerInto(
    bytes: Uint8Array,
    at: number,
    length: number,
    address: Uint8Array,
    port: number,
    nowMs: number,
    out: Uint8Array,
    outAt: number,
    outLimit: number,
  ): number {
    const isSampled = this.#isSampled()
    // What is told of a sample the fast path does not work out.
    const isOrdinary = isSampled || port === 0
    const plain = isOrdinary
      ? NOT_PLAIN
      : this.#answerPlain(bytes, at, length, address, nowMs, out, outAt, outLimit)
    if (plain !== NOT_PLAIN) {
      const from = this.#plainFrom
      from.address = address
      from.port = port
      from.nowMs = nowMs
      this.#tellOf(this.#plain!.facts, from)
      return plain
    }
    const from = { address: address.slice(), port, via: 'udp', idleMs: 0, nowMs } as const
    const reply = this.#answerOrdinary(bytes.subarray(at, at + length), from, isSampled)
    if (reply === null || reply.length > outLimit) return 0
    out.set(reply, outAt)
    return reply.length
  }

  /** The fast path; NOT_PLAIN: it is not for it. */
  #answerPlain(
    bytes: Uint8Array,
    at: number,
    length: number,
    address: Uint8Array,
    nowMs: number,
    out: Uint8Array,
    outAt: number,
    outLimit: number,
  ): number {
    const { context, limiter, onError } = this.#options
    try {
      this.#plain ??= new PlainAnswers(context)
      const plain = this.#plain
      const reply = plain.answer(bytes, at, at + length, address, out, outAt, outAt + outLimit)
      if (reply <= 0 || plain.facts.isProven || !limiter.watches(plain.kind, length, reply)) return reply
      // Only of what makes up a flood, and what is cheap to say otherwise.
      if (plain.kind === RESPONSE.ANSWER || plain.hasCookie) return NOT_PLAIN
      const verdict = limiter.judge(plain.kind, plain.subject(bytes), length, reply, address, 0, nowMs)
      if (verdict === VERDICT.SEND) return reply
      const isSlip = verdict === VERDICT.SLIP
      if (limiter.isLogOnly || (isSlip && plain.kind === RESPONSE.ERROR)) {
        plain.facts.limited = isSlip ? 'slip' : 'drop'
        return reply
      }
      if (isSlip) return plain.slip(bytes, at, at + length, address, out, outAt)
      plain.drop()
      return 0
    } catch (error) {
      onError(error as Error)
      return NOT_PLAIN
    }
  }

  /** The reply to a packet; null: nothing is sent. */
  answer(
    packet: Uint8Array,
    address: Address,
    port: number,
    via: Asker['via'],
    idleMs: number,
    nowMs: number,
  ): Uint8Array | null {
    return this.#answerOrdinary(packet, { address, port, via, idleMs, nowMs }, this.#isSampled())
  }

  #answerOrdinary(packet: Uint8Array, from: Asker, isSampled: boolean): Uint8Array | null {
    const { reply, facts } = this.#answerSafely(packet, from)
    this.#tellOf(facts, from)
    if (isSampled) this.#options.onSample(facts, from)
    return reply
  }

  #tellOf(facts: DnsFacts, from: Asker): void {
    countFacts(this.#options.counters, facts, from.via, familyOf(from.address))
    this.#options.onFacts(facts, from)
  }

  #isSampled(): boolean {
    const { sampleEvery } = this.#options
    if (sampleEvery === 0 || --this.#untilSample > 0) return false
    this.#untilSample = sampleEvery
    return true
  }

  #answerSafely(packet: Uint8Array, from: Asker): DnsReply {
    try {
      return answerDns(this.#options.context, packet, from, this.#options.limiter)
    } catch (error) {
      this.#options.onError(error as Error)
      return answerFailure(packet, from)
    }
  }
}
