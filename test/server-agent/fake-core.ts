// A core as agents see it, over real HTTP: it knows hosts by their credentials, hands out the orders that
// a test gives it, keeps what it heard, and can be made to answer anything.

import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Compile } from 'typebox/compile'
import {
  HeartbeatRequest,
  HostRequest,
  MemberRequest,
  type OrderResult,
} from '../../server-agent/protocol/messages.ts'

const requestShapes = {
  host: Compile(HostRequest),
  member: Compile(MemberRequest),
  beat: Compile(HeartbeatRequest),
}

export interface Heard {
  readonly method: string
  readonly path: string
  readonly bearer: string | null
  // biome-ignore lint/suspicious/noExplicitAny: a request's JSON, of whatever shape
  readonly body: any
  readonly atMs: number
}

/** A core as agents see it: knows hosts by their credentials, hands out orders, keeps what it heard. */
export class FakeCore {
  readonly heard: Heard[] = []
  readonly invalid: unknown[] = []
  /** Host -> credential; several cores may share these two. */
  readonly hosts: Map<string, string>
  readonly members: Set<string>
  readonly name: string
  /** The members of the service `core`, as answers name them. */
  cores: readonly object[] = []
  /** Heartbeats say that their hosts are to move. */
  moving = false
  orders: unknown[] = []
  token = 'good-token'
  /** Who comes without a token is let in, too. */
  isOpen = false
  publicAddress = '127.0.0.1'
  heartbeatSec = 0.1
  /** Given to every host, hex. */
  echoKey = '07'.repeat(32)
  /** Instead of the usual answer; true: answered. */
  override: (request: Heard, response: ServerResponse) => boolean = () => false
  readonly #server = createServer((request, response) => void this.#serve(request, response))
  port = 0

  constructor(
    name = 'fake',
    shared: { hosts: Map<string, string>; members: Set<string> } = { hosts: new Map(), members: new Set() },
  ) {
    this.name = name
    this.hosts = shared.hosts
    this.members = shared.members
  }

  async open(port = 0): Promise<this> {
    this.#server.listen(port, '127.0.0.1')
    await once(this.#server, 'listening')
    this.port = (this.#server.address() as AddressInfo).port
    return this
  }

  close(): void {
    this.#server.close()
    this.#server.closeAllConnections()
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  get beats() {
    return this.heard.filter(({ path }) => path === '/v1/heartbeats').map(({ body }) => body.beats[0])
  }

  get results(): OrderResult[] {
    return this.beats.flatMap((beat) => beat.results ?? [])
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let text = ''
    for await (const chunk of request) text += chunk
    const heard: Heard = {
      method: request.method!,
      path: request.url!,
      bearer: request.headers.authorization?.replace('Bearer ', '') ?? null,
      body: text === '' ? null : JSON.parse(text),
      atMs: performance.now(),
    }
    this.heard.push(heard)
    if (this.override(heard, response)) return
    const [status, body] = this.#answer(heard)
    response.writeHead(status, {
      'content-type': status < 400 ? 'application/json' : 'application/problem+json',
    })
    response.end(JSON.stringify(body))
  }

  #answer({ method, path, bearer, body }: Heard): [number, unknown] {
    const [, , kind, name, , member] = path.split('?', 1)[0]!.split('/')
    if (kind === 'heartbeats') return this.#beat(body)
    if (name === 'core') return [200, this.#near(name, this.cores)]
    const knows = [...this.hosts.values()].includes(bearer ?? '')
    if (kind === 'hosts' && method === 'PUT') return this.#putHost(name!, bearer, body)
    if (!knows) return [401, problem(401, 'nobody has this credential')]
    if (kind === 'hosts') {
      if (this.hosts.get(name!) === bearer) this.hosts.delete(name!)
      return [200, {}]
    }
    if (method === 'GET' || (method === 'POST' && kind === 'services'))
      return [200, { ...this.#near(name!, []), to: 'other', near: [], random: [] }]
    if (name === 'nosuch') return [404, problem(404, 'there is no service nosuch')]
    if (!path.endsWith('/drain')) this.members[method === 'PUT' ? 'add' : 'delete'](`${name}/${member}`)
    if (method === 'DELETE' || path.endsWith('/drain')) return [200, {}]
    if (!requestShapes.member.Check(body)) this.invalid.push(body)
    return [200, { service: name, member, host: 'x', state: 'unverified', hint: 'wait for its echo' }]
  }

  #near(service: string, members: readonly object[]) {
    return { service, client: '127.0.0.1', basis: 'member', ttlSec: 30, members }
  }

  #putHost(name: string, bearer: string | null, body: unknown): [number, unknown] {
    if (!requestShapes.host.Check(body)) this.invalid.push(body)
    const own = this.hosts.get(name)
    const isLetIn = bearer === this.token || (this.isOpen && bearer === null)
    if (!isLetIn && (own === undefined || bearer !== own))
      return [401, problem(401, 'nobody has this credential')]
    if (own !== undefined && isLetIn) return [409, problem(409, `${name} is held by another host`)]
    const fresh =
      own === undefined ? { credential: `own-${name}-${this.hosts.size}-${this.heard.length}` } : {}
    this.hosts.set(name, own ?? fresh.credential!)
    return [
      200,
      {
        host: name,
        ...fresh,
        core: this.name,
        leaseSec: 8,
        heartbeatSec: this.heartbeatSec,
        echoKey: this.echoKey,
        publicAddress: this.publicAddress,
        publicPort: 4,
        reachable: null,
        proofs: {},
        newer: 'ignored',
      },
    ]
  }

  #beat(body: { beats: { host: string; credential: string }[] }): [number, unknown] {
    if (!requestShapes.beat.Check(body)) this.invalid.push(body)
    const beats = body.beats.map(({ host, credential }) => {
      const status = this.hosts.get(host) === credential ? 'ok' : 'unknown'
      const moving = this.moving ? { moving: true } : {}
      return { host, status, ...moving, orders: status === 'ok' ? this.orders.splice(0) : [] }
    })
    return [200, { beats }]
  }
}

export function problem(status: number, detail: string) {
  return { type: 'urn:nearcast:problem:x', title: 'No', status, detail }
}
