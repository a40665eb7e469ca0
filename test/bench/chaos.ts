// `npm run chaos`: three cores, three etcd servers and thirty agents as real processes in network namespaces, to which
// everything happens that a seed draws, while clients ask and writers write; then the judge looks at what was
// promised. `--rolling` does nothing but restart each core in turn, and then nothing at all may fail.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { formatTable } from '../../core-node/cli/table.ts'
import { readCount, readNumber } from './accuracy-arguments.ts'
import { check, LEASE_MS, type Limits, PROMISED, type Violation } from './chaos-checker.ts'
import { type Measures, measure } from './chaos-measures.ts'
import { type Cast, drawPlan, rollingPlan } from './chaos-plan.ts'
import { playChaos, whyNoChaos } from './chaos-run.ts'

const USAGE = `npm run -s chaos -- [--seed 1] [--runs 1] [--minutes 3] [--rolling] [--cores 3] [--etcds 3] [--agents 30] [--logs DIR] [--json]
  --seed N     what happens is drawn from it; with --runs, the first of them
  --minutes M  how long it goes on; then all is mended
  --rolling    restarts each core in turn, and nothing else
  --logs DIR   the history, and what each program said last, are kept there`

/** A core that is restarted is started again so soon; the next one goes so long after. */
const ROLLING_DOWN_MS = 1000
const ROLLING_SETTLE_MS = 20_000
/** Nobody but one core at a time is touched, so no member may be missing for longer than a look takes. */
const ROLLING_LIMITS: Limits = { ...PROMISED, outMs: 1000 }

interface Verdict {
  readonly seed: number
  readonly violations: readonly Violation[]
  readonly measures: Measures
  /** Only where something was violated: what was done. */
  readonly log?: readonly string[]
}

function readOptions(argv: readonly string[]) {
  const text = { type: 'string' } as const
  const yes = { type: 'boolean' } as const
  const { values } = parseArgs({
    args: [...argv],
    options: {
      ...{ seed: text, runs: text, minutes: text, cores: text, etcds: text, agents: text, logs: text },
      ...{ rolling: yes, json: yes },
    },
  })
  return {
    seed: readCount('seed', values.seed, 1, 0, 2 ** 32 - 1),
    runs: readCount('runs', values.runs, 1, 1, 1000),
    minutes: readNumber('minutes', values.minutes, 3, 0.1, 600),
    cores: readCount('cores', values.cores, 3, 1, 9),
    etcds: readCount('etcds', values.etcds, 3, 0, 9),
    agents: readCount('agents', values.agents, 30, 3, 80),
    rolling: values.rolling ?? false,
    logs: values.logs ?? null,
    json: values.json ?? false,
  }
}

type Options = ReturnType<typeof readOptions>

const named = (name: string, count: number): string[] =>
  Array.from({ length: count }, (_, i) => `${name}${String(i + 1).padStart(count > 9 ? 2 : 1, '0')}`)

async function playOne(options: Options, seed: number, say: (line: string) => void): Promise<Verdict> {
  const { cores, etcds, agents, rolling, logs } = options
  const cast: Cast = {
    cores: named('core', cores),
    etcds: named('etcd', etcds),
    agents: named('agent', agents),
  }
  const forMs = rolling ? cores * (ROLLING_DOWN_MS + ROLLING_SETTLE_MS) + LEASE_MS : options.minutes * 60_000
  const steps = rolling ? rollingPlan(cast, ROLLING_DOWN_MS, ROLLING_SETTLE_MS) : drawPlan(cast, seed, forMs)
  const history = await playChaos({ cast, steps, forMs, seed, logs }, say)
  if (logs !== null) writeFileSync(join(logs, 'history.json'), JSON.stringify(history))
  const violations = check(history, rolling ? ROLLING_LIMITS : PROMISED)
  const log = history.log.map(({ atMs, what }) => `${atMs.toFixed(0)} ${what}`)
  return { seed, violations, measures: measure(history), ...(violations.length > 0 && { log }) }
}

function printVerdicts(verdicts: readonly Verdict[]): void {
  const titles = [
    'seed',
    'violations',
    'answers',
    'unanswered',
    'writes made',
    'refused',
    'unknown',
    'deaths',
    'named after, median',
    'longest',
    'moves',
    'equal after',
  ]
  const sec = (ms: number | null): string => (ms === null ? 'never' : `${(ms / 1000).toFixed(1)} s`)
  const rows = verdicts.map(({ seed, violations, measures }) => {
    const { answers, unanswered, writes, deaths, namedAfterDeathMs, moves, equalAfterMs } = measures
    const counts = [
      seed,
      violations.length,
      answers,
      unanswered,
      writes.made,
      writes.refused,
      writes.unknown,
      deaths,
    ]
    const times = [
      sec(namedAfterDeathMs.median),
      sec(namedAfterDeathMs.longest),
      `${moves}`,
      sec(equalAfterMs),
    ]
    return [...counts.map(String), ...times]
  })
  for (const line of formatTable(
    titles.map((title) => ({ title })),
    rows,
    null,
  ))
    console.log(line)
  for (const { seed, violations } of verdicts) {
    for (const { rule, atMs, evidence } of violations) {
      console.log(`seed ${seed}, ${(atMs / 1000).toFixed(1)} s: broken: ${rule}: ${evidence}`)
    }
  }
}

async function main(): Promise<void> {
  const options = readOptions(process.argv.slice(2))
  const why = whyNoChaos()
  if (why !== null) {
    console.log(options.json ? JSON.stringify({ skipped: why }) : `skipped: ${why}`)
    return
  }
  const verdicts: Verdict[] = []
  for (let i = 0; i < options.runs; i++) {
    verdicts.push(await playOne(options, options.seed + i, (line) => options.json || console.log(line)))
  }
  if (options.json) console.log(JSON.stringify(verdicts, null, 2))
  else printVerdicts(verdicts)
  process.exitCode = verdicts.every(({ violations }) => violations.length === 0) ? 0 : 1
}

try {
  await main()
} catch (error) {
  const { message } = error as Error
  const isMistake = message.startsWith('--') || error instanceof TypeError
  console.error(isMistake ? `${message}\n${USAGE}` : message)
  process.exitCode = isMistake ? 2 : 1
}
