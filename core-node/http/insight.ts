// What a core knows and how it decides, for people: why a client gets what it gets, and where an address is.
//
// Invariant: the story is of the same locate and select that answer; nothing is decided anew for it, and
// being looked at is no demand. One's own locality is open to anyone; all else needs leave to see inside.

import { ANY_ASK } from '../../resolver/ask.ts'
import { explain, explainLocality } from '../../resolver/explain.ts'
import { locate } from '../../resolver/locate.ts'
import { select } from '../../resolver/select.ts'
import { listShare } from './asking.ts'
import { type Api, type HttpContext, requireInside } from './context.ts'
import { findService, openToPages, readClient } from './question.ts'
import {
  AddressParams,
  AnyServiceParams,
  ExplainQuery,
  ExplainReply,
  LocalityReply,
  problems,
  told,
} from './schemas.ts'

const tags = ['answers']

export function insightRoutes(app: Api, context: HttpContext): void {
  explainRoute(app, context)
  localityRoute(app, context)
}

function explainRoute(app: Api, context: HttpContext): void {
  const { core, config, epochMs, rng } = context
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
      const { k, family = null } = request.query
      const { maxAddrs, join } = serving.service
      const list = k === undefined ? { limit: maxAddrs } : { limit: k, networkShare: listShare(join) }
      const ask = { ...ANY_ASK, family, ...list }
      const selection = select(core.tables, serving, locality, ask, rng)
      return explain(core.tables, serving, locality, selection, epochMs(), core.nextProbes(client))
    },
  )
}

function localityRoute(app: Api, context: HttpContext): void {
  const { core, epochMs } = context
  app.get(
    '/v1/localities/:address',
    {
      schema: {
        tags,
        operationId: 'getLocality',
        summary: 'What is known of where an address is',
        description: 'One’s own (`me`) is open: "where am I". Others need a token.',
        security: [{}, { token: [] }],
        params: AddressParams,
        response: { 200: told('What is known of the address', LocalityReply), ...problems('forbidden') },
      },
    },
    async (request, reply) => {
      const { address } = request.params
      const text = address === 'me' ? undefined : address
      const { client, isCaller } = readClient(context, request, text, 'address')
      if (isCaller) openToPages(reply)
      return explainLocality(core.tables, locate(core.tables, client), epochMs())
    },
  )
}
