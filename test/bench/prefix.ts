// How fast the prefix table is built, searched and changed, beside two others in the same run: the folded
// binary trie (PATRICIA) and a hash map for each length.
//
//   npm run -s bench:prefix -- --table FILE [--table FILE ...] [--seconds 1] [--json]
// FILE: lines or CSV of prefixes, gzipped or not; the first field is the prefix. Times are of this machine.

import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { gunzipSync } from 'node:zlib'
import { type Address, familyOf, type Prefix, parsePrefix, prefixOf } from '../../resolver/address.ts'
import { newMatch, PrefixTable } from '../../resolver/prefix-table.ts'
import { PrefixTrie } from './prefix-trie.ts'

const { values: options } = parseArgs({
  options: {
    table: { type: 'string', multiple: true },
    seconds: { type: 'string', default: '1' },
    seed: { type: 'string', default: '1' },
    json: { type: 'boolean', default: false },
  },
})
if (options.table === undefined) {
  console.error('bench:prefix needs --table FILE: CSV or lines whose first field is a prefix, gzipped or not')
  process.exit(2)
}
const seconds = Number(options.seconds)

interface Contender {
  readonly name: string
  set(prefix: Prefix, value: number): void
  find(address: Address): number
  /** Its own count of bytes; null: it can't tell. */
  bytes(): number | null
}

/** One Map for each length that occurs, longest first: what one writes without a table. */
class MapByLength {
  readonly #maps = new Map<number, Map<string, number>>()
  #lengths: number[] = []

  set(prefix: Prefix, value: number): void {
    const map = this.#maps.get(prefix.bits) ?? new Map()
    this.#maps.set(prefix.bits, map.set(keyOf(prefix.address), value))
    if (map.size === 1) this.#lengths = [...this.#maps.keys()].sort((a, b) => b - a)
  }

  find(address: Address): number {
    for (const bits of this.#lengths) {
      const value = this.#maps.get(bits)!.get(keyOf(prefixOf(address, bits).address))
      if (value !== undefined) return value
    }
    return -1
  }
}

function keyOf(address: Address): string {
  return String.fromCharCode(...address)
}

function contenders(): Contender[] {
  const table = new PrefixTable()
  const match = newMatch()
  const trie = new PrefixTrie()
  const maps = new MapByLength()
  return [
    {
      name: 'table',
      set: (prefix, value) => table.set(prefix, value),
      find: (address) => table.find(address, match).value,
      bytes: () => table.bytes,
    },
    {
      name: 'trie',
      set: (prefix, value) => trie.set(prefix, value),
      find: (address) => trie.find(address).value,
      bytes: () => trie.bytes,
    },
    {
      name: 'mapByLength',
      set: (prefix, value) => maps.set(prefix, value),
      find: (address) => maps.find(address),
      bytes: () => null,
    },
  ]
}

/** xorshift32: cheap beside a search. */
function randomWords(seed: number): () => number {
  let state = seed | 0 || 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state >>> 0
  }
}

const random = randomWords(Number(options.seed))
const readStartMs = performance.now()
const prefixes = options.table.flatMap(readPrefixes)
const readMs = performance.now() - readStartMs

function readPrefixes(file: string): Prefix[] {
  const bytes = readFileSync(file)
  const text = (bytes[0] === 0x1f ? gunzipSync(bytes) : bytes).toString('latin1')
  const found: Prefix[] = []
  for (const line of text.split('\n')) {
    const prefix = parsePrefix(line.split(/[\s,]/, 1)[0]!)
    if (prefix !== null) found.push(prefix)
  }
  return found
}

/** Addresses drawn before anything is timed, as words: objects in such number would be timed themselves. */
const SAMPLE = 1 << 18
function drawAddresses(draw: () => Address): Uint32Array {
  const words = new Uint32Array(4 * SAMPLE)
  for (let i = 0; i < SAMPLE; i++) {
    const view = new DataView(draw().buffer)
    for (let word = 0; word < 4; word++) words[4 * i + word] = view.getUint32(4 * word)
  }
  return words
}

function anyAddress(family: 4 | 6): Address {
  const address = new Uint8Array(16)
  const view = new DataView(address.buffer)
  for (let at = family === 4 ? 12 : 0; at < 16; at += 4) view.setUint32(at, random())
  if (family === 4) address[10] = address[11] = 0xff
  // Global unicast is 2000::/3: the rest of IPv6 is empty and would flatter.
  else address[0] = 0x20 | (address[0]! & 0x1f)
  return address
}

/** A random address inside a random one of the prefixes. */
function anyAnnounced(from: readonly Prefix[]): Address {
  const prefix = from[random() % from.length]!
  const address = anyAddress(4)
  new DataView(address.buffer).setUint32(8, random())
  for (let bit = 0; bit < prefix.bits; bit++) {
    const mask = 0x80 >> (bit & 7)
    address[bit >> 3] = (address[bit >> 3]! & ~mask) | (prefix.address[bit >> 3]! & mask)
  }
  return address
}

const byFamily = {
  4: prefixes.filter(({ address }) => familyOf(address) === 4),
  6: prefixes.filter(({ address }) => familyOf(address) === 6),
}
const samples = {
  ipv4Random: drawAddresses(() => anyAddress(4)),
  ipv6Random: drawAddresses(() => anyAddress(6)),
  ...(byFamily[4].length > 0 && { ipv4Announced: drawAddresses(() => anyAnnounced(byFamily[4])) }),
  ...(byFamily[6].length > 0 && { ipv6Announced: drawAddresses(() => anyAnnounced(byFamily[6])) }),
}

/**
 * Lookups in a second of the processor's time, the best of three rounds: what other programs take of the
 * machine only ever slows.
 */
function rate(contender: Contender, words: Uint32Array): { perSec: number; sum: number } {
  const address = new Uint8Array(16)
  const view = new DataView(address.buffer)
  let best = 0
  let sum = 0
  for (let round = 0; round < 3; round++) {
    const startMs = processorMs()
    let usedMs = 0
    let done = 0
    while (usedMs < (1000 * seconds) / 3) {
      sum = 0
      for (let at = 0; at < words.length; at += 4) {
        for (let word = 0; word < 4; word++) view.setUint32(4 * word, words[at + word]!)
        sum += contender.find(address)
      }
      done += SAMPLE
      usedMs = processorMs() - startMs
    }
    best = Math.max(best, (1000 * done) / usedMs)
  }
  return { perSec: Math.round(best), sum }
}

function processorMs(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

const results: Record<string, object> = {}
const sums = new Map<string, number>()
for (const contender of contenders()) {
  const startMs = processorMs()
  for (let i = 0; i < prefixes.length; i++) contender.set(prefixes[i]!, i)
  const buildMs = processorMs() - startMs
  const lookups: Record<string, number> = {}
  for (const [name, words] of Object.entries(samples)) {
    const { perSec, sum } = rate(contender, words)
    lookups[name] = perSec
    // All must find the same entries, or the race is void.
    if (sums.has(name) && sums.get(name) !== sum) throw new Error(`${contender.name} finds others: ${name}`)
    sums.set(name, sum)
  }
  const bytes = contender.bytes()
  results[contender.name] = {
    buildSec: round(buildMs / 1000),
    mib: bytes === null ? null : round(bytes / 2 ** 20),
    lookupsPerSec: lookups,
    updates: updates(contender),
  }
}

/** Single prefixes set anew in the full table, each followed by a lookup: their time, and the longest. */
function updates(contender: Contender): object {
  const count = 20_000
  let worstMs = 0
  const startMs = performance.now()
  for (let i = 0; i < count; i++) {
    const beforeMs = performance.now()
    const bits = 8 + (random() % 25)
    contender.set(prefixOf(anyAddress(4), 96 + bits), i)
    worstMs = Math.max(worstMs, performance.now() - beforeMs)
  }
  return { perSec: Math.round((1000 * count) / (performance.now() - startMs)), worstMs: round(worstMs) }
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}

const report = {
  prefixes: { ipv4: byFamily[4].length, ipv6: byFamily[6].length },
  readSec: round(readMs / 1000),
  contenders: results,
}
console.log(JSON.stringify(report, null, options.json ? 0 : 2))
