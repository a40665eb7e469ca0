// The registry's rules for tokens: whom an administrator lets in, and takes back.
//
// Pure, as caller.ts says. Of a secret only its hash comes here.

import { type Static, Type } from 'typebox'
import { type Change, CORE_SERVICE, type Token } from '../../resolver/directory.ts'
import { LABEL_PATTERN } from '../../server-agent/protocol/messages.ts'
import { Problem } from '../problem.ts'
import type { Books } from './books.ts'
import { type Caller, type Decision, requireAdmin } from './caller.ts'

const Label = Type.String({ pattern: LABEL_PATTERN })

export const TokenRequest = Type.Object(
  {
    admin: Type.Optional(Type.Boolean({ default: false })),
    services: Type.Optional(
      Type.Array(Label, { maxItems: 1000, description: 'Services whose members it may register' }),
    ),
    note: Type.Optional(Type.String({ maxLength: 200 })),
  },
  { additionalProperties: false },
)
export type TokenRequest = Static<typeof TokenRequest>

/** A token's record; `fresh` brings its id and the hash of its secret. */
export function createToken(
  books: Books,
  caller: Caller,
  request: TokenRequest,
  fresh: { readonly id: string; readonly hash: string; readonly epochMs: number },
): Decision<Token> {
  requireAdmin(caller)
  const { admin = false, services = [] } = request
  if (admin && services.length > 0) {
    throw new Problem('bad-request', 'a token is either for administration or for services', 'services')
  }
  if (!admin && services.length === 0) {
    throw new Problem('bad-request', 'name the services that it is for, or admin', 'services')
  }
  for (const name of services) {
    if (name === CORE_SERVICE)
      throw new Problem('bad-request', 'the members of core are the cores themselves', 'services')
    if (!books.services.has(name)) {
      throw new Problem('not-found', `there is no service '${name}'; make it first`, 'services')
    }
  }
  const token: Token = {
    id: fresh.id,
    hash: fresh.hash,
    scope: admin ? { admin: true } : { admin: false, services },
    createdMs: fresh.epochMs,
    note: request.note ?? '',
  }
  return { changes: [{ kind: 'tokens', key: token.id, value: token }], result: token }
}

/** Takes a token back. Hosts that joined by it stay until they leave or are removed; the last admin token stays. */
export function revokeToken(books: Books, caller: Caller, id: string): Decision<void> {
  requireAdmin(caller)
  const token = books.tokens.get(id)
  if (token === undefined) throw new Problem('not-found', `there is no token '${id}'`)
  const changes: Change[] = [{ kind: 'tokens', key: id, value: null }]
  if (token.scope.admin) {
    const [other] = [...books.tokens.values()].filter(({ id: one, scope }) => scope.admin && one !== id)
    if (other === undefined) {
      throw new Problem('conflict', 'this is the last admin token; create another before you revoke it')
    }
    // Put as it is: whoever revokes that one at this moment, at another core, decides anew.
    changes.push({ kind: 'tokens', key: other.id, value: other })
  }
  return { changes, result: undefined }
}
