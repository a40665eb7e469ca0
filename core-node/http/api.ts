// The API: one fastify instance with every route, its validation, errors, limits and documentation.
//
// Invariant: a request is identified (client, then limits, then caller) before its body is read; every
// error leaves as a problem document; nothing is cached. It listens nowhere: the listener hands it
// requests, tests inject them.

import rateLimit from '@fastify/rate-limit'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import fastify, { type FastifyError, type FastifyReply, type FastifyRequest } from 'fastify'
import { familyOf, formatPrefix, isLoopback, prefixOf } from '../../resolver/address.ts'
import { Problem } from '../problem.ts'
import { VERSION } from '../version.ts'
import { agentRoutes } from './agents.ts'
import { answerRoutes } from './answers.ts'
import { type Api, bearerOf, type HttpContext, identifyClient } from './context.ts'
import { directoryRoutes } from './directory.ts'
import { insightRoutes } from './insight.ts'
import { inspectionRoutes } from './inspection.ts'
import { openapiOptions } from './openapi.ts'
import { operatorRoutes } from './operators.ts'
import { problemDocument, problemHeaders, problemOf } from './problem-reply.ts'
import { compileValidator } from './validation.ts'

/** What no route of ours comes near, imports and heartbeats excepted, which say so. */
const BODY_BYTES = 64 << 10
/** An IPv6 subscriber has a /64 to itself: limits count it as one client. */
const IPV6_SUBSCRIBER_BITS = 64
/** Clients whose requests are counted at a time; the least recent are forgotten first. */
const COUNTED_CLIENTS = 20_000
const MINUTE_MS = 60_000
/** Names are at most 253 long; a percent-encoded one is refused as a name. */
const MAX_PARAMETER_LENGTH = 300
/** The pages of /docs load nothing from elsewhere, and work over http as well. */
const DOCS_CSP = "default-src 'self'; img-src 'self' data:; object-src 'none'; frame-ancestors 'self'"

/** Ready to be handed requests; close() it. */
export async function openApi(context: HttpContext): Promise<Api> {
  const app: Api = fastify({
    bodyLimit: BODY_BYTES,
    routerOptions: { maxParamLength: MAX_PARAMETER_LENGTH },
    frameworkErrors: (error, _request, reply) => refusePath(context, error, reply as FastifyReply),
  })
    .withTypeProvider<TypeBoxTypeProvider>()
    .setValidatorCompiler(compileValidator)
    // Replies are built by hand to their schemas; JSON.stringify also turns NaN and Infinity to null.
    .setSerializerCompiler(() => (data) => JSON.stringify(data))
  readBodiesAsJsonOnly(app)
  identifyRequests(app, context)
  answerErrors(app, context)
  const methods = collectMethods(app)
  await app.register(rateLimit, {
    max: context.config.requestsPerMinute,
    timeWindow: MINUTE_MS,
    enableDraftSpec: true,
    cache: COUNTED_CLIENTS,
    keyGenerator: ({ client }: FastifyRequest) => limitKey(client.address),
    errorResponseBuilder: (_request, { after }) =>
      new Problem(
        'too-many',
        `at most ${context.config.requestsPerMinute} requests a minute; again in ${after}`,
      ),
  })
  await app.register(swagger, openapiOptions(VERSION))
  await app.register(swaggerUi, { routePrefix: '/docs', staticCSP: DOCS_CSP })
  app.setNotFoundHandler({ preHandler: app.rateLimit() }, (request, reply) =>
    notFound(methods, request, reply),
  )
  answerRoutes(app, context)
  insightRoutes(app, context)
  agentRoutes(app, context)
  operatorRoutes(app, context)
  directoryRoutes(app, context)
  inspectionRoutes(app, context)
  await app.ready()
  return app
}

function limitKey(address: Uint8Array): string {
  return formatPrefix(prefixOf(address, familyOf(address) === 4 ? 128 : IPV6_SUBSCRIBER_BITS))
}

/** Bodies are JSON or refused; an empty one is no body, whatever its Content-Type says. */
function readBodiesAsJsonOnly(app: Api): void {
  const parse = app.getDefaultJsonParser('error', 'error')
  app.removeAllContentTypeParsers()
  app.addContentTypeParser<string>('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body === '') done(null, undefined)
    else parse(request, body, done)
  })
}

/** Sets client and caller. Limits (which are hooks of the routes) fall between the two, so that guessing tokens is limited too. */
function identifyRequests(app: Api, context: HttpContext): void {
  const { core, config } = context
  let warned = false
  app.decorateRequest('client')
  app.decorateRequest('caller')
  app.addHook('onRequest', async (request, reply) => {
    reply.header('cache-control', 'no-store').header('x-content-type-options', 'nosniff')
    request.caller = { kind: 'anonymous' }
    const client = identifyClient(config, request.socket, request.headers)
    if (client === null)
      throw new Problem('bad-request', 'the trusted proxy names no client address', 'X-Forwarded-For')
    request.client = client
  })
  app.addHook('preParsing', async (request) => {
    const secret = bearerOf(request.headers)
    if (secret === null) return
    request.caller = core.authenticate(secret)
    const isClear = config.tlsCert === null && !isLoopback(request.client.address)
    if (isClear && !warned) {
      warned = true
      context.log.warn({}, 'a token came in the clear; give this core tls-cert and tls-key')
    }
  })
  app.addHook('onResponse', async (request, reply) => {
    const [tag] = request.routeOptions.schema?.tags ?? []
    context.metrics.countRequest(tag ?? 'other', reply.statusCode)
  })
}

function answerErrors(app: Api, { log }: HttpContext): void {
  app.setErrorHandler<Problem | FastifyError>((error, request, reply) => {
    const problem = problemOf(error)
    if (problem === null) log.error({ err: error, route: request.routeOptions.url }, 'a request failed')
    return sendProblem(reply, problem ?? new Problem('internal', 'something in this core failed'))
  })
}

/** What the router refuses before there is a route: percent-encodings that are none, overlong parameters. */
function refusePath({ metrics }: HttpContext, error: FastifyError, reply: FastifyReply): void {
  metrics.countRefused('http', 'bad-path')
  sendProblem(reply, problemOf(error) ?? new Problem('bad-request', error.message))
}

function sendProblem(reply: FastifyReply, problem: Problem): FastifyReply {
  // Serialized here: a route's schemas are for its own replies.
  return reply
    .code(problem.status)
    .headers(problemHeaders(problem))
    .send(JSON.stringify(problemDocument(problem)))
}

interface KnownPath {
  readonly pattern: RegExp
  readonly methods: Set<string>
}

/** Which methods each path has, to tell an unknown path from a wrong method. */
function collectMethods(app: Api): Map<string, KnownPath> {
  const known = new Map<string, KnownPath>()
  app.addHook('onRoute', ({ url, method }) => {
    const path = known.get(url) ?? { pattern: patternOf(url), methods: new Set() }
    for (const name of [method].flat()) path.methods.add(name)
    known.set(url, path)
  })
  return known
}

function patternOf(url: string): RegExp {
  const escaped = url.replace(/[.+?^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.*')
  return new RegExp(`^${escaped.replace(/:\w+/g, '[^/]+')}$`)
}

function notFound(known: Map<string, KnownPath>, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const path = request.url.split('?', 1)[0]!
  const methods = [...known.values()].flatMap(({ pattern, methods }) =>
    pattern.test(path) ? [...methods] : [],
  )
  if (methods.length === 0 || methods.includes(request.method))
    return sendProblem(reply, new Problem('not-found', `there is nothing at ${path}; see /docs`))
  const allowed = [...new Set(methods)].join(', ')
  reply.header('allow', allowed)
  return sendProblem(reply, new Problem('method-not-allowed', `${path} answers ${allowed}`))
}
