// `nearcast lab`: a small Internet on one machine, to see the whole of Nearcast at work.
//
// A real core and real agents run as processes on loopback addresses; only the wires between them are
// ours (network.ts), which hold each packet for as long as it would be under way between two cities
// (internet.ts). Clients in other cities ask; the agents measure them; then the member nearest to one
// dies. Invariant: the core learns of distances by what the agents measured and by nothing else: no
// agent is told where it is and there is no geography. Whatever ends the lab, nothing of it stays.

import { setTimeout as sleep } from 'node:timers/promises'
import { watchDeath } from './death.ts'
import { joinAll, measureAll, placeAll } from './growth.ts'
import { errorOfCoordinates, judge } from './judgement.ts'
import type { Say } from './progress.ts'
import { formatOutcomes, formatSummary, type LabReport } from './report.ts'
import { openStage, type Stage } from './stage.ts'
import { MAX_CLIENTS, MAX_HOSTS } from './world.ts'

interface LabOptions {
  /** Hosts with agents, 2..MAX_HOSTS. */
  readonly hosts: number
  /** Which Internet: the same seed gives the same cities and round trips. */
  readonly seed: number
  /** Print the report as JSON, and nothing else. */
  readonly json: boolean
  /** Clients, 1..MAX_CLIENTS; 12 where it is not said. */
  readonly clients?: number
  /** Keep the agents from measuring clients, and end before the kill: shows what choices are worth then. */
  readonly withholdMeasurements?: boolean
  /** Ends the lab early, as Ctrl-C does. */
  readonly signal?: AbortSignal
  /** Takes a line, without its end. */
  readonly out: (line: string) => void
}

/** From the end of a process's last connection to the end of the process. */
const ENDING_MS = 300

/** Runs the lab. Resolves to the exit code: 0 where all of it worked, else 1, and the reason was told. */
export async function runLab(options: LabOptions): Promise<number> {
  const interruption = new AbortController()
  const interrupt = (signal: string): void => interruption.abort(new Error(`ended by ${signal}`))
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  for (const name of signals) process.on(name, interrupt)
  const signal = AbortSignal.any([interruption.signal, ...(options.signal ? [options.signal] : [])])
  try {
    checkCount('hosts', options.hosts, 2, MAX_HOSTS)
    checkCount('clients', options.clients ?? 12, 1, MAX_CLIENTS)
    return await play(options, signal)
  } catch (error) {
    const reason = (signal.aborted ? (signal.reason as Error) : (error as Error)).message
    options.out(options.json ? JSON.stringify({ error: reason }) : `The lab ended early: ${reason}`)
    return 1
  } finally {
    for (const name of signals) process.off(name, interrupt)
  }
}

function checkCount(name: string, value: number, min: number, max: number): void {
  if (Number.isInteger(value) && value >= min && value <= max) return
  throw new Error(`${name} is ${value}: expected a whole number, ${min} to ${max}`)
}

async function play(options: LabOptions, signal: AbortSignal): Promise<number> {
  const { hosts, seed, json, out, clients = 12, withholdMeasurements = false } = options
  const startedMs = performance.now()
  const say = (text: string): void => {
    if (!json) out(`${secondsSince(startedMs).toFixed(1).padStart(6)} s  ${text}`)
  }
  say(`${hosts} hosts and ${clients} clients in cities of the world, seed ${seed}; starting a core`)
  const stage = await openStage({ hosts, clients, seed, withholdMeasurements, signal })
  let found: Omit<LabReport, 'tookSec'>
  try {
    say(`core is ready: ${stage.api.url}, DNS ${stage.dns.address} port ${stage.dns.port}`)
    found = await perform(stage, options, say, signal)
  } catch (error) {
    // A process that ended is the reason for whatever else failed; its sockets go before it does.
    await sleep(ENDING_MS)
    stage.checkProcesses()
    throw error
  } finally {
    await stage.close()
    say('all processes ended, nothing is left of them')
  }
  const report = { ...found, tookSec: secondsSince(startedMs) }
  out(json ? JSON.stringify(report, null, 2) : `\n${formatSummary(report)}`)
  return worked(report) ? 0 : 1
}

/** The play itself: the agents join, the clients are measured and ask, one member dies. */
async function perform(
  stage: Stage,
  { hosts, seed, json, out, withholdMeasurements: withheld = false }: LabOptions,
  say: Say,
  signal: AbortSignal,
): Promise<Omit<LabReport, 'tookSec'>> {
  const agents = await joinAll(stage, say, signal)
  await placeAll(stage, say, signal)
  if (!withheld) await measureAll(stage, say, signal)
  const outcomes = await Promise.all(stage.world.clients.map((client) => judge(stage, client)))
  const coordinateError = await errorOfCoordinates(stage)
  say(`coordinates of hosts are off by ${Math.round(100 * coordinateError)}% of the round trip (median)`)
  if (!json) {
    for (const line of ['', ...formatOutcomes(outcomes, process.stdout.columns ?? null), '']) out(line)
  }
  const death = withheld ? null : await watchDeath(stage, agents, outcomes, say, signal)
  const { lateness } = stage.network
  const [median, p99] = [lateness.medianMs, lateness.p99Ms].map((ms) => ms.toFixed(2))
  say(`the network held ${lateness.packets} packets, ${median} ms too long (median), ${p99} ms (p99)`)
  return { hosts, seed, withheld, outcomes, coordinateError, death, lateness }
}

function secondsSince(startedMs: number): number {
  return (performance.now() - startedMs) / 1000
}

function worked({ death, withheld }: LabReport): boolean {
  if (death === null) return withheld
  return death.dnsSec !== null && death.httpSec !== null && death.wronged.length === 0
}
