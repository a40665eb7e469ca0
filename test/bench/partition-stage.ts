// Runs inside a network namespace of its own: a router, a core on it, and two islands in namespaces of their
// own, each at the end of a cable. Plays the partition through and tells of it as lines of JSON.
//
// The plan is its argument. It ends with stdin, and with it all that it started: it is the first process
// of a PID namespace.

import { type ChildProcessByStdio, execFileSync, spawn } from 'node:child_process'
import { readlinkSync, writeFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { api, type CoreProcess, startCore } from '../support/processes.ts'
import { isWhole, ringsOf } from './overlay-rings.ts'
import type { Choice } from './overlay-stage.ts'
import { openDoor } from './partition-door.ts'
import {
  type IslandPlan,
  type IslandView,
  type OverlayState,
  type OverlayStory,
  type PartitionPlan,
  type PartitionReport,
  rttBetweenPlaces,
  type StageLine,
} from './partition-plan.ts'

/** Near members are fewer than an island has hosts, or near ones alone would name the others, too. */
const MEMBERS = 5
const CHOICES: readonly Choice[] = [
  { service: 'near-and-random', near: MEMBERS - 2, random: 2 },
  { service: 'near-only', near: MEMBERS, random: 0 },
]
const SERVICES = CHOICES.map(({ service }) => service)
const LEASE_SEC = 3
const MEET_MS = 500
const CORE_ADDRESS = '10.77.0.1'
const CORE_DOOR = '10.77.0.2'
const CORE_HTTP_PORT = 8053
const CORE_ECHO_PORT = 8054
/** How far the islands are apart: farther than a busy machine makes hosts of one look. */
const APART_MS = 300
/** The core lies between them, or on the first. */
const PLACES = {
  between: { 0: APART_MS / 2, 1: 0, 2: APART_MS },
  island: { 0: 0, 1: 0, 2: APART_MS },
}
const READY_WITHIN_MS = 60_000
/** Two are to be enough; the third shows that who is apart stays so. */
const WATCHED_PERIODS = 3
const LOOK_EVERY_MS = 50
const ISLAND = fileURLToPath(new URL('partition-island.ts', import.meta.url))

interface Island {
  readonly names: readonly string[]
  readonly process: ChildProcessByStdio<Writable, Readable, null>
  view: IslandView | null
}

const tell = (line: StageLine): void => console.log(JSON.stringify(line))
const ip = (...lines: string[]): void => {
  execFileSync('ip', ['-batch', '-'], {
    input: `${lines.join('\n')}\n`,
    stdio: ['pipe', 'ignore', 'inherit'],
  })
}

async function openCore(places: IslandPlan['places']): Promise<CoreProcess> {
  const echo = { address: CORE_ADDRESS, port: CORE_ECHO_PORT }
  const rttMs = (from: string): number => rttBetweenPlaces(places, from, CORE_DOOR)
  await openDoor({ address: CORE_DOOR, port: CORE_ECHO_PORT, echo, rttMs })
  const core = await startCore({
    httpPort: CORE_HTTP_PORT,
    flags: [
      ...['--http', `0.0.0.0:${CORE_HTTP_PORT}`, '--advertise', CORE_DOOR],
      ...['--echo', `${CORE_ADDRESS}:${CORE_ECHO_PORT}`, '--probe-clients', 'off'],
      ...['--requests-per-minute', '1000000'],
    ],
  })
  for (const service of SERVICES) await api(core, 'PUT', `services/${service}`, {})
  return core
}

/** Starts the process of an island in a namespace of its own, and lays the cable to it. */
async function openIsland(
  number: number,
  plan: Omit<IslandPlan, 'hosts' | 'network'>,
  hosts: number,
): Promise<Island> {
  const args = ['--net', process.execPath, ...process.execArgv, ISLAND]
  const child = spawn('unshare', args, { stdio: ['pipe', 'pipe', 'inherit'] })
  const own = readlinkSync('/proc/self/ns/net')
  while (readlinkSync(`/proc/${child.pid}/ns/net`) === own) await sleep(5)
  const port = `port${number}`
  ip(
    `link add ${port} type veth peer name cable netns ${child.pid}`,
    `addr add 10.77.${number}.254/24 dev ${port}`,
    `link set ${port} up`,
  )
  const names = Array.from({ length: hosts }, (_, i) => `${number === 1 ? 'west' : 'east'}-${i + 1}`)
  const island: Island = { names, process: child, view: null }
  createInterface({ input: child.stdout }).on('line', (line) => {
    island.view = JSON.parse(line) as IslandView
  })
  child.once('exit', () => process.exit(1))
  child.stdin.write(`${JSON.stringify({ ...plan, hosts: names, network: `10.77.${number}` })}\n`)
  return island
}

class Stage {
  readonly #islands: readonly Island[]
  readonly #startedMs = performance.now()

  constructor(islands: readonly Island[]) {
    this.#islands = islands
  }

  say(says: string): void {
    const sec = ((performance.now() - this.#startedMs) / 1000).toFixed(1)
    tell({ says: `${sec.padStart(6)} s  ${says}` })
  }

  /** Of one island, or of all. */
  successors(service: string, islands = this.#islands): Map<string, string | null> {
    return new Map(islands.flatMap(({ view }) => Object.entries(view?.successors[service] ?? {})))
  }

  rings(service: string): number[] {
    return ringsOf(this.successors(service)).map((ring) => ring.length)
  }

  /** Of each overlay, now. */
  states(): OverlayState[] {
    return SERVICES.map((service) => ({
      rings: this.rings(service),
      linksAbroad: this.linksAbroad(service),
    }))
  }

  linksAbroad(service: string): number {
    return this.#islands.reduce((sum, { view }) => sum + (view?.linksAbroad[service] ?? 0), 0)
  }

  /** All hosts run, and Nearcast knows what is near. */
  get isSettled(): boolean {
    return this.#islands.every(({ view, names }) => view?.homely === names.length)
  }

  isWhole(service: string): boolean {
    const all = this.#islands.reduce((sum, { names }) => sum + names.length, 0)
    return this.successors(service).size === all && isWhole(this.successors(service))
  }

  /** Each island is a ring by itself, and nobody has a link to the other. */
  isApart(service: string): boolean {
    const apart = this.#islands.every((island) => isWhole(this.successors(service, [island])))
    return apart && this.linksAbroad(service) === 0
  }

  /** Resolves to how long it took, ms. Throws where it does not come to hold. */
  async until(what: string, holds: () => boolean | Promise<boolean>): Promise<number> {
    const startedMs = performance.now()
    while (!(await holds())) {
      if (performance.now() - startedMs > READY_WITHIN_MS) {
        const rings = SERVICES.map((service) => `${service}: ${this.rings(service)}`).join('; ')
        throw new Error(`not within ${READY_WITHIN_MS / 1000} s: ${what} (${rings})`)
      }
      await sleep(LOOK_EVERY_MS)
    }
    return performance.now() - startedMs
  }
}

async function liveMembers(core: CoreProcess): Promise<number> {
  const reply = await api(core, 'GET', `services/${CHOICES[0]!.service}/members`)
  const { members } = (await reply.json()) as { members: { state: string }[] }
  return members.filter(({ state }) => state === 'live').length
}

/**
 * The router drops what goes from one island to the other, or all that comes from and goes to the second,
 * without a word: nobody is told that a way is cut.
 */
function cutNetwork({ cut }: PartitionPlan, isCut: boolean): void {
  const dropped = {
    between: ['iif port1 to 10.77.2.0/24', 'iif port2 to 10.77.1.0/24'],
    island: ['iif port2', 'to 10.77.2.0/24'],
  }
  ip(...dropped[cut].map((what, i) => `rule ${isCut ? 'add' : 'del'} pref ${i + 1} ${what} blackhole`))
}

function setUpRouter(): void {
  ip('link set lo up', `addr add ${CORE_ADDRESS}/32 dev lo`, `addr add ${CORE_DOOR}/32 dev lo`)
  writeFileSync('/proc/sys/net/ipv4/ip_forward', '1')
  // What is for the core itself goes by a rule, too, after those that cut.
  ip('rule add pref 100 lookup local', 'rule del pref 0')
}

/** A core, and two islands whose hosts start. */
async function setUp(plan: PartitionPlan): Promise<{ core: CoreProcess; stage: Stage }> {
  const places = PLACES[plan.cut]
  setUpRouter()
  const core = await openCore(places)
  const reply = await api(core, 'POST', 'tokens', { services: SERVICES })
  const { secret: token } = (await reply.json()) as { secret: string }
  const common = {
    ...{ core: `http://${CORE_ADDRESS}:${CORE_HTTP_PORT}`, token, places, choices: CHOICES },
    ...{ leaseSec: LEASE_SEC, discoverMs: 1000 * plan.discoverSec, meetMs: MEET_MS },
  }
  const islands = await Promise.all(plan.islands.map((hosts, i) => openIsland(i + 1, common, hosts)))
  return { core, stage: new Stage(islands) }
}

/** Until all that a cut brings about has come about. Resolves to how long forgetting took, ms. */
async function stayApart(core: CoreProcess, stage: Stage, plan: PartitionPlan): Promise<number> {
  const cutMs = performance.now()
  const forgottenMs = await stage.until('two rings', () => SERVICES.every((one) => stage.isApart(one)))
  stage.say('the islands have forgotten each other')
  const [first, second] = plan.islands
  const live = plan.cut === 'between' ? first + second : first
  await stage.until(`the core counts ${live} live members`, async () => (await liveMembers(core)) === live)
  await sleep(Math.max(0, 1000 * plan.cutSec - (performance.now() - cutMs)))
  // In the meantime the core learned nothing wrong of who is near: not knowing is not what is tried here.
  if (plan.cut === 'between') await stage.until('near ones are known', () => stage.isSettled)
  return forgottenMs
}

/** When each overlay became one ring, seconds from now; those that did not are not in it. */
async function watchHealing(stage: Stage, watchedMs: number): Promise<Map<string, number>> {
  const startedMs = performance.now()
  const wholeSec = new Map<string, number>()
  while (performance.now() - startedMs < watchedMs) {
    for (const service of SERVICES) {
      if (wholeSec.has(service) || !stage.isWhole(service)) continue
      wholeSec.set(service, (performance.now() - startedMs) / 1000)
      stage.say(`${service} is one ring`)
    }
    await sleep(LOOK_EVERY_MS)
  }
  return wholeSec
}

async function play(plan: PartitionPlan): Promise<PartitionReport> {
  const { core, stage } = await setUp(plan)
  const { islands, discoverSec, cut } = plan
  const both = islands.join(' and ')
  stage.say(`${both} hosts on two islands ${APART_MS} ms apart; a discovery every ${discoverSec} s`)
  await stage.until('one ring', () => stage.isSettled && SERVICES.every((one) => stage.isWhole(one)))
  stage.say('both overlays are one ring each, and Nearcast knows who is near')
  const before = stage.states()

  cutNetwork(plan, true)
  const cutMs = performance.now()
  stage.say(cut === 'between' ? 'cut between the islands' : 'the second island is cut off, from the core too')
  const forgottenMs = await stayApart(core, stage, plan)
  const apart = stage.states()

  cutNetwork(plan, false)
  const mendedMs = performance.now()
  stage.say('the cut is mended')
  const watchedSec = WATCHED_PERIODS * discoverSec
  const wholeSec = await watchHealing(stage, 1000 * watchedSec)
  const atEnd = stage.states()
  const overlays = CHOICES.map((choice, i): OverlayStory => {
    const wholeAfterSec = wholeSec.get(choice.service) ?? null
    return { ...choice, before: before[i]!, apart: apart[i]!, atEnd: atEnd[i]!, wholeAfterSec }
  })
  const cutSec = (mendedMs - cutMs) / 1000
  return { ...plan, forgottenAfterSec: forgottenMs / 1000, cutSec, watchedSec, overlays }
}

process.stdin.on('end', () => process.exit(1)).resume()
tell({ report: await play(JSON.parse(process.argv[2]!) as PartitionPlan) })
process.exit(0)
