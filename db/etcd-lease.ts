// A core's lease in etcd: a key under its name that goes when nobody renews it for eight seconds.
//
// Invariant: while it is held, the key is there with this process's mark or being put there: a lease that was lost
// is replaced by a new one. Renewals go to whichever server answers. Of two processes of one name the later has the
// key, and the earlier says so and leaves it alone.
// https://etcd.io/docs/v3.4/learning/api/#lease-api

import { randomBytes } from 'node:crypto'
import { status } from '@grpc/grpc-js'
import { type EtcdConnections, EtcdError } from './etcd-connections.ts'
import type { EtcdKeys } from './etcd-keys.ts'
import { put } from './etcd-messages.ts'
import { decodeFacts, encodeFacts } from './etcd-values.ts'

interface LeaseOptions {
  readonly connections: EtcdConnections
  readonly keys: EtcdKeys
  readonly core: string
  /** Tells this process from others of the same name. */
  readonly writer: string
  /** Why the lease may be lost; null: it is held. */
  readonly onTrouble: (reason: string | null) => void
}

/** Long enough for an election over a wide area; a dead core's hosts are looked for elsewhere after it. */
const LEASE_SEC = 8
const RENEW_MS = 2000
const RENEWAL_MS = 1500

/** Random, so that none is ever another's; a number that stays exact. */
export function newLeaseId(): number {
  return randomBytes(6).readUIntBE(0, 6) + 1
}

/** Throws EtcdError. */
export async function grantLease(connections: EtcdConnections, id: number, seconds: number): Promise<void> {
  try {
    await connections.ask('Lease/LeaseGrant', { TTL: seconds, ID: id })
  } catch (error) {
    // It was granted by a try that nothing was heard of.
    if (!(error instanceof EtcdError) || error.code !== status.FAILED_PRECONDITION) throw error
  }
}

export class EtcdLease {
  readonly #options: LeaseOptions
  #id = 0
  #timer: NodeJS.Timeout | undefined
  #isReleased = false

  /** Resolves when the key is there. Throws EtcdError. */
  static async hold(options: LeaseOptions): Promise<EtcdLease> {
    const lease = new EtcdLease(options)
    await lease.#take()
    lease.#renewLater()
    return lease
  }

  private constructor(options: LeaseOptions) {
    this.#options = options
  }

  /** With the lease its key goes. */
  async release(): Promise<void> {
    this.#isReleased = true
    clearTimeout(this.#timer)
    this.#options.onTrouble(null)
    await this.#options.connections.ask('Lease/LeaseRevoke', { ID: this.#id })
  }

  #renewLater(): void {
    if (!this.#isReleased) this.#timer = setTimeout(() => void this.#renew(), RENEW_MS)
  }

  async #renew(): Promise<void> {
    try {
      const left = await this.#keepAlive()
      const holder = await this.#holder()
      if (holder !== null && holder !== this.#options.writer) {
        throw new Error(
          `another process holds the lease of ${this.#options.core}: give each core a name of its own`,
        )
      }
      if ((left <= 0 || holder === null) && !this.#isReleased) await this.#take()
      if (!this.#isReleased) this.#options.onTrouble(null)
    } catch (error) {
      if (!this.#isReleased) this.#options.onTrouble(`the lease is not renewed: ${(error as Error).message}`)
    }
    this.#renewLater()
  }

  async #take(): Promise<void> {
    const { connections, keys, core, writer } = this.#options
    this.#id = newLeaseId()
    await grantLease(connections, this.#id, LEASE_SEC)
    // Putting it twice is no harm: it is the same.
    await connections.ask('KV/Txn', {
      compare: [],
      success: [put(keys.core(core), encodeFacts({ writer }), this.#id)],
    })
  }

  /** Whose key it is; null: there is none. */
  async #holder(): Promise<string | null> {
    const { connections, keys, core } = this.#options
    const { kvs } = await connections.ask('KV/Range', { key: keys.core(core) })
    return kvs.length === 0 ? null : String(decodeFacts(kvs[0]!.value).writer)
  }

  /** Seconds that it lasts from now on; 0: it is lost. */
  async #keepAlive(): Promise<number> {
    for (let tries = 0; ; tries++) {
      try {
        return await this.#keepAliveOnce()
      } catch (error) {
        if (!(error instanceof EtcdError) || error.outcome === 'refused' || tries === 2) throw error
      }
    }
  }

  #keepAliveOnce(): Promise<number> {
    return new Promise((resolve, reject) => {
      let cancel = () => {}
      const timer = setTimeout(() => {
        cancel()
        reject(new EtcdError('unknown', status.DEADLINE_EXCEEDED, 'etcd does not answer'))
      }, RENEWAL_MS)
      const settle =
        <T>(then: (value: T) => void) =>
        (value: T) => {
          clearTimeout(timer)
          cancel()
          then(value)
        }
      const { connections } = this.#options
      connections
        .stream(
          'Lease/LeaseKeepAlive',
          settle(({ TTL }: { TTL: number }) => resolve(TTL)),
          settle(reject),
        )
        .then((stream) => {
          cancel = () => stream.cancel()
          stream.send({ ID: this.#id })
        }, settle(reject))
    })
  }
}
