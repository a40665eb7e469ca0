// The echo: one small UDP packet there, one of the same length back, to time the way between two hosts.
//
// Both are 48 bytes: 'NCEC' | version | type | 2 zero bytes | prober 16 | nonce 8 | MAC 16.
// The MAC is HMAC-SHA256 over all before it, cut to 16 bytes (RFC 2104, section 5). A prober is known
// by 4 bytes (hours since the epoch, network order) and 12 random ones; its key is derived from the
// target's, so that the target checks every prober that a core ever named without keeping any state.
// Invariant: what is not a fresh request under our key gets no answer, and no answer is longer than
// its request. Pure: no sockets here (echo-socket.ts), no clock, no chance.

import { timingSafeEqual } from 'node:crypto'
import { hasMac, hmacOf, MAC_BYTES, macOf } from './mac.ts'

export const ECHO_BYTES = 48
export const PROBER_BYTES = 16
export const NONCE_BYTES = 8

const MAGIC = 0x4e434543 // 'NCEC'
const VERSION = 1
const REQUEST = 1
const REPLY = 2
const PROBER_AT = 8
const NONCE_AT = PROBER_AT + PROBER_BYTES
const MAC_AT = ECHO_BYTES - MAC_BYTES

const PROBER_LABEL = Buffer.from('nearcast echo 1')

const HOUR_MS = 3_600_000
/** A prober lives for days, not for ever: a leaked key dies with it. Either way, so that clocks may differ. */
const MAX_PROBER_AGE_HOURS = 48

/** Why a packet got no answer; `shape` covers length, magic, version, type and the zero bytes. */
export type EchoDrop = 'shape' | 'age' | 'mac'

/** A new prober's name, 16 bytes: when it was made, and 12 random bytes. */
export function newProber(nowMs: number, random12: Uint8Array): Uint8Array {
  const prober = new Uint8Array(PROBER_BYTES)
  new DataView(prober.buffer).setUint32(0, Math.floor(nowMs / HOUR_MS))
  prober.set(random12.subarray(0, PROBER_BYTES - 4), 4)
  return prober
}

/** The key under which `prober` talks to the host that holds `hostKey`, 32 bytes. */
export function proberKey(hostKey: Uint8Array, prober: Uint8Array): Uint8Array {
  return hmacOf(Buffer.concat([PROBER_LABEL, prober]), hostKey)
}

/** A request; `nonce` (8 random bytes) names it in its reply. */
export function writeEchoRequest(prober: Uint8Array, key: Uint8Array, nonce: Uint8Array): Uint8Array {
  return write(REQUEST, prober, nonce, key)
}

/** The reply to a packet that came in, or why it gets none. Never throws, whatever the bytes. */
export function answerEcho(
  packet: Uint8Array,
  hostKey: Uint8Array,
  nowMs: number,
): { readonly reply: Uint8Array } | { readonly drop: EchoDrop } {
  if (!hasShape(packet, REQUEST)) return { drop: 'shape' }
  const prober = packet.subarray(PROBER_AT, NONCE_AT)
  const ageHours = Math.floor(nowMs / HOUR_MS) - view(packet).getUint32(PROBER_AT)
  if (Math.abs(ageHours) > MAX_PROBER_AGE_HOURS) return { drop: 'age' }
  const key = proberKey(hostKey, prober)
  if (!hasMac(packet, key)) return { drop: 'mac' }
  return { reply: write(REPLY, prober, packet.subarray(NONCE_AT, MAC_AT), key) }
}

/** True for the reply to the request that carried `nonce`, made by who holds the key. */
export function isEchoReply(packet: Uint8Array, key: Uint8Array, nonce: Uint8Array): boolean {
  const named = replyNonce(packet)
  return named !== null && timingSafeEqual(named, nonce) && hasMac(packet, key)
}

/** The nonce of what looks like a reply (its MAC is not checked yet); null: it is none. */
export function replyNonce(packet: Uint8Array): Uint8Array | null {
  return hasShape(packet, REPLY) ? packet.subarray(NONCE_AT, MAC_AT) : null
}

function hasShape(packet: Uint8Array, type: number): boolean {
  return (
    packet.length === ECHO_BYTES &&
    view(packet).getUint32(0) === MAGIC &&
    packet[4] === VERSION &&
    packet[5] === type &&
    packet[6] === 0 &&
    packet[7] === 0
  )
}

function write(type: number, prober: Uint8Array, nonce: Uint8Array, key: Uint8Array): Uint8Array {
  const packet = new Uint8Array(ECHO_BYTES)
  view(packet).setUint32(0, MAGIC)
  packet[4] = VERSION
  packet[5] = type
  packet.set(prober, PROBER_AT)
  packet.set(nonce, NONCE_AT)
  packet.set(macOf(packet, MAC_AT, key), MAC_AT)
  return packet
}

function view(packet: Uint8Array): DataView {
  return new DataView(packet.buffer, packet.byteOffset, packet.byteLength)
}
