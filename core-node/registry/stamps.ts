// Stamps: whose clock an event was stamped by.
//
// A host that comes, falls silent or leaves carries when, by the clock of the core that decided it; several cores' clocks
// may differ by anything, so the record says whose it was, and nobody compares two of them finer than
// hours. Set in one place, for all decisions. Pure.

import type { Change } from '../../resolver/directory.ts'
import type { Books } from './books.ts'

/** The same changes, those of presence with the name of the core that decided them. */
export function stamped(
  books: Pick<Books, 'hosts'>,
  changes: readonly Change[],
  by: string,
): readonly Change[] {
  const isNew = (change: Change) =>
    change.kind === 'hosts' &&
    change.value !== null &&
    change.value.presenceSinceMs !== books.hosts.get(change.key)?.presenceSinceMs
  if (!changes.some(isNew)) return changes
  return changes.map((change) =>
    change.kind === 'hosts' && change.value !== null && isNew(change)
      ? { ...change, value: { ...change.value, presenceBy: by } }
      : change,
  )
}
