// Anycasts to one group through a core's own parts: Tables, locate, select, the planner of probes and the folding
// of what they find. A source is a client that the core never heard of; it asks once, and is answered at once, from
// what its network's hosts are known for. Its network is then probed, and what it would be answered after each
// probe is told. Only a probe's RTTs come from the world.

import { Demand } from '../../core-node/measuring/demand.ts'
import { Localities } from '../../core-node/measuring/localities.ts'
import { ProbePlanner } from '../../core-node/measuring/planner.ts'
import { formatPrefix, localityPrefix } from '../../resolver/address.ts'
import { ANY_ASK } from '../../resolver/ask.ts'
import type { Host, LocalityRecord } from '../../resolver/directory.ts'
import { locate } from '../../resolver/locate.ts'
import { placeChanges } from '../../resolver/place-page.ts'
import { select } from '../../resolver/select.ts'
import { Tables } from '../../resolver/tables.ts'
import { aService, member, ofHost, ofService } from '../support/records.ts'
import { PROBE_PACKETS } from './scribe-costs.ts'
import { nodeOf } from './scribe-hosts.ts'
import type { Rng } from './scribe-topology.ts'
import type { ScribeWorld } from './scribe-world.ts'

/** The neutral policy: the nearest alone is right, nothing is kept from before, ties are not shared out. */
const GROUP = aService({
  name: 'group',
  maxAddrs: 1,
  tieMs: 0,
  stickyMs: 0,
  stickyRatio: 1,
  allDown: { mode: 'empty' },
})
const ONE = { ...ANY_ASK, limit: 1 }
const NO_LIMIT = 1e9
/** A step of the planner: probes of one prefix are apart by a heartbeat or more in a core. */
const STEP_MS = 10_000
/** Empty plans in a row after which nothing more will come. */
const IDLE_STEPS = 3

export class ScribeAnycast {
  readonly #world: ScribeWorld
  readonly #rng: Rng
  readonly #tables = new Tables()
  readonly #published = new Map<string, LocalityRecord>()
  readonly #localities = new Localities(this.#published)

  constructor(world: ScribeWorld, hosts: readonly Host[], rng: Rng) {
    this.#world = world
    this.#rng = rng
    this.#tables.apply(placeChanges(new Map(), world.announcements()))
    this.#tables.apply([
      ofService(GROUP),
      ...hosts.flatMap((host) => [ofHost(host), member(GROUP.name, host.name)]),
    ])
  }

  /** Members named to a source after 0, 1, 2 ... of its probes. Everything that was found out is forgotten again. */
  ask(source: number, probes: number): number[] {
    const address = this.#world.addressOf(source)
    const prefix = localityPrefix(address)
    const demand = new Demand()
    const planner = new ProbePlanner({
      probesPerMinute: NO_LIMIT,
      probesPerHostPerMinute: NO_LIMIT,
      probesPerPrefix: probes,
      optOut: [],
      allowPrivate: [],
    })
    const named = [this.#answer(source)]
    demand.note(address, GROUP.name, address, 0)
    for (let nowMs = 0, idle = 0; named.length <= probes && idle < IDLE_STEPS; nowMs += STEP_MS) {
      const [probe] = planner.plan(this.#tables, demand, nowMs)
      if (!probe) {
        idle++
        continue
      }
      const rttsMs = this.#world.echo(nodeOf(probe.host), source, PROBE_PACKETS, this.#rng)
      this.#localities.fold({ prefix, host: probe.host, rttsMs, kind: 'active' }, nowMs)
      planner.hear(probe.prefix, probe.host, true, nowMs)
      this.#publish(nowMs)
      named.push(this.#answer(source))
    }
    this.#forget(formatPrefix(prefix))
    return named
  }

  /** The member named to a source that is itself a host with a coordinate. */
  askAsHost(source: number, host: Host): number {
    this.#tables.apply([ofHost(host)])
    const named = this.#answer(source)
    this.#tables.apply([{ kind: 'hosts', key: host.name, value: null }])
    return named
  }

  #answer(source: number): number {
    const locality = locate(this.#tables, this.#world.addressOf(source))
    const { picks } = select(this.#tables, this.#tables.service(GROUP.name)!, locality, ONE, this.#rng)
    return nodeOf(picks[0]!.member.name)
  }

  #publish(nowMs: number): void {
    const changes = this.#localities.publish(nowMs)
    for (const { key, value } of changes) {
      if (value) this.#published.set(key, value as LocalityRecord)
      else this.#published.delete(key)
    }
    this.#tables.apply(changes)
  }

  #forget(prefix: string): void {
    this.#localities.forgetPrefix(prefix)
    this.#published.delete(prefix)
    this.#tables.apply([{ kind: 'localities', key: prefix, value: null }])
  }
}
