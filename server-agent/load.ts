// Where a member's load comes from: a command that prints a number, an HTTP resource that is one, or
// a function of the program that the agent runs in. What the number counts is the operator's business:
// only its ratio to the member's capacity is ever used.

import { untilAborted, withDeadline } from './deadline.ts'
import { httpGet } from './http-get.ts'
import { runShell } from './program.ts'

export type LoadSource =
  | { readonly kind: 'exec'; readonly command: string }
  | { readonly kind: 'http'; readonly url: URL }
  | { readonly kind: 'call'; readonly call: () => number | Promise<number> }

/** Above this a load is an error of counting; the protocol refuses it. */
const MAX_LOAD = 1e15
const MAX_NUMBER_BYTES = 1024

/** What `exec:COMMAND` or an http(s) URL means; null: nothing. */
export function parseLoadSource(text: string): LoadSource | null {
  if (text.startsWith('exec:')) {
    const command = text.slice('exec:'.length).trim()
    return command === '' ? null : { kind: 'exec', command }
  }
  if (!/^https?:\/\//.test(text) || !URL.canParse(text)) return null
  return { kind: 'http', url: new URL(text) }
}

/** A load from text such as "12.5\n"; null: no number, or none that can be a load. */
export function parseLoad(text: string): number | null {
  const trimmed = text.trim()
  const load = trimmed === '' ? Number.NaN : Number(trimmed)
  return load >= 0 && load <= MAX_LOAD ? load : null
}

/** The load now. Rejects with a sentence about why it can't be known. */
export async function readLoad(source: LoadSource, timeoutMs: number, stop?: AbortSignal): Promise<number> {
  const text = await withDeadline(timeoutMs, stop, (signal) => readText(source, signal))
  const load = parseLoad(text)
  if (load === null) throw new Error(`'${text.trim().slice(0, 40)}' is not a number >= 0`)
  return load
}

async function readText(source: LoadSource, signal: AbortSignal): Promise<string> {
  switch (source.kind) {
    case 'exec': {
      const { code, stdout } = await runShell(source.command, signal)
      if (code !== 0) throw new Error(code === null ? 'killed by a signal' : `exit ${code}`)
      return stdout
    }
    case 'http': {
      const { status, body } = await httpGet(source.url, MAX_NUMBER_BYTES, signal)
      if (status !== 200) throw new Error(`status ${status}`)
      return body
    }
    case 'call':
      return String(await untilAborted(source.call(), signal))
  }
}
