// The redirect as a function: which requests want one, where it leads, and that no request leads astray.

import t from 'tap'
import { parseAddress } from '../../resolver/address.ts'
import type { AllDown, Change, Health } from '../../resolver/directory.ts'
import { joinUrl, type RedirectReply, redirect, redirectTarget } from '../../resolver/redirect.ts'
import { Tables } from '../../resolver/tables.ts'
import { host, member, service } from '../support/records.ts'

const ZONE = 'any.test'

/** A member on a host of its own; the order of names is the order of preference at equal distance. */
function hosted(
  of: string,
  name: string,
  url: string | null,
  addresses: string[],
  health: Health = 'up',
): Change[] {
  const on = `${name}.${of}`
  return [
    host(on, addresses, { agent: false, proofs: {}, reachable: null }),
    member(of, name, { host: on, url, attributes: { tier: String(name.charCodeAt(0)) }, health }),
  ]
}

function tablesOf(...changes: Change[]): Tables {
  const tables = new Tables()
  tables.apply(changes)
  return tables
}

function ask(
  tables: Tables,
  path: string,
  more: { host?: string; method?: string; from?: string } = {},
): RedirectReply {
  const [bare, query] = path.split('?', 2)
  const target = redirectTarget(tables, [ZONE], more.host ?? '127.0.0.1', bare!)
  if (target === null) throw new Error(`${path} wants no redirect`)
  const client = parseAddress(more.from ?? '198.51.100.7')!
  const asked = {
    ...target,
    method: more.method ?? 'GET',
    query: query === undefined ? '' : `?${query}`,
    client,
  }
  return redirect(tables, asked, () => 0.5)
}

t.test('a URL keeps the member’s origin and base path, and gets path and query', async (t) => {
  const joined: [base: string, rest: string, query: string, result: string | null][] = [
    ['https://m.example', '', '', 'https://m.example/'],
    ['https://m.example/base', '', '', 'https://m.example/base'],
    ['https://m.example/base/', '', '?q', 'https://m.example/base/?q'],
    ['https://m.example/base', 'a/b.iso', '', 'https://m.example/base/a/b.iso'],
    ['https://m.example/base/', 'a/b.iso', '?x=1&y=%20', 'https://m.example/base/a/b.iso?x=1&y=%20'],
    ['https://m.example:8443/', 'a', '', 'https://m.example:8443/a'],
    ['http://[2001:db8::1]:81/v', 'a', '', 'http://[2001:db8::1]:81/v/a'],
    ['https://m.example/base', 'a/../b', '', 'https://m.example/base/b'],
    ['https://m.example/base', '../b', '', null],
    ['https://m.example/base', '%2e%2E/b', '', null],
    ['https://m.example/base', '/evil.example/x', '', 'https://m.example/base/evil.example/x'],
    ['https://m.example/', '//evil.example/x', '', 'https://m.example/evil.example/x'],
    ['https://m.example', '@evil.example/', '', 'https://m.example/@evil.example/'],
    ['https://m.example', ':80@evil.example', '', 'https://m.example/:80@evil.example'],
    ['https://m.example', 'https://evil.example/', '', 'https://m.example/https://evil.example/'],
    ['https://m.example', 'a#b?c', '?d#e', 'https://m.example/a%23b%3Fc?d%23e'],
    ['https://m.example', 'a%2Fb%25', '', 'https://m.example/a%2Fb%25'],
    ['no url', 'a', '', null],
  ]
  for (const [base, rest, query, result] of joined)
    t.equal(joinUrl(base, rest, query), result, `${base} + ${rest}${query}`)
})

t.test('a request wants a redirect by its path, by the service’s host name or by an alias', async (t) => {
  const tables = tablesOf(service('mirror', { aliases: ['dl', 'get.example.org'] }), service('core'))
  const targets: [host: string, path: string, target: [string, string] | null][] = [
    ['127.0.0.1', '/r/mirror/a/b', ['mirror', 'a/b']],
    ['127.0.0.1', '/r/Mirror', ['mirror', '']],
    ['127.0.0.1', '/r/mirror/', ['mirror', '']],
    ['127.0.0.1', '/r/nothing/a', ['nothing', 'a']],
    ['127.0.0.1', '/r', ['', '']],
    ['127.0.0.1', '/rest', null],
    ['127.0.0.1', '/v1/services', null],
    ['mirror.any.test', '/', ['mirror', '']],
    ['mirror.any.test', '/v1/services', ['mirror', 'v1/services']],
    ['mirror.any.test', '/r/other/a', ['mirror', 'r/other/a']],
    ['dl.any.test', '/a', ['dl', 'a']],
    ['mirror.cast.example.net', '/a', ['mirror', 'a']],
    ['get.example.org', '/a', ['get.example.org', 'a']],
    ['core.any.test', '/v1/services', null],
    ['a.mirror.any.test', '/x', null],
    ['mirror', '/x', null],
    ['any.test', '/x', null],
    ['mirror.any.test.evil.example', '/x', null],
  ]
  for (const [host, path, target] of targets) {
    const found = redirectTarget(tables, [ZONE, 'cast.example.net'], host, path)
    t.same(found && [found.service, found.rest], target, `${host} ${path}`)
  }
})

t.test('the best member is named with the next three beside it, in order', async (t) => {
  const members = ['a', 'b', 'c', 'd', 'e'].flatMap((name, i) =>
    hosted('mirror', name, `https://${name}.example.org/m/`, [`192.0.2.${i + 1}`]),
  )
  const tables = tablesOf(
    service('mirror', { policy: 'failover' }),
    ...members,
    ...hosted('mirror', '0', null, ['192.0.2.9']),
  )
  const reply = ask(tables, '/r/mirror/f.iso?v=1')
  t.equal(reply.status, 302)
  t.same(reply.headers, {
    Location: 'https://a.example.org/m/f.iso?v=1',
    'Cache-Control': 'no-store',
    'X-Nearcast-Basis': 'none',
    'X-Nearcast-Member': 'a',
    Link: ['b', 'c', 'd']
      .map((name, i) => `<https://${name}.example.org/m/f.iso?v=1>; rel=duplicate; pri=${i + 1}`)
      .join(', '),
  })
  t.same(reply.looked, { service: 'mirror', basis: 'none', allDown: null })
  t.same(ask(tables, '/r/mirror/f.iso?v=1', { method: 'HEAD' }).headers, reply.headers, 'HEAD says the same')
})

t.test('members that the client’s address family reaches go first', async (t) => {
  const tables = tablesOf(
    service('mirror', { policy: 'failover' }),
    ...hosted('mirror', 'a', 'https://a.example.org/', ['192.0.2.1']),
    ...hosted('mirror', 'b', 'https://b.example.org/', ['192.0.2.2', '2001:db8::2']),
    ...hosted('mirror', 'c', 'https://192.0.2.3/', ['192.0.2.3', '2001:db8::3']),
    ...hosted('mirror', 'd', 'https://[2001:db8::4]/', ['192.0.2.4', '2001:db8::4']),
  )
  const order = (from: string) => {
    const { Location, Link } = ask(tables, '/r/mirror/', { from }).headers
    return [...`<${Location}>, ${Link}`.matchAll(/<(.*?)>/g)].map(([, url]) => new URL(url!).hostname)
  }
  t.same(order('198.51.100.7'), ['a.example.org', 'b.example.org', '192.0.2.3', '[2001:db8::4]'])
  t.same(order('2001:db8:9::7'), ['b.example.org', '[2001:db8::4]', 'a.example.org', '192.0.2.3'])
})

t.test('when no member is live the service’s allDown decides', async (t) => {
  const down = (allDown: AllDown) =>
    tablesOf(
      service('mirror', { allDown }),
      ...hosted('mirror', 'a', 'https://a.example.org/', ['192.0.2.1'], 'down'),
    )
  const stale = ask(down({ mode: 'stale' }), '/r/mirror/x')
  t.equal(stale.headers.Location, 'https://a.example.org/x')
  t.equal(stale.looked?.allDown, 'stale')
  const fallback = ask(
    down({ mode: 'fallback', addresses: [], url: 'https://f.example.org/b/' }),
    '/r/mirror/x?y',
  )
  t.equal(fallback.headers.Location, 'https://f.example.org/b/x?y')
  t.notOk(fallback.headers['X-Nearcast-Member'])
  for (const mode of [
    { mode: 'empty' },
    { mode: 'fallback', addresses: ['192.0.2.9'], url: null },
  ] as const) {
    const reply = ask(down(mode), '/r/mirror/x')
    t.equal(reply.status, 503)
    t.match(reply.headers['Retry-After'], /^\d+$/)
    t.equal(reply.looked?.allDown, mode.mode)
  }
})

t.test('what can’t be redirected is refused by its reason', async (t) => {
  const tables = tablesOf(
    service('mirror'),
    ...hosted('mirror', 'a', 'https://a.example.org/base/', ['192.0.2.1']),
    service('plain'),
    ...hosted('plain', 'a', null, ['192.0.2.2']),
  )
  t.equal(ask(tables, '/r/nothing/x').status, 404)
  t.equal(ask(tables, '/r/plain/x').status, 503, 'no member has a URL')
  const post = ask(tables, '/r/mirror/x', { method: 'POST' })
  t.equal(post.status, 405)
  t.equal(post.headers.Allow, 'GET, HEAD')
  const astray = [
    '../x',
    'a/../../x',
    '%2e%2e/x',
    '.%2E/x',
    '..%2fx',
    '..%5cx',
    'a%2f..%2f..%2fx',
    '%2e%2e%2f%2e%2e%2f',
    '..\\x',
    '\\evil.example',
    '/\\evil.example',
    'a%0d%0aSet-Cookie:x',
    'a%0Ab',
    'a\r\nb',
    'a\tb',
    'a\0b',
    'a\x7fb',
    'a b',
    'caf\xe9',
    'a\u0100b',
    'a?x=%0d%0aLocation:',
    'a?x=\n',
  ]
  for (const rest of astray) {
    const reply = ask(tables, `/r/mirror/${rest}`)
    t.equal(reply.status, 400, JSON.stringify(rest))
    t.notOk(reply.headers.Location)
  }
})

t.test('no mutation of a path leads off the member’s base', async (t) => {
  const tables = tablesOf(
    service('mirror'),
    ...hosted('mirror', 'a', 'https://a.example.org/base/', ['192.0.2.1']),
  )
  const pieces = [
    '..',
    '.',
    '/',
    '//',
    '\\',
    '%2e',
    '%2f',
    '%5c',
    '%',
    '@',
    ':',
    '#',
    '?',
    ';',
    'a',
    'https:',
    'evil.example',
    '%00',
    '\xff',
    ' ',
  ]
  let state = 7
  const next = (below: number) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    return (state >>> 8) % below
  }
  let redirected = 0
  for (let i = 0; i < 20_000; i++) {
    const rest = Array.from({ length: 1 + next(8) }, () => pieces[next(pieces.length)]).join('')
    const reply = redirect(
      tables,
      { service: 'mirror', rest, query: '', method: 'GET', client: parseAddress('192.0.2.200')! },
      () => 0.5,
    )
    if (reply.status === 400) continue
    redirected++
    const { origin, pathname } = new URL(reply.headers.Location!)
    // As a careless member would read it: once more decoded, then walked.
    const walked = new URL(pathname.replace(/%2e/gi, '.').replace(/%2f/gi, '/').replace(/%5c/gi, '/'), origin)
      .pathname
    if (origin === 'https://a.example.org' && pathname.startsWith('/base/') && walked.startsWith('/base/'))
      continue
    t.fail(`${JSON.stringify(rest)} leads to ${reply.headers.Location}`)
  }
  t.ok(redirected > 2_000, `${redirected} were redirected, inside the base`)
})
