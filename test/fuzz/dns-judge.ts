// What holds of every reply, whatever the packet: said by another's codec (dns-packet), not by the server's own.

import packet from 'dns-packet'

const HEADER_BYTES = 12
const MOST_UDP_BYTES = 1232
const PLAIN_UDP_BYTES = 512
const MOST_TCP_BYTES = 65_535

/** What is wrong with a reply: null, or one sentence. `truncated` replies say so themselves. */
export function judgeReply(query: Buffer, reply: Buffer, via: 'udp' | 'tcp'): string | null {
  if (reply.length < HEADER_BYTES) return `a reply of ${reply.length} bytes`
  if (query.length < HEADER_BYTES || query[2]! & 0x80) return 'a reply to what is no query'
  if (reply.readUInt16BE(0) !== query.readUInt16BE(0)) return 'not the id that was asked with'
  if ((reply[2]! & 0xf9) !== ((query[2]! & 0x79) | 0x80)) return 'QR, opcode or RD are not as they must be'
  if (reply[3]! & 0xf0) return 'RA, Z, AD or CD are set'
  return judgeLength(query, reply, via) ?? judgeQuestion(query, reply) ?? judgeRecords(reply)
}

function judgeLength(query: Buffer, reply: Buffer, via: 'udp' | 'tcp'): string | null {
  const most = via === 'tcp' ? MOST_TCP_BYTES : mostUdpBytes(query, reply)
  return reply.length <= most ? null : `${reply.length} bytes where ${most} may be`
}

/** What the query says that it can take, where another can read it; else by whether the reply speaks EDNS. */
function mostUdpBytes(query: Buffer, reply: Buffer): number {
  if (reply.readUInt16BE(10) === 0) return PLAIN_UDP_BYTES
  try {
    const opt = packet.decode(query).additionals?.find(({ type }) => type === 'OPT')
    const { udpPayloadSize = MOST_UDP_BYTES } = (opt ?? {}) as { udpPayloadSize?: number }
    return Math.min(Math.max(udpPayloadSize, PLAIN_UDP_BYTES), MOST_UDP_BYTES)
  } catch {
    return MOST_UDP_BYTES
  }
}

/** The question byte for byte, or none; and never an answer to none. */
function judgeQuestion(query: Buffer, reply: Buffer): string | null {
  const questions = reply.readUInt16BE(4)
  if (questions > 1) return `${questions} questions`
  if (questions === 0) return reply.readUInt16BE(6) === 0 ? null : 'an answer without its question'
  let end = HEADER_BYTES
  while (end < reply.length && reply[end] !== 0) end += 1 + reply[end]!
  end += 5
  return query.subarray(HEADER_BYTES, end).equals(reply.subarray(HEADER_BYTES, end))
    ? null
    : 'not the question that was asked'
}

function judgeRecords(reply: Buffer): string | null {
  const rcode = reply[3]! & 15
  const isTruncated = (reply[2]! & 2) !== 0
  const answers = reply.readUInt16BE(6)
  if (answers > 0 && (rcode !== 0 || isTruncated)) return `${answers} answers with rcode ${rcode} or TC`
  try {
    packet.decode(reply)
  } catch (error) {
    return `it can't be read: ${(error as Error).message}`
  }
  const { bytes } = packet.decode as unknown as { bytes: number }
  return bytes === reply.length ? null : `${reply.length - bytes} bytes behind its end`
}
