// What to do about a member that is registered and yet not answered with: one sentence for each state.
//
// Told in the reply to its registration and wherever members are listed, for people to act on.
// Pure: sentences only.

import type { MemberState } from '../../resolver/serving.ts'

export const STATE_HINTS: Partial<Record<MemberState, string>> = {
  unverified:
    'no address of its host answered an echo yet; it is tried again after 10 s, then less and less often, and at once when the member registers again: open the echo port for UDP, or make the service with verify seen or none',
  down: 'its health check fails',
  drained: 'an operator took it out; `nearcast member undrain` puts it back',
  silent: 'its host is not heard',
}
