// The lab's processes: a core and agents, started as anybody would start them.
//
// Invariant: whatever ends the lab, killAll leaves none of them, nor any process that they started:
// each leads a process group of its own, which also keeps a terminal's Ctrl-C from reaching them
// before the lab. What they print is kept to the last few lines, for when one fails.

import { type ChildProcess, spawn } from 'node:child_process'

/** Enough for an error and what led to it. */
const KEPT_LINES = 15

export class LabProcess {
  readonly name: string
  /** Settles when it is gone. */
  readonly gone: Promise<void>
  readonly #child: ChildProcess
  #lines: string[] = []
  #isGone = false
  #isKilled = false

  /** Starts `script` under the Node that runs us. */
  constructor(name: string, script: string, args: readonly string[], env: Readonly<Record<string, string>>) {
    this.name = name
    this.#child = spawn(process.execPath, [script, ...args], {
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...plainEnvironment(), ...env },
    })
    for (const stream of [this.#child.stdout!, this.#child.stderr!]) {
      stream.setEncoding('utf8').on('data', (text: string) => this.#keep(text))
    }
    this.gone = new Promise((resolve) => {
      this.#child.once('error', (error) => this.#keep(error.message))
      this.#child.once('close', (code, signal) => {
        this.#isGone = true
        this.#keep(`(${signal === null ? `exit code ${code}` : `killed by ${signal}`})`)
        resolve()
      })
    })
  }

  /** Whether it ended though nobody here killed it. */
  get endedByItself(): boolean {
    return this.#isGone && !this.#isKilled
  }

  /** What it printed last, and how it ended. */
  get tail(): string {
    return this.#lines.join('\n')
  }

  /** Kills it and what it started, without warning. */
  kill(): void {
    const { pid } = this.#child
    if (pid === undefined || this.#isGone) return
    this.#isKilled = true
    try {
      process.kill(-pid, 'SIGKILL')
    } catch (error) {
      // Gone in the meantime, which is what we want.
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
    }
  }

  #keep(text: string): void {
    this.#lines = [...this.#lines, ...text.trimEnd().split('\n')].slice(-KEPT_LINES)
  }
}

/** Kills all and resolves when they are gone. */
export async function killAll(processes: readonly LabProcess[]): Promise<void> {
  for (const one of processes) one.kill()
  await Promise.all(processes.map((one) => one.gone))
}

/** Our environment without settings of Nearcast: the lab's own are all that count. */
function plainEnvironment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('NEARCAST_')))
}
