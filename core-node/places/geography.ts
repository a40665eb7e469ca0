// Geography: an address's place by a database, where nothing was measured yet.
//
// A shell over geoip-lite or an MMDB file, chosen by the setting `geo`. A lookup never throws. Special
// and private addresses are on no map: they are never looked up. How far to trust the map is said in
// each place's accuracyKm, by what the record names: a city, or only a country.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename } from 'node:path'
import { type Address, formatAddress, specialKind } from '../../resolver/address.ts'
import type { Geography, Place } from '../../resolver/directory.ts'
import { ConfigError, geographyFile } from '../settings/config.ts'
import { COUNTRY_ACCURACY_KM } from './gazetteer.ts'
import { Mmdb } from './mmdb.ts'

interface OpenGeography extends Geography {
  /** What it is, for people: `geoip-lite`, `City.mmdb (GeoLite2-City of 2026-06-17)`. */
  readonly name: string
  /** Loads it now, for whoever would rather wait at the start than at the first address that needs it. */
  load(): void
}

/**
 * The geography of the setting `geo`; null for `none`. Throws ConfigError where a file can't be used.
 * geoip-lite is loaded at the first address that is on the map: it takes 0.1 s and 110 MB, which a core
 * that only ever serves private addresses never pays.
 */
export function openGeography(geo: string): OpenGeography | null {
  if (geo === 'none') return null
  const file = geographyFile(geo)
  return file === null ? new GeoipLite() : openFile(file)
}

type GeoipModule = typeof import('geoip-lite')

class GeoipLite implements OpenGeography {
  readonly name = 'geoip-lite'
  /** null: its data could not be loaded; then nothing is known of any address. */
  #module: GeoipModule | null | undefined

  load(): void {
    this.#module = createRequire(import.meta.url)('geoip-lite') as GeoipModule
  }

  lookup(address: Address): Place | null {
    if (specialKind(address) !== null) return null
    try {
      if (this.#module === undefined) this.load()
      const found = this.#module?.lookup(formatAddress(address))
      return found ? placeOf(found) : null
    } catch {
      this.#module ??= null
      return null
    }
  }
}

function placeOf({ ll, area, city, region }: import('geoip-lite').Lookup): Place | null {
  const [lat, lon] = ll as readonly (number | null)[]
  // Records without a location have no area; their ll is [null, null] or [0, 0].
  if (typeof lat !== 'number' || typeof lon !== 'number' || !(area > 0)) return null
  const leastKm = city === '' && region === '' ? COUNTRY_ACCURACY_KM : 1
  return { lat, lon, accuracyKm: Math.max(leastKm, area) }
}

function openFile(path: string): OpenGeography {
  try {
    const database = new Mmdb(readFileSync(path))
    return {
      name: `${basename(path)} (${database.description})`,
      load: () => {},
      lookup: (address) => (specialKind(address) === null ? database.place(address) : null),
    }
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    const expected = `an MMDB file with latitudes and longitudes, such as GeoLite2 City or DB-IP City Lite; ${why}`
    throw new ConfigError([{ key: 'geo', source: 'file', value: path, expected }])
  }
}
