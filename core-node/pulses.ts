// Pulses as their home takes them: heartbeats of one UDP packet, of hosts that have nothing to say.
//
// Invariant: a pulse renews a lease only if it was made under its host's key, in this core's session, with a
// counter above all before; so no packet counts twice. Who has no key gets no answer, and no answer is longer
// than its pulse. Each packet is counted once, by what came of it.
// Pure but for its own memory: a number for each host that ever sent a pulse. Sends nothing.

import type { Directory, Host } from '../resolver/directory.ts'
import { isPulseMade, type PulseStatus, readPulse, writePulseReply } from '../server-agent/protocol/pulse.ts'
import { TokenBuckets } from '../server-agent/protocol/token-bucket.ts'

/** What came of a packet: answered by a status, or dropped. */
export type PulseOutcome = PulseStatus | 'shape' | 'unknown' | 'mac' | 'limit'

interface PulsesOptions {
  readonly directory: Readonly<Directory>
  /** 8 random bytes, of this run alone. */
  readonly session: Uint8Array
  /** A live host was heard: renews its lease. False: this core holds none for it. */
  readonly renew: (host: Host) => boolean
  /** Whether something waits for a host that its pulse can't carry. */
  readonly hasNews: (host: Host) => boolean
}

/** Replies that renew nothing: what a fleet needs after a restart, and far too few to flood anyone with. */
const RESYNCS = { perSec: 20_000, burst: 20_000 }

export class Pulses {
  readonly counts: Record<PulseOutcome, number> = {
    ok: 0,
    call: 0,
    resync: 0,
    shape: 0,
    unknown: 0,
    mac: 0,
    limit: 0,
  }
  readonly #options: PulsesOptions
  readonly #counters = new Map<string, number>()
  readonly #resyncs = new TokenBuckets(RESYNCS)

  constructor(options: PulsesOptions) {
    this.#options = options
  }

  /** The reply to a packet; null: it gets none. Never throws. `nowMs`: a clock that never jumps. */
  receive(packet: Uint8Array, nowMs: number): Uint8Array | null {
    const { outcome, reply } = this.#judge(packet, nowMs)
    this.counts[outcome]++
    return reply
  }

  /** A host's record is gone, and with it the key that its pulses were made under. */
  forget(host: string): void {
    this.#counters.delete(host)
  }

  #judge(packet: Uint8Array, nowMs: number): { outcome: PulseOutcome; reply: Uint8Array | null } {
    const pulse = readPulse(packet)
    if (pulse === null) return { outcome: 'shape', reply: null }
    const { directory, session } = this.#options
    const host = directory.hosts.get(pulse.host)
    if (host === undefined || host.echoKey === '' || host.presence === 'left') {
      return { outcome: 'unknown', reply: null }
    }
    const key = Buffer.from(host.echoKey, 'hex')
    if (!isPulseMade(packet, key)) return { outcome: 'mac', reply: null }
    const last = this.#counters.get(host.name) ?? 0
    const isNew = Buffer.compare(pulse.session, session) === 0 && pulse.counter > last
    if (!isNew && !this.#resyncs.take('', nowMs)) return { outcome: 'limit', reply: null }
    if (isNew) this.#counters.set(host.name, pulse.counter)
    const status = isNew ? this.#hear(host) : 'resync'
    const counter = isNew ? pulse.counter : last
    const reply = writePulseReply(packet, { status, session, counter }, key)
    return { outcome: status, reply }
  }

  #hear(host: Host): PulseStatus {
    const { renew, hasNews } = this.#options
    // Who was silent comes back by what it says over HTTP: that is to be kept, and this is not worth a write.
    if (host.presence !== 'live' || !renew(host)) return 'call'
    return hasNews(host) ? 'call' : 'ok'
  }
}
