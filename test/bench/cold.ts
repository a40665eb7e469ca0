// The cold start of a core from etcd: how soon one is ready that shares a large installation, what that takes of etcd's
// disk, and what a change costs there.
//
//   npm run -s bench:cold -- [--localities 1000000] [--members 100000] [--changes 20000] [--dns-workers N]
//       [--seed 1] [--json]
//
// Starts three etcd servers and a core as real processes on this machine, with etcd's defaults for all sizes. Fills
// the store as `nearcast store copy` does, starts a core on it as it then is, waits until the records have moved to
// their pages, and starts one again. Ready is when /readyz says so: DNS is answered from then on, by the core's own
// thread until those of DNS were told all. Every member has its host, every locality up to five RTTs.

import { readFileSync } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { openEtcd } from '../../db/etcd.ts'
import { EtcdKeys } from '../../db/etcd-keys.ts'
import type { Store } from '../../db/store.ts'
import type { Change, LocalityRecord } from '../../resolver/directory.ts'
import { EtcdServers, noEtcd } from '../support/etcd-servers.ts'
import { askDns, startCore } from '../support/processes.ts'
import { seededRng } from '../support/seeded-rng.ts'
import { readCount } from './accuracy-arguments.ts'
import { drawOverlayWorld, overlayChanges, SERVICE } from './members-world.ts'

const PREFIX = '/nearcast/'
/** How often a change alone, and one of a group, is timed. */
const SINGLES = 500
const GROUP = 100
const MB = 1 << 20
const START_LIMIT_MS = 120_000
/** A process that uses less of a processor than this, for so long, is at rest. */
const REST_SHARE = 0.2
const REST_SEC = 2

interface Row {
  readonly what: string
  readonly value: number
  readonly unit: string
}

interface World {
  readonly changes: Change[]
  locality(i: number): Change
}

function hex(bytes: number, rng: () => number): string {
  return Array.from({ length: bytes }, () =>
    Math.floor(rng() * 256)
      .toString(16)
      .padStart(2, '0'),
  ).join('')
}

function drawWorld(localities: number, members: number, rng: () => number): World {
  const locality = (i: number): Change => {
    const prefix = `${1 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}.0/24`
    const evidence = Array.from(
      { length: 1 + Math.floor(rng() * 5) },
      (): LocalityRecord['evidence'][number] => ({
        host: `n${Math.floor(rng() * members)}`,
        rttMs: Math.round(rng() * 20_000) / 100,
        count: 1 + Math.floor(rng() * 20),
        atMs: 1_790_000_000_000 + Math.floor(rng() * 1e9),
        kind: 'active',
      }),
    )
    const value = { prefix, evidence, incumbents: { [SERVICE]: evidence[0]!.host } }
    return { kind: 'localities', key: prefix, value }
  }
  const nodes = [...overlayChanges(drawOverlayWorld(null, 2, rng), members, rng)].map((change): Change => {
    if (change.kind !== 'hosts' || change.value === null) return change
    const secrets = { echoKey: hex(32, rng), credentialHash: hex(32, rng), tokenId: 't1' }
    return { ...change, value: { ...change.value, ...secrets } }
  })
  return { changes: [...nodes, ...Array.from({ length: localities }, (_, i) => locality(i))], locality }
}

/** Of a process, from its start: bytes that it had written to disk. */
function writtenBy(pid: number): number {
  return Number(/^write_bytes: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, 'utf8'))![1])
}

function residentMb(pid: number): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024
}

/** What a process used until now, in all its threads. */
function processorSec(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
  // utime and stime, in hundredths of a second (USER_HZ).
  return (Number(fields[11]) + Number(fields[12])) / 100
}

/** Waits until a process has nothing to do any more: DNS threads are told all after the core is ready. */
async function atRest(pid: number): Promise<void> {
  for (let before = Number.NEGATIVE_INFINITY; ; ) {
    const now = processorSec(pid)
    if (now - before < REST_SHARE * REST_SEC) return
    before = now
    await wait(1000 * REST_SEC)
  }
}

async function secondsOf(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now()
  await work()
  return (performance.now() - begin) / 1000
}

class Cold {
  readonly #etcd: EtcdServers
  readonly #coreFlags: readonly string[]
  readonly #keys = new EtcdKeys(PREFIX)
  readonly rows: Row[] = []

  constructor(etcd: EtcdServers, coreFlags: readonly string[]) {
    this.#etcd = etcd
    this.#coreFlags = coreFlags
  }

  open(): Promise<Store> {
    return openEtcd({ endpoints: this.#etcd.endpoints, prefix: PREFIX, tls: null, user: null })
  }

  note(what: string, value: number, unit: string): void {
    this.rows.push({ what, value: Math.round(value * 100) / 100, unit })
  }

  async fill(changes: readonly Change[]): Promise<void> {
    const store = await this.open()
    this.note('filled by one commit', await secondsOf(() => store.commit(changes)), 's')
    await this.noteSize(store, 'when filled')
    await store.close()
  }

  async noteSize(store: Store, when: string): Promise<void> {
    const size = await store.cluster!.size()
    this.note(`database file ${when}`, size!.fileBytes / MB, 'MiB')
    this.note(`in use of it ${when}`, size!.usedBytes / MB, 'MiB')
  }

  async start(when: string): Promise<void> {
    const begin = performance.now()
    const flags = ['--store', this.#etcd.url, '--name', 'cold', '--follow', 'on', ...this.#coreFlags]
    const core = await startCore({ flags, limitMs: START_LIMIT_MS })
    this.note(`core ready ${when}`, (performance.now() - begin) / 1000, 's')
    this.note(`processor time of that ${when}`, processorSec(core.process.pid!), 's')
    const answer = await askDns(core, `${SERVICE}.any.test`)
    if (answer === null || answer.length === 0) throw new Error('it is ready and does not answer')
    this.note(`its memory then ${when}`, residentMb(core.process.pid!), 'MiB')
    await atRest(core.process.pid!)
    this.note(`all its threads at rest ${when}`, (performance.now() - begin) / 1000 - REST_SEC, 's')
    this.note(`its memory at rest ${when}`, residentMb(core.process.pid!), 'MiB')
    core.process.kill()
    await core.ended
  }

  async load(when: string): Promise<void> {
    const store = await this.open()
    this.note(`store loaded ${when}`, await secondsOf(() => store.load()), 's')
    await store.close()
  }

  /** Does as the first of the cores does, until all is in pages. */
  async tidy(): Promise<Store> {
    const store = await this.open()
    await store.load()
    store.cluster!.follow({ onCommit() {}, onCores() {}, onTrouble() {} })
    await store.cluster!.announce('cold')
    const batches = () =>
      this.#etcd.ctl(['get', this.#keys.batches.toString(), '--prefix', '--keys-only']).trim()
    const seconds = await secondsOf(async () => {
      while (batches() !== '') await wait(250)
    })
    this.note('moved to pages in', seconds, 's')
    return store
  }

  compact(): void {
    const [{ Status }] = JSON.parse(this.#etcd.ctl(['endpoint', 'status', '--write-out=json']))
    this.#etcd.ctl(['compact', String(Status.header.revision), '--physical', '--command-timeout=60s'])
    this.#etcd.ctl(['defrag', '--command-timeout=60s'])
  }

  async change(store: Store, world: World, localities: number, changes: number, rng: () => number) {
    const one = () => world.locality(Math.floor(rng() * localities))
    const times: number[] = []
    for (let i = 0; i < SINGLES; i++) times.push(1000 * (await secondsOf(() => store.commit([one()]))))
    times.sort((a, b) => a - b)
    this.note('one change kept, median', times[SINGLES >> 1]!, 'ms')
    this.note('one change kept, p99', times[Math.floor(SINGLES * 0.99)]!, 'ms')
    const pids = this.#etcd.pids
    const written = () => pids.reduce((sum, pid) => sum + writtenBy(pid), 0) / pids.length
    const before = written()
    const seconds = await secondsOf(async () => {
      for (let i = 0; i < changes; i += GROUP) await store.commit(Array.from({ length: GROUP }, one))
    })
    this.note(`changes a second, ${GROUP} a commit`, changes / seconds, '1/s')
    // The upkeep goes on for a moment: its pages are part of what the changes cost.
    await wait(5000)
    this.note('written by a server for each of these', (written() - before) / changes, 'bytes')
  }
}

const { values } = parseArgs({
  options: {
    localities: { type: 'string' },
    members: { type: 'string' },
    changes: { type: 'string' },
    seed: { type: 'string' },
    'dns-workers': { type: 'string' },
    json: { type: 'boolean' },
  },
})
const localities = readCount('localities', values.localities, 1_000_000, 1000, 10_000_000)
const members = readCount('members', values.members, 100_000, 10, 1_000_000)
const changes = readCount('changes', values.changes, 20_000, GROUP, 1_000_000)
const missing = noEtcd()
if (missing !== false) throw new Error(missing)

const rng = seededRng(readCount('seed', values.seed, 1, 0))
const etcd = await EtcdServers.start()
try {
  const workers = values['dns-workers']
  const cold = new Cold(etcd, workers === undefined ? [] : ['--dns-workers', workers])
  const world = drawWorld(localities, members, rng)
  await cold.fill(world.changes)
  world.changes.length = 0
  await cold.start('from the batch')
  const keeper = await cold.tidy()
  cold.compact()
  await cold.noteSize(keeper, 'in pages, compacted')
  await cold.load('from pages')
  await cold.start('from pages')
  await cold.change(keeper, world, localities, changes, rng)
  await cold.noteSize(keeper, `after ${changes} changes`)
  await cold.load('from pages and changes')
  await keeper.close()
  const result = { localities, members, figures: cold.rows }
  if (values.json) console.log(JSON.stringify(result, null, 2))
  else {
    console.log(
      `${localities} localities, ${members} members with their hosts; three etcd servers on this machine\n`,
    )
    for (const { what, value, unit } of cold.rows)
      console.log(`${what.padEnd(42)} ${String(value).padStart(10)} ${unit}`)
  }
} finally {
  await etcd.close()
}
