// Connections to the servers of one etcd: calls with deadlines, to the next server where one fails.
//
// Invariant: each call ends within its deadline, and says how: answered; `refused` by etcd; `unsent`, since no
// server could be reached; or `unknown`, where it was sent and nothing came back, so that it may have been done
// all the same. Nothing is repeated here but what `ask` is given, which must be safe to repeat.
// https://grpc.io/docs/what-is-grpc/core-concepts/, https://etcd.io/docs/v3.4/learning/api_guarantees/

import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { checkServerIdentity } from 'node:tls'
import { fileURLToPath } from 'node:url'
import {
  type ChannelCredentials,
  type ChannelOptions,
  Client,
  type ClientDuplexStream,
  connectivityState,
  credentials,
  Metadata,
  type ServiceError,
  status,
  type VerifyOptions,
} from '@grpc/grpc-js'
import { loadSync, type MethodDefinition } from '@grpc/proto-loader'
import type { Calls, Streams } from './etcd-messages.ts'
import { StoreError } from './store.ts'

export interface EtcdAccess {
  /** `HOST:PORT` of each server, tried in this order. */
  readonly endpoints: readonly string[]
  /** PEM files; null: in the clear. Without `cert` and `key` only the servers show who they are. */
  readonly tls: {
    readonly ca: string | null
    readonly cert: string | null
    readonly key: string | null
  } | null
  /** Of etcd's own authentication; null: none, or by the certificate's name. */
  readonly user: { readonly name: string; readonly password: string } | null
}

/** - `refused`: it was not done, and will not be. - `unsent`: it was not done. - `unknown`: it may have been. */
export type Outcome = 'refused' | 'unsent' | 'unknown'

export class EtcdError extends Error {
  readonly outcome: Outcome
  /** gRPC's status. */
  readonly code: status
  constructor(outcome: Outcome, code: status, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'EtcdError'
    this.outcome = outcome
    this.code = code
  }
}

/** What a call may take, ms. */
export const CALL_MS = 2000
/** One whose request or reply is large. */
export const LARGE_CALL_MS = 15_000
/** How long a server is looked for before nothing was sent, ms. */
const CONNECT_MS = 2500
/** A server that failed is asked last for so long, ms. */
const AVOID_MS = 5000

const CHANNEL: ChannelOptions = {
  // Replies of a start are large pages; how large is decided by who asks.
  'grpc.max_receive_message_length': -1,
  'grpc.max_send_message_length': -1,
  'grpc-node.flow_control_window': 4 << 20,
  // Pings less than 5 s apart are too many for etcd by default; silent watches are found otherwise (etcd-watch.ts).
  'grpc.keepalive_time_ms': 10_000,
  'grpc.keepalive_timeout_ms': 3000,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1000,
  // A repeated write is for who wrote it to judge.
  'grpc.enable_retries': 0,
  'grpc.enable_http_proxy': 0,
  'grpc.use_local_subchannel_pool': 1,
}

const PROTO = loadSync(fileURLToPath(new URL('./etcd.proto', import.meta.url)), {
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
})

function methodOf(name: string): MethodDefinition<object, object> {
  const [service, method] = name.split('/')
  const definition = PROTO[`etcdserverpb.${service}`] as Record<string, MethodDefinition<object, object>>
  return definition[method!]!
}

interface Endpoint {
  readonly name: string
  readonly client: Client
  avoidUntilMs: number
}

/** A call that is two streams. `send` after its end does nothing. */
export interface EtcdStream<Request> {
  send(request: Request): void
  /** Ends it; its listener hears nothing more. */
  cancel(): void
  /** `HOST:PORT` of the server. */
  readonly server: string
  /** The server is of no use: it hangs, or is behind. Others are asked first for a while. */
  avoid(): void
}

export class EtcdConnections {
  readonly #endpoints: readonly Endpoint[]
  readonly #user: EtcdAccess['user']
  /** Index of the one that calls go to. */
  #current = 0
  #token: Promise<string> | null = null
  #isClosed = false

  /** Connects when first asked. Throws StoreError `unavailable` where a PEM file can't be used. */
  constructor({ endpoints, tls, user }: EtcdAccess) {
    this.#endpoints = endpoints.map((name) => ({ name, client: clientOf(name, tls), avoidUntilMs: 0 }))
    this.#user = user
  }

  /** Sends it until one server takes it, once. Throws EtcdError. */
  async send<K extends keyof Calls>(
    call: K,
    request: Calls[K][0],
    deadlineMs = CALL_MS,
  ): Promise<Calls[K][1]> {
    for (let left = this.#endpoints.length; ; left--) {
      const endpoint = await this.#reachable()
      try {
        return await this.#authorized(endpoint, deadlineMs, (metadata) =>
          this.#unary(endpoint, call, request, metadata, deadlineMs),
        )
      } catch (error) {
        if (left <= 1 || !(error instanceof EtcdError) || error.outcome !== 'unsent') throw error
      }
    }
  }

  /** Sends what may be done twice until it is answered, to one server after another, for `limitMs`. Throws EtcdError. */
  async ask<K extends keyof Calls>(
    call: K,
    request: Calls[K][0],
    { deadlineMs = CALL_MS, limitMs = 3 * deadlineMs }: { deadlineMs?: number; limitMs?: number } = {},
  ): Promise<Calls[K][1]> {
    const end = performance.now() + limitMs
    for (;;) {
      try {
        return await this.send(call, request, deadlineMs)
      } catch (error) {
        if (!(error instanceof EtcdError) || error.outcome !== 'unknown' || performance.now() > end)
          throw error
      }
    }
  }

  /** Opens one on the server that calls go to. `onEnd` is told once, of whatever ended it but cancel. Throws EtcdError. */
  async stream<K extends keyof Streams>(
    call: K,
    onReply: (reply: Streams[K][1]) => void,
    onEnd: (error: EtcdError) => void,
  ): Promise<EtcdStream<Streams[K][0]>> {
    const endpoint = await this.#reachable()
    return this.#authorized(endpoint, CALL_MS, async (metadata) => {
      const { path, requestSerialize, responseDeserialize } = methodOf(call)
      const duplex = endpoint.client.makeBidiStreamRequest(
        path,
        requestSerialize,
        responseDeserialize,
        metadata,
      )
      return this.#wrap(endpoint, duplex, onReply as (reply: object) => void, onEnd)
    })
  }

  #wrap(
    endpoint: Endpoint,
    duplex: ClientDuplexStream<object, object>,
    onReply: (reply: object) => void,
    onEnd: (error: EtcdError) => void,
  ): EtcdStream<object> {
    let isOver = false
    const end = (error: EtcdError) => {
      if (isOver) return
      isOver = true
      this.#judge(endpoint, error)
      onEnd(error)
    }
    duplex.on('data', (reply: object) => {
      if (!isOver) onReply(reply)
    })
    duplex.on('error', (error: ServiceError) => end(errorOf(endpoint, error)))
    duplex.on('end', () =>
      end(new EtcdError('unknown', status.UNAVAILABLE, `${endpoint.name} ended the stream`)),
    )
    return {
      send: (request) => {
        if (!isOver) duplex.write(request)
      },
      cancel: () => {
        isOver = true
        duplex.cancel()
      },
      server: endpoint.name,
      avoid: () => this.#avoid(endpoint),
    }
  }

  close(): void {
    this.#isClosed = true
    for (const { client } of this.#endpoints) client.close()
  }

  #unary<K extends keyof Calls>(
    endpoint: Endpoint,
    call: K,
    request: Calls[K][0],
    metadata: Metadata,
    deadlineMs: number,
  ): Promise<Calls[K][1]> {
    const { path, requestSerialize, responseDeserialize } = methodOf(call)
    return new Promise((resolve, reject) => {
      endpoint.client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        metadata,
        { deadline: Date.now() + deadlineMs },
        (error, reply) => {
          if (error === null) return resolve(reply as Calls[K][1])
          const failure = errorOf(endpoint, error)
          this.#judge(endpoint, failure)
          reject(failure)
        },
      )
    })
  }

  /** Runs it with the token of our user, with a fresh one where etcd no longer knows it. */
  async #authorized<T>(
    endpoint: Endpoint,
    deadlineMs: number,
    run: (metadata: Metadata) => Promise<T>,
  ): Promise<T> {
    if (this.#user === null) return run(withLeader())
    for (let isFresh = false; ; isFresh = true) {
      this.#token ??= this.#authenticate(endpoint, this.#user, deadlineMs)
      const token = this.#token
      try {
        const metadata = withLeader()
        metadata.set('token', await token)
        return await run(metadata)
      } catch (error) {
        if (this.#token === token) this.#token = null
        if (isFresh || !isStaleToken(error)) throw error
      }
    }
  }

  async #authenticate(
    endpoint: Endpoint,
    user: NonNullable<EtcdAccess['user']>,
    deadlineMs: number,
  ): Promise<string> {
    try {
      const { token } = await this.#unary(endpoint, 'Auth/Authenticate', user, new Metadata(), deadlineMs)
      return token
    } catch (error) {
      // The call itself was not sent, whatever became of this one.
      if (!(error instanceof EtcdError) || error.outcome !== 'unknown') throw error
      throw new EtcdError('unsent', error.code, error.message, { cause: error })
    }
  }

  /** The current server where it is connected, else whichever is first. Throws EtcdError `unsent`. */
  async #reachable(): Promise<Endpoint> {
    if (this.#isClosed) throw new StoreError('closed', 'This store was closed.')
    const current = this.#endpoints[this.#current]!
    const nowMs = performance.now()
    if (current.avoidUntilMs <= nowMs && isReady(current)) return current
    const good = this.#endpoints.filter(({ avoidUntilMs }) => avoidUntilMs <= nowMs)
    const found = await firstReady(good, CONNECT_MS).catch(() => firstReady(this.#endpoints, CONNECT_MS / 5))
    this.#current = this.#endpoints.indexOf(found)
    return found
  }

  /** Learns from a failure whether to go elsewhere. */
  #judge(endpoint: Endpoint, { outcome }: EtcdError): void {
    if (outcome !== 'refused') this.#avoid(endpoint)
  }

  #avoid(endpoint: Endpoint): void {
    endpoint.avoidUntilMs = performance.now() + AVOID_MS
  }
}

function isReady({ client }: Endpoint): boolean {
  return client.getChannel().getConnectivityState(true) === connectivityState.READY
}

async function firstReady(endpoints: readonly Endpoint[], limitMs: number): Promise<Endpoint> {
  const waits = endpoints.map(
    (endpoint) =>
      new Promise<Endpoint>((resolve, reject) => {
        endpoint.client.waitForReady(Date.now() + limitMs, (error) =>
          error ? reject(error) : resolve(endpoint),
        )
      }),
  )
  try {
    return await Promise.any(waits)
  } catch (cause) {
    const names = endpoints.map(({ name }) => name).join(', ')
    throw new EtcdError('unsent', status.UNAVAILABLE, `no etcd server can be reached (${names})`, { cause })
  }
}

/** Statuses that etcd gives where it decided not to do it. All others leave that open. */
const REFUSALS: readonly status[] = [
  status.INVALID_ARGUMENT,
  status.NOT_FOUND,
  status.ALREADY_EXISTS,
  status.PERMISSION_DENIED,
  status.RESOURCE_EXHAUSTED,
  status.FAILED_PRECONDITION,
  status.OUT_OF_RANGE,
  status.UNIMPLEMENTED,
  status.UNAUTHENTICATED,
]

/** A server that knows no leader then says so before it begins, and ends its streams rather than leave them silent. */
function withLeader(): Metadata {
  const metadata = new Metadata()
  metadata.set('hasleader', 'true')
  return metadata
}

function outcomeOf({ code, details }: ServiceError): Outcome {
  if (REFUSALS.includes(code)) return 'refused'
  return details === 'etcdserver: no leader' ? 'unsent' : 'unknown'
}

function errorOf({ name }: Endpoint, error: ServiceError): EtcdError {
  const outcome = outcomeOf(error)
  return new EtcdError(outcome, error.code, `etcd at ${name}: ${error.details || error.message}`, {
    cause: error,
  })
}

function isStaleToken(error: unknown): boolean {
  return error instanceof EtcdError && /invalid auth token|revision of auth store is old/.test(error.message)
}

function clientOf(endpoint: string, tls: EtcdAccess['tls']): Client {
  if (tls === null) return new Client(endpoint, credentials.createInsecure(), CHANNEL)
  const host = endpoint.slice(0, endpoint.lastIndexOf(':')).replace(/^\[(.*)\]$/, '$1')
  if (isIP(host) === 0) return new Client(endpoint, securedBy(tls), CHANNEL)
  // No address may be told as the server's name (RFC 6066), which is what gRPC would do; it must be in the certificate.
  const secured = securedBy(tls, {
    checkServerIdentity: (_, certificate) => checkServerIdentity(host, certificate),
  })
  return new Client(endpoint, secured, {
    ...CHANNEL,
    'grpc.ssl_target_name_override': 'etcd',
    'grpc.default_authority': endpoint,
  })
}

function securedBy(
  { ca, cert, key }: NonNullable<EtcdAccess['tls']>,
  options: VerifyOptions = {},
): ChannelCredentials {
  const read = (file: string | null) => (file === null ? null : readFileSync(file))
  try {
    return credentials.createSsl(read(ca), read(key), read(cert), options)
  } catch (cause) {
    throw new StoreError(
      'unavailable',
      `the store's certificates can't be used: ${(cause as Error).message}`,
      {
        cause,
      },
    )
  }
}
