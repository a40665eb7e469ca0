// A small Internet of network namespaces with real delays, and programs run inside them.
//
// `delaynet N SECONDS MATRIX` makes the namespaces dn0..dnN-1 (tun0 10.99.0.I+1) and delays each packet
// between them; it cleans them up on SIGTERM. All its addresses share a /16, so on top lies an overlay
// (VXLAN, addresses and neighbours fixed) where each machine has the address that the world gives it.
// Invariant: whatever ends this, close() leaves no process, namespace or file; where this process dies
// without it, the kernel ends the children (parent-death signal) and with them the network.

import { type ChildProcessByStdio, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import type { Done, Task } from './live-inside.ts'
import type { Client, ClientKind, LiveWorld, Machine } from './live-world.ts'

const INSIDE = fileURLToPath(new URL('live-inside.ts', import.meta.url))
const NEEDED = ['ip', 'bridge', 'setpriv']
const KEPT_LINES = 15
/** VXLAN takes 50 bytes of the 1500. */
const OVERLAY_MTU = 1450

/** What a client does not answer, as routing rules: its replies have nowhere to go. */
const SILENCED: Readonly<Record<ClientKind, readonly string[]>> = {
  dns: [],
  tcp: ['ipproto icmp'],
  icmp: ['ipproto tcp sport 443'],
  silent: ['ipproto icmp', 'ipproto tcp sport 443'],
}

/** This machine lets nobody make such a network, for all its programs are there. */
export class NoNetwork extends Error {}

/** Why there can be no such network here; null: there can. */
export function whyNoNetwork(delaynet: string): string | null {
  if (process.platform !== 'linux') return 'network namespaces are a thing of Linux'
  if (process.getuid?.() !== 0) return 'network namespaces need root'
  if (!existsSync(delaynet)) return `${delaynet} is not there: build the program delaynet first`
  if (!existsSync('/dev/net/tun')) return 'there is no /dev/net/tun'
  if (existsSync('/run/netns/dn0')) return 'a namespace dn0 exists: another delaynet is running'
  for (const program of NEEDED) {
    try {
      execFileSync(program, ['--version'], { stdio: 'ignore' })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return `there is no program ${program}`
    }
  }
  return null
}

type Child = ChildProcessByStdio<Writable, Readable, Readable>

/** One program inside a namespace. */
export class Inside {
  readonly name: string
  readonly gone: Promise<void>
  #isGone = false
  #said: string[] = []
  readonly #child: Child

  constructor(name: string, machine: Machine, argv: readonly string[], onLine: (line: string) => void) {
    this.name = name
    const command = [
      '--pdeathsig',
      'KILL',
      'ip',
      'netns',
      'exec',
      `dn${machine.index}`,
      process.execPath,
      ...argv,
    ]
    this.#child = spawn('setpriv', command, {
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: true,
      env: plainEnvironment(),
    })
    this.gone = new Promise((resolve) => {
      this.#child.once('error', (error) => this.#keep(error.message))
      this.#child.once('close', () => {
        this.#isGone = true
        resolve()
      })
    })
    this.#child.stdin.on('error', () => {})
    createInterface({ input: this.#child.stdout }).on('line', onLine)
    createInterface({ input: this.#child.stderr }).on('line', (line) => this.#keep(line))
  }

  /** What it said last on stderr; null while it runs. */
  get lastWords(): string | null {
    return this.#isGone ? `${this.name} ended by itself: ${this.#said.join('\n')}` : null
  }

  say(line: string): void {
    this.#child.stdin.write(`${line}\n`)
  }

  /** Ends it and what it started. */
  async kill(): Promise<void> {
    try {
      if (this.#child.pid !== undefined && !this.#isGone) process.kill(-this.#child.pid, 'SIGKILL')
    } catch {
      // ESRCH: it ended in the meantime.
    }
    await this.gone
  }

  #keep(line: string): void {
    this.#said = [...this.#said, line].slice(-KEPT_LINES)
  }
}

/** Does tasks inside a namespace. */
export class Worker {
  readonly program: Inside
  readonly #open = new Map<number, (done: Done) => void>()
  #lastId = 0

  constructor(machine: Machine, argv: readonly string[]) {
    this.program = new Inside(`what acts for ${machine.name}`, machine, [INSIDE, ...argv], (line) => {
      const done = JSON.parse(line) as Done
      this.#open.get(done.id)?.(done)
      this.#open.delete(done.id)
    })
  }

  /** Rejects with what went wrong inside, or where it ended. */
  async perform<T>(task: Task): Promise<T> {
    const id = ++this.#lastId
    const done = new Promise<Done>((resolve) => this.#open.set(id, resolve))
    this.program.say(JSON.stringify({ id, task }))
    const ended = this.program.gone.then(() => ({ id, error: this.program.lastWords ?? 'ended' }))
    const { result, error } = await Promise.race<Done>([done, ended])
    if (error !== undefined) throw new Error(error)
    return result as T
  }
}

export class LiveNetwork {
  readonly folder: string
  readonly #world: LiveWorld
  readonly #programs: Inside[] = []
  #delaynet: ReturnType<typeof spawn> | null = null

  constructor(world: LiveWorld) {
    this.#world = world
    this.folder = mkdtempSync(join(tmpdir(), 'nearcast-live-'))
  }

  /** Brings it up, for `seconds` at most. Rejects with NoNetwork where that can't be; close() all the same. */
  async open(delaynet: string, seconds: number): Promise<void> {
    try {
      await this.#build(delaynet, seconds)
    } catch (cause) {
      throw new NoNetwork((cause as Error).message, { cause })
    }
  }

  async #build(delaynet: string, seconds: number): Promise<void> {
    const { machines } = this.#world
    const matrix = join(this.folder, 'one-way')
    writeFileSync(matrix, oneWayLines(this.#world))
    const args = ['--pdeathsig', 'TERM', resolve(delaynet), String(machines.length), String(seconds), matrix]
    const child = spawn('setpriv', args, { stdio: ['ignore', 'pipe', 'inherit'], detached: true })
    this.#delaynet = child
    const ended = once(child, 'exit').then(([code]) => `delaynet ended with code ${code}`)
    const first = await Promise.race([once(child.stdout, 'data').then(String), ended])
    if (!first.startsWith('created')) throw new Error(first)
    for (const machine of machines) {
      const { index } = machine
      runBatch(index, 'ip', addressLines(machine, machines))
      runBatch(
        index,
        'bridge',
        machines.filter((o) => o !== machine).map((o) => `fdb append ${mac(o)} dev vx dst ${under(o)}`),
      )
    }
    for (const client of this.#world.clients) silence(client)
  }

  /** Runs a script of ours inside a machine's namespace. */
  start(name: string, machine: Machine, argv: readonly string[], onLine: (line: string) => void): Inside {
    const program = new Inside(name, machine, argv, onLine)
    this.#programs.push(program)
    return program
  }

  actFor(machine: Machine, argv: readonly string[] = []): Worker {
    const worker = new Worker(machine, argv)
    this.#programs.push(worker.program)
    return worker
  }

  /** Throws where a program ended that should run. */
  check(): void {
    for (const { lastWords } of this.#programs) if (lastWords !== null) throw new Error(lastWords)
  }

  async close(): Promise<void> {
    await Promise.all(this.#programs.map((program) => program.kill()))
    const child = this.#delaynet
    if (child !== null && child.exitCode === null && child.signalCode === null && child.kill('SIGTERM')) {
      await once(child, 'exit')
    }
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** Lines `i j microseconds`: each way takes half of the round trip. */
function oneWayLines(world: LiveWorld): string {
  const lines: string[] = []
  for (const a of world.machines) {
    for (const b of world.machines) lines.push(`${a.index} ${b.index} ${Math.round(world.rttMs(a, b) * 500)}`)
  }
  return `${lines.join('\n')}\n`
}

function under({ index }: Machine): string {
  return `10.99.${(index + 1) >> 8}.${(index + 1) & 255}`
}

function mac({ index }: Machine): string {
  return `02:00:00:00:00:${(index + 1).toString(16).padStart(2, '0')}`
}

function addressLines(own: Machine, machines: readonly Machine[]): string[] {
  return [
    `link add vx type vxlan id 7 dstport 4789 local ${under(own)} dev tun0 nolearning`,
    `link set vx address ${mac(own)} mtu ${OVERLAY_MTU} up`,
    `addr add ${own.address}/32 dev vx`,
    ...machines
      .filter((other) => other !== own)
      .flatMap((other) => [
        `neigh add ${other.address} lladdr ${mac(other)} dev vx nud permanent`,
        `route add ${other.address}/32 dev vx src ${own.address}`,
      ]),
  ]
}

function silence({ index, kind }: Client): void {
  const rules = SILENCED[kind].map((what, i) => `rule add pref ${100 + i} ${what} blackhole`)
  if (rules.length > 0) runBatch(index, 'ip', rules)
}

function runBatch(index: number, program: 'ip' | 'bridge', lines: readonly string[]): void {
  const args = ['netns', 'exec', `dn${index}`, program, '-batch', '-']
  execFileSync('ip', args, { input: `${lines.join('\n')}\n`, stdio: ['pipe', 'ignore', 'inherit'] })
}

/** Without settings of Nearcast: the benchmark's own are all that count. */
function plainEnvironment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('NEARCAST_')))
}
