// One TCP connection, opened to see whether and how fast it opens, and closed again at once.
// No byte is sent on it. Name resolution, where `host` is a name, is part of the time.
// Invariant: when the promise is settled the socket is closed.

import { connect } from 'node:net'

export interface TcpOutcome {
  /** A refusal is an answer too: its RTT is as good as a handshake's. */
  readonly outcome: 'connected' | 'refused'
  readonly rttMs: number
}

/** Rejects with the system's error, or the signal's reason. `source` is the local address to come from. */
export function connectTcp(
  host: string,
  port: number,
  signal: AbortSignal,
  source?: string | undefined,
): Promise<TcpOutcome> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason)
    const startMs = performance.now()
    const socket = connect({ host, port, ...(source === undefined ? {} : { localAddress: source }) })
    const end = (settle: () => void): void => {
      signal.removeEventListener('abort', abort)
      socket.destroy()
      settle()
    }
    const abort = (): void => end(() => reject(signal.reason))
    signal.addEventListener('abort', abort)
    socket.on('connect', () => {
      const rttMs = performance.now() - startMs
      end(() => resolve({ outcome: 'connected', rttMs }))
    })
    socket.on('error', (error: NodeJS.ErrnoException) => {
      const rttMs = performance.now() - startMs
      if (error.code === 'ECONNREFUSED') end(() => resolve({ outcome: 'refused', rttMs }))
      else end(() => reject(error))
    })
  })
}
