// Asking: what all routes of questions have in common, from the request to the answer and what follows from it.
//
// Invariant: a client's own question is demand, and web pages may ask it (of mistakes in it they are told as
// well); every answer is counted. Whoever asks for much may send its wishes as a body instead of a query: a URL
// holds 8 kB, and five hundred names to exclude may be 32. Who may ask what is question.ts' to say.

import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Static, TSchema } from 'typebox'
import { ANY_ASK, type Ask } from '../../resolver/ask.ts'
import { NETWORK_SHARE } from '../../resolver/crowd.ts'
import { type Selection, select } from '../../resolver/select.ts'
import type { Api, HttpContext } from './context.ts'
import { openToPages, type Question, readQuestion } from './question.ts'
import { AnyServiceParams, problems } from './schemas.ts'

interface QuestionRoute<W extends TSchema, R extends TSchema> {
  /** The last part of its path, and its operation's id. */
  readonly name: string
  readonly summary: string
  readonly about?: string
  /** What may be wished for, as a query or as a body. */
  readonly wishes: W
  readonly reply: R
}

/** Answers a question at /v1/services/S/NAME: by GET, and by POST where it is too long for a URL. */
export function questionRoute<W extends TSchema, R extends TSchema>(
  app: Api,
  context: HttpContext,
  route: QuestionRoute<W, R>,
  answer: (question: Question, wishes: Static<W>) => { selection: Selection; reply: Static<R> },
): void {
  const url = `/v1/services/:service/${route.name}`
  const respond = (request: FastifyRequest, wishes: unknown, reply: FastifyReply): Static<R> => {
    const { service } = request.params as Static<typeof AnyServiceParams>
    const question = readQuestion(context, request, service, wishes as object)
    if (question.isOwn) {
      openToPages(reply)
      context.core.noteDemand(question.client, question.serving.service.name, true)
    }
    const { selection, reply: body } = answer(question, wishes as Static<W>)
    context.metrics.countAnswer(selection.basis, selection.allDown?.mode ?? null)
    return body
  }
  app.get(url, { schema: { ...schemaOf(route), querystring: route.wishes } }, async (request, reply) =>
    respond(request, request.query, reply),
  )
  const schema = {
    ...schemaOf(route),
    operationId: `${route.name}ByBody`,
    description: `As GET, for what a URL is too short for: the same wishes as one JSON object. ${OWN}`,
    body: route.wishes,
  }
  app.post(url, { schema }, async (request, reply) => respond(request, request.body, reply))
}

const OWN = 'For the caller; for another address (`client`, or `near` where there is one) a token is needed.'

function schemaOf({ name, summary, about, reply }: QuestionRoute<TSchema, TSchema>) {
  return {
    tags: ['answers'],
    operationId: name,
    summary,
    description: about === undefined ? OWN : `${about} ${OWN}`,
    // Open for oneself, a token for others.
    security: [{}, { token: [] }],
    params: AnyServiceParams,
    response: { 200: reply, ...problems('forbidden', 'not-found') },
  }
}

/** By the service's own policy. Where anyone may join, no network fills the list. */
export function chooseBy({ core, rng }: HttpContext, question: Question, asked: Partial<Ask>): Selection {
  const { serving, locality, family } = question
  const networkShare = listShare(serving.service.join)
  return select(core.tables, serving, locality, { ...ANY_ASK, family, networkShare, ...asked }, rng)
}

/** Of a list's places, what one network gets. */
export function listShare(join: 'token' | 'open'): number {
  return join === 'open' ? NETWORK_SHARE : 1
}

/** For lists of nodes to connect to: one that is known to be down is of no use, whatever the service's allDown. */
export function chooseLive(context: HttpContext, question: Question, asked: Partial<Ask>): Selection {
  const selection = chooseBy(context, question, asked)
  return selection.allDown === null ? selection : { ...selection, picks: [], allDown: { mode: 'empty' } }
}
