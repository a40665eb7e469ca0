// Token buckets: so many a second on average, so many at once, for each key.
//
// Invariant: in any span of t seconds a key is granted at most burst + t * perSec, as long as it is
// among the maxKeys used last. The clock is an argument, and one that never steps back (performance.now):
// a corrected wall clock would grant too much, or nothing for hours.

interface Bucket {
  tokens: number
  atMs: number
}

export class TokenBuckets {
  readonly #perSec: number
  readonly #burst: number
  readonly #maxKeys: number
  /** In order of use: the first is the one to forget when there are too many. */
  readonly #buckets = new Map<string, Bucket>()

  constructor(options: { perSec: number; burst: number; maxKeys?: number }) {
    this.#perSec = options.perSec
    this.#burst = options.burst
    this.#maxKeys = options.maxKeys ?? 1
  }

  /** Takes `count` tokens of `key`'s, all or none. */
  take(key: string, nowMs: number, count = 1): boolean {
    const bucket = this.#buckets.get(key) ?? { tokens: this.#burst, atMs: nowMs }
    bucket.tokens = Math.min(this.#burst, bucket.tokens + ((nowMs - bucket.atMs) / 1000) * this.#perSec)
    bucket.atMs = nowMs
    this.#buckets.delete(key)
    this.#buckets.set(key, bucket)
    if (this.#buckets.size > this.#maxKeys) this.#forgetOldest()
    if (bucket.tokens < count) return false
    bucket.tokens -= count
    return true
  }

  #forgetOldest(): void {
    for (const key of this.#buckets.keys()) {
      this.#buckets.delete(key)
      return
    }
  }
}
