// One call to one core, and how long to wait between tries.
//
// Invariant: whatever a core answers, or does not, a call ends within its timeout as a reply that has
// the shape asked for, or as an AgentError. Which core to call, and when, is the caller's decision.

import { Compile } from 'typebox/compile'
import { AgentError, isRefusal, reasonOf } from './agent-error.ts'
import { withDeadline } from './deadline.ts'
import { ProblemDocument } from './protocol/messages.ts'

/** The largest reply is a full heartbeat's orders or 1,000 members: well under 1 MB. */
const MAX_REPLY_BYTES = 4_000_000

const Problem = Compile(ProblemDocument)

/** A compiled schema of what is expected. */
export interface Shape<T> {
  Check(value: unknown): value is T
}

export interface Call<T> {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  /** Beginning with /v1/, query and all. */
  readonly path: string
  /** Token or credential; null: none. */
  readonly bearer: string | null
  readonly body?: unknown
  /** null: the reply's body is of no interest. */
  readonly reply: Shape<T> | null
  readonly timeoutMs: number
  readonly stop?: AbortSignal
}

/** `core`: its URL without a final slash. Rejects with AgentError `unreachable`, `refused` or `bad-reply`. */
export async function callCore<T>(core: string, call: Call<T>): Promise<T> {
  const { status, text } = await withDeadline(call.timeoutMs, call.stop, (signal) =>
    exchange(core + call.path, call, signal),
  ).catch((error: unknown) => {
    throw new AgentError('unreachable', `no answer from ${core}: ${reasonOf(error)}`, { cause: error })
  })
  const body = parseJson(text)
  if (status < 200 || status > 299) throw refusal(core, status, body)
  if (call.reply === null) return undefined as T
  if (!call.reply.Check(body)) {
    throw new AgentError(
      'bad-reply',
      `${core} answers ${call.method} ${call.path} with something else than the agent protocol; is it a Nearcast core?`,
      { status },
    )
  }
  return body
}

function refusal(core: string, status: number, body: unknown): AgentError {
  const problem = Problem.Check(body) ? body : null
  const said = problem === null ? `status ${status}` : `${problem.title}: ${problem.detail}`
  const later = status >= 500 || status === 429 || status < 400
  // A 4xx without a problem document comes from something else: a proxy, another web server.
  const code = later ? 'unreachable' : problem === null ? 'bad-reply' : 'refused'
  return new AgentError(code, `${core} says ${said}`, { status, key: problem?.field })
}

async function exchange(
  url: string,
  call: Call<unknown>,
  signal: AbortSignal,
): Promise<{ status: number; text: string }> {
  const response = await fetch(url, {
    method: call.method,
    signal,
    // A redirect could carry the token elsewhere.
    redirect: 'manual',
    headers: {
      accept: 'application/json',
      ...(call.bearer === null ? {} : { authorization: `Bearer ${call.bearer}` }),
      ...(call.body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    body: call.body === undefined ? null : JSON.stringify(call.body),
  })
  return { status: response.status, text: await readBounded(response) }
}

async function readBounded(response: Response): Promise<string> {
  const decoder = new TextDecoder()
  let text = ''
  for await (const chunk of response.body ?? []) {
    text += decoder.decode(chunk, { stream: true })
    // Leaving the loop cancels the rest of the body.
    if (text.length > MAX_REPLY_BYTES) throw new Error(`a reply of more than ${MAX_REPLY_BYTES} bytes`)
  }
  return text + decoder.decode()
}

/** undefined for what is no JSON: no schema accepts that. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/**
 * How long to wait after so many failures in a row, ms: 0.25 s doubling to 8 s, at least half of it
 * and the rest by chance, so that a core that comes back is not met by all agents at once. No longer,
 * since a try costs a core no more than the heartbeats that it is used to.
 */
export function backoffMs(failures: number, random: () => number): number {
  const fullMs = Math.min(8000, 250 * 2 ** (failures - 1))
  return fullMs / 2 + (fullMs / 2) * random()
}

/** A restarted agent that lost its credential waits so long for its own old lease to end; then the name is another's, ms ... */
const RECLAIM_MS = 30_000
/** ... or for so many leases, where that is longer: its lease may have been renewed just before, and others are asked about it. */
const RECLAIM_LEASES = 2

/** At the first join, what no waiting will mend. A name that is taken may be this host's own old lease. */
export function isFinal(error: unknown, waitedMs: number, leaseSec = 0): boolean {
  if (!isRefusal(error)) return false
  return error.status !== 409 || waitedMs > Math.max(RECLAIM_MS, RECLAIM_LEASES * leaseSec * 1000)
}
