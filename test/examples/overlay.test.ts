// The example overlay on its own: the rules of its ring, what it lets in from the network, nodes on loopback
// with a directory that the test holds, and the command with a real core.

import { spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { Agent } from 'nearcast-agent'
import t, { type Test } from 'tap'
import { OverlayNode } from '../../examples/overlay/node.ts'
import { besides, chosen, distance, nearestTo, pointOf } from '../../examples/overlay/ring.ts'
import { decode, encode, type Message } from '../../examples/overlay/wire.ts'
import { bestLinks, isWhole, ownerOf, ringNeighbors, ringsOf } from '../bench/overlay-rings.ts'
import { nearcast, startCore, until } from '../support/processes.ts'
import { seededRng } from '../support/seeded-rng.ts'

const HALF = 2 ** 31
const names = Array.from({ length: 14 }, (_, i) => `node-${i}`)

t.test('the way round the circle is the shorter one, and the same from both ends', async (t) => {
  for (const [a, b, away] of [
    [0, 0, 0],
    [0, 1, 1],
    [1, 2 ** 32 - 1, 2],
    [0, HALF, HALF],
    [10, HALF + 11, HALF - 1],
  ] as const) {
    t.equal(distance(a, b), away, `${a} to ${b}`)
    t.equal(distance(b, a), away, `${b} to ${a}`)
  }
})

t.test('names lie all over the circle', async (t) => {
  const quarters = [0, 0, 0, 0]
  for (let i = 0; i < 400; i++) quarters[Math.floor(pointOf(`host-${i}`) / 2 ** 30)]!++
  for (const count of quarters) t.ok(count > 60 && count < 140, `${quarters}`)
})

t.test('a key is its nearest node’s, and who lies beside a point is next to it on either side', async (t) => {
  const rng = seededRng(1)
  for (let round = 0; round < 50; round++) {
    const all = Array.from({ length: 9 }, () => ({ point: Math.floor(rng() * 2 ** 32) }))
    const key = Math.floor(rng() * 2 ** 32)
    const sorted = all.toSorted((a, b) => a.point - b.point)
    const after = Math.max(
      0,
      sorted.findIndex(({ point }) => point >= key),
    )
    const at = (i: number) => sorted[(after + i + 9) % 9]!
    const beside = besides(key, all)
    t.equal(beside[0], at(0), 'the next one clockwise comes first')
    t.same(new Set(beside), new Set([at(0), at(1), at(-1), at(-2)]))
    t.equal(
      distance(nearestTo(key, all)!.point, key),
      Math.min(...all.map(({ point }) => distance(point, key))),
    )
  }
  t.equal(nearestTo(1, []), null)
})

t.test('a node keeps those beside it whatever they cost, and the cheapest at each distance', async (t) => {
  const rng = seededRng(2)
  const all = Array.from({ length: 200 }, () => ({ point: Math.floor(rng() * 2 ** 32), ms: rng() }))
  const keep = chosen(HALF, all, ({ ms }) => ms)
  for (const beside of besides(HALF, all)) t.ok(keep.has(beside))
  const far = all.filter(({ point }) => distance(HALF, point) >= 2 ** 30)
  const kept = far.filter((one) => keep.has(one)).map(({ ms }) => ms)
  t.same(
    kept.toSorted(),
    far
      .map(({ ms }) => ms)
      .toSorted()
      .slice(0, 2),
  )
  t.ok(keep.size < 30, `${keep.size} of 200`)
})

t.test('whatever bytes come in, they are a message of the right shape or nothing', async (t) => {
  const peer = { name: 'a', address: '127.0.0.1', port: 4000 }
  const messages: Message[] = [
    { id: 1, ask: 'meet', from: peer },
    { id: 2, ask: 'lookup', key: 7 },
    { id: 3, peers: [peer, peer] },
    { id: 4, owner: peer, path: ['b', 'a'] },
  ]
  for (const message of messages) {
    const bytes = encode(message)
    t.same(decode(bytes), message)
    for (let at = 0; at < bytes.length; at++) {
      decode(bytes.subarray(0, at))
      for (const byte of [0, 34, 44, 58, 91, 123, 125, 255])
        decode(Uint8Array.from(bytes).fill(byte, at, at + 1))
    }
  }
  for (const wrong of [
    ...[null, 1, 'x', [], {}, { id: 'x', ask: 'lookup', key: 7 }, { id: 1.5, ask: 'lookup', key: 7 }],
    ...[
      { id: 1, ask: 'steal' },
      { id: 1, ask: 'lookup', key: -1 },
      { id: 1, ask: 'lookup', key: 2 ** 32 },
    ],
    ...[
      { id: 1, ask: 'meet' },
      { id: 1, ask: 'meet', from: { ...peer, port: 0 } },
    ],
    ...[
      { id: 1, ask: 'meet', from: { ...peer, address: 'host.example' } },
      { id: 1, peers: [null] },
    ],
    ...[
      { id: 1, owner: peer },
      { id: 1, owner: peer, path: [1] },
      { id: 1, peers: Array.from({ length: 40 }, () => peer) },
    ],
  ]) {
    t.equal(decode(Buffer.from(JSON.stringify(wrong))), null, JSON.stringify(wrong).slice(0, 60))
  }
})

t.test('rings are told from chains, and a ring out of order is not whole', async (t) => {
  const inOrder = names.toSorted((a, b) => pointOf(a) - pointOf(b))
  const ring = (of: readonly string[]) => of.map((name, i) => [name, of[(i + 1) % of.length]!] as const)
  t.ok(isWhole(new Map(ring(inOrder))))
  t.notOk(isWhole(new Map(ring(inOrder.toSorted()))), 'out of order')
  const two = new Map([...ring(inOrder.slice(0, 4)), ...ring(inOrder.slice(4))])
  t.same(
    ringsOf(two).map(({ length }) => length),
    [10, 4],
  )
  t.notOk(isWhole(two))
  const hanging = new Map<string, string | null>([...ring(inOrder.slice(1)), [inOrder[0]!, inOrder[1]!]])
  t.same(
    ringsOf(hanging).map(({ length }) => length),
    [13],
    'who only points into a ring is not on it',
  )
  t.notOk(isWhole(hanging))
  t.same(
    ringsOf(
      new Map([
        ['a', null],
        ['b', 'a'],
      ]),
    ),
    [],
  )
})

/** Near and far as a made-up directory tells it: names with like numbers are near, and the two halves far apart. */
function predictedMs(a: string, b: string): number {
  const at = (name: string) => Number(name.split('-')[1])
  const gap = at(a) < 7 === at(b) < 7 ? 0 : 50
  return 1 + gap + Math.abs(at(a) - at(b))
}

/** What nodes ask Nearcast for, answered from a list of who has joined. */
class FakeDirectory {
  readonly ports = new Map<string, number>()
  readonly #rng = seededRng(3)
  asked = 0
  isDown = false

  agent(name: string): Agent {
    const others = () =>
      [...this.ports.keys()].filter((other) => other !== name).map((other) => this.#view(name, other))
    const draw = (k: number) =>
      others()
        .toSorted(() => this.#rng() - 0.5)
        .slice(0, k)
    const fake = {
      name,
      join: async (_: string, { port }: { port: number }) => void this.ports.set(name, port),
      leave: async () => void this.ports.delete(name),
      random: async (_: string, { k }: { k: number }) => ({ members: draw(k) }),
      bootstrap: async (_: string, { near, random }: { near: number; random: number }) => {
        if (this.isDown) throw new Error('no answer')
        this.asked++
        return {
          near: others()
            .toSorted((a, b) => a.ms - b.ms)
            .slice(0, near),
          random: draw(random),
        }
      },
    }
    return fake as unknown as Agent
  }

  #view(from: string, name: string) {
    return { name, addresses: ['::1', '127.0.0.1'], port: this.ports.get(name)!, ms: predictedMs(from, name) }
  }
}

async function freeUdpPort(): Promise<number> {
  const socket = createSocket('udp4').bind(0, '127.0.0.1')
  await once(socket, 'listening')
  const { port } = socket.address()
  socket.close()
  return port
}

async function startNodes(
  t: Test,
  directory: FakeDirectory,
  asks: { near: number; random: number },
  some: readonly string[] = names,
): Promise<Map<string, OverlayNode>> {
  const nodes = new Map<string, OverlayNode>()
  for (const name of some) {
    const at = { address: '127.0.0.1', port: await freeUdpPort() }
    const pace = { discoverMs: 300, meetMs: 100 }
    const node = new OverlayNode({ agent: directory.agent(name), service: 's', ...at, ...asks, ...pace })
    await node.start()
    nodes.set(name, node)
  }
  t.teardown(() => Promise.all([...nodes.values()].map((node) => node.stop())))
  return nodes
}

const successorsOf = (nodes: ReadonlyMap<string, OverlayNode>) =>
  new Map([...nodes].map(([name, node]) => [name, node.successor?.name ?? null]))

t.test('nodes form one ring, find every key’s owner, and mend the ring when one falls silent', async (t) => {
  const directory = new FakeDirectory()
  const nodes = await startNodes(t, directory, { near: 5, random: 2 })
  await until('one ring', () => isWhole(successorsOf(nodes)))
  for (const [name, node] of nodes) {
    const keys = Array.from({ length: 10 }, (_, i) => `key ${i} of ${name}`)
    const found = await Promise.all(keys.map((key) => node.lookup(key)))
    const owners = keys.map((key) => ownerOf(key, names))
    t.same(
      found.map((one) => one?.owner.name),
      owners,
    )
    for (const one of found) if (one?.owner.name !== name) t.equal(one?.path.at(-1), one?.owner.name)
    t.ok(found.every((one) => one !== null && one.path.length <= 5 && one.ms >= 0))
  }
  const gone = 'node-3'
  await nodes.get(gone)!.stop()
  nodes.delete(gone)
  const keeps = ({ links }: OverlayNode) => links.some(({ peer }) => peer.name === gone)
  await until('nobody keeps it', () => ![...nodes.values()].some(keeps))
  await until('the others close the ring', () => isWhole(successorsOf(nodes)))
  t.equal(ownerOf(gone, names), gone, 'its own name was its own key')
  t.equal(
    (await nodes.get('node-7')!.lookup(gone))?.owner.name,
    ownerOf(gone, nodes.keys()),
    'and is another’s now',
  )
})

t.test('fingers are those that Nearcast says are nearest, or lots where none are asked for', async (t) => {
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
  const fingersOf = async (asks: { near: number; random: number }) => {
    const nodes = await startNodes(t, new FakeDirectory(), asks)
    await until('one ring', () => isWhole(successorsOf(nodes)))
    const linked = (node: OverlayNode) => node.links.map(({ peer }) => peer.name).sort()
    const best = (name: string) => bestLinks(name, names, (other) => predictedMs(name, other)).sort()
    const isBest = () => [...nodes].filter(([name, node]) => `${linked(node)}` === `${best(name)}`).length
    if (asks.near > 0) await until('the best', () => isBest() === names.length)
    else t.not(isBest(), names.length)
    const fingers = [...nodes].flatMap(([name, node]) =>
      node.links
        .filter(({ peer }) => !ringNeighbors(name, names).includes(peer.name))
        .map(({ peer }) => predictedMs(name, peer.name)),
    )
    return mean(fingers)
  }
  const near = await fingersOf({ near: 13, random: 1 })
  const lots = await fingersOf({ near: 0, random: 13 })
  t.ok(near < lots, `${near} and ${lots}`)
})

t.test('a node whose core does not answer keeps its links and asks again', async (t) => {
  const directory = new FakeDirectory()
  const nodes = await startNodes(t, directory, { near: 5, random: 2 }, names.slice(0, 4))
  await until('one ring', () => isWhole(successorsOf(nodes)))
  directory.isDown = true
  const [node] = nodes.values()
  await until('it has asked twice', () => node!.failedDiscoveries >= 2)
  t.ok(isWhole(successorsOf(nodes)))
  directory.isDown = false
  const { asked } = directory
  await until('it asks again', () => directory.asked > asked)
  t.ok(isWhole(successorsOf(nodes)))
})

/** Two halves that are far from each other, each with a directory that knows only its own. */
async function startHalves(t: Test, asks: { near: number; random: number }) {
  const directories = [new FakeDirectory(), new FakeDirectory()] as const
  const low = await startNodes(t, directories[0], asks, names.slice(0, 7))
  const high = await startNodes(t, directories[1], asks, names.slice(7))
  const all = new Map([...low, ...high])
  const areApart = () => isWhole(successorsOf(low)) && isWhole(successorsOf(high))
  await until('two rings', areApart)
  t.notOk(isWhole(successorsOf(all)))
  const introduce = () => {
    for (const [name, port] of directories[1].ports) directories[0].ports.set(name, port)
    for (const [name, port] of directories[0].ports) directories[1].ports.set(name, port)
  }
  return { directories, all, areApart, introduce }
}

t.test('two rings become one by random members', async (t) => {
  const { all, introduce } = await startHalves(t, { near: 3, random: 1 })
  introduce()
  await until('one ring', () => isWhole(successorsOf(all)))
  t.pass('of 14')
})

t.test('near members alone never join two rings that are far from each other', async (t) => {
  const { directories, areApart, introduce } = await startHalves(t, { near: 3, random: 0 })
  introduce()
  const before = directories.map(({ asked }) => asked)
  await until('all have asked thrice', () => directories.every(({ asked }, i) => asked >= before[i]! + 3 * 7))
  t.ok(areApart())
})

const COMMAND = fileURLToPath(new URL('../../examples/overlay/overlay.ts', import.meta.url))
const CLONE = '--conditions=nearcast-clone'

t.test('the command runs a node with an agent of its own, and says what is wrong with its use', async (t) => {
  const core = await startCore()
  t.teardown(() => core.process.kill('SIGKILL'))
  await nearcast(core, 'service', 'put', 'overlay')
  const token = (await nearcast(core, 'token', 'create', '--service', 'overlay')).out.trim()
  const start = async (name: string) => {
    const common = ['--core', core.url, '--token', token, '--discover', '1', '--meet', '1', '--json']
    const own = ['--name', name, '--port', `${await freeUdpPort()}`]
    const child = spawn(process.execPath, [CLONE, COMMAND, ...common, ...own], { stdio: 'pipe' })
    t.teardown(() => child.kill('SIGKILL'))
    const records: Record<string, unknown>[] = []
    createInterface({ input: child.stdout }).on('line', (line) => records.push(JSON.parse(line)))
    return { child, records }
  }
  const [a, b] = [await start('a'), await start('b')]
  await until('they are each other’s next', () => {
    return a.records.at(-1)?.successor === 'b' && b.records.at(-1)?.successor === 'a'
  })
  a.child.stdin.write('some key\n')
  await until('it is looked up', () => a.records.some(({ key }) => key === 'some key'))
  const found = a.records.find(({ key }) => key === 'some key')
  t.match(found, { owner: ownerOf('some key', ['a', 'b']), ms: Number })
  b.child.kill('SIGTERM')
  t.same(await once(b.child, 'close'), [0, null])
  await until('a is alone', () => a.records.at(-1)?.successor === null)
  a.child.kill('SIGTERM')
  t.same(await once(a.child, 'close'), [0, null])

  const wrong = spawn(process.execPath, [
    CLONE,
    COMMAND,
    '--port',
    '70000',
    '--core',
    'x',
    '--token',
    'y',
    '--name',
    'z',
  ])
  let said = ''
  wrong.stderr.on('data', (text) => {
    said += text
  })
  t.same(await once(wrong, 'close'), [2, null])
  t.match(said, /--port: got 70000, expected a whole number from 1 to 65535\nnpm run -s overlay/)
})
