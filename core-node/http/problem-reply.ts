// Problems on their way out: what refused a request -> application/problem+json (RFC 9457).
//
// Invariant: every error that HTTP answers with is a Problem, made here or thrown by the core; what is none
// is answered as `internal` with nothing of its own words, and is the log's to tell.

import type { FastifyError } from 'fastify'
import type { ProblemDocument } from '../../server-agent/protocol/messages.ts'
import { Problem, type ProblemCode } from '../problem.ts'

export const PROBLEM_TYPE = 'application/problem+json; charset=utf-8'

export function problemDocument(problem: Problem): ProblemDocument {
  const { code, title, status, message, field } = problem
  const document = { type: `urn:nearcast:problem:${code}`, title, status, detail: message }
  return field === undefined ? document : { ...document, field }
}

/** What a client needs beside the document: how to prove itself, when to come back. */
export function problemHeaders(problem: Problem): Record<string, string> {
  const headers: Record<string, string> = { 'Cache-Control': 'no-store', 'Content-Type': PROBLEM_TYPE }
  if (problem.code === 'unauthorized') headers['WWW-Authenticate'] = 'Bearer realm="nearcast"'
  if (problem.code === 'unavailable') headers['Retry-After'] = '5'
  return headers
}

/** The framework's own refusals by their HTTP status; the rest of its 4xx are bad requests. */
const CODE_OF_STATUS: Readonly<Record<number, ProblemCode>> = {
  404: 'not-found',
  413: 'too-large',
  414: 'uri-too-long',
  415: 'unsupported-media-type',
  429: 'too-many',
}

/** null: not the request's fault, so a failure of ours. */
export function problemOf(error: Problem | FastifyError): Problem | null {
  if (error instanceof Problem) return error
  const status = error.statusCode ?? 500
  if (status < 400 || status >= 500) return null
  return new Problem(CODE_OF_STATUS[status] ?? 'bad-request', detailOf(error))
}

function detailOf(error: FastifyError): string {
  if (error.code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE') return 'send the body as application/json'
  if (error.code === 'FST_ERR_CTP_BODY_TOO_LARGE') return 'the body is longer than this request may be'
  if (error instanceof SyntaxError) return `the body is no JSON: ${error.message}`
  return error.message
}
