// The health of members without agent: nearby hosts check them, and a majority of the checkers decides.
//
// Each checker has its own rise and fall counts, so one lost connection flips nothing; a member is down
// when more than half of its recent checkers say so. Pure: clock by argument, sends nothing.

import type { Health } from '../../resolver/directory.ts'

/** Hosts that check one member: an odd number, so that a majority exists. */
export const CHECKERS = 3
/** A checker changes its mind after so many equal results in a row. */
const RISE = 2
const FALL = 2
/** A checker not heard for so long has no say any more, ms: five rounds. */
const SAY_MS = 10_000

interface Opinion {
  up: boolean
  against: number
  atMs: number
}

export class CheckBoard {
  readonly #members = new Map<string, Map<string, Opinion>>()

  /** One checker's result. Returns what the member's health is by all of them. */
  report(member: string, checker: string, ok: boolean, nowMs: number): Health {
    const opinions = this.#members.get(member) ?? new Map<string, Opinion>()
    this.#members.set(member, opinions)
    const opinion = opinions.get(checker)
    if (opinion === undefined) opinions.set(checker, { up: ok, against: 0, atMs: nowMs })
    else {
      opinion.atMs = nowMs
      opinion.against = opinion.up === ok ? 0 : opinion.against + 1
      if (opinion.against >= (ok ? RISE : FALL)) {
        opinion.up = ok
        opinion.against = 0
      }
    }
    return majority(opinions, nowMs)
  }

  forget(member: string): void {
    this.#members.delete(member)
  }
}

function majority(opinions: Map<string, Opinion>, nowMs: number): Health {
  let up = 0
  let down = 0
  for (const [checker, opinion] of opinions) {
    if (nowMs - opinion.atMs > SAY_MS) opinions.delete(checker)
    else if (opinion.up) up++
    else down++
  }
  return down > up ? 'down' : 'up'
}
