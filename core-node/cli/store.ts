// `nearcast store copy`: moves an installation from one store to another, whole.
//
// Invariant: the target holds all of the source or is as it was before, since it is one commit; what it holds then is
// read back and compared. No core may hold either store meanwhile: what it changed would be missing in the copy, or
// come upon it unawares.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isDeepStrictEqual } from 'node:util'
import type { Command } from 'commander'
import { openSqlite } from '../../db/sqlite.ts'
import type { Store } from '../../db/store.ts'
import { type Change, type Directory, emptyDirectory } from '../../resolver/directory.ts'
import { ConfigError, loadConfig } from '../settings/config.ts'
import { parseStore } from '../settings/config-values.ts'
import { openSharedStore } from '../shared-store.ts'
import { CommandFailure, printJson, type Terminal, wrongUse } from './terminal.ts'

interface CopyOptions {
  readonly from: string
  readonly to: string
  readonly force?: boolean
  readonly json?: boolean
  readonly storeCa?: string
  readonly storeCert?: string
  readonly storeKey?: string
  readonly storeUser?: string
  readonly storePasswordFile?: string
  readonly storePrefix?: string
}

const MIGRATIONS = fileURLToPath(new URL('../../migrations', import.meta.url))
const SQLITE = 'sqlite:'
const KINDS = Object.keys(emptyDirectory()) as (keyof Directory)[]

export function addStoreCommands(command: Command, terminal: Terminal): void {
  command
    .command('copy')
    .description('copy everything from one store to another; no core may run on either')
    .requiredOption('--from <store>', 'sqlite:DIR, the data folder of a core, or etcd://HOST:PORT,...')
    .requiredOption('--to <store>', 'the same; made where it is not there')
    .option('--force', 'replace what the target holds')
    .option('--store-ca <file>', 'as for a core, for an etcd on either side')
    .option('--store-cert <file>', 'likewise')
    .option('--store-key <file>', 'likewise')
    .option('--store-user <name>', 'likewise')
    .option('--store-password-file <file>', 'likewise')
    .option('--store-prefix <prefix>', 'likewise')
    .option('--json', 'print JSON')
    .action((options: CopyOptions) => copy(options, terminal))
    .addHelpText(
      'after',
      `
Examples:
  npx nearcast store copy --from sqlite:./data --to etcd://10.0.0.1:2379,10.0.0.2:2379
  npx nearcast store copy --from etcd://10.0.0.1:2379 --to sqlite:./backup

Variables NEARCAST_STORE_... are read as by a core. Admin tokens go along: the file admin-token of the data folder
fits the copy too.`,
    )
}

async function copy(options: CopyOptions, terminal: Terminal): Promise<void> {
  const from = await open(options.from, options, terminal, { isSource: true })
  try {
    const to = await open(options.to, options, terminal, { isSource: false })
    try {
      const counts = await copyAll(from, to, options)
      if (options.json) printJson(terminal, { from: options.from, to: options.to, copied: counts })
      else terminal.print(describe(counts, options))
    } finally {
      await to.close()
    }
  } finally {
    await from.close()
  }
}

async function copyAll(from: Store, to: Store, { from: origin, to: name, force }: CopyOptions) {
  const source = await from.load()
  if (isDeepStrictEqual(source, emptyDirectory())) {
    throw new CommandFailure(`${origin} holds nothing to copy`, { next: 'Another --store-prefix, perhaps?' })
  }
  const before = await to.load()
  if (isDeepStrictEqual(before, source)) return countsOf(source)
  if (!force && KINDS.some((kind) => before[kind].size > 0)) {
    throw new CommandFailure(`${name} is not empty`, {
      next: 'With --force what it holds is replaced.',
    })
  }
  await to.commit(changesTo(before, source))
  if (!isDeepStrictEqual(await to.load(), source)) {
    throw new CommandFailure(`what ${name} holds now is not what was copied: somebody changed it meanwhile`)
  }
  return countsOf(source)
}

/** What makes a directory into another: removals first. */
function changesTo(before: Directory, after: Directory): Change[] {
  const removed = KINDS.flatMap((kind) =>
    [...before[kind].keys()]
      .filter((key) => !after[kind].has(key))
      .map((key) => ({ kind, key, value: null })),
  )
  const put = KINDS.flatMap((kind) =>
    Array.from<[string, unknown], object>(after[kind], ([key, value]) => ({ kind, key, value })),
  )
  return [...removed, ...put] as Change[]
}

function countsOf(directory: Directory): Record<keyof Directory, number> {
  return Object.fromEntries(KINDS.map((kind) => [kind, directory[kind].size])) as Record<
    keyof Directory,
    number
  >
}

function describe(counts: Readonly<Record<string, number>>, { from, to }: CopyOptions): string {
  const parts = Object.entries(counts).map(
    ([kind, count]) => `${count} ${kind === 'places' ? 'pages of places' : kind}`,
  )
  return `copied from ${from} to ${to}, and compared: ${parts.join(', ')}`
}

/** Opens one side. Throws CommandFailure where a core holds it, StoreError where it can't be used. */
async function open(
  name: string,
  options: CopyOptions,
  terminal: Terminal,
  { isSource }: { isSource: boolean },
): Promise<Store> {
  const flag = isSource ? '--from' : '--to'
  if (name.startsWith(SQLITE) && name.length > SQLITE.length)
    return openFile(name.slice(SQLITE.length), isSource)
  if (!name.startsWith('etcd://') || parseStore(name) === undefined) {
    throw wrongUse(`${flag} is ${JSON.stringify(name)}: expected sqlite:DIR or etcd://HOST:PORT,...`)
  }
  const store = await openSharedStore(configOf(name, options, terminal), { readOnly: isSource })
  try {
    const cores = await store.cluster!.cores()
    if (cores.length === 0) return store
    throw new CommandFailure(`${name} is in use by ${cores.join(', ')}`, { next: 'Stop these cores first.' })
  } catch (error) {
    await store.close()
    throw error
  }
}

function openFile(folder: string, isSource: boolean): Promise<Store> {
  const path = join(folder, 'nearcast.db')
  if (isSource && !existsSync(path)) throw new CommandFailure(`there is no ${path} to copy from`)
  return openSqlite({ path, migrations: MIGRATIONS })
}

/** The settings of a core on that store, as far as they are the store's. */
function configOf(store: string, options: CopyOptions, { env }: Terminal) {
  const { storeCa, storeCert, storeKey, storeUser, storePasswordFile, storePrefix } = options
  const given = { storeCa, storeCert, storeKey, storeUser, storePasswordFile, storePrefix }
  const flags = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  const stores = Object.entries(env).filter(([key]) => /^NEARCAST_STORE_/.test(key))
  try {
    // Any name: none is announced.
    return loadConfig({
      flags: { ...flags, store, name: 'copy' },
      env: Object.fromEntries(stores),
      file: null,
    })
  } catch (error) {
    if (error instanceof ConfigError) throw wrongUse(error.message)
    throw error
  }
}
