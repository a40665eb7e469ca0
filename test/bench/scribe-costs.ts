// What things cost in messages, each datagram or request and each reply being one, so that nothing is left out:
// orders and reports ride on heartbeats in a core, and are counted as if they did not.
//
// A repeated question within the TTL costs nothing, and is not counted as one. Pure.

/** Packets of one echo between hosts, and of one probe of a client, as agents send them. */
export const ECHO_PACKETS = 1
export const PROBE_PACKETS = 3
/** By kind, for one anycast: what a source asks, is told, and sends to the member that it was told. */
export const ANYCAST = { question: 1, answer: 1, anycast: 1 } as const
/** By kind, for one probe of a source's network, and for one echo between two hosts. */
export const PROBE = { order: 1, packets: PROBE_PACKETS, replies: PROBE_PACKETS, report: 1 } as const
export const ECHO = { order: 1, packets: ECHO_PACKETS, replies: ECHO_PACKETS, report: 1 } as const
/** By kind, for a host that joins a group or leaves it. */
export const JOIN = { request: 1, reply: 1 } as const

export function messages(kinds: Readonly<Record<string, number>>): number {
  return Object.values(kinds).reduce((sum, count) => sum + count, 0)
}

export interface AnycastCosts {
  /** Question, answer and the anycast itself: of a network that was measured, or is left unmeasured. */
  readonly withoutProbing: number
  /** Where every node of a network asks once while what was found out of it holds (a day). */
  readonly withProbing: number
  /** Where only one asks, and all the probing is for it alone. */
  readonly withProbingForItAlone: number
}

/** `askers`: sources that share one measured network. */
export function anycastCosts(probes: number, askers: number): AnycastCosts {
  const probing = probes * messages(PROBE)
  const withoutProbing = messages(ANYCAST)
  return {
    withoutProbing,
    withProbing: withoutProbing + probing / askers,
    withProbingForItAlone: withoutProbing + probing,
  }
}

export interface JoinCosts {
  /** Of a host that has its coordinate: it joins and leaves any number of groups with it. */
  readonly ofKnownHost: number
  /** Of a new host, with the echoes that give it its coordinate. */
  readonly ofNewHost: number
  /** To keep a host's coordinate, a minute. */
  readonly upkeepPerMinute: number
}

export function joinCosts(echoes: number, echoesPerMinute: number): JoinCosts {
  return {
    ofKnownHost: messages(JOIN),
    ofNewHost: messages(JOIN) + echoes * messages(ECHO),
    upkeepPerMinute: echoesPerMinute * messages(ECHO),
  }
}
