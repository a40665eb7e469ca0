// Where settings come from: flags, NEARCAST_* variables and a YAML file, each read to the same form.
//
// Nothing is judged here but form: which keys exist and what they may hold is config.ts's to say.
// A mistake of form (no YAML, a nested map) is returned beside what could be read, so that all are told at once.

import { readFileSync } from 'node:fs'
import { isMap, isScalar, isSeq, LineCounter, type Pair, type ParsedNode, parseDocument } from 'yaml'

/** One setting as somebody wrote it. */
export interface Given {
  /** As written there: `--ttl`, `NEARCAST_TTL`, `ttl`. */
  readonly key: string
  /** Kebab-case name of the setting that the key stands for. */
  readonly name: string
  /** One text, or the items of a YAML list. */
  readonly value: string | readonly string[]
  /** For people: `flag`, `environment` or FILE:LINE. */
  readonly source: string
}

/** What was wrong, and what would be right. */
export interface Mistake {
  readonly key: string
  readonly source: string
  /** null: nothing stood there. */
  readonly value: string | null
  readonly expected: string
}

export interface Reading {
  readonly given: readonly Given[]
  readonly mistakes: readonly Mistake[]
}

export const ENV_PREFIX = 'NEARCAST_'

/** What the CLI and the agent read for themselves: no setting of a core. */
const FOREIGN_VARIABLES = new Set(['NEARCAST_TOKEN', 'NEARCAST_CORE'])

/** Flags by property name, as a command line parser hands them over; undefined: not given. */
export type Flags = Readonly<Record<string, string | undefined>>

export function readFlags(flags: Flags): Reading {
  const given: Given[] = []
  for (const [property, value] of Object.entries(flags)) {
    if (value === undefined) continue
    const name = kebabCase(property)
    given.push({ key: `--${name}`, name, value, source: 'flag' })
  }
  return { given, mistakes: [] }
}

export function readEnvironment(env: Readonly<Record<string, string | undefined>>): Reading {
  const given: Given[] = []
  for (const [key, value] of Object.entries(env)) {
    if (value === undefined || !key.startsWith(ENV_PREFIX) || FOREIGN_VARIABLES.has(key)) continue
    const name = key.slice(ENV_PREFIX.length).toLowerCase().replaceAll('_', '-')
    given.push({ key, name, value, source: 'environment' })
  }
  return { given, mistakes: [] }
}

/** A YAML map of settings; an empty file is an empty map. */
export function readFile(path: string): Reading {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code ?? String(error)
    return wrong(path, 'file', `a YAML file that can be read (${why})`)
  }
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false })
  const at = (offset: number) => `${path}:${lines.linePos(offset).line}`
  const [error] = document.errors
  if (error !== undefined) return wrong(path, at(error.pos[0]), `YAML; ${error.message}`)
  if (document.contents === null) return { given: [], mistakes: [] }
  if (!isMap<ParsedNode, ParsedNode | null>(document.contents)) {
    return wrong(path, at(0), 'lines of `key: value`')
  }
  return readItems(document.contents.items, text, at)
}

function readItems(
  items: readonly Pair<ParsedNode, ParsedNode | null>[],
  text: string,
  at: (offset: number) => string,
): Reading {
  const given: Given[] = []
  const mistakes: Mistake[] = []
  const written = (node: ParsedNode) => text.slice(node.range[0], node.range[1])
  for (const { key, value: node } of items) {
    const name = scalarText(key) ?? written(key)
    const source = at(key.range[0])
    const value = textsIn(node)
    if (value !== undefined) given.push({ key: name, name, value, source })
    else {
      const was = node === null ? '' : written(node)
      mistakes.push({ key: name, source, value: was || null, expected: 'a value, or a list of values' })
    }
  }
  return { given, mistakes }
}

/** One mistake of the file as a whole. */
function wrong(path: string, source: string, expected: string): Reading {
  return { given: [], mistakes: [{ key: path, source, value: null, expected }] }
}

function textsIn(node: ParsedNode | null): string | readonly string[] | undefined {
  if (!isSeq(node)) return scalarText(node)
  const items = node.items.map((item) => scalarText(item))
  return items.every((item) => item !== undefined) ? items : undefined
}

/** A scalar as it stands in the file: 1e3 and 0x10 stay what the operator wrote. */
function scalarText(node: unknown): string | undefined {
  if (!isScalar(node) || node.value === null) return undefined
  return node.source ?? String(node.value)
}

/** probesPerMinute -> probes-per-minute */
export function kebabCase(property: string): string {
  return property.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
}
