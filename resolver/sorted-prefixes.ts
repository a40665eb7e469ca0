// The prefixes of one family in the order of their first addresses, and for each the next wider one around it.
//
// A search finds the last prefix that begins at or before an address and climbs from there to the first that
// holds it; the neighbours on both sides say how wide nothing changes. The order stands in chunks of bounded
// size, as in a B+ tree of two levels, so that one prefix comes or goes without moving the others.
// Invariant: equal beginnings stand shorter first, and parents[i] is the longest prefix that properly holds i.
// Flat typed arrays, in SharedArrayBuffers where asked. A search while another thread writes ends, but may find what
// is not so: place-reader.ts sees to that. Values are the caller's; finding allocates nothing.

/** What a search finds; written over by the next search that is given the same record. */
export interface PrefixMatch {
  /** What was set for the longest prefix around the address; -1: no prefix is. */
  value: number
  /** That prefix's length; 0 with value -1. */
  bits: number
  /** Length of the largest prefix around the address inside which every address finds this same entry. */
  scopeBits: number
}

/** The arrays themselves: what is handed to another thread. */
export interface PrefixMemory {
  /** 32-bit words of an address: 1 or 4. */
  readonly words: number
  readonly header: Int32Array
  /** First word of the key at each slot, the other words, and the entry that stands there. */
  readonly heads: Uint32Array
  readonly tails: Uint32Array
  readonly ids: Int32Array
  /** The chunks in order, the first word of each one's first key, and by chunk how many of its slots are taken. */
  readonly order: Int32Array
  readonly firstHeads: Uint32Array
  readonly counts: Int32Array
  /** By the first bits of an address: how many chunks begin before all addresses with them. */
  readonly index: Int32Array
  /** By entry. `parents` of freed entries chain the free ones. */
  readonly lengths: Uint8Array
  readonly values: Int32Array
  readonly parents: Int32Array
}

/** Header words. */
const CHUNKS = 0
const SIZE = 1
const HEADER_WORDS = 2

/**
 * Slots of a chunk: two lines of the processor's cache, so that a search among a million prefixes waits for
 * memory once or twice where a larger chunk's steps would wait each (tried: 256 slots, a third slower).
 */
const CHUNK_BITS = 5
const CHUNK = 1 << CHUNK_BITS
/** Bits that the index goes by: it fits into a first-level cache, and `firstHeads` into a second-level one. */
const INDEX_BITS = 12
const INDEX_SHIFT = 32 - INDEX_BITS
const NONE = -1

/** How arrays get their bytes. */
export type Allocate = (bytes: number) => ArrayBuffer | SharedArrayBuffer

export class SortedPrefixes {
  #memory: PrefixMemory
  readonly #allocate: Allocate
  readonly #freeChunks: number[] = []
  #usedChunks = 0
  #usedIds = 0
  #freeId = NONE

  constructor(words: 1 | 4, allocate: Allocate) {
    this.#allocate = allocate
    this.#memory = allocateMemory(words, 1, allocate)
  }

  /** Prefixes in these arrays, from which nothing was ever taken. */
  static over(memory: PrefixMemory): SortedPrefixes {
    const prefixes = new SortedPrefixes(memory.words === 1 ? 1 : 4, (bytes) => new SharedArrayBuffer(bytes))
    prefixes.#memory = memory
    prefixes.#usedChunks = memory.header[CHUNKS]!
    prefixes.#usedIds = memory.header[SIZE]!
    return prefixes
  }

  /** The arrays as they are now; when they are full it goes on in others, and these stand still. */
  get memory(): PrefixMemory {
    return this.#memory
  }

  /** The same in arrays of its own: the same changes keep both alike. */
  clone(): SortedPrefixes {
    const twin = new SortedPrefixes(this.#memory.words === 1 ? 1 : 4, this.#allocate)
    twin.#memory = copyMemory(this.#memory, this.#memory.counts.length, this.#allocate)
    for (const chunk of this.#freeChunks) twin.#freeChunks.push(chunk)
    twin.#usedChunks = this.#usedChunks
    twin.#usedIds = this.#usedIds
    twin.#freeId = this.#freeId
    return twin
  }

  /** Sets or replaces the prefix of `bits` at an address whose other bits are 0. */
  set(w0: number, w1: number, w2: number, w3: number, bits: number, value: number): void {
    const at = this.#placeBefore(w0, w1, w2, w3, bits)
    const parent = this.#holder(at, w0, w1, w2, w3, bits)
    if (parent !== NONE && this.#memory.lengths[parent] === bits) {
      this.#memory.values[parent] = value
      return
    }
    if (this.#isFull()) this.#grow()
    const id = this.#takeId()
    const memory = this.#memory
    memory.lengths[id] = bits
    memory.values[id] = value
    memory.parents[id] = parent
    const place = this.#openSlot(at)
    const slot = slotOf(memory, place)
    memory.heads[slot] = w0
    if (memory.words === 4) {
      memory.tails[3 * slot] = w1
      memory.tails[3 * slot + 1] = w2
      memory.tails[3 * slot + 2] = w3
    }
    memory.ids[slot] = id
    if ((place & (CHUNK - 1)) === 0) this.#setFirstHead(place >> CHUNK_BITS)
    this.#adopt(nextPlace(memory, place), w0, w1, w2, w3, bits, parent, id)
    memory.header[SIZE]!++
  }

  /** What exactly this prefix was set to; -1: it is not. */
  get(w0: number, w1: number, w2: number, w3: number, bits: number): number {
    const { lengths, values } = this.#memory
    const id = this.#holder(this.#placeBefore(w0, w1, w2, w3, bits), w0, w1, w2, w3, bits)
    return id !== NONE && lengths[id] === bits ? values[id]! : NONE
  }

  /** Removes exactly this prefix; false where it was not set. */
  delete(w0: number, w1: number, w2: number, w3: number, bits: number): boolean {
    const place = this.#placeBefore(w0, w1, w2, w3, bits)
    const memory = this.#memory
    const id = this.#holder(place, w0, w1, w2, w3, bits)
    if (id === NONE || memory.lengths[id] !== bits) return false
    this.#adopt(nextPlace(memory, place), w0, w1, w2, w3, bits, id, memory.parents[id]!)
    this.#closeSlot(place)
    memory.parents[id] = this.#freeId
    this.#freeId = id
    memory.header[SIZE]!--
    return true
  }

  /** The last place whose prefix stands before or at this one in the order. */
  #placeBefore(w0: number, w1: number, w2: number, w3: number, bits: number): number {
    const memory = this.#memory
    let place = lastAtOrBefore(memory, w0, w1, w2, w3)
    while (place !== NONE) {
      const slot = slotOf(memory, place)
      if (memory.lengths[memory.ids[slot]!]! <= bits || sharedBits(memory, slot, w0, w1, w2, w3) < bits) break
      // Begins where the sought one does, and is longer.
      place = previousPlace(memory, place)
    }
    return place
  }

  /** The longest prefix of at most `bits` that holds the sought address, from the place before it on. */
  #holder(place: number, w0: number, w1: number, w2: number, w3: number, bits: number): number {
    if (place === NONE) return NONE
    const memory = this.#memory
    const slot = slotOf(memory, place)
    const most = Math.min(bits, sharedBits(memory, slot, w0, w1, w2, w3))
    return climb(memory, memory.ids[slot]!, most)
  }

  /** The prefixes inside the given one whose parent is `from` get the parent `to`. */
  #adopt(
    first: number,
    w0: number,
    w1: number,
    w2: number,
    w3: number,
    bits: number,
    from: number,
    to: number,
  ): void {
    const memory = this.#memory
    for (let place = first; place !== NONE; place = nextPlace(memory, place)) {
      const slot = slotOf(memory, place)
      if (sharedBits(memory, slot, w0, w1, w2, w3) < bits) return
      const id = memory.ids[slot]!
      if (memory.parents[id] === from) memory.parents[id] = to
    }
  }

  // Slots.

  #isFull(): boolean {
    const { counts } = this.#memory
    // A chunk at most is begun by one change.
    return this.#usedChunks === counts.length && this.#freeChunks.length === 0
  }

  #takeId(): number {
    const id = this.#freeId
    if (id === NONE) return this.#usedIds++
    this.#freeId = this.#memory.parents[id]!
    return id
  }

  /** Makes room behind `at` (NONE: before all) and returns the place of it. */
  #openSlot(at: number): number {
    const memory = this.#memory
    if (memory.header[CHUNKS] === 0) this.#insertChunk(0)
    let rank = at === NONE ? 0 : at >> CHUNK_BITS
    let index = at === NONE ? 0 : (at & (CHUNK - 1)) + 1
    const count = memory.counts[memory.order[rank]!]!
    if (count === CHUNK) {
      this.#insertChunk(rank + 1)
      // What comes in order fills each chunk to the brim; else both halves have room for more.
      const stay = index === CHUNK ? CHUNK : CHUNK / 2
      this.#moveSlots(rank, stay, rank + 1)
      if (index > stay || index === CHUNK) {
        rank++
        index -= stay
      }
    }
    const chunk = memory.order[rank]!
    const base = chunk * CHUNK
    this.#shift(base + index, base + index + 1, memory.counts[chunk]! - index)
    memory.counts[chunk]!++
    return (rank << CHUNK_BITS) | index
  }

  #closeSlot(place: number): void {
    const memory = this.#memory
    const rank = place >> CHUNK_BITS
    const index = place & (CHUNK - 1)
    const chunk = memory.order[rank]!
    const base = chunk * CHUNK
    const left = --memory.counts[chunk]!
    this.#shift(base + index + 1, base + index, left - index)
    if (left === 0) this.#removeChunk(rank)
    else {
      if (index === 0) this.#setFirstHead(rank)
      this.#joinNext(rank)
      this.#joinNext(rank - 1)
    }
  }

  /** Two neighbours that fit into half a chunk become one: no more than three quarters of the slots lie idle. */
  #joinNext(rank: number): void {
    const { header, order, counts } = this.#memory
    if (rank < 0 || rank + 1 >= header[CHUNKS]!) return
    if (counts[order[rank]!]! + counts[order[rank + 1]!]! > CHUNK / 2) return
    this.#moveSlots(rank + 1, 0, rank)
    this.#removeChunk(rank + 1)
  }

  /** Appends the slots of one chunk from `first` on to another. */
  #moveSlots(fromRank: number, first: number, toRank: number): void {
    const { order, counts } = this.#memory
    const from = order[fromRank]!
    const to = order[toRank]!
    const count = counts[from]! - first
    this.#shift(from * CHUNK + first, to * CHUNK + counts[to]!, count)
    counts[from]! -= count
    counts[to]! += count
    if (count > 0) this.#setFirstHead(toRank)
  }

  #shift(from: number, to: number, count: number): void {
    if (count <= 0) return
    const { heads, tails, ids, words } = this.#memory
    heads.copyWithin(to, from, from + count)
    ids.copyWithin(to, from, from + count)
    if (words === 4) tails.copyWithin(3 * to, 3 * from, 3 * (from + count))
  }

  #insertChunk(rank: number): void {
    const { header, order, firstHeads, counts, index } = this.#memory
    const chunk = this.#freeChunks.pop() ?? this.#usedChunks++
    counts[chunk] = 0
    order.copyWithin(rank + 1, rank, header[CHUNKS]!)
    firstHeads.copyWithin(rank + 1, rank, header[CHUNKS]!)
    order[rank] = chunk
    header[CHUNKS]!++
    // Until it has a first key of its own, it begins where the next one does.
    if (rank + 1 === header[CHUNKS]) firstHeads[rank] = 0xffff_ffff
    this.#moveIndex(0xffff_ffff, firstHeads[rank]!)
    index[index.length - 1]!++
  }

  #removeChunk(rank: number): void {
    const { header, order, firstHeads, index } = this.#memory
    this.#moveIndex(firstHeads[rank]!, 0xffff_ffff)
    index[index.length - 1]!--
    this.#freeChunks.push(order[rank]!)
    order.copyWithin(rank, rank + 1, header[CHUNKS]!)
    firstHeads.copyWithin(rank, rank + 1, header[CHUNKS]!)
    header[CHUNKS]!--
  }

  #setFirstHead(rank: number): void {
    const { order, heads, firstHeads } = this.#memory
    const head = heads[order[rank]! * CHUNK]!
    this.#moveIndex(firstHeads[rank]!, head)
    firstHeads[rank] = head
  }

  /** A chunk that began at one address begins at another. */
  #moveIndex(from: number, to: number): void {
    const { index } = this.#memory
    const first = from >>> INDEX_SHIFT
    const last = to >>> INDEX_SHIFT
    for (let bits = last + 1; bits <= first; bits++) index[bits]!++
    for (let bits = first + 1; bits <= last; bits++) index[bits]!--
  }

  // Memory.

  #grow(): void {
    const before = this.#memory
    // By half: a table of many megabytes has at most a third of it idle.
    const chunks = before.counts.length + Math.max(1, before.counts.length >> 1)
    this.#memory = copyMemory(before, chunks, this.#allocate)
  }
}

const ARRAYS = [
  'header',
  'heads',
  'tails',
  'ids',
  'order',
  'firstHeads',
  'counts',
  'index',
  'lengths',
  'values',
  'parents',
] as const

function allocateMemory(words: number, chunks: number, allocate: Allocate): PrefixMemory {
  const slots = chunks * CHUNK
  return {
    words,
    header: new Int32Array(allocate(4 * HEADER_WORDS)),
    heads: new Uint32Array(allocate(4 * slots)),
    tails: new Uint32Array(allocate(4 * (words - 1) * slots)),
    ids: new Int32Array(allocate(4 * slots)),
    order: new Int32Array(allocate(4 * chunks)),
    firstHeads: new Uint32Array(allocate(4 * chunks)),
    counts: new Int32Array(allocate(4 * chunks)),
    index: new Int32Array(allocate(4 * ((1 << INDEX_BITS) + 1))),
    lengths: new Uint8Array(allocate(slots)),
    values: new Int32Array(allocate(4 * slots)),
    parents: new Int32Array(allocate(4 * slots)),
  }
}

/** With room for at least as many chunks. */
function copyMemory(from: PrefixMemory, chunks: number, allocate: Allocate): PrefixMemory {
  const to = allocateMemory(from.words, chunks, allocate)
  for (const key of ARRAYS) to[key].set(from[key])
  return to
}

export function memoryBytes(memory: PrefixMemory): number {
  let bytes = 0
  for (const key of ARRAYS) bytes += memory[key].byteLength
  return bytes
}

export function prefixCount(memory: PrefixMemory): number {
  return memory.header[SIZE]!
}

/** Finds the longest prefix around an address, and its scope. */
export function findPrefix(
  memory: PrefixMemory,
  w0: number,
  w1: number,
  w2: number,
  w3: number,
  into: PrefixMatch,
): void {
  const place = lastAtOrBefore(memory, w0, w1, w2, w3)
  into.value = NONE
  into.bits = 0
  let scopeBits = 0
  if (place !== NONE) {
    const slot = slotOf(memory, place)
    const id = memory.ids[slot]!
    const shared = sharedBits(memory, slot, w0, w1, w2, w3)
    const holder = climb(memory, id, shared)
    if (holder !== NONE) {
      into.value = memory.values[holder]!
      into.bits = scopeBits = memory.lengths[holder]!
    }
    // The neighbour before lies beside the address, not around it: the scope ends where they part.
    if (holder !== id && shared >= scopeBits) scopeBits = shared + 1
  }
  const next = place === NONE ? (memory.header[CHUNKS]! > 0 ? 0 : NONE) : nextPlace(memory, place)
  if (next !== NONE) {
    const shared = sharedBits(memory, slotOf(memory, next), w0, w1, w2, w3)
    if (shared >= scopeBits) scopeBits = shared + 1
  }
  into.scopeBits = scopeBits
}

/**
 * Visits what is set inside the prefix of `bits` around an address, the entries that share most bits with it
 * first, until `visit` says false. Only for the thread that writes.
 */
export function visitAround(
  memory: PrefixMemory,
  [w0, w1, w2, w3]: readonly [number, number, number, number],
  bits: number,
  visit: (value: number, sharedBits: number) => boolean,
): void {
  const { ids, lengths, values } = memory
  // On both sides away from the address they share less and less with it.
  let before = lastAtOrBefore(memory, w0, w1, w2, w3)
  let after = before === NONE ? (memory.header[CHUNKS]! > 0 ? 0 : NONE) : nextPlace(memory, before)
  const sharedAt = (place: number) =>
    place === NONE ? NONE : sharedBits(memory, slotOf(memory, place), w0, w1, w2, w3)
  let [sharedBefore, sharedAfter] = [sharedAt(before), sharedAt(after)]
  while (Math.max(sharedBefore, sharedAfter) >= bits) {
    const isBefore = sharedBefore >= sharedAfter
    const shared = Math.max(sharedBefore, sharedAfter)
    const id = ids[slotOf(memory, isBefore ? before : after)]!
    if (isBefore) {
      before = previousPlace(memory, before)
      sharedBefore = sharedAt(before)
    } else {
      after = nextPlace(memory, after)
      sharedAfter = sharedAt(after)
    }
    // What begins inside and is wider lies around it.
    if (lengths[id]! >= bits && !visit(values[id]!, shared)) return
  }
}

/** The first of an entry and those around it that is at most `bits` long. */
function climb(memory: PrefixMemory, id: number, bits: number): number {
  const { lengths, parents } = memory
  // No chain is longer than an address has bits; who reads in the midst of a change must not go in circles.
  for (let steps = 0; id !== NONE && lengths[id]! > bits && steps < 128; steps++) id = parents[id]!
  return id
}

/** The last place whose key is at or before the address; NONE: all are behind it. */
function lastAtOrBefore(memory: PrefixMemory, w0: number, w1: number, w2: number, w3: number): number {
  const { firstHeads, heads, order, counts, index } = memory
  let low = index[w0 >>> INDEX_SHIFT]! - 1
  let high = index[(w0 >>> INDEX_SHIFT) + 1]!
  while (high - low > 1) {
    const middle = (low + high) >>> 1
    const head = firstHeads[middle]!
    if (head < w0 || (head === w0 && !isTailAfter(memory, order[middle]! << CHUNK_BITS, w1, w2, w3)))
      low = middle
    else high = middle
  }
  if (low < 0) return NONE
  const base = order[low]! << CHUNK_BITS
  let first = 0
  let end = counts[base >> CHUNK_BITS]!
  while (end - first > 1) {
    const middle = (first + end) >>> 1
    const head = heads[base + middle]!
    if (head < w0 || (head === w0 && !isTailAfter(memory, base + middle, w1, w2, w3))) first = middle
    else end = middle
  }
  return (low << CHUNK_BITS) | first
}

/** Whether the key at a slot, whose first word is as sought, is behind the address. */
function isTailAfter(
  { words, tails }: PrefixMemory,
  slot: number,
  w1: number,
  w2: number,
  w3: number,
): boolean {
  if (words === 1) return false
  const at = 3 * slot
  if (tails[at] !== w1) return tails[at]! > w1
  if (tails[at + 1] !== w2) return tails[at + 1]! > w2
  return tails[at + 2]! > w3
}

/** How many leading bits the key at a slot and the address share. */
function sharedBits(
  { words, heads, tails }: PrefixMemory,
  slot: number,
  w0: number,
  w1: number,
  w2: number,
  w3: number,
): number {
  if (heads[slot] !== w0) return Math.clz32(heads[slot]! ^ w0)
  if (words === 1) return 32
  const at = 3 * slot
  if (tails[at] !== w1) return 32 + Math.clz32(tails[at]! ^ w1)
  if (tails[at + 1] !== w2) return 64 + Math.clz32(tails[at + 1]! ^ w2)
  return 96 + Math.clz32(tails[at + 2]! ^ w3)
}

/** A place is a chunk's rank in the order and an index in it. */
function slotOf({ order }: PrefixMemory, place: number): number {
  return (order[place >> CHUNK_BITS]! << CHUNK_BITS) | (place & (CHUNK - 1))
}

function nextPlace({ header, order, counts }: PrefixMemory, place: number): number {
  const rank = place >> CHUNK_BITS
  if ((place & (CHUNK - 1)) + 1 < counts[order[rank]!]!) return place + 1
  return rank + 1 < header[CHUNKS]! ? (rank + 1) << CHUNK_BITS : NONE
}

function previousPlace({ order, counts }: PrefixMemory, place: number): number {
  if ((place & (CHUNK - 1)) > 0) return place - 1
  const rank = place >> CHUNK_BITS
  return rank === 0 ? NONE : ((rank - 1) << CHUNK_BITS) | (counts[order[rank - 1]!]! - 1)
}
