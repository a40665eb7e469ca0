// The figures of a run of the chaos bench: how near it came to what is promised. Pure.

import type { History } from './chaos-history.ts'

export interface Measures {
  readonly faults: Readonly<Record<string, number>>
  readonly answers: number
  readonly unanswered: number
  readonly writes: Readonly<Record<'made' | 'refused' | 'unknown', number>>
  readonly deaths: number
  /** Longest time after its death that an answer still named a member, ms; and the one in the middle of all deaths. */
  readonly namedAfterDeathMs: { readonly median: number; readonly longest: number }
  /** Changes of home, and how long the cores took to agree in the end, ms. */
  readonly moves: number
  readonly equalAfterMs: number | null
  readonly wholeAfterMs: number | null
}

export function measure(history: History): Measures {
  const { answers, writes, ending, lives, agents, homings, log } = history
  const count = (outcome: string): number => writes.filter((write) => write.outcome === outcome).length
  const deaths = lives.filter(({ node, how }) => agents.includes(node) && how === 'killed')
  const lastNamedMs = deaths
    .map(({ node, endedMs }) => {
      const backMs =
        lives.find((life) => life.node === node && life.startedMs > endedMs!)?.startedMs ?? Infinity
      const naming = answers.filter(
        ({ named, askedMs }) => named?.includes(node) && askedMs > endedMs! && askedMs < backMs,
      )
      return Math.max(0, ...naming.map(({ askedMs }) => askedMs - endedMs!))
    })
    .toSorted((a, b) => a - b)
  const faults: Record<string, number> = {}
  for (const { what } of log) {
    const kind = /^(kill -9|restart|cut .* off|cut|the clock|.* farther)/.exec(what)?.[1]
    if (kind === undefined) continue
    const name = kind.includes('off')
      ? 'cut off'
      : kind.includes('farther')
        ? 'slow'
        : kind.replace('the ', '')
    faults[name] = (faults[name] ?? 0) + 1
  }
  return {
    faults,
    answers: answers.length,
    unanswered: answers.filter(({ named }) => named === null).length,
    writes: { made: count('made'), refused: count('refused'), unknown: count('unknown') },
    deaths: deaths.length,
    namedAfterDeathMs: {
      median: lastNamedMs[Math.floor(lastNamedMs.length / 2)] ?? 0,
      longest: lastNamedMs.at(-1) ?? 0,
    },
    moves: homings.filter(({ agent, core }, i) => {
      const before = homings.slice(0, i).findLast((it) => it.agent === agent)
      return before !== undefined && before.core !== core
    }).length,
    equalAfterMs: ending.equalAfterMs,
    wholeAfterMs: ending.wholeAfterMs,
  }
}
