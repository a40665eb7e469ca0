// MACs of the UDP protocols: HMAC-SHA256 (RFC 2104) over a short packet, under a key of 32 bytes, cut to 16.
//
// By two one-shot hashes over bytes that are kept for it: node:crypto's createHmac makes a key object for each
// packet, which takes five times as long. A test holds it against createHmac. Not for long texts. Pure.

import { createHash, timingSafeEqual } from 'node:crypto'

export const MAC_BYTES = 16
const KEY_BYTES = 32
const BLOCK_BYTES = 64
const HASH_BYTES = 32
const INNER = 0x36
const OUTER = 0x5c

/** HMAC-SHA256 of a short message, 32 bytes. */
export function hmacOf(message: Uint8Array, key: Uint8Array): Uint8Array {
  const inner = Buffer.alloc(BLOCK_BYTES + message.length, INNER)
  const outer = Buffer.alloc(BLOCK_BYTES + HASH_BYTES, OUTER)
  for (let i = 0; i < KEY_BYTES; i++) {
    inner[i]! ^= key[i]!
    outer[i]! ^= key[i]!
  }
  inner.set(message, BLOCK_BYTES)
  outer.set(createHash('sha256').update(inner).digest(), BLOCK_BYTES)
  return createHash('sha256').update(outer).digest()
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
