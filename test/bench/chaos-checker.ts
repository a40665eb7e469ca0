// The judge of a run of the chaos bench: a history in, every broken promise out, each with its evidence.
//
// Pure. The promises are those of docs/cluster.md, with their numbers: what was acknowledged is there and nothing
// else; the dead leave the answers, the living do not; a core that runs answers; all cores agree in the end.

import type { Answer, History, Life, Write } from './chaos-history.ts'
import { isUp } from './chaos-history.ts'
import { cutOffSpans, failoverSpans, isWithin, overlapMs, strandedSpans, unwellSpans } from './chaos-reach.ts'

export type Rule =
  | 'a write that was acknowledged is there'
  | 'a write that was refused was not made'
  | 'nothing is there that nobody wrote'
  | 'a dead member is named no more'
  | 'a live member is not out for more than a lease'
  | 'a core that runs answers'
  | 'some core answers'
  | 'all cores agree after healing'

export interface Violation {
  readonly rule: Rule
  readonly atMs: number
  readonly evidence: string
}

export interface Limits {
  /** A dead member may be named for so long ... */
  readonly deadMs: number
  /** ... or, where its home died within a lease of it, for so long. */
  readonly deadWithHomeMs: number
  /** ... and longer where a server of the store was lost meanwhile: an election, or a call that is given up. */
  readonly failoverMs: number
  /** A live, reachable one may be missing for so long. */
  readonly outMs: number
  /** All cores are equal so long after healing. */
  readonly equalMs: number
}

export const LEASE_MS = 8000
export const PROMISED: Limits = {
  deadMs: 10_000,
  deadWithHomeMs: 20_000,
  failoverMs: 3000,
  outMs: LEASE_MS,
  equalMs: 5000,
}
/** What a core that was away has to hear of when it is back, before its answers count as whole. */
const CATCH_UP_MS = 5000

export function check(history: History, limits: Limits): Violation[] {
  const found = [
    ...checkWrites(history),
    ...checkDead(history, limits),
    ...checkLiving(history, limits),
    ...checkAnswered(history),
    ...checkEqual(history, limits),
  ]
  return found.toSorted((a, b) => a.atMs - b.atMs)
}

// ---- writes

function checkWrites({ writes, ending }: History): Violation[] {
  const byKey = Map.groupBy(writes, ({ key }) => key)
  const strangers = Object.entries(ending.held).filter(([key]) => !byKey.has(key))
  return [
    ...[...byKey].flatMap(([key, ofKey]) => checkKey(key, ofKey, ending.held[key] ?? null)),
    ...strangers.map(([key, value]): Violation => {
      const evidence = `${key} is ${value}, and nobody wrote it`
      return { rule: 'nothing is there that nobody wrote', atMs: ending.healedMs, evidence }
    }),
  ]
}

/** What is held of one thing must be what a write left there that no acknowledged one came after. */
function checkKey(key: string, writes: readonly Write[], held: string | null): Violation[] {
  const made = writes.filter(({ outcome }) => outcome === 'made')
  const last = made.toSorted((a, b) => a.atMs - b.atMs).at(-1)
  const sources = writes.filter(({ value }) => value === held)
  const isThere = (write: Write): boolean =>
    write.outcome !== 'refused' &&
    // An answer may be lost and the change made later: only one that was acknowledged is over.
    (write.outcome === 'unknown' || !made.some((later) => later.askedMs > write.atMs))
  if (sources.some(isThere)) return []
  // There was nothing before the first write.
  if (held === null && made.length === 0) return []
  if (sources.length === 0 && held !== null) {
    const evidence = `${key} is ${held}, and nobody wrote that`
    return [{ rule: 'nothing is there that nobody wrote', atMs: last?.atMs ?? 0, evidence }]
  }
  const refused = sources.find(({ outcome }) => outcome === 'refused')
  if (refused !== undefined && !sources.some(({ outcome }) => outcome !== 'refused')) {
    const evidence = `${key} is ${held}, which ${refused.core} refused at ${refused.atMs.toFixed(0)} ms`
    return [{ rule: 'a write that was refused was not made', atMs: refused.atMs, evidence }]
  }
  const evidence = `${key} is ${held}, but ${last!.core} acknowledged ${last!.value} at ${last!.atMs.toFixed(0)} ms`
  return [{ rule: 'a write that was acknowledged is there', atMs: last!.atMs, evidence }]
}

// ---- the dead

interface Death {
  readonly agent: string
  readonly diedMs: number
  /** When it was started again. */
  readonly backMs: number
}

function checkDead(history: History, limits: Limits): Violation[] {
  const cutOff = new Map(history.cores.map((core) => [core, cutOffSpans(history, core)]))
  const failovers = failoverSpans(history, limits.failoverMs)
  const worst = new Map<string, Violation>()
  for (const death of deathsOf(history)) {
    const homes = homesBefore(history, death)
    const limitMs = homes.some((home) => diedBeside(history, home, death.diedMs))
      ? limits.deadWithHomeMs
      : limits.deadMs
    for (const answer of history.answers) {
      if (answer.core === null || !answer.named?.includes(death.agent)) continue
      // Made at any moment between the two: sent again, a question may be answered by a core that started since.
      if (answer.askedMs <= death.diedMs + limitMs || answer.atMs >= death.backMs) continue
      const span = { fromMs: death.diedMs, toMs: answer.askedMs }
      // Who is cut off can't hear of it, and a home that is cut off can't tell.
      const cutsMs = [answer.core, ...homes].map((core) => overlapMs(cutOff.get(core) ?? [], span))
      const cutMs = Math.max(...cutsMs) + overlapMs(failovers, span)
      if (span.toMs - span.fromMs <= limitMs + cutMs) continue
      const evidence = `${answer.core} names ${death.agent} (${answer.via}, ${answer.question}) ${seconds(span.toMs - span.fromMs)} s after it died at ${death.diedMs.toFixed(0)} ms; its home was ${homes.join(' or ')}; ${limitMs / 1000} s are allowed and ${seconds(cutMs)} s of cuts and of elections`
      // The last such answer tells how long it went on.
      worst.set(`${answer.core} ${death.agent} ${death.diedMs}`, {
        rule: 'a dead member is named no more',
        atMs: answer.askedMs,
        evidence,
      })
    }
  }
  return [...worst.values()]
}

function deathsOf({ lives, agents }: History): Death[] {
  return agents.flatMap((agent) => {
    const own = lives.filter(({ node }) => node === agent)
    return own.flatMap((life, i) =>
      life.endedMs === null
        ? []
        : [{ agent, diedMs: life.endedMs, backMs: own[i + 1]?.startedMs ?? Number.POSITIVE_INFINITY }],
    )
  })
}

/** The cores that may have held its lease when it died: joined last, or within two leases. */
function homesBefore({ homings }: History, { agent, diedMs }: Death): string[] {
  const before = homings.filter((it) => it.agent === agent && it.atMs <= diedMs)
  const recent = before.filter(
    (_, i) => i === before.length - 1 || diedMs - before[i + 1]!.atMs <= 2 * LEASE_MS,
  )
  return [...new Set(recent.map(({ core }) => core))]
}

function diedBeside({ lives }: History, core: string, atMs: number): boolean {
  return lives.some(
    ({ node, endedMs }) => node === core && endedMs !== null && Math.abs(endedMs - atMs) <= LEASE_MS,
  )
}

// ---- the living

function checkLiving(history: History, limits: Limits): Violation[] {
  return history.cores.flatMap((core) => {
    const views = history.answers.filter((answer) => answer.core === core && answer.isWhole && answer.named)
    const unwell = unwellSpans(history, core)
    return history.lives
      .filter(({ node, readyMs }) => readyMs !== null && history.agents.includes(node))
      .flatMap((life) => {
        const stranded = strandedSpans(history, life.node)
        const isExcused = (atMs: number): boolean =>
          isWithin(unwell, atMs, CATCH_UP_MS) || isWithin(stranded, atMs, LEASE_MS)
        return checkPresence(core, life, views, isExcused, limits.outMs)
      })
  })
}

function checkPresence(
  core: string,
  life: Life,
  views: readonly Answer[],
  isExcused: (atMs: number) => boolean,
  outMs: number,
): Violation[] {
  const found: Violation[] = []
  let missingSinceMs: number | null = null
  let isTold = false
  for (const { askedMs, atMs, named } of views) {
    if (askedMs < life.readyMs! || atMs > (life.endedMs ?? Number.POSITIVE_INFINITY)) continue
    if (named!.includes(life.node) || isExcused(askedMs)) {
      missingSinceMs = null
      isTold = false
      continue
    }
    missingSinceMs ??= askedMs
    if (isTold || askedMs - missingSinceMs <= outMs) continue
    isTold = true
    const evidence = `${core} leaves out ${life.node} from ${missingSinceMs.toFixed(0)} ms on, though it lives since ${life.readyMs!.toFixed(0)} ms and reaches a core`
    found.push({ rule: 'a live member is not out for more than a lease', atMs: askedMs, evidence })
  }
  return found
}

// ---- answers

function checkAnswered(history: History): Violation[] {
  return history.answers.flatMap((answer): Violation[] => {
    const { core, named, askedMs, atMs, via, question } = answer
    if (named !== null) return []
    const span = { fromMs: askedMs, toMs: atMs }
    const up = history.cores.filter((one) => isUp(history, one, span))
    const evidence = `${via} ${question} asked at ${askedMs.toFixed(0)} ms was not answered until ${atMs.toFixed(0)} ms`
    if (core === null) {
      return up.length === 0
        ? []
        : [{ rule: 'some core answers', atMs: askedMs, evidence: `${evidence} by any core` }]
    }
    return up.includes(core)
      ? [{ rule: 'a core that runs answers', atMs: askedMs, evidence: `${evidence} by ${core}` }]
      : []
  })
}

// ---- agreement

function checkEqual({ ending }: History, { equalMs }: Limits): Violation[] {
  const { equalAfterMs, wholeAfterMs, differences, healedMs } = ending
  if (equalAfterMs !== null && equalAfterMs <= equalMs && wholeAfterMs !== null) return []
  const what = differences.slice(0, 10).join('; ')
  const evidence =
    equalAfterMs === null || wholeAfterMs === null
      ? `they never did: ${what}`
      : `it took ${seconds(equalAfterMs)} s: ${what}`
  return [{ rule: 'all cores agree after healing', atMs: healedMs, evidence }]
}

const seconds = (ms: number): string => (ms / 1000).toFixed(1)
