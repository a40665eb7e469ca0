// The admin token of a data folder: made at the first start, kept in one file that only its owner can
// read, never logged. Whoever can read the file may administer.
//
// A lost file is made anew, with a new token, at the next start: who may write there is the owner.

import { randomBytes } from 'node:crypto'
import { open, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import type { Change, Directory } from '../../resolver/directory.ts'
import { hashSecret, newTokenSecret } from './credentials.ts'

/** Where the admin token of a data folder lies. */
export function adminTokenPath(data: string): string {
  return join(data, 'admin-token')
}

/** Makes sure that the folder's file holds a valid admin token; returns the records to commit. */
export async function ensureAdminToken(
  data: string,
  directory: Directory,
  epochMs: number,
): Promise<Change[]> {
  const known = await readAdminToken(data)
  if (known !== null) {
    const hash = hashSecret(known)
    for (const token of directory.tokens.values()) if (token.scope.admin && token.hash === hash) return []
  }
  const secret = newTokenSecret()
  await writePrivate(adminTokenPath(data), `${secret}\n`)
  const id = randomBytes(4).toString('hex')
  const note = 'made at the start, in the file admin-token'
  return [
    {
      kind: 'tokens',
      key: id,
      value: { id, hash: hashSecret(secret), scope: { admin: true }, createdMs: epochMs, note },
    },
  ]
}

/** The admin token of a data folder; null: there is none to read. */
export async function readAdminToken(data: string): Promise<string | null> {
  try {
    return (await readFile(adminTokenPath(data), 'utf8')).trim()
  } catch {
    return null
  }
}

/** Writes a file that only its owner may read, whole or not at all. */
async function writePrivate(path: string, text: string): Promise<void> {
  const draft = `${path}.new`
  const file = await open(draft, 'w', 0o600)
  try {
    await file.chmod(0o600)
    await file.writeFile(text)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(draft, path)
}
