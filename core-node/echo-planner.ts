// Echo planner: which host echoes which, so that every host has a coordinate and keeps it true.
//
// Each host measures a few near and a few far others (Dabek et al., SIGCOMM 2004, section 4.1: near
// ones make it exact, far ones place it), a newcomer quickly and among all kinds, a settled one seldom.
// However many hosts there are, echoes a minute stay under a bound; the longest unmeasured go first.
// Pure but for its own memory: clock and chance by argument, sends nothing.

import type { Host } from '../resolver/directory.ts'
import { hashShare, hashText } from '../resolver/hash.ts'
import type { Tables } from '../resolver/tables.ts'

/** `from` is to echo `to`. */
export interface EchoPlan {
  readonly from: string
  readonly to: string
}

/** The view that a plan is made from: `hosts` are the live ones of all cores, `home` plans for its own. */
export interface EchoView {
  readonly tables: Tables
  readonly hosts: readonly Host[]
  readonly home: string
}

/** A settled host's others, near and far: RTTs drift over minutes, and a median wants the same pairs again. */
const NEAR = 4
const FAR = 4
/** Echoes of a host in its first minute: enough for Vivaldi to settle (some 100 samples). */
const NEW_FOR_MS = 60_000
const NEW_EVERY_MS = 2_000
const NEW_COUNT = 4
const SETTLED_EVERY_MS = 15_000
const SETTLED_COUNT = 1
/** By default, for all hosts of one home: about a packet a hundredth of a second. */
const MAX_PER_MINUTE = 3_000
/** Planned at once at most, as a share of the minute's. */
const BURST_SHARE = 0.1

interface HostMemory {
  readonly sinceMs: number
  dueMs: number
}

export class EchoPlanner {
  readonly #memory = new Map<string, HostMemory>()
  readonly #perMinute: number
  #credit: number
  #creditMs = Number.NaN

  constructor(perMinute: number = MAX_PER_MINUTE) {
    this.#perMinute = perMinute
    this.#credit = perMinute * BURST_SHARE
  }

  /** What the hosts of this home should echo now. */
  plan(view: EchoView, nowMs: number, rng: () => number): EchoPlan[] {
    this.#refill(nowMs)
    const targets = view.hosts.filter((host) => host.echo !== null && host.reachable !== false)
    const due = this.#dueHosts(view, nowMs)
    const plans: EchoPlan[] = []
    for (const { host, memory } of due) {
      const isNew = nowMs - memory.sinceMs < NEW_FOR_MS
      const count = Math.min(isNew ? NEW_COUNT : SETTLED_COUNT, Math.floor(this.#credit))
      if (count === 0) break
      const others = chooseOthers(view.tables, host, targets, isNew, count, rng)
      for (const to of others) plans.push({ from: host.name, to })
      this.#credit -= others.length
      memory.dueMs = nowMs + (isNew ? NEW_EVERY_MS : SETTLED_EVERY_MS)
    }
    return plans
  }

  /** Homed hosts whose time has come, longest overdue first; forgets those that went. */
  #dueHosts({ hosts, home }: EchoView, nowMs: number): { host: Host; memory: HostMemory }[] {
    const own = hosts.filter((host) => host.home === home && host.agent)
    const names = new Set(own.map((host) => host.name))
    for (const name of this.#memory.keys()) if (!names.has(name)) this.#memory.delete(name)
    const due: { host: Host; memory: HostMemory }[] = []
    for (const host of own) {
      const memory = this.#memory.get(host.name) ?? { sinceMs: nowMs, dueMs: nowMs }
      this.#memory.set(host.name, memory)
      if (memory.dueMs <= nowMs) due.push({ host, memory })
    }
    return due.sort((a, b) => a.memory.dueMs - b.memory.dueMs)
  }

  #refill(nowMs: number): void {
    const elapsedMs = Number.isNaN(this.#creditMs) ? 0 : nowMs - this.#creditMs
    const burst = Math.max(1, this.#perMinute * BURST_SHARE)
    this.#credit = Math.min(burst, this.#credit + (elapsedMs * this.#perMinute) / 60_000)
    this.#creditMs = nowMs
  }
}

/** `count` different others for a host: a newcomer's are spread over all; else one of its near or far ones each time. */
function chooseOthers(
  tables: Tables,
  host: Host,
  targets: readonly Host[],
  isNew: boolean,
  count: number,
  rng: () => number,
): string[] {
  const others = targets.filter((other) => other.name !== host.name && sharesFamily(host, other))
  if (isNew) return drawSome(others, count, rng)
  const row = tables.hostRow(host.name)
  const nearMs = (other: Host) => tables.hosts.distanceBetweenMs(row, tables.hostRow(other.name))
  // By hash, so that the far ones stay the same while hosts come and go.
  const seed = hashText(host.name)
  const near = lowest(others, NEAR, row < 0 ? () => Number.NaN : nearMs)
  const far = lowest(others, FAR, (other) => hashShare(seed, hashText(other.name)))
  return drawSome([...new Set([...near, ...far])], count, rng)
}

function drawSome(hosts: readonly Host[], count: number, rng: () => number): string[] {
  const left = hosts.map((host) => host.name)
  const drawn: string[] = []
  while (drawn.length < count && left.length > 0) {
    drawn.push(...left.splice(Math.floor(rng() * left.length), 1))
  }
  return drawn
}

/** The `count` hosts with the lowest key; those without one (NaN) are left out. */
function lowest(hosts: readonly Host[], count: number, key: (host: Host) => number): Host[] {
  const keyed = hosts.map((host) => ({ host, key: key(host) })).filter((k) => !Number.isNaN(k.key))
  return keyed
    .sort((a, b) => a.key - b.key)
    .slice(0, count)
    .map((k) => k.host)
}

function sharesFamily(a: Host, b: Host): boolean {
  const isIpv6 = b.echo?.address.includes(':') ?? false
  return a.addresses.some((address) => address.includes(':') === isIpv6)
}
