// What the mesh keeps of one pair whose RTTs were really measured over time: idle, behind a full buffer, and
// where the way changed. Each trace is heard by HostMesh as that pair's echoes would be: three pings, of which
// the least counts, each 15 s; of a trace with a ping each few minutes, each ping.
//
// Judged against the pair's own idle level: a low percentile of the pings between two labelled changes (of all
// where nothing is labelled).

import { HostMesh } from '../../core-node/measuring/mesh.ts'
import { distanceMs, euclideanMs } from '../../resolver/coordinate.ts'
import type { Coordinate, Host } from '../../resolver/directory.ts'
import { numberOf } from './accuracy-arguments.ts'
import { readText } from './accuracy-matrix.ts'
import { mean, quantile } from './accuracy-score.ts'
import { hostOf, type Rng } from './accuracy-world.ts'

/** As orders of echoes have it. */
const ECHO_EVERY_MS = 15_000
const PINGS_AN_ECHO = 3
/** A reply that comes later than this is a loss, ms; in labelled series, so the source says, from 1000 ms. */
const LOST_MS = 1500
const LOST_LABELLED_MS = 1000
/** Between two pings where the file has no time: 10 a second. */
const STEP_MS = 100
/** Echoes of a dense trace could have come at any moment, so it is replayed from so many, a second apart. */
const PHASES = 15
const PHASE_MS = 1000

const IDLE_SHARE = 0.1
const WRONG_MS = 10
const WRONG_SHARE = 0.1
/** Changes that a kept RTT is to follow: those by more than chance makes of a level, that lasted for the mesh's window. */
const CHANGE_MS = 1
const CHANGE_SHARE = 0.05
const CHANGE_ECHOES = 8
/** Echoes after which a coordinate counts as settled. */
const SETTLED_ECHOES = 20

interface Echo {
  readonly atMs: number
  /** NaN: lost. */
  readonly rttMs: number
}

interface Ping extends Echo {
  /** The way changed here, as somebody saw who looked at it. */
  readonly isChange: boolean
}

interface Segment {
  readonly fromMs: number
  readonly idleMs: number
}

/** One moment at which an echo was heard. */
interface Moment {
  readonly atMs: number
  readonly heardMs: number
  readonly keptMs: number
  readonly segment: number
}

interface Follow {
  readonly isUp: boolean
  /** Until what is kept was nearer to the new level than to the old; NaN: never before the next change. */
  readonly minutes: number
  readonly echoes: number
}

interface Replay {
  readonly moments: readonly Moment[]
  readonly segments: readonly Segment[]
  readonly follows: readonly Follow[]
  readonly coordinateErrors: readonly number[]
  /** All steps of the settled coordinate together, a minute: no less than its drift. */
  readonly wanderedMsPerMinute: number
  readonly told: number
}

/** Replays all traces of a file. Throws an Error that says what is wrong with it. */
export function replaySeries(file: string, rng: Rng): Record<string, unknown> {
  const { traces, isLabelled } = readSeries(file)
  const all = traces.flatMap((pings) => {
    const gapMs = (pings.at(-1)!.atMs - pings[0]!.atMs) / Math.max(1, pings.length - 1)
    if (gapMs * PINGS_AN_ECHO > ECHO_EVERY_MS) return [replay(pings, pings, rng)]
    return Array.from({ length: PHASES }, (_, i) => replay(pings, echoesFrom(pings, i * PHASE_MS), rng))
  })
  const replays = all.filter(({ moments }) => moments.length > 0)
  const moments = replays.flatMap(({ moments, segments }) =>
    moments.map((moment) => ({ ...moment, idleMs: segments[moment.segment]!.idleMs })),
  )
  if (moments.length === 0) throw new Error(`${file}: expected RTTs, found only losses`)
  const minutes = replays.reduce((sum, r) => sum + (r.moments.at(-1)!.atMs - r.moments[0]!.atMs) / 60_000, 0)
  const offsMs = moments.map((m) => Math.abs(m.keptMs - m.idleMs))
  const follows = replays.flatMap((r) => r.follows)
  return {
    series: file,
    traces: traces.length,
    echoes: moments.length,
    idleMs: round(
      quantile(
        replays.flatMap((r) => r.segments.map(({ idleMs }) => idleMs)),
        0.5,
      ),
    ),
    keptFromIdleMs: {
      median: round(quantile(offsMs, 0.5)),
      p90: round(quantile(offsMs, 0.9)),
      p99: round(quantile(offsMs, 0.99)),
      mean: round(mean(offsMs)),
    },
    keptWrong: wrongness(moments.map((m) => [m.keptMs, m.idleMs])),
    heardWrong: wrongness(moments.map((m) => [m.heardMs, m.idleMs])),
    toldPerHour: round((60 * replays.reduce((sum, r) => sum + r.told, 0)) / minutes),
    coordinateError: spread(replays.flatMap((r) => r.coordinateErrors)),
    wanderedMsPerMinute: spread(replays.map((r) => r.wanderedMsPerMinute).filter(Number.isFinite)),
    ...(isLabelled ? { changes: followed(replays, follows) } : {}),
  }
}

/** The least of three pings each 15 s. */
function echoesFrom(pings: readonly Ping[], phaseMs: number): Echo[] {
  const echoes: Echo[] = []
  let dueMs = pings[0]!.atMs + phaseMs
  for (let i = 0; i + PINGS_AN_ECHO <= pings.length; i++) {
    if (pings[i]!.atMs < dueMs) continue
    const rttsMs = pings.slice(i, i + PINGS_AN_ECHO).flatMap((p) => (Number.isNaN(p.rttMs) ? [] : [p.rttMs]))
    const rttMs = rttsMs.length === 0 ? Number.NaN : Math.min(...rttsMs)
    echoes.push({ atMs: pings[i]!.atMs, rttMs })
    dueMs += ECHO_EVERY_MS
  }
  return echoes
}

/** Two hosts that hear each other so; what the first keeps of the second is noted. */
function replay(pings: readonly Ping[], echoes: readonly Echo[], rng: Rng): Replay {
  const segments = segmentsOf(pings)
  const mesh = new HostMesh()
  let [near, far]: [Host, Host] = [hostOf(0, null), hostOf(1, null)]
  const moments: Moment[] = []
  const coordinateErrors: number[] = []
  let told = 0
  let wanderedMs = 0
  let segment = 0
  for (const { atMs, rttMs } of echoes) {
    while (segment + 1 < segments.length && segments[segment + 1]!.fromMs <= atMs) segment++
    if (Number.isNaN(rttMs)) continue
    const before = near.coordinate
    const { host } = mesh.hear(near, far, rttMs, rng)
    if (host !== near) told++
    near = host
    far = mesh.hear(far, near, rttMs, rng).host
    moments.push({ atMs, heardMs: rttMs, keptMs: near.meshMs![far.name]!, segment })
    if (moments.length <= SETTLED_ECHOES) continue
    wanderedMs += euclideanMs(before!.vec, near.coordinate!.vec)
    coordinateErrors.push(missOf(near.coordinate!, far.coordinate!, segments[segment]!.idleMs))
  }
  const settled = moments.slice(SETTLED_ECHOES)
  const minutes = settled.length < 2 ? Number.NaN : (settled.at(-1)!.atMs - settled[0]!.atMs) / 60_000
  const follows = followsOf(moments, segments)
  return { moments, segments, follows, coordinateErrors, wanderedMsPerMinute: wanderedMs / minutes, told }
}

function missOf(a: Coordinate, b: Coordinate, idleMs: number): number {
  return Math.abs(distanceMs(a, b) - idleMs) / idleMs
}

/** From one labelled change to the next, with the level of each; where all was lost there is none. */
function segmentsOf(pings: readonly Ping[]): Segment[] {
  const starts = pings.flatMap(({ isChange }, i) => (i === 0 || isChange ? [i] : []))
  return starts.flatMap((start, n) => {
    const rttsMs = pings.slice(start, starts[n + 1]).flatMap((p) => (Number.isNaN(p.rttMs) ? [] : [p.rttMs]))
    return rttsMs.length === 0 ? [] : [{ fromMs: pings[start]!.atMs, idleMs: quantile(rttsMs, IDLE_SHARE) }]
  })
}

function followsOf(moments: readonly Moment[], segments: readonly Segment[]): Follow[] {
  const bySegment = Map.groupBy(moments, (moment) => moment.segment)
  return segments.flatMap(({ idleMs, fromMs }, n) => {
    const oldMs = segments[n - 1]?.idleMs ?? idleMs
    const heard = bySegment.get(n) ?? []
    const shiftMs = Math.abs(idleMs - oldMs)
    if (shiftMs <= Math.max(CHANGE_MS, CHANGE_SHARE * oldMs) || heard.length < CHANGE_ECHOES) return []
    const at = heard.findIndex(({ keptMs }) => Math.abs(keptMs - idleMs) < Math.abs(keptMs - oldMs))
    const minutes = at < 0 ? Number.NaN : (heard[at]!.atMs - fromMs) / 60_000
    return [{ isUp: idleMs > oldMs, minutes, echoes: at + 1 }]
  })
}

function followed(replays: readonly Replay[], follows: readonly Follow[]): Record<string, unknown> {
  const direction = (isUp: boolean) => {
    const all = follows.filter((follow) => follow.isUp === isUp)
    const done = all.filter(({ minutes }) => !Number.isNaN(minutes))
    return {
      count: all.length,
      followed: done.length,
      echoes: spread(done.map(({ echoes }) => echoes)),
      minutes: spread(done.map(({ minutes }) => minutes)),
    }
  }
  const labelled = replays.reduce((sum, { segments }) => sum + segments.length - 1, 0)
  return { labelled, up: direction(true), down: direction(false) }
}

function wrongness(pairs: readonly (readonly [number, number])[]): {
  over10Ms: number
  over10Percent: number
} {
  const share = (isWrong: (offMs: number, idleMs: number) => boolean) =>
    round(mean(pairs.map(([ms, idleMs]) => Number(isWrong(Math.abs(ms - idleMs), idleMs)))), 4)
  return {
    over10Ms: share((offMs) => offMs > WRONG_MS),
    over10Percent: share((offMs, idleMs) => offMs > WRONG_SHARE * idleMs),
  }
}

function spread(numbers: readonly number[]): { median: number; p90: number } | null {
  if (numbers.length === 0) return null
  return { median: round(quantile(numbers, 0.5), 3), p90: round(quantile(numbers, 0.9), 3) }
}

/** Columns by name: rtt_ms; trace, epoch or t_unix (s), seq and cp where there are any. */
function readSeries(file: string): { traces: Ping[][]; isLabelled: boolean } {
  const [header = '', ...lines] = readText(file).trim().split('\n')
  const columns = header.split(',').map((name) => name.trim())
  const [rtt, label, trace] = [columns.indexOf('rtt_ms'), columns.indexOf('cp'), columns.indexOf('trace')]
  const [time, seq] = [columns.findIndex((c) => c === 'epoch' || c === 't_unix'), columns.indexOf('seq')]
  if (rtt < 0 || (time < 0 && seq < 0))
    throw new Error(
      `${file}: expected a header with rtt_ms and one of epoch, t_unix and seq, found ${header}`,
    )
  const lostMs = label < 0 ? LOST_MS : LOST_LABELLED_MS
  const traces = new Map<string, Ping[]>()
  for (const [i, line] of lines.entries()) {
    const cells = line.split(',')
    const timeSec = numberOf(cells[time] ?? '')
    const atMs = Number.isNaN(timeSec) ? numberOf(cells[seq] ?? '') * STEP_MS : timeSec * 1000
    const rttMs = numberOf(cells[rtt] ?? '')
    if (Number.isNaN(atMs) || Number.isNaN(rttMs))
      throw new Error(`${file}: line ${i + 2}: expected a time and an RTT, found ${line}`)
    const name = cells[trace] ?? ''
    const pings = traces.get(name) ?? []
    traces.set(name, pings)
    const isLost = rttMs < 0 || rttMs >= lostMs
    pings.push({ atMs, rttMs: isLost ? Number.NaN : rttMs, isChange: cells[label]?.trim() === '1' })
  }
  if (traces.size === 0) throw new Error(`${file}: expected lines after the header, found none`)
  const sorted = [...traces.values()].map((pings) => pings.sort((a, b) => a.atMs - b.atMs))
  return { traces: sorted, isLabelled: label >= 0 }
}

function round(x: number, digits = 2): number {
  return Number(x.toFixed(digits))
}
