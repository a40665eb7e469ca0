// Who could reach whom in a run of the chaos bench, worked out from what was done: which cores were in touch with a
// majority of the store, and which agents with such a core.
//
// Pure. Slow ways count as ways. The answers are spans of time in order, so that a rule can subtract them.

import { areCut, type History, isUp, type Span, turningPoints } from './chaos-history.ts'

/** The spans in which `holds` is true, looked at between all turning points. */
function spansWhere(history: History, holds: (atMs: number) => boolean): Span[] {
  const points = [Number.NEGATIVE_INFINITY, ...turningPoints(history), Number.POSITIVE_INFINITY]
  const spans: { fromMs: number; toMs: number }[] = []
  for (let i = 0; i + 1 < points.length; i++) {
    const [fromMs, toMs] = [points[i]!, points[i + 1]!]
    const middleMs = Number.isFinite(fromMs + toMs)
      ? (fromMs + toMs) / 2
      : Number.isFinite(fromMs)
        ? fromMs + 1
        : toMs - 1
    if (!holds(middleMs)) continue
    const last = spans.at(-1)
    if (last?.toMs === fromMs) last.toMs = toMs
    else spans.push({ fromMs, toMs })
  }
  return spans
}

const moment = (atMs: number): Span => ({ fromMs: atMs, toMs: atMs })

/** Whether the store has a majority, and this core a way to one of it that the majority hears. */
function hasStore(history: History, core: string, atMs: number): boolean {
  const { etcds } = history
  const live = etcds.filter((etcd) => isUp(history, etcd, moment(atMs)))
  const majority = Math.floor(etcds.length / 2) + 1
  // With three servers, one that hears another and itself is in the majority.
  const inMajority = live.filter(
    (etcd) =>
      live.filter((other) => other === etcd || !areCut(history, etcd, other, atMs)).length >= majority,
  )
  return inMajority.some((etcd) => !areCut(history, core, etcd, atMs))
}

function isWell(history: History, core: string, atMs: number): boolean {
  return isUp(history, core, moment(atMs)) && (history.etcds.length === 0 || hasStore(history, core, atMs))
}

/** When a core did not run, or was cut off from the store's majority. */
export function unwellSpans(history: History, core: string): Span[] {
  return spansWhere(history, (atMs) => !isWell(history, core, atMs))
}

/** When a core ran and was cut off from the store's majority. */
export function cutOffSpans(history: History, core: string): Span[] {
  return spansWhere(history, (atMs) => isUp(history, core, moment(atMs)) && !isWell(history, core, atMs))
}

/** When an agent could reach no core that was well. */
export function strandedSpans(history: History, agent: string): Span[] {
  return spansWhere(
    history,
    (atMs) =>
      !history.cores.some((core) => isWell(history, core, atMs) && !areCut(history, agent, core, atMs)),
  )
}

/**
 * When writes may wait though the store has its majority: after one of its servers was lost to somebody, until
 * another leads, or until who used that one has noticed and goes to another.
 */
export function failoverSpans({ lives, cuts, etcds }: History, lastsMs: number): Span[] {
  const lostMs = [
    ...lives.filter(({ node }) => etcds.includes(node)).map(({ endedMs }) => endedMs),
    ...cuts.filter(({ a, b }) => etcds.includes(a) || etcds.includes(b)).map(({ fromMs }) => fromMs),
  ].filter((atMs) => atMs !== null)
  const spans: { fromMs: number; toMs: number }[] = []
  for (const fromMs of lostMs.toSorted((a, b) => a - b)) {
    const last = spans.at(-1)
    if (last !== undefined && last.toMs >= fromMs) last.toMs = fromMs + lastsMs
    else spans.push({ fromMs, toMs: fromMs + lastsMs })
  }
  return spans
}

/** How much of a span is in any of the others, ms. */
export function overlapMs(spans: readonly Span[], { fromMs, toMs }: Span): number {
  const lengths = spans.map((span) => Math.max(0, Math.min(span.toMs, toMs) - Math.max(span.fromMs, fromMs)))
  return lengths.reduce((sum, ms) => sum + ms, 0)
}

/** Whether a moment is in one of the spans, or no more than `afterMs` after its end. */
export function isWithin(spans: readonly Span[], atMs: number, afterMs: number): boolean {
  return spans.some(({ fromMs, toMs }) => fromMs <= atMs && atMs <= toMs + afterMs)
}
