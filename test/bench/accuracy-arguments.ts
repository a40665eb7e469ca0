// Numbers as the accuracy benchmarks' arguments give them: a wrong one ends with a message that names it.

/** A whole number from `least` to `most`; absent: `fallback`. Throws an Error that says what was expected. */
export function readCount(
  name: string,
  value: string | undefined,
  fallback: number,
  least: number,
  most = Number.MAX_SAFE_INTEGER,
): number {
  if (value === undefined) return fallback
  const count = numberOf(value)
  if (Number.isSafeInteger(count) && count >= least && count <= most) return count
  throw new Error(`--${name} ${quoted(value)}: expected a whole number ${range(least, most)}`)
}

/** Any finite number from `least` to `most`; absent: `fallback`. Throws as readCount does. */
export function readNumber(
  name: string,
  value: string | undefined,
  fallback: number,
  least: number,
  most = Number.MAX_VALUE,
): number {
  if (value === undefined) return fallback
  const number = numberOf(value)
  if (number >= least && number <= most) return number
  throw new Error(`--${name} ${quoted(value)}: expected a number ${range(least, most)}`)
}

/** The files of a list `A,B,...`; absent: none. */
export function readFiles(name: string, value: string | undefined): string[] {
  const files = value?.split(',').map((file) => file.trim()) ?? []
  if (files.includes('')) throw new Error(`--${name} ${quoted(value!)}: expected FILE[,FILE...]`)
  return files
}

/** One cell or argument as a number; NaN: it is none. What JavaScript takes for 0, an empty text, is none. */
export function numberOf(text: string): number {
  return /^\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*$/i.test(text) ? Number(text) : Number.NaN
}

function quoted(value: string): string {
  return value.trim() === '' ? "''" : value
}

function range(least: number, most: number): string {
  return most >= Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`
}
