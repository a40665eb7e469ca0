// A death in the lab: the member nearest to one client is killed, and answers are watched.
//
// The kill is without warning (SIGKILL), as when a machine loses power; the core finds out by itself.
// Meanwhile every other member must go on being served.

import { setTimeout as sleep } from 'node:timers/promises'
import { askDns, askHttp } from './clients.ts'
import type { LabProcess } from './processes.ts'
import type { Say } from './progress.ts'
import { liveMembers } from './questions.ts'
import type { Death, Outcome } from './report.ts'
import { SERVICE, type Stage, ZONE } from './stage.ts'

const POLL_EVERY_MS = 100
/** Gone for so long is gone, not a flicker. */
const SURE_AFTER_MS = 2000
/** Three times what is promised. */
const GIVE_UP_AFTER_MS = 30_000

/** Kills the member of one client, and asks by DNS and HTTP until neither names it any more. */
export async function watchDeath(
  stage: Stage,
  agents: ReadonlyMap<string, LabProcess>,
  outcomes: readonly Outcome[],
  say: Say,
  signal: AbortSignal,
): Promise<Death> {
  const { client, address, member } =
    outcomes.find((one) => one.member === one.nearest && one.dnsMember === one.nearest) ?? outcomes[0]!
  const memberAddress = stage.world.hosts.find(({ name }) => name === member)!.address
  say(`killing ${member}, the member of the client in ${client}`)
  agents.get(member)!.kill()
  const killedMs = performance.now()
  const dns = new Naming(killedMs)
  const http = new Naming(killedMs)
  const wronged = new Set<string>()
  let successor = ''
  while (!(dns.isOver && http.isOver) && performance.now() - killedMs < GIVE_UP_AFTER_MS) {
    const [addresses, answer, live] = await Promise.all([
      askDns(stage.dns, address, `${SERVICE}.${ZONE}`),
      askHttp(stage.http, address, SERVICE),
      liveMembers(stage),
    ])
    dns.note(addresses.includes(memberAddress))
    http.note(answer?.member === member)
    if (answer !== null) successor = answer.member
    for (const { name } of stage.world.hosts) if (name !== member && !live.has(name)) wronged.add(name)
    await sleep(POLL_EVERY_MS, undefined, { signal })
  }
  return {
    member,
    client,
    dnsSec: dns.goneAfterSec,
    httpSec: http.goneAfterSec,
    successor,
    wronged: [...wronged],
  }
}

/** Whether and until when answers named the dead. */
class Naming {
  readonly #killedMs: number
  /** When the first answer came that did not name it, after the last that did. */
  #goneMs: number | null = null

  constructor(killedMs: number) {
    this.#killedMs = killedMs
  }

  note(named: boolean): void {
    if (named) this.#goneMs = null
    else this.#goneMs ??= performance.now()
  }

  get isOver(): boolean {
    return this.#goneMs !== null && performance.now() - this.#goneMs >= SURE_AFTER_MS
  }

  /** null: it is still named. */
  get goneAfterSec(): number | null {
    return this.#goneMs === null ? null : (this.#goneMs - this.#killedMs) / 1000
  }
}
