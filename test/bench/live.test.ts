// What the live benchmark claims rests on how it draws its world and scores answers: both are held here.

import t from 'tap'
import type { Matrix } from './accuracy-matrix.ts'
import { whyNoNetwork } from './live-network.ts'
import { drawLiveWorld, nearestTo, scoreAnswers } from './live-world.ts'

/** Cities on a line, 10 ms apart; the pair 0 and 1 was not measured. */
const LINE: Matrix = {
  file: 'line.csv',
  size: 12,
  rttMs: (a, b) => (a + b === 1 ? Number.NaN : 10 * Math.abs(a - b)),
  places: null,
}

t.test(
  'a world has the machines asked for, all measured to each other, and a seed gives it again',
  async (t) => {
    const wish = { agents: 4, clients: 6, silent: 0.33, seed: 5 }
    const world = drawLiveWorld(LINE, wish)
    t.same(
      world.clients.map(({ kind }) => kind),
      ['silent', 'silent', 'icmp', 'dns', 'tcp', 'icmp'],
    )
    for (const a of world.machines) {
      for (const b of world.machines) {
        t.ok(a === b ? world.rttMs(a, b) === 0 : world.rttMs(a, b) > 0)
        t.equal(world.rttMs(a, b), world.rttMs(b, a))
      }
    }
    t.equal(
      new Set(world.machines.map(({ address }) => address.split('.')[1])).size,
      11,
      'each in its own /16',
    )
    const again = drawLiveWorld(LINE, wish)
    t.equal(world.rttMs(world.core, world.clients[5]!), again.rttMs(again.core, again.clients[5]!))
    t.throws(() => drawLiveWorld(LINE, { ...wish, clients: 7 }), /line\.csv: expected 12 cities/)
  },
)

t.test('every address told is scored, and a wrong or missing answer is not the nearest', async (t) => {
  const world = drawLiveWorld(LINE, { agents: 4, clients: 2, silent: 0, seed: 1 })
  const [client, other] = world.clients
  const best = nearestTo(world, client!)
  const worse = world.agents.find((agent) => world.rttMs(client!, agent) > world.rttMs(client!, best))!
  const extraMs = world.rttMs(client!, worse) - world.rttMs(client!, best)
  const right = { client: client!, addresses: [best.address] }
  t.match(scoreAnswers(world, [right]), { optimal: 1, meanPenaltyMs: 0, p90PenaltyMs: 0, unanswered: 0 })
  const both = { client: client!, addresses: [best.address, worse.address] }
  t.match(scoreAnswers(world, [both]), { optimal: 0.5, meanPenaltyMs: extraMs / 2 })
  const none = { client: other!, addresses: [] }
  t.match(scoreAnswers(world, [right, none]), { clients: 2, optimal: 0.5, unanswered: 1 })
  t.match(scoreAnswers(world, [none]), { optimal: 0, meanPenaltyMs: null })
  const stranger = { client: client!, addresses: ['192.0.2.1'] }
  t.match(scoreAnswers(world, [stranger]), { optimal: 0, meanPenaltyMs: Number.POSITIVE_INFINITY })
})

t.test('where there can be no network, it says what is missing', async (t) => {
  t.match(whyNoNetwork('/nowhere/delaynet'), /Linux|root|delaynet/)
})
