// Hand-over: what becomes of a core's records, and of those that it looked after, when it is gone.
//
// Pure, as caller.ts says. The core itself leaves answers at once; hosts with an agent keep their records until
// they register elsewhere or are given up; hosts without one can't register, so another core takes them.

import { type Change, CORE_SERVICE, memberKey } from '../../resolver/directory.ts'
import type { Books } from './books.ts'

/** A core says goodbye, or is said to be gone: no answer names it any more. Kept for a while, as every goodbye. */
export function coreLeaves(books: Books, core: string, epochMs: number): Change[] {
  const changes: Change[] = []
  const key = memberKey(CORE_SERVICE, core)
  const member = books.members.get(key)
  if (member !== undefined && !member.left) {
    changes.push({ kind: 'members', key, value: { ...member, left: true } })
  }
  const host = books.hosts.get(core)
  if (host !== undefined && host.presence !== 'left') {
    const value = { ...host, presence: 'left', presenceSinceMs: epochMs } as const
    changes.push({ kind: 'hosts', key: core, value })
  }
  return changes
}

/** A core becomes the home of a host without agent, whose own is gone. */
export function takeHome(books: Books, name: string, from: string, home: string): Change[] {
  const host = books.hosts.get(name)
  if (host === undefined || host.agent || host.home !== from) return []
  return [{ kind: 'hosts', key: name, value: { ...host, home } }]
}
