// What a caller names, out of the books.
//
// Pure, as caller.ts says. A name that nothing has is a Problem, not-found, in the same words wherever it is asked.

import { type Host, type Member, memberKey, type Service } from '../../resolver/directory.ts'
import { Problem } from '../problem.ts'
import type { Books } from './books.ts'
import type { Records } from './draft-map.ts'

export function knownService(books: Pick<Books, 'services'>, name: string): Service {
  return known(books.services, name, 'service')
}

export function knownHost(books: Pick<Books, 'hosts'>, name: string): Host {
  return known(books.hosts, name, 'host')
}

export function knownMember(books: Pick<Books, 'members'>, service: string, name: string): Member {
  return known(books.members, memberKey(service, name), 'member')
}

function known<T>(records: Records<T>, key: string, what: string): T {
  const record = records.get(key)
  if (record === undefined) throw new Problem('not-found', `there is no ${what} '${key}'`)
  return record
}
