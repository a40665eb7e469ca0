// Proofs of addresses: a host is served at an address only when the echo behind it answered from there.
//
// The shell around proofChanges of registry/hosts.ts: it sends the echoes and tries again what did not
// answer. Clock by argument; whoever owns it calls tick.

import { formatPrefix, localityPrefix, parseAddress } from '../resolver/address.ts'
import type { Change, Directory, Host } from '../resolver/directory.ts'
import { TokenBuckets } from '../server-agent/protocol/token-bucket.ts'
import { DueQueue } from './due-queue.ts'
import type { Books } from './registry/books.ts'
import { proofChanges } from './registry/hosts.ts'

/** An address that did not answer its echo is tried again after so long, doubling up to an hour, ms. */
const AGAIN_MS = 10_000
const AGAIN_AT_MOST_MS = 3_600_000
/** Tries to one /24 (/48): anyone may name an address that is not its own, and its owner must hardly notice. */
const TRIES_PER_PREFIX = { perSec: 1, burst: 60, maxKeys: 20_000 }
/** Hosts tried in one go: after a restart all are due that are not proven, and a core has more to do than that. */
const TRIED_AT_ONCE = 1000
/** A host that just joined knows its key only by the reply, which needs its way, ms. */
const SOON_MS = 250

interface AddressProofsOptions {
  readonly directory: Readonly<Directory>
  /** Whether a host's echo answers at an address and port. */
  readonly reach: (host: Host, at: { address: string; port: number }) => Promise<boolean>
  readonly write: (decide: (books: Books) => readonly Change[]) => Promise<void>
}

/** A host with addresses to be tried. */
interface Trial {
  readonly host: string
  readonly atMs: number
  /** Until the next one, if this shows nothing. */
  readonly waitMs: number
}

export class AddressProofs {
  readonly #options: AddressProofsOptions
  readonly #trials = new Map<string, Trial>()
  readonly #due = new DueQueue<Trial>()
  readonly #budget = new TokenBuckets(TRIES_PER_PREFIX)

  constructor(options: AddressProofsOptions) {
    this.#options = options
  }

  /** A host joined or changed its addresses: tried soon. */
  expect(host: Host, nowMs: number): void {
    if (openAddresses(host).length > 0)
      this.#plan({ host: host.name, atMs: nowMs + SOON_MS, waitMs: AGAIN_MS })
  }

  /** The record of a host is gone. */
  forget(host: string): void {
    this.#trials.delete(host)
  }

  #plan(trial: Trial): void {
    this.#trials.set(trial.host, trial)
    this.#due.add(trial, trial.atMs)
  }

  /** Tries each address of a host that is not proven yet, and keeps what answered. */
  async prove(name: string, nowMs: number): Promise<void> {
    const { directory, reach, write } = this.#options
    const host = directory.hosts.get(name)
    const open = host?.presence === 'live' ? openAddresses(host) : []
    if (host?.echo == null || open.length === 0) return this.forget(name)
    const { port } = host.echo
    const tried = open.filter((address) => this.#budget.take(prefixOfText(address), nowMs))
    const { atMs = nowMs, waitMs = AGAIN_MS } = this.#trials.get(name) ?? {}
    // A trial out of its turn puts off no other: a host may register many members at once.
    if (atMs <= nowMs) {
      const nextMs = tried.length === 0 ? waitMs : Math.min(2 * waitMs, AGAIN_AT_MOST_MS)
      this.#plan({ host: name, atMs: nowMs + waitMs, waitMs: nextMs })
    }
    // What was not tried shows nothing, neither that it can be reached nor that it can't.
    if (tried.length === 0) return
    const answered = await Promise.all(tried.map((address) => reach(host, { address, port })))
    const proven = tried.filter((_, i) => answered[i])
    await write((books) => proofChanges(books, host, proven))
  }

  /** The hosts whose time to be tried has come, as many as are tried at once. */
  due(nowMs: number): string[] {
    const names: string[] = []
    while (names.length < TRIED_AT_ONCE) {
      const trial = this.#due.take(nowMs)
      if (trial === null) break
      // Another trial of that host may have been planned since, or none is wanted any more.
      if (this.#trials.get(trial.host) === trial) names.push(trial.host)
    }
    return names
  }
}

function prefixOfText(address: string): string {
  return formatPrefix(localityPrefix(parseAddress(address)!))
}

/** Addresses about which an echo could still show something. */
function openAddresses({ echo, addresses, proofs }: Host): string[] {
  return echo === null ? [] : addresses.filter((address) => proofs[address] !== 'echo')
}
