// The store that several cores share, opened as the settings say.
//
// Nothing is decided here: which settings go together is config.ts' to say, what a store promises db/store.ts'.
// Keys and the password are read from their files now, and not again.

import { readFileSync } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import { openEtcd } from '../db/etcd.ts'
import { type Store, StoreError } from '../db/store.ts'
import type { Log } from './ledger.ts'
import type { Config } from './settings/config.ts'
import { storeEndpoints } from './settings/config-values.ts'

/** Throws StoreError, or the system's error where the password can't be read; TypeError where the store is shared by nobody. */
export async function openSharedStore(config: Config, { readOnly }: { readOnly: boolean }): Promise<Store> {
  const endpoints = storeEndpoints(config.store)
  if (endpoints === null) throw new TypeError(`${config.store} is shared by nobody`)
  const { storePrefix: prefix, storeCa: ca, storeCert: cert, storeKey: key, storeUser: name } = config
  const password =
    config.storePasswordFile === null ? '' : readFileSync(config.storePasswordFile, 'utf8').trim()
  const tls = ca === null ? null : { ca, cert, key }
  return openEtcd({ endpoints, prefix, readOnly, tls, user: name === null ? null : { name, password } })
}

/** So long a store may take to answer when a core starts, and so often it is asked, ms. */
const LATEST_MS = 60_000
const RETRY_MS = 1000

/** What `open` opens, tried again while that does not answer: after a power cut etcd may come later than its cores. Throws what was said last. */
export async function whenThere(open: () => Promise<Store>, log: Log): Promise<Store> {
  const untilMs = performance.now() + LATEST_MS
  for (;;) {
    try {
      return await open()
    } catch (error) {
      const isAway = error instanceof StoreError && error.code === 'unavailable'
      if (!isAway || performance.now() >= untilMs) throw error
      log.warn({ reason: error.message }, 'the store does not answer yet')
      await wait(RETRY_MS)
    }
  }
}
