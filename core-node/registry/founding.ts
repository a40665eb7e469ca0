// What a core needs in its directory before it can answer: the service `core`, and itself as its member.
//
// Pure: (books, settings, facts of the start) -> records to commit. Said anew at each start, since addresses and
// names are settings; with one core alone, members of that service by other names are its old ones.

import { formatHostPort } from '../../resolver/address.ts'
import { type Change, CORE_SERVICE, type Host, type Member, memberKey } from '../../resolver/directory.ts'
import { LEASE_SEC } from '../../server-agent/protocol/messages.ts'
import type { Config } from '../settings/config.ts'
import type { Books } from './books.ts'
import { serviceFrom } from './services.ts'

interface Founding {
  readonly config: Config
  readonly epochMs: number
  readonly echoPort: number
  readonly place: Host['place']
  /** For a core that has no echo key yet. */
  readonly echoKey: string
  /** No other core shares the store. */
  readonly isAlone: boolean
}

export function foundingChanges(books: Books, founding: Founding): Change[] {
  const { name } = founding.config
  const changes: Change[] = []
  if (!books.services.has(CORE_SERVICE)) {
    changes.push({ kind: 'services', key: CORE_SERVICE, value: serviceFrom(CORE_SERVICE, {}) })
  }
  for (const member of founding.isAlone ? books.members.values() : []) {
    if (member.service !== CORE_SERVICE || member.name === name) continue
    const key = memberKey(CORE_SERVICE, member.name)
    changes.push({ kind: 'members', key, value: null }, { kind: 'hosts', key: member.host, value: null })
  }
  changes.push({ kind: 'hosts', key: name, value: ownHost(founding, books.hosts.get(name)) })
  changes.push({ kind: 'members', key: memberKey(CORE_SERVICE, name), value: ownMember(founding) })
  return changes
}

function ownHost({ config, epochMs, echoPort, place, echoKey }: Founding, before: Host | undefined): Host {
  const addresses = config.advertise
  return {
    name: config.name,
    agent: true,
    addresses,
    proofs: Object.fromEntries(addresses.map((address) => [address, 'vouched'] as const)),
    echo: { address: addresses[0]!, port: echoPort },
    echoKey: before?.echoKey || echoKey,
    publicAddress: null,
    publicPort: null,
    reachable: true,
    home: config.name,
    leaseSec: LEASE_SEC.default,
    presence: 'live',
    presenceSinceMs: epochMs,
    coordinate: before?.coordinate ?? null,
    ...(before?.meshMs && { meshMs: before.meshMs }),
    place,
    credentialHash: null,
    tokenId: null,
  }
}

function ownMember({ config }: Founding): Member {
  const { port } = config.http[0]!
  return {
    service: CORE_SERVICE,
    name: config.name,
    host: config.name,
    addresses: [],
    // Port 0 is any: a test's core, which nobody looks up.
    port: port === 0 ? null : port,
    url: port === 0 ? null : ownUrl(config, port),
    attributes: {},
    weight: 1,
    capacity: 1,
    load: null,
    health: 'up',
    drained: false,
    left: false,
    check: null,
  }
}

function ownUrl({ httpUrl, tlsCert, advertise }: Config, port: number): string {
  const scheme = tlsCert === null ? 'http' : 'https'
  return httpUrl ?? `${scheme}://${formatHostPort({ host: advertise[0]!, port })}/`
}
