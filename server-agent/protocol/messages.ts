// The agent protocol, version 1: what an agent and a core say to each other over HTTP, as schemas.
//
// Anyone's client in any language may speak it: JSON bodies, idempotent PUTs, one lease a host, and
// heartbeats that carry all else. Unknown fields are ignored in replies and refused in requests.
// Units are in the names. A host proves itself by the credential that its join gave it.
//
//   PUT    /v1/hosts/H                        HostRequest  -> HostReply       (Bearer token or own credential)
//   PUT    /v1/services/S/members/M           MemberRequest -> MemberReply    (the host's credential)
//   DELETE /v1/services/S/members/M           the member leaves               (the host's credential)
//   DELETE /v1/hosts/H                        the host and all its members leave
//   POST   /v1/heartbeats                     HeartbeatRequest -> HeartbeatReply
//   POST   /v1/measurements                   MeasurementRequest -> MeasurementReply

import { type Static, Type } from 'typebox'

/** One DNS label: services, hosts and members are named so. */
export const LABEL_PATTERN = '^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$'
/** A name of the operator's own in the DNS, lower case, at most 253 characters. */
const Label = Type.String({ pattern: LABEL_PATTERN, description: 'One DNS label in lower case' })
const AddressText = Type.String({ minLength: 2, maxLength: 45, description: 'An IPv4 or IPv6 address' })
const Port = Type.Integer({ minimum: 1, maximum: 65535 })
const closed = { additionalProperties: false }

/** Seconds. Short leases cost heartbeats, long ones keep the dead in answers. */
export const LEASE_SEC = { default: 8, min: 3, max: 300 } as const
/** A lease is this many heartbeats long, so that three lost ones end nothing. */
export const HEARTBEATS_PER_LEASE = 4
/** An RTT above this is an error of measurement, ms (Serf refuses the same). */
export const MAX_RTT_MS = 10_000

export const Attributes = Type.Record(
  Type.String({ pattern: '^[a-z][a-z0-9_.-]{0,31}$' }),
  Type.String({ maxLength: 128 }),
  {
    ...closed,
    maxProperties: 32,
    description: 'Free attributes for `where`; `tier` (0, 1, ...) orders members under the policy failover',
  },
)

const health = Type.Union([Type.Literal('up'), Type.Literal('down'), Type.Literal('unknown')])
const load = Type.Union([Type.Number({ minimum: 0, maximum: 1e15 }), Type.Null()])

const memberFields = {
  addresses: Type.Optional(
    Type.Array(AddressText, { maxItems: 8, description: 'Served addresses; without it: the host’s' }),
  ),
  port: Type.Optional(Port),
  url: Type.Optional(
    Type.String({ maxLength: 2048, pattern: '^https?://', description: 'Base URL for redirects' }),
  ),
  attributes: Type.Optional(Attributes),
  weight: Type.Optional(Type.Number({ minimum: 0, maximum: 1e6, default: 1 })),
  capacity: Type.Optional(Type.Number({ exclusiveMinimum: 0, maximum: 1e15, default: 1 })),
  load: Type.Optional(load),
  health: Type.Optional(health),
}

export const MemberRequest = Type.Object(
  {
    host: Type.Optional(
      Type.String({
        maxLength: 127,
        description:
          'Whose member; without it: the host of the credential; for an administrator: none, nearby hosts check it',
      }),
    ),
    ...memberFields,
    check: Type.Optional(
      Type.String({
        maxLength: 2048,
        pattern: '^(tcp|https?)://',
        description: 'For a member without agent: what nearby hosts check',
      }),
    ),
  },
  closed,
)
export type MemberRequest = Static<typeof MemberRequest>

/** A member that joins with its host, by one message. */
export const JoiningMember = Type.Object(
  {
    service: Label,
    name: Type.Optional(
      Type.String({ pattern: LABEL_PATTERN, description: 'Within the service; without it: the host’s name' }),
    ),
    ...memberFields,
  },
  closed,
)
export type JoiningMember = Static<typeof JoiningMember>
/** More join by a message each: a message is decided in one go, while all else waits. */
export const MAX_JOINING = 250

export const MemberReply = Type.Object({
  service: Label,
  member: Label,
  host: Type.String(),
  state: Type.String({
    description: 'live, or why it is not answered with: unverified, down, drained, silent',
  }),
  hint: Type.Optional(Type.String({ description: 'What to do about that state' })),
})
export type MemberReply = Static<typeof MemberReply>

export const HostRequest = Type.Object(
  {
    addresses: Type.Array(AddressText, {
      minItems: 1,
      maxItems: 8,
      description: 'Its addresses, best first',
    }),
    echo: Type.Optional(
      Type.Object(
        { address: Type.Optional(AddressText), port: Port },
        {
          ...closed,
          description: 'Where its echo answers other hosts; without address: the first of addresses',
        },
      ),
    ),
    leaseSec: Type.Optional(
      Type.Integer({ minimum: LEASE_SEC.min, maximum: LEASE_SEC.max, default: LEASE_SEC.default }),
    ),
    place: Type.Optional(
      Type.Object(
        {
          lat: Type.Number({ minimum: -90, maximum: 90 }),
          lon: Type.Number({ minimum: -180, maximum: 180 }),
        },
        { ...closed, description: 'Where it is, if its operator knows better than geography' },
      ),
    ),
    members: Type.Optional(
      Type.Array(JoiningMember, {
        maxItems: MAX_JOINING,
        description:
          'Members to put with it: all of this message or nothing; those not named stay as they are',
      }),
    ),
  },
  closed,
)
export type HostRequest = Static<typeof HostRequest>

export const HostReply = Type.Object({
  host: Label,
  credential: Type.Optional(
    Type.String({ description: 'Its own secret, told once at its first join; keep it' }),
  ),
  core: Type.String({ description: 'The core that holds its lease' }),
  leaseSec: Type.Integer(),
  heartbeatSec: Type.Number(),
  echoKey: Type.String({
    pattern: '^[0-9a-f]{64}$',
    description: 'Hex, 32 bytes: checks the MACs of echo requests',
  }),
  publicAddress: Type.String({ description: 'The address that this request came from' }),
  publicPort: Type.Integer(),
  reachable: Type.Union([Type.Boolean(), Type.Null()], {
    description: 'Whether its echo answered from outside; null: not known yet',
  }),
  proofs: Type.Record(Type.String(), Type.String(), { description: 'Which addresses are proven, and how' }),
  pulse: Type.Optional(
    Type.Union([Type.Object({ address: Type.String(), port: Port }), Type.Null()], {
      description: 'Where heartbeats of one UDP packet (pulse.ts) are taken; null or absent: nowhere',
    }),
  ),
  members: Type.Optional(
    Type.Array(MemberReply, { description: 'Those that the request named, in its order' }),
  ),
})
export type HostReply = Static<typeof HostReply>

/** What an agent found out by an order. Only orders that were given to this host count; others are dropped and counted. */
export const OrderResult = Type.Object(
  {
    id: Type.String({ maxLength: 64 }),
    rttsMs: Type.Array(Type.Number(), { maxItems: 16, description: 'One for each answer that came' }),
    sent: Type.Integer({ minimum: 0, maximum: 16 }),
    ok: Type.Optional(Type.Boolean({ description: 'For a check: whether the member is well' })),
    detail: Type.Optional(Type.String({ maxLength: 200 })),
  },
  closed,
)
export type OrderResult = Static<typeof OrderResult>

export const Beat = Type.Object(
  {
    host: Label,
    credential: Type.String({ maxLength: 128 }),
    members: Type.Optional(
      Type.Array(
        Type.Object(
          { service: Label, name: Label, health: Type.Optional(health), load: Type.Optional(load) },
          closed,
        ),
        { maxItems: 1000, description: 'Only what changed since the last answered heartbeat' },
      ),
    ),
    results: Type.Optional(Type.Array(OrderResult, { maxItems: 256 })),
  },
  closed,
)
export type Beat = Static<typeof Beat>

export const HeartbeatRequest = Type.Object(
  { beats: Type.Array(Beat, { minItems: 1, maxItems: 1000 }) },
  closed,
)
export type HeartbeatRequest = Static<typeof HeartbeatRequest>

const id = Type.String({ maxLength: 64, description: 'Unguessable; the result names it' })
const hex = (bytes: number) =>
  Type.String({ pattern: `^[0-9a-f]{${bytes * 2}}$`, description: `Hex, ${bytes} bytes` })
const count = Type.Integer({ minimum: 1, maximum: 16 })

/** Send `count` echoes to another host. `prober` and `key` go into the packet as echo.ts says. */
export const EchoOrder = Type.Object({
  kind: Type.Literal('echo'),
  id,
  urgent: Type.Boolean({ description: 'A second opinion: report at once, not with the next heartbeat' }),
  host: Type.String(),
  address: AddressText,
  port: Port,
  prober: hex(16),
  key: hex(32),
  count,
})
/** Measure the way to a client's address by the first method that gets answers. Never to an address that was not ordered. */
export const ClientOrder = Type.Object({
  kind: Type.Literal('client'),
  id,
  address: AddressText,
  methods: Type.Array(
    Type.Union([
      Type.Object({ kind: Type.Literal('dns'), port: Port }),
      Type.Object({ kind: Type.Literal('tcp'), port: Port }),
      Type.Object({ kind: Type.Literal('icmp') }),
    ]),
  ),
  count,
})
/** Check a member that has no agent. */
export const CheckOrder = Type.Object({
  kind: Type.Literal('check'),
  id,
  check: Type.String({ description: 'tcp://HOST:PORT or an http(s) URL' }),
  timeoutMs: Type.Integer(),
})
export const Order = Type.Union([EchoOrder, ClientOrder, CheckOrder])
export type EchoOrder = Static<typeof EchoOrder>
export type ClientOrder = Static<typeof ClientOrder>
export type CheckOrder = Static<typeof CheckOrder>
export type Order = Static<typeof Order>

export const HeartbeatReply = Type.Object({
  beats: Type.Array(
    Type.Object({
      host: Label,
      status: Type.Union([Type.Literal('ok'), Type.Literal('unknown')], {
        description: 'unknown: this core does not know the host or its lease ended; register again',
      }),
      reachable: Type.Optional(Type.Union([Type.Boolean(), Type.Null()])),
      moving: Type.Optional(
        Type.Boolean({
          description: 'true: the lease goes on here for now; register with another core, if one takes you',
        }),
      ),
      orders: Type.Array(Order),
    }),
  ),
})
export type HeartbeatReply = Static<typeof HeartbeatReply>

export const MeasurementRequest = Type.Object(
  {
    ticket: Type.Optional(
      Type.String({
        maxLength: 256,
        description: 'From an earlier answer; without it: a host’s credential as Bearer',
      }),
    ),
    service: Type.Optional(Label),
    rtts: Type.Array(
      Type.Object(
        {
          address: Type.Optional(AddressText),
          member: Type.Optional(Label),
          rttMs: Type.Number(),
          count: Type.Optional(Type.Integer({ minimum: 1, maximum: 1_000_000 })),
        },
        {
          ...closed,
          description:
            'By a host: the RTT to a client’s address. By a client (ticket): the RTT to a member of service',
        },
      ),
      { minItems: 1, maxItems: 1000 },
    ),
  },
  closed,
)
export type MeasurementRequest = Static<typeof MeasurementRequest>
export const MeasurementReply = Type.Object({ accepted: Type.Integer(), refused: Type.Integer() })
export type MeasurementReply = Static<typeof MeasurementReply>

/** RFC 9457: every error of the API. `field` names what was wrong; `do` says what to do next. */
export const ProblemDocument = Type.Object({
  type: Type.String(),
  title: Type.String(),
  status: Type.Integer(),
  detail: Type.String(),
  field: Type.Optional(Type.String()),
})
export type ProblemDocument = Static<typeof ProblemDocument>
