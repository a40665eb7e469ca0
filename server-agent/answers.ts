// What a core answers to `nearest`, `neighbors`, `random`, `bootstrap` and `gateways`, and how to ask for it: for
// overlay nodes, which need peers that are near, and some that are not.
// Only what an overlay node uses is described; a core may say more, and that is let pass. A question that is too
// long for a URL goes as a body.

import { type Static, Type } from 'typebox'
import { Compile } from 'typebox/compile'
import type { Shape } from './core-client.ts'

const numberOrNull = Type.Union([Type.Number(), Type.Null()])

const contact = {
  name: Type.String(),
  host: Type.String(),
  addresses: Type.Array(Type.String()),
  port: Type.Union([Type.Integer(), Type.Null()]),
  url: Type.Union([Type.String(), Type.Null()]),
  attributes: Type.Record(Type.String(), Type.String()),
}

/** A member as an answer names it. */
export const NearMember = Type.Object({
  ...contact,
  /** Whether its host answered from outside; false: behind NAT; null or nothing: not known. */
  reachable: Type.Optional(Type.Union([Type.Boolean(), Type.Null()])),
  /** Predicted round trip from the asker, ms; null: not known. */
  ms: numberOrNull,
  /** How far off that may be, ms; null: any. */
  errorMs: numberOrNull,
  /** What it stands on: member, measured, coordinate, geo or none. */
  basis: Type.String(),
})
export type NearMember = Static<typeof NearMember>

const common = { service: Type.String(), client: Type.String(), basis: Type.String(), ttlSec: Type.Number() }

const MemberList = Type.Object({ ...common, members: Type.Array(NearMember) })
/** Members for the asker, best first (`random`: in no order). */
export type MemberList = Static<typeof MemberList>
export const MemberListShape = Compile(MemberList)

const Bootstrap = Type.Object({ ...common, near: Type.Array(NearMember), random: Type.Array(NearMember) })
/** What a joining node needs to be near and never cut off. */
export type Bootstrap = Static<typeof Bootstrap>
export const BootstrapShape = Compile(Bootstrap)

/** A member, and by which member its host takes part in the other service. */
export const Gateway = Type.Object({
  ...NearMember.properties,
  to: Type.Object({ service: Type.String(), ...contact }),
})
export type Gateway = Static<typeof Gateway>

const GatewayList = Type.Object({ ...common, to: Type.String(), members: Type.Array(Gateway) })
/** Members whose host is in another service as well, nearest first. */
export type GatewayList = Static<typeof GatewayList>
export const GatewayListShape = Compile(GatewayList)

/** What may be asked for; each where it makes sense. */
export interface AskOptions {
  /** How many. */
  k?: number | undefined
  /**
   * bootstrap: how many near members. nearest, neighbors, gateways: the address to measure from instead of this
   * host, which stays left out; the core must let this host see inside (its operatorFrom).
   */
  near?: number | string | undefined
  /** bootstrap: how many random members. */
  random?: number | undefined
  /** neighbors, bootstrap, gateways: what the near ones are ordered by; `latency` unless said. */
  sort?: 'latency' | 'load' | 'both' | undefined
  /** Names of members already known, 500 at most. */
  exclude?: readonly string[] | undefined
  /** A ring of distances: neighbors, gateways. */
  minMs?: number | undefined
  maxMs?: number | undefined
  /** Attributes that a member must have. */
  where?: Readonly<Record<string, string>> | undefined
  /** Only members that can be reached from outside (not behind NAT). */
  reachable?: boolean | undefined
  family?: 4 | 6 | undefined
}

type Question = 'nearest' | 'neighbors' | 'random' | 'bootstrap' | 'gateways'

/** A question as a call. */
export interface Asking<T> {
  readonly method: 'GET' | 'POST'
  readonly path: string
  /** Where the URL would be too long. */
  readonly body?: object
  readonly reply: Shape<T>
}

/** The longest path that is asked by: cores and proxies take 8 kB, some of which is the core's own. */
const MAX_PATH_LENGTH = 7_500

/** The call that asks it, and the shape of its reply. `to`: of gateways. */
export function ask<T>(
  service: string,
  question: Question,
  options: AskOptions,
  reply: Shape<T>,
  to?: string,
): Asking<T> {
  const wishes = wishesOf(options, to)
  const base = `/v1/services/${encodeURIComponent(service)}/${question}`
  const path = base + queryOf(wishes)
  if (path.length <= MAX_PATH_LENGTH) return { method: 'GET', path, reply }
  return { method: 'POST', path: base, body: wishes, reply }
}

type Wishes = Record<string, string | number | boolean | readonly string[]>

/** As the API names them; what was not said is left out. */
function wishesOf({ exclude = [], where = {}, ...options }: AskOptions, to: string | undefined): Wishes {
  const wishes: Wishes = {}
  for (const key of ['k', 'near', 'random', 'sort', 'minMs', 'maxMs', 'family', 'reachable'] as const) {
    const wish = options[key]
    if (wish !== undefined) wishes[key] = wish
  }
  if (to !== undefined) wishes.to = to
  if (exclude.length > 0) wishes.exclude = exclude
  const pairs = Object.entries(where)
  if (pairs.length > 0) wishes.where = pairs.map(([name, value]) => `${name}:${value}`)
  return wishes
}

function queryOf(wishes: Wishes): string {
  const query = Object.entries(wishes).flatMap(([key, wish]) => {
    // Names are labels, so the commas between them are plain.
    if (key === 'exclude') return `exclude=${(wish as readonly string[]).map(encodeURIComponent)}`
    return [wish].flat().map((value) => `${key}=${encodeURIComponent(String(value))}`)
  })
  return query.length === 0 ? '' : `?${query.join('&')}`
}
