// Watches the connections of this host's members, as far as its operator allows, and tells a core how
// far their clients are. A thin shell over passive.ts: it runs `ss` and passes on what is due.
//
// Invariant: it sends no packet to any client; one listing and one report at a time; whatever fails is
// told once and tried again with the next listing.

import { reasonOf } from './agent-error.ts'
import { pause, withDeadline } from './deadline.ts'
import { type ClientRtt, ClientRtts, parseSs } from './passive.ts'
import { runProgram } from './program.ts'

export interface PassiveOptions {
  /** The members' TCP ports now. */
  readonly ports: () => readonly number[]
  /** Tells a core; rejects where none takes it. */
  readonly tell: (rtts: readonly ClientRtt[]) => Promise<void>
  readonly warn: (text: string) => void
  /** Between listings, ms. */
  readonly everyMs?: number
}

export interface PassiveWatch {
  close(): Promise<void>
}

/** Short enough to meet most connections that are worth sending elsewhere, long enough to cost nothing. */
const LIST_EVERY_MS = 10_000
const LIST_MS = 5_000
/** About 8,000 connections; of more, those that the kernel lists first: they come from everywhere all the same. */
const MAX_LIST_BYTES = 4_000_000

/** Starts watching; the first listing is made at once. */
export function openPassiveWatch(options: PassiveOptions): PassiveWatch {
  const stopping = new AbortController()
  const done = watch(options, stopping.signal)
  return {
    async close() {
      stopping.abort(new Error('stopped'))
      await done
    },
  }
}

async function watch({ ports, tell, warn, everyMs }: PassiveOptions, stop: AbortSignal): Promise<void> {
  const rtts = new ClientRtts()
  let complaint = ''
  while (!stop.aborted) {
    try {
      rtts.note(parseSs(await listConnections(ports(), stop)), performance.now())
      const due = rtts.take(performance.now())
      if (due.length > 0) await tell(due)
      complaint = ''
    } catch (error) {
      const reason = reasonOf(error)
      if (!stop.aborted && reason !== complaint) warn(`clients' round trips are not told: ${reason}`)
      complaint = reason
    }
    await pause(everyMs ?? LIST_EVERY_MS, stop)
  }
}

/** What `ss` prints of connections to these ports. */
export async function listConnections(ports: readonly number[], stop: AbortSignal): Promise<string> {
  if (ports.length === 0) return ''
  const filter = `( ${ports.map((port) => `sport = :${port}`).join(' or ')} )`
  const args = ['-tinH', 'state', 'established', filter]
  const { code, stdout } = await withDeadline(LIST_MS, stop, (signal) =>
    runProgram('ss', args, signal, MAX_LIST_BYTES),
  )
  if (code !== 0) throw new Error(`ss ended with code ${code}`)
  return stdout
}
