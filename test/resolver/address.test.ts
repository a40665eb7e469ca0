// Addresses, prefixes and the prefix table. The table is held against a slow twin: a linear scan for the
// match, and for the scope a walk over every address of a space small enough to enumerate.

import { Worker } from 'node:worker_threads'
import t from 'tap'
import {
  type Address,
  addressFromBytes,
  contains,
  familyOf,
  formatAddress,
  formatPrefix,
  localityPrefix,
  type Prefix,
  parseAddress,
  parsePeerAddress,
  parsePrefix,
  prefixOf,
  sameAddress,
  specialKind,
} from '../../resolver/address.ts'
import type { Change, Evidence, PlacePage } from '../../resolver/directory.ts'
import { kinOf } from '../../resolver/kin.ts'
import {
  entriesOf,
  mergeIntoPage,
  type PlaceEntry,
  packPage,
  placeChanges,
  regionOf,
  unpackPage,
} from '../../resolver/place-page.ts'
import { type PlaceMemory, PlaceReader } from '../../resolver/place-reader.ts'
import { PlaceTable } from '../../resolver/place-table.ts'
import { newMatch, PrefixTable } from '../../resolver/prefix-table.ts'
import { poolEvidence, poolNetwork, type Relative } from '../../resolver/relatives.ts'
import { Tables } from '../../resolver/tables.ts'
import { PrefixTrie } from '../bench/prefix-trie.ts'
import { host } from '../support/records.ts'

/** A small seeded generator (mulberry32), so that a failure can be run again. */
function seededRng(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let x = Math.imul(state ^ (state >>> 15), 1 | state)
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32
  }
}

const address = (text: string): Address => {
  const parsed = parseAddress(text)
  if (parsed === null) throw new Error(`no address: ${text}`)
  return parsed
}
const prefix = (text: string): Prefix => {
  const parsed = parsePrefix(text)
  if (parsed === null) throw new Error(`no prefix: ${text}`)
  return parsed
}

t.test('an address has one text, whatever form it came in', async (t) => {
  const forms: readonly (readonly [string, string])[] = [
    ['192.0.2.1', '192.0.2.1'],
    ['0.0.0.0', '0.0.0.0'],
    ['255.255.255.255', '255.255.255.255'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::FFFF:c000:201', '192.0.2.1'],
    ['::', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['2001:DB8:0:0:0:0:0:1', '2001:db8::1'],
    ['2001:0db8::0001', '2001:db8::1'],
    // RFC 5952, 4.2.2: one group of zeros is not shortened; 4.2.3: the longest run, of equals the first.
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0'],
    ['::2:3:4:5:6:7:8', '0:2:3:4:5:6:7:8'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
    ['1:2:3:4:5:6:7.8.9.10', '1:2:3:4:5:6:708:90a'],
  ]
  for (const [given, canonical] of forms) {
    t.equal(formatAddress(address(given)), canonical, given)
    t.ok(sameAddress(address(given), address(canonical)), `${given} reads back`)
  }
})

t.test('what is no address is null', async (t) => {
  const bad =
    ' |1|1.2.3|1.2.3.4.5|1.2.3.256|01.2.3.4|1.2.3.-4|1.2.3.4 |1.2.3.0x4|:|:::|1:|:1|1:2:3:4:5:6:7|1:2:3:4:5:6:7:8:9|' +
    '1::2::3|1:2:3:4::5:6:7:8|12345::|g::|fe80::1%eth0|[::1]|1.2.3.4::|::1.2.3|::1.2.3.4:5|1.2.3.4:53|::ffff:1.2.3.400'
  for (const text of ['', ...bad.split('|')]) t.equal(parseAddress(text), null, JSON.stringify(text))
})

t.test('every address reads back from its own text', async (t) => {
  const rng = seededRng(1)
  for (let i = 0; i < 2000; i++) {
    const bytes = Uint8Array.from({ length: 16 }, () => (rng() < 0.6 ? 0 : Math.floor(rng() * 256)))
    if (i % 4 === 0) bytes.set([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff])
    if (!sameAddress(address(formatAddress(bytes)), bytes)) t.fail(formatAddress(bytes))
  }
  t.pass('2000 addresses')
})

t.test('a family is told from the bytes, and bytes from a family', async (t) => {
  t.equal(familyOf(address('192.0.2.1')), 4)
  t.equal(familyOf(address('::ffff:1.2.3.4')), 4)
  t.equal(familyOf(address('::fffe:1.2.3.4')), 6)
  t.equal(familyOf(address('1::ffff:1.2.3.4')), 6)
  t.equal(formatAddress(addressFromBytes(4, Uint8Array.of(192, 0, 2))!), '192.0.2.0')
  t.equal(formatAddress(addressFromBytes(6, Uint8Array.of(0x20, 1, 0xd, 0xb8))!), '2001:db8::')
  t.equal(formatAddress(addressFromBytes(4, new Uint8Array())!), '0.0.0.0')
  t.equal(addressFromBytes(4, new Uint8Array(5)), null)
  t.equal(addressFromBytes(6, new Uint8Array(17)), null)
  t.equal(formatAddress(parsePeerAddress('fe80::1%eth0')!), 'fe80::1')
  t.equal(parsePeerAddress('eth0'), null)
})

t.test('a prefix counts bits of the 16-byte form and is written in its family’s own', async (t) => {
  t.match(prefix('192.0.2.0/24'), { bits: 120 })
  t.match(prefix('192.0.2.7'), { bits: 128 })
  t.match(prefix('0.0.0.0/0'), { bits: 96 })
  t.match(prefix('2001:db8::/32'), { bits: 32 })
  for (const text of ['192.0.2.0/24', '0.0.0.0/0', '10.0.0.1/32', '::/0', '2001:db8::/47', '::1/128']) {
    t.equal(formatPrefix(prefix(text)), text)
  }
  t.equal(formatPrefix(prefix('2001:db8::1')), '2001:db8::1/128')
  const bad = [
    '192.0.2.1/24',
    '2001:db8::1/32',
    '1.2.3.4/33',
    '::/129',
    '1.2.3.0/',
    '1.2.3.0/-1',
    '1.2.3.0/024',
    '/8',
    '1.2.3.0/24/1',
  ]
  for (const text of ['10.0.0.1/25', '2001:db8::1/127']) t.equal(parsePrefix(text), null, text)
  for (const text of bad) t.equal(parsePrefix(text), null, text)
  t.equal(formatPrefix(localityPrefix(address('203.0.113.77'))), '203.0.113.0/24')
  t.equal(formatPrefix(localityPrefix(address('2001:db8:1:2::3'))), '2001:db8:1::/48')
})

t.test('contains and prefixOf agree at every length', async (t) => {
  const inside = address('2001:db8:a5a5:5a5a:ffff:0:1234:8001')
  for (let bits = 0; bits <= 128; bits++) {
    const around = prefixOf(inside, bits)
    t.ok(contains(around, inside), `/${bits}`)
    if (bits === 0) continue
    const outside = inside.slice()
    outside[(bits - 1) >> 3]! ^= 0x80 >> ((bits - 1) & 7)
    t.notOk(contains(around, outside), `/${bits} ends where it says`)
  }
})

t.test('special-purpose addresses are named, ordinary ones are not', async (t) => {
  const kinds: readonly (readonly [string, string | null])[] = [
    ['127.0.0.1', 'loopback'],
    ['10.1.2.3', 'private'],
    ['172.31.255.255', 'private'],
    ['172.32.0.0', null],
    ['192.168.1.1', 'private'],
    ['169.254.1.1', 'link-local'],
    ['100.64.0.1', 'shared'],
    ['100.128.0.1', null],
    ['198.19.0.1', 'benchmark'],
    ['192.0.2.1', 'documentation'],
    ['224.0.0.1', 'multicast'],
    ['240.0.0.1', 'reserved'],
    ['255.255.255.255', 'broadcast'],
    ['0.0.0.0', 'unspecified'],
    ['0.0.0.1', 'reserved'],
    ['8.8.8.8', null],
    ['::', 'unspecified'],
    ['::1', 'loopback'],
    ['::ffff:127.0.0.1', 'loopback'],
    ['fe80::1', 'link-local'],
    ['fd00::1', 'unique-local'],
    ['ff02::1', 'multicast'],
    ['2001:db8::1', 'documentation'],
    ['2001:500::1', null],
    ['2001:1ff::1', 'reserved'],
    ['2001:4860:4860::8888', null],
    ['4000::1', 'reserved'],
    ['::2', 'reserved'],
  ]
  for (const [text, kind] of kinds) t.equal(specialKind(address(text)), kind, text)
})

/** The slow twin: every prefix is looked at; a scope is tried from the widest, over every address of it. */
class SlowTable {
  readonly entries = new Map<string, { prefix: Prefix; value: number }>()

  find(sought: Address): { value: number; bits: number } {
    let best = { value: -1, bits: 0 }
    for (const { prefix, value } of this.entries.values()) {
      if (contains(prefix, sought) && (best.value < 0 || prefix.bits >= best.bits))
        best = { value, bits: prefix.bits }
    }
    return best
  }

  /** `space`: all the addresses there are, under `spaceBits` common bits. */
  scopeBits(sought: Address, space: readonly Address[], spaceBits: number): number {
    const own = this.find(sought)
    for (let bits = spaceBits; bits < 128; bits++) {
      const around = prefixOf(sought, bits)
      const differs = space.some(
        (other) =>
          sameAddress(prefixOf(other, bits).address, around.address) && !sameMatch(this.find(other), own),
      )
      if (!differs) return bits
    }
    return 128
  }
}

function sameMatch(a: { value: number; bits: number }, b: { value: number; bits: number }): boolean {
  return a.value === b.value && a.bits === b.bits
}

t.test('a table finds what a linear scan finds, through sets, replacements and deletions', async (t) => {
  const rng = seededRng(2)
  const pick = (n: number) => Math.floor(rng() * n)
  for (const root of ['192.0.2.0', '2001:db8::8000']) {
    const fast = new PrefixTable()
    const slow = new SlowTable()
    // Few distinct bytes, so that prefixes nest, collide and part at every depth.
    const randomAddress = () => {
      const bytes = address(root).slice()
      for (let i = root.includes(':') ? 4 : 12; i < 16; i++) bytes[i] = [0, 1, 128, 255][pick(4)]!
      return bytes
    }
    for (let step = 0; step < 3000; step++) {
      const bits = root.includes(':') ? pick(129) : 96 + pick(33)
      const at = prefixOf(randomAddress(), bits)
      const key = formatPrefix(at)
      if (rng() < 0.55) {
        fast.set(at, step)
        slow.entries.set(key, { prefix: at, value: step })
      } else if (fast.delete(at) !== slow.entries.delete(key)) t.fail(`delete ${key}`)
      const sought = randomAddress()
      const found = fast.find(sought)
      if (!sameMatch(found, slow.find(sought))) t.fail(`step ${step}: ${formatAddress(sought)}`)
      if (fast.get(at) !== (slow.entries.get(key)?.value ?? -1)) t.fail(`step ${step}: ${key}`)
      if (found.scopeBits < found.bits) t.fail(`step ${step}: a scope wider than its match`)
    }
    t.equal(fast.size, slow.entries.size)
    for (const { prefix } of slow.entries.values()) if (!fast.delete(prefix)) t.fail(formatPrefix(prefix))
    t.equal(fast.size, 0)
    t.match(
      fast.find(address('2001::')),
      { value: -1, bits: 0, scopeBits: 0 },
      'empty again, and nothing is left in the way',
    )
  }
})

t.test(
  'what lies inside a prefix is visited from the nearest address outward, as far as it is wanted',
  async (t) => {
    const rng = seededRng(5)
    const pick = (n: number) => Math.floor(rng() * n)
    const sharedBits = (a: Address, b: Address) => {
      const at = a.findIndex((byte, i) => byte !== b[i])
      return at < 0 ? 128 : 8 * at + Math.clz32(a[at]! ^ b[at]!) - 24
    }
    for (const root of ['192.0.2.0', '2001:db8::8000']) {
      const randomAddress = () => {
        const bytes = address(root).slice()
        for (let i = root.includes(':') ? 4 : 12; i < 16; i++) bytes[i] = [0, 1, 128, 255][pick(4)]!
        return bytes
      }
      const table = new PrefixTable()
      const entries = new Map<string, Prefix>()
      const inside = (at: Prefix, limit: number) => {
        const values: number[] = []
        table.visitInside(at, (value) => values.push(value) < limit)
        return values
      }
      t.same(inside({ address: address(root), bits: 96 }, 9), [], 'nothing in an empty table')
      for (let i = 0; i < 200; i++) {
        const at = prefixOf(randomAddress(), 110 + pick(19))
        if (entries.has(formatPrefix(at))) continue
        entries.set(formatPrefix(at), at)
        table.set(at, i)
      }
      const byValue = new Map([...entries.values()].map((at) => [table.get(at), at.address]))
      for (let round = 0; round < 300; round++) {
        const around = { address: randomAddress(), bits: 96 + pick(33) }
        const wanted = [...entries.values()].filter(
          (at) => at.bits >= around.bits && sharedBits(at.address, around.address) >= around.bits,
        )
        const all = inside(around, 1000)
        t.equal(new Set(all).size, wanted.length)
        const shared = all.map((value) => sharedBits(byValue.get(value)!, around.address))
        t.same(
          shared,
          shared.toSorted((a, b) => b - a),
        )
        t.same(inside(around, 3), all.slice(0, 3))
      }
    }
  },
)

t.test('a scope is the largest prefix in which every address finds the same entry', async (t) => {
  const rng = seededRng(3)
  const pick = (n: number) => Math.floor(rng() * n)
  for (const [base, spaceBits] of [
    ['0.0.0.0', 96],
    ['::', 0],
  ] as const) {
    // Only the first 6 bits of the family vary: 64 addresses stand for the whole space.
    const space = Array.from({ length: 64 }, (_, i) => {
      const bytes = address(base).slice()
      bytes[spaceBits / 8] = i << 2
      return bytes
    })
    for (let round = 0; round < 60; round++) {
      const fast = new PrefixTable()
      const slow = new SlowTable()
      for (let i = pick(12); i >= 0; i--) {
        const at = prefixOf(space[pick(64)]!, spaceBits + pick(7))
        fast.set(at, i)
        slow.entries.set(formatPrefix(at), { prefix: at, value: i })
        if (rng() < 0.3) {
          fast.delete(at)
          slow.entries.delete(formatPrefix(at))
        }
      }
      for (const sought of space) {
        const scopeBits = slow.scopeBits(sought, space, spaceBits)
        if (fast.find(sought).scopeBits !== scopeBits)
          t.fail(`round ${round} ${formatAddress(sought)}: ${scopeBits}`)
      }
    }
  }
  t.pass('60 tables in each family')
})

t.test('an IPv4 scope never leaves IPv4, and a more specific entry shortens nothing wrongly', async (t) => {
  const table = new PrefixTable()
  t.equal(table.find(address('192.0.2.1')).scopeBits, 96)
  table.set(prefix('2001:db8::/32'), 1)
  t.equal(table.find(address('192.0.2.1')).scopeBits, 96)
  table.set(prefix('192.0.2.0/24'), 2)
  table.set(prefix('192.0.2.128/25'), 3)
  t.match(table.find(address('192.0.2.1')), { value: 2, bits: 120, scopeBits: 121 })
  t.match(table.find(address('192.0.2.200')), { value: 3, bits: 121, scopeBits: 121 })
  t.match(table.find(address('192.0.3.1')), { value: -1, bits: 0, scopeBits: 120 })
  t.match(table.find(address('10.0.0.1')), { value: -1, scopeBits: 97 })
  t.throws(() => table.set(prefix('10.0.0.0/8'), -1), RangeError)
  t.throws(() => table.set(prefix('10.0.0.0/8'), 1.5), RangeError)
})

t.test('no IPv6 prefix holds an IPv4 address, however short it is', async (t) => {
  for (const text of ['::/0', '::/48', '::/90']) {
    const table = new PrefixTable()
    table.set(prefix(text), 7)
    t.match(table.find(address('10.1.2.3')), { value: -1, bits: 0 }, text)
    t.match(table.find(address('::5')), { value: 7 }, text)
    t.notOk(contains(prefix(text), address('10.1.2.3')), text)
  }
})

t.test('IPv4 is a place of its own beside IPv6', async (t) => {
  const table = new PrefixTable()
  const trie = new PrefixTrie()
  const texts = ['::/0', '::/90', '::fffe:0:0/96', '10.0.0.0/8', '0.0.0.0/0', '::/64']
  const seekers = [
    '::',
    '::fffe:1.2.3.4',
    '::fffd:1.2.3.4',
    '::1:0:0:1',
    '2001:db8::',
    '10.1.2.3',
    '11.0.0.0',
  ]
  for (const remove of [false, true]) {
    for (const [i, text] of texts.entries()) {
      if (remove) t.equal(table.delete(prefix(text)), trie.delete(prefix(text)))
      else {
        table.set(prefix(text), i)
        trie.set(prefix(text), i)
      }
      for (const seeker of seekers) {
        t.strictSame({ ...table.find(address(seeker)) }, trie.find(address(seeker)), `${text}: ${seeker}`)
      }
    }
  }
})

t.test('a large table is as its twin through growth, removal and all in between', async (t) => {
  const rng = seededRng(4)
  const pick = (n: number) => Math.floor(rng() * n)
  for (const ipv6 of [false, true]) {
    const table = new PrefixTable()
    const trie = new PrefixTrie()
    const known: Prefix[] = []
    const match = newMatch()
    // Crowded on few first bytes, as real tables are, so that chunks split and join often.
    const randomAddress = () => {
      const bytes = Uint8Array.from({ length: 16 }, () => (rng() < 0.3 ? 0 : pick(256)))
      if (ipv6) bytes.set([0x20, 1 + pick(2), pick(4)])
      else bytes.set([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 8 * pick(8)])
      return bytes
    }
    const check = (sought: Address) => {
      const { value, bits, scopeBits } = table.find(sought, match)
      const twin = trie.find(sought)
      if (value !== twin.value || bits !== twin.bits || scopeBits !== twin.scopeBits)
        t.fail(`${formatAddress(sought)}: ${JSON.stringify({ match, twin })}`)
    }
    const put = (at: Prefix, value: number) => {
      table.set(at, value)
      trie.set(at, value)
      known.push(at)
    }
    const take = (i: number) => {
      const at = known[i]!
      known[i] = known.at(-1)!
      known.pop()
      if (table.delete(at) !== trie.delete(at)) t.fail(`delete ${formatPrefix(at)}`)
    }
    for (const [steps, growth] of [
      [15_000, 0.9],
      [10_000, 0.5],
      [30_000, 0.2],
    ] as const) {
      for (let step = 0; step < steps; step++) {
        const low = ipv6 ? 12 : 98
        if (rng() < growth) put(prefixOf(randomAddress(), low + pick(ipv6 ? 60 : 31)), step)
        else if (known.length > 0) take(pick(known.length))
        check(randomAddress())
        if (known.length > 0) check(known[pick(known.length)]!.address)
      }
      t.equal(table.size, trie.size)
    }
    while (known.length > 0) take(known.length - 1)
    t.equal(table.size, 0)
  }
})

t.test('a search writes into the caller’s record', async (t) => {
  const table = new PrefixTable()
  table.set(prefix('10.0.0.0/8'), 5)
  const match = newMatch()
  t.equal(table.find(address('10.1.1.1'), match), match)
  t.same(match, { value: 5, bits: 104, scopeBits: 104 })
  t.equal(table.find(address('2001::'), match), match)
  t.same(match, { value: -1, bits: 0, scopeBits: 3 })
})

// Imported places.

const entry = (text: string, lat: number, more: Partial<PlaceEntry['fact']> = {}): PlaceEntry => ({
  prefix: prefix(text),
  fact: { place: { lat, lon: -2.5, accuracyKm: 25 }, asn: null, country: null, source: 'a', ...more },
})
const told = (entries: readonly PlaceEntry[]) =>
  entries.map(({ prefix, fact }) => [
    formatPrefix(prefix),
    fact.place.lat,
    fact.asn,
    fact.country,
    fact.source,
  ])

t.test('another thread finds each page whole, before or after it was put there', async (t) => {
  const table = new PlaceTable()
  // In turn: all of the region in one place; or its /24s in two others, and in a third what is around them.
  const pages = [
    packPage([entry('10.0.0.0/12', 1)]),
    packPage([
      entry('10.0.0.0/12', 3),
      ...Array.from({ length: 300 }, (_, i) => entry(`10.${i >> 8}.${i & 255}.0/24`, i % 2 === 0 ? 4 : 2)),
    ]),
  ]
  table.setPage('10.0.0.0/12', pages[0]!)
  const moved: PlaceMemory[] = []
  const shared = table.share((memory) => moved.push(memory))
  const first = shared.memory
  table.setPage('10.0.0.0/12', pages[1]!)
  t.ok(moved.length > 0, 'it grew, and went on in other memory')
  const reader = new PlaceReader()
  reader.follow(first)
  const found = () => reader.fact(reader.find(address('10.0.9.9')).value)!.place.lat
  t.equal(found(), 1, 'and what it left behind stands')
  reader.follow(moved.at(-1)!)
  t.same([found(), reader.size, table.size], [2, 301, 301])

  const worker = new Worker(
    `const { parentPort, receiveMessageOnPort, workerData } = require('node:worker_threads')
    import(workerData.module).then(({ PlaceReader }) => {
      const reader = new PlaceReader()
      reader.follow(workerData.memory)
      const seen = new Set()
      parentPort.postMessage('ready')
      for (let i = 0; i < 200000; i++) {
        const news = i % 100 === 0 && receiveMessageOnPort(parentPort)
        if (news) reader.follow(news.message)
        const match = reader.find(workerData.sought)
        seen.add([reader.fact(match.value)?.place.lat, match.bits, match.scopeBits].join(' '))
      }
      parentPort.postMessage([...seen])
    })`,
    {
      eval: true,
      workerData: {
        module: new URL('../../resolver/place-reader.ts', import.meta.url).href,
        memory: moved.at(-1),
        sought: address('10.0.9.9'),
      },
    },
  )
  const following = table.share((memory) => worker.postMessage(memory))
  let turns = 0
  const seen = await new Promise<string[]>((resolve, reject) => {
    worker.once('error', reject)
    let done = false
    const change = () => {
      table.setPage('10.0.0.0/12', pages[turns++ % 2]!)
      if (!done) setImmediate(change)
    }
    worker.on('message', (message) => {
      if (message === 'ready') return change()
      done = true
      resolve(message)
    })
  })
  await worker.terminate()
  t.ok(turns > 10, `${turns} turns`)
  t.same(
    seen.filter((found) => found !== '1 108 108' && found !== '2 120 120'),
    [],
    `of ${seen.join(', ')}`,
  )
  for (const { end } of [shared, following]) end()
})

t.test('a page keeps each prefix once, in order, with what was last said of it', async (t) => {
  const first = [
    entry('10.0.0.128/25', 1.5, { asn: 4_294_967_295, country: 'CH' }),
    entry('10.0.0.0/24', -90, { source: 'b' }),
    entry('10.0.0.0/16', 90),
  ]
  const packed = packPage(first)
  t.same(told(entriesOf(packed)), [
    ['10.0.0.0/16', 90, null, null, 'a'],
    ['10.0.0.0/24', -90, null, null, 'b'],
    ['10.0.0.128/25', 1.5, 4_294_967_295, 'CH', 'a'],
  ])
  t.same(packPage(entriesOf(packed)), packed, 'packing what was unpacked gives the same')
  const merged = mergeIntoPage(packed, [
    entry('10.0.1.0/24', 3),
    entry('10.0.0.0/24', 2),
    entry('10.0.0.0/8', 4),
    entry('10.0.1.0/24', 5),
  ])
  t.same(
    told(entriesOf(merged)).map(([text, lat]) => [text, lat]),
    [
      ['10.0.0.0/8', 4],
      ['10.0.0.0/16', 90],
      ['10.0.0.0/24', 2],
      ['10.0.0.128/25', 1.5],
      ['10.0.1.0/24', 5],
    ],
  )
  t.same(mergeIntoPage(null, []), packPage([]))
  t.same(entriesOf(packPage([])), [])
  for (const [text, region] of [
    ['192.0.2.0/24', '192.0.0.0/12'],
    ['192.0.0.0/11', '0.0.0.0/0'],
    ['2001:db8::/32', '2001::/20'],
    ['2000::/3', '::/0'],
    ['::/90', '::/20'],
  ] as const) {
    t.equal(regionOf(prefix(text)), region, text)
  }
})

t.test('what is no page is null, whatever it is', async (t) => {
  const rng = seededRng(5)
  const pages = [
    packPage([entry('10.0.0.0/8', 1, { asn: 5, country: 'CH' }), entry('10.1.0.0/16', 2)]),
    packPage([entry('2001:db8::/32', 1), entry('2001:db8:1::/48', 2, { source: 'b' })]),
  ]
  for (const page of pages) {
    for (let end = 0; end < page.length; end++) t.equal(unpackPage(page.subarray(0, end)), null)
    t.equal(unpackPage(Uint8Array.of(...page, 0)), null, 'nothing may follow')
    for (let i = 0; i < 5000; i++) {
      const damaged = page.slice()
      for (let n = 0; n <= i % 3; n++) damaged[Math.floor(rng() * page.length)] = Math.floor(rng() * 256)
      const read = unpackPage(damaged)
      if (read?.facts.some(({ place }) => !(Math.abs(place.lat) <= 90 && Math.abs(place.lon) <= 180)))
        t.fail('a place off the Earth')
    }
  }
  const table = new PlaceTable()
  table.setPage('10.0.0.0/12', Uint8Array.of(9, 9, 9))
  t.equal(table.size, 0)
})

t.test('an address has the place of the longest prefix, in pages that come, change and go', async (t) => {
  const rng = seededRng(6)
  const pick = (n: number) => Math.floor(rng() * n)
  for (const base of ['10.0.0.0', '2001:db8::']) {
    const ipv6 = base.includes(':')
    const pages = new Map<string, PlacePage>()
    const table = new PlaceTable()
    const known = new SlowTable()
    const lats = new Map<string, number>()
    const randomAddress = () => {
      const bytes = address(base).slice()
      for (let at = ipv6 ? 2 : 13, end = at + 3; at < end; at++)
        bytes[at] = [0, 1, 64, 128, 129, 255][pick(6)]!
      if (!ipv6) bytes[12] = 8 + pick(4)
      return bytes
    }
    const apply = (change: Change) => {
      if (change.kind !== 'places') throw new Error(change.kind)
      table.setPage(change.key, change.value?.packed ?? null)
      if (change.value) pages.set(change.key, change.value)
      else pages.delete(change.key)
    }
    for (let step = 0; step < 400; step++) {
      if (rng() < 0.9) {
        const entries = Array.from({ length: 1 + pick(8) }, () => {
          const at = prefixOf(randomAddress(), (ipv6 ? 12 : 100) + pick(28))
          // Few places, so that many agree with those around and beside them.
          return { ...entry('::/0', pick(3)), prefix: at }
        })
        for (const { prefix, fact } of entries) {
          const key = formatPrefix(prefix)
          known.entries.set(key, { prefix, value: fact.place.lat })
          lats.set(key, fact.place.lat)
        }
        for (const change of placeChanges(pages, entries)) apply(change)
      } else if (pages.size > 0) {
        const region = [...pages.keys()][pick(pages.size)]!
        for (const { prefix } of entriesOf(pages.get(region)!.packed))
          known.entries.delete(formatPrefix(prefix))
        apply({ kind: 'places', key: region, value: null })
      }
      for (let i = 0; i < 20; i++) {
        const sought = randomAddress()
        const expected = known.find(sought).value
        const { value, scopeBits } = table.find(sought)
        const found = table.fact(value)?.place.lat ?? -1
        if (found !== expected) t.fail(`step ${step}, ${formatAddress(sought)}: ${found}, not ${expected}`)
        // Wherever else in the scope, the place is the same.
        const other = prefixOf(randomAddress(), 128).address
        for (let bit = 0; bit < scopeBits; bit++) {
          const mask = 0x80 >> (bit & 7)
          other[bit >> 3] = (other[bit >> 3]! & ~mask) | (sought[bit >> 3]! & mask)
        }
        if (known.find(other).value !== expected)
          t.fail(
            `step ${step}: ${formatAddress(other)} is in the scope of ${formatAddress(sought)}, and elsewhere`,
          )
      }
    }
    t.equal(table.size, known.entries.size)
    t.ok(table.compiledSize < table.size, `${table.compiledSize} of ${table.size} are needed`)
    for (const region of [...pages.keys()]) apply({ kind: 'places', key: region, value: null })
    t.equal(table.size + table.compiledSize, 0)
  }
})

t.test('prefixes that agree become one, and its scope is as wide', async (t) => {
  const table = new PlaceTable()
  const put = (...entries: PlaceEntry[]) => {
    for (const change of placeChanges(new Map(), entries))
      if (change.kind === 'places') table.setPage(change.key, change.value!.packed)
  }
  put(entry('10.0.0.0/24', 1), entry('10.0.1.0/24', 1), entry('10.0.2.0/23', 1), entry('10.0.2.64/26', 1))
  t.equal(table.compiledSize, 1)
  t.match(table.find(address('10.0.3.9')), { bits: 118, scopeBits: 118 })
  put(entry('10.0.0.0/24', 1), entry('10.0.1.0/24', 2), entry('10.0.2.0/23', 1))
  t.match(table.find(address('10.0.0.9')), { scopeBits: 120 })
  t.match(table.find(address('10.0.3.9')), { scopeBits: 119 })
  put(entry('10.0.0.0/22', 3), entry('10.0.0.0/23', 1), entry('10.0.2.0/23', 1))
  t.equal(table.compiledSize, 1, 'what is wholly covered says nothing')
  put(entry('10.0.0.0/24', 1, { asn: 1 }), entry('10.0.1.0/24', 1, { asn: 2 }))
  t.equal(table.compiledSize, 2, 'one place, but two networks')
})

// What relatives say.

const seen = (rtts: Readonly<Record<string, number>>, over: Partial<Evidence> = {}): Evidence[] =>
  Object.entries(rtts).map(([host, rttMs]) => ({ host, rttMs, count: 3, atMs: 5, kind: 'active', ...over }))
const measured = (text: string, rtts: Readonly<Record<string, number>>): Relative => ({
  prefix: prefix(text),
  evidence: seen(rtts),
})

t.test('relatives that agree are pooled, host by host, as nobody’s own', async (t) => {
  const one = measured('10.0.0.0/24', { a: 10, b: 50 })
  t.match(poolEvidence([one]), [
    { host: 'a', rttMs: 10, count: 0, kind: 'active' },
    { host: 'b', rttMs: 50, count: 0 },
  ])
  t.match(poolEvidence([one, measured('10.0.1.0/24', { a: 14 }), measured('10.0.2.0/24', { a: 12, c: 5 })]), [
    { host: 'c', rttMs: 5 },
    { host: 'a', rttMs: 12 },
    { host: 'b', rttMs: 50 },
  ])
  t.equal(poolEvidence([one, measured('10.0.1.0/24', { a: 16 })]), null, 'more than 5 ms apart at 10 ms')
  t.ok(poolEvidence([one, measured('10.0.1.0/24', { b: 59 })]), 'within a fifth at 50 ms')
  t.equal(poolEvidence([one, measured('10.0.1.0/24', { c: 16 })]), null, 'no host in common: nobody can tell')
  t.same(
    poolEvidence([{ ...one, evidence: seen({ a: 1 }, { kind: 'client' }) }]),
    [],
    'a client’s word is its own',
  )
  t.same(poolEvidence([{ ...one, evidence: seen({ a: 1 }, { count: 0 }) }]), [], 'nor is what was inherited')
})

t.test('children that disagree split their network until those in each part agree', async (t) => {
  const parts = (...children: Relative[]) =>
    poolNetwork(prefix('10.0.0.0/16'), children)
      .map(({ prefix, evidence }) => `${formatPrefix(prefix)} ${evidence.map(({ rttMs }) => rttMs).join()}`)
      .sort()
  t.same(parts(), [])
  t.same(parts(measured('10.0.0.0/24', { a: 10 })), ['10.0.0.0/16 10'])
  t.same(parts(measured('10.0.0.0/24', { a: 10 }), measured('10.0.255.0/24', { a: 11 })), ['10.0.0.0/16 11'])
  t.same(parts(measured('10.0.0.0/24', { a: 10 }), measured('10.0.255.0/24', { a: 90 })), [
    '10.0.0.0/17 10',
    '10.0.128.0/17 90',
  ])
  t.same(
    parts(
      measured('10.0.0.0/24', { a: 10 }),
      measured('10.0.1.0/24', { a: 90 }),
      measured('10.0.128.0/24', { a: 10 }),
    ),
    ['10.0.0.0/24 10', '10.0.1.0/24 90', '10.0.128.0/17 10'],
    'a half whose children differ at its very end has no word for the rest of it',
  )
})

t.test(
  'an address backs off to its announced prefix, then to its AS and country, and no further',
  async (t) => {
    const tables = new Tables()
    const pages = new Map<string, PlacePage>()
    const import_ = (...entries: PlaceEntry[]) => {
      const changes = placeChanges(pages, entries)
      for (const change of changes) if (change.kind === 'places') pages.set(change.key, change.value!)
      tables.apply(changes)
    }
    const measure = (text: string, rtts: Readonly<Record<string, number>> | null) => {
      const value = rtts && { prefix: text, evidence: seen(rtts), incumbents: {} }
      tables.apply([{ kind: 'localities', key: text, value }])
    }
    const at = (text: string) => {
      const row = tables.locality(tables.findEvidence(address(text)).value)
      return row?.evidence.map(({ host, rttMs, count }) => `${host} ${rttMs} ${count}`).join() ?? null
    }
    measure('10.0.7.0/24', { a: 10 })
    t.equal(at('10.0.8.1'), null, 'without imports nobody knows who belongs together')
    import_(
      entry('10.0.0.0/16', 1, { asn: 64_500, country: 'CH' }),
      entry('10.0.128.0/20', 1, { asn: 64_501, country: 'CH' }),
      entry('10.64.0.0/16', 2, { asn: 64_500, country: 'CH' }),
      entry('10.65.0.0/16', 3, { asn: 64_500, country: 'JP' }),
      entry('2001:db8::/32', 3, { asn: 64_500, country: 'CH' }),
    )
    t.equal(at('10.0.7.9'), 'a 10 3', 'its own')
    t.equal(at('10.0.8.1'), 'a 10 0', 'its announced prefix')
    t.equal(at('10.0.128.1'), null, 'a more specific announcement is another network')
    t.equal(at('10.64.1.1'), 'a 10 0', 'its AS in its country')
    t.equal(at('2001:db8:1::1'), 'a 10 0', 'in either family')
    t.equal(at('10.65.1.1'), null, 'its AS elsewhere is not there')
    t.equal(at('10.9.1.1'), null)
    measure('10.64.0.0/24', { a: 80 })
    t.equal(at('10.64.1.1'), 'a 80 0')
    t.equal(at('10.0.8.1'), 'a 10 0')
    t.equal(at('2001:db8:1::1'), null, 'an AS whose prefixes disagree has no word')
    measure('10.0.9.0/24', { a: 30 })
    t.equal(at('10.0.8.1'), 'a 30 0', 'the half that it shares with the nearest')
    t.equal(at('10.0.100.1'), null)
    import_(entry('10.0.8.0/22', 1, { asn: 64_502 }))
    t.equal(at('10.0.8.1'), 'a 30 0', 'announced by another now, together with the one measured')
    t.equal(at('10.0.100.1'), 'a 10 0', 'which leaves its old network at one')
    measure('10.0.9.0/24', null)
    measure('10.0.7.0/24', null)
    t.equal(at('10.0.8.1'), null)
    t.equal(at('10.0.100.1'), 'a 80 0', 'only the AS is left')
    measure('10.64.0.0/24', null)
    for (const region of pages.keys()) tables.apply([{ kind: 'places', key: region, value: null }])
    t.equal(at('10.64.1.1'), null)
  },
)

t.test('kin are the live hosts of a client’s own network, the nearest address first', async (t) => {
  const tables = new Tables()
  const kin = (text: string, limit = 9, fits: (row: number) => boolean = () => true) =>
    kinOf(tables, address(text), fits, limit).map(
      ({ row, isNeighbour }) => tables.hostName(row) + (isNeighbour ? '!' : ''),
    )
  tables.apply([
    host('a', ['11.1.0.1']),
    host('b', ['11.1.4.1']),
    host('c', ['11.1.5.1', '11.1.4.9', '2600:1:2::1']),
    host('d', ['11.1.16.1']),
    host('unproven', ['11.1.4.2'], { proofs: {} }),
    host('silent', ['11.1.4.3'], { presence: 'silent' }),
    host('private', ['10.0.0.1']),
  ])
  t.same(kin('11.1.4.4'), ['b!', 'c!', 'a'], 'a /20 where nothing was imported')
  t.same(kin('11.1.5.200'), ['c!', 'b', 'a'])
  t.same(kin('11.1.4.4', 1), ['b!'])
  t.same(
    kin('11.1.4.200', 9, (row) => row !== tables.hostRow('b')),
    ['c!', 'a'],
  )
  t.same(kin('2600:1:5::9'), ['c'], 'a /40')
  t.same(kin('2600:100:5::9'), [])
  t.same(kin('10.0.0.9'), [], 'who shares a private range need not be near')
  const pages = placeChanges(new Map(), [
    entry('11.0.0.0/8', 1, { asn: 64_500 }),
    entry('11.1.0.0/18', 1, { asn: 64_501 }),
    entry('11.1.4.0/23', 1, { asn: 64_502 }),
  ])
  tables.apply(pages)
  t.same(kin('11.1.4.4'), ['b!', 'c!'], 'the network that is announced')
  t.same(kin('11.1.0.200'), ['a!', 'd'], 'a more specific announcement is another')
  t.same(kin('11.2.0.1'), [], 'what is announced too wide is cut at a /16')
  tables.apply(Array.from({ length: 300 }, (_, i) => host(`n${i}`, [`11.1.${40 + (i >> 7)}.${i & 127}`])))
  const isA = (row: number) => row === tables.hostRow('a')
  t.same(kin('11.1.40.0', 9, isA), [], 'a crowd that does not fit is not looked through')
})

t.test('what relatives say is the same whatever way it came to be', async (t) => {
  const rng = seededRng(8)
  const pick = (n: number) => Math.floor(rng() * n)
  const grown = new Tables()
  const pages = new Map<string, PlacePage>()
  const records = new Map<string, Change>()
  const randomText = () => `10.${pick(2)}.${[0, 1, 2, 64, 128, 130][pick(6)]}.0`
  const clients = Array.from({ length: 60 }, (_, i) => address(`10.${i % 2}.${(i * 37) % 200}.9`))
  const story = (tables: Tables) =>
    clients.map((client) => {
      const { value, scopeBits } = tables.findEvidence(client)
      return `${tables.locality(value)?.evidence.map(({ host, rttMs, count }) => `${host} ${rttMs} ${count}`)} /${scopeBits}`
    })
  for (let step = 0; step < 600; step++) {
    if (rng() < 0.6) {
      const text = `${randomText()}/24`
      const rtts = Object.fromEntries(['a', 'b', 'c'].slice(pick(3)).map((host) => [host, 10 + 4 * pick(4)]))
      const value = rng() < 0.3 ? null : { prefix: text, evidence: seen(rtts), incumbents: {} }
      const change: Change = { kind: 'localities', key: text, value }
      records.set(text, change)
      grown.apply([change])
    } else {
      const bits = 112 + pick(9)
      const fact = { asn: pick(2) === 0 ? null : 64_500 + pick(3), country: pick(2) === 0 ? 'CH' : null }
      const added = { ...entry('::/0', pick(2), fact), prefix: prefixOf(address(randomText()), bits) }
      const [change] = placeChanges(pages, [added])
      if (change?.kind !== 'places') throw new Error('no page')
      pages.set(change.key, change.value!)
      grown.apply([change])
    }
    if (step % 10 > 0) continue
    const fresh = new Tables()
    fresh.apply([...records.values()])
    fresh.apply(Array.from(pages, ([key, value]) => ({ kind: 'places', key, value })))
    t.same(story(grown), story(fresh), `step ${step}`)
  }
})
