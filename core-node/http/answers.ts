// The clients' questions: nearest, neighbors, random, bootstrap.
//
// Invariant: all of them locate and select by the same functions as DNS and the redirect do, so that no
// door tells another story. Who may ask what is question.ts' to say.

import type { FastifyReply } from 'fastify'
import type { Static, TSchema } from 'typebox'
import {
  type Address,
  type Family,
  familyOf,
  formatAddress,
  formatPrefix,
  IPV4_OFFSET_BITS,
  prefixOf,
} from '../../resolver/address.ts'
import { ANY_ASK, type Ask, type Selection, select, type Weighed } from '../../resolver/select.ts'
import { Problem } from '../problem.ts'
import type { Api, HttpContext } from './context.ts'
import { openToPages, type Question, type QuestionRequest, readFilters, readQuestion } from './question.ts'
import {
  type AnsweredMember,
  AnyServiceParams,
  BootstrapQuery,
  BootstrapReply,
  COUNTS,
  NearestQuery,
  NearestReply,
  NeighborsQuery,
  problems,
  RandomQuery,
  told,
} from './schemas.ts'

const tags = ['answers']
/** Open for oneself, a token for others. */
const security = [{}, { token: [] }]
const own = 'For the caller; for another client (`client`) a token is needed.'
const MEMBERS = told('Members, best first', NearestReply)

export function answerRoutes(app: Api, context: HttpContext): void {
  nearestRoute(app, context)
  neighborsRoute(app, context)
  randomRoute(app, context)
  bootstrapRoute(app, context)
}

function nearestRoute(app: Api, context: HttpContext): void {
  app.get(
    '/v1/services/:service/nearest',
    {
      schema: questionSchema({
        operationId: 'nearest',
        summary: 'The best members for a client, by the service’s policy',
        querystring: NearestQuery,
        reply: MEMBERS,
      }),
    },
    answering(context, (question, { k }: Static<typeof NearestQuery>) => {
      const selection = choose(context, question, { limit: k ?? COUNTS.nearest.default })
      return { selection, reply: viewMembers(context, question, selection) }
    }),
  )
}

function neighborsRoute(app: Api, context: HttpContext): void {
  app.get(
    '/v1/services/:service/neighbors',
    {
      schema: questionSchema({
        operationId: 'neighbors',
        summary: 'Many near live members, or those in a ring of distances; never the caller itself',
        querystring: NeighborsQuery,
        reply: MEMBERS,
      }),
    },
    answering(context, (question, query: Static<typeof NeighborsQuery>) => {
      const { minMs = ANY_ASK.minMs, maxMs = ANY_ASK.maxMs } = query
      if (minMs > maxMs)
        throw new Problem('bad-request', `minMs (${minMs}) is over maxMs (${maxMs})`, 'minMs')
      const selection = chooseLive(context, question, {
        ...readFilters(question, query),
        policy: 'nearest',
        limit: query.k ?? COUNTS.neighbors.default,
        minMs,
        maxMs,
      })
      return { selection, reply: viewMembers(context, question, selection) }
    }),
  )
}

function randomRoute(app: Api, context: HttpContext): void {
  app.get(
    '/v1/services/:service/random',
    {
      schema: questionSchema({
        operationId: 'random',
        summary: 'Random live members, each equally likely; never the caller itself',
        querystring: RandomQuery,
        reply: MEMBERS,
      }),
    },
    answering(context, (question, query: Static<typeof RandomQuery>) => {
      const selection = chooseLive(context, question, {
        ...readFilters(question, query),
        policy: 'random',
        limit: query.k ?? COUNTS.random.default,
      })
      return { selection, reply: viewMembers(context, question, selection) }
    }),
  )
}

function bootstrapRoute(app: Api, context: HttpContext): void {
  app.get(
    '/v1/services/:service/bootstrap',
    {
      schema: questionSchema({
        operationId: 'bootstrap',
        summary: 'Near and random live members at once: what a joining node needs',
        about:
          'Near members make an overlay fast, random ones keep it in one piece. No member is in both lists.',
        querystring: BootstrapQuery,
        reply: told('Near members, best first, and random ones', BootstrapReply),
      }),
    },
    answering(context, (question, query: Static<typeof BootstrapQuery>) => {
      const wanted = readFilters(question, query)
      const near = chooseLive(context, question, {
        ...wanted,
        policy: 'nearest',
        limit: query.near ?? COUNTS.bootstrapNear.default,
      })
      const random = chooseLive(context, question, {
        ...wanted,
        exclude: new Set([...wanted.exclude, ...near.picks.map(({ member }) => member.name)]),
        policy: 'random',
        limit: query.random ?? COUNTS.bootstrapRandom.default,
      })
      const members = { near: viewPicks(near, question.family), random: viewPicks(random, question.family) }
      return { selection: near, reply: { ...viewHead(context, question, near), ...members } }
    }),
  )
}

/** What the routes of questions have in common for the validator and for readers of the API. */
function questionSchema<Q extends TSchema, R extends TSchema>(route: {
  readonly operationId: string
  readonly summary: string
  readonly about?: string
  readonly querystring: Q
  readonly reply: R
}) {
  const { operationId, summary, about, querystring, reply } = route
  return {
    tags,
    operationId,
    summary,
    description: about === undefined ? own : `${about} ${own}`,
    security,
    params: AnyServiceParams,
    querystring,
    response: { 200: reply, ...problems('forbidden', 'not-found') },
  }
}

/**
 * The handler of a question's route, with all that follows from being asked: a client's own question is
 * demand, and web pages may ask it (of mistakes in it they are told as well); an answer is counted.
 */
function answering<Query, Reply>(
  context: HttpContext,
  answer: (question: Question, query: Query) => { selection: Selection; reply: Reply },
) {
  return async (request: QuestionRequest<Query>, httpReply: FastifyReply): Promise<Reply> => {
    const question = readQuestion(context, request)
    if (question.isCaller) {
      openToPages(httpReply)
      context.core.noteDemand(question.client, question.serving.service.name, true)
    }
    const { selection, reply } = answer(question, request.query)
    context.metrics.countAnswer('http', selection.basis, selection.allDown?.mode ?? null)
    return reply
  }
}

function choose({ core, rng }: HttpContext, question: Question, asked: Partial<Ask>): Selection {
  const wanted = { ...ANY_ASK, family: question.family, ...asked }
  return select(core.tables, question.serving, question.locality, wanted, rng)
}

/** For lists of nodes to connect to: one that is known to be down is of no use, whatever the service's allDown. */
function chooseLive(context: HttpContext, question: Question, asked: Partial<Ask>): Selection {
  const selection = choose(context, question, asked)
  return selection.allDown === null ? selection : { ...selection, picks: [], allDown: { mode: 'empty' } }
}

function viewMembers(context: HttpContext, question: Question, selection: Selection): NearestReply {
  return { ...viewHead(context, question, selection), members: viewPicks(selection, question.family) }
}

function viewHead(
  { core }: HttpContext,
  { client, serving, locality }: Question,
  { basis, scopeBits, ttlSec, allDown }: Selection,
): Omit<NearestReply, 'members'> {
  return {
    service: serving.service.name,
    client: formatAddress(client),
    basis,
    scope: scopeText(client, scopeBits),
    errorMs: finite(locality.errorMs),
    ttlSec,
    allDown: allDown?.mode ?? null,
    ...(allDown?.mode === 'fallback'
      ? { fallback: { addresses: [...allDown.addresses], url: allDown.url } }
      : {}),
    ticket: core.ticketFor(client),
  }
}

function viewPicks(selection: Selection, family: Family | null): AnsweredMember[] {
  return selection.picks.map((pick) => viewPick(pick, family))
}

function viewPick({ member, ms, errorMs, basis }: Weighed, family: Family | null): AnsweredMember {
  const addresses = [...(family === 6 ? [] : member.addresses4), ...(family === 4 ? [] : member.addresses6)]
  return {
    name: member.name,
    host: member.hostName,
    addresses: addresses.map(formatAddress),
    port: member.port,
    url: member.url,
    attributes: { ...member.attributes },
    ms: finite(ms),
    errorMs: finite(errorMs),
    basis,
  }
}

/** JSON knows no NaN and no Infinity. */
function finite(number: number): number | null {
  return Number.isFinite(number) ? number : null
}

/** The prefix of `bits` around a client, in its family's own count; no wider than that family. */
function scopeText(client: Address, bits: number): string {
  const least = familyOf(client) === 4 ? IPV4_OFFSET_BITS : 0
  return formatPrefix(prefixOf(client, Math.max(bits, least)))
}
