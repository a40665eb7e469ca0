// Pulses: their bytes, what their home takes and refuses, and how the agent sends them and does without.

import { createHmac } from 'node:crypto'
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { type PulseOutcome, Pulses } from '../../core-node/pulses.ts'
import { emptyDirectory, type Host } from '../../resolver/directory.ts'
import { Agent } from '../../server-agent/agent.ts'
import { openEcho } from '../../server-agent/protocol/echo-socket.ts'
import { hmacOf } from '../../server-agent/protocol/mac.ts'
import {
  isPulseLike,
  PULSE_BYTES,
  PULSE_REPLY_BYTES,
  type PulseReply,
  readPulse,
  readPulseReply,
  writePulse,
  writePulseReply,
} from '../../server-agent/protocol/pulse.ts'
import { PulseSender } from '../../server-agent/pulse-sender.ts'
import { aHost } from '../support/records.ts'
import { seededRng } from '../support/seeded-rng.ts'
import { FakeCore, problem } from './fake-core.ts'

const KEY = new Uint8Array(32).fill(7)
const SESSION = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)
const OLD_SESSION = new Uint8Array(8)
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

function pulseOf(counter: number, over: { host?: string; session?: Uint8Array; key?: Uint8Array } = {}) {
  const { host = 'h1', session = SESSION, key = KEY } = over
  return writePulse({ host, session, counter }, key)
}

t.test('a pulse and its reply have the bytes that the protocol fixes', async (t) => {
  const pulse = pulseOf(258)
  t.equal(
    hex(pulse),
    `4e43504c01010000010203040506070800000102${'6831'.padEnd(128, '0')}${hex(pulse.subarray(84))}`,
  )
  const mac = createHmac('sha256', KEY).update(pulse.subarray(0, 84)).digest().subarray(0, 16)
  t.equal(hex(pulse.subarray(84)), mac.toString('hex'))
  const reply = writePulseReply(pulse, { status: 'call', session: SESSION, counter: 258 }, KEY)
  const head = `4e43504c01020200010203040506070800000102${mac.toString('hex').slice(0, 16)}`
  t.equal(hex(reply.subarray(0, 28)), head)
  t.equal(
    hex(reply.subarray(28)),
    createHmac('sha256', KEY).update(Buffer.from(head, 'hex')).digest('hex').slice(0, 32),
  )
  t.equal(pulse.length, PULSE_BYTES)
  t.ok(reply.length === PULSE_REPLY_BYTES && reply.length < pulse.length, 'a reply is shorter')
  t.match(readPulse(pulse), { host: 'h1', counter: 258 })
  t.same(readPulseReply(reply, pulse, KEY), { status: 'call', session: SESSION, counter: 258 })
  t.equal(readPulseReply(reply, pulseOf(259), KEY), null, 'of another pulse')
  t.equal(readPulseReply(reply, pulse, new Uint8Array(32)), null, 'by another key')
  t.equal(readPulse(pulseOf(1, { host: 'x'.repeat(63) }))?.host.length, 63, 'the longest name fits')
})

t.test('MACs are those of createHmac, whatever the length', async (t) => {
  const rng = seededRng(3)
  const bytes = (count: number) => Uint8Array.from({ length: count }, () => Math.floor(256 * rng()))
  for (let length = 0; length < 200; length++) {
    const [message, key] = [bytes(length), bytes(32)]
    t.equal(hex(hmacOf(message, key)), createHmac('sha256', key).update(message).digest('hex'))
  }
})

/** A home with one host, which counts how often the lease was renewed. */
function home(over: Partial<Host> = {}, session = SESSION) {
  const directory = emptyDirectory()
  directory.hosts.set('h1', aHost('h1', { echoKey: hex(KEY), ...over }))
  const world = { renewed: 0, hasLease: true, hasNews: false }
  const pulses = new Pulses({
    directory,
    session,
    renew: () => {
      if (world.hasLease) world.renewed++
      return world.hasLease
    },
    hasNews: () => world.hasNews,
  })
  const say = (packet: Uint8Array): PulseReply | null => {
    const reply = pulses.receive(packet, 0)
    return reply && readPulseReply(reply, packet, KEY)
  }
  return { directory, world, pulses, say }
}

t.test(
  'every length, and every changed bit of a good pulse, throws nothing, renews nothing and is counted',
  async (t) => {
    const { pulses, world } = home()
    let received = 0
    const take = (packet: Uint8Array): Uint8Array | null => {
      received++
      t.ok(isPulseLike(packet) || readPulse(packet) === null)
      return pulses.receive(packet, 0)
    }
    const good = pulseOf(1)
    for (let length = 0; length <= 512; length++) {
      const packet = new Uint8Array(length)
      packet.set(good.subarray(0, length))
      if (length !== PULSE_BYTES) t.equal(take(packet), null, `${length} bytes`)
      t.equal(readPulseReply(packet, good, KEY), null)
    }
    for (let bit = 0; bit < 8 * PULSE_BYTES; bit++) {
      const packet = good.slice()
      packet[bit >> 3]! ^= 1 << (bit & 7)
      t.equal(take(packet), null, `bit ${bit}`)
    }
    const reply = pulses.receive(good, 0)!
    received++
    for (let bit = 0; bit < 8 * PULSE_REPLY_BYTES; bit++) {
      const packet = reply.slice()
      packet[bit >> 3]! ^= 1 << (bit & 7)
      t.equal(readPulseReply(packet, good, KEY), null)
    }
    t.equal(world.renewed, 1, 'the good one')
    const counted = Object.values(pulses.counts).reduce((sum, count) => sum + count, 0)
    t.equal(counted, received)
    t.match(pulses.counts, { ok: 1, call: 0, resync: 0 })
    t.ok(pulses.counts.shape > 0 && pulses.counts.mac > 0 && pulses.counts.unknown > 0)
  },
)

t.test(
  'a pulse counts once: repeated, late or of another session it renews nothing and is told where to go on',
  async (t) => {
    const { say, world } = home()
    t.same(say(pulseOf(1, { session: OLD_SESSION })), { status: 'resync', session: SESSION, counter: 0 })
    t.equal(world.renewed, 0)
    t.match(say(pulseOf(1)), { status: 'ok', counter: 1 })
    t.match(say(pulseOf(5)), { status: 'ok', counter: 5 })
    for (const counter of [5, 4, 1])
      t.same(say(pulseOf(counter)), { status: 'resync', session: SESSION, counter: 5 })
    t.equal(world.renewed, 2)
    t.match(say(pulseOf(6)), { status: 'ok' })

    const restarted = home({}, Uint8Array.of(9, 9, 9, 9, 9, 9, 9, 9))
    t.match(restarted.say(pulseOf(7)), { status: 'resync', counter: 0 })
    t.equal(restarted.world.renewed, 0, 'nothing of an earlier run counts')
  },
)

t.test('who has no key gets no answer; who is not kept by a pulse alone is called', async (t) => {
  const outcome = (host: ReturnType<typeof home>, packet: Uint8Array): PulseOutcome => {
    const before = { ...host.pulses.counts }
    const reply = host.pulses.receive(packet, 0)
    const [what] = Object.entries(host.pulses.counts).find(
      ([name, count]) => count > before[name as PulseOutcome],
    )!
    t.equal(reply !== null, ['ok', 'call', 'resync'].includes(what), what)
    return what as PulseOutcome
  }
  t.equal(outcome(home(), pulseOf(1, { host: 'nobody' })), 'unknown')
  t.equal(outcome(home({ presence: 'left' }), pulseOf(1)), 'unknown')
  t.equal(outcome(home({ agent: false, echoKey: '' }), pulseOf(1)), 'unknown')
  t.equal(outcome(home(), pulseOf(1, { key: new Uint8Array(32) })), 'mac')
  const silent = home({ presence: 'silent' })
  t.equal(outcome(silent, pulseOf(1)), 'call')
  t.equal(silent.world.renewed, 0, 'to be back is to be kept: that goes by HTTP')
  const ended = home()
  ended.world.hasLease = false
  t.equal(outcome(ended, pulseOf(1)), 'call')
  const busy = home()
  busy.world.hasNews = true
  t.equal(outcome(busy, pulseOf(1)), 'call')
  t.equal(busy.world.renewed, 1, 'heard all the same')
  const flooded = home()
  let limited = 0
  for (let i = 0; i < 30_000; i++)
    if (flooded.pulses.receive(pulseOf(1, { session: OLD_SESSION }), 0) === null) limited++
  t.equal(limited, 10_000, 'replies that renew nothing are bounded')
})

/** A home's echo socket with pulses as its guest; `deaf` swallows so many packets first. */
async function openHome(session = SESSION) {
  const host = home({}, session)
  const state = { deaf: 0 }
  const echo = await openEcho({
    host: '127.0.0.1',
    port: 0,
    key: () => KEY,
    guest: (packet) => {
      if (!isPulseLike(packet)) return false
      if (state.deaf-- > 0) return null
      return host.pulses.receive(packet, 0)
    },
  })
  return { ...host, echo, state, at: { address: '127.0.0.1', port: echo.port } }
}

t.test(
  'the sender learns the session, goes on after a restart, and one lost packet is no lost heartbeat',
  async (t) => {
    const first = await openHome()
    const sender = new PulseSender('h1')
    t.ok(await sender.beat(first.at, KEY, 2000))
    t.ok(await sender.beat(first.at, KEY, 2000))
    t.match(first.pulses.counts, { ok: 2, resync: 1 })
    const second = await openHome(Uint8Array.of(8, 8, 8, 8, 8, 8, 8, 8))
    t.ok(await sender.beat(second.at, KEY, 2000), 'another run of the core')
    t.ok(await new PulseSender('h1').beat(second.at, KEY, 2000), 'another run of the agent')
    second.state.deaf = 1
    t.ok(await sender.beat(second.at, KEY, 400))
    second.world.hasNews = true
    t.notOk(await sender.beat(second.at, KEY, 2000), 'called')
    t.notOk(await sender.beat(second.at, new Uint8Array(32), 100), 'another host’s key')
    const { received, guests } = second.echo.stats
    t.equal(received, guests)
    t.equal(
      Object.values(second.pulses.counts).reduce((a, b) => a + b, 1),
      received,
      'with the one swallowed',
    )
    sender.close()
    await first.echo.close()
    await second.echo.close()
  },
)

t.test('where nothing answers the sender gives up in time, and rests after three', async (t) => {
  const mute = createSocket('udp4').bind(0, '127.0.0.1')
  await once(mute, 'listening')
  const at = { address: '127.0.0.1', port: (mute.address() as AddressInfo).port }
  const clock = { ms: 0 }
  const sender = new PulseSender('h1', () => clock.ms)
  let packets = 0
  mute.on('message', () => packets++)
  for (let i = 0; i < 3; i++) {
    t.ok(sender.isReady)
    t.notOk(await sender.beat(at, KEY, 80))
  }
  t.notOk(sender.isReady)
  t.equal(packets, 6, 'two each')
  clock.ms += 60_000
  t.ok(sender.isReady, 'tried again after a minute')
  const ended = sender.beat(at, KEY, 60_000)
  await sleep(10)
  sender.close()
  t.notOk(await ended, 'closing ends a pulse under way')
  mute.close()
})

t.test('a sender that is closed while it opens its socket sends nothing', async (t) => {
  const { echo, at } = await openHome()
  const sender = new PulseSender('h1')
  const beat = sender.beat(at, KEY, 160)
  sender.close()
  t.notOk(await beat)
  t.notOk(await sender.beat(at, KEY, 160), 'nor later')
  t.equal(echo.stats.received, 0)
  await echo.close()
})

t.test('a guest has its own packets and the echo all others, each counted once', async (t) => {
  const { echo, pulses } = await openHome()
  const socket: Socket = createSocket('udp4')
  const garbage = [
    Buffer.alloc(0),
    Buffer.from('NCPL'),
    Buffer.alloc(48),
    Buffer.alloc(100, 1),
    Buffer.from(pulseOf(1)),
  ]
  for (const packet of garbage) socket.send(packet, echo.port, '127.0.0.1')
  while (echo.stats.received < garbage.length) await sleep(2)
  t.match(echo.stats, { received: 5, guests: 2, dropped: { shape: 3 } })
  t.match(pulses.counts, { shape: 1, ok: 1 })
  socket.close()
  await echo.close()
})

/** A core over HTTP that tells in its host replies where pulses are taken. */
async function openTeller(pulse: object | null | undefined, takesMembers = true) {
  const core = new FakeCore()
  core.override = (request, response) => {
    if (!request.path.startsWith('/v1/hosts/') || request.method !== 'PUT') return false
    const { members } = request.body
    if (members !== undefined && !takesMembers) {
      response.writeHead(400, { 'content-type': 'application/problem+json' })
      response.end(JSON.stringify({ ...problem(400, '"members" is not known here'), field: 'members' }))
      return true
    }
    const name = request.path.slice('/v1/hosts/'.length)
    core.hosts.set(name, 'nch_1')
    const reply = {
      host: name,
      credential: 'nch_1',
      core: 'c1',
      leaseSec: 3,
      heartbeatSec: 0.1,
      echoKey: hex(KEY),
      publicAddress: '127.0.0.1',
      publicPort: 1,
      reachable: null,
      proofs: {},
      ...(pulse !== undefined && { pulse }),
      ...(members && {
        members: members.map(({ service, name }: { service: string; name: string }) => ({
          service,
          member: name,
          host: name,
          state: 'live',
        })),
      }),
    }
    response.writeHead(200, { 'content-type': 'application/json' })
    response.end(JSON.stringify(reply))
    return true
  }
  return core.open()
}

async function agentOf(core: FakeCore) {
  const agent = new Agent({
    cores: [core.url],
    token: core.token,
    name: 'h1',
    addresses: ['127.0.0.1'],
    echo: '127.0.0.1:0',
    members: [
      { service: 's1', port: 1 },
      { service: 's2', port: 2 },
    ],
  })
  agent.on('warning', () => {})
  await agent.start()
  return agent
}

t.test(
  'an agent joins by one message, says "as before" by pulses alone, and has its say by HTTP when called',
  async (t) => {
    const host = await openHome()
    const core = await openTeller(host.at)
    const agent = await agentOf(core)
    t.same(
      core.heard.map(({ method, path }) => `${method} ${path}`),
      ['GET /v1/services/core/nearest?k=8', 'PUT /v1/hosts/h1'],
    )
    t.match(agent.joined?.members, [{ service: 's1', state: 'live' }, { service: 's2' }])
    while (host.pulses.counts.ok < 5) await sleep(5)
    t.equal(core.beats.length, 0)
    host.world.hasNews = true
    while (core.beats.length < 2) await sleep(5)
    host.world.hasNews = false
    const before = host.pulses.counts.ok
    while (host.pulses.counts.ok < before + 2) await sleep(5)
    await agent.stop()
    core.close()
    await host.echo.close()
  },
)

t.test(
  'an agent whose pulses nobody answers, or who is offered none, heartbeats by HTTP as before',
  async (t) => {
    const mute = createSocket('udp4').bind(0, '127.0.0.1')
    await once(mute, 'listening')
    const port = (mute.address() as AddressInfo).port
    for (const pulse of [{ address: '127.0.0.1', port }, { address: 'nonsense', port }, null, undefined]) {
      const core = await openTeller(pulse)
      const agent = await agentOf(core)
      while (core.beats.length < 5) await sleep(5)
      t.match(core.beats[0], { host: 'h1', credential: 'nch_1' })
      await agent.stop()
      core.close()
    }
    mute.close()
  },
)

t.test('a core that knows no members in a join is told of them one by one', async (t) => {
  const core = await openTeller(null, false)
  const agent = await agentOf(core)
  t.same(
    core.heard.slice(1, 5).map(({ method, path }) => `${method} ${path}`),
    [
      'PUT /v1/hosts/h1',
      'PUT /v1/hosts/h1',
      'PUT /v1/services/s1/members/h1',
      'PUT /v1/services/s2/members/h1',
    ],
  )
  await agent.stop()
  core.close()
})
