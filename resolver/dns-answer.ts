// One DNS packet -> one reply, and facts for the shell to count and log: the whole of the authoritative
// server as a function of bytes, tables, asker and chance.
//
// Invariant: every packet ends in exactly one outcome; a reply is never longer than the asker can take
// (RFC 6891; UDP 1232 at most), and a reply cut short says so (TC) and keeps its OPT. Answers never hold
// RA, and AA only for what is ours. No I/O, no clock, no counters. RFC 1034, 1035, 2308, 7828, 7871, 7873, 8482, 8914.

import { type Address, IPV4_OFFSET_BITS, isLoopbackOrIn, type Prefix } from './address.ts'
import type { AllDown, Basis } from './directory.ts'
import { answerCookie, type CookieAnswer, type CookieSecrets } from './dns-cookie.ts'
import { RESPONSE, type ResponseKind, type ResponseLimiter, VERDICT } from './dns-limit.ts'
import { type Meaning, meaningOf, type Zones } from './dns-name.ts'
import {
  answerAlias,
  answerAny,
  answerApex,
  answerChaos,
  answerMember,
  answerService,
  answerServicePorts,
  answerWhy,
  type DnsAnswer,
  negative,
  refusal,
  type Sources,
} from './dns-records.ts'
import {
  CLASS,
  type ClientSubnet,
  type Edns,
  HEADER_BYTES,
  MAX_UDP_BYTES,
  type Name,
  OPTION,
  parseQuery,
  type Query,
  RCODE,
  type Rcode,
  TYPE,
  udpReplyBytes,
} from './dns-wire.ts'
import { DnsWriter, type EdnsOption, extendedError, MAX_MESSAGE_BYTES, optBytes } from './dns-writer.ts'
import { hashName } from './hash.ts'

/** All that answering needs to know of the core it runs in. */
export interface DnsContext extends Sources {
  readonly zones: Zones
  /** Who may ask `_why`, beside loopback. */
  readonly operatorFrom: readonly Prefix[]
  /** What NSID (RFC 5001) and id.server CH TXT say, at most 64 characters; null: nothing. */
  readonly nsid: string | null
  /** What version.bind CH TXT says; null: refused. */
  readonly version: string | null
  /** null: DNS cookies are not answered. */
  readonly cookies: CookieSecrets | null
}

export interface Asker {
  readonly address: Address
  readonly port: number
  readonly via: 'udp' | 'tcp'
  /** Over TCP: how long its connection may lie idle as things are, ms. Over UDP: 0. */
  readonly idleMs: number
  /** Of the clock that all threads share, ms. */
  readonly nowMs: number
}

/** What became of a packet: each has exactly one, so that their counts add up to the packets received. */
export const DNS_OUTCOMES = [
  'answered',
  'nodata',
  'nxdomain',
  'refused',
  'formerr',
  'notimp',
  'badvers',
  'badcookie',
  'servfail',
  'slipped',
  'dropped-limited',
  'dropped-short',
  'dropped-response',
  'dropped-port-zero',
] as const
export type DnsOutcome = (typeof DNS_OUTCOMES)[number]

export interface DnsFacts {
  readonly outcome: DnsOutcome
  /** 0 where there was no question. */
  readonly type: number
  /** The name asked for; null where there was no question. */
  readonly labels: Name | null
  /** The service that the name belongs to. */
  readonly service: string | null
  /** Whom a selection was made for; null: none was made. */
  readonly client: Address | null
  /** Whether that client came by Client Subnet. */
  readonly bySubnet: boolean
  readonly basis: Basis | null
  /** The member that a selection put first, and its predicted RTT; null and NaN: none, or nothing is known. */
  readonly member: string | null
  readonly ms: number
  /** Its place among those that fit by that RTT: 1 is the nearest; 0: no selection, or nothing is known. */
  readonly rank: number
  readonly allDown: AllDown['mode'] | null
  readonly queryBytes: number
  /** 0: nothing is sent. */
  readonly replyBytes: number
  readonly truncated: boolean
  /** It was one response too many for its asker; null: it was not, or nobody looked. */
  readonly limited: 'slip' | 'drop' | null
  /** The asker is at its address: it came by TCP or showed a cookie of ours. */
  readonly isProven: boolean
}

export interface DnsReply {
  /** null: nothing is sent. */
  readonly reply: Uint8Array | null
  readonly facts: DnsFacts
}

/** What sockets hand packets to: counts and tells what became of each; null: nothing is sent. Never throws. */
export type PacketHandler = (
  packet: Uint8Array,
  address: Address,
  port: number,
  via: Asker['via'],
  idleMs: number,
) => Uint8Array | null

/** RFC 8914, 4. */
export const NOT_AUTHORITATIVE = 20
const OUTSIDE = extendedError(NOT_AUTHORITATIVE, '')
const PROHIBITED = extendedError(18, '')

const FLAG_RESPONSE = 0x8000
const FLAG_AUTHORITATIVE = 0x0400
const FLAG_TRUNCATED = 0x0200
const FLAG_RECURSION_DESIRED = 0x0100

/**
 * Answers one packet. `limiter`: takes the response from the asker's accounts; null: nobody is limited.
 * Throws only for a fault of ours, see answerFailure.
 */
export function answerDns(
  context: DnsContext,
  packet: Uint8Array,
  from: Asker,
  limiter: ResponseLimiter | null = null,
): DnsReply {
  // Port 0 can't be replied to: node's sockets throw at it.
  if (from.port === 0) return drop('dropped-port-zero', packet, null, null)
  const query = parseQuery(packet)
  if (typeof query === 'string') return drop(`dropped-${query}`, packet, null, null)
  const received = query.edns?.cookie
  const cookie = received && context.cookies ? answerCookie(context.cookies, received, from.address) : null
  const rcode = rcodeOf(query, from, cookie)
  const answer = rcode === RCODE.NOERROR && query.question ? decide(context, query, from) : refusal(rcode)
  const made = encode(context.nsid, packet, query, from, answer, cookie)
  return limiter === null || made.facts.isProven
    ? made
    : limit(limiter, packet, query, from, answer, cookie, made)
}

/** The response as it was made; or, where it is one too many for its asker, what goes out instead. */
function limit(
  limiter: ResponseLimiter,
  packet: Uint8Array,
  query: Query,
  from: Asker,
  answer: DnsAnswer,
  cookie: CookieAnswer | null,
  made: DnsReply,
): DnsReply {
  const kind = kindOf(answer)
  const bytes = made.reply!.length
  if (!limiter.watches(kind, packet.length, bytes)) return made
  const subject = subjectOf(kind, packet, query, answer)
  const verdict = limiter.judge(kind, subject, packet.length, bytes, from.address, 0, from.nowMs)
  if (verdict === VERDICT.SEND) return made
  const limited = verdict === VERDICT.SLIP ? 'slip' : 'drop'
  // An error is as short as what could be slipped in its place, and says more.
  const isSentAsItIs = limiter.isLogOnly || (limited === 'slip' && kind === RESPONSE.ERROR && cookie === null)
  if (isSentAsItIs) return { reply: made.reply, facts: { ...made.facts, limited } }
  return limited === 'slip'
    ? slip(packet, query, from, cookie)
    : drop('dropped-limited', packet, query, 'drop')
}

function kindOf(answer: DnsAnswer): ResponseKind {
  if (answer.rcode === RCODE.NXDOMAIN) return RESPONSE.NXDOMAIN
  if (answer.rcode !== RCODE.NOERROR) return RESPONSE.ERROR
  return answer.answers.length > 0 ? RESPONSE.ANSWER : RESPONSE.NODATA
}

/** Whose account a response is on: its name and type, its name alone, its zone, or nothing of it. */
function subjectOf(kind: ResponseKind, packet: Uint8Array, { question }: Query, answer: DnsAnswer): number {
  if (question === null || kind === RESPONSE.ERROR) return 0
  const nameEnd = question.end - 4
  if (kind === RESPONSE.ANSWER) return hashName(packet, HEADER_BYTES, nameEnd + 2)
  if (kind === RESPONSE.NODATA) return hashName(packet, HEADER_BYTES, nameEnd)
  const apex = answer.authority[0]!.owner
  return hashName(packet, nameEnd - apex.reduce((bytes, label) => bytes + 1 + label.length, 1), nameEnd)
}

/** What can be said of a query before its question is looked at; NOERROR: nothing is wrong with it. */
function rcodeOf({ question, edns, rcode }: Query, from: Asker, cookie: CookieAnswer | null): Rcode {
  if (rcode !== RCODE.NOERROR) return rcode
  // Over UDP the option means nothing and is passed over (RFC 7828, 3.3.1).
  if (from.via === 'tcp' && edns?.keepAlive === 'malformed') return RCODE.FORMERR
  if (question !== null) return RCODE.NOERROR
  // Only the cookie is asked about (RFC 7873, 5.4): is the server's half that the asker holds still good?
  if (cookie === null) return RCODE.FORMERR
  return cookie.isProven || !cookie.isShown ? RCODE.NOERROR : RCODE.BADCOOKIE
}

/**
 * The shortest reply that a true asker goes on from. Who knows cookies comes again with the one that it gets
 * here (BADCOOKIE: RFC 7873, 5.2.3), whose server's half is all that the reply has beyond the query: 16 bytes.
 * All others come by TCP, and for them the reply is no longer than the query.
 */
function slip(packet: Uint8Array, query: Query, from: Asker, cookie: CookieAnswer | null): DnsReply {
  if (cookie !== null) {
    const told = encode(null, packet, query, from, refusal(RCODE.BADCOOKIE), cookie)
    return { reply: told.reply, facts: { ...told.facts, limited: 'slip' } }
  }
  const options = query.edns ? ednsOptions(null, query.edns, from, refusal(RCODE.NOERROR), null) : []
  const reply = write(packet, query, from, refusal(RCODE.NOERROR), options, true)
  const bytes = { queryBytes: packet.length, replyBytes: reply!.length }
  const how = { bySubnet: false, truncated: true, limited: 'slip', isProven: false, ...bytes } as const
  return { reply, facts: factsOf('slipped', query, null, how) }
}

/** What is said when answering itself failed, so that the asker tries another core at once. */
export function answerFailure(packet: Uint8Array, from: Asker): DnsReply {
  const query = parseQuery(packet)
  if (typeof query === 'string') return drop(`dropped-${query}`, packet, null, null)
  return encode(null, packet, query, from, refusal(RCODE.SERVFAIL), null)
}

function drop(
  outcome: DnsOutcome,
  packet: Uint8Array,
  query: Query | null,
  limited: DnsFacts['limited'],
): DnsReply {
  const how = {
    bySubnet: false,
    truncated: false,
    limited,
    isProven: false,
    queryBytes: packet.length,
    replyBytes: 0,
  }
  return { reply: null, facts: factsOf(outcome, query, null, how) }
}

function decide(context: DnsContext, query: Query, from: Asker): DnsAnswer {
  const { labels, type, class: questionClass } = query.question!
  if (questionClass === CLASS.CH) return answerChaos(labels, type, context.version, context.nsid)
  if (questionClass !== CLASS.IN) return refusal(RCODE.REFUSED)
  const unaskable = unaskableType(type)
  if (unaskable !== null) return refusal(unaskable)
  const meaning = meaningOf(context.tables, context.zones, labels)
  if (meaning.kind === 'outside') return refusal(RCODE.REFUSED, OUTSIDE)
  if (meaning.kind === 'nothing') return negative(meaning.zone, meaning.apex, RCODE.NXDOMAIN)
  if (type === TYPE.AXFR || type === TYPE.IXFR) return refusal(RCODE.REFUSED, PROHIBITED)
  if (meaning.kind === 'why' && !isLoopbackOrIn(context.operatorFrom, from.address))
    return refusal(RCODE.REFUSED, PROHIBITED)
  if (type === TYPE.ANY && meaning.kind !== 'alias') return answerAny(labels)
  return answerName(context, meaning, query, from)
}

/** Types that can't be asked for (RFC 6895, 3.1): parts of messages, and questions that nobody answers any more. */
function unaskableType(type: number): Rcode | null {
  if (type === TYPE.OPT || type === TYPE.TSIG) return RCODE.FORMERR
  return type === TYPE.TKEY || type === TYPE.MAILA || type === TYPE.MAILB ? RCODE.NOTIMP : null
}

function answerName(
  context: DnsContext,
  meaning: Exclude<Meaning, { kind: 'outside' | 'nothing' }>,
  query: Query,
  from: Asker,
): DnsAnswer {
  const { labels, type } = query.question!
  const { address: client } = clientOf(query, from)
  // An alias outside the zone is an apex too: someone delegated it to us.
  const isApex = meaning.apex.length === labels.length
  if (isApex && (type === TYPE.SOA || type === TYPE.NS))
    return answerApex(context, meaning.zone, labels, type, from.address)
  switch (meaning.kind) {
    case 'service':
      return answerService(context, meaning, labels, type, client)
    case 'alias':
      return answerAlias(context, meaning, labels, type, client)
    case 'srv':
      return answerServicePorts(context, meaning, labels, type, client)
    case 'member':
      return answerMember(context, meaning, labels, type, client)
    case 'why':
      return answerWhy(context, meaning, labels, type, client)
    case 'apex':
    case 'empty':
      return negative(meaning.zone, meaning.apex, RCODE.NOERROR)
  }
}

/** Whom to answer for: the client that Client Subnet names, else the asker itself. */
function clientOf({ edns }: Query, from: Asker): { address: Address; bySubnet: boolean } {
  const named = edns?.subnet?.address ?? null
  return named === null ? { address: from.address, bySubnet: false } : { address: named, bySubnet: true }
}

/** Writes the answer; where its records don't fit, the same without records and with TC (RFC 2181, 9). */
function encode(
  nsid: string | null,
  packet: Uint8Array,
  query: Query,
  from: Asker,
  answer: DnsAnswer,
  cookie: CookieAnswer | null,
): DnsReply {
  const options = query.edns ? ednsOptions(nsid, query.edns, from, answer, cookie) : []
  let reply = write(packet, query, from, answer, options, false)
  const truncated = reply === null
  reply ??= write(packet, query, from, answer, options, true)
  const bySubnet = answer.client !== null && clientOf(query, from).bySubnet
  const isProven = from.via === 'tcp' || cookie?.isProven === true
  const bytes = { queryBytes: packet.length, replyBytes: reply!.length }
  const how = { bySubnet, truncated, limited: null, isProven, ...bytes }
  return { reply, facts: factsOf(outcomeOf(answer), query, answer, how) }
}

/** null: the records don't fit. With `cut` none are written. */
function write(
  packet: Uint8Array,
  { id, opcode, recursionDesired, question, edns }: Query,
  from: Asker,
  answer: DnsAnswer,
  options: readonly EdnsOption[],
  cut: boolean,
): Uint8Array | null {
  const limitBytes = replyLimit(from, edns)
  const writer = new DnsWriter(limitBytes - (edns ? optBytes(options) : 0))
  const flags =
    FLAG_RESPONSE |
    (opcode << 11) |
    (answer.authoritative ? FLAG_AUTHORITATIVE : 0) |
    (cut ? FLAG_TRUNCATED : 0) |
    (recursionDesired ? FLAG_RECURSION_DESIRED : 0) |
    (answer.rcode & 15)
  writer.header(id, flags)
  if (question) writer.question(packet, question)
  if (!cut) {
    for (const record of answer.answers) if (!writer.record('answer', record)) return null
    for (const record of answer.authority) if (!writer.record('authority', record)) return null
    // Additional records save the asker a query; without them the answer is still whole.
    for (const record of answer.additional) if (!writer.record('additional', record)) break
  }
  writer.limitBytes = limitBytes
  if (edns) writer.opt(MAX_UDP_BYTES, answer.rcode >> 4, edns.dnssecOk, options)
  return writer.finish()
}

function replyLimit(from: Asker, edns: Edns | null): number {
  if (from.via === 'tcp') return MAX_MESSAGE_BYTES
  return udpReplyBytes(edns?.payloadBytes ?? 0)
}

function ednsOptions(
  nsid: string | null,
  edns: Edns,
  from: Asker,
  answer: DnsAnswer,
  cookie: CookieAnswer | null,
): EdnsOption[] {
  const options: EdnsOption[] = []
  if (edns.subnet) options.push(echoSubnet(edns.subnet, answer.scopeBits))
  if (edns.nsid && nsid !== null) options.push({ code: OPTION.NSID, data: Buffer.from(nsid) })
  if (cookie) options.push({ code: OPTION.COOKIE, data: cookie.cookie })
  if (edns.keepAlive === 'asked' && from.via === 'tcp') options.push(keepAlive(from.idleMs))
  if (answer.extendedError) options.push(answer.extendedError)
  return options
}

/** RFC 7828: how long the connection may lie idle, in tenths of a second. */
function keepAlive(idleMs: number): EdnsOption {
  const tenths = Math.min(Math.floor(idleMs / 100), 0xffff)
  return { code: OPTION.TCP_KEEPALIVE, data: Uint8Array.of(tenths >> 8, tenths & 0xff) }
}

/**
 * RFC 7871, 7.2.1: family, source and address as they came, and our scope. The scope is 0 where the
 * asker said source 0; it may be longer than the source: then the cache knows that it asked too widely.
 */
function echoSubnet({ family, sourceBits, bytes }: ClientSubnet, scopeBits: number): EdnsOption {
  const ownBits = family === 1 ? Math.max(0, scopeBits - IPV4_OFFSET_BITS) : scopeBits
  const data = new Uint8Array(4 + bytes.length)
  data[1] = family
  data[2] = sourceBits
  data[3] = sourceBits === 0 ? 0 : ownBits
  data.set(bytes, 4)
  return { code: OPTION.CLIENT_SUBNET, data }
}

function outcomeOf(answer: DnsAnswer): DnsOutcome {
  switch (answer.rcode) {
    case RCODE.NOERROR:
      return answer.answers.length > 0 ? 'answered' : 'nodata'
    case RCODE.NXDOMAIN:
      return 'nxdomain'
    case RCODE.REFUSED:
      return 'refused'
    case RCODE.FORMERR:
      return 'formerr'
    case RCODE.NOTIMP:
      return 'notimp'
    case RCODE.BADVERS:
      return 'badvers'
    case RCODE.BADCOOKIE:
      return 'badcookie'
    case RCODE.SERVFAIL:
      return 'servfail'
  }
}

function factsOf(
  outcome: DnsOutcome,
  query: Query | null,
  answer: DnsAnswer | null,
  how: Pick<DnsFacts, 'bySubnet' | 'truncated' | 'limited' | 'isProven' | 'queryBytes' | 'replyBytes'>,
): DnsFacts {
  return {
    outcome,
    type: query?.question?.type ?? 0,
    labels: query?.question?.labels ?? null,
    service: answer?.service ?? null,
    client: answer?.client ?? null,
    basis: answer?.basis ?? null,
    member: answer?.first?.member ?? null,
    ms: answer?.first?.ms ?? Number.NaN,
    rank: answer?.first?.rank ?? 0,
    allDown: answer?.allDown ?? null,
    ...how,
  }
}
