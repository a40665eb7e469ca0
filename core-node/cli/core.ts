// `nearcast core` and `nearcast check-config`: the daemon, and its settings looked at without starting it.
//
// Flags are the settings of core-node/settings/config.ts, no more and no fewer. The daemon itself is loaded only
// when it is to run.

import { type Command, Option } from 'commander'
import { CONFIG_KEYS, type Config, ConfigError, loadConfig } from '../settings/config.ts'
import { CommandFailure, paint, printJson, type Terminal } from './terminal.ts'

interface CoreFlags {
  readonly config?: string
  readonly [property: string]: string | undefined
}

export function addCoreCommand(command: Command, terminal: Terminal): void {
  for (const { flag, takes, help, default: standard } of CONFIG_KEYS) {
    const text = `${help} (default: ${standard})`
    // A switch may be told by its name alone.
    if (takes === 'on|off') command.addOption(new Option(`${flag} [${takes}]`, text).preset('on'))
    else command.addOption(new Option(`${flag} <${takes}>`, text))
  }
  command
    .option('--config <file>', 'a YAML file with the same keys')
    .action((flags: CoreFlags) => runDaemon(flags, terminal))
    .addHelpText(
      'after',
      `
Examples:
  npx nearcast core
  npx nearcast core --zone cast.example.org --dns 0.0.0.0:53 --http 0.0.0.0:80 --advertise 192.0.2.1
  npx nearcast core --config core.yaml
  npx nearcast core --name core-a --store etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379

A flag --some-key is also NEARCAST_SOME_KEY in the environment and some-key in the file; flags win, then
the environment. The admin token is in the data folder, file admin-token.
Next, in another terminal: npx nearcast status, npx nearcast service put NAME`,
    )
}

export function addCheckConfigCommand(command: Command, terminal: Terminal): void {
  command
    .argument('<file>', 'a YAML file for nearcast core --config')
    .option('--json', 'print JSON')
    .action((file: string, { json }: { json?: boolean }) => checkConfig(file, json === true, terminal))
    .addHelpText(
      'after',
      '\nTells all mistakes at once. Exit code: 0 fine, 1 mistakes. Variables NEARCAST_* are looked at too.',
    )
}

async function runDaemon({ config: file, ...flags }: CoreFlags, terminal: Terminal): Promise<void> {
  let config: Config
  try {
    config = loadConfig({ flags, env: terminal.env, file: file ?? null })
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    throw new CommandFailure(error.message, {
      exitCode: 2,
      next: 'npx nearcast core --help lists all settings.',
    })
  }
  const { runCore } = await import('./run-core.ts')
  await runCore(config, terminal)
}

function checkConfig(file: string, json: boolean, terminal: Terminal): void {
  try {
    loadConfig({ flags: {}, env: terminal.env, file })
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    const { mistakes } = error
    if (json) printJson(terminal, { ok: false, mistakes })
    const count = mistakes.length === 1 ? 'a mistake' : `${mistakes.length} mistakes`
    throw new CommandFailure(`${count} in ${file}${json ? '' : `\n${error.message}`}`)
  }
  if (json) printJson(terminal, { ok: true, mistakes: [] })
  else
    terminal.print(`${file}: ${paint(terminal, 'green', 'fine')}. Next: npx nearcast core --config ${file}`)
}
