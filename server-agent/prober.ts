// Carries out a core's orders: echoes to other hosts, probes to clients, checks of members that have
// no agent. What comes in is untrusted: each order is checked for shape and for where it leads.
//
// Invariant: whatever a core says, at most perMinute packets or connections a minute leave here for
// it, at most MAX_RUNNING orders run at once, and nothing goes to a multicast, broadcast or unspecified
// address or runs a command. Every order accepted is reported once.

import { BlockList, isIP } from 'node:net'
import { Compile } from 'typebox/compile'
import { parseCheck, runCheck } from './check.ts'
import { type ProbeTarget, probeDns, probeIcmp, probeTcp, sourceFor } from './client-probe.ts'
import type { EchoSocket } from './protocol/echo-socket.ts'
import {
  type CheckOrder,
  type ClientOrder,
  type EchoOrder,
  Order,
  type OrderResult,
} from './protocol/messages.ts'
import { TokenBuckets } from './protocol/token-bucket.ts'

const MAX_RUNNING = 16
/** More than any planner gives one host between two heartbeats. */
const MAX_WAITING = 256
const MAX_CHECK_MS = 10_000
/** A second opinion that comes late is none; the others may wait for a satellite. */
const URGENT_ECHO_MS = 1000
const ECHO_MS = 1500
/** Limits of the protocol's OrderResult. */
const MAX_DETAIL = 200

const OrderShape = Compile(Order)

const neverProbed = new BlockList()
neverProbed.addSubnet('0.0.0.0', 8, 'ipv4')
neverProbed.addSubnet('224.0.0.0', 4, 'ipv4')
neverProbed.addAddress('255.255.255.255', 'ipv4')
neverProbed.addAddress('::', 'ipv6')
neverProbed.addSubnet('ff00::', 8, 'ipv6')

/** True where a probe may go at all: a unicast address, written as the family it is. */
export function isProbeable(address: string): boolean {
  const family = isIP(address)
  if (family === 0 || address.includes('%') || /^::ffff:/i.test(address)) return false
  return !neverProbed.check(address, family === 4 ? 'ipv4' : 'ipv6')
}

/** What became of the orders that came, apart from those carried out. */
export interface ProberStats {
  accepted: number
  /** Not an order that this agent knows. */
  malformed: number
  /** A second copy of one that is still here. */
  repeated: number
  /** To where no probe may go. */
  forbidden: number
  /** Over perMinute, or too many waiting. */
  limited: number
}

export interface ProberOptions {
  readonly echo: EchoSocket
  readonly perMinute: number
  /** Each accepted order's result, as soon as it is there. */
  readonly report: (result: OrderResult, order: Order) => void
  /** Monotonic ms, for the rate limit. */
  readonly steadyNow?: () => number
}

export class Prober {
  readonly stats: ProberStats = { accepted: 0, malformed: 0, repeated: 0, forbidden: 0, limited: 0 }
  readonly #echo: EchoSocket
  readonly #report: (result: OrderResult, order: Order) => void
  readonly #steadyNow: () => number
  readonly #perMinute: number
  readonly #budget: TokenBuckets
  readonly #stop = new AbortController()
  readonly #waiting: Order[] = []
  /** Orders waiting or running, by id. */
  readonly #known = new Set<string>()
  readonly #running = new Set<Promise<void>>()

  constructor(options: ProberOptions) {
    this.#echo = options.echo
    this.#report = options.report
    this.#steadyNow = options.steadyNow ?? (() => performance.now())
    this.#perMinute = options.perMinute
    // A quarter at once and the rest over the minute: together never more than perMinute in any minute.
    const burst = Math.ceil(options.perMinute / 4)
    this.#budget = new TokenBuckets({ perSec: (options.perMinute - burst) / 60, burst })
  }

  /** Takes orders as they came in; returns at once. */
  accept(orders: readonly unknown[]): void {
    for (const order of orders) {
      if (!OrderShape.Check(order)) this.stats.malformed++
      else if (this.#known.has(order.id)) this.stats.repeated++
      else this.#admit(order)
    }
    this.#startWaiting()
  }

  /** Ends what runs; resolves when nothing is left. */
  async stop(): Promise<void> {
    this.#stop.abort(new Error('stopped'))
    this.#waiting.length = 0
    await Promise.all(this.#running)
  }

  #admit(order: Order): void {
    if (order.kind !== 'check' && !isProbeable(order.address)) {
      this.stats.forbidden++
      this.#refuse(order, `${order.address} is not probed`)
    } else if (
      this.#waiting.length >= MAX_WAITING ||
      !this.#budget.take('', this.#steadyNow(), costOf(order))
    ) {
      this.stats.limited++
      this.#refuse(order, `over this agent's own limit of ${this.#perMinute} probes a minute`)
    } else {
      this.stats.accepted++
      this.#known.add(order.id)
      // Second opinions go first: the life of a member hangs on them.
      if (order.kind === 'echo' && order.urgent) this.#waiting.unshift(order)
      else this.#waiting.push(order)
    }
  }

  #refuse(order: Order, detail: string): void {
    this.#report({ id: order.id, rttsMs: [], sent: 0, detail }, order)
  }

  #startWaiting(): void {
    while (this.#running.size < MAX_RUNNING) {
      const order = this.#waiting.shift()
      if (order === undefined) return
      const done = this.#carryOut(order).then((result) => {
        this.#running.delete(done)
        this.#known.delete(order.id)
        if (this.#stop.signal.aborted) return
        this.#report(result, order)
        this.#startWaiting()
      })
      this.#running.add(done)
    }
  }

  async #carryOut(order: Order): Promise<OrderResult> {
    switch (order.kind) {
      case 'echo':
        return this.#sendEchoes(order)
      case 'client':
        return this.#probeClient(order)
      case 'check':
        return this.#checkMember(order)
    }
  }

  async #sendEchoes(order: EchoOrder): Promise<OrderResult> {
    const { rttsMs, sent } = await this.#echo.ping({
      address: order.address,
      port: order.port,
      prober: Buffer.from(order.prober, 'hex'),
      key: Buffer.from(order.key, 'hex'),
      count: order.count,
      timeoutMs: order.urgent ? URGENT_ECHO_MS : ECHO_MS,
    })
    return { id: order.id, rttsMs, sent }
  }

  /** The first method that gets an answer is the one; what it was is told. */
  async #probeClient(order: ClientOrder): Promise<OrderResult> {
    const { address, count } = order
    const target: ProbeTarget = { address, count, source: sourceFor(this.#echo.address, address) }
    const stop = this.#stop.signal
    for (const method of order.methods) {
      const rttsMs =
        method.kind === 'dns'
          ? await probeDns(target, method.port, stop)
          : method.kind === 'tcp'
            ? await probeTcp(target, method.port, stop)
            : await probeIcmp(target, stop)
      if (rttsMs.length > 0)
        return { id: order.id, rttsMs: rttsMs.slice(0, count), sent: count, detail: method.kind }
    }
    return { id: order.id, rttsMs: [], sent: count }
  }

  async #checkMember(order: CheckOrder): Promise<OrderResult> {
    const check = parseCheck(order.check)
    // A core may have a member looked at, never a command run.
    if (check === null || check.kind === 'exec') {
      return {
        id: order.id,
        rttsMs: [],
        sent: 0,
        detail: `not a check for an agent: ${order.check}`.slice(0, MAX_DETAIL),
      }
    }
    const timeoutMs = Math.min(Math.max(order.timeoutMs, 1), MAX_CHECK_MS)
    const { ok, detail, rttMs } = await runCheck(check, timeoutMs, this.#stop.signal)
    return {
      id: order.id,
      rttsMs: rttMs === null ? [] : [rttMs],
      sent: 1,
      ok,
      detail: detail.slice(0, MAX_DETAIL),
    }
  }
}

/** The most packets or connections that an order can cause. */
function costOf(order: Order): number {
  switch (order.kind) {
    case 'echo':
      return order.count
    case 'client':
      return order.count * order.methods.length
    case 'check':
      return 1
  }
}
