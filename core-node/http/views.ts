// Records as the API shows them: directory and tables -> JSON shapes of schemas.ts.
//
// Invariant: no secret gets out here: no key, no hash of a credential or token. Pure.

import type { Host, Member, Service, Token } from '../../resolver/directory.ts'
import type { Core } from '../core.ts'
import { STATE_HINTS } from '../registry/state-hints.ts'
import type { HostView, MemberView, ServiceReply, TokenView } from './schemas.ts'

export function viewService(core: Core, service: Service): ServiceReply {
  const { ttlSec, allDown, name, policy, where, aliases, ...rest } = service
  const members = core.tables.service(name)?.members ?? []
  return {
    ...rest,
    name,
    policy,
    ttl: ttlSec,
    where: { ...where },
    aliases: [...aliases],
    urlHosts: [...service.urlHosts],
    allDown: allDown.mode,
    ...(allDown.mode === 'fallback' ? { fallbackAddresses: [...allDown.addresses] } : {}),
    ...(allDown.mode === 'fallback' && allDown.url !== null ? { fallbackUrl: allDown.url } : {}),
    members: { live: core.tables.liveMembers(name), total: members.length },
  }
}

/** The directory's record with the state that answers go by. */
export function viewMember(core: Core, member: Member): MemberView {
  const serving = core.tables.member(member.service, member.name)
  const host = core.directory.hosts.get(member.host)
  const state = serving?.state ?? 'left'
  const hint = STATE_HINTS[state]
  return {
    service: member.service,
    name: member.name,
    host: member.host,
    state,
    ...(hint === undefined ? {} : { hint }),
    addresses: [...(member.addresses.length > 0 ? member.addresses : (host?.addresses ?? []))],
    port: member.port,
    url: member.url,
    attributes: { ...member.attributes },
    weight: member.weight,
    capacity: member.capacity,
    load: member.load,
    health: member.health,
    drained: member.drained,
    sinceMs: serving?.sinceMs ?? null,
    reachable: serving?.reachable ?? null,
  }
}

export function viewHost(core: Core, host: Host): HostView {
  return {
    name: host.name,
    agent: host.agent,
    addresses: [...host.addresses],
    proofs: { ...host.proofs },
    echo: host.echo,
    publicAddress: host.publicAddress,
    publicPort: host.publicPort,
    reachable: host.reachable,
    home: host.home,
    leaseSec: host.leaseSec,
    presence: host.presence,
    presenceSinceMs: host.presenceSinceMs,
    ...(host.presenceBy && { presenceBy: host.presenceBy }),
    coordinate: host.coordinate === null ? null : { ...host.coordinate, vec: [...host.coordinate.vec] },
    place: host.place,
    tokenId: host.tokenId,
    members: [...core.tables.hosts.membersOf(core.tables.hostRow(host.name))],
  }
}

export function viewToken(token: Token): TokenView {
  const { id, scope, note, createdMs } = token
  return { id, admin: scope.admin, services: scope.admin ? [] : [...scope.services], note, createdMs }
}
