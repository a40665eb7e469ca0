// The registry's rules for hosts: joining, reclaiming a name, leaving, being proven, being forgotten.
//
// Pure, as caller.ts says. A host proves itself by its own credential; a token lets it join; a name whose
// lease ended may be reclaimed by a token that could have given it. Nobody becomes another's host.

import { contains, localityPrefix, parseAddress, specialKind } from '../../resolver/address.ts'
import {
  type Change,
  CORE_SERVICE,
  type Directory,
  type Host,
  isLabel,
  type Member,
  memberKey,
  type Proof,
  type Token,
} from '../../resolver/directory.ts'
import { type HostRequest, LEASE_SEC } from '../../server-agent/protocol/messages.ts'
import { Problem } from '../problem.ts'
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

/** A host joins, comes back or says again what it is. `credential` is told where it is new. */
export function putHost(
  directory: Directory,
  caller: Caller,
  name: string,
  request: HostRequest,
  by: Enrolment,
): Decision<{ host: Host; credential: string | null }> {
  if (!isLabel(name)) {
    throw new Problem('bad-request', `a host's name is one DNS label in lower case, not '${name}'`, 'name')
  }
  const before = directory.hosts.get(name)
  const renews = requireHostAuthority(directory, caller, name, before, by)
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
  }
  // The port that a connection came from says nothing new of the host: alone it is no reason to write.
  const same = before !== undefined && sameRecord({ ...before, publicPort: 0 }, { ...host, publicPort: 0 })
  const out =
    same || before === undefined ? [] : crowdedOut(directory, before, host, membersOf(directory, name))
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
  directory: Directory,
  caller: Caller,
  name: string,
  before: Host | undefined,
  by: Enrolment,
): boolean {
  if (directory.members.has(memberKey(CORE_SERVICE, name))) {
    throw new Problem('conflict', `'${name}' is the name of a core`, 'name')
  }
  if (caller.kind === 'host') {
    if (caller.host === name && before !== undefined) return false
    throw new Problem('forbidden', `this credential is that of the host '${caller.host}'`, 'name')
  }
  if (before === undefined) {
    requireMayJoin(directory, caller, by)
    return true
  }
  if (caller.kind === 'admin') return true
  if (by.isUnclaimed && caller.kind === 'token' && caller.token.id === before.tokenId) return true
  if (before.presence === 'live') {
    throw new Problem(
      'conflict',
      `the name '${name}' is held by a live host; use its credential, another name, or wait until its lease ends`,
      'name',
    )
  }
  if (!mayReclaim(directory, caller, before)) {
    throw new Problem(
      'forbidden',
      `the name '${name}' belongs to a host that joined by another token`,
      'name',
    )
  }
  return true
}

function requireMayJoin(directory: Directory, caller: Caller, by: Enrolment): void {
  if (caller.kind !== 'anonymous') return
  if (![...directory.services.values()].some((service) => service.join === 'open')) {
    throw new Problem('unauthorized', 'no service here is open to all: join with a token as Bearer')
  }
  const prefix = localityPrefix(parseAddress(by.fromAddress)!)
  let near = 0
  for (const host of directory.hosts.values()) {
    const address =
      host.tokenId === null && host.publicAddress !== null ? parseAddress(host.publicAddress) : null
    if (address !== null && contains(prefix, address)) near++
  }
  if (near < OPEN_HOSTS_PER_PREFIX) return
  throw new Problem('too-many', `${near} hosts joined from your network without a token: that is the limit`)
}

/** A token may take over a dead host's name if it admitted that host, or covers every service that it is in. */
function mayReclaim(directory: Directory, caller: Caller, host: Host): boolean {
  if (caller.kind === 'token' && (caller.token.id === host.tokenId || caller.token.scope.admin)) return true
  const services = membersOf(directory, host.name).map((member) => directory.services.get(member.service))
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

/** A host says goodbye: it and its members are no more up for choice. */
export function removeHost(
  directory: Directory,
  caller: Caller,
  name: string,
  epochMs: number,
): Decision<void> {
  const host = knownHost(directory, name)
  if (!(caller.kind === 'host' && caller.host === name)) requireAdmin(caller)
  if (directory.members.has(memberKey(CORE_SERVICE, name))) {
    throw new Problem('forbidden', `'${name}' is a core; stop it instead`)
  }
  const changes: Change[] = []
  for (const member of membersOf(directory, name)) {
    changes.push({
      kind: 'members',
      key: memberKey(member.service, member.name),
      value: { ...member, left: true },
    })
  }
  changes.push({ kind: 'hosts', key: name, value: { ...host, presence: 'left', presenceSinceMs: epochMs } })
  return { changes, result: undefined }
}

/** A member leaves its service. What joined openly is not remembered: anyone could fill the books with goodbyes. */
export function leaving(host: Host | undefined, member: Member): Change {
  const value = host?.tokenId == null ? null : { ...member, left: true }
  return { kind: 'members', key: memberKey(member.service, member.name), value }
}

/** What an attempt to reach a host showed: `proven` of its addresses answered an echo from outside. */
export function proofChanges(directory: Directory, tried: Host, proven: readonly string[]): Change[] {
  const host = directory.hosts.get(tried.name)
  if (host === undefined || !sameRecord({ echo: host.echo }, { echo: tried.echo })) return []
  const proofs: Record<string, Proof> = { ...host.proofs }
  for (const address of proven) if (host.addresses.includes(address)) proofs[address] = 'echo'
  const value: Host = {
    ...host,
    proofs,
    reachable: proven.length > 0 || Object.values(proofs).includes('echo'),
  }
  if (sameRecord(host, value)) return []
  const out = crowdedOut(directory, host, value, membersOf(directory, host.name))
  return [{ kind: 'hosts', key: host.name, value }, ...out.map((member) => leaving(host, member))]
}

/** What said goodbye or fell silent so long ago that its name may be forgotten. */
export function forgotten(directory: Directory, epochMs: number): Change[] {
  const changes: Change[] = []
  for (const host of directory.hosts.values()) {
    if (!host.agent || host.presence === 'live') continue
    const afterMs = host.tokenId === null ? FORGET_OPEN_AFTER_MS : FORGET_AFTER_MS
    if (epochMs - host.presenceSinceMs < afterMs) continue
    for (const member of membersOf(directory, host.name)) {
      changes.push({ kind: 'members', key: memberKey(member.service, member.name), value: null })
    }
    changes.push({ kind: 'hosts', key: host.name, value: null })
  }
  return changes
}

/** The members on one host. */
export function membersOf(directory: Directory, host: string): Member[] {
  const members: Member[] = []
  for (const member of directory.members.values()) if (member.host === host) members.push(member)
  return members
}
