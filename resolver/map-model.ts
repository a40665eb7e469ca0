// The map model: what a place on the map says of the RTT to every host, corrected by what the vantages see.
//
// A round trip follows cables, and those run by way of the cities where networks meet: the way between two
// places is the shortest by way of such hubs. How much longer hosts' RTTs to each other are than that says
// which hosts are badly connected, and how a client's neighbourhood sees a host (simple kriging of the
// logarithms of the ratios). Reads the host table; what it works out is a memo, never truth.

import type { Coordinate, Place } from './directory.ts'
import { fibreFloorMs, greatCircleKm, routeRttMs, routeTable, routeToKm, routeViaKm } from './geo.ts'
import type { HostTable } from './host-table.ts'
import { placeBySightings } from './placement.ts'

/** Hosts around a client whose view is asked, how far it carries, and the weight of "as the map says" beside it. */
const NEAR_HOSTS = 20
const NEAR_REACH_KM = 1500
const MAP_WEIGHT = 2
/** A host's own detour counts in full once so many others have measured it, and then somewhat more: it is worst nearby. */
const EFFECT_DOUBT = 5
const EFFECT_SHARE = 1.3
/** Vantages by which a place is put into the space: its nearest, others from near to far, and the fewest that will do. */
const PLACED_BY_NEAR = 12
const PLACED_BY_FAR = 12
const PLACED_BY_LEAST = 3
/** Places remembered between changes: a map database knows some 100,000 cities, few of them ask. */
const MEMO_SIZE = 20_000

export class MapModel {
  #mapSerial = -1
  #meshSerial = -1
  /** Rows of vantages with a place, and how far each is from each hub. */
  #rows: readonly number[] = []
  #indexOf: ReadonlyMap<number, number> = new Map()
  /** Theirs as the map was drawn: who leaves takes the place along before the map is drawn anew. */
  #places: readonly Place[] = []
  #toHubs: Float64Array[] = []
  /** By index in #rows: the map's RTT between two, ms. */
  #routeMs: Float64Array[] = []
  /** Logarithm of measured over the map's, less both hosts' own; NaN: not measured. */
  #residual: Float64Array[] = []
  /** Each host's own detour, as a logarithm. */
  #effect = new Float64Array(0)
  readonly #memo = new Map<string, (row: number) => number>()
  readonly #coordinates = new Map<string, Coordinate | null>()

  /** The RTT from a place to a host by row, ms; NaN: the host has no place. */
  predictFrom(hosts: HostTable, place: Place): (row: number) => number {
    this.#refresh(hosts)
    const key = keyOf(place)
    let predicted = this.#memo.get(key)
    if (!predicted) {
      if (this.#memo.size >= MEMO_SIZE) this.#memo.clear()
      predicted = this.#predict(hosts, place)
      this.#memo.set(key, predicted)
    }
    return predicted
  }

  /** Where in the space a client at a place is taken to be; null: too few vantages have both a coordinate and a place. */
  coordinateAt(hosts: HostTable, place: Place): Coordinate | null {
    const msTo = this.predictFrom(hosts, place)
    const key = keyOf(place)
    let coordinate = this.#coordinates.get(key)
    if (coordinate === undefined) {
      if (this.#coordinates.size >= MEMO_SIZE) this.#coordinates.clear()
      coordinate = this.#place(hosts, msTo)
      this.#coordinates.set(key, coordinate)
    }
    return coordinate
  }

  /** By the nearest vantages, which say where among its neighbours it is, and by some of all, which keep it there. */
  #place(hosts: HostTable, msTo: (row: number) => number): Coordinate | null {
    const placed = this.#rows.filter((row) => hosts.hasCoordinate(row))
    const byMs = placed.map((row) => ({ row, ms: msTo(row) })).sort((a, b) => a.ms - b.ms)
    const step = Math.max(1, Math.ceil((byMs.length - PLACED_BY_NEAR) / PLACED_BY_FAR))
    const chosen = byMs.filter((_, i) => i < PLACED_BY_NEAR || (i - PLACED_BY_NEAR) % step === 0)
    if (chosen.length < PLACED_BY_LEAST) return null
    return placeBySightings(
      chosen.map(({ row, ms }) => ({ coordinate: hosts.coordinateOf(row)!, rttMs: ms, weight: 1 })),
    )
  }

  #predict(hosts: HostTable, place: Place): (row: number) => number {
    const via = routeViaKm(place)
    const predicted = this.#predictVantages(place, via)
    const indexOf = this.#indexOf
    return (row) => {
      const index = indexOf.get(row)
      if (index !== undefined) return predicted[index]!
      const other = hosts.placeOf(row)
      if (other === null) return Number.NaN
      const km = greatCircleKm(place, other)
      return Math.max(fibreFloorMs(km), routeRttMs(routeToKm(via, routeTable(other), km)))
    }
  }

  /** By index: the map, and what the vantages around the place see of each. */
  #predictVantages(place: Place, via: Float64Array): Float64Array {
    const predicted = new Float64Array(this.#rows.length)
    const km = this.#places.map((other) => greatCircleKm(place, other))
    const near = [...km.keys()].sort((a, b) => km[a]! - km[b]!).slice(0, NEAR_HOSTS)
    const weights = near.map((i) => Math.exp(-((km[i]! / NEAR_REACH_KM) ** 2)))
    for (const j of this.#rows.keys()) {
      let [sum, total] = [0, MAP_WEIGHT]
      near.forEach((i, n) => {
        const residual = this.#residual[i]![j]!
        if (Number.isNaN(residual)) return
        sum += weights[n]! * residual
        total += weights[n]!
      })
      const routeMs = routeRttMs(routeToKm(via, this.#toHubs[j]!, km[j]!))
      predicted[j] = Math.max(fibreFloorMs(km[j]!), routeMs * Math.exp(this.#effect[j]! + sum / total))
    }
    return predicted
  }

  #refresh(hosts: HostTable): void {
    if (this.#mapSerial === hosts.mapSerial && this.#meshSerial === hosts.modelSerial) return
    if (this.#mapSerial !== hosts.mapSerial) this.#drawMap(hosts)
    this.#weighMesh(hosts)
    this.#mapSerial = hosts.mapSerial
    this.#meshSerial = hosts.modelSerial
    this.#memo.clear()
    this.#coordinates.clear()
  }

  #drawMap(hosts: HostTable): void {
    // By name, so that sums come out alike on every core.
    this.#rows = hosts
      .vantages()
      .filter((row) => hosts.placeOf(row) !== null)
      .sort((a, b) => (hosts.nameOf(a) < hosts.nameOf(b) ? -1 : 1))
    this.#indexOf = new Map(this.#rows.map((row, index) => [row, index]))
    const places = this.#rows.map((row) => hosts.placeOf(row)!)
    this.#places = places
    this.#toHubs = places.map(routeTable)
    this.#routeMs = places.map((place) => {
      const via = routeViaKm(place)
      return Float64Array.from(places, (other, j) =>
        routeRttMs(routeToKm(via, this.#toHubs[j]!, greatCircleKm(place, other))),
      )
    })
  }

  #weighMesh(hosts: HostTable): void {
    const rows = this.#rows
    this.#residual = rows.map((row, i) =>
      Float64Array.from(rows, (other, j) =>
        i === j
          ? Number.NaN
          : Math.log(Math.max(0.1, hosts.rttBetweenMs(row, other)) / this.#routeMs[i]![j]!),
      ),
    )
    this.#effect = Float64Array.from(rows, (_, j) => {
      let [sum, total] = [0, EFFECT_DOUBT]
      for (const residuals of this.#residual) {
        if (Number.isNaN(residuals[j]!)) continue
        sum += residuals[j]!
        total++
      }
      return (EFFECT_SHARE * sum) / total
    })
    for (const residuals of this.#residual) for (const j of rows.keys()) residuals[j]! -= this.#effect[j]!
  }
}

function keyOf({ lat, lon }: Place): string {
  return `${lat},${lon}`
}
