// The registry's rules for hosts and members: joining, reclaiming a name, leaving, draining, forgetting.
//
// Pure, as registry.ts is. A host proves itself by its own credential; a token lets it join; a name
// whose lease ended may be reclaimed by a token that could have given it. A host changes only its own.

import {
  contains,
  formatAddress,
  formatHostPort,
  localityPrefix,
  parseAddress,
  specialKind,
  withoutBrackets,
} from '../../resolver/address.ts'
import {
  type Change,
  CORE_SERVICE,
  type Directory,
  type Health,
  type Host,
  isLabel,
  type Member,
  memberKey,
  type Proof,
  type Service,
  type Token,
} from '../../resolver/directory.ts'
import {
  type Beat,
  type HostRequest,
  LEASE_SEC,
  type MemberRequest,
} from '../../server-agent/protocol/messages.ts'
import { Problem } from '../problem.ts'
import {
  type Caller,
  canonicalAddress,
  canonicalUrl,
  type Decision,
  requireAdmin,
  sameRecord,
} from './registry.ts'

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
  return {
    changes: same ? [] : [{ kind: 'hosts', key: name, value: host }],
    result: { host: same ? before : host, credential: renews ? by.credential : null },
  }
}

function tokenOf(caller: Caller): Token | undefined {
  return caller.kind === 'token' || caller.kind === 'admin' ? caller.token : undefined
}

/** Hosts that may join without a token from one /24 (/48): a campus behind one NAT, not a flood. */
const OPEN_HOSTS_PER_PREFIX = 256
/** Members of one host, those that left included: what a machine can serve, not what it can make up. */
const MEMBERS_PER_HOST = 1000

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

function covers(token: Token, service: string): boolean {
  return token.scope.admin || token.scope.services.includes(service)
}

/** Where no client of another machine can reach anything. */
const UNREACHABLE_KINDS = ['unspecified', 'multicast', 'broadcast', 'link-local']

function hostAddress(text: string): string {
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
  const host = directory.hosts.get(name)
  if (host === undefined) throw new Problem('not-found', `there is no host '${name}'`)
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

/** A member joins its service or says again what it is. */
export function putMember(
  directory: Directory,
  caller: Caller,
  serviceName: string,
  name: string,
  request: MemberRequest,
  by: Enrolment,
): Decision<Member> {
  const service = directory.services.get(serviceName)
  if (service === undefined)
    throw new Problem('not-found', `there is no service '${serviceName}'; make it first`)
  if (serviceName === CORE_SERVICE)
    throw new Problem('forbidden', 'the members of core are the cores themselves')
  if (!isLabel(name)) {
    throw new Problem('bad-request', `a member's name is one DNS label in lower case, not '${name}'`, 'name')
  }
  const before = directory.members.get(memberKey(serviceName, name))
  const changes: Change[] = []
  const host = hostOfMember(directory, caller, service, name, request, by, changes)
  refuseTakenMember(directory, before, host)
  refuseCrowd(directory, service, name, host)
  const member = memberFrom(service, name, host, request, before, caller)
  const same = before !== undefined && sameRecord(before, member)
  if (!same) changes.push({ kind: 'members', key: memberKey(serviceName, name), value: member })
  return { changes, result: member }
}

/** The host that the request is about, if the caller may speak for it; for an administrator's member without agent, one is made. */
function hostOfMember(
  directory: Directory,
  caller: Caller,
  service: Service,
  name: string,
  request: MemberRequest,
  by: Enrolment,
  changes: Change[],
): Host {
  if (caller.kind === 'anonymous') {
    throw new Problem('unauthorized', 'register the host first (PUT /v1/hosts/NAME), then use its credential')
  }
  if (caller.kind === 'admin' && request.host === undefined) {
    return agentlessHost(directory, service, name, request, by, changes)
  }
  const hostName = request.host ?? (caller.kind === 'host' ? caller.host : name)
  const host = directory.hosts.get(hostName)
  if (host === undefined) {
    throw new Problem(
      'not-found',
      `there is no host '${hostName}'; register it first (PUT /v1/hosts/${hostName})`,
      'host',
    )
  }
  if (caller.kind === 'admin') return host
  if (caller.kind === 'host' ? caller.host !== hostName : caller.token.id !== host.tokenId) {
    throw new Problem('forbidden', `this credential may not speak for the host '${hostName}'`, 'host')
  }
  if (request.check !== undefined) {
    throw new Problem('bad-request', 'check is for members without agent; an agent checks its own', 'check')
  }
  if (host.presence === 'left') {
    throw new Problem(
      'conflict',
      `the host '${hostName}' said goodbye; register it again first (PUT /v1/hosts/${hostName})`,
      'host',
    )
  }
  const before = directory.members.get(memberKey(service.name, name))
  if (before?.host !== hostName) {
    requireMayServe(directory, host, service)
    if (membersOf(directory, hostName).length >= MEMBERS_PER_HOST) {
      throw new Problem(
        'conflict',
        `the host '${hostName}' has ${MEMBERS_PER_HOST} members: that is the limit`,
        'host',
      )
    }
  }
  return host
}

/** The token that a host joined by says which services it may serve; open services take any host. What it serves already outlives the token. */
function requireMayServe(directory: Directory, host: Host, service: Service): void {
  if (service.join === 'open') return
  const token = host.tokenId === null ? undefined : directory.tokens.get(host.tokenId)
  if (token !== undefined && covers(token, service.name)) return
  const why =
    token === undefined
      ? 'joined without a token that is still valid'
      : 'joined by a token for other services'
  throw new Problem(
    'forbidden',
    `the host '${host.name}' ${why}: it may not serve '${service.name}'; join with a token made by \`nearcast token create --service ${service.name}\``,
  )
}

function agentlessHost(
  directory: Directory,
  service: Service,
  name: string,
  request: MemberRequest,
  by: Enrolment,
  changes: Change[],
): Host {
  const hostName = `${name}.${service.name}`
  const before = directory.hosts.get(hostName)
  const addresses = [...new Set((request.addresses ?? []).map(hostAddress))]
  if (addresses.length === 0) {
    throw new Problem('bad-request', 'a member without agent needs its addresses', 'addresses')
  }
  if (request.check === undefined && request.port === undefined && request.url === undefined) {
    throw new Problem(
      'bad-request',
      'a member without agent needs a port, a url or a check: nearby hosts check it by that',
      'port',
    )
  }
  const host: Host = {
    name: hostName,
    agent: false,
    addresses,
    proofs: Object.fromEntries(addresses.map((address) => [address, 'vouched'] as const)),
    echo: null,
    echoKey: '',
    publicAddress: null,
    publicPort: null,
    reachable: null,
    home: by.home,
    leaseSec: LEASE_SEC.default,
    presence: 'live',
    presenceSinceMs: before?.presenceSinceMs ?? by.epochMs,
    coordinate: before?.coordinate ?? null,
    ...(before?.meshMs && { meshMs: before.meshMs }),
    place: by.placeOf(addresses[0]!),
    credentialHash: null,
    tokenId: null,
  }
  if (before === undefined || !sameRecord(before, host))
    changes.push({ kind: 'hosts', key: hostName, value: host })
  return host
}

function refuseTakenMember(directory: Directory, before: Member | undefined, host: Host): void {
  if (before === undefined || before.host === host.name || before.left) return
  if (directory.hosts.get(before.host)?.presence !== 'live') return
  throw new Problem(
    'conflict',
    `the member '${before.service}/${before.name}' is held by the live host '${before.host}'`,
    'name',
  )
}

/** With `join: open`, one network may not fill a service. */
function refuseCrowd(directory: Directory, service: Service, name: string, host: Host): void {
  if (service.join !== 'open' || service.maxPerPrefix === 0) return
  const prefix = localityPrefix(parseAddress(host.publicAddress ?? host.addresses[0]!)!)
  let crowd = 0
  for (const member of directory.members.values()) {
    if (member.service !== service.name || member.name === name || member.left) continue
    const other = directory.hosts.get(member.host)
    const address = other === undefined ? null : parseAddress(other.publicAddress ?? other.addresses[0]!)
    if (address !== null && contains(prefix, address)) crowd++
  }
  if (crowd >= service.maxPerPrefix) {
    throw new Problem(
      'conflict',
      `'${service.name}' takes ${service.maxPerPrefix} members from one network, and yours has them`,
    )
  }
}

function memberFrom(
  service: Service,
  name: string,
  host: Host,
  request: MemberRequest,
  before: Member | undefined,
  caller: Caller,
): Member {
  const addresses = [...new Set((request.addresses ?? []).map((text) => canonicalAddress(text, 'addresses')))]
  for (const address of addresses) {
    if (!host.addresses.includes(address)) {
      throw new Problem('bad-request', `${address} is not an address of the host '${host.name}'`, 'addresses')
    }
  }
  const { tier } = request.attributes ?? {}
  if (tier !== undefined && !/^\d{1,9}$/.test(tier)) {
    throw new Problem(
      'bad-request',
      `the attribute tier orders members: a whole number from 0, not '${tier}'`,
      'attributes',
    )
  }
  const url = request.url === undefined ? null : canonicalUrl(request.url, 'url')
  if (url !== null && caller.kind !== 'admin') refuseForeignUrl(service, host, url)
  const check = request.check === undefined ? null : canonicalCheck(request.check)
  return {
    service: service.name,
    name,
    host: host.name,
    addresses: host.agent ? addresses : [],
    port: request.port ?? (url === null ? null : urlPort(url)),
    url: url?.href ?? null,
    attributes: request.attributes ?? {},
    weight: request.weight ?? 1,
    capacity: request.capacity ?? 1,
    load: request.load === undefined ? (before?.load ?? null) : request.load,
    health: request.health ?? (before?.left === false ? before.health : 'unknown'),
    drained: before?.drained ?? false,
    left: false,
    check: host.agent ? null : (check ?? defaultCheck(host, request.port, url)),
  }
}

/** A redirect must not lead where the host has nothing to say: to its own addresses, or to names the service lists. */
function refuseForeignUrl(service: Service, host: Host, url: URL): void {
  const name = withoutBrackets(url.hostname)
  const address = parseAddress(name)
  const own = address !== null && host.addresses.includes(formatAddress(address))
  const listed = service.urlHosts.some((pattern) =>
    pattern.startsWith('*.')
      ? name.endsWith(pattern.slice(1)) && name.length > pattern.length - 1
      : name === pattern,
  )
  if (own || listed) return
  throw new Problem(
    'forbidden',
    `the URL's host '${name}' is neither an address of '${host.name}' nor among the service's urlHosts; \`nearcast service put ${service.name} --url-host ${name}\` allows it`,
    'url',
  )
}

function urlPort(url: URL): number {
  if (url.port !== '') return Number(url.port)
  return url.protocol === 'https:' ? 443 : 80
}

function canonicalCheck(text: string): string {
  const web = /^https?:/.test(text)
  const url = URL.canParse(text) ? new URL(text) : null
  if (url === null || (!web && (url.protocol !== 'tcp:' || url.port === ''))) {
    throw new Problem('bad-request', `'${text}' is neither tcp://HOST:PORT nor an http(s) URL`, 'check')
  }
  return text
}

function defaultCheck(host: Host, port: number | undefined, url: URL | null): string {
  if (url !== null) return url.href
  return `tcp://${formatHostPort({ host: host.addresses[0]!, port: port! })}`
}

/** A member leaves (its host says so: kept as left), or is taken off the books (an administrator). */
export function removeMember(
  directory: Directory,
  caller: Caller,
  serviceName: string,
  name: string,
): Decision<void> {
  const key = memberKey(serviceName, name)
  const member = directory.members.get(key)
  if (member === undefined) throw new Problem('not-found', `there is no member '${key}'`)
  if (serviceName === CORE_SERVICE) throw new Problem('forbidden', `'${name}' is a core; stop it instead`)
  if (caller.kind === 'host' && caller.host === member.host) {
    // What joined openly is not remembered: anyone could fill the books with goodbyes.
    const value = directory.hosts.get(member.host)?.tokenId == null ? null : { ...member, left: true }
    return { changes: [{ kind: 'members', key, value }], result: undefined }
  }
  requireAdmin(caller)
  const changes: Change[] = [{ kind: 'members', key, value: null }]
  if (directory.hosts.get(member.host)?.agent === false) {
    changes.push({ kind: 'hosts', key: member.host, value: null })
  }
  return { changes, result: undefined }
}

/** Takes a member out of choice, or back in, without its host leaving. */
export function setDrained(
  directory: Directory,
  caller: Caller,
  serviceName: string,
  name: string,
  drained: boolean,
): Decision<Member> {
  const key = memberKey(serviceName, name)
  const member = directory.members.get(key)
  if (member === undefined) throw new Problem('not-found', `there is no member '${key}'`)
  if (!(caller.kind === 'host' && caller.host === member.host)) requireAdmin(caller)
  const value = { ...member, drained }
  return { changes: member.drained === drained ? [] : [{ kind: 'members', key, value }], result: value }
}

/** What a heartbeat says that must be kept: a silent host is back, a member's health flipped. Others' members are passed over. */
export function heardChanges(directory: Directory, hostName: string, beat: Beat, epochMs: number): Change[] {
  const host = directory.hosts.get(hostName)
  if (host === undefined || host.presence === 'left') return []
  const changes: Change[] = []
  if (host.presence === 'silent') {
    changes.push({
      kind: 'hosts',
      key: hostName,
      value: { ...host, presence: 'live', presenceSinceMs: epochMs },
    })
  }
  for (const { service, name, health } of beat.members ?? []) {
    const member = directory.members.get(memberKey(service, name))
    if (health === undefined || member?.host !== hostName || member.health === health) continue
    changes.push({ kind: 'members', key: memberKey(service, name), value: { ...member, health } })
  }
  return changes
}

/** What a heartbeat says of loads: answered with at once, not worth a write each. */
export function loadChanges(directory: Directory, host: Host, beat: Beat): Change[] {
  const changes: Change[] = []
  for (const { service, name, load } of beat.members ?? []) {
    const member = directory.members.get(memberKey(service, name))
    if (load === undefined || member?.host !== host.name || member.load === load) continue
    changes.push({ kind: 'members', key: memberKey(service, name), value: { ...member, load } })
  }
  return changes
}

/** Health that checks by other hosts decided, by member key. */
export function healthChanges(
  directory: Directory,
  decided: readonly { member: string; health: Health }[],
): Change[] {
  const changes: Change[] = []
  for (const { member: key, health } of decided) {
    const member = directory.members.get(key)
    if (member === undefined || member.health === health) continue
    changes.push({ kind: 'members', key, value: { ...member, health } })
  }
  return changes
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
  return sameRecord(host, value) ? [] : [{ kind: 'hosts', key: host.name, value }]
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
