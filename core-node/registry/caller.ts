// Who asks, and what a decision of the registry is: what services, tokens, hosts and members share.
//
// Pure. A rule takes (directory, caller, request, facts of the moment) and gives the changes to commit, or
// throws a Problem that names the field. Nothing here waits, reads a clock or draws a number.

import { formatAddress, parseAddress } from '../../resolver/address.ts'
import type { Change, Token } from '../../resolver/directory.ts'
import { Problem } from '../problem.ts'

/** Who asks, as far as its credential says. */
export type Caller =
  | { readonly kind: 'admin'; readonly token?: Token }
  | { readonly kind: 'token'; readonly token: Token }
  | { readonly kind: 'host'; readonly host: string }
  | { readonly kind: 'anonymous' }

/** What a decision of the registry comes to: records to commit, and what to tell. */
export interface Decision<T> {
  readonly changes: readonly Change[]
  readonly result: T
}

/** Throws Problem unless the caller is an administrator. */
export function requireAdmin(caller: Caller): void {
  if (caller.kind === 'admin') return
  if (caller.kind === 'anonymous') throw new Problem('unauthorized', 'this needs the admin token as Bearer')
  throw new Problem('forbidden', 'this needs the admin token; the one given is for agents')
}

/** Whether two records say the same. Records are built with their fields in one order. */
export function sameRecord(a: object, b: object): boolean {
  return JSON.stringify(a) === JSON.stringify(b)
}

/** Canonical text of an address, or a Problem at `field`. */
export function canonicalAddress(text: string, field: string): string {
  const address = parseAddress(text)
  if (address === null) throw new Problem('bad-request', `'${text}' is not an IP address`, field)
  return formatAddress(address)
}

/** A parsed http(s) URL without credentials, query or fragment, or a Problem at `field`. */
export function canonicalUrl(text: string, field: string): URL {
  const url = URL.canParse(text) ? new URL(text) : null
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw new Problem('bad-request', `'${text}' is not an http or https URL`, field)
  }
  if (url.username !== '' || url.password !== '') {
    throw new Problem('bad-request', 'a URL here must not carry a user or password', field)
  }
  if (url.search !== '' || url.hash !== '') {
    throw new Problem('bad-request', 'a base URL has no query and no fragment', field)
  }
  return url
}
