// The pulse: a heartbeat that says "as before" in one small UDP packet, and what the home says to it.
//
//   pulse, 100 bytes: 'NCPL' | version | 1 | 2 zero bytes | session 8 | counter 4 | host's name, zeros to 64 | MAC 16
//   reply,  44 bytes: 'NCPL' | version | 2 | status | 0   | session 8 | counter 4 | first 8 of the pulse's MAC | MAC 16
//
// The MAC is HMAC-SHA256 under the host's echo key over all before it, cut to 16 bytes. A core makes up its
// session when it starts; in one session a host's counter only grows, so that no pulse counts twice, nor
// after a restart. Whose session or counter is behind is told where to go on (status 3): that costs no HTTP.
// Invariant: no reply is longer than its pulse. Pure: no sockets, no clock, no chance.

import { timingSafeEqual } from 'node:crypto'
import { hasMac, macOf } from './mac.ts'

export const PULSE_BYTES = 100
export const PULSE_REPLY_BYTES = 44
export const SESSION_BYTES = 8

const MAGIC = 0x4e43504c // 'NCPL'
const VERSION = 1
const PULSE = 1
const REPLY = 2
const SESSION_AT = 8
const COUNTER_AT = SESSION_AT + SESSION_BYTES
const NAME_AT = COUNTER_AT + 4
const NAME_BYTES = 64
const PULSE_MAC_AT = NAME_AT + NAME_BYTES
const TAG_AT = NAME_AT
const TAG_BYTES = 8
const REPLY_MAC_AT = TAG_AT + TAG_BYTES
export const MAX_COUNTER = 0xffff_ffff

/**
 * - `ok`: heard, the lease is renewed, and there is nothing else to say.
 * - `call`: heartbeat by HTTP now: something waits there, or this alone does not keep the lease.
 * - `resync`: not heard: go on from the session and counter of this reply.
 */
export type PulseStatus = 'ok' | 'call' | 'resync'
const STATUSES: readonly (PulseStatus | null)[] = [null, 'ok', 'call', 'resync']

export interface Pulse {
  readonly host: string
  readonly session: Uint8Array
  readonly counter: number
}

export interface PulseReply {
  readonly status: PulseStatus
  readonly session: Uint8Array
  readonly counter: number
}

/** Whether a packet means to be a pulse or its reply, well made or not. */
export function isPulseLike(packet: Uint8Array): boolean {
  return packet.length >= 4 && viewOf(packet).getUint32(0) === MAGIC
}

/** `host`: a DNS label; `session`: 8 bytes; `counter`: 1..MAX_COUNTER; `key`: 32 bytes. */
export function writePulse({ host, session, counter }: Pulse, key: Uint8Array): Uint8Array {
  const packet = begin(PULSE_BYTES, PULSE, 0, session, counter)
  packet.set(Buffer.from(host, 'latin1').subarray(0, NAME_BYTES - 1), NAME_AT)
  packet.set(macOf(packet, PULSE_MAC_AT, key), PULSE_MAC_AT)
  return packet
}

/** What a packet says, its MAC not checked yet; null: it is no pulse. Never throws, whatever the bytes. */
export function readPulse(packet: Uint8Array): Pulse | null {
  if (packet.length !== PULSE_BYTES || !hasHead(packet, PULSE) || packet[6] !== 0) return null
  const name = packet.subarray(NAME_AT, PULSE_MAC_AT)
  const length = name.indexOf(0)
  if (length < 1 || name.subarray(length).some((byte) => byte !== 0)) return null
  return {
    host: Buffer.from(name.buffer, name.byteOffset, length).toString('latin1'),
    session: packet.subarray(SESSION_AT, COUNTER_AT),
    counter: viewOf(packet).getUint32(COUNTER_AT),
  }
}

/** Whether a packet that readPulse took was made under this key. */
export function isPulseMade(packet: Uint8Array, key: Uint8Array): boolean {
  return hasMac(packet, key)
}

/** The reply to a pulse. */
export function writePulseReply(
  pulse: Uint8Array,
  { status, session, counter }: PulseReply,
  key: Uint8Array,
): Uint8Array {
  const packet = begin(PULSE_REPLY_BYTES, REPLY, STATUSES.indexOf(status), session, counter)
  packet.set(pulse.subarray(PULSE_MAC_AT, PULSE_MAC_AT + TAG_BYTES), TAG_AT)
  packet.set(macOf(packet, REPLY_MAC_AT, key), REPLY_MAC_AT)
  return packet
}

/** What a packet says in reply to `pulse`; null: it is no reply to that, or not by who holds the key. Never throws. */
export function readPulseReply(packet: Uint8Array, pulse: Uint8Array, key: Uint8Array): PulseReply | null {
  if (packet.length !== PULSE_REPLY_BYTES || !hasHead(packet, REPLY)) return null
  const status = STATUSES[packet[6]!] ?? null
  if (status === null) return null
  const tag = pulse.subarray(PULSE_MAC_AT, PULSE_MAC_AT + TAG_BYTES)
  if (!timingSafeEqual(packet.subarray(TAG_AT, REPLY_MAC_AT), tag)) return null
  if (!hasMac(packet, key)) return null
  const session = packet.slice(SESSION_AT, COUNTER_AT)
  return { status, session, counter: viewOf(packet).getUint32(COUNTER_AT) }
}

function hasHead(packet: Uint8Array, type: number): boolean {
  return (
    viewOf(packet).getUint32(0) === MAGIC && packet[4] === VERSION && packet[5] === type && packet[7] === 0
  )
}

function begin(
  bytes: number,
  type: number,
  status: number,
  session: Uint8Array,
  counter: number,
): Uint8Array {
  const packet = new Uint8Array(bytes)
  viewOf(packet).setUint32(0, MAGIC)
  packet[4] = VERSION
  packet[5] = type
  packet[6] = status
  packet.set(session, SESSION_AT)
  viewOf(packet).setUint32(COUNTER_AT, counter)
  return packet
}

function viewOf(packet: Uint8Array): DataView {
  return new DataView(packet.buffer, packet.byteOffset, packet.byteLength)
}
