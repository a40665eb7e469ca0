// When the system lets a thread run, where there are fewer processors than threads that want to.
//
// Two things that are each other's price: how much of a processor a thread gets in the long run (its nice value), and
// how soon it gets one when it wakes (Linux's scheduler, EEVDF: Stoica, Abdel-Wahab 1996, lets those go first who ask for
// short turns; each thread may ask for itself since 6.12). Neither needs a privilege. Linux alone; elsewhere, and where
// the system would not, all stays as it is.

import { system } from './mmsg.ts'

/** Numbers of the calls sched_setattr and sched_getattr. */
const CALLS = { x64: { set: 314, get: 315 }, arm64: { set: 274, get: 275 } } as const
/** struct sched_attr as of its first version: size, policy, flags (64 bits), nice, priority, runtime (64 bits), ... */
const ATTRIBUTES_BYTES = 48
const RUNTIME_AT = 24
/** For these calls "the thread 0" is the calling one. */
const SELF = 0
const PRIO_PROCESS = 0

/** Lets other threads go before the calling one, by so many steps of `nice`; true: the system did. */
export function lowerPriority(steps: number): boolean {
  return system()!.setpriority(PRIO_PROCESS, SELF, steps) === 0
}

/** From now on the calling thread asks for turns of so many microseconds (100 to 100,000); true: the system took it. */
export function takeShortTurns(turnUs: number): boolean {
  const calls = CALLS[process.arch as keyof typeof CALLS]
  const { syscall } = system()!
  const attributes = new Uint8Array(ATTRIBUTES_BYTES)
  if (syscall(calls.get, SELF, attributes, ATTRIBUTES_BYTES, 0) < 0) return false
  new DataView(attributes.buffer).setBigUint64(RUNTIME_AT, BigInt(1000 * turnUs), true)
  return syscall(calls.set, SELF, attributes, 0, 0) === 0
}
