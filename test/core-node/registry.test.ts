// The registry's rules, each as a sentence: who may change what, what a request becomes, what is refused.

import t from 'tap'
import { CheckBoard } from '../../core-node/measuring/checks.ts'
import { OrderBook } from '../../core-node/measuring/orders.ts'
import { Problem, type ProblemCode } from '../../core-node/problem.ts'
import { Books } from '../../core-node/registry/books.ts'
import type { Caller, Decision } from '../../core-node/registry/caller.ts'
import {
  CredentialIndex,
  checkTicket,
  hashSecret,
  matchesHash,
  newTokenSecret,
  signTicket,
} from '../../core-node/registry/credentials.ts'
import {
  type Enrolment,
  forgotten,
  proofChanges,
  putHost,
  removeHost,
} from '../../core-node/registry/hosts.ts'
import { putHostWithMembers } from '../../core-node/registry/joining.ts'
import { putMember, removeMember, setDrained } from '../../core-node/registry/members.ts'
import { heardChanges } from '../../core-node/registry/reports.ts'
import { putService, removeService, type ServiceRequest } from '../../core-node/registry/services.ts'
import { createToken, revokeToken } from '../../core-node/registry/tokens.ts'
import { emptyDirectory, type Host, MAX_WEIGHED, type Token } from '../../resolver/directory.ts'
import type { EchoOrder, HostRequest, MemberRequest } from '../../server-agent/protocol/messages.ts'
import { aMember, ofMember } from '../support/records.ts'

type Assertions = Pick<typeof t, 'equal' | 'match' | 'fail'>

const admin: Caller = { kind: 'admin' }
const anonymous: Caller = { kind: 'anonymous' }
const asHost = (host: string): Caller => ({ kind: 'host', host })
const asToken = (...services: string[]): Caller & { kind: 'token' } => ({
  kind: 'token',
  token: {
    id: `t-${services.join('-')}`,
    hash: '',
    scope: { admin: false, services },
    createdMs: 0,
    note: '',
  },
})

function by(overrides: Partial<Enrolment> = {}): Enrolment {
  return {
    epochMs: 1000,
    home: 'core1',
    fromAddress: '192.0.2.1',
    fromPort: 4000,
    credential: 'nch_fresh',
    credentialHash: hashSecret('nch_fresh'),
    echoKey: 'ab'.repeat(32),
    isUnclaimed: false,
    placeOf: () => null,
    ...overrides,
  }
}

/** Books in which decisions take effect, as in a core. */
class World {
  readonly directory = new Books(emptyDirectory())

  do<T>(decision: Decision<T>): T {
    this.directory.publish(decision.changes)
    return decision.result
  }
  service(name: string, request: ServiceRequest = {}): void {
    this.do(putService(this.directory, admin, name, request, ['any.test']))
  }
  token(...services: string[]): Caller & { kind: 'token' } {
    const caller = asToken(...services)
    this.directory.publish([{ kind: 'tokens', key: caller.token.id, value: caller.token }])
    return caller
  }
  revoke(caller: Caller & { kind: 'token' }): void {
    this.directory.publish([{ kind: 'tokens', key: caller.token.id, value: null }])
  }
  fallSilent(name: string, presenceSinceMs: number): void {
    const value: Host = { ...this.directory.hosts.get(name)!, presence: 'silent', presenceSinceMs }
    this.directory.publish([{ kind: 'hosts', key: name, value }])
  }
  host(caller: Caller, name: string, request: Partial<HostRequest> = {}, at = by()) {
    return this.do(putHost(this.directory, caller, name, { addresses: ['192.0.2.1'], ...request }, at))
  }
  member(caller: Caller, service: string, name: string, request: MemberRequest = {}) {
    return this.do(putMember(this.directory, caller, service, name, request, by()))
  }
}

function refuses(t: Assertions, run: () => unknown, code: ProblemCode, says: RegExp, field?: string): void {
  try {
    run()
    t.fail(`not refused, expected ${code} ${says}`)
  } catch (error) {
    if (!(error instanceof Problem)) throw error
    t.equal(error.code, code, error.message)
    t.match(error.message, says)
    if (field !== undefined) t.equal(error.field, field)
  }
}

t.test('a service gets the contract’s defaults, and putting it again changes nothing', (t) => {
  const books = new World()
  const { service, created } = books.do(putService(books.directory, admin, 'mirror', {}, ['any.test']))
  t.ok(created)
  t.match(service, { policy: 'nearest', ttlSec: 30, minAddrs: 1, maxAddrs: 2, verify: 'echo', join: 'token' })
  t.same(service.allDown, { mode: 'stale' })
  t.same(putService(books.directory, admin, 'mirror', {}, ['any.test']).changes, [])
  t.equal(putService(books.directory, admin, 'mirror', { ttl: 5 }, ['any.test']).changes.length, 1)
  t.end()
})

t.test('a service that makes no sense is refused with the field that was wrong', (t) => {
  const books = new World()
  books.service('web', { aliases: ['www', 'www.example.org'] })
  const put = (name: string, request: ServiceRequest) => () =>
    putService(books.directory, admin, name, request, ['any.test', 'cast.example.org'])
  const table: [() => unknown, ProblemCode, RegExp, string][] = [
    [put('Mirror', {}), 'bad-request', /one DNS label/, 'name'],
    [put('a.b', {}), 'bad-request', /one DNS label/, 'name'],
    [put('core', {}), 'forbidden', /built in/, 'name'],
    [put('m', { minAddrs: 5, maxAddrs: 3 }), 'bad-request', /5.*3/, 'minAddrs'],
    [put('m', { aliases: ['www'] }), 'conflict', /names the service 'web'/, 'aliases'],
    [put('m', { aliases: ['WWW.example.org.'] }), 'conflict', /www.example.org/, 'aliases'],
    [put('www', {}), 'conflict', /'www' already names/, 'name'],
    [put('m', { aliases: ['web.any.test'] }), 'conflict', /'web' already names/, 'aliases'],
    [put('m', { aliases: ['web.cast.example.org'] }), 'conflict', /'web' already names/, 'aliases'],
    [put('m', { aliases: ['any.test'] }), 'bad-request', /zone itself/, 'aliases'],
    [
      put('m', { aliases: ['x.y.any.test'] }),
      'bad-request',
      /more than one label below any\.test/,
      'aliases',
    ],
    [put('m', { aliases: ['a b'] }), 'bad-request', /not a host name/, 'aliases'],
    [put('m', { allDown: 'fallback' }), 'bad-request', /needs fallback/, 'allDown'],
    [put('m', { fallbackUrl: 'https://x.example/' }), 'bad-request', /go with allDown fallback/, 'allDown'],
    [
      put('m', { allDown: 'fallback', fallbackAddresses: ['1.2.3'] }),
      'bad-request',
      /not an IP/,
      'fallbackAddresses',
    ],
    [
      put('m', { allDown: 'fallback', fallbackUrl: 'https://u:p@x/' }),
      'bad-request',
      /user or password/,
      'fallbackUrl',
    ],
  ]
  for (const [run, code, says, field] of table) refuses(t, run, code, says, field)
  t.end()
})

t.test('a service whose answers weigh every member has a bound, others have none', (t) => {
  const books = new World()
  books.service('lot')
  const most = Array.from({ length: MAX_WEIGHED }, (_, i) =>
    ofMember(aMember(`m${i}`, { service: 'lot', host: 'h' })),
  )
  books.directory.publish(most)
  books.host(admin, 'h')
  const join = () => books.member(admin, 'lot', 'more', { host: 'h' })
  books.service('lot', { policy: 'weighted' })
  refuses(t, join, 'conflict', /10000 members, the most under the policy weighted/)
  books.service('lot', { policy: 'random' })
  // Another limit than this one: of members on one host.
  books.host(admin, 'other')
  books.member(admin, 'lot', 'more', { host: 'other' })
  refuses(t, () => books.service('lot', { policy: 'hash' }), 'conflict', /has 10001 members/, 'policy')
  t.end()
})

t.test('only an administrator changes services and tokens', (t) => {
  const books = new World()
  books.service('mirror')
  refuses(
    t,
    () => putService(books.directory, anonymous, 'm', {}, ['any.test']),
    'unauthorized',
    /admin token/,
  )
  refuses(
    t,
    () => putService(books.directory, asToken('mirror'), 'm', {}, ['any.test']),
    'forbidden',
    /admin token/,
  )
  refuses(t, () => removeService(books.directory, asHost('a'), 'mirror'), 'forbidden', /admin token/)
  const fresh = { id: '1', hash: 'x', epochMs: 0 }
  refuses(
    t,
    () => createToken(books.directory, asToken('mirror'), { admin: true }, fresh),
    'forbidden',
    /admin/,
  )
  refuses(
    t,
    () => createToken(books.directory, admin, {}, fresh),
    'bad-request',
    /name the services/,
    'services',
  )
  refuses(
    t,
    () => createToken(books.directory, admin, { services: ['no'] }, fresh),
    'not-found',
    /make it first/,
  )
  t.end()
})

t.test('the last admin token can not be revoked', (t) => {
  const books = new World()
  const make = (id: string): Token =>
    books.do(createToken(books.directory, admin, { admin: true }, { id, hash: id, epochMs: 0 }))
  make('1')
  refuses(t, () => revokeToken(books.directory, admin, '1'), 'conflict', /last admin token/)
  make('2')
  books.do(revokeToken(books.directory, admin, '1'))
  t.same(
    Array.from(books.directory.tokens.values(), ({ id }) => id),
    ['2'],
  )
  t.end()
})

t.test('a host joins by a token, gets its own credential once, and may say the same again', (t) => {
  const books = new World()
  books.service('mirror')
  const token = books.token('mirror')
  refuses(t, () => books.host(anonymous, 'a'), 'unauthorized', /join with a token/)
  const first = books.host(token, 'a')
  t.equal(first.credential, 'nch_fresh')
  t.match(first.host, {
    presence: 'live',
    home: 'core1',
    proofs: { '192.0.2.1': 'seen' },
    tokenId: token.token.id,
  })
  const again = putHost(
    books.directory,
    asHost('a'),
    'a',
    { addresses: ['192.0.2.1'] },
    by({ fromPort: 4001 }),
  )
  t.same(again.changes, [], 'a new connection alone is nothing to write')
  t.equal(again.result.credential, null)
  t.end()
})

t.test(
  'a live host’s name can not be taken; one whose lease ended can, by a token that could have given it',
  (t) => {
    const books = new World()
    books.service('mirror')
    books.service('other')
    const token = books.token('mirror')
    const foreign = books.token('other')
    books.host(token, 'a')
    books.member(asHost('a'), 'mirror', 'a')
    refuses(t, () => books.host(token, 'a'), 'conflict', /live host/, 'name')
    refuses(t, () => books.host(asHost('b'), 'a'), 'forbidden', /that of the host 'b'/)
    books.fallSilent('a', 0)
    refuses(t, () => books.host(foreign, 'a'), 'forbidden', /another token/)
    refuses(t, () => books.host(anonymous, 'a'), 'forbidden', /another token/)
    const second = books.host(
      token,
      'a',
      {},
      by({ credential: 'nch_2', credentialHash: 'h2', echoKey: 'cd'.repeat(32) }),
    )
    t.equal(second.credential, 'nch_2')
    t.match(second.host, { credentialHash: 'h2', echoKey: 'cd'.repeat(32), presence: 'live' })
    t.end()
  },
)

t.test('a join whose reply was lost may be repeated until its credential was shown', (t) => {
  const books = new World()
  books.service('mirror')
  const token = books.token('mirror')
  const foreign = books.token('other')
  books.host(token, 'a')
  const again = by({ credential: 'nch_2', credentialHash: 'h2', isUnclaimed: true })
  refuses(t, () => books.host(foreign, 'a', {}, again), 'conflict', /live host/)
  t.equal(books.host(token, 'a', {}, again).credential, 'nch_2')
  refuses(t, () => books.host(token, 'a'), 'conflict', /live host/)
  t.end()
})

t.test('an open join whose reply was lost may be repeated from where it came, and only there', (t) => {
  const books = new World()
  books.service('peers', { join: 'open' })
  books.host(anonymous, 'a')
  const again = by({ credential: 'nch_2', credentialHash: 'h2', isUnclaimed: true })
  const elsewhere = { ...again, fromAddress: '192.0.2.2' }
  refuses(t, () => books.host(anonymous, 'a', {}, elsewhere), 'conflict', /live host/)
  refuses(t, () => books.host(books.token('peers'), 'a', {}, again), 'conflict', /live host/)
  t.equal(books.host(anonymous, 'a', {}, again).credential, 'nch_2')
  refuses(t, () => books.host(anonymous, 'a'), 'conflict', /live host/)
  books.host(books.token('peers'), 'b')
  refuses(t, () => books.host(anonymous, 'b', {}, again), 'conflict', /live host/)
  t.end()
})

t.test('an echo at somebody else’s address is refused', (t) => {
  const books = new World()
  books.service('mirror')
  const echo = { address: '198.51.100.66', port: 53 }
  refuses(
    t,
    () => books.host(books.token('mirror'), 'a', { echo }),
    'bad-request',
    /none of the addresses/,
    'echo',
  )
  t.same(books.host(books.token('mirror'), 'a', { echo: { port: 53 } }).host.echo, {
    address: '192.0.2.1',
    port: 53,
  })
  t.end()
})

t.test('a host that said goodbye registers again before its members do', (t) => {
  const books = new World()
  books.service('mirror')
  books.host(books.token('mirror'), 'a')
  books.do(removeHost(books.directory, asHost('a'), 'a', 0))
  refuses(t, () => books.member(asHost('a'), 'mirror', 'a'), 'conflict', /register it again/, 'host')
  t.end()
})

t.test('what a host serves already outlives the token that it joined by', (t) => {
  const books = new World()
  books.service('mirror')
  books.service('game')
  const token = books.token('mirror', 'game')
  books.host(token, 'a')
  books.member(asHost('a'), 'mirror', 'a')
  books.revoke(token)
  t.equal(books.member(asHost('a'), 'mirror', 'a', { port: 81 }).port, 81)
  refuses(t, () => books.member(asHost('a'), 'game', 'a'), 'forbidden', /still valid/)
  t.end()
})

t.test('a tier that is no number is refused, for it would order members by nothing', (t) => {
  const books = new World()
  books.service('mirror')
  books.host(books.token('mirror'), 'a')
  const put = (tier: string) => () => books.member(asHost('a'), 'mirror', 'a', { attributes: { tier } })
  for (const tier of ['first', '-1', '1.5', ''])
    refuses(t, put(tier), 'bad-request', /whole number/, 'attributes')
  t.equal(put('2')().attributes.tier, '2')
  t.end()
})

t.test('one network can not fill the books with hosts that joined without a token', (t) => {
  const books = new World()
  books.service('overlay', { join: 'open' })
  for (let i = 0; i < 256; i++) books.host(anonymous, `h${i}`)
  refuses(t, () => books.host(anonymous, 'more'), 'too-many', /limit/)
  t.ok(books.host(anonymous, 'elsewhere', {}, by({ fromAddress: '198.51.100.1' })))
  t.end()
})

t.test('addresses that no client could reach are refused', (t) => {
  const books = new World()
  books.service('mirror')
  const token = books.token('mirror')
  for (const address of [
    '0.0.0.0',
    '224.0.0.1',
    '255.255.255.255',
    '169.254.169.254',
    'fe80::1',
    '::',
    'ff02::1',
    'localhost',
    '10.0.0.0/8',
  ]) {
    refuses(t, () => books.host(token, 'a', { addresses: [address] }), 'bad-request', /./, 'addresses')
  }
  t.same(books.host(token, 'a', { addresses: ['::ffff:192.0.2.1', '2001:DB8:0::1'] }).host.addresses, [
    '192.0.2.1',
    '2001:db8::1',
  ])
  t.end()
})

t.test('a member belongs to its host alone', (t) => {
  const books = new World()
  books.service('mirror')
  const token = books.token('mirror')
  books.host(token, 'a')
  books.host(token, 'b')
  t.match(books.member(asHost('a'), 'mirror', 'a', { port: 80 }), {
    host: 'a',
    port: 80,
    health: 'unknown',
    left: false,
  })
  refuses(t, () => books.member(asHost('b'), 'mirror', 'a'), 'conflict', /held by the live host 'a'/, 'name')
  refuses(
    t,
    () => books.member(asHost('b'), 'mirror', 'x', { host: 'a' }),
    'forbidden',
    /may not speak for/,
    'host',
  )
  refuses(t, () => books.member(anonymous, 'mirror', 'x'), 'unauthorized', /register the host/)
  refuses(t, () => books.member(asHost('a'), 'nosuch', 'a'), 'not-found', /make it first/)
  refuses(
    t,
    () => books.member(asHost('a'), 'mirror', 'a', { addresses: ['198.51.100.9'] }),
    'bad-request',
    /not an address of/,
  )
  refuses(t, () => removeMember(books.directory, asHost('b'), 'mirror', 'a'), 'forbidden', /admin token/)
  refuses(t, () => setDrained(books.directory, asHost('b'), 'mirror', 'a', true), 'forbidden', /admin token/)
  refuses(t, () => removeHost(books.directory, asHost('b'), 'a', 0), 'forbidden', /admin token/)
  t.end()
})

t.test('a token is for its services only', (t) => {
  const books = new World()
  books.service('mirror')
  books.service('game')
  const token = books.token('mirror')
  books.host(token, 'a')
  refuses(t, () => books.member(asHost('a'), 'game', 'a'), 'forbidden', /may not serve 'game'/)
  books.revoke(token)
  refuses(
    t,
    () => books.member(asHost('a'), 'mirror', 'a'),
    'forbidden',
    /no.* token that is still valid|without a token/,
  )
  t.end()
})

t.test('a host that joined by an admin token may serve any service', (t) => {
  const books = new World()
  books.service('mirror')
  const token: Token = { id: '1', hash: 'h', scope: { admin: true }, createdMs: 0, note: '' }
  books.directory.publish([{ kind: 'tokens', key: '1', value: token }])
  books.host({ kind: 'admin', token }, 'a')
  t.equal(books.member(asHost('a'), 'mirror', 'a').host, 'a')
  t.end()
})

t.test('a member’s URL is at its host’s own addresses or at a name that the service lists', (t) => {
  const books = new World()
  books.service('mirror', { urlHosts: ['cdn.example.org', '*.mirrors.example.net'] })
  const token = books.token('mirror')
  books.host(token, 'a', { addresses: ['192.0.2.1', '2001:db8::1'] })
  const put = (url: string) => () => books.member(asHost('a'), 'mirror', 'a', { url })
  for (const url of [
    'http://192.0.2.1:8080/pub/',
    'https://[2001:db8::1]/',
    'https://cdn.example.org/x',
    'https://fra.mirrors.example.net/',
  ]) {
    t.equal(put(url)().url, new URL(url).href)
  }
  for (const url of [
    'https://evil.example/',
    'http://192.0.2.2/',
    'https://mirrors.example.net/',
    'https://xmirrors.example.net/',
    'https://cdn.example.org.evil.example/',
  ]) {
    refuses(t, put(url), 'forbidden', /neither an address/, 'url')
  }
  refuses(t, put('https://user@192.0.2.1/'), 'bad-request', /user or password/, 'url')
  refuses(t, put('https://192.0.2.1/?q'), 'bad-request', /no query/, 'url')
  t.equal(put('https://192.0.2.1/')().port, 443, 'the port of a URL is known')
  t.end()
})

t.test('an administrator may register a server without agent, which nearby hosts check', (t) => {
  const books = new World()
  books.service('mirror')
  const put = (request: MemberRequest) => () => books.member(admin, 'mirror', 'old', request)
  refuses(t, put({ port: 80 }), 'bad-request', /needs its addresses/, 'addresses')
  refuses(t, put({ addresses: ['192.0.2.9'] }), 'bad-request', /needs a port, a url or a check/, 'port')
  refuses(t, put({ addresses: ['192.0.2.9'], check: 'exec:reboot' }), 'bad-request', /neither tcp/, 'check')
  const member = put({ addresses: ['192.0.2.9'], port: 80 })()
  t.match(member, { host: 'old.mirror', check: 'tcp://192.0.2.9:80', health: 'unknown' })
  t.match(books.directory.hosts.get('old.mirror'), {
    agent: false,
    presence: 'live',
    proofs: { '192.0.2.9': 'vouched' },
  })
  t.equal(put({ addresses: ['2001:db8::9'], port: 80 })().check, 'tcp://[2001:db8::9]:80')
  t.equal(put({ addresses: ['192.0.2.9'], url: 'https://old.example/' })().check, 'https://old.example/')
  books.do(removeMember(books.directory, admin, 'mirror', 'old'))
  t.same([...books.directory.hosts.values()], [], 'its host goes with it')
  t.end()
})

t.test('a goodbye takes all of a host’s members out, and coming back keeps what an operator drained', (t) => {
  const books = new World()
  books.service('mirror')
  books.service('game')
  const token = books.token('mirror', 'game')
  books.host(token, 'a')
  books.member(asHost('a'), 'mirror', 'a', { health: 'up' })
  books.member(asHost('a'), 'game', 'a')
  books.do(setDrained(books.directory, admin, 'mirror', 'a', true))
  books.do(removeHost(books.directory, asHost('a'), 'a', 5))
  t.equal(books.directory.hosts.get('a')?.presence, 'left')
  t.ok(books.directory.members.get('game/a')?.left)
  books.host(asHost('a'), 'a')
  const back = books.member(asHost('a'), 'mirror', 'a')
  t.match(back, { left: false, drained: true, health: 'unknown' })
  t.ok(books.directory.members.get('game/a')?.left, 'what did not register again stays out')
  t.end()
})

t.test('an open service takes anyone, but not more than so many from one network', (t) => {
  const books = new World()
  books.service('overlay', { join: 'open', maxPerPrefix: 2 })
  const from = (address: string) => by({ fromAddress: address })
  const join = (name: string, address: string) => {
    books.host(anonymous, name, { addresses: [address] }, from(address))
    return books.member(asHost(name), 'overlay', name)
  }
  join('a', '192.0.2.1')
  join('b', '192.0.2.2')
  refuses(t, () => join('c', '192.0.2.3'), 'conflict', /2 members from one network/)
  join('d', '198.51.100.1')
  books.do(removeHost(books.directory, asHost('a'), 'a', 0))
  t.equal(books.member(asHost('c'), 'overlay', 'c').name, 'c', 'a place is free again')
  t.end()
})

t.test('a network’s limit holds for every way in, by where a host has proved to be', (t) => {
  const books = new World()
  books.service('overlay', { join: 'open', maxPerPrefix: 2 })
  books.service('other', { join: 'open', maxPerPrefix: 2 })
  books.service('free', { join: 'open' })
  const token = books.token('mirror')
  const host = (name: string, from: string, addresses = [from], caller: Caller = anonymous) =>
    books.host(caller, name, { addresses, echo: { port: 7 } }, by({ fromAddress: from })).host
  const join = (name: string, service = 'overlay', member = name) =>
    books.member(asHost(name), service, member)
  const isIn = (name: string) => books.directory.members.has(`overlay/${name}`)
  host('a', '192.0.2.1')
  join('a')
  host('far', '203.0.113.1')
  join('far')
  join('far', 'free')

  // A second member of one host counts, and so does a host that a token admitted.
  join('a', 'overlay', 'a-again')
  refuses(t, () => join('a', 'overlay', 'a-third'), 'conflict', /2 members from one network, and 192.0.2.0/)
  host('by-token', '192.0.2.9', ['192.0.2.9'], token)
  refuses(t, () => join('by-token'), 'conflict', /192.0.2.0/)

  // Where one says it is frees nobody from where he is, and keeps nobody else out.
  host('claims', '192.0.2.2', ['198.51.100.1'])
  refuses(t, () => join('claims'), 'conflict', /192.0.2.0/)
  for (const name of ['x', 'y']) {
    host(name, `203.0.113.${name === 'x' ? 7 : 8}`, [`203.0.113.${name === 'x' ? 7 : 8}`, '100.64.0.1'])
    join(name, 'other')
  }
  host('honest', '100.64.0.9')
  t.equal(join('honest', 'other').name, 'honest', 'two claimed its network, and were not there')
  host('late', '198.51.100.3', ['198.51.100.3', '192.0.2.200'])
  refuses(t, () => join('late'), 'conflict', /192.0.2.0/)

  // Moving in, and proving an address afterwards.
  host('far', '192.0.2.77', ['192.0.2.77'], asHost('far'))
  t.notOk(isIn('far'), 'moved to where no room is')
  t.ok(books.directory.members.has('free/far'), 'what is not limited stays')
  const there = host('b', '198.51.100.4')
  join('b')
  const claimed = { ...there, addresses: ['198.51.100.4', '192.0.2.4'] }
  books.directory.publish([{ kind: 'hosts', key: 'b', value: claimed }])
  books.directory.publish(proofChanges(books.directory, claimed, ['192.0.2.4']))
  t.notOk(isIn('b'), 'proven where no room is')

  host('two', '100.65.0.1')
  join('two', 'other', 'two-a')
  join('two', 'other', 'two-b')
  host('first', '100.65.1.1')
  join('first', 'other')
  host('two', '100.65.1.2', ['100.65.1.2'], asHost('two'))
  t.same(
    ['two-a', 'two-b'].filter((name) => books.directory.members.has(`other/${name}`)),
    ['two-a'],
    'as many as there is room for',
  )

  // IPv6 by /48; and one that stays keeps its place, whatever it says again.
  for (const [name, address] of [
    ['s1', '2001:db8:1:1::1'],
    ['s2', '2001:db8:1:2::1'],
    ['s3', '2001:db8:2::1'],
  ] as const) {
    host(name, address)
    join(name, 'other')
  }
  host('s4', '2001:db8:1:3::1')
  refuses(t, () => join('s4', 'other'), 'conflict', /2001:db8:1::\/48/)
  host('a', '192.0.2.99', ['192.0.2.99'], asHost('a'))
  t.ok(isIn('a') && isIn('a-again'), 'moved within its network')
  t.equal(join('a').name, 'a')
  t.end()
})

t.test('heartbeats change a host’s own members only', (t) => {
  const books = new World()
  books.service('mirror')
  const token = books.token('mirror')
  books.host(token, 'a')
  books.host(token, 'b')
  books.member(asHost('a'), 'mirror', 'a')
  const beat = (host: string) => ({
    host,
    credential: '',
    members: [{ service: 'mirror', name: 'a', health: 'down' as const }],
  })
  t.same(heardChanges(books.directory, 'b', beat('b'), 9), [])
  const changes = heardChanges(books.directory, 'a', beat('a'), 9)
  t.match(changes, [{ kind: 'members', key: 'mirror/a', value: { health: 'down' } }])
  books.directory.publish(changes)
  t.same(heardChanges(books.directory, 'a', beat('a'), 9), [], 'said again, it is nothing new')
  t.end()
})

t.test('only addresses of the host as it is now are proven', (t) => {
  const books = new World()
  books.service('mirror')
  const tried = books.host(books.token('mirror'), 'a', { echo: { port: 7 } }).host
  const proof = proofChanges(books.directory, tried, ['192.0.2.1', '198.51.100.66'])
  t.match(proof, [{ value: { proofs: { '192.0.2.1': 'echo' }, reachable: true } }])
  t.notOk('198.51.100.66' in (proof[0]!.value as { proofs: object }).proofs)
  t.match(proofChanges(books.directory, tried, []), [{ value: { reachable: false } }])
  t.same(
    proofChanges(books.directory, { ...tried, echo: null }, ['192.0.2.1']),
    [],
    'an answer to an older echo says nothing',
  )
  t.end()
})

t.test(
  'names that left are forgotten after a week, silent open joins after an hour, live ones never',
  (t) => {
    const books = new World()
    books.service('overlay', { join: 'open' })
    books.service('mirror')
    books.host(books.token('mirror'), 'kept')
    books.host(anonymous, 'open')
    books.host(books.token('mirror'), 'live')
    books.member(asHost('open'), 'overlay', 'open')
    books.do(removeHost(books.directory, asHost('kept'), 'kept', 0))
    books.fallSilent('open', 0)
    const after = (hours: number) => forgotten(books.directory, hours * 3600_000).map((change) => change.key)
    t.same(after(0.9), [])
    t.same(after(1), ['overlay/open', 'open'])
    t.same(after(7 * 24).sort(), ['kept', 'open', 'overlay/open'])
    t.end()
  },
)

t.test(
  'who joined openly is forgotten with its goodbye; who joined by a token is remembered, drained or not',
  (t) => {
    const books = new World()
    books.service('overlay', { join: 'open' })
    books.host(anonymous, 'open')
    books.host(books.token('overlay'), 'known')
    for (const name of ['open', 'known']) books.member(asHost(name), 'overlay', name)
    for (const name of ['open', 'known']) books.do(removeHost(books.directory, asHost(name), name, 5))
    t.notOk(books.directory.hosts.has('open') || books.directory.members.has('overlay/open'))
    t.match(books.directory.hosts.get('known'), { presence: 'left', presenceSinceMs: 5 })
    t.match(books.directory.members.get('overlay/known'), { left: true })
    t.same(removeHost(books.directory, admin, 'known', 9).changes, [], 'said again, it is nothing new')
    t.end()
  },
)

t.test('of goodbyes the latest ten thousand are remembered, and those of drained members', (t) => {
  const books = new World()
  books.service('mirror')
  const token = books.token('mirror')
  for (let i = 0; i < 10_010; i++) {
    const name = `h${i}`
    books.host(token, name)
    if (i === 1) {
      books.member(asHost(name), 'mirror', name)
      books.do(setDrained(books.directory, admin, 'mirror', name, true))
    }
    books.do(removeHost(books.directory, asHost(name), name, i))
  }
  t.equal(books.directory.index.left.size, 10_000)
  t.same(
    ['h0', 'h1', 'h10', 'h11', 'h12', 'h10009'].map((name) => books.directory.hosts.has(name)),
    [false, true, false, true, true, true],
  )
  t.end()
})

t.test(
  'a host joins with its members by one message: all of it or nothing, and again it is nothing new',
  (t) => {
    const books = new World()
    for (const name of ['a', 'b', 'c']) books.service(name)
    const token = books.token('a', 'b')
    const addresses = ['192.0.2.1']
    const join = (services: string[], more: object = {}) =>
      putHostWithMembers(
        books.directory,
        token,
        'h',
        { addresses, members: services.map((service) => ({ service, port: 80, ...more })) },
        by(),
      )
    refuses(t, () => join(['a', 'c']), 'forbidden', /may not serve 'c'/, 'members.1')
    refuses(t, () => join(['a', 'b'], { url: 'http://x.example/' }), 'forbidden', /urlHosts/, 'members.0.url')
    refuses(t, () => join(['a', 'none']), 'not-found', /no service 'none'/, 'members.1')
    t.same([...books.directory.hosts.values()], [], 'nothing of a refused one is in the books')
    const { host, credential, members } = books.do(join(['a', 'b']))
    t.match(host, { presence: 'live', tokenId: token.token.id })
    t.equal(credential, 'nch_fresh')
    t.match(members, [{ service: 'a', name: 'h', host: 'h', port: 80 }, { service: 'b' }])
    const again = putHostWithMembers(
      books.directory,
      asHost('h'),
      'h',
      { addresses, members: [{ service: 'b', port: 80 }] },
      by(),
    )
    t.same(again.changes, [])
    t.ok(books.directory.members.has('a/h'), 'who is not named stays')
    t.end()
  },
)

t.test('an administrator may join a host with its members, too', (t) => {
  const books = new World()
  books.service('a')
  const members = [{ service: 'a', name: 'other', url: 'https://x.example/' }]
  const { result } = putHostWithMembers(
    books.directory,
    admin,
    'h',
    { addresses: ['192.0.2.1'], members },
    by(),
  )
  t.match(result.members, [{ name: 'other', host: 'h', url: 'https://x.example/' }])
  t.end()
})

t.test('one host is in a hundred services, leaves them one by one or all at once', (t) => {
  const books = new World()
  const services = Array.from({ length: 100 }, (_, i) => `s${i}`)
  for (const name of services) books.service(name)
  const token = books.token(...services)
  const request = { addresses: ['192.0.2.1'], members: services.map((service) => ({ service })) }
  books.do(putHostWithMembers(books.directory, token, 'h', request, by()))
  t.equal(books.directory.index.memberCount('h'), 100)
  books.do(removeMember(books.directory, asHost('h'), 's7', 'h'))
  t.match(books.directory.members.get('s7/h'), { left: true })
  t.match(books.directory.members.get('s8/h'), { left: false })
  const { changes } = removeHost(books.directory, asHost('h'), 'h', 5)
  t.equal(changes.length, 99 + 1, 'each other member, and the host')
  t.end()
})

t.test('a secret is found by its hash, forgotten with its record, and never kept', (t) => {
  const books = new World()
  const secret = newTokenSecret()
  const token: Token = { id: '1', hash: hashSecret(secret), scope: { admin: true }, createdMs: 0, note: '' }
  const index = new CredentialIndex(emptyDirectory())
  refuses(t, () => index.find(secret), 'unauthorized', /nobody here/)
  index.apply(books.directory.publish([{ kind: 'tokens', key: '1', value: token }]))
  t.same(index.find(secret), { kind: 'admin', token })
  t.same(index.find(null), anonymous)
  t.ok(matchesHash(secret, token.hash))
  t.notOk(matchesHash(`${secret}x`, token.hash))
  index.apply(books.directory.publish([{ kind: 'tokens', key: '1', value: null }]))
  refuses(t, () => index.find(secret), 'unauthorized', /nobody here/)
  t.end()
})

t.test('a ticket is good for its prefix and for ten minutes', (t) => {
  const key = Buffer.alloc(32, 7)
  const ticket = signTicket(key, '192.0.2.0/24', 1_000_000)
  checkTicket(key, ticket, '192.0.2.0/24', 1_500_000)
  refuses(t, () => checkTicket(key, ticket, '198.51.100.0/24', 1_000_000), 'forbidden', /not given/, 'ticket')
  refuses(t, () => checkTicket(key, ticket, '192.0.2.0/24', 1_700_000), 'forbidden', /too old/, 'ticket')
  refuses(
    t,
    () => checkTicket(Buffer.alloc(32, 8), ticket, '192.0.2.0/24', 1_000_000),
    'forbidden',
    /not given/,
  )
  for (const forged of ['', '.', 'zzzzzz.', `zzzzzzz.${ticket.split('.')[1]}`, 'a.b.c']) {
    refuses(t, () => checkTicket(key, forged, '192.0.2.0/24', 1_000_000), 'forbidden', /./, 'ticket')
  }
  t.end()
})

t.test('an order is delivered once and answered once, by its own host, in time', (t) => {
  const book = new OrderBook()
  const order = (id: string): EchoOrder => ({
    kind: 'echo',
    id,
    urgent: false,
    host: 'b',
    address: '192.0.2.2',
    port: 1,
    prober: '',
    key: '',
    count: 1,
  })
  const purpose = { kind: 'mesh', to: 'b' } as const
  book.give('a', order('1'), purpose, 0)
  t.same(book.take('b'), [])
  t.same(
    book.take('a').map((taken) => taken.id),
    ['1'],
  )
  t.same(book.take('a'), [])
  t.equal(book.claim('b', '1', 10), null, 'a stranger’s answer')
  t.same(book.claim('a', '1', 10), purpose)
  t.equal(book.claim('a', '1', 10), null, 'the second answer')
  book.give('a', order('2'), purpose, 0)
  t.equal(book.claim('a', '2', 60_000), null, 'too late')
  book.give('a', order('3'), purpose, 0)
  book.expire(60_000)
  t.same(book.take('a'), [], 'nor delivered when nobody waits for it')
  t.equal(book.size, 0)
  for (let i = 0; i < 200; i++) book.give('a', order(`many${i}`), purpose, 0)
  t.equal(book.take('a').length, 64, 'a host that fetches nothing fills no memory')
  t.equal(book.size, 64)
  t.end()
})

t.test('a member without agent is down when most of its checkers say so twice in a row', (t) => {
  const board = new CheckBoard()
  for (const checker of ['a', 'b', 'c']) t.equal(board.report('m', checker, true, 0), 'up')
  t.equal(board.report('m', 'a', false, 1), 'up')
  t.equal(board.report('m', 'a', false, 2), 'up', 'one vantage point alone does not decide')
  t.equal(board.report('m', 'b', false, 3), 'up', 'nor one lost connection of a second')
  t.equal(board.report('m', 'b', false, 4), 'down')
  t.equal(board.report('m', 'b', true, 5), 'down')
  t.equal(board.report('m', 'b', true, 6), 'up')
  t.equal(board.report('m', 'c', false, 60_000), 'up', 'who was not heard for long has no say')
  t.end()
})
