// The network of the chaos bench: a router, which is the network namespace that this runs in, and nodes at the end of
// cables, each in a namespace of its own. Ways between any two nodes can be cut and made slow.
//
// A cut drops without a word what goes either way; nobody is told. What is to be slow goes through chaos-delay.ts.
// Cuts are counted: a way that was cut twice is open when both are mended. The namespaces end with this process.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { readlinkSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { DelayLine, SLOW_DEVICE } from './chaos-delay.ts'

/** The routing table whose only way is the slow one. */
const SLOW_TABLE = 77
/** Rules that cut come before those that slow. */
const CUT_PREF = 1000
const SLOW_PREF = 20_000
const MAX_NODES = 100

interface Node {
  readonly index: number
  readonly address: string
  /** Holds the namespace open. */
  readonly keeper: ChildProcess
}

export class ChaosNetwork {
  readonly #nodes = new Map<string, Node>()
  readonly #cuts = new Map<string, number>()
  readonly #delays: DelayLine

  private constructor(delays: DelayLine) {
    this.#delays = delays
  }

  static async open(names: readonly string[]): Promise<ChaosNetwork> {
    ip('link set lo up')
    for (const scope of ['all', 'default']) writeFileSync(`/proc/sys/net/ipv4/conf/${scope}/rp_filter`, '0')
    writeFileSync('/proc/sys/net/ipv4/ip_forward', '1')
    const delays = DelayLine.open()
    ip(`link set ${SLOW_DEVICE} up`, `route add default dev ${SLOW_DEVICE} table ${SLOW_TABLE}`)
    const network = new ChaosNetwork(delays)
    if (names.length > MAX_NODES) throw new Error(`at most ${MAX_NODES} nodes`)
    for (const [i, name] of names.entries()) network.#nodes.set(name, await openNode(i + 1))
    return network
  }

  addressOf(name: string): string {
    return this.#node(name).address
  }

  /** Starts a program at a node. */
  start(name: string, argv: readonly string[], env: Readonly<Record<string, string>>): ChildProcess {
    const enter = ['--target', String(this.#node(name).keeper.pid), '--net', '--', ...argv]
    return spawn('nsenter', enter, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { PATH: process.env.PATH, ...env },
    })
  }

  cut(a: string, b: string): void {
    const key = keyOf(a, b)
    const times = this.#cuts.get(key) ?? 0
    this.#cuts.set(key, times + 1)
    if (times === 0) ip(...this.#rules(a, b, CUT_PREF, 'blackhole').map((rule) => `rule add ${rule}`))
  }

  mend(a: string, b: string): void {
    const key = keyOf(a, b)
    const times = this.#cuts.get(key)! - 1
    this.#cuts.set(key, times)
    if (times === 0) ip(...this.#rules(a, b, CUT_PREF, 'blackhole').map((rule) => `rule del ${rule}`))
  }

  /** Each way takes `byMs` longer. */
  slow(a: string, b: string, byMs: number): void {
    this.#delays.set(this.addressOf(a), this.addressOf(b), byMs)
    ip(...this.#rules(a, b, SLOW_PREF, `lookup ${SLOW_TABLE}`).map((rule) => `rule add ${rule}`))
  }

  quicken(a: string, b: string): void {
    ip(...this.#rules(a, b, SLOW_PREF, `lookup ${SLOW_TABLE}`).map((rule) => `rule del ${rule}`))
  }

  #rules(a: string, b: string, pref: number, what: string): string[] {
    const [one, other] = [this.#node(a), this.#node(b)]
    return [
      [one, other],
      [other, one],
    ].map(
      ([from, to]) =>
        `pref ${pref + from!.index * MAX_NODES + to!.index} iif ${portOf(from!)} to ${to!.address}/32 ${what}`,
    )
  }

  #node(name: string): Node {
    return this.#nodes.get(name)!
  }
}

async function openNode(index: number): Promise<Node> {
  const keeper = spawn('unshare', ['--net', 'cat'], { stdio: ['pipe', 'ignore', 'inherit'] })
  const own = readlinkSync('/proc/self/ns/net')
  while (readlinkSync(`/proc/${keeper.pid}/ns/net`) === own) await sleep(2)
  const [address, router] = [`10.78.${index}.1`, `10.78.${index}.254`]
  const node = { index, address, keeper }
  const port = portOf(node)
  ip(
    `link add ${port} type veth peer name cable netns ${keeper.pid}`,
    `addr add ${router}/24 dev ${port}`,
    `link set ${port} up`,
  )
  const inside = ['link set lo up', 'link set cable up', `addr add ${address}/24 dev cable`]
  const lines = [...inside, `route add default via ${router}`].join('\n')
  const enter = ['--target', String(keeper.pid), '--net', 'ip', '-batch', '-']
  execFileSync('nsenter', enter, { input: `${lines}\n`, stdio: ['pipe', 'ignore', 'inherit'] })
  return node
}

const portOf = ({ index }: Pick<Node, 'index'>): string => `port${index}`
const keyOf = (a: string, b: string): string => [a, b].toSorted().join(' ')

function ip(...lines: string[]): void {
  execFileSync('ip', ['-batch', '-'], {
    input: `${lines.join('\n')}\n`,
    stdio: ['pipe', 'ignore', 'inherit'],
  })
}
