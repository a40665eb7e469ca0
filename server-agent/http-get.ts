// One GET on a connection of its own, for checks and loads: a kept connection would not notice a
// server that no longer accepts any, and would outlive the agent. Redirects are not followed.
// Invariant: when the promise is settled the connection is closed.

import { request as requestHttp } from 'node:http'
import { request as requestHttps } from 'node:https'

/** Rejects with the system's or TLS's error, or the signal's reason. Reads at most maxBytes of the body. */
export function httpGet(
  url: URL,
  maxBytes: number,
  signal: AbortSignal,
): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const request = (url.protocol === 'https:' ? requestHttps : requestHttp)(url, {
      agent: false,
      signal,
      headers: { 'user-agent': 'nearcast-agent', connection: 'close' },
    })
    request.on('error', (error) => reject(signal.aborted ? signal.reason : error))
    request.on('response', (response) => {
      const chunks: Buffer[] = []
      let bytes = 0
      const done = (): void => {
        resolve({
          status: response.statusCode ?? 0,
          body: Buffer.concat(chunks).toString('utf8', 0, maxBytes),
        })
        request.destroy()
      }
      response.on('error', (error) => reject(signal.aborted ? signal.reason : error))
      response.on('end', done)
      response.on('data', (chunk: Buffer) => {
        chunks.push(chunk)
        bytes += chunk.length
        if (bytes >= maxBytes) done()
      })
      if (maxBytes === 0) done()
    })
    request.end()
  })
}
