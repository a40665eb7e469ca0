// Histograms over plain slots: how many values were at most each of a few limits, and their sum.
//
// Invariant: the last slot but one counts what is above all limits, the last is the sum. Nothing is allocated to
// count; limits are few, so they are looked through from the lowest. Pure.

export interface Histogram {
  /** Ascending; a value equal to one is within it. */
  readonly limits: readonly number[]
  /** By limit, and one more for what is above them all; each value once. */
  readonly counts: readonly number[]
  readonly sum: number
}

/** How many slots a histogram with these limits takes. */
export function histogramSlots(limits: readonly number[]): number {
  return limits.length + 2
}

/** Counts a value so many times, in the slots of a histogram that begins at `at`. */
export function observe(
  slots: Float64Array,
  at: number,
  limits: readonly number[],
  value: number,
  times: number,
): void {
  let bucket = 0
  while (bucket < limits.length && value > limits[bucket]!) bucket++
  slots[at + bucket]! += times
  slots[at + limits.length + 1]! += value * times
}

/** `slot`: the number in a slot, counted from the histogram's first. */
export function readHistogram(limits: readonly number[], slot: (at: number) => number): Histogram {
  const counts = Array.from({ length: limits.length + 1 }, (_, at) => slot(at))
  return { limits, counts, sum: slot(limits.length + 1) }
}
