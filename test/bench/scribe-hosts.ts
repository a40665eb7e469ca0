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
/** Echoes of settled hosts are counted for so long, ms. */
const SETTLED_MS = 5 * 60_000
const STEP_MS = 2_000
const NO_LIMIT = 1e9
const [HERE, ELSEWHERE] = ['core', 'other']

/** Hosts by node, with coordinates. Members' names are their hosts'. */
export class ScribeHosts {
  readonly #world: ScribeWorld
  readonly #rng: Rng
  readonly #mesh = new HostMesh()
  readonly #tables = new Tables()
  readonly #vantage: Host[] = []
  /** Echoes of a settled host, a minute. */
  readonly echoesPerMinute: number
  #echoes = 0
  #joined = 0

  /** `vantages`: how many hosts the others are measured against. */
  constructor(world: ScribeWorld, members: readonly number[], vantages: number, rng: Rng) {
    this.#world = world
    this.#rng = rng
    const names = members.map(nameOf)
    const panel = new Panel(vantages, () => names)
    for (const name of names) panel.add(name)
    const settling = [...panel.keys()].map((name) => this.#newHost(nodeOf(name), HERE))
    const planner = new EchoPlanner(HERE, NO_LIMIT)
    this.#echoAround(planner, settling, [], 0, SETTLE_MS)
    const settled = this.#echoAround(planner, settling, [], SETTLE_MS, SETTLE_MS + SETTLED_MS)
    this.echoesPerMinute = settled / settling.length / (SETTLED_MS / 60_000)
    for (const host of settling) this.#vantage.push({ ...host, home: ELSEWHERE })
  }

  /** Of those who joined later. */
  get echoesPerJoin(): number {
    return this.#joined === 0 ? 0 : this.#echoes / this.#joined
  }

  /** The records of these nodes' hosts, after each that was not there before has joined. */
  join(nodes: readonly number[]): Host[] {
    const known = new Map(this.#vantage.map((host) => [host.name, { ...host, home: HERE }]))
    const fresh = nodes.filter((node) => !known.has(nameOf(node)))
    for (let at = 0; at < fresh.length; at += BATCH) {
      const batch = fresh.slice(at, at + BATCH).map((node) => this.#newHost(node, HERE))
      const planner = new EchoPlanner(HERE, NO_LIMIT)
      this.#echoes += this.#echoAround(planner, batch, this.#vantage, 0, NO_LIMIT, JOIN_ECHOES)
      for (const host of batch) known.set(host.name, host)
    }
    this.#joined += fresh.length
    return nodes.map((node) => known.get(nameOf(node))!)
  }

  /** Has hosts echo each other and `others` from one time to another, or until each did so `most` times; changes `hosts` in place. */
  #echoAround(
    planner: EchoPlanner,
    hosts: Host[],
    others: readonly Host[],
    fromMs: number,
    untilMs: number,
    most: number = Number.POSITIVE_INFINITY,
  ): number {
    const indexOf = new Map(hosts.map(({ name }, i) => [name, i]))
    const peers = new Map(others.map((host) => [host.name, host]))
    const sent = new Int32Array(hosts.length)
    let echoes = 0
    this.#tables.apply([...others, ...hosts].map(ofHost))
    // Who joins is no target for the others: it has no place yet that would tell them anything.
    const askers = others.length === 0 ? hosts : hosts.map((host) => ({ ...host, echo: null }))
    for (const host of [...others, ...askers]) planner.follow(host.name, host, fromMs)
    for (let nowMs = fromMs; nowMs < untilMs && sent.some((count) => count < most); nowMs += STEP_MS) {
      const moved = new Set<number>()
      for (const { from, to } of planner.plan(this.#tables, nowMs, this.#rng)) {
        const i = indexOf.get(from)!
        if (sent[i]! >= most) continue
        if (++sent[i]! >= most) planner.follow(from, null, nowMs)
        echoes++
        const peer = peers.get(to) ?? hosts[indexOf.get(to)!]!
        const rttMs = Math.min(...this.#world.echo(nodeOf(from), nodeOf(to), ECHO_PACKETS, this.#rng))
        hosts[i] = this.#mesh.hear(hosts[i]!, peer, rttMs, this.#rng).host
        moved.add(i)
      }
      this.#tables.apply([...moved].map((i) => ofHost(hosts[i]!)))
    }
    return echoes
  }

  #newHost(node: number, home: string): Host {
    return hostAt(this.#world, aHost(nameOf(node), { home }))
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
