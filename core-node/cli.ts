// The command `nearcast`: which commands there are, and what their ends mean to a shell.
//
// Exit codes: 0 done, 1 it failed, 2 wrong use. A group of commands is loaded when it is called, so that
// --help is fast and `status` does not pay for the daemon. Commands themselves are in cli/.

import { Command, CommanderError } from 'commander'
import { CommandFailure, type ExitCode, openTerminal, type Terminal } from './cli/terminal.ts'
import { VERSION } from './version.ts'

interface Group {
  readonly name: string
  readonly summary: string
  /** Loads it: the function that gives the command its flags, subcommands and actions. */
  readonly load: () => Promise<(command: Command, terminal: Terminal) => void>
}

const GROUPS: readonly Group[] = [
  { name: 'core', summary: 'run a core', load: async () => (await import('./cli/core.ts')).addCoreCommand },
  {
    name: 'check-config',
    summary: "look for mistakes in a core's settings",
    load: async () => (await import('./cli/core.ts')).addCheckConfigCommand,
  },
  {
    name: 'service',
    summary: 'names that clients ask for: put, list, show, rm',
    load: async () => (await import('./cli/service.ts')).addServiceCommands,
  },
  {
    name: 'member',
    summary: 'servers of a service: put, list, drain, undrain, rm',
    load: async () => (await import('./cli/member.ts')).addMemberCommands,
  },
  {
    name: 'token',
    summary: 'credentials: create, list, revoke',
    load: async () => (await import('./cli/token.ts')).addTokenCommands,
  },
  {
    name: 'explain',
    summary: 'why a client gets what it gets',
    load: async () => (await import('./cli/explain.ts')).addExplainCommand,
  },
  {
    name: 'locality',
    summary: 'where clients are: show, import',
    load: async () => (await import('./cli/locality.ts')).addLocalityCommands,
  },
  {
    name: 'status',
    summary: 'how a core is',
    load: async () => (await import('./cli/status.ts')).addStatusCommand,
  },
  {
    name: 'store',
    summary: 'what an installation is kept in: copy',
    load: async () => (await import('./cli/store.ts')).addStoreCommands,
  },
  {
    name: 'lab',
    summary: 'a small Internet on this machine, to see it all work',
    load: async () => (await import('./cli/lab.ts')).addLabCommand,
  },
]

const EXAMPLES = `
A first service, with a core running (npm start):
  npx nearcast service put mirror
  npx nearcast member put mirror/local --address 127.0.0.1 --port 8053
  npx nearcast explain mirror 127.0.0.1

Commands that talk to a core take --core URL (or NEARCAST_CORE; default http://127.0.0.1:8053) and the token
from NEARCAST_TOKEN or the data folder. Exit codes: 0 done, 1 it failed, 2 wrong use.`

/** Runs one command line (without program names). Resolves to its exit code; everything is told by then. */
export async function runCli(args: readonly string[], terminal: Terminal): Promise<ExitCode> {
  try {
    const program = await makeProgram(args, terminal)
    await program.parseAsync(args, { from: 'user' })
    return 0
  } catch (error) {
    return tellFailure(error, terminal)
  }
}

async function makeProgram(args: readonly string[], terminal: Terminal): Promise<Command> {
  const program = new Command('nearcast')
    .description('Anycast for any service, without BGP: every client to the nearest live server.')
    .version(VERSION)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => terminal.print(text.trimEnd()),
      writeErr: (text) => terminal.warn(text.trimEnd()),
      getOutHelpWidth: () => terminal.width ?? 100,
      getErrHelpWidth: () => terminal.width ?? 100,
      getOutHasColors: () => terminal.colour,
    })
    .showHelpAfterError('Add --help for what it takes.')
    .showSuggestionAfterError()
    .addHelpText('after', EXAMPLES)
  const called = args.find((arg) => arg !== 'help' && !arg.startsWith('-'))
  for (const { name, summary, load } of GROUPS) {
    const command = program.command(name).description(summary)
    if (name === called) (await load())(command, terminal)
  }
  return program
}

function tellFailure(error: unknown, terminal: Terminal): ExitCode {
  if (error instanceof CommanderError) {
    // Commander has told it. Help that was asked for is done; help for want of a subcommand is wrong use.
    return error.exitCode === 0 ? 0 : 2
  }
  if (error instanceof CommandFailure) {
    if (error.message !== '') terminal.warn(`nearcast: ${error.message}`)
    if (error.next !== null) terminal.warn(error.next)
    return error.exitCode
  }
  const { message, stack } = error instanceof Error ? error : new Error(String(error))
  terminal.warn(`nearcast: ${isOfThisWorld(error) ? message : stack}`)
  return 1
}

/**
 * True for what an operator can mend (a port in use, a full disk, a bad file): such errors carry a code, or
 * their cause does. What has none, or one of Node's own ERR_..., is a fault of the program: its stack helps.
 */
function isOfThisWorld(error: unknown): boolean {
  const { code, cause } = error as { code?: unknown; cause?: { code?: unknown } }
  const known = code ?? cause?.code
  return typeof known === 'string' && !known.startsWith('ERR_')
}

/** Runs this process's command line. */
export async function runProcess(): Promise<void> {
  // A reader that has seen enough (`nearcast member list mirror | head`) is no error.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
    process.exit(0)
  })
  process.exitCode = await runCli(process.argv.slice(2), openTerminal(process))
}

if (import.meta.main) await runProcess()
