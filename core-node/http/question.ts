// The question: who asks for which service, measured from where, with which wishes -> parsed, allowed, located.
//
// `client`: answer as that address would be answered. `near`: the caller asks, for members near another point.
// Invariant: one's own question is anyone's to ask; another client's or another point's needs leave to see
// inside, and counts as nobody's demand: probes go to those who came, never to those who were named.

import type { FastifyReply, FastifyRequest } from 'fastify'
import { ADDRESS_BITS, type Address, type Family, parseAddress, sameAddress } from '../../resolver/address.ts'
import { ANY_ASK, type Ask } from '../../resolver/ask.ts'
import type { Predicate } from '../../resolver/directory.ts'
import { type Locality, locate } from '../../resolver/locate.ts'
import type { ServingService } from '../../resolver/serving.ts'
import type { Tables } from '../../resolver/tables.ts'
import { Problem } from '../problem.ts'
import { type HttpContext, requireInside } from './context.ts'
import { MAX_EXCLUDED } from './schemas.ts'

/** One client's question about one service. */
export interface Question {
  readonly client: Address
  /** Where distances are measured from: the client, unless another point was asked for. */
  readonly point: Address
  /** The client asks for itself, from where it is. */
  readonly isOwn: boolean
  readonly serving: ServingService
  /** Of the point. */
  readonly locality: Locality
  /** Rows of the hosts that the client is, as far as can be told. */
  readonly selves: ReadonlySet<number>
  readonly family: Family | null
}

/** What every question may say of who asks. `near` of bootstrap is a number of members, and no point. */
interface Asker {
  readonly client?: string
  readonly near?: string | number
  readonly family?: 4 | 6
}

/** Who asks `service` for what. Throws Problem. */
export function readQuestion(
  context: HttpContext,
  request: FastifyRequest,
  service: string,
  asker: Asker,
): Question {
  const { tables } = context.core
  const { client, isCaller } = readClient(context, request, asker.client, 'client')
  const near = typeof asker.near === 'string' ? asker.near : undefined
  const point = near === undefined ? client : readClient(context, request, near, 'near').client
  const isThere = sameAddress(point, client)
  const own = isCaller ? ownRow(context, request) : -1
  return {
    client,
    point,
    isOwn: isCaller && isThere,
    serving: findService(context, service),
    locality: isThere && own >= 0 ? locateHost(tables, point, own) : locate(tables, point),
    selves: new Set(own >= 0 ? [own] : tables.hosts.rowsAt(client)),
    family: asker.family ?? null,
  }
}

/** A host that has shown which it is stands where that one is, and nobody else at its address does. */
function locateHost(tables: Tables, address: Address, row: number): Locality {
  return { ...locate(tables, address, row), scopeBits: ADDRESS_BITS }
}

/** Row of the host whose credential came along; -1: none did. */
function ownRow({ core }: HttpContext, { caller }: FastifyRequest): number {
  return caller.kind === 'host' ? core.tables.hostRow(caller.host) : -1
}

/** A service by any of its names; `field`: where it was named. Throws Problem. */
export function findService(context: HttpContext, name: string, field = 'service'): ServingService {
  const serving = context.core.tables.service(name.toLowerCase().replace(/\.$/, ''))
  if (serving === null) throw new Problem('not-found', `there is no service '${name}'`, field)
  return serving
}

/** The address that is asked about: the caller's, unless `text` names another and the caller may ask for it. */
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
  if (!isCaller) requireInside(config, request, 'ask for another address')
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
): Pick<Ask, 'exclude' | 'where' | 'selves' | 'reachableOnly'> {
  const exclude = (query.exclude ?? []).flatMap((names) => names.split(',')).filter((name) => name !== '')
  if (exclude.length > MAX_EXCLUDED)
    throw new Problem('bad-request', `at most ${MAX_EXCLUDED} names, not ${exclude.length}`, 'exclude')
  return {
    exclude: new Set(exclude),
    where: readWhere(query.where ?? []),
    selves: question.selves,
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

interface Ring {
  readonly minMs?: number
  readonly maxMs?: number
}

/** A ring of distances. */
export function readRing({
  minMs = ANY_ASK.minMs,
  maxMs = ANY_ASK.maxMs,
}: Ring): Pick<Ask, 'minMs' | 'maxMs'> {
  if (minMs > maxMs) throw new Problem('bad-request', `minMs (${minMs}) is over maxMs (${maxMs})`, 'minMs')
  return { minMs, maxMs }
}
