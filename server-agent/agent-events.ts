// What an Agent tells its program: the events, and the facts that come with them.
//
// Facts are values: they don't change after they were told. None holds a secret (a token, a credential
// or a prober's key), so that they may be logged as they are.

import type { Health } from './check.ts'
import type { MemberReply, Order, OrderResult } from './protocol/messages.ts'

/** What joining told. */
export interface Joined {
  /** URL of the core. */
  readonly core: string
  /** Name of that core, which holds the lease. */
  readonly home: string
  readonly host: string
  readonly addresses: readonly string[]
  readonly publicAddress: string
  readonly publicPort: number
  /** Whether the echo answers from outside; null: not known yet. */
  readonly reachable: boolean | null
  readonly members: readonly MemberReply[]
}

export interface AgentEvents {
  joined: [Joined]
  /** No core answers as it should; `core` is the one left. Another `joined` follows when one does. */
  lost: [{ readonly core: string; readonly reason: string }]
  health: [
    { readonly service: string; readonly member: string; readonly health: Health; readonly detail: string },
  ]
  /** An order was carried out, or refused; `target` is an address or, of a check, its text. */
  order: [{ readonly kind: Order['kind']; readonly target: string; readonly result: OrderResult }]
  /** Something an operator should know; the agent goes on. */
  warning: [string]
}
