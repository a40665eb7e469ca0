// The clients' questions: nearest, neighbors, random, bootstrap, gateways.
//
// Invariant: all of them locate and select by the same functions as DNS and the redirect do, so that no
// door tells another story. How a question comes in and an answer goes out is asking.ts' to say.
// Chance settles ties where many ask at once and each once (bootstrap), or where what counts changes by the
// minute (load); whoever asks again and again to keep its links gets the same again.

import { ANY_ASK, type Ask, type Sort } from '../../resolver/ask.ts'
import { gatewayCandidates } from '../../resolver/gateway.ts'
import { viewBootstrap, viewGateways, viewMembers } from './answer-views.ts'
import { chooseBy, chooseLive, questionRoute } from './asking.ts'
import type { Api, HttpContext } from './context.ts'
import { findService, readFilters, readRing } from './question.ts'
import {
  BootstrapQuery,
  BootstrapReply,
  COUNTS,
  GatewaysQuery,
  GatewaysReply,
  NearestQuery,
  NearestReply,
  NeighborsQuery,
  RandomQuery,
  told,
} from './schemas.ts'

const MEMBERS = told('Members, best first', NearestReply)

export function answerRoutes(app: Api, context: HttpContext): void {
  nearestRoute(app, context)
  neighborsRoute(app, context)
  randomRoute(app, context)
  bootstrapRoute(app, context)
  gatewaysRoute(app, context)
}

function nearestRoute(app: Api, context: HttpContext): void {
  const route = {
    name: 'nearest',
    summary: 'The best members for a client, by the service’s policy',
    about: 'What DNS and the redirect would answer; the caller may be one of them.',
    wishes: NearestQuery,
    reply: MEMBERS,
  }
  questionRoute(app, context, route, (question, wishes) => {
    const selection = chooseBy(context, question, {
      ...readFilters(question, wishes),
      selves: ANY_ASK.selves,
      limit: wishes.k ?? COUNTS.nearest.default,
    })
    return { selection, reply: viewMembers(context, question, selection) }
  })
}

function neighborsRoute(app: Api, context: HttpContext): void {
  const route = {
    name: 'neighbors',
    summary: 'Many near live members, or those in a ring of distances; never the caller itself',
    about: 'The same for one who asks again, unless the order goes by load.',
    wishes: NeighborsQuery,
    reply: MEMBERS,
  }
  questionRoute(app, context, route, (question, wishes) => {
    const selection = chooseLive(context, question, {
      ...readFilters(question, wishes),
      ...readRing(wishes),
      ...steady(wishes.sort),
      limit: wishes.k ?? COUNTS.neighbors.default,
    })
    return { selection, reply: viewMembers(context, question, selection) }
  })
}

function randomRoute(app: Api, context: HttpContext): void {
  const route = {
    name: 'random',
    summary: 'Random live members, each equally likely; never the caller itself',
    about:
      'Drawn one after another, each from all that are left; with `join: open`, from those whose network has not its share of the list yet.',
    wishes: RandomQuery,
    reply: MEMBERS,
  }
  questionRoute(app, context, route, (question, wishes) => {
    const selection = chooseLive(context, question, {
      ...readFilters(question, wishes),
      policy: 'random',
      limit: wishes.k ?? COUNTS.random.default,
    })
    return { selection, reply: viewMembers(context, question, selection) }
  })
}

function bootstrapRoute(app: Api, context: HttpContext): void {
  const route = {
    name: 'bootstrap',
    summary: 'Near and random live members at once: what a joining node needs',
    about:
      'Near members make an overlay fast, random ones keep it in one piece. No member is in both lists. Near ones within the service’s tieMs are shared out by chance in proportion to free capacity, so that many who join at once don’t all go to the same.',
    wishes: BootstrapQuery,
    reply: told('Near members, best first, and random ones', BootstrapReply),
  }
  questionRoute(app, context, route, (question, wishes) => {
    const wanted = readFilters(question, wishes)
    const near = chooseLive(context, question, {
      ...wanted,
      policy: 'nearest',
      spread: wishes.sort ?? 'latency',
      limit: wishes.near ?? COUNTS.bootstrapNear.default,
    })
    const random = chooseLive(context, question, {
      ...wanted,
      exclude: new Set([...wanted.exclude, ...near.picks.map(({ member }) => member.name)]),
      policy: 'random',
      limit: wishes.random ?? COUNTS.bootstrapRandom.default,
    })
    return { selection: near, reply: viewBootstrap(context, question, near, random) }
  })
}

function gatewaysRoute(app: Api, context: HttpContext): void {
  const route = {
    name: 'gateways',
    summary: 'Near live members whose host is live in another service as well; never the caller itself',
    about:
      'Where two overlays meet: each member with how to reach it in this service and (`to`) in the other one.',
    wishes: GatewaysQuery,
    reply: told('Members, best first', GatewaysReply),
  }
  questionRoute(app, context, route, (question, wishes) => {
    const to = findService(context, wishes.to, 'to')
    const candidates = gatewayCandidates(context.core.tables, question.serving, to)
    const wanted = {
      ...readFilters(question, wishes),
      ...readRing(wishes),
      ...steady(wishes.sort),
      alsoIn: to,
      limit: wishes.k ?? COUNTS.gateways.default,
    }
    const found = chooseLive(context, { ...question, serving: candidates }, wanted)
    // That no candidate is live says nothing of the service.
    const isDown = !question.serving.members.some(({ isOffered }) => isOffered)
    const { ttlSec } = question.serving.service
    const selection = isDown ? found : { ...found, allDown: null, ttlSec }
    return { selection, reply: viewGateways(context, question, selection, to) }
  })
}

/** For who asks again: by distance alone, the same each time; by load, which changes, shared out by chance. */
function steady(sort: Sort = 'latency'): Pick<Ask, 'policy' | 'spread' | 'tieMs'> {
  if (sort === 'latency') return { policy: 'nearest', spread: null, tieMs: 0 }
  return { policy: 'nearest', spread: sort, tieMs: null }
}
