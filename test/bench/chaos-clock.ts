// Loaded before a program's own code (node --import): the wall clock is as wrong as a file says, from then on.
//
// For programs that must not know of it: it changes what Date says and nothing else, as a clock that jumps does. The
// file, named by CHAOS_CLOCK, holds ms; it is read again and again.

import { readFileSync } from 'node:fs'

const LOOK_EVERY_MS = 100
const file = process.env.CHAOS_CLOCK
const RealDate = Date
let wrongByMs = 0

function look(): void {
  try {
    wrongByMs = Number(readFileSync(file!, 'utf8'))
  } catch {
    wrongByMs = 0
  }
}

if (file !== undefined) {
  look()
  setInterval(look, LOOK_EVERY_MS).unref()
  const now = RealDate.now.bind(RealDate)
  RealDate.now = () => now() + wrongByMs
  globalThis.Date = new Proxy(RealDate, {
    apply: () => new RealDate(RealDate.now()).toString(),
    construct: (target, args, newTarget) =>
      Reflect.construct(target, args.length === 0 ? [RealDate.now()] : args, newTarget),
  })
}
