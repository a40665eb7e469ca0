// Proofs of addresses: a host is served at an address only when the echo behind it answered from there.
//
// The shell around enrolment.ts's proofChanges: it sends the echoes and tries again what did not
// answer. Clock by argument; whoever owns it calls tick.

import type { Change, Directory, Host } from '../resolver/directory.ts'
import { proofChanges } from './enrolment.ts'

/** An address that did not answer its echo is tried again after so long, ms. */
const AGAIN_MS = 10_000
/** A host that just joined knows its key only by the reply, which needs its way, ms. */
const SOON_MS = 250

export interface AddressProofsOptions {
  readonly directory: Readonly<Directory>
  /** Whether a host's echo answers at an address and port. */
  readonly reach: (host: Host, at: { address: string; port: number }) => Promise<boolean>
  readonly write: (decide: () => readonly Change[]) => Promise<void>
}

export class AddressProofs {
  readonly #options: AddressProofsOptions
  readonly #dueMs = new Map<string, number>()

  constructor(options: AddressProofsOptions) {
    this.#options = options
  }

  /** A host joined or changed its addresses: tried soon. */
  expect(host: Host, nowMs: number): void {
    if (openAddresses(host).length > 0) this.#dueMs.set(host.name, nowMs + SOON_MS)
  }

  /** Tries each address of a host that is not proven yet, and keeps what answered. */
  async prove(name: string, nowMs: number): Promise<void> {
    const { directory, reach, write } = this.#options
    const host = directory.hosts.get(name)
    this.#dueMs.delete(name)
    const open = host?.presence === 'live' ? openAddresses(host) : []
    if (host?.echo == null || open.length === 0) return
    this.#dueMs.set(name, nowMs + AGAIN_MS)
    const { port } = host.echo
    const answered = await Promise.all(open.map((address) => reach(host, { address, port })))
    const proven = open.filter((_, i) => answered[i])
    await write(() => proofChanges(directory, host, proven))
  }

  /** The hosts whose time to be tried has come. */
  due(nowMs: number): string[] {
    return [...this.#dueMs].filter(([, dueMs]) => dueMs <= nowMs).map(([name]) => name)
  }
}

/** Addresses about which an echo could still show something. */
function openAddresses({ echo, addresses, proofs }: Host): string[] {
  return echo === null ? [] : addresses.filter((address) => proofs[address] !== 'echo')
}
