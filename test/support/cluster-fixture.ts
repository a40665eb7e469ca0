// Several cores in one process, over one store in memory: each with a clock of its own that the test moves, and hosts
// whose agents are a few lines that beat, answer echoes, and register elsewhere when a core does not know them.

import { setTimeout as sleep } from 'node:timers/promises'
import type { Core } from '../../core-node/core.ts'
import { Problem } from '../../core-node/problem.ts'
import { dumpOf } from '../../core-node/registry/dump.ts'
import { SharedMemory, type SharedMemoryStore } from '../../db/shared-memory.ts'
import type { Health } from '../../resolver/directory.ts'
import { type EchoSocket, openEcho } from '../../server-agent/protocol/echo-socket.ts'
import type { JoiningMember } from '../../server-agent/protocol/messages.ts'
import { ADMIN, type CoreFixture, FakeClock, openCoreFixture, peer, testConfig } from './core-fixture.ts'

const HERE = peer('127.0.0.1')
const ECHOES_MS = 200

export interface ClusterCore extends CoreFixture {
  readonly clock: FakeClock
  readonly store: SharedMemoryStore
}

export class ClusterFixture {
  readonly shared = new SharedMemory()
  readonly cores = new Map<string, ClusterCore>()
  readonly #hosts: TestHost[] = []
  readonly #killed: ClusterCore[] = []

  static async open(...names: string[]): Promise<ClusterFixture> {
    const cluster = new ClusterFixture()
    for (const name of names) await cluster.start(name)
    return cluster
  }

  async start(name: string, flags: Record<string, string> = {}): Promise<ClusterCore> {
    const store = this.shared.open({ readOnly: flags.follow === 'on' })
    const config = testConfig({ name, store: 'etcd://127.0.0.1:1', ...flags })
    const fixture = await openCoreFixture({ config, store, clock: new FakeClock() })
    const core = { ...fixture, clock: fixture.clock as FakeClock, store }
    this.cores.set(name, core)
    await turns()
    return core
  }

  core(name: string): Core {
    return this.cores.get(name)!.core
  }

  /** As by kill -9: it does nothing more, and its lease ends when the test says so. */
  kill(name: string): void {
    const core = this.cores.get(name)!
    core.store.cut()
    this.#killed.push(core)
    this.cores.delete(name)
  }

  /** Lets time pass everywhere, a quarter of a second at a time; hosts beat every two seconds. */
  async run(ms: number): Promise<void> {
    for (let passed = 0; passed < ms; passed += 250) {
      for (const { clock } of this.cores.values()) clock.move(250)
      for (const host of this.#hosts) await host.pass(250)
      const open = () => this.#count('liveness.ask') - this.#count('results.opinion')
      const before = open()
      for (const { core } of this.cores.values()) core.tick()
      await turns()
      // Second opinions are real echoes, which take real time; the dead give none.
      const until = performance.now() + ECHOES_MS
      while (open() > before && performance.now() < until) await sleep(5)
    }
  }

  #count(what: string): number {
    let count = 0
    for (const { core } of this.cores.values()) count += core.counters.snapshot()[what] ?? 0
    return count
  }

  async host(name: string, home: string, members: JoiningMember[] = [], hasEcho = true): Promise<TestHost> {
    const host = await TestHost.open(this, name, members, hasEcho)
    await host.register(home)
    this.#hosts.push(host)
    await turns()
    return host
  }

  /** Directories as text, by core. */
  dumps(isDecided = false): string[] {
    return Array.from(this.cores.values(), ({ core }) => dumpOf(core.directory, isDecided))
  }

  /** Whether all directories are equal byte for byte within so long. */
  async areEqualWithin(ms: number): Promise<boolean> {
    for (let passed = 0; passed <= ms; passed += 250) {
      if (new Set(this.dumps()).size === 1) return true
      await this.run(250)
    }
    return false
  }

  /** Who is answered with in `web`, by core. */
  live(): Record<string, string[]> {
    const names = (core: Core) =>
      core.tables
        .service('web')!
        .members.filter(({ state }) => state === 'live')
        .map(({ name }) => name)
        .sort()
    return Object.fromEntries(Array.from(this.cores, ([name, { core }]) => [name, names(core)]))
  }

  async close(): Promise<void> {
    for (const host of this.#hosts) await host.stop()
    await Promise.all([...this.#killed, ...this.cores.values()].map(({ close }) => close()))
  }
}

/** A host with an echo of its own, at one core at a time. */
export class TestHost {
  readonly name: string
  readonly #cluster: ClusterFixture
  readonly #members: JoiningMember[]
  #echo: EchoSocket | null
  #echoKey: Uint8Array | null = null
  #credential: string | null = null
  #untilBeatMs = 2000
  home = ''
  load: number | null = null
  /** Of all its members; null: it says nothing of it. */
  health: Health | null = null
  /** It may go to another core when it is not known at its own. */
  mayMove = true
  isDead = false

  private constructor(cluster: ClusterFixture, name: string, members: JoiningMember[]) {
    this.#cluster = cluster
    this.name = name
    this.#members = members
    this.#echo = null
  }

  static async open(
    cluster: ClusterFixture,
    name: string,
    members: JoiningMember[],
    hasEcho: boolean,
  ): Promise<TestHost> {
    const host = new TestHost(cluster, name, members)
    if (hasEcho) host.#echo = await openEcho({ host: '127.0.0.1', port: 0, key: () => host.#echoKey })
    return host
  }

  async register(home: string): Promise<void> {
    const core = this.#cluster.core(home)
    const caller = this.#credential === null ? ADMIN : core.authenticate(this.#credential)
    const echo = this.#echo === null ? {} : { echo: { address: '127.0.0.1', port: this.#echo.port } }
    const request = { addresses: ['127.0.0.1'], ...echo, members: this.#members }
    const reply = await core.putHost(caller, this.name, request, HERE)
    this.#credential = reply.credential ?? this.#credential
    this.#echoKey = Buffer.from(reply.echoKey, 'hex')
    this.home = home
  }

  async pass(ms: number): Promise<void> {
    this.#untilBeatMs -= ms
    if (this.isDead || this.#untilBeatMs > 0) return
    this.#untilBeatMs += 2000
    if (!(await this.beat()) && this.mayMove) await this.move()
  }

  /** False: the home is gone, or does not know it, or wants it to move. */
  async beat(): Promise<boolean> {
    if (!this.#cluster.cores.has(this.home)) return false
    const core = this.#cluster.core(this.home)
    const members = this.#members.map(({ service, name = this.name }) => ({
      service,
      name,
      load: this.load,
      ...(this.health && { health: this.health }),
    }))
    const { beats } = await core.heartbeat({
      beats: [{ host: this.name, credential: this.#credential!, members }],
    })
    return beats[0]!.status === 'ok' && beats[0]!.moving !== true
  }

  /** To the next core that takes it. */
  async move(): Promise<void> {
    for (const name of this.#cluster.cores.keys()) {
      if (name === this.home && this.#cluster.cores.size > 1) continue
      try {
        return await this.register(name)
      } catch (error) {
        if (!(error instanceof Problem)) throw error
      }
    }
  }

  /** It ends, echo and all, without a word. */
  async stop(): Promise<void> {
    this.isDead = true
    await this.#echo?.close()
    this.#echo = null
  }
}

/** Room for what was begun: a store tells in turns of the event loop, echoes need the system's. */
export async function turns(count = 12): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve))
}
