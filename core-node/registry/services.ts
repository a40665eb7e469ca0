// The registry's rules for services: what an operator's request becomes.
//
// Pure, as caller.ts says. A PUT is the whole service and may be repeated: what equals the record changes
// nothing. Names and aliases are given once over all services.

import { type Static, Type } from 'typebox'
import {
  type AllDown,
  type Change,
  CORE_SERVICE,
  isIndexed,
  isLabel,
  MAX_WEIGHED,
  memberKey,
  POLICIES,
  type Policy,
  type Service,
} from '../../resolver/directory.ts'
import { Attributes } from '../../server-agent/protocol/messages.ts'
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
import { knownService } from './known.ts'

const closed = { additionalProperties: false }

/** What an operator says of a service; keys left out get their defaults (a PUT is the whole service). */
export const ServiceRequest = Type.Object(
  {
    policy: Type.Optional(
      Type.Unsafe<Policy>(
        Type.Union(
          POLICIES.map((policy) => Type.Literal(policy)),
          { default: 'nearest' },
        ),
      ),
    ),
    ttl: Type.Optional(Type.Integer({ minimum: 0, maximum: 86_400, default: 30, description: 'Seconds' })),
    minAddrs: Type.Optional(Type.Integer({ minimum: 1, maximum: 16, default: 1 })),
    maxAddrs: Type.Optional(Type.Integer({ minimum: 1, maximum: 16, default: 2 })),
    tieMs: Type.Optional(
      Type.Number({
        minimum: 0,
        maximum: 10_000,
        default: 2,
        description: 'Members so close to the best share its clients',
      }),
    ),
    stickyMs: Type.Optional(
      Type.Number({
        minimum: 0,
        maximum: 10_000,
        default: 10,
        description: 'A locality changes its member only for a gain of so many ms',
      }),
    ),
    stickyRatio: Type.Optional(
      Type.Number({
        minimum: 0,
        maximum: 1,
        default: 0.8,
        description: '... and only to one at most this share as far',
      }),
    ),
    where: Type.Optional(Attributes),
    aliases: Type.Optional(
      Type.Array(Type.String({ maxLength: 253 }), {
        maxItems: 64,
        description: 'Labels in the zone, or full names that you point here',
      }),
    ),
    urlHosts: Type.Optional(
      Type.Array(Type.String({ maxLength: 253 }), {
        maxItems: 256,
        description: 'Host names that members’ URLs may use; `*.` covers one label or more',
      }),
    ),
    join: Type.Optional(Type.Union([Type.Literal('token'), Type.Literal('open')], { default: 'token' })),
    maxPerPrefix: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 1_000_000,
        default: 0,
        description: 'With join open: members from one /24 (/48); 0: no limit',
      }),
    ),
    verify: Type.Optional(
      Type.Union([Type.Literal('echo'), Type.Literal('seen'), Type.Literal('none')], { default: 'echo' }),
    ),
    allDown: Type.Optional(
      Type.Union([Type.Literal('stale'), Type.Literal('fallback'), Type.Literal('empty')], {
        default: 'stale',
      }),
    ),
    fallbackAddresses: Type.Optional(Type.Array(Type.String({ maxLength: 45 }), { maxItems: 8 })),
    fallbackUrl: Type.Optional(Type.String({ maxLength: 2048, pattern: '^https?://' })),
  },
  closed,
)
export type ServiceRequest = Static<typeof ServiceRequest>

/** Makes or replaces a service. Problems: bad-request with its field, conflict over a name. */
export function putService(
  books: Books,
  caller: Caller,
  name: string,
  request: ServiceRequest,
  zones: readonly string[],
): Decision<{ service: Service; created: boolean }> {
  requireAdmin(caller)
  if (!isLabel(name)) {
    throw new Problem('bad-request', `a service's name is one DNS label in lower case, not '${name}'`, 'name')
  }
  if (name === CORE_SERVICE)
    throw new Problem('forbidden', `the service '${CORE_SERVICE}' is built in`, 'name')
  const service = withinZones(serviceFrom(name, request), zones)
  refuseTakenNames(books, service)
  if (!isIndexed(service.policy) && books.index.sizeOf(name) > MAX_WEIGHED) {
    throw new Problem(
      'conflict',
      `the service '${name}' has ${books.index.sizeOf(name)} members: under the policy ${service.policy} ${MAX_WEIGHED} are the most`,
      'policy',
    )
  }
  const before = books.services.get(name)
  const same = before !== undefined && sameRecord(before, service)
  return {
    changes: same
      ? []
      : [{ kind: 'services', key: name, value: service }, ...aliasesTaken(books, before, service)],
    result: { service, created: before === undefined },
  }
}

/**
 * Where it takes new aliases, the built-in service is put as it is: of two cores that give the same alias away at one
 * moment, one decides anew. (A name is a record's own; where it is another's alias too, the name counts.)
 */
function aliasesTaken(books: Books, before: Service | undefined, service: Service): Change[] {
  const core = books.services.get(CORE_SERVICE)
  const isNew = service.aliases.some((alias) => !before?.aliases.includes(alias))
  return core !== undefined && isNew ? [{ kind: 'services', key: CORE_SERVICE, value: core }] : []
}

/** A service by its request, defaults filled in. */
export function serviceFrom(name: string, request: ServiceRequest): Service {
  const { minAddrs = 1, maxAddrs = Math.max(2, minAddrs) } = request
  if (minAddrs > maxAddrs) {
    throw new Problem(
      'bad-request',
      `minAddrs (${minAddrs}) must not be over maxAddrs (${maxAddrs})`,
      'minAddrs',
    )
  }
  return {
    name,
    policy: request.policy ?? 'nearest',
    ttlSec: request.ttl ?? 30,
    minAddrs,
    maxAddrs,
    tieMs: request.tieMs ?? 2,
    stickyMs: request.stickyMs ?? 10,
    stickyRatio: request.stickyRatio ?? 0.8,
    where: request.where ?? {},
    aliases: (request.aliases ?? []).map((alias) => hostName(alias, 'aliases')),
    urlHosts: (request.urlHosts ?? []).map(urlHostPattern),
    join: request.join ?? 'token',
    maxPerPrefix: request.maxPerPrefix ?? 0,
    verify: request.verify ?? 'echo',
    allDown: allDownFrom(request),
  }
}

/** Aliases inside a zone are labels of it, so that one name is written one way: they are in the other zones too. */
function withinZones(service: Service, zones: readonly string[]): Service {
  const aliases = service.aliases.map((alias) => {
    if (zones.includes(alias)) throw new Problem('bad-request', `'${alias}' is the zone itself`, 'aliases')
    const zone = zones.find((name) => alias.endsWith(`.${name}`))
    if (zone === undefined) return alias
    const label = alias.slice(0, -zone.length - 1)
    // What is deeper belongs to the service above it: its members' names stand there.
    if (!isLabel(label))
      throw new Problem('bad-request', `'${alias}' is more than one label below ${zone}`, 'aliases')
    return label
  })
  return { ...service, aliases: [...new Set(aliases)] }
}

function allDownFrom(request: ServiceRequest): AllDown {
  const mode = request.allDown ?? 'stale'
  const addresses = (request.fallbackAddresses ?? []).map((text) =>
    canonicalAddress(text, 'fallbackAddresses'),
  )
  const url = request.fallbackUrl === undefined ? null : canonicalUrl(request.fallbackUrl, 'fallbackUrl').href
  if (mode === 'fallback') {
    if (addresses.length === 0 && url === null) {
      throw new Problem('bad-request', 'allDown fallback needs fallbackAddresses or fallbackUrl', 'allDown')
    }
    return { mode, addresses, url }
  }
  if (addresses.length > 0 || url !== null) {
    throw new Problem(
      'bad-request',
      `fallbackAddresses and fallbackUrl go with allDown fallback, not ${mode}`,
      'allDown',
    )
  }
  return { mode }
}

function refuseTakenNames(books: Books, service: Service): void {
  const wanted = new Set([service.name, ...service.aliases])
  for (const other of books.services.values()) {
    if (other.name === service.name) continue
    for (const name of [other.name, ...other.aliases]) {
      if (!wanted.has(name)) continue
      const field = name === service.name ? 'name' : 'aliases'
      throw new Problem('conflict', `'${name}' already names the service '${other.name}'`, field)
    }
  }
}

/** Removes a service with its members, and the agentless hosts that were nothing else. */
export function removeService(books: Books, caller: Caller, name: string): Decision<void> {
  requireAdmin(caller)
  if (name === CORE_SERVICE)
    throw new Problem('forbidden', `the service '${CORE_SERVICE}' is built in`, 'name')
  knownService(books, name)
  const changes: Change[] = [{ kind: 'services', key: name, value: null }]
  for (const member of books.members.values()) {
    if (member.service !== name) continue
    changes.push({ kind: 'members', key: memberKey(name, member.name), value: null })
    if (books.hosts.get(member.host)?.agent === false) {
      changes.push({ kind: 'hosts', key: member.host, value: null })
    }
  }
  return { changes, result: undefined }
}

/** A host name in lower case without final dot, or a Problem at `field`. */
function hostName(text: string, field: string): string {
  const name = text.toLowerCase().replace(/\.$/, '')
  if (name.length > 253 || !name.split('.').every(isLabel)) {
    throw new Problem('bad-request', `'${text}' is not a host name`, field)
  }
  return name
}

function urlHostPattern(text: string): string {
  return text.startsWith('*.') ? `*.${hostName(text.slice(2), 'urlHosts')}` : hostName(text, 'urlHosts')
}
