// The accuracy benchmarks' figures are worth what their input is: wrong arguments and files end with a
// message that says so, and what is told of a series is held against one whose truth is known.

import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { seededRng } from '../support/seeded-rng.ts'
import { readWish } from './accuracy.ts'
import { readWish as readCoordinatesWish } from './accuracy-coordinates.ts'
import { type Matrix, readMatrix } from './accuracy-matrix.ts'
import { joinNewcomers } from './accuracy-newcomers.ts'
import { replaySeries } from './accuracy-series.ts'
import { drawWorld, hostOf } from './accuracy-world.ts'

const LINE: Matrix = { file: 'line', size: 60, rttMs: (a, b) => 10 * Math.abs(a - b), places: null }

/** A matrix file of cities on a line. */
function lineText(size: number): string {
  const cities = [...Array(size).keys()]
  return cities.map((a) => cities.map((b) => 10 * Math.abs(a - b)).join(',')).join('\n')
}

/** Runs a benchmark as its user does. */
function runBench(name: string, args: readonly string[]) {
  const file = join(import.meta.dirname, `${name}.ts`)
  return spawnSync(process.execPath, [file, ...args], { encoding: 'utf8', timeout: 60_000 })
}

t.test('an argument that can give no figure is named, with what was expected of it', async (t) => {
  const wrong: [args: string[], message: RegExp][] = [
    [['--trials', '1.5'], /^--trials 1\.5: expected a whole number of at least 1$/],
    [['--trials', '0'], /--trials 0/],
    [['--trials', '1e99'], /--trials 1e99/],
    [['--probes='], /^--probes '': expected a whole number of at least 0$/],
    [['--members', 'abc'], /--members abc/],
    [['--members', '0x10'], /--members 0x10/],
    [['--seed', '-1'], /--seed|'-1'/],
    [['--warm', '2.5'], /--warm 2\.5/],
    [['--apart='], /^--apart '': expected a number of at least 0$/],
    [['--apart', 'Infinity'], /--apart Infinity/],
    [['--answering', '1.1'], /^--answering 1\.1: expected a number from 0 to 1$/],
    [['--liars', 'NaN'], /--liars NaN/],
    [['--liars', '1'], /--liars 1: of 20 hosts none would be honest/],
    [['--liars', '0.5', '--members', '1'], /--liars 0\.5: of 1 hosts none/],
    [['--geo-wrong', '0.15'], /--geo-wrong needs --nodes FILE/],
    [['--method', 'geo'], /--method geo needs --nodes FILE/],
    [['--method', 'fast'], /--method fast: expected all or some of/],
    [['--nodes='], /^--nodes '': expected a file$/],
  ]
  for (const [args, message] of wrong) t.throws(() => readWish(['--rtt', 'x.csv', ...args]), { message })
  t.throws(() => readWish([]), /--rtt FILE is missing/)
  t.match(readWish(['--rtt', 'x.csv', '--apart', '2.5', '--liars', '0.1']), {
    apartMs: 2.5,
    liars: 0.1,
    trials: 2000,
    nodes: null,
  })
  for (const members of ['abc', '0', '1', '2.5', ''])
    t.throws(() => readCoordinatesWish(['--rtt', 'x.csv', `--members=${members}`]), /^--members/)
  t.throws(() => readCoordinatesWish(['--rtt', 'x.csv', '--newcomers', '-1']), /--newcomers|'-1'/)
  t.throws(
    () => readCoordinatesWish(['--series', 'x.csv', '--newcomers', '9']),
    /^--newcomers goes with --rtt/,
  )
  t.throws(() => readCoordinatesWish(['--rtt', 'x.csv', '--seed', 'abc']), /--seed abc/)
  t.throws(() => readCoordinatesWish(['--rtt', 'a.csv,']), /--rtt a\.csv,: expected FILE/)
  t.throws(() => readCoordinatesWish([]), /--rtt .* or --series .* is missing/)
})

t.test('a file that is no matrix, or not the nodes of one, is told with its line', async (t) => {
  const dir = t.testdir({
    'good.csv': '0,1\n,0\n',
    'word.csv': '0,1\n1,x\n',
    'below.csv': '0,-1\n1,0\n',
    'ragged.csv': '0,1\n1\n',
    'good.nodes.csv': 'index,name,country,lat,lon\n0,"Bonn, old",DE,50,7\n1,Rome,IT,42,12\n',
    'long.nodes.csv': 'index,name,country,lat,lon\n0,a,DE,50,7\n1,b,IT,42,12\n2,c,IT,42,12\n',
    'blank.nodes.csv': 'index,name,country,lat,lon\n0,a,DE,50,7\n1,b,IT,,12\n',
  })
  const read = (name: string, nodes: string | null = null) =>
    readMatrix(join(dir, name), nodes && join(dir, nodes))
  t.throws(() => read('word.csv'), /word\.csv: line 2: expected an RTT in ms or nothing, found x/)
  t.throws(() => read('below.csv'), /below\.csv: line 1: .* found -1/)
  t.throws(() => read('ragged.csv'), /ragged\.csv: line 2 has 1 cells, expected 2/)
  t.throws(() => read('none.csv'), /none\.csv can't be read/)
  t.throws(() => read('good.csv', 'long.nodes.csv'), /expected 2 lines after the header.* found 3/)
  t.throws(() => read('good.csv', 'blank.nodes.csv'), /line 3: expected lat and lon/)
  const matrix = read('good.csv', 'good.nodes.csv')
  t.equal(matrix.rttMs(1, 0), 1, 'where one way is unmeasured the other stands for it')
  t.match(matrix.places, [{ lat: 50, lon: 7 }, { lat: 42 }])
})

t.test('a few liars among twenty use every kind of lie in one world or another', async (t) => {
  const rng = seededRng(3)
  const kinds = new Set<string>()
  for (let world = 0; world < 20; world++) {
    const { hosts, isLiar, reportMs } = drawWorld(LINE, { hosts: 20, liarShare: 0.1, lieKind: 'lone' }, rng)
    t.equal(isLiar.filter(Boolean).length, 2)
    for (const i of [0, 1]) {
      const row = hosts[i]! < 30 ? 59 : 0
      const share = reportMs(i, row) / LINE.rttMs(hosts[i]!, row)
      t.equal(reportMs(i, row), reportMs(i, row), 'a liar keeps to its word')
      kinds.add(share === 0.5 ? 'halved' : share === 2 ? 'doubled' : 'random')
    }
  }
  t.same([...kinds].sort(), ['doubled', 'halved', 'random'])
})

t.test('history says how many rows it really had, and that none was far enough', async (t) => {
  const dir = t.testdir({ 'line.csv': lineText(40) })
  const args = ['--rtt', join(dir, 'line.csv'), '--members', '4', '--trials', '8', '--probes', '2', '--json']
  const near = runBench('accuracy', [...args, '--method', 'nearcast', '--warm', '30', '--apart', '10'])
  const { settings, methods, ...rest } = JSON.parse(near.stdout)
  t.match(rest, { hosts: 4, probes: 2, trials: 8 })
  t.ok(settings.warmed.least > 0 && settings.warmed.least < 30, `${settings.warmed.least} of 30 were used`)
  t.match(methods.nearcast, { optimal: Number, meanPenaltyMs: Number, probesPerClient: Number })
  const far = runBench('accuracy', [...args, '--method', 'random', '--warm', '30', '--apart', '1000'])
  t.equal(far.status, 2)
  t.match(far.stderr, /^--warm 30 --apart 1000: no row is so far from the clients\nusage:/)
})

t.test('a dozen echoes place a newcomer better than as many steps of Vivaldi, and many alike', async (t) => {
  const draw = seededRng(2)
  const spots = Array.from({ length: 60 }, () => [300 * draw(), 300 * draw()] as const)
  const rttMs = (a: number, b: number) => Math.hypot(spots[a]![0] - spots[b]![0], spots[a]![1] - spots[b]![1])
  const rows = [...Array(40).keys()]
  const settled = rows.map((row) => {
    const coordinate = {
      vec: [...spots[row]!, 0, 0, 0, 0, 0, 0],
      heightMs: 0.01,
      adjustmentMs: 0,
      error: 0.05,
    }
    return { ...hostOf(row, null), coordinate }
  })
  const newRows = [...spots.keys()].slice(40)
  const phases = joinNewcomers({ ...LINE, rttMs }, settled, rows, newRows, seededRng(1))
  const at = (echoes: number) => phases.find((phase) => phase.echoes === echoes)!
  t.ok(at(12).placed.median < 0.05, `${at(12).placed.median}`)
  t.ok(at(12).bySteps.median > 3 * at(12).placed.median, `${at(12).bySteps.median}`)
  t.ok(at(192).bySteps.median < 0.1)
})

t.test('a labelled change of a series is followed at the third echo down and the sixth up', async (t) => {
  const levels = [
    { ms: 100, pings: 40 },
    { ms: 150, pings: 40 },
    { ms: 100, pings: 40 },
    { ms: 101, pings: 40 },
  ]
  const rtts = levels.flatMap(({ ms, pings }, level) =>
    Array.from({ length: pings }, (_, i) => ({ ms, isChange: level > 0 && i === 0 })),
  )
  const lines = rtts.map(({ ms, isChange }, i) => `7,${240 * i},${i === 20 ? -3 : ms},${Number(isChange)}`)
  const file = join(t.testdir(), 'labelled.csv')
  writeFileSync(file, ['trace,epoch,rtt_ms,cp', ...lines].join('\n'))
  const followed = (echoes: number) => ({
    count: 1,
    followed: 1,
    echoes: { median: echoes, p90: echoes },
    minutes: { median: 4 * (echoes - 1), p90: 4 * (echoes - 1) },
  })
  t.match(replaySeries(file, seededRng(1)), {
    traces: 1,
    echoes: 159,
    // Seven echoes after a change were kept at the level before: five up and two down.
    keptWrong: { over10Ms: Number((7 / 159).toFixed(4)) },
    heardWrong: { over10Ms: 0, over10Percent: 0 },
    changes: { labelled: 3, up: followed(6), down: followed(3) },
  })
})

t.test('a buffer that is full for a minute does not move what is kept of ten pings a second', async (t) => {
  const pings = Array.from({ length: 6000 }, (_, i) => (i >= 3000 && i < 3600 ? 800 : 20 + (i % 3)))
  const dir = t.testdir({
    'full.csv': ['t_unix,seq,rtt_ms', ...pings.map((ms, i) => `,${i + 1},${ms}`)].join('\n'),
    'odd.csv': 't_unix,seq,rtt_ms\n,1,20\n,2,soon\n',
    'other.csv': 'a,b\n1,2\n',
  })
  const { keptWrong, heardWrong } = replaySeries(join(dir, 'full.csv'), seededRng(1))
  t.match(keptWrong, { over10Ms: 0, over10Percent: 0 })
  t.ok((heardWrong as { over10Ms: number }).over10Ms > 0.09)
  t.throws(() => replaySeries(join(dir, 'odd.csv'), seededRng(1)), /odd\.csv: line 3: .* found ,2,soon/)
  t.throws(() => replaySeries(join(dir, 'other.csv'), seededRng(1)), /expected a header with rtt_ms/)
  const { status, stderr } = runBench('accuracy-coordinates', ['--series', join(dir, 'other.csv')])
  t.equal(status, 2)
  t.match(stderr, /other\.csv: expected a header with rtt_ms.*\nusage:/)
})
