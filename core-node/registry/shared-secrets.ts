// Secrets of the whole installation, which its cores share through the store: what signs tickets and
// what makes DNS cookies. Made at the first start; those of cookies are rolled daily.
//
// Invariant: a roll takes nobody's cookie away: the secret before stays good for a day more, far longer
// than a cookie lives (RFC 9018, 4.3). Pure: clock and random bytes by argument.

import type { Change } from '../../resolver/directory.ts'
import type { Records } from './draft-map.ts'

const TICKET_KEY = 'ticket-key'
const COOKIE_SECRETS = 'cookie-secrets'
const ROLL_MS = 24 * 3600_000
/** SipHash-2-4 takes a key of so many bytes. */
const COOKIE_SECRET_BYTES = 16
const TICKET_KEY_BYTES = 32

/** The settings to commit for secrets that are missing or due to be rolled. */
export function dueSecrets(
  settings: Records<string>,
  epochMs: number,
  randomHex: (bytes: number) => string,
): Change[] {
  const changes: Change[] = []
  if (!settings.has(TICKET_KEY)) {
    changes.push({ kind: 'settings', key: TICKET_KEY, value: randomHex(TICKET_KEY_BYTES) })
  }
  const [current, ...older] = stamped(settings)
  if (current === undefined || epochMs - current.sinceMs >= ROLL_MS) {
    const fresh = { hex: randomHex(COOKIE_SECRET_BYTES), sinceMs: epochMs }
    const kept = [fresh, ...(current === undefined ? [] : [current]), ...older].slice(0, 2)
    const value = kept.map(({ hex, sinceMs }) => `${hex}@${sinceMs}`).join(',')
    changes.push({ kind: 'settings', key: COOKIE_SECRETS, value })
  }
  return changes
}

export function ticketKey(settings: Records<string>): Uint8Array {
  return Buffer.from(settings.get(TICKET_KEY)!, 'hex')
}

/** 16 bytes each: the current one, then the one before it. */
export function cookieSecrets(settings: Records<string>): Uint8Array[] {
  return stamped(settings).map(({ hex }) => Buffer.from(hex, 'hex'))
}

function stamped(settings: Records<string>): { hex: string; sinceMs: number }[] {
  const entries = settings.get(COOKIE_SECRETS)?.split(',') ?? []
  return entries.map((entry) => {
    const [hex = '', sinceMs] = entry.split('@')
    return { hex, sinceMs: Number(sinceMs) }
  })
}
