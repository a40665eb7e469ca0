// Who looks at members without agent: of the hosts that were let in by a token, those nearest to each.
//
// Where distances are not known or equal, those that its name falls to. Of many hosts the nearest of a drawn
// part, who then stay its checkers for a minute, so that each has looked often enough to have a say.
// Invariant: who joined openly checks nobody. Pure but for its own memory: clock and chance by argument.

import { type Host, type Member, memberKey } from '../../resolver/directory.ts'
import { hashText } from '../../resolver/hash.ts'
import type { Tables } from '../../resolver/tables.ts'
import { CHECKERS } from './checks.ts'
import { HostDraw } from './host-draw.ts'

/** Of more hosts than these, so many are drawn to choose from. */
const WEIGHED = 512
/** ... and the chosen stay for so long, ms. */
const STAY_MS = 60_000

interface Chosen {
  readonly names: readonly string[]
  readonly untilMs: number
}

export class Checkers {
  readonly #tables: Tables
  readonly #able = new HostDraw()
  /** By member, among many hosts. */
  readonly #chosen = new Map<string, Chosen>()

  constructor(tables: Tables) {
    this.#tables = tables
  }

  /** A host's record is another, or gone (null). */
  follow(name: string, host: Host | null): void {
    this.#able.set(name, host?.agent === true && host.presence === 'live' && host.tokenId !== null)
  }

  /** A member is gone. */
  forget(key: string): void {
    this.#chosen.delete(key)
  }

  /** Beside the core itself, who looks at a member. `isAble`: who carries such orders out. */
  of(member: Member, isAble: (host: string) => boolean, nowMs: number, rng: () => number): readonly string[] {
    if (this.#able.size <= WEIGHED) return this.#nearest(member, this.#able.names.filter(isAble))
    const key = memberKey(member.service, member.name)
    const before = this.#chosen.get(key)
    const isGood = before?.names.every((name) => this.#able.has(name) && isAble(name))
    if (before && isGood && nowMs < before.untilMs) return before.names
    const stay = (before?.names ?? []).filter((name) => this.#able.has(name))
    const drawn = new Set([...stay, ...this.#able.draw(WEIGHED, rng)])
    const names = this.#nearest(member, [...drawn].filter(isAble))
    this.#chosen.set(key, { names, untilMs: nowMs + STAY_MS })
    return names
  }

  #nearest(member: Member, hosts: readonly string[]): string[] {
    const row = this.#tables.hostRow(member.host)
    const weighed = hosts.map((name) => {
      const ms = row < 0 ? Number.NaN : this.#tables.distanceBetweenHostsMs(this.#tables.hostRow(name), row)
      const lot = hashText(`${name} ${member.service}/${member.name}`)
      return { name, ms: Number.isNaN(ms) ? Number.MAX_VALUE : ms, lot }
    })
    weighed.sort((a, b) => a.ms - b.ms || a.lot - b.lot)
    return weighed.slice(0, CHECKERS - 1).map(({ name }) => name)
  }
}
