// Merging: one record that was written here and elsewhere, put together from what each side changed.
//
// Only what is measured is merged, field by field: a load, a coordinate, RTTs; of localities the evidence of each
// host and the incumbent of each service. What was decided is never merged: the newest decision holds, and
// others are decided anew on it. A field that this side left as it was says what the other side says. Pure.

import type { Change, Directory, Evidence, LocalityRecord } from '../../resolver/directory.ts'
import { sameRecord } from './caller.ts'

type AnyRecord = Readonly<Record<string, unknown>>

/** What of a record is only measured; of localities all is. */
const MEASURED: Readonly<Partial<Record<keyof Directory, readonly string[]>>> = {
  hosts: ['coordinate', 'meshMs'],
  members: ['load'],
}

/**
 * The newest record, `theirs`, with what `mine` measured since `base`: both sides began with that one.
 * null: there is no record.
 */
export function withMeasured(kind: keyof Directory, base: unknown, mine: unknown, theirs: unknown): unknown {
  if (kind === 'localities') {
    return mergeLocality(
      (base ?? null) as LocalityRecord | null,
      (mine ?? null) as LocalityRecord | null,
      (theirs ?? null) as LocalityRecord | null,
    )
  }
  if (theirs == null || mine == null) return theirs ?? null
  const changes = mergeFields(
    MEASURED[kind] ?? [],
    (base ?? {}) as AnyRecord,
    mine as AnyRecord,
    theirs as AnyRecord,
  )
  return changes === null ? theirs : { ...(theirs as AnyRecord), ...changes }
}

/** Whether two records, or the lack of them, say the same. */
export function isSame(a: unknown, b: unknown): boolean {
  if (a === b) return true
  return a != null && b != null && sameRecord(a as object, b as object)
}

/** How a change is named among others. */
export function idOf({ kind, key }: Pick<Change, 'kind' | 'key'>): string {
  return `${kind} ${key}`
}

/** What is to be set of `theirs`; null: nothing. */
function mergeFields(
  fields: readonly string[],
  base: AnyRecord,
  mine: AnyRecord,
  theirs: AnyRecord,
): AnyRecord | null {
  const changed = fields.filter(
    (field) =>
      mine[field] !== undefined && !isSame(mine[field], base[field]) && !isSame(mine[field], theirs[field]),
  )
  return changed.length === 0 ? null : Object.fromEntries(changed.map((field) => [field, mine[field]]))
}

function mergeLocality(
  base: LocalityRecord | null,
  mine: LocalityRecord | null,
  theirs: LocalityRecord | null,
): LocalityRecord | null {
  if (isSame(base, mine) || isSame(mine, theirs)) return theirs
  const evidence = mergeByName(byHost(base), byHost(mine), byHost(theirs))
  if (evidence.length === 0) return null
  const told = theirs ?? mine!
  const named = (record: LocalityRecord | null) => new Map(Object.entries(record?.incumbents ?? {}))
  const incumbents = mergeByName(named(base), named(mine), named(theirs))
  return {
    prefix: told.prefix,
    evidence: evidence.map(([, it]) => it).sort((a, b) => a.rttMs - b.rttMs || (a.host < b.host ? -1 : 1)),
    incumbents: Object.fromEntries(incumbents.sort(([a], [b]) => (a < b ? -1 : 1))),
  }
}

function byHost(record: LocalityRecord | null): ReadonlyMap<string, Evidence> {
  return new Map(record?.evidence.map((it) => [it.host, it]))
}

/** Of each name what `mine` says where that is new, else what `theirs` says. */
function mergeByName<V>(
  base: ReadonlyMap<string, V>,
  mine: ReadonlyMap<string, V>,
  theirs: ReadonlyMap<string, V>,
): [string, V][] {
  const entries: [string, V][] = []
  for (const name of new Set([...theirs.keys(), ...mine.keys()])) {
    const own = mine.get(name)
    const value = isSame(own, base.get(name)) ? theirs.get(name) : own
    if (value !== undefined) entries.push([name, value])
  }
  return entries
}
