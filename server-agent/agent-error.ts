// The one error that the agent's users see: an option that makes no sense, or what a core said.
//
// Its message is for people and says what was wrong, what was expected and what to do; programs look
// at `code` (a closed list) and, for what a core refused, at `status`.

/**
 * - `bad-option`: `key` names it.
 * - `refused`: a core answered 4xx; trying again as before won't help.
 * - `unreachable`: no answer, or 5xx or 429; another core or another time may do.
 * - `bad-reply`: what answered doesn't speak the agent protocol.
 * - `stopped`: stop() came first.
 */
export type AgentErrorCode = 'bad-option' | 'refused' | 'unreachable' | 'bad-reply' | 'stopped'

export class AgentError extends Error {
  readonly code: AgentErrorCode
  /** The option, `members[1].url`; or the field that a core named. */
  readonly key: string | undefined
  /** HTTP status, where a core answered. */
  readonly status: number | undefined

  constructor(
    code: AgentErrorCode,
    message: string,
    more: { key?: string | undefined; status?: number | undefined; cause?: unknown } = {},
  ) {
    super(message, more.cause === undefined ? {} : { cause: more.cause })
    this.name = 'AgentError'
    this.code = code
    this.key = more.key
    this.status = more.status
  }
}

/** A core understood, and said no. */
export function isRefusal(error: unknown): error is AgentError {
  return error instanceof AgentError && error.code === 'refused'
}

/** The message of whatever was thrown, with the system's code where it has one. */
export function reasonOf(error: unknown): string {
  if (error instanceof AgentError) return error.message
  if (!(error instanceof Error)) return String(error)
  // fetch says "fetch failed" and keeps what happened in its cause.
  const cause = error.cause instanceof Error ? error.cause : error
  const code = (cause as NodeJS.ErrnoException).code
  return code === undefined || cause.message.includes(code)
    ? cause.message
    : `${code} ${cause.message}`.trim()
}
