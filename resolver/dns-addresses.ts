// UDP at all addresses of this machine: a socket at each, beside the wildcard's own.
//
// Invariant: a reply leaves from the address that was asked. From a socket at the wildcard it would leave
// from the one that the routes prefer, and resolvers drop what comes from elsewhere than they asked; Node
// tells no socket where a packet was sent to. Addresses that come and go are followed; until a new one has
// its socket, and for link-local ones, which need a zone, the wildcard's answers. TCP needs none of this.

import { networkInterfaces } from 'node:os'
import type { UdpServer } from './dns-udp.ts'

/** `wildcard`: 0.0.0.0 or ::, whose addresses are looked for anew each `everyMs`. */
export async function openUdpAtAll(options: {
  readonly wildcard: string
  readonly port: number
  readonly everyMs: number
  readonly open: (host: string, port: number) => Promise<UdpServer>
  readonly onError: (error: Error) => void
}): Promise<UdpServer> {
  const { wildcard, open, onError } = options
  const everywhere = await open(wildcard, options.port)
  const { port } = everywhere
  const own = new Map<string, UdpServer>()

  const follow = async () => {
    const present = ownAddresses(wildcard)
    const gone = [...own.keys()].filter((address) => !present.includes(address))
    for (const address of gone) {
      await own.get(address)!.close()
      own.delete(address)
    }
    for (const address of present) {
      if (!own.has(address)) await open(address, port).then((socket) => own.set(address, socket), passOver)
    }
  }

  let following = follow()
  const closeAll = async () => {
    await Promise.all([everywhere, ...own.values()].map((socket) => socket.close()))
  }
  await following.catch(async (error) => {
    await closeAll()
    throw error
  })
  const timer = setInterval(() => {
    following = following.then(follow).catch(onError)
  }, options.everyMs)
  return {
    port,
    close: async () => {
      clearInterval(timer)
      await following
      await closeAll()
    },
  }
}

/**
 * An address on its way in (an IPv6 one is first tried for being taken) or out: there is a next time. One that came
 * after the right to the port was given up is the wildcard's.
 */
function passOver(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EADDRNOTAVAIL' && error.code !== 'EACCES') throw error
}

/** This machine's addresses of the wildcard's family. */
function ownAddresses(wildcard: string): string[] {
  const family = wildcard === '::' ? 'IPv6' : 'IPv4'
  const all = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? [])
  return all.filter((a) => a.family === family && !a.address.startsWith('fe80')).map((a) => a.address)
}
