// Where a host's own credential is kept, so that a restarted agent finds itself again.
//
// One small JSON file for each host, mode 0600 in a folder of mode 0700, replaced whole: a reader sees
// the old one or the new one. A file that can't be read counts as none; the token is there for that.

import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

export class CredentialFile {
  readonly path: string
  readonly #folder: string

  constructor(folder: string, host: string) {
    this.#folder = folder
    this.path = join(folder, `${host}.json`)
  }

  /** null: none is kept. */
  async load(): Promise<string | null> {
    try {
      const kept: unknown = JSON.parse(await readFile(this.path, 'utf8'))
      const credential = (kept as { credential?: unknown } | null)?.credential
      return typeof credential === 'string' ? credential : null
    } catch {
      return null
    }
  }

  /** Rejects with the system's error where it can't be kept. */
  async save(credential: string): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 })
    const fresh = `${this.path}.${process.pid}`
    try {
      await writeFile(fresh, `${JSON.stringify({ credential })}\n`, { mode: 0o600 })
      await rename(fresh, this.path)
    } catch (error) {
      await rm(fresh, { force: true })
      throw error
    }
  }
}
