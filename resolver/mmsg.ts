// UDP by the system's own calls, many packets at a time: recvmmsg and sendmmsg, called through koffi.
//
// Invariant: all that the system reads or writes lies in one buffer at places reckoned once from constants
// (Linux, 64 bits, little end first: x64 and arm64 alike), so that a batch allocates nothing. Replies leave
// from the address that was asked, also from sockets at a wildcard (RFC 3542, 6; ip(7), IP_PKTINFO). What
// the system would not do is counted by the caller, never thrown, except for a socket that is none.

import { createRequire } from 'node:module'
import { endianness } from 'node:os'
import { getSystemErrorName } from 'node:util'
import { type Family, familyOf, isWildcard, parseAddress } from './address.ts'

/** The calls as koffi makes them: each a number, below 0 for a failure that `errno` names. */
interface System {
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
const IPPROTO_IP = 0
const IP_PKTINFO = 8
const IP_MTU_DISCOVER = 10
const IPPROTO_IPV6 = 41
const IPV6_MTU_DISCOVER = 23
const IPV6_V6ONLY = 26
const IPV6_RECVPKTINFO = 49
const IPV6_PKTINFO = 50
/** Not to be fragmented, whatever anyone says of a path's MTU. */
const PMTUDISC_PROBE = 3
const MSG_DONTWAIT = 0x40
const MSG_WAITFORONE = 0x10000
const POLLIN = 1
const EINTR = 4
const EBADF = 9
const EAGAIN = 11

/** Who waits in a call has no ears for anything else, such as news or the end, ms. */
export const WAIT_MS = 10
/** Packets taken in one call: more gain nothing (measured: 64 against 32, a few percent). */
const BATCH = 64
/** Room for a burst while the worker is busy: about 20,000 queries, bytes. The system may give less. */
const RECEIVE_BUFFER_BYTES = 4 << 20
const SEND_BUFFER_BYTES = 1 << 20
/** Nobody asks in more: what is longer is cut there, and is then no sane query. */
const PACKET_BYTES = 4096
/** Replies over UDP are at most 1232 bytes. */
const REPLY_BYTES = 1280
/** Slots of a power of two would all fall on the same lines of the processor's first cache. */
const SKEW_BYTES = 64

/** struct mmsghdr: a msghdr and how long the message was. */
const HEADER_BYTES = 64
const NAME_AT = 0
const NAME_LENGTH_AT = 8
const IOV_AT = 16
const IOV_COUNT_AT = 24
const CONTROL_AT = 32
const CONTROL_LENGTH_AT = 40
const LENGTH_AT = 56
/** struct iovec. */
const IOV_BYTES = 16
const IOV_LENGTH_AT = 8
/** struct sockaddr_in (16 bytes) and sockaddr_in6 (28). */
const NAME_BYTES = 32
const NAME_PORT_AT = 2
const NAME_IPV4_AT = 4
const NAME_IPV6_AT = 8
/** struct cmsghdr and, at 16, in_pktinfo (interface first) or in6_pktinfo (interface last). */
const CONTROL_BYTES = 64
const CONTROL_LEVEL_AT = 8
const CONTROL_TYPE_AT = 12
const IPV4_INTERFACE_AT = 16
const IPV6_SOURCE_AT = 16
const IPV6_INTERFACE_AT = 32
/** struct pollfd. */
const POLL_BYTES = 8
const POLL_READY_AT = 6
/** Sockets that one thread can wait for: addresses that are listened on, and as many of others' that it stands in for. */
const MAX_SOCKETS = 1024

/** Where each kind of struct begins in the one buffer: BATCH of each. */
const LAYOUT = (() => {
  let next = 0
  const take = (bytes: number) => {
    next += Math.ceil((BATCH * bytes) / 64) * 64
    return next - Math.ceil((BATCH * bytes) / 64) * 64
  }
  return {
    received: take(HEADER_BYTES),
    sent: take(HEADER_BYTES),
    names: take(NAME_BYTES),
    controls: take(CONTROL_BYTES),
    iovsIn: take(IOV_BYTES),
    iovsOut: take(IOV_BYTES),
    polls: take((MAX_SOCKETS * POLL_BYTES) / BATCH),
    packets: take(PACKET_BYTES + SKEW_BYTES),
    replies: take(REPLY_BYTES + SKEW_BYTES),
    end: next,
  }
})()

/** A socket of the process: any thread may receive and send on it. */
export interface MmsgSocket {
  readonly fd: number
  readonly family: Family
  readonly port: number
}

let loaded: System | null | undefined

/** Whether this system has what is needed here; where not, node's own sockets do. */
export function hasMmsg(): boolean {
  return system() !== null
}

function system(): System | null {
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
    }
  } catch {
    // No binary of koffi for this system, or a C library without these calls.
    return null
  }
}

/** Lets other threads go before the calling one, by so many steps of `nice`; true: the system did. */
export function lowerPriority(steps: number): boolean {
  // For Linux "the process 0" is the calling thread.
  return system()!.setpriority(0, 0, steps) === 0
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
    return { fd, family, port: view.getUint16(NAME_PORT_AT) }
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

function failure(call: string, code: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${call} ${code}`), { code, syscall: call })
}

/** One thread's packets: those received last, and the replies to them until they are sent. */
export class PacketBatch {
  readonly #system = system()!
  readonly #memory = new ArrayBuffer(LAYOUT.end)
  readonly #base = this.#system.addressOf(this.#memory)
  readonly #low = Number(this.#base & 0xffff_ffffn)
  readonly #high = Number(this.#base >> 32n)
  readonly #received = this.#base + BigInt(LAYOUT.received)
  /** Address of each header of a reply: a send may begin at any of them. */
  readonly #sent = Array.from(
    { length: BATCH },
    (_, i) => this.#base + BigInt(LAYOUT.sent + HEADER_BYTES * i),
  )
  readonly #polls = this.#base + BigInt(LAYOUT.polls)
  readonly #words = new Uint32Array(this.#memory)
  readonly #halves = new Uint16Array(this.#memory)
  /** All the memory; packets and replies are at offsets in it. */
  readonly bytes = new Uint8Array(this.#memory)
  #family: Family = 4
  #used = BATCH
  #replies = 0

  constructor() {
    for (let i = 0; i < BATCH; i++) {
      this.#point(LAYOUT.received + HEADER_BYTES * i + NAME_AT, LAYOUT.names + NAME_BYTES * i)
      this.#point(LAYOUT.received + HEADER_BYTES * i + CONTROL_AT, LAYOUT.controls + CONTROL_BYTES * i)
      this.#setIov(LAYOUT.received, LAYOUT.iovsIn, i, this.packetAt(i), PACKET_BYTES)
      this.#setIov(LAYOUT.sent, LAYOUT.iovsOut, i, LAYOUT.replies + (REPLY_BYTES + SKEW_BYTES) * i, 0)
    }
  }

  /** Waits until one of several sockets has a packet, for so long at most; isReady tells which. */
  wait(sockets: readonly MmsgSocket[], timeoutMs: number): void {
    if (sockets.length > MAX_SOCKETS) throw new RangeError(`more than ${MAX_SOCKETS} sockets for one thread`)
    for (let i = 0; i < sockets.length; i++) {
      const at = (LAYOUT.polls + POLL_BYTES * i) >> 2
      this.#words[at] = sockets[i]!.fd
      this.#words[at + 1] = POLLIN
    }
    this.#system.poll(this.#polls, sockets.length, timeoutMs)
  }

  /** Whether there was something at the socket of this index. */
  isReady(i: number): boolean {
    return this.#halves[(LAYOUT.polls + POLL_BYTES * i + POLL_READY_AT) >> 1] !== 0
  }

  /**
   * Takes what waits at a socket, a batch at most; with `waits`, waits for the first (as long as the socket's timeout
   * lets it). How many came; -1: the system would not. Replies to those before must have been sent.
   */
  receive(socket: MmsgSocket, waits: boolean): number {
    for (let i = 0; i < this.#used; i++) {
      const at = (LAYOUT.received + HEADER_BYTES * i) >> 2
      this.#words[at + (NAME_LENGTH_AT >> 2)] = NAME_BYTES
      this.#words[at + (CONTROL_LENGTH_AT >> 2)] = CONTROL_BYTES
    }
    this.#family = socket.family
    this.#used = 0
    const flags = waits ? MSG_WAITFORONE : MSG_DONTWAIT
    const count = this.#system.recvmmsg(socket.fd, this.#received, BATCH, flags, null)
    if (count >= 0) {
      this.#used = count
      return count
    }
    const errno = this.#system.errno()
    if (errno === EBADF) throw failure('recvmmsg', 'EBADF')
    return errno === EAGAIN || errno === EINTR ? 0 : -1
  }

  /** Offset of a received packet in `bytes` ... */
  packetAt(i: number): number {
    return LAYOUT.packets + (PACKET_BYTES + SKEW_BYTES) * i
  }

  /** ... its length ... */
  lengthOf(i: number): number {
    return this.#words[(LAYOUT.received + HEADER_BYTES * i + LENGTH_AT) >> 2]!
  }

  /** ... the port that it came from ... */
  portOf(i: number): number {
    const big = this.#halves[(LAYOUT.names + NAME_BYTES * i + NAME_PORT_AT) >> 1]!
    return ((big & 0xff) << 8) | (big >> 8)
  }

  /** ... and the address, 16 bytes (IPv4 as ::ffff:0:0/96). */
  copyAddress(i: number, to: Uint8Array): void {
    const at = LAYOUT.names + NAME_BYTES * i
    if (this.#family === 6) {
      for (let byte = 0; byte < 16; byte++) to[byte] = this.bytes[at + NAME_IPV6_AT + byte]!
      return
    }
    // Byte by byte: to fill so few is a call that takes longer.
    for (let byte = 0; byte < 10; byte++) to[byte] = 0
    to[10] = to[11] = 0xff
    for (let byte = 0; byte < 4; byte++) to[12 + byte] = this.bytes[at + NAME_IPV4_AT + byte]!
  }

  /** Where in `bytes` the next reply is to be written ... */
  get replyAt(): number {
    return LAYOUT.replies + (REPLY_BYTES + SKEW_BYTES) * this.#replies
  }

  /** ... and how long it may be. */
  get replyLimit(): number {
    return REPLY_BYTES
  }

  /** The reply to a received packet stands at `replyAt`: it is sent with the others. */
  reply(to: number, length: number): void {
    const header = LAYOUT.sent + HEADER_BYTES * this.#replies
    const control = LAYOUT.controls + CONTROL_BYTES * to
    const controlLength = this.#words[(LAYOUT.received + HEADER_BYTES * to + CONTROL_LENGTH_AT) >> 2]!
    this.#point(header + NAME_AT, LAYOUT.names + NAME_BYTES * to)
    this.#words[(header + NAME_LENGTH_AT) >> 2] = this.#family === 4 ? 16 : 28
    this.#point(header + CONTROL_AT, control)
    this.#words[(header + CONTROL_LENGTH_AT) >> 2] = controlLength
    if (controlLength > 0) this.#setSource(control)
    this.#words[(LAYOUT.iovsOut + IOV_BYTES * this.#replies + IOV_LENGTH_AT) >> 2] = length
    this.#replies++
  }

  /** Sends all replies, and waits for room for WAIT_MS at most; how many the system would not take. */
  send(socket: MmsgSocket): number {
    let refused = 0
    for (let next = 0; next < this.#replies; ) {
      const sent = this.#system.sendmmsg(socket.fd, this.#sent[next]!, this.#replies - next, 0)
      const errno = sent < 0 ? this.#system.errno() : 0
      if (sent > 0) next += sent
      else if (errno === EAGAIN) {
        // There was no room for as long as may be waited: to wait for each would hold up all who ask.
        refused += this.#replies - next
        break
      } else if (errno !== EINTR) {
        // It stops at the one that it does not take.
        next++
        refused++
      }
    }
    this.#replies = 0
    return refused
  }

  /**
   * What the system told of a packet's way says on the reply where that is to leave from: the address that was
   * asked, by whatever interface the routes say; only a link-local address is none without its interface.
   */
  #setSource(control: number): void {
    const at = control >> 2
    const level = this.#words[at + (CONTROL_LEVEL_AT >> 2)]
    const type = this.#words[at + (CONTROL_TYPE_AT >> 2)]
    if (level === IPPROTO_IP && type === IP_PKTINFO) this.#words[at + (IPV4_INTERFACE_AT >> 2)] = 0
    const source = control + IPV6_SOURCE_AT
    const isLinkLocal = this.bytes[source] === 0xfe && (this.bytes[source + 1]! & 0xc0) === 0x80
    if (level === IPPROTO_IPV6 && type === IPV6_PKTINFO && !isLinkLocal) {
      this.#words[at + (IPV6_INTERFACE_AT >> 2)] = 0
    }
  }

  #setIov(headers: number, iovs: number, i: number, at: number, length: number): void {
    this.#point(headers + HEADER_BYTES * i + IOV_AT, iovs + IOV_BYTES * i)
    this.#words[(headers + HEADER_BYTES * i + IOV_COUNT_AT) >> 2] = 1
    this.#point(iovs + IOV_BYTES * i, at)
    this.#words[(iovs + IOV_BYTES * i + IOV_LENGTH_AT) >> 2] = length
  }

  /** Writes the address of what is at an offset: two words, the low one first. */
  #point(at: number, to: number): void {
    this.#words[at >> 2] = (this.#low + to) >>> 0
    this.#words[(at >> 2) + 1] = this.#high + (this.#low + to > 0xffff_ffff ? 1 : 0)
  }
}
