// The operators' calls: services, members, hosts, tokens, imported localities, the core's own state.
//
// Invariant: reading needs a token or an operator's address, writing what the core's rules ask for;
// no secret is ever shown again.

import { Type } from 'typebox'
import { parsePrefix } from '../../resolver/address.ts'
import { CITY_ACCURACY_KM } from '../places/gazetteer.ts'
import { Problem } from '../problem.ts'
import { requireAdmin } from '../registry/caller.ts'
import { knownHost, knownMember, knownService } from '../registry/known.ts'
import { ServiceRequest } from '../registry/services.ts'
import { TokenRequest } from '../registry/tokens.ts'
import { type Api, type HttpContext, requireInside } from './context.ts'
import { pageOf } from './page.ts'
import {
  HostParams,
  HostsReply,
  HostView,
  ImportReply,
  LocalitiesRequest,
  MemberParams,
  MembersReply,
  MemberView,
  NewTokenReply,
  PageQuery,
  problems,
  ServiceParams,
  ServiceReply,
  ServicesReply,
  StatusReply,
  TokenParams,
  TokensReply,
  told,
} from './schemas.ts'
import { viewHost, viewMember, viewService, viewToken } from './views.ts'

/** Ten thousand localities with their prefixes and numbers written out in full. */
const IMPORT_BYTES = 2 << 20

const tags = ['operators']
const admin = [{ token: [] }]
const inside = [{ token: [] }, {}]
const gone = Type.Null({ description: 'Done; nothing is left of it' })

export function operatorRoutes(app: Api, context: HttpContext): void {
  serviceRoutes(app, context)
  memberRoutes(app, context)
  hostRoutes(app, context)
  tokenRoutes(app, context)
  coreRoutes(app, context)
}

function serviceRoutes(app: Api, { core }: HttpContext): void {
  app.get(
    '/v1/services',
    {
      schema: {
        tags,
        operationId: 'listServices',
        summary: 'All services',
        security: admin,
        response: { 200: told('All services', ServicesReply), ...problems('forbidden') },
      },
    },
    async (request) => {
      requireAdmin(request.caller)
      return {
        services: byName(core.directory.services.values()).map((service) => viewService(core, service)),
      }
    },
  )

  app.get(
    '/v1/services/:service',
    {
      schema: {
        tags,
        operationId: 'getService',
        summary: 'One service',
        security: admin,
        params: ServiceParams,
        response: { 200: told('The service', ServiceReply), ...problems('forbidden', 'not-found') },
      },
    },
    async (request) => {
      requireAdmin(request.caller)
      return viewService(core, knownService(core.directory, request.params.service))
    },
  )

  app.put(
    '/v1/services/:service',
    {
      schema: {
        tags,
        operationId: 'putService',
        summary: 'Makes or replaces a service',
        description: 'A PUT is the whole service: keys left out get their defaults. Its members stay.',
        security: admin,
        params: ServiceParams,
        body: ServiceRequest,
        response: {
          200: told('The service', ServiceReply),
          201: told('The service; it is new', ServiceReply),
          ...problems('forbidden', 'conflict', 'unavailable'),
        },
      },
    },
    async ({ caller, params, body }, reply) => {
      const { service, created } = await core.putService(caller, params.service, body)
      return reply.code(created ? 201 : 200).send(viewService(core, service))
    },
  )

  app.delete(
    '/v1/services/:service',
    {
      schema: {
        tags,
        operationId: 'deleteService',
        summary: 'Removes a service with its members',
        security: admin,
        params: ServiceParams,
        response: { 204: gone, ...problems('forbidden', 'not-found', 'unavailable') },
      },
    },
    async ({ caller, params }, reply) => {
      await core.removeService(caller, params.service)
      return reply.code(204).send(null)
    },
  )
}

function memberRoutes(app: Api, { core, config }: HttpContext): void {
  app.get(
    '/v1/services/:service/members',
    {
      schema: {
        tags,
        operationId: 'listMembers',
        summary: 'The members of a service, whatever their state, in the order of their names',
        security: inside,
        params: ServiceParams,
        querystring: PageQuery,
        response: { 200: told('A page of members', MembersReply), ...problems('forbidden', 'not-found') },
      },
    },
    async (request) => {
      requireInside(config, request, 'list members')
      const { name } = knownService(core.directory, request.params.service)
      const { page, next } = pageOf(core.tables.service(name)?.members ?? [], request.query)
      const members = page.map((member) => viewMember(core, knownMember(core.directory, name, member.name)))
      return { members, next }
    },
  )

  app.get(
    '/v1/services/:service/members/:member',
    {
      schema: {
        tags,
        operationId: 'getMember',
        summary: 'One member',
        security: inside,
        params: MemberParams,
        response: { 200: told('The member as it is now', MemberView), ...problems('forbidden', 'not-found') },
      },
    },
    async (request) => {
      requireInside(config, request, 'see a member')
      const { service, member } = request.params
      return viewMember(core, knownMember(core.directory, service, member))
    },
  )

  for (const method of ['PUT', 'DELETE'] as const) {
    const drained = method === 'PUT'
    app.route({
      method,
      url: '/v1/services/:service/members/:member/drain',
      schema: {
        tags,
        operationId: drained ? 'drainMember' : 'undrainMember',
        summary: drained
          ? 'Takes a member out of answers; it stays alive'
          : 'Puts a drained member back into answers',
        security: admin,
        params: MemberParams,
        response: {
          200: told('The member as it is now', MemberView),
          ...problems('forbidden', 'not-found', 'unavailable'),
        },
      },
      handler: async ({ caller, params }) =>
        viewMember(core, await core.setDrained(caller, params.service, params.member, drained)),
    })
  }
}

function hostRoutes(app: Api, { core, config }: HttpContext): void {
  app.get(
    '/v1/hosts',
    {
      schema: {
        tags,
        operationId: 'listHosts',
        summary: 'The hosts, in the order of their names',
        security: inside,
        querystring: PageQuery,
        response: { 200: told('A page of hosts', HostsReply), ...problems('forbidden') },
      },
    },
    async (request) => {
      requireInside(config, request, 'list hosts')
      const { page, next } = pageOf(core.directory.hosts.values(), request.query)
      return { hosts: page.map((host) => viewHost(core, host)), next }
    },
  )

  app.get(
    '/v1/hosts/:host',
    {
      schema: {
        tags,
        operationId: 'getHost',
        summary: 'One host',
        security: inside,
        params: HostParams,
        response: { 200: told('The host', HostView), ...problems('forbidden', 'not-found') },
      },
    },
    async (request) => {
      requireInside(config, request, 'see a host')
      return viewHost(core, knownHost(core.directory, request.params.host))
    },
  )
}

function tokenRoutes(app: Api, { core }: HttpContext): void {
  app.post(
    '/v1/tokens',
    {
      schema: {
        tags,
        operationId: 'createToken',
        summary: 'Makes a token, for agents of some services or for administration',
        security: admin,
        body: TokenRequest,
        response: {
          201: told('The token with its secret, told this once', NewTokenReply),
          ...problems('forbidden', 'not-found', 'unavailable'),
        },
      },
    },
    async ({ caller, body }, reply) => {
      const { token, secret } = await core.createToken(caller, body)
      return reply.code(201).send({ ...viewToken(token), secret })
    },
  )

  app.get(
    '/v1/tokens',
    {
      schema: {
        tags,
        operationId: 'listTokens',
        summary: 'All tokens, without their secrets',
        security: admin,
        response: { 200: told('All tokens', TokensReply), ...problems('forbidden') },
      },
    },
    async ({ caller }) => {
      requireAdmin(caller)
      return { tokens: [...core.directory.tokens.values()].map(viewToken) }
    },
  )

  app.delete(
    '/v1/tokens/:id',
    {
      schema: {
        tags,
        operationId: 'revokeToken',
        summary: 'Takes a token back',
        description: 'Hosts that joined by it stay: they have their own credentials.',
        security: admin,
        params: TokenParams,
        response: { 204: gone, ...problems('forbidden', 'not-found', 'conflict', 'unavailable') },
      },
    },
    async ({ caller, params }, reply) => {
      await core.revokeToken(caller, params.id)
      return reply.code(204).send(null)
    },
  )
}

function coreRoutes(app: Api, { core, config }: HttpContext): void {
  app.post(
    '/v1/localities',
    {
      bodyLimit: IMPORT_BYTES,
      schema: {
        tags,
        operationId: 'importLocalities',
        summary: 'Places of client prefixes, from a geofeed or a map of your own',
        description: 'All entries are taken or none. What was measured of a prefix stays and outranks them.',
        security: admin,
        body: LocalitiesRequest,
        response: {
          200: told('How many were taken', ImportReply),
          ...problems('forbidden', 'too-large', 'unavailable'),
        },
      },
    },
    ({ caller, body }) => {
      const { source } = body
      const entries = body.entries.map((entry, i) => {
        const { prefix: text, lat, lon, accuracyKm = CITY_ACCURACY_KM, asn = null, country = null } = entry
        const prefix = parsePrefix(text)
        if (prefix !== null) {
          return { prefix, fact: { place: { lat, lon, accuracyKm }, asn, country, source } }
        }
        throw new Problem('bad-request', `'${text}' is not a prefix without host bits`, `entries.${i}.prefix`)
      })
      return core.importLocalities(caller, entries)
    },
  )

  app.get(
    '/v1/status',
    {
      schema: {
        tags,
        operationId: 'getStatus',
        summary: 'How this core is',
        security: inside,
        response: { 200: told('How this core is', StatusReply), ...problems('forbidden') },
      },
    },
    async (request) => {
      requireInside(config, request, 'see the status')
      return core.status()
    },
  )
}

function byName<T extends { readonly name: string }>(records: Iterable<T>): T[] {
  return [...records].sort((a, b) => (a.name < b.name ? -1 : 1))
}
