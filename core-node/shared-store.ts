// The store that several cores share, opened as the settings say.
//
// Nothing is decided here: which settings go together is config.ts' to say, what a store promises db/store.ts'.
// Keys and the password are read from their files now, and not again.

import { readFileSync } from 'node:fs'
import { openEtcd } from '../db/etcd.ts'
import type { Store } from '../db/store.ts'
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
