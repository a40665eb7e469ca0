// How the lab comes up: agents join, hosts get coordinates, clients are measured.
//
// Each step waits for what the core itself says, tells how far it is, and is bounded in time: where
// agents do not join the lab fails; what is not measured in time will show in the table.

import { setTimeout as sleep } from 'node:timers/promises'
import { askHttp } from './clients.ts'
import type { LabProcess } from './processes.ts'
import { type Say, Teller } from './progress.ts'
import { coordinates, liveMembers, localityOf } from './questions.ts'
import { SERVICE, type Stage } from './stage.ts'

/** Agents that start at the same time: each keeps a processor busy for most of a second. */
const STARTING_AT_ONCE = 4
/** What a slow machine needs to start one agent, and to see coordinates and clients measured. */
const JOIN_MS_PER_HOST = 5000
const COORDINATES_WITHIN_MS = 30_000
const CLIENTS_WITHIN_MS = 90_000
/** An order waits up to 2 s for its host's heartbeat, and its result for the next: longer than that without news. */
const SETTLED_AFTER_MS = 6000
/** Clients ask again so often until they are measured: a core measures who asks. */
const ASK_EVERY_MS = 2000

/** Starts the agents, a few at a time, until all of them are live members. */
export async function joinAll(stage: Stage, say: Say, signal: AbortSignal): Promise<Map<string, LabProcess>> {
  const agents = new Map<string, LabProcess>()
  const { hosts } = stage.world
  const told = new Teller(say)
  const deadlineMs = performance.now() + hosts.length * JOIN_MS_PER_HOST
  for (;;) {
    stage.checkProcesses()
    const live = await liveMembers(stage)
    told.tell(`joined ${live.size}/${hosts.length}`, live.size === hosts.length)
    if (live.size === hosts.length) return agents
    if (performance.now() > deadlineMs) {
      const missing = hosts.filter(({ name }) => !live.has(name)).map(({ name }) => name)
      const last = agents.get(missing[0]!)?.tail
      throw new Error(`these never became live members: ${missing.join(', ')}; the first said last:\n${last}`)
    }
    for (const host of hosts.slice(agents.size, live.size + STARTING_AT_ONCE)) {
      agents.set(host.name, stage.startAgent(host))
    }
    await sleep(250, undefined, { signal })
  }
}

/** Waits until every host has a coordinate. */
export async function placeAll(stage: Stage, say: Say, signal: AbortSignal): Promise<void> {
  const told = new Teller(say)
  const deadlineMs = performance.now() + COORDINATES_WITHIN_MS
  for (;;) {
    stage.checkProcesses()
    const placed = (await coordinates(stage)).size
    const count = stage.world.hosts.length
    const ended = placed === count || performance.now() > deadlineMs
    told.tell(`${placed}/${count} hosts have a coordinate`, ended)
    if (ended) return
    await sleep(500, undefined, { signal })
  }
}

/** Has the clients ask, until nothing new was measured of any of them for a while. */
export async function measureAll(stage: Stage, say: Say, signal: AbortSignal): Promise<void> {
  const told = new Teller(say)
  const deadlineMs = performance.now() + CLIENTS_WITHIN_MS
  const { clients } = stage.world
  let before = -1
  let newsMs = performance.now()
  for (;;) {
    stage.checkProcesses()
    await Promise.all(clients.map(({ address }) => askHttp(stage.http, address, SERVICE)))
    await sleep(ASK_EVERY_MS, undefined, { signal })
    const localities = await Promise.all(clients.map((client) => localityOf(stage, client)))
    const measured = localities.filter(({ basis }) => basis === 'measured').length
    const paths = localities.reduce((sum, { evidence }) => sum + evidence.length, 0)
    const nowMs = performance.now()
    if (paths !== before) newsMs = nowMs
    before = paths
    const settled = measured === clients.length && nowMs - newsMs >= SETTLED_AFTER_MS
    const ended = settled || nowMs > deadlineMs
    told.tell(`measured ${measured}/${clients.length} clients, ${paths} paths in all`, ended)
    if (ended) return
  }
}
