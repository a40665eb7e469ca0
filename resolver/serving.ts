// Serving: a member's record, with its host's and its service's, becomes what answers read.
//
// Pure: the one place where a member's state, the addresses that may be served and the share of clients
// that it sheds are decided. The tables call it when a record changes; no answer computes any of it.

import { type Address, type Family, familyOf, formatAddress, parseAddress } from './address.ts'
import { networkOf } from './crowd.ts'
import { type Host, type Member, memberKey, type Predicate, type Proof, type Service } from './directory.ts'
import { hashText } from './hash.ts'
import type { MemberIndex } from './member-index.ts'

/** Why a member is not up for choice at all; `live` where it is. */
export type MemberState = 'live' | 'silent' | 'left' | 'down' | 'drained' | 'unverified'

/** A member as answers need it: parsed once, when its record changes. */
export interface ServingMember {
  readonly service: string
  readonly name: string
  /** Row of its host. */
  readonly host: number
  readonly hostName: string
  readonly state: MemberState
  /** Also where `state` says something worse. */
  readonly drained: boolean
  /** Live, with all attributes that the service asks for. */
  readonly isOffered: boolean
  /** Proven addresses as the service's `verify` asks, by family, best first. */
  readonly addresses4: readonly Address[]
  readonly addresses6: readonly Address[]
  readonly port: number | null
  readonly url: string | null
  readonly attributes: Readonly<Record<string, string>>
  readonly weight: number
  readonly capacity: number
  readonly load: number | null
  /** Share of client prefixes (0..1) that it turns away for being full; see the policy `nearest`. */
  readonly shedShare: number
  /** Tier under `failover`: attribute `tier`, default 0. */
  readonly tier: number
  readonly reachable: boolean | null
  /** The network (see crowd.ts) that its host was seen to join from; of one without agent, that of its first address. */
  readonly joinedFrom: number
  /** When its host fell silent or it went down, epoch ms; orders the stale. */
  readonly sinceMs: number
  /** Of its full name: places it in rendezvous hashing. */
  readonly hash: number
}

/** A service with all of its members, whatever their state. */
export interface ServingService {
  readonly service: Service
  readonly members: readonly ServingMember[]
  /** Of those that are offered, where the members are too many to look at each; null: they are not. */
  readonly index: MemberIndex | null
}

/** A service as it stands in the tables. */
export interface TabledService extends ServingService {
  /** Grows when the service or a member of it changes. */
  readonly serial: number
}

/** Whether a member has all attributes asked for. */
export function hasAttributes(member: Pick<Member, 'attributes'>, where: Predicate): boolean {
  for (const key in where) if (member.attributes[key] !== where[key]) return false
  return true
}

/** Whether a member has an address of a family that may be served; null: of any. */
export function hasAddress(member: ServingMember, family: Family | null): boolean {
  if (family === 4) return member.addresses4.length > 0
  if (family === 6) return member.addresses6.length > 0
  return member.addresses4.length + member.addresses6.length > 0
}

/** The state of a member: the first that applies of left, silent, drained, down, unverified; else live. */
export function memberState(member: Member, host: Host | null, hasProvenAddress: boolean): MemberState {
  if (host?.presence === 'left' || member.left) return 'left'
  if (!host || host.presence === 'silent') return 'silent'
  if (member.drained) return 'drained'
  if (member.health === 'down') return 'down'
  return hasProvenAddress ? 'live' : 'unverified'
}

/** Whether a proof (undefined: none) is enough for what the service asks. */
export function isProofEnough(verify: Service['verify'], proof: Proof | undefined): boolean {
  if (verify === 'none') return true
  if (verify === 'seen') return proof !== undefined
  return proof === 'echo' || proof === 'vouched'
}

/** Whether clients may be sent to a URL: at an address only where that is proven; names were allowed by the service. */
function mayLeadTo(url: string, verify: Service['verify'], host: Host | null): boolean {
  const address = parseAddress(new URL(url).hostname.replace(/^\[|\]$/g, ''))
  return address === null || isProofEnough(verify, host?.proofs[formatAddress(address)])
}

/** Where a member's load should settle once it has begun to shed: between the end (80%) and the start (100%). */
const SHED_AIM = 0.9
const SHED_END = 0.8
/** Clients follow a new share only after a TTL (30 s), about 16 reports of load: within that it no more than doubles. */
const SHED_REPORTS = 16

/**
 * The share of client prefixes that a member turns away from now on. Shedding starts when load reaches
 * capacity, with the excess over 90% of it; grows a little with each report that is still as high; is
 * held in between; ends under 80%.
 */
export function nextShedShare(share: number, load: number | null, capacity: number): number {
  if (load === null || load < SHED_END * capacity) return 0
  if (load < capacity) return share
  const excess = 1 - (SHED_AIM * capacity) / load
  return Math.min(1, Math.max(excess, share + excess / SHED_REPORTS))
}

/** `row`: of its host; `service` and `host` null: no such record (yet), then its state says so. */
export function compileMember(
  member: Member,
  service: Service | null,
  host: Host | null,
  row: number,
  shedShare: number,
): ServingMember {
  const verify = service?.verify ?? 'echo'
  const texts = member.addresses.length > 0 ? member.addresses : (host?.addresses ?? [])
  const addresses = texts
    .filter((text) => isProofEnough(verify, host?.proofs[text]))
    .map(parseAddress)
    .filter((address) => address !== null)
  const tier = Number(member.attributes.tier ?? 0)
  const state = memberState(member, host, addresses.length > 0)
  const joined = parseAddress(host?.publicAddress ?? host?.addresses[0] ?? '')
  return {
    service: member.service,
    name: member.name,
    host: row,
    hostName: member.host,
    drained: member.drained,
    state,
    isOffered: state === 'live' && hasAttributes(member, service?.where ?? {}),
    addresses4: addresses.filter((a) => familyOf(a) === 4),
    addresses6: addresses.filter((a) => familyOf(a) === 6),
    port: member.port,
    url: member.url !== null && mayLeadTo(member.url, verify, host) ? member.url : null,
    attributes: member.attributes,
    weight: member.weight,
    capacity: member.capacity,
    load: member.load,
    shedShare,
    tier: Number.isFinite(tier) ? tier : 0,
    reachable: host?.reachable ?? null,
    joinedFrom: joined === null ? -1 : networkOf(joined),
    sinceMs: host?.presenceSinceMs ?? 0,
    hash: hashText(memberKey(member.service, member.name)),
  }
}
