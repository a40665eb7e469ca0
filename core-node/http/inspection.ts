// For machines that look after a core: is it alive, is it ready, its metrics, its OpenAPI document.
//
// Invariant: /healthz says only that the process answers; /readyz says whether clients should be sent
// here. What works in part (storage away) is told and still ready: answers come from memory; who has other
// cores to send clients to asks for more than that (?strict).

import { Type } from 'typebox'
import { Problem } from '../problem.ts'
import { type Api, type HttpContext, requireInside } from './context.ts'
import { AliveReply, problems, ReadyReply, told } from './schemas.ts'

const tags = ['inspection']
const ReadyQuery = Type.Object(
  { strict: Type.Optional(Type.String({ description: 'Named at all: not ready where it is degraded' })) },
  { additionalProperties: false },
)

export function inspectionRoutes(app: Api, context: HttpContext): void {
  healthRoutes(app, context)
  metricsRoute(app, context)
  openapiRoute(app)
}

function healthRoutes(app: Api, { core }: HttpContext): void {
  app.get(
    '/healthz',
    {
      config: { rateLimit: false },
      schema: {
        tags,
        operationId: 'alive',
        summary: 'This process answers',
        security: [{}],
        response: { 200: told('It answers', AliveReply), ...problems() },
      },
    },
    async () => ({ status: 'ok' as const }),
  )

  app.get(
    '/readyz',
    {
      config: { rateLimit: false },
      schema: {
        tags,
        operationId: 'ready',
        summary: 'State is loaded and this core is not draining; with what works only in part',
        description:
          'With `?strict`, what works only in part is not ready either: for who has other cores to send clients to.',
        security: [{}],
        querystring: ReadyQuery,
        response: {
          200: told('Ready; `degraded` says what works only in part', ReadyReply),
          ...problems('unavailable'),
        },
      },
    },
    async ({ query }) => {
      const { ready, degraded } = core.readiness()
      const isStrict = query.strict !== undefined && query.strict !== 'false'
      if (!ready || (isStrict && degraded.length > 0))
        throw new Problem('unavailable', degraded.join('; ') || 'this core is not ready yet')
      return { ready, degraded: [...degraded] }
    },
  )
}

function metricsRoute(app: Api, { config, metrics }: HttpContext): void {
  app.get(
    '/metrics',
    {
      schema: {
        tags,
        operationId: 'metrics',
        summary: 'Prometheus metrics, text format 0.0.4',
        security: [{ token: [] }, {}],
        produces: ['text/plain'],
        response: { 200: Type.String({ description: 'Prometheus text format' }), ...problems('forbidden') },
      },
    },
    async (request, reply) => {
      requireInside(config, request, 'read metrics')
      return reply.type(metrics.contentType).send(await metrics.render())
    },
  )
}

function openapiRoute(app: Api): void {
  app.get(
    '/openapi.json',
    {
      schema: {
        tags,
        operationId: 'openapi',
        summary: 'This document',
        security: [{}],
        response: { 200: Type.Unknown({ description: 'OpenAPI 3.1' }), ...problems() },
      },
    },
    async () => app.swagger(),
  )
}
