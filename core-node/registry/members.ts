// The registry's rules for members: taking part in a service, leaving it, being drained.
//
// Pure, as caller.ts says. A host changes its own members, an administrator any; a token speaks for the
// hosts that joined by it. A redirect never leads where the host has nothing to say.

import { formatAddress, formatHostPort, parseAddress, withoutBrackets } from '../../resolver/address.ts'
import {
  type Change,
  CORE_SERVICE,
  type Host,
  isIndexed,
  isLabel,
  MAX_WEIGHED,
  type Member,
  memberKey,
  type Service,
} from '../../resolver/directory.ts'
import { LEASE_SEC, type MemberRequest } from '../../server-agent/protocol/messages.ts'
import { Problem } from '../problem.ts'
import type { Books } from './books.ts'
import {
  type Caller,
  canonicalAddress,
  canonicalUrl,
  type Decision,
  requireAdmin,
  sameRecord,
} from './caller.ts'
import { refuseCrowd } from './crowd.ts'
import { covers, type Enrolment, hostAddress, leaving } from './hosts.ts'
import { knownMember } from './known.ts'

/** Members of one host, those that left included: what a machine can serve, not what it can make up. */
const MEMBERS_PER_HOST = 1000

/** A member joins its service or says again what it is. */
export function putMember(
  books: Books,
  caller: Caller,
  serviceName: string,
  name: string,
  request: MemberRequest,
  by: Enrolment,
): Decision<Member> {
  const service = books.services.get(serviceName)
  if (service === undefined)
    throw new Problem('not-found', `there is no service '${serviceName}'; make it first`)
  if (serviceName === CORE_SERVICE)
    throw new Problem('forbidden', 'the members of core are the cores themselves')
  if (!isLabel(name)) {
    throw new Problem('bad-request', `a member's name is one DNS label in lower case, not '${name}'`, 'name')
  }
  const before = books.members.get(memberKey(serviceName, name))
  const changes: Change[] = []
  const host = hostOfMember(books, caller, service, name, request, by, changes)
  refuseTakenMember(books, before, host)
  refuseCrowd(books, service, name, host)
  if (before === undefined) refuseTooMany(books, service)
  const member = memberFrom(service, name, host, request, before, caller)
  const same = before !== undefined && sameRecord(before, member)
  if (!same) changes.push({ kind: 'members', key: memberKey(serviceName, name), value: member })
  return { changes, result: member }
}

/** Where each answer weighs all members, one too many would hold up all other answers. */
function refuseTooMany(books: Books, { name, policy }: Service): void {
  if (isIndexed(policy) || books.index.sizeOf(name) < MAX_WEIGHED) return
  throw new Problem(
    'conflict',
    `the service '${name}' has ${MAX_WEIGHED} members, the most under the policy ${policy}; nearest and random have no bound`,
  )
}

/** The host that the request is about, if the caller may speak for it; for an administrator's member without agent, one is made. */
function hostOfMember(
  books: Books,
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
    return agentlessHost(books, service, name, request, by, changes)
  }
  const hostName = request.host ?? (caller.kind === 'host' ? caller.host : name)
  const host = books.hosts.get(hostName)
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
  const before = books.members.get(memberKey(service.name, name))
  if (before?.host !== hostName) {
    requireMayServe(books, host, service)
    if (books.index.memberCount(hostName) >= MEMBERS_PER_HOST) {
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
function requireMayServe(books: Books, host: Host, service: Service): void {
  if (service.join === 'open') return
  const token = host.tokenId === null ? undefined : books.tokens.get(host.tokenId)
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
  books: Books,
  service: Service,
  name: string,
  request: MemberRequest,
  by: Enrolment,
  changes: Change[],
): Host {
  const hostName = `${name}.${service.name}`
  const before = books.hosts.get(hostName)
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
    ...(before?.presenceBy && { presenceBy: before.presenceBy }),
  }
  if (before === undefined || !sameRecord(before, host))
    changes.push({ kind: 'hosts', key: hostName, value: host })
  return host
}

function refuseTakenMember(books: Books, before: Member | undefined, host: Host): void {
  if (before === undefined || before.host === host.name || before.left) return
  if (books.hosts.get(before.host)?.presence !== 'live') return
  throw new Problem(
    'conflict',
    `the member '${before.service}/${before.name}' is held by the live host '${before.host}'`,
    'name',
  )
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
  books: Books,
  caller: Caller,
  serviceName: string,
  name: string,
): Decision<void> {
  const key = memberKey(serviceName, name)
  const member = knownMember(books, serviceName, name)
  if (serviceName === CORE_SERVICE) throw new Problem('forbidden', `'${name}' is a core; stop it instead`)
  if (caller.kind === 'host' && caller.host === member.host) {
    return { changes: [leaving(books.hosts.get(member.host), member)], result: undefined }
  }
  requireAdmin(caller)
  const changes: Change[] = [{ kind: 'members', key, value: null }]
  if (books.hosts.get(member.host)?.agent === false) {
    changes.push({ kind: 'hosts', key: member.host, value: null })
  }
  return { changes, result: undefined }
}

/** Takes a member out of choice, or back in, without its host leaving. */
export function setDrained(
  books: Books,
  caller: Caller,
  serviceName: string,
  name: string,
  drained: boolean,
): Decision<Member> {
  const key = memberKey(serviceName, name)
  const member = knownMember(books, serviceName, name)
  if (!(caller.kind === 'host' && caller.host === member.host)) requireAdmin(caller)
  const value = { ...member, drained }
  return { changes: member.drained === drained ? [] : [{ kind: 'members', key, value }], result: value }
}
