// The lab's clients: they ask the core as programs on the Internet would, each from its own address.
//
// HTTP by node:http and DNS by the resolver that Node brings (c-ares), with no cache between: what they
// get is what the core says now. They know nothing of the lab but who they are.

import { Resolver } from 'node:dns/promises'
import { request } from 'node:http'
import type { Endpoint } from './network.ts'

/** A core answers from memory: one that takes longer than this is as good as gone. */
const TIMEOUT_MS = 2000

/** The best member, as HTTP told it. */
export interface Answer {
  readonly member: string
  readonly basis: string
}

/** Asks for the nearest member of `service` over HTTP. null: there is none. Rejects where no answer comes. */
export async function askHttp(http: Endpoint, from: string, service: string): Promise<Answer | null> {
  const body = await new Promise<string>((resolve, reject) => {
    const asking = request({
      host: http.address,
      port: http.port,
      path: `/v1/services/${service}/nearest`,
      localAddress: from,
      agent: false,
      signal: AbortSignal.timeout(TIMEOUT_MS),
    })
    asking.on('error', reject)
    asking.on('response', (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (part: string) => {
        text += part
      })
      response.on('error', reject)
      response.on('end', () => {
        if (response.statusCode === 200) resolve(text)
        else reject(new Error(`HTTP ${response.statusCode}: ${text.slice(0, 300)}`))
      })
    })
    asking.end()
  })
  const { members } = JSON.parse(body) as { members: { name: string; basis: string }[] }
  const [best] = members
  return best === undefined ? null : { member: best.name, basis: best.basis }
}

/** Asks for the A records of `name`. Empty: there are none. Rejects where no answer comes. */
export async function askDns(dns: Endpoint, from: string, name: string): Promise<string[]> {
  const resolver = new Resolver({ timeout: TIMEOUT_MS, tries: 1, maxTimeout: TIMEOUT_MS })
  resolver.setServers([`${dns.address}:${dns.port}`])
  resolver.setLocalAddress(from)
  try {
    return await resolver.resolve4(name)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENODATA') return []
    throw error
  }
}
