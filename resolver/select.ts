// Select: locality + service -> the members chosen, in order, with the reason for each passed over.
// Filter (live, drained, family, predicate, exclude) -> score (predicted RTT + cost of load) -> pick (policy, ties).
//
// Pure: what chance it needs is an argument, and only the policies random and weighted and `spread` use it;
// the rest depends on the client's prefix alone, so that caches may keep answers for the scope it states.

import { type Address, familyOf, IPV4_LOCALITY_BITS, IPV6_LOCALITY_BITS } from './address.ts'
import type { Ask, Asked, Rng, Sort, Weighed } from './ask.ts'
import { type Candidates, candidates, isRing } from './candidates.ts'
import { crowdsOf, pickUncrowded } from './crowd.ts'
import { type AllDown, type Basis, isByDistance, type Policy, type Service } from './directory.ts'
import { membershipOf } from './gateway.ts'
import { hashClient, hashShare, hashText, rendezvousScore } from './hash.ts'
import { type Locality, predict } from './locate.ts'
import { lastResort, sortBy, weightedKey } from './ranking.ts'
import {
  hasAddress,
  hasAttributes,
  type MemberState,
  type ServingMember,
  type ServingService,
} from './serving.ts'
import { spread } from './spread.ts'
import type { Tables } from './tables.ts'

/** Why a member was passed over. */
export type DropReason =
  | Exclude<MemberState, 'live'>
  | 'family' // has no address of the family asked for
  | 'no-port'
  | 'no-url'
  | 'where' // lacks an attribute
  | 'excluded' // the asker named it
  | 'self' // it is the asker
  | 'unreachable' // behind NAT, and reachable=true was asked
  | 'not-in-both' // no gateway: its host is not live in the other service
  | 'too-near' // under minMs
  | 'too-far' // over maxMs
  | 'full' // sheds this client prefix
  | 'crowded' // fit, but others of its network (/16 or /32) have that network's share of the list
  | 'farther' // fit, but others are better and the limit was reached

interface Dropped extends Weighed {
  readonly reason: DropReason
}

export interface Selection {
  /** In order of preference. Empty: nobody fits, or all are down and the service says `empty` or `fallback`. */
  readonly picks: readonly Weighed[]
  /** How many of the first picks are as good as the first (within max(tieMs, 20%)): DNS may name them all. */
  readonly ties: number
  readonly dropped: readonly Dropped[]
  readonly basis: Basis
  /** Bits of the 16-byte form inside which every client gets the same; 0 where the answer ignores location. */
  readonly scopeBits: number
  readonly ttlSec: number
  /** Set where no member is live: what was done about it. */
  readonly allDown: AllDown | null
  /** Members of a large service that were not weighed: by the index they can't be chosen (see candidates.ts). */
  readonly unweighed: number
}

/** An answer that names members known to be down must be asked again soon, seconds. */
const STALE_TTL_SEC = 5
/** A second address is as good as the first when it costs the client at most this share more (the product's word). */
export const TIE_SHARE = 0.2
/** Where the candidates were not enough, so many times as many are looked at. */
export const REACH_GROWTH = 4
/** What being turned away costs at relative load 1, ms: above any RTT, so that the full come after all others, the fullest last. */
const FULL_COST_MS = 20_000
/** Keeps the shares of clients turned away apart from the shares that ties are settled by. */
const SHED_SALT = hashText('shed')

/** Members in order, before the limit, and what that order depends on. */
interface Order {
  readonly ordered: readonly Weighed[]
  readonly full: readonly Weighed[]
  readonly ties: number
  /** Where the client is decided it. */
  readonly byLocation: boolean
  /** A hash of the client's /24 or /48 decided it. */
  readonly byPrefix: boolean
}

/**
 * Chooses members of `serving` for a client: each member is either picked or dropped with a reason. Pure. Of a large
 * service those that its index offers are weighed, more and more of them until there is enough to choose from.
 */
export function select(
  tables: Tables,
  serving: ServingService,
  locality: Locality,
  ask: Ask,
  rng: Rng,
): Selection {
  const policy = ask.policy ?? serving.service.policy
  const asked = { tables, serving: withTies(serving, ask.tieMs), locality, ask, policy }
  const fits = (member: ServingMember) => unfitness(tables, serving.service, ask, member) === null
  for (let reach = 1; ; reach *= REACH_GROWTH) {
    const found = candidates(asked, reach, fits, rng)
    const selection = selectAmong(asked, found, rng)
    if (found.isAll || isEnough(asked, found, selection)) return selection
  }
}

function withTies(serving: ServingService, tieMs: number | null): ServingService {
  return tieMs === null ? serving : { ...serving, service: { ...serving.service, tieMs } }
}

function selectAmong(asked: Asked, { members, isAll }: Candidates, rng: Rng): Selection {
  const { tables, serving, locality, ask, policy } = asked
  const { service } = serving
  const weigh = weigher(tables, locality)
  const inRing = isRing(ask)
  const needsMs = inRing || isByDistance(policy)

  const fit: Weighed[] = []
  const dropped: Dropped[] = []
  let live = serving.index?.offered ?? 0
  let dependsOnAsker = inRing
  for (const member of members) {
    const weighed = needsMs ? weigh(member) : unweighed(member)
    const unfit = unfitness(tables, service, ask, member)
    if (serving.index === null && member.isOffered) live++
    if (unfit === 'self') dependsOnAsker = true
    const reason = unfit ?? (inRing ? outOfRing(ask, weighed.ms) : null)
    if (reason) dropped.push({ ...weighed, reason })
    else fit.push(weighed)
  }
  const others = serving.members.length - members.length
  if (live === 0) return { ...selectAllDown(service, ask, dropped, weigh), unweighed: others }

  const incumbent = incumbentOf(tables, locality, service)
  const order = orderBy(policy, service, fit, isAll, locality, incumbent, ask, rng)
  const { picks: picked, crowded, rest } = pickUncrowded(service, order.ordered, ask.limit, ask.networkShare)
  const picks = picked.map((w) => (needsMs ? w : weigh(w.member)))
  for (const weighed of order.full) dropped.push({ ...weighed, reason: 'full' })
  for (const weighed of crowded) dropped.push({ ...weighed, reason: 'crowded' })
  for (const weighed of rest) dropped.push({ ...weighed, reason: 'farther' })
  return {
    picks,
    ties: crowded.length === 0 ? Math.min(order.ties, picks.length) : countTies(order, picked),
    dropped,
    basis: needsMs ? (picks[0]?.basis ?? 'none') : 'none',
    scopeBits: scopeOf(order, locality, dependsOnAsker),
    ttlSec: service.ttlSec,
    allDown: null,
    unweighed: others,
  }
}

/**
 * Whether more candidates could not change the choice: as many as asked for were found that turn nobody away, and
 * somebody was passed over who is not among those that share the clients by tieMs, whoever of these was chosen.
 */
function isEnough(
  { serving: { service }, ask, policy }: Asked,
  { members }: Candidates,
  { picks, dropped, allDown }: Selection,
): boolean {
  if (allDown !== null) return true
  if (picks.length < ask.limit) return false
  if (policy === 'random') return crowdsOf(service, members, ask.limit, ask.networkShare).length === 0
  if (ask.spread !== null) return isSpread([...picks, ...dropped], picks, service, ask.spread)
  if (service.tieMs === 0) return true
  const passed = dropped.filter(({ reason }) => reason === 'farther')
  const known = [...picks, ...passed].map(({ ms }) => ms).filter((ms) => !Number.isNaN(ms))
  const leastMs = Math.min(...known)
  // Of whom nothing is known (NaN) is farther than all others; where that is everybody, more of them tell no more.
  return passed.some(({ ms }) => !(ms <= leastMs + service.tieMs))
}

/**
 * Whether all who could be equals of the picks were weighed, so that these are shared out among them all: somebody
 * farther was. By load alone anyone could be; where nothing is known of distances, those weighed were drawn by chance.
 */
function isSpread(
  weighed: readonly Weighed[],
  picks: readonly Weighed[],
  { tieMs }: Service,
  sort: Sort,
): boolean {
  if (picks.every(({ ms }) => Number.isNaN(ms))) return true
  if (sort === 'load') return false
  const dearest = picks.reduce((most, { cost }) => Math.max(most, cost), 0)
  return weighed.some(({ ms }) => ms > dearest + tieMs)
}

/** How many of the picks a DNS answer names: those as good as the first, within minAddrs..maxAddrs. */
export function answerCount(selection: Selection, service: Service): number {
  const good = Math.max(selection.ties, service.minAddrs)
  return Math.min(good, service.maxAddrs, selection.picks.length)
}

/** How many of the picked are among the equals that the order begins with. */
function countTies({ ordered, ties }: Order, picked: readonly Weighed[]): number {
  const equals = new Set(ordered.slice(0, ties))
  return picked.filter((w) => equals.has(w)).length
}

// Filter.

/** Why a member can't be chosen whatever its distance; null: it can. */
function unfitness(
  tables: Tables,
  service: Service,
  ask: Ask,
  member: ServingMember,
): Exclude<DropReason, 'farther' | 'crowded' | 'full'> | null {
  if (!hasAttributes(member, service.where) || !hasAttributes(member, ask.where)) return 'where'
  if (member.state !== 'live') return member.state
  const unfit = unsuited(ask, member)
  if (unfit !== null || ask.alsoIn === null) return unfit
  return membershipOf(tables, ask.alsoIn, member.host, ask.family) === null ? 'not-in-both' : null
}

/** Why a member is of no use to this asker, dead or alive. */
function unsuited(
  ask: Ask,
  member: ServingMember,
): 'family' | 'no-port' | 'no-url' | 'excluded' | 'self' | 'unreachable' | null {
  if (ask.selves.has(member.host)) return 'self'
  if (ask.exclude.has(member.name)) return 'excluded'
  if (ask.want === 'url') {
    if (member.url === null) return 'no-url'
  } else if (!hasAddress(member, ask.family)) return 'family'
  if (ask.want === 'port' && member.port === null) return 'no-port'
  return ask.reachableOnly && member.reachable !== true ? 'unreachable' : null
}

/** A distance that is not known can't be shown to be within a ring. */
function outOfRing(ask: Ask, ms: number): 'too-near' | 'too-far' | null {
  if (ms < ask.minMs) return 'too-near'
  return ms <= ask.maxMs ? null : 'too-far'
}

// Score.

function weigher(tables: Tables, locality: Locality): (member: ServingMember) => Weighed {
  return (member) => {
    const { ms, basis, errorMs } = predict(tables, locality, member.host)
    return { member, ms, basis, errorMs, cost: ms }
  }
}

/** For policies that ignore distance, and so don't pay for predicting it for every member. */
function unweighed(member: ServingMember): Weighed {
  return { member, ms: Number.NaN, basis: 'none', errorMs: Number.POSITIVE_INFINITY, cost: Number.NaN }
}

function withLoadCost(weighed: Weighed): Weighed {
  const { load, capacity } = weighed.member
  const ms = Number.isNaN(weighed.ms) ? 0 : weighed.ms
  return { ...weighed, cost: ms + (FULL_COST_MS * (load ?? 0)) / capacity }
}

// Pick.

function orderBy(
  policy: Policy,
  service: Service,
  fit: readonly Weighed[],
  isAll: boolean,
  locality: Locality,
  incumbent: string | null,
  ask: Ask,
  rng: Rng,
): Order {
  const client = hashClient(locality.client)
  // What chance decides is nobody's place and nobody's prefix.
  const byChance = { full: [], byLocation: false, byPrefix: false }
  switch (policy) {
    case 'nearest':
    case 'failover': {
      if (policy === 'nearest' && ask.spread !== null)
        return {
          ...spread(service, fit, isAll, ask.spread, rng),
          byLocation: ask.spread !== 'load',
          byPrefix: false,
        }
      const { open, full, byPrefix } = shed(fit, isAll, client)
      // Of a large service there may be others yet, who are not full.
      if (open.length === 0 && !isAll) return { ...byChance, ordered: [], full, ties: 0 }
      if (open.length === 0) return { ordered: full, full: [], ties: 1, byLocation: fit.length > 1, byPrefix }
      const order =
        policy === 'nearest'
          ? orderByDistance(service, open, client, incumbent)
          : orderByTier(service, open, client, incumbent, ask.limit)
      return { ...order, full, byPrefix: order.byPrefix || byPrefix }
    }
    case 'hash': {
      const ordered = sortBy(fit, ({ member: { hash, weight } }) =>
        weight > 0 ? -rendezvousScore(client, hash, weight) : lastResort(hashShare(client, hash)),
      )
      return { ordered, full: [], ties: 1, byLocation: false, byPrefix: fit.length > 1 }
    }
    // Equally likely, so DNS may name several; by weight, naming a second would blunt the weights.
    case 'random':
      return { ...byChance, ordered: sortBy(fit, rng), ties: fit.length }
    case 'weighted':
      return { ...byChance, ordered: sortBy(fit, (w) => weightedKey(w.member.weight, rng())), ties: 1 }
  }
}

/**
 * Who turns this client away for being full, least relative load first (where all are full, that is
 * everybody); and whether it is the client's prefix that decided.
 */
function shed(
  fit: readonly Weighed[],
  isAll: boolean,
  client: number,
): { open: Weighed[]; full: Weighed[]; byPrefix: boolean } {
  const allFull = isAll && fit.every(({ member }) => member.load !== null && member.load >= member.capacity)
  const isFull = ({ member }: Weighed) =>
    allFull || (member.shedShare > 0 && hashShare(client ^ SHED_SALT, member.hash) < member.shedShare)
  return {
    open: fit.filter((w) => !isFull(w)),
    full: sortBy(fit.filter(isFull).map(withLoadCost), (w) => w.cost),
    byPrefix: fit.length > 1 && !allFull && fit.some((w) => w.member.shedShare > 0),
  }
}

/** The policy `nearest`: sort by cost, share ties out by capacity, keep the incumbent. */
function orderByDistance(
  service: Service,
  open: readonly Weighed[],
  client: number,
  incumbent: string | null,
): Omit<Order, 'full'> {
  const byCost = sortBy(open, (w) => (Number.isNaN(w.cost) ? Number.POSITIVE_INFINITY : w.cost))
  const tied = countWithin(byCost, byCost[0]!.ms, service.tieMs)
  const score = (w: Weighed) => -rendezvousScore(client, w.member.hash, w.member.capacity)
  const shared = [...sortBy(byCost.slice(0, tied), score), ...byCost.slice(tied)]
  const ordered = keepIncumbent(service, shared, incumbent)
  const best = ordered[0]!.ms
  const ties = countWithin(ordered, best, Math.max(service.tieMs, best * TIE_SHARE))
  return { ordered, ties, byLocation: open.length > 1, byPrefix: tied > 1 }
}

/** The policy `failover`: tiers in order, each as `nearest`. Location matters only where a tier within the limit has several. */
function orderByTier(
  service: Service,
  open: readonly Weighed[],
  client: number,
  incumbent: string | null,
  limit: number,
): Omit<Order, 'full'> {
  const tiers = [...new Set(open.map((w) => w.member.tier))].sort((a, b) => a - b)
  const ordered: Weighed[] = []
  let ties = 0
  let byLocation = false
  let byPrefix = false
  for (const tier of tiers) {
    const order = orderByDistance(
      service,
      open.filter((w) => w.member.tier === tier),
      client,
      incumbent,
    )
    if (ordered.length === 0) ties = order.ties
    if (ordered.length < limit) {
      byLocation ||= order.byLocation
      byPrefix ||= order.byPrefix
    }
    // One by one: a million arguments are more than a call takes.
    for (const weighed of order.ordered) ordered.push(weighed)
  }
  return { ordered, ties, byLocation, byPrefix }
}

/** How many of the first are within `withinMs` of `ms`. Where nothing is known (NaN), all of which nothing is known are equals. */
function countWithin(ordered: readonly Weighed[], ms: number, withinMs: number): number {
  const isEqual = (w: Weighed) => (Number.isNaN(ms) ? Number.isNaN(w.ms) : w.ms <= ms + withinMs)
  const end = ordered.findIndex((w) => !isEqual(w))
  return end < 0 ? ordered.length : end
}

/** A locality leaves its member only for one that is nearer by stickyMs and takes at most stickyRatio of its time. */
function keepIncumbent(
  service: Service,
  ordered: readonly Weighed[],
  incumbent: string | null,
): readonly Weighed[] {
  const index = incumbent === null ? -1 : ordered.findIndex((w) => w.member.name === incumbent)
  if (index <= 0) return ordered
  const old = ordered[index]!
  const best = ordered[0]!
  const isClearGain = best.ms <= old.ms - service.stickyMs && best.ms <= old.ms * service.stickyRatio
  if (isClearGain || Number.isNaN(old.ms)) return ordered
  return [old, ...ordered.slice(0, index), ...ordered.slice(index + 1)]
}

function incumbentOf(tables: Tables, locality: Locality, service: Service): string | null {
  return tables.locality(locality.row)?.record.incumbents[service.name] ?? null
}

function scopeOf(order: Order, locality: Locality, dependsOnAsker: boolean): number {
  if (order.byPrefix) return Math.max(grainBits(locality.client), locality.scopeBits)
  return order.byLocation || dependsOnAsker ? locality.scopeBits : 0
}

function grainBits(client: Address): number {
  return familyOf(client) === 4 ? IPV4_LOCALITY_BITS : IPV6_LOCALITY_BITS
}

// When nobody is live.

/**
 * What a service does without a live member. `stale`: those that were last known to be well, first: the
 * ones whose host is still heard, then by when it fell silent. Who left, was drained by the operator or
 * never proved its address is not brought back.
 */
function selectAllDown(
  service: Service,
  ask: Ask,
  unfit: readonly Dropped[],
  weigh: (member: ServingMember) => Weighed,
): Omit<Selection, 'unweighed'> {
  const isStale = (d: Dropped) =>
    (d.reason === 'down' || d.reason === 'silent') && !d.member.drained && unsuited(ask, d.member) === null
  const stalenessMs = ({ member }: Weighed) =>
    member.state === 'down' ? Number.NEGATIVE_INFINITY : -member.sinceMs
  const stale = service.allDown.mode === 'stale' ? sortBy(unfit.filter(isStale), stalenessMs) : []
  const picks = stale.slice(0, ask.limit).map((d) => weigh(d.member))
  const picked = new Set(picks.map((w) => w.member))
  return {
    picks,
    ties: Math.min(1, picks.length),
    dropped: unfit.filter((d) => !picked.has(d.member)),
    basis: 'none',
    scopeBits: 0,
    ttlSec: Math.min(service.ttlSec, STALE_TTL_SEC),
    allDown: service.allDown,
  }
}
