// A binary trie with its one-way paths folded (PATRICIA, Morrison 1968): the prefix table's rival in its
// benchmark and its fast twin in tests of many prefixes.
//
// Invariant: a node that is no entry has two children (the root excepted), so the depth at which a search
// leaves the trie is the scope. Simple, but each step of a search is a jump to another place in memory.

import { type Address, familyOf, IPV4_OFFSET_BITS, type Prefix } from '../../resolver/address.ts'

export interface PrefixMatch {
  /** What was set for the longest prefix around the address; -1: no prefix is. */
  readonly value: number
  /** That prefix's length in bits of the 16-byte form; 0 with value -1. */
  readonly bits: number
  /** Length of the largest prefix around the address inside which every address finds this same entry. IPv4: never below 96. */
  readonly scopeBits: number
}

/** The root is never anyone's child, so its index says "no child" and fresh arrays of zeros are right. */
const ROOT = 0
const NONE = 0
const NO_VALUE = -1
const FIRST_CAPACITY = 64
const KEY_WORDS = 4

export class PrefixTrie {
  #children = new Int32Array(2 * FIRST_CAPACITY)
  #keys = new Int32Array(KEY_WORDS * FIRST_CAPACITY)
  #depths = new Uint8Array(FIRST_CAPACITY)
  #values = new Int32Array(FIRST_CAPACITY).fill(NO_VALUE)
  /** Nodes in use or freed; the next fresh one has this index. */
  #used = 1
  readonly #freed: number[] = []
  #size = 0
  /** The address or prefix at hand as four words: kept, so that a search allocates only its result. */
  readonly #sought = new Int32Array(KEY_WORDS)

  /** How many prefixes are set. */
  get size(): number {
    return this.#size
  }

  get bytes(): number {
    return (
      this.#children.byteLength + this.#keys.byteLength + this.#depths.byteLength + this.#values.byteLength
    )
  }

  find(address: Address): PrefixMatch {
    this.#seek(address, 128)
    let node = ROOT
    // No IPv6 prefix holds an IPv4 address, however short it is.
    const least = familyOf(address) === 4 ? IPV4_OFFSET_BITS : 0
    let value = least === 0 ? this.#values[ROOT]! : NO_VALUE
    let bits = 0
    for (;;) {
      const depth = this.#depths[node]!
      const child = depth === 128 ? NONE : this.#children[2 * node + this.#soughtBit(depth)]!
      if (child === NONE)
        return { value, bits, scopeBits: scopeFor(address, this.#isLeaf(node) ? depth : depth + 1) }
      const shared = this.#sharedBits(child, depth)
      // The way to the child parts from the address at bit `shared`: one bit more, and nothing else is inside.
      if (shared < this.#depths[child]!) return { value, bits, scopeBits: scopeFor(address, shared + 1) }
      node = child
      if (this.#values[node] !== NO_VALUE && shared >= least) {
        value = this.#values[node]!
        bits = shared
      }
    }
  }

  /** Sets or replaces. `value` is an integer, 0..2^31-1. */
  set(prefix: Prefix, value: number): void {
    if (value < 0 || value !== (value | 0)) throw new RangeError(`PrefixTrie value ${value} is not 0..2^31-1`)
    const { bits } = prefix
    this.#seek(prefix.address, bits)
    let node = ROOT
    while (this.#depths[node]! < bits) {
      const slot = 2 * node + this.#soughtBit(this.#depths[node]!)
      const child = this.#children[slot]!
      if (child === NONE) {
        const leaf = this.#allocate(bits)
        this.#children[slot] = leaf
        node = leaf
        break
      }
      const shared = Math.min(bits, this.#sharedBits(child, this.#depths[node]!))
      node = shared === this.#depths[child] ? child : this.#insertAbove(slot, child, shared)
    }
    if (this.#values[node] === NO_VALUE) this.#size++
    this.#values[node] = value
  }

  /** Removes exactly this prefix; false where it was not set. */
  delete(prefix: Prefix): boolean {
    const { bits } = prefix
    this.#seek(prefix.address, bits)
    let parentSlot = -1
    let slot = -1
    let node = ROOT
    while (this.#depths[node]! < bits) {
      parentSlot = slot
      slot = 2 * node + this.#soughtBit(this.#depths[node]!)
      const child = this.#children[slot]!
      if (child === NONE || this.#sharedBits(child, this.#depths[node]!) < this.#depths[child]!) return false
      node = child
    }
    if (this.#depths[node] !== bits || this.#values[node] === NO_VALUE) return false
    this.#values[node] = NO_VALUE
    this.#size--
    this.#fold(node, slot)
    if (slot >= 0) this.#fold(slot >> 1, parentSlot)
    return true
  }

  /** Takes a node out that is no entry and does not branch; `slot` is where its parent points to it. */
  #fold(node: number, slot: number): void {
    const left = this.#children[2 * node]!
    const right = this.#children[2 * node + 1]!
    if (node === ROOT || this.#values[node] !== NO_VALUE || (left !== NONE && right !== NONE)) return
    this.#children[slot] = left === NONE ? right : left
    this.#freed.push(node)
  }

  /** A new node for the first `depth` sought bits between `slot` and the `child` it points to. */
  #insertAbove(slot: number, child: number, depth: number): number {
    const node = this.#allocate(depth)
    const branch = (this.#keys[KEY_WORDS * child + (depth >> 5)]! >>> (31 - (depth & 31))) & 1
    this.#children[2 * node + branch] = child
    this.#children[slot] = node
    return node
  }

  #allocate(depth: number): number {
    const node = this.#freed.pop() ?? this.#used++
    if (node === this.#depths.length) this.#grow()
    this.#depths[node] = depth
    this.#values[node] = NO_VALUE
    this.#children.fill(NONE, 2 * node, 2 * node + 2)
    for (let word = 0; word < KEY_WORDS; word++) {
      this.#keys[KEY_WORDS * node + word] = this.#sought[word]! & wordMask(depth - 32 * word)
    }
    return node
  }

  #grow(): void {
    const capacity = 2 * this.#depths.length
    const widen = <T extends Int32Array | Uint8Array>(from: T, to: T): T => {
      to.set(from)
      return to
    }
    this.#children = widen(this.#children, new Int32Array(2 * capacity))
    this.#keys = widen(this.#keys, new Int32Array(KEY_WORDS * capacity))
    this.#depths = widen(this.#depths, new Uint8Array(capacity))
    this.#values = widen(this.#values, new Int32Array(capacity))
  }

  #isLeaf(node: number): boolean {
    return this.#children[2 * node] === NONE && this.#children[2 * node + 1] === NONE
  }

  #seek(address: Address, bits: number): void {
    for (let word = 0, i = 0; word < KEY_WORDS; word++, i += 4) {
      const bytes = (address[i]! << 24) | (address[i + 1]! << 16) | (address[i + 2]! << 8) | address[i + 3]!
      this.#sought[word] = bytes & wordMask(bits - 32 * word)
    }
  }

  #soughtBit(at: number): number {
    return (this.#sought[at >> 5]! >>> (31 - (at & 31))) & 1
  }

  /** How many leading bits of the node's key are as sought, at most its depth; the first `known` are. */
  #sharedBits(node: number, known: number): number {
    const depth = this.#depths[node]!
    for (let word = known >> 5; word * 32 < depth; word++) {
      const differing = this.#keys[KEY_WORDS * node + word]! ^ this.#sought[word]!
      if (differing !== 0) return Math.min(depth, word * 32 + Math.clz32(differing))
    }
    return depth
  }
}

/** A word with its first `bits` set (none below 0, all from 32 on). */
function wordMask(bits: number): number {
  if (bits <= 0) return 0
  return bits >= 32 ? -1 : -1 << (32 - bits)
}

/** An IPv4 scope stays within IPv4: what surrounds ::ffff:0:0/96 is no answer's business. */
function scopeFor(address: Address, bits: number): number {
  return bits < IPV4_OFFSET_BITS && familyOf(address) === 4 ? IPV4_OFFSET_BITS : bits
}
