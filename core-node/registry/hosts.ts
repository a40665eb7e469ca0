// The registry's rules for hosts: joining, reclaiming a name, leaving, being proven, being forgotten.
//
// Pure, as caller.ts says. A host proves itself by its own credential; a token lets it join; a name whose
// lease ended may be reclaimed by a token that could have given it. Nobody becomes another's host.

import { parseAddress, specialKind } from '../../resolver/address.ts'
import {
  type Change,
  CORE_SERVICE,
  type Host,
  isLabel,
  type Member,
  memberKey,
  type Proof,
  type Token,
} from '../../resolver/directory.ts'
import { type HostRequest, LEASE_SEC } from '../../server-agent/protocol/messages.ts'
import { Problem } from '../problem.ts'
import type { Books } from './books.ts'
import { type Caller, canonicalAddress, type Decision, requireAdmin, sameRecord } from './caller.ts'
import { crowdedOut } from './crowd.ts'
import { knownHost } from './known.ts'

/** What the core knows or made for this one request. */
export interface Enrolment {
  readonly epochMs: number
  /** This core's name: the home of what joins here. */
  readonly home: string
  /** Where the request came from, canonical text. */
  readonly fromAddress: string
  readonly fromPort: number
  /** For a host that is new or reclaimed. */
  readonly credential: string
  readonly credentialHash: string
  readonly echoKey: string
  /** Nobody has shown the host's credential yet, so the reply that told it may have been lost. */
  readonly isUnclaimed: boolean
  /** Where geography places an address; null: unknown. */
  readonly placeOf: (address: string) => Host['place']
}

/** After so long a record that said goodbye or fell silent is forgotten, ms: a week of repairs keeps its drain. */
const FORGET_AFTER_MS = 7 * 24 * 3600_000
/** Open joins are many and come back by themselves: an hour. */
const FORGET_OPEN_AFTER_MS = 3600_000
/** Hosts forgotten in one go: no more than what a commit takes in some ms. */
const FORGOTTEN_AT_ONCE = 500
/** Goodbyes that are remembered: a fleet that restarts. Members that come and go by the second would fill the books. */
const GOODBYES_MAX = 10_000
const EXCESS_AT_ONCE = 2

/** A host joins, comes back or says again what it is. `credential` is told where it is new. */
export function putHost(
  books: Books,
  caller: Caller,
  name: string,
  request: HostRequest,
  by: Enrolment,
): Decision<{ host: Host; credential: string | null }> {
  if (!isLabel(name)) {
    throw new Problem('bad-request', `a host's name is one DNS label in lower case, not '${name}'`, 'name')
  }
  const before = books.hosts.get(name)
  const renews = requireHostAuthority(books, caller, name, before, by)
  const addresses = [...new Set(request.addresses.map(hostAddress))]
  if (request.echo?.address && !addresses.includes(hostAddress(request.echo.address))) {
    throw new Problem(
      'bad-request',
      'the echo is at none of the addresses: name its address among them',
      'echo',
    )
  }
  const echo = request.echo
    ? {
        address: request.echo.address ? hostAddress(request.echo.address) : addresses[0]!,
        port: request.echo.port,
      }
    : null
  const kept = renews ? null : before!
  const back = kept !== null && kept.presence === 'live'
  const host: Host = {
    name,
    agent: true,
    addresses,
    proofs: proofsFor(addresses, kept?.proofs ?? {}, caller, by.fromAddress),
    echo,
    echoKey: kept?.echoKey ?? by.echoKey,
    publicAddress: by.fromAddress,
    publicPort: by.fromPort,
    reachable: kept !== null && sameRecord({ echo: kept.echo }, { echo }) ? kept.reachable : null,
    home: by.home,
    leaseSec: request.leaseSec ?? LEASE_SEC.default,
    presence: 'live',
    presenceSinceMs: back ? kept.presenceSinceMs : by.epochMs,
    coordinate: before?.coordinate ?? null,
    ...(before?.meshMs && { meshMs: before.meshMs }),
    place: request.place
      ? { lat: request.place.lat, lon: request.place.lon, accuracyKm: DECLARED_PLACE_KM }
      : by.placeOf(addresses[0]!),
    credentialHash: kept?.credentialHash ?? by.credentialHash,
    tokenId: tokenOf(caller)?.id ?? kept?.tokenId ?? null,
    ...(before?.presenceBy && { presenceBy: before.presenceBy }),
  }
  // The port that a connection came from says nothing new of the host: alone it is no reason to write.
  const same = before !== undefined && sameRecord({ ...before, publicPort: 0 }, { ...host, publicPort: 0 })
  const out = same || before === undefined ? [] : crowdedOut(books, before, host, membersOf(books, name))
  return {
    changes: same
      ? []
      : [{ kind: 'hosts', key: name, value: host }, ...out.map((member) => leaving(host, member))],
    result: { host: same ? before : host, credential: renews ? by.credential : null },
  }
}

function tokenOf(caller: Caller): Token | undefined {
  return caller.kind === 'token' || caller.kind === 'admin' ? caller.token : undefined
}

/** Hosts that may join without a token from one /24 (/48): a campus behind one NAT, not a flood. */
const OPEN_HOSTS_PER_PREFIX = 256
/** What an operator declares of a place is taken to be right within this, km: a city. */
const DECLARED_PLACE_KM = 10

/** Throws Problem where the caller may not be this host; true where it gets a new credential. */
function requireHostAuthority(
  books: Books,
  caller: Caller,
  name: string,
  before: Host | undefined,
  by: Enrolment,
): boolean {
  if (books.members.has(memberKey(CORE_SERVICE, name))) {
    throw new Problem('conflict', `'${name}' is the name of a core`, 'name')
  }
  if (caller.kind === 'host') {
    if (caller.host === name && before !== undefined) return false
    throw new Problem('forbidden', `this credential is that of the host '${caller.host}'`, 'name')
  }
  if (before === undefined) {
    requireMayJoin(books, caller, by)
    return true
  }
  if (caller.kind === 'admin') return true
  if (by.isUnclaimed && mayRepeat(caller, before, by)) return true
  if (before.presence === 'live') {
    throw new Problem(
      'conflict',
      `the name '${name}' is held by a live host; use its credential, another name, or wait until its lease ends`,
      'name',
    )
  }
  if (!mayReclaim(books, caller, before)) {
    throw new Problem(
      'forbidden',
      `the name '${name}' belongs to a host that joined by another token`,
      'name',
    )
  }
  return true
}

/** Who made a join may make it again: the same token, or, without one, who comes from the same address. */
function mayRepeat(caller: Caller, before: Host, by: Enrolment): boolean {
  if (caller.kind === 'token') return caller.token.id === before.tokenId
  return before.tokenId === null && before.publicAddress === by.fromAddress
}

function requireMayJoin(books: Books, caller: Caller, by: Enrolment): void {
  if (caller.kind !== 'anonymous') return
  if (![...books.services.values()].some((service) => service.join === 'open')) {
    throw new Problem('unauthorized', 'no service here is open to all: join with a token as Bearer')
  }
  const near = books.index.openHostsNear(by.fromAddress)
  if (near < OPEN_HOSTS_PER_PREFIX) return
  throw new Problem('too-many', `${near} hosts joined from your network without a token: that is the limit`)
}

/** A token may take over a dead host's name if it admitted that host, or covers every service that it is in. */
function mayReclaim(books: Books, caller: Caller, host: Host): boolean {
  if (caller.kind === 'token' && (caller.token.id === host.tokenId || caller.token.scope.admin)) return true
  const services = membersOf(books, host.name).map((member) => books.services.get(member.service))
  if (caller.kind === 'token')
    return services.every((service) => service && covers(caller.token, service.name))
  return host.tokenId === null && services.every((service) => service?.join === 'open')
}

/** Whether a token is for a service. */
export function covers(token: Token, service: string): boolean {
  return token.scope.admin || token.scope.services.includes(service)
}

/** Where no client of another machine can reach anything. */
const UNREACHABLE_KINDS = ['unspecified', 'multicast', 'broadcast', 'link-local']

/** Canonical text of an address that a host may have, or a Problem. */
export function hostAddress(text: string): string {
  const canonical = canonicalAddress(text, 'addresses')
  const kind = specialKind(parseAddress(canonical)!)
  if (kind !== null && UNREACHABLE_KINDS.includes(kind)) {
    throw new Problem(
      'bad-request',
      `${canonical} is ${kind}: clients could not reach a host there`,
      'addresses',
    )
  }
  return canonical
}

function proofsFor(
  addresses: readonly string[],
  before: Readonly<Record<string, Proof>>,
  caller: Caller,
  fromAddress: string,
): Record<string, Proof> {
  const proofs: Record<string, Proof> = {}
  for (const address of addresses) {
    const known = before[address]
    if (caller.kind === 'admin') proofs[address] = 'vouched'
    else if (known !== undefined) proofs[address] = known
    else if (address === fromAddress) proofs[address] = 'seen'
  }
  return proofs
}

/**
 * A host says goodbye: it and its members are no more up for choice. Who joined by a token is remembered
 * for a while, its drained members above all; who joined openly is not: anyone could fill the books with goodbyes.
 */
export function removeHost(books: Books, caller: Caller, name: string, epochMs: number): Decision<void> {
  const host = knownHost(books, name)
  if (!(caller.kind === 'host' && caller.host === name)) requireAdmin(caller)
  if (books.members.has(memberKey(CORE_SERVICE, name))) {
    throw new Problem('forbidden', `'${name}' is a core; stop it instead`)
  }
  const changes =
    host.tokenId === null
      ? removal(books, name)
      : [...goodbye(books, host, epochMs), ...excessGoodbyes(books, name)]
  return { changes, result: undefined }
}

/** A member leaves its service. What joined openly is not remembered: anyone could fill the books with goodbyes. */
export function leaving(host: Host | undefined, member: Member): Change {
  const value = host?.tokenId == null ? null : { ...member, left: true }
  return { kind: 'members', key: memberKey(member.service, member.name), value }
}

function goodbye(books: Books, host: Host, epochMs: number): Change[] {
  const changes: Change[] = []
  for (const member of membersOf(books, host.name)) {
    if (member.left) continue
    const key = memberKey(member.service, member.name)
    changes.push({ kind: 'members', key, value: { ...member, left: true } })
  }
  if (host.presence === 'left') return changes
  const value: Host = { ...host, presence: 'left', presenceSinceMs: epochMs }
  return [...changes, { kind: 'hosts', key: host.name, value }]
}

/** The oldest goodbyes where there are too many; each new one makes room for itself and a bit more. */
function excessGoodbyes(books: Books, leaving: string): Change[] {
  const changes: Change[] = []
  let excess = Math.min(EXCESS_AT_ONCE, books.index.left.size + 1 - GOODBYES_MAX)
  for (const name of books.index.left) {
    if (excess <= 0) break
    // What an operator drained stays so when it comes back.
    if (name === leaving || membersOf(books, name).some((member) => member.drained)) continue
    changes.push(...removal(books, name))
    excess--
  }
  return changes
}

/** A host and its members, off the books. */
function removal(books: Books, name: string): Change[] {
  const changes: Change[] = []
  for (const key of books.index.membersOf(name)) changes.push({ kind: 'members', key, value: null })
  changes.push({ kind: 'hosts', key: name, value: null })
  return changes
}

/** What an attempt to reach a host showed: `proven` of its addresses answered an echo from outside. */
export function proofChanges(books: Books, tried: Host, proven: readonly string[]): Change[] {
  const host = books.hosts.get(tried.name)
  if (host === undefined || !sameRecord({ echo: host.echo }, { echo: tried.echo })) return []
  const proofs: Record<string, Proof> = { ...host.proofs }
  for (const address of proven) if (host.addresses.includes(address)) proofs[address] = 'echo'
  const value: Host = {
    ...host,
    proofs,
    reachable: proven.length > 0 || Object.values(proofs).includes('echo'),
  }
  if (sameRecord(host, value)) return []
  const out = crowdedOut(books, host, value, membersOf(books, host.name))
  return [{ kind: 'hosts', key: host.name, value }, ...out.map((member) => leaving(host, member))]
}

/** What said goodbye or fell silent so long ago that its name may be forgotten; some of it, where it is much. */
export function forgotten(books: Books, epochMs: number): Change[] {
  const changes: Change[] = []
  let count = 0
  for (const name of [...books.index.left, ...books.index.silent]) {
    const host = books.hosts.get(name)!
    const afterMs = host.tokenId === null ? FORGET_OPEN_AFTER_MS : FORGET_AFTER_MS
    if (epochMs - host.presenceSinceMs < afterMs) continue
    changes.push(...removal(books, name))
    if (++count === FORGOTTEN_AT_ONCE) break
  }
  return changes
}

/** The members on one host. */
export function membersOf(books: Books, host: string): Member[] {
  return Array.from(books.index.membersOf(host), (key) => books.members.get(key)!)
}
