// What is done to whom and when in a run of the chaos bench: drawn from a seed, so that it repeats.
//
// Pure. At most one core and one etcd server are down at the same time, as the promises have it; ways may be cut
// and slow between any two nodes besides, so that a majority of the store may be out of reach for a while, too.
// Everything is mended by the end.

import { seededRng } from '../support/seeded-rng.ts'

export type Fault =
  /** Killed with -9, and started again. */
  | { readonly do: 'kill'; readonly node: string }
  /** Told to end by SIGTERM, and started again. */
  | { readonly do: 'restart'; readonly node: string }
  | { readonly do: 'cut'; readonly a: string; readonly b: string }
  /** Cut off from all other nodes but the clients. */
  | { readonly do: 'isolate'; readonly node: string }
  | { readonly do: 'slow'; readonly a: string; readonly b: string; readonly byMs: number }
  /** Its wall clock is wrong by so much. */
  | { readonly do: 'clock'; readonly node: string; readonly byMs: number }

export interface Step {
  readonly fault: Fault
  readonly fromMs: number
  /** Mended, or started again. */
  readonly toMs: number
}

export interface Cast {
  readonly cores: readonly string[]
  readonly etcds: readonly string[]
  readonly agents: readonly string[]
}

/** Between the starts of two faults, ms. */
const EVERY_MS = { least: 2000, most: 6000 }
/** How long one lasts, ms: shorter and longer than a lease. */
const LASTS_MS = { least: 2000, most: 18_000 }
/** More agents than these are not taken down together: clients shall have somewhere to go. */
const AGENTS_DOWN = 8
const MINUTE_MS = 60_000
const JUMPS_MS = [MINUTE_MS, 60 * MINUTE_MS, 24 * 60 * MINUTE_MS, 5 * 365 * 24 * 60 * MINUTE_MS]
const SLOW_MS = { least: 50, most: 400 }

/** How often each is drawn. */
const WEIGHTS = {
  killCore: 3,
  killEtcd: 3,
  killAgent: 6,
  restartCore: 2,
  restartAgent: 2,
  cut: 5,
  isolate: 3,
  slow: 3,
  clock: 3,
}
type Draw = keyof typeof WEIGHTS
const DRAWN = Object.entries(WEIGHTS).flatMap(([kind, weight]) => Array<Draw>(weight).fill(kind as Draw))

export function drawPlan(cast: Cast, seed: number, forMs: number): Step[] {
  const rng = seededRng(seed)
  const between = ({ least, most }: { least: number; most: number }): number => least + rng() * (most - least)
  const oneOf = <T>(list: readonly T[]): T => list[Math.floor(rng() * list.length)]!
  // A core over a store of its own has none.
  const drawn = DRAWN.filter((kind) => kind !== 'killEtcd' || cast.etcds.length > 0)
  const steps: Step[] = []
  for (let atMs = between(EVERY_MS); ; atMs += between(EVERY_MS)) {
    const toMs = atMs + between(LASTS_MS)
    const fault = drawFault(cast, oneOf(drawn), oneOf, between)
    if (toMs > forMs) return steps
    if (isAllowed(cast, steps, fault, atMs, toMs)) steps.push({ fault, fromMs: atMs, toMs })
  }
}

function drawFault(
  { cores, etcds, agents }: Cast,
  kind: Draw,
  oneOf: <T>(list: readonly T[]) => T,
  between: (range: { least: number; most: number }) => number,
): Fault {
  const pair = (): { a: string; b: string } => {
    const a = oneOf([...cores, ...etcds])
    return { a, b: oneOf([...cores, ...etcds, ...agents].filter((other) => other !== a)) }
  }
  switch (kind) {
    case 'killCore':
      return { do: 'kill', node: oneOf(cores) }
    case 'killEtcd':
      return { do: 'kill', node: oneOf(etcds) }
    case 'killAgent':
      return { do: 'kill', node: oneOf(agents) }
    case 'restartCore':
      return { do: 'restart', node: oneOf(cores) }
    case 'restartAgent':
      return { do: 'restart', node: oneOf(agents) }
    case 'cut':
      return { do: 'cut', ...pair() }
    case 'isolate':
      return { do: 'isolate', node: oneOf([...cores, ...etcds, ...agents.slice(0, cores.length)]) }
    case 'slow':
      return { do: 'slow', ...pair(), byMs: between(SLOW_MS) }
    case 'clock':
      return { do: 'clock', node: oneOf([...cores, ...agents]), byMs: oneOf([-1, 1]) * oneOf(JUMPS_MS) }
  }
}

const isDown = ({ fault }: Step): boolean => fault.do === 'kill' || fault.do === 'restart'
const nodesOf = (fault: Fault): readonly string[] => ('node' in fault ? [fault.node] : [fault.a, fault.b])

/** One thing at a time befalls a node or a pair, and no more are down than the promises allow. */
function isAllowed(cast: Cast, steps: readonly Step[], fault: Fault, fromMs: number, toMs: number): boolean {
  const meanwhile = steps.filter((step) => step.fromMs < toMs + 1000 && fromMs < step.toMs + 1000)
  const same = JSON.stringify(nodesOf(fault).toSorted())
  if (meanwhile.some((step) => JSON.stringify(nodesOf(step.fault).toSorted()) === same)) return false
  if (!isDown({ fault, fromMs, toMs })) return true
  const down = meanwhile.filter(isDown).flatMap((step) => nodesOf(step.fault))
  const [node] = nodesOf(fault)
  for (const [kind, most] of [
    [cast.cores, 1],
    [cast.etcds, 1],
    [cast.agents, AGENTS_DOWN],
  ] as const) {
    if (kind.includes(node!)) return down.filter((one) => kind.includes(one)).length < most
  }
  return true
}

/** Every core ended and started again, one after another: `settleMs` from one's start to the next one's end. */
export function rollingPlan({ cores }: Cast, downMs: number, settleMs: number): Step[] {
  return cores.map((node, i) => {
    const fromMs = settleMs / 2 + i * (downMs + settleMs)
    return { fault: { do: 'restart', node }, fromMs, toMs: fromMs + downMs }
  })
}
