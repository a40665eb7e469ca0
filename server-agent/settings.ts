// The command's settings: flags, NEARCAST_* variables and a YAML file set the same keys; flags win,
// then the environment. One table says what there is; the agent's own options check the values, and an
// error names the setting by where it was set.

import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { parse as parseYaml } from 'yaml'
import { AgentError, reasonOf } from './agent-error.ts'
import type { AgentOptions, MemberOptions } from './options.ts'

/** How a setting's text is read; a file may hold the value itself. */
type Kind = 'text' | 'number' | 'seconds' | 'list' | 'pairs' | 'place' | 'yes'

interface Setting {
  /** `check-interval`: --check-interval, NEARCAST_CHECK_INTERVAL, and the key in a file. */
  readonly key: string
  /** What it is called in AgentOptions or, with `member`, in MemberOptions. */
  readonly option: string
  readonly kind: Kind
  /** What stands for its value in the help; null: it takes none. */
  readonly value: string | null
  readonly help: string
  readonly member: boolean
}

export const SETTINGS: readonly Setting[] = [
  ofHost('core', 'cores', 'list', 'URL[,URL]', 'some of the cores: they tell of the others'),
  ofHost('token', 'token', 'text', 'SECRET', 'from `nearcast token create`; better given as NEARCAST_TOKEN'),
  ofHost('name', 'name', 'text', 'NAME', "this host's name, and its members'; default: the machine's"),
  ofHost('address', 'addresses', 'list', 'IP[,IP]', "the host's own; default: the one that the core sees"),
  ofHost('place', 'place', 'place', 'LAT,LON', 'where it is, degrees; default: looked up and measured'),
  ofMember('service', 'service', 'text', 'NAME', 'the service to take part in'),
  ofMember('port', 'port', 'number', 'N', 'port, for SRV and the API'),
  ofMember('url', 'url', 'text', 'URL', 'base URL, for HTTP redirects'),
  ofMember('attr', 'attributes', 'pairs', 'KEY=VALUE', 'attribute for `where`; may be repeated'),
  ofMember('weight', 'weight', 'number', 'N', 'share under the policy weighted; default 1'),
  ofMember('capacity', 'capacity', 'number', 'N', 'what it can carry, in the unit of load; default 1'),
  ofMember('load', 'load', 'text', 'SOURCE', 'exec:COMMAND that prints a number, or a URL of one'),
  ofMember('check', 'check', 'text', 'CHECK', 'tcp://HOST:PORT, an http(s) URL or exec:COMMAND'),
  ofHost('check-interval', 'checkIntervalMs', 'seconds', 'SEC', 'between checks; default 2'),
  ofHost('check-timeout', 'checkTimeoutMs', 'seconds', 'SEC', 'for one check; default 2'),
  ofHost('check-rise', 'checkRise', 'number', 'N', 'good checks in a row that bring it back; default 2'),
  ofHost('check-fall', 'checkFall', 'number', 'N', 'bad checks in a row that take a member out; default 3'),
  ofHost('echo', 'echo', 'text', 'ADDRESS:PORT', 'UDP, where other hosts measure; default [::]:8054'),
  ofHost('echo-advertise', 'echoAdvertise', 'text', 'ADDRESS:PORT', 'where they find it, if not there (NAT)'),
  ofHost('state', 'stateDir', 'text', 'DIR', "keeps the host's credential, and the cores it knows"),
  ofHost('lease', 'leaseSec', 'number', 'SEC', 'silence after which the host counts as gone; default 8'),
  ofHost('max-probes', 'maxProbesPerMinute', 'number', 'N', 'most probes a minute by order; default 1200'),
  ofHost('passive', 'passive', 'text', 'ss', "report RTTs of the members' own clients, by the system's ss"),
  ofHost('insecure', 'insecure', 'yes', null, 'let the token travel over http:// beyond this machine'),
]

function ofHost(key: string, option: string, kind: Kind, value: string | null, help: string): Setting {
  return { key, option, kind, value, help, member: false }
}

function ofMember(key: string, option: string, kind: Kind, value: string | null, help: string): Setting {
  return { key, option, kind, value, help, member: true }
}

/** Raw values by key, with where each was set, for errors. */
type Raw = Map<string, { readonly value: unknown; readonly from: string }>

/** What flags hold: text; lists of text for `attr`; true for `insecure`; `config` beside the settings. */
export type Flags = Readonly<Record<string, string | readonly string[] | boolean | undefined>>

/**
 * The agent's options, made from all three. `check` is called with them (it is the Agent's constructor);
 * an AgentError `bad-option` that it throws is told in the words of whoever set the value.
 */
export function withSettings<T>(
  flags: Flags,
  env: NodeJS.ProcessEnv,
  check: (options: AgentOptions) => T,
): T {
  const configPath = flags.config ?? env.NEARCAST_CONFIG
  const file = typeof configPath === 'string' ? readFile(configPath) : { raw: new Map(), members: undefined }
  const raw: Raw = new Map([...file.raw, ...fromEnvironment(env), ...fromFlags(flags)])
  const options: Record<string, unknown> = { stateDir: defaultStateDir(env) }
  const member: Record<string, unknown> = {}
  for (const setting of SETTINGS) {
    const set = raw.get(setting.key)
    if (set !== undefined) (setting.member ? member : options)[setting.option] = readValue(setting, set.value)
  }
  options.members = chooseMembers(member, file.members, raw)
  try {
    return check(options as unknown as AgentOptions)
  } catch (error) {
    throw inWordsOf(error, raw, typeof configPath === 'string' ? configPath : '')
  }
}

/** One member by flags, variables or top-level keys; or the file's list of them. */
function chooseMembers(one: Record<string, unknown>, many: unknown, raw: Raw): unknown {
  if (many === undefined) {
    if (one.service !== undefined) return [one]
    throw new AgentError(
      'bad-option',
      '--service: got nothing, expected the name of the service to take part in',
      { key: 'service' },
    )
  }
  const clash = SETTINGS.find((setting) => setting.member && raw.has(setting.key))
  if (clash === undefined) return Array.isArray(many) ? many.map(readMember) : many
  const { from } = raw.get(clash.key)!
  throw new AgentError(
    'bad-option',
    `${from}: says something of one member, and the file lists members; expected one or the other`,
    { key: clash.key },
  )
}

/** A member in a file has the keys of the flags. */
function readMember(given: unknown): unknown {
  if (typeof given !== 'object' || given === null) return given
  const settings = SETTINGS.filter(({ key, member }) => member || key === 'name' || key === 'address')
  const entries = Object.entries(given).map(([key, value]) => {
    const setting = settings.find((one) => one.key === key)
    return setting === undefined ? [key, value] : [setting.option, readValue(setting, value)]
  })
  return Object.fromEntries(entries) as Partial<MemberOptions>
}

function fromFlags(flags: Flags): Raw {
  const set = SETTINGS.filter(({ key }) => flags[key] !== undefined)
  return new Map(set.map(({ key }) => [key, { value: flags[key], from: `--${key}` }]))
}

function fromEnvironment(env: NodeJS.ProcessEnv): Raw {
  const raw: Raw = new Map()
  for (const { key } of SETTINGS) {
    const name = `NEARCAST_${key.toUpperCase().replaceAll('-', '_')}`
    if (env[name] !== undefined && env[name] !== '') raw.set(key, { value: env[name], from: name })
  }
  return raw
}

function readFile(path: string): { raw: Raw; members: unknown } {
  let content: unknown
  try {
    content = parseYaml(readFileSync(path, 'utf8'))
  } catch (error) {
    throw new AgentError('bad-option', `--config: can't read ${path}: ${reasonOf(error)}`, { key: 'config' })
  }
  if (typeof content !== 'object' || content === null || Array.isArray(content)) {
    throw new AgentError(
      'bad-option',
      `--config: ${path} holds no keys; expected lines such as 'core: https://...'`,
      { key: 'config' },
    )
  }
  const raw: Raw = new Map()
  for (const [key, value] of Object.entries(content)) {
    if (key !== 'members' && !SETTINGS.some((setting) => setting.key === key)) {
      const known = ['members', ...SETTINGS.map((setting) => setting.key)].join(', ')
      throw new AgentError('bad-option', `${key} in ${path}: there is no such key; there are ${known}`, {
        key,
      })
    }
    if (key !== 'members') raw.set(key, { value, from: `${key} in ${path}` })
  }
  return { raw, members: (content as { members?: unknown }).members }
}

/** Text becomes what the option is; what does not stays as it is, for the option's check to name it. */
function readValue({ kind }: Setting, value: unknown): unknown {
  switch (kind) {
    case 'text':
      return value
    case 'number':
      return toNumber(value)
    case 'seconds': {
      const seconds = toNumber(value)
      return typeof seconds === 'number' ? seconds * 1000 : seconds
    }
    case 'list':
      return typeof value === 'string' ? value.split(',').map((one) => one.trim()) : value
    case 'pairs':
      return toPairs(value)
    case 'place': {
      const [lat, lon, ...rest] = typeof value === 'string' ? value.split(',').map(toNumber) : []
      return lat === undefined || lon === undefined || rest.length > 0 ? value : { lat, lon }
    }
    case 'yes':
      return value === 'true' || value === '1' ? true : value === 'false' || value === '0' ? false : value
  }
}

function toNumber(value: unknown): unknown {
  return typeof value === 'string' && value.trim() !== '' && !Number.isNaN(Number(value))
    ? Number(value)
    : value
}

/** `k=v` (or, in a variable, `k=v,k=v`), or a map; numbers and yes or no in a file are meant as text. */
function toPairs(value: unknown): unknown {
  const lines = typeof value === 'string' ? value.split(',') : value
  if (Array.isArray(lines)) {
    return Object.fromEntries(
      lines.map((line: unknown) => {
        const [name, ...rest] = String(line).split('=')
        return [name, rest.length === 0 ? undefined : rest.join('=')]
      }),
    )
  }
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([name, one]) => [
      name,
      typeof one === 'number' || typeof one === 'boolean' ? String(one) : one,
    ]),
  )
}

/** `members[0].port: got ...` -> `--port: got ...`. */
function inWordsOf(error: unknown, raw: Raw, configPath: string): unknown {
  if (!(error instanceof AgentError) || error.code !== 'bad-option' || error.key === undefined) return error
  const rest = error.message.slice(error.key.length)
  const [head, ...tail] = error.key.replace(/^members\[0\]\./, '').split('.')
  const setting = SETTINGS.find(({ option }) => option === head)
  const set = setting === undefined ? undefined : raw.get(setting.key)
  const inList = error.key.startsWith('members[') && !(setting?.member && set !== undefined)
  const name = inList
    ? `${error.key} in ${configPath}`
    : (set?.from ?? (setting === undefined ? error.key : `--${setting.key}`))
  return new AgentError('bad-option', [name, ...(inList ? [] : tail)].join('.') + rest, {
    key: setting?.key ?? error.key,
  })
}

/** systemd's StateDirectory, or where the system's rules put such things. */
function defaultStateDir(env: NodeJS.ProcessEnv): string {
  if (env.STATE_DIRECTORY) return env.STATE_DIRECTORY.split(':', 1)[0]!
  if (process.getuid?.() === 0) return '/var/lib/nearcast-agent'
  return join(env.XDG_STATE_HOME || join(homedir(), '.local', 'state'), 'nearcast-agent')
}
