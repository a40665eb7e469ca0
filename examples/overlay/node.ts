// A node of the overlay: keeps its links, answers its peers, looks keys up, and asks Nearcast for peers.
//
// Nearcast is asked at the start and once a discovery period: for near members, who make good fingers, and
// for random ones. Invariant: a peer is a link only once it has answered itself, and no longer when it falls
// silent; so what a cut network parts forgets each other, and it is through the random members of the next
// discovery that the parts meet again: a node looks its own point up at each of them, and so finds who lies
// beside it on their ring, if that is another one.

import { randomInt } from 'node:crypto'
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Agent, AgentError, type NearMember } from 'nearcast-agent'
import { besides, chosen, distance, nearestTo, type Peer, pointOf } from './ring.ts'
import { type Answer, decode, encode, type Question } from './wire.ts'

export interface NodeOptions {
  /** Started; it may serve other nodes too. */
  readonly agent: Agent
  readonly service: string
  /** Where the node listens (UDP); it is known by the agent's name. */
  readonly address: string
  readonly port: number
  /** The port that others are told, if it is another. */
  readonly advertisedPort?: number
  /** How many members of each kind a discovery asks for. Without near ones, fingers are chosen by lot. */
  readonly near: number
  readonly random: number
  /** From one discovery to the next, ms. */
  readonly discoverMs: number
  /** From one meeting with each link to the next, ms. */
  readonly meetMs: number
}

export interface Link {
  readonly peer: Peer
  readonly point: number
  /** The round trip that Nearcast predicts, ms; null: it told none. */
  predictedMs: number | null
  /** The round trip that meetings take, ms; null: it has not answered yet, and is no link so far. */
  rttMs: number | null
  /** Meetings in a row that it did not come to. */
  missed: number
}

export interface Found {
  readonly owner: Peer
  /** Names of the nodes that it went through, the owner last; none where the node itself is the owner. */
  readonly path: readonly string[]
  readonly ms: number
}

const JOIN_AGAIN_MS = 1000
/** Who does not answer a meeting for so long is missed; the longest round trip on Earth is half of it. */
const MEETING_MS = 1000
const MISSES = 2
/** A lookup takes some hops there and back. */
const LOOKUP_MS = 4000
/** At each discovery a node looks for its place by so many that it did not know; one would do. */
const GUIDES = 6

export class OverlayNode {
  readonly self: Peer
  readonly point: number
  /** Discoveries that Nearcast did not answer. */
  failedDiscoveries = 0
  readonly #options: NodeOptions
  readonly #socket: Socket = createSocket('udp4')
  /** By name. */
  readonly #known = new Map<string, Link>()
  /** By the number of the question. */
  readonly #waiting = new Map<number, (answer: Answer | null) => void>()
  readonly #timers: NodeJS.Timeout[] = []

  constructor(options: NodeOptions) {
    const { agent, address, port, advertisedPort } = options
    this.#options = options
    this.self = { name: agent.name, address, port: advertisedPort ?? port }
    this.point = pointOf(agent.name)
  }

  /** Listens, becomes a member of the service, and meets its first peers. */
  async start(): Promise<void> {
    const { address, port, discoverMs, meetMs } = this.#options
    this.#socket.on('message', (bytes, from) => this.#receive(bytes, from))
    this.#socket.bind(port, address)
    await once(this.#socket, 'listening')
    // What can't be sent, into a network that is cut, is lost like any other datagram.
    this.#socket.on('error', () => {})
    await this.#join()
    this.#timers.push(
      setInterval(() => this.#meetAll(), meetMs),
      setInterval(() => this.#discover(), discoverMs),
    )
    await this.#discover()
  }

  /** Becomes a member: a core that does not answer just now is asked again, one that says no is heard. */
  async #join(): Promise<void> {
    const { agent, service } = this.#options
    for (;;) {
      try {
        await agent.join(service, { port: this.self.port })
        return
      } catch (error) {
        if (!(error instanceof AgentError) || error.code !== 'unreachable') throw error
        await sleep(JOIN_AGAIN_MS)
      }
    }
  }

  /** Leaves the service and falls silent. Once it has started. */
  async stop(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer)
    // Where no core can be told, the agent's goodbye or the end of its lease will do.
    await this.#options.agent.leave(this.#options.service).catch(() => {})
    for (const end of this.#waiting.values()) end(null)
    this.#socket.close()
  }

  /** Peers that have answered and are kept. */
  get links(): Link[] {
    return [...this.#known.values()].filter(({ rttMs }) => rttMs !== null)
  }

  /** The next node on the ring, clockwise; null: it knows no other. */
  get successor(): Peer | null {
    return besides(this.point, this.links)[0]?.peer ?? null
  }

  /** Finds whose a key is. null: no answer came; while links die that may be, and one asks again. */
  async lookup(key: string): Promise<Found | null> {
    const startedMs = performance.now()
    const found = await this.#route(pointOf(key))
    return found === null ? null : { ...found, ms: performance.now() - startedMs }
  }

  /** Each hop is nearer to the key than the one before, so it ends. */
  async #route(key: number): Promise<Omit<Found, 'ms'> | null> {
    const next = nearestTo(key, this.links)
    if (next === null || distance(this.point, key) <= distance(next.point, key)) {
      return { owner: this.self, path: [] }
    }
    const answer = await this.#ask(next.peer, { ask: 'lookup', key }, LOOKUP_MS)
    if (answer === null || !('owner' in answer)) return null
    return { owner: answer.owner, path: [next.peer.name, ...answer.path] }
  }

  /** Asks Nearcast for peers: to choose fingers from, and to find one's place on the ring by. */
  async #discover(): Promise<void> {
    const { agent, service, near, random } = this.#options
    try {
      const members =
        near > 0
          ? await agent.bootstrap(service, { near, random })
          : { near: [], random: (await agent.random(service, { k: random })).members }
      for (const member of [...members.near, ...members.random]) this.#offer(peerOf(member), member.ms)
      const guides = (random > 0 ? members.random : members.near).slice(0, GUIDES)
      await Promise.all(guides.map((member) => this.#findPlace(peerOf(member))))
    } catch {
      this.failedDiscoveries++
    }
  }

  /** Who lies nearest to this node's own point, as `via` sees the ring? */
  async #findPlace(via: Peer | null): Promise<void> {
    if (via === null) return
    const answer = await this.#ask(via, { ask: 'lookup', key: this.point }, LOOKUP_MS)
    if (answer !== null && 'owner' in answer) this.#offer(answer.owner, null)
  }

  /** Heard of a peer: it is met if it would be kept, and kept if it answers. */
  #offer(peer: Peer | null, predictedMs: number | null): void {
    if (peer === null || peer.name === this.self.name) return
    const known = this.#known.get(peer.name)
    if (known !== undefined) {
      known.predictedMs = predictedMs ?? known.predictedMs
      return
    }
    const link: Link = { peer, point: pointOf(peer.name), predictedMs, rttMs: null, missed: 0 }
    if (!chosen(this.point, [...this.#known.values(), link], this.#cost).has(link)) return
    this.#known.set(peer.name, link)
    void this.#meet(link)
  }

  #meetAll(): void {
    for (const link of this.#known.values()) void this.#meet(link)
    // Who knows nobody does not wait for the next discovery.
    if (this.#known.size === 0) void this.#discover()
  }

  async #meet(link: Link): Promise<void> {
    const askedMs = performance.now()
    const answer = await this.#ask(link.peer, { ask: 'meet', from: this.self }, MEETING_MS)
    if (answer === null || !('peers' in answer)) {
      link.missed++
      if (link.rttMs === null || link.missed >= MISSES) this.#known.delete(link.peer.name)
      return
    }
    const rttMs = performance.now() - askedMs
    link.rttMs = link.rttMs === null ? rttMs : link.rttMs + (rttMs - link.rttMs) / 4
    link.missed = 0
    this.#tidy()
    for (const peer of answer.peers) this.#offer(peer, null)
  }

  /** Lets go of who is not worth a link; who has not answered yet takes nobody's place. */
  #tidy(): void {
    const all = [...this.#known.values()]
    const keep = chosen(this.point, this.links, this.#cost)
    const worthTrying = chosen(this.point, all, this.#cost)
    for (const link of all) {
      const stays = keep.has(link) || (link.rttMs === null && worthTrying.has(link))
      if (!stays) this.#known.delete(link.peer.name)
    }
  }

  /** What a finger costs: the way there as Nearcast tells it, or its lot where nothing is chosen by that. */
  readonly #cost = ({ peer, predictedMs }: Link): number => {
    const lot = pointOf(`${this.self.name} ${peer.name}`)
    return this.#options.near > 0 && predictedMs !== null ? predictedMs : 1e6 + lot
  }

  /** null: no answer in time. */
  #ask(peer: Peer, question: Question, waitMs: number): Promise<Answer | null> {
    return new Promise((resolve) => {
      // By chance, so that nobody answers who was not asked.
      const id = randomInt(2 ** 47)
      const end = (answer: Answer | null): void => {
        clearTimeout(timer)
        this.#waiting.delete(id)
        resolve(answer)
      }
      const timer = setTimeout(end, waitMs, null)
      this.#waiting.set(id, end)
      this.#send({ id, ...question }, peer)
    })
  }

  #receive(bytes: Uint8Array, from: RemoteInfo): void {
    const message = decode(bytes)
    if (message === null) return
    if (!('ask' in message)) this.#waiting.get(message.id)?.(message)
    else void this.#answer(message, from)
  }

  async #answer(question: { readonly id: number } & Question, to: RemoteInfo): Promise<void> {
    const { id } = question
    if (question.ask === 'meet') {
      const { from } = question
      const others = this.links.filter(({ peer }) => peer.name !== from.name)
      this.#send({ id, peers: besides(pointOf(from.name), others).map(({ peer }) => peer) }, to)
      this.#offer(from, null)
      return
    }
    const found = await this.#route(question.key)
    if (found !== null) this.#send({ id, ...found }, to)
  }

  #send(
    message: Parameters<typeof encode>[0],
    to: { readonly address: string; readonly port: number },
  ): void {
    try {
      this.#socket.send(encode(message), to.port, to.address, () => {})
    } catch {
      // Stopped in the meantime.
    }
  }
}

function peerOf({ name, addresses, port }: NearMember): Peer | null {
  const address = addresses.find((text) => text.includes('.'))
  return address === undefined || port === null ? null : { name, address, port }
}
