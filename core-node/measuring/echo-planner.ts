// Echo planner: which host echoes which, so that every host has a coordinate and keeps it true.
//
// Each host measures all others, in turn, as long as they are not many; of many the near ones and, by hash,
// some of the far (Dabek et al., SIGCOMM 2004, section 4.1: near ones make a coordinate exact, far ones
// place it); a newcomer quickly, a settled one seldom.
// However many hosts there are, echoes a minute stay under a bound; the longest unmeasured go first.
// Pure but for its own memory: clock and chance by argument, sends nothing.

import type { Host } from '../../resolver/directory.ts'
import { hashShare, hashText } from '../../resolver/hash.ts'
import type { Tables } from '../../resolver/tables.ts'

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

/** Others that a host measures: all while there are so few, else its nearest and some far ones by hash. */
const MAX_OTHERS = 128
const NEAR = 32
/** A newcomer measures in haste, until its first minute is over and it knows all of its others. */
const NEW_FOR_MS = 60_000
const NEW_EVERY_MS = 2_000
const NEW_COUNT = 4
/** A settled host has seen each of 20 others again after five minutes, each of 128 after half an hour. */
const SETTLED_EVERY_MS = 15_000
const SETTLED_COUNT = 1
/** By default, for all hosts of one home: about a packet a hundredth of a second. */
const MAX_PER_MINUTE = 3_000
/** Planned at once at most, as a share of the minute's. */
const BURST_SHARE = 0.1

interface HostMemory {
  readonly sinceMs: number
  dueMs: number
  /** Other host -> when it was last asked to measure the way there. */
  readonly askedMs: Map<string, number>
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
      if (this.#credit < 1) break
      const others = othersOf(view.tables, host, targets)
      const isNew = nowMs - memory.sinceMs < NEW_FOR_MS || others.some((other) => !memory.askedMs.has(other))
      const count = Math.min(isNew ? NEW_COUNT : SETTLED_COUNT, Math.floor(this.#credit))
      for (const to of longestUnasked(others, memory, count, rng)) {
        plans.push({ from: host.name, to })
        memory.askedMs.set(to, nowMs)
        this.#credit--
      }
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
      const memory = this.#memory.get(host.name) ?? { sinceMs: nowMs, dueMs: nowMs, askedMs: new Map() }
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

/** The names of those whose distance a host keeps up to date. */
function othersOf(tables: Tables, host: Host, targets: readonly Host[]): string[] {
  const others = targets.filter((other) => other.name !== host.name && sharesFamily(host, other))
  if (others.length <= MAX_OTHERS) return others.map((other) => other.name)
  const row = tables.hostRow(host.name)
  const nearMs = (other: Host) => tables.hosts.distanceBetweenMs(row, tables.hostRow(other.name))
  // By hash, so that the far ones stay the same while hosts come and go.
  const seed = hashText(host.name)
  const near = lowest(others, NEAR, row < 0 ? () => Number.NaN : nearMs)
  const far = lowest(others, MAX_OTHERS - near.length, (other) => hashShare(seed, hashText(other.name)))
  return [...new Set([...near, ...far])].map((other) => other.name)
}

/** The `count` that were longest not asked for, those never asked for first, equal ones by chance; forgets who went. */
function longestUnasked(
  others: readonly string[],
  { askedMs }: HostMemory,
  count: number,
  rng: () => number,
): string[] {
  if (askedMs.size > 2 * others.length) {
    for (const name of askedMs.keys()) if (!others.includes(name)) askedMs.delete(name)
  }
  return others
    .map((name) => ({ name, atMs: askedMs.get(name) ?? Number.NEGATIVE_INFINITY, draw: rng() }))
    .sort((a, b) => (a.atMs === b.atMs ? a.draw - b.draw : a.atMs - b.atMs))
    .slice(0, count)
    .map(({ name }) => name)
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
