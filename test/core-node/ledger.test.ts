// The ledger and its books: what a group of writes may see, keep, tell and undo. The store is one that can be
// held up and can fail; the books' indexes are held against walking the records.

import t from 'tap'
import { Counters } from '../../core-node/counters.ts'
import { Ledger } from '../../core-node/ledger.ts'
import { Problem } from '../../core-node/problem.ts'
import { type Applied, Books } from '../../core-node/registry/books.ts'
import { openMemory } from '../../db/memory.ts'
import { type Store, StoreError } from '../../db/store.ts'
import {
  type Change,
  type Directory,
  emptyDirectory,
  type Host,
  type Member,
} from '../../resolver/directory.ts'
import { aHost, aMember, aService, ofHost, ofMember, ofService } from '../support/records.ts'
import { seededRng } from '../support/seeded-rng.ts'

const SILENT = { info() {}, warn() {}, error() {} }

/** A ledger over a store whose commits can be held and can fail. */
function world() {
  const kept = emptyDirectory()
  const memory = openMemory(kept)
  const commits: (readonly Change[])[] = []
  const told: Applied[] = []
  const disk = { fails: false, hold: null as Promise<void> | null }
  const store: Store = {
    ...memory,
    async commit(changes) {
      commits.push(changes)
      await disk.hold
      if (disk.fails) throw new StoreError('unavailable', 'disk full')
      await memory.commit(changes)
    },
  }
  const clock = { ms: 0 }
  const directory = emptyDirectory()
  const counters = new Counters()
  const ledger = new Ledger({
    directory,
    store,
    log: SILENT,
    counters,
    monotonicMs: () => clock.ms,
    onChanges: (changes) => told.push(...changes),
  })
  return { ledger, directory, kept, commits, told, disk, clock, counters }
}

const set = (key: string, value: string): Change => ({ kind: 'settings', key, value })
/** Writes a setting; the result is what the books said of another one. */
const writing = (key: string, value: string, reads: string) => (books: Books) => ({
  changes: [set(key, value)],
  result: books.settings.get(reads),
})
/** Resolves to the value, or to the code of the Problem. */
const outcome = (work: Promise<unknown>) =>
  work.catch((error) => (error instanceof Problem ? `!${error.code}` : `?${error}`))

t.test('writes of one turn are decided in order, each seeing those before, and are one commit', async (t) => {
  const { ledger, directory, commits, told } = world()
  const results = await Promise.all([
    ledger.write(writing('a', '1', 'a')),
    ledger.write(writing('b', '2', 'a')),
    ledger.write(writing('a', '3', 'b')),
    ledger.write(writing('c', '4', 'a')),
  ])
  t.same(results, [undefined, '1', '2', '3'])
  t.equal(commits.length, 1)
  t.same(
    commits[0]!.map(({ key, value }) => `${key}${value}`),
    ['a1', 'b2', 'a3', 'c4'],
  )
  t.same(
    [...directory.settings],
    [
      ['a', '3'],
      ['b', '2'],
      ['c', '4'],
    ],
  )
  t.same(
    told.map(({ before, value }) => [before, value]),
    [
      [null, '1'],
      [null, '2'],
      ['1', '3'],
      [null, '4'],
    ],
  )
})

t.test(
  'nobody is told of a write before it is kept, neither by its result, a refusal nor the directory',
  async (t) => {
    const { ledger, directory, disk } = world()
    let release!: () => void
    disk.hold = new Promise((resolve) => {
      release = resolve
    })
    const heard: string[] = []
    const first = ledger.write(writing('name', 'taken', 'x')).then(() => heard.push('result'))
    const refused = outcome(
      ledger.write((books) => {
        if (books.settings.has('name')) throw new Problem('conflict', 'taken')
        return { changes: [], result: 'free' }
      }),
    ).then((said) => heard.push(String(said)))
    const reader = ledger
      .write((books) => ({ changes: [], result: books.settings.get('name') }))
      .then((said) => heard.push(String(said)))
    await new Promise((resolve) => setTimeout(resolve, 20))
    t.same(heard, [])
    t.notOk(directory.settings.has('name'))
    release()
    await Promise.all([first, refused, reader])
    t.same(heard.sort(), ['!conflict', 'result', 'taken'])
  },
)

t.test('a refused decision changes nothing and takes none of its group with it', async (t) => {
  const { ledger, kept } = world()
  const results = await Promise.all(
    [
      ledger.write(writing('a', '1', 'x')),
      ledger.write<string>((books) =>
        books.trying(() => {
          books.draft([set('a', 'lost'), set('b', 'lost')])
          throw new Problem('forbidden', 'no')
        }),
      ),
      ledger.write<string>(() => {
        throw new TypeError('a fault')
      }),
      ledger.write(writing('c', '3', 'a')),
      ledger.write(writing('d', '4', 'b')),
    ].map(outcome),
  )
  t.same(results, [undefined, '!forbidden', '?TypeError: a fault', '1', undefined])
  t.same([...kept.settings.keys()].sort(), ['a', 'c', 'd'])
})

t.test(
  'a commit that fails leaves directory, books and indexes as they were, and all who hang on it are refused',
  async (t) => {
    const { ledger, directory, kept, disk, told, clock } = world()
    await ledger.write(() => ({ changes: [ofHost(aHost('a')), ofMember(aMember('a'))], result: null }))
    const before = JSON.stringify([...directory.hosts, ...directory.members])
    disk.fails = true
    told.length = 0
    const results = await Promise.all(
      [
        // Decided before anything is drafted: it hangs on nothing.
        ledger.write((books) => ({ changes: [], result: books.hosts.has('a') })),
        ledger.write(() => ({ changes: [ofHost(aHost('b')), ofMember(aMember('b'))], result: 'b' })),
        ledger.write((books) => ({ changes: [], result: books.hosts.has('b') })),
        ledger.write<never>((books) => {
          throw new Problem('conflict', `${books.hosts.has('b')}`)
        }),
        ledger.write(() => ({ changes: [{ kind: 'members', key: 'web/a', value: null }], result: null })),
      ].map(outcome),
    )
    t.same(results, [true, '!unavailable', '!unavailable', '!unavailable', '!unavailable'])
    t.equal(JSON.stringify([...directory.hosts, ...directory.members]), before)
    t.same([...kept.hosts.keys()], ['a'])
    t.same(told, [])
    t.match(ledger.trouble, /disk full/)
    t.same([...ledger.index.membersOf('a')], ['web/a'])
    t.same([...ledger.index.membersOf('b')], [])
    t.same(ledger.index.presence, { live: 1, silent: 0, left: 0 })

    disk.fails = false
    t.equal(await outcome(ledger.write(writing('x', '1', 'x'))), '!unavailable', 'left alone for a second')
    clock.ms += 1000
    t.equal(
      await ledger.write((books) => ({ changes: [set('x', '1')], result: books.hosts.has('b') })),
      false,
    )
    t.equal(ledger.trouble, null)
  },
)

t.test('writes that come while a commit is under way are the next group', async (t) => {
  const { ledger, disk, commits } = world()
  let release!: () => void
  disk.hold = new Promise((resolve) => {
    release = resolve
  })
  const first = ledger.write(writing('a', '1', 'x'))
  while (commits.length === 0) await new Promise((resolve) => setImmediate(resolve))
  const later = [ledger.write(writing('b', '2', 'a')), ledger.write(writing('c', '3', 'b'))]
  release()
  await first
  t.same(await Promise.all(later), ['1', '2'])
  t.same(
    commits.map((changes) => changes.length),
    [1, 2],
  )
})

t.test('a flood of writes is taken in parts, in order', async (t) => {
  const { ledger, commits, directory } = world()
  const writes = Array.from({ length: 1000 }, (_, i) => ledger.write(writing('n', String(i), 'n')))
  const results = await Promise.all(writes)
  t.same(
    results.slice(1),
    Array.from({ length: 999 }, (_, i) => String(i)),
  )
  t.ok(commits.length >= 4 && commits.length < 20, `${commits.length} commits`)
  t.equal(directory.settings.get('n'), '999')
})

t.test(
  'what is measured is told at once and stored in parts; what was decided meanwhile stays',
  async (t) => {
    const { ledger, directory, kept, commits } = world()
    const changes = Array.from({ length: 500 }, (_, i) => ofMember(aMember(`m${i}`)))
    await ledger.write(() => ({ changes, result: null }))
    const loads = changes.map(
      (change) => ({ ...change, value: { ...(change.value as Member), load: 7 } }) as Change,
    )
    ledger.publishMeasured(loads)
    t.equal(directory.members.get('web/m0')?.load, 7)
    t.equal(kept.members.get('web/m0')?.load, null)
    commits.length = 0
    const keeping = ledger.keepMeasured()
    const removed = ledger.write(() => ({
      changes: [{ kind: 'members', key: 'web/m499', value: null }],
      result: null,
    }))
    await Promise.all([keeping, removed])
    t.equal(kept.members.get('web/m0')?.load, 7)
    t.notOk(kept.members.has('web/m499'), 'a late load brings nobody back')
    t.ok(commits.length >= 3 && Math.max(...commits.map((part) => part.length)) <= 201)
  },
)

t.test(
  'what must be answered with is published where the store takes nothing, and stored when it does',
  async (t) => {
    const { ledger, directory, kept, disk, clock } = world()
    disk.fails = true
    await ledger.writeOrPublish((books) => (books.hosts.has('a') ? [] : [ofHost(aHost('a'))]))
    t.ok(directory.hosts.has('a'))
    t.same(ledger.index.presence, { live: 1, silent: 0, left: 0 }, 'the index knows it, too')
    disk.fails = false
    clock.ms += 1000
    await ledger.keepMeasured()
    t.ok(kept.hosts.has('a'))
  },
)

t.test('a closed ledger has stored all and takes nothing more', async (t) => {
  const { ledger, kept } = world()
  ledger.publishMeasured([set('m', '1')])
  const last = ledger.write(writing('a', '1', 'x'))
  await ledger.close()
  await last
  t.same([...kept.settings.keys()].sort(), ['a', 'm'])
  t.equal(await outcome(ledger.write(writing('b', '1', 'x'))), '!unavailable')
})

/** What the index should say, by walking. */
function walked(directory: Directory, prefixOf: (host: Host) => string) {
  const presence = { live: 0, silent: 0, left: 0 }
  const membersOf: Record<string, string[]> = {}
  const crowds: Record<string, number> = {}
  const gone = { left: [] as string[], silent: [] as string[] }
  for (const host of directory.hosts.values()) {
    presence[host.presence]++
    if (host.presence !== 'live') gone[host.presence].push(host.name)
  }
  for (const [key, member] of directory.members) {
    membersOf[member.host] = [...(membersOf[member.host] ?? []), key].sort()
    const host = directory.hosts.get(member.host)
    if (member.service !== 'open' || member.left || !host) continue
    crowds[prefixOf(host)] = (crowds[prefixOf(host)] ?? 0) + 1
  }
  return { presence, membersOf, crowds, left: gone.left.sort(), silent: gone.silent.sort() }
}

t.test('the index says what walking all records would, whatever comes, goes and is taken back', (t) => {
  const rng = seededRng(5)
  const pick = (count: number) => Math.floor(rng() * count)
  const directory = emptyDirectory()
  const books = new Books(directory)
  books.publish([ofService(aService({ name: 'open', join: 'open', maxPerPrefix: 9 })), ofService(aService())])
  const change = (): Change => {
    const name = `h${pick(12)}`
    const key = `${pick(2) ? 'open' : 'web'}/m${pick(12)}`
    if (pick(8) === 0) return { kind: 'hosts', key: name, value: null }
    if (pick(8) === 0) return { kind: 'members', key, value: null }
    const presence = (['live', 'live', 'silent', 'left'] as const)[pick(4)]!
    const publicAddress = `192.0.${pick(3)}.1`
    const tokenId = pick(2) ? 't' : null
    if (pick(2)) return ofHost(aHost(name, { presence, publicAddress, tokenId, addresses: [publicAddress] }))
    const [service, member] = key.split('/')
    return ofMember(aMember(member!, { service: service!, host: name, left: pick(4) === 0 }))
  }
  const prefixOf = (host: Host) => host.publicAddress!.replace(/1$/, '0/24')
  const told = () => {
    const names = Array.from({ length: 12 }, (_, i) => `h${i}`)
    const membersOf = Object.fromEntries(
      names
        .map((name) => [name, [...books.index.membersOf(name)].sort()])
        .filter(([, keys]) => keys!.length > 0),
    )
    const crowds: Record<string, number> = {}
    for (const third of [0, 1, 2]) {
      const network = `192.0.${third}.0/24`
      const count = books.index.crowdIn('open', network)
      if (count > 0) crowds[network] = count
    }
    const { left, silent } = books.index
    return {
      presence: { ...books.index.presence },
      membersOf,
      crowds,
      left: [...left].sort(),
      silent: [...silent].sort(),
    }
  }
  for (let round = 0; round < 400; round++) {
    const changes = Array.from({ length: 1 + pick(5) }, change)
    books.draft(changes)
    if (pick(3) === 0) books.withdraw()
    else {
      books.trying(() => books.draft([change(), change()]))
      books.publish([change()])
      books.settle(changes)
    }
    t.same(told(), walked(directory, prefixOf), `round ${round}`)
  }
  t.ok(directory.members.size > 5)
  t.end()
})
