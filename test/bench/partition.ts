// `npm run bench:partition`: an overlay that a cut network parts, and who makes it whole again. The nodes of
// examples/overlay on two islands in network namespaces, in two overlays: one asks Nearcast for near and
// random members, the other for near ones only.

import { parseArgs } from 'node:util'
import { formatTable } from '../../core-node/cli/table.ts'
import { readCount } from './accuracy-arguments.ts'
import type { Cut, PartitionReport } from './partition-plan.ts'
import { runPartition, whyNoIslands } from './partition-run.ts'

const USAGE = `npm run -s bench:partition -- [--cut between|island] [--discover 4] [--last 6] [--runs 1] [--json]
  --cut between  the islands lose each other, and both keep the core (default)
  --cut island   the second island loses all the rest, the core too
  --discover S   seconds from one discovery of a node to the next
  --last S       seconds that the cut lasts at least
  --runs N       each of them ends the cut at another moment between two discoveries`

const ISLANDS = [10, 8] as const

function readOptions(argv: readonly string[]) {
  const text = { type: 'string' } as const
  const { values } = parseArgs({
    args: [...argv],
    options: { cut: text, discover: text, last: text, runs: text, json: { type: 'boolean' } },
  })
  return {
    cut: readCut(values.cut ?? 'between'),
    discoverSec: readCount('discover', values.discover, 4, 1, 600),
    lastSec: readCount('last', values.last, 6, 0, 3600),
    runs: readCount('runs', values.runs, 1, 1, 100),
    json: values.json ?? false,
  }
}

function readCut(value: string): Cut {
  if (value === 'between' || value === 'island') return value
  throw new Error(`--cut ${value}: expected between or island`)
}

function printTable(reports: readonly PartitionReport[]): void {
  const titles = ['overlay', 'before', 'cut', 'at the end', 'links across', 'whole after']
  const rows = reports.flatMap(({ overlays }) =>
    overlays.map((one) => [
      `${one.service} (near ${one.near}, random ${one.random})`,
      ...[one.before, one.apart, one.atEnd].map(({ rings }) => rings.join(' + ')),
      `${one.atEnd.linksAbroad}`,
      one.wholeAfterSec === null ? 'never' : `${one.wholeAfterSec.toFixed(1)} s`,
    ]),
  )
  const columns = titles.map((title) => ({ title }))
  for (const line of ['', ...formatTable(columns, rows, null)]) console.log(line)
  const { discoverSec, watchedSec, cut } = reports[0]!
  console.log(
    `\nRings by their sizes; a discovery every ${discoverSec} s; cut: ${cut}; watched for ${watchedSec.toFixed(0)} s after it.`,
  )
}

async function main(): Promise<void> {
  const { cut, discoverSec, lastSec, runs, json } = readOptions(process.argv.slice(2))
  const why = whyNoIslands()
  if (why !== null) {
    console.log(json ? JSON.stringify({ skipped: why }) : `skipped: ${why}`)
    return
  }
  const reports: PartitionReport[] = []
  for (let run = 0; run < runs; run++) {
    const cutSec = lastSec + (run / runs) * discoverSec
    const plan = { cut, islands: ISLANDS, discoverSec, cutSec }
    reports.push(await runPartition(plan, (line) => json || console.log(line)))
  }
  if (json) console.log(JSON.stringify(reports, null, 2))
  else printTable(reports)
}

try {
  await main()
} catch (error) {
  const { message } = error as Error
  const isMistake = message.startsWith('--') || error instanceof TypeError
  console.error(isMistake ? `${message}\n${USAGE}` : message)
  process.exitCode = isMistake ? 2 : 1
}
