// Gives back what loading left behind: V8 keeps room for as much again until something else needs it.
//
// A core that loaded a million prefixes would stay eighty megabytes larger than it is. Stops the thread that
// calls it for a tenth of a second or two, so it is for the moment after loading; each thread has its own.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

type Collect = (options: {
  readonly type: 'major'
  readonly execution: 'sync'
  readonly flavor: 'last-resort'
}) => void

export function giveBackMemory(): void {
  // The one way to ask for it in a running process.
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as Collect
  // An ordinary collection frees objects and keeps their pages.
  collect({ type: 'major', execution: 'sync', flavor: 'last-resort' })
}
