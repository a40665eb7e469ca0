// The values of settings: text as an operator writes it -> value, or undefined where it is none.
//
// Pure. What was expected instead is said beside each setting in config.ts, not here. Host names are
// no listening addresses: which of its addresses would be meant is left to the resolver of the day.

import { formatAddress, type Prefix, parseAddress, parsePrefix, specialKind } from '../../resolver/address.ts'
import { isLabel } from '../../resolver/directory.ts'

/** SERVICE and MEMBER, 63 characters each with their dots, must fit before the zone in 253 (RFC 1035). */
const ZONE_MAX_CHARS = 253 - 2 * 64

export interface HostPort {
  readonly host: string
  readonly port: number
}

/** `A.B.C.D:PORT` or `[IPv6]:PORT`, port 0..65535 (0: any free one). */
export function parseHostPort(text: string): HostPort | undefined {
  const match = /^(?:\[([0-9a-f:.]+)\]|([0-9.]+)):(\d{1,5})$/i.exec(text)
  if (match === null) return undefined
  const address = parseAddress(match[1] ?? match[2]!)
  const port = Number(match[3])
  if (address === null || port > 65535) return undefined
  return { host: formatAddress(address), port }
}

/** An address that somebody can be sent to, in canonical text. */
export function parseReachable(text: string): string | undefined {
  const address = parseAddress(text)
  if (address === null) return undefined
  const kind = specialKind(address)
  return kind === 'unspecified' || kind === 'multicast' || kind === 'broadcast'
    ? undefined
    : formatAddress(address)
}

/** A prefix or bare address; IPv4 in its mapped form is IPv4. */
export function parseRange(text: string): Prefix | undefined {
  return parsePrefix(text) ?? undefined
}

/** A zone's name in lower case without final dot. */
export function parseZone(text: string): string | undefined {
  const zone = text.toLowerCase().replace(/\.$/, '')
  const labels = zone.split('.')
  return zone.length <= ZONE_MAX_CHARS && labels.every(isLabel) ? zone : undefined
}

/** What strangers may be shown, in one DNS string. */
export function parseShown(text: string): string | undefined {
  return /^[\x20-\x7e]{1,64}$/.test(text) ? text : undefined
}

export function parseLabel(text: string): string | undefined {
  return isLabel(text) ? text : undefined
}

/** A base URL, with its final slash. */
export function parseUrl(text: string): string | undefined {
  const url = URL.canParse(text) ? new URL(text) : null
  if (url === null || !/^https?:$/.test(url.protocol)) return undefined
  const isPlain = url.search === '' && url.hash === '' && url.username === ''
  return isPlain ? url.href.replace(/\/?$/, '/') : undefined
}

/** USER or USER:GROUP, as useradd lets them be named. */
export function parseUser(text: string): string | undefined {
  return /^[a-z_][a-z0-9_.-]{0,31}(?::[a-z_][a-z0-9_.-]{0,31})?$/i.test(text) ? text : undefined
}

/** A parser of whole numbers within a range, both ends allowed. */
export function wholeNumber(min: number, max: number): (text: string) => number | undefined {
  return (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
    return value >= min && value <= max ? value : undefined
  }
}

/** A share of something: above 0, at most 1. */
export function parseShare(text: string): number | undefined {
  const share = /^\d{0,3}(?:\.\d{1,12})?$/.test(text) && text !== '' ? Number(text) : Number.NaN
  return share > 0 && share <= 1 ? share : undefined
}

export function parseSwitch(text: string): boolean | undefined {
  if (/^(?:on|true|yes)$/i.test(text)) return true
  return /^(?:off|false|no)$/i.test(text) ? false : undefined
}

/** A parser of one of a few words. */
export function oneOf<W extends string>(...words: readonly W[]): (text: string) => W | undefined {
  return (text) => words.find((word) => word === text)
}

/** Any text but an empty one. */
export function parseText(text: string): string | undefined {
  return text === '' ? undefined : text
}

const ETCD = 'etcd://'
/** etcd's own default. */
const ETCD_PORT = 2379

/** `sqlite`, or `etcd://HOST:PORT,...` with names or addresses, each with its port. */
export function parseStore(text: string): string | undefined {
  if (text === 'sqlite') return text
  if (!text.startsWith(ETCD)) return undefined
  const endpoints = text
    .slice(ETCD.length)
    .replace(/\/$/, '')
    .split(',')
    .map((endpoint) => parseEndpoint(endpoint.trim()))
  return endpoints.includes(undefined) ? undefined : `${ETCD}${endpoints.join(',')}`
}

/** The servers, `HOST:PORT` each, of a store that parseStore took; null: it has none. */
export function storeEndpoints(store: string): readonly string[] | null {
  return store.startsWith(ETCD) ? store.slice(ETCD.length).split(',') : null
}

function parseEndpoint(text: string): string | undefined {
  const match = /^(\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?::(\d{1,5}))?$/i.exec(text)
  const port = Number(match?.[2] ?? ETCD_PORT)
  return match === null || port < 1 || port > 65535 ? undefined : `${match[1]!.toLowerCase()}:${port}`
}

/** What an etcd may be shared by: keys under one prefix. */
export function parseKeyPrefix(text: string): string | undefined {
  return /^\/(?:[\w.-]+\/)*$/.test(text) && text.length <= 128 ? text : undefined
}
