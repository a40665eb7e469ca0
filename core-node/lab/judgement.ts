// The lab's judgement: what clients and the core got, against the true round trips.
//
// Only here and in report.ts is the truth of the emulated Internet looked at, after the fact.

import { distanceMs } from '../../resolver/coordinate.ts'
import { askDns, askHttp } from './clients.ts'
import { rttBetween } from './internet.ts'
import type { LabClient } from './network.ts'
import { coordinates } from './questions.ts'
import type { Outcome } from './report.ts'
import { SERVICE, type Stage, ZONE } from './stage.ts'

/** What a client is told over HTTP and over DNS, and what it should be told. */
export async function judge(stage: Stage, client: LabClient): Promise<Outcome> {
  const { hosts, seed } = stage.world
  const answer = await askHttp(stage.http, client.address, SERVICE)
  const [address] = await askDns(stage.dns, client.address, `${SERVICE}.${ZONE}`)
  const rtts = new Map(hosts.map((host) => [host.name, rttBetween(host.site, client.site, seed)]))
  const [nearest, nearestRttMs] = [...rtts].reduce((best, other) => (other[1] < best[1] ? other : best))
  const rttMs = rtts.get(answer?.member ?? '')
  if (answer === null || rttMs === undefined)
    throw new Error(`${client.site.city.name} was sent to no member`)
  return {
    client: client.site.city.name,
    address: client.address,
    member: answer.member,
    dnsMember: hosts.find((host) => host.address === address)?.name ?? '',
    rttMs,
    nearest,
    nearestRttMs,
    basis: answer.basis,
  }
}

/** Median over pairs of hosts of |predicted - true| / true. */
export async function errorOfCoordinates(stage: Stage): Promise<number> {
  const placed = await coordinates(stage)
  const { hosts, seed } = stage.world
  const errors: number[] = []
  for (const [i, a] of hosts.entries()) {
    for (const b of hosts.slice(i + 1)) {
      const [from, to] = [placed.get(a.name), placed.get(b.name)]
      if (from === undefined || to === undefined) continue
      const trueMs = rttBetween(a.site, b.site, seed)
      errors.push(Math.abs(distanceMs(from, to) - trueMs) / trueMs)
    }
  }
  return errors.sort((a, b) => a - b)[errors.length >> 1] ?? Number.NaN
}
