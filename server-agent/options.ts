// The agent's options: what a program, a command line or a file may say, and what comes of it.
//
// resolveOptions is the only door: it checks types too, since a YAML file may hold anything, fills in
// the defaults, and stops at the first thing wrong with an error that names key, value and expectation.

import type { Check } from './check.ts'
import type { LoadSource } from './load.ts'
import type { CheckPace } from './member-watch.ts'
import {
  addresses,
  attributes,
  check,
  coreUrls,
  type HostPort,
  hostPort,
  httpUrl,
  label,
  list,
  loadSource,
  number,
  passive,
  place,
  refuseUnknown,
  text,
  whole,
} from './option-values.ts'
import { LEASE_SEC } from './protocol/messages.ts'

/** This host's part in one service. */
export interface MemberOptions {
  /** The service, one DNS label. */
  service: string
  /** Its name in the service; default: the host's. */
  name?: string | undefined
  /** Served addresses; default: the host's. */
  addresses?: readonly string[] | undefined
  /** 1..65535, for SRV answers and API users. */
  port?: number | undefined
  /** Base URL for redirects, http(s). */
  url?: string | undefined
  attributes?: Readonly<Record<string, string>> | undefined
  /** Share under the policy `weighted`, >= 0; default 1. */
  weight?: number | undefined
  /** What it can carry, > 0, in the unit of `load`; default 1. */
  capacity?: number | undefined
  /** `exec:COMMAND` that prints a number, an http(s) URL that is one, or a function. */
  load?: string | (() => number | Promise<number>) | undefined
  /** `tcp://HOST:PORT`, an http(s) URL, `exec:COMMAND`, or a function; default: none, always up. */
  check?: string | (() => boolean | Promise<boolean>) | undefined
}

export interface AgentOptions {
  /** URLs of cores: some of them, by which the others are found; tried in order. */
  cores: string | readonly string[]
  /** From `nearcast token create`; not needed with a kept credential, or for open services alone. */
  token?: string | undefined
  /** The host's name, one DNS label; default: this machine's host name. */
  name?: string | undefined
  /** The host's addresses, best first; default: the one that the core sees. */
  addresses?: readonly string[] | undefined
  /** Where it is, degrees, if you know better than a map of addresses. */
  place?: { readonly lat: number; readonly lon: number } | undefined
  members?: readonly MemberOptions[] | undefined
  /** `HOST:PORT` (UDP) where other hosts' echoes are answered; default `[::]:8054`, or any port if that is busy. */
  echo?: string | undefined
  /** `HOST:PORT` where others find it, if that differs (NAT, port forwarding). */
  echoAdvertise?: string | undefined
  /** Folder that keeps the host's credential; default: it is not kept. */
  stateDir?: string | undefined
  /** Seconds without a heartbeat after which the host counts as gone, 3..300; default 8. */
  leaseSec?: number | undefined
  /** Lets tokens travel over http:// beyond this machine. */
  insecure?: boolean | undefined
  /** Between the starts of two checks, ms; default 2000. */
  checkIntervalMs?: number | undefined
  /** Default 2000. */
  checkTimeoutMs?: number | undefined
  /** Good checks in a row that bring a member back; default 2. */
  checkRise?: number | undefined
  /** Bad checks in a row that take it out; default 3. */
  checkFall?: number | undefined
  /** Probes that the cores may have this host send, a minute; default 1200. */
  maxProbesPerMinute?: number | undefined
  /** `ss`: report the RTTs that the kernel's TCP knows of the members' own clients; default: none are. */
  passive?: 'ss' | undefined
  /** In [0, 1); spreads retries. */
  random?: (() => number) | undefined
}

export interface ResolvedMember {
  readonly service: string
  readonly name: string
  readonly addresses: readonly string[]
  readonly port: number | undefined
  readonly url: string | undefined
  readonly attributes: Readonly<Record<string, string>>
  readonly weight: number
  readonly capacity: number
  readonly load: LoadSource | null
  readonly check: Check | null
}

export interface ResolvedOptions {
  readonly cores: readonly URL[]
  readonly insecure: boolean
  readonly token: string | null
  readonly name: string
  readonly addresses: readonly string[]
  readonly place: { readonly lat: number; readonly lon: number } | undefined
  readonly members: readonly ResolvedMember[]
  readonly echo: HostPort
  /** False: the port is only the usual one, and any other will do. */
  readonly echoGiven: boolean
  readonly echoAdvertise: HostPort | undefined
  readonly stateDir: string | null
  readonly leaseSec: number | undefined
  readonly pace: CheckPace
  readonly maxProbesPerMinute: number
  readonly passive: 'ss' | null
  readonly random: () => number
}

/** UDP; next to the core's 8053. */
const DEFAULT_ECHO_PORT = 8054
/** 20 a second: some ten times what a planner wants of one host, and no burden to anyone. */
const DEFAULT_PROBES_PER_MINUTE = 1200

const OPTION_KEYS = new Set([
  ...[
    'cores',
    'token',
    'name',
    'addresses',
    'place',
    'members',
    'echo',
    'echoAdvertise',
    'stateDir',
    'leaseSec',
  ],
  ...[
    'insecure',
    'checkIntervalMs',
    'checkTimeoutMs',
    'checkRise',
    'checkFall',
    'maxProbesPerMinute',
    'passive',
    'random',
  ],
])
const MEMBER_KEYS = new Set([
  ...['service', 'name', 'addresses', 'port', 'url', 'attributes', 'weight', 'capacity', 'load', 'check'],
])

/** Throws AgentError `bad-option`. `hostname` is this machine's, for the default of `name`. */
export function resolveOptions(options: AgentOptions, hostname: string): ResolvedOptions {
  refuseUnknown(options, OPTION_KEYS, '')
  const name = options.name === undefined ? labelFrom(hostname) : label('name', options.name)
  return {
    cores: coreUrls(options.cores, options.insecure ?? false),
    insecure: options.insecure ?? false,
    token:
      options.token === undefined
        ? null
        : text('token', options.token, /^[\x21-\x7e]+$/, 'the secret that `nearcast token create` printed'),
    name,
    addresses: addresses('addresses', options.addresses),
    place: place(options.place),
    members: list('members', options.members).map((member, i) =>
      resolveMember(member, name, `members[${i}].`),
    ),
    echo:
      options.echo === undefined
        ? { host: '::', port: DEFAULT_ECHO_PORT }
        : hostPort('echo', options.echo, 0),
    echoGiven: options.echo !== undefined,
    echoAdvertise:
      options.echoAdvertise === undefined ? undefined : hostPort('echoAdvertise', options.echoAdvertise, 1),
    stateDir: options.stateDir === undefined ? null : text('stateDir', options.stateDir, /./, 'a folder'),
    leaseSec:
      options.leaseSec === undefined
        ? undefined
        : whole('leaseSec', options.leaseSec, LEASE_SEC.min, LEASE_SEC.max),
    pace: {
      intervalMs: number('checkIntervalMs', options.checkIntervalMs ?? 2000, 100, 3_600_000),
      timeoutMs: number('checkTimeoutMs', options.checkTimeoutMs ?? 2000, 10, 60_000),
      rise: whole('checkRise', options.checkRise ?? 2, 1, 100),
      fall: whole('checkFall', options.checkFall ?? 3, 1, 100),
    },
    maxProbesPerMinute: whole(
      'maxProbesPerMinute',
      options.maxProbesPerMinute ?? DEFAULT_PROBES_PER_MINUTE,
      0,
      60_000,
    ),
    passive: passive('passive', options.passive),
    random: options.random ?? Math.random,
  }
}

/** One member; `prefix` stands before its keys in errors. Throws AgentError `bad-option`. */
export function resolveMember(member: MemberOptions, hostName: string, prefix = ''): ResolvedMember {
  const key = (name: string): string => prefix + name
  refuseUnknown(member, MEMBER_KEYS, prefix)
  return {
    service: label(key('service'), member.service),
    name: member.name === undefined ? hostName : label(key('name'), member.name),
    addresses: addresses(key('addresses'), member.addresses),
    port: member.port === undefined ? undefined : whole(key('port'), member.port, 1, 65_535),
    url: member.url === undefined ? undefined : httpUrl(key('url'), member.url).href,
    attributes: attributes(key('attributes'), member.attributes),
    weight: number(key('weight'), member.weight ?? 1, 0, 1e6),
    capacity: number(key('capacity'), member.capacity ?? 1, Number.MIN_VALUE, 1e15),
    load: loadSource(key('load'), member.load),
    check: check(key('check'), member.check),
  }
}

/** A legal name from a machine's host name: its first label, what is not a-z, 0-9 or - made -. */
export function labelFrom(hostname: string): string {
  const first = hostname.toLowerCase().split('.', 1)[0] ?? ''
  const legal = first.replace(/[^a-z0-9-]/g, '-').slice(0, 63)
  return legal.replace(/^-+|-+$/g, '') || 'host'
}
