// The book of orders: what hosts were asked to measure, and what for.
//
// An order waits for its host's next heartbeat, is delivered once, and may be answered once, by that
// host alone, before it expires. So no report counts that was not asked for. Bounded: a host that
// fetches nothing keeps the latest few only. Pure: clock by argument; sends nothing.

import type { Order } from '../../server-agent/protocol/messages.ts'

/** What an answer is for. */
export type Purpose =
  | { readonly kind: 'opinion'; readonly host: string }
  | { readonly kind: 'mesh'; readonly to: string }
  | { readonly kind: 'client'; readonly address: string }
  | { readonly kind: 'check'; readonly member: string }

interface Entry {
  readonly host: string
  readonly purpose: Purpose
  readonly expiresMs: number
}

/** Delivered at the next heartbeat, carried out, and reported with the one after: half a minute is ample for 8 s leases. */
const EXPIRE_MS = 30_000
/** Orders waiting for one host: more than it could carry out between two heartbeats. */
const WAITING_MAX = 64

export class OrderBook {
  readonly #open = new Map<string, Entry>()
  readonly #waiting = new Map<string, Order[]>()

  get size(): number {
    return this.#open.size
  }

  /** Puts an order down for `host`. */
  give(host: string, order: Order, purpose: Purpose, nowMs: number): void {
    this.#open.set(order.id, { host, purpose, expiresMs: nowMs + EXPIRE_MS })
    const waiting = this.#waiting.get(host)
    if (waiting === undefined) this.#waiting.set(host, [order])
    else {
      waiting.push(order)
      if (waiting.length > WAITING_MAX) this.#open.delete(waiting.shift()!.id)
    }
  }

  /** Whether anything waits for `host`. */
  has(host: string): boolean {
    return this.#waiting.has(host)
  }

  /** What waits for `host`, once. */
  take(host: string): Order[] {
    const waiting = this.#waiting.get(host) ?? []
    this.#waiting.delete(host)
    return waiting
  }

  /** What the answer of `host` to order `id` is for; null: it was not asked, answered before, or came too late. */
  claim(host: string, id: string, nowMs: number): Purpose | null {
    const entry = this.#open.get(id)
    if (entry === undefined || entry.host !== host) return null
    this.#open.delete(id)
    return entry.expiresMs >= nowMs ? entry.purpose : null
  }

  /** Drops what nobody will answer any more, and tells whose it was; call now and then. Entries are in order of expiry. */
  expire(nowMs: number): { readonly host: string; readonly purpose: Purpose }[] {
    const expired: Entry[] = []
    for (const [id, entry] of this.#open) {
      if (entry.expiresMs >= nowMs) break
      this.#open.delete(id)
      expired.push(entry)
    }
    for (const host of [...this.#waiting.keys()]) this.#dropExpired(host)
    return expired
  }

  #dropExpired(host: string): void {
    const waiting = this.#waiting.get(host)!.filter((order) => this.#open.has(order.id))
    if (waiting.length === 0) this.#waiting.delete(host)
    else this.#waiting.set(host, waiting)
  }
}
