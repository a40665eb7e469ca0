// Why a door could not be opened, in words that name the setting and say what to do.
//
// The system's codes are the same for DNS, HTTP and the echo, and so is the advice. Sockets are opened
// elsewhere; this only puts the error into words.

import { formatHostPort } from './address.ts'

const HINTS: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another program listens there: stop it or choose another port',
  EACCES: 'not allowed: ports below 1024 need root or CAP_NET_BIND_SERVICE',
  EADDRNOTAVAIL: 'this machine does not have that address',
  EINVAL: 'expected an IP address of this machine',
}

/** `setting`: the key that named the place; `cause`: what the system said. */
export function listenError(
  setting: string,
  at: { readonly host: string; readonly port: number },
  cause: NodeJS.ErrnoException,
): Error {
  const hint = HINTS[cause.code ?? ''] ?? cause.message
  return new Error(`${setting}: can't listen on ${formatHostPort(at)}: ${hint}`, { cause })
}
