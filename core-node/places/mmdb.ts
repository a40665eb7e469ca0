// A MaxMind DB file as places: of one address, or of all its networks in order.
// https://maxmind.github.io/MaxMind-DB/
//
// A thin layer over mmdb-lib, which believes what it reads: here an address of a family that the file
// doesn't hold is not looked up (mmdb-lib answers with another network's record), damage is an error or
// null and never a crash, and a tree that goes in circles ends.

import { Reader } from 'mmdb-lib'
import {
  type Address,
  contains,
  familyOf,
  formatAddress,
  IPV4_OFFSET_BITS,
  type Prefix,
  parseAddress,
  parsePrefix,
  prefixOf,
} from '../../resolver/address.ts'
import type { Place } from '../../resolver/directory.ts'
import { Problem } from '../problem.ts'
import { CITY_ACCURACY_KM, COUNTRY_ACCURACY_KM } from './gazetteer.ts'

/** What ends the search tree and begins the metadata of every such file. */
const METADATA_MARK = Buffer.from('\xab\xcd\xefMaxMind.com', 'latin1')
/** Metadata is at the end, and the specification gives it this much at most, bytes. */
const METADATA_MAX_BYTES = 128 * 1024

/** Ranges where many files say all of IPv4 again (mapped, NAT64, Teredo, 6to4): no networks of their own. */
const ALIASES = ['::ffff:0:0/96', '64:ff9b::/96', '2001::/32', '2002::/16'].map((text) => parsePrefix(text)!)
/** Where IPv6 begins in a file: IPv4 lies in ::/96. */
const IPV6_START = parseAddress('::1:0:0')!
const IPV4_START = parseAddress('0.0.0.0')!

/** The forms in use: MaxMind's own, and the flat one of free databases. All of it may be missing or of another type. */
interface PlaceRecord {
  readonly location?: {
    readonly latitude?: unknown
    readonly longitude?: unknown
    readonly accuracy_radius?: unknown
  }
  readonly latitude?: unknown
  readonly longitude?: unknown
  readonly city?: unknown
  readonly subdivisions?: unknown
  readonly state1?: unknown
}

export function isMmdb(bytes: Buffer): boolean {
  return bytes.subarray(-METADATA_MAX_BYTES).includes(METADATA_MARK)
}

export class Mmdb {
  readonly #reader: Reader<never>

  /** Throws Problem where the bytes are no sound database, or one without places. */
  constructor(bytes: Buffer) {
    if (!isMmdb(bytes)) throw new Problem('bad-request', 'it is no MMDB file')
    this.#reader = sound(() => new Reader<never>(bytes))
    const { ipVersion, nodeCount, searchTreeSize } = this.#reader.metadata
    if ((ipVersion !== 4 && ipVersion !== 6) || !(nodeCount > 0) || !(searchTreeSize < bytes.length)) {
      throw new Problem('bad-request', 'its metadata is damaged')
    }
    if (this.networks().next().done) {
      throw new Problem(
        'bad-request',
        `it holds no latitudes and longitudes (${this.#reader.metadata.databaseType})`,
      )
    }
  }

  /** What it is and of when, for people. */
  get description(): string {
    const { databaseType, buildEpoch } = this.#reader.metadata
    const built = Number.isNaN(buildEpoch.getTime()) ? '' : ` of ${buildEpoch.toISOString().slice(0, 10)}`
    return `${databaseType}${built}`
  }

  /** null: not known, or what is known can't be read. */
  place(address: Address): Place | null {
    if (familyOf(address) === 6 && this.#reader.metadata.ipVersion === 4) return null
    try {
      return placeOf(this.#reader.get(formatAddress(address)))
    } catch {
      return null
    }
  }

  /** All networks that have a place, IPv4 first, in order. Throws Problem where the file is damaged. */
  *networks(): Generator<{ prefix: Prefix; place: Place }> {
    yield* this.#walk(IPV4_START)
    if (this.#reader.metadata.ipVersion === 6) yield* this.#walk(IPV6_START)
  }

  *#walk(start: Address): Generator<{ prefix: Prefix; place: Place }> {
    const family = familyOf(start)
    const skipped = family === 6 ? ALIASES : []
    // A tree of n nodes has n + 1 leaves.
    let leaves = this.#reader.metadata.nodeCount + 1
    let cursor: Address | null = start
    while (cursor !== null && (family === 6 || familyOf(cursor) === 4)) {
      const at: Address = cursor
      const alias = skipped.find((range) => contains(range, at))
      if (alias !== undefined) {
        cursor = endOf(alias)
        continue
      }
      if (leaves-- === 0) throw new Problem('bad-request', 'its search tree goes in circles')
      const [record, depth] = sound(() => this.#reader.getWithPrefixLength(formatAddress(at)))
      const prefix = prefixOf(at, family === 4 ? depth + IPV4_OFFSET_BITS : depth)
      const place = placeOf(record)
      if (place !== null) yield { prefix, place }
      cursor = endOf(prefix)
    }
  }
}

/** The first address after a prefix; null: it was the last. */
function endOf({ address, bits }: Prefix): Address | null {
  const next = address.slice()
  let carry = 1 << (7 - ((bits + 7) & 7))
  for (let i = (bits - 1) >> 3; i >= 0 && carry > 0; i--) {
    const sum = next[i]! + carry
    next[i] = sum & 0xff
    carry = sum >> 8
  }
  return bits === 0 || carry > 0 ? null : next
}

function placeOf(record: PlaceRecord | null): Place | null {
  if (typeof record !== 'object' || record === null) return null
  const { latitude: lat, longitude: lon } = record.location ?? record
  if (typeof lat !== 'number' || typeof lon !== 'number') return null
  if (!(Math.abs(lat) <= 90 && Math.abs(lon) <= 180)) return null
  // Nobody lives at 0, 0 in the Gulf of Guinea: it stands for "not known".
  if (lat === 0 && lon === 0) return null
  const stated = record.location?.accuracy_radius
  const countryOnly = !record.city && !record.subdivisions && !record.state1
  const leastKm = countryOnly ? COUNTRY_ACCURACY_KM : 1
  return { lat, lon, accuracyKm: Math.max(leastKm, typeof stated === 'number' ? stated : CITY_ACCURACY_KM) }
}

/** mmdb-lib throws whatever the damage brings about: RangeError, TypeError, plain Error. */
function sound<T>(read: () => T): T {
  try {
    return read()
  } catch (error) {
    throw new Problem(
      'bad-request',
      `it is damaged: ${error instanceof Error ? error.message : String(error)}`,
    )
  }
}
