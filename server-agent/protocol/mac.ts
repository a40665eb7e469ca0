// MACs of the UDP protocols: HMAC-SHA256 (RFC 2104) over a short packet, under a key of 32 bytes, cut to 16.
//
// By two one-shot hashes over bytes that are kept for it: node:crypto's createHmac makes a key object for each
// packet, which takes five times as long. A test holds it against createHmac. Not for long texts. Pure.

import hashes, { timingSafeEqual } from 'node:crypto'

export const MAC_BYTES = 16
const KEY_BYTES = 32
const BLOCK_BYTES = 64
const HASH_BYTES = 32
const INNER = 0x36
const OUTER = 0x5c
/** Longer than any message of these protocols. */
const MAX_BYTES = 256

// Written anew for each MAC: a thousand a second leave no garbage.
const inner = Buffer.alloc(BLOCK_BYTES + MAX_BYTES)
const outer = Buffer.alloc(BLOCK_BYTES + HASH_BYTES)

/** Node before 20.12 has no one-shot hash. */
const sha256: (bytes: Uint8Array) => Buffer =
  typeof hashes.hash === 'function'
    ? (bytes) => hashes.hash('sha256', bytes, 'buffer')
    : (bytes) => hashes.createHash('sha256').update(bytes).digest()

/** HMAC-SHA256 of a message of at most 256 bytes, 32 bytes. */
export function hmacOf(message: Uint8Array, key: Uint8Array): Uint8Array {
  inner.fill(INNER, KEY_BYTES, BLOCK_BYTES)
  outer.fill(OUTER, KEY_BYTES, BLOCK_BYTES)
  for (let i = 0; i < KEY_BYTES; i++) {
    inner[i] = INNER ^ key[i]!
    outer[i] = OUTER ^ key[i]!
  }
  inner.set(message, BLOCK_BYTES)
  outer.set(sha256(inner.subarray(0, BLOCK_BYTES + message.length)), BLOCK_BYTES)
  return sha256(outer)
}

/** The MAC of the first `end` bytes of a packet. */
export function macOf(packet: Uint8Array, end: number, key: Uint8Array): Uint8Array {
  return hmacOf(packet.subarray(0, end), key).subarray(0, MAC_BYTES)
}

/** Whether a packet ends with its MAC. */
export function hasMac(packet: Uint8Array, key: Uint8Array): boolean {
  const end = packet.length - MAC_BYTES
  return timingSafeEqual(packet.subarray(end), macOf(packet, end, key))
}
