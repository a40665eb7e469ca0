// Which column of which table keeps which field: a record <-> a row of plain values, for SQL stores.
//
// The table of columns names every field of every record type: a field that is added to a type
// without a column for it does not compile. Pure; no SQL is run here.

import type {
  Directory,
  Host,
  LocalityRecord,
  Member,
  PlacePage,
  Service,
  Token,
} from '../resolver/directory.ts'

/** How a field stands in its column: as it is (text, number, null), as 0/1, as JSON text, as bytes; NULL for an `optional` one that is absent. */
type Form = 'plain' | 'flag' | 'json' | 'bytes' | 'optional'

/** A record as SQL knows it. */
export type Row = Record<string, Value>
type Value = string | number | Uint8Array | null

type Columns<R> = { readonly [F in keyof Required<R>]: Form }

const SERVICES: Columns<Service> = {
  name: 'plain',
  policy: 'plain',
  ttlSec: 'plain',
  minAddrs: 'plain',
  maxAddrs: 'plain',
  tieMs: 'plain',
  stickyMs: 'plain',
  stickyRatio: 'plain',
  where: 'json',
  aliases: 'json',
  urlHosts: 'json',
  join: 'plain',
  maxPerPrefix: 'plain',
  verify: 'plain',
  allDown: 'json',
}

const HOSTS: Columns<Host> = {
  name: 'plain',
  agent: 'flag',
  addresses: 'json',
  proofs: 'json',
  echo: 'json',
  echoKey: 'plain',
  publicAddress: 'plain',
  publicPort: 'plain',
  reachable: 'flag',
  home: 'plain',
  leaseSec: 'plain',
  presence: 'plain',
  presenceSinceMs: 'plain',
  coordinate: 'json',
  meshMs: 'optional',
  place: 'json',
  credentialHash: 'plain',
  tokenId: 'plain',
  presenceBy: 'optional',
}

const MEMBERS: Columns<Member> = {
  service: 'plain',
  name: 'plain',
  host: 'plain',
  addresses: 'json',
  port: 'plain',
  url: 'plain',
  attributes: 'json',
  weight: 'plain',
  capacity: 'plain',
  load: 'plain',
  health: 'plain',
  drained: 'flag',
  left: 'flag',
  check: 'plain',
}

const TOKENS: Columns<Token> = {
  id: 'plain',
  hash: 'plain',
  scope: 'json',
  createdMs: 'plain',
  note: 'plain',
}

const LOCALITIES: Columns<LocalityRecord> = {
  prefix: 'plain',
  evidence: 'json',
  incumbents: 'json',
}

const PLACES: Columns<PlacePage> = {
  region: 'plain',
  packed: 'bytes',
}

/** A setting is bare text: its row is made of key and value. */
const SETTINGS: Columns<{ name: string; value: string }> = { name: 'plain', value: 'plain' }

/** One kind's table: its columns in order, and those of them that make the key. */
export interface TableShape {
  readonly columns: readonly { readonly field: string; readonly column: string; readonly form: Form }[]
  readonly key: readonly string[]
}

export const TABLE_SHAPES: { readonly [K in keyof Directory]: TableShape } = {
  services: shape(SERVICES, ['name']),
  hosts: shape(HOSTS, ['name']),
  members: shape(MEMBERS, ['service', 'name']),
  tokens: shape(TOKENS, ['id']),
  localities: shape(LOCALITIES, ['prefix']),
  places: shape(PLACES, ['region']),
  settings: shape(SETTINGS, ['name']),
}

export const KINDS = Object.keys(TABLE_SHAPES) as (keyof Directory)[]

function shape(columns: Readonly<Record<string, Form>>, key: readonly string[]): TableShape {
  return {
    columns: Object.entries(columns).map(([field, form]) => ({ field, column: columnName(field), form })),
    key,
  }
}

/** ttlSec -> ttl_sec, as people write SQL. */
function columnName(field: string): string {
  return field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}

/** The key columns' values for a key of the directory: `SERVICE/NAME` is two, all else is one. */
export function keyValues(kind: keyof Directory, key: string): readonly string[] {
  if (kind !== 'members') return [key]
  const slash = key.indexOf('/')
  return [key.slice(0, slash), key.slice(slash + 1)]
}

/** The directory's key of a row. */
export function keyOf(kind: keyof Directory, row: Row): string {
  return TABLE_SHAPES[kind].key.map((column) => row[column]).join('/')
}

export function toRow(kind: keyof Directory, key: string, value: unknown): Row {
  const fields = (kind === 'settings' ? { name: key, value } : value) as Record<string, unknown>
  const row: Row = {}
  for (const { field, column, form } of TABLE_SHAPES[kind].columns) row[column] = encode(form, fields[field])
  return row
}

/** Throws SyntaxError where JSON is none. */
export function fromRow(kind: keyof Directory, row: Row): unknown {
  if (kind === 'settings') return row.value
  const record: Record<string, unknown> = {}
  for (const { field, column, form } of TABLE_SHAPES[kind].columns) {
    if (form !== 'optional' || row[column] !== null) record[field] = decode(form, row[column]!)
  }
  return record
}

function encode(form: Form, value: unknown): Value {
  if (value === null || value === undefined) return null
  if (form === 'bytes') return value as Uint8Array
  if (form === 'json' || form === 'optional') return JSON.stringify(value)
  return form === 'flag' ? Number(value) : (value as string | number)
}

function decode(form: Form, value: Value): unknown {
  if (value === null || form === 'plain') return value
  // The driver's Buffer would not equal what was committed, and may be a view into a larger one.
  if (form === 'bytes') return new Uint8Array(value as Uint8Array)
  return form === 'flag' ? value === 1 : JSON.parse(String(value))
}
