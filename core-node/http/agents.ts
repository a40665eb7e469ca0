// The agents' calls: join, members, heartbeats, measurements, goodbye. Open to anyone's client in any
// language; the shapes stand in server-agent/protocol/messages.ts, the rules in the registry.
//
// Invariant: a route here only carries: the core decides who may do what and what becomes of it.

import { Type } from 'typebox'
import { formatAddress } from '../../resolver/address.ts'
import {
  HeartbeatReply,
  HeartbeatRequest,
  HostReply,
  HostRequest,
  MeasurementReply,
  MeasurementRequest,
  MemberReply,
  MemberRequest,
} from '../../server-agent/protocol/messages.ts'
import { TokenBuckets } from '../../server-agent/protocol/token-bucket.ts'
import type { Core } from '../core.ts'
import { Problem } from '../problem.ts'
import type { Api, HttpContext } from './context.ts'
import { HostLabelParams, HostParams, MemberParams, problems, told } from './schemas.ts'

/** A thousand hosts that tell a thousand bytes each, far above what one agent has to say. */
const HEARTBEAT_BYTES = 1 << 20
const MEASUREMENT_BYTES = 256 << 10
/** What one agent says in a heartbeat, with many members and results. */
const SMALL_BYTES = 16 << 10
/** Heartbeats of unknown hosts from one address: after a restart of many they come, but not for ever. */
const STRANGERS = { perSec: 1, burst: 60, maxKeys: 10_000 }
const SUSPECT_MS = 60_000
const MAX_SUSPECTS = 10_000

const tags = ['agents']
const hostOrToken = [{ token: [] }, { credential: [] }]
const gone = Type.Null({ description: 'Done; nothing is left of it' })

export function agentRoutes(app: Api, { core }: HttpContext): void {
  app.put(
    '/v1/hosts/:host',
    {
      schema: {
        tags,
        operationId: 'putHost',
        summary: 'A host joins, or says again what it is',
        description:
          'The first time with a token (none where the service is open), then with the credential that the first reply gave. Idempotent.',
        security: [...hostOrToken, {}],
        params: HostLabelParams,
        body: HostRequest,
        response: {
          200: told('What the host is now known as; at its first join with its credential', HostReply),
          ...problems('forbidden', 'conflict', 'unavailable'),
        },
      },
    },
    ({ caller, params, body, client }) => core.putHost(caller, params.host, body, client),
  )

  app.delete(
    '/v1/hosts/:host',
    {
      schema: {
        tags,
        operationId: 'deleteHost',
        summary: 'A host leaves with all its members',
        description: 'When this is answered, no answer names them any more.',
        security: hostOrToken,
        params: HostParams,
        response: { 204: gone, ...problems('forbidden', 'not-found', 'unavailable') },
      },
    },
    async ({ caller, params }, reply) => {
      await core.removeHost(caller, params.host)
      return reply.code(204).send(null)
    },
  )

  app.put(
    '/v1/services/:service/members/:member',
    {
      schema: {
        tags,
        operationId: 'putMember',
        summary: 'A host takes part in a service',
        description:
          'With the host’s credential. An administrator may put a member whose host has no agent: nearby hosts check it. Idempotent; a PUT is the whole member.',
        security: hostOrToken,
        params: MemberParams,
        body: MemberRequest,
        response: {
          200: told('The member as it is now', MemberReply),
          ...problems('forbidden', 'not-found', 'conflict', 'unavailable'),
        },
      },
    },
    ({ caller, params, body, client }) => core.putMember(caller, params.service, params.member, body, client),
  )

  app.delete(
    '/v1/services/:service/members/:member',
    {
      schema: {
        tags,
        operationId: 'deleteMember',
        summary: 'A member leaves its service',
        security: hostOrToken,
        params: MemberParams,
        response: { 204: gone, ...problems('forbidden', 'not-found', 'unavailable') },
      },
    },
    async ({ caller, params }, reply) => {
      await core.removeMember(caller, params.service, params.member)
      return reply.code(204).send(null)
    },
  )

  heartbeatRoute(app, core)

  app.post(
    '/v1/measurements',
    {
      bodyLimit: MEASUREMENT_BYTES,
      schema: {
        tags,
        operationId: 'postMeasurements',
        summary: 'RTTs that a host or a client saw itself',
        description:
          'A host names clients’ addresses, with its credential: what its TCP stack or its access log knows of their round trips, no response times. `count` is how many connections `rttMs` was taken from. A client names members of a service, with the ticket of an earlier answer.',
        security: [{ credential: [] }, {}],
        body: MeasurementRequest,
        response: { 200: told('How many counted', MeasurementReply), ...problems('forbidden', 'too-large') },
      },
    },
    ({ caller, body, client }) => core.measure(caller, body, client),
  )
}

function heartbeatRoute(app: Api, core: Core): void {
  const strangers = new TokenBuckets(STRANGERS)
  const suspectUntilMs = new Map<string, number>()
  app.post(
    '/v1/heartbeats',
    {
      bodyLimit: HEARTBEAT_BYTES,
      // A lease hangs on it: hosts behind one address must not take each other's.
      config: { rateLimit: false },
      // Only what is large is refused: a host behind the same address as a flood still says that it is there.
      onRequest: async ({ headers, client }) => {
        if (Number(headers['content-length'] ?? HEARTBEAT_BYTES) <= SMALL_BYTES) return
        if ((suspectUntilMs.get(formatAddress(client.address)) ?? 0) > performance.now()) {
          throw new Problem(
            'too-many',
            'too many heartbeats of hosts that nobody knows came from your address',
          )
        }
      },
      schema: {
        tags,
        operationId: 'postHeartbeats',
        summary: 'Hosts say that they are there and what changed; their orders come back',
        description: 'Each beat carries its host’s credential. Once every quarter of the lease.',
        security: [{}],
        body: HeartbeatRequest,
        response: {
          200: told('One for each beat, in order', HeartbeatReply),
          ...problems('too-large', 'unavailable'),
        },
      },
    },
    async ({ body, client }) => {
      const reply = await core.heartbeat(body)
      const address = formatAddress(client.address)
      const isStranger = reply.beats.every(({ status }) => status === 'unknown')
      if (isStranger && !strangers.take(address, performance.now())) {
        if (suspectUntilMs.size >= MAX_SUSPECTS) suspectUntilMs.clear()
        suspectUntilMs.set(address, performance.now() + SUSPECT_MS)
      }
      return reply
    },
  )
}
