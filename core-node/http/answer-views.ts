// Answers as the API shows them: a question and what was selected for it -> JSON shapes of schemas.ts.
//
// Invariant: the ticket is the client's own, whatever point was measured from: nobody gets leave to report
// for a place that he only named. Picks stay in select's order.

import {
  type Address,
  type Family,
  familyOf,
  formatAddress,
  formatPrefix,
  IPV4_OFFSET_BITS,
  prefixOf,
  sameAddress,
} from '../../resolver/address.ts'
import type { Weighed } from '../../resolver/ask.ts'
import { membershipOf } from '../../resolver/gateway.ts'
import type { Selection } from '../../resolver/select.ts'
import type { ServingMember, ServingService } from '../../resolver/serving.ts'
import type { HttpContext } from './context.ts'
import type { Question } from './question.ts'
import type { AnsweredMember, BootstrapReply, Gateway, GatewaysReply, NearestReply } from './schemas.ts'

export function viewMembers(context: HttpContext, question: Question, selection: Selection): NearestReply {
  return {
    ...viewHead(context, question, selection),
    ...viewPoint(question),
    members: viewPicks(selection, question.family),
  }
}

export function viewBootstrap(
  context: HttpContext,
  question: Question,
  near: Selection,
  random: Selection,
): BootstrapReply {
  const { family } = question
  return {
    ...viewHead(context, question, near),
    near: viewPicks(near, family),
    random: viewPicks(random, family),
  }
}

/** `to`: the other service. */
export function viewGateways(
  context: HttpContext,
  question: Question,
  selection: Selection,
  to: ServingService,
): GatewaysReply {
  return {
    ...viewHead(context, question, selection),
    ...viewPoint(question),
    to: to.service.name,
    members: selection.picks.map((pick) => viewGateway(context, question, pick, to)),
  }
}

function viewGateway(
  { core }: HttpContext,
  { family }: Question,
  pick: Weighed,
  to: ServingService,
): Gateway {
  // Selected for being in both.
  const other = membershipOf(core.tables, to, pick.member.host, family)!
  return { ...viewPick(pick, family), to: { service: to.service.name, ...viewContact(other, family) } }
}

function viewHead(
  { core }: HttpContext,
  { client, point, serving, locality }: Question,
  { basis, scopeBits, ttlSec, allDown }: Selection,
): Omit<NearestReply, 'members' | 'near'> {
  return {
    service: serving.service.name,
    client: formatAddress(client),
    basis,
    scope: scopeText(point, scopeBits),
    errorMs: finite(locality.errorMs),
    ttlSec,
    allDown: allDown?.mode ?? null,
    ...(allDown?.mode === 'fallback'
      ? { fallback: { addresses: [...allDown.addresses], url: allDown.url } }
      : {}),
    ticket: core.ticketFor(client),
  }
}

function viewPoint({ client, point }: Question): { near?: string } {
  return sameAddress(point, client) ? {} : { near: formatAddress(point) }
}

function viewPicks(selection: Selection, family: Family | null): AnsweredMember[] {
  return selection.picks.map((pick) => viewPick(pick, family))
}

function viewPick({ member, ms, errorMs, basis }: Weighed, family: Family | null): AnsweredMember {
  return {
    ...viewContact(member, family),
    reachable: member.reachable,
    ms: finite(ms),
    errorMs: finite(errorMs),
    basis,
  }
}

/** How to reach a member. */
function viewContact(member: ServingMember, family: Family | null): Omit<Gateway['to'], 'service'> {
  const addresses = [...(family === 6 ? [] : member.addresses4), ...(family === 4 ? [] : member.addresses6)]
  return {
    name: member.name,
    host: member.hostName,
    addresses: addresses.map(formatAddress),
    port: member.port,
    url: member.url,
    attributes: { ...member.attributes },
  }
}

/** JSON knows no NaN and no Infinity. */
function finite(number: number): number | null {
  return Number.isFinite(number) ? number : null
}

/** The prefix of `bits` around a client, in its family's own count; no wider than that family. */
function scopeText(client: Address, bits: number): string {
  const least = familyOf(client) === 4 ? IPV4_OFFSET_BITS : 0
  return formatPrefix(prefixOf(client, Math.max(bits, least)))
}
