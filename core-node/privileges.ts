// Who a core is that was started as root: its user in all that it does, root only while it opens ports.
//
// From the start on, files are made and read as that user, so that none is left behind that only root may
// read; ports and the certificate's key are opened as root; then root is given up for good, in all threads,
// with its groups and capabilities. Without a user set, or where the process is no root, nothing changes.

import { execFileSync } from 'node:child_process'
import { chownSync, existsSync, mkdirSync, readdirSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Log } from './ledger.ts'

const ROOT = 0

export interface Privileges {
  /** Makes the folder with its parents where it is not there; throws where it, or a file in it, is someone else's. */
  makeFolder(path: string): void
  /** Opens what only root may. */
  asRoot<T>(open: () => Promise<T>): Promise<T>
  /** For good. */
  drop(): void
}

/** `user`: USER or USER:GROUP; null: whoever started the process. Throws an error that names the setting. */
export function openPrivileges(user: string | null, log: Log): Privileges {
  const isRoot = process.getuid?.() === ROOT
  if (user === null) {
    if (isRoot) log.warn({}, 'it runs as root: set user, and it gives that up once its ports are open')
    return KEPT
  }
  const identity = identify(user)
  if (isRoot) return lowered(user, identity)
  if (process.getuid?.() === identity.uid) return KEPT
  throw new Error(`user: ${JSON.stringify(user)}: expected to be started as root, or as that user`)
}

const KEPT: Privileges = {
  makeFolder: (path) => mkdirSync(path, { recursive: true, mode: 0o700 }),
  asRoot: (open) => open(),
  drop: () => {},
}

interface Identity {
  readonly name: string
  readonly uid: number
  readonly gid: number
}

/** Asked of the system's own programs, which know all places that users are kept in. */
function identify(user: string): Identity {
  const [name, group] = user.split(':') as [string, string?]
  try {
    const uid = Number(told('id', '-u', name))
    const gid = Number(
      group === undefined ? told('id', '-g', name) : told('getent', 'group', group).split(':')[2],
    )
    if (uid === ROOT) throw new Error('that is root itself')
    return { name, uid, gid }
  } catch (cause) {
    const said = (cause as Error).message.trim().split('\n').at(-1)
    throw new Error(`user: ${JSON.stringify(user)}: expected a user of this system (${said})`, { cause })
  }
}

function told(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

/** Root by right, the user in effect. */
function lowered(user: string, { name, uid, gid }: Identity): Privileges {
  const raise = () => process.seteuid!(ROOT)
  const lower = () => process.seteuid!(uid)
  // Node has it wherever it has setuid; its types have not.
  const { initgroups } = process as unknown as { initgroups(user: string, group: number): void }
  initgroups(name, gid)
  process.setegid!(gid)
  lower()
  return {
    makeFolder(path) {
      if (existsSync(path)) return expectOwner(path, user, uid)
      raise()
      try {
        mkdirSync(dirname(path), { recursive: true })
        mkdirSync(path, { mode: 0o700 })
        chownSync(path, uid, gid)
      } finally {
        lower()
      }
    },
    async asRoot(open) {
      raise()
      try {
        return await open()
      } finally {
        lower()
      }
    },
    drop() {
      raise()
      process.setgid!(gid)
      process.setuid!(uid)
    },
  }
}

/** Nothing is taken from another user on the way: that is for the operator to say. */
function expectOwner(path: string, user: string, uid: number): void {
  const expect = (at: string) => {
    const found = statSync(at)
    if (found.uid === uid || (at !== path && !found.isFile())) return
    throw new Error(`${at} belongs to user ${found.uid}: expected ${user} (chown -R ${user} ${path})`)
  }
  expect(path)
  for (const name of readdirSync(path)) expect(join(path, name))
}
