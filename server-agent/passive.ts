// Passive evidence: round trips to a member's own clients, as the kernel's TCP already knows them.
//
// Pure: the text that `ss` prints goes in with the clock, RTTs by client prefix come out. Of a
// connection the least RTT counts (tcp_info's tcpi_min_rtt: delayed ACKs and queues only ever add), of
// a prefix's connections the lower quartile. Invariant: whatever the text, nothing throws, a connection
// counts once in AGAIN_MS, and memory is bounded by the connections of one listing and MAX_PREFIXES.

import { isIP, isIPv4 } from 'node:net'
import { MAX_RTT_MS } from './protocol/messages.ts'

/** One established connection to a member's port. */
export interface Connection {
  /** Address and port at both ends, as listed: tells connections apart. */
  readonly key: string
  /** The client's, IPv4 or IPv6. */
  readonly address: string
  readonly rttMs: number
}

/** What a core is told of a client prefix. */
export interface ClientRtt {
  /** One that connected; it stands for its /24 (/48). */
  readonly address: string
  readonly rttMs: number
  /** Connections that it was seen on. */
  readonly count: number
}

interface PrefixMemory {
  address: string
  /** Of connections not told yet. */
  samplesMs: number[]
  count: number
  toldMs: number
}

/** A connection that lasts is a new sample after this, ms: the kernel's least RTT forgets after 5 minutes. */
const AGAIN_MS = 10 * 60_000
/** Of one prefix a core is told at most so often, ms. */
const TELL_EVERY_MS = 60_000
/** Prefixes told at once: well under what one request may hold. */
const TELL_MAX = 500
/** Prefixes remembered: 40 times what is told at once. */
const MAX_PREFIXES = 20_000
/** A quartile of more says nothing more. */
const MAX_SAMPLES = 32

const LINE = /^(?:ESTAB\s+)?\d+\s+\d+\s+(\S+):(\d{1,5})\s+(\S+):(\d{1,5})(?:\s|$)/

/**
 * The connections in what `ss -tinH state established` prints: a line with both ends, then (or, with -O,
 * after them) the kernel's figures. What is no such line, has no RTT, or leads nowhere but to this
 * machine or its link is left out.
 */
export function parseSs(output: string): Connection[] {
  const connections: Connection[] = []
  let ends: RegExpExecArray | null = null
  for (const line of output.split('\n')) {
    if (!/^\s/.test(line)) ends = LINE.exec(line)
    if (ends === null) continue
    const rttMs = rttIn(line)
    if (rttMs === null) continue
    const [, local, localPort, peer, peerPort] = ends
    const address = clientAddress(peer!)
    if (address !== null && address !== plainAddress(local!)) {
      connections.push({ key: `${peer}:${peerPort} ${local}:${localPort}`, address, rttMs })
    }
    ends = null
  }
  return connections
}

function rttIn(figures: string): number | null {
  const found = /\sminrtt:([0-9.]+)(?:\s|$)/.exec(figures) ?? /\srtt:([0-9.]+)\//.exec(figures)
  const rttMs = found === null ? Number.NaN : Number(found[1])
  return rttMs > 0 && rttMs <= MAX_RTT_MS ? rttMs : null
}

/** A client that a core could send elsewhere; null for link-local, unspecified and unreadable ones. */
function clientAddress(text: string): string | null {
  const address = plainAddress(text)
  if (address === null) return null
  const isLocal = isIPv4(address)
    ? /^(?:0|169\.254)\./.test(address)
    : /^(?:fe[89ab]|ff)/i.test(address) || address === '::'
  return isLocal ? null : address
}

/** `[::ffff:192.0.2.1]` -> 192.0.2.1, `[fe80::1]%eth0` and `[fe80::1%eth0]` -> fe80::1; null: no address. */
function plainAddress(text: string): string | null {
  const bare = text.replace(/%[^\]]*/, '').replace(/^\[(.*)\]$/, '$1')
  const address = bare.replace(/^::ffff:(?=\d+\.)/i, '')
  return isIP(address) === 0 ? null : address
}

/** The /24 or /48 that an address stands for, as a key. */
export function clientPrefix(address: string): string {
  if (isIPv4(address)) return address.slice(0, address.lastIndexOf('.'))
  const [head = '', tail = ''] = address.toLowerCase().split('::')
  const groups = head === '' ? [] : head.split(':')
  // An IPv4 tail is two groups, but never among the first three of an address that is not special.
  const missing = 8 - groups.length - (tail === '' ? 0 : tail.split(':').length)
  const all = address.includes('::') ? [...groups, ...Array(missing).fill('0'), ...tail.split(':')] : groups
  return all
    .slice(0, 3)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')
}

/** What is known of clients' prefixes and was not told yet. */
export class ClientRtts {
  readonly #prefixes = new Map<string, PrefixMemory>()
  /** Connections of the last listing, with when each counted last. */
  #counted = new Map<string, number>()

  /** Takes a listing in. */
  note(connections: readonly Connection[], nowMs: number): void {
    const counted = new Map<string, number>()
    for (const { key, address, rttMs } of connections) {
      // A listing of many may hold one twice: it is no snapshot.
      const lastMs = counted.get(key) ?? this.#counted.get(key)
      const isNew = lastMs === undefined || nowMs - lastMs >= AGAIN_MS
      counted.set(key, isNew ? nowMs : lastMs)
      if (isNew) this.#add(address, rttMs)
    }
    this.#counted = counted
  }

  /** What is due to be told, the prefixes with most connections first; it counts as told from now on. */
  take(nowMs: number): ClientRtt[] {
    const due: PrefixMemory[] = []
    for (const [prefix, memory] of this.#prefixes) {
      if (nowMs - memory.toldMs < TELL_EVERY_MS) continue
      if (memory.count > 0) due.push(memory)
      else this.#prefixes.delete(prefix)
    }
    due.sort((a, b) => b.count - a.count)
    return due.slice(0, TELL_MAX).map((memory) => {
      const { address, samplesMs, count } = memory
      Object.assign(memory, { samplesMs: [], count: 0, toldMs: nowMs })
      return { address, rttMs: lowerQuartile(samplesMs), count }
    })
  }

  #add(address: string, rttMs: number): void {
    const prefix = clientPrefix(address)
    const memory = this.#prefixes.get(prefix) ?? {
      address,
      samplesMs: [],
      count: 0,
      toldMs: Number.NEGATIVE_INFINITY,
    }
    if (!this.#prefixes.has(prefix)) {
      if (this.#prefixes.size >= MAX_PREFIXES) return
      this.#prefixes.set(prefix, memory)
    }
    memory.address = address
    memory.count++
    if (memory.samplesMs.length < MAX_SAMPLES) memory.samplesMs.push(rttMs)
  }
}

function lowerQuartile(samplesMs: readonly number[]): number {
  return samplesMs.toSorted((a, b) => a - b)[Math.floor(samplesMs.length / 4)]!
}
