// Records of the directory for tests, and as changes to apply: plain ones, with what a test is about said on top.

import {
  type Change,
  type Host,
  type LocalityRecord,
  type Member,
  memberKey,
  type Service,
} from '../../resolver/directory.ts'

export function aService(over: Partial<Service> = {}): Service {
  return {
    name: 'web',
    policy: 'nearest',
    ttlSec: 30,
    minAddrs: 1,
    maxAddrs: 2,
    tieMs: 2,
    stickyMs: 10,
    stickyRatio: 0.8,
    where: {},
    aliases: [],
    urlHosts: [],
    join: 'token',
    maxPerPrefix: 0,
    verify: 'none',
    allDown: { mode: 'stale' },
    ...over,
  }
}

/** Its addresses are proved by echo. */
export function aHost(name: string, over: Partial<Host> = {}): Host {
  const addresses = over.addresses ?? []
  return {
    name,
    agent: true,
    addresses,
    proofs: Object.fromEntries(addresses.map((address) => [address, 'echo' as const])),
    echo: null,
    echoKey: '00',
    publicAddress: null,
    publicPort: null,
    reachable: true,
    home: 'core-a',
    leaseSec: 8,
    presence: 'live',
    presenceSinceMs: 0,
    coordinate: null,
    place: null,
    credentialHash: null,
    tokenId: null,
    ...over,
  }
}

/** On the host of its name. */
export function aMember(name: string, over: Partial<Member> = {}): Member {
  return {
    service: 'web',
    name,
    host: name,
    addresses: [],
    port: null,
    url: null,
    attributes: {},
    weight: 1,
    capacity: 1,
    load: null,
    health: 'up',
    drained: false,
    left: false,
    check: null,
    ...over,
  }
}

export const ofService = (value: Service): Change => ({ kind: 'services', key: value.name, value })
export const ofHost = (value: Host): Change => ({ kind: 'hosts', key: value.name, value })
export const ofMember = (value: Member): Change => ({
  kind: 'members',
  key: memberKey(value.service, value.name),
  value,
})
export const ofLocality = (value: LocalityRecord): Change => ({
  kind: 'localities',
  key: value.prefix,
  value,
})

export function service(name: string, over: Partial<Service> = {}): Change {
  return ofService(aService({ name, ...over }))
}

export function host(name: string, addresses: readonly string[], over: Partial<Host> = {}): Change {
  return ofHost(aHost(name, { addresses, ...over }))
}

export function member(service: string, name: string, over: Partial<Member> = {}): Change {
  return ofMember(aMember(name, { service, ...over }))
}

export function locality(prefix: string, rtts: Readonly<Record<string, number>>): Change {
  const evidence = Object.entries(rtts).map(([host, rttMs]) => ({
    host,
    rttMs,
    count: 20,
    atMs: 0,
    kind: 'active' as const,
  }))
  return ofLocality({ prefix, evidence, incumbents: {} })
}
