// Real etcd servers for tests: one to three of them on loopback, in temporary folders, that can be killed,
// stopped like a machine that hangs, and started again over their data. They end with the test's process.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { freePort } from './processes.ts'
import { temporaryFolder } from './temporary-folder.ts'

/** false: etcd is here; else why not, for `skip`. */
export function noEtcd(): string | false {
  const { status } = spawnSync('setpriv', ['etcd', '--version'])
  return status === 0 ? false : 'the programs etcd and setpriv are not both installed'
}

export interface EtcdOptions {
  /** 1 or 3. */
  readonly count?: number
  /** PEM files; where they are given, clients and servers must show a certificate of this authority. */
  readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string }
  /** Flags that all servers get. */
  readonly flags?: readonly string[]
}

interface Server {
  readonly folder: string
  readonly clientPort: number
  readonly peerPort: number
  process: ChildProcess | null
  output: string
}

/** Short, so that tests need not wait: a leader that is silent for 300 ms is replaced. */
const TIMES = ['--heartbeat-interval', '50', '--election-timeout', '300']
const READY_MS = 15_000

export class EtcdServers {
  readonly #servers: readonly Server[]
  readonly #options: EtcdOptions

  private constructor(servers: readonly Server[], options: EtcdOptions) {
    this.#servers = servers
    this.#options = options
    process.once('exit', () => this.#killAll())
  }

  /** Starts them and waits until each answers. */
  static async start(options: EtcdOptions = {}): Promise<EtcdServers> {
    const servers: Server[] = []
    for (let i = 0; i < (options.count ?? 3); i++) {
      const [clientPort, peerPort] = [await freePort(), await freePort()]
      servers.push({ folder: temporaryFolder(), clientPort, peerPort, process: null, output: '' })
    }
    const etcd = new EtcdServers(servers, options)
    for (const i of servers.keys()) etcd.#spawn(i)
    await etcd.ready()
    return etcd
  }

  /** `HOST:PORT` of each. */
  get endpoints(): string[] {
    return this.#servers.map(({ clientPort }) => `127.0.0.1:${clientPort}`)
  }

  /** As --store takes it. */
  get url(): string {
    return `etcd://${this.endpoints.join(',')}`
  }

  /** Of those that run. */
  get pids(): number[] {
    return this.#servers.flatMap((server) => server.process?.pid ?? [])
  }

  /** Which one of them leads now. */
  leader(): number {
    const found = this.#servers.findIndex((server, i) => {
      if (server.process === null) return false
      const out = this.tryCtl(['endpoint', 'status', '--write-out=json', '--command-timeout=1s'], [i])
      if (out === null) return false
      const [{ Status }] = JSON.parse(out)
      return Status.leader === Status.header.member_id
    })
    if (found < 0) throw new Error('no etcd server leads')
    return found
  }

  /** Runs etcdctl to its end against these servers (all): its output. Throws with what it said where it fails. */
  ctl(args: readonly string[], servers?: readonly number[]): string {
    const { status, stdout, stderr } = this.#ctl(args, servers)
    if (status !== 0) throw new Error(`etcdctl ${args.join(' ')}: ${stderr}`)
    return stdout
  }

  /** The same; null where it fails. */
  tryCtl(args: readonly string[], servers?: readonly number[]): string | null {
    const { status, stdout } = this.#ctl(args, servers)
    return status === 0 ? stdout : null
  }

  #ctl(args: readonly string[], servers: readonly number[] = [...this.#servers.keys()]) {
    const { tls } = this.#options
    const endpoints = servers.map((i) => this.#url(this.#servers[i]!.clientPort)).join(',')
    const files = tls ? ['--cacert', tls.ca, '--cert', tls.cert, '--key', tls.key] : []
    return spawnSync('etcdctl', ['--endpoints', endpoints, ...files, ...args], {
      encoding: 'utf8',
      env: { PATH: process.env.PATH, ETCDCTL_API: '3' },
    })
  }

  /** kill -9. */
  async kill(i: number): Promise<void> {
    const running = this.#servers[i]!.process
    if (running === null) return
    const ended = once(running, 'exit')
    running.kill('SIGKILL')
    await ended
  }

  /** Hangs like a machine whose cable was pulled: connections stay, nothing comes. */
  stop(i: number): void {
    this.#servers[i]!.process?.kill('SIGSTOP')
  }

  continue(i: number): void {
    this.#servers[i]!.process?.kill('SIGCONT')
  }

  /** Starts it again over its data. */
  async restart(i: number): Promise<void> {
    await this.kill(i)
    this.#spawn(i)
    await this.ready([i])
  }

  /** Waits until these (all) answer, which takes a majority. */
  async ready(servers: readonly number[] = [...this.#servers.keys()]): Promise<void> {
    const end = Date.now() + READY_MS
    for (const i of servers) {
      const { clientPort } = this.#servers[i]!
      while (!(await this.#answers(i, clientPort))) {
        if (Date.now() > end) throw new Error(`etcd ${i} is not ready: ${this.#servers[i]!.output}`)
        await wait(50)
      }
    }
  }

  /** Kills them all; their folders go with the process. */
  async close(): Promise<void> {
    await Promise.all(this.#servers.map((_, i) => this.kill(i)))
  }

  async #answers(i: number, port: number): Promise<boolean> {
    const socket = connect(port, '127.0.0.1')
    const isOpen = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    })
    socket.destroy()
    return isOpen && this.tryCtl(['endpoint', 'health', '--command-timeout=2s'], [i]) !== null
  }

  #spawn(i: number): void {
    const server = this.#servers[i]!
    const { tls, flags = [] } = this.#options
    const client = this.#url(server.clientPort)
    const peer = `http://127.0.0.1:${server.peerPort}`
    const all = this.#servers.map(({ peerPort }, n) => `etcd${n}=http://127.0.0.1:${peerPort}`).join(',')
    const files = tls
      ? ['--cert-file', tls.cert, '--key-file', tls.key, '--trusted-ca-file', tls.ca, '--client-cert-auth']
      : []
    const args = [
      '--name',
      `etcd${i}`,
      '--data-dir',
      server.folder,
      '--logger',
      'zap',
      '--log-level',
      'error',
    ]
    args.push('--listen-client-urls', client, '--advertise-client-urls', client)
    args.push('--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer, '--initial-cluster', all)
    const child = spawn('etcd', [...args, ...TIMES, ...files, ...flags], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (part) => {
        server.output = `${server.output}${part}`.slice(-10_000)
      })
    }
    child.once('exit', () => {
      if (server.process === child) server.process = null
    })
    server.process = child
  }

  #url(port: number): string {
    return `${this.#options.tls ? 'https' : 'http'}://127.0.0.1:${port}`
  }

  #killAll(): void {
    for (const server of this.#servers) server.process?.kill('SIGKILL')
  }
}
