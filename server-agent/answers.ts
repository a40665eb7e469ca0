// What a core answers to `nearest`, `neighbors`, `random` and `bootstrap`, and how to ask for it: for
// overlay nodes, which need peers that are near, and some that are not.
// Only what an overlay node uses is described; a core may say more, and that is let pass.

import { type Static, Type } from 'typebox'
import { Compile } from 'typebox/compile'
import type { Shape } from './core-client.ts'

const numberOrNull = Type.Union([Type.Number(), Type.Null()])

/** A member as an answer names it. */
export const NearMember = Type.Object({
  name: Type.String(),
  host: Type.String(),
  addresses: Type.Array(Type.String()),
  port: Type.Union([Type.Integer(), Type.Null()]),
  url: Type.Union([Type.String(), Type.Null()]),
  attributes: Type.Record(Type.String(), Type.String()),
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

/** What may be asked for; each where it makes sense. */
export interface AskOptions {
  /** How many. */
  k?: number | undefined
  /** bootstrap: how many of each. */
  near?: number | undefined
  random?: number | undefined
  /** Names of members already known. */
  exclude?: readonly string[] | undefined
  /** A ring of distances. */
  minMs?: number | undefined
  maxMs?: number | undefined
  /** Attributes that a member must have. */
  where?: Readonly<Record<string, string>> | undefined
  /** Only members that can be reached from outside (not behind NAT). */
  reachable?: boolean | undefined
  family?: 4 | 6 | undefined
}

/** The call that asks it, and the shape of its reply. */
export function ask<T>(
  service: string,
  question: 'nearest' | 'neighbors' | 'random' | 'bootstrap',
  options: AskOptions,
  reply: Shape<T>,
): { readonly method: 'GET'; readonly path: string; readonly reply: Shape<T> } {
  const query = new URLSearchParams()
  for (const key of ['k', 'near', 'random', 'minMs', 'maxMs', 'family', 'reachable'] as const) {
    if (options[key] !== undefined) query.set(key, String(options[key]))
  }
  if (options.exclude !== undefined && options.exclude.length > 0)
    query.set('exclude', options.exclude.join(','))
  for (const [name, value] of Object.entries(options.where ?? {})) query.append('where', `${name}:${value}`)
  const asked = query.toString()
  const path = `/v1/services/${encodeURIComponent(service)}/${question}${asked === '' ? '' : `?${asked}`}`
  return { method: 'GET', path, reply }
}
