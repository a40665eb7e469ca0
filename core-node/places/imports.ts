// Files of `locality import`: geofeeds (RFC 8805), MMDB, lines of `CIDR lat lon`, and CSV tables whose first
// line names the columns -> prefixes with places.
//
// The format is seen from the file, and so is gzip. A file is taken whole or, with bad lines and without `skipBad`, not
// at all; every bad line is told with its number and reason. Whatever the bytes are, nothing is thrown
// but Problem. What to do with the places is the caller's: here nothing is stored.

import { readFileSync, statSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { formatPrefix, type Prefix, parsePrefix } from '../../resolver/address.ts'
import { Problem } from '../problem.ts'
import { CITY_ACCURACY_KM, type Gazetteer, loadGazetteer } from './gazetteer.ts'
import { type ImportEntry, ImportList } from './import-list.ts'
import { isMmdb, Mmdb } from './mmdb.ts'

/** One import's most entries. More is a whole map of the Internet, which `--geo FILE` reads without storing it. */
const MAX_ENTRIES = 1_000_000
/** MAX_ENTRIES lines of geofeed are under 100 MB; a City MMDB is up to 150 MB. */
const MAX_FILE_BYTES = 256 * 1024 * 1024
/** Bad lines that the error spells out; the rest are counted. */
const SHOWN_BAD_LINES = 20
/** Half of the Earth's circumference: no place is farther off, km. */
const MAX_ACCURACY_KM = 20_038

export interface BadLine {
  readonly line: number
  readonly reason: string
}

export interface LocalityImport {
  readonly format: 'geofeed' | 'mmdb' | 'lines' | 'table'
  readonly entries: ImportList
  /** Lines passed over; empty unless `skipBad`. */
  readonly bad: readonly BadLine[]
  /** Lines that name no place: geofeeds' on purpose (RFC 8805, 2.1.1), tables' for want of knowledge. */
  readonly withoutPlace: number
}

export interface ImportOptions {
  /** Take the good lines of a file that has bad ones. */
  readonly skipBad: boolean
  /** Where named places are; called for geofeeds only. */
  readonly gazetteer?: () => Gazetteer
}

/** Reads a file of any of the formats. Throws Problem: not readable, no such format, or bad lines. */
export function importFile(path: string, options: ImportOptions): LocalityImport {
  let bytes: Buffer
  try {
    const { size } = statSync(path)
    if (size > MAX_FILE_BYTES) throw new Error(`it is larger than ${MAX_FILE_BYTES / 1024 / 1024} MiB`)
    bytes = readFileSync(path)
  } catch (error) {
    throw new Problem('bad-request', `${path} can't be read: ${(error as Error).message}`, path)
  }
  return importBytes(bytes, path, options)
}

/** The same for bytes; `name` stands for the file in errors. */
export function importBytes(bytes: Buffer, name: string, options: ImportOptions): LocalityImport {
  try {
    const plain = unzip(bytes)
    return isMmdb(plain) ? importMmdb(plain) : importText(decode(plain), options)
  } catch (error) {
    if (error instanceof Problem)
      throw new Problem(error.code, `${name} was not imported: ${error.message}`, name)
    throw error
  }
}

function importMmdb(bytes: Buffer): LocalityImport {
  const entries = new ImportList()
  for (const { prefix, place } of new Mmdb(bytes).networks()) {
    if (entries.length === MAX_ENTRIES) throw tooMany()
    entries.push({ prefix, place, asn: null, country: null }, 0)
  }
  return { format: 'mmdb', entries, bad: [], withoutPlace: 0 }
}

function unzip(bytes: Buffer): Buffer {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes
  try {
    return gunzipSync(bytes, { maxOutputLength: MAX_FILE_BYTES })
  } catch (error) {
    throw new Problem('bad-request', `it is compressed and can't be unpacked: ${(error as Error).message}`)
  }
}

function decode(bytes: Buffer): string {
  try {
    // Drops a byte order mark, too.
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new Problem('bad-request', 'it is neither an MMDB file nor UTF-8 text')
  }
}

/** What one line says: an entry, no place on purpose (null), or why it is bad. */
type LineReading = ImportEntry | null | { readonly reason: string }

function importText(text: string, options: ImportOptions): LocalityImport {
  const { format, read, headLine } = formatOf(text, options.gazetteer ?? loadGazetteer)
  const entries = new ImportList()
  const bad: BadLine[] = []
  let total = 0
  for (const { line, fields } of linesOf(text)) {
    if (line === headLine) continue
    total++
    const reading = read(fields)
    if (reading === null) continue
    if ('reason' in reading) {
      bad.push({ line, reason: reading.reason })
      continue
    }
    if (entries.length === MAX_ENTRIES) throw tooMany()
    entries.push(reading, line)
  }
  leaveOutRepetitions(entries, bad)
  if (total === 0) throw new Problem('bad-request', 'it has no line with a prefix')
  if (bad.length > 0 && !options.skipBad) throw badLines(bad, total)
  return { format, entries, bad, withoutPlace: total - bad.length - entries.length }
}

function leaveOutRepetitions(entries: ImportList, bad: BadLine[]): void {
  const repetitions = entries.repetitions()
  if (repetitions.length === 0) return
  for (const { index, firstIndex } of repetitions) {
    const prefix = formatPrefix(entries.at(index).prefix)
    const reason = `${prefix} stands on line ${entries.lineOf(firstIndex)} already`
    bad.push({ line: entries.lineOf(index), reason })
  }
  bad.sort((a, b) => a.line - b.line)
  entries.remove(new Set(repetitions.map(({ index }) => index)))
}

interface TextFormat {
  readonly format: 'geofeed' | 'lines' | 'table'
  readonly read: (fields: readonly string[]) => LineReading
  /** The line that names the columns; 0: none does. */
  readonly headLine: number
}

/** A table by its first line; lines where any has coordinates behind its prefix; else a geofeed. */
function formatOf(text: string, load: () => Gazetteer): TextFormat {
  let isFirst = true
  for (const { line, fields } of linesOf(text)) {
    const columns = isFirst ? columnsOf(fields) : null
    if (columns !== null) return { format: 'table', read: tableReader(columns, load), headLine: line }
    if (isCoordinateLine(fields)) return { format: 'lines', read: readCoordinateLine, headLine: 0 }
    isFirst = false
  }
  return { format: 'geofeed', read: geofeedReader(load), headLine: 0 }
}

/** The lines that say something, one at a time: a file may have a million. */
function* linesOf(text: string): Generator<{ line: number; fields: readonly string[] }> {
  let line = 0
  let start = 0
  while (start < text.length) {
    const end = text.indexOf('\n', start)
    const fields = splitLine(text.slice(start, end < 0 ? text.length : end))
    start = end < 0 ? text.length : end + 1
    line++
    if (fields.some((field) => field !== '')) yield { line, fields }
  }
}

/**
 * Fields by commas as in CSV (RFC 4180 quotes), or where there is none, by white space; `#` begins a
 * comment (RFC 8805, 2.1) unless quoted.
 */
function splitLine(raw: string): string[] {
  const fields = raw.includes('"') ? splitQuoted(raw) : raw.split('#', 1)[0]!.split(',')
  return fields.length > 1 ? fields.map((field) => field.trim()) : fields[0]!.trim().split(/\s+/)
}

function splitQuoted(raw: string): string[] {
  const fields: string[] = []
  let field = ''
  let quoted = false
  for (const char of raw) {
    if (char === '"') quoted = !quoted
    else if (char === '#' && !quoted) break
    else if (char === ',' && !quoted) {
      fields.push(field)
      field = ''
    } else field += char
  }
  return [...fields, field]
}

const NUMBER = /^[+-]?\d{1,5}(?:\.\d{1,20})?$/

function isCoordinateLine([, lat, lon]: readonly string[]): boolean {
  return lat !== undefined && lon !== undefined && NUMBER.test(lat) && NUMBER.test(lon)
}

/** `CIDR lat lon [accuracyKm]` */
function readCoordinateLine(fields: readonly string[]): LineReading {
  const prefix = readPrefix(fields[0]!)
  if ('reason' in prefix) return prefix
  if (fields.length < 3 || fields.length > 4)
    return { reason: 'expected a prefix, latitude, longitude and at most a radius in km' }
  const [lat, lon, accuracyKm] = fields
    .slice(1)
    .map((field) => (NUMBER.test(field) ? Number(field) : Number.NaN))
  if (!(Math.abs(lat!) <= 90)) return { reason: `latitude ${quote(fields[1]!)} is no number from -90 to 90` }
  if (!(Math.abs(lon!) <= 180))
    return { reason: `longitude ${quote(fields[2]!)} is no number from -180 to 180` }
  const radiusKm = accuracyKm ?? CITY_ACCURACY_KM
  if (!(radiusKm > 0 && radiusKm <= MAX_ACCURACY_KM)) {
    return { reason: `radius ${quote(fields[3]!)} is no number of km from 0 to ${MAX_ACCURACY_KM}` }
  }
  return { prefix, place: { lat: lat!, lon: lon!, accuracyKm: radiusKm }, asn: null, country: null }
}

/** Where each of the columns stands that a table may have; -1: it has none. */
interface Columns {
  readonly prefix: number
  readonly asn: number
  readonly lat: number
  readonly lon: number
  readonly radiusKm: number
  readonly country: number
}

/** null: this line names no columns. */
function columnsOf(fields: readonly string[]): Columns | null {
  const names = fields.map((field) => field.toLowerCase())
  const find = (...known: readonly string[]) => names.findIndex((name) => known.includes(name))
  const columns = {
    prefix: find('prefix', 'network', 'cidr'),
    asn: find('asn', 'autonomous_system_number'),
    lat: find('lat', 'latitude'),
    lon: find('lon', 'lng', 'longitude'),
    radiusKm: find('accuracy_km', 'accuracy_radius', 'radius_km'),
    country: find('country', 'country_code', 'country_iso_code'),
  }
  const hasPlace = columns.country >= 0 || (columns.lat >= 0 && columns.lon >= 0)
  return columns.prefix >= 0 && hasPlace ? columns : null
}

/** A place by its coordinates where the line has them, else by its country; neither, or no one place: no place. */
function tableReader(columns: Columns, load: () => Gazetteer): (fields: readonly string[]) => LineReading {
  let gazetteer: Gazetteer | undefined
  return (fields) => {
    const field = (at: number) => (at < 0 ? '' : (fields[at] ?? ''))
    const asnText = field(columns.asn).replace(/^AS/i, '')
    if (asnText !== '' && !(/^[1-9]\d{0,9}$/.test(asnText) && Number(asnText) <= 0xffff_ffff))
      return { reason: `${quote(field(columns.asn))} is no AS number` }
    const asn = asnText === '' ? null : Number(asnText)
    const countryText = field(columns.country)
    if (countryText !== '' && !/^[a-z]{2}$/i.test(countryText))
      return { reason: `country ${quote(countryText)} is no two-letter code` }
    const country = countryText === '' ? null : countryText.toUpperCase()
    if (field(columns.lat) !== '' || field(columns.lon) !== '') {
      const radius = field(columns.radiusKm)
      const numbers = [field(columns.prefix), field(columns.lat), field(columns.lon)]
      const reading = readCoordinateLine(radius === '' ? numbers : [...numbers, radius])
      return reading === null || 'reason' in reading ? reading : { ...reading, asn, country }
    }
    const prefix = readPrefix(field(columns.prefix))
    if ('reason' in prefix) return prefix
    if (country === null) return null
    gazetteer ??= load()
    // Codes such as EU name no one place.
    const place = gazetteer.find(country, '', '')
    return place === null ? null : { prefix, place, asn, country }
  }
}

/** `prefix,country,region,city,postal code`: all but the prefix may be empty or missing. */
function geofeedReader(load: () => Gazetteer): (fields: readonly string[]) => LineReading {
  let gazetteer: Gazetteer | undefined
  return (fields) => {
    const [prefixText, country = '', region = '', city = ''] = fields
    const prefix = readPrefix(prefixText!)
    if ('reason' in prefix) return prefix
    if (fields.length === 1)
      return { reason: 'expected prefix,country,region,city or a prefix, latitude and longitude' }
    // No country, or ISO's code for none: the owner asks that it be placed nowhere.
    if (country === '' || country.toUpperCase() === 'ZZ') return null
    if (!/^[a-z]{2}$/i.test(country)) return { reason: `country ${quote(country)} is no two-letter code` }
    if (region !== '' && !/^[a-z]{2}-[a-z0-9]{1,3}$/i.test(region)) {
      return { reason: `region ${quote(region)} is no code such as US-CA` }
    }
    gazetteer ??= load()
    const place = gazetteer.find(country, region, city)
    if (place === null) return { reason: `country ${quote(country)} is not known` }
    return { prefix, place, asn: null, country: country.toUpperCase() }
  }
}

function readPrefix(text: string): Prefix | { readonly reason: string } {
  const prefix = parsePrefix(text)
  if (prefix !== null) return prefix
  return { reason: `${quote(text)} is no prefix such as 192.0.2.0/24 (with no bits set after its length)` }
}

/** Somebody else's text in an error: short, and with nothing in it that a terminal would act on. */
function quote(text: string): string {
  return JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}...` : text)
}

function badLines(bad: readonly BadLine[], total: number): Problem {
  const shown = bad.slice(0, SHOWN_BAD_LINES).map(({ line, reason }) => `line ${line}: ${reason}`)
  const more = bad.length > shown.length ? [`and ${bad.length - shown.length} more`] : []
  return new Problem('bad-request', [`${bad.length} of ${total} lines are bad`, ...shown, ...more].join('\n'))
}

function tooMany(): Problem {
  return new Problem(
    'too-large',
    `it has more than ${MAX_ENTRIES} entries; an MMDB file of that size is better read in place (--geo FILE)`,
  )
}
