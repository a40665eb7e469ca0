// The programs of the chaos bench, as anybody would start them: etcd servers, cores, agents, each at a node of the
// network; when one is started, is ready and ends is written down.

import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Homing, Life } from './chaos-history.ts'
import type { ChaosNetwork } from './chaos-network.ts'
import type { Cast } from './chaos-plan.ts'

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url))
const CORE = here('../../core-node/cli.ts')
const AGENT = here('../../server-agent/bin/nearcast-agent.js')
const CLOCK = here('chaos-clock.ts')
export const ZONE = 'any.test'
/** Clients look for this one; operators drain members of the other. */
export const SERVICE = 'mirror'
export const DRAINED_SERVICE = 'batch'
export const HTTP_PORT = 8053
const LOOK_EVERY_MS = 50
const READY_WITHIN_MS = 60_000
/** After SIGTERM, until it is killed. */
const LEAVE_MS = 20_000
const KEPT_LINES = 40

interface Program {
  readonly life: Life
  readonly child: ChildProcess
  readonly ended: Promise<unknown>
}

export class ChaosCast {
  readonly lives: Life[] = []
  readonly homings: Homing[] = []
  /** What each program said last, by node. */
  readonly said = new Map<string, string[]>()
  /** For agents; made when the cores run. */
  token = ''
  readonly #cast: Cast
  readonly #network: ChaosNetwork
  readonly #folder: string
  readonly #nowMs: () => number
  readonly #running = new Map<string, Program>()

  constructor(cast: Cast, network: ChaosNetwork, folder: string, nowMs: () => number) {
    this.#cast = cast
    this.#network = network
    this.#folder = folder
    this.#nowMs = nowMs
  }

  start(node: string): void {
    const life: Life = { node, startedMs: this.#nowMs(), readyMs: null, endedMs: null, how: null }
    const child = this.#network.start(node, this.#commandOf(node), { CHAOS_CLOCK: this.#clockOf(node) })
    const ended = once(child, 'close')
    this.lives.push(life)
    this.#running.set(node, { life, child, ended })
    child.on('error', (error) => this.#keep(node, error.message))
    child.stdin!.on('error', () => {})
    for (const stream of [child.stdout!, child.stderr!]) {
      createInterface({ input: stream }).on('line', (line) => {
        this.#keep(node, line)
        if (this.#cast.agents.includes(node)) this.#hearAgent(node, life, line)
      })
    }
    void ended.then(() => {
      // By itself: that is for the judge to see.
      if (life.endedMs === null) this.#end(node, life, 'left')
      this.#keep(node, 'ended')
    })
    if (!this.#cast.agents.includes(node)) void this.#watch(node, life)
  }

  async kill(node: string): Promise<void> {
    const { life, child, ended } = this.#running.get(node)!
    child.kill('SIGKILL')
    this.#end(node, life, 'killed')
    await ended
  }

  /** By SIGTERM; resolves when it has ended. */
  async leave(node: string): Promise<void> {
    const { life, child, ended } = this.#running.get(node)!
    this.#end(node, life, 'left')
    child.kill('SIGTERM')
    const isLate = await Promise.race([ended.then(() => false), sleep(LEAVE_MS, true)])
    if (isLate) child.kill('SIGKILL')
    await ended
  }

  /** From now on the wall clock of a node is wrong by so much. */
  setClock(node: string, wrongByMs: number): void {
    writeFileSync(this.#clockOf(node), String(wrongByMs))
  }

  /** Rejects where one does not come, with what it said last. */
  async ready(nodes: readonly string[]): Promise<void> {
    const endMs = this.#nowMs() + READY_WITHIN_MS
    for (const node of nodes) {
      while (this.#running.get(node)!.life.readyMs === null) {
        const isGone = this.#running.get(node)!.life.endedMs !== null
        if (isGone || this.#nowMs() > endMs) {
          const why = isGone ? 'ended' : `is not ready within ${READY_WITHIN_MS / 1000} s`
          throw new Error(`${node} ${why}: ${this.said.get(node)?.join('\n')}`)
        }
        await sleep(LOOK_EVERY_MS)
      }
    }
  }

  urlOf(core: string): string {
    return `http://${this.#network.addressOf(core)}:${HTTP_PORT}`
  }

  dataOf(node: string): string {
    return join(this.#folder, node)
  }

  #end(node: string, life: Life, how: 'killed' | 'left'): void {
    life.endedMs = this.#nowMs()
    life.how = how
    this.#keep(node, how)
  }

  #hearAgent(agent: string, life: Life, line: string): void {
    if (!line.startsWith('{"event":"joined"')) return
    const { home } = JSON.parse(line) as { home: string }
    life.readyMs ??= this.#nowMs()
    this.homings.push({ atMs: this.#nowMs(), agent, core: home })
  }

  async #watch(node: string, life: Life): Promise<void> {
    const address = this.#network.addressOf(node)
    const url = this.#cast.etcds.includes(node)
      ? `http://${address}:2379/health`
      : `http://${address}:${HTTP_PORT}/readyz`
    while (life.endedMs === null) {
      const reply = await fetch(url, { signal: AbortSignal.timeout(1000) }).catch(() => null)
      if (reply?.ok && (await reply.text()).includes('true')) {
        life.readyMs = this.#nowMs()
        return
      }
      await sleep(LOOK_EVERY_MS)
    }
  }

  #clockOf(node: string): string {
    return join(this.#folder, `${node}.clock`)
  }

  #keep(node: string, line: string): void {
    const lines = this.said.get(node) ?? []
    lines.push(`${(this.#nowMs() / 1000).toFixed(2)} ${line}`)
    this.said.set(node, lines.slice(-KEPT_LINES))
  }

  #commandOf(node: string): string[] {
    if (this.#cast.etcds.includes(node)) return this.#etcd(node)
    return this.#cast.cores.includes(node) ? this.#core(node) : this.#agent(node)
  }

  #etcd(node: string): string[] {
    const at = (name: string, port: number): string => `http://${this.#network.addressOf(name)}:${port}`
    const cluster = this.#cast.etcds.map((name) => `${name}=${at(name, 2380)}`).join(',')
    const flags = {
      name: node,
      'data-dir': this.dataOf(node),
      'listen-client-urls': at(node, 2379),
      'advertise-client-urls': at(node, 2379),
      'listen-peer-urls': at(node, 2380),
      'initial-advertise-peer-urls': at(node, 2380),
      'initial-cluster': cluster,
      // Who was cut off and comes back does not depose the leader; the default since 3.5.
      'pre-vote': 'true',
      'log-level': 'error',
      logger: 'zap',
    }
    return ['etcd', ...Object.entries(flags).map(([name, value]) => `--${name}=${value}`)]
  }

  #core(node: string): string[] {
    const address = this.#network.addressOf(node)
    const { etcds } = this.#cast
    const endpoints = etcds.map((etcd) => `${this.#network.addressOf(etcd)}:2379`)
    const flags = {
      ...{ name: node, data: this.dataOf(node), zone: ZONE, geo: 'none', 'log-level': 'info' },
      ...{ dns: `${address}:53`, http: `${address}:${HTTP_PORT}`, echo: `${address}:8054` },
      store: etcds.length === 0 ? 'sqlite' : `etcd://${endpoints.join(',')}`,
      'rrl-exempt-clients': '10.78.0.0/16',
      ...{ 'probe-clients': 'off', 'probe-private': '10.78.0.0/16', 'operator-from': '10.78.0.0/16' },
      'requests-per-minute': '1000000',
    }
    return [...ourNode(), CORE, 'core', ...flagsOf(flags)]
  }

  #agent(node: string): string[] {
    const address = this.#network.addressOf(node)
    const config = join(this.#folder, `${node}.yaml`)
    const members = [SERVICE, DRAINED_SERVICE].map((service) => ({ service, port: 80 }))
    // JSON is YAML.
    writeFileSync(config, JSON.stringify({ name: node, token: this.token, members }))
    // Each begins its list with another core: nobody here is near, and all would have the same home.
    const { cores, agents } = this.#cast
    const first = agents.indexOf(node) % cores.length
    const flags = {
      core: [...cores.slice(first), ...cores.slice(0, first)].map((core) => this.urlOf(core)).join(','),
      ...{ config, address, echo: `${address}:8054`, state: this.dataOf(node) },
    }
    return [...ourNode(), AGENT, ...flagsOf(flags), '--insecure', '--json']
  }
}

export function makeFolders(folder: string, nodes: readonly string[]): void {
  for (const node of nodes) mkdirSync(join(folder, node), { recursive: true, mode: 0o700 })
}

function ourNode(): string[] {
  return [process.execPath, '--conditions=nearcast-clone', '--import', CLOCK]
}

function flagsOf(flags: Readonly<Record<string, string>>): string[] {
  return Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value])
}
