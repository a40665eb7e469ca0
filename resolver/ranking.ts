// Ranking: members sorted by a number, or drawn in an order that leaves it to chance by weight.
//
// Invariant: equal ones go by name, so that every core gives the same order for the same numbers.
// Pure: chance is an argument. What the numbers mean is select's and spread's to say.

/** What is ranked has a member's name. */
interface Named {
  readonly member: { readonly name: string }
}

/** Sorted by a number, equal ones by name. The key is taken once an item. */
export function sortBy<T extends Named>(items: readonly T[], key: (item: T) => number): T[] {
  const keyed = items.map((item) => ({ item, key: key(item) }))
  keyed.sort((a, b) => (a.key === b.key ? (a.item.member.name < b.item.member.name ? -1 : 1) : a.key - b.key))
  return keyed.map(({ item }) => item)
}

/** Sorting by these draws without replacement by weight (Efraimidis and Spirakis 2006). `chance`: 0..1, without 1. */
export function weightedKey(weight: number, chance: number): number {
  return weight > 0 ? -Math.log(1 - chance) / weight : lastResort(chance)
}

/** Weight 0: only where nothing else is left, and then each as likely as the others. */
export function lastResort(share: number): number {
  return Number.MAX_SAFE_INTEGER * (1 + share)
}
