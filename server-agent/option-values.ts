// One reader for each kind of option value: given key and value, the value as the agent uses it, or an
// AgentError `bad-option` that names key, value and expectation. Values may be of any type: they come
// from YAML and from programs without types as well.

import { isIP } from 'node:net'
import { AgentError } from './agent-error.ts'
import { type Check, parseCheck } from './check.ts'
import { type LoadSource, parseLoadSource } from './load.ts'
import { LABEL_PATTERN } from './protocol/messages.ts'

export interface HostPort {
  readonly host: string
  readonly port: number
}

/** True for a name or address that never leaves this machine. */
export function isLoopback(hostname: string): boolean {
  const host = hostname.replace(/^\[(.*)\]$/, '$1').toLowerCase()
  return (
    host === 'localhost' ||
    host.endsWith('.localhost') ||
    host === '::1' ||
    (isIP(host) === 4 && host.startsWith('127.'))
  )
}

export function bad(key: string, value: unknown, expected: string): AgentError {
  const shown =
    typeof value === 'string' ? `'${value}'` : value === undefined ? 'nothing' : JSON.stringify(value)
  return new AgentError('bad-option', `${key}: got ${shown}, expected ${expected}`, { key })
}

export function refuseUnknown(given: unknown, known: ReadonlySet<string>, prefix: string): void {
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw bad(prefix.replace(/\.$/, '') || 'options', given, 'keys and their values')
  }
  for (const key of Object.keys(given)) {
    if (!known.has(key)) {
      throw new AgentError(
        'bad-option',
        `${prefix}${key}: there is no such key; there are ${[...known].join(', ')}`,
        { key: prefix + key },
      )
    }
  }
}

export function text(key: string, value: unknown, pattern: RegExp, expected: string): string {
  if (typeof value !== 'string' || !pattern.test(value))
    throw bad(key, key === 'token' ? '...' : value, expected)
  return value
}

export function label(key: string, value: unknown): string {
  return text(key, value, new RegExp(LABEL_PATTERN), 'one DNS label: a-z, 0-9 and inner hyphens, at most 63')
}

export function number(key: string, value: unknown, min: number, max: number): number {
  if (typeof value !== 'number' || !(value >= min && value <= max)) {
    throw bad(
      key,
      value,
      min === Number.MIN_VALUE ? `a number above 0, up to ${max}` : `a number from ${min} to ${max}`,
    )
  }
  return value
}

export function whole(key: string, value: unknown, min: number, max: number): number {
  if (!Number.isInteger(value)) throw bad(key, value, `a whole number from ${min} to ${max}`)
  return number(key, value, min, max)
}

export function list<T>(key: string, value: readonly T[] | undefined): readonly T[] {
  if (value === undefined) return []
  if (!Array.isArray(value)) throw bad(key, value, 'a list')
  return value
}

/** At most 8, as the protocol has it. */
export function addresses(key: string, value: readonly string[] | undefined): readonly string[] {
  const given = list(key, value)
  for (const address of given) {
    if (typeof address !== 'string' || isIP(address) === 0 || address.includes('%')) {
      throw bad(key, address, 'IPv4 or IPv6 addresses')
    }
  }
  if (given.length > 8) throw bad(key, given, 'at most 8 addresses')
  return given
}

export function attributes(key: string, value: unknown): Readonly<Record<string, string>> {
  if (value === undefined) return {}
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw bad(key, value, 'names and values')
  const entries = Object.entries(value as Record<string, unknown>)
  for (const [name, text] of entries) {
    if (!/^[a-z][a-z0-9_.-]{0,31}$/.test(name))
      throw bad(key, name, 'names of a-z, 0-9, _, . and -, at most 32, a letter first')
    if (typeof text !== 'string' || text.length > 128)
      throw bad(`${key}.${name}`, text, 'a text of at most 128 characters')
  }
  if (entries.length > 32) throw bad(key, value, 'at most 32 of them')
  return Object.fromEntries(entries) as Record<string, string>
}

/** Degrees. */
export function place(value: unknown): { lat: number; lon: number } | undefined {
  if (value === undefined) return undefined
  refuseUnknown(value, new Set(['lat', 'lon']), 'place.')
  const { lat, lon } = value as Record<string, unknown>
  return { lat: number('place.lat', lat, -90, 90), lon: number('place.lon', lon, -180, 180) }
}

/** `HOST:PORT`, `[IPv6]:PORT` or `:PORT` (all addresses); HOST is an address. */
export function hostPort(key: string, value: unknown, minPort: number): HostPort {
  const match = typeof value === 'string' ? /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(value) : null
  const host = match?.[1] ?? (match?.[2] || '::')
  const port = Number(match?.[3] ?? Number.NaN)
  if (isIP(host) === 0 || !(port >= minPort && port <= 65_535)) {
    throw bad(key, value, 'ADDRESS:PORT, such as 192.0.2.7:8054 or [::]:8054')
  }
  return { host, port }
}

export function httpUrl(key: string, value: unknown): URL {
  const url = typeof value === 'string' && URL.canParse(value) ? new URL(value) : null
  if (url === null || !/^https?:$/.test(url.protocol)) throw bad(key, value, 'an http:// or https:// URL')
  return url
}

export function coreUrls(value: unknown, insecure: boolean): readonly URL[] {
  const given = Array.isArray(value) ? value : value === undefined ? [] : [value]
  if (given.length === 0)
    throw bad('cores', undefined, 'the URL of a core, such as https://core.example.net:8053')
  return given.map((one) => {
    const url = httpUrl('cores', one)
    if (url.search !== '' || url.hash !== '' || url.username !== '')
      throw bad('cores', one, 'a URL without user, query or fragment')
    if (url.protocol === 'http:' && !isLoopback(url.hostname) && !insecure) {
      throw bad(
        'cores',
        one,
        'https://, since the token would travel in the clear; `insecure` allows it all the same',
      )
    }
    return url
  })
}

export function loadSource(key: string, value: unknown): LoadSource | null {
  if (value === undefined) return null
  if (typeof value === 'function') return { kind: 'call', call: value as () => never }
  const source = typeof value === 'string' ? parseLoadSource(value) : null
  if (source === null)
    throw bad(key, value, 'exec:COMMAND that prints a number, or an http(s) URL that is one')
  return source
}

export function check(key: string, value: unknown): Check | null {
  if (value === undefined) return null
  if (typeof value === 'function') return { kind: 'call', call: value as () => never }
  const parsed = typeof value === 'string' ? parseCheck(value) : null
  if (parsed === null) throw bad(key, value, 'tcp://HOST:PORT, an http(s) URL, or exec:COMMAND')
  return parsed
}

export function passive(key: string, value: unknown): 'ss' | null {
  if (value === undefined) return null
  if (value !== 'ss') throw bad(key, value, 'ss, or nothing')
  return value
}
