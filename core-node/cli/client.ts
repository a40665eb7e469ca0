// The CLI's side of a core's HTTP API: one JSON request at a time.
//
// Invariant: a token travels in the clear only over loopback, and a token read from the data folder, which
// is the local core's, goes to no other machine unless the folder was named. Every way to fail becomes a
// CommandFailure that says what to do next. Retries nothing and follows no redirect.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Command } from 'commander'
import { parseAddress, specialKind } from '../../resolver/address.ts'
import type { ProblemDocument } from '../../server-agent/protocol/messages.ts'
import { CommandFailure, printable, type Terminal, wrongUse } from './terminal.ts'

/** Where a core listens that was told nothing. */
export const DEFAULT_CORE = 'http://127.0.0.1:8053'
/** A core answers from memory: one that takes longer than this is in trouble. */
const TIMEOUT_MS = 10_000

/** The flags of every command that talks to a core. */
export interface CoreOptions {
  readonly core?: string
  readonly data?: string
  readonly insecure?: boolean
  readonly json?: boolean
}

/** Adds the flags of CoreOptions to a command. */
export function talksToCore(command: Command): Command {
  return command
    .option('--core <url>', `the core to ask (NEARCAST_CORE; default ${DEFAULT_CORE})`)
    .option('--data <dir>', "the core's data folder, where admin-token is (NEARCAST_DATA; default ./data)")
    .option('--insecure', 'send the token over http:// to another machine all the same')
    .option('--json', 'print JSON')
}

export interface CoreClient {
  /** `http://HOST:PORT`, without final slash. */
  readonly url: string
  /**
   * One request. Resolves to the parsed body (null: none). Throws CommandFailure: wrong use (2) where the
   * core found the request itself wrong, else failed (1).
   */
  request<T>(method: 'GET' | 'PUT' | 'POST' | 'DELETE', path: string, body?: unknown): Promise<T>
}

/** The core that the flags and the environment name. Throws CommandFailure. */
export function openClient(options: CoreOptions, terminal: Terminal): CoreClient {
  const core = parseCore(options.core ?? terminal.env.NEARCAST_CORE ?? DEFAULT_CORE)
  const url = core.href.replace(/\/$/, '')
  const token = findToken(core, options, terminal)
  if (token.secret !== null && core.protocol === 'http:' && !isLoopback(core) && !options.insecure) {
    throw wrongUse(
      `the token would travel in the clear to ${core.host}`,
      'Give the core a certificate (--tls-cert, --tls-key) and use https://, or say --insecure.',
    )
  }
  return {
    url,
    async request<T>(method: string, path: string, body?: unknown): Promise<T> {
      const headers: Record<string, string> = { accept: 'application/json' }
      if (token.secret !== null) headers.authorization = `Bearer ${token.secret}`
      if (body !== undefined) headers['content-type'] = 'application/json'
      const response = await send(url, path, {
        method,
        headers,
        redirect: 'manual',
        signal: AbortSignal.timeout(TIMEOUT_MS),
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      })
      if (!response.ok || response.body === undefined) throw failureOf(response, url, token.hint)
      return response.body as T
    },
  }
}

/** `/v1/services/mirror/...` with each part escaped. */
export function apiPath(...parts: readonly string[]): string {
  return `/v1/${parts.map(encodeURIComponent).join('/')}`
}

function parseCore(text: string): URL {
  const expected = `a core's URL such as ${DEFAULT_CORE}`
  if (!URL.canParse(text)) throw wrongUse(`--core is ${JSON.stringify(text)}; expected ${expected}`)
  const url = new URL(text)
  const isPlain =
    /^https?:$/.test(url.protocol) && url.pathname === '/' && !url.search && !url.username && !url.hash
  if (!isPlain) throw wrongUse(`--core is ${JSON.stringify(text)}; expected ${expected}`)
  return url
}

function isLoopback(url: URL): boolean {
  const host = url.hostname.replace(/^\[|\]$/g, '')
  if (host === 'localhost' || host.endsWith('.localhost')) return true
  const address = parseAddress(host)
  return address !== null && specialKind(address) === 'loopback'
}

/** The secret to send, and what to tell whoever is refused. */
function findToken(
  core: URL,
  options: CoreOptions,
  terminal: Terminal,
): { secret: string | null; hint: string } {
  if (terminal.env.NEARCAST_TOKEN) {
    return { secret: terminal.env.NEARCAST_TOKEN, hint: 'NEARCAST_TOKEN was sent: is it of this core?' }
  }
  const folder = options.data ?? terminal.env.NEARCAST_DATA
  const file = join(folder ?? 'data', 'admin-token')
  const hint = `Put the token into NEARCAST_TOKEN, or name the core's data folder with --data (its file admin-token)`
  if (folder === undefined && !isLoopback(core)) return { secret: null, hint: `${hint}.` }
  try {
    return {
      secret: readFileSync(file, 'utf8').trim(),
      hint: `The token in ${file} was sent: is it of this core?`,
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return { secret: null, hint: `${hint}; there is none in ${file}.` }
    return { secret: null, hint: `${hint}; ${file} can't be read (${code}).` }
  }
}

interface Answer {
  readonly ok: boolean
  readonly status: number
  /** Parsed JSON; null: empty; undefined: not JSON. */
  readonly body: unknown
  /** With 429: after how long to come back. */
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
      throw new CommandFailure(`the core at ${url} did not answer within ${TIMEOUT_MS / 1000} s`, {
        cause: error,
      })
    }
    if (cause?.code === 'ECONNREFUSED') {
      throw new CommandFailure(`no core answers at ${url}`, {
        cause: error,
        next: 'Start one with `npm start` (or `npx nearcast core`), or name another with --core or NEARCAST_CORE.',
      })
    }
    throw new CommandFailure(`the core at ${url} can't be reached: ${cause?.message ?? String(error)}`, {
      cause: error,
      next: 'Check the address after --core (or in NEARCAST_CORE), and https:// or http://.',
    })
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
function failureOf({ status, body, retryAfterSec }: Answer, url: string, tokenHint: string): CommandFailure {
  const problem = body as Partial<ProblemDocument> | null | undefined
  if (typeof problem?.detail !== 'string') {
    return new CommandFailure(`${url} answered with HTTP ${status}, not as a core does`, {
      next: 'Check the address after --core (or in NEARCAST_CORE).',
    })
  }
  const { detail, field = '' } = problem
  const message = printable(detail.includes(field) ? detail : `${field}: ${detail}`)
  if (status === 400) return wrongUse(message)
  if (status === 401 || status === 403) return new CommandFailure(message, { next: tokenHint })
  if (status === 429 && retryAfterSec >= 0) return new CommandFailure(message, { retryAfterSec })
  return new CommandFailure(message)
}
