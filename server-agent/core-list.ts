// Which cores there are, in which order to try them, and when another is worth a change of home.
//
// They come from three places: configured, kept from an earlier run, and told by a core (the members of the
// service `core`, nearest first). Invariant: a configured core is never forgotten, a core that failed lately is
// tried after all others, and what a core tells can't lead a secret to a place where configuration would not.
// Pure but for its own memory: the clock is an argument. Talks to nobody.

import { isLoopback } from './option-values.ts'

/** A core as another core tells of it. */
export interface KnownCore {
  /** Its name: what it calls itself when it takes a host. */
  readonly name: string
  /** Without a final slash. */
  readonly url: string
  /** Round trip from this host, ms; null: not known. */
  readonly ms: number | null
}

/** A core that failed is tried after all others for so long, ms. */
const FAILED_MS = 30_000
/** Nearer by so much is clearly nearer, ms and as a share: less is noise, and a change of home costs all cores a write. */
const CLEAR_MS = 10
const CLEAR_SHARE = 0.3
/** A core is gone to for being nearer only if it was so in this many looks in a row ... */
const CLEAR_LOOKS = 2
/** ... and so long after the last change of home, ms. */
const SETTLED_MS = 600_000
/** More than these are not kept: enough to find one that is well. */
const MAX_KNOWN = 16

export class CoreList {
  /** URL of the core that is talked to now. */
  current: string
  readonly #configured: readonly string[]
  readonly #isTrusted: (url: URL) => boolean
  #told: readonly KnownCore[]
  /** The name of the core at a URL, where it told. */
  readonly #names = new Map<string, string>()
  readonly #failedMs = new Map<string, number>()
  /** Name of the core that took this host last. */
  #home: string | null = null
  #changedMs = Number.NEGATIVE_INFINITY
  #nearer: { readonly name: string; readonly looks: number } | null = null

  /** `configured`: at least one. `insecure`: http:// beyond this machine is allowed. */
  constructor(configured: readonly URL[], insecure: boolean) {
    this.#configured = [...new Set(configured.map(textOf))]
    this.current = this.#configured[0]!
    this.#told = []
    const isLocal = configured.some(({ hostname }) => isLoopback(hostname))
    this.#isTrusted = ({ protocol, hostname }) =>
      isLoopback(hostname) ? isLocal : protocol === 'https:' || insecure
  }

  /** The cores that were told of last, nearest first. */
  get told(): readonly KnownCore[] {
    return this.#told
  }

  /** Takes what a core told, or what was kept of it. True: it names other cores than before. */
  learn(cores: readonly KnownCore[]): boolean {
    const told = cores.flatMap((core) => {
      if (!URL.canParse(core.url)) return []
      const url = new URL(core.url)
      const isUsable = /^https?:$/.test(url.protocol) && url.search === '' && url.hash === '' && !url.username
      return isUsable && this.#isTrusted(url) ? [{ ...core, url: this.#urlOf(core.name, textOf(url)) }] : []
    })
    // Nobody but who answered is no list: cores always name themselves.
    if (told.length === 0) return false
    const namesBefore = this.#told.map(({ url }) => url).toSorted()
    this.#told = told.slice(0, MAX_KNOWN)
    return (
      namesBefore.join() !==
      this.#told
        .map(({ url }) => url)
        .toSorted()
        .join()
    )
  }

  /** The URLs to try, best first: near ones by what was told, in the order of configuration while that is not known. */
  candidates(nowMs: number): string[] {
    const told = this.#told.map(({ url }) => url)
    const isOrdered = this.#told.length > 0 && this.#told[0]!.ms !== null
    const all = isOrdered ? [...told, ...this.#configured] : [...this.#configured, ...told]
    const failedMs = (url: string): number =>
      this.hasFailed(url, nowMs) ? this.#failedMs.get(url)! : -Infinity
    return [...new Set(all)].toSorted((a, b) => compare(failedMs(a), failedMs(b)))
  }

  hasFailed(url: string, nowMs: number): boolean {
    return nowMs - (this.#failedMs.get(url) ?? Number.NEGATIVE_INFINITY) < FAILED_MS
  }

  /** The core there did not answer, or did not take this host. */
  fail(url: string, nowMs: number): void {
    this.#failedMs.set(url, nowMs)
  }

  /** The current core took this host, and calls itself so. */
  settle(name: string, nowMs: number): void {
    const url = this.current
    if (this.#home !== name) this.#changedMs = nowMs
    this.#home = name
    this.#failedMs.delete(url)
    this.#names.set(url, name)
    this.#nearer = null
    // By the URL at which it answered: what it tells of itself may not be good for this host.
    this.#told = this.#told.map((core) => (core.name === name ? { ...core, url } : core))
  }

  /** After a new list: the core to go to for being clearly nearer than the current one, time and again; null: none. */
  look(nowMs: number): string | null {
    const home = this.#told.find(({ url }) => url === this.current)
    const nearest = this.#told.find(({ ms, url }) => ms !== null && !this.hasFailed(url, nowMs))
    if (home === undefined || nearest === undefined || !isClearlyNearer(nearest, home)) {
      this.#nearer = null
      return null
    }
    const looks = this.#nearer?.name === nearest.name ? this.#nearer.looks + 1 : 1
    this.#nearer = { name: nearest.name, looks }
    return looks >= CLEAR_LOOKS && nowMs - this.#changedMs >= SETTLED_MS ? nearest.url : null
  }

  /** The URL at which a core of this name took this host before; else the one that it tells. */
  #urlOf(name: string, url: string): string {
    for (const [known, at] of this.#names) if (at === name) return known
    return url
  }
}

function isClearlyNearer(one: KnownCore, home: KnownCore): boolean {
  if (one.ms === null || home.ms === null || one.name === home.name) return false
  return home.ms - one.ms >= Math.max(CLEAR_MS, CLEAR_SHARE * home.ms)
}

function textOf(url: URL): string {
  return url.href.replace(/\/$/, '')
}

function compare(a: number, b: number): number {
  return a === b ? 0 : a - b
}
