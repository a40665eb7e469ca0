// The core: what a request, a report or the passing of time means, put together from the pure rules.
//
// registry/ decides what a request becomes, liveness.ts who is there, measuring/ what to find out next;
// the ledger commits and publishes; the tables that all answers read follow. No timers of its own:
// whoever opened it calls tick().

import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Store } from '../db/store.ts'
import {
  type Address,
  familyOf,
  formatAddress,
  formatPrefix,
  localityPrefix,
  parseAddress,
} from '../resolver/address.ts'
import {
  type Change,
  type Directory,
  type Geography,
  type Host,
  type Member,
  memberKey,
  type Service,
  type Token,
} from '../resolver/directory.ts'
import type { PackedLocalities } from '../resolver/packed-localities.ts'
import { inAddressOrder, type PlaceEntry, placeChanges } from '../resolver/place-page.ts'
import type { PlaceMemory } from '../resolver/place-reader.ts'
import { PlaceTable, type SharedPlaces } from '../resolver/place-table.ts'
import { Tables } from '../resolver/tables.ts'
import type { EchoSocket } from '../server-agent/protocol/echo-socket.ts'
import {
  type Beat,
  HEARTBEATS_PER_LEASE,
  type HeartbeatReply,
  type HeartbeatRequest,
  type HostReply,
  type HostRequest,
  type MeasurementReply,
  type MeasurementRequest,
  type MemberReply,
  type MemberRequest,
  type OrderResult,
} from '../server-agent/protocol/messages.ts'
import { isPulseLike, SESSION_BYTES } from '../server-agent/protocol/pulse.ts'
import { AddressProofs } from './address-proofs.ts'
import { type ClusterStatus, Cores } from './cores.ts'
import { Counters } from './counters.ts'
import { Homes } from './homes.ts'
import { FOLLOWS, Ledger, type Log } from './ledger.ts'
import { Liveness } from './liveness.ts'
import { Measuring, type Sample } from './measuring/measuring.ts'
import { Problem } from './problem.ts'
import { type PulseOutcome, Pulses } from './pulses.ts'
import { ensureAdminToken } from './registry/admin-token.ts'
import type { Applied, Books } from './registry/books.ts'
import { type Caller, requireAdmin } from './registry/caller.ts'
import {
  CredentialIndex,
  checkTicket,
  hashSecret,
  matchesHash,
  newCredential,
  newTokenSecret,
  signTicket,
} from './registry/credentials.ts'
import { foundingChanges } from './registry/founding.ts'
import { coreLeaves } from './registry/hand-over.ts'
import { type Enrolment, forgotten, removeHost } from './registry/hosts.ts'
import { putHostWithMembers } from './registry/joining.ts'
import { putMember, removeMember, setDrained } from './registry/members.ts'
import { healthChanges, heardChanges, loadChanges } from './registry/reports.ts'
import { putService, removeService, type ServiceRequest } from './registry/services.ts'
import { cookieSecrets, currentCookieSecret, dueSecrets, ticketKey } from './registry/shared-secrets.ts'
import { stamped } from './registry/stamps.ts'
import { STATE_HINTS } from './registry/state-hints.ts'
import { TELLING_ALONE, TELLING_SHARED, type Telling } from './registry/telling.ts'
import { createToken, revokeToken, type TokenRequest } from './registry/tokens.ts'
import type { Config } from './settings/config.ts'
import { type Clock, SteadyClock } from './steady-clock.ts'
import { VERSION } from './version.ts'

/** The peer of a request: after trusted proxies were looked through. */
export interface Peer {
  readonly address: Address
  readonly port: number
}

export interface CoreStatus {
  readonly name: string
  readonly version: string
  /** Several: by commas. */
  readonly zone: string
  readonly uptimeSec: number
  readonly ready: boolean
  /** Why not ready, or what works only in part: a sentence each. */
  readonly degraded: readonly string[]
  readonly services: number
  readonly hosts: { readonly live: number; readonly silent: number; readonly left: number }
  readonly members: { readonly live: number; readonly other: number }
  /** Client prefixes of which something was measured, and those that imports told the place of. */
  readonly localities: number
  readonly places: number
  readonly store: string
  /** null: no other core shares the store. */
  readonly cluster: ClusterStatus | null
  readonly geography: string
  readonly counters: Readonly<Record<string, number>>
}

interface CoreParts {
  readonly config: Config
  readonly store: Store
  readonly geography: Geography | null
  /** Its echo answers other hosts and proves their addresses. */
  readonly echo: EchoSocket
  /** The system's. */
  readonly clock: Clock
  /** Numbers in [0, 1). */
  readonly rng: () => number
  readonly log: Log
}

/** What is only measured is stored so long after it changed at the latest, ms; sooner where others wait for it. */
const KEEP_MEASURED_MS = 5_000
/** Records told at a time to who reads them all: some milliseconds' work. */
const RECORDS_AT_ONCE = 500
const TELL_MEASURED_MS = 1_000
/** A core that stops waits for its hosts to move so often, and so long each time, ms: three heartbeats. */
const HAND_OVER_TRIES = 60
const HAND_OVER_WAIT_MS = 100
/** A store that does not answer keeps no core from stopping, ms. */
const CLOSE_MS = 3_000
/** Old names and old secrets are looked for this often, ms. */
const UPKEEP_EVERY_MS = 60_000
/** How long a registration waits for its addresses to answer an echo, ms. */
const PROVE_TIMEOUT_MS = 700

export class Core {
  readonly name: string
  readonly zones: readonly string[]
  readonly directory: Readonly<Directory>
  readonly tables: Tables
  readonly counters = new Counters()

  readonly #config: Config
  readonly #clock: SteadyClock
  readonly #rng: () => number
  readonly #log: Log
  readonly #isAlone: boolean
  readonly #telling: Telling
  readonly #found: (books: Books) => Change[]
  readonly #homes: Homes
  readonly #cores: Cores
  readonly #geography: Geography | null
  readonly #credentials: CredentialIndex
  readonly #ledger: Ledger
  readonly #proofs: AddressProofs
  readonly #liveness: Liveness
  readonly #measuring: Measuring
  readonly #pulses: Pulses
  readonly #echoPort: number
  readonly #startedMs: number
  #ticketKey: Uint8Array
  #cookieSecrets: readonly Uint8Array[]
  /** The current cookie secret, and since when it has been so here. */
  #cookieSecret = ''
  #cookieSecretSinceMs = 0

  #keepDueMs = 0
  #upkeepDueMs = 0
  /** Hosts whose new credential nobody has shown yet: the reply that told it may have been lost. */
  readonly #unclaimed = new Set<string>()
  /** Hosts whose registration was decided and is being stored. */
  readonly #registering = new Set<string>()
  /** Hosts that are silent, which is being stored. */
  readonly #givingUp = new Set<string>()
  /** Hosts that were not told yet whether they are reachable. */
  readonly #untold = new Set<string>()
  readonly #places = new PlaceTable()
  readonly #listeners = new Set<(changes: readonly Change[]) => void>()
  #draining = false
  #zoneSerial = 0
  #serialOf = -1

  /** Loads what the store keeps and makes this core a member of `core`, unless it only follows. Throws StoreError. */
  static async open(parts: CoreParts): Promise<Core> {
    const { config, store } = parts
    const directory = await store.load()
    const core = new Core(parts, directory)
    await core.#cores.follow()
    if (config.follow) return core
    const token = await ensureAdminToken(config.data, directory, core.#clock.epochMs())
    // A disk that is full keeps nobody from answering with what is known.
    await core.#ledger.writeOrPublish((books) => [
      ...token,
      ...core.#found(books),
      ...core.#dueSecrets(books),
    ])
    await core.#cores.announce()
    return core
  }

  private constructor(parts: CoreParts, directory: Directory) {
    const { config, echo, store } = parts
    const clock = new SteadyClock(parts.clock)
    this.name = config.name
    this.zones = config.zone
    this.directory = directory
    this.#config = config
    this.#clock = clock
    this.#rng = parts.rng
    this.#log = parts.log
    this.#geography = parts.geography
    this.#isAlone = store.cluster === null
    this.#telling = this.#isAlone ? TELLING_ALONE : TELLING_SHARED
    this.#startedMs = clock.monotonicMs()
    this.#homes = new Homes(config.follow ? null : config.name, this.#isAlone)
    for (const host of directory.hosts.values()) this.#homes.follow(host.name, null, host)
    const echoKey = randomHex(32)
    const place = parts.geography?.lookup(parseAddress(config.advertise[0]!)!) ?? null
    this.#found = (books) => {
      const { port: echoPort } = echo
      const epochMs = clock.epochMs()
      return foundingChanges(books, { config, epochMs, echoPort, place, echoKey, isAlone: this.#isAlone })
    }
    this.#ticketKey = new Uint8Array(0)
    this.#cookieSecrets = []
    this.#readSecrets()
    this.#credentials = new CredentialIndex(directory)
    this.tables = new Tables(this.#places)
    this.tables.setGeography(parts.geography)
    this.tables.apply([...recordsOf(directory, ['services', 'hosts', 'members', 'places'])])
    // After the places: which network a measured prefix is in is then asked once.
    this.tables.load(directory.localities.packed)
    this.tables.apply([...directory.localities.changes()])
    this.#ledger = new Ledger({
      directory,
      store,
      log: this.#log,
      counters: this.counters,
      monotonicMs: () => clock.monotonicMs(),
      onChanges: (changes) => this.#follow(changes),
      isOwn: (change) => this.#measures(change),
      stamp: (books, changes) => stamped(books, changes, config.name),
      isReadOnly: config.follow,
    })
    this.#proofs = new AddressProofs({
      directory,
      reach: (host, at) => this.#measuring.reach(host, at, PROVE_TIMEOUT_MS, clock.epochMs()),
      write: (decide) => this.#ledger.write((books) => ({ changes: decide(books), result: undefined })),
    })
    this.#liveness = new Liveness(config.name, clock.monotonicMs())
    this.#cores = new Cores({
      self: config.name,
      store,
      follows: config.follow,
      directory,
      ledger: this.#ledger,
      liveness: this.#liveness,
      homes: this.#homes,
      isGivenUp: (host) => this.#givingUp.has(host),
      counters: this.counters,
      log: this.#log,
      clock,
    })
    this.#measuring = new Measuring({
      self: config.name,
      config,
      directory,
      tables: this.tables,
      isAlone: this.#isAlone,
      isOwn: (host) => this.#homes.isOwn(host),
      telling: this.#telling,
      counters: this.counters,
      echo,
      onOwnResult: (result) => this.#hearResults(this.name, [result], clock.monotonicMs()),
      onOpinion: (host, asker, reached) => this.#liveness.hearOpinion(host, asker, reached),
      rng: this.#rng,
      nowMs: clock.monotonicMs(),
    })
    this.#echoPort = echo.port
    this.#pulses = new Pulses({
      directory,
      session: randomBytes(SESSION_BYTES),
      renew: (host) => this.#renew(host),
      hasNews: (host) =>
        this.#isMoving || this.#untold.has(host.name) || this.#measuring.hasOrders(host.name),
    })
    // Known hosts are served from the first query on; who is not heard within one lease is asked about, and what
    // was not proven is tried again: whose heartbeats go on does not register anew.
    for (const host of directory.hosts.values()) this.#expect(host)
  }

  /** Time as this core takes it: all else in this process takes it from here. */
  get clock(): Clock {
    return this.#clock
  }

  /** Checks the MACs of echoes to this core; null: it only follows, and answers none. */
  get echoKey(): Uint8Array | null {
    const host = this.directory.hosts.get(this.name)
    return host === undefined ? null : Buffer.from(host.echoKey, 'hex')
  }

  /** The SOA's serial (RFC 1982): moves on with each change of the directory, and over restarts with the time. */
  zoneSerial(): number {
    if (this.tables.serial !== this.#serialOf) {
      this.#serialOf = this.tables.serial
      this.#zoneSerial = Math.max(this.#zoneSerial + 1, Math.floor(this.#clock.epochMs() / 1000))
    }
    return this.#zoneSerial >>> 0
  }

  /** What the start found of localities, which never changes. */
  get packedLocalities(): PackedLocalities {
    return this.directory.localities.packed
  }

  /** All else that answers are made of, some records at a time; changes may come meanwhile. */
  *records(): Iterable<readonly Change[]> {
    const { directory } = this
    yield* inParts(recordsOf(directory, ['services', 'hosts', 'members']))
    yield* inParts(directory.localities.changes())
  }

  /** Tells of all changes from now on, once the tables took them, until what it gives back is called. */
  subscribe(listener: (changes: readonly Change[]) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Imported places, for threads that read them where they are. */
  sharePlaces(onMoved: (memory: PlaceMemory) => void): SharedPlaces {
    return this.#places.share(onMoved)
  }

  /** What DNS cookies are made and checked with: shared by all cores, the current one first. */
  get cookieSecrets(): readonly Uint8Array[] {
    return this.#cookieSecrets
  }

  // ---- who asks

  /** Who a Bearer secret is (token or host credential). null: anonymous. Throws Problem `unauthorized` for one that nobody has. */
  authenticate(secret: string | null): Caller {
    const caller = this.#credentials.find(secret)
    if (caller.kind === 'host') this.#unclaimed.delete(caller.host)
    return caller
  }

  // ---- operators

  putService(
    caller: Caller,
    name: string,
    request: ServiceRequest,
  ): Promise<{ service: Service; created: boolean }> {
    return this.#ledger.write((books) => putService(books, caller, name, request, this.zones))
  }

  removeService(caller: Caller, name: string): Promise<void> {
    return this.#ledger.write((books) => removeService(books, caller, name))
  }

  setDrained(caller: Caller, service: string, name: string, drained: boolean): Promise<Member> {
    return this.#ledger.write((books) => setDrained(books, caller, service, name, drained))
  }

  async createToken(caller: Caller, request: TokenRequest): Promise<{ token: Token; secret: string }> {
    const secret = newTokenSecret()
    const fresh = { id: randomHex(4), hash: hashSecret(secret), epochMs: this.#clock.epochMs() }
    const token = await this.#ledger.write((books) => createToken(books, caller, request, fresh))
    return { token, secret }
  }

  revokeToken(caller: Caller, id: string): Promise<void> {
    return this.#ledger.write((books) => revokeToken(books, caller, id))
  }

  /** Puts the places of prefixes in, all or none; what was measured of a prefix stays. */
  importLocalities(caller: Caller, entries: readonly PlaceEntry[]): Promise<{ imported: number }> {
    return this.#ledger.write((books) => {
      requireAdmin(caller)
      return {
        changes: placeChanges(books.places, entries),
        result: { imported: entries.length },
      }
    })
  }

  // ---- agents

  /** A host joins, comes back, or repeats itself, with the members that it names. */
  async putHost(caller: Caller, name: string, request: HostRequest, from: Peer): Promise<HostReply> {
    if (this.#isMoving) throw new Problem('unavailable', 'this core is shutting down: register with another')
    const by = this.#enrolment(from)
    const put = (books: Books) => {
      const enrolment = { ...by, isUnclaimed: this.#unclaimed.has(name) }
      const decision = putHostWithMembers(books, caller, name, request, enrolment)
      // A sign of life: who gives the host up in the same group does so no more.
      this.#registering.add(name)
      return decision
    }
    const { host, credential, members } = await this.#ledger.write(put).finally(() => {
      // It may have left again by the same commit, or moved on: then nobody is waited for.
      const kept = this.directory.hosts.get(name)
      if (this.#registering.delete(name) && kept !== undefined) this.#expect(kept)
    })
    if (credential !== null && this.directory.hosts.has(name)) this.#unclaimed.add(name)
    return {
      host: name,
      ...(credential === null ? {} : { credential }),
      core: this.name,
      leaseSec: host.leaseSec,
      heartbeatSec: host.leaseSec / HEARTBEATS_PER_LEASE,
      echoKey: host.echoKey,
      publicAddress: by.fromAddress,
      publicPort: by.fromPort,
      reachable: host.reachable,
      proofs: { ...host.proofs },
      pulse: this.#pulseAddress(from.address),
      ...(request.members && { members: members.map((member) => this.#memberReply(member)) }),
    }
  }

  /** The host says goodbye: its members are gone from answers when this resolves. */
  removeHost(caller: Caller, name: string): Promise<void> {
    const remove = (books: Books) => removeHost(books, caller, name, this.#clock.epochMs())
    // A goodbye that is lost with this core is found out by its lease; what an administrator says is said once.
    if (caller.kind !== 'host') return this.#ledger.write(remove)
    const home = this.directory.hosts.get(name)?.home
    return this.#ledger.writeOrPublish((books) => {
      // Kept late, it is no goodbye to a home that the host went to since.
      const hasMoved = home !== undefined && (books.hosts.get(name)?.home ?? home) !== home
      return hasMoved ? [] : remove(books).changes
    })
  }

  /** A member joins; the addresses of its host are tried before the reply, so that it says what will be answered. */
  async putMember(
    caller: Caller,
    service: string,
    name: string,
    request: MemberRequest,
    from: Peer,
  ): Promise<MemberReply> {
    const by = this.#enrolment(from)
    const member = await this.#ledger.write((books) => putMember(books, caller, service, name, request, by))
    await this.#proofs.prove(member.host, this.#clock.monotonicMs())
    return this.#memberReply(member)
  }

  #memberReply({ service, name, host }: Member): MemberReply {
    const state = this.tables.member(service, name)?.state ?? 'left'
    const hint = STATE_HINTS[state]
    return { service, member: name, host, state, ...(hint === undefined ? {} : { hint }) }
  }

  removeMember(caller: Caller, service: string, name: string): Promise<void> {
    return this.#ledger.write((books) => removeMember(books, caller, service, name))
  }

  /** Hosts say that they are there, what changed, and what they measured; their orders go back. */
  async heartbeat(request: HeartbeatRequest): Promise<HeartbeatReply> {
    const nowMs = this.#clock.monotonicMs()
    const heard = request.beats.map((beat) => ({ beat, host: this.#hostOf(beat) }))
    // Who has no lease here was given up, or is just being: then only the books know.
    const isAnyBack = heard.some(({ host }) => host !== null && !this.#liveness.expects(host.name))
    for (const { beat, host } of heard) {
      this.counters.add(host === null ? 'heartbeats.unknown' : 'heartbeats.heard')
      if (host === null) continue
      this.#liveness.hear(host.name, host.leaseSec * 1000, nowMs, isTrusted(host))
      this.#ledger.publishMeasured(loadChanges(this.directory, host, beat, this.#telling))
      this.#hearResults(host.name, beat.results ?? [], nowMs)
    }
    const news = (books: Pick<Books, 'hosts' | 'members'>) =>
      heard.flatMap(({ beat, host }) =>
        host === null || !this.#isHomeOf(books, host.name)
          ? []
          : heardChanges(books, host.name, beat, this.#clock.epochMs()),
      )
    if (isAnyBack || news(this.directory).length > 0) await this.#ledger.writeOrPublish(news)
    return {
      beats: heard.map(({ beat, host }) => {
        if (host === null) return { host: beat.host, status: 'unknown' as const, orders: [] }
        const orders = this.#measuring.ordersFor(host.name)
        this.#untold.delete(host.name)
        const moving = this.#isMoving ? { moving: true } : {}
        return { host: beat.host, status: 'ok' as const, ...moving, reachable: host.reachable, orders }
      }),
    }
  }

  /** A packet on the echo's port that may be a pulse: the reply (null: none), or false where it is none. */
  hearPulse(packet: Uint8Array): Uint8Array | null | false {
    return isPulseLike(packet) && this.#pulses.receive(packet, this.#clock.monotonicMs())
  }

  /** The UDP port where pulses are taken: the echo's. */
  get pulsePort(): number {
    return this.#echoPort
  }

  /** Hosts by presence, without walking them. */
  get hostCounts(): CoreStatus['hosts'] {
    return { ...this.#ledger.index.presence }
  }

  /** What came of pulses so far. */
  get pulseCounts(): Readonly<Record<PulseOutcome, number>> {
    return this.#pulses.counts
  }

  /** RTTs that a host saw to clients, or (with a ticket) that a client saw to members. */
  measure(caller: Caller, request: MeasurementRequest, from: Peer): MeasurementReply {
    if (this.#config.follow) throw new Problem('unavailable', FOLLOWS)
    const samples = this.#samples(caller, request, from)
    const { changes, accepted } = this.#measuring.hearSamples(
      samples,
      this.#clock.monotonicMs(),
      this.#clock.epochMs(),
    )
    const refused = request.rtts.length - accepted
    this.counters.add('measurements.accepted', accepted)
    this.counters.add('measurements.refused', refused)
    this.#publishMeasured(changes)
    return { accepted, refused }
  }

  // ---- clients

  /** A signed, short-lived leave to report RTTs, for the prefix of this client. */
  ticketFor(client: Address): string {
    return signTicket(this.#ticketKey, formatPrefix(localityPrefix(client)), this.#clock.epochMs())
  }

  /**
   * A client asked for `service`. Only of what came by TCP or HTTP, or from a listed resolver: a forged query
   * must aim no probes. `direct`: the address itself contacted us, so it may be probed.
   */
  noteDemand(client: Address, service: string, direct: boolean, times = 1): void {
    this.#measuring.noteDemand(client, service, direct, times, this.#clock.monotonicMs())
  }

  /** What would be probed next for this client, for `explain`. */
  nextProbes(client: Address): readonly string[] {
    return this.#measuring.nextProbes(client, this.#clock.monotonicMs())
  }

  // ---- life

  /** Time passed: call four times a second. Leases end, orders are planned, what was measured is stored. */
  tick(): void {
    if (this.#config.follow) return
    const nowMs = this.#clock.monotonicMs()
    this.#ledger.tick()
    this.#cores.tick()
    this.#comeBack()
    for (const fact of this.#liveness.tick(nowMs, this.#rng)) {
      this.counters.add(`liveness.${fact.kind}`)
      if (fact.kind === 'ask')
        this.#measuring.askOpinions(fact.host, fact.askers, nowMs, this.#clock.epochMs())
      else if (fact.kind === 'silent') this.#giveUp(fact.host, fact.why)
      else this.#log.warn({ host: fact.host }, 'not heard here, but other hosts reach it: kept')
    }
    this.#publishMeasured(this.#measuring.tick(nowMs, this.#clock.epochMs()))
    this.#ledger.publishMeasured(this.#measuring.settleRested())
    for (const host of this.#proofs.due(nowMs)) this.#ledger.inBackground(this.#proofs.prove(host, nowMs))
    if (nowMs >= this.#keepDueMs) {
      this.#keepDueMs = nowMs + (this.#isAlone ? KEEP_MEASURED_MS : TELL_MEASURED_MS)
      this.#ledger.inBackground(this.#ledger.keepMeasured())
    }
    if (nowMs >= this.#upkeepDueMs) {
      this.#upkeepDueMs = nowMs + UPKEEP_EVERY_MS
      if (this.#homes.isChosenFor('upkeep')) this.#ledger.writeSoon((books) => this.#upkeep(books))
    }
  }

  /** Whether clients should be sent here, and what works only in part. At once, where status() counts all that there is. */
  readiness(): Pick<CoreStatus, 'ready' | 'degraded'> {
    const reasons = [
      this.#ledger.trouble,
      this.#cores.trouble,
      this.#liveness.suspicion,
      this.#clock.trouble,
      this.#draining ? 'this core is shutting down' : null,
    ]
    return { ready: !this.#draining, degraded: reasons.filter((reason) => reason !== null) }
  }

  status(): CoreStatus {
    const { live } = this.tables
    return {
      name: this.name,
      version: VERSION,
      zone: this.zones.join(', '),
      uptimeSec: Math.round((this.#clock.monotonicMs() - this.#startedMs) / 1000),
      ...this.readiness(),
      services: this.directory.services.size,
      hosts: this.hostCounts,
      members: { live, other: this.directory.members.size - live },
      localities: this.directory.localities.size,
      places: this.tables.places.size,
      store: this.#config.store,
      cluster: this.#cores.status,
      geography: this.#config.geo,
      counters: this.counters.snapshot(),
    }
  }

  /** From now on /readyz says no, while answers go on. */
  drain(): void {
    this.#draining = true
  }

  /** Whether this core's hosts are to find another home. */
  get #isMoving(): boolean {
    return this.#draining && this.#homes.others > 0
  }

  /**
   * drain(), and leaves the service `core`; its hosts are told to move to other cores with their next heartbeat, and
   * those that don't within three are left to them. Call it while requests are still taken.
   */
  async handOver(): Promise<void> {
    this.drain()
    if (!this.#isMoving || !this.#homes.holdsLease) return
    const leave = (books: Books) => coreLeaves(books, this.name, this.#clock.epochMs())
    await this.#ledger.writeOrPublish(leave)
    for (let tries = 0; tries < HAND_OVER_TRIES && this.#liveness.size > this.#liveness.orphans; tries++) {
      await sleep(HAND_OVER_WAIT_MS)
    }
  }

  /** Stores what was measured and waits for the last write. The store and the echo are their openers'. */
  async close(): Promise<void> {
    this.#draining = true
    await this.#measuring.close()
    await Promise.race([this.#ledger.close(), sleep(CLOSE_MS, undefined, { ref: false })])
    await this.#cores.leave()
  }

  // ---- what follows from changes

  #follow(changes: readonly Applied[]): void {
    this.tables.apply(changes)
    this.#credentials.apply(changes)
    for (const change of changes) {
      if (change.kind === 'hosts') this.#followHost(change.key, change.before, change.value)
      if (change.kind === 'settings') this.#readSecrets()
    }
    this.#measuring.apply(changes, this.#clock.monotonicMs())
    for (const listener of this.#listeners) listener(changes)
  }

  #followHost(name: string, before: Host | null, host: Host | null): void {
    this.#homes.follow(name, before, host)
    if (host === null || host.presence !== 'live' || !this.#homes.isOwn(host)) {
      // An orphan is judged on: who reviews them sees that it has a home again.
      if (host?.presence !== 'live' || this.#liveness.expects(name)) this.#liveness.forget(name)
      this.#unclaimed.delete(name)
      this.#untold.delete(name)
      this.#proofs.forget(name)
      if (host === null) this.#pulses.forget(name)
    } else if (before !== null) {
      // Heard while it was being given up: the lease of then ended with that.
      if (before.presence !== 'live' || before.home !== host.home) this.#expect(host)
      if (before.reachable !== host.reachable) this.#untold.add(name)
    }
  }

  /** It was taken for gone while it was cut off: with its lease it comes back. */
  #comeBack(): void {
    const isGone = this.directory.hosts.get(this.name)?.presence !== 'live'
    if (this.#isAlone || this.#draining || !isGone || !this.#homes.holdsLease) return
    this.#ledger.writeSoon((books) => (this.#draining ? [] : this.#found(books)))
  }

  /** Whether what a change tells of is measured by this core's hosts. */
  #measures({ kind, value }: Change): boolean {
    if (kind === 'hosts') return this.#homes.isOwn(value as Host)
    if (kind !== 'members') return true
    const host = this.directory.hosts.get((value as Member).host)
    return host !== undefined && this.#homes.isOwn(host)
  }

  #readSecrets(): void {
    const { settings } = this.directory
    this.#ticketKey = ticketKey(settings)
    this.#cookieSecrets = cookieSecrets(settings)
    if (currentCookieSecret(settings) === this.#cookieSecret) return
    this.#cookieSecret = currentCookieSecret(settings)
    this.#cookieSecretSinceMs = this.#clock.monotonicMs()
  }

  /** Publishes what was measured, and which members its clients stay with from now on. */
  #publishMeasured(changes: readonly Change[]): void {
    this.#ledger.publishMeasured(changes)
    this.#ledger.publishMeasured(this.#measuring.settle(changes))
  }

  /** What time alone makes due: names to forget, secrets to roll. */
  #upkeep(books: Books): Change[] {
    return [...forgotten(books, this.#clock.epochMs()), ...this.#dueSecrets(books)]
  }

  #dueSecrets(books: Books): Change[] {
    const isCurrent = currentCookieSecret(books.settings) === this.#cookieSecret
    const seenMs = isCurrent ? this.#clock.monotonicMs() - this.#cookieSecretSinceMs : 0
    return dueSecrets(books.settings, { epochMs: this.#clock.epochMs(), seenMs }, randomHex)
  }

  // ---- hosts

  /** Expects heartbeats of a live host from now on, and its echo at its addresses; of itself neither. */
  #expect(host: Host): void {
    if (!host.agent || host.presence !== 'live' || host.name === this.name) return
    if (!this.#homes.isOwn(host)) return
    const nowMs = this.#clock.monotonicMs()
    this.#liveness.hear(host.name, host.leaseSec * 1000, nowMs, isTrusted(host))
    this.#proofs.expect(host, nowMs)
  }

  /** A pulse of a live host came; false: it has no lease here, as one that is just being given up. */
  #renew(host: Host): boolean {
    if (!this.#homes.isOwn(host) || !this.#liveness.expects(host.name)) return false
    // It has its key, which came with its credential.
    this.#unclaimed.delete(host.name)
    this.#liveness.hear(host.name, host.leaseSec * 1000, this.#clock.monotonicMs(), isTrusted(host))
    return true
  }

  /** Where pulses are taken: this core's echo, at its address of the host's family if it has one. */
  #pulseAddress(host: Address): { address: string; port: number } {
    const { advertise } = this.#config
    const own = advertise.find((text) => familyOf(parseAddress(text)!) === familyOf(host))
    return { address: own ?? advertise[0]!, port: this.#echoPort }
  }

  /** The host behind a beat, if the credential is its own, this is its home and it has not said goodbye. */
  #hostOf(beat: Beat): Host | null {
    const host = this.directory.hosts.get(beat.host)
    if (host?.credentialHash == null || !matchesHash(beat.credential, host.credentialHash)) return null
    if (host.presence === 'left' || !this.#homes.isOwn(host)) return null
    this.#unclaimed.delete(host.name)
    return host
  }

  #giveUp(name: string, why: string): void {
    this.#log.warn({ host: name }, `host is silent: ${why}`)
    const presenceSinceMs = this.#clock.epochMs()
    // Until that is stored it is not to be adopted anew.
    this.#givingUp.add(name)
    const silence = (books: Books): Change[] => {
      const host = books.hosts.get(name)
      if (host?.presence !== 'live' || !this.#judges(host) || this.#registering.has(name)) return []
      if (this.#liveness.expects(name) || this.#liveness.adopts(name)) return []
      return [{ kind: 'hosts', key: name, value: { ...host, presence: 'silent', presenceSinceMs } }]
    }
    const isSaid = this.#ledger.writeOrPublish(silence).finally(() => this.#givingUp.delete(name))
    this.#ledger.inBackground(isSaid)
  }

  #judges(host: Host): boolean {
    return this.#homes.isOwn(host) || this.#homes.isOrphanOfMine(host)
  }

  #hearResults(host: string, results: readonly OrderResult[], nowMs: number): void {
    const { measured, health } = this.#measuring.hearResults(host, results, nowMs, this.#clock.epochMs())
    this.#publishMeasured(measured)
    if (health.length > 0) {
      const ownHealth = (books: Books) =>
        health.filter(({ member }) => this.#isHomeOf(books, books.members.get(member)?.host ?? ''))
      const told = this.#ledger.writeOrPublish((books) => healthChanges(books, ownHealth(books)))
      this.#ledger.inBackground(told)
    }
  }

  /** What is decided anew after a while may be another home's to say by then: it knows better. */
  #isHomeOf(books: Pick<Books, 'hosts'>, name: string): boolean {
    const host = books.hosts.get(name)
    return host !== undefined && this.#homes.isOwn(host)
  }

  #samples(caller: Caller, request: MeasurementRequest, from: Peer): Sample[] {
    if (request.ticket === undefined) {
      if (caller.kind !== 'host') {
        throw new Problem(
          'unauthorized',
          'RTTs are taken from a host (its credential as Bearer) or with a ticket',
        )
      }
      const host = this.directory.hosts.get(caller.host)
      // Who joined openly is believed no more than a client is.
      const kind = host !== undefined && isTrusted(host) ? 'passive' : 'client'
      return request.rtts.map(({ address, rttMs, count = 1 }) => ({
        client: address === undefined ? null : parseAddress(address),
        host: caller.host,
        rttMs,
        count,
        kind,
      }))
    }
    checkTicket(
      this.#ticketKey,
      request.ticket,
      formatPrefix(localityPrefix(from.address)),
      this.#clock.epochMs(),
    )
    return request.rtts.map(({ member, rttMs, count = 1 }) => ({
      client: from.address,
      host: this.directory.members.get(memberKey(request.service ?? '', member ?? ''))?.host ?? null,
      rttMs,
      count,
      kind: 'client',
    }))
  }

  #enrolment(from: Peer): Enrolment {
    const credential = newCredential()
    return {
      epochMs: this.#clock.epochMs(),
      home: this.name,
      fromAddress: formatAddress(from.address),
      fromPort: from.port,
      credential,
      credentialHash: hashSecret(credential),
      echoKey: randomHex(32),
      isUnclaimed: false,
      placeOf: (text) => this.#geography?.lookup(parseAddress(text)!) ?? null,
    }
  }
}

function randomHex(bytes: number): string {
  return randomBytes(bytes).toString('hex')
}

/** Whoever runs it was let in by a token: its word may count about others. */
function isTrusted(host: Host): boolean {
  return host.tokenId !== null
}

/** Records as changes, for what is compiled from them. */
function* recordsOf(
  directory: Readonly<Directory>,
  kinds: readonly ('services' | 'hosts' | 'members' | 'places')[],
): Iterable<Change> {
  for (const kind of kinds) {
    const records = kind === 'places' ? inAddressOrder(directory.places) : directory[kind]
    for (const [key, value] of records) yield { kind, key, value } as Change
  }
}

function* inParts(changes: Iterable<Change>): Iterable<readonly Change[]> {
  let part: Change[] = []
  for (const change of changes) {
    part.push(change)
    if (part.length < RECORDS_AT_ONCE) continue
    yield part
    part = []
  }
  if (part.length > 0) yield part
}
