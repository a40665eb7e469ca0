// The core: what a request, a report or the passing of time means, put together from the pure rules.
//
// registry/ decides what a request becomes, liveness.ts who is there, measuring/ what to find out next;
// the ledger commits and publishes; the tables that all answers read follow. No timers of its own:
// whoever opened it calls tick().

import { randomBytes } from 'node:crypto'
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
  applyChanges,
  type Change,
  type Directory,
  type Geography,
  type Host,
  type Member,
  memberKey,
  type Service,
  type Token,
} from '../resolver/directory.ts'
import { type PlaceEntry, placeChanges } from '../resolver/place-page.ts'
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
import { Counters } from './counters.ts'
import { Ledger, type Log } from './ledger.ts'
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
import { type Enrolment, forgotten, removeHost } from './registry/hosts.ts'
import { putHostWithMembers } from './registry/joining.ts'
import { putMember, removeMember, setDrained } from './registry/members.ts'
import { healthChanges, heardChanges, loadChanges } from './registry/reports.ts'
import { putService, removeService, type ServiceRequest } from './registry/services.ts'
import { cookieSecrets, dueSecrets, ticketKey } from './registry/shared-secrets.ts'
import { STATE_HINTS } from './registry/state-hints.ts'
import { createToken, revokeToken, type TokenRequest } from './registry/tokens.ts'
import type { Config } from './settings/config.ts'
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
  readonly geography: string
  readonly counters: Readonly<Record<string, number>>
}

/** Where time and chance come from: the system's, or a test's. */
export interface Clock {
  /** Epoch, ms: for records and people. */
  epochMs(): number
  /** Never jumps, ms: for leases and all else that is decided. */
  monotonicMs(): number
}

interface CoreParts {
  readonly config: Config
  readonly store: Store
  readonly geography: Geography | null
  /** Its echo answers other hosts and proves their addresses. */
  readonly echo: EchoSocket
  readonly clock: Clock
  /** Numbers in [0, 1). */
  readonly rng: () => number
  readonly log: Log
}

/** What is only measured is stored so long after it changed at the latest, ms. */
const KEEP_MEASURED_MS = 5_000
/** Records told at a time to who reads them all: some milliseconds' work. */
const RECORDS_AT_ONCE = 500
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
  readonly #clock: Clock
  readonly #rng: () => number
  readonly #log: Log
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

  #keepDueMs = 0
  #upkeepDueMs = 0
  /** Hosts whose new credential nobody has shown yet: the reply that told it may have been lost. */
  readonly #unclaimed = new Set<string>()
  /** Hosts that were not told yet whether they are reachable. */
  readonly #untold = new Set<string>()
  readonly #places = new PlaceTable()
  readonly #listeners = new Set<(changes: readonly Change[]) => void>()
  #draining = false
  #zoneSerial = 0
  #serialOf = -1

  /** Loads what the store keeps and makes this core a member of `core`. Throws StoreError. */
  static async open(parts: CoreParts): Promise<Core> {
    const { config, store, clock, echo, geography } = parts
    const directory = await store.load()
    const epochMs = clock.epochMs()
    const place = geography?.lookup(parseAddress(config.advertise[0]!)!) ?? null
    const founding = [
      ...(await ensureAdminToken(config.data, directory, epochMs)),
      ...foundingChanges(directory, { config, epochMs, echoPort: echo.port, place, echoKey: randomHex(32) }),
      ...dueSecrets(directory.settings, epochMs, randomHex),
    ]
    applyChanges(directory, founding)
    const core = new Core(parts, directory)
    // A disk that is full keeps nobody from answering with what is known.
    await core.#ledger.writeOrPublish(() => founding)
    return core
  }

  private constructor(parts: CoreParts, directory: Directory) {
    const { config, clock, echo } = parts
    this.name = config.name
    this.zones = config.zone
    this.directory = directory
    this.#config = config
    this.#clock = clock
    this.#rng = parts.rng
    this.#log = parts.log
    this.#geography = parts.geography
    this.#startedMs = clock.monotonicMs()
    this.#ticketKey = ticketKey(directory.settings)
    this.#cookieSecrets = cookieSecrets(directory.settings)
    this.#credentials = new CredentialIndex(directory)
    this.tables = new Tables(this.#places)
    this.tables.setGeography(parts.geography)
    this.tables.apply([...allRecords(directory)])
    this.#ledger = new Ledger({
      directory,
      store: parts.store,
      log: this.#log,
      counters: this.counters,
      monotonicMs: () => clock.monotonicMs(),
      onChanges: (changes) => this.#follow(changes),
    })
    this.#proofs = new AddressProofs({
      directory,
      reach: (host, at) => this.#measuring.reach(host, at, PROVE_TIMEOUT_MS, clock.epochMs()),
      write: (decide) => this.#ledger.write((books) => ({ changes: decide(books), result: undefined })),
    })
    this.#liveness = new Liveness(config.name, clock.monotonicMs())
    this.#measuring = new Measuring({
      self: config.name,
      config,
      directory,
      tables: this.tables,
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
      hasNews: (host) => this.#untold.has(host.name) || this.#measuring.hasOrders(host.name),
    })
    // Known hosts are served from the first query on; who is not heard within one lease is asked about, and what
    // was not proven is tried again: whose heartbeats go on does not register anew.
    for (const host of directory.hosts.values()) this.#expect(host)
  }

  /** Checks the MACs of echoes to this core. */
  get echoKey(): Uint8Array {
    return Buffer.from(this.directory.hosts.get(this.name)!.echoKey, 'hex')
  }

  /** The SOA's serial (RFC 1982): moves on with each change of the directory, and over restarts with the time. */
  zoneSerial(): number {
    if (this.tables.serial !== this.#serialOf) {
      this.#serialOf = this.tables.serial
      this.#zoneSerial = Math.max(this.#zoneSerial + 1, Math.floor(this.#clock.epochMs() / 1000))
    }
    return this.#zoneSerial >>> 0
  }

  /** All that answers are made of, some records at a time; changes may come meanwhile. */
  *records(): Iterable<readonly Change[]> {
    let part: Change[] = []
    for (const change of allRecords(this.directory)) {
      part.push(change)
      if (part.length < RECORDS_AT_ONCE) continue
      yield part
      part = []
    }
    if (part.length > 0) yield part
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
    const by = this.#enrolment(from)
    const { host, credential, members } = await this.#ledger.write((books) =>
      putHostWithMembers(books, caller, name, request, { ...by, isUnclaimed: this.#unclaimed.has(name) }),
    )
    const kept = this.directory.hosts.get(name)
    // It may have left again by the same commit: then nobody is waited for.
    if (kept !== undefined) this.#expect(kept)
    if (kept !== undefined && credential !== null) this.#unclaimed.add(name)
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
    return this.#ledger.writeOrPublish(
      (books) => removeHost(books, caller, name, this.#clock.epochMs()).changes,
    )
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
      this.#ledger.publishMeasured(loadChanges(this.directory, host, beat))
      this.#hearResults(host.name, beat.results ?? [], nowMs)
    }
    const news = (books: Pick<Books, 'hosts' | 'members'>) =>
      heard.flatMap(({ beat, host }) =>
        host === null ? [] : heardChanges(books, host.name, beat, this.#clock.epochMs()),
      )
    if (isAnyBack || news(this.directory).length > 0) await this.#ledger.writeOrPublish(news)
    return {
      beats: heard.map(({ beat, host }) => {
        if (host === null) return { host: beat.host, status: 'unknown' as const, orders: [] }
        const orders = this.#measuring.ordersFor(host.name)
        this.#untold.delete(host.name)
        return { host: beat.host, status: 'ok' as const, reachable: host.reachable, orders }
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
    const nowMs = this.#clock.monotonicMs()
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
      this.#keepDueMs = nowMs + KEEP_MEASURED_MS
      this.#ledger.inBackground(this.#ledger.keepMeasured())
    }
    if (nowMs >= this.#upkeepDueMs) {
      this.#upkeepDueMs = nowMs + UPKEEP_EVERY_MS
      this.#ledger.writeSoon((books) => this.#upkeep(books))
    }
  }

  /** Whether clients should be sent here, and what works only in part. At once, where status() counts all that there is. */
  readiness(): Pick<CoreStatus, 'ready' | 'degraded'> {
    const degraded = [this.#ledger.trouble, this.#liveness.suspicion].filter((reason) => reason !== null)
    if (this.#draining) degraded.push('this core is shutting down')
    return { ready: !this.#draining, degraded }
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
      geography: this.#config.geo,
      counters: this.counters.snapshot(),
    }
  }

  /** From now on /readyz says no, while answers go on. */
  drain(): void {
    this.#draining = true
  }

  /** Stores what was measured and waits for the last write. The store and the echo are their openers'. */
  async close(): Promise<void> {
    this.#draining = true
    await this.#measuring.close()
    await this.#ledger.close()
  }

  // ---- what follows from changes

  #follow(changes: readonly Applied[]): void {
    this.tables.apply(changes)
    this.#credentials.apply(changes)
    this.#measuring.apply(changes, this.#clock.monotonicMs())
    for (const change of changes) {
      if (change.kind === 'hosts' && change.value?.presence !== 'live') {
        this.#liveness.forget(change.key)
        this.#unclaimed.delete(change.key)
        this.#untold.delete(change.key)
        this.#proofs.forget(change.key)
        if (change.value === null) this.#pulses.forget(change.key)
      } else if (change.kind === 'hosts' && change.before !== null && change.value !== null) {
        // Heard while it was being given up: the lease of then ended with that.
        if (change.before.presence !== 'live') this.#expect(change.value)
        if (change.before.reachable !== change.value.reachable) this.#untold.add(change.key)
      }
      if (change.kind === 'settings') this.#readSecrets()
    }
    for (const listener of this.#listeners) listener(changes)
  }

  #readSecrets(): void {
    this.#ticketKey = ticketKey(this.directory.settings)
    this.#cookieSecrets = cookieSecrets(this.directory.settings)
  }

  /** Publishes what was measured, and which members its clients stay with from now on. */
  #publishMeasured(changes: readonly Change[]): void {
    this.#ledger.publishMeasured(changes)
    this.#ledger.publishMeasured(this.#measuring.settle(changes))
  }

  /** What time alone makes due: names to forget, secrets to roll. */
  #upkeep(books: Books): Change[] {
    const epochMs = this.#clock.epochMs()
    return [...forgotten(books, epochMs), ...dueSecrets(books.settings, epochMs, randomHex)]
  }

  // ---- hosts

  /** Expects heartbeats of a live host from now on, and its echo at its addresses; of itself neither. */
  #expect(host: Host): void {
    if (!host.agent || host.presence !== 'live' || host.name === this.name) return
    const nowMs = this.#clock.monotonicMs()
    this.#liveness.hear(host.name, host.leaseSec * 1000, nowMs, isTrusted(host))
    this.#proofs.expect(host, nowMs)
  }

  /** A pulse of a live host came; false: it has no lease here, as one that is just being given up. */
  #renew(host: Host): boolean {
    if (!this.#liveness.expects(host.name)) return false
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

  /** The host behind a beat, if the credential is its own and it has not said goodbye. */
  #hostOf(beat: Beat): Host | null {
    const host = this.directory.hosts.get(beat.host)
    if (host?.credentialHash == null || !matchesHash(beat.credential, host.credentialHash)) return null
    if (host.presence === 'left') return null
    this.#unclaimed.delete(host.name)
    return host
  }

  #giveUp(name: string, why: string): void {
    this.#log.warn({ host: name }, `host is silent: ${why}`)
    const presenceSinceMs = this.#clock.epochMs()
    const silence = (books: Books): Change[] => {
      const host = books.hosts.get(name)
      if (host?.presence !== 'live' || this.#liveness.expects(name)) return []
      return [{ kind: 'hosts', key: name, value: { ...host, presence: 'silent', presenceSinceMs } }]
    }
    this.#ledger.inBackground(this.#ledger.writeOrPublish(silence))
  }

  #hearResults(host: string, results: readonly OrderResult[], nowMs: number): void {
    const { measured, health } = this.#measuring.hearResults(host, results, nowMs, this.#clock.epochMs())
    this.#publishMeasured(measured)
    if (health.length > 0) {
      this.#ledger.inBackground(this.#ledger.writeOrPublish((books) => healthChanges(books, health)))
    }
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

/** A whole directory as changes, for what is compiled from it. */
function* allRecords(directory: Directory): Iterable<Change> {
  // Places before localities: which network a measured prefix is in is then asked once.
  for (const kind of ['services', 'hosts', 'members', 'places', 'localities'] as const) {
    for (const [key, value] of directory[kind]) yield { kind, key, value } as Change
  }
}
