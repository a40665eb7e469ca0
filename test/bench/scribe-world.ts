// The world of Castro et al.'s experiment: end nodes at the routers of a transit-stub topology, with addresses
// as the Internet gives them out: a stub domain is an announced /20, each of its routers has a /24 of it.
//
// Only echo() is for the machinery under test; what rttMs and a Group's figures tell is the judge's alone. Mixed
// addresses: of one node in ten the address is some other's, as behind a tunnel. Scattered: each node has a /24 to
// itself, drawn by chance, and nothing is announced. Seeded.

import { type Address, formatAddress, parsePrefix } from '../../resolver/address.ts'
import type { PlaceEntry } from '../../resolver/place-page.ts'
import { shuffle } from './accuracy-world.ts'
import { type Rng, Topology, type TopologySize } from './scribe-topology.ts'

export type Addresses = 'networks' | 'mixed' | 'scattered'

/** Nodes of mixed addresses whose address is another's. */
const MIXED = 0.1
/** A packet waits in queues for up to this share of its round trip. */
const QUEUES = 0.05
/** The first announced network; bits of a stub domain's, and of a router's. */
const FIRST_NETWORK = 16 << 24
const DOMAIN_BITS = 12
const ROUTER_BITS = 8
const FIRST_ASN = 64_512
/** Where announced networks are: anywhere, so that nothing can be learnt from the map. */
const ANYWHERE = { lat: 0, lon: 0, accuracyKm: 20_000 }

export class ScribeWorld {
  readonly topology: Topology
  readonly addresses: Addresses
  readonly #routers: Int32Array
  readonly #addresses: Uint32Array
  /** By stub domain; empty: scattered. */
  readonly #networks: readonly number[]

  constructor(size: TopologySize, nodes: number, addresses: Addresses, rng: Rng) {
    this.addresses = addresses
    this.topology = new Topology(size, rng)
    const { stubRouters } = this.topology
    this.#routers = Int32Array.from({ length: nodes }, () => Math.floor(stubRouters * rng()))
    const domains = shuffle([...Array(stubRouters / size.stubRouters).keys()], rng)
    const scattered = shuffle([...Array(nodes).keys()], rng)
    this.#networks = addresses === 'scattered' ? [] : domains
    const taken = new Int32Array(stubRouters)
    this.#addresses = Uint32Array.from(this.#routers, (router, node) => {
      if (addresses === 'scattered') return FIRST_NETWORK + (scattered[node]! << ROUTER_BITS) + 1
      const domain = domains[this.topology.stubDomainOf(router)]! << DOMAIN_BITS
      return FIRST_NETWORK + domain + ((router % size.stubRouters) << ROUTER_BITS) + ++taken[router]!
    })
    if (addresses === 'mixed') mix(this.#addresses, rng)
    if (Math.max(...taken) > 254) throw new Error(`${nodes} nodes are too many for the routers' /24s`)
  }

  get nodes(): number {
    return this.#routers.length
  }

  routerOf(node: number): number {
    return this.#routers[node]!
  }

  addressOf(node: number): Address {
    const address = new Uint8Array(16)
    address.set([0xff, 0xff], 10)
    new DataView(address.buffer).setUint32(12, this.#addresses[node]!)
    return address
  }

  /** The networks that are announced, as an import tells them: an AS for each stub domain. */
  announcements(): PlaceEntry[] {
    return this.#networks.map((network, domain) => {
      const address = new Uint8Array(16)
      address.set([0xff, 0xff], 10)
      new DataView(address.buffer).setUint32(12, FIRST_NETWORK + (network << DOMAIN_BITS))
      const prefix = parsePrefix(`${formatAddress(address)}/${32 - DOMAIN_BITS}`)!
      return {
        prefix,
        fact: { place: ANYWHERE, asn: FIRST_ASN + domain, country: null, source: 'announcements' },
      }
    })
  }

  /** What one node measures to another by so many packets: their RTTs, ms. */
  echo(from: number, to: number, packets: number, rng: Rng): number[] {
    const ms = this.rttMs(from, to)
    return Array.from({ length: packets }, () => ms * (1 + QUEUES * rng()))
  }

  /** The judge's: how long a round trip really takes, ms. */
  rttMs(from: number, to: number): number {
    return this.topology.rttMs(this.#routers[from]!, this.#routers[to]!)
  }
}

/** Some nodes' addresses change places. */
function mix(addresses: Uint32Array, rng: Rng): void {
  const nodes = [...addresses.keys()].filter(() => rng() < MIXED)
  const given = nodes.map((node) => addresses[node]!)
  for (const [i, node] of shuffle(nodes, rng).entries()) addresses[node] = given[i]!
}

/** What an answer was worth. */
export interface Verdict {
  /** Share of the group's members that are closer to the source than the receiver is. */
  readonly closer: number
  /** The receiver's RTT over the nearest member's. */
  readonly stretch: number
}

/** Some of the nodes, and the judge of answers that name one of them. */
export class Group {
  readonly members: readonly number[]
  readonly #world: ScribeWorld
  readonly #membersAt: Int32Array

  constructor(world: ScribeWorld, members: readonly number[]) {
    this.members = members
    this.#world = world
    this.#membersAt = new Int32Array(world.topology.stubRouters)
    for (const node of members) this.#membersAt[world.routerOf(node)]!++
  }

  judge(source: number, receiver: number): Verdict {
    const { topology } = this.#world
    const from = this.#world.routerOf(source)
    const receiverMs = this.#world.rttMs(source, receiver)
    let [closer, nearestMs] = [0, receiverMs]
    for (const [router, count] of this.#membersAt.entries()) {
      if (count === 0) continue
      const ms = topology.rttMs(from, router)
      if (ms < receiverMs) closer += count
      nearestMs = Math.min(nearestMs, ms)
    }
    return { closer: closer / this.members.length, stretch: receiverMs / nearestMs }
  }
}
