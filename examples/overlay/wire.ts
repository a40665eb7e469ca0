// What nodes say to each other: one JSON object a UDP datagram, a question or the answer to one.
//
// `meet` is the whole upkeep: whoever answers is there, the time it took is the round trip, and the answer
// names who lies beside the asker. `lookup` is passed on from node to node, and its answer comes back the same way.
// Invariant: whatever bytes come in, decode gives a message of the right shape or null, and never throws.

import { isIP } from 'node:net'
import type { Peer } from './ring.ts'

export type Question =
  | { readonly ask: 'meet'; readonly from: Peer }
  | { readonly ask: 'lookup'; readonly key: number }
/** `peers`: who lies beside the asker. `owner`: whose the key is; `path`: the names of who passed it on, the owner last. */
export type Answer =
  | { readonly peers: readonly Peer[] }
  | { readonly owner: Peer; readonly path: readonly string[] }
/** An answer has the number of its question. */
export type Message = { readonly id: number } & (Question | Answer)

/** A datagram that no path cuts. */
const MAX_BYTES = 1200

export function encode(message: Message): Uint8Array {
  return Buffer.from(JSON.stringify(message))
}

export function decode(bytes: Uint8Array): Message | null {
  if (bytes.length > MAX_BYTES) return null
  try {
    const message = JSON.parse(Buffer.from(bytes).toString('utf8')) as Partial<Record<string, unknown>> | null
    return isMessage(message) ? message : null
  } catch {
    return null
  }
}

function isMessage(value: Partial<Record<string, unknown>> | null): value is Message {
  if (value === null || typeof value !== 'object' || !Number.isSafeInteger(value.id)) return false
  if (value.ask === 'meet') return isPeer(value.from)
  if (value.ask === 'lookup') return isPoint(value.key)
  if (value.ask !== undefined) return false
  if (value.peers !== undefined) return Array.isArray(value.peers) && value.peers.every(isPeer)
  return isPeer(value.owner) && Array.isArray(value.path) && value.path.every(isName)
}

function isPeer(value: unknown): value is Peer {
  if (typeof value !== 'object' || value === null) return false
  const { name, address, port } = value as Partial<Record<keyof Peer, unknown>>
  const isPort = Number.isInteger(port) && (port as number) > 0 && (port as number) < 65536
  return isName(name) && typeof address === 'string' && isIP(address) === 4 && isPort
}

function isName(value: unknown): value is string {
  return typeof value === 'string'
}

function isPoint(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 32
}
