// Joining by one message: a host with its members, all of them or nothing.
//
// Pure, as caller.ts says. The rules are those of hosts.ts and members.ts, one after another: each member
// is judged as if the host had joined before. Members that the message does not name stay as they are.

import type { Change, Host, Member } from '../../resolver/directory.ts'
import type { HostRequest, JoiningMember } from '../../server-agent/protocol/messages.ts'
import { Problem } from '../problem.ts'
import type { Books } from './books.ts'
import type { Caller, Decision } from './caller.ts'
import { type Enrolment, putHost } from './hosts.ts'
import { putMember } from './members.ts'

interface Joined {
  readonly host: Host
  /** Told where it is new. */
  readonly credential: string | null
  readonly members: readonly Member[]
}

/** A host joins, comes back or says again what it is, and with it the members that it names. */
export function putHostWithMembers(
  books: Books,
  caller: Caller,
  name: string,
  { members: joining = [], ...request }: HostRequest,
  by: Enrolment,
): Decision<Joined> {
  const { changes, result } = putHost(books, caller, name, request, by)
  if (joining.length === 0) return { changes, result: { ...result, members: [] } }
  return books.trying(() => {
    books.draft(changes)
    const all: Change[] = [...changes]
    const members = joining.map((member, i) => {
      const decision = within(`members.${i}`, () => putJoining(books, caller, name, member, by))
      books.draft(decision.changes)
      all.push(...decision.changes)
      return decision.result
    })
    return { changes: all, result: { ...result, members } }
  })
}

function putJoining(
  books: Books,
  caller: Caller,
  host: string,
  { service, name = host, ...request }: JoiningMember,
  by: Enrolment,
): Decision<Member> {
  // From here on it is the host that speaks, whoever let it in; an administrator may say more of it.
  const speaker: Caller = caller.kind === 'admin' ? caller : { kind: 'host', host }
  return putMember(books, speaker, service, name, { ...request, host }, by)
}

/** Runs a rule for a part of a message: what it refuses names the field within the whole. */
function within<T>(part: string, rule: () => T): T {
  try {
    return rule()
  } catch (error) {
    if (!(error instanceof Problem)) throw error
    const field = error.field === undefined ? part : `${part}.${error.field}`
    throw new Problem(error.code, error.message, field)
  }
}
