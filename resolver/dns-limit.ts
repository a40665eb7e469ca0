// Response rate limiting, in BIND's words: a spoofed flood must not turn us on its victim.
//
// Each prefix of askers has an account for each kind of response. It earns so many credits a second, is
// never more than a second's worth in credit nor a window's worth in debt, and pays one a response; in debt,
// every Nth response is a short one that a true asker goes on from ("slip"), and the others are not sent.
// Invariant: fixed memory, the same few steps whatever the source, nothing allocated. Judged is what was
// made, so kind and size are known. Who came by TCP or showed a cookie of ours is not to be judged.

import { IPV4_OFFSET_BITS, type Prefix } from './address.ts'
import { FNV_BASIS, fnvStep } from './hash.ts'

/** Credits a second (0: no limit) and what else BIND's `rate-limit` has. Plain data: threads hand it on. */
export interface RateLimits {
  /** Records for one name and type, whatever their size. */
  readonly responsesPerSecond: number
  /** No records of the type asked for, for one name. */
  readonly nodataPerSecond: number
  /** Names that are not there, below one zone. */
  readonly nxdomainsPerSecond: number
  /** All other rcodes. */
  readonly errorsPerSecond: number
  /** Answers with or without records that are more than AMPLIFIED_TIMES as long as their query. BIND has no such limit. */
  readonly amplifiedPerSecond: number
  /** All responses together. */
  readonly allPerSecond: number
  /** How long a debt can last after the last query, seconds, 1..3600. */
  readonly windowSec: number
  /** Of the responses that are too many every which is slipped, 0 (none) to 10. */
  readonly slip: number
  /** How much of an address is one asker, in the family's own count. */
  readonly ipv4PrefixLength: number
  readonly ipv6PrefixLength: number
  readonly exemptClients: readonly Prefix[]
  /** What would be slipped or dropped is counted, and sent. */
  readonly logOnly: boolean
  /** Accounts there is room for; rounded up to a power of two. */
  readonly maxTableSize: number
}

/**
 * A resolver asks for each of its clients: its plain answers have no limit. Nothing that it does needs a
 * hundred errors a second, and what is much longer than its query it gets by TCP as well.
 */
export const RATE_LIMITS: RateLimits = {
  responsesPerSecond: 0,
  nodataPerSecond: 0,
  nxdomainsPerSecond: 100,
  errorsPerSecond: 100,
  amplifiedPerSecond: 100,
  allPerSecond: 0,
  windowSec: 15,
  slip: 2,
  ipv4PrefixLength: 24,
  ipv6PrefixLength: 56,
  exemptClients: [],
  logOnly: false,
  maxTableSize: 65_536,
}

/** Kinds of responses, and of accounts. */
export const RESPONSE = { ANSWER: 0, NODATA: 1, NXDOMAIN: 2, ERROR: 3 } as const
export type ResponseKind = (typeof RESPONSE)[keyof typeof RESPONSE]
const AMPLIFIED = 4
const ALL = 5

export const VERDICT = { SEND: 0, SLIP: 1, DROP: 2 } as const
export type Verdict = (typeof VERDICT)[keyof typeof VERDICT]

/** From here on who spoofs a source gains much: the length of a response over that of its query. */
const AMPLIFIED_TIMES = 3
const MS_PER_SEC = 1000

/** An account may lie in any of the four slots of its set: 64 bytes, one line of cache. */
const WAYS = 4
const SLOT_NUMBERS = 2
const SET_NUMBERS = WAYS * SLOT_NUMBERS
const LEAST_SETS = 16
/** A slot's first number is its owner's hash times this, and where it stands between two slips. */
const SLIP_ROOM = 16

/** The accounts, for all threads that answer. */
export function rateTable({ maxTableSize }: RateLimits): SharedArrayBuffer {
  let sets = LEAST_SETS
  while (sets * WAYS < maxTableSize) sets *= 2
  return new SharedArrayBuffer(sets * SET_NUMBERS * Float64Array.BYTES_PER_ELEMENT)
}

/**
 * Judges responses on accounts that other threads debit at the same time, without locks: what a race can
 * do is to lose a debit or to hand a slot to the other one of two newcomers. Any number that is read is
 * held between full credit and the deepest debt, so whatever was lost, a few responses are too many or too few.
 */
export class ResponseLimiter {
  readonly isLogOnly: boolean
  /** By kind: credits a second. */
  readonly #perSecond: Float64Array
  readonly #windowMs: number
  readonly #slip: number
  /** Of the 16-byte form. */
  readonly #ipv4Bits: number
  readonly #ipv6Bits: number
  readonly #exempt: readonly Prefix[]
  /**
   * Slots of two numbers: the owner's, and until when it has spent its credit, ms. That moment is the whole
   * account: a credit spent puts it off by a credit's time, and by itself it falls behind the clock; more than
   * a second behind counts as a second, before the clock is debt. (Virtual scheduling: ITU-T I.371, annex A.)
   */
  readonly #table: Float64Array
  readonly #setMask: number

  /** `table`: from rateTable of the same limits. */
  constructor(limits: RateLimits, table: SharedArrayBuffer) {
    this.isLogOnly = limits.logOnly
    this.#perSecond = Float64Array.of(
      limits.responsesPerSecond,
      limits.nodataPerSecond,
      limits.nxdomainsPerSecond,
      limits.errorsPerSecond,
      limits.amplifiedPerSecond,
      limits.allPerSecond,
    )
    this.#windowMs = limits.windowSec * MS_PER_SEC
    this.#slip = limits.slip
    this.#ipv4Bits = IPV4_OFFSET_BITS + limits.ipv4PrefixLength
    this.#ipv6Bits = limits.ipv6PrefixLength
    this.#exempt = limits.exemptClients
    this.#table = new Float64Array(table)
    this.#setMask = this.#table.length / SET_NUMBERS - 1
  }

  /** False: such a response is sent, and need not be judged. */
  watches(kind: ResponseKind, queryBytes: number, replyBytes: number): boolean {
    if (this.#perSecond[kind]! > 0 || this.#perSecond[ALL]! > 0) return true
    return this.#perSecond[AMPLIFIED]! > 0 && isAmplified(kind, queryBytes, replyBytes)
  }

  /**
   * Takes a response from its accounts. `subject`: hashName of the name and type (ANSWER), the name
   * (NODATA) or the zone (NXDOMAIN), 0 of an ERROR. `address`: the asker's 16 bytes, from `at` on. `nowMs`:
   * a clock that only goes on, the same in all threads.
   */
  judge(
    kind: ResponseKind,
    subject: number,
    queryBytes: number,
    replyBytes: number,
    address: Uint8Array,
    at: number,
    nowMs: number,
  ): Verdict {
    const asker = this.#hashAsker(address, at)
    // The slot of any of its accounts that is in debt.
    let indebted = this.#debit(kind, asker, subject, nowMs)
    // Of these an asker has one account: who knew a thousand names would have a thousand.
    if (isAmplified(kind, queryBytes, replyBytes))
      indebted = Math.max(indebted, this.#debit(AMPLIFIED, asker, 0, nowMs))
    indebted = Math.max(indebted, this.#debit(ALL, asker, 0, nowMs))
    // Who is exempt is asked only now: nearly nobody gets here.
    return indebted < 0 || this.#isExempt(address, at) ? VERDICT.SEND : this.#refuse(indebted)
  }

  #hashAsker(address: Uint8Array, at: number): number {
    const bits = isIpv4(address, at) ? this.#ipv4Bits : this.#ipv6Bits
    const whole = bits >> 3
    let hash = FNV_BASIS
    for (let i = 0; i < whole; i++) hash = fnvStep(hash, address[at + i]!)
    if ((bits & 7) === 0) return hash
    return fnvStep(hash, address[at + whole]! & (0xff00 >> (bits & 7)))
  }

  /** Takes a credit. The account's slot if it is in debt now, else -1. */
  #debit(kind: number, asker: number, subject: number, nowMs: number): number {
    const perSecond = this.#perSecond[kind]!
    if (perSecond === 0) return -1
    const slot = this.#slotOf(mix(asker, kind, subject), nowMs)
    const creditMs = MS_PER_SEC / perSecond
    let spentMs = this.#table[slot + 1]!
    // Also where it is no number: see above on races.
    if (!(spentMs > nowMs - MS_PER_SEC)) spentMs = nowMs - MS_PER_SEC
    spentMs = Math.min(spentMs + creditMs, nowMs + this.#windowMs)
    this.#table[slot + 1] = spentMs
    // Sums of fractions are not exact: half a credit is no debt.
    return spentMs > nowMs + creditMs / 2 ? slot : -1
  }

  /**
   * The owner's slot. A newcomer gets that of who owes least: new, where it owes nothing; else with its debt,
   * or a flood that needs accounts without number would wipe out what its victim's owes.
   */
  #slotOf(owner: number, nowMs: number): number {
    const table = this.#table
    const first = (owner & this.#setMask) * SET_NUMBERS
    let least = first
    for (let slot = first; slot < first + SET_NUMBERS; slot += SLOT_NUMBERS) {
      const standing = table[slot]! - owner * SLIP_ROOM
      if (standing >= 0 && standing < SLIP_ROOM) return slot
      if (table[slot + 1]! < table[least + 1]!) least = slot
    }
    table[least] = owner * SLIP_ROOM
    if (!(table[least + 1]! > nowMs)) table[least + 1] = 0
    return least
  }

  /** The first that is too many is slipped, and every Nth after it. */
  #refuse(slot: number): Verdict {
    if (this.#slip === 0) return VERDICT.DROP
    const owner = Math.floor(this.#table[slot]! / SLIP_ROOM) * SLIP_ROOM
    const standing = this.#table[slot]! - owner
    this.#table[slot] = owner + (standing + 1 < this.#slip ? standing + 1 : 0)
    return standing === 0 ? VERDICT.SLIP : VERDICT.DROP
  }

  #isExempt(address: Uint8Array, at: number): boolean {
    for (const prefix of this.#exempt) if (isWithin(prefix, address, at)) return true
    return false
  }
}

/** Negative answers and errors have their own accounts, whatever their length. */
function isAmplified(kind: ResponseKind, queryBytes: number, replyBytes: number): boolean {
  return (kind === RESPONSE.ANSWER || kind === RESPONSE.NODATA) && replyBytes > AMPLIFIED_TIMES * queryBytes
}

/** Evenly spread over 32 bits (MurmurHash3's finalizer), not negative and never 0: 0 is an empty slot's. */
function mix(asker: number, kind: number, subject: number): number {
  let hash = asker ^ Math.imul(subject, 0x9e3779b1) ^ Math.imul(kind + 1, 0x85ebca77)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return ((hash ^ (hash >>> 16)) >>> 0) + 1
}

/** In its mapped form: ::ffff:0:0/96. */
function isIpv4(address: Uint8Array, at: number): boolean {
  for (let i = 0; i < 10; i++) if (address[at + i] !== 0) return false
  return address[at + 10] === 0xff && address[at + 11] === 0xff
}

function isWithin({ address: own, bits }: Prefix, address: Uint8Array, at: number): boolean {
  if (bits < IPV4_OFFSET_BITS && isIpv4(address, at)) return false
  const whole = bits >> 3
  for (let i = 0; i < whole; i++) if (own[i] !== address[at + i]) return false
  return (bits & 7) === 0 || ((own[whole]! ^ address[at + whole]!) & (0xff00 >> (bits & 7)) & 0xff) === 0
}
