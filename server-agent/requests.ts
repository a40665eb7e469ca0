// What the agent says to a core, built from what it is, and the shapes that it takes replies in.
// Invariant: what is built here is what protocol/messages.ts allows, given options that were checked.
// Sends nothing; localAddressTo alone asks the system something.

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { type Static, Type } from 'typebox'
import { Compile } from 'typebox/compile'
import type { MemberWatch } from './member-watch.ts'
import type { ResolvedMember, ResolvedOptions } from './options.ts'
import {
  type Beat,
  HostReply,
  type HostRequest,
  type JoiningMember,
  MeasurementReply,
  MemberReply,
  type MemberRequest,
} from './protocol/messages.ts'

export const HostReplyShape = Compile(HostReply)
export const MemberReplyShape = Compile(MemberReply)
export const MeasurementReplyShape = Compile(MeasurementReply)

/**
 * A heartbeat's reply with its orders unread: one order that this agent does not know (a newer core's,
 * or a broken one) must not make the heartbeat fail.
 */
const BeatsReply = Type.Object({
  beats: Type.Array(
    Type.Object({
      host: Type.String(),
      status: Type.Union([Type.Literal('ok'), Type.Literal('unknown')]),
      reachable: Type.Optional(Type.Union([Type.Boolean(), Type.Null()])),
      moving: Type.Optional(Type.Boolean()),
      orders: Type.Array(Type.Unknown()),
    }),
  ),
})
export type BeatReply = Static<typeof BeatsReply>['beats'][number]
export const BeatsReplyShape = Compile(BeatsReply)

/** A member with what is known of it on both sides. */
export interface WatchedMember {
  readonly member: ResolvedMember
  readonly watch: MemberWatch
  /** What the core was last told and has answered; null: it does not know the member. */
  told: { readonly health: string; readonly load: number | null } | null
}

/** `listening` is where the echo really listens; `addresses` what the host is to be known by. */
export function hostRequest(
  options: ResolvedOptions,
  listening: { readonly address: string; readonly port: number },
  addresses: readonly string[],
): HostRequest {
  const { echoAdvertise, leaseSec, place } = options
  const echo =
    echoAdvertise !== undefined
      ? { address: echoAdvertise.host, port: echoAdvertise.port }
      : addresses.includes(listening.address)
        ? { address: listening.address, port: listening.port }
        : { port: listening.port }
  return {
    addresses: [...addresses],
    echo,
    ...(leaseSec === undefined ? {} : { leaseSec }),
    ...(place === undefined ? {} : { place }),
  }
}

export function memberRequest(watched: WatchedMember): Omit<MemberRequest, 'host' | 'check'> {
  const { addresses, port, url, attributes, weight, capacity } = watched.member
  return {
    ...(addresses.length === 0 ? {} : { addresses: [...addresses] }),
    ...(port === undefined ? {} : { port }),
    ...(url === undefined ? {} : { url }),
    attributes,
    weight,
    capacity,
    load: watched.watch.load,
    health: watched.watch.health,
  }
}

/** The same for a member that joins with its host. */
export function joiningMember(watched: WatchedMember): JoiningMember {
  const { service, name } = watched.member
  return { service, name, ...memberRequest(watched) }
}

/** Where a member's clients connect to; undefined where its operator did not say. */
export function tcpPortOf({ port, url }: ResolvedMember): number | undefined {
  if (port !== undefined || url === undefined) return port
  const { port: given, protocol } = new URL(url)
  return given !== '' ? Number(given) : protocol === 'https:' ? 443 : 80
}

/** What changed of the members since the core last answered. */
export function changesOf(members: Iterable<WatchedMember>): NonNullable<Beat['members']> {
  const changes: NonNullable<Beat['members']> = []
  for (const { member, watch, told } of members) {
    if (told === null) continue
    const health = watch.health === told.health ? {} : { health: watch.health }
    const load = watch.load === told.load ? {} : { load: watch.load }
    const changed = { ...health, ...load }
    if (Object.keys(changed).length > 0)
      changes.push({ service: member.service, name: member.name, ...changed })
  }
  return changes
}

/** The local address from which this machine reaches `core`, by asking the system's routes: nothing is sent. */
export async function localAddressTo(core: URL): Promise<string> {
  const host = core.hostname.replace(/^\[(.*)\]$/, '$1')
  let failure: unknown
  for (const type of ['udp4', 'udp6'] as const) {
    const socket = createSocket(type)
    try {
      socket.connect(Number(core.port) || 443, host)
      await once(socket, 'connect')
      return socket.address().address
    } catch (error) {
      failure = error
    } finally {
      socket.close()
    }
  }
  throw failure
}
