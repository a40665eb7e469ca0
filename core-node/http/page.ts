// Pages: of many records those that come first by name, so that a list of a million is told a thousand at a time.
//
// Invariant: whoever goes on after the name that a page gave as `next` sees every record that stood all the while
// exactly once. One pass over the records, and memory for a few pages only. Pure.

import type { Static } from 'typebox'
import type { PageQuery } from './schemas.ts'

/** Names told at once, where no limit is given. */
const PAGE = 1000

interface Named {
  readonly name: string
}

/** The records after a name (`after`), in order; `next`: the last of them, where there are more. */
export function pageOf<T extends Named>(
  records: Iterable<T>,
  { after = '', limit = PAGE }: Static<typeof PageQuery>,
): { page: T[]; next: string | null } {
  let first: T[] = []
  // Beyond this name a record can't be on the page: most of a long list is passed over by one comparison.
  let bound: string | null = null
  for (const record of records) {
    if (record.name <= after || (bound !== null && record.name >= bound)) continue
    first.push(record)
    if (first.length < 2 * (limit + 1)) continue
    first = sorted(first).slice(0, limit + 1)
    bound = first[limit]!.name
  }
  const page = sorted(first)
  return page.length > limit
    ? { page: page.slice(0, limit), next: page[limit - 1]!.name }
    : { page, next: null }
}

function sorted<T extends Named>(records: readonly T[]): T[] {
  return records.toSorted((a, b) => (a.name < b.name ? -1 : 1))
}
