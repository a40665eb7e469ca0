// What the lab asks the core as its operator: who is live, what is known of hosts and of clients.
//
// Plain calls of the API; nothing here knows the lab's own truth.

import type { Coordinate } from '../../resolver/directory.ts'
import type { LabClient } from './network.ts'
import { SERVICE, type Stage } from './stage.ts'

/** Names of the members that answers may name. */
export async function liveMembers({ api }: Stage): Promise<Set<string>> {
  const path = `/v1/services/${SERVICE}/members`
  const { members } = await api.request<{ members: { name: string; state: string }[] }>('GET', path)
  return new Set(members.filter(({ state }) => state === 'live').map(({ name }) => name))
}

/** The part of a locality that the lab reads. */
interface KnownLocality {
  readonly basis: string
  readonly evidence: readonly unknown[]
}

/** What is known of where a client is. */
export function localityOf({ api }: Stage, { address }: LabClient): Promise<KnownLocality> {
  return api.request('GET', `/v1/localities/${address}`)
}

/** Coordinates of the lab's hosts, as far as they have one. */
export async function coordinates(stage: Stage): Promise<Map<string, Coordinate>> {
  const { hosts } = await stage.api.request<{ hosts: { name: string; coordinate: Coordinate | null }[] }>(
    'GET',
    '/v1/hosts',
  )
  const ours = new Set(stage.world.hosts.map(({ name }) => name))
  const placed = new Map<string, Coordinate>()
  for (const { name, coordinate } of hosts)
    if (coordinate !== null && ours.has(name)) placed.set(name, coordinate)
  return placed
}
