// Distance on the Earth and what it says of a round trip, as far as a map can say it.
//
// A map knows no cables: its RTTs are a guess for whom nobody measured yet. Pure; degrees and km in, ms out.

/** Mean radius, km (IUGG). */
export const EARTH_KM = 6371.0088

/** Great-circle distance, km, by the haversine formula. Degrees in. */
export function greatCircleKm(
  a: { readonly lat: number; readonly lon: number },
  b: { readonly lat: number; readonly lon: number },
): number {
  const rad = Math.PI / 180
  const sinLat = Math.sin(((b.lat - a.lat) * rad) / 2)
  const sinLon = Math.sin(((b.lon - a.lon) * rad) / 2)
  const h = sinLat * sinLat + Math.cos(a.lat * rad) * Math.cos(b.lat * rad) * sinLon * sinLon
  return 2 * EARTH_KM * Math.asin(Math.min(1, Math.sqrt(h)))
}

/** A place as a point on the unit sphere: of one place the way to many others is found sooner so. */
export function spherePoint({ lat, lon }: Spot): Float64Array {
  const [up, around] = [(lat * Math.PI) / 180, (lon * Math.PI) / 180]
  return Float64Array.of(Math.cos(up) * Math.cos(around), Math.cos(up) * Math.sin(around), Math.sin(up))
}

/** Great-circle distance of two points of the unit sphere, km: half the chord between them is the haversine's root. */
export function sphereKm(a: Float64Array, b: Float64Array): number {
  const dx = a[0]! - b[0]!
  const dy = a[1]! - b[1]!
  const dz = a[2]! - b[2]!
  return 2 * EARTH_KM * Math.asin(Math.min(1, Math.sqrt(dx * dx + dy * dy + dz * dz) / 2))
}

/** Light in fibre, one way. */
const KM_A_MS = 204.19

/** No round trip over `km` is shorter than this, ms. */
export function fibreFloorMs(km: number): number {
  return (2 * km) / KM_A_MS
}

/** How far apart two places are at most that a round trip of `ms` joins. */
export function fibreKm(ms: number): number {
  return (ms * KM_A_MS) / 2
}

/** Access and queueing at both ends of any path, ms. */
const GEO_BASE_MS = 8
/** Cables wind and routers detour: real round trips take about half again as long as straight fibre. */
const GEO_DETOUR = 1.55

/**
 * What a round trip over `km` takes as a rule, ms: fitted to the medians of 244 cities' mutual pings
 * (WonderProxy, 2020); 8 of 10 pairs are within -30% and +80% of it.
 */
export function geoRttMs(km: number): number {
  return GEO_BASE_MS + GEO_DETOUR * fibreFloorMs(km)
}

/** Cities where the networks of their part of the world meet (the large Internet exchanges and cable landings), lat and lon. */
const HUBS = [
  [51.5, 0],
  [50.1, 8.7],
  [52.4, 4.9],
  [48.9, 2.3],
  [43.3, 5.4],
  [48.2, 16.4],
  [45.5, 9.2],
  [59.3, 18],
  [40.4, -3.7],
  [55.7, 37.6],
  [40.7, -74],
  [39, -77.5],
  [33.7, -84.4],
  [25.8, -80.2],
  [43.7, -79.4],
  [41.9, -87.6],
  [32.8, -96.8],
  [39.7, -105],
  [34, -118.2],
  [37.4, -121.9],
  [47.6, -122.3],
  [35.7, 139.7],
  [22.3, 114.2],
  [1.3, 103.8],
  [-33.9, 151.2],
].map(([lat, lon]) => ({ lat: lat!, lon: lon! }))
/** The way to a hub winds more than the trunk between two; the straight way that shuns all hubs costs twice. */
const TO_HUB_DETOUR = 1.1
const SHUN_HUBS_DETOUR = 2
const HUB_POINTS = HUBS.map(spherePoint)
const BETWEEN_HUBS_KM = HUBS.map((a) => HUBS.map((b) => greatCircleKm(a, b)))

/** Degrees. */
export type Spot = { readonly lat: number; readonly lon: number }

/** The way from a place to each hub, km. */
export function routeTable(place: Spot): Float64Array {
  const point = spherePoint(place)
  const km = new Float64Array(HUBS.length)
  for (let hub = 0; hub < km.length; hub++) km[hub] = TO_HUB_DETOUR * sphereKm(point, HUB_POINTS[hub]!)
  return km
}

/** The shortest way from a place to each hub, by way of any other, km. */
export function routeViaKm(place: Spot): Float64Array {
  const toHubs = routeTable(place)
  const via = new Float64Array(HUBS.length).fill(Number.POSITIVE_INFINITY)
  for (let from = 0; from < via.length; from++) {
    const between = BETWEEN_HUBS_KM[from]!
    for (let to = 0; to < via.length; to++) via[to] = Math.min(via[to]!, toHubs[from]! + between[to]!)
  }
  return via
}

/** The way between two places, km: from the one by its `via` to the hubs of the other, never shorter than the straight `km`. */
export function routeToKm(via: Float64Array, toHubs: Float64Array, km: number): number {
  let leastKm = SHUN_HUBS_DETOUR * km
  for (let hub = 0; hub < via.length; hub++) leastKm = Math.min(leastKm, via[hub]! + toHubs[hub]!)
  return Math.max(km, leastKm)
}

/** The same to a place of which only the point on the unit sphere is known: most hubs are out of its way before it is reckoned how far. */
export function routeToPointKm(via: Float64Array, point: Float64Array, km: number): number {
  let leastKm = SHUN_HUBS_DETOUR * km
  for (let hub = 0; hub < via.length; hub++) {
    if (via[hub]! >= leastKm) continue
    leastKm = Math.min(leastKm, via[hub]! + TO_HUB_DETOUR * sphereKm(point, HUB_POINTS[hub]!))
  }
  return Math.max(km, leastKm)
}

/** Access and queueing at both ends of a way that is known by its hubs, ms. */
const ROUTE_BASE_MS = 4

/** What a round trip over a way of `km` takes as a rule, ms. */
export function routeRttMs(km: number): number {
  return ROUTE_BASE_MS + GEO_DETOUR * fibreFloorMs(km)
}

/** How far apart two places are at least that the map puts `ms` apart, km, whatever way leads from the one to the other. */
export function leastKm(ms: number): number {
  return Math.max(0, fibreKm((ms - ROUTE_BASE_MS) / GEO_DETOUR) / SHUN_HUBS_DETOUR)
}
