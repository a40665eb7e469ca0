// The method `nearcast`: what a core runs (Localities, ProbePlanner, locate, select), with only the probe
// answered from the matrix. Every trial is a core that has never heard of its client.

import { Demand } from '../../core-node/measuring/demand.ts'
import { Localities } from '../../core-node/measuring/localities.ts'
import { ProbePlanner } from '../../core-node/measuring/planner.ts'
import { type Address, formatPrefix, localityPrefix, parseAddress } from '../../resolver/address.ts'
import { ANY_ASK } from '../../resolver/ask.ts'
import type { Change, Geography, LocalityRecord, Place } from '../../resolver/directory.ts'
import { locate } from '../../resolver/locate.ts'
import { select } from '../../resolver/select.ts'
import { Tables } from '../../resolver/tables.ts'
import { SERVICE, type World } from './accuracy-world.ts'

/** What was answered after some probes. */
export interface Answer {
  /** Index of the host that was named. */
  readonly host: number
  readonly ms: number
  readonly errorMs: number
  readonly basis: string
}

export interface Told {
  /** Answers after 0, 1, 2 ... probes; the last one is the method's. */
  readonly answers: readonly Answer[]
  readonly probes: number
}

export interface NearcastTrial {
  readonly row: number
  /** Whether it answers probes. */
  readonly answering: boolean
  /** Where geography has it. */
  readonly place: Place | null
  /** Rows of its own network that are in demand as well, those that answer. */
  readonly relatives: readonly number[]
}

/** A step of the planner: probes of one prefix are apart by a heartbeat or more in a core. */
const STEP_MS = 10_000
/** Empty plans in a row after which nothing more will come. */
const IDLE_STEPS = 3

export class NearcastBench {
  readonly #world: World
  readonly #addressOf: (row: number) => Address
  readonly #tables = new Tables()
  readonly #published = new Map<string, LocalityRecord>()
  readonly #localities = new Localities(this.#published)
  #placeOf = new Map<string, Place>()

  constructor(world: World, addressOf: (row: number) => Address) {
    this.#world = world
    this.#addressOf = addressOf
    this.#tables.apply(world.changes)
    const geography: Geography = {
      lookup: (address) => this.#placeOf.get(formatPrefix(localityPrefix(address))) ?? null,
    }
    if (world.matrix.places) this.#tables.setGeography(geography)
  }

  /** History: every host measured the way to this row. */
  warm(row: number): void {
    for (const host of this.#world.hosts.keys()) this.#hear(row, host, 0)
    this.#publish(0)
  }

  /** Asks for one client, probes within the budget, and forgets it again. */
  run(trial: NearcastTrial, probes: number): Told {
    const rows = [...trial.relatives, trial.row]
    if (trial.place) this.#placeOf.set(this.#prefixOf(trial.row), trial.place)
    for (const relative of trial.relatives) {
      const place = this.#world.matrix.places?.[relative]
      if (place) this.#placeOf.set(this.#prefixOf(relative), place)
      this.#measure({ ...trial, row: relative, answering: true }, probes)
    }
    const told = this.#measure(trial, probes)
    for (const row of rows) this.#forget(row)
    this.#placeOf = new Map()
    return told
  }

  #measure({ row, answering }: NearcastTrial, probes: number): Told {
    const address = this.#addressOf(row)
    const demand = new Demand()
    const planner = new ProbePlanner({
      probesPerMinute: 1e9,
      probesPerHostPerMinute: 1e9,
      probesPerPrefix: probes,
      optOut: [],
      allowPrivate: [],
    })
    const answers = [this.#answer(address)]
    let sent = 0
    demand.note(address, SERVICE, address, 0)
    for (let nowMs = 0, idle = 0; sent < probes && idle < IDLE_STEPS; nowMs += STEP_MS) {
      const [probe] = planner.plan(this.#tables, demand, nowMs)
      if (!probe) {
        idle++
        continue
      }
      sent++
      idle = 0
      const heard = answering && this.#hear(row, Number(probe.host.slice(1)), nowMs)
      planner.hear(probe.prefix, probe.host, heard, nowMs)
      if (planner.isSilent(probe.prefix)) this.#localities.inherit(localityPrefix(address))
      this.#publish(nowMs)
      answers.push(this.#answer(address))
    }
    return { answers, probes: sent }
  }

  #hear(row: number, host: number, nowMs: number): boolean {
    const ms = this.#world.reportMs(host, row)
    if (Number.isNaN(ms)) return false
    const prefix = localityPrefix(this.#addressOf(row))
    this.#localities.fold({ prefix, host: `h${host}`, rttsMs: [ms, ms, ms], kind: 'active' }, nowMs)
    return true
  }

  #publish(nowMs: number): void {
    const changes = this.#localities.publish(nowMs)
    for (const { key, value } of changes) {
      if (value) this.#published.set(key, value as LocalityRecord)
      else this.#published.delete(key)
    }
    this.#tables.apply(changes)
  }

  #answer(address: Address): Answer {
    const locality = locate(this.#tables, address)
    const serving = this.#tables.service(SERVICE)!
    const first = select(this.#tables, serving, locality, ANY_ASK, () => 0).picks[0]!
    const { member, ms, errorMs, basis } = first
    return { host: Number(member.name.slice(1)), ms, errorMs, basis }
  }

  #forget(row: number): void {
    const prefix = this.#prefixOf(row)
    this.#localities.forgetPrefix(prefix)
    this.#published.delete(prefix)
    const gone: Change = { kind: 'localities', key: prefix, value: null }
    this.#tables.apply([gone])
  }

  #prefixOf(row: number): string {
    return formatPrefix(localityPrefix(this.#addressOf(row)))
  }
}

/** Rows of one site (within so many ms of its first) are of one network: one /20. */
const SITE_MS = 2
const SITE_SIZE = 16
export const SITE_BITS = 96 + 20

/** An address for each row, in a /24 of its own; rows of one site have theirs in one /20. */
export function addressesOf(size: number, rttMs: (a: number, b: number) => number): Address[] {
  const sites: number[][] = []
  const addresses: Address[] = []
  for (let row = 0; row < size; row++) {
    let site = sites.findIndex((rows) => rows.length < SITE_SIZE && rttMs(rows[0]!, row) <= SITE_MS)
    if (site < 0) site = sites.push([]) - 1
    const at = sites[site]!.push(row) - 1
    addresses.push(parseAddress(`${11 + (site >> 8)}.${site & 255}.${at}.7`)!)
  }
  return addresses
}
