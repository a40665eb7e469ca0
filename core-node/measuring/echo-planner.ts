// Echo planner: which host echoes which, so that every host has a coordinate and keeps it true.
//
// Each host measures all others, in turn, as long as they are not many; of many the near ones and, by hash,
// some of the far (Dabek et al., SIGCOMM 2004, section 4.1: near ones make a coordinate exact, far ones
// place it); a newcomer quickly, a settled one seldom. Of more than DENSE_MAX nobody looks at all others: a
// newcomer that stays a moment measures a few vantages and a few drawn at random, once each; a settled one
// these and its nearest of some more, now and then. However many there are, echoes a minute stay under a bound;
// newcomers go first, then the longest unmeasured. Pure but for its own memory: clock and chance by argument.

import type { Host } from '../../resolver/directory.ts'
import { hashShare, hashText } from '../../resolver/hash.ts'
import type { Tables } from '../../resolver/tables.ts'
import { DueQueue } from '../due-queue.ts'
import { HostDraw } from './host-draw.ts'

/** `from` is to echo `to`, so many times. */
export interface EchoPlan {
  readonly from: string
  readonly to: string
  readonly count: number
}

/** Others that a host measures: all while there are so few, else its nearest and some far ones by hash. */
const MAX_OTHERS = 128
const NEAR = 32
/** Echoes to one other: the smallest of three is close to the path's own delay. */
const ECHOES = 3
/** A newcomer measures in haste, until its first minute is over and it knows all of its others. */
const NEW_FOR_MS = 60_000
const NEW_EVERY_MS = 2_000
const NEW_COUNT = 4
/** A settled host has seen each of 20 others again after five minutes, each of 128 after half an hour. */
const SETTLED_EVERY_MS = 15_000
const SETTLED_COUNT = 1

/** Up to so many hosts, and hosts to echo, each looks at all of them. */
const DENSE_MAX = 1_000
/**
 * Of more: a newcomer's others, most of them vantages, one echo each. Sixteen place a host in eight dimensions and
 * height; who leaves within the moment costs none.
 */
const SPARSE_FAR = 16
const SPARSE_NEW_AFTER_MS = 2_000
/** Drawn for each of them. */
const SPARSE_TRIES = 16
/** A settled host's others beside them: the nearest of so many drawn. */
const SPARSE_NEAR = 16
const SPARSE_DRAWN = 256
/** So many at once, since each round costs two heartbeats by HTTP; all of them in three quarters of an hour at best. */
const SPARSE_COUNT = 8
const SPARSE_EVERY_MS = 600_000

/** For all hosts of one home, orders a minute: about a packet a hundredth of a second ... */
const LEAST_PER_MINUTE = 3_000
/** ... of many hosts so many each, which measures a settled one every quarter of an hour ... */
const PER_HOST_MINUTE = 0.6
/** ... and never more than a core has a tenth of its time for: 60 newcomers a second. */
const MOST_PER_MINUTE = 60_000
/** Planned at once at most, as a share of the minute's. */
const BURST_SHARE = 0.1
/** What newcomers may take of it: a flood of them must not keep the others from being measured. */
const NEW_SHARE = 0.75

/** A live host, as far as echoes go. */
interface EchoHost {
  readonly name: string
  /** What families it has addresses of. */
  readonly has4: boolean
  readonly has6: boolean
  /** The family of its echo's address; null: it is not to be echoed. */
  readonly echoFamily: 4 | 6 | null
  /** What is planned for it; null: another home plans for it. */
  readonly memory: HostMemory | null
}

interface HostMemory {
  readonly name: string
  readonly sinceMs: number
  /** It went, or comes again under a memory of its own. */
  isGone: boolean
  /** Among few: other host -> when it was last asked to measure the way there. */
  askedMs: Map<string, number> | null
  /** Among many: whom it measures, the longest not asked for first. */
  others: readonly string[]
}

export class EchoPlanner {
  readonly #home: string
  readonly #fixedPerMinute: number | null
  readonly #hosts = new Map<string, EchoHost>()
  readonly #targets = new HostDraw()
  readonly #newcomers = new DueQueue<HostMemory>()
  readonly #settled = new DueQueue<HostMemory>()
  #ownCount = 0
  #credit: number
  #creditMs = Number.NaN

  /** `home`: whose hosts it plans for; `perMinute`: a bound other than by their number. */
  constructor(home: string, perMinute: number | null = null) {
    this.#home = home
    this.#fixedPerMinute = perMinute
    this.#credit = this.#perMinute() * BURST_SHARE
  }

  /** A host's record is another, or gone (null). */
  follow(name: string, host: Host | null, nowMs: number): void {
    const before = this.#hosts.get(name)
    const after = host?.presence === 'live' ? this.#echoHost(host, before?.memory ?? null, nowMs) : null
    if (before?.memory && before.memory !== after?.memory) {
      before.memory.isGone = true
      this.#ownCount--
    }
    if (after?.memory && after.memory !== before?.memory) this.#ownCount++
    if (after) this.#hosts.set(name, after)
    else this.#hosts.delete(name)
    this.#targets.set(name, after !== null && after.echoFamily !== null)
  }

  /** What the hosts of this home should echo now. */
  plan(tables: Tables, nowMs: number, rng: () => number): EchoPlan[] {
    this.#refill(nowMs)
    const plans: EchoPlan[] = []
    const forOthers = this.#credit * (1 - NEW_SHARE)
    this.#planFrom(this.#newcomers, forOthers, { tables, nowMs, rng, plans })
    this.#planFrom(this.#settled, 0, { tables, nowMs, rng, plans })
    return plans
  }

  #planFrom(queue: DueQueue<HostMemory>, leave: number, round: Round): void {
    while (this.#credit - leave >= 1) {
      const memory = queue.take(round.nowMs)
      if (memory === null) return
      if (memory.isGone) continue
      if (this.#isDense) this.#planDense(memory, round)
      else this.#planSparse(memory, round)
    }
  }

  #planDense(memory: HostMemory, round: Round): void {
    const { nowMs, rng } = round
    const others = this.#othersOf(round.tables, memory)
    memory.askedMs ??= new Map()
    const { askedMs, sinceMs } = memory
    const isNew = nowMs - sinceMs < NEW_FOR_MS || others.some((other) => !askedMs.has(other))
    const count = Math.min(isNew ? NEW_COUNT : SETTLED_COUNT, Math.floor(this.#credit))
    for (const to of longestUnasked(others, askedMs, count, rng)) {
      this.#order(memory, to, ECHOES, round)
      askedMs.set(to, nowMs)
    }
    if (isNew) this.#newcomers.add(memory, nowMs + NEW_EVERY_MS)
    else this.#settled.add(memory, nowMs + SETTLED_EVERY_MS)
  }

  #planSparse(memory: HostMemory, round: Round): void {
    const isNew =
      memory.others.length === 0 && !round.tables.hosts.hasCoordinate(round.tables.hostRow(memory.name))
    const known = memory.others.filter((name) => this.#mayEcho(memory, name))
    const others =
      known.length < SPARSE_FAR ? this.#drawFar(memory, known, round) : this.#drawNear(memory, known, round)
    const count = isNew ? SPARSE_FAR : SPARSE_COUNT
    for (const to of others.slice(0, count)) this.#order(memory, to, 1, round)
    // Its orders are fetched and answered by HTTP: a round costs what so many of them do.
    this.#credit -= Math.max(0, SPARSE_COUNT - others.length)
    memory.others = [...others.slice(count), ...others.slice(0, count)]
    this.#settled.add(memory, round.nowMs + SPARSE_EVERY_MS)
  }

  #order({ name }: HostMemory, to: string, count: number, { plans }: Round): void {
    plans.push({ from: name, to, count })
    this.#credit--
  }

  /**
   * Far ones, put before those known: three of four vantages, by which everybody is placed, the others anyone; of
   * several drawn each time who knows best where it is, since by newcomers nobody is placed well.
   */
  #drawFar(memory: HostMemory, known: readonly string[], { tables, rng }: Round): string[] {
    const vantages = tables.hosts.vantages()
    const all = new Set(known)
    const chosen: string[] = []
    for (let tries = 0; all.size < SPARSE_FAR && tries < 4 * SPARSE_FAR; tries++) {
      const isVantage = tries % 4 !== 0 && vantages.length > 0
      const drawn = isVantage
        ? Array.from({ length: SPARSE_TRIES }, () =>
            tables.hostName(vantages[Math.floor(rng() * vantages.length)]!),
          )
        : this.#targets.draw(SPARSE_TRIES, rng)
      const open = drawn.filter((name) => !all.has(name) && this.#mayEcho(memory, name))
      const [name] = lowest(open, 1, (other) => tables.hosts.errorOf(tables.hostRow(other)))
      if (name === undefined) continue
      all.add(name)
      chosen.push(name)
    }
    return [...chosen, ...known]
  }

  /** Near ones, put before those known, once there is a coordinate to tell them by. */
  #drawNear(memory: HostMemory, known: readonly string[], { tables, rng }: Round): readonly string[] {
    const missing = SPARSE_FAR + SPARSE_NEAR - known.length
    const row = tables.hostRow(memory.name)
    if (missing <= 0 || !tables.hosts.hasCoordinate(row)) return known
    const drawn = this.#targets
      .draw(SPARSE_DRAWN, rng)
      .filter((name) => !known.includes(name) && this.#mayEcho(memory, name))
    return [
      ...lowest(drawn, missing, (name) => tables.hosts.distanceBetweenMs(row, tables.hostRow(name))),
      ...known,
    ]
  }

  /** The names of those whose distance a host keeps up to date. */
  #othersOf(tables: Tables, memory: HostMemory): string[] {
    const others = this.#targets.names.filter((name) => this.#mayEcho(memory, name))
    if (others.length <= MAX_OTHERS) return others
    const row = tables.hostRow(memory.name)
    const nearMs = (name: string) => tables.hosts.distanceBetweenMs(row, tables.hostRow(name))
    // By hash, so that the far ones stay the same while hosts come and go.
    const seed = hashText(memory.name)
    const near = lowest(others, NEAR, row < 0 ? () => Number.NaN : nearMs)
    const far = lowest(others, MAX_OTHERS - near.length, (name) => hashShare(seed, hashText(name)))
    return [...new Set([...near, ...far])]
  }

  /** Whether a host can echo another, and that is there to be echoed. */
  #mayEcho({ name }: HostMemory, to: string): boolean {
    const family = this.#hosts.get(to)?.echoFamily ?? null
    if (family === null || name === to) return false
    const { has4, has6 } = this.#hosts.get(name)!
    return family === 6 ? has6 : has4
  }

  #echoHost(host: Host, memory: HostMemory | null, nowMs: number): EchoHost {
    const { name, addresses, echo, reachable } = host
    const isOwn = host.agent && host.home === this.#home
    return {
      name,
      has4: addresses.some((address) => !address.includes(':')),
      has6: addresses.some((address) => address.includes(':')),
      echoFamily: echo === null || reachable === false ? null : echo.address.includes(':') ? 6 : 4,
      memory: isOwn ? (memory ?? this.#begin(host, nowMs)) : null,
    }
  }

  #begin({ name, coordinate, meshMs = {} }: Host, nowMs: number): HostMemory {
    // Whom it measured before, it goes on with: each new one would be news to all cores.
    const others = Object.keys(meshMs).slice(0, SPARSE_FAR + SPARSE_NEAR)
    const memory: HostMemory = { name, sinceMs: nowMs, isGone: false, askedMs: null, others }
    // Known from before this core started, or from another: it is in no haste.
    if (coordinate !== null) this.#settled.add(memory, nowMs)
    else this.#newcomers.add(memory, this.#isDense ? nowMs : nowMs + SPARSE_NEW_AFTER_MS)
    return memory
  }

  get #isDense(): boolean {
    return this.#targets.size <= DENSE_MAX && this.#ownCount <= DENSE_MAX
  }

  #perMinute(): number {
    if (this.#fixedPerMinute !== null) return this.#fixedPerMinute
    return Math.min(MOST_PER_MINUTE, Math.max(LEAST_PER_MINUTE, PER_HOST_MINUTE * this.#ownCount))
  }

  #refill(nowMs: number): void {
    const elapsedMs = Number.isNaN(this.#creditMs) ? 0 : nowMs - this.#creditMs
    const perMinute = this.#perMinute()
    const burst = Math.max(1, perMinute * BURST_SHARE)
    this.#credit = Math.min(burst, this.#credit + (elapsedMs * perMinute) / 60_000)
    this.#creditMs = nowMs
  }
}

/** What one round of planning works with. */
interface Round {
  readonly tables: Tables
  readonly nowMs: number
  readonly rng: () => number
  readonly plans: EchoPlan[]
}

/** The `count` that were longest not asked for, those never asked for first, equal ones by chance; forgets who went. */
function longestUnasked(
  others: readonly string[],
  askedMs: Map<string, number>,
  count: number,
  rng: () => number,
): string[] {
  if (askedMs.size > 2 * others.length) {
    const kept = new Set(others)
    for (const name of askedMs.keys()) if (!kept.has(name)) askedMs.delete(name)
  }
  return others
    .map((name) => ({ name, atMs: askedMs.get(name) ?? Number.NEGATIVE_INFINITY, draw: rng() }))
    .sort((a, b) => (a.atMs === b.atMs ? a.draw - b.draw : a.atMs - b.atMs))
    .slice(0, count)
    .map(({ name }) => name)
}

/** The `count` names with the lowest key; those without one (NaN) are left out. */
function lowest(names: readonly string[], count: number, key: (name: string) => number): string[] {
  const keyed = names.map((name) => ({ name, key: key(name) })).filter((k) => !Number.isNaN(k.key))
  return keyed
    .sort((a, b) => a.key - b.key)
    .slice(0, count)
    .map((k) => k.name)
}
