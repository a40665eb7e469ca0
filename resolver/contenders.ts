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

const scores = new Float64Array(MOST_CONTENDERS)
const isTaken = new Uint8Array(MOST_CONTENDERS)
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
  const first = tied > 1 ? bestOf(tied) : 0
  if (first === NOBODY) return false
  const bestMs = ms[first]!
  const tiesMs = bestMs + Math.max(tieMs, bestMs * TIE_SHARE)
  let ties = tied
  while (ties < contenders.count && ms[ties]! <= tiesMs) ties++
  chosen.count = Math.min(Math.max(ties, minAddrs), maxAddrs, contenders.count)
  chosen.picks[0] = contenders.members[first]!
  chosen.rank = tied > 1 ? rankOf(first) : 1
  return pickOthers(first)
}

/** Those who share the clients after the first by score, then the others in their order. False: two score alike. */
function pickOthers(first: number): boolean {
  const { tied, members } = contenders
  const { picks, count } = chosen
  const shared = Math.min(count, tied)
  if (shared > 1) {
    isTaken.fill(0, 0, tied)
    isTaken[first] = 1
  }
  for (let n = 1; n < shared; n++) {
    const next = bestOf(tied)
    if (next === NOBODY) return false
    picks[n] = members[next]!
    isTaken[next] = 1
  }
  for (let n = Math.max(1, shared); n < count; n++) picks[n] = members[n]!
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
        ? hashMix(hash, hashes[member]!)
        : rendezvousScore(hash, hashes[member]!, capacities[member]!)
    isTaken[i] = 0
  }
}

/** Who scores most of those not taken; NOBODY: two do. */
function bestOf(tied: number): number {
  let best = NOBODY
  let most = -1
  let isEven = false
  for (let i = 0; i < tied; i++) {
    const own = scores[i]!
    if (own < most || isTaken[i] === 1) continue
    isEven = own === most
    most = own
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
