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
const COOKIE_BYTES = 24
const VERSION = 1
const TIMESTAMP_AT = 12
const HASH_AT = 16
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

/** `received`: a COOKIE option as it came, 8 or 16..40 bytes. */
export function answerCookie(own: CookieSecrets, received: Uint8Array, client: Address): CookieAnswer {
  const isOurs = received.length === COOKIE_BYTES && received[CLIENT_COOKIE_BYTES] === VERSION
  // Serial arithmetic (RFC 1982): 32 bits of seconds end in 2106.
  const ageSec = isOurs ? (own.nowSec - viewOf(received).getUint32(TIMESTAMP_AT)) | 0 : MOST_AGE_SEC + 1
  const isFresh = ageSec <= MOST_AGE_SEC && ageSec >= -MOST_AHEAD_SEC
  const madeWith = isFresh ? own.secrets.findIndex((secret) => isMadeWith(secret, received, client)) : -1
  const isGoodEnough = madeWith === 0 && ageSec >= 0 && ageSec < RENEWAL_SEC
  return {
    cookie: isGoodEnough ? received : makeCookie(own, received, client),
    isShown: received.length > CLIENT_COOKIE_BYTES,
    isProven: madeWith >= 0,
  }
}

function makeCookie({ secrets, nowSec }: CookieSecrets, received: Uint8Array, client: Address): Uint8Array {
  const cookie = new Uint8Array(COOKIE_BYTES)
  cookie.set(received.subarray(0, CLIENT_COOKIE_BYTES))
  cookie[CLIENT_COOKIE_BYTES] = VERSION
  viewOf(cookie).setUint32(TIMESTAMP_AT, nowSec)
  cookie.set(hashCookie(secrets[0]!, cookie, client), HASH_AT)
  return cookie
}

function isMadeWith(secret: Uint8Array, cookie: Uint8Array, client: Address): boolean {
  // Every byte is looked at, so that time tells nothing of the first that differs.
  const hash = hashCookie(secret, cookie, client)
  return hash.reduce((sum, byte, i) => sum | (byte ^ cookie[HASH_AT + i]!), 0) === 0
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** RFC 9018, 4.4: over the client cookie, version, reserved bytes, timestamp and the client's address. */
function hashCookie(secret: Uint8Array, cookie: Uint8Array, client: Address): Uint8Array {
  const own = client.subarray(familyOf(client) === 4 ? 12 : 0)
  const message = new Uint8Array(HASH_AT + own.length)
  message.set(cookie.subarray(0, HASH_AT))
  message.set(own, HASH_AT)
  return sipHash(secret, message)
}

/**
 * SipHash-2-4 (Aumasson, Bernstein 2012), 8 bytes, little end first. The state's four 64-bit words are
 * eight 32-bit halves, low before high: BigInt costs ten times as much.
 */
function sipHash(key: Uint8Array, message: Uint8Array): Uint8Array {
  const keyWords = viewOf(key)
  const k = [0, 4, 8, 12].map((at) => keyWords.getUint32(at, true))
  const v = Uint32Array.of(
    k[0]! ^ 0x70736575,
    k[1]! ^ 0x736f6d65,
    k[2]! ^ 0x6e646f6d,
    k[3]! ^ 0x646f7261,
    k[0]! ^ 0x6e657261,
    k[1]! ^ 0x6c796765,
    k[2]! ^ 0x79746573,
    k[3]! ^ 0x74656462,
  )
  // Padded with zeros to whole words; the last byte is the length.
  const padded = new Uint8Array((message.length & ~7) + 8)
  padded.set(message)
  padded[padded.length - 1] = message.length
  const words = new DataView(padded.buffer)
  for (let at = 0; at < padded.length; at += 8) {
    const low = words.getUint32(at, true)
    const high = words.getUint32(at + 4, true)
    v[6]! ^= low
    v[7]! ^= high
    for (let round = 0; round < 2; round++) sipRound(v)
    v[0]! ^= low
    v[1]! ^= high
  }
  v[4]! ^= 0xff
  for (let round = 0; round < 4; round++) sipRound(v)
  const hash = new DataView(new ArrayBuffer(8))
  hash.setUint32(0, v[0]! ^ v[2]! ^ v[4]! ^ v[6]!, true)
  hash.setUint32(4, v[1]! ^ v[3]! ^ v[5]! ^ v[7]!, true)
  return new Uint8Array(hash.buffer)
}

/** The words v0..v3 begin at 0, 2, 4 and 6. */
function sipRound(v: Uint32Array): void {
  sipMix(v, 0, 2, 13)
  rotate(v, 0, 32)
  sipMix(v, 4, 6, 16)
  sipMix(v, 0, 6, 21)
  sipMix(v, 4, 2, 17)
  rotate(v, 4, 32)
}

/** a += b; b <<<= bits; b ^= a. */
function sipMix(v: Uint32Array, a: number, b: number, bits: number): void {
  const low = v[a]! + v[b]!
  v[a] = low
  v[a + 1] = v[a + 1]! + v[b + 1]! + (low > 0xffffffff ? 1 : 0)
  rotate(v, b, bits)
  v[b]! ^= v[a]!
  v[b + 1]! ^= v[a + 1]!
}

/** The 64-bit word at `at` to the left, 1..32 bits. */
function rotate(v: Uint32Array, at: number, bits: number): void {
  const low = v[at]!
  const high = v[at + 1]!
  v[at] = bits === 32 ? high : (low << bits) | (high >>> (32 - bits))
  v[at + 1] = bits === 32 ? low : (high << bits) | (low >>> (32 - bits))
}
