// What a command is given to talk with a person or a program: two streams, a width, colours, the environment.
//
// Invariant: commands write nothing and read no environment but through a Terminal, so tests run them as
// they are. Colours only where a person looks (a terminal, and NO_COLOR is not set: no-color.org). Text
// that came over the network is made printable first: it must not drive the terminal.

import { styleText } from 'node:util'

export interface Terminal {
  /** What was asked for. */
  print(text: string): void
  /** What is beside it: hints and errors. */
  warn(text: string): void
  /** Columns of the window; null: not a terminal, lines may be as long as they need. */
  readonly width: number | null
  readonly colour: boolean
  readonly env: Readonly<Record<string, string | undefined>>
}

/** The terminal of this process. */
export function openTerminal(process: NodeJS.Process): Terminal {
  const { stdout, stderr, env } = process
  return {
    print: (text) => void stdout.write(`${text}\n`),
    warn: (text) => void stderr.write(`${text}\n`),
    width: stdout.isTTY ? stdout.columns || 80 : null,
    colour: Boolean(stdout.isTTY) && !env.NO_COLOR && env.TERM !== 'dumb',
    env,
  }
}

/** 0: done; 1: it failed; 2: wrong use. */
export type ExitCode = 0 | 1 | 2

/** A command that ends without having done what was asked: what went wrong (empty: told already), and what to do next. */
export class CommandFailure extends Error {
  readonly exitCode: ExitCode
  readonly next: string | null
  /** The core asked to be left alone for so long; null: it did not. */
  readonly retryAfterSec: number | null
  constructor(
    message: string,
    options: { exitCode?: ExitCode; next?: string; retryAfterSec?: number; cause?: unknown } = {},
  ) {
    super(message, { cause: options.cause })
    this.name = 'CommandFailure'
    this.exitCode = options.exitCode ?? 1
    this.next = options.next ?? null
    this.retryAfterSec = options.retryAfterSec ?? null
  }
}

/** A command that was called wrongly. */
export function wrongUse(message: string, next?: string): CommandFailure {
  return new CommandFailure(message, next === undefined ? { exitCode: 2 } : { exitCode: 2, next })
}

/** Data for programs: what --json prints. */
export function printJson(terminal: Terminal, data: unknown): void {
  terminal.print(JSON.stringify(data, null, 2))
}

/** The text in a style, where the terminal shows colours. */
export function paint(terminal: Terminal, style: 'bold' | 'dim' | 'green' | 'yellow', text: string): string {
  return terminal.colour ? styleText(style, text, { validateStream: false }) : text
}

/** Text from elsewhere on one line, without what moves the cursor, colours or turns the writing direction. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Zl}\p{Zp}\u200e\u200f\u202a-\u202e\u2066-\u2069]+/gu, ' ')
}
