// A core for tests: memory store, a clock that moves when told, a real echo socket on loopback.

import { Core, type Peer } from '../../core-node/core.ts'
import type { Log } from '../../core-node/ledger.ts'
import type { Caller } from '../../core-node/registry/caller.ts'
import { type Config, loadConfig } from '../../core-node/settings/config.ts'
import type { Clock } from '../../core-node/steady-clock.ts'
import { openMemory } from '../../db/memory.ts'
import type { Store } from '../../db/store.ts'
import { parseAddress } from '../../resolver/address.ts'
import { type EchoSocket, openEcho } from '../../server-agent/protocol/echo-socket.ts'
import { seededRng } from './seeded-rng.ts'
import { temporaryFolder } from './temporary-folder.ts'

export const ADMIN: Caller = { kind: 'admin' }
const SILENT: Log = { info() {}, warn() {}, error() {} }

/** Epoch and monotonic time together. It starts with the real day: echoes are good for two days only. */
export class FakeClock implements Clock {
  readonly #startMs = Date.now()
  #ms = 0
  /** How far off the time of day is. */
  jumpedMs = 0
  epochMs(): number {
    return this.#startMs + this.#ms + this.jumpedMs
  }
  monotonicMs(): number {
    return this.#ms
  }
  move(ms: number): void {
    this.#ms += ms
  }
}

export interface CoreFixture {
  readonly core: Core
  readonly clock: FakeClock
  readonly config: Config
  readonly store: Store
  /** Lets time pass in ticks of a quarter second, with room for what each tick began. */
  run(ms: number): Promise<void>
  close(): Promise<void>
}

export function testConfig(flags: Record<string, string> = {}): Config {
  const data = temporaryFolder()
  const standard = { data, geo: 'none', dns: '127.0.0.1:0', http: '127.0.0.1:0', logLevel: 'silent' }
  return loadConfig({ flags: { ...standard, ...flags }, env: {}, file: null })
}

export async function openCoreFixture(
  options: { flags?: Record<string, string>; config?: Config; store?: Store; clock?: FakeClock } = {},
): Promise<CoreFixture> {
  const config = options.config ?? testConfig(options.flags)
  const store = options.store ?? openMemory()
  const clock = options.clock ?? new FakeClock()
  let key: Uint8Array | null = null
  const echo: EchoSocket = await openEcho({ host: '127.0.0.1', port: 0, key: () => key })
  const core = await Core.open({
    config,
    store,
    geography: null,
    echo,
    clock,
    rng: seededRng(1),
    log: SILENT,
  })
  key = core.echoKey
  const run = async (ms: number) => {
    for (let passed = 0; passed < ms; passed += 250) {
      clock.move(250)
      core.tick()
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  const close = async () => {
    await core.close()
    await echo.close()
  }
  return { core, clock, config, store, run, close }
}

export function peer(address: string, port = 40_000): Peer {
  return { address: parseAddress(address)!, port }
}
