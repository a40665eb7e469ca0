// Health checks: one try, and how tries add up to a health.
//
// countTry is pure (rise and fall); runCheck is its shell: tcp://HOST:PORT is well when it accepts a
// connection, http(s):// when it answers 2xx or 3xx, exec:COMMAND when the command exits with 0.
// Invariant: a try ends within its timeout and leaves no socket or child behind.

import { reasonOf } from './agent-error.ts'
import { untilAborted, withDeadline } from './deadline.ts'
import { httpGet } from './http-get.ts'
import { runShell } from './program.ts'
import { connectTcp } from './tcp-connect.ts'

export type Health = 'up' | 'down' | 'unknown'

export interface HealthCount {
  readonly health: Health
  /** Tries in a row that said otherwise than `health`. */
  readonly against: number
}

export const UNTRIED: HealthCount = { health: 'unknown', against: 0 }

/**
 * One more try. The first one counts at once, so that a new member is known for what it is; after
 * that `rise` good tries in a row make it up and `fall` bad ones down (each >= 1).
 */
export function countTry(count: HealthCount, ok: boolean, rise: number, fall: number): HealthCount {
  const seen: Health = ok ? 'up' : 'down'
  if (count.health === 'unknown') return { health: seen, against: 0 }
  if (count.health === seen) return { health: seen, against: 0 }
  const against = count.against + 1
  return against >= (ok ? rise : fall) ? { health: seen, against: 0 } : { health: count.health, against }
}

export type Check =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'http'; readonly url: URL }
  | { readonly kind: 'exec'; readonly command: string }
  | { readonly kind: 'call'; readonly call: () => boolean | Promise<boolean> }

export interface CheckOutcome {
  readonly ok: boolean
  /** Why it is not well, or what was seen: short. */
  readonly detail: string
  /** How long a TCP connection took; null: not measured. */
  readonly rttMs: number | null
}

/** What a check's text means; null: nothing. */
export function parseCheck(text: string): Check | null {
  if (text.startsWith('exec:')) {
    const command = text.slice('exec:'.length).trim()
    return command === '' ? null : { kind: 'exec', command }
  }
  const url = URL.canParse(text) ? new URL(text) : null
  if (url === null || url.hostname === '') return null
  if (url.protocol === 'http:' || url.protocol === 'https:') return { kind: 'http', url }
  const port = Number(url.port)
  if (url.protocol !== 'tcp:' || port === 0) return null
  return { kind: 'tcp', host: url.hostname.replace(/^\[(.*)\]$/, '$1'), port }
}

/** One try. Never rejects: whatever goes wrong is why the member is not well. */
export async function runCheck(check: Check, timeoutMs: number, stop?: AbortSignal): Promise<CheckOutcome> {
  try {
    return await withDeadline(timeoutMs, stop, (signal) => tryOnce(check, signal))
  } catch (error) {
    return { ok: false, detail: reasonOf(error), rttMs: null }
  }
}

async function tryOnce(check: Check, signal: AbortSignal): Promise<CheckOutcome> {
  switch (check.kind) {
    case 'tcp': {
      const { outcome, rttMs } = await connectTcp(check.host, check.port, signal)
      return { ok: outcome === 'connected', detail: outcome, rttMs }
    }
    case 'http': {
      const { status } = await httpGet(check.url, 0, signal)
      return { ok: status >= 200 && status < 400, detail: `status ${status}`, rttMs: null }
    }
    case 'exec': {
      const { code } = await runShell(check.command, signal)
      return { ok: code === 0, detail: code === null ? 'killed by a signal' : `exit ${code}`, rttMs: null }
    }
    case 'call': {
      const ok = await untilAborted(check.call(), signal)
      return { ok, detail: ok ? 'well' : 'not well', rttMs: null }
    }
  }
}
