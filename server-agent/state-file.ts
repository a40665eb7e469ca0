// What a host keeps over restarts: its own credential, so that it finds itself again, and the cores that it
// knew last, so that it finds one of them though the one that it was configured with is gone.
//
// One small JSON file for each host, mode 0600 in a folder of mode 0700, replaced whole: a reader sees
// the old one or the new one. A file that can't be read counts as none; the token is there for that.

import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Type } from 'typebox'
import { Compile } from 'typebox/compile'
import type { KnownCore } from './core-list.ts'

export interface Kept {
  readonly credential: string | null
  /** Nearest first, as they were told. */
  readonly cores: readonly KnownCore[]
}

const CoresShape = Compile(
  Type.Array(
    Type.Object({ name: Type.String(), url: Type.String(), ms: Type.Union([Type.Number(), Type.Null()]) }),
  ),
)

export class StateFile {
  readonly path: string
  readonly #folder: string

  constructor(folder: string, host: string) {
    this.#folder = folder
    this.path = join(folder, `${host}.json`)
  }

  async load(): Promise<Kept> {
    try {
      const kept = JSON.parse(await readFile(this.path, 'utf8')) as { credential?: unknown; cores?: unknown }
      const credential = typeof kept.credential === 'string' ? kept.credential : null
      return { credential, cores: CoresShape.Check(kept.cores) ? kept.cores : [] }
    } catch {
      return { credential: null, cores: [] }
    }
  }

  /** Rejects with the system's error where it can't be kept. */
  async save(kept: Kept): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 })
    const fresh = `${this.path}.${process.pid}`
    try {
      await writeFile(fresh, `${JSON.stringify(kept)}\n`, { mode: 0o600 })
      await rename(fresh, this.path)
    } catch (error) {
      await rm(fresh, { force: true })
      throw error
    }
  }
}
