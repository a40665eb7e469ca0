// A core's HTTP API from outside: one JSON request at a time, for the CLI and the lab.
//
// Invariant: every way to fail is an ApiFailure that says which way it was. Retries nothing and follows
// no redirect. Where the core and the secret come from, and what a person should do next, is the caller's.

import type { ProblemDocument } from '../server-agent/protocol/messages.ts'

/** A core answers from memory: one that takes longer than this is in trouble. */
const TIMEOUT_MS = 10_000

/** How a request failed: it got no answer, an answer of something else than a core, or a core's refusal. */
export type ApiFailureCode =
  | 'timeout'
  | 'no-listener'
  | 'unreachable'
  | 'not-a-core'
  | 'invalid'
  | 'unauthorized'
  | 'refused'

export class ApiFailure extends Error {
  readonly code: ApiFailureCode
  /** The core asked to be left alone for so long; null: it did not. */
  readonly retryAfterSec: number | null
  /** `message` is one sentence; where a core refused, in the core's own words, which are not made printable yet. */
  constructor(code: ApiFailureCode, message: string, cause?: unknown, retryAfterSec: number | null = null) {
    super(message, { cause })
    this.retryAfterSec = retryAfterSec
    this.name = 'ApiFailure'
    this.code = code
  }
}

export interface ApiClient {
  /** `http://HOST:PORT`, without final slash. */
  readonly url: string
  /** One request. Resolves to the parsed body (null: none). Throws ApiFailure. */
  request<T>(method: 'GET' | 'PUT' | 'POST' | 'DELETE', path: string, body?: unknown): Promise<T>
}

/** The API of the core at `url`, as whoever holds `secret` (a token or a credential; null: anyone). */
export function openApiClient(url: string, secret: string | null): ApiClient {
  return {
    url,
    async request<T>(method: string, path: string, body?: unknown): Promise<T> {
      const headers: Record<string, string> = { accept: 'application/json' }
      if (secret !== null) headers.authorization = `Bearer ${secret}`
      if (body !== undefined) headers['content-type'] = 'application/json'
      const answer = await send(url, path, {
        method,
        headers,
        redirect: 'manual',
        signal: AbortSignal.timeout(TIMEOUT_MS),
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      })
      if (!answer.ok || answer.body === undefined) throw failureOf(answer, url)
      return answer.body as T
    },
  }
}

interface Answer {
  readonly ok: boolean
  readonly status: number
  /** Parsed JSON; null: empty; undefined: not JSON. */
  readonly body: unknown
  /** With 429: after how long to come back. NaN: not told. */
  readonly retryAfterSec: number
}

async function send(url: string, path: string, init: RequestInit): Promise<Answer> {
  try {
    const response = await fetch(url + path, init)
    const text = await response.text()
    const retryAfterSec = Number(response.headers.get('retry-after') ?? Number.NaN)
    return { ok: response.ok, status: response.status, body: parseJson(text), retryAfterSec }
  } catch (error) {
    const { name, cause } = error as Error & { cause?: NodeJS.ErrnoException }
    if (name === 'TimeoutError') {
      const message = `the core at ${url} did not answer within ${TIMEOUT_MS / 1000} s`
      throw new ApiFailure('timeout', message, error)
    }
    if (cause?.code === 'ECONNREFUSED')
      throw new ApiFailure('no-listener', `no core answers at ${url}`, error)
    const message = `the core at ${url} can't be reached: ${cause?.message ?? String(error)}`
    throw new ApiFailure('unreachable', message, error)
  }
}

function parseJson(text: string): unknown {
  if (text === '') return null
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** What the core refused, in its own words where it is a core that speaks. */
function failureOf({ status, body, retryAfterSec }: Answer, url: string): ApiFailure {
  const problem = body as Partial<ProblemDocument> | null | undefined
  if (typeof problem?.detail !== 'string') {
    return new ApiFailure('not-a-core', `${url} answered with HTTP ${status}, not as a core does`)
  }
  const { detail, field = '' } = problem
  const message = detail.includes(field) ? detail : `${field}: ${detail}`
  if (status === 400) return new ApiFailure('invalid', message)
  const wait = status === 429 && retryAfterSec >= 0 ? retryAfterSec : null
  return new ApiFailure(status === 401 ? 'unauthorized' : 'refused', message, undefined, wait)
}
