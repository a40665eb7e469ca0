// The clients' questions: nearest, neighbors, random, bootstrap, explain, and where an address is.
//
// Invariant: all of them locate and select by the same functions as DNS and the redirect do, so that no
// door tells another story. Who may ask what is question.ts' to say.

import {
  type Address,
  type Family,
  familyOf,
  formatAddress,
  formatPrefix,
  IPV4_OFFSET_BITS,
  prefixOf,
} from '../../resolver/address.ts'
import { explain, explainLocality } from '../../resolver/explain.ts'
import { locate } from '../../resolver/locate.ts'
import { ANY_ASK, type Ask, type Selection, select, type Weighed } from '../../resolver/select.ts'
import { type Api, type HttpContext, requireInside } from './context.ts'
import { findService, openToPages, type Question, readClient, readFilters, readQuestion } from './question.ts'
import {
  AddressParams,
  type AnsweredMember,
  AnyServiceParams,
  BootstrapQuery,
  BootstrapReply,
  COUNTS,
  ExplainQuery,
  ExplainReply,
  LocalityReply,
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

export function answerRoutes(app: Api, context: HttpContext): void {
  nearestRoute(app, context)
  overlayRoutes(app, context)
  insightRoutes(app, context)
}

function nearestRoute(app: Api, context: HttpContext): void {
  app.get(
    '/v1/services/:service/nearest',
    {
      schema: {
        tags,
        operationId: 'nearest',
        summary: 'The best members for a client, by the service’s policy',
        description: own,
        security,
        params: AnyServiceParams,
        querystring: NearestQuery,
        response: { 200: told('Members, best first', NearestReply), ...problems('forbidden', 'not-found') },
      },
    },
    async (request, reply) => {
      const question = readQuestion(context, request, reply)
      const limit = request.query.k ?? COUNTS.nearest.default
      return answerMembers(context, question, choose(context, question, { limit }))
    },
  )
}

function overlayRoutes(app: Api, context: HttpContext): void {
  app.get(
    '/v1/services/:service/neighbors',
    {
      schema: {
        tags,
        operationId: 'neighbors',
        summary: 'Many near live members, or those in a ring of distances; never the caller itself',
        description: own,
        security,
        params: AnyServiceParams,
        querystring: NeighborsQuery,
        response: { 200: told('Members, best first', NearestReply), ...problems('forbidden', 'not-found') },
      },
    },
    async (request, reply) => {
      const { query } = request
      const question = readQuestion(context, request, reply)
      const selection = chooseLive(context, question, {
        ...readFilters(question, query),
        policy: 'nearest',
        limit: query.k ?? COUNTS.neighbors.default,
        minMs: query.minMs ?? ANY_ASK.minMs,
        maxMs: query.maxMs ?? ANY_ASK.maxMs,
      })
      return answerMembers(context, question, selection)
    },
  )

  app.get(
    '/v1/services/:service/random',
    {
      schema: {
        tags,
        operationId: 'random',
        summary: 'Random live members, each equally likely; never the caller itself',
        description: own,
        security,
        params: AnyServiceParams,
        querystring: RandomQuery,
        response: { 200: told('Members, best first', NearestReply), ...problems('forbidden', 'not-found') },
      },
    },
    async (request, reply) => {
      const { query } = request
      const question = readQuestion(context, request, reply)
      const selection = chooseLive(context, question, {
        ...readFilters(question, query),
        policy: 'random',
        limit: query.k ?? COUNTS.random.default,
      })
      return answerMembers(context, question, selection)
    },
  )

  app.get(
    '/v1/services/:service/bootstrap',
    {
      schema: {
        tags,
        operationId: 'bootstrap',
        summary: 'Near and random live members at once: what a joining node needs',
        description: `Near members make an overlay fast, random ones keep it in one piece. No member is in both lists. ${own}`,
        security,
        params: AnyServiceParams,
        querystring: BootstrapQuery,
        response: {
          200: told('Near members, best first, and random ones', BootstrapReply),
          ...problems('forbidden', 'not-found'),
        },
      },
    },
    async (request, reply) => {
      const { query } = request
      const question = readQuestion(context, request, reply)
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
      return { ...answerHead(context, question, near), ...members }
    },
  )
}

function insightRoutes(app: Api, context: HttpContext): void {
  const { core, config, nowMs } = context
  app.get(
    '/v1/services/:service/explain',
    {
      schema: {
        tags,
        operationId: 'explain',
        summary: 'Why a client gets what it gets: locality, every member, its cost, why it was passed over',
        security: [{ token: [] }, {}],
        params: AnyServiceParams,
        querystring: ExplainQuery,
        response: { 200: told('The whole decision', ExplainReply), ...problems('forbidden', 'not-found') },
      },
    },
    async (request) => {
      requireInside(config, request, 'see why')
      const { client } = readClient(context, request, request.query.client, 'client')
      const serving = findService(context, request.params.service)
      const locality = locate(core.tables, client)
      const family = request.query.family ?? null
      const selection = select(
        core.tables,
        serving,
        locality,
        { ...ANY_ASK, family, limit: serving.service.maxAddrs },
        context.rng,
      )
      return explain(core.tables, serving, locality, selection, nowMs(), core.nextProbes(client))
    },
  )

  app.get(
    '/v1/localities/:address',
    {
      schema: {
        tags,
        operationId: 'getLocality',
        summary: 'What is known of where an address is',
        description: 'One’s own (`me`) is open: "where am I". Others need a token.',
        security,
        params: AddressParams,
        response: { 200: told('What is known of the address', LocalityReply), ...problems('forbidden') },
      },
    },
    async (request, reply) => {
      const { address } = request.params
      const text = address === 'me' ? undefined : address
      const { client, isCaller } = readClient(context, request, text, 'address')
      if (isCaller) openToPages(reply)
      return explainLocality(core.tables, locate(core.tables, client), nowMs())
    },
  )
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

function answerMembers(context: HttpContext, question: Question, selection: Selection): NearestReply {
  return { ...answerHead(context, question, selection), members: viewPicks(selection, question.family) }
}

function answerHead(
  { core, metrics }: HttpContext,
  { client, serving, locality }: Question,
  { basis, scopeBits, ttlSec, allDown }: Selection,
): Omit<NearestReply, 'members'> {
  metrics.countAnswer('http', basis, allDown?.mode ?? null)
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
