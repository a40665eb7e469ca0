// What reports change in the registry: heartbeats and the checks of members without agent.
//
// Pure, as caller.ts says; who reported was made sure of before. Others' members are passed over, and what
// was said already changes nothing.

import { type Change, type Health, type Host, memberKey } from '../../resolver/directory.ts'
import type { Beat } from '../../server-agent/protocol/messages.ts'
import type { Books } from './books.ts'
import type { Telling } from './telling.ts'

type Known = Pick<Books, 'hosts' | 'members'>

/** What a heartbeat says that must be kept: a silent host is back, a member's health flipped. Others' members are passed over. */
export function heardChanges(books: Known, hostName: string, beat: Beat, epochMs: number): Change[] {
  const host = books.hosts.get(hostName)
  if (host === undefined || host.presence === 'left') return []
  const changes: Change[] = []
  if (host.presence === 'silent') {
    changes.push({
      kind: 'hosts',
      key: hostName,
      value: { ...host, presence: 'live', presenceSinceMs: epochMs },
    })
  }
  for (const { service, name, health } of beat.members ?? []) {
    const member = books.members.get(memberKey(service, name))
    if (health === undefined || member?.host !== hostName || member.health === health) continue
    changes.push({ kind: 'members', key: memberKey(service, name), value: { ...member, health } })
  }
  return changes
}

/** What a heartbeat says of loads that is worth telling: answered with at once, not worth a write each. */
export function loadChanges(books: Known, host: Host, beat: Beat, telling: Telling): Change[] {
  const changes: Change[] = []
  for (const { service, name, load } of beat.members ?? []) {
    const member = books.members.get(memberKey(service, name))
    if (load === undefined || member?.host !== host.name) continue
    if (!telling.isLoadNews(member.load, load, member.capacity)) continue
    changes.push({ kind: 'members', key: memberKey(service, name), value: { ...member, load } })
  }
  return changes
}

/** Health that checks by other hosts decided, by member key. */
export function healthChanges(
  books: Known,
  decided: readonly { member: string; health: Health }[],
): Change[] {
  const changes: Change[] = []
  for (const { member: key, health } of decided) {
    const member = books.members.get(key)
    if (member === undefined || member.health === health) continue
    changes.push({ kind: 'members', key, value: { ...member, health } })
  }
  return changes
}
