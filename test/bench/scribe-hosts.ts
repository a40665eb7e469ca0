// How a group's members come to their coordinates: by echoes that the planner of echoes orders and the mesh
// hears, as in a core. The vantage hosts measure each other until they have settled; then the others join, some
// at a time, and measure a few of them.
//
// What is measured comes from ScribeWorld.echo alone. Counts the echoes: each of them is messages (scribe-costs.ts).

import { EchoPlanner } from '../../core-node/measuring/echo-planner.ts'
import { HostMesh } from '../../core-node/measuring/mesh.ts'
import { formatAddress } from '../../resolver/address.ts'
import type { Host } from '../../resolver/directory.ts'
import { Panel } from '../../resolver/panel.ts'
import { Tables } from '../../resolver/tables.ts'
import { aHost, ofHost } from '../support/records.ts'
import { ECHO_PACKETS } from './scribe-costs.ts'
import type { Rng } from './scribe-topology.ts'
import type { ScribeWorld } from './scribe-world.ts'

/** Echoes of one that joins. */
export const JOIN_ECHOES = 16
/** They join so many at a time: it only saves time. */
const BATCH = 500
/** As long as the vantage hosts need to know each other, and some of Vivaldi's steps more, ms. */
const SETTLE_MS = 15 * 60_000
/** Echoes of so many settled hosts are counted for so long, ms, after the first round. */
const WATCHED = 500
const WATCH_AFTER_MS = 15 * 60_000
const WATCH_MS = 60 * 60_000
const STEP_MS = 2_000
const NO_LIMIT = 1e9
const [HERE, ELSEWHERE] = ['core', 'other']

/** Hosts by node, with coordinates. Members' names are their hosts'. */
export class ScribeHosts {
  readonly #world: ScribeWorld
  readonly #rng: Rng
  readonly #mesh = new HostMesh()
  readonly #tables = new Tables()
  readonly #planner = new EchoPlanner(HERE, NO_LIMIT)
  /** By name, those who have joined. */
  readonly #hosts = new Map<string, Host>()
  #nowMs = 0
  #echoes = 0
  #joined = 0

  /** `vantages`: how many hosts are there before all others. */
  constructor(world: ScribeWorld, members: readonly number[], vantages: number, rng: Rng) {
    this.#world = world
    this.#rng = rng
    const names = members.map(nameOf)
    const panel = new Panel(vantages, () => names)
    for (const name of names) panel.add(name)
    this.#echoAround([...panel.keys()].map(nodeOf), SETTLE_MS, Number.POSITIVE_INFINITY, 'operator')
  }

  /** Of those who joined later. */
  get echoesPerJoin(): number {
    return this.#joined === 0 ? 0 : this.#echoes / this.#joined
  }

  /** The records of these nodes' hosts, after each that was not there before has joined. */
  join(nodes: readonly number[]): Host[] {
    const fresh = nodes.filter((node) => !this.#hosts.has(nameOf(node)))
    for (let at = 0; at < fresh.length; at += BATCH)
      this.#echoes += this.#echoAround(fresh.slice(at, at + BATCH), NO_LIMIT, JOIN_ECHOES)
    this.#joined += fresh.length
    return nodes.map((node) => this.#hosts.get(nameOf(node))!)
  }

  /** Echoes that a settled host of so many makes, a minute. */
  echoesPerMinute(): number {
    const planner = new EchoPlanner(HERE)
    for (const [i, host] of [...this.#hosts.values()].entries())
      planner.follow(host.name, { ...host, home: i < WATCHED ? HERE : ELSEWHERE }, 0)
    let echoes = 0
    for (let nowMs = 0; nowMs < WATCH_AFTER_MS + WATCH_MS; nowMs += STEP_MS) {
      const plans = planner.plan(this.#tables, nowMs, this.#rng)
      if (nowMs >= WATCH_AFTER_MS) echoes += plans.length
    }
    return echoes / Math.min(WATCHED, this.#hosts.size) / (WATCH_MS / 60_000)
  }

  /** Has newcomers echo others for so long, or until each did so `most` times. How many echoes that were. */
  #echoAround(nodes: readonly number[], forMs: number, most: number, tokenId: string | null = null): number {
    const fresh = nodes.map((node) => hostAt(this.#world, aHost(nameOf(node), { home: HERE, tokenId })))
    const sent = new Map(fresh.map(({ name }) => [name, 0]))
    for (const host of fresh) this.#planner.follow(host.name, host, this.#nowMs)
    for (const host of fresh) this.#hosts.set(host.name, host)
    this.#tables.apply(fresh.map(ofHost))
    const untilMs = this.#nowMs + forMs
    while (this.#nowMs < untilMs && [...sent.values()].some((count) => count < most)) {
      const moved = new Set<string>()
      for (const { from, to } of this.#planner.plan(this.#tables, this.#nowMs, this.#rng)) {
        if (sent.get(from)! >= most) continue
        sent.set(from, sent.get(from)! + 1)
        const rttMs = Math.min(...this.#world.echo(nodeOf(from), nodeOf(to), ECHO_PACKETS, this.#rng))
        const { host } = this.#mesh.hear(this.#hosts.get(from)!, this.#hosts.get(to)!, rttMs, this.#rng)
        this.#hosts.set(from, host)
        moved.add(from)
      }
      this.#tables.apply(Array.from(moved, (name) => ofHost(this.#hosts.get(name)!)))
      this.#nowMs += STEP_MS
    }
    // From now on they are there to be measured, and their own echoes are upkeep.
    for (const { name } of fresh)
      this.#planner.follow(name, { ...this.#hosts.get(name)!, home: ELSEWHERE }, this.#nowMs)
    return [...sent.values()].reduce((sum, count) => sum + count, 0)
  }
}

/** A host as it is in a world: with the address that it has there, proven. */
export function hostAt(world: ScribeWorld, host: Host): Host {
  const address = formatAddress(world.addressOf(nodeOf(host.name)))
  return { ...host, addresses: [address], proofs: { [address]: 'echo' }, echo: { address, port: 7 } }
}

export function nameOf(node: number): string {
  return `n${node}`
}

export function nodeOf(name: string): number {
  return Number(name.slice(1))
}
