// A dump: the whole directory as text, so that two cores' can be compared byte for byte.
//
// Invariant: equal directories give equal texts, in whatever order their records, and the fields of these, came.
// `decided` leaves out what is only measured: loads, coordinates, RTTs, localities. Pure.

import type { Directory, Host, Member } from '../../resolver/directory.ts'

export const DUMPED = [
  'services',
  'hosts',
  'members',
  'tokens',
  'localities',
  'places',
  'settings',
] as const satisfies readonly (keyof Directory)[]

/** One kind's records, sorted by key: a record a line. */
export function dumpKind(directory: Readonly<Directory>, kind: keyof Directory, isDecided = false): string {
  const records = directory[kind] as ReadonlyMap<string, unknown>
  const lines = [...records.keys()].sort().map((key) => {
    const record = records.get(key)
    const told = isDecided ? withoutMeasured(kind, record) : record
    return `${JSON.stringify(key)}:${recordText(told)}`
  })
  return `{${lines.join(',\n')}}`
}

/** All kinds, as one JSON document. */
export function dumpOf(directory: Readonly<Directory>, isDecided = false): string {
  const kinds = DUMPED.filter((kind) => !isDecided || kind !== 'localities')
  return `{${kinds.map((kind) => `"${kind}":${dumpKind(directory, kind, isDecided)}`).join(',\n')}}`
}

/** One record as text: equal where the record is. */
export function recordText(record: unknown): string {
  return JSON.stringify(sorted(record))
}

function withoutMeasured(kind: keyof Directory, record: unknown): unknown {
  if (kind === 'members') return { ...(record as Member), load: null }
  if (kind !== 'hosts') return record
  const { meshMs: _, ...rest } = record as Host
  return { ...rest, coordinate: null }
}

/** The same value with the fields of every object in order. */
function sorted(value: unknown): unknown {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64')
  if (Array.isArray(value)) return value.map(sorted)
  if (typeof value !== 'object' || value === null) return value
  const fields = Object.entries(value).filter(([, field]) => field !== undefined)
  return Object.fromEntries(
    fields.sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, field]) => [name, sorted(field)]),
  )
}
