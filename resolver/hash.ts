// Hashes of client prefixes and names: how clients are shared out without remembering any of them.
//
// Weighted rendezvous hashing (Thaler and Ravishankar 1998; logarithmic weights: Schindelhauer and
// Schomaker 2005): each member scores itself for a client and the highest score wins, so a member that
// comes or goes moves only its own clients. Every core computes the same; not meant to resist an
// attacker who chooses prefixes.

import { type Address, familyOf } from './address.ts'

/** The grain at which clients are told apart, bytes of the 16-byte form: /24 and /48. */
const GRAIN_BYTES = { 4: 15, 6: 6 } as const

/** FNV-1a, 32 bits: where it starts, and what each byte does to it. */
export const FNV_BASIS = 0x811c9dc5
export const fnvStep = (hash: number, byte: number) => Math.imul(hash ^ byte, 0x01000193)

/** FNV-1a of the first `end` bytes. */
export function hashBytes(bytes: Uint8Array, end: number): number {
  let hash = FNV_BASIS
  for (let i = 0; i < end; i++) hash = fnvStep(hash, bytes[i]!)
  return hash >>> 0
}

/** FNV-1a of a name, whose characters are bytes: labels are ASCII. */
export function hashText(text: string): number {
  let hash = FNV_BASIS
  for (let i = 0; i < text.length; i++) hash = fnvStep(hash, text.charCodeAt(i))
  return hash >>> 0
}

/** FNV-1a of a packet's bytes from `start` to before `end`, with a sign: letters' case is none of a name. */
export function hashName(packet: Uint8Array, start: number, end: number): number {
  let hash = FNV_BASIS
  for (let i = start; i < end; i++) {
    const byte = packet[i]!
    hash = fnvStep(hash, byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte)
  }
  return hash
}

/** FNV-1a of the client's /24 or /48: clients that share it are one client to every policy. */
export function hashClient(client: Address): number {
  return hashBytes(client, GRAIN_BYTES[familyOf(client)])
}

/** Both hashes as one, evenly spread over 32 bits (with a sign, as numbers that take no memory have): the finalizer of MurmurHash3 over their mix. */
export function hashMix(client: number, name: number): number {
  let hash = Math.imul(client, 0x9e3779b1) ^ Math.imul(name, 0x85ebca77)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return hash ^ (hash >>> 16)
}

/** The same as a number in (0, 1). */
export function hashShare(client: number, name: number): number {
  return ((hashMix(client, name) >>> 0) + 0.5) / 0x1_0000_0000
}

/** What a contender of this weight scores for this client; each wins in proportion to its weight. Weight 0 scores 0. */
export function rendezvousScore(client: number, name: number, weight: number): number {
  return weight / -Math.log(hashShare(client, name))
}
