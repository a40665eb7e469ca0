// How long a thread of another process ran, and how long it could have run and waited for a processor: Linux tells.
//
// Invariant: two readings tell what lay between them; of a thread that runs on, the last may be some ms old. Elsewhere
// than on Linux, or where there is no such thread, nothing is told.

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

export interface ThreadTimes {
  readonly ranMs: number
  readonly waitedMs: number
}

/** Reads the times of the first thread of a process whose name begins so; null: there is none, or it is not told. */
export function openThreadTimes(pid: number, name: string): (() => ThreadTimes) | null {
  try {
    const folder = `/proc/${pid}/task`
    const thread = readdirSync(folder).find((id) =>
      readFileSync(join(folder, id, 'comm'), 'utf8').startsWith(name),
    )
    if (thread === undefined) return null
    const file = join(folder, thread, 'schedstat')
    const read = () => {
      const [ranNs, waitedNs] = readFileSync(file, 'utf8').split(' ')
      return { ranMs: Number(ranNs) / 1e6, waitedMs: Number(waitedNs) / 1e6 }
    }
    return Number.isNaN(read().waitedMs) ? null : read
  } catch {
    return null
  }
}
