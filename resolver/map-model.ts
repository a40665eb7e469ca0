// The map model: what a place on the map says of the RTT to every host, corrected by what the vantages see.
//
// A round trip follows cables, and those run by way of the cities where networks meet: the way between two
// places is the shortest by way of such hubs. How much longer hosts' RTTs to each other are than that says
// which hosts are badly connected, and how a client's neighbourhood sees a host (simple kriging of the
// logarithms of the ratios). Reads the host table; what it works out is a memo, never truth.

import { CellRows, MS_PER_UNIT, unitsOf } from './cell-rows.ts'
import {
  fibreFloorMs,
  greatCircleKm,
  routeRttMs,
  routeTable,
  routeToKm,
  routeToPointKm,
  routeViaKm,
  type Spot,
  sphereKm,
  spherePoint,
} from './geo.ts'
import type { HostTable } from './host-table.ts'

/** Hosts around a client whose view is asked, how far it carries, and the weight of "as the map says" beside it. */
const NEAR_HOSTS = 20
const NEAR_REACH_KM = 1500
const MAP_WEIGHT = 2
/** A host's own detour counts in full once so many others have measured it, and then somewhat more: it is worst nearby. */
const EFFECT_DOUBT = 5
const EFFECT_SHARE = 1.3
/** A cell's edge, degrees: 28 km at the equator, 0.4 ms of a round trip. */
const CELL_DEGREES = 0.25
const CELLS_AROUND = 360 / CELL_DEGREES
const CELLS_UP = 180 / CELL_DEGREES
/** The number of the cell that a place lies in. Allocates nothing. */
export function cellAt(lat: number, lon: number): number {
  const up = Math.min(CELLS_UP - 1, Math.max(0, Math.floor((lat + 90) / CELL_DEGREES)))
  const around = Math.floor((lon + 180) / CELL_DEGREES)
  return up * CELLS_AROUND + (((around % CELLS_AROUND) + CELLS_AROUND) % CELLS_AROUND)
}

/** The middle of a cell. */
export function middleOf(cell: number): Spot {
  return {
    lat: (Math.floor(cell / CELLS_AROUND) + 0.5) * CELL_DEGREES - 90,
    lon: ((cell % CELLS_AROUND) + 0.5) * CELL_DEGREES - 180,
  }
}

export class MapModel {
  #mapSerial = -1
  #meshSerial = -1
  /** Rows of vantages with a place, and how far each is from each hub. */
  #rows: readonly number[] = []
  #indexOf: ReadonlyMap<number, number> = new Map()
  /** Theirs as the map was drawn: who leaves takes the place along before the map is drawn anew. */
  #points: readonly Float64Array[] = []
  #toHubs: Float64Array[] = []
  /** By index in #rows: the map's RTT between two, ms. */
  #routeMs: Float64Array[] = []
  /** Logarithm of measured over the map's, less both hosts' own; NaN: not measured. */
  #residual: Float64Array[] = []
  /** Each host's own detour, as a logarithm. */
  #effect = new Float64Array(0)
  /** By cell and index of a vantage. */
  readonly cells = new CellRows(CELLS_AROUND * CELLS_UP)
  /** The cell that was asked about last, as a point of the unit sphere, and how far it is to each hub, km: of one client many hosts are asked. */
  #via: { readonly cell: number; readonly point: Float64Array; readonly km: Float64Array } | null = null
  #drawn = 0

  /** The RTT from a cell to a host by row, in units of MS_PER_UNIT; NaN: the host has no place. */
  rttUnits(hosts: HostTable, cell: number, row: number): number {
    this.#refresh(hosts)
    const index = this.vantageIndex(row)
    if (index >= 0) {
      const cellRow = this.cellRow(hosts, cell)
      return this.cells.chunkOf(cellRow)[this.cells.startOf(cellRow) + index]!
    }
    const other = hosts.placeOf(row)
    if (other === null) return Number.NaN
    const { point, km: via } = this.#viaOf(cell)
    const otherPoint = spherePoint(other)
    const km = sphereKm(point, otherPoint)
    return unitsOf(Math.max(fibreFloorMs(km), routeRttMs(routeToPointKm(via, otherPoint, km))))
  }

  /** The same in ms. */
  rttMs(hosts: HostTable, cell: number, row: number): number {
    return this.rttUnits(hosts, cell, row) * MS_PER_UNIT
  }

  /** The cell's row in `cells`, made if need be. */
  cellRow(hosts: HostTable, cell: number): number {
    this.#refresh(hosts)
    const row = this.cells.rowOf(cell)
    return row >= 0 ? row : this.cells.add(cell, this.#predictVantages(cell))
  }

  /** How often the map was drawn; then vantages have other indexes. */
  get drawn(): number {
    return this.#drawn
  }

  /** -1: not a vantage with a place. */
  vantageIndex(row: number): number {
    return this.#indexOf.get(row) ?? -1
  }

  #viaOf(cell: number): { readonly point: Float64Array; readonly km: Float64Array } {
    if (this.#via?.cell !== cell) {
      const middle = middleOf(cell)
      this.#via = { cell, point: spherePoint(middle), km: routeViaKm(middle) }
    }
    return this.#via
  }

  /** By index: the map, and what the vantages around the place see of each. */
  #predictVantages(cell: number): Float64Array {
    const predicted = new Float64Array(this.#rows.length)
    const { point, km: via } = this.#viaOf(cell)
    const km = Float64Array.from(this.#points, (other) => sphereKm(point, other))
    const { sums, totals } = this.#askNear(km)
    for (let j = 0; j < km.length; j++) {
      const routeMs = routeRttMs(routeToKm(via, this.#toHubs[j]!, km[j]!))
      predicted[j] = Math.max(
        fibreFloorMs(km[j]!),
        routeMs * Math.exp(this.#effect[j]! + sums[j]! / totals[j]!),
      )
    }
    return predicted
  }

  /** What the vantages nearest to a place that is `km` from each see of every one, weighed by how near they are. */
  #askNear(km: Float64Array): { sums: Float64Array; totals: Float64Array } {
    const sums = new Float64Array(km.length)
    const totals = new Float64Array(km.length).fill(MAP_WEIGHT)
    for (const i of leastOf(km, NEAR_HOSTS)) {
      const residual = this.#residual[i]!
      const weight = Math.exp(-((km[i]! / NEAR_REACH_KM) ** 2))
      for (let j = 0; j < km.length; j++) {
        if (Number.isNaN(residual[j]!)) continue
        sums[j]! += weight * residual[j]!
        totals[j]! += weight
      }
    }
    return { sums, totals }
  }

  #refresh(hosts: HostTable): void {
    if (this.#mapSerial === hosts.mapSerial && this.#meshSerial === hosts.modelSerial) return
    if (this.#mapSerial !== hosts.mapSerial) this.#drawMap(hosts)
    this.#weighMesh(hosts)
    this.#mapSerial = hosts.mapSerial
    this.#meshSerial = hosts.modelSerial
    this.cells.forget(this.#rows.length)
  }

  #drawMap(hosts: HostTable): void {
    this.#drawn++
    // By name, so that sums come out alike on every core.
    this.#rows = hosts
      .vantages()
      .filter((row) => hosts.placeOf(row) !== null)
      .sort((a, b) => (hosts.nameOf(a) < hosts.nameOf(b) ? -1 : 1))
    this.#indexOf = new Map(this.#rows.map((row, index) => [row, index]))
    const places = this.#rows.map((row) => hosts.placeOf(row)!)
    this.#points = places.map(spherePoint)
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

/** Indexes of the `count` least numbers, the least first, of equals the one that stands first. */
function leastOf(numbers: Float64Array, count: number): Int32Array {
  const least = new Int32Array(Math.min(count, numbers.length))
  let taken = 0
  for (let i = 0; i < numbers.length; i++) {
    if (taken === least.length && numbers[i]! >= numbers[least[taken - 1]!]!) continue
    if (taken < least.length) taken++
    let at = taken - 1
    for (; at > 0 && numbers[least[at - 1]!]! > numbers[i]!; at--) least[at] = least[at - 1]!
    least[at] = i
  }
  return least
}
