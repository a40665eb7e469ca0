// Who a request comes from: the peer's address, or, behind proxies that the operator named, the right-most
// hop of X-Forwarded-For that is none of them.
//
// Invariant: nothing that a client can write itself decides. Hops are read from the right, only as far as
// trusted proxies vouch for them; what stands further left is never looked at.
// The header comes once or many times, hops with or without ports and brackets; addresses are taken in
// their 16-byte form, so `::ffff:192.0.2.1` is 192.0.2.1. Pure.

import { type Address, isInAny, type Prefix, parseAddress, parsePeerAddress } from '../../resolver/address.ts'
import type { Peer } from '../core.ts'

export interface Client extends Peer {
  /**
   * True where a proxy that nobody named stands before us: there was a forwarding header, and it was not
   * read. Then the address is that proxy's, and being local proves nothing of the client.
   */
  readonly behindUnknownProxy: boolean
}

/** What a request says of its way here. */
interface Hops {
  /** The peer's address as the socket gives it; undefined: it has gone already. */
  readonly address: string | undefined
  readonly port: number | undefined
  /** Values of X-Forwarded-For, in order. */
  readonly forwardedFor: readonly string[]
  /** Whether another header says that it was forwarded (RFC 7239 `Forwarded`, `X-Real-IP`). */
  readonly forwardedOtherwise: boolean
}

/** A port that a proxy did not tell. */
const UNKNOWN_PORT = 0

/** null: the hop that counts is no address (or the peer has gone), so the client can't be told. */
export function clientOf(hops: Hops, trustedProxies: readonly Prefix[]): Client | null {
  const address = hops.address === undefined ? null : parsePeerAddress(hops.address)
  if (address === null) return null
  const isTrusted = (hop: Address): boolean => isInAny(trustedProxies, hop)
  let client: Peer = { address, port: hops.port ?? UNKNOWN_PORT }
  if (!isTrusted(address)) {
    const behindUnknownProxy = hops.forwardedFor.length > 0 || hops.forwardedOtherwise
    return { ...client, behindUnknownProxy }
  }
  const chain = hops.forwardedFor.join(',').split(',')
  if (hops.forwardedFor.length === 0) chain.length = 0
  for (const text of chain.reverse()) {
    const hop = parseHop(text.trim())
    if (hop === null) return null
    client = hop
    if (!isTrusted(hop.address)) break
  }
  return { ...client, behindUnknownProxy: false }
}

/** `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`, any of them quoted. */
function parseHop(text: string): Peer | null {
  const bare = /^"(.*)"$/.exec(text)?.[1] ?? text
  const parts = /^\[([^\]]*)\](?::(\d{1,5}))?$/.exec(bare) ?? /^([^:]*):(\d{1,5})$/.exec(bare)
  const address = parseAddress(parts?.[1] ?? bare)
  const port = parts?.[2] === undefined ? UNKNOWN_PORT : Number(parts[2])
  return address === null || port > 65_535 ? null : { address, port }
}
