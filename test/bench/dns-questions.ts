// The questions of bench:dns: A queries with Client Subnet, for random services, from random announced prefixes.
//
// As a file for a load program: each query as a uint16 length, highest byte first, and the packet (RFC 1035, 4.2.2).

import { encode } from 'dns-packet'
import { type Address, formatAddress, IPV4_OFFSET_BITS, prefixOf } from '../../resolver/address.ts'
import type { Rng } from '../../resolver/ask.ts'
import type { DnsWorld } from './dns-world.ts'

export const ZONE = 'any.test'
/** What resolvers send of their clients' addresses (RFC 7871, 11.1). */
const SUBNET_BITS = 24
const PAYLOAD_BYTES = 1232

export interface DnsQuestion {
  readonly service: number
  /** The announced prefix that the client is in. */
  readonly network: number
  readonly client: Address
}

export function drawQuestion(world: DnsWorld, rng: Rng): DnsQuestion {
  const network = Math.floor(rng() * world.networks.length)
  const { prefix } = world.networks[network]!
  const client = new Uint8Array(prefix.address)
  for (let bit = prefix.bits; bit < 128; bit++) if (rng() < 0.5) client[bit >> 3]! |= 0x80 >> (bit & 7)
  return {
    service: Math.floor(rng() * world.services.length),
    network,
    client: prefixOf(client, IPV4_OFFSET_BITS + SUBNET_BITS).address,
  }
}

export function queryPacket(world: DnsWorld, { service, client }: DnsQuestion, id: number): Buffer {
  const ecs = { code: 'CLIENT_SUBNET', family: 1, sourcePrefixLength: SUBNET_BITS, scopePrefixLength: 0 }
  return encode({
    type: 'query',
    id,
    questions: [{ type: 'A', name: `${world.services[service]!.name}.${ZONE}` }],
    additionals: [
      {
        type: 'OPT',
        name: '.',
        udpPayloadSize: PAYLOAD_BYTES,
        extendedRcode: 0,
        ednsVersion: 0,
        flags: 0,
        flag_do: false,
        options: [{ ...ecs, ip: formatAddress(client) }],
      } as never,
    ],
  })
}

/** So many of them, one behind the other. */
export function questionFile(world: DnsWorld, count: number, rng: Rng): Buffer {
  const parts: Buffer[] = []
  for (let i = 0; i < count; i++) {
    const packet = queryPacket(world, drawQuestion(world, rng), i & 0xffff)
    const length = Buffer.alloc(2)
    length.writeUInt16BE(packet.length)
    parts.push(length, packet)
  }
  return Buffer.concat(parts)
}
