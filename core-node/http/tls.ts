// The certificate: read at the start, and again whenever its files change.
//
// Invariant: there is always one that works: a pair of files that can't be read or don't belong together
// is told and left alone, and the last good one stays. Connections that stand keep theirs.

import { readFileSync, unwatchFile, watchFile } from 'node:fs'
import { createSecureContext } from 'node:tls'
import type { Log } from '../ledger.ts'

interface CertificateFiles {
  readonly cert: string
  readonly key: string
}

interface KeyPair {
  readonly cert: Buffer
  readonly key: Buffer
}

/** Looking (not a kernel's notice) sees through renames, symbolic links and network file systems. */
const LOOK_EVERY_MS = 1000

/** Reads the pair. Throws what the file system or TLS has against it. */
export function readKeyPair({ cert, key }: CertificateFiles): KeyPair {
  try {
    const pair = { cert: readFileSync(cert), key: readFileSync(key) }
    createSecureContext(pair)
    return pair
  } catch (cause) {
    const said = (cause as Error).message
    throw new Error(`tls-cert, tls-key: ${cert} and ${key} are not a PEM certificate and its key: ${said}`, {
      cause,
    })
  }
}

/** Calls `use` with each new pair that works. Returns what ends it. */
export function watchKeyPair(
  files: CertificateFiles,
  log: Log,
  use: (pair: KeyPair) => void,
  lookEveryMs: number = LOOK_EVERY_MS,
): () => void {
  const reload = () => {
    try {
      use(readKeyPair(files))
      log.info(files, 'the new certificate is in use')
    } catch (err) {
      log.warn({ ...files, err }, 'the new certificate can’t be used; the old one stays')
    }
  }
  const paths = [files.cert, files.key]
  for (const path of paths) watchFile(path, { interval: lookEveryMs, persistent: false }, reload)
  return () => {
    for (const path of paths) unwatchFile(path, reload)
  }
}
