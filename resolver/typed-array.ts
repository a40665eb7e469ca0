// Typed arrays that grow: half as large again each time, so that a million additions copy little.
//
// What is new in them is 0. The caller keeps the arrays; nothing here does.

/** Room for at least so many, given how much there was. */
export function roomFor(wanted: number, before: number): number {
  return Math.max(wanted, 64, Math.ceil(before * 1.5))
}

/** `to`, which is longer, with the numbers of `from` at its beginning. */
export function grown<T extends Int32Array | Float32Array>(from: T, to: T): T {
  to.set(from)
  return to
}
