// Finds a core that answers: asks one after another which cores are near, without waiting for the silent ones.
//
// As RFC 8305 has it for addresses ("happy eyeballs"): the next is asked when the one before has failed, or has not
// answered for a quarter of a second, and the first answer wins. So however many cores are dead, or hang, the
// search takes little longer than the first live one does. Decides nothing about who becomes the home.

import { Type } from 'typebox'
import { Compile } from 'typebox/compile'
import { AgentError } from './agent-error.ts'
import { ask, NearMember } from './answers.ts'
import { callCore } from './core-client.ts'
import type { KnownCore } from './core-list.ts'
import { pause } from './deadline.ts'

/** Much longer than a round trip in one region, much shorter than a lease, ms. */
const STAGGER_MS = 250
/** A core that has not answered by then is as good as gone, ms: TCP and TLS take four round trips. */
const ASK_MS = 1500
/** As many cores as a host wants to know of. */
const CORES_ASKED = 8

const CoresShape = Compile(Type.Object({ members: Type.Array(NearMember) }))

export interface Found {
  /** The core that answered. */
  readonly url: string
  /** What it told; empty: it knows nothing of other cores, or does not say so to this host. */
  readonly cores: readonly KnownCore[]
  /** Who was asked before it, and failed or is still silent. */
  readonly silent: readonly string[]
}

/** Asks one core for the cores near this host. Rejects with AgentError. */
export async function askForCores(
  url: string,
  bearer: string | null,
  timeoutMs: number,
  stop?: AbortSignal,
): Promise<readonly KnownCore[]> {
  const asking = ask('core', 'nearest', { k: CORES_ASKED }, CoresShape)
  const { members } = await callCore(url, { ...asking, bearer, timeoutMs, ...(stop && { stop }) })
  return members.flatMap((member) =>
    member.url === null
      ? []
      : [{ name: member.name, url: member.url, ms: member.basis === 'none' ? null : member.ms }],
  )
}

/** The first of the cores that answers. Rejects with the first one's error where none does, and when `stop` aborts. */
export async function findCore(urls: readonly string[], stop: AbortSignal): Promise<Found> {
  const asking = new AbortController()
  const end = (): void => asking.abort(new Error('stopped'))
  stop.addEventListener('abort', end)
  if (stop.aborted) end()
  const answers: Promise<Found>[] = []
  try {
    for (const url of urls) {
      answers.push(answerOf(url, asking.signal))
      // All that were asked failed: the next is asked at once.
      const first = Promise.any(answers).catch(() => null)
      const found = await Promise.race([first, pause(STAGGER_MS, asking.signal)])
      if (found) return { ...found, silent: urls.slice(0, answers.length).filter((one) => one !== found.url) }
    }
    return await Promise.any(answers)
  } catch (error) {
    throw error instanceof AggregateError ? error.errors[0] : error
  } finally {
    end()
    stop.removeEventListener('abort', end)
  }
}

/** What answers in some other way is there all the same: whether it takes this host, only a join can tell. */
async function answerOf(url: string, stop: AbortSignal): Promise<Found> {
  try {
    return { url, cores: await askForCores(url, null, ASK_MS, stop), silent: [] }
  } catch (error) {
    if (error instanceof AgentError && error.code !== 'unreachable') return { url, cores: [], silent: [] }
    throw error
  }
}
