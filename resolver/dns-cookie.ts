// DNS cookies (RFC 7873) with interoperable server cookies (RFC 9018): who shows one that we made is at
// the address that it asks from, and no spoofer.
//
// Invariant: all cores with the same secrets make and accept the same cookies; nothing is kept for each
// client. The first secret makes cookies, all of them are accepted, so that a roll takes nobody's away.
// A cookie proves an address, never a right.

import { type Address, familyOf } from './address.ts'

export interface CookieSecrets {
  /** 16 bytes each: the current one, then those before it that still count. */
  readonly secrets: readonly Uint8Array[]
  /** Epoch seconds. */
  readonly nowSec: number
}

const CLIENT_COOKIE_BYTES = 8
/** Of what we make: the client's half, and ours by RFC 9018. */
export const COOKIE_BYTES = 24
const VERSION = 1
const TIMESTAMP_AT = 12
const HASH_AT = 16
const HASH_BYTES = 8
/** RFC 9018, 4.3: older ones may be replays, and clocks of cores differ by less than five minutes. */
const MOST_AGE_SEC = 3600
const MOST_AHEAD_SEC = 300
/** From this age on the client gets a new one, long before its own is refused. */
const RENEWAL_SEC = 1800

export interface CookieAnswer {
  /** The COOKIE option for the reply. */
  readonly cookie: Uint8Array
  /** The asker showed a server's cookie beside its own, good or not. */
  readonly isShown: boolean
  /** ... and one of us made it for the asker's address, not long ago. */
  readonly isProven: boolean
}

/** What a COOKIE option showed, as bits: beside the client's half a server's, and one that we made for this address, not long ago. */
export const COOKIE_SHOWN = 1
export const COOKIE_PROVEN = 2

/** `received`: a COOKIE option as it came, 8 or 16..40 bytes. */
export function answerCookie(own: CookieSecrets, received: Uint8Array, client: Address): CookieAnswer {
  const cookie = new Uint8Array(COOKIE_BYTES)
  const shown = placeCookie(own, received, 0, received.length, client, cookie, 0)
  return { cookie, isShown: (shown & COOKIE_SHOWN) !== 0, isProven: (shown & COOKIE_PROVEN) !== 0 }
}

/**
 * Places the COOKIE option's data for the reply, COOKIE_BYTES long, at `to`. `at`, `bytes`: where what was received stands, and
 * its length. What that showed: COOKIE_SHOWN, COOKIE_PROVEN. Allocates nothing.
 */
export function placeCookie(
  own: CookieSecrets,
  packet: Uint8Array,
  at: number,
  bytes: number,
  client: Address,
  out: Uint8Array,
  to: number,
): number {
  const shown = bytes > CLIENT_COOKIE_BYTES ? COOKIE_SHOWN : 0
  const isOurs = bytes === COOKIE_BYTES && packet[at + CLIENT_COOKIE_BYTES] === VERSION
  // Serial arithmetic (RFC 1982): 32 bits of seconds end in 2106.
  const ageSec = isOurs ? (own.nowSec - read32(packet, at + TIMESTAMP_AT)) | 0 : MOST_AGE_SEC + 1
  const isFresh = ageSec <= MOST_AGE_SEC && ageSec >= -MOST_AHEAD_SEC
  const madeWith = isFresh ? findSecret(own.secrets, packet, at, client) : -1
  if (madeWith === 0 && ageSec >= 0 && ageSec < RENEWAL_SEC) {
    for (let i = 0; i < COOKIE_BYTES; i++) out[to + i] = packet[at + i]!
  } else makeCookie(own, packet, at, client, out, to)
  return madeWith >= 0 ? shown | COOKIE_PROVEN : shown
}

function makeCookie(
  { secrets, nowSec }: CookieSecrets,
  packet: Uint8Array,
  at: number,
  client: Address,
  out: Uint8Array,
  to: number,
): void {
  for (let i = 0; i < CLIENT_COOKIE_BYTES; i++) out[to + i] = packet[at + i]!
  out[to + CLIENT_COOKIE_BYTES] = VERSION
  out.fill(0, to + CLIENT_COOKIE_BYTES + 1, to + TIMESTAMP_AT)
  for (let i = 0; i < 4; i++) out[to + TIMESTAMP_AT + i] = nowSec >>> (24 - 8 * i)
  hashCookie(secrets[0]!, out, to, client)
  for (let i = 0; i < HASH_BYTES; i++) out[to + HASH_AT + i] = hashByte(i)
}

/** Which of the secrets a cookie was made with; -1: none. */
function findSecret(secrets: readonly Uint8Array[], packet: Uint8Array, at: number, client: Address): number {
  for (let i = 0; i < secrets.length; i++) {
    hashCookie(secrets[i]!, packet, at, client)
    // Every byte is looked at, so that time tells nothing of the first that differs.
    let differing = 0
    for (let byte = 0; byte < HASH_BYTES; byte++) differing |= hashByte(byte) ^ packet[at + HASH_AT + byte]!
    if (differing === 0) return i
  }
  return -1
}

function read32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!
}

/** What is hashed: 16 bytes of the cookie and an address, padded with zeros to whole words of 8 bytes. */
const message = new Uint8Array(40)
/** The state of SipHash: four 64-bit words as eight 32-bit halves, low before high. The hash ends in the first two. */
const v = new Uint32Array(8)

/** RFC 9018, 4.4: over the client cookie, version, reserved bytes, timestamp and the client's address. */
function hashCookie(secret: Uint8Array, cookie: Uint8Array, at: number, client: Address): void {
  const first = familyOf(client) === 4 ? 12 : 0
  const bytes = HASH_AT + 16 - first
  message.fill(0)
  for (let i = 0; i < HASH_AT; i++) message[i] = cookie[at + i]!
  for (let i = first; i < 16; i++) message[HASH_AT + i - first] = client[i]!
  sipHash(secret, bytes)
}

/** Byte i, 0..7, of the hash that was made last. */
function hashByte(i: number): number {
  return (v[i >> 2]! >>> (8 * (i & 3))) & 0xff
}

/**
 * SipHash-2-4 (Aumasson, Bernstein 2012) of the first `bytes` of `message`, little end first. In halves of 32 bits:
 * BigInt costs ten times as much.
 */
function sipHash(key: Uint8Array, bytes: number): void {
  for (let i = 0; i < 8; i++) v[i] = SIP_CONSTANTS[i]! ^ littleEnd(key, 4 * (i & 3))
  const padded = (bytes & ~7) + 8
  message[padded - 1] = bytes
  for (let at = 0; at < padded; at += 8) {
    const low = littleEnd(message, at)
    const high = littleEnd(message, at + 4)
    v[6]! ^= low
    v[7]! ^= high
    for (let round = 0; round < 2; round++) sipRound()
    v[0]! ^= low
    v[1]! ^= high
  }
  v[4]! ^= 0xff
  for (let round = 0; round < 4; round++) sipRound()
  v[0]! ^= v[2]! ^ v[4]! ^ v[6]!
  v[1]! ^= v[3]! ^ v[5]! ^ v[7]!
}

/** "somepseudorandomlygeneratedbytes", by halves as they stand in the state. */
const SIP_CONSTANTS = Uint32Array.of(
  0x70736575,
  0x736f6d65,
  0x6e646f6d,
  0x646f7261,
  0x6e657261,
  0x6c796765,
  0x79746573,
  0x74656462,
)

function littleEnd(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
}

/** The words v0..v3 begin at 0, 2, 4 and 6. */
function sipRound(): void {
  sipMix(0, 2, 13)
  rotate(0, 32)
  sipMix(4, 6, 16)
  sipMix(0, 6, 21)
  sipMix(4, 2, 17)
  rotate(4, 32)
}

/** a += b; b <<<= bits; b ^= a. */
function sipMix(a: number, b: number, bits: number): void {
  const low = v[a]! + v[b]!
  v[a] = low
  v[a + 1] = v[a + 1]! + v[b + 1]! + (low > 0xffffffff ? 1 : 0)
  rotate(b, bits)
  v[b]! ^= v[a]!
  v[b + 1]! ^= v[a + 1]!
}

/** The 64-bit word at `at` to the left, 1..32 bits. */
function rotate(at: number, bits: number): void {
  const low = v[at]!
  const high = v[at + 1]!
  v[at] = bits === 32 ? high : (low << bits) | (high >>> (32 - bits))
  v[at + 1] = bits === 32 ? low : (high << bits) | (low >>> (32 - bits))
}
