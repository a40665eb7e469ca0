// The example overlay on a network that is really cut: two islands in network namespaces forget each other,
// and after the cut random members make them one ring again within two discovery periods; near ones alone do not.

import t from 'tap'
import type { Cut } from '../bench/partition-plan.ts'
import { runPartition, whyNoIslands } from '../bench/partition-run.ts'

const DISCOVER_SEC = 4
const skip = whyNoIslands() ?? false
t.setTimeout(120_000)

const scenes: readonly { cut: Cut; name: string }[] = [
  { cut: 'between', name: 'islands that lose each other while both reach the core' },
  { cut: 'island', name: 'an island that loses the core, too, and whose leases end' },
]

// Both at once: each has namespaces of its own, and mostly waits.
t.test('an overlay that was parted becomes one again', { skip, jobs: 2 }, async (t) => {
  const scene = ({ cut, name }: (typeof scenes)[number]) =>
    t.test(name, async (t) => {
      const said: string[] = []
      const plan = { cut, islands: [10, 8], discoverSec: DISCOVER_SEC, cutSec: 6 } as const
      const { overlays, watchedSec } = await runPartition(plan, (line) => said.push(line))
      const [mixed, nearOnly] = overlays
      t.match(mixed, { service: 'near-and-random', near: 3, random: 2 })
      t.match(nearOnly, { service: 'near-only', near: 5, random: 0 })
      for (const { before, apart } of overlays) {
        t.same(before.rings, [18], 'one ring before')
        t.same(apart, { rings: [10, 8], linksAbroad: 0 }, 'two that know nothing of each other')
      }
      const wholeAfterSec = mixed?.wholeAfterSec ?? Number.POSITIVE_INFINITY
      t.ok(
        wholeAfterSec <= 2 * DISCOVER_SEC,
        `random members join the rings: after ${wholeAfterSec} s\n${said.join('\n')}`,
      )
      t.ok(watchedSec > 2 * DISCOVER_SEC)
      // Of an island whose leases ended a core names, for a moment, the others as the nearest there are.
      if (cut === 'island') return
      t.match(nearOnly, { wholeAfterSec: null, atEnd: { linksAbroad: 0 } }, 'near ones never do')
    })
  await Promise.all(scenes.map(scene))
})
