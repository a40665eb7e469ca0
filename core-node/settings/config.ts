// The settings of a core: flags, NEARCAST_* variables and a YAML file set the same keys; flags win,
// then the environment. A wrong key or value stops the start and names the key, what it was and what
// is expected; all mistakes are told at once. The result is frozen; nothing else reads the environment.
//
// SETTINGS says all there is of each key: flags, --help, the documentation and the errors come from it.

import { accessSync, constants, statSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { formatHostPort, isLoopbackHost, isWildcard, type Prefix } from '../../resolver/address.ts'
import { RATE_LIMITS } from '../../resolver/dns-limit.ts'
import {
  ENV_PREFIX,
  type Flags,
  type Given,
  kebabCase,
  type Mistake,
  readEnvironment,
  readFile,
  readFlags,
} from './config-sources.ts'
import {
  type HostPort,
  oneOf,
  parseHostPort,
  parseKeyPrefix,
  parseLabel,
  parseRange,
  parseReachable,
  parseShare,
  parseShown,
  parseStore,
  parseSwitch,
  parseText,
  parseUrl,
  parseUser,
  parseZone,
  storeEndpoints,
  wholeNumber,
} from './config-values.ts'

export interface Config {
  /** This core's name: one DNS label, its member name in the service `core`. */
  readonly name: string
  /** Lower case, without final dot; at least one, none within another. */
  readonly zone: readonly string[]
  readonly dns: readonly HostPort[]
  /** What NSID and id.server say, and version.bind; `none`: nothing. */
  readonly dnsId: string
  readonly dnsVersion: string
  /** Response rate limiting over UDP, by the names of BIND's `rate-limit`; a second's credits, 0: no limit. */
  readonly rrlResponsesPerSecond: number
  readonly rrlNodataPerSecond: number
  readonly rrlNxdomainsPerSecond: number
  readonly rrlErrorsPerSecond: number
  /** Ours: answers of more than three times the query. */
  readonly rrlAmplifiedPerSecond: number
  readonly rrlAllPerSecond: number
  readonly rrlWindow: number
  readonly rrlSlip: number
  readonly rrlIpv4PrefixLength: number
  readonly rrlIpv6PrefixLength: number
  /** Beside `resolvers`. */
  readonly rrlExemptClients: readonly Prefix[]
  readonly rrlLogOnly: boolean
  readonly rrlMaxTableSize: number
  /** Where sampled queries are logged: a path, or `-`: standard output; null: nowhere. */
  readonly queryLog: string | null
  /** The share of packets that are, above 0 to 1. */
  readonly queryLogSample: number
  /** Addresses there are told as they are, or cut to their networks. */
  readonly queryLogAddresses: 'cut' | 'whole'
  /** Threads that answer DNS over UDP; 0: the core's own does. */
  readonly dnsWorkers: number
  readonly http: readonly HostPort[]
  /** What the service `core` says of this core, for agents and clients; null: made of `advertise` and the port of `http`. */
  readonly httpUrl: string | null
  /** Addresses that NS glue and the service `core` name, at least one. */
  readonly advertise: readonly string[]
  /** USER or USER:GROUP that a core started as root becomes once its ports are open; null: it stays who it is. */
  readonly user: string | null
  readonly data: string
  /** `sqlite`, or `etcd://HOST:PORT,...`: several cores share it. */
  readonly store: string
  /** Of an etcd store: the authority and this core's own certificate for TLS; without an authority: plain. */
  readonly storeCa: string | null
  readonly storeCert: string | null
  readonly storeKey: string | null
  readonly storeUser: string | null
  readonly storePasswordFile: string | null
  /** All its keys begin so. */
  readonly storePrefix: string
  /** It answers from what others keep: holds no leases, writes nothing. */
  readonly follow: boolean
  readonly tlsCert: string | null
  readonly tlsKey: string | null
  /** Where the core's own echo listens; port 0: any. */
  readonly echo: HostPort
  /** `geoip-lite`, `none`, or the path of an MMDB file. */
  readonly geo: string
  /** Proxies whose X-Forwarded-For counts. */
  readonly trustedProxies: readonly Prefix[]
  /** Who may look inside without a token (explain, _why, client=, metrics), beside loopback. */
  readonly operatorFrom: readonly Prefix[]
  /** Recursive resolvers whose UDP queries count as demand, beside sources proven by TCP or HTTP. */
  readonly resolvers: readonly Prefix[]
  /** Client probing on or off, and who is never probed. */
  readonly probeClients: boolean
  readonly probeOptOut: readonly Prefix[]
  /** Special and private ranges that may be probed all the same; loopback where the core is loopback-only. */
  readonly probePrivate: readonly Prefix[]
  /** Ports that client probes try: DNS, then TCP. */
  readonly probeDnsPort: number
  readonly probeTcpPort: number
  /** Client probes a minute, in total and by one host. */
  readonly probesPerMinute: number
  readonly probesPerHostPerMinute: number
  /** API requests a minute from one address. */
  readonly requestsPerMinute: number
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error' | 'silent'
}

interface Setting<T> {
  /** What stands for the value in --help. */
  readonly takes: string
  /** Completes "expected ...". */
  readonly expected: string
  readonly help: string
  /** As an operator would write it; null: `otherwise` says what it is then. */
  readonly default: string | null
  readonly otherwise?: string
  readonly list: boolean
  /** undefined: not as expected. */
  readonly parse: (texts: readonly string[]) => T | undefined
}

/** A setting that takes one value ... */
function one<T>(parse: (text: string) => T | undefined): Pick<Setting<T>, 'list' | 'parse'> {
  return { list: false, parse: ([text]) => parse(text!) }
}

/** ... and one that takes any number of them, at least `least`. */
function list<T>(
  parse: (text: string) => T | undefined,
  least = 0,
): Pick<Setting<readonly T[]>, 'list' | 'parse'> {
  return {
    list: true,
    parse: (texts) => {
      const values = texts.map(parse).filter((value) => value !== undefined)
      return values.length === texts.length && values.length >= least ? Object.freeze(values) : undefined
    },
  }
}

const LISTEN = 'HOST:PORT with an IP address, such as 127.0.0.1:5300 or [::1]:5300 (several: by commas)'
const RANGES =
  'prefixes or addresses by commas, such as 192.0.2.0/24,2001:db8::/32, with no bits after the prefix'
const SHOWN = 'text of at most 64 printable ASCII characters, or none'
const port = { takes: 'PORT', expected: 'a port, 1 to 65535', ...one(wholeNumber(1, 65535)) }
const rate = { takes: 'N', expected: 'a whole number, 0 to 1000000', ...one(wholeNumber(0, 1_000_000)) }
const pem = { takes: 'FILE', expected: 'a PEM file that can be read', ...one(parseText) }
const ranges = { takes: 'CIDR,...', expected: RANGES, default: '', ...list(parseRange) }

const SETTINGS: { readonly [K in keyof Config]: Setting<Config[K]> } = {
  name: {
    takes: 'NAME',
    expected: 'one DNS label: a-z, 0-9 and inner hyphens, at most 63',
    help: 'Name of this core: its member name in the service core',
    // Several of one name would take each other for themselves.
    default: null,
    otherwise: 'core1; with an etcd store each core is given its own',
    ...one(parseLabel),
  },
  zone: {
    takes: 'ZONE,...',
    expected:
      'a domain name such as cast.example.com, at most 125 characters (punycode where not ASCII; several: by commas)',
    help: 'Zones that it answers for, all with the same names in them; delegate them to the cores by NS records',
    // .test is reserved (RFC 6761): it can collide with nobody's names.
    default: 'any.test',
    ...list(parseZone, 1),
  },
  dns: {
    takes: 'HOST:PORT,...',
    expected: LISTEN,
    help: 'Where DNS listens, UDP and TCP',
    // Loopback, and a port that needs no root: the first start can do no harm.
    default: '127.0.0.1:5300',
    ...list(parseHostPort, 1),
  },
  dnsId: {
    takes: 'TEXT',
    expected: SHOWN,
    help: 'What DNS tells about which core answers (NSID, id.server); none: nothing',
    default: null,
    otherwise: 'its name',
    ...one(parseShown),
  },
  // Version numbers help attackers more than anybody else.
  dnsVersion: {
    takes: 'TEXT',
    expected: SHOWN,
    help: 'What DNS tells about what runs there (version.bind); none: nothing',
    default: 'none',
    ...one(parseShown),
  },
  rrlResponsesPerSecond: {
    ...rate,
    // A large resolver asks for thousands of clients.
    help: 'Limit of responses: records for one name and type a second to one prefix, over UDP; 0: none',
    default: `${RATE_LIMITS.responsesPerSecond}`,
  },
  rrlNodataPerSecond: {
    ...rate,
    help: 'The same for names without records of the type asked for',
    default: null,
    otherwise: 'as rrl-responses-per-second',
  },
  rrlNxdomainsPerSecond: {
    ...rate,
    help: 'The same for names that are not there, below one zone',
    default: `${RATE_LIMITS.nxdomainsPerSecond}`,
  },
  rrlErrorsPerSecond: {
    ...rate,
    help: 'The same for all other errors',
    default: `${RATE_LIMITS.errorsPerSecond}`,
  },
  rrlAmplifiedPerSecond: {
    ...rate,
    help: 'The same for all answers that are more than three times as long as their query',
    default: `${RATE_LIMITS.amplifiedPerSecond}`,
  },
  rrlAllPerSecond: {
    ...rate,
    help: 'The same for all responses together',
    default: `${RATE_LIMITS.allPerSecond}`,
  },
  rrlWindow: {
    takes: 'SECONDS',
    expected: 'a whole number of seconds, 1 to 3600',
    help: 'How long who asked too much goes on being limited at most, seconds',
    default: `${RATE_LIMITS.windowSec}`,
    ...one(wholeNumber(1, 3600)),
  },
  rrlSlip: {
    takes: 'N',
    expected: 'a whole number, 0 to 10',
    help: 'Every which response too many is a short one that sends a true asker to TCP; 0: none is, 1: each',
    default: `${RATE_LIMITS.slip}`,
    ...one(wholeNumber(0, 10)),
  },
  rrlIpv4PrefixLength: {
    takes: 'BITS',
    expected: 'a whole number, 0 to 32',
    help: 'How much of an IPv4 address is one asker',
    default: `${RATE_LIMITS.ipv4PrefixLength}`,
    ...one(wholeNumber(0, 32)),
  },
  rrlIpv6PrefixLength: {
    takes: 'BITS',
    expected: 'a whole number, 0 to 128',
    help: 'How much of an IPv6 address is one asker',
    default: `${RATE_LIMITS.ipv6PrefixLength}`,
    ...one(wholeNumber(0, 128)),
  },
  rrlExemptClients: { ...ranges, help: 'Who is never limited, beside those in resolvers' },
  rrlLogOnly: {
    takes: 'on|off',
    expected: 'on or off',
    help: 'Whether responses too many are only counted, and sent',
    default: RATE_LIMITS.logOnly ? 'on' : 'off',
    ...one(parseSwitch),
  },
  rrlMaxTableSize: {
    takes: 'N',
    expected: 'a whole number, 500 to 16777216',
    help: 'Accounts of prefixes that are kept at one time, 16 bytes each from the start',
    default: `${RATE_LIMITS.maxTableSize}`,
    ...one(wholeNumber(500, 16_777_216)),
  },
  dnsWorkers: {
    takes: 'N',
    expected: 'a whole number, 0 to 64',
    help: 'Threads that answer DNS over UDP, beside the one for all else; 0, and where there is no recvmmsg: that one does',
    default: null,
    otherwise: 'one less than there are processors, 1 to 4',
    ...one(wholeNumber(0, 64)),
  },
  queryLog: {
    takes: 'FILE|-',
    expected: 'a file that can be written, or - for standard output',
    help: 'Where some of the DNS queries are logged, as JSON lines; opened anew at SIGHUP',
    default: null,
    otherwise: 'nowhere',
    ...one(parseText),
  },
  queryLogSample: {
    takes: 'SHARE',
    expected: 'a number above 0, at most 1',
    help: 'The share of queries that are logged',
    default: '0.001',
    ...one(parseShare),
  },
  queryLogAddresses: {
    takes: 'cut|whole',
    expected: 'cut or whole',
    help: 'Whether addresses are logged cut to /24 and /48, or whole',
    // Who asked for what is nobody's business.
    default: 'cut',
    ...one(oneOf('cut', 'whole')),
  },
  http: {
    takes: 'HOST:PORT,...',
    expected: LISTEN,
    help: 'Where HTTP listens: redirects, API, metrics; https with --tls-cert',
    default: '127.0.0.1:8053',
    ...list(parseHostPort, 1),
  },
  httpUrl: {
    takes: 'URL',
    expected:
      'an http:// or https:// URL without user, query or fragment, such as https://core1.example.net:8053/',
    help: 'URL that others are told of this core; needed where its certificate is for a name',
    default: null,
    otherwise: 'http or https, the first of --advertise, the port of --http',
    ...one(parseUrl),
  },
  advertise: {
    takes: 'IP,...',
    expected: 'IP addresses by commas that others can reach',
    help: 'Addresses of this core that NS glue and the service core tell; needed where it listens on all addresses or behind NAT',
    default: '',
    otherwise: 'the addresses of --dns',
    ...list(parseReachable),
  },
  user: {
    takes: 'USER[:GROUP]',
    expected: 'a name of a user, and of a group behind a colon if it is not the user’s own',
    help: 'Who a core that was started as root becomes, once its ports are open; the data folder must be theirs',
    default: null,
    otherwise: 'whoever starts it',
    ...one(parseUser),
  },
  data: {
    takes: 'DIR',
    expected: 'a folder',
    help: 'Where it keeps what it must not forget, and the admin token',
    default: './data',
    ...one(parseText),
  },
  store: {
    takes: 'STORE',
    expected: 'sqlite, or etcd://HOST:PORT,... such as etcd://10.0.0.1:2379,10.0.0.2:2379',
    help: 'What the directory is kept in: sqlite, embedded in the one core, or an etcd that several cores share',
    default: 'sqlite',
    ...one(parseStore),
  },
  storeCa: {
    ...pem,
    help: 'Certificates of the authority that an etcd store is trusted by; makes the way to it TLS',
    default: null,
    otherwise: 'no TLS',
  },
  storeCert: {
    ...pem,
    help: 'Certificate chain by which an etcd store knows this core',
    default: null,
    otherwise: 'none',
  },
  storeKey: { ...pem, help: 'Private key of --store-cert', default: null, otherwise: 'none' },
  storeUser: {
    takes: 'NAME',
    expected: 'the name of an etcd user',
    help: 'User of an etcd store that asks for one',
    default: null,
    otherwise: 'none',
    ...one(parseText),
  },
  storePasswordFile: {
    takes: 'FILE',
    expected: 'a file that can be read',
    help: 'File that holds the password of --store-user',
    default: null,
    otherwise: 'none',
    ...one(parseText),
  },
  storePrefix: {
    takes: 'PREFIX',
    expected: 'a path that begins and ends with a slash, such as /nearcast/',
    help: 'What all keys in an etcd store begin with, so that it may be shared',
    default: '/nearcast/',
    ...one(parseKeyPrefix),
  },
  follow: {
    takes: 'on|off',
    expected: 'on or off',
    help: 'Whether it only answers, from what other cores keep in the etcd store: it takes no hosts and writes nothing',
    default: 'off',
    ...one(parseSwitch),
  },
  tlsCert: {
    takes: 'FILE',
    expected: 'a PEM file that can be read',
    help: 'Certificate chain for https; read again when it changes',
    default: null,
    otherwise: 'plain http',
    ...one(parseText),
  },
  tlsKey: {
    takes: 'FILE',
    expected: 'a PEM file that can be read',
    help: 'Private key of --tls-cert',
    default: null,
    otherwise: 'plain http',
    ...one(parseText),
  },
  echo: {
    takes: 'HOST:PORT',
    expected: 'HOST:PORT with an IP address, such as 192.0.2.1:8054; port 0: any free one',
    help: 'UDP address where its own echo answers, by which hosts measure the way to it',
    default: null,
    otherwise: 'the first address of --dns, any free port',
    ...one(parseHostPort),
  },
  geo: {
    takes: 'SOURCE',
    expected: 'geoip-lite, none, or an MMDB file that can be read',
    help: 'Geography, used where nothing was measured yet: the database that came along, none, or a City MMDB file',
    default: 'geoip-lite',
    ...one(parseText),
  },
  trustedProxies: { ...ranges, help: 'Proxies whose X-Forwarded-For is believed' },
  operatorFrom: {
    ...ranges,
    help: 'Who may see explain, _why, metrics and other clients’ answers without a token, beside loopback',
  },
  resolvers: {
    ...ranges,
    help: 'Recursive resolvers whose UDP queries count as proven, so that their clients get measured',
  },
  probeClients: {
    takes: 'on|off',
    expected: 'on or off',
    help: 'Whether hosts measure the way to clients that asked',
    default: 'on',
    ...one(parseSwitch),
  },
  probeOptOut: { ...ranges, help: 'Who is never probed' },
  probePrivate: {
    ...ranges,
    help: 'Private and special ranges that may be probed; all others of them never are',
    default: null,
    otherwise: 'loopback where the core listens on nothing else, else none',
  },
  // What an address can be expected to answer without being told: a resolver on 53; a host or its
  // firewall, to a connection to 443, with an acceptance or a refusal. Both are a round trip.
  probeDnsPort: { ...port, help: 'Port that DNS probes to clients go to', default: '53' },
  probeTcpPort: { ...port, help: 'Port that TCP probes to clients go to', default: '443' },
  // About ten probes place a prefix: 600 place one new prefix each second.
  probesPerMinute: { ...rate, help: 'Probes to clients a minute, by all hosts together', default: '600' },
  // One a second from one host goes unnoticed by it and by its network.
  probesPerHostPerMinute: { ...rate, help: 'Probes to clients a minute, by one host', default: '60' },
  requestsPerMinute: {
    ...rate,
    help: 'API requests a minute from one address, heartbeats not counted',
    default: '600',
  },
  logLevel: {
    takes: 'LEVEL',
    expected: 'debug, info, warn, error or silent',
    help: 'How much it logs, as JSON lines',
    default: 'info',
    ...one(oneOf('debug', 'info', 'warn', 'error', 'silent')),
  },
}

/** One setting for --help and the documentation. */
interface ConfigKey {
  /** Property of Config, which is also how a command line parser names the flag's value. */
  readonly property: keyof Config
  /** The key in YAML. */
  readonly name: string
  readonly flag: string
  readonly variable: string
  /** What stands for the value: `HOST:PORT`. */
  readonly takes: string
  /** Default, in words where it depends on others. */
  readonly default: string
  readonly expected: string
  readonly help: string
}

/** All settings, in the order of the documentation. */
export const CONFIG_KEYS: readonly ConfigKey[] = Object.entries(SETTINGS).map(([property, setting]) => {
  const name = kebabCase(property)
  return {
    property: property as keyof Config,
    name,
    flag: `--${name}`,
    variable: ENV_PREFIX + name.toUpperCase().replaceAll('-', '_'),
    takes: setting.takes,
    default: setting.otherwise ?? (setting.default || 'none'),
    expected: setting.expected,
    help: setting.help,
  }
})

/** Every mistake that was found, for the operator: one line each. */
export class ConfigError extends Error {
  readonly mistakes: readonly Mistake[]
  constructor(mistakes: readonly Mistake[]) {
    super(mistakes.map(formatMistake).join('\n'))
    this.name = 'ConfigError'
    this.mistakes = mistakes
  }
}

function formatMistake({ key, source, value, expected }: Mistake): string {
  const was = value === null ? '' : `: ${JSON.stringify(value)}`
  return `${key}${was} (${source}): expected ${expected}`
}

export interface ConfigSources {
  readonly flags: Flags
  readonly env: Readonly<Record<string, string | undefined>>
  /** Path of a YAML file; null: none. */
  readonly file: string | null
}

/** The settings from all sources, checked against each other. Throws ConfigError with all mistakes. */
export function loadConfig({ flags, env, file }: ConfigSources): Config {
  // Weakest first: a later one replaces an earlier, but a mistake counts in each.
  const readings = [...(file === null ? [] : [readFile(file)]), readEnvironment(env), readFlags(flags)]
  const mistakes = readings.flatMap((reading) => reading.mistakes)
  const values = defaultValues()
  for (const given of readings.flatMap((reading) => reading.given)) {
    const result = judge(given)
    if ('expected' in result) mistakes.push(result)
    else values[result.property] = result.value
  }
  const config = complete(values as unknown as Config)
  mistakes.push(...crossCheck(config), ...checkStore(config, values.name === null))
  if (mistakes.length > 0) throw new ConfigError(mistakes)
  return config
}

function defaultValues(): Record<string, unknown> {
  const values: Record<string, unknown> = {}
  for (const [property, setting] of Object.entries(SETTINGS)) {
    const text = setting.default
    values[property] = text === null ? null : setting.parse(text === '' ? [] : [text])
  }
  return values
}

function judge(given: Given): Mistake | { property: string; value: unknown } {
  const { key, name, source } = given
  const property = CONFIG_KEYS.find((known) => known.name === name)?.property
  const written = typeof given.value === 'string' ? given.value : given.value.join(', ')
  if (property === undefined) {
    return { key, source, value: written, expected: 'a setting that exists; nearcast core --help lists them' }
  }
  const setting = SETTINGS[property]
  const texts = textsOf(given.value, setting.list)
  const value = texts === undefined ? undefined : setting.parse(texts)
  return value === undefined
    ? { key, source, value: written, expected: setting.expected }
    : { property, value }
}

function textsOf(value: string | readonly string[], isList: boolean): readonly string[] | undefined {
  if (typeof value !== 'string') return isList ? value : undefined
  if (!isList) return [value]
  return value.trim() === '' ? [] : value.split(',').map((text) => text.trim())
}

/** What depends on other settings, where it was not given. */
function complete(values: Config): Config {
  const loopbackOnly = [...values.dns, ...values.http].every(({ host }) => isLoopbackHost(host))
  const loopback = ['127.0.0.0/8', '::1/128'].map((text) => parseRange(text)!)
  const listening = values.dns.map(({ host }) => host).filter((host) => !isWildcard(host))
  const name = values.name ?? 'core1'
  return Object.freeze({
    ...values,
    name,
    advertise: values.advertise.length > 0 ? values.advertise : Object.freeze([...new Set(listening)]),
    dnsId: values.dnsId ?? name,
    rrlNodataPerSecond: values.rrlNodataPerSecond ?? values.rrlResponsesPerSecond,
    dnsWorkers: values.dnsWorkers ?? Math.min(4, Math.max(1, availableParallelism() - 1)),
    echo: values.echo ?? { host: values.dns[0]!.host, port: 0 },
    probePrivate: values.probePrivate ?? Object.freeze(loopbackOnly ? loopback : []),
  })
}

function crossCheck(config: Config): Mistake[] {
  const mistakes: Mistake[] = []
  const mistake = (key: string, value: string | null, expected: string) =>
    mistakes.push({ key, source: 'all settings together', value, expected })
  if (config.advertise.length === 0) {
    const dns = config.dns.map(formatHostPort).join(',')
    const expected = `the public IP addresses of this core, because dns (${dns}) listens on all addresses`
    mistake('advertise', null, expected)
  }
  for (const zone of config.zone) {
    const outer = config.zone.find((other) => zone.endsWith(`.${other}`))
    if (outer !== undefined) mistake('zone', zone, `a zone that does not lie in another, as this in ${outer}`)
  }
  if (new Set(config.zone).size < config.zone.length) mistake('zone', config.zone.join(','), 'each zone once')
  if (config.tlsCert !== null && config.tlsKey === null)
    mistake('tls-key', null, 'the private key of tls-cert')
  if (config.tlsKey !== null && config.tlsCert === null)
    mistake('tls-cert', null, 'the certificate of tls-key')
  const files = { 'tls-cert': config.tlsCert, 'tls-key': config.tlsKey, geo: geographyFile(config.geo) }
  for (const [key, path] of Object.entries(files)) {
    if (path === null || isReadableFile(path)) continue
    mistake(key, path, CONFIG_KEYS.find(({ name }) => name === key)!.expected)
  }
  return mistakes
}

function checkStore(config: Config, isNameless: boolean): Mistake[] {
  const source = 'all settings together'
  const { store, storeCa, storeCert, storeKey, storeUser, storePasswordFile } = config
  const isShared = storeEndpoints(store) !== null
  const mistakes: Mistake[] = []
  const expect = (holds: boolean, key: string, value: string | null, expected: string) => {
    if (!holds) mistakes.push({ key, source, value, expected })
  }
  expect(!isShared || !isNameless, 'name', null, `a name of its own for each core that shares ${store}`)
  expect(isShared || !config.follow, 'follow', 'on', 'off, because store (sqlite) is shared by nobody')
  expect(!storeCert || storeCa !== null, 'store-ca', null, 'the authority of store-cert')
  expect(!storeCert || storeKey !== null, 'store-key', null, 'the private key of store-cert')
  expect(!storeKey || storeCert !== null, 'store-cert', null, 'the certificate of store-key')
  expect(!storeUser || storePasswordFile !== null, 'store-password-file', null, 'the password of store-user')
  expect(!storePasswordFile || storeUser !== null, 'store-user', null, 'whose password it is')
  const files = {
    'store-ca': storeCa,
    'store-cert': storeCert,
    'store-key': storeKey,
    'store-password-file': storePasswordFile,
  }
  for (const [key, path] of Object.entries(files)) {
    if (path === null) continue
    expect(isShared, key, path, 'an etcd store (--store etcd://...) where this is given')
    expect(isReadableFile(path), key, path, 'a file that can be read')
  }
  return mistakes
}

/** The path of the MMDB file that `geo` names; null where it names none. */
export function geographyFile(geo: string): string | null {
  return geo === 'geoip-lite' || geo === 'none' ? null : geo
}

function isReadableFile(path: string): boolean {
  try {
    accessSync(path, constants.R_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}
