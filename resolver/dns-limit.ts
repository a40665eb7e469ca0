// Response rate limiting: a spoofed flood must not turn us on its victim.
//
// Over UDP each /24 (/56) may be sent so many replies a second. Past that, every second query is
// dropped and the others get an empty reply with TC ("slip"), by which a true asker learns to come by
// TCP, and which is no larger than what it answers. Fixed memory: prefixes share 65,536 buckets, and one
// that finds another's takes it over full. Loopback and the exempt are never limited.

import { type Address, familyOf, isLoopbackOrIn, type Prefix } from './address.ts'
import { hashBytes } from './hash.ts'

export interface RateLimits {
  /** Replies a second to one prefix; as many may come at once. 0: no limit. */
  readonly repliesPerSec: number
  /** Such as known resolvers, and load tests. */
  readonly exempt: readonly Prefix[]
}

export type Limited = 'slip' | 'drop'

/** A large resolver site asks for each of its client prefixes once a TTL: hundreds a second, seldom more. */
export const RATE_LIMITS: RateLimits = { repliesPerSec: 2000, exempt: [] }

const BUCKETS = 65_536
/** Bytes of the 16-byte form that tell askers apart: /24 and /56. */
const GRAIN_BYTES = { 4: 15, 6: 7 } as const

export class RateLimiter {
  readonly #limits: RateLimits
  readonly #owners = new Uint32Array(BUCKETS)
  readonly #tokens: Float64Array
  readonly #filledMs = new Float64Array(BUCKETS)
  #overflow = 0

  constructor(limits: RateLimits) {
    this.#limits = limits
    this.#tokens = new Float64Array(BUCKETS).fill(limits.repliesPerSec)
  }

  /** Counts one query from this address; null: it may be answered. `nowMs`: any clock that only goes on. */
  take(address: Address, nowMs: number): Limited | null {
    const { repliesPerSec } = this.#limits
    if (repliesPerSec === 0) return null
    const owner = hashBytes(address, GRAIN_BYTES[familyOf(address)])
    const bucket = (owner ^ (owner >>> 16)) & (BUCKETS - 1)
    const own = this.#owners[bucket] === owner ? this.#tokens[bucket]! : repliesPerSec
    const refill = ((nowMs - this.#filledMs[bucket]!) * repliesPerSec) / 1000
    const tokens = Math.min(repliesPerSec, own + refill)
    this.#owners[bucket] = owner
    this.#filledMs[bucket] = nowMs
    this.#tokens[bucket] = Math.max(0, tokens - 1)
    // Who is exempt is asked only now: nearly nobody gets here.
    if (tokens >= 1 || isLoopbackOrIn(this.#limits.exempt, address)) return null
    return this.#overflow++ % 2 === 0 ? 'slip' : 'drop'
  }
}
