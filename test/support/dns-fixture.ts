// A zone with something of everything in it, and a client that asks about it with another's codec (dns-packet).

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import packet, { type Packet } from 'dns-packet'
import { parseAddress, parsePrefix } from '../../resolver/address.ts'
import type { Change } from '../../resolver/directory.ts'
import { type Asker, answerDns, type DnsContext, type DnsFacts } from '../../resolver/dns-answer.ts'
import { Tables } from '../../resolver/tables.ts'
import { host, locality, member, service } from './records.ts'
import { seededRng } from './seeded-rng.ts'

const ZONE = ['any', 'test']

/** Clients of 100.64.1.0/24 are near ams, those of 100.64.2.0/24 near nyc, those of 2001:db8:c::/48 near tok. */
export const DIRECTORY: readonly Change[] = [
  host('ams', ['192.0.2.10', '2001:db8:a::10']),
  host('nyc', ['198.51.100.10', '2001:db8:b::10']),
  host('tok', ['203.0.113.10']),
  host('gone', ['203.0.113.66'], { presence: 'silent', presenceSinceMs: 1 }),
  host('dead', ['203.0.113.77', '2001:db8:dd::1'], { presence: 'silent', presenceSinceMs: 2 }),
  service('core', { maxAddrs: 1 }),
  ...['ams', 'nyc', 'tok'].map((name) => member('core', name)),
  service('mirror', { aliases: ['www', 'mirror.example.org'], maxAddrs: 1 }),
  member('mirror', 'ams', { port: 443, url: 'https://192.0.2.10/pub' }),
  member('mirror', 'nyc', { port: 8443, url: 'https://198.51.100.10:8443/', capacity: 3 }),
  member('mirror', 'tok', { port: 80, url: 'http://203.0.113.10/' }),
  member('mirror', 'gone', { port: 443 }),
  member('mirror', 'rest', { host: 'tok', drained: true }),
  service('pair', { minAddrs: 2, ttlSec: 7 }),
  ...['ams', 'nyc', 'tok'].map((name) => member('pair', name)),
  member('pair', 'ams-2', { host: 'ams' }),
  service('dice', { policy: 'random', maxAddrs: 1 }),
  ...['ams', 'nyc', 'tok'].map((name) => member('dice', name)),
  service('last'),
  member('last', 'gone'),
  member('last', 'dead', { port: 9 }),
  service('spare', { allDown: { mode: 'fallback', addresses: ['192.0.2.99', '2001:db8::99'], url: null } }),
  member('spare', 'gone'),
  service('void', { allDown: { mode: 'empty' } }),
  member('void', 'gone'),
  service('wide', { minAddrs: 16, maxAddrs: 16 }),
  ...Array.from({ length: 16 }, (_, i) => host(`wide-${i}`, [`198.18.0.${i + 1}`, `2001:db8:f::${i + 1}`])),
  ...Array.from({ length: 16 }, (_, i) => member('wide', `wide-${i}`, { port: 1000 + i })),
  locality('100.64.1.0/24', { ams: 5, nyc: 80, tok: 240 }),
  locality('100.64.2.0/24', { ams: 80, nyc: 6, tok: 170 }),
  locality('2001:db8:c::/48', { ams: 250, nyc: 170, tok: 9 }),
]

export function contextOf(changes: readonly Change[], over: Partial<DnsContext> = {}): DnsContext {
  const tables = new Tables()
  tables.apply(changes)
  return {
    tables,
    zones: [{ labels: ZONE, core: 'core-a', serial: 4_000_000_001 }],
    rng: seededRng(1),
    operatorFrom: [parsePrefix('192.0.2.128/25')!],
    nsid: 'core-a',
    version: null,
    cookies: null,
    ...over,
  }
}

export const context = contextOf(DIRECTORY)

export function asker(address = '100.64.1.9', via: Asker['via'] = 'udp'): Asker {
  return {
    address: parseAddress(address)!,
    port: 5353,
    via,
    idleMs: via === 'tcp' ? 10_000 : 0,
    nowMs: 0,
  }
}

interface EcsOption {
  readonly code: 'CLIENT_SUBNET'
  readonly ip: string
  readonly sourcePrefixLength: number
}

export function subnet(ip: string, sourcePrefixLength: number): EcsOption {
  return { code: 'CLIENT_SUBNET', ip, sourcePrefixLength }
}

/** Types that dns-packet has no name for. */
const UNNAMED_TYPES: Readonly<Record<string, number>> = { SVCB: 64, HTTPS: 65, TYPE666: 666 }

/** A query as dns-packet writes it. `options`: EDNS options; null: no EDNS. */
export function queryBytes(
  name: string,
  type: string,
  options: readonly unknown[] | null = [],
  over: object = {},
): Buffer {
  const opt = { type: 'OPT', name: '.', udpPayloadSize: 1232, flags: 0, options: options ?? [] }
  const bytes = packet.encode({
    type: 'query',
    id: 0x1234,
    flags: packet.RECURSION_DESIRED,
    questions: [{ type: type as 'A', name, class: 'IN' }],
    additionals: options === null ? [] : [{ ...opt, ...over } as never],
  })
  const unnamed = UNNAMED_TYPES[type]
  if (unnamed !== undefined) bytes.writeUInt16BE(unnamed, 12 + name.length + 2)
  return bytes
}

export interface Seen {
  readonly bytes: Uint8Array
  readonly message: Packet & { rcode: string }
  readonly facts: DnsFacts
  /** Answer, authority and additional as `TYPE value`, OPT left out. */
  readonly answers: string[]
  readonly authority: string[]
  readonly additional: string[]
  readonly options: readonly {
    code: number
    type?: string
    data?: Buffer
    scopePrefixLength?: number
    sourcePrefixLength?: number
    ip?: string
  }[]
}

export function ask(bytes: Uint8Array, from = asker(), using = context): Seen {
  const { reply, facts } = answerDns(using, bytes, from)
  if (reply === null) throw new Error(`no reply: ${facts.outcome}`)
  return { ...read(reply), facts }
}

/** One query over UDP, and what came back and from where; null: nothing within `limitMs`. */
export async function exchange(
  bytes: Uint8Array,
  port: number,
  { to = '127.0.0.1', from = '', limitMs = 5000 } = {},
): Promise<(Omit<Seen, 'facts'> & { readonly sender: string }) | null> {
  const socket = createSocket(to.includes(':') ? 'udp6' : 'udp4')
  try {
    if (from !== '') {
      socket.bind(0, from)
      await once(socket, 'listening')
    }
    socket.send(bytes, port, to)
    const [reply, sender] = await once(socket, 'message', { signal: AbortSignal.timeout(limitMs) })
    return { ...read(reply as Buffer), sender: (sender as { address: string }).address }
  } catch {
    return null
  } finally {
    socket.close()
  }
}

export function read(reply: Uint8Array): Omit<Seen, 'facts'> {
  const message = packet.decode(Buffer.from(reply)) as unknown as Seen['message']
  const opt = message.additionals?.find((record) => record.type === 'OPT') as unknown as
    | { options: Seen['options'] }
    | undefined
  return {
    bytes: reply,
    message,
    answers: tell(message.answers),
    authority: tell(message.authorities),
    additional: tell(message.additionals),
    options: opt?.options ?? [],
  }
}

function tell(records: Packet['answers']): string[] {
  return (records ?? [])
    .filter(({ type }) => type !== 'OPT')
    .map((record) => {
      const { type, data } = record as { type: string; data: unknown }
      if (type === 'SRV') {
        const { priority, weight, port, target } = data as Record<string, unknown>
        return `SRV ${priority} ${weight} ${port} ${target}`
      }
      if (type === 'SOA')
        return `SOA ${record.name} ${(data as { mname: string }).mname} ${(data as { minimum: number }).minimum}`
      const text =
        type === 'TXT' ? (data as Buffer[]).join('') : typeof data === 'string' ? data : JSON.stringify(data)
      return `${type} ${text}`
    })
}

export const SOA = 'SOA any.test core-a.core.any.test 10'
export const IS_AUTHORITATIVE = packet.AUTHORITATIVE_ANSWER
export const IS_TRUNCATED = packet.TRUNCATED_RESPONSE
