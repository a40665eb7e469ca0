// Validation: a request's parts against their schemas -> the typed value, or a Problem naming the field.
//
// Invariant: bodies are taken as they are, nothing is converted, dropped or filled in. Query and path are
// text by nature: numbers, booleans and lists in them are read by the schema, and only if written in full
// (`12.5x` is no number).

import type { FastifySchemaCompiler } from 'fastify'
import type { TSchema } from 'typebox'
import { Compile } from 'typebox/compile'
import { Problem } from '../problem.ts'

/** One finding of the checker: where (a JSON pointer) and what. */
interface Finding {
  readonly keyword: string
  readonly instancePath: string
  readonly message: string
  readonly params: object
}

/** For fastify: compiles a route's schema once, checks every request with it. */
export const compileValidator: FastifySchemaCompiler<TSchema> = ({ schema, httpPart }) => {
  const check = Compile(schema)
  return (raw: unknown) => {
    const value = httpPart === 'body' ? raw : readText(schema, raw as Record<string, unknown>)
    if (check.Check(value)) return { value }
    return { error: toProblem(check.Errors(value) as Finding[], value, httpPart ?? 'request') }
  }
}

interface PropertySchema {
  readonly type?: string
}

/** Query and path parameters as their schema's types; what does not read as one stays text, for the check to refuse. */
function readText(schema: TSchema, raw: Record<string, unknown>): unknown {
  const properties = (schema as { properties?: Record<string, PropertySchema> }).properties ?? {}
  return Object.fromEntries(
    Object.entries(raw).map(([name, value]) => [
      name,
      Object.hasOwn(properties, name) ? readOne(properties[name]!.type, value) : value,
    ]),
  )
}

function readOne(type: string | undefined, value: unknown): unknown {
  if (type === 'array') return Array.isArray(value) ? value : [value]
  if (typeof value !== 'string') return value
  if ((type === 'integer' || type === 'number') && /^-?\d{1,15}(\.\d{1,15})?$/.test(value))
    return Number(value)
  if (type === 'boolean' && (value === 'true' || value === 'false')) return value === 'true'
  return value
}

/** The first finding that a person can act on, as a sentence. */
function toProblem(findings: readonly Finding[], value: unknown, part: string): Problem {
  const closed = findings.find(({ keyword }) => keyword === 'additionalProperties')
  if (closed !== undefined) {
    const [name] = (closed.params as { additionalProperties: string[] }).additionalProperties
    return new Problem('bad-request', `"${name}" is not known here`, fieldOf(closed.instancePath, name))
  }
  const missing = findings.find(({ keyword }) => keyword === 'required')
  if (missing !== undefined) {
    const [name] = (missing.params as { requiredProperties: string[] }).requiredProperties
    return new Problem('bad-request', `"${name}" is missing`, fieldOf(missing.instancePath, name))
  }
  const first = findings[0]
  if (first === undefined) return new Problem('bad-request', `the ${part} is not as the API describes it`)
  const field = fieldOf(first.instancePath)
  const found = show(valueAt(value, first.instancePath))
  const expectation = expected(findings.filter(({ instancePath }) => instancePath === first.instancePath))
  if (field === '') return new Problem('bad-request', `the ${part} ${expectation}, not ${found}`)
  return new Problem('bad-request', `${field} ${expectation}, not ${found}`, field)
}

/** What all findings at one place ask for together: a choice's alternatives come as one finding each. */
function expected(findings: readonly Finding[]): string {
  const of = (wanted: string, param: string) =>
    findings.flatMap(({ keyword, params }) =>
      keyword === wanted ? (params as Record<string, unknown>)[param] : [],
    )
  const choices = of('enum', 'allowedValues')
  const alternatives = choices.length > 0 ? choices : [...of('const', 'allowedValue'), ...of('type', 'type')]
  return alternatives.length > 0 ? `must be ${alternatives.map(String).join(' or ')}` : findings[0]!.message
}

/** `/beats/0/host` -> `beats.0.host`. */
function fieldOf(pointer: string, name?: string): string {
  const parts = segmentsOf(pointer)
  if (name !== undefined) parts.push(name)
  return parts.join('.')
}

function segmentsOf(pointer: string): string[] {
  return pointer
    .split('/')
    .slice(1)
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'))
}

function valueAt(value: unknown, pointer: string): unknown {
  let found = value
  for (const part of segmentsOf(pointer)) found = (found as Record<string, unknown> | null)?.[part]
  return found
}

/** Enough to recognise it by, and no more. */
function show(value: unknown): string {
  if (value === undefined) return 'nothing'
  const text = typeof value === 'number' ? String(value) : (JSON.stringify(value) ?? typeof value)
  return text.length > 60 ? `${text.slice(0, 60)}...` : text
}
