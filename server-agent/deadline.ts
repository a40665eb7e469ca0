// Waiting that can be cut short: by time, or by a signal that says stop.
//
// Invariant: nothing here leaves a timer or a listener behind (AbortSignal.any and .timeout keep theirs
// until they are collected).

/** Runs `run` with a signal that aborts after `timeoutMs` or with `parent`; its reason says which. */
export async function withDeadline<T>(
  timeoutMs: number,
  parent: AbortSignal | undefined,
  run: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController()
  const stop = (): void => controller.abort(new Error('stopped'))
  const timer = setTimeout(() => controller.abort(new Error(`no answer in ${timeoutMs} ms`)), timeoutMs)
  if (parent?.aborted) stop()
  parent?.addEventListener('abort', stop)
  try {
    return await run(controller.signal)
  } finally {
    clearTimeout(timer)
    parent?.removeEventListener('abort', stop)
  }
}

/** The value, or a rejection once the signal aborts: for what can't be stopped, only left waiting. */
export function untilAborted<T>(value: T | Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason)
    signal.addEventListener('abort', abort)
    Promise.resolve(value)
      .then(resolve, reject)
      .finally(() => signal.removeEventListener('abort', abort))
  })
}

/** Waits; or less, where `stop` aborts. */
export function pause(ms: number, stop: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer)
      stop.removeEventListener('abort', end)
      resolve()
    }
    const timer = setTimeout(end, ms)
    stop.addEventListener('abort', end)
    if (stop.aborted) end()
  })
}
