// Secrets of the whole installation, which its cores share through the store: what signs tickets and
// what makes DNS cookies. Made at the first start; those of cookies are rolled daily.
//
// Invariant: a roll takes nobody's cookie away: the secret before stays good until the next roll, and none comes
// before a cookie has lived out its time (RFC 9018, 4.3). When a secret is old a core tells by how long it has seen it;
// the time stamped on it counts only where that makes sense, since the clock that stamped it, or this one, may
// be years off. Pure: clocks and random bytes by argument.

import type { Change } from '../../resolver/directory.ts'
import type { Records } from './draft-map.ts'

const TICKET_KEY = 'ticket-key'
const COOKIE_SECRETS = 'cookie-secrets'
const ROLL_MS = 24 * 3600_000
/** A cookie is good for an hour (RFC 9018, 4.3): no secret that is newer here is rolled, whatever its stamp. */
const COOKIE_LIFE_MS = 3600_000
/** A stamp that is older is no age: some clock is wrong, or nobody was there to roll. */
const PLAUSIBLE_MS = 30 * ROLL_MS
/** SipHash-2-4 takes a key of so many bytes. */
const COOKIE_SECRET_BYTES = 16
const TICKET_KEY_BYTES = 32

/**
 * The settings to commit for secrets that are missing or due to be rolled. `seenMs`: for how long this core has seen
 * the current cookie secret, by a clock that never jumps.
 */
export function dueSecrets(
  settings: Records<string>,
  { epochMs, seenMs }: { readonly epochMs: number; readonly seenMs: number },
  randomHex: (bytes: number) => string,
): Change[] {
  const changes: Change[] = []
  if (!settings.has(TICKET_KEY)) {
    changes.push({ kind: 'settings', key: TICKET_KEY, value: randomHex(TICKET_KEY_BYTES) })
  }
  const [current, ...older] = stamped(settings)
  if (current === undefined || isDue(epochMs - current.sinceMs, seenMs)) {
    const fresh = { hex: randomHex(COOKIE_SECRET_BYTES), sinceMs: epochMs }
    const kept = [fresh, ...(current === undefined ? [] : [current]), ...older].slice(0, 2)
    const value = kept.map(({ hex, sinceMs }) => `${hex}@${sinceMs}`).join(',')
    changes.push({ kind: 'settings', key: COOKIE_SECRETS, value })
  }
  return changes
}

function isDue(ageMs: number, seenMs: number): boolean {
  if (seenMs >= ROLL_MS) return true
  return seenMs >= COOKIE_LIFE_MS && ageMs >= ROLL_MS && ageMs < PLAUSIBLE_MS
}

/** The current cookie secret as text, to be told from another; '': there is none. */
export function currentCookieSecret(settings: Records<string>): string {
  return stamped(settings)[0]?.hex ?? ''
}

export function ticketKey(settings: Records<string>): Uint8Array {
  return Buffer.from(settings.get(TICKET_KEY) ?? '', 'hex')
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
