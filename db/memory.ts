// A Store that forgets with its process: for tests, and the plainest reading of what store.ts promises.
//
// What it keeps is a Directory that may be handed to the next openMemory, as a file would be opened again.

import { applyChanges, type Change, type Directory, emptyDirectory } from '../resolver/directory.ts'
import { type Store, StoreError } from './store.ts'

/** Opens over `kept`, which commits change; handing the same one in again is opening again. */
export function openMemory(kept: Directory = emptyDirectory()): Store {
  let open = true
  const checkOpen = () => {
    if (!open) throw new StoreError('closed', 'This store was closed.')
  }
  return {
    cluster: null,
    async load() {
      checkOpen()
      return copyOf(kept)
    },
    async commit(changes: readonly Change[]) {
      checkOpen()
      // Tried on a copy first: a change that can't be applied must leave none of the others behind.
      applyChanges(copyOf(kept), changes)
      applyChanges(kept, changes)
    },
    async close() {
      open = false
    },
  }
}

/** New maps of the same records: records are values and are shared. */
export function copyOf(directory: Directory): Directory {
  return {
    services: new Map(directory.services),
    hosts: new Map(directory.hosts),
    members: new Map(directory.members),
    tokens: new Map(directory.tokens),
    localities: directory.localities.copy(),
    places: new Map(directory.places),
    settings: new Map(directory.settings),
  }
}
