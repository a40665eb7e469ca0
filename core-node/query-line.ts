// One line of the query log: the facts of one DNS packet -> JSON.
//
// Invariant: one line for each packet, whatever bytes its name has; addresses are cut to networks unless the operator
// asked for them whole. Pure: the time is an argument. Names of types are IANA's, TYPE65280 (RFC 3597) where it has none.

import { type Address, familyOf, formatAddress, formatPrefix, prefixOf } from '../resolver/address.ts'
import type { Asker, DnsFacts } from '../resolver/dns-answer.ts'
import { RCODE_OF, typeName } from '../resolver/dns-terms.ts'

/** What is kept of an address: a network of some 256 lines, or of a site (RFC 7871, 11.1, cuts at the same places). */
const CUT_BITS = { 4: 96 + 24, 6: 48 } as const

/** Without its line end. `whole`: addresses are told as they are. */
export function queryLine(facts: DnsFacts, from: Asker, epochMs: number, whole: boolean): string {
  const tell = (address: Address) =>
    whole ? formatAddress(address) : formatPrefix(prefixOf(address, CUT_BITS[familyOf(address)]))
  const { labels, type, outcome, service, member, basis, ms } = facts
  return JSON.stringify({
    time: new Date(epochMs).toISOString(),
    proto: from.via,
    asker: tell(from.address),
    ecs: facts.bySubnet && facts.client !== null ? tell(facts.client) : null,
    name: labels === null ? null : `${labels.map(printable).join('.')}.`,
    type: labels === null ? null : typeName(type),
    outcome,
    rcode: RCODE_OF[outcome] ?? null,
    service,
    member,
    basis,
    ms: Number.isNaN(ms) ? null : Math.round(ms * 10) / 10,
    queryBytes: facts.queryBytes,
    replyBytes: facts.replyBytes,
    truncated: facts.truncated,
  })
}

/** A label in the form of zone files (RFC 1035, 5.1): what is no letter, digit, hyphen or underline is escaped. */
function printable(label: string): string {
  return label.replace(/[^a-z0-9_-]/gi, (char) => {
    const code = char.charCodeAt(0)
    return code > 0x20 && code < 0x7f ? `\\${char}` : `\\${String(code).padStart(3, '0')}`
  })
}
