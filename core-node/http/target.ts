// The request target: what a request line and Host say, in one form, whichever way they were written.
//
// Origin form (`/path`) and absolute form (`http://host/path`, as to a proxy) mean the same here, and the
// absolute form's host outranks Host (RFC 9112, section 3.2.2). Pure; never throws: a reason for what is refused.
// Paths stay as they came; only a redirect or a router decodes them.

interface Target {
  /** Lower case, without port and final dot; empty for HTTP/1.0 without Host. */
  readonly host: string
  /** Begins with a slash. */
  readonly path: string
  /** With its `?`; empty: none. */
  readonly query: string
}

export type TargetRefusal = 'target-too-long' | 'bad-target' | 'bad-host'

/** Longer than any link that works elsewhere; browsers and caches give up in this region as well. */
const MAX_TARGET_LENGTH = 8192
/** A host as URLs write it, userinfo excluded: names, IPv4, [IPv6]; and a port. */
const AUTHORITY = /^([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::\d{0,5})?$/i

/** `hosts`: every Host header, as it came. */
export function readTarget(target: string, hosts: readonly string[]): Target | TargetRefusal {
  if (target.length > MAX_TARGET_LENGTH) return 'target-too-long'
  if (hosts.length > 1) return 'bad-host'
  const absolute = /^https?:\/\/([^/?#]*)(.*)$/is.exec(target)
  const authority = absolute === null ? hosts[0] : absolute[1]
  const host = readHost(authority)
  if (host === null) return 'bad-host'
  const origin = absolute === null ? target : withSlash(absolute[2]!)
  if (!origin.startsWith('/')) return 'bad-target'
  const mark = origin.indexOf('?')
  return mark < 0
    ? { host, path: origin, query: '' }
    : { host, path: origin.slice(0, mark), query: origin.slice(mark) }
}

function readHost(authority: string | undefined): string | null {
  if (authority === undefined || authority === '') return ''
  const host = AUTHORITY.exec(authority)?.[1]
  return host === undefined ? null : host.toLowerCase().replace(/\.$/, '')
}

/** `http://host?query` has an empty path, which is the root. */
function withSlash(rest: string): string {
  return rest.startsWith('/') ? rest : `/${rest}`
}
