// Secrets: made here, told once, kept only as SHA-256 hashes (they are random, so a fast hash is enough).
//
// A Bearer secret is either a token's (`nct_...`) or a host's own credential (`nch_...`); a ticket is a
// signed leave for one client prefix to report RTTs for a while, checked without any state.

import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import type { Change, Directory } from '../../resolver/directory.ts'
import { Problem } from '../problem.ts'
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
  readonly #callers = new Map<string, Caller>()
  readonly #hashes = new Map<string, string>()

  constructor(directory: Directory) {
    for (const [key, value] of directory.tokens) this.apply([{ kind: 'tokens', key, value }])
    for (const [key, value] of directory.hosts) this.apply([{ kind: 'hosts', key, value }])
  }

  apply(changes: readonly Change[]): void {
    for (const change of changes) {
      if (change.kind === 'tokens') {
        const token = change.value
        this.#set(
          `token ${change.key}`,
          token?.hash,
          token && { kind: token.scope.admin ? 'admin' : 'token', token },
        )
      } else if (change.kind === 'hosts') {
        this.#set(`host ${change.key}`, change.value?.credentialHash, { kind: 'host', host: change.key })
      }
    }
  }

  /** The caller behind a secret. What is compared is its hash, so timing tells nothing of the secret. */
  find(secret: string | null): Caller {
    if (secret === null) return { kind: 'anonymous' }
    const caller = this.#callers.get(hashSecret(secret))
    if (caller !== undefined) return caller
    throw new Problem('unauthorized', 'nobody here has this token or credential; it may have been revoked')
  }

  #set(owner: string, hash: string | null | undefined, caller: Caller | null): void {
    const before = this.#hashes.get(owner)
    if (before !== undefined) this.#callers.delete(before)
    this.#hashes.delete(owner)
    if (hash == null || caller === null) return
    this.#hashes.set(owner, hash)
    this.#callers.set(hash, caller)
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
