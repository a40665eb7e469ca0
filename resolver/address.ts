// Addresses and prefixes, bytes first: one form for both families.
//
// An Address is always 16 bytes; IPv4 is ::ffff:a.b.c.d, so there is one table and one code path.
// A Prefix counts bits in that form: IPv4 192.0.2.0/24 has 120 bits. People see families' own lengths.
// Parsing never throws: null for what is no address. Text out is canonical (RFC 5952), so equal
// addresses have equal text. A zone id (fe80::1%eth0) is no part of an address.

/** 16 bytes, network order. */
export type Address = Uint8Array
export type Family = 4 | 6

export interface Prefix {
  readonly address: Address
  /** 0..128, counted in the 16-byte form. */
  readonly bits: number
}

/** How many bits of the 16-byte form stand before an IPv4 address. */
export const IPV4_OFFSET_BITS = 96
/** The first grain of localities: what a client is taken for, in bits of the 16-byte form. */
export const IPV4_LOCALITY_BITS = 24 + IPV4_OFFSET_BITS
export const IPV6_LOCALITY_BITS = 48

const ADDRESS_BYTES = 16
const IPV4_OFFSET_BYTES = IPV4_OFFSET_BITS / 8
/** Of the 16-byte form: a prefix that is one address. */
export const ADDRESS_BITS = 128

/** IPv4 dotted decimal (four numbers, no leading zeros) or IPv6 (RFC 4291, 2.2); null for all else. */
export function parseAddress(text: string): Address | null {
  const address = new Uint8Array(ADDRESS_BYTES)
  if (text.includes(':')) return parseIpv6(text, address) ? address : null
  address[10] = address[11] = 0xff
  return parseIpv4(text, address, IPV4_OFFSET_BYTES) ? address : null
}

const IPV4_NUMBER = /^(?:0|[1-9]\d{0,2})$/

function parseIpv4(text: string, out: Uint8Array, at: number): boolean {
  const parts = text.split('.')
  if (parts.length !== 4) return false
  for (const [i, part] of parts.entries()) {
    // A leading zero is octal to some readers and decimal to others: refused (RFC 6943, 3.1.1).
    if (!IPV4_NUMBER.test(part) || Number(part) > 255) return false
    out[at + i] = Number(part)
  }
  return true
}

function parseIpv6(text: string, out: Uint8Array): boolean {
  const halves = text.split('::')
  if (halves.length > 2) return false
  const head = parseGroups(halves[0]!, halves.length === 1)
  const tail = halves.length === 2 ? parseGroups(halves[1]!, true) : []
  if (head === null || tail === null) return false
  const given = head.length + tail.length
  // "::" stands for at least one group of zeros.
  if (halves.length === 1 ? given !== ADDRESS_BYTES : given > ADDRESS_BYTES - 2) return false
  out.set(head, 0)
  out.set(tail, ADDRESS_BYTES - tail.length)
  return true
}

/** The bytes of `a:b:c`, the last of which may be dotted IPv4 where `last` allows it. */
function parseGroups(text: string, last: boolean): number[] | null {
  if (text === '') return []
  const bytes: number[] = []
  const groups = text.split(':')
  for (const [i, group] of groups.entries()) {
    if (/^[0-9a-f]{1,4}$/i.test(group)) {
      const value = Number.parseInt(group, 16)
      bytes.push(value >> 8, value & 0xff)
    } else {
      const ipv4 = new Uint8Array(4)
      if (!last || i !== groups.length - 1 || !parseIpv4(group, ipv4, 0)) return null
      bytes.push(...ipv4)
    }
  }
  return bytes
}

/** A socket's peer as node writes it: a link-local one has its zone behind a %. */
export function parsePeerAddress(text: string): Address | null {
  return parseAddress(text.replace(/%.*$/, ''))
}

/** Canonical text: IPv4 dotted, IPv6 by RFC 5952. */
export function formatAddress(address: Address): string {
  if (familyOf(address) === 4) return address.subarray(IPV4_OFFSET_BYTES).join('.')
  const groups: number[] = []
  for (let i = 0; i < ADDRESS_BYTES; i += 2) groups.push((address[i]! << 8) | address[i + 1]!)
  const hex = groups.map((group) => group.toString(16))
  const { start, length } = longestZeroRun(groups)
  if (length < 2) return hex.join(':')
  return `${hex.slice(0, start).join(':')}::${hex.slice(start + length).join(':')}`
}

/** The run of zeros that "::" shortens: the longest, and of equals the first (RFC 5952, 4.2.3). */
function longestZeroRun(groups: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 }
  let length = 0
  for (const [i, group] of groups.entries()) {
    length = group === 0 ? length + 1 : 0
    if (length > best.length) best = { start: i - length + 1, length }
  }
  return best
}

/** 4 for ::ffff:0:0/96, else 6. */
export function familyOf(address: Address): Family {
  for (let i = 0; i < 10; i++) if (address[i] !== 0) return 6
  return address[10] === 0xff && address[11] === 0xff ? 4 : 6
}

/** An address from its family's own bytes; a short one is padded with zeros (RFC 7871, 6), a long one is null. */
export function addressFromBytes(family: Family, bytes: Uint8Array): Address | null {
  const offset = family === 4 ? IPV4_OFFSET_BYTES : 0
  if (bytes.length > ADDRESS_BYTES - offset) return null
  const address = new Uint8Array(ADDRESS_BYTES)
  if (family === 4) address[10] = address[11] = 0xff
  address.set(bytes, offset)
  return address
}

/**
 * `ADDRESS/LENGTH`, the length in the family's own count; a bare address is /32 or /128. Bits after
 * the length must be 0. ::/0 is all of IPv6, 0.0.0.0/0 all of IPv4.
 */
export function parsePrefix(text: string): Prefix | null {
  const slash = text.indexOf('/')
  const address = parseAddress(slash < 0 ? text : text.slice(0, slash))
  if (address === null) return null
  if (slash < 0) return { address, bits: ADDRESS_BITS }
  const length = text.slice(slash + 1)
  if (!/^(?:0|[1-9]\d{0,2})$/.test(length)) return null
  const bits = Number(length) + (text.includes(':') ? 0 : IPV4_OFFSET_BITS)
  if (bits > ADDRESS_BITS) return null
  return isClearedAfter(address, bits) ? { address, bits } : null
}

/** Whether the bits behind the first `bits` are 0. */
export function isClearedAfter(address: Address, bits: number): boolean {
  if ((bits & 7) > 0 && (address[bits >> 3]! & (0xff >> (bits & 7))) !== 0) return false
  for (let i = (bits + 7) >> 3; i < ADDRESS_BYTES; i++) if (address[i] !== 0) return false
  return true
}

/** Canonical text, with the length in the family's own count. */
export function formatPrefix(prefix: Prefix): string {
  const ipv4 = prefix.bits >= IPV4_OFFSET_BITS && familyOf(prefix.address) === 4
  return `${formatAddress(prefix.address)}/${ipv4 ? prefix.bits - IPV4_OFFSET_BITS : prefix.bits}`
}

/** The prefix of `bits` (0..128, of the 16-byte form) around an address, host bits cleared. */
export function prefixOf(address: Address, bits: number): Prefix {
  const masked = new Uint8Array(ADDRESS_BYTES)
  const whole = bits >> 3
  for (let i = 0; i < whole; i++) masked[i] = address[i]!
  if (whole < ADDRESS_BYTES) masked[whole] = address[whole]! & (0xff00 >> (bits & 7))
  return { address: masked, bits }
}

/** Whether an address is inside. No IPv6 prefix holds an IPv4 address, though ::ffff:0:0/96 lies in the shorter ones. */
export function contains(prefix: Prefix, address: Address): boolean {
  if (prefix.bits < IPV4_OFFSET_BITS && familyOf(address) === 4) return false
  const whole = prefix.bits >> 3
  for (let i = 0; i < whole; i++) if (prefix.address[i] !== address[i]) return false
  const rest = prefix.bits & 7
  return rest === 0 || ((prefix.address[whole]! ^ address[whole]!) & (0xff00 >> rest) & 0xff) === 0
}

/** Whether one of the prefixes contains the address. */
export function isInAny(prefixes: readonly Prefix[], address: Address): boolean {
  return prefixes.some((prefix) => contains(prefix, address))
}

/** Four bytes from `at` on as one word, with a sign: `>>> 0` takes it away. */
export function wordAt(address: Address, at: number): number {
  return (address[at]! << 24) | (address[at + 1]! << 16) | (address[at + 2]! << 8) | address[at + 3]!
}

/** Writes an address's last words into `to` from `at` on: of 1 it is IPv4's own, of 4 the whole. */
export function copyWords(address: Address, words: 1 | 4, to: Int32Array, at: number): void {
  for (let word = 0; word < words; word++) to[at + word] = wordAt(address, 4 * (4 - words + word))
}

/** Writes what comes before an IPv4 address's own bytes. Byte by byte: to fill so few is a call that takes longer. */
export function beginIpv4(to: Uint8Array): void {
  for (let i = 0; i < 10; i++) to[i] = 0
  to[10] = to[11] = 0xff
}

export function sameAddress(a: Address, b: Address): boolean {
  for (let i = 0; i < ADDRESS_BYTES; i++) if (a[i] !== b[i]) return false
  return true
}

/** `HOST:PORT`, an IPv6 address in brackets. */
export function formatHostPort({ host, port }: { readonly host: string; readonly port: number }): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/** A URL's hostname as an address is written: `[2001:db8::1]` -> `2001:db8::1`. */
export function withoutBrackets(hostname: string): string {
  return hostname.replace(/^\[|\]$/g, '')
}

/** What a client is taken for where nothing finer is known: its /24 or /48. */
export function localityPrefix(address: Address): Prefix {
  return prefixOf(address, familyOf(address) === 4 ? IPV4_LOCALITY_BITS : IPV6_LOCALITY_BITS)
}

/**
 * The ranges that are no ordinary global unicast, most specific first, from the IANA special-purpose
 * registries (RFC 6890 and its updates) and, for IPv6, from what lies outside 2000::/3 (RFC 4291, 2.4).
 */
const SPECIAL_RANGES: readonly { readonly prefix: Prefix; readonly kind: string }[] = [
  ['255.255.255.255/32', 'broadcast'],
  ['192.0.0.0/24', 'reserved'],
  ['192.0.2.0/24', 'documentation'],
  ['192.31.196.0/24', 'reserved'],
  ['192.52.193.0/24', 'reserved'],
  ['192.88.99.0/24', 'reserved'],
  ['192.175.48.0/24', 'reserved'],
  ['198.51.100.0/24', 'documentation'],
  ['203.0.113.0/24', 'documentation'],
  ['169.254.0.0/16', 'link-local'],
  ['192.168.0.0/16', 'private'],
  ['198.18.0.0/15', 'benchmark'],
  ['172.16.0.0/12', 'private'],
  ['100.64.0.0/10', 'shared'],
  ['0.0.0.0/32', 'unspecified'],
  ['0.0.0.0/8', 'reserved'],
  ['10.0.0.0/8', 'private'],
  ['127.0.0.0/8', 'loopback'],
  ['224.0.0.0/4', 'multicast'],
  ['240.0.0.0/4', 'reserved'],
  ['::/128', 'unspecified'],
  ['::1/128', 'loopback'],
  ['64:ff9b::/96', 'translation'],
  ['64:ff9b:1::/48', 'translation'],
  ['2001:2::/48', 'benchmark'],
  ['2620:4f:8000::/48', 'reserved'],
  ['2001:db8::/32', 'documentation'],
  ['2001::/32', 'tunnel'],
  ['2001::/23', 'reserved'],
  ['3fff::/20', 'documentation'],
  ['2002::/16', 'tunnel'],
  ['fe80::/10', 'link-local'],
  ['ff00::/8', 'multicast'],
  ['fc00::/7', 'unique-local'],
].map(([text, kind]) => ({ prefix: parsePrefix(text!)!, kind: kind! }))

const IPV6_GLOBAL = parsePrefix('2000::/3')!

/** Which special-purpose range an address is in, such as `loopback` or `private`; null: ordinary global unicast. */
export function specialKind(address: Address): string | null {
  const range = SPECIAL_RANGES.find(({ prefix }) => contains(prefix, address))
  if (range !== undefined) return range.kind
  return familyOf(address) === 4 || contains(IPV6_GLOBAL, address) ? null : 'reserved'
}

export function isLoopback(address: Address): boolean {
  return specialKind(address) === 'loopback'
}

/** Whether an address is this machine's own or one that the operator listed. */
export function isLoopbackOrIn(prefixes: readonly Prefix[], address: Address): boolean {
  return isLoopback(address) || isInAny(prefixes, address)
}

/** Whether a URL's or listener's host is this machine by loopback: an address of it, or `localhost` (RFC 6761, 6.3). */
export function isLoopbackHost(host: string): boolean {
  if (host === 'localhost' || host.endsWith('.localhost')) return true
  const address = parseAddress(withoutBrackets(host))
  return address !== null && isLoopback(address)
}

/** Whether a listener's host stands for all addresses of the machine: 0.0.0.0 and ::. */
export function isWildcard(host: string): boolean {
  const address = parseAddress(host)
  return address !== null && specialKind(address) === 'unspecified'
}
