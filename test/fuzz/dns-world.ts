// What the fuzzed server serves, wherever it runs: a zone with something of everything, and all that may be
// answered open. The same in each process, so that one may say what the other must have counted.

import { type Asker, answerDns, type DnsReply } from '../../resolver/dns-answer.ts'
import { RATE_LIMITS, type RateLimits } from '../../resolver/dns-limit.ts'
import { asker, contextOf, DIRECTORY } from '../support/dns-fixture.ts'

/** Fixed, so that the outcome of a packet is too. */
const COOKIES = { secrets: [Buffer.alloc(16, 7), Buffer.alloc(16, 8)], nowSec: 1e9 }

/** Its chance is none, so that two answers to one packet can be compared. */
export const world = contextOf(DIRECTORY, { cookies: COOKIES, version: 'nearcast', rng: () => 0.5 })

export const NO_LIMITS: RateLimits = {
  ...RATE_LIMITS,
  nxdomainsPerSecond: 0,
  errorsPerSecond: 0,
  amplifiedPerSecond: 0,
}

/** Answers a packet as if it had come from loopback, where `_why` is answered too. */
export function answerHere(packet: Uint8Array, via: Asker['via']): DnsReply {
  return answerDns(world, packet, asker('127.0.0.1', via))
}
