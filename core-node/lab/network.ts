// The lab's wires: UDP relays that hold each packet for the round trip between its two ends.
//
// Each host has its own loopback address and two sockets here. At its `door` (the echo address that it
// advertises) others' echoes come in, are held for the whole round trip, and go on to the host's real
// echo; they leave through the `trunk` of the host that sent them, so that the receiver sees the
// sender's own address (its rate limits go by it), and the answer comes back that way, unheld.
// Clients answer DNS probes, REFUSED, after the round trip to whoever probes.
// Invariant: what is of no known sender is dropped. Nothing here knows what a packet says.

import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { DelayLine } from './delay-line.ts'
import { rttBetween, type Site } from './internet.ts'

export interface Endpoint {
  readonly address: string
  readonly port: number
}

/** A machine of the lab that sends echoes and answers them. */
export interface Machine {
  readonly site: Site
  /** Where its packets come from. */
  readonly address: string
  /** Where others are told that its echo answers: we listen there. */
  readonly door: Endpoint
  /** Where its echo really answers. */
  readonly echo: Endpoint
}

export interface LabClient {
  readonly site: Site
  readonly address: string
}

interface NetworkOptions {
  readonly machines: readonly Machine[]
  readonly clients: readonly LabClient[]
  /** Where clients answer DNS probes. */
  readonly clientDnsPort: number
  readonly seed: number
}

interface Relay extends Machine {
  readonly doorSocket: Socket
  readonly trunk: Socket
  /** Address of who sent an echo here -> the port that it came from. */
  readonly askers: Map<string, number>
}

/** A DNS header: the least that is answered. */
const DNS_HEADER_BYTES = 12
const DNS_FLAGS_AT = 2
const DNS_RESPONSE_FLAG = 0x80
const DNS_REFUSED = 5

/** Opens all sockets. Rejects with the system's error (EADDRINUSE: another lab has these addresses). */
export async function openNetwork(options: NetworkOptions): Promise<Network> {
  const network = new Network(options.seed)
  try {
    for (const machine of options.machines) await network.addMachine(machine)
    for (const client of options.clients) await network.addClient(client, options.clientDnsPort)
  } catch (error) {
    await network.close()
    throw error
  }
  return network
}

export class Network {
  readonly #seed: number
  readonly #line = new DelayLine()
  readonly #sockets: Socket[] = []
  /** By the address that packets come from. */
  readonly #relays = new Map<string, Relay>()

  constructor(seed: number) {
    this.#seed = seed
  }

  /** How late packets left the delay line: the error of the emulation, ms. */
  get lateness(): { readonly packets: number; readonly medianMs: number; readonly p99Ms: number } {
    return {
      packets: this.#line.passed,
      medianMs: this.#line.lateness(0.5),
      p99Ms: this.#line.lateness(0.99),
    }
  }

  async addMachine(machine: Machine): Promise<void> {
    const doorSocket = await this.#bind(machine.door)
    const trunk = await this.#bind({ address: machine.address, port: 0 })
    const relay: Relay = { ...machine, doorSocket, trunk, askers: new Map() }
    this.#relays.set(machine.address, relay)
    doorSocket.on('message', (packet, from) => this.#carry(packet, from, relay))
    trunk.on('message', (packet, from) => this.#carryBack(packet, from, relay))
  }

  async addClient(client: LabClient, port: number): Promise<void> {
    const socket = await this.#bind({ address: client.address, port })
    socket.on('message', (query, from) => {
      const prober = this.#relays.get(from.address)
      if (prober === undefined || query.length < DNS_HEADER_BYTES) return
      const answer = refuse(query)
      this.#line.after(rttBetween(prober.site, client.site, this.#seed), () => {
        socket.send(answer, from.port, from.address)
      })
    })
  }

  async close(): Promise<void> {
    this.#line.close()
    await Promise.all(
      this.#sockets.splice(0).map((socket) => new Promise<void>((done) => socket.close(() => done()))),
    )
  }

  /** An echo on its way to `to`. */
  #carry(packet: Buffer, from: RemoteInfo, to: Relay): void {
    const sender = this.#relays.get(from.address)
    if (sender === undefined) return
    to.askers.set(from.address, from.port)
    this.#line.after(rttBetween(sender.site, to.site, this.#seed), () => {
      sender.trunk.send(packet, to.echo.port, to.echo.address)
    })
  }

  /** An answer on its way back to `to`, from the door that the question went to. */
  #carryBack(packet: Buffer, from: RemoteInfo, to: Relay): void {
    const answerer = this.#relays.get(from.address)
    const port = answerer?.askers.get(to.address)
    if (answerer !== undefined && port !== undefined) answerer.doorSocket.send(packet, port, to.address)
  }

  async #bind({ address, port }: Endpoint): Promise<Socket> {
    const socket = createSocket('udp4')
    this.#sockets.push(socket)
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject)
      socket.bind({ address, port, exclusive: true }, resolve)
    })
    socket.removeAllListeners('error')
    // A refused send (the receiver was killed) is the network losing a packet.
    socket.on('error', () => {})
    return socket
  }
}

/** The query as an answer: nobody asks a client for names, but it is there. */
function refuse(query: Uint8Array): Uint8Array {
  const answer = Uint8Array.from(query)
  answer[DNS_FLAGS_AT]! |= DNS_RESPONSE_FLAG
  answer[DNS_FLAGS_AT + 1] = DNS_REFUSED
  return answer
}
