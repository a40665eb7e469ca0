// One watch on all that cores tell each other, kept up over broken connections, and never silent unnoticed.
//
// Invariant: every revision is passed on whole, once and in order; after a break it goes on from the last one, on
// the next server. A server that hangs does not answer the requests for progress that are sent each second. One
// that is cut off from the others answers them, but has not told the newest commit, which is asked for from any
// server: then the watch goes elsewhere. (Whether it told all can't be read from the answers to those requests:
// before 3.4.25 and 3.5.8 they may overtake events, https://github.com/etcd-io/etcd/issues/15220.)

import type { EtcdConnections, EtcdError, EtcdStream } from './etcd-connections.ts'
import { readEvents, type Told } from './etcd-events.ts'
import type { EtcdKeys } from './etcd-keys.ts'
import { type Event, under, type WatchReply } from './etcd-messages.ts'

interface WatchOptions {
  readonly connections: EtcdConnections
  readonly keys: EtcdKeys
  /** What it says is in order, and nothing is left out. */
  readonly onTold: (told: readonly Told[]) => void
  /** Lists everything anew, since etcd does not tell it any more: the revision that it knows then. */
  readonly relist: () => Promise<number>
  /** Why what was told may be behind; null: it is not, up to the newest commit. */
  readonly onTrouble: (reason: string | null) => void
}

/** How a watch on one server ended. */
type End = {
  readonly reason: string
  /** It can't be gone on from there: something was missed. */
  readonly isMissing: boolean
}

const TICK_MS = 1000
/** Requests for progress that may be unanswered before the server is taken for dead. */
const UNANSWERED = 3
/** Checks in a row that find a commit which was not told. */
const BEHIND = 2
/** How long the newest commit is asked for before it is said that it can't be had. */
const CHECK = { deadlineMs: 1500, limitMs: 3000 }
const RETRY_MS = [20, 100, 300, 1000] as const

export class EtcdWatch {
  readonly #options: WatchOptions
  /** The last revision that was passed on. */
  #revision: number
  #end: ((end: End) => void) | null = null
  #stream: EtcdStream<object> | null = null
  #isOpen = false
  /** What was told is not all; until it was listed anew nothing more is. */
  #isDoubtful = false
  #isClosed = false
  /** Events whose reply goes on in the next. */
  #fragments: Event[] = []
  #wake: (() => void) | null = null

  /** Begins after `revision`. */
  constructor(options: WatchOptions, revision: number) {
    this.#options = options
    this.#revision = revision
    void this.#run()
  }

  /** What was told is not to be trusted: list all anew and go on from there. */
  doubt(reason: string): void {
    this.#isDoubtful = true
    this.#end?.({ reason, isMissing: true })
  }

  close(): void {
    this.#isClosed = true
    this.#end?.({ reason: 'closed', isMissing: false })
    this.#wake?.()
  }

  async #run(): Promise<void> {
    for (let failures = 0; !this.#isClosed; ) {
      const end = this.#isDoubtful ? { reason: 'it is listed anew', isMissing: true } : await this.#session()
      if (this.#isClosed) return
      failures = this.#isOpen ? 0 : failures + 1
      this.#isOpen = false
      this.#options.onTrouble(end.reason)
      this.#isDoubtful ||= end.isMissing
      if (this.#isDoubtful) await this.#relist()
      else await this.#pause(RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]!)
    }
  }

  async #relist(): Promise<void> {
    try {
      this.#revision = await this.#options.relist()
      this.#isDoubtful = false
    } catch (error) {
      this.#options.onTrouble((error as Error).message)
      await this.#pause(TICK_MS)
    }
  }

  /** Watches one server until that ends. */
  async #session(): Promise<End> {
    const { connections, keys } = this.#options
    let timer: NodeJS.Timeout | undefined
    this.#fragments = []
    try {
      return await new Promise<End>((resolve, reject) => {
        this.#end = resolve
        let unanswered = 0
        const onReply = (reply: WatchReply) => {
          unanswered = 0
          this.#hear(reply)
        }
        const onEnd = (error: EtcdError) => resolve({ reason: error.message, isMissing: false })
        connections.stream('Watch/Watch', onReply, onEnd).then((opened) => {
          if (this.#isClosed) return opened.cancel()
          this.#stream = opened
          const start_revision = this.#revision + 1
          opened.send({
            create_request: { ...under(keys.live), start_revision, progress_notify: true, fragment: true },
          })
          const checker = new BehindCheck()
          timer = setInterval(() => {
            if (unanswered++ >= UNANSWERED) this.#leave('it does not answer')
            else opened.send({ progress_request: {} })
            void this.#check(checker)
          }, TICK_MS)
        }, reject)
      })
    } catch (error) {
      return { reason: (error as Error).message, isMissing: false }
    } finally {
      this.#end = null
      clearInterval(timer)
      this.#stream?.cancel()
      this.#stream = null
    }
  }

  #leave(why: string): void {
    this.#stream?.avoid()
    this.#end?.({ reason: `etcd at ${this.#stream?.server}: ${why}`, isMissing: false })
  }

  #hear(reply: WatchReply): void {
    if (reply.canceled) {
      const isMissing = reply.compact_revision > 0
      const why = isMissing ? 'it keeps no longer what was missed' : reply.cancel_reason
      this.#end?.({ reason: `the watch was ended: ${why}`, isMissing })
      return
    }
    if (reply.created) {
      this.#isOpen = true
      // How far behind it begins is asked at once.
      void this.#check(new BehindCheck())
    }
    for (const event of reply.events) this.#fragments.push(event)
    if (reply.fragment || this.#fragments.length === 0) return
    const told = readEvents(this.#options.keys, this.#fragments)
    this.#fragments = []
    this.#revision = told.at(-1)!.revision
    this.#options.onTold(told)
  }

  /** Whether the newest commit was told here. */
  async #check(checker: BehindCheck): Promise<void> {
    if (checker.isRunning) return
    checker.isRunning = true
    try {
      const { kvs } = await this.#options.connections.ask('KV/Range', { key: this.#options.keys.head }, CHECK)
      checker.isRunning = false
      if (this.#end === null || !this.#isOpen) return
      const isBehind = (kvs[0]?.mod_revision ?? 0) > this.#revision
      checker.count = isBehind ? checker.count + 1 : 0
      if (!isBehind) this.#options.onTrouble(null)
      if (checker.count >= BEHIND) this.#leave('it does not tell what was committed')
    } catch (error) {
      checker.isRunning = false
      if (!this.#isClosed) this.#options.onTrouble((error as Error).message)
    }
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms)
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }
}

class BehindCheck {
  count = 0
  isRunning = false
}
