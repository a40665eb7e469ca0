// Secrets: made here, told once, kept only as SHA-256 hashes (they are random, so a fast hash is enough).
//
// A Bearer secret is either a token's (`nct_...`) or a host's own credential (`nch_...`); a ticket is a
// signed leave for one client prefix to report RTTs for a while, checked without any state.

import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import type { Directory, Token } from '../../resolver/directory.ts'
import { Problem } from '../problem.ts'
import type { Applied } from './books.ts'
import type { Caller } from './caller.ts'

/** 192 random bits: not to be guessed, short enough to paste. */
const SECRET_BYTES = 24
/** How long a ticket may be used: one session of a client. Seconds. */
const TICKET_SEC = 600

export function newTokenSecret(): string {
  return `nct_${randomBytes(SECRET_BYTES).toString('base64url')}`
}

export function newCredential(): string {
  return `nch_${randomBytes(SECRET_BYTES).toString('base64url')}`
}

/** SHA-256 of a secret, hex: what is stored of it. */
export function hashSecret(secret: string): string {
  return createHash('sha256').update(secret).digest('hex')
}

/** Compares a secret with a stored hash in a time that tells nothing of where they differ. */
export function matchesHash(secret: string, hash: string): boolean {
  return timingSafeEqual(Buffer.from(hashSecret(secret), 'hex'), Buffer.from(hash, 'hex'))
}

/** Who holds which secret, by hash: an index over the directory, kept up by the core. */
export class CredentialIndex {
  /** A token, or the name of a host. */
  readonly #holders = new Map<string, Token | string>()

  constructor(directory: Directory) {
    for (const token of directory.tokens.values()) this.#holders.set(token.hash, token)
    for (const { name, credentialHash } of directory.hosts.values())
      if (credentialHash !== null) this.#holders.set(credentialHash, name)
  }

  apply(changes: readonly Applied[]): void {
    for (const change of changes) {
      if (change.kind === 'tokens')
        this.#set(change.before?.hash ?? null, change.value?.hash ?? null, change.value)
      else if (change.kind === 'hosts')
        this.#set(change.before?.credentialHash ?? null, change.value?.credentialHash ?? null, change.key)
    }
  }

  /** The caller behind a secret. What is compared is its hash, so timing tells nothing of the secret. */
  find(secret: string | null): Caller {
    if (secret === null) return { kind: 'anonymous' }
    const holder = this.#holders.get(hashSecret(secret))
    if (typeof holder === 'string') return { kind: 'host', host: holder }
    if (holder !== undefined) return { kind: holder.scope.admin ? 'admin' : 'token', token: holder }
    throw new Problem('unauthorized', 'nobody here has this token or credential; it may have been revoked')
  }

  #set(before: string | null, after: string | null, holder: Token | string | null): void {
    if (before !== null && before !== after) this.#holders.delete(before)
    if (after !== null && holder !== null) this.#holders.set(after, holder)
  }
}

/** A ticket for the clients of one prefix. `key`: a secret that all cores share. */
export function signTicket(key: Uint8Array, prefix: string, epochMs: number): string {
  const expires = (Math.floor(epochMs / 1000) + TICKET_SEC).toString(36)
  return `${expires}.${ticketMac(key, prefix, expires).toString('base64url')}`
}

/** Throws Problem `forbidden` where the ticket is not one for this prefix, or too old. */
export function checkTicket(key: Uint8Array, ticket: string, prefix: string, epochMs: number): void {
  const [expires = '', mac = ''] = ticket.split('.')
  const given = Buffer.from(mac, 'base64url')
  const expected = ticketMac(key, prefix, expires)
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) {
    throw new Problem('forbidden', 'this ticket was not given to a client at this address', 'ticket')
  }
  if (Number.parseInt(expires, 36) * 1000 < epochMs) {
    throw new Problem('forbidden', 'this ticket is too old; ask again for a new one', 'ticket')
  }
}

function ticketMac(key: Uint8Array, prefix: string, expires: string): Buffer {
  return createHmac('sha256', key).update(`nearcast ticket 1\n${prefix}\n${expires}`).digest().subarray(0, 16)
}
