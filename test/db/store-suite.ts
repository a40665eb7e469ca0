// What db/store.ts promises, as tests that every Store is held to.
//
// A Store comes in as `open`, which opens the same data again each time it is called; that is how these
// tests see what is really kept. Records are the awkward ones: nulls, empty lists, quotes, other scripts.

import type { Test } from 'tap'
import type { Store } from '../../db/store.ts'
import {
  applyChanges,
  type Change,
  type Directory,
  emptyDirectory,
  type Host,
  type LocalityRecord,
  type Member,
  memberKey,
  type Service,
  type Token,
} from '../../resolver/directory.ts'

export const SERVICE: Service = {
  name: 'mirror',
  policy: 'nearest',
  ttlSec: 30,
  minAddrs: 1,
  maxAddrs: 2,
  tieMs: 2.5,
  stickyMs: 10,
  stickyRatio: 0.8,
  where: { region: 'eu' },
  aliases: ['m', 'download.example.com'],
  urlHosts: [],
  join: 'open',
  maxPerPrefix: 3,
  verify: 'echo',
  allDown: { mode: 'fallback', addresses: ['192.0.2.9'], url: null },
}

export const HOST: Host = {
  name: 'paris',
  agent: true,
  addresses: ['192.0.2.1', '2001:db8::1'],
  proofs: { '192.0.2.1': 'echo' },
  echo: { address: '192.0.2.1', port: 8054 },
  echoKey: '00ff'.repeat(16),
  publicAddress: '192.0.2.1',
  publicPort: 40_000,
  reachable: true,
  home: 'core1',
  leaseSec: 8,
  presence: 'live',
  presenceSinceMs: 1_790_000_000_123,
  coordinate: { vec: [0.1, -2, 3e-7, 4, 5, 6, 7, 8], heightMs: 0.01, adjustmentMs: -1.5, error: 0.2 },
  place: { lat: 48.85, lon: 2.35, accuracyKm: 10 },
  credentialHash: 'ab'.repeat(32),
  tokenId: 't1',
  presenceBy: 'core1',
}

/** A host of which as little is known as the types allow. */
const BARE_HOST: Host = {
  ...HOST,
  name: 'b.mirror',
  agent: false,
  addresses: [],
  proofs: {},
  echo: null,
  publicAddress: null,
  publicPort: null,
  reachable: null,
  presence: 'silent',
  coordinate: null,
  place: null,
  credentialHash: null,
  tokenId: null,
}

export const MEMBER: Member = {
  service: 'mirror',
  name: 'paris',
  host: 'paris',
  addresses: ['192.0.2.1'],
  port: 443,
  url: 'https://m.example.com/it\'s/"quoted"?x=%20',
  attributes: { region: 'eu', note: 'Zürich 東京 \u{1f30d}\n\u0000end' },
  weight: 0.25,
  capacity: 1e15,
  load: 0,
  health: 'up',
  drained: true,
  left: false,
  check: null,
}

const BARE_MEMBER: Member = {
  ...MEMBER,
  name: 'b',
  host: 'b.mirror',
  addresses: [],
  port: null,
  url: null,
  attributes: {},
  load: null,
  health: 'unknown',
  drained: false,
  left: true,
  check: 'tcp://192.0.2.7:80',
}

const TOKEN: Token = {
  id: 't1',
  hash: 'cd'.repeat(32),
  scope: { admin: true },
  createdMs: 1_790_000_000_000,
  note: '',
}
const JOIN_TOKEN: Token = {
  ...TOKEN,
  id: 't2',
  scope: { admin: false, services: ['mirror'] },
  note: 'for ci; --',
}

const LOCALITY: LocalityRecord = {
  prefix: '198.51.100.0/24',
  evidence: [
    { host: 'paris', rttMs: 12.25, count: 3, atMs: 1_790_000_000_000, kind: 'active' },
    { host: 'b.mirror', rttMs: 90, count: 1, atMs: 1_790_000_000_001, kind: 'client' },
  ],
  incumbents: { mirror: 'paris' },
}

/** A directory with some of everything, as the changes that make it: members before their hosts. */
export const EVERYTHING: readonly Change[] = [
  { kind: 'members', key: memberKey('mirror', 'paris'), value: MEMBER },
  { kind: 'members', key: memberKey('mirror', 'b'), value: BARE_MEMBER },
  { kind: 'hosts', key: 'paris', value: HOST },
  { kind: 'hosts', key: 'b.mirror', value: BARE_HOST },
  { kind: 'services', key: 'mirror', value: SERVICE },
  {
    kind: 'services',
    key: 'plain',
    value: { ...SERVICE, name: 'plain', where: {}, aliases: [], allDown: { mode: 'stale' } },
  },
  { kind: 'tokens', key: 't1', value: TOKEN },
  { kind: 'tokens', key: 't2', value: JOIN_TOKEN },
  { kind: 'localities', key: LOCALITY.prefix, value: LOCALITY },
  {
    kind: 'localities',
    key: '2001:db8::/48',
    value: {
      prefix: '2001:db8::/48',
      evidence: [],
      incumbents: {},
    },
  },
  {
    kind: 'places',
    key: '192.0.0.0/12',
    value: { region: '192.0.0.0/12', packed: Uint8Array.of(0, 255, 39, 10, 13, 0) },
  },
  { kind: 'settings', key: 'cookie-secret', value: '0'.repeat(64) },
  { kind: 'settings', key: 'empty', value: '' },
]

export function setting(key: string, value: string | null): Change {
  return { kind: 'settings', key, value }
}

/** Opens, runs, and closes whatever happens. */
export async function withStore<T>(
  open: () => Promise<Store>,
  run: (store: Store) => Promise<T>,
): Promise<T> {
  const store = await open()
  try {
    return await run(store)
  } finally {
    await store.close()
  }
}

function directoryOf(changes: readonly Change[]): Directory {
  const directory = emptyDirectory()
  applyChanges(directory, changes)
  return directory
}

/** Runs the suite; `fresh` gives a way to open data that nobody has written yet. */
export function testStore(t: Test, fresh: () => () => Promise<Store>): void {
  const kept = (open: () => Promise<Store>) => withStore(open, (store) => store.load())

  t.test('a new store holds an empty directory', async (t) => {
    t.strictSame(await kept(fresh()), emptyDirectory())
  })

  t.test('every record of every kind comes back equal, fields and all', async (t) => {
    const open = fresh()
    await withStore(open, async (store) => {
      await store.commit(EVERYTHING)
      t.strictSame(await store.load(), directoryOf(EVERYTHING), 'at once')
    })
    t.strictSame(await kept(open), directoryOf(EVERYTHING), 'after opening again')
  })

  t.test('a later commit replaces a record, and null removes it', async (t) => {
    const open = fresh()
    const moved: Host = { ...BARE_HOST, name: 'paris' }
    const later: Change[] = [
      { kind: 'hosts', key: 'paris', value: moved },
      { kind: 'members', key: memberKey('mirror', 'b'), value: null },
      { kind: 'services', key: 'plain', value: null },
      { kind: 'tokens', key: 't2', value: null },
      { kind: 'localities', key: LOCALITY.prefix, value: null },
      { kind: 'hosts', key: 'never-there', value: null },
    ]
    await withStore(open, async (store) => {
      await store.commit(EVERYTHING)
      await store.commit(later)
    })
    t.strictSame(await kept(open), directoryOf([...EVERYTHING, ...later]))
  })

  t.test('changes of one commit count in their order', async (t) => {
    const open = fresh()
    await withStore(open, (store) =>
      store.commit([setting('a', '1'), setting('a', null), setting('b', '1'), setting('b', '2')]),
    )
    t.strictSame((await kept(open)).settings, new Map([['b', '2']]))
  })

  t.test('commits that nobody waited for are kept in the order they were made', async (t) => {
    const open = fresh()
    await withStore(open, async (store) => {
      await Promise.all(Array.from({ length: 50 }, (_, i) => store.commit([setting('a', String(i))])))
    })
    t.equal((await kept(open)).settings.get('a'), '49')
  })

  t.test('a commit that fails midway keeps none of its changes and harms no later one', async (t) => {
    const open = fresh()
    await withStore(open, async (store) => {
      await store.commit([setting('a', '1')])
      const unknown = { kind: 'nonsense', key: 'x', value: 'y' } as unknown as Change
      await t.rejects(store.commit([setting('a', '2'), setting('b', '2'), unknown]))
      t.strictSame((await store.load()).settings, new Map([['a', '1']]))
      await store.commit([setting('c', '3')])
    })
    t.strictSame(
      (await kept(open)).settings,
      new Map([
        ['a', '1'],
        ['c', '3'],
      ]),
    )
  })

  t.test('what load gave is the caller’s own: changing it changes nothing that is kept', async (t) => {
    await withStore(fresh(), async (store) => {
      await store.commit(EVERYTHING)
      applyChanges(await store.load(), [setting('a', '1'), { kind: 'hosts', key: 'paris', value: null }])
      t.strictSame(await store.load(), directoryOf(EVERYTHING))
    })
  })

  t.test('a closed store says so, and may be closed again', async (t) => {
    const store = await fresh()()
    await store.close()
    await store.close()
    await t.rejects(store.commit([setting('a', '1')]), { name: 'StoreError', code: 'closed' })
    await t.rejects(store.load(), { name: 'StoreError', code: 'closed' })
  })

  t.test(
    'after any run of commits it holds what applying the changes to a plain directory gives',
    async (t) => {
      const open = fresh()
      const oracle = emptyDirectory()
      const next = sequence(7)
      for (let opening = 0; opening < 3; opening++) {
        await withStore(open, async (store) => {
          for (let i = 0; i < 40; i++) {
            const changes = Array.from({ length: next() % 5 }, () => someChange(next))
            await store.commit(changes)
            applyChanges(oracle, changes)
          }
        })
        t.strictSame(await kept(open), oracle)
      }
    },
  )
}

/** A small generator (Lehmer's), the same in each run. */
function sequence(seed: number): () => number {
  let state = seed
  return () => {
    state = (state * 48_271) % 2_147_483_647
    return state
  }
}

/** One of EVERYTHING's records under one of five names, or its removal. */
export function someChange(next: () => number): Change {
  const change = EVERYTHING[next() % EVERYTHING.length]!
  const name = `n${next() % 5}`
  const remove = next() % 3 === 0
  switch (change.kind) {
    case 'members':
      return {
        kind: 'members',
        key: memberKey('mirror', name),
        value: remove ? null : { ...change.value!, name },
      }
    case 'tokens':
      return { kind: 'tokens', key: name, value: remove ? null : { ...change.value!, id: name } }
    case 'localities':
      return { kind: 'localities', key: name, value: remove ? null : { ...change.value!, prefix: name } }
    case 'places':
      return { kind: 'places', key: name, value: remove ? null : { ...change.value!, region: name } }
    case 'settings':
      return { kind: 'settings', key: name, value: remove ? null : String(next()) }
    case 'services':
      return { kind: 'services', key: name, value: remove ? null : { ...change.value!, name } }
    case 'hosts':
      return { kind: 'hosts', key: name, value: remove ? null : { ...change.value!, name } }
  }
}
