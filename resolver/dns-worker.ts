// A thread that answers DNS over UDP: takes what waits at its sockets by the batch, answers, sends.
//
// Invariant: it answers from tables of its own, fed by the same calls in the same order as the core's, so the
// decision is the same function; it answers only once it was told all; mail that was posted before a packet
// came is taken before that packet is answered, unless there is much of it. Its event loop stands still:
// whatever it waits for, it waits for in the system's calls, never for long.

import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads'
import type { Geography } from './directory.ts'
import type { DnsContext } from './dns-answer.ts'
import { DnsAnswerer } from './dns-answerer.ts'
import { sharedNowMs } from './dns-clock.ts'
import { countDuration, counterRow, countFault } from './dns-counters.ts'
import { DemandCounts, isDemandProven } from './dns-demand.ts'
import { ResponseLimiter } from './dns-limit.ts'
import {
  type DnsSample,
  SIGNAL,
  type WorkerMail,
  type WorkerReport,
  type WorkerSetup,
  type WorkerStart,
} from './dns-mail.ts'
import { type MmsgSocket, WAIT_MS } from './mmsg.ts'
import { PackedLocalities } from './packed-localities.ts'
import { PacketBatch } from './packet-batch.ts'
import { PlaceReader } from './place-reader.ts'
import { Tables } from './tables.ts'
import { lowerPriority, takeShortTurns } from './thread-turns.ts'

/**
 * Mail is taken so long in one go, ms; then those who wait for answers have their turn. A few letters are always taken:
 * what the thread was kept from by others is no reason to answer with what is no more.
 */
const MAIL_MS = 2
const FEW_LETTERS = 8
/** Demand and samples are told so often, ms. */
const REPORT_EVERY_MS = 250
/** Samples kept between two reports. */
const MAX_SAMPLES = 1000
/** What is still answered after the end was asked for: all that waits, unless more comes than can be answered. */
const LAST_ANSWERS_MS = 1000
/**
 * Where there are fewer processors than threads, heartbeats and the API go before queries: the core's own thread
 * gets three fifths if it needs them. More would make answers wait behind whatever else the machine does.
 */
const NICE_STEPS = 2
/**
 * But who waits for a query is to be woken for it at once, not when another's turn is over: the shortest turn that
 * there is, us. Beside three busy threads on two processors 1 wait of 100 was over 2 ms without, 0.07 ms with it.
 */
const TURN_US = 100

/**
 * Answers until it is told to end. Throws what makes it useless: its opener starts another. `onLoaded`: all that there
 * is was taken in, and the first answer is next.
 */
export function runDnsWorker(start: WorkerStart, geography: Geography | null, onLoaded = () => {}): void {
  lowerPriority(NICE_STEPS)
  takeShortTurns(TURN_US)
  new DnsWorker(start, geography, onLoaded).run()
}

class DnsWorker {
  readonly #port: MessagePort
  readonly #signals: Int32Array
  readonly #counters: Float64Array
  readonly #setup: WorkerSetup
  readonly #places = new PlaceReader()
  readonly #tables = new Tables(this.#places)
  readonly #batch = new PacketBatch()
  readonly #answerer: DnsAnswerer
  readonly #demand = new DemandCounts()
  readonly #samples: DnsSample[] = []
  readonly #onLoaded: () => void
  readonly #address = new Uint8Array(16)
  #sockets: readonly MmsgSocket[] = []
  #serials: readonly number[] = []
  #secrets: readonly Uint8Array[] | null = null
  #mailSeen = 0
  #nowMs = 0
  #reportDueMs = 0

  constructor(
    { setup, counters, row, signals, port }: WorkerStart,
    geography: Geography | null,
    onLoaded: () => void,
  ) {
    this.#onLoaded = onLoaded
    this.#setup = setup
    this.#port = port
    this.#signals = new Int32Array(signals)
    this.#counters = counterRow(counters, row)
    this.#tables.setGeography(geography)
    this.#answerer = new DnsAnswerer({
      context: this.#context(),
      limiter: new ResponseLimiter(setup.limits, setup.accounts),
      counters: this.#counters,
      onFacts: (facts, from) => {
        if (isDemandProven(facts, from.address, setup.resolvers)) this.#demand.note(facts)
      },
      sampleEvery: setup.sampleEvery,
      onSample: (facts, from) => {
        if (this.#samples.length < MAX_SAMPLES) this.#samples.push({ facts, from })
        else countFault(this.#counters, 'unsampled')
      },
      onError: (error) => this.#tell({ kind: 'error', error }),
    })
  }

  run(): void {
    while (Atomics.load(this.#signals, SIGNAL.end) === 0) {
      const isBehind = this.#takeMail()
      if (this.#sockets.length === 1) this.#serve(this.#sockets[0]!, !isBehind)
      else this.#serveAll(isBehind ? 0 : WAIT_MS)
      if (this.#nowMs >= this.#reportDueMs) this.#report()
    }
    this.#finish()
  }

  /** Answers a batch of each of several sockets, waiting for the first packet so long at most. */
  #serveAll(waitMs: number): void {
    this.#batch.wait(this.#sockets, waitMs)
    this.#nowMs = sharedNowMs()
    for (let i = 0; i < this.#sockets.length; i++) {
      if (this.#batch.isReady(i)) this.#serve(this.#sockets[i]!, false)
    }
  }

  /** Answers one batch of a socket; how many packets there were. */
  #serve(socket: MmsgSocket, waits: boolean): number {
    const batch = this.#batch
    const count = batch.receive(socket, waits)
    this.#nowMs = sharedNowMs()
    if (count < 0) countFault(this.#counters, 'unreceived')
    // What was decided before they came counts for them.
    if (count > 0) this.#takeMail()
    for (let i = 0; i < count; i++) {
      batch.copyAddress(i, this.#address)
      const length = this.#answerer.answerInto(
        batch.bytes,
        batch.packetAt(i),
        batch.lengthOf(i),
        this.#address,
        batch.portOf(i),
        this.#nowMs,
        batch.bytes,
        batch.replyAt,
        batch.replyLimit,
      )
      if (length > 0) batch.reply(i, length)
    }
    for (let unsent = batch.send(socket); unsent > 0; unsent--) countFault(this.#counters, 'unsent')
    // One batch is one wait for all that were in it.
    if (count > 0) countDuration(this.#counters, 'udp', sharedNowMs() - this.#nowMs, count)
    return count
  }

  /** Answers what waits, then stops. */
  #finish(): void {
    const endMs = sharedNowMs() + LAST_ANSWERS_MS
    for (const socket of this.#sockets) while (this.#serve(socket, false) > 0 && this.#nowMs < endMs);
    this.#report()
  }

  // Mail.

  /** Whether there is more than could be taken in its time. */
  #takeMail(): boolean {
    const posted = Atomics.load(this.#signals, SIGNAL.mail)
    if (posted === this.#mailSeen) return false
    const untilMs = sharedNowMs() + MAIL_MS
    // What was posted before the count went up is there to be taken.
    for (let taken = 1; this.#mailSeen !== posted; taken++) {
      const letter = receiveMessageOnPort(this.#port)
      if (letter === undefined) return false
      this.#mailSeen = (this.#mailSeen + 1) | 0
      this.#read(letter.message as WorkerMail)
      if (taken >= FEW_LETTERS && sharedNowMs() >= untilMs) return true
    }
    return false
  }

  #read(mail: WorkerMail): void {
    if (mail.kind === 'places') this.#places.follow(mail.memory)
    else if (mail.kind === 'localities') this.#tables.load(PackedLocalities.over(mail.memory))
    else if (mail.kind === 'cookies') this.#secrets = mail.secrets
    else if (mail.kind === 'sockets') {
      if (this.#sockets.length === 0) {
        this.#onLoaded()
        this.#tell({ kind: 'ready' })
      }
      this.#sockets = mail.sockets
    } else {
      this.#serials = mail.serials
      this.#tables.apply(mail.changes)
    }
  }

  #report(): void {
    this.#reportDueMs = this.#nowMs + REPORT_EVERY_MS
    const demand = this.#demand.take()
    const samples = this.#samples.splice(0)
    if (demand.length > 0 || samples.length > 0) this.#tell({ kind: 'facts', demand, samples })
  }

  #tell(report: WorkerReport): void {
    this.#port.postMessage(report)
  }

  #context(): DnsContext {
    const worker = this
    const [first, ...others] = this.#setup.zones.map(({ labels, core }, at) => ({
      labels,
      core,
      get serial() {
        return worker.#serials[at] ?? 0
      },
    }))
    // One for all, since each query with a cookie asks for it.
    const cookies = {
      get secrets() {
        return worker.#secrets!
      },
      get nowSec() {
        return Math.floor(Date.now() / 1000)
      },
    }
    return {
      tables: this.#tables,
      rng: Math.random,
      operatorFrom: this.#setup.operatorFrom,
      nsid: this.#setup.nsid,
      version: this.#setup.version,
      get cookies() {
        return worker.#secrets === null ? null : cookies
      },
      zones: [first!, ...others],
    }
  }
}
