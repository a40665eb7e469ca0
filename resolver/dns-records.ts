// What each kind of name is answered with: meaning + question type -> records, rcode and scope, as data.
//
// Invariant: an answer whose records depend on the client states the scope that select gave; all others,
// and every negative answer, have scope 0 (RFC 7871, 7.2.1 and 7.4). Nothing is encoded here. SRV: RFC
// 2782, HTTPS and SVCB: RFC 9460, negatives: RFC 2308, ANY: RFC 8482, stale: RFC 8767 and 8914.

import { type Address, type Family, familyOf, parseAddress, sameAddress } from './address.ts'
import { ANY_ASK, type Ask, type Rng, type Weighed } from './ask.ts'
import { type AllDown, type Basis, CORE_SERVICE } from './directory.ts'
import type { ServiceName, Zone } from './dns-name.ts'
import { type Name, RCODE, type Rcode, TYPE } from './dns-wire.ts'
import { type EdnsOption, extendedError, type ResourceRecord, type StartOfAuthority } from './dns-writer.ts'
import { whyLines } from './explain.ts'
import { locate } from './locate.ts'
import { answerCount, type DropReason, type Selection, select } from './select.ts'
import type { ServingMember } from './serving.ts'
import type { Tables } from './tables.ts'

export interface DnsAnswer {
  readonly rcode: Rcode
  readonly authoritative: boolean
  readonly answers: readonly ResourceRecord[]
  readonly authority: readonly ResourceRecord[]
  readonly additional: readonly ResourceRecord[]
  /** In bits of the 16-byte form; 0: the answer is everyone's. */
  readonly scopeBits: number
  readonly extendedError: EdnsOption | null
  readonly service: string | null
  /** Whom a selection was made for. */
  readonly client: Address | null
  readonly basis: Basis | null
  /** Whom that selection put first; null: nobody. */
  readonly first: FirstPick | null
  readonly allDown: AllDown['mode'] | null
}

interface FirstPick {
  readonly member: string
  /** Predicted RTT; NaN where nothing is known. */
  readonly ms: number
  /** Its place among all that fit by that RTT, 1 for the nearest; 0 where nothing is known. */
  readonly rank: number
}

/** What answers read. */
export interface Sources {
  readonly tables: Tables
  readonly rng: Rng
}

/** "No such thing" may be wrong as soon as a member joins, so it is kept this short, seconds (RFC 2308, 5). */
const NEGATIVE_TTL_SEC = 10
/** Of an SOA's mailbox, below the zone (RFC 2142). */
export const MAILBOX = 'hostmaster'
/** Cores change seldom; a resolver that keeps a dead one's name asks the next of the set, seconds. */
const NS_TTL_SEC = 900
/** ANY's HINFO never changes (RFC 8482, 4.2), seconds. */
const ANY_TTL_SEC = 3600
/** NS: this many near cores; and one far, so that one site's outage never takes the whole set (OASIS, 4.3). */
const NEAR_CORES = 3
/** SRV and HTTPS clients go down the list by themselves: more members than an address answer has are of use to them. */
const LISTED_MEMBERS = 4
/** Looked through for different addresses: 16 are named at most, and hosts with many members of one service are few. */
export const CONSIDERED_MEMBERS = 32
const SRV_WEIGHT_MAX = 1000

/** Why a member that fits is passed over all the same. */
const FITTING: ReadonlySet<DropReason> = new Set(['full', 'crowded', 'farther'])

const STALE = extendedError(3, 'no member is live: the least stale is named')
const NOBODY = extendedError(0, 'no member is live')

const EMPTY: DnsAnswer = {
  rcode: RCODE.NOERROR,
  authoritative: true,
  answers: [],
  authority: [],
  additional: [],
  scopeBits: 0,
  extendedError: null,
  service: null,
  client: null,
  basis: null,
  first: null,
  allDown: null,
}

/** No records at all: what is not ours to answer, not understood or not allowed. */
export function refusal(rcode: Rcode, error: EdnsOption | null = null): DnsAnswer {
  return { ...EMPTY, rcode, authoritative: false, extendedError: error }
}

/** NXDOMAIN, or NODATA as NOERROR: with the SOA that says how long that holds. */
export function negative(zone: Zone, apex: Name, rcode: Rcode): DnsAnswer {
  return { ...EMPTY, rcode, authority: [startOfAuthority(zone, apex)] }
}

/** RFC 8482, 4.2: one small record instead of all. */
export function answerAny(owner: Name): DnsAnswer {
  return { ...EMPTY, answers: [{ owner, ttlSec: ANY_TTL_SEC, type: TYPE.HINFO, strings: ['RFC8482', ''] }] }
}

/** CH TXT version.bind, version.server, id.server and hostname.bind, as far as there is something to say. */
export function answerChaos(owner: Name, type: number, version: string | null, id: string | null): DnsAnswer {
  const name = owner.join('.')
  const isVersion = name === 'version.bind' || name === 'version.server'
  const isId = name === 'id.server' || name === 'hostname.bind'
  const text = isVersion ? version : isId ? id : null
  if (text === null || type !== TYPE.TXT) return refusal(RCODE.REFUSED)
  return { ...EMPTY, answers: [{ owner, ttlSec: 0, type: TYPE.TXT, strings: [text] }] }
}

/** SOA and NS of a zone. Who the NS are depends on the resolver that asks, not on its clients. */
export function answerApex(
  { tables, rng }: Sources,
  zone: Zone,
  owner: Name,
  type: typeof TYPE.SOA | typeof TYPE.NS,
  resolver: Address,
): DnsAnswer {
  if (type === TYPE.SOA) return { ...EMPTY, answers: [startOfAuthority(zone, owner)] }
  const cores = tables.service(CORE_SERVICE)
  const ask: Ask = { ...ANY_ASK, limit: 1000, policy: 'nearest' }
  const picks = cores ? select(tables, cores, locate(tables, resolver), ask, rng).picks : []
  const members = picks.filter((_, i) => i < NEAR_CORES || i === picks.length - 1).map((pick) => pick.member)
  // A zone without NS is broken in the eyes of every resolver: at least we are there.
  const names = members.length > 0 ? members.map(({ name }) => name) : [zone.core]
  return {
    ...EMPTY,
    answers: names.map((name) => ({
      owner,
      ttlSec: NS_TTL_SEC,
      type: TYPE.NS,
      target: coreName(zone, name),
    })),
    additional: members.flatMap((member) =>
      addressRecords(memberName(zone, member), NS_TTL_SEC, allAddresses(member)),
    ),
  }
}

/**
 * ALIAS.ZONE: the way to SERVICE.ZONE, and what is there (RFC 1034, 3.6.2). An alias that is an apex can't
 * have a CNAME beside its SOA and NS: it is answered as the service itself.
 */
export function answerAlias(
  sources: Sources,
  name: ServiceName,
  owner: Name,
  type: number,
  client: Address,
): DnsAnswer {
  const { service } = name.serving
  const target = [service.name, ...name.zone.labels]
  const alias: ResourceRecord = { owner, ttlSec: service.ttlSec, type: TYPE.CNAME, target }
  // Of all that ANY asks for, the one that there is (RFC 8482, 4.1).
  if (type === TYPE.CNAME || type === TYPE.ANY) return { ...EMPTY, answers: [alias], service: service.name }
  const answer = answerService(sources, name, target, type, client)
  return { ...answer, answers: [alias, ...answer.answers] }
}

/** SERVICE.ZONE: A, AAAA, HTTPS and SVCB. */
export function answerService(
  sources: Sources,
  name: ServiceName,
  owner: Name,
  type: number,
  client: Address,
): DnsAnswer {
  if (type === TYPE.A || type === TYPE.AAAA)
    return answerAddresses(sources, name, owner, type === TYPE.A ? 4 : 6, client)
  if (type === TYPE.HTTPS || type === TYPE.SVCB) return answerBindings(sources, name, owner, type, client)
  return ownNegative(name)
}

function answerAddresses(
  sources: Sources,
  name: ServiceName,
  owner: Name,
  family: Family,
  client: Address,
): DnsAnswer {
  const { service } = name.serving
  const selection = oneOfEachAddress(
    choose(sources, name, client, { ...ANY_ASK, family, limit: CONSIDERED_MEMBERS }),
    family,
  )
  const picks = selection.picks.slice(0, answerCount(selection, service))
  const addresses =
    selection.allDown?.mode === 'fallback'
      ? parseAddresses(selection.allDown.addresses).filter((address) => familyOf(address) === family)
      : picks.map(({ member }) => addressesOf(member, family)[0]!)
  return selected(name, client, selection, addressRecords(owner, selection.ttlSec, addresses))
}

/** Members on one host have one address, and a record set holds it once (RFC 2181, 5): the first of them stands for all. */
function oneOfEachAddress(selection: Selection, family: Family): Selection {
  const picks: Weighed[] = []
  let ties = 0
  selection.picks.forEach((pick, i) => {
    const address = addressesOf(pick.member, family)[0]!
    if (picks.some((other) => sameAddress(addressesOf(other.member, family)[0]!, address))) return
    picks.push(pick)
    if (i < selection.ties) ties++
  })
  return { ...selection, picks, ties }
}

/** Members whose URL is https: an HTTPS record makes clients use TLS, which an http URL does not offer. */
function answerBindings(
  sources: Sources,
  name: ServiceName,
  owner: Name,
  type: typeof TYPE.HTTPS | typeof TYPE.SVCB,
  client: Address,
): DnsAnswer {
  const selection = choose(sources, name, client, { ...ANY_ASK, want: 'url', limit: 1000 })
  const records: ResourceRecord[] = []
  for (const { member } of selection.picks) {
    const url = URL.parse(member.url!)
    if (url?.protocol !== 'https:' || records.length === LISTED_MEMBERS) continue
    const service = {
      port: url.port === '' ? null : Number(url.port),
      ipv4Hints: member.addresses4,
      ipv6Hints: member.addresses6,
    }
    const target = memberName(name.zone, member)
    records.push({ owner, ttlSec: selection.ttlSec, type, priority: records.length + 1, target, service })
  }
  return selected(name, client, selection, records)
}

/** _NAME._tcp.SERVICE.ZONE SRV: the equally good share one priority by capacity, the others come after in order. */
export function answerServicePorts(
  sources: Sources,
  name: ServiceName,
  owner: Name,
  type: number,
  client: Address,
): DnsAnswer {
  if (type !== TYPE.SRV) return ownNegative(name)
  const selection = choose(sources, name, client, { ...ANY_ASK, want: 'port', limit: LISTED_MEMBERS })
  const members = selection.picks.map(({ member }) => member)
  const mostCapacity = Math.max(...members.map(({ capacity }) => capacity))
  const records = members.map(
    (member, i): ResourceRecord => ({
      owner,
      ttlSec: selection.ttlSec,
      type: TYPE.SRV,
      priority: i < selection.ties ? 0 : i,
      weight: Math.max(1, Math.round((SRV_WEIGHT_MAX * member.capacity) / mostCapacity)),
      port: member.port!,
      target: memberName(name.zone, member),
    }),
  )
  const additional = members.flatMap((member) =>
    addressRecords(memberName(name.zone, member), selection.ttlSec, allAddresses(member)),
  )
  return { ...selected(name, client, selection, records), additional }
}

/**
 * MEMBER.SERVICE.ZONE: where it is, for everyone alike. A drained member keeps its name: it is only not
 * chosen. A dead one loses it, unless the service, all down, sends clients there.
 */
export function answerMember(
  sources: Sources,
  name: ServiceName & { readonly member: ServingMember },
  owner: Name,
  type: number,
  client: Address,
): DnsAnswer {
  const { serving, member } = name
  const none = ownNegative(name)
  if (type !== TYPE.A && type !== TYPE.AAAA) return none
  const addresses = addressesOf(member, type === TYPE.A ? 4 : 6)
  if (addresses.length === 0) return none
  const answer: DnsAnswer = { ...EMPTY, service: serving.service.name }
  if (member.state === 'live' || member.state === 'drained') {
    return { ...answer, answers: addressRecords(owner, serving.service.ttlSec, addresses) }
  }
  if (isSurelyUp(sources.tables, serving)) return none
  const selection = choose(sources, name, client, { ...ANY_ASK, limit: LISTED_MEMBERS })
  if (!selection.allDown || !selection.picks.some((pick) => pick.member === member)) return none
  const answers = addressRecords(owner, selection.ttlSec, addresses)
  return { ...answer, answers, extendedError: STALE, allDown: selection.allDown.mode }
}

/** Whether someone of a service can be chosen: no look at all of its members for each name that is dead. */
function isSurelyUp(tables: Tables, { service }: ServiceName['serving']): boolean {
  return Object.keys(service.where).length === 0 && tables.liveMembers(service.name) > 0
}

/** _why.SERVICE.ZONE TXT: one line a string's record, never cached. */
export function answerWhy(
  sources: Sources,
  name: ServiceName,
  owner: Name,
  type: number,
  client: Address,
): DnsAnswer {
  if (type !== TYPE.TXT) return ownNegative(name)
  const { tables, rng } = sources
  const locality = locate(tables, client)
  const limit = name.serving.service.maxAddrs
  const selection = select(tables, name.serving, locality, { ...ANY_ASK, limit }, rng)
  const lines = whyLines(tables, name.serving, locality, selection)
  return {
    ...selected(name, client, selection, []),
    answers: lines.map((line) => ({ owner, ttlSec: 0, type: TYPE.TXT, strings: [line] })),
    authority: [],
    scopeBits: selection.scopeBits,
    extendedError: null,
  }
}

function choose({ tables, rng }: Sources, { serving }: ServiceName, client: Address, ask: Ask): Selection {
  return select(tables, serving, locate(tables, client), ask, rng)
}

/** The records that a selection led to; without any, NODATA, which holds for all clients. */
function selected(
  { zone, serving, apex }: ServiceName,
  client: Address,
  selection: Selection,
  answers: readonly ResourceRecord[],
): DnsAnswer {
  const isEmpty = answers.length === 0
  const { allDown } = selection
  const stale = allDown?.mode === 'stale' && !isEmpty ? STALE : null
  return {
    ...EMPTY,
    answers,
    authority: isEmpty ? [startOfAuthority(zone, apex)] : [],
    scopeBits: isEmpty ? 0 : selection.scopeBits,
    extendedError: allDown && isEmpty ? NOBODY : stale,
    service: serving.service.name,
    client,
    basis: selection.basis,
    first: firstOf(selection),
    allDown: allDown?.mode ?? null,
  }
}

/** Who sheds and who is crowded out fit as well: they are nearer, as a rule, than whom they give way to. */
function firstOf({ picks, dropped }: Selection): FirstPick | null {
  const first = picks[0]
  if (first === undefined) return null
  const isNearer = ({ ms }: Weighed) => ms < first.ms
  const passed = dropped.filter((pick) => isNearer(pick) && FITTING.has(pick.reason)).length
  const rank = Number.isNaN(first.ms) ? 0 : 1 + picks.filter(isNearer).length + passed
  return { member: first.member.name, ms: first.ms, rank }
}

function ownNegative({ zone, serving, apex }: ServiceName): DnsAnswer {
  return { ...negative(zone, apex, RCODE.NOERROR), service: serving.service.name }
}

function startOfAuthority(zone: Zone, owner: Name): ResourceRecord {
  const soa: StartOfAuthority = {
    primary: coreName(zone, zone.core),
    mailbox: [MAILBOX, ...zone.labels],
    serial: zone.serial,
    // Nobody transfers this zone: the timers are usual values that checkers of zones don't complain of.
    refreshSec: 7200,
    retrySec: 900,
    expireSec: 1_209_600,
    minimumSec: NEGATIVE_TTL_SEC,
  }
  return { owner, ttlSec: NEGATIVE_TTL_SEC, type: TYPE.SOA, soa }
}

function coreName(zone: Zone, core: string): Name {
  return [core, CORE_SERVICE, ...zone.labels]
}

function memberName(zone: Zone, member: ServingMember): Name {
  return [member.name, member.service, ...zone.labels]
}

function addressesOf(member: ServingMember, family: Family): readonly Address[] {
  return family === 4 ? member.addresses4 : member.addresses6
}

function parseAddresses(texts: readonly string[]): Address[] {
  return texts.map(parseAddress).filter((address) => address !== null)
}

function allAddresses(member: ServingMember): readonly Address[] {
  return [...member.addresses4, ...member.addresses6]
}

function addressRecords(owner: Name, ttlSec: number, addresses: readonly Address[]): ResourceRecord[] {
  return addresses.map((address) => ({
    owner,
    ttlSec,
    type: familyOf(address) === 4 ? TYPE.A : TYPE.AAAA,
    address,
  }))
}
