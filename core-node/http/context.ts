// What every part of the HTTP door is given, and who stands at it: one request's client and caller.
//
// Invariant: `client` and `caller` are set before any route runs. What needs more than being asked goes
// through requireInside (reading) or the core's own rules (writing); no route decides rights by itself.

import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type {
  FastifyBaseLogger,
  FastifyInstance,
  FastifyRequest,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from 'fastify'
import { isInAny, isLoopback } from '../../resolver/address.ts'
import type { Rng } from '../../resolver/ask.ts'
import type { Core } from '../core.ts'
import type { Log } from '../ledger.ts'
import type { Metrics } from '../metrics.ts'
import { Problem } from '../problem.ts'
import type { Caller } from '../registry/caller.ts'
import type { Config } from '../settings/config.ts'
import { type Client, clientOf } from './client-address.ts'

export interface HttpContext {
  readonly core: Core
  readonly config: Config
  readonly metrics: Metrics
  readonly log: Log
  readonly rng: Rng
  /** Epoch ms: ages are told to people. */
  readonly epochMs: () => number
}

/** The fastify instance, with requests typed by their schemas. */
export type Api = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>

declare module 'fastify' {
  interface FastifyRequest {
    client: Client
    caller: Caller
  }
}

/** Headers as node:http gives them: those that may be joined are. */
type Headers = Readonly<Record<string, string | string[] | undefined>>

/** The client of a request that came by `socket`; null where it can't be told. */
export function identifyClient(
  config: Config,
  socket: { readonly remoteAddress?: string | undefined; readonly remotePort?: number | undefined },
  headers: Headers,
): Client | null {
  const forwarded = headers['x-forwarded-for'] ?? []
  const hops = {
    address: socket.remoteAddress,
    port: socket.remotePort,
    forwardedFor: typeof forwarded === 'string' ? [forwarded] : forwarded,
    forwardedOtherwise: headers.forwarded !== undefined || headers['x-real-ip'] !== undefined,
  }
  return clientOf(hops, config.trustedProxies)
}

/** The secret of `Authorization: Bearer SECRET`; null: none was sent. Throws Problem for another scheme. */
export function bearerOf(headers: Headers): string | null {
  const { authorization } = headers
  if (authorization === undefined) return null
  const secret = /^Bearer ([\w.~+/=-]{1,256})$/i.exec(String(authorization))?.[1]
  if (secret === undefined)
    throw new Problem('unauthorized', 'Authorization must be "Bearer TOKEN"', 'Authorization')
  return secret
}

/**
 * Whether the client is at this machine or where the operator said (`operatorFrom`). At this machine only
 * by a name that is ours: a web page whose name was pointed at 127.0.0.1 (DNS rebinding) is not its user.
 */
function isOperatorsPlace(
  { operatorFrom, zone: zones }: Config,
  { client, hostname }: FastifyRequest,
): boolean {
  if (client.behindUnknownProxy) return false
  const isOurs =
    /^(\[.*\]|[\d.]+|localhost)$/.test(hostname) || zones.some((zone) => hostname.endsWith(`.${zone}`))
  return isInAny(operatorFrom, client.address) || (isOurs && isLoopback(client.address))
}

/**
 * Whether a request may see what is inside: directory, metrics, other clients' localities. A host's
 * credential is no leave to: with open services anyone can have one.
 */
function maySeeInside(config: Config, request: FastifyRequest): boolean {
  const { kind } = request.caller
  return kind === 'admin' || kind === 'token' || isOperatorsPlace(config, request)
}

/** Throws Problem where the request may not see inside; `what` ends the sentence "A token is needed to ...". */
export function requireInside(config: Config, request: FastifyRequest, what: string): void {
  if (maySeeInside(config, request)) return
  const code = request.caller.kind === 'anonymous' ? 'unauthorized' : 'forbidden'
  throw new Problem(code, `a token is needed to ${what}, or an address in operatorFrom`)
}
