// The question: who asks for which service, with which wishes -> parsed, allowed, located.
//
// Invariant: one's own question is anyone's to ask; another client's needs leave to see inside, and counts
// as nobody's demand: probes go to those who came, never to those who were named.

import type { FastifyReply, FastifyRequest } from 'fastify'
import { type Address, type Family, parseAddress, sameAddress } from '../../resolver/address.ts'
import type { Predicate } from '../../resolver/directory.ts'
import { type Locality, locate } from '../../resolver/locate.ts'
import type { Ask } from '../../resolver/select.ts'
import type { ServingService } from '../../resolver/serving.ts'
import { Problem } from '../problem.ts'
import { type HttpContext, requireInside } from './context.ts'
import { MAX_EXCLUDED } from './schemas.ts'

/** One client's question about one service. */
export interface Question {
  readonly client: Address
  /** The client asks for itself. */
  readonly isCaller: boolean
  readonly serving: ServingService
  readonly locality: Locality
  /** Row of the host that asks; -1: none. */
  readonly self: number
  readonly family: Family | null
}

/** What every route for questions takes, beside its own `Query`. */
export type QuestionRequest<Query = unknown> = FastifyRequest & {
  readonly params: { readonly service: string }
  readonly query: Query & { readonly client?: string; readonly family?: 4 | 6 }
}

/** Who asks for what. Throws Problem. */
export function readQuestion(context: HttpContext, request: QuestionRequest): Question {
  const { core } = context
  const { client, isCaller } = readClient(context, request, request.query.client, 'client')
  const serving = findService(context, request.params.service)
  const { caller } = request
  const byCredential = caller.kind === 'host' ? core.tables.hostRow(caller.host) : -1
  return {
    client,
    isCaller,
    serving,
    locality: locate(core.tables, client),
    self: byCredential >= 0 ? byCredential : core.tables.hostRowAt(client),
    family: request.query.family ?? null,
  }
}

export function findService(context: HttpContext, name: string): ServingService {
  const serving = context.core.tables.service(name.toLowerCase().replace(/\.$/, ''))
  if (serving === null) throw new Problem('not-found', `there is no service '${name}'`, 'service')
  return serving
}

/** The client that is asked about: the caller, unless `text` names another and the caller may ask for it. */
export function readClient(
  { config }: HttpContext,
  request: FastifyRequest,
  text: string | undefined,
  field: string,
): { client: Address; isCaller: boolean } {
  const caller = request.client.address
  const client = text === undefined ? caller : parseAddress(text)
  if (client === null) throw new Problem('bad-request', `'${text}' is not an IP address`, field)
  const isCaller = sameAddress(client, caller)
  if (!isCaller) requireInside(config, request, 'ask for another client')
  return { client, isCaller }
}

/** Web pages may be told what anyone at their visitor's address is told. Never what needs leave to see inside. */
export function openToPages(reply: FastifyReply): void {
  reply.header('access-control-allow-origin', '*')
}

interface Filters {
  readonly exclude?: string[]
  readonly where?: string[]
  readonly reachable?: boolean
}

/** What overlay nodes may ask for on top. */
export function readFilters(
  question: Question,
  query: Filters,
): Pick<Ask, 'exclude' | 'where' | 'self' | 'reachableOnly'> {
  const exclude = (query.exclude ?? []).flatMap((names) => names.split(',')).filter((name) => name !== '')
  if (exclude.length > MAX_EXCLUDED)
    throw new Problem('bad-request', `at most ${MAX_EXCLUDED} names, not ${exclude.length}`, 'exclude')
  return {
    exclude: new Set(exclude),
    where: readWhere(query.where ?? []),
    self: question.self,
    reachableOnly: query.reachable ?? false,
  }
}

function readWhere(texts: readonly string[]): Predicate {
  return Object.fromEntries(
    texts.map((text) => {
      const colon = text.indexOf(':')
      if (colon <= 0) throw new Problem('bad-request', `'${text}' is not attribute:value`, 'where')
      return [text.slice(0, colon), text.slice(colon + 1)]
    }),
  )
}
