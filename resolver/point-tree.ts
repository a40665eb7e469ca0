// The point tree: points of the coordinate space found by how near they are, put and removed in place.
//
// A point lies at a place and an offset above it: its distance from another place is the straight line plus that
// offset (a height, Dabek et al. 2004, section 5.4). A k-d tree (Bentley, CACM 1975) of large leaves; each node knows
// the tight box, the least offset and the marks of what is below it, so that whole subtrees are passed over. A leaf
// splits where the bits of its values part, as a trie does (PH-tree, Zaeschke et al., SIGMOD 2014): its depth is
// bounded whatever the order of arrival, nothing is ever rebuilt, a change costs one path from the root. Pure.

import { DIMENSIONS } from './coordinate.ts'
import { type Found, NearestHeap } from './nearest-heap.ts'
import { grown, roomFor } from './typed-array.ts'

/**
 * Points a leaf holds before it splits, and at most in two leaves that become one. Points side by side are read
 * faster than boxes here and there, and boxes exclude little in eight dimensions (16 to 512 tried).
 */
const LEAF_SIZE = 128
const MERGE_SIZE = 80
/** Numbers of a point: its place, and its offset last. */
const STRIDE = DIMENSIONS + 1
/** Values nearer to each other than 1/64 ms are not told apart by a split. */
const GRAIN = 64
/** No value is taken for larger than this either way: as grains it fits into 31 bits. */
const MAX_VALUE = 1e7
/** No deeper than the bits of all values and of an id. */
const MAX_DEPTH = 512
const NONE = -1
const ROOT = 0
/**
 * In eight dimensions the corners of a box are almost always empty. A box is taken to be farther than its nearest
 * corner by this share of its diagonal, and at most by this share of the way there: searches pass over twice as many,
 * and over 99% of the 20 nearest of a million are still found (bench:members).
 */
const EMPTY_CORNER = 0.1
const MOST_OF_WAY = 0.4

/** What a search asks beside its place. */
export interface Search {
  /** Distances outside of these are not found; both may be infinite. */
  readonly minDistance: number
  readonly maxDistance: number
  /** All of these bits must be among a point's marks. */
  readonly marks: number
  /** Asked of a point that would be found: false passes it over. */
  readonly accepts: (id: number) => boolean
}

/**
 * Words of a node beside its box (the least of each number, then the largest of each). Siblings lie side by side,
 * so that both are at hand when one is looked at: a search waits for memory more than it reckons.
 */
const MARKS = 0
const AXIS = 1
/** Of a node: the first of its two children; of a leaf, whose axis is NONE: its block. */
const FIRST = 2
/** Of a node: the grains from which on values are its second child's; of a leaf: its points. */
const SPLIT = 3
const COUNT = 3
const PARENT = 4
const NODE_STRIDE = 2 * STRIDE + 5

export class PointTree {
  readonly #corner: number

  /** By node: the box as 32-bit floats, the rest as whole numbers. One memory. The root is node 0, node 1 is none. */
  #boxes = new Float32Array(0)
  #nodes = new Int32Array(0)
  #nodeCount = 0
  /** First nodes of freed pairs. */
  readonly #freePairs: number[] = []

  // By block and slot.
  #points = new Float32Array(0)
  #pointMarks = new Int32Array(0)
  #ranks = new Int32Array(0)
  #ids = new Int32Array(0)
  #blockCount = 0
  readonly #freeBlocks: number[] = []

  /** By id: the leaf that it is in. */
  #leafOf = new Int32Array(0)
  #size = 0

  // Of the search under way.
  readonly #place = new Float64Array(DIMENSIONS)
  readonly #gaps = new Float64Array(DIMENSIONS)
  readonly #heap = new NearestHeap()
  readonly #stack = new Int32Array(MAX_DEPTH)
  readonly #bounds = new Float64Array(MAX_DEPTH)

  /** Searches are exact where `corner` is 0. */
  constructor(corner = EMPTY_CORNER) {
    this.#corner = corner
    this.#addPair(NONE)
    this.#makeLeaf(ROOT)
  }

  get size(): number {
    return this.#size
  }

  /** Bytes of its arrays. */
  get bytes(): number {
    const arrays = [this.#nodes, this.#points, this.#pointMarks, this.#ranks, this.#ids, this.#leafOf]
    return arrays.reduce((sum, array) => sum + array.byteLength, 0)
  }

  has(id: number): boolean {
    return (this.#leafOf[id] ?? NONE) !== NONE
  }

  /**
   * Puts a point in, or moves it. `id` is a small whole number; `values` are its place and then its offset, all finite.
   * `rank`: by which it goes before or behind others that are just as near, 32 bits.
   */
  put(id: number, values: ArrayLike<number>, marks: number, rank: number): void {
    if (this.#isAt(id, values, marks, rank | 0)) return
    this.remove(id)
    this.#reserveId(id)
    const leaf = this.#leafFor(id, values)
    const slot = this.#append(leaf, id, values, marks, rank)
    this.#size++
    for (let node = leaf; node !== NONE; node = this.#word(node, PARENT)) this.#stretchTo(node, slot)
    if (this.#word(leaf, COUNT) === LEAF_SIZE) this.#splitLeaf(leaf)
  }

  /** Takes a point out; one that is not in is no matter. */
  remove(id: number): void {
    const leaf = this.#leafOf[id] ?? NONE
    if (leaf === NONE) return
    const at = this.#slotOf(leaf, id)
    const count = this.#word(leaf, COUNT) - 1
    this.#setWord(leaf, COUNT, count)
    this.#copyPoint(this.#word(leaf, FIRST) * LEAF_SIZE + count, at)
    this.#leafOf[id] = NONE
    this.#size--
    this.#measureLeaf(leaf)
    this.#tighten(this.#joinSiblings(leaf))
  }

  /** Writes a point's values as it keeps them into `to`; false: there is no such point. */
  copyValues(id: number, to: Float64Array): boolean {
    const leaf = this.#leafOf[id] ?? NONE
    if (leaf === NONE) return false
    const at = this.#slotOf(leaf, id) * STRIDE
    for (let i = 0; i < STRIDE; i++) to[i] = this.#points[at + i]!
    return true
  }

  /**
   * The `count` points nearest to a place that a search asks for, nearest first, of those just as near the ones of the
   * lowest rank; the reply is valid until the next search. Exact but for the corners, and for the rounding of stored
   * values to 32 bits.
   */
  nearest(place: ArrayLike<number>, count: number, search: Search): Found {
    const heap = this.#heap
    heap.open(count, search.maxDistance)
    for (let i = 0; i < DIMENSIONS; i++) this.#place[i] = place[i]!
    let depth = count > 0 && this.#size > 0 ? this.#push(0, ROOT, search) : 0
    while (depth > 0) {
      depth--
      if (this.#bounds[depth]! > heap.limit) continue
      const node = this.#stack[depth]!
      const first = this.#word(node, FIRST)
      if (this.#word(node, AXIS) === NONE) this.#searchLeaf(first, this.#word(node, COUNT), search)
      else {
        const before = depth
        depth = this.#push(depth, first, search)
        depth = this.#push(depth, first + 1, search)
        if (depth === before + 2) this.#putNearerOnTop(depth)
      }
    }
    return heap.close()
  }

  /** Puts a node on the stack, unless nothing below it can be found. */
  #push(depth: number, node: number, search: Search): number {
    if ((this.#word(node, MARKS) & search.marks) !== search.marks) return depth
    const bound = this.#leastDistance(node)
    if (bound > this.#heap.limit) return depth
    if (search.minDistance > Number.NEGATIVE_INFINITY && this.#mostDistance(node) < search.minDistance)
      return depth
    this.#stack[depth] = node
    this.#bounds[depth] = bound
    return depth + 1
  }

  /** Of the two nodes that were put on the stack last, the nearer is looked at first. */
  #putNearerOnTop(depth: number): void {
    const bounds = this.#bounds
    const stack = this.#stack
    const bound = bounds[depth - 1]!
    const below = bounds[depth - 2]!
    if (bound <= below) return
    const node = stack[depth - 1]!
    stack[depth - 1] = stack[depth - 2]!
    stack[depth - 2] = node
    bounds[depth - 1] = below
    bounds[depth - 2] = bound
  }

  /** Summed up as #distanceTo does, so that no box is farther by a rounding than what is in it. */
  #leastDistance(node: number): number {
    const gaps = this.#gaps
    let diagonal = 0
    for (let i = 0; i < DIMENSIONS; i++) {
      const value = this.#place[i]!
      const under = this.#boxes[node * NODE_STRIDE + i]! - value
      const over = value - this.#boxes[node * NODE_STRIDE + STRIDE + i]!
      diagonal += (under + over) * (under + over)
      gaps[i] = under > 0 ? under * under : over > 0 ? over * over : 0
    }
    const squares =
      gaps[0]! + gaps[1]! + (gaps[2]! + gaps[3]!) + (gaps[4]! + gaps[5]! + (gaps[6]! + gaps[7]!))
    const line = Math.sqrt(squares)
    const corner = Math.min(MOST_OF_WAY * line, this.#corner * Math.sqrt(diagonal))
    return line + corner + this.#boxes[node * NODE_STRIDE + DIMENSIONS]!
  }

  #mostDistance(node: number): number {
    const boxes = this.#boxes
    const place = this.#place
    const low = node * NODE_STRIDE
    const high = low + STRIDE
    let sum = 0
    for (let i = 0; i < DIMENSIONS; i++) {
      const value = place[i]!
      const most = Math.max(value - boxes[low + i]!, boxes[high + i]! - value)
      sum += most * most
    }
    return Math.sqrt(sum) + boxes[high + DIMENSIONS]!
  }

  #searchLeaf(block: number, count: number, search: Search): void {
    const heap = this.#heap
    const end = block * LEAF_SIZE + count
    for (let slot = block * LEAF_SIZE; slot < end; slot++) {
      const distance = this.#distanceTo(slot)
      if (distance > heap.limit || distance < search.minDistance) continue
      if ((this.#pointMarks[slot]! & search.marks) !== search.marks) continue
      const id = this.#ids[slot]!
      if (search.accepts(id)) heap.offer(id, distance, this.#ranks[slot]!)
    }
  }

  /** Most of a search's time: written out, which takes a quarter less than a loop. */
  #distanceTo(slot: number): number {
    const points = this.#points
    const place = this.#place
    const at = slot * STRIDE
    const d0 = place[0]! - points[at]!
    const d1 = place[1]! - points[at + 1]!
    const d2 = place[2]! - points[at + 2]!
    const d3 = place[3]! - points[at + 3]!
    const d4 = place[4]! - points[at + 4]!
    const d5 = place[5]! - points[at + 5]!
    const d6 = place[6]! - points[at + 6]!
    const d7 = place[7]! - points[at + 7]!
    const squares = d0 * d0 + d1 * d1 + (d2 * d2 + d3 * d3) + (d4 * d4 + d5 * d5 + (d6 * d6 + d7 * d7))
    return Math.sqrt(squares) + points[at + DIMENSIONS]!
  }

  // Points.

  /** Whether a point is in already and just so. */
  #isAt(id: number, values: ArrayLike<number>, marks: number, rank: number): boolean {
    const leaf = this.#leafOf[id] ?? NONE
    if (leaf === NONE) return false
    const slot = this.#slotOf(leaf, id)
    if (this.#pointMarks[slot] !== marks || this.#ranks[slot] !== rank) return false
    for (let i = 0; i < STRIDE; i++) {
      if (this.#points[slot * STRIDE + i] !== Math.fround(values[i]!)) return false
    }
    return true
  }

  /** The leaf where a point of these values and this id belongs. */
  #leafFor(id: number, values: ArrayLike<number>): number {
    let node = ROOT
    for (;;) {
      const axis = this.#word(node, AXIS)
      if (axis === NONE) return node
      const grains = axis < STRIDE ? grainsOf(values[axis]!) : id
      node = this.#word(node, FIRST) + (grains < this.#word(node, SPLIT) ? 0 : 1)
    }
  }

  #append(leaf: number, id: number, values: ArrayLike<number>, marks: number, rank: number): number {
    const slot = this.#nextSlot(leaf, id)
    for (let i = 0; i < STRIDE; i++) this.#points[slot * STRIDE + i] = values[i]!
    this.#pointMarks[slot] = marks
    this.#ranks[slot] = rank
    this.#ids[slot] = id
    return slot
  }

  #moveInto(leaf: number, from: number): void {
    const slot = this.#nextSlot(leaf, this.#ids[from]!)
    this.#copyPoint(from, slot)
    this.#stretchTo(leaf, slot)
  }

  #nextSlot(leaf: number, id: number): number {
    const count = this.#word(leaf, COUNT)
    this.#setWord(leaf, COUNT, count + 1)
    this.#leafOf[id] = leaf
    return this.#word(leaf, FIRST) * LEAF_SIZE + count
  }

  #copyPoint(from: number, to: number): void {
    if (from === to) return
    const stride = STRIDE
    this.#points.copyWithin(to * stride, from * stride, (from + 1) * stride)
    this.#pointMarks[to] = this.#pointMarks[from]!
    this.#ranks[to] = this.#ranks[from]!
    this.#ids[to] = this.#ids[from]!
  }

  #slotOf(leaf: number, id: number): number {
    let slot = this.#word(leaf, FIRST) * LEAF_SIZE
    while (this.#ids[slot]! !== id) slot++
    return slot
  }

  // Nodes.

  #word(node: number, word: number): number {
    return this.#nodes[node * NODE_STRIDE + 2 * STRIDE + word]!
  }

  #setWord(node: number, word: number, value: number): void {
    this.#nodes[node * NODE_STRIDE + 2 * STRIDE + word] = value
  }

  /** Two nodes side by side, with nothing in them yet. */
  #addPair(parent: number): number {
    let pair = this.#freePairs.pop()
    if (pair === undefined) {
      pair = this.#nodeCount
      this.#nodeCount += 2
      this.#reserveNodes(this.#nodeCount)
    }
    this.#setWord(pair, PARENT, parent)
    this.#setWord(pair + 1, PARENT, parent)
    return pair
  }

  /** Makes a node an empty leaf with a block of its own. */
  #makeLeaf(node: number): void {
    const block = this.#freeBlocks.pop() ?? this.#blockCount++
    this.#reserveBlocks(this.#blockCount)
    this.#setWord(node, AXIS, NONE)
    this.#setWord(node, FIRST, block)
    this.#setWord(node, COUNT, 0)
    this.#clearBox(node)
  }

  /** Makes a full leaf two, at its widest axis: where the highest bit in which the values differ changes. */
  #splitLeaf(leaf: number): void {
    const { axis, split } = this.#cutOf(leaf)
    const block = this.#word(leaf, FIRST)
    const pair = this.#addPair(leaf)
    this.#makeLeaf(pair)
    this.#makeLeaf(pair + 1)
    for (let slot = block * LEAF_SIZE; slot < (block + 1) * LEAF_SIZE; slot++) {
      const isPlace = axis < STRIDE
      const grains = isPlace ? grainsOf(this.#points[slot * STRIDE + axis]!) : this.#ids[slot]!
      this.#moveInto(pair + (grains < split ? 0 : 1), slot)
    }
    this.#freeBlocks.push(block)
    this.#setWord(leaf, AXIS, axis)
    this.#setWord(leaf, FIRST, pair)
    this.#setWord(leaf, SPLIT, split)
  }

  #cutOf(leaf: number): { axis: number; split: number } {
    const low = leaf * NODE_STRIDE
    const high = low + STRIDE
    let axis = 0
    let widest = -1
    for (let i = 0; i < STRIDE; i++) {
      const width = this.#boxes[high + i]! - this.#boxes[low + i]!
      if (width > widest) [axis, widest] = [i, width]
    }
    const least = grainsOf(this.#boxes[low + axis]!)
    const most = grainsOf(this.#boxes[high + axis]!)
    if (least < most) return { axis, split: partingOf(least, most) }
    // All at one place: by their ids, so that a crowd at one place is a tree as well.
    const block = this.#word(leaf, FIRST)
    const ids = this.#ids.subarray(block * LEAF_SIZE, (block + 1) * LEAF_SIZE)
    return { axis: STRIDE, split: partingOf(Math.min(...ids), Math.max(...ids)) }
  }

  /** Two leaves that have become small are one: their parent. The node from which on boxes may be too wide. */
  #joinSiblings(leaf: number): number {
    const parent = this.#word(leaf, PARENT)
    if (parent === NONE) return NONE
    const pair = this.#word(parent, FIRST)
    const sibling = leaf === pair ? pair + 1 : pair
    const count = this.#word(leaf, COUNT)
    if (this.#word(sibling, AXIS) !== NONE) {
      if (count > 0) return parent
      this.#liftSibling(parent, pair, leaf, sibling)
      return this.#word(parent, PARENT)
    }
    if (count + this.#word(sibling, COUNT) > MERGE_SIZE) return parent
    this.#makeLeaf(parent)
    for (const child of [leaf, sibling]) {
      const block = this.#word(child, FIRST)
      const first = block * LEAF_SIZE
      for (let slot = first; slot < first + this.#word(child, COUNT); slot++) this.#moveInto(parent, slot)
      this.#freeBlocks.push(block)
    }
    this.#freePairs.push(pair)
    return this.#word(parent, PARENT)
  }

  /** An empty leaf goes; its sibling takes the place of their parent, with its own children. */
  #liftSibling(parent: number, pair: number, leaf: number, sibling: number): void {
    this.#freeBlocks.push(this.#word(leaf, FIRST))
    const above = this.#word(parent, PARENT)
    const from = sibling * NODE_STRIDE
    this.#nodes.copyWithin(parent * NODE_STRIDE, from, from + NODE_STRIDE)
    this.#setWord(parent, PARENT, above)
    const children = this.#word(parent, FIRST)
    this.#setWord(children, PARENT, parent)
    this.#setWord(children + 1, PARENT, parent)
    this.#freePairs.push(pair)
  }

  // Boxes.

  #clearBox(node: number): void {
    const low = node * NODE_STRIDE
    this.#boxes.fill(Number.POSITIVE_INFINITY, low, low + STRIDE)
    this.#boxes.fill(Number.NEGATIVE_INFINITY, low + STRIDE, low + 2 * STRIDE)
    this.#setWord(node, MARKS, 0)
  }

  /** Makes a node's box hold the point at a slot. */
  #stretchTo(node: number, slot: number): void {
    const boxes = this.#boxes
    const points = this.#points
    const low = node * NODE_STRIDE
    const high = low + STRIDE
    for (let i = 0; i < STRIDE; i++) {
      const value = points[slot * STRIDE + i]!
      if (value < boxes[low + i]!) boxes[low + i] = value
      if (value > boxes[high + i]!) boxes[high + i] = value
    }
    this.#setWord(node, MARKS, this.#word(node, MARKS) | this.#pointMarks[slot]!)
  }

  #measureLeaf(leaf: number): void {
    this.#clearBox(leaf)
    const first = this.#word(leaf, FIRST) * LEAF_SIZE
    for (let slot = first; slot < first + this.#word(leaf, COUNT); slot++) this.#stretchTo(leaf, slot)
  }

  /** Fits the boxes of a node and of all above it to what is below them by now. */
  #tighten(from: number): void {
    const boxes = this.#boxes
    const stride = STRIDE
    for (let node = from; node !== NONE; node = this.#word(node, PARENT)) {
      const first = this.#word(node, FIRST)
      const [low, a, b] = [node, first, first + 1].map((n) => n * NODE_STRIDE) as [number, number, number]
      for (let i = 0; i < stride; i++) {
        boxes[low + i] = Math.min(boxes[a + i]!, boxes[b + i]!)
        boxes[low + stride + i] = Math.max(boxes[a + stride + i]!, boxes[b + stride + i]!)
      }
      this.#setWord(node, MARKS, this.#word(first, MARKS) | this.#word(first + 1, MARKS))
    }
  }

  // Room.

  #reserveNodes(nodes: number): void {
    const words = nodes * NODE_STRIDE
    if (words <= this.#nodes.length) return
    this.#nodes = grown(this.#nodes, new Int32Array(roomFor(words, this.#nodes.length)))
    this.#boxes = new Float32Array(this.#nodes.buffer)
  }

  #reserveBlocks(blocks: number): void {
    const slots = blocks * LEAF_SIZE
    if (slots <= this.#ids.length) return
    const room = roomFor(slots, this.#ids.length)
    this.#points = grown(this.#points, new Float32Array(room * STRIDE))
    this.#pointMarks = grown(this.#pointMarks, new Int32Array(room))
    this.#ranks = grown(this.#ranks, new Int32Array(room))
    this.#ids = grown(this.#ids, new Int32Array(room))
  }

  #reserveId(id: number): void {
    const { length } = this.#leafOf
    if (id < length) return
    this.#leafOf = grown(this.#leafOf, new Int32Array(roomFor(id + 1, length)).fill(NONE))
  }
}

/** A value as a whole number of grains, not negative. */
function grainsOf(value: number): number {
  return Math.floor(Math.min(MAX_VALUE, Math.max(-MAX_VALUE, Math.fround(value))) * GRAIN) + 2 ** 30
}

/** Of two whole numbers, less and more: the least that shares with `more` the highest bit in which they differ. */
function partingOf(less: number, more: number): number {
  const bit = 31 - Math.clz32(less ^ more)
  return (more >> bit) << bit
}
