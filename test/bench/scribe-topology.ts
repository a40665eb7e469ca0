// A transit-stub topology as GT-ITM makes them (Zegura, Calvert, Bhattacharjee, INFOCOM 1996): transit domains
// of routers in a plane, at each transit router some stub domains of routers, end nodes on stub routers by LAN.
//
// Each domain is a random graph (an edge with the same probability between any two routers, drawn anew until
// it is connected); a link takes as long as it is long. Policy routing as by GT-ITM's weights: a route within
// a domain stays inside it, between two stubs it runs by transit alone and crosses the fewest transit domains,
// then takes the least time. One access link a stub domain, no links between stubs. Pure: chance by argument.

/** Numbers in [0, 1). */
export type Rng = () => number

export interface TopologySize {
  readonly transitDomains: number
  /** Routers of each. */
  readonly transitRouters: number
  /** Stub domains at each transit router. */
  readonly stubDomains: number
  /** Routers of each. */
  readonly stubRouters: number
}

/** Castro et al. (NGC 2003): 50 transit and 5,000 stub routers. */
export const PAPER_SIZE: TopologySize = {
  transitDomains: 10,
  transitRouters: 5,
  stubDomains: 10,
  stubRouters: 10,
}

/**
 * Sides of the squares in which things lie, ms of one way's delay: transit domains in the plane, routers around
 * the middle of their domain, stub domains around their transit router, routers in their stub domain. As on the
 * Internet: some 80 ms between continents, some 20 across a country, some across a city.
 */
const PLANE_MS = 80
const TRANSIT_MS = 20
const ACCESS_MS = 10
const STUB_MS = 4
/** Between any two of a graph's points; what GT-ITM's sample graphs have for transit and for stub domains. */
const TRANSIT_EDGES = 0.6
const STUB_EDGES = 0.42
/** A LAN link, one way. */
export const LAN_MS = 1
/** A link between two transit domains costs more than any way within them: the weight that keeps routes at home. */
const CROSSING_MS = 1e6

interface StubDomain {
  /** Transit router that it is attached to. */
  readonly transit: number
  /** Its router that has the access link, and how long that takes, ms one way. */
  readonly gateway: number
  readonly accessMs: number
  /** Between its routers, ms one way. */
  readonly insideMs: readonly Float64Array[]
}

export class Topology {
  readonly size: TopologySize
  readonly #stubs: readonly StubDomain[]
  readonly #transitMs: readonly Float64Array[]

  constructor(size: TopologySize, rng: Rng) {
    this.size = size
    const points = transitPoints(size, rng)
    this.#transitMs = transitRoutes(size, points, rng)
    this.#stubs = points.flatMap((_, transit) =>
      Array.from({ length: size.stubDomains }, () => drawStub(transit, size.stubRouters, rng)),
    )
  }

  /** Transit and stub routers. */
  get routers(): number {
    return this.#transitMs.length + this.stubRouters
  }

  /** Routers that end nodes are attached to are 0 .. this - 1; those of one stub domain follow each other. */
  get stubRouters(): number {
    return this.#stubs.length * this.size.stubRouters
  }

  stubDomainOf(router: number): number {
    return Math.floor(router / this.size.stubRouters)
  }

  /** The transit router that a stub router's domain is attached to. */
  transitOf(router: number): number {
    return this.#stubs[this.stubDomainOf(router)]!.transit
  }

  /** The round trip between an end node at one stub router and another at the same or another one, ms. */
  rttMs(a: number, b: number): number {
    return 2 * (this.#oneWayMs(a, b) + 2 * LAN_MS)
  }

  #oneWayMs(a: number, b: number): number {
    const [stubA, stubB] = [this.#stubs[this.stubDomainOf(a)]!, this.#stubs[this.stubDomainOf(b)]!]
    const [inA, inB] = [a % this.size.stubRouters, b % this.size.stubRouters]
    if (stubA === stubB) return stubA.insideMs[inA]![inB]!
    const outMs = stubA.insideMs[inA]![stubA.gateway]! + stubA.accessMs
    const backMs = stubB.accessMs + stubB.insideMs[stubB.gateway]![inB]!
    return outMs + this.#transitMs[stubA.transit]![stubB.transit]! + backMs
  }
}

interface Point {
  readonly x: number
  readonly y: number
}

/** Where the transit routers are, those of one domain after each other. */
function transitPoints({ transitDomains, transitRouters }: TopologySize, rng: Rng): Point[] {
  const centre = { x: 0, y: 0 }
  const domains = Array.from({ length: transitDomains }, () => pointAround(centre, PLANE_MS, rng))
  return domains.flatMap((domain) =>
    Array.from({ length: transitRouters }, () => pointAround(domain, TRANSIT_MS, rng)),
  )
}

/** Delays between transit routers by the policy's routes, ms one way. */
function transitRoutes(size: TopologySize, points: readonly Point[], rng: Rng): Float64Array[] {
  const costs = points.map((_, i) => points.map((_, j) => (i === j ? 0 : Number.POSITIVE_INFINITY)))
  const link = (a: number, b: number, crossing: number) => {
    costs[a]![b] = costs[b]![a] = crossing + distanceMs(points[a]!, points[b]!)
  }
  for (let domain = 0; domain < size.transitDomains; domain++) {
    const first = domain * size.transitRouters
    for (const [a, b] of connectedGraph(size.transitRouters, TRANSIT_EDGES, rng))
      link(first + a, first + b, 0)
  }
  const routerOf = (domain: number) => domain * size.transitRouters + below(size.transitRouters, rng)
  for (const [a, b] of connectedGraph(size.transitDomains, TRANSIT_EDGES, rng))
    link(routerOf(a), routerOf(b), CROSSING_MS)
  return shortest(costs).map((row) => row.map((cost) => cost % CROSSING_MS))
}

function drawStub(transit: number, routers: number, rng: Rng): StubDomain {
  const centre = { x: 0, y: 0 }
  const points = Array.from({ length: routers }, () => pointAround(centre, STUB_MS, rng))
  const costs = points.map((_, i) => points.map((_, j) => (i === j ? 0 : Number.POSITIVE_INFINITY)))
  for (const [a, b] of connectedGraph(routers, STUB_EDGES, rng))
    costs[a]![b] = costs[b]![a] = distanceMs(points[a]!, points[b]!)
  const accessMs = distanceMs(centre, pointAround(centre, ACCESS_MS, rng))
  return { transit, gateway: below(routers, rng), accessMs, insideMs: shortest(costs) }
}

/** Edges of a random graph, drawn until every point is reached. */
function connectedGraph(size: number, probability: number, rng: Rng): [number, number][] {
  for (;;) {
    const edges: [number, number][] = []
    for (let a = 0; a < size; a++) for (let b = 0; b < a; b++) if (rng() < probability) edges.push([a, b])
    if (isConnected(size, edges)) return edges
  }
}

function isConnected(size: number, edges: readonly (readonly [number, number])[]): boolean {
  const reached = new Set([0])
  // A breadth-first search in rounds: each point that is reached stays so, and is looked from once.
  for (const at of reached) {
    for (const [a, b] of edges) {
      if (a === at) reached.add(b)
      if (b === at) reached.add(a)
    }
  }
  return reached.size === size
}

/** Least costs between all pairs (Floyd 1962). */
function shortest(costs: readonly (readonly number[])[]): Float64Array[] {
  const least = costs.map((row) => Float64Array.from(row))
  for (const [via, onward] of least.entries()) {
    for (const row of least) {
      for (let to = 0; to < row.length; to++) row[to] = Math.min(row[to]!, row[via]! + onward[to]!)
    }
  }
  return least
}

function pointAround({ x, y }: Point, sideMs: number, rng: Rng): Point {
  return { x: x + sideMs * (rng() - 0.5), y: y + sideMs * (rng() - 0.5) }
}

function distanceMs(a: Point, b: Point): number {
  return Math.hypot(a.x - b.x, a.y - b.y)
}

function below(count: number, rng: Rng): number {
  return Math.floor(count * rng())
}
