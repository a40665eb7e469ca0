// What db/store.ts promises of a store that several cores share, as tests that each such store is held to.
//
// `fresh` gives a way to open the same data as another core would. A core is played by Follower: what load gave,
// with all that it committed itself and all that it was told put in: that must be what the store holds.

import type { Test } from 'tap'
import { type Cluster, type Store, StoreError } from '../../db/store.ts'
import { applyChanges, type Change, type Directory, emptyDirectory } from '../../resolver/directory.ts'
import { seededRng } from '../support/seeded-rng.ts'
import { EVERYTHING, setting, someChange } from './store-suite.ts'

export interface OpenOptions {
  readonly readOnly?: boolean
}
export type OpenShared = (options?: OpenOptions) => Promise<Store>

/** A core's part: it keeps a directory by load, its own commits and what it is told. */
export class Follower {
  readonly store: Store
  readonly cluster: Cluster
  readonly directory: Directory
  readonly told: { readonly changes: readonly Change[]; readonly revision: number }[] = []
  cores: readonly string[] = []
  trouble: string | null = null
  readonly troubles: (string | null)[] = []
  #wake: () => void = () => {}

  static async open(open: OpenShared, options: OpenOptions = {}): Promise<Follower> {
    const store = await open(options)
    return new Follower(store, await store.load())
  }

  private constructor(store: Store, directory: Directory) {
    this.store = store
    this.cluster = store.cluster!
    this.directory = directory
    this.cluster.follow({
      onCommit: (changes, revision) => {
        this.told.push({ changes, revision })
        applyChanges(directory, changes)
        this.#wake()
      },
      onCores: (names) => {
        this.cores = names
        this.#wake()
      },
      onTrouble: (reason) => {
        this.trouble = reason
        this.troubles.push(reason)
        this.#wake()
      },
    })
  }

  async commit(changes: readonly Change[]): Promise<void> {
    await this.store.commit(changes)
    applyChanges(this.directory, changes)
  }

  /** Decides anew, on what it then knows, until nobody was first; how often it was not. */
  async decide(decision: (directory: Directory) => readonly Change[]): Promise<number> {
    for (let refused = 0; ; refused++) {
      try {
        await this.commit(decision(this.directory))
        return refused
      } catch (error) {
        if (!(error instanceof StoreError) || error.code !== 'conflict') throw error
        await this.cluster.caughtUp()
      }
    }
  }

  /** Waits until it was told so much that `holds`. */
  async until(what: string, holds: () => boolean, limitMs = 20_000): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`not within ${limitMs} ms: ${what}`)), limitMs)
    })
    while (!holds()) {
      const woken = new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      await Promise.race([woken, late])
    }
    clearTimeout(timer)
  }
}

/** Sorted, so that two directories with the same records are the same text. */
export function sorted(directory: Directory): unknown {
  return Object.entries(directory).map(([kind, records]) => [
    kind,
    [...(records as Map<string, unknown>)].sort(([a], [b]) => (a < b ? -1 : 1)),
  ])
}

/** Opens cores, runs, and closes them whatever happens. */
export async function withCores(
  open: OpenShared,
  count: number,
  run: (...cores: Follower[]) => Promise<void>,
): Promise<void> {
  const cores: Follower[] = []
  try {
    for (let i = 0; i < count; i++) cores.push(await Follower.open(open))
    await run(...cores)
  } finally {
    await Promise.all(cores.map(({ store }) => store.close()))
  }
}

/** So many settings, of a name and with a value of their own each. */
export function settings(count: number, name: string, value: string): Change[] {
  return Array.from({ length: count }, (_, i) => setting(`${name}${i}`, `${value}${i}`))
}

export function testCluster(t: Test, fresh: () => Promise<OpenShared>): void {
  t.test('a commit is told to the others whole, once and in order, and not to who made it', async (t) => {
    await withCores(await fresh(), 3, async (a, b, c) => {
      await a!.commit([setting('x', '1'), setting('y', '1')])
      await a!.commit([setting('x', '2')])
      await a!.commit(EVERYTHING)
      for (const other of [b!, c!]) {
        await other.cluster.caughtUp()
        t.strictSame(
          other.told.map(({ changes }) => changes.length),
          [2, 1, EVERYTHING.length],
        )
        t.strictSame(sorted(other.directory), sorted(a!.directory))
      }
      t.strictSame(a!.told, [])
      const revisions = b!.told.map(({ revision }) => revision)
      t.ok(revisions[0]! < revisions[1]! && revisions[1]! < revisions[2]!, 'revisions grow')
    })
  })

  t.test('what was committed between load and follow is told too', async (t) => {
    const open = await fresh()
    const [a, b] = [await open(), await open()]
    await a.load()
    await b.commit([setting('x', '1')])
    const told: (readonly Change[])[] = []
    const cluster = a.cluster!
    cluster.follow({ onCommit: (changes) => told.push(changes), onCores() {}, onTrouble() {} })
    await cluster.caughtUp()
    t.strictSame(told, [[setting('x', '1')]])
    await Promise.all([a.close(), b.close()])
  })

  t.test('who changes a record that another changed first is refused, whole', async (t) => {
    await withCores(await fresh(), 2, async (a, b) => {
      await a!.commit([setting('x', 'a'), setting('gone', 'a')])
      await b!.cluster.caughtUp()
      // Both at once, on what both know: one of them must see what the other did.
      const outcomes = await Promise.allSettled([
        a!.commit([setting('x', 'a2'), setting('a', '1')]),
        b!.commit([setting('b', '1'), setting('x', 'b2')]),
      ])
      const refused = outcomes.filter(({ status }) => status === 'rejected') as PromiseRejectedResult[]
      t.equal(refused.length, 1)
      t.match(refused[0]!.reason, { name: 'StoreError', code: 'conflict' })
      await Promise.all([a!.cluster.caughtUp(), b!.cluster.caughtUp()])
      const first = outcomes[0]!.status === 'fulfilled' ? 'a' : 'b'
      t.strictSame(a!.directory.settings, b!.directory.settings)
      t.equal(a!.directory.settings.get('x'), `${first}2`)
      t.notOk(a!.directory.settings.has(first === 'a' ? 'b' : 'a'), 'nothing of the refused one is there')
    })
  })

  t.test(
    'what stands on a record that was removed or made meanwhile is refused; another record is not',
    async (t) => {
      const open = await fresh()
      const [a, b] = [await open(), await open()]
      await a.commit([setting('x', '1'), setting('other', '1')])
      // It never follows: all that it was told is what load gave.
      await b.load()
      await a.commit([setting('x', null), setting('new', 'a')])
      await t.rejects(b.commit([setting('x', '2')]), { code: 'conflict' })
      await t.rejects(b.commit([setting('new', 'b')]), { code: 'conflict' })
      await b.commit([setting('other', '2')])
      await b.commit([setting('other', '3')])
      t.strictSame(
        (await b.load()).settings,
        new Map([
          ['other', '3'],
          ['new', 'a'],
        ]),
      )
      await b.commit([setting('new', 'b')])
      await Promise.all([a.close(), b.close()])
    },
  )

  t.test('of many who count one thing up at once, no count is lost', async (t) => {
    await withCores(await fresh(), 3, async (...cores) => {
      const count = ({ settings }: Directory) => Number(settings.get('n') ?? '0')
      const work = cores.map(async (core) => {
        for (let i = 0; i < 15; i++) {
          await core.decide((directory) => [setting('n', String(count(directory) + 1))])
        }
      })
      await Promise.all(work)
      for (const core of cores) {
        await core.cluster.caughtUp()
        t.equal(count(core.directory), 45)
      }
    })
  })

  t.test('after any commits of three cores at once, all know the same as the store', async (t) => {
    const open = await fresh()
    const rng = seededRng(11)
    const next = () => Math.floor(rng() * 2 ** 31)
    await withCores(open, 3, async (...cores) => {
      await Promise.all(
        cores.map(async (core) => {
          for (let i = 0; i < 25; i++) {
            const changes = Array.from({ length: 1 + (next() % 4) }, () => someChange(next))
            await core.decide(() => changes)
          }
        }),
      )
      await Promise.all(cores.map(({ cluster }) => cluster.caughtUp()))
      const kept = sorted(await cores[0]!.store.load())
      for (const core of cores) t.strictSame(sorted(core.directory), kept)
    })
  })

  for (const count of [130, 700, 6000]) {
    t.test(`a commit of ${count} records is all or none, and told as one`, async (t) => {
      const open = await fresh()
      await withCores(open, 2, async (a, b) => {
        await a!.commit(settings(count, 's', 'first'))
        await b!.cluster.caughtUp()
        t.strictSame(
          b!.told.map(({ changes }) => changes.length),
          [count],
        )
        await b!.commit([setting('s7', 'mine')])
        // Nothing was awaited: this core may not have been told yet, and then it is refused whole.
        const refused = await a!.decide(() => [...settings(count, 's', 'then'), setting('end', 'x')])
        t.ok(refused <= 1)
        await b!.cluster.caughtUp()
        t.strictSame(sorted(b!.directory), sorted(a!.directory))
        await b!.commit([setting('s7', 'again')])
        await a!.cluster.caughtUp()
        t.equal(a!.directory.settings.get('s7'), 'again')
        t.strictSame(sorted(await b!.store.load()), sorted(a!.directory))
      })
      const again = await open()
      const { settings: kept } = await again.load()
      t.equal(kept.size, count + 1)
      t.equal(kept.get('s7'), 'again')
      await again.close()
    })
  }

  t.test('large commits of several cores at once lose nothing', async (t) => {
    await withCores(await fresh(), 3, async (...cores) => {
      const work = cores.map(async (core, n) => {
        for (let i = 0; i < 3; i++) {
          await core.decide(() => settings(200, `own${n}-`, String(i)))
          await core.decide(({ settings: now }) => [
            setting('turns', String(Number(now.get('turns') ?? '0') + 1)),
            ...settings(150, 'same', `${n}-${i}-`),
          ])
        }
      })
      await Promise.all(work)
      await Promise.all(cores.map(({ cluster }) => cluster.caughtUp()))
      const kept = await cores[0]!.store.load()
      t.equal(kept.settings.get('turns'), '9')
      t.equal(kept.settings.size, 3 * 200 + 150 + 1)
      for (const core of cores) t.strictSame(sorted(core.directory), sorted(kept))
    })
  })

  t.test('cores are told who holds a lease, who gave it back and who closed', async (t) => {
    await withCores(await fresh(), 3, async (a, b, c) => {
      t.strictSame(await a!.cluster.cores(), [])
      await a!.cluster.announce('core-a')
      await b!.cluster.announce('core-b')
      await c!.until('both are there', () => c!.cores.length === 2)
      t.strictSame(c!.cores, ['core-a', 'core-b'])
      t.strictSame(await c!.cluster.cores(), ['core-a', 'core-b'])
      await a!.until('its own lease is told too', () => a!.cores.length === 2)
      await a!.cluster.release()
      await c!.until('one went', () => c!.cores.length === 1)
      t.strictSame(c!.cores, ['core-b'])
      await b!.store.close()
      await c!.until('the other closed', () => c!.cores.length === 0)
    })
  })

  t.test('who follows only may not write, and hears all', async (t) => {
    const open = await fresh()
    await withCores(open, 1, async (a) => {
      const reader = await Follower.open(open, { readOnly: true })
      await t.rejects(reader.commit([setting('x', '1')]), { code: 'read-only' })
      await t.rejects(reader.cluster.announce('reader'), { code: 'read-only' })
      await a!.cluster.announce('core-a')
      await a!.commit([setting('x', '2')])
      await reader.cluster.caughtUp()
      t.equal(reader.directory.settings.get('x'), '2')
      await reader.until('the core is told', () => reader.cores.length === 1)
      await reader.store.close()
    })
  })

  t.test('a closed store tells nothing more, and refuses all', async (t) => {
    await withCores(await fresh(), 2, async (a, b) => {
      await a!.store.close()
      await b!.commit([setting('x', '1')])
      await b!.cluster.caughtUp()
      t.strictSame(a!.told, [])
      await t.rejects(a!.cluster.caughtUp(), { code: 'closed' })
      await t.rejects(a!.cluster.announce('core-a'), { code: 'closed' })
      await t.rejects(a!.commit([]), { code: 'closed' })
    })
  })

  t.test('an empty commit is kept as it is: nothing', async (t) => {
    await withCores(await fresh(), 2, async (a, b) => {
      await a!.commit([])
      await a!.commit([setting('x', '1')])
      await b!.cluster.caughtUp()
      t.strictSame(sorted(b!.directory), sorted({ ...emptyDirectory(), settings: new Map([['x', '1']]) }))
    })
  })
}
