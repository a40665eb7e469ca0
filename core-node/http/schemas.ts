// The schemas of what the API takes and gives beside the agent protocol, as OpenAPI shows them.
//
// Invariant: a reply's shape is told once, here; tests hold real replies against it. Numbers that may be
// unknown are null. Units are in the names. What agents send stands in server-agent/protocol/messages.ts.

import { type Static, type TSchema, Type } from 'typebox'
import { SORTS, type Sort } from '../../resolver/ask.ts'
import type { AllDown as AllDownMode, Basis as BasisName } from '../../resolver/directory.ts'
import type { LocalityStory, Story } from '../../resolver/explain.ts'
import { LABEL_PATTERN, ProblemDocument } from '../../server-agent/protocol/messages.ts'
import type { CoreStatus } from '../core.ts'
import { Problem, type ProblemCode } from '../problem.ts'

const closed = { additionalProperties: false }
const Nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()])
const NumberOrNull = Nullable(Type.Number())
const StringOrNull = Nullable(Type.String())
const Strings = Type.Record(Type.String(), Type.String())

export const Label = Type.String({ pattern: LABEL_PATTERN, description: 'One DNS label in lower case' })
/** Where clients name a service they may use any of its names. */
const ServiceName = Type.String({ minLength: 1, maxLength: 253, description: 'A service’s name or alias' })
const AddressText = Type.String({ minLength: 2, maxLength: 45, description: 'An IPv4 or IPv6 address' })
const Basis = Type.Unsafe<BasisName>({
  type: 'string',
  enum: ['member', 'measured', 'coordinate', 'geo', 'none'],
  description: 'What the answer stands on, best first',
})
const AllDown = Type.Unsafe<AllDownMode['mode'] | null>({
  type: ['string', 'null'],
  enum: ['stale', 'fallback', 'empty', null],
  description: 'No member is live: what was done about it',
})

// Requests

export const AnyServiceParams = Type.Object({ service: ServiceName })
export const ServiceParams = Type.Object({ service: Label })
export const MemberParams = Type.Object({ service: Label, member: Label })
export const HostParams = Type.Object({
  host: Type.String({ minLength: 1, maxLength: 127, description: 'A host’s name' }),
})
export const HostLabelParams = Type.Object({ host: Label })
export const TokenParams = Type.Object({ id: Type.String({ minLength: 1, maxLength: 64 }) })
export const AddressParams = Type.Object({
  address: Type.String({
    minLength: 2,
    maxLength: 45,
    description: 'An IP address, or `me` for the caller’s',
  }),
})

/** Defaults and limits of how many members are asked for. */
export const COUNTS = {
  nearest: { default: 1, max: 100 },
  neighbors: { default: 20, max: 1000 },
  random: { default: 5, max: 1000 },
  bootstrapNear: { default: 16, max: 500 },
  bootstrapRandom: { default: 4, max: 500 },
  gateways: { default: 5, max: 1000 },
} as const
/** Names in one `exclude`: what a node knows already. A URL (8,192 characters) holds some 120 of the longest names, a body all. */
export const MAX_EXCLUDED = 500

const countOf = (count: { default: number; max: number }, minimum: number, description: string) =>
  Type.Optional(Type.Integer({ minimum, maximum: count.max, default: count.default, description }))

const whoAsks = {
  client: Type.Optional(
    Type.String({
      maxLength: 45,
      description: 'Answer as this address would be answered, not the caller: needs a token',
    }),
  ),
  family: Type.Optional(
    Type.Unsafe<4 | 6>({ type: 'integer', enum: [4, 6], description: 'Only members with such an address' }),
  ),
}
const fromWhere = {
  near: Type.Optional(
    Type.String({
      maxLength: 45,
      description:
        'Measure from this address, not from the caller, who stays the one that asks and is left out: needs a token',
    }),
  ),
}
const sort = Type.Optional(
  Type.Unsafe<Sort>({
    type: 'string',
    enum: [...SORTS],
    default: 'latency',
    description:
      'How the near ones are ordered: by predicted ms; by relative load (load/capacity; half where none is told); by both: ms and the wait that the load makes, 20 ms where half full, 180 where 90% full. By load those within the service’s tieMs are shared out by chance, so that not all who ask are sent to the same',
  }),
)
const filters = {
  exclude: Type.Optional(
    Type.Array(Type.String({ maxLength: 32_000 }), {
      description: `Members not wanted: names, comma-separated or repeated, ${MAX_EXCLUDED} at most`,
    }),
  ),
  where: Type.Optional(
    Type.Array(Type.String({ maxLength: 161 }), {
      maxItems: 32,
      description:
        '`attribute:value` that members must have, such as `region:eu`; repeat for several attributes',
    }),
  ),
  reachable: Type.Optional(
    Type.Boolean({
      default: false,
      description: 'Only members whose host answered from outside: not those behind NAT, nor those untried',
    }),
  ),
}
const rings = {
  minMs: Type.Optional(
    Type.Number({ minimum: 0, description: 'Only members predicted to be at least so far off, ms' }),
  ),
  maxMs: Type.Optional(
    Type.Number({
      minimum: 0,
      description: 'Only members predicted to be at most so far off, ms: none of which nothing is known',
    }),
  ),
}

export const NearestQuery = Type.Object(
  { k: countOf(COUNTS.nearest, 1, 'How many members'), ...whoAsks, ...fromWhere, ...filters },
  closed,
)
export const NeighborsQuery = Type.Object(
  {
    k: countOf(COUNTS.neighbors, 1, 'How many members'),
    sort,
    ...whoAsks,
    ...fromWhere,
    ...filters,
    ...rings,
  },
  closed,
)
export const RandomQuery = Type.Object(
  { k: countOf(COUNTS.random, 1, 'How many members'), ...whoAsks, ...filters },
  closed,
)
export const BootstrapQuery = Type.Object(
  {
    near: countOf(COUNTS.bootstrapNear, 0, 'How many near members'),
    random: countOf(COUNTS.bootstrapRandom, 0, 'How many random members, none of them among the near'),
    sort,
    ...whoAsks,
    ...filters,
  },
  closed,
)
export const GatewaysQuery = Type.Object(
  {
    to: { ...ServiceName, description: 'The other service, by its name or alias' },
    k: countOf(COUNTS.gateways, 1, 'How many members'),
    sort,
    ...whoAsks,
    ...fromWhere,
    ...filters,
    ...rings,
  },
  closed,
)
export const ExplainQuery = Type.Object(
  {
    client: Type.Optional(
      Type.String({ maxLength: 45, description: 'Whose decision; without it: the caller’s' }),
    ),
    k: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: COUNTS.nearest.max,
        description: 'Decide as for `nearest` with this k; without it: as DNS answers',
      }),
    ),
    family: whoAsks.family,
  },
  closed,
)
export const LocalitiesRequest = Type.Object(
  {
    source: Type.String({
      minLength: 1,
      maxLength: 200,
      description: 'Where they come from, such as a file’s name',
    }),
    entries: Type.Array(
      Type.Object(
        {
          prefix: Type.String({ maxLength: 49, description: '192.0.2.0/24 or 2001:db8::/48' }),
          lat: Type.Number({ minimum: -90, maximum: 90 }),
          lon: Type.Number({ minimum: -180, maximum: 180 }),
          accuracyKm: Type.Optional(Type.Number({ minimum: 0, maximum: 20_038 })),
          asn: Type.Optional(
            Type.Integer({
              minimum: 1,
              maximum: 4_294_967_295,
              description: 'The network that announces it',
            }),
          ),
          country: Type.Optional(Type.String({ pattern: '^[A-Z]{2}$', description: 'ISO 3166-1' })),
        },
        closed,
      ),
      { minItems: 1, maxItems: 10_000 },
    ),
  },
  closed,
)

// Replies

const contact = {
  name: Label,
  host: Type.String(),
  addresses: Type.Array(AddressText),
  port: NumberOrNull,
  url: StringOrNull,
  attributes: Strings,
}
const AnsweredMember = Type.Object({
  ...contact,
  reachable: {
    ...Nullable(Type.Boolean()),
    description: 'Whether its host answered from outside; false: behind NAT; null: not tried yet',
  },
  ms: { ...NumberOrNull, description: 'Predicted round trip time; null: nothing is known' },
  errorMs: { ...NumberOrNull, description: 'How far off it may be' },
  basis: Basis,
})
const answered = {
  service: Label,
  client: AddressText,
  basis: Basis,
  scope: Type.String({ description: 'The largest prefix around the client that gets this same answer' }),
  errorMs: NumberOrNull,
  ttlSec: Type.Integer(),
  allDown: AllDown,
  fallback: Type.Optional(
    Type.Object(
      { addresses: Type.Array(AddressText), url: StringOrNull },
      { description: 'Where the operator sends clients while all members are down' },
    ),
  ),
  ticket: Type.String({
    description: 'Leave to report RTTs that this client sees; see POST /v1/measurements',
  }),
}
const measuredFrom = {
  near: Type.Optional({ ...AddressText, description: 'The point measured from, where it was asked for' }),
}
export const NearestReply = Type.Object({
  ...answered,
  ...measuredFrom,
  members: Type.Array(AnsweredMember),
})
/** A member, and by which member its host takes part in the other service. */
const Gateway = Type.Object({
  ...AnsweredMember.properties,
  to: Type.Object({ service: Label, ...contact }, { description: 'Its host in the other service' }),
})
export const GatewaysReply = Type.Object({
  ...answered,
  ...measuredFrom,
  to: { ...Label, description: 'The other service' },
  members: Type.Array(Gateway),
})
export const BootstrapReply = Type.Object({
  ...answered,
  near: Type.Array(AnsweredMember),
  random: Type.Array(AnsweredMember),
})
export type AnsweredMember = Static<typeof AnsweredMember>
export type Gateway = Static<typeof Gateway>
export type GatewaysReply = Static<typeof GatewaysReply>
export type NearestReply = Static<typeof NearestReply>
export type BootstrapReply = Static<typeof BootstrapReply>

const Place = Type.Object({ lat: Type.Number(), lon: Type.Number(), accuracyKm: Type.Number() })
const Coordinate = Type.Object({
  vec: Type.Array(Type.Number()),
  heightMs: Type.Number(),
  adjustmentMs: Type.Number(),
  error: Type.Number(),
})
const Evidence = Type.Object({
  host: Type.String(),
  rttMs: Type.Number(),
  count: Type.Integer(),
  ageSec: Type.Number(),
  kind: Type.String(),
})
export const LocalityReply = Type.Unsafe<LocalityStory>(
  Type.Object({
    client: AddressText,
    prefix: Type.String(),
    basis: Basis,
    errorMs: NumberOrNull,
    place: Nullable(Place),
    coordinate: Nullable(Coordinate),
    kin: Nullable(Type.String({ description: 'Host of its own network beside which it is taken to be' })),
    evidence: Type.Array(Evidence),
    source: StringOrNull,
  }),
)

export const ExplainReply = Type.Unsafe<Story>(
  Type.Object({
    service: Label,
    policy: Type.String(),
    client: AddressText,
    locality: LocalityReply,
    allDown: AllDown,
    members: Type.Array(
      Type.Object({
        name: Label,
        host: Type.String(),
        state: Type.String(),
        ms: NumberOrNull,
        errorMs: NumberOrNull,
        basis: Basis,
        cost: NumberOrNull,
        rank: Nullable(Type.Integer({ minimum: 1 })),
        reason: StringOrNull,
        why: Type.String(),
      }),
    ),
    others: Type.Integer({
      description: 'Members not told of: of a large service, those that its index passed over',
    }),
    wouldProbe: Type.Array(Type.String()),
  }),
)

export const ServiceReply = Type.Object({
  name: Label,
  policy: Type.String(),
  ttl: Type.Integer(),
  minAddrs: Type.Integer(),
  maxAddrs: Type.Integer(),
  tieMs: Type.Number(),
  stickyMs: Type.Number(),
  stickyRatio: Type.Number(),
  where: Strings,
  aliases: Type.Array(Type.String()),
  urlHosts: Type.Array(Type.String()),
  join: Type.String(),
  maxPerPrefix: Type.Integer(),
  verify: Type.String(),
  allDown: Type.String(),
  fallbackAddresses: Type.Optional(Type.Array(AddressText)),
  fallbackUrl: Type.Optional(Type.String()),
  members: Type.Object({ live: Type.Integer(), total: Type.Integer() }),
})
export type ServiceReply = Static<typeof ServiceReply>
export const ServicesReply = Type.Object({ services: Type.Array(ServiceReply) })

export const MemberView = Type.Object({
  service: Label,
  name: Label,
  host: Type.String(),
  state: Type.String(),
  hint: Type.Optional(Type.String()),
  addresses: Type.Array(AddressText),
  port: NumberOrNull,
  url: StringOrNull,
  attributes: Strings,
  weight: Type.Number(),
  capacity: Type.Number(),
  load: NumberOrNull,
  health: Type.String(),
  drained: Type.Boolean(),
  sinceMs: NumberOrNull,
  reachable: Nullable(Type.Boolean()),
})
export type MemberView = Static<typeof MemberView>
/** Of a list in the order of names. */
export const PageQuery = Type.Object(
  {
    after: Type.Optional(
      Type.String({ maxLength: 127, description: 'Go on after this name: what `next` said' }),
    ),
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000, default: 1000 })),
  },
  closed,
)
const next = Nullable(Type.String({ description: 'The last name of this page; null: there are no more' }))
export const MembersReply = Type.Object({ members: Type.Array(MemberView), next })

export const HostView = Type.Object({
  name: Type.String(),
  agent: Type.Boolean(),
  addresses: Type.Array(AddressText),
  proofs: Strings,
  echo: Nullable(Type.Object({ address: AddressText, port: Type.Integer() })),
  publicAddress: StringOrNull,
  publicPort: NumberOrNull,
  reachable: Nullable(Type.Boolean()),
  home: Type.String(),
  leaseSec: Type.Integer(),
  presence: Type.String(),
  presenceSinceMs: Type.Number(),
  presenceBy: Type.Optional(Type.String({ description: 'The core by whose clock that is' })),
  coordinate: Nullable(Coordinate),
  place: Nullable(Place),
  tokenId: StringOrNull,
  members: Type.Array(Type.String({ description: 'SERVICE/NAME' })),
})
export type HostView = Static<typeof HostView>
export const HostsReply = Type.Object({ hosts: Type.Array(HostView), next })

const tokenFields = {
  id: Type.String(),
  admin: Type.Boolean(),
  services: Type.Array(Label),
  note: Type.String(),
  createdMs: Type.Number(),
}
export const TokenView = Type.Object(tokenFields)
export type TokenView = Static<typeof TokenView>
export const NewTokenReply = Type.Object({
  ...tokenFields,
  secret: Type.String({ description: 'Told this once; only its hash is kept' }),
})
export const TokensReply = Type.Object({ tokens: Type.Array(TokenView) })
export const ImportReply = Type.Object({ imported: Type.Integer() })

const ClusterStatus = Type.Object(
  {
    connected: Type.Boolean({ description: 'The store is in reach, and what other cores changed is known' }),
    behindSec: Type.Number({ description: 'For how long it has not been so' }),
    lease: Type.Boolean({ description: 'This core’s own lease in the store is held' }),
    cores: Type.Array(Type.String(), { description: 'Those that hold one' }),
    commitsTold: Type.Integer(),
    commitsHeard: Type.Integer(),
    conflicts: Type.Integer({ description: 'Commits that another core was first with; decided anew' }),
    unstored: Type.Integer({ description: 'Records that are answered with and not stored yet' }),
    orphans: Type.Integer({ description: 'Hosts of cores that are gone, judged here' }),
    storeBytes: Type.Union([Type.Integer(), Type.Null()], {
      description: 'What the store takes on its disk',
    }),
  },
  { description: 'How it stands with the other cores; null: no other shares the store' },
)
export const StatusReply = Type.Unsafe<CoreStatus>(
  Type.Object({
    name: Label,
    version: Type.String(),
    zone: Type.String(),
    uptimeSec: Type.Number(),
    ready: Type.Boolean(),
    degraded: Type.Array(Type.String()),
    services: Type.Integer(),
    hosts: Type.Object({ live: Type.Integer(), silent: Type.Integer(), left: Type.Integer() }),
    members: Type.Object({ live: Type.Integer(), other: Type.Integer() }),
    localities: Type.Integer(),
    places: Type.Integer(),
    store: Type.String(),
    cluster: Type.Union([ClusterStatus, Type.Null()]),
    geography: Type.String(),
    counters: Type.Record(Type.String(), Type.Number()),
  }),
)
export const AliveReply = Type.Object({ status: Type.Literal('ok') })
export const ReadyReply = Type.Object({ ready: Type.Boolean(), degraded: Type.Array(Type.String()) })

/** A schema with what OpenAPI says of a reply by it. */
export function told<T extends TSchema>(description: string, schema: T): T {
  return { ...schema, description }
}

/** For a route's `response`: the errors it may answer with, beside those that any route may. */
export function problems(...codes: ProblemCode[]): Record<number, object> {
  const all: ProblemCode[] = ['bad-request', 'unauthorized', 'too-many', 'internal', ...codes]
  return Object.fromEntries(
    all.map((code) => {
      const { status, title } = new Problem(code, '')
      return [
        status,
        { description: title, content: { 'application/problem+json': { schema: ProblemDocument } } },
      ]
    }),
  )
}
