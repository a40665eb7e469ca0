// The redirect: an HTTP request for a service -> 302 to its best member's URL, joined with path and query.
//
// Invariant: a Location has the member's own origin and lies under the member's own path, whatever the
// request held; who cannot be joined so is told 400. A URL parser does the joining, never string sums.
// Pure: reads the tables; what was decided comes back beside the reply, for the shell to count and send.
// RFC 9110 section 15.4.3 (302), RFC 6249 (Link rel=duplicate: where else the same thing is).

import { type Address, type Family, familyOf } from './address.ts'
import { ANY_ASK, type Rng } from './ask.ts'
import { type AllDown, type Basis, CORE_SERVICE } from './directory.ts'
import { locate } from './locate.ts'
import { type Selection, select } from './select.ts'
import type { ServingMember } from './serving.ts'
import type { Tables } from './tables.ts'

/** What a request asks to be redirected to. */
export interface RedirectTarget {
  /** As written in the request: a service's name or alias; not yet known to exist. */
  readonly service: string
  /** The path below the service as it came, percent-encodings and all, without its leading slash. */
  readonly rest: string
}

interface RedirectRequest extends RedirectTarget {
  readonly method: string
  /** As it came, with its `?`; empty: none. */
  readonly query: string
  readonly client: Address
}

export interface RedirectReply {
  readonly status: 302 | 400 | 404 | 405 | 503
  readonly headers: Readonly<Record<string, string>>
  /** The Location for a 302, else a sentence that says what was wrong. */
  readonly body: string
  /** Whom a member was looked for, what that stood on, what was done if none is live; null: none was looked for. */
  readonly looked: {
    readonly service: string
    readonly basis: Basis
    readonly allDown: AllDown['mode'] | null
  } | null
}

const PATH_PREFIX = '/r/'
/** The best and up to three more in Link: a client that tries four has waited long enough. */
const NAMED = 4
/** So many of the best are looked at for one that the client's own family reaches. */
const LOOKED_AT = 8
/** How long to wait when nobody is there: about a lease, after which a member may be back. */
const RETRY_AFTER_SEC = 5

/**
 * Which service a request wants a redirect to: by its path, `/r/SERVICE/...`, or by its host, `SERVICE.ZONE`
 * or a service's alias. null: it is none of these, the API's to answer.
 * `host` is in lower case, without port and final dot; `path` begins with a slash and has no query.
 */
export function redirectTarget(
  tables: Tables,
  zones: readonly string[],
  host: string,
  path: string,
): RedirectTarget | null {
  const service = serviceOfHost(tables, zones, host)
  if (service !== null) return { service, rest: path.slice(1) }
  if (path !== '/r' && !path.startsWith(PATH_PREFIX)) return null
  const below = path.slice(PATH_PREFIX.length)
  const slash = below.indexOf('/')
  const name = slash < 0 ? below : below.slice(0, slash)
  return { service: name.toLowerCase(), rest: slash < 0 ? '' : below.slice(slash + 1) }
}

function serviceOfHost(tables: Tables, zones: readonly string[], host: string): string | null {
  // One label alone (`localhost`) is a machine's name, never a service's.
  if (!host.includes('.')) return null
  const zone = zones.find((name) => host.endsWith(`.${name}`))
  const label = zone === undefined ? host : host.slice(0, -zone.length - 1)
  // At `core.ZONE` stands the cores' API, not a redirect.
  if (label === CORE_SERVICE) return null
  return tables.service(label) === null ? null : label
}

/** The whole decision. `rng` is used by the policies random and weighted alone. */
export function redirect(tables: Tables, request: RedirectRequest, rng: Rng): RedirectReply {
  const serving = tables.service(request.service)
  if (serving === null) return refuse(404, `there is no service "${request.service}"`)
  if (request.method !== 'GET' && request.method !== 'HEAD')
    return refuse(405, `a redirect answers GET and HEAD, not ${request.method}`, { Allow: 'GET, HEAD' })
  if (!isSafePath(request.rest) || !isSafeText(request.query))
    return refuse(400, 'the path leaves the service, or path or query hold control characters')

  const ask = { ...ANY_ASK, want: 'url' as const, limit: LOOKED_AT }
  const selection = select(tables, serving, locate(tables, request.client), ask, rng)
  const looked = {
    service: serving.service.name,
    basis: selection.basis,
    allDown: selection.allDown?.mode ?? null,
  }
  const [first, ...others] = destinations(selection, request)
  if (first === undefined) {
    const headers = { 'Retry-After': String(RETRY_AFTER_SEC) }
    return { ...refuse(503, `no member of "${looked.service}" with a URL is live`, headers), looked }
  }
  const headers: Record<string, string> = {
    Location: first.url,
    'Cache-Control': 'no-store',
    'X-Nearcast-Basis': selection.basis,
  }
  if (first.member !== null) headers['X-Nearcast-Member'] = first.member
  if (others.length > 0)
    headers.Link = others.map(({ url }, i) => `<${url}>; rel=duplicate; pri=${i + 1}`).join(', ')
  return { status: 302, headers, body: first.url, looked }
}

interface Destination {
  readonly url: string
  /** null: the operator's fallback, no member. */
  readonly member: string | null
}

/** Where to send the client, best first. */
function destinations(selection: Selection, request: RedirectRequest): Destination[] {
  const bases: { base: string | null; member: string | null }[] = byFamily(
    selection,
    familyOf(request.client),
  ).map(({ name, url }) => ({ base: url, member: name }))
  if (selection.allDown?.mode === 'fallback') bases.push({ base: selection.allDown.url, member: null })
  const found: Destination[] = []
  for (const { base, member } of bases) {
    const url = base === null ? null : joinUrl(base, request.rest, request.query)
    if (url !== null) found.push({ url, member })
    if (found.length === NAMED) break
  }
  return found
}

/** Members that the family by which the client came can reach go first: it may have no other. */
function byFamily(selection: Selection, family: Family): ServingMember[] {
  const members = selection.picks.map(({ member }) => member)
  const reached = new Set(members.filter((member) => reaches(member, family)))
  return [...reached, ...members.filter((member) => !reached.has(member))]
}

/** A URL at an address is of that address's family; one at a name, of those that the member has. */
function reaches(member: ServingMember, family: Family): boolean {
  const { hostname } = new URL(member.url!)
  if (hostname.startsWith('[')) return family === 6
  if (/^[\d.]+$/.test(hostname)) return family === 4
  return (family === 4 ? member.addresses4 : member.addresses6).length > 0
}

function refuse(
  status: 400 | 404 | 405 | 503,
  body: string,
  headers: Record<string, string> = {},
): RedirectReply {
  return { status, headers: { 'Cache-Control': 'no-store', ...headers }, body, looked: null }
}

/**
 * `base` with `rest` below its path and `query` as its query; an empty rest is the base itself.
 * null where the result would not keep the base's origin and path, or base is no URL.
 */
export function joinUrl(base: string, rest: string, query: string): string | null {
  if (!URL.canParse(base)) return null
  const url = new URL(base)
  const { origin, pathname } = url
  // Leading slashes go: behind a base of `/` they would read as `//host` to whoever resolves the path alone.
  const below = rest.replace(/^\/+/, '')
  const root = pathname.endsWith('/') ? pathname : `${pathname}/`
  if (below !== '') url.pathname = root + below
  if (query !== '') url.search = query
  url.hash = ''
  const kept = below === '' ? url.pathname === pathname : url.pathname.startsWith(root)
  return kept && url.origin === origin ? url.href : null
}

/** Visible ASCII, which is all that URLs are written in (RFC 3986), and no CR or LF in percent-encoded form. */
function isSafeText(text: string): boolean {
  return /^[\x21-\x7e]*$/.test(text) && !/%0[ad]/i.test(text)
}

/**
 * As safe text, and at no point above where it began, even for a member that decodes `%2e`, `%2f` and `%5c`
 * before it walks the path. A bare backslash is a slash to URL parsers and has no place in a path (RFC 3986).
 */
function isSafePath(path: string): boolean {
  if (!isSafeText(path) || path.includes('\\')) return false
  const decoded = path.replace(/%2e/gi, '.').replace(/%2f/gi, '/').replace(/%5c/gi, '\\')
  let depth = 0
  for (const segment of decoded.split(/[/\\]/)) {
    if (segment === '..') depth -= 1
    else if (segment !== '' && segment !== '.') depth += 1
    if (depth < 0) return false
  }
  return true
}
