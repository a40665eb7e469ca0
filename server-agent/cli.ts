// The command `nearcast-agent`: settings in, an Agent running until a signal, one line for each thing that
// happens (people's on stderr; with --json, a JSON line on stdout).
//
// Exit codes: 0 it left as it was told to, 1 it could not join, 2 it was used wrongly.

import { Command, CommanderError } from 'commander'
import { Agent, AgentError, type AgentEvents } from './agent.ts'
import { reasonOf } from './agent-error.ts'
import { type Flags, SETTINGS, withSettings } from './settings.ts'

const EXAMPLES = `
Every setting is also a variable (NEARCAST_CORE, NEARCAST_CHECK_INTERVAL, ...) and a key in a YAML file
given by --config (core, check-interval, ...). Flags win, then the environment.

Examples:
  # Take part in the service 'mirror' of a core on this machine:
  nearcast-agent --core http://127.0.0.1:8053 --token "$TOKEN" --service mirror --port 80

  # With a health check, a URL for redirects, and load shed above 200 connections:
  nearcast-agent --core https://core.example.net:8053 --service mirror --name fra1 \\
    --url https://fra1.example.net/pub/ --check http://127.0.0.1/healthz \\
    --capacity 200 --load 'exec:ss -Htn state established sport = :443 | wc -l'

  # Several services: a file with the keys above and a list of members:
  #   core: https://core.example.net:8053
  #   name: fra1
  #   members:
  #     - { service: mirror, port: 443, url: 'https://fra1.example.net/', check: 'tcp://127.0.0.1:443' }
  #     - { service: game, port: 7777, attr: { map: desert } }
  nearcast-agent --config agent.yaml

It stays in the foreground. On SIGTERM or Ctrl-C it leaves: its members are gone from answers when it ends.`

/** Runs the command; `argv` without program and script. Ends the process. */
export async function main(argv: readonly string[], version: string): Promise<void> {
  process.exit(await run(argv, version))
}

async function run(argv: readonly string[], version: string): Promise<number> {
  let flags: Flags
  try {
    flags = parseFlags(argv, version)
  } catch (error) {
    // commander has written what is wrong, or the help, already.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    throw error
  }
  try {
    const agent = withSettings(flags, process.env, (options) => new Agent(options))
    return await runAgent(agent, flags.json === true)
  } catch (error) {
    if (!(error instanceof AgentError) || error.code !== 'bad-option') throw error
    say(error.message)
    say('`nearcast-agent --help` says more')
    return 2
  }
}

function parseFlags(argv: readonly string[], version: string): Flags {
  const command = new Command('nearcast-agent')
    .description('Registers this server with Nearcast and keeps it there: lease, health, load, measurements.')
    .usage('--core URL --service NAME [options]')
    .version(version)
    .exitOverride()
    .showHelpAfterError('`nearcast-agent --help` says more')
  for (const { key, value, help, kind } of SETTINGS) {
    const flag = value === null ? `--${key}` : `--${key} <${value}>`
    if (kind === 'pairs') command.option(flag, help, (one, all: string[] = []) => [...all, one])
    else command.option(flag, help)
  }
  command
    .option('--config <FILE>', 'a YAML file with these keys, and `members` for several')
    .option('--json', 'a line of JSON on stdout for each thing that happens')
    .addHelpText('after', EXAMPLES)
    .parse(argv, { from: 'user' })
  const given = Object.entries(command.opts<Record<string, Flags[string]>>())
  return Object.fromEntries(
    given.map(([name, value]) => [name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`), value]),
  )
}

/** Until a signal; a second one ends it at once. */
async function runAgent(agent: Agent, json: boolean): Promise<number> {
  narrate(agent, json)
  const signalled = new Promise<void>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.once(signal, () => {
        process.once(signal, () => process.exit(1))
        resolve()
      })
    }
  })
  const stopped = signalled.then(() => agent.stop())
  try {
    await agent.start()
  } catch (error) {
    if (error instanceof AgentError && error.code === 'bad-option') throw error
    if (!(error instanceof AgentError && error.code === 'stopped')) {
      if (json) tell('failed', { reason: reasonOf(error) })
      else say(`can't join: ${reasonOf(error)}${adviceOn(error)}`)
      return 1
    }
  }
  await stopped
  if (json) tell('left', { host: agent.name })
  else say('left')
  return 0
}

function adviceOn(error: unknown): string {
  const status = error instanceof AgentError ? error.status : undefined
  if (status === 401) return '\nmake a token by `nearcast token create --service NAME` on a core'
  if (status === 404) return '\nmake the service by `nearcast service put NAME` on a core'
  if (status === 409) return '\nchoose another --name, or stop the agent that has this one'
  return ''
}

function narrate(agent: Agent, json: boolean): void {
  if (json) {
    for (const event of ['joined', 'lost', 'health', 'order'] as const) {
      agent.on(event, (facts: AgentEvents[typeof event][0]) => tell(event, facts))
    }
    agent.on('warning', (message) => tell('warning', { message }))
    return
  }
  agent.on('joined', ({ members, core }) => {
    for (const { service, member, state, hint } of members) {
      say(`joined ${service}/${member} at ${core}`)
      if (state !== 'live') say(`  it is ${state}${hint === undefined ? '' : `: ${hint}`}`)
    }
  })
  agent.on('lost', ({ core, reason }) => say(`lost ${core}: ${reason}`))
  agent.on('health', ({ service, member, health, detail }) =>
    say(`${service}/${member} is ${health}: ${detail}`),
  )
  agent.on('warning', (message) => say(message))
}

function say(line: string): void {
  process.stderr.write(`${line}\n`)
}

function tell(event: string, facts: object): void {
  process.stdout.write(`${JSON.stringify({ event, ...facts })}\n`)
}
