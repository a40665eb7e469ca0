// Records of the directory for tests, as changes to apply: plain ones, with what a test is about said on top.

import type { Change, Host, LocalityRecord, Member, Service } from '../../resolver/directory.ts'

export function service(name: string, over: Partial<Service> = {}): Change {
  const value: Service = {
    name,
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
  return { kind: 'services', key: name, value }
}

export function host(name: string, addresses: readonly string[], over: Partial<Host> = {}): Change {
  const value: Host = {
    name,
    agent: true,
    addresses,
    proofs: Object.fromEntries(addresses.map((address) => [address, 'echo' as const])),
    echo: null,
    echoKey: '',
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
  return { kind: 'hosts', key: name, value }
}

export function member(service: string, name: string, over: Partial<Member> = {}): Change {
  const value: Member = {
    service,
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
    check: null,
    left: false,
    ...over,
  }
  return { kind: 'members', key: `${service}/${name}`, value }
}

export function locality(prefix: string, rtts: Readonly<Record<string, number>>): Change {
  const evidence = Object.entries(rtts).map(([host, rttMs]) => ({
    host,
    rttMs,
    count: 20,
    atMs: 0,
    kind: 'active' as const,
  }))
  const value: LocalityRecord = { prefix, evidence, incumbents: {} }
  return { kind: 'localities', key: prefix, value }
}
