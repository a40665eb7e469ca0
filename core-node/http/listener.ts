// The HTTP listener: sockets on every address, redirects by the short way, all else to the API.
//
// Invariant: whatever comes in is answered or its connection closed, within limits of time and size; what
// is no request is counted and gets a 4xx at most. Redirects pass by no framework: they are the hot path.
// Closing lets running requests end for a moment, then closes their connections.

import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerOptions,
  type ServerResponse,
  STATUS_CODES,
} from 'node:http'
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { isInAny, parsePeerAddress } from '../../resolver/address.ts'
import { listenError } from '../../resolver/listen-error.ts'
import { type RedirectTarget, redirect, redirectTarget } from '../../resolver/redirect.ts'
import { Problem, type ProblemCode } from '../problem.ts'
import type { HostPort } from '../settings/config-values.ts'
import { openApi } from './api.ts'
import { type Api, type HttpContext, identifyClient } from './context.ts'
import { problemDocument, problemHeaders } from './problem-reply.ts'
import { readTarget, type TargetRefusal } from './target.ts'
import { readKeyPair, watchKeyPair } from './tls.ts'

export interface HttpListener {
  /** Where it really listens, in the order of config.http. */
  readonly addresses: readonly HostPort[]
  close(): Promise<void>
}

const LIMITS: ServerOptions = {
  // Slow readers and writers must not hold sockets: a request is some kB, even an import is 2 MiB.
  headersTimeout: 10_000,
  requestTimeout: 30_000,
  keepAliveTimeout: 15_000,
  connectionsCheckingInterval: 2_000,
  maxHeaderSize: 16 << 10,
  // Told by ourselves, as a problem and with a count.
  requireHostHeader: false,
}
const TLS = { minVersion: 'TLSv1.2' } as const
const MAX_HEADERS = 100
/** A socket without any traffic, such as one whose peer reads no reply. */
const IDLE_SOCKET_MS = 60_000
/** At some 20 kB each: bounded memory, and far from a process's file limit. */
const MAX_CONNECTIONS = 8192
/** Of one address, unless it is a proxy that was named: many agents behind one NAT, not a crowd of idle sockets. */
const MAX_CONNECTIONS_PER_ADDRESS = 1024
/** After the end was asked for, requests are still answered so long: those on their way, and a balancer's that has not asked /readyz. */
const LAST_REQUESTS_MS = 250
/** How long closing then waits for running requests. */
const DRAIN_MS = 1_000

/** Opens all of config.http, or none: throws what stands against one of them. */
export async function openHttp(context: HttpContext): Promise<HttpListener> {
  const { config, log } = context
  const files =
    config.tlsCert === null || config.tlsKey === null ? null : { cert: config.tlsCert, key: config.tlsKey }
  const pair = files === null ? null : readKeyPair(files)
  const api = await openApi(context)
  const servers = config.http.map(() => openServer(context, api, pair))
  const close = async () => {
    await Promise.all(servers.map(closeServer))
    await api.close()
  }
  try {
    await Promise.all(servers.map((server, i) => listen(server, config.http[i]!)))
  } catch (error) {
    await close()
    throw error
  }
  const unwatch =
    files === null
      ? () => {}
      : watchKeyPair(files, log, (fresh) => {
          for (const server of servers) (server as TlsServer).setSecureContext({ ...TLS, ...fresh })
        })
  return {
    addresses: servers.map((server, i) => ({
      host: config.http[i]!.host,
      port: (server.address() as AddressInfo).port,
    })),
    close: () => {
      unwatch()
      return close()
    },
  }
}

function openServer(context: HttpContext, api: Api, pair: { cert: Buffer; key: Buffer } | null): Server {
  const handle = (request: IncomingMessage, response: ServerResponse) =>
    dispatch(context, api, request, response)
  const server =
    pair === null
      ? createServer(LIMITS, handle)
      : (createTlsServer({ ...LIMITS, ...TLS, ...pair }, handle) as unknown as Server)
  server.maxConnections = MAX_CONNECTIONS
  server.maxHeadersCount = MAX_HEADERS
  server.setTimeout(IDLE_SOCKET_MS)
  server.on('clientError', (error: NodeJS.ErrnoException, socket) =>
    refuseBytes(context, error.code ?? '', socket),
  )
  server.on('tlsClientError', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ECONNRESET') context.metrics.countRefused('tls', 'handshake')
  })
  limitPerAddress(context, server)
  server.on('drop', () => context.metrics.countRefused('http', 'too-many-connections'))
  // Nobody's proxy: CONNECT, and expectations beyond 100-continue, are refused like any wrong request.
  server.on('connect', (_request, socket) => refuseBytes(context, 'CONNECT', socket))
  server.on('checkExpectation', (request, response) => {
    refuse(
      context,
      request,
      response,
      'bad-expectation',
      new Problem('bad-request', 'only 100-continue', 'Expect'),
    )
  })
  return server
}

/** Bounds the connections of one address, so that it can't take all there are. */
function limitPerAddress({ config, metrics }: HttpContext, server: Server): void {
  const open = new Map<string, number>()
  server.on('connection', (socket) => {
    const { remoteAddress = '' } = socket
    const count = (open.get(remoteAddress) ?? 0) + 1
    const address = parsePeerAddress(remoteAddress)
    if (count > MAX_CONNECTIONS_PER_ADDRESS && address !== null && !isInAny(config.trustedProxies, address)) {
      metrics.countRefused('http', 'too-many-connections')
      socket.destroy()
      return
    }
    open.set(remoteAddress, count)
    socket.once('close', () => {
      const left = open.get(remoteAddress)! - 1
      if (left === 0) open.delete(remoteAddress)
      else open.set(remoteAddress, left)
    })
  })
}

function listen(server: Server, { host, port }: HostPort): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (error: NodeJS.ErrnoException) => reject(listenError('http', { host, port }, error))
    server.once('error', fail)
    server.listen({ host, port }, () => {
      server.off('error', fail)
      resolve()
    })
  })
}

/** Goes on answering for a moment, telling each client to come back by another connection; then ends. */
async function closeServer(server: Server): Promise<void> {
  server.prependListener('request', (_request, response) => {
    response.shouldKeepAlive = false
  })
  if (server.listening) await sleep(LAST_REQUESTS_MS)
  return new Promise((resolve) => {
    const force = setTimeout(() => server.closeAllConnections(), DRAIN_MS)
    server.close(() => {
      clearTimeout(force)
      resolve()
    })
    server.closeIdleConnections()
  })
}

const REFUSALS: Readonly<Record<TargetRefusal, Problem>> = {
  'target-too-long': new Problem('uri-too-long', 'the request target is too long'),
  'bad-target': new Problem('bad-request', 'the request target is neither a path nor an http URL'),
  'bad-host': new Problem('bad-request', 'exactly one Host is needed, a name or an address', 'Host'),
}

function dispatch(context: HttpContext, api: Api, request: IncomingMessage, response: ServerResponse): void {
  const hosts = request.headersDistinct.host ?? []
  const target =
    hosts.length === 0 && request.httpVersion !== '1.0' ? 'bad-host' : readTarget(request.url ?? '', hosts)
  if (typeof target === 'string') {
    refuse(context, request, response, target, REFUSALS[target])
    return
  }
  const { core } = context
  const wanted = redirectTarget(core.tables, core.zones, target.host, target.path)
  if (wanted !== null) {
    try {
      answerRedirect(context, request, response, { ...wanted, query: target.query })
    } catch (err) {
      // As fastify does for routes: one request's failure is not the process's.
      context.log.error({ err }, 'a redirect failed')
      send(request, response, new Problem('internal', 'something in this core failed'), {})
    }
    return
  }
  request.url = target.path + target.query
  api.routing(request, response)
}

/** By its status: what the redirect refuses is told like all other errors. */
const REDIRECT_PROBLEMS: Readonly<Record<400 | 404 | 405 | 503, ProblemCode>> = {
  400: 'bad-request',
  404: 'not-found',
  405: 'method-not-allowed',
  503: 'unavailable',
}

function answerRedirect(
  context: HttpContext,
  request: IncomingMessage,
  response: ServerResponse,
  wanted: RedirectTarget & { readonly query: string },
): void {
  const { core, config, metrics, rng } = context
  const client = identifyClient(config, request.socket, request.headers)
  if (client === null) {
    const problem = new Problem('bad-request', 'the trusted proxy names no client address', 'X-Forwarded-For')
    refuse(context, request, response, 'bad-forwarded-for', problem)
    return
  }
  const method = request.method ?? 'GET'
  const { status, headers, body, looked } = redirect(
    core.tables,
    { ...wanted, method, client: client.address },
    rng,
  )
  metrics.countRequest('redirect', status)
  if (looked !== null) {
    metrics.countAnswer(looked.basis, looked.allDown)
    core.noteDemand(client.address, looked.service, true)
  }
  if (status === 302)
    write(request, response, status, { ...headers, 'Content-Type': 'text/plain' }, `${body}\n`)
  else send(request, response, new Problem(REDIRECT_PROBLEMS[status], body), headers)
}

/** A request that was not good enough for a route. Its connection ends: what follows on it is as doubtful. */
function refuse(
  context: HttpContext,
  request: IncomingMessage,
  response: ServerResponse,
  reason: string,
  problem: Problem,
): void {
  context.metrics.countRefused('http', reason)
  send(request, response, problem, { Connection: 'close' })
}

function send(
  request: IncomingMessage,
  response: ServerResponse,
  problem: Problem,
  headers: Readonly<Record<string, string>>,
): void {
  const body = JSON.stringify(problemDocument(problem))
  write(request, response, problem.status, { ...problemHeaders(problem), ...headers }, body)
}

function write(
  request: IncomingMessage,
  response: ServerResponse,
  status: number,
  headers: Readonly<Record<string, string>>,
  body: string,
): void {
  // A body that nobody reads would be taken for the next request's bytes.
  request.resume()
  response.writeHead(status, { ...headers, 'Content-Length': Buffer.byteLength(body) })
  response.end(request.method === 'HEAD' ? undefined : body)
}

/** Bytes that are no request, by the parser's word for what is wrong. */
const BYTE_PROBLEMS: Readonly<Record<string, Problem>> = {
  HPE_HEADER_OVERFLOW: new Problem('headers-too-large', 'the header fields are larger than 16 KiB'),
  ERR_HTTP_REQUEST_TIMEOUT: new Problem('timeout', 'the request did not come in time'),
  CONNECT: new Problem('method-not-allowed', 'this is no proxy'),
}
const NO_REQUEST = new Problem('bad-request', 'this is no HTTP request')

function refuseBytes({ metrics }: HttpContext, code: string, socket: Duplex): void {
  const problem = BYTE_PROBLEMS[code] ?? (code.startsWith('HPE_') ? NO_REQUEST : null)
  if (problem === null || !socket.writable) {
    // A peer that hung up, or a handshake that failed, which comes here too: nobody is left to be told.
    socket.destroy()
    return
  }
  metrics.countRefused('http', problem.code)
  const body = JSON.stringify(problemDocument(problem))
  const headers = {
    ...problemHeaders(problem),
    Connection: 'close',
    'Content-Length': Buffer.byteLength(body),
  }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  const head = `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}\r\n${lines.join('')}\r\n`
  socket.end(head + body, () => socket.destroy())
}
