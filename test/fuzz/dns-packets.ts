// Packets to frighten a DNS server with: a corpus, and seeded mutations of it. Pure but for readPackets.
//
// The own corpus has a valid query of every kind and malformed ones written by hand: compression loops, counts
// and lengths that lie, options that end too soon. Any other may be given as a file: for each packet its length
// as uint16, little end first, and its bytes; gzipped or not.

import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { queryBytes, subnet } from '../support/dns-fixture.ts'

/** Throws where the file is none. */
export function readPackets(path: string): Buffer[] {
  const raw = readFileSync(path)
  const bytes = raw[0] === 0x1f && raw[1] === 0x8b ? gunzipSync(raw) : raw
  const packets: Buffer[] = []
  for (let at = 0; at < bytes.length; ) {
    const end = at + 2 + (at + 2 <= bytes.length ? bytes.readUInt16LE(at) : bytes.length)
    if (end > bytes.length)
      throw new Error(`${path}: expected packets, each behind its length, at byte ${at}`)
    packets.push(bytes.subarray(at + 2, end))
    at = end
  }
  return packets
}

const NAMES: readonly (readonly [name: string, types: readonly string[]])[] = [
  ['any.test', ['SOA', 'NS', 'A', 'ANY']],
  ['mirror.any.test', ['A', 'AAAA', 'HTTPS', 'SVCB', 'TXT', 'ANY', 'AXFR', 'TYPE666']],
  ['www.any.test', ['A', 'CNAME', 'HTTPS']],
  ['mirror.example.org', ['A', 'NS', 'SOA']],
  ['ams.mirror.any.test', ['A', 'AAAA']],
  ['gone.mirror.any.test', ['A']],
  ['_https._tcp.mirror.any.test', ['SRV', 'A']],
  ['_tcp.mirror.any.test', ['A']],
  ['_why.wide.any.test', ['TXT', 'A']],
  ['wide.any.test', ['A', 'AAAA']],
  ['last.any.test', ['A']],
  ['spare.any.test', ['A', 'AAAA']],
  ['void.any.test', ['A']],
  ['dice.any.test', ['A']],
  ['nothing.any.test', ['A']],
  ['example.com', ['A']],
]

const OPTIONS: readonly (readonly unknown[] | null)[] = [
  null,
  [],
  [subnet('100.64.1.0', 24)],
  [subnet('2001:db8:c::', 56)],
  [{ code: 8, data: Buffer.alloc(4) }],
  [{ code: 3, data: Buffer.alloc(0) }],
  [{ code: 10, data: Buffer.alloc(8, 7) }],
  [{ code: 10, data: Buffer.alloc(24, 1) }],
  [{ code: 11, data: Buffer.alloc(0) }],
  [subnet('100.64.2.0', 24), { code: 10, data: Buffer.alloc(8) }, { code: 65001, data: Buffer.alloc(40) }],
]

const MIRROR = '066d6972726f7203616e79047465737400'

/** By hand, in hex. */
const MALFORMED: readonly string[] = [
  // Pointers: to itself, to another that points back, forward, behind the end, in the middle of the length.
  '123401000001000000000000c00c00010001',
  '123401000001000000000000c00e00010001c00c',
  '123401000001000000000000056c6f6f7031c00c00010001',
  '123401000001000000000000c0ff00010001',
  '123401000001000000000000c0',
  `123401000001000000000001${MIRROR}00010001c01d0001000100000000000401020304`,
  `123401000001000000000001${MIRROR}00010001c00c0005000100000000000206c0`,
  `123401000001000100000000${MIRROR}00010001c00cc00c`,
  // Label types that are none, a label and a name that are too long, a name that never ends.
  '1234010000010000000000004041420000010001',
  '123401000001000000000000806d0000010001',
  `123401000001000000000000${'3f'.padEnd(128, '61')}${'3f'.padEnd(128, '61')}${'3f'.padEnd(128, '61')}${'3f'.padEnd(128, '61')}0000010001`,
  `123401000001000000000000${'0161'.repeat(200)}`,
  `123401000001000000000000${'0161'.repeat(127)}0000010001`,
  // Counts that lie.
  `123401000000000000000000`,
  `123401000002000000000000${MIRROR}00010001${MIRROR}00010001`,
  `12340100ffffffffffffffff${MIRROR}00010001`,
  `123401000001000000000000${MIRROR}00010001ff`,
  // OPT: two, in the answer, owned by a name, an option that runs over the end, of another version.
  `123401000001000000000002${MIRROR}0001000100002904d000000000000000002904d0000000000000`,
  `123401000001000100000000${MIRROR}0001000100002904d0000000000000`,
  `123401000001000000000001${MIRROR}0001000103616263002904d0000000000000`,
  `123401000001000000000001${MIRROR}0001000100002904d000000000000400080fff`,
  `123401000001000000000001${MIRROR}0001000100002904d0000000000003000800`,
  `123401000001000000000001${MIRROR}0001000100002904d00001000000040008ffff`,
  `123401000001000000000001${MIRROR}000100010000290000000000000000`,
  // Only a cookie is asked about; all opcodes are elsewhere; classes.
  '123401000000000000000001000029 04d000000000000c000a00080102030405060708'.replace(' ', ''),
  `123429000001000000000000${MIRROR}00060001`,
  `123401000001000000000000${MIRROR}000100ff`,
  '123401000001000000000000076 96e64657800010003'.replace(' ', ''),
  '1234010000010000000000000776657273696f6e0462696e640000100003',
]

/** A valid query of every kind, with each kind of option, and what is malformed. */
export function ownPackets(): Buffer[] {
  const valid = NAMES.flatMap(([name, types]) =>
    types.flatMap((type) => OPTIONS.map((options) => queryBytes(name, type, options))),
  )
  return [...valid, ...MALFORMED.map((hex) => Buffer.from(hex, 'hex'))]
}

/** Every length from 0 to 512: of noise, and of a packet with zeros behind it. */
export function everyLength(corpus: readonly Buffer[], rng: () => number): Buffer[] {
  const packets: Buffer[] = []
  for (let length = 0; length <= 512; length++) {
    const noise = Buffer.from(Array.from({ length }, () => Math.floor(rng() * 256)))
    const seed = corpus[Math.floor(rng() * corpus.length)]!
    packets.push(asQuery(noise), asQuery(Buffer.concat([seed, Buffer.alloc(512)]).subarray(0, length)))
  }
  return packets
}

/** Numbers at which programs go wrong. */
const EDGES = [0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xbf, 0xc0, 0xff]
const EDGES16 = [0, 1, 11, 12, 0x3fff, 0x7fff, 0x8000, 0xc00c, 0xffff]
/** Longer than any query that is taken by UDP here. */
const MOST_BYTES = 1500

/** One mutation after another, without end, from each corpus as many: the same for the same ones and seed. */
export function mutator(corpora: readonly (readonly Buffer[])[], rng: () => number): () => Buffer {
  const pick = (count: number) => Math.floor(rng() * count)
  const any = () => {
    const corpus = corpora[pick(corpora.length)]!
    return corpus[pick(corpus.length)]!
  }
  const kinds: readonly ((bytes: Buffer) => Buffer)[] = [
    (bytes) => set(bytes, pick(bytes.length), bytes[pick(bytes.length)]! ^ (1 << pick(8))),
    (bytes) => set(bytes, pick(bytes.length), pick(256)),
    (bytes) => set(bytes, pick(bytes.length), EDGES[pick(EDGES.length)]!),
    // Lengths, counts and pointers.
    (bytes) => set16(bytes, pick(bytes.length), EDGES16[pick(EDGES16.length)]!),
    (bytes) => set16(bytes, pick(bytes.length), 0xc000 | pick(bytes.length + 2)),
    (bytes) => set16(bytes, 4 + 2 * pick(4), pick(4) === 0 ? pick(65_536) : pick(3)),
    (bytes) => bytes.subarray(0, pick(bytes.length + 1)),
    (bytes) => Buffer.concat([bytes, Buffer.alloc(pick(40), pick(256))]),
    // One's beginning with another's end, and a part said twice.
    (bytes) => Buffer.concat([bytes.subarray(0, pick(bytes.length + 1)), tailOf(any(), pick)]),
    (bytes) => Buffer.concat([bytes, tailOf(bytes, pick)]),
    (bytes) => withOption(bytes, pick),
    // What is still a query: of another type, in other letters, with other flags.
    (bytes) => set16(bytes, questionEnd(bytes) - 4, pick(8) === 0 ? pick(65_536) : pick(270)),
    (bytes) => set(bytes, 13 + pick(questionEnd(bytes)), 0x41 + pick(58)),
    (bytes) => set(bytes, 2 + pick(2), pick(256)),
  ]
  return () => {
    let bytes: Buffer = Buffer.from(any())
    for (let changes = 1 + pick(1 + pick(4)); changes > 0; changes--)
      bytes = kinds[pick(kinds.length)]!(bytes)
    bytes = bytes.subarray(0, MOST_BYTES)
    // Most would end at the bit that makes a response of a packet.
    return pick(16) === 0 ? bytes : asQuery(bytes)
  }
}

/** Behind the question, if there is one; else anywhere. */
function questionEnd(bytes: Buffer): number {
  let at = 12
  while (at < bytes.length && bytes[at] !== 0) at += 1 + bytes[at]!
  return Math.min(at + 5, bytes.length)
}

function asQuery(bytes: Buffer): Buffer {
  return bytes.length > 2 ? set(bytes, 2, bytes[2]! & 0x7f) : bytes
}

function set(bytes: Buffer, at: number, value: number): Buffer {
  if (at >= 0 && at < bytes.length) bytes[at] = value
  return bytes
}

function set16(bytes: Buffer, at: number, value: number): Buffer {
  return set(set(bytes, at, value >> 8), at + 1, value & 0xff)
}

function tailOf(bytes: Buffer, pick: (count: number) => number): Buffer {
  return bytes.subarray(pick(bytes.length + 1))
}

/** An OPT with an option of any code and length behind the packet, counted or not. */
function withOption(bytes: Buffer, pick: (count: number) => number): Buffer {
  const data = Buffer.alloc(pick(48), pick(256))
  const opt = Buffer.alloc(15)
  opt.writeUInt16BE(41, 1)
  opt.writeUInt16BE([0, 512, 1232, 65_535][pick(4)]!, 3)
  opt.writeUInt16BE(4 + data.length, 9)
  opt.writeUInt16BE([3, 8, 10, 11, 15, pick(65_536)][pick(6)]!, 11)
  opt.writeUInt16BE(pick(4) === 0 ? pick(64) : data.length, 13)
  if (bytes.length >= 12) set16(bytes, 10, pick(8) === 0 ? pick(4) : 1)
  return Buffer.concat([bytes, opt, data])
}
