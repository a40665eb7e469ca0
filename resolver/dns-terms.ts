// What DNS calls things, for people: types of records, and the code on the wire that each outcome has.
//
// Invariant: the list of types is closed, so that what is counted by type takes a fixed room; all others are `other`
// there, and TYPE with their number (RFC 3597, 5) where a name is wanted. Names are IANA's.

import type { DnsOutcome } from './dns-answer.ts'

/** Types that resolvers ask an authoritative server for. */
const NAMED_TYPES: readonly (readonly [type: number, name: string])[] = [
  [1, 'A'],
  [2, 'NS'],
  [5, 'CNAME'],
  [6, 'SOA'],
  [12, 'PTR'],
  [13, 'HINFO'],
  [15, 'MX'],
  [16, 'TXT'],
  [28, 'AAAA'],
  [33, 'SRV'],
  [35, 'NAPTR'],
  [39, 'DNAME'],
  [43, 'DS'],
  [48, 'DNSKEY'],
  [52, 'TLSA'],
  [64, 'SVCB'],
  [65, 'HTTPS'],
  [251, 'IXFR'],
  [252, 'AXFR'],
  [255, 'ANY'],
  [257, 'CAA'],
]

/** What requests are counted under: `none` is a packet without a question that could be read. */
export const TYPE_LABELS: readonly string[] = ['none', 'other', ...NAMED_TYPES.map(([, name]) => name)]

const OTHER = 1
const LABEL_OF = new Uint8Array(1 + Math.max(...NAMED_TYPES.map(([type]) => type))).fill(OTHER)
LABEL_OF[0] = 0
for (const [i, [type]] of NAMED_TYPES.entries()) LABEL_OF[type] = 2 + i

/** Which of TYPE_LABELS a type is counted under; 0, which is no type that can be asked for, stands for no question. */
export function typeLabelAt(type: number): number {
  return type < LABEL_OF.length ? LABEL_OF[type]! : OTHER
}

export function typeName(type: number): string {
  const at = typeLabelAt(type)
  return at > OTHER ? TYPE_LABELS[at]! : `TYPE${type}`
}

/** What a reply is called on the wire; outcomes that are not here got no reply. */
export const RCODE_OF: Readonly<Partial<Record<DnsOutcome, string>>> = {
  answered: 'NOERROR',
  nodata: 'NOERROR',
  slipped: 'NOERROR',
  nxdomain: 'NXDOMAIN',
  refused: 'REFUSED',
  formerr: 'FORMERR',
  notimp: 'NOTIMP',
  badvers: 'BADVERS',
  badcookie: 'BADCOOKIE',
  servfail: 'SERVFAIL',
}
