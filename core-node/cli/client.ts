// The core that a command talks to, and the token it shows: from flags, environment and the data folder.
//
// Invariant: a token travels in the clear only over loopback, and a token read from the data folder, which
// is the local core's, goes to no other machine unless the folder was named. Every way to fail becomes a
// CommandFailure that says what to do next. The requests themselves are api-client.ts.

import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { isLoopbackHost } from '../../resolver/address.ts'
import { type ApiClient, ApiFailure, type ApiFailureCode, openApiClient } from '../api-client.ts'
import { adminTokenPath } from '../registry/admin-token.ts'
import { CommandFailure, printable, type Terminal, wrongUse } from './terminal.ts'

/** Where a core listens that was told nothing. */
export const DEFAULT_CORE = 'http://127.0.0.1:8053'

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

/** The core that the flags and the environment name. Throws CommandFailure, as its requests do. */
export function openClient(options: CoreOptions, terminal: Terminal): ApiClient {
  const core = parseCore(options.core ?? terminal.env.NEARCAST_CORE ?? DEFAULT_CORE)
  const token = findToken(core, options, terminal)
  if (
    token.secret !== null &&
    core.protocol === 'http:' &&
    !isLoopbackHost(core.hostname) &&
    !options.insecure
  ) {
    throw wrongUse(
      `the token would travel in the clear to ${core.host}`,
      'Give the core a certificate (--tls-cert, --tls-key) and use https://, or say --insecure.',
    )
  }
  const api = openApiClient(core.href.replace(/\/$/, ''), token.secret)
  return {
    url: api.url,
    request: <T>(...request: Parameters<ApiClient['request']>) =>
      api.request<T>(...request).catch((error) => {
        throw error instanceof ApiFailure ? commandFailure(error, token.hint) : error
      }),
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
  const file = adminTokenPath(folder ?? 'data')
  const hint = `Put the token into NEARCAST_TOKEN, or name the core's data folder with --data (its file admin-token)`
  if (folder === undefined && !isLoopbackHost(core.hostname)) return { secret: null, hint: `${hint}.` }
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

const CHECK_ADDRESS = 'Check the address after --core (or in NEARCAST_CORE)'
/** What to do next; a refusal says it itself. */
const NEXT: Partial<Record<ApiFailureCode, string>> = {
  'no-listener':
    'Start one with `npm start` (or `npx nearcast core`), or name another with --core or NEARCAST_CORE.',
  unreachable: `${CHECK_ADDRESS}, and https:// or http://.`,
  'not-a-core': `${CHECK_ADDRESS}.`,
}

/** Wrong use (2) where the core found the request itself wrong, else failed (1). */
function commandFailure(
  { code, message, cause, retryAfterSec }: ApiFailure,
  tokenHint: string,
): CommandFailure {
  const next = code === 'unauthorized' ? tokenHint : NEXT[code]
  return new CommandFailure(printable(message), {
    exitCode: code === 'invalid' ? 2 : 1,
    ...(next === undefined ? {} : { next }),
    ...(retryAfterSec === null ? {} : { retryAfterSec }),
    cause,
  })
}
