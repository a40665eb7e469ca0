// What the machine does while a server is loaded, as Linux tells it: processor time by process, memory, and how much
// of the processors others took.
//
// Interrupts are left out: the kernel charges a packet's way over loopback to whom it pleases.

import { readFileSync } from 'node:fs'
import { cpus } from 'node:os'

/** Linux counts processor time in hundredths of a second for everybody, whatever the kernel's own tick is. */
const TICKS_PER_SEC = 100

export interface Moment {
  readonly wallMs: number
  /** User and system time of all processors, s. */
  readonly allSec: number
  /** Of the server, of this process and of its children that have ended, s. */
  readonly serverSec: number
  readonly ownSec: number
}

export function momentOf(server: number): Moment {
  const [user, nice, system] = readFileSync('/proc/stat', 'utf8').split('\n')[0]!.split(/\s+/).slice(1, 4)
  const own = statOf('self')
  const served = statOf(server)
  return {
    wallMs: performance.now(),
    allSec: (Number(user) + Number(nice) + Number(system)) / TICKS_PER_SEC,
    serverSec: served.ownSec,
    ownSec: own.ownSec + own.childrenSec,
  }
}

/** The share of all processors that neither the server nor the load nor this process took between two moments. */
export function foreignShare(before: Moment, after: Moment): number {
  const ours = after.serverSec - before.serverSec + after.ownSec - before.ownSec
  const wallSec = (after.wallMs - before.wallMs) / 1000
  return Math.max(0, after.allSec - before.allSec - ours) / (wallSec * cpus().length)
}

/** Processor time of a process with all its threads, and of its children that have ended (proc(5)), s. */
function statOf(pid: number | 'self'): { ownSec: number; childrenSec: number } {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
  // The name in parentheses may hold anything; fields are counted from what follows it, which is the third.
  const fields = text
    .slice(text.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number)
  return {
    ownSec: (fields[11]! + fields[12]!) / TICKS_PER_SEC,
    childrenSec: (fields[13]! + fields[14]!) / TICKS_PER_SEC,
  }
}

/** Resident memory of a process, MiB. */
export function residentMiB(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return Math.round(Number(kib) / 1024)
}
