// The threads that answer DNS over UDP, as the core's thread keeps them: their sockets, their mail, their lives.
//
// Invariant: sockets are opened here, once, and outlive the threads that serve them: a worker that dies is
// started anew and fed anew, and others serve its sockets meanwhile; where there are none, this thread does (see
// dns-stand-in.ts). Each worker is posted the same mail in the same order. What a worker is fed while changes go on
// comes out as the directory is: records are values.

import { setImmediate as turn } from 'node:timers/promises'
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads'
import type { Change } from './directory.ts'
import type { DnsContext, PacketHandler } from './dns-answer.ts'
import type { Fault } from './dns-counters.ts'
import type { CountedDemand } from './dns-demand.ts'
import {
  type DnsSample,
  SIGNAL,
  type WorkerMail,
  type WorkerReport,
  type WorkerSetup,
  type WorkerStart,
} from './dns-mail.ts'
import { StandIn } from './dns-stand-in.ts'
import type { UdpServer } from './dns-udp.ts'
import { closeMmsgSocket, type MmsgSocket, openMmsgSocket } from './mmsg.ts'
import type { PackedLocalities } from './packed-localities.ts'
import type { PlaceMemory } from './place-reader.ts'
import type { SharedPlaces } from './place-table.ts'

/** What workers are fed with. */
export interface Feed {
  /** Localities that workers read where they are; they come before all records. */
  readonly packedLocalities: PackedLocalities
  /** All records but those and imported places, some at a time; read while changes go on. */
  records(): Iterable<readonly Change[]>
  /** Tells each change from now on, after the core's own tables took it; ends with what it returns. */
  subscribe(listener: (changes: readonly Change[]) => void): () => void
  /** Imported places, which workers read where they are. */
  sharePlaces(onMoved: (memory: PlaceMemory) => void): SharedPlaces
}

export interface WorkersOptions {
  /** At least 1. */
  readonly count: number
  /** The module that a thread runs: it calls runDnsWorker with `start` of its workerData. */
  readonly entry: URL
  /** For the entry's own use: `data` of its workerData, asked for when a worker starts. */
  readonly data: () => unknown
  readonly feed: Feed
  readonly onDemand?: (demand: CountedDemand) => void
}

interface Slot {
  readonly row: number
  /** Opened for it; while it is not there, others serve them. */
  readonly sockets: MmsgSocket[]
  /** null: it died and its successor is not started yet. */
  running: Running | null
}

interface Running {
  readonly worker: Worker
  readonly port: MessagePort
  readonly signals: Int32Array
  readonly ended: Promise<void>
  readonly startedMs: number
  /** It was posted all records. */
  isFed: boolean
  /** It answers. */
  isReady: boolean
}

/** A worker that dies again at once is started again only after so long, ms. */
const RESTART_EVERY_MS = 1000
/** Little that a worker makes is still of use a moment later: what is small is cleared up without a pause that shows, MiB. */
const YOUNG_MIB = 8
/** A worker that was told to end and does not is cut off, ms. */
const END_MS = 3000

export class DnsWorkers {
  readonly #options: WorkersOptions
  readonly #setup: WorkerSetup
  readonly #context: DnsContext
  readonly #counters: SharedArrayBuffer
  readonly #onSample: (sample: DnsSample) => void
  readonly #onError: (error: Error) => void
  readonly #slots: readonly Slot[]
  readonly #unsubscribe: () => void
  readonly #places: SharedPlaces
  #secrets: readonly Uint8Array[] | null = null
  #isClosed = false
  #restarts = 0
  readonly #standIn: StandIn
  #isStarted = false
  readonly #ready = Promise.withResolvers<void>()

  /** Starts and feeds the threads; all is answered after start(). Rows 1.. of the counters are theirs. */
  constructor(
    options: WorkersOptions,
    shared: {
      readonly setup: WorkerSetup
      /** The core's own: zones' serials and cookies are read there. */
      readonly context: DnsContext
      readonly counters: SharedArrayBuffer
      /** Answers in this thread, and counts. */
      readonly answer: PacketHandler
      /** Told of what the system would not do in this thread. */
      readonly onFault: (fault: Fault) => void
      readonly onSample: (sample: DnsSample) => void
      readonly onError: (error: Error) => void
    },
  ) {
    this.#options = options
    this.#setup = shared.setup
    this.#context = shared.context
    this.#counters = shared.counters
    this.#standIn = new StandIn(shared.answer, shared.onFault)
    this.#onSample = shared.onSample
    this.#onError = shared.onError
    this.#slots = Array.from({ length: options.count }, (_, i) => ({
      row: i + 1,
      sockets: [],
      running: null,
    }))
    this.#places = options.feed.sharePlaces((memory) => this.#postAll({ kind: 'places', memory }))
    this.#unsubscribe = options.feed.subscribe((changes) => this.#publish(changes))
    for (const slot of this.#slots) this.#start(slot)
  }

  /** How often a worker that died was started anew. */
  get restarts(): number {
    return this.#restarts
  }

  /** Opens a socket for each worker at one place; they are served after start(). Throws the system's error. */
  listen(host: string, port: number): UdpServer {
    // Bound once by itself, so that a port which another program has is refused; then shared.
    const alone = openMmsgSocket({ host, port, reusePort: false })
    closeMmsgSocket(alone)
    const opened: MmsgSocket[] = []
    const close = async () => {
      for (const socket of opened.splice(0)) this.#release(socket)
    }
    try {
      for (const slot of this.#slots) {
        const socket = openMmsgSocket({ host, port: alone.port, reusePort: true })
        opened.push(socket)
        slot.sockets.push(socket)
      }
    } catch (error) {
      void close()
      throw error
    }
    return { port: alone.port, close }
  }

  /** All workers answer, or the end came first. */
  get ready(): Promise<void> {
    return this.#ready.promise
  }

  /** From now on the sockets are served, by whoever is there. */
  start(): void {
    this.#isStarted = true
    for (const slot of this.#slots) this.#admit(slot)
    this.#handOut()
  }

  /** Answers what waits in the sockets, then ends. Idempotent. */
  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#unsubscribe()
    this.#places.end()
    this.#standIn.end()
    await Promise.all(this.#slots.map(({ running }) => running && end(running)))
    for (const { sockets } of this.#slots) for (const socket of sockets.splice(0)) closeMmsgSocket(socket)
    this.#ready.resolve()
  }

  #release(socket: MmsgSocket): void {
    for (const { sockets } of this.#slots) {
      const at = sockets.indexOf(socket)
      if (at >= 0) closeMmsgSocket(sockets.splice(at, 1)[0]!)
    }
  }

  // Lives.

  #start(slot: Slot): void {
    const { port1: port, port2 } = new MessageChannel()
    const signals = new SharedArrayBuffer(4 * SIGNAL.words)
    const start: WorkerStart = {
      setup: this.#setup,
      counters: this.#counters,
      row: slot.row,
      signals,
      port: port2,
    }
    let worker: Worker
    try {
      worker = new Worker(this.#options.entry, {
        name: `dns-${slot.row}`,
        workerData: { start, data: this.#options.data() },
        transferList: [port2],
        resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MIB },
      })
    } catch (error) {
      // The system has no thread to give, or no memory for it: it may have later.
      port.close()
      this.#onError(error as Error)
      this.#startLater(slot, RESTART_EVERY_MS)
      return
    }
    const running: Running = {
      worker,
      port,
      signals: new Int32Array(signals),
      ended: new Promise((resolve) => worker.once('exit', () => resolve())),
      startedMs: performance.now(),
      isFed: false,
      isReady: false,
    }
    slot.running = running
    port.on('message', (report: WorkerReport) => this.#hear(running, report))
    worker.on('error', this.#onError)
    worker.once('exit', () => this.#bury(slot, running))
    this.#feed(slot, running).catch(this.#onError)
  }

  #bury(slot: Slot, running: Running): void {
    running.port.close()
    slot.running = null
    if (this.#isClosed) return
    this.#restarts++
    this.#onError(new Error(`the DNS worker ${slot.row} died; it is started anew`))
    this.#handOut()
    this.#startLater(slot, RESTART_EVERY_MS - (performance.now() - running.startedMs))
  }

  #startLater(slot: Slot, afterMs: number): void {
    const restart = setTimeout(() => {
      if (!this.#isClosed) this.#start(slot)
    }, afterMs)
    restart.unref()
  }

  /** A worker that was told all answers. */
  #admit({ running, sockets }: Slot): void {
    if (this.#isStarted && running?.isFed) post(running, { kind: 'sockets', sockets })
  }

  /** Each worker that answers has its own sockets, and those of one that does not go to the next that does. */
  #handOut(): void {
    const answering = this.#slots.filter(({ running }) => running?.isReady)
    if (answering.length > 0) this.#standIn.end()
    else if (this.#isStarted) this.#standIn.begin(() => this.#slots.flatMap(({ sockets }) => sockets))
    for (const slot of answering) {
      const sockets = this.#slots
        .filter((other) => other === slot || (!answering.includes(other) && this.#heirOf(other) === slot))
        .flatMap((other) => other.sockets)
      post(slot.running!, { kind: 'sockets', sockets })
    }
  }

  #heirOf(slot: Slot): Slot | undefined {
    const at = this.#slots.indexOf(slot)
    const others = [...this.#slots.slice(at + 1), ...this.#slots.slice(0, at)]
    return others.find(({ running }) => running?.isReady)
  }

  // Mail.

  async #feed(slot: Slot, running: Running): Promise<void> {
    post(running, { kind: 'cookies', secrets: this.#context.cookies?.secrets ?? null })
    post(running, { kind: 'places', memory: this.#places.memory })
    post(running, { kind: 'localities', memory: this.#options.feed.packedLocalities.memory })
    for (const changes of this.#options.feed.records()) {
      post(running, { kind: 'changes', changes: toldToWorkers(changes), serials: this.#serials() })
      // Whatever else there is to do has its turn between two letters.
      await turn()
      if (slot.running !== running) return
    }
    running.isFed = true
    this.#admit(slot)
  }

  #publish(changes: readonly Change[]): void {
    const secrets = this.#context.cookies?.secrets ?? null
    if (secrets !== this.#secrets) {
      this.#secrets = secrets
      this.#postAll({ kind: 'cookies', secrets })
    }
    const told = toldToWorkers(changes)
    if (told.length > 0) this.#postAll({ kind: 'changes', changes: told, serials: this.#serials() })
  }

  #postAll(mail: WorkerMail): void {
    for (const { running } of this.#slots) if (running) post(running, mail)
  }

  #serials(): number[] {
    return this.#context.zones.map(({ serial }) => serial)
  }

  #hear(running: Running, report: WorkerReport): void {
    if (report.kind === 'error') this.#onError(report.error)
    else if (report.kind === 'facts') {
      for (const demand of report.demand) this.#options.onDemand?.(demand)
      for (const sample of report.samples) this.#onSample(sample)
    } else {
      running.isReady = true
      this.#handOut()
      if (this.#slots.every((slot) => slot.running?.isReady)) this.#ready.resolve()
    }
  }
}

function post({ port, signals }: Running, mail: WorkerMail): void {
  port.postMessage(mail)
  Atomics.add(signals, SIGNAL.mail, 1)
}

async function end({ worker, signals, ended }: Running): Promise<void> {
  Atomics.store(signals, SIGNAL.end, 1)
  const late = setTimeout(() => worker.terminate(), END_MS)
  await ended
  clearTimeout(late)
}

/** What answers read, without what only the core itself may know. */
function toldToWorkers(changes: readonly Change[]): Change[] {
  return changes.flatMap(({ kind, key, value }): Change[] => {
    if (kind === 'tokens' || kind === 'settings') return []
    // Its owner's thread has put the page where workers read it: this says that answers may differ from now on.
    if (kind === 'places') return [{ kind, key, value: null }]
    if (kind !== 'hosts' || value === null) return [{ kind, key, value } as Change]
    return [{ kind, key, value: { ...value, echoKey: '', credentialHash: null } }]
  })
}
