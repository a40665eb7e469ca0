// Ledgers of several cores over one store: what each decides, measures and hears comes out as one directory.

import t from 'tap'
import { Counters } from '../../core-node/counters.ts'
import { Ledger } from '../../core-node/ledger.ts'
import { Problem } from '../../core-node/problem.ts'
import type { Books } from '../../core-node/registry/books.ts'
import { withMeasured } from '../../core-node/registry/merging.ts'
import { SharedMemory, type SharedMemoryStore } from '../../db/shared-memory.ts'
import { StoreError } from '../../db/store.ts'
import type { Change, Evidence, Host, LocalityRecord, Member } from '../../resolver/directory.ts'
import { aHost, aMember, ofHost, ofLocality, ofMember } from '../support/records.ts'

const SILENT = { info() {}, warn() {}, error() {} }

/** A ledger of the core `name`, over a store that can be cut off and whose commits can be held up. */
async function openLedger(shared: SharedMemory, name: string) {
  const store: SharedMemoryStore = shared.open()
  const directory = await store.load()
  const clock = { ms: 0 }
  const gate = { hold: null as Promise<void> | null }
  const ledger = new Ledger({
    directory,
    store: {
      cluster: store.cluster,
      load: () => store.load(),
      close: () => store.close(),
      commit: async (changes) => {
        if (changes.some(({ key }) => key === 'poison')) throw new TypeError('no such column')
        await store.commit(changes)
        await gate.hold
      },
    },
    log: SILENT,
    counters: new Counters(),
    monotonicMs: () => clock.ms,
    onChanges: () => {},
    isOwn: ({ kind, key, value }) => {
      const host = kind === 'hosts' ? (value as Host) : directory.hosts.get((value as Member).host ?? key)
      return kind === 'localities' || host?.home === name
    },
  })
  store.cluster.follow({
    onCommit: (changes) => ledger.hear(changes),
    onCores: () => {},
    onTrouble: (reason) => ledger.setCutOff(reason),
  })
  return { ledger, directory, store, clock, gate }
}

const set = (key: string, value: string): Change => ({ kind: 'settings', key, value })
const later = async (turns = 20) => {
  for (let i = 0; i < turns; i++) await new Promise((resolve) => setImmediate(resolve))
}
const outcome = (work: Promise<unknown>) =>
  work.catch((error) => (error instanceof Problem ? `!${error.code}` : `?${error}`))
const member = (name: string, over: Partial<Member> = {}) =>
  ofMember(aMember(name, { host: 'h', ...over })) as Change & { value: Member }
const giveUp = (name: string, home: string) => (books: Books) => {
  const host = books.hosts.get(name)
  if (host?.presence !== 'live' || host.home !== home) return []
  return [ofHost({ ...host, presence: 'silent' })]
}

t.test('two cores that count up one setting at once lose no step', async (t) => {
  const shared = new SharedMemory()
  const [a, b] = [await openLedger(shared, 'a'), await openLedger(shared, 'b')]
  const count = ({ ledger }: typeof a) =>
    ledger.write((books) => {
      const next = String(Number(books.settings.get('n') ?? 0) + 1)
      return { changes: [set('n', next)], result: next }
    })
  const results: string[] = []
  for (let round = 0; round < 25; round++) {
    const both = [count(a), count(b), count(a), count(b)]
    results.push(...(await Promise.all(both)))
    if (round % 3 === 0) await later(1)
  }
  await later()
  t.equal(shared.directory.settings.get('n'), '100')
  t.equal(new Set(results).size, 100, 'and each was told of a step of its own')
  t.same([...a.directory.settings], [...b.directory.settings])
})

t.test('a write that can’t be stored is refused alone; the others of its group are kept', async (t) => {
  const shared = new SharedMemory()
  const { ledger } = await openLedger(shared, 'a')
  const writes = ['x', 'poison', 'y'].map((key) =>
    outcome(ledger.write(() => ({ changes: [set(key, '1')], result: key }))),
  )
  t.same(await Promise.all(writes), ['x', '!internal', 'y'])
  t.same([...shared.directory.settings.keys()].sort(), ['x', 'y'])
})

t.test('a load that comes in while its record is being committed stays, and is stored', async (t) => {
  const shared = new SharedMemory()
  const { ledger, directory, gate } = await openLedger(shared, 'a')
  await ledger.write(() => ({ changes: [ofHost(aHost('h', { home: 'a' })), member('m')], result: null }))
  let release!: () => void
  gate.hold = new Promise((resolve) => {
    release = resolve
  })
  const drained = ledger.write((books) => {
    const value = { ...books.members.get('web/m')!, drained: true }
    return { changes: [ofMember(value)], result: null }
  })
  await later(5)
  ledger.publishMeasured([member('m', { load: 7 })])
  release()
  await drained
  t.match(directory.members.get('web/m'), { load: 7, drained: true })
  await ledger.keepMeasured()
  t.match(shared.directory.members.get('web/m'), { load: 7, drained: true })
  t.equal(ledger.unstored, 0)
})

t.test('what another core decides of a record leaves what its home measured of it', async (t) => {
  const shared = new SharedMemory()
  const [a, b] = [await openLedger(shared, 'a'), await openLedger(shared, 'b')]
  await a.ledger.write(() => ({ changes: [ofHost(aHost('h', { home: 'a' })), member('m')], result: null }))
  await later()
  a.ledger.publishMeasured([member('m', { load: 7 })])
  await b.ledger.write((books) => {
    const value = { ...books.members.get('web/m')!, drained: true }
    return { changes: [ofMember(value)], result: null }
  })
  await later()
  t.match(a.directory.members.get('web/m'), { load: 7, drained: true })
  await a.ledger.keepMeasured()
  await later()
  t.match(b.directory.members.get('web/m'), { load: 7, drained: true })
  t.equal(a.ledger.unstored, 0)
})

t.test('a host that moved takes its loads along: its old home stores no more of them', async (t) => {
  const shared = new SharedMemory()
  const [a, b] = [await openLedger(shared, 'a'), await openLedger(shared, 'b')]
  await a.ledger.write(() => ({ changes: [ofHost(aHost('h', { home: 'a' })), member('m')], result: null }))
  await later()
  a.ledger.publishMeasured([member('m', { load: 7 })])
  await b.ledger.write((books) => ({
    changes: [ofHost({ ...books.hosts.get('h')!, home: 'b' })],
    result: null,
  }))
  await later()
  await a.ledger.keepMeasured()
  await later()
  t.equal(shared.directory.members.get('web/m')!.load, null)
  t.same([...a.directory.members], [...b.directory.members])
})

t.test(
  'who dies while a core is cut off is out at once there, and everywhere when it is healed',
  async (t) => {
    const shared = new SharedMemory()
    const [a, b] = [await openLedger(shared, 'a'), await openLedger(shared, 'b')]
    const hosts = ['h', 'moves'].map((name) => ofHost(aHost(name, { home: 'a' })))
    await a.ledger.write(() => ({ changes: hosts, result: null }))
    await later()
    a.store.cut()
    for (const name of ['h', 'moves']) await a.ledger.writeOrPublish(giveUp(name, 'a'))
    t.match(a.directory.hosts.get('h'), { presence: 'silent' })
    t.equal(await outcome(a.ledger.write(() => ({ changes: [set('x', '1')], result: null }))), '!unavailable')
    t.match(a.ledger.trouble, /store/)
    await b.ledger.write((books) => ({
      changes: [ofHost({ ...books.hosts.get('moves')!, home: 'b', publicPort: 9 })],
      result: null,
    }))
    t.match(b.directory.hosts.get('h'), { presence: 'live' })
    a.store.heal()
    await later(40)
    t.match(b.directory.hosts.get('h'), { presence: 'silent' })
    t.match(b.directory.hosts.get('moves'), { presence: 'live', home: 'b', publicPort: 9 })
    t.same([...a.directory.hosts].sort(), [...b.directory.hosts].sort())
    t.equal(a.ledger.trouble, null)
  },
)

t.test('a commit without an answer holds nobody up, and its outcome is taken when it comes', async (t) => {
  const shared = new SharedMemory()
  const { ledger, directory, gate, clock } = await openLedger(shared, 'a')
  await ledger.write(() => ({
    changes: ['h', 'i'].map((it) => ofHost(aHost(it, { home: 'a' }))),
    result: null,
  }))
  let release!: () => void
  gate.hold = new Promise((resolve) => {
    release = resolve
  })
  const first = outcome(ledger.write(() => ({ changes: [set('x', '1')], result: 'kept' })))
  const dies = ledger.writeOrPublish(giveUp('h', 'a'))
  await later(5)
  const second = outcome(ledger.write(() => ({ changes: [set('y', '1')], result: 'kept' })))
  clock.ms += 1900
  ledger.tick()
  t.equal(ledger.trouble, null)
  clock.ms += 200
  ledger.tick()
  t.same(await Promise.all([first, second]), ['!unavailable', '!unavailable'])
  await dies
  t.match(directory.hosts.get('h'), { presence: 'silent' })
  await ledger.writeOrPublish(giveUp('i', 'a'))
  t.match(directory.hosts.get('i'), { presence: 'silent' })
  t.equal(directory.settings.get('x'), undefined)
  gate.hold = null
  release()
  await later()
  t.equal(directory.settings.get('x'), '1')
  await ledger.keepMeasured()
  await later()
  for (const name of ['h', 'i']) t.match(shared.directory.hosts.get(name), { presence: 'silent' })
  t.equal(ledger.trouble, null)
  t.equal(ledger.unstored, 0)
})

t.test('a stuck commit that fails in the end leaves what it owed to be decided anew', async (t) => {
  const shared = new SharedMemory()
  const { ledger, directory, gate, clock } = await openLedger(shared, 'a')
  await ledger.write(() => ({ changes: [ofHost(aHost('h', { home: 'a' }))], result: null }))
  let fail!: (error: Error) => void
  gate.hold = new Promise((_, reject) => {
    fail = reject
  })
  const kept = shared.directory.hosts.get('h')!
  const dies = ledger.writeOrPublish(giveUp('h', 'a'))
  await later(5)
  clock.ms += 2000
  ledger.tick()
  await dies
  shared.directory.hosts.set('h', kept)
  gate.hold = null
  fail(new StoreError('unavailable', 'it was not made'))
  await later()
  t.match(directory.hosts.get('h'), { presence: 'silent' })
  clock.ms += 1000
  await ledger.keepMeasured()
  await later()
  t.match(shared.directory.hosts.get('h'), { presence: 'silent' })
})

t.test('what comes to be owed while a commit is under way outlives that commit', async (t) => {
  const shared = new SharedMemory()
  const { ledger, directory, gate } = await openLedger(shared, 'a')
  const hosts = [ofHost(aHost('orphan', { home: 'b' })), ofHost(aHost('own', { home: 'a' }))]
  await ledger.write(() => ({ changes: hosts, result: null }))
  let release!: () => void
  gate.hold = new Promise((resolve) => {
    release = resolve
  })
  const write = ledger.write(() => ({ changes: [set('x', '1')], result: null }))
  await later()
  ledger.setCutOff('the watch is silent')
  await ledger.writeOrPublish(giveUp('orphan', 'b'))
  await ledger.writeOrPublish((books) =>
    books.hosts.has('own') ? [{ kind: 'hosts', key: 'own', value: null }] : [],
  )
  t.match(directory.hosts.get('orphan'), { presence: 'silent' })
  gate.hold = null
  release()
  await write
  await ledger.keepMeasured()
  t.match(shared.directory.hosts.get('orphan'), { presence: 'silent' })
  t.notOk(shared.directory.hosts.has('own'))
  t.equal(ledger.unstored, 0)
})

t.test('what is measured in the group that pays what is owed takes none of it back', async (t) => {
  const shared = new SharedMemory()
  const { ledger, clock } = await openLedger(shared, 'a')
  await ledger.write(() => ({ changes: [ofHost(aHost('h', { home: 'b' }))], result: null }))
  ledger.setCutOff('the watch is silent')
  await ledger.writeOrPublish(giveUp('h', 'b'))
  clock.ms += 1000
  await ledger.keepMeasured()
  t.match(shared.directory.hosts.get('h'), { presence: 'silent' })
  t.equal(ledger.unstored, 0)
})

t.test('a commit that failed is no trouble any more when the store is in reach again', async (t) => {
  const shared = new SharedMemory()
  const { ledger, store } = await openLedger(shared, 'a')
  store.cut()
  t.equal(await outcome(ledger.write(() => ({ changes: [set('x', '1')], result: null }))), '!unavailable')
  t.match(ledger.trouble, /takes no changes/)
  store.heal()
  await later()
  t.equal(ledger.trouble, null, 'though nobody has written since')
})

for (const isMade of [true, false]) {
  const what = isMade ? 'made in the end' : 'refused in the end'
  for (const last of ['up', 'down'] as const) {
    t.test(`what is said last while a commit is stuck counts: ${last}, and it is ${what}`, async (t) => {
      const shared = new SharedMemory()
      const { ledger, directory, gate, clock } = await openLedger(shared, 'a')
      const before = [ofHost(aHost('h', { home: 'a' })), member('m', { health: 'up' })]
      await ledger.write(() => ({ changes: before, result: null }))
      const kept = shared.directory.members.get('web/m')!
      const say = (health: Member['health']) => (books: Books) => {
        const now = books.members.get('web/m')!
        return now.health === health ? [] : [ofMember({ ...now, health })]
      }
      const end = { make: () => {}, fail: (_: Error) => {} }
      gate.hold = new Promise((resolve, reject) => {
        end.make = resolve
        end.fail = reject
      })
      const down = ledger.writeOrPublish(say('down'))
      await later(5)
      clock.ms += 2000
      ledger.tick()
      await down
      t.match(directory.members.get('web/m'), { health: 'down' })
      await ledger.writeOrPublish(say('up'))
      t.match(directory.members.get('web/m'), { health: 'up' })
      if (last === 'down') await ledger.writeOrPublish(say('down'))
      t.match(directory.members.get('web/m'), { health: last })
      gate.hold = null
      if (!isMade) shared.directory.members.set('web/m', kept)
      if (isMade) end.make()
      else end.fail(new StoreError('unavailable', 'it was not made'))
      await later()
      clock.ms += 1000
      await ledger.keepMeasured()
      await later()
      t.match(directory.members.get('web/m'), { health: last })
      t.match(shared.directory.members.get('web/m'), { health: last })
      t.equal(ledger.unstored, 0)
    })
  }
}

t.test('who waits for what other cores did holds nobody up: the dead are out all the same', async (t) => {
  const shared = new SharedMemory()
  const [a, b] = [await openLedger(shared, 'a'), await openLedger(shared, 'b')]
  await a.ledger.write(() => ({ changes: [ofHost(aHost('h', { home: 'a' }))], result: null }))
  await later()
  let hear!: () => void
  a.store.cluster.caughtUp = () =>
    new Promise((resolve) => {
      hear = resolve
    })
  const theirs = b.ledger.write(() => ({ changes: [set('x', 'b')], result: null }))
  const mine = outcome(a.ledger.write(() => ({ changes: [set('x', 'a')], result: 'kept' })))
  await theirs
  await later()
  const dies = a.ledger.writeOrPublish(giveUp('h', 'a'))
  a.clock.ms += 2000
  a.ledger.tick()
  t.equal(await mine, '!unavailable')
  await dies
  t.match(a.directory.hosts.get('h'), { presence: 'silent' })
  hear()
  await later()
  await a.ledger.keepMeasured()
  await later()
  t.match(shared.directory.hosts.get('h'), { presence: 'silent' })
  t.equal(shared.directory.settings.get('x'), 'b')
})

t.test('however long a core is cut off, it owes no more decisions than there are records', async (t) => {
  const shared = new SharedMemory()
  const { ledger } = await openLedger(shared, 'a')
  const members = ['m', 'n'].map((name) => member(name))
  await ledger.write(() => ({ changes: [ofHost(aHost('h', { home: 'a' })), ...members], result: null }))
  ledger.setCutOff('etcd is gone')
  for (let i = 1; i <= 5001; i++) {
    await ledger.writeOrPublish((books) => {
      const now = books.members.get(i % 3 === 0 ? 'web/m' : 'web/n')!
      return [ofMember({ ...now, weight: i })]
    })
  }
  t.ok(Number.parseInt(ledger.trouble!, 10) <= 1000, ledger.trouble!)
  ledger.setCutOff(null)
  await later()
  t.match(shared.directory.members.get('web/m'), { weight: 5001 })
  t.match(shared.directory.members.get('web/n'), { weight: 5000 })
})

t.test('evidence of two homes on one prefix becomes one record, whoever is first', async (t) => {
  const shared = new SharedMemory()
  const [a, b] = [await openLedger(shared, 'a'), await openLedger(shared, 'b')]
  const by = (host: string, rttMs: number): Evidence => ({ host, rttMs, count: 3, atMs: 0, kind: 'active' })
  const prefix = '192.0.2.0/24'
  const record = (evidence: readonly Evidence[], incumbents = {}): LocalityRecord => ({
    prefix,
    evidence,
    incumbents,
  })
  a.ledger.publishMeasured([ofLocality(record([by('ha', 20)], { web: 'ma' }))])
  b.ledger.publishMeasured([ofLocality(record([by('hb', 10)], { mail: 'mb' }))])
  await Promise.all([a.ledger.keepMeasured(), b.ledger.keepMeasured()])
  await later()
  const both = record([by('hb', 10), by('ha', 20)], { mail: 'mb', web: 'ma' })
  for (const { localities } of [a.directory, b.directory, shared.directory])
    t.same(localities.get(prefix), both)

  t.same(withMeasured('localities', both, record([by('hb', 10)]), both), record([by('hb', 10)]), 'gone')
  t.equal(withMeasured('localities', record([by('ha', 20)]), null, record([by('ha', 20)])), null)
  t.end()
})
