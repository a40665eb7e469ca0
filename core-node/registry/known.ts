// What a caller names, out of the books.
//
// Pure, as caller.ts says. A name that nothing has is a Problem, not-found, in the same words wherever it is asked.

import { type Directory, type Host, type Member, memberKey, type Service } from '../../resolver/directory.ts'
import { Problem } from '../problem.ts'

export function knownService(directory: Directory, name: string): Service {
  return known(directory.services, name, 'service')
}

export function knownHost(directory: Directory, name: string): Host {
  return known(directory.hosts, name, 'host')
}

export function knownMember(directory: Directory, service: string, name: string): Member {
  return known(directory.members, memberKey(service, name), 'member')
}

function known<T>(records: ReadonlyMap<string, T>, key: string, what: string): T {
  const record = records.get(key)
  if (record === undefined) throw new Problem('not-found', `there is no ${what} '${key}'`)
  return record
}
