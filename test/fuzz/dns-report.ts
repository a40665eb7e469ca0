// What a run over many packets found: counts by outcome, what was wrong with which packet, and what took long.

/** No more of them are told: the first ones show what is wrong. */
const MOST_TOLD = 20
/** Whoever reads a report wants to send the packet again, not to read megabytes. */
const MOST_HEX_BYTES = 600

export interface Fault {
  readonly what: string
  /** The packet that it happened with, in hex. */
  readonly packet: string
}

export class Report {
  packets = 0
  faultCount = 0
  readonly outcomes: Record<string, number> = {}
  readonly faults: Fault[] = []
  /** The most time that answering one packet took, each time that it was tried, ms. */
  slowestMs = 0
  /** The longest that the server's event loop did not come round for work of its own, ms. */
  longestStallMs = 0

  count(outcome: string): void {
    this.packets++
    this.outcomes[outcome] = (this.outcomes[outcome] ?? 0) + 1
  }

  blame(what: string, packet: Uint8Array): void {
    this.faultCount++
    if (this.faults.length < MOST_TOLD)
      this.faults.push({ what, packet: Buffer.from(packet.subarray(0, MOST_HEX_BYTES)).toString('hex') })
  }
}
