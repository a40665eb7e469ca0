// The domain: what all cores know (the directory), as plain records.
//
// Invariant: records are values. Whoever changes one replaces it, so a reader that holds a record
// never sees it half changed. Only what a core must never forget is in here (the Store keeps these
// records as they are); what can be measured again lives in the compiled tables.
// Names are product words: service, host, member, home, locality, basis. No behaviour here.

import type { Address } from './address.ts'
import { LocalityMap } from './locality-map.ts'

/** How a service's members are ordered for a client. */
export type Policy = 'nearest' | 'random' | 'weighted' | 'hash' | 'failover'
export const POLICIES: readonly Policy[] = ['nearest', 'random', 'weighted', 'hash', 'failover']

/** The built-in service whose members are the cores themselves. */
export const CORE_SERVICE = 'core'

/** Policies that order members by their distance: for these a client is located, measured and kept on its member. */
export function isByDistance(policy: Policy): boolean {
  return policy === 'nearest' || policy === 'failover'
}

/**
 * Members that a service may have under a policy by which each answer weighs them all: some ten ms of a core's time.
 * nearest and random ask an index, and have no bound.
 */
export const MAX_WEIGHED = 10_000

/** Whether answers by a policy find members without weighing all of them. */
export function isIndexed(policy: Policy): boolean {
  return policy === 'nearest' || policy === 'random'
}

/** What an answer stood on, best first: the ladder that locate goes down. */
export const BASES = ['member', 'measured', 'coordinate', 'geo', 'none'] as const
export type Basis = (typeof BASES)[number]

/** What DNS and HTTP alike do when no member is live. */
export type AllDown =
  | { readonly mode: 'stale' }
  | { readonly mode: 'fallback'; readonly addresses: readonly string[]; readonly url: string | null }
  | { readonly mode: 'empty' }

/** One attribute that a member must have: `attribute:value` in queries, a map in a service. */
export type Predicate = Readonly<Record<string, string>>

/** A name that clients ask for, with its policy. `name` is one DNS label in lower case. */
export interface Service {
  readonly name: string
  readonly policy: Policy
  /** DNS time to live of its answers, seconds, 0..86400. */
  readonly ttlSec: number
  /** Addresses in one DNS answer: at least and at most (1..16), as far as there are members. */
  readonly minAddrs: number
  readonly maxAddrs: number
  /** Members within so many ms of the best share the clients by capacity. */
  readonly tieMs: number
  /** A locality changes its member only for a gain of at least this many ms ... */
  readonly stickyMs: number
  /** ... and only where the new RTT is at most this share (0..1) of the old. */
  readonly stickyRatio: number
  /** Attributes a member must have to be chosen; empty: all may be. */
  readonly where: Predicate
  /** Other names for it: labels in the zone or full names that the operator points here. Lower case, no final dot. */
  readonly aliases: readonly string[]
  /** Host names that members' URLs may use beside their verified addresses. */
  readonly urlHosts: readonly string[]
  /** Who may join: holders of a token, or anyone (public overlays). */
  readonly join: 'token' | 'open'
  /** With `join: open`: members from one /24 (/48) at most; 0: no limit. */
  readonly maxPerPrefix: number
  /** How a member's address is proven before it is served. */
  readonly verify: 'echo' | 'seen' | 'none'
  readonly allDown: AllDown
}

/** Where a place on Earth is, degrees, and how far off it may be. */
export interface Place {
  readonly lat: number
  readonly lon: number
  /** Radius within which the true place is believed to lie, km. */
  readonly accuracyKm: number
}

/** A point in the network coordinate space (Vivaldi with height, Dabek et al. 2004, as Serf runs it). */
export interface Coordinate {
  /** Euclidean part, ms, DIMENSIONS long. */
  readonly vec: readonly number[]
  /** Access link delay above the Euclidean plane, ms, >= 0. */
  readonly heightMs: number
  /** Mean residual of recent samples (Ledlie et al. 2007), ms, either sign. */
  readonly adjustmentMs: number
  /** Confidence: relative error, 0 (sure) .. 1.5 (knows nothing). */
  readonly error: number
}

/**
 * Whether a host is there.
 * - `live`: heard from within its lease, or vouched for by other hosts.
 * - `silent`: its lease ended and nobody could reach it: never served unless all are down.
 * - `left`: said goodbye.
 */
export type Presence = 'live' | 'silent' | 'left'

/**
 * How an address was proven to be its host's: it answered a nonce by `echo`, a TCP connection was
 * `seen` from it, or an administrator `vouched` for it.
 */
export type Proof = 'echo' | 'seen' | 'vouched'

/** A machine with addresses, one coordinate and one lease. */
export interface Host {
  /** One DNS label; for a member without agent `MEMBER.SERVICE`, which no agent may take. */
  readonly name: string
  /** False: no agent runs there; nearby hosts check its members. */
  readonly agent: boolean
  /** Addresses, canonical text (IPv4 dotted, IPv6 RFC 5952), best first. */
  readonly addresses: readonly string[]
  /** Which of `addresses` were proven, and how (see Service.verify). */
  readonly proofs: Readonly<Record<string, Proof>>
  /** Where its agent's echo listens, as seen by other hosts; null: no echo. */
  readonly echo: { readonly address: string; readonly port: number } | null
  /** Given by its home at join; makes and checks the MACs of echoes. Hex, 32 bytes. */
  readonly echoKey: string
  /** The address and port that its registration was seen to come from. */
  readonly publicAddress: string | null
  readonly publicPort: number | null
  /** Whether its echo answered from outside; null: not tried yet. */
  readonly reachable: boolean | null
  /** The core that holds its lease. */
  readonly home: string
  /** Heartbeats must not be further apart than this, seconds. */
  readonly leaseSec: number
  readonly presence: Presence
  /** When presence last changed, epoch ms: told to people, never compared between machines finer than hours. */
  readonly presenceSinceMs: number
  readonly coordinate: Coordinate | null
  /** RTTs that it measured to other hosts, by name: a low percentile of the recent ones, ms. Absent: none yet. */
  readonly meshMs?: Readonly<Record<string, number>>
  /** Where its operator or geography says it is. */
  readonly place: Place | null
  /** SHA-256 of its own credential, hex; null for a host without agent. */
  readonly credentialHash: string | null
  /** The token that it joined with; null: open join or administrator. */
  readonly tokenId: string | null
  /** The core by whose clock presenceSinceMs is. Absent: not known. */
  readonly presenceBy?: string
}

/** What a host or a check says of a member. `unknown` is served as `up` is: no check was asked for or none ended yet. */
export type Health = 'up' | 'down' | 'unknown'

/** A host's part in one service. Its full name is SERVICE/NAME. */
export interface Member {
  readonly service: string
  /** One DNS label, unique within the service. */
  readonly name: string
  readonly host: string
  /** Served addresses; empty: the host's. Canonical text. */
  readonly addresses: readonly string[]
  /** Port for SRV and URL-less use, 1..65535; null: none. */
  readonly port: number | null
  /** Base URL for redirects, http or https; null: none. */
  readonly url: string | null
  readonly attributes: Readonly<Record<string, string>>
  /** Relative share under `weighted`, >= 0; 0: only where nothing else is left. */
  readonly weight: number
  /** What it can carry, in its own unit, > 0. */
  readonly capacity: number
  /** What it carries now, in the unit of capacity, >= 0; null: not told. */
  readonly load: number | null
  readonly health: Health
  /** Taken out by the operator: not chosen, not dead. */
  readonly drained: boolean
  /** Said goodbye, alone or with its host; registering again clears it. Kept so that `drained` outlives a restart. */
  readonly left: boolean
  /** For a member whose host has no agent: what nearby hosts check, `tcp://HOST:PORT` or an http(s) URL; null: a connection to its port. */
  readonly check: string | null
}

/** A credential for the control API. The secret itself is never kept. */
export interface Token {
  readonly id: string
  /** SHA-256 of the secret, hex. */
  readonly hash: string
  readonly scope: { readonly admin: true } | { readonly admin: false; readonly services: readonly string[] }
  readonly createdMs: number
  readonly note: string
}

/** RTTs from one host to one client prefix, folded to robust statistics. */
export interface Evidence {
  readonly host: string
  /** A low percentile of the recent samples, ms. */
  readonly rttMs: number
  readonly count: number
  /** When the last sample came, epoch ms. */
  readonly atMs: number
  readonly kind: 'active' | 'passive' | 'client'
}

/** What was measured of where one client prefix is. */
export interface LocalityRecord {
  /** Canonical prefix text, `192.0.2.0/24` or `2001:db8::/48`. */
  readonly prefix: string
  readonly evidence: readonly Evidence[]
  /** Service -> member that its clients are kept on (hysteresis), set when estimates are published. */
  readonly incumbents: Readonly<Record<string, string>>
}

/** Where imports say that the prefixes of one region are, packed: see place-page.ts. */
export interface PlacePage {
  /** Canonical prefix text. */
  readonly region: string
  readonly packed: Uint8Array
}

/** All that the cores know. Keys: service name, host name, `SERVICE/NAME`, token id, prefix text, region. */
export interface Directory {
  readonly services: Map<string, Service>
  readonly hosts: Map<string, Host>
  readonly members: Map<string, Member>
  readonly tokens: Map<string, Token>
  readonly localities: LocalityMap
  readonly places: Map<string, PlacePage>
  /** Small facts of the installation, such as secrets that all cores share. */
  readonly settings: Map<string, string>
}

export function emptyDirectory(): Directory {
  return {
    services: new Map(),
    hosts: new Map(),
    members: new Map(),
    tokens: new Map(),
    localities: new LocalityMap(),
    places: new Map(),
    settings: new Map(),
  }
}

/** An address's place on the map, by whatever database is loaded. */
export interface Geography {
  /** null: not known. Never throws. */
  lookup(address: Address): { lat: number; lon: number; accuracyKm: number } | null
}

/** One record set (or, with null, removed): what a Store commits and what other cores are told. */
export type Change = {
  [K in keyof Directory]: {
    readonly kind: K
    readonly key: string
    readonly value: (Directory[K] extends Map<string, infer V> ? V : never) | null
  }
}[keyof Directory]

/** Puts changes into a directory, in order. */
export function applyChanges(directory: Directory, changes: readonly Change[]): void {
  for (const { kind, key, value } of changes) {
    const records = directory[kind] as Map<string, unknown>
    if (value === null) records.delete(key)
    else records.set(key, value)
  }
}

/** A member's key in the directory and its full name in the product. */
export function memberKey(service: string, name: string): string {
  return `${service}/${name}`
}

/** True for one DNS label as services, hosts and members are named: a-z, 0-9, inner hyphens, at most 63. */
export function isLabel(text: string): boolean {
  return /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(text)
}
