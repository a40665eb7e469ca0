// One thread's packets: a batch of those received last, and the replies to them until they are sent.
//
// Invariant: all that the system reads or writes lies in one buffer at places reckoned once from constants, so that a
// batch allocates nothing. Replies leave from the address that was asked, also from sockets at a wildcard (RFC 3542, 6;
// ip(7), IP_PKTINFO). Those of one length to one asker's port leave as segments of one message (udp(7), UDP_SEGMENT):
// they are as many packets as ever, but go through most of the system once. What the system would not do is counted by
// the caller, never thrown, except for a socket that is none.

import { beginIpv4, type Family } from './address.ts'
import {
  failure,
  IP_PKTINFO,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPV6_PKTINFO,
  type MmsgSocket,
  NAME_BYTES,
  NAME_IPV4_AT,
  NAME_IPV6_AT,
  NAME_PORT_AT,
  SOL_UDP,
  system,
  UDP_SEGMENT,
} from './mmsg.ts'

/** Packets taken in one call: more gain nothing (measured: 64 against 32, a few percent). No more segments go into one message. */
const BATCH = 64
/** Nobody asks in more: what is longer is cut there, and is then no sane query. */
const PACKET_BYTES = 4096
/** Replies over UDP are at most 1232 bytes. */
const REPLY_BYTES = 1280
/** Slots of a power of two would all fall on the same lines of the processor's first cache. */
const SKEW_BYTES = 64

/** An IP packet is no longer, and so no message is. */
const MESSAGE_BYTES = 65_000
/** Places where a message is looked for that a reply may join. */
export const JOINABLE = 251

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
/**
 * struct cmsghdr and, at 16, in_pktinfo (interface first) or in6_pktinfo (interface last): 32 or 40 bytes, and behind it
 * another with the length of segments, at 16: 24 bytes.
 */
const CONTROL_BYTES = 64
const CONTROL_LEVEL_AT = 8
const CONTROL_TYPE_AT = 12
const IPV4_INTERFACE_AT = 16
const IPV6_SOURCE_AT = 16
const IPV6_INTERFACE_AT = 32
const SEGMENT_AT = 16
const SEGMENT_CONTROL_BYTES = 24
const SEGMENT_CONTROL_LENGTH = 18
/** struct pollfd. */
const POLL_BYTES = 8
const POLL_READY_AT = 6
const MSG_DONTWAIT = 0x40
const MSG_WAITFORONE = 0x10000
const POLLIN = 1
const EINTR = 4
const EBADF = 9
const EAGAIN = 11

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
  /** By reply: the packet that it is to, its length, and the next one of the same message (-1: it is the last). */
  readonly #askers = new Int32Array(BATCH)
  readonly #lengths = new Int32Array(BATCH)
  readonly #nexts = new Int32Array(BATCH)
  /** By message: its first reply, its last, and how many they are. */
  readonly #firsts = new Int32Array(BATCH)
  readonly #lasts = new Int32Array(BATCH)
  readonly #sizes = new Int32Array(BATCH)
  #messages = 0
  readonly #parted = new Int32Array(BATCH)
  /** By what askers' ports and replies' lengths come to: the message, plus one, that another such reply may join. */
  readonly #joinable = new Uint8Array(JOINABLE)
  /** All the memory; packets and replies are at offsets in it. */
  readonly bytes = new Uint8Array(this.#memory)
  #family: Family = 4
  /** Of that family's names. */
  #nameLength = 16
  #used = BATCH
  #replies = 0

  constructor() {
    for (let i = 0; i < BATCH; i++) {
      this.#point(LAYOUT.received + HEADER_BYTES * i + NAME_AT, LAYOUT.names + NAME_BYTES * i)
      this.#point(LAYOUT.received + HEADER_BYTES * i + CONTROL_AT, LAYOUT.controls + CONTROL_BYTES * i)
      this.#point(LAYOUT.received + HEADER_BYTES * i + IOV_AT, LAYOUT.iovsIn + IOV_BYTES * i)
      this.#words[(LAYOUT.received + HEADER_BYTES * i + IOV_COUNT_AT) >> 2] = 1
      this.#setIov(LAYOUT.iovsIn + IOV_BYTES * i, this.packetAt(i), PACKET_BYTES)
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
    this.#nameLength = socket.family === 4 ? 16 : 28
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
    beginIpv4(to)
    for (let byte = 0; byte < 4; byte++) to[12 + byte] = this.bytes[at + NAME_IPV4_AT + byte]!
  }

  /** Where in `bytes` the next reply is to be written ... */
  get replyAt(): number {
    return this.#replyAt(this.#replies)
  }

  #replyAt(reply: number): number {
    return LAYOUT.replies + (REPLY_BYTES + SKEW_BYTES) * reply
  }

  /** ... and how long it may be. */
  get replyLimit(): number {
    return REPLY_BYTES
  }

  /** The reply to a received packet stands at `replyAt`: it is sent with the others. */
  reply(to: number, length: number): void {
    const reply = this.#replies++
    this.#askers[reply] = to
    this.#lengths[reply] = length
    this.#nexts[reply] = -1
    const place =
      (this.#halves[(LAYOUT.names + NAME_BYTES * to + NAME_PORT_AT) >> 1]! * 31 + length) % JOINABLE
    const message = this.#joinable[place]! - 1
    if (message >= 0 && this.#joins(message, to, length)) {
      this.#nexts[this.#lasts[message]!] = reply
      this.#lasts[message] = reply
      this.#sizes[message]!++
    } else {
      this.#joinable[place] = this.#messages + 1
      this.#begin(reply)
    }
  }

  #begin(reply: number): void {
    const message = this.#messages++
    this.#firsts[message] = this.#lasts[message] = reply
    this.#sizes[message] = 1
  }

  /** Whether a reply to that packet goes the same way as those of the message, and is as long. */
  #joins(message: number, to: number, length: number): boolean {
    const first = this.#firsts[message]!
    if (this.#lengths[first] !== length || (this.#sizes[message]! + 1) * length > MESSAGE_BYTES) return false
    const other = this.#askers[first]!
    const controlLength = this.#controlLengthOf(to)
    return (
      controlLength === this.#controlLengthOf(other) &&
      this.#isSame(LAYOUT.names + NAME_BYTES * to, LAYOUT.names + NAME_BYTES * other, this.#nameLength) &&
      this.#isSame(
        LAYOUT.controls + CONTROL_BYTES * to,
        LAYOUT.controls + CONTROL_BYTES * other,
        controlLength,
      )
    )
  }

  #isSame(a: number, b: number, bytes: number): boolean {
    const words = this.#words
    for (let i = 0; i < bytes >> 2; i++) if (words[(a >> 2) + i] !== words[(b >> 2) + i]) return false
    return true
  }

  #controlLengthOf(received: number): number {
    return this.#words[(LAYOUT.received + HEADER_BYTES * received + CONTROL_LENGTH_AT) >> 2]!
  }

  /** Sends all replies, and waits for room for WAIT_MS at most; how many the system would not take. */
  send(socket: MmsgSocket): number {
    if (this.#replies === 0) return 0
    this.#joinable.fill(0)
    if (!socket.segments) this.#part(0)
    this.#layOut(0)
    let refused = 0
    for (let next = 0; next < this.#messages; ) {
      const sent = this.#system.sendmmsg(socket.fd, this.#sent[next]!, this.#messages - next, 0)
      const errno = sent < 0 ? this.#system.errno() : 0
      if (sent > 0) next += sent
      else if (errno === EAGAIN) {
        // There was no room for as long as may be waited: to wait for each would hold up all who ask.
        for (; next < this.#messages; next++) refused += this.#sizes[next]!
      } else if (errno === EINTR) continue
      else if (this.#sizes[next]! > 1) {
        // Not every way takes segments, such as one through IPsec; and of several replies one may be what is refused.
        this.#part(next)
        this.#layOut(next)
      } else {
        // It stops at the one that it does not take.
        next++
        refused++
      }
    }
    this.#replies = this.#messages = 0
    return refused
  }

  /** From one message on, each reply is a message of its own. */
  #part(from: number): void {
    const replies = this.#parted
    let count = 0
    for (let message = from; message < this.#messages; message++)
      for (let reply = this.#firsts[message]!; reply >= 0; reply = this.#nexts[reply]!)
        replies[count++] = reply
    this.#messages = from
    for (let i = 0; i < count; i++) {
      this.#nexts[replies[i]!] = -1
      this.#begin(replies[i]!)
    }
  }

  /** Writes what the system reads of the messages from one on: those before are sent. */
  #layOut(from: number): void {
    let iov = LAYOUT.iovsOut
    for (let message = from; message < this.#messages; message++) {
      const first = this.#firsts[message]!
      const header = LAYOUT.sent + HEADER_BYTES * message
      this.#point(header + NAME_AT, LAYOUT.names + NAME_BYTES * this.#askers[first]!)
      this.#words[(header + NAME_LENGTH_AT) >> 2] = this.#nameLength
      this.#point(header + IOV_AT, iov)
      this.#words[(header + IOV_COUNT_AT) >> 2] = this.#sizes[message]!
      for (let reply = first; reply >= 0; reply = this.#nexts[reply]!) {
        this.#setIov(iov, this.#replyAt(reply), this.#lengths[reply]!)
        iov += IOV_BYTES
      }
      this.#setControl(header, this.#askers[first]!, this.#sizes[message]! > 1 ? this.#lengths[first]! : 0)
    }
  }

  /** What is said of a message's way, in the place where the packet's was told; `segmentBytes` 0: it is one packet. */
  #setControl(header: number, asker: number, segmentBytes: number): void {
    const control = LAYOUT.controls + CONTROL_BYTES * asker
    let length = this.#controlLengthOf(asker)
    if (length > 0) this.#setSource(control)
    if (segmentBytes > 0) {
      const at = (control + length) >> 2
      this.#words[at] = SEGMENT_CONTROL_LENGTH
      this.#words[at + 1] = 0
      this.#words[at + (CONTROL_LEVEL_AT >> 2)] = SOL_UDP
      this.#words[at + (CONTROL_TYPE_AT >> 2)] = UDP_SEGMENT
      this.#words[at + (SEGMENT_AT >> 2)] = segmentBytes
      length += SEGMENT_CONTROL_BYTES
    }
    this.#point(header + CONTROL_AT, control)
    this.#words[(header + CONTROL_LENGTH_AT) >> 2] = length
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

  #setIov(iov: number, at: number, length: number): void {
    this.#point(iov, at)
    this.#words[(iov + IOV_LENGTH_AT) >> 2] = length
  }

  /** Writes the address of what is at an offset: two words, the low one first. */
  #point(at: number, to: number): void {
    this.#words[at >> 2] = (this.#low + to) >>> 0
    this.#words[(at >> 2) + 1] = this.#high + (this.#low + to > 0xffff_ffff ? 1 : 0)
  }
}
