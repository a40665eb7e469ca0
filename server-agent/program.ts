// Runs one program to its end and reads what it prints.
// Invariant: when the promise is settled, the program and all that it started are gone, as long as they
// stayed in the process group that it was given (on Windows: the program alone).

import { spawn } from 'node:child_process'

/** More than a number or ping's lines ever need. */
const MAX_OUTPUT_BYTES = 16_384

export interface ProgramEnd {
  /** null: a signal ended it. */
  readonly code: number | null
  readonly stdout: string
}

/**
 * Rejects where it can't be started (ENOENT), or with the signal's reason after killing it. What it
 * prints beyond `maxBytes` or so is thrown away.
 */
export function runProgram(
  file: string,
  args: readonly string[],
  signal: AbortSignal,
  maxBytes: number = MAX_OUTPUT_BYTES,
): Promise<ProgramEnd> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason)
    // A group of its own, so that what a shell started can be ended with it.
    const child = spawn(file, args, {
      detached: process.platform !== 'win32',
      stdio: ['ignore', 'pipe', 'ignore'],
      env: childEnvironment(),
    })
    const kill = (): void => {
      killGroup(child.pid)
      child.stdout.destroy()
    }
    let stdout = ''
    child.stdout.setEncoding('utf8')
    child.stdout.on('data', (text: string) => {
      if (stdout.length < maxBytes) stdout += text
    })
    signal.addEventListener('abort', kill)
    const end = (settle: () => void): void => {
      signal.removeEventListener('abort', kill)
      settle()
    }
    child.on('error', (error) => end(() => reject(error)))
    // What it left in the background would hold the pipe open, and `close` would never come.
    child.on('exit', () => killGroup(child.pid))
    child.on('close', (code) =>
      end(() => (signal.aborted ? reject(signal.reason) : resolve({ code, stdout }))),
    )
  })
}

/** Messages in one language, and no secret that a check or a load command has no use for. */
function childEnvironment(): NodeJS.ProcessEnv {
  const { NEARCAST_TOKEN: _, ...env } = process.env
  return { ...env, LC_ALL: 'C' }
}

/** Runs a line in the system's shell. */
export function runShell(command: string, signal: AbortSignal): Promise<ProgramEnd> {
  if (process.platform === 'win32') return runProgram('cmd.exe', ['/d', '/s', '/c', command], signal)
  return runProgram('/bin/sh', ['-c', command], signal)
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return
  try {
    process.kill(process.platform === 'win32' ? pid : -pid, 'SIGKILL')
  } catch {
    // ESRCH: all of it has ended.
  }
}
