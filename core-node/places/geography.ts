// Geography: an address's place by a database, where nothing was measured yet.
//
// A shell over the places of geoip-lite or an MMDB file, chosen by the setting `geo`. A lookup never throws. Special
// and private addresses are on no map: they are never looked up. How far to trust the map is said in
// each place's accuracyKm, by what the record names: a city, or only a country.

import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { type Address, specialKind } from '../../resolver/address.ts'
import type { Geography, Place } from '../../resolver/directory.ts'
import { ConfigError, geographyFile } from '../settings/config.ts'
import { type GeoipLiteMap, placeInGeoipLite, readGeoipLite } from './geoip-lite-map.ts'
import { Mmdb } from './mmdb.ts'

interface OpenGeography extends Geography {
  /** What it is, for people: `geoip-lite`, `City.mmdb (GeoLite2-City of 2026-06-17)`. */
  readonly name: string
  /** Loads it now, for whoever would rather wait at the start than at the first address that needs it. */
  load(): void
  /** What another thread opens it with, so that it is in memory once; null: it is not loaded, each loads its own. */
  share(): GeographyMemory | null
}

export type GeographyMemory =
  | { readonly kind: 'geoip-lite'; readonly map: GeoipLiteMap }
  | { readonly kind: 'mmdb'; readonly bytes: SharedArrayBuffer }

/**
 * The geography of the setting `geo`; null for `none`. Throws ConfigError where a file can't be used.
 * geoip-lite is loaded at the first address that is on the map: it takes some tenths of a second and 40 MB, which a
 * core that only ever serves private addresses never pays. `memory`: what another thread shares.
 */
export function openGeography(geo: string, memory: GeographyMemory | null = null): OpenGeography | null {
  if (geo === 'none') return null
  const file = geographyFile(geo)
  if (file === null) return new GeoipLite(memory?.kind === 'geoip-lite' ? memory.map : undefined)
  return openFile(file, memory?.kind === 'mmdb' ? memory.bytes : null)
}

class GeoipLite implements OpenGeography {
  readonly name = 'geoip-lite'
  /** null: its data could not be loaded; then nothing is known of any address. */
  #map: GeoipLiteMap | null | undefined

  constructor(map: GeoipLiteMap | undefined) {
    this.#map = map
  }

  load(): void {
    this.#map ??= readGeoipLite()
  }

  share(): GeographyMemory | null {
    return this.#map ? { kind: 'geoip-lite', map: this.#map } : null
  }

  lookup(address: Address): Place | null {
    if (specialKind(address) !== null) return null
    try {
      if (this.#map === undefined) this.load()
      return this.#map ? placeInGeoipLite(this.#map, address) : null
    } catch {
      this.#map ??= null
      return null
    }
  }
}

function openFile(path: string, memory: SharedArrayBuffer | null): OpenGeography {
  try {
    const bytes = memory ?? sharedCopy(readFileSync(path))
    const database = new Mmdb(Buffer.from(bytes))
    return {
      name: `${basename(path)} (${database.description})`,
      load: () => {},
      share: () => ({ kind: 'mmdb', bytes }),
      lookup: (address) => (specialKind(address) === null ? database.place(address) : null),
    }
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    const expected = `an MMDB file with latitudes and longitudes, such as GeoLite2 City or DB-IP City Lite; ${why}`
    throw new ConfigError([{ key: 'geo', source: 'file', value: path, expected }])
  }
}

function sharedCopy(file: Buffer): SharedArrayBuffer {
  const bytes = new SharedArrayBuffer(file.length)
  Buffer.from(bytes).set(file)
  return bytes
}
