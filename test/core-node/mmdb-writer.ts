// Writes MMDB files for tests and benchmarks: a search tree of 24-bit records, plain data, one record written once.
// https://maxmind.github.io/MaxMind-DB/

import { IPV4_OFFSET_BITS, parsePrefix } from '../../resolver/address.ts'

/** A record: maps of texts and numbers (written as doubles). */
export type MmdbRecord = { readonly [key: string]: string | number | MmdbRecord }

export interface MmdbContent {
  readonly ipVersion: 4 | 6
  readonly networks: readonly (readonly [prefix: string, record: MmdbRecord])[]
  /** Say all of IPv4 again under ::ffff:0:0/96 and 2002::/16, as real files do. */
  readonly aliases?: boolean
}

/** A node's two records: another node, the offset of data, or nothing. */
type Side = { node: Node } | { data: number } | null
interface Node {
  sides: [Side, Side]
}

export function writeMmdb({ ipVersion, networks, aliases = false }: MmdbContent): Buffer {
  const root: Node = { sides: [null, null] }
  const data: Buffer[] = []
  let dataBytes = 0
  const written = new Map<MmdbRecord, number>()
  for (const [text, record] of networks) {
    let at = written.get(record)
    if (at === undefined) {
      at = dataBytes
      written.set(record, at)
      const bytes = encode(record)
      data.push(bytes)
      dataBytes += bytes.length
    }
    insert(root, pathOf(text, ipVersion), { data: at })
  }
  if (aliases) {
    const ipv4 = follow(root, '0'.repeat(96))
    insert(root, '0'.repeat(80) + '1'.repeat(16), ipv4)
    insert(root, '0010000000000010', ipv4)
  }
  const tree = writeTree(root)
  const metadata = Buffer.concat([
    Buffer.from([(7 << 5) | 9]),
    ...[text('node_count'), uint(6, tree.length / 6)],
    ...[text('record_size'), uint(5, 24)],
    ...[text('ip_version'), uint(5, ipVersion)],
    ...[text('database_type'), text('Test-City')],
    ...[text('binary_format_major_version'), uint(5, 2)],
    ...[text('binary_format_minor_version'), uint(5, 0)],
    ...[text('build_epoch'), uint64(1_790_000_000n)],
    ...[text('languages'), NO_ITEMS],
    ...[text('description'), Buffer.from([7 << 5])],
  ])
  const mark = Buffer.from('\xab\xcd\xefMaxMind.com', 'latin1')
  return Buffer.concat([tree, Buffer.alloc(16), ...data, mark, metadata])
}

/** Bits from the root, as a text of 0 and 1. IPv4 lies in ::/96 of an IPv6 tree. */
function pathOf(text: string, ipVersion: 4 | 6): string {
  const { address, bits } = parsePrefix(text)!
  const path = Array.from(address, (byte) => byte.toString(2).padStart(8, '0')).join('')
  if (text.includes(':')) return path.slice(0, bits)
  const ipv4 = path.slice(IPV4_OFFSET_BITS, bits)
  return ipVersion === 4 ? ipv4 : '0'.repeat(96) + ipv4
}

function insert(root: Node, path: string, side: Side): void {
  let node = root
  for (const bit of path.slice(0, -1)) {
    const next = node.sides[Number(bit)]!
    if (next !== null && 'node' in next) node = next.node
    else {
      // What a wider network said holds for the other half of it.
      const made: Node = { sides: [next, next] }
      node.sides[Number(bit)] = { node: made }
      node = made
    }
  }
  node.sides[Number(path.at(-1))] = side
}

function follow(root: Node, path: string): Side {
  let side: Side = { node: root }
  for (const bit of path) side = side !== null && 'node' in side ? side.node.sides[Number(bit)]! : null
  return side
}

function writeTree(root: Node): Buffer {
  const nodes: Node[] = []
  const numbers = new Map<Node, number>()
  const collect = (node: Node) => {
    if (numbers.has(node)) return
    numbers.set(node, nodes.length)
    nodes.push(node)
    for (const side of node.sides) if (side !== null && 'node' in side) collect(side.node)
  }
  collect(root)
  const tree = Buffer.alloc(nodes.length * 6)
  const value = (side: Side) => {
    if (side === null) return nodes.length
    return 'node' in side ? numbers.get(side.node)! : nodes.length + 16 + side.data
  }
  for (const [i, { sides }] of nodes.entries()) {
    tree.writeUIntBE(value(sides[0]), i * 6, 3)
    tree.writeUIntBE(value(sides[1]), i * 6 + 3, 3)
  }
  return tree
}

function encode(value: string | number | MmdbRecord): Buffer {
  if (typeof value === 'string') return text(value)
  if (typeof value === 'number') {
    const double = Buffer.alloc(9, (3 << 5) | 8)
    double.writeDoubleBE(value, 1)
    return double
  }
  const items = Object.entries(value)
  return Buffer.concat([
    Buffer.from([(7 << 5) | items.length]),
    ...items.flatMap(([key, item]) => [text(key), encode(item)]),
  ])
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value)
  return Buffer.concat([Buffer.from([(2 << 5) | bytes.length]), bytes])
}

/** An empty array, type 11: what is over 7 has its byte of its own. */
const NO_ITEMS = Buffer.from([0, 11 - 7])

function uint64(value: bigint): Buffer {
  const bytes = Buffer.from([8, 9 - 7, ...Buffer.alloc(8)])
  bytes.writeBigUInt64BE(value, 2)
  return bytes
}

/** Type 5 is uint16, type 6 uint32; either may be written with fewer bytes, here 2 and 4. */
function uint(type: 5 | 6, value: number): Buffer {
  const size = type === 5 ? 2 : 4
  const bytes = Buffer.alloc(1 + size, (type << 5) | size)
  bytes.writeUIntBE(value, 1, size)
  return bytes
}
