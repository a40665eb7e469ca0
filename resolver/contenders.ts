// Contenders: the members whom one client may be sent to, the nearest first, and which of them it is sent to.
//
// What the policy nearest comes to once distances are known: those within tieMs of the nearest share the clients by
// rendezvous hashing, and others as good may be named beside the one whose this client is. Invariant: it chooses what
// select chooses, in the same order (a test asks both a hundred thousand times), or says that it can't. Contenders are
// written here by near-choice.ts and cell-choices.ts, one choice at a time; nothing is allocated. Pure.

import type { Address } from './address.ts'
import { hashClient, hashMix, rendezvousScore } from './hash.ts'
import { TIE_SHARE } from './select.ts'

/** No service has more who are just as near; of more select chooses. */
export const MOST_CONTENDERS = 512

/** For the choice at hand. First come `tied` who share the clients, in any order, then others by their RTTs, equal ones by name. */
export const contenders = {
  /** By their numbers. */
  members: new Int32Array(MOST_CONTENDERS),
  ms: new Float64Array(MOST_CONTENDERS),
  /** At least maxAddrs, or all there are. */
  count: 0,
  tied: 0,
}

/** What was chosen last; valid until the next. */
export const chosen = {
  /** Members by their numbers, best first. */
  picks: new Int32Array(16),
  count: 0,
  scopeBits: 0,
  /** The first one's place by RTT: 1 is the nearest. */
  rank: 0,
}

/** What a service says of its answers. */
export interface Rules {
  readonly tieMs: number
  readonly minAddrs: number
  readonly maxAddrs: number
}

/** Of those who share the clients; once one is picked it is PICKED. */
const scores = new Float64Array(MOST_CONTENDERS)
const PICKED = -1
const NOBODY = -1

/**
 * Chooses among the contenders: into picks, count and rank of `chosen`. By number of a member: its `hashes`, and
 * `capacities`, null where all are alike. False: two score alike, and it hangs on their names.
 */
export function chooseAmong(
  client: Address,
  { tieMs, minAddrs, maxAddrs }: Rules,
  hashes: Int32Array,
  capacities: Float64Array | null,
): boolean {
  const { tied, ms } = contenders
  if (tied > 1) score(client, hashes, capacities)
  const first = tied > 1 ? bestScore() : 0
  if (first === NOBODY) return false
  const bestMs = ms[first]!
  const tiesMs = bestMs + Math.max(tieMs, bestMs * TIE_SHARE)
  let ties = tied
  while (ties < contenders.count && ms[ties]! <= tiesMs) ties++
  chosen.count = Math.min(Math.max(ties, minAddrs), maxAddrs, contenders.count)
  chosen.picks[0] = contenders.members[first]!
  chosen.rank = tied > 1 ? rankOf(first) : 1
  scores[first] = PICKED
  return pickOthers()
}

/** After the first those who share the clients by score, then the others in their order. False: two score alike. */
function pickOthers(): boolean {
  const { tied, members } = contenders
  const { picks, count } = chosen
  for (let n = 1; n < count; n++) {
    const next = n < tied ? bestScore() : n
    if (next === NOBODY) return false
    picks[n] = members[next]!
    scores[next] = PICKED
  }
  return true
}

/** Where all capacities are alike the hashes tell who scores more, which spares a logarithm each. */
function score(client: Address, hashes: Int32Array, capacities: Float64Array | null): void {
  const { tied, members } = contenders
  const hash = hashClient(client)
  for (let i = 0; i < tied; i++) {
    const member = members[i]!
    scores[i] =
      capacities === null
        ? hashMix(hash, hashes[member]!) >>> 0
        : rendezvousScore(hash, hashes[member]!, capacities[member]!)
  }
}

/** Who scores most of those not picked yet; NOBODY: two do. */
function bestScore(): number {
  const { tied } = contenders
  let best = 0
  let isEven = false
  for (let i = 1; i < tied; i++) {
    if (scores[i]! < scores[best]!) continue
    isEven = scores[i] === scores[best]
    best = i
  }
  return isEven ? NOBODY : best
}

function rankOf(first: number): number {
  const { ms, tied } = contenders
  let nearer = 0
  for (let i = 0; i < tied; i++) if (ms[i]! < ms[first]!) nearer++
  return 1 + nearer
}
