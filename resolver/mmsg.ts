// The system's own calls for UDP, through koffi: sockets as they are needed to take and send many packets at a time.
//
// Linux, 64 bits, little end first: x64 and arm64 alike. Where it is another system, or lacks a call, there is
// nothing of this, and node's own sockets do. What is done with the sockets is the packet batch's.

import { createRequire } from 'node:module'
import { endianness } from 'node:os'
import { getSystemErrorName } from 'node:util'
import { type Family, familyOf, isWildcard, parseAddress } from './address.ts'

/** The calls as koffi makes them: each a number, below 0 for a failure that `errno` names. */
export interface System {
  errno(): number
  /** Where bytes are in memory, for the pointers between them. */
  addressOf(bytes: ArrayBuffer): bigint
  socket(domain: number, type: number, protocol: number): number
  setsockopt(fd: number, level: number, name: number, value: Uint8Array, length: number): number
  bind(fd: number, address: Uint8Array, length: number): number
  getsockname(fd: number, address: Uint8Array, length: Uint8Array): number
  close(fd: number): number
  poll(fds: bigint, count: number, timeoutMs: number): number
  recvmmsg(fd: number, headers: bigint, count: number, flags: number, timeout: null): number
  sendmmsg(fd: number, headers: bigint, count: number, flags: number): number
  setpriority(which: number, who: number, nice: number): number
  /** A call that the C library has no function for. */
  syscall(call: number, thread: number, memory: Uint8Array, size: number, flags: number): number
}

const AF_INET = 2
const AF_INET6 = 10
const SOCK_DGRAM_CLOEXEC = 0x80002
const SOL_SOCKET = 1
const SO_SNDBUF = 7
const SO_RCVBUF = 8
const SO_REUSEPORT = 15
const SO_RCVTIMEO = 20
const SO_SNDTIMEO = 21
export const IPPROTO_IP = 0
export const IP_PKTINFO = 8
const IP_MTU_DISCOVER = 10
export const IPPROTO_IPV6 = 41
const IPV6_MTU_DISCOVER = 23
const IPV6_V6ONLY = 26
const IPV6_RECVPKTINFO = 49
export const IPV6_PKTINFO = 50
export const SOL_UDP = 17
export const UDP_SEGMENT = 103
/** Not to be fragmented, whatever anyone says of a path's MTU. */
const PMTUDISC_PROBE = 3

/** Who waits in a call has no ears for anything else, such as news or the end, ms. */
export const WAIT_MS = 10
/** Room for a burst while the worker is busy: about 20,000 queries, bytes. The system may give less. */
const RECEIVE_BUFFER_BYTES = 4 << 20
const SEND_BUFFER_BYTES = 1 << 20

/** struct sockaddr_in (16 bytes) and sockaddr_in6 (28). */
export const NAME_BYTES = 32
export const NAME_PORT_AT = 2
export const NAME_IPV4_AT = 4
export const NAME_IPV6_AT = 8

/** A socket of the process: any thread may receive and send on it. */
export interface MmsgSocket {
  readonly fd: number
  readonly family: Family
  readonly port: number
  /** Several replies to one asker may be handed over as segments of one message. */
  readonly segments: boolean
}

let loaded: System | null | undefined

/** Whether this system has what is needed here; where not, node's own sockets do. */
export function hasMmsg(): boolean {
  return system() !== null
}

/** null: not here. */
export function system(): System | null {
  loaded ??= load()
  return loaded
}

function load(): System | null {
  if (process.platform !== 'linux' || !['x64', 'arm64'].includes(process.arch) || endianness() !== 'LE')
    return null
  try {
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi')
    const libc = koffi.load(null)
    const pointer = 'void *'
    return {
      errno: () => koffi.errno(),
      addressOf: (bytes) => koffi.address(bytes),
      socket: libc.func('socket', 'int', ['int', 'int', 'int']),
      setsockopt: libc.func('setsockopt', 'int', ['int', 'int', 'int', pointer, 'uint']),
      bind: libc.func('bind', 'int', ['int', pointer, 'uint']),
      getsockname: libc.func('getsockname', 'int', ['int', pointer, pointer]),
      close: libc.func('close', 'int', ['int']),
      poll: libc.func('poll', 'int', [pointer, 'ulong', 'int']),
      recvmmsg: libc.func('recvmmsg', 'int', ['int', pointer, 'uint', 'int', pointer]),
      sendmmsg: libc.func('sendmmsg', 'int', ['int', pointer, 'uint', 'int']),
      setpriority: libc.func('setpriority', 'int', ['int', 'int', 'int']),
      syscall: libc.func('syscall', 'long', ['long', 'int', pointer, 'uint', 'uint']),
    }
  } catch {
    // No binary of koffi for this system, or a C library without these calls.
    return null
  }
}

/**
 * A socket bound to an IP address. `reusePort`: others may be bound to the same, and the system spreads who
 * asks over them. A receive or a send waits for WAIT_MS at most. Throws the system's error.
 */
export function openMmsgSocket(options: {
  readonly host: string
  readonly port: number
  readonly reusePort: boolean
}): MmsgSocket {
  const calls = system()!
  const address = parseAddress(options.host)
  if (address === null) throw failure('bind', 'EINVAL')
  const family = familyOf(address)
  const fd = must('socket', calls.socket(family === 4 ? AF_INET : AF_INET6, SOCK_DGRAM_CLOEXEC, 0))
  try {
    const set = (level: number, name: number, ...words: number[]) =>
      calls.setsockopt(fd, level, name, new Uint8Array(Int32Array.from(words).buffer), 4 * words.length)
    if (options.reusePort) must('setsockopt', set(SOL_SOCKET, SO_REUSEPORT, 1))
    if (family === 6) must('setsockopt', set(IPPROTO_IPV6, IPV6_V6ONLY, 1))
    // Replies fit into 1280 bytes, which every path carries; who tells the system of less may be lying (RFC 9715).
    if (family === 4) set(IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
    else set(IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
    if (isWildcard(options.host)) {
      must(
        'setsockopt',
        family === 4 ? set(IPPROTO_IP, IP_PKTINFO, 1) : set(IPPROTO_IPV6, IPV6_RECVPKTINFO, 1),
      )
    }
    // struct timeval: two 64-bit words, seconds and microseconds.
    const timeval = [0, 0, WAIT_MS * 1000, 0]
    must('setsockopt', set(SOL_SOCKET, SO_RCVTIMEO, ...timeval))
    must('setsockopt', set(SOL_SOCKET, SO_SNDTIMEO, ...timeval))
    // Less room costs packets in a burst, and nothing else.
    set(SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    set(SOL_SOCKET, SO_SNDBUF, SEND_BUFFER_BYTES)
    const name = new Uint8Array(NAME_BYTES)
    const view = new DataView(name.buffer)
    view.setUint16(0, family === 4 ? AF_INET : AF_INET6, true)
    view.setUint16(NAME_PORT_AT, options.port)
    if (family === 4) name.set(address.subarray(12), NAME_IPV4_AT)
    else name.set(address, NAME_IPV6_AT)
    must('bind', calls.bind(fd, name, family === 4 ? 16 : 28))
    const length = new Uint8Array(Uint32Array.of(NAME_BYTES).buffer)
    must('getsockname', calls.getsockname(fd, name, length))
    // Before Linux 4.18 they would leave as one long packet.
    const segments = set(SOL_UDP, UDP_SEGMENT, 0) === 0
    return { fd, family, port: view.getUint16(NAME_PORT_AT), segments }
  } catch (error) {
    calls.close(fd)
    throw error
  }
}

export function closeMmsgSocket(socket: MmsgSocket): void {
  system()!.close(socket.fd)
}

function must(call: string, result: number): number {
  if (result < 0) throw failure(call, getSystemErrorName(-system()!.errno()))
  return result
}

export function failure(call: string, code: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${call} ${code}`), { code, syscall: call })
}
