// A line that packets take time on: a TUN device into which routing rules send what is to be slow, and out of which
// it comes again after a while. Not every kernel has a queueing discipline for that (netem); this needs none.
//
// Order within a pair is kept, as on a real line. Packets between pairs that nobody named pass at once.

import { read, write } from 'node:fs'
import koffi from 'koffi'

export const SLOW_DEVICE = 'slow0'
const MTU_BYTES = 2048
/** linux/if_tun.h: attach to a device; a layer 3 one, without a header before each packet. */
const TUNSETIFF = 0x4004_54ca
const IFF_TUN = 0x0001
const IFF_NO_PI = 0x1000
const NAME_BYTES = 16
const REQUEST_BYTES = 40

export class DelayLine {
  readonly #fd: number
  readonly #delaysMs = new Map<string, number>()

  private constructor(fd: number) {
    this.#fd = fd
  }

  /** Makes the device in this network namespace; it ends with this process. */
  static open(): DelayLine {
    const fd = openTun()
    const line = new DelayLine(fd)
    line.#next(new Uint8Array(MTU_BYTES))
    return line
  }

  /** IPv4 addresses. */
  set(a: string, b: string, byMs: number): void {
    this.#delaysMs.set(`${a} ${b}`, byMs)
    this.#delaysMs.set(`${b} ${a}`, byMs)
  }

  #next(buffer: Uint8Array): void {
    read(this.#fd, buffer, 0, buffer.length, null, (error, bytes) => {
      // The device is gone: so is its namespace.
      if (error) return
      const packet = buffer.slice(0, bytes)
      const delayMs = this.#delaysMs.get(`${addressAt(packet, 12)} ${addressAt(packet, 16)}`) ?? 0
      setTimeout(() => write(this.#fd, packet, () => {}), delayMs)
      this.#next(buffer)
    })
  }
}

function openTun(): number {
  const libc = koffi.load('libc.so.6')
  const openFile = libc.func('int open(const char *path, int flags)')
  const ioctl = libc.func('int ioctl(int fd, unsigned long request, ...)')
  const O_RDWR = 2
  const fd = openFile('/dev/net/tun', O_RDWR) as number
  if (fd < 0) throw new Error('/dev/net/tun can not be opened')
  const request = Buffer.alloc(REQUEST_BYTES)
  request.write(SLOW_DEVICE, 'latin1')
  request.writeUInt16LE(IFF_TUN | IFF_NO_PI, NAME_BYTES)
  if ((ioctl(fd, TUNSETIFF, 'void *', request) as number) < 0) throw new Error(`no device ${SLOW_DEVICE}`)
  return fd
}

function addressAt(packet: Uint8Array, at: number): string {
  return packet.subarray(at, at + 4).join('.')
}
