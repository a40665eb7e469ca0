// A small Internet: real cities, and round trips between any two sites in them that look measured.
//
// Pure: a function of (seed, the two sites), so adding a site changes no other pair. Invariant: symmetric,
// positive, never faster than light in fibre along the great circle.
// The shape follows what measured matrices show: an access delay at each end, paths longer than the
// great circle (most so where they are short), and pairs of countries whose traffic meets on another
// continent; that, and not noise alone, is where triangle violations come from (Lumezanu et al., IMC
// 2009). docs/lab.md has the comparison with a measured matrix. No sockets, no clock, no chance here.

import { fibreFloorMs, greatCircleKm } from '../../resolver/geo.ts'
import { CITIES, type LabCity } from './cities.ts'

/** One network in a city. Two sites in a city share its roads but not its access line. */
export interface Site {
  /** What chance is keyed by: two sites with one key are one. */
  readonly key: string
  readonly city: LabCity
}

// The numbers below were searched until the 244 cities of docs/lab.md came out as they were measured.
/** Access delay at each end, there and back: lognormal. */
const ACCESS_MEDIAN_MS = 1.2
const ACCESS_SIGMA = 1.2
/** Cable beyond the great circle, as a share of it: on long paths so much, ... */
const LONG_INFLATION = 0.42
/** ... on short ones so much more, fading with distance. */
const SHORT_INFLATION = 0.76
const SHORT_FADE_KM = 9000
/** How much that differs (log scale) from site to site, and besides from pair to pair. */
const SITE_SIGMA = 0.22
const PAIR_SIGMA = 0.1
/** Share of countries that reach others through one exchange, if it is not farther off than this. */
const GATEWAY_SHARE = 0.33
const GATEWAY_MAX_KM = 5600
/** Share of pairs of countries, and of sites, that meet at an exchange out of the way, at most by so much. */
const COUNTRIES_DETOUR_SHARE = 0.025
const SITES_DETOUR_SHARE = 0.033
const DETOUR_MAX_KM = 2400

/** Where networks that meet nowhere nearer exchange their traffic. */
const EXCHANGES = CITIES.filter(({ name }) =>
  ['Frankfurt', 'London', 'Los Angeles', 'Marseille', 'Miami', 'New York', 'Singapore', 'Tokyo'].includes(
    name,
  ),
)

/** Round trip between two sites, ms, the same in both directions. */
export function rttBetween(a: Site, b: Site, seed: number): number {
  const [first, second] = a.key < b.key ? [a, b] : [b, a]
  const access = accessMs(first, seed) + (a.key === b.key ? 0 : accessMs(second, seed))
  return access + fibreFloorMs(pathKm(first, second, seed)) * inflation(first, second, seed)
}

function accessMs(site: Site, seed: number): number {
  return ACCESS_MEDIAN_MS * Math.exp(ACCESS_SIGMA * gaussian(seed, 'access', site.key))
}

/** How much longer the cable is than the path on the map, >= 1. */
function inflation(a: Site, b: Site, seed: number): number {
  const km = greatCircleKm(a.city, b.city)
  const median = LONG_INFLATION + SHORT_INFLATION / (1 + km / SHORT_FADE_KM)
  const sites = (gaussian(seed, 'site', a.key) + gaussian(seed, 'site', b.key)) / Math.SQRT2
  return 1 + median * Math.exp(SITE_SIGMA * sites + PAIR_SIGMA * gaussian(seed, 'pair', a.key, b.key))
}

/** The way on the map: straight, through the countries' gateways, or through an exchange out of the way. */
function pathKm(a: Site, b: Site, seed: number): number {
  const straight = greatCircleKm(a.city, b.city)
  const countries = countriesOf(a, b)
  const abroad = a.city.country !== b.city.country
  if (abroad && uniform(seed, 'detour', ...countries) < COUNTRIES_DETOUR_SHARE) {
    return detourKm(a, b, uniform(seed, 'exchange', ...countries))
  }
  if (uniform(seed, 'detour', a.key, b.key) < SITES_DETOUR_SHARE) {
    return detourKm(a, b, uniform(seed, 'exchange', a.key, b.key))
  }
  if (!abroad) return straight
  const gates = [gatewayOf(a.city, seed), gatewayOf(b.city, seed)]
  const stops = [a.city, ...gates.filter((gate) => gate !== null), b.city]
  return stops.slice(1).reduce((km, stop, i) => km + greatCircleKm(stops[i]!, stop), 0)
}

/** The exchange through which all of a country's traffic abroad goes; null: it is well connected. */
function gatewayOf(city: LabCity, seed: number): LabCity | null {
  if (EXCHANGES.some(({ country }) => country === city.country)) return null
  if (uniform(seed, 'gateway', city.country) >= GATEWAY_SHARE) return null
  const near = EXCHANGES.filter((exchange) => greatCircleKm(city, exchange) < GATEWAY_MAX_KM)
  return near[Math.floor(uniform(seed, 'gate', city.country) * near.length)] ?? null
}

function detourKm(a: Site, b: Site, pick: number): number {
  const straight = greatCircleKm(a.city, b.city)
  const ways = EXCHANGES.map((city) => greatCircleKm(a.city, city) + greatCircleKm(city, b.city))
  const bearable = ways.filter((km) => km - straight < DETOUR_MAX_KM)
  return bearable[Math.floor(pick * bearable.length)] ?? straight
}

function countriesOf(a: Site, b: Site): [string, string] {
  const [x, y] = [a.city.country, b.city.country]
  return x < y ? [x, y] : [y, x]
}

/** Keyed chance: the same keys give the same number in [0, 1) for ever. FNV-1a, then murmur3's finaliser. */
export function uniform(seed: number, ...keys: readonly string[]): number {
  let hash = 0x811c9dc5 ^ seed
  for (const character of keys.join('\n')) {
    hash = Math.imul(hash ^ (character.codePointAt(0) ?? 0), 0x01000193)
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return ((hash ^ (hash >>> 16)) >>> 0) / 2 ** 32
}

/** Keyed chance, normal with mean 0 and deviation 1 (Box and Muller). */
function gaussian(seed: number, ...keys: readonly string[]): number {
  const radius = Math.sqrt(-2 * Math.log(1 - uniform(seed, ...keys, 'radius')))
  return radius * Math.cos(2 * Math.PI * uniform(seed, ...keys, 'angle'))
}

/** All cities, in an order that the seed decides. */
export function shuffledCities(seed: number): LabCity[] {
  const keyed = CITIES.map((city) => ({ city, key: uniform(seed, 'order', city.name) }))
  return keyed.sort((a, b) => a.key - b.key).map(({ city }) => city)
}
