// Explain: why a client gets what it gets, for people: JSON, and lines short enough for TXT strings.
//
// Made from the same Locality and Selection that the answer was made from, so it can't tell another
// story. Numbers that are not known are null here, since JSON has no NaN.

import { formatAddress, formatPrefix, prefixOf } from './address.ts'
import type { Weighed } from './ask.ts'
import type { Basis, Coordinate, Evidence, Place, Policy } from './directory.ts'
import type { Locality } from './locate.ts'
import type { DropReason, Selection } from './select.ts'
import type { MemberState, ServingService } from './serving.ts'
import type { Tables } from './tables.ts'

export interface LocalityStory {
  readonly client: string
  /** Everyone in it is taken to be where the client is. */
  readonly prefix: string
  readonly basis: Basis
  readonly errorMs: number | null
  readonly place: Place | null
  readonly coordinate: Coordinate | null
  /** The host of its own network beside which it is taken to be, since nobody measured it; null: none. */
  readonly kin: string | null
  readonly evidence: readonly {
    readonly host: string
    readonly rttMs: number
    readonly count: number
    readonly ageSec: number
    readonly kind: Evidence['kind']
  }[]
  /** What the place was learnt from. */
  readonly source: string | null
}

export interface MemberStory {
  readonly name: string
  readonly host: string
  readonly state: MemberState
  readonly ms: number | null
  readonly errorMs: number | null
  readonly basis: Basis
  readonly cost: number | null
  /** 1 for the first pick; null: passed over. */
  readonly rank: number | null
  readonly reason: DropReason | null
  readonly why: string
}

export interface Story {
  readonly service: string
  readonly policy: Policy
  readonly client: string
  readonly locality: LocalityStory
  readonly allDown: 'stale' | 'fallback' | 'empty' | null
  /** Picks in order, then those passed over. */
  readonly members: readonly MemberStory[]
  /** Members that are not told of: those of a large service that could not be chosen by its index, and all beyond MAX_TOLD. */
  readonly others: number
  /** Hosts that would be asked next to measure the way to this client. */
  readonly wouldProbe: readonly string[]
}

/** Members that one story tells of. */
const MAX_TOLD = 1000

/** The whole decision. `wouldProbe`: as the planner says; `policy`: the one asked for, null: the service's own. */
export function explain(
  tables: Tables,
  serving: ServingService,
  locality: Locality,
  selection: Selection,
  nowMs: number,
  wouldProbe: readonly string[] = [],
  policy: Policy | null = null,
): Story {
  const picked = selection.picks.map((pick, i) => tellMember(pick, i + 1, null, selection))
  const passedOver = selection.dropped.map((drop) => tellMember(drop, null, drop.reason, selection))
  const told = [...picked, ...passedOver].slice(0, MAX_TOLD)
  return {
    service: serving.service.name,
    policy: policy ?? serving.service.policy,
    client: formatAddress(locality.client),
    locality: explainLocality(tables, locality, nowMs),
    allDown: selection.allDown?.mode ?? null,
    members: told,
    others: selection.unweighed + picked.length + passedOver.length - told.length,
    wouldProbe,
  }
}

/** What is known of where a client is. */
export function explainLocality(tables: Tables, locality: Locality, nowMs: number): LocalityStory {
  const record = tables.locality(locality.row)?.record
  const fact = tables.places.fact(tables.places.find(locality.client).value)
  const { place } = locality
  return {
    client: formatAddress(locality.client),
    prefix: formatPrefix(prefixOf(locality.client, locality.scopeBits)),
    basis: locality.basis,
    errorMs: finiteOrNull(locality.errorMs),
    place,
    coordinate: locality.coordinate,
    kin: locality.kin < 0 ? null : tables.hostName(locality.kin),
    evidence: (record?.evidence ?? []).map(({ host, rttMs, count, atMs, kind }) => ({
      host,
      rttMs,
      count,
      ageSec: Math.max(0, Math.round((nowMs - atMs) / 1000)),
      kind,
    })),
    source: locality.host >= 0 ? null : (fact?.source ?? (place && 'geography')),
  }
}

/** A DNS TXT string holds so many bytes. */
const MAX_TXT_BYTES = 255
/** Members told in `_why`: more would not fit an answer of 1232 bytes. */
const MAX_TXT_MEMBERS = 8

/** The story in short lines of ASCII, at most 255 bytes each, the most telling first. */
export function whyLines(
  tables: Tables,
  serving: ServingService,
  locality: Locality,
  selection: Selection,
): string[] {
  // Lines tell no ages, so they need no clock.
  return lines(explain(tables, serving, locality, selection, 0))
}

function lines(story: Story): string[] {
  const { locality } = story
  const error = locality.errorMs === null ? '' : `, within ${round(locality.errorMs)} ms`
  const evidence = locality.evidence.map((e) => `${e.host} ${round(e.rttMs)} ms`).join(', ')
  const told = [
    `client ${story.client} as ${locality.prefix}, basis ${locality.basis}${error}`,
    `policy ${story.policy}${story.allDown ? `, all down: ${story.allDown}` : ''}`,
    ...story.members
      .slice(0, MAX_TXT_MEMBERS)
      .map((m) => `${m.rank === null ? '-' : m.rank} ${m.name}: ${m.why}`),
  ]
  const more = Math.max(0, story.members.length - MAX_TXT_MEMBERS) + story.others
  if (more > 0) told.push(`and ${more} more`)
  if (evidence) told.push(`measured by ${evidence}`)
  if (locality.kin !== null) told.push(`taken to be beside ${locality.kin}, a host of its own network`)
  return told.map(fitTxt)
}

function fitTxt(line: string): string {
  const ascii = line.replace(/[^\x20-\x7e]/g, '?')
  return ascii.length <= MAX_TXT_BYTES ? ascii : `${ascii.slice(0, MAX_TXT_BYTES - 3)}...`
}

function tellMember(
  weighed: Weighed,
  rank: number | null,
  reason: DropReason | null,
  selection: Selection,
): MemberStory {
  const { member, ms, errorMs, basis, cost } = weighed
  return {
    name: member.name,
    host: member.hostName,
    state: member.state,
    ms: finiteOrNull(ms),
    errorMs: finiteOrNull(errorMs),
    basis,
    cost: finiteOrNull(cost),
    rank,
    reason,
    why: reason ? tellDrop(weighed, reason) : tellPick(weighed, rank!, selection),
  }
}

/** What a basis is in a sentence. */
const BASIS_WORDS: Readonly<Record<Basis, string>> = {
  member: 'known from the client being a host itself',
  measured: 'measured',
  coordinate: 'by its coordinate',
  geo: 'by the map',
  none: 'distance unknown',
}

function tellPick(weighed: Weighed, rank: number, selection: Selection): string {
  if (selection.allDown)
    return `no member is live; this one was last known to be well (${weighed.member.state})`
  const tie = rank > 1 && rank <= selection.ties ? ', as good as the first' : ''
  return `${tellDistance(weighed)}${tie}${tellLoad(weighed)}`
}

function tellDistance({ ms, errorMs, basis }: Weighed): string {
  if (Number.isNaN(ms)) return BASIS_WORDS.none
  const error = errorMs > 0 ? ` +-${round(errorMs)}` : ''
  return `${round(ms)} ms${error}, ${BASIS_WORDS[basis]}`
}

function tellLoad({ member }: Weighed): string {
  if (member.shedShare === 0) return ''
  return `, load ${round(member.load ?? 0)} of ${member.capacity}, turns ${round(100 * member.shedShare)}% of prefixes away`
}

/** Why each was passed over, as a sentence that says what would change it. */
const DROP_WORDS: Readonly<Record<DropReason, string>> = {
  silent: 'its host is not heard and nobody could reach it',
  left: 'its host said goodbye',
  down: 'its health check fails',
  drained: 'its operator drained it',
  unverified: 'none of its addresses is proven yet',
  family: 'it has no address of the family asked for',
  'no-port': 'it has no port',
  'no-url': 'it has no URL',
  where: 'it lacks an attribute that is asked for',
  excluded: 'the asker excluded it',
  self: 'it is the asker itself',
  unreachable: 'it is not known to be reachable from outside',
  'not-in-both': 'its host is not live in the other service',
  'too-near': 'it is nearer than the ring asked for',
  'too-far': 'it is not known to be within the distance asked for',
  full: 'it is full and turns this client prefix away',
  crowded: 'others of its network have that network’s share of the list',
  farther: 'others come first',
}

function tellDrop(weighed: Weighed, reason: DropReason): string {
  const distance = Number.isNaN(weighed.ms) ? '' : ` (${tellDistance(weighed)})`
  return `${DROP_WORDS[reason]}${reason === 'full' ? tellLoad(weighed) : ''}${distance}`
}

function round(x: number): number {
  return x >= 10 ? Math.round(x) : Math.round(10 * x) / 10
}

function finiteOrNull(x: number): number | null {
  return Number.isFinite(x) ? x : null
}
