// Real cities of the world: where the lab's hosts and clients live.
//
// Invariant: names are unique. The countries (ISO 3166) matter as much as the places: traffic between
// countries goes ways of its own (internet.ts). Pure: facts only, computed from nothing.

export interface LabCity {
  readonly name: string
  readonly country: string
  /** Degrees. */
  readonly lat: number
  readonly lon: number
}

/** Name, country, latitude, longitude. */
const TABLE: readonly (readonly [string, string, number, number])[] = [
  ['Amsterdam', 'NL', 52.37, 4.9],
  ['Anchorage', 'US', 61.22, -149.9],
  ['Athens', 'GR', 37.98, 23.73],
  ['Atlanta', 'US', 33.75, -84.39],
  ['Auckland', 'NZ', -36.85, 174.76],
  ['Bangkok', 'TH', 13.76, 100.5],
  ['Beijing', 'CN', 39.9, 116.41],
  ['Berlin', 'DE', 52.52, 13.41],
  ['Bogota', 'CO', 4.71, -74.07],
  ['Buenos Aires', 'AR', -34.6, -58.38],
  ['Cairo', 'EG', 30.04, 31.24],
  ['Cape Town', 'ZA', -33.92, 18.42],
  ['Chicago', 'US', 41.88, -87.63],
  ['Copenhagen', 'DK', 55.68, 12.57],
  ['Dallas', 'US', 32.78, -96.8],
  ['Delhi', 'IN', 28.61, 77.21],
  ['Denver', 'US', 39.74, -104.99],
  ['Dhaka', 'BD', 23.81, 90.41],
  ['Dubai', 'AE', 25.2, 55.27],
  ['Dublin', 'IE', 53.35, -6.26],
  ['Frankfurt', 'DE', 50.11, 8.68],
  ['Helsinki', 'FI', 60.17, 24.94],
  ['Hong Kong', 'HK', 22.32, 114.17],
  ['Honolulu', 'US', 21.31, -157.86],
  ['Istanbul', 'TR', 41.01, 28.98],
  ['Jakarta', 'ID', -6.21, 106.85],
  ['Johannesburg', 'ZA', -26.2, 28.05],
  ['Karachi', 'PK', 24.86, 67.01],
  ['Kyiv', 'UA', 50.45, 30.52],
  ['Lagos', 'NG', 6.52, 3.38],
  ['Lima', 'PE', -12.05, -77.04],
  ['Lisbon', 'PT', 38.72, -9.14],
  ['London', 'GB', 51.51, -0.13],
  ['Los Angeles', 'US', 34.05, -118.24],
  ['Madrid', 'ES', 40.42, -3.7],
  ['Manila', 'PH', 14.6, 120.98],
  ['Marseille', 'FR', 43.3, 5.37],
  ['Melbourne', 'AU', -37.81, 144.96],
  ['Mexico City', 'MX', 19.43, -99.13],
  ['Miami', 'US', 25.76, -80.19],
  ['Milan', 'IT', 45.46, 9.19],
  ['Montreal', 'CA', 45.5, -73.57],
  ['Moscow', 'RU', 55.76, 37.62],
  ['Mumbai', 'IN', 19.08, 72.88],
  ['Nairobi', 'KE', -1.29, 36.82],
  ['New York', 'US', 40.71, -74.01],
  ['Oslo', 'NO', 59.91, 10.75],
  ['Paris', 'FR', 48.86, 2.35],
  ['Perth', 'AU', -31.95, 115.86],
  ['Prague', 'CZ', 50.08, 14.44],
  ['Reykjavik', 'IS', 64.15, -21.94],
  ['Santiago', 'CL', -33.45, -70.67],
  ['Sao Paulo', 'BR', -23.55, -46.63],
  ['Seattle', 'US', 47.61, -122.33],
  ['Seoul', 'KR', 37.57, 126.98],
  ['Singapore', 'SG', 1.35, 103.82],
  ['Stockholm', 'SE', 59.33, 18.07],
  ['Sydney', 'AU', -33.87, 151.21],
  ['Tel Aviv', 'IL', 32.09, 34.78],
  ['Tokyo', 'JP', 35.68, 139.69],
  ['Toronto', 'CA', 43.65, -79.38],
  ['Vienna', 'AT', 48.21, 16.37],
  ['Warsaw', 'PL', 52.23, 21.01],
  ['Washington', 'US', 38.91, -77.04],
]
export const CITIES: readonly LabCity[] = TABLE.map(([name, country, lat, lon]) => ({
  name,
  country,
  lat,
  lon,
}))
