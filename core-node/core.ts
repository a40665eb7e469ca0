// The core: the one writer. Requests and reports come in, pure functions decide, the store keeps what
// must not be forgotten, and the compiled tables that all answers read are brought up to date.
//
// Invariant: a change is in the store before it is acknowledged or answered with; changes are decided
// and committed one after another. What is only measured (loads, coordinates, localities) is answered
// with at once and stored a little later, since it would be measured again. No timers of its own:
// whoever opened it calls tick().

import { randomBytes } from 'node:crypto'
import type { Store } from '../db/store.ts'
import {
  type Address,
  formatAddress,
  formatPrefix,
  localityPrefix,
  parseAddress,
} from '../resolver/address.ts'
import {
  applyChanges,
  type Change,
  type Directory,
  type Host,
  type Member,
  memberKey,
  type Service,
  type Token,
} from '../resolver/directory.ts'
import { type PlaceEntry, placeChanges } from '../resolver/place-page.ts'
import { type Geography, type MemberState, Tables } from '../resolver/tables.ts'
import type { EchoSocket } from '../server-agent/protocol/echo-socket.ts'
import {
  type Beat,
  HEARTBEATS_PER_LEASE,
  type HeartbeatReply,
  type HeartbeatRequest,
  type HostReply,
  type HostRequest,
  LEASE_SEC,
  type MeasurementReply,
  type MeasurementRequest,
  type MemberReply,
  type MemberRequest,
  type OrderResult,
} from '../server-agent/protocol/messages.ts'
import { ensureAdminToken } from './admin-token.ts'
import type { Config } from './config.ts'
import { formatHostPort } from './config-values.ts'
import { Counters } from './counters.ts'
import {
  CredentialIndex,
  checkTicket,
  hashSecret,
  matchesHash,
  newCredential,
  newTokenSecret,
  signTicket,
} from './credentials.ts'
import {
  type Enrolment,
  forgotten,
  healthChanges,
  heardChanges,
  loadChanges,
  proofChanges,
  putHost,
  putMember,
  removeHost,
  removeMember,
  setDrained,
} from './enrolment.ts'
import { Liveness } from './liveness.ts'
import { Measuring, type Sample } from './measuring.ts'
import { Problem } from './problem.ts'
import {
  type Caller,
  CORE_SERVICE,
  createToken,
  type Decision,
  putService,
  removeService,
  requireAdmin,
  revokeToken,
  type ServiceRequest,
  serviceFrom,
  type TokenRequest,
} from './registry.ts'
import { cookieSecrets, dueSecrets, ticketKey } from './shared-secrets.ts'
import { VERSION } from './version.ts'

/** The peer of a request: after trusted proxies were looked through. */
export interface Peer {
  readonly address: Address
  readonly port: number
}

export interface CoreStatus {
  readonly name: string
  readonly version: string
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
  nowMs(): number
  /** Never jumps, ms: for leases and all else that is decided. */
  monotonicMs(): number
}

export interface Log {
  info(facts: object, message: string): void
  warn(facts: object, message: string): void
  error(facts: object, message: string): void
}

export interface CoreOptions {
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
/** Old names and old secrets are looked for this often, ms. */
const UPKEEP_EVERY_MS = 60_000
/** An address that did not answer its echo is tried again after so long, ms. */
const PROVE_AGAIN_MS = 10_000
/** The first try, unless its first member comes sooner: the reply needs its way, ms. */
const PROVE_SOON_MS = 250
/** How long a registration waits for its addresses to answer an echo, ms. */
const PROVE_TIMEOUT_MS = 700

export class Core {
  readonly name: string
  readonly zone: string
  readonly directory: Readonly<Directory>
  readonly tables: Tables
  readonly counters = new Counters()

  readonly #config: Config
  readonly #store: Store
  readonly #echo: EchoSocket
  readonly #clock: Clock
  readonly #rng: () => number
  readonly #log: Log
  readonly #geography: Geography | null
  readonly #credentials: CredentialIndex
  readonly #liveness: Liveness
  readonly #measuring: Measuring
  readonly #startedMs: number
  #ticketKey: Uint8Array
  #cookieSecrets: readonly Uint8Array[]

  /** The end of the line of writes: each waits for the one before. */
  #lastWrite: Promise<unknown> = Promise.resolve()
  /** Records that were published but not yet stored, by kind and key. */
  #measured = new Map<string, Change>()
  #keepDueMs = 0
  #upkeepDueMs = 0
  #storeTrouble: string | null = null
  #draining = false
  #closed = false
  #zoneSerial = 0
  #serialOf = -1
  readonly #proveDueMs = new Map<string, number>()

  /** Loads what the store keeps and makes this core a member of `core`. Throws StoreError. */
  static async open(options: CoreOptions): Promise<Core> {
    const { config, store, clock } = options
    const directory = await store.load()
    const founding = [
      ...(await ensureAdminToken(config.data, directory, clock.nowMs())),
      ...foundingChanges(directory, options),
      ...dueSecrets(directory.settings, clock.nowMs(), randomHex),
    ]
    if (founding.length > 0) {
      await store.commit(founding)
      applyChanges(directory, founding)
    }
    return new Core(options, directory)
  }

  private constructor(options: CoreOptions, directory: Directory) {
    const { config, clock } = options
    this.name = config.name
    this.zone = config.zone
    this.directory = directory
    this.#config = config
    this.#store = options.store
    this.#echo = options.echo
    this.#clock = clock
    this.#rng = options.rng
    this.#log = options.log
    this.#geography = options.geography
    this.#startedMs = clock.monotonicMs()
    this.#ticketKey = ticketKey(directory.settings)
    this.#cookieSecrets = cookieSecrets(directory.settings)
    this.#credentials = new CredentialIndex(directory)
    this.tables = new Tables()
    this.tables.setGeography(options.geography)
    this.tables.apply(allRecords(directory))
    this.#liveness = new Liveness(config.name, clock.monotonicMs())
    this.#measuring = new Measuring({
      self: config.name,
      config,
      directory,
      tables: this.tables,
      counters: this.counters,
      echo: this.#echo,
      onOwnResult: (result) => this.#hearResults(this.name, [result], clock.monotonicMs()),
      onOpinion: (host, asker, reached) => this.#liveness.hearOpinion(host, asker, reached),
      rng: this.#rng,
    })
    // Known hosts are served from the first query on; who is not heard within one lease is asked about.
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
      this.#zoneSerial = Math.max(this.#zoneSerial + 1, Math.floor(this.#clock.nowMs() / 1000))
    }
    return this.#zoneSerial >>> 0
  }

  /** What DNS cookies are made and checked with: shared by all cores, the current one first. */
  get cookieSecrets(): readonly Uint8Array[] {
    return this.#cookieSecrets
  }

  // ---- who asks

  /** Who a Bearer secret is (token or host credential). null: anonymous. Throws Problem `unauthorized` for one that nobody has. */
  authenticate(secret: string | null): Caller {
    return this.#credentials.find(secret)
  }

  // ---- operators

  putService(
    caller: Caller,
    name: string,
    request: ServiceRequest,
  ): Promise<{ service: Service; created: boolean }> {
    return this.#write(() => putService(this.directory, caller, name, request))
  }

  removeService(caller: Caller, name: string): Promise<void> {
    return this.#write(() => removeService(this.directory, caller, name))
  }

  setDrained(caller: Caller, service: string, name: string, drained: boolean): Promise<Member> {
    return this.#write(() => setDrained(this.directory, caller, service, name, drained))
  }

  async createToken(caller: Caller, request: TokenRequest): Promise<{ token: Token; secret: string }> {
    const secret = newTokenSecret()
    const fresh = { id: randomHex(4), hash: hashSecret(secret), nowMs: this.#clock.nowMs() }
    const token = await this.#write(() => createToken(this.directory, caller, request, fresh))
    return { token, secret }
  }

  revokeToken(caller: Caller, id: string): Promise<void> {
    return this.#write(() => revokeToken(this.directory, caller, id))
  }

  /** Puts the places of prefixes in, all or none; what was measured of a prefix stays. */
  importLocalities(caller: Caller, entries: readonly PlaceEntry[]): Promise<{ imported: number }> {
    return this.#write(() => {
      requireAdmin(caller)
      return {
        changes: placeChanges(this.directory.places, entries),
        result: { imported: entries.length },
      }
    })
  }

  // ---- agents

  /** A host joins, comes back, or repeats itself. */
  async putHost(caller: Caller, name: string, request: HostRequest, from: Peer): Promise<HostReply> {
    const by = this.#enrolment(from)
    const { host, credential } = await this.#write(() => putHost(this.directory, caller, name, request, by))
    this.#expect(host)
    // Its echo can answer only when it knows its key, by this reply: tried right after.
    if (needsProof(host)) this.#proveDueMs.set(name, this.#clock.monotonicMs() + PROVE_SOON_MS)
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
    }
  }

  /** The host says goodbye: its members are gone from answers when this resolves. */
  removeHost(caller: Caller, name: string): Promise<void> {
    return this.#write(() => removeHost(this.directory, caller, name, this.#clock.nowMs()))
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
    const member = await this.#write(() => putMember(this.directory, caller, service, name, request, by))
    await this.#prove(this.directory.hosts.get(member.host)!)
    const state = this.tables.member(service, name)?.state ?? 'left'
    const hint = STATE_HINTS[state]
    return { service, member: name, host: member.host, state, ...(hint === undefined ? {} : { hint }) }
  }

  removeMember(caller: Caller, service: string, name: string): Promise<void> {
    return this.#write(() => removeMember(this.directory, caller, service, name))
  }

  /** Hosts say that they are there, what changed, and what they measured; their orders go back. */
  async heartbeat(request: HeartbeatRequest): Promise<HeartbeatReply> {
    const nowMs = this.#clock.monotonicMs()
    const heard = request.beats.map((beat) => ({ beat, host: this.#hostOf(beat) }))
    for (const { beat, host } of heard) {
      this.counters.add(host === null ? 'heartbeats.unknown' : 'heartbeats.heard')
      if (host === null) continue
      this.#liveness.hear(host.name, host.leaseSec * 1000, nowMs)
      this.#publishMeasured(loadChanges(this.directory, host, beat))
      this.#hearResults(host.name, beat.results ?? [], nowMs)
    }
    const news = () =>
      heard.flatMap(({ beat, host }) =>
        host === null ? [] : heardChanges(this.directory, host.name, beat, this.#clock.nowMs()),
      )
    if (news().length > 0) await this.#write(() => ({ changes: news(), result: undefined }))
    return {
      beats: heard.map(({ beat, host }) => {
        if (host === null) return { host: beat.host, status: 'unknown' as const, orders: [] }
        const orders = this.#measuring.ordersFor(host.name)
        return { host: beat.host, status: 'ok' as const, reachable: host.reachable, orders }
      }),
    }
  }

  /** RTTs that a host saw to clients, or (with a ticket) that a client saw to members. */
  async measure(caller: Caller, request: MeasurementRequest, from: Peer): Promise<MeasurementReply> {
    const samples = this.#samples(caller, request, from)
    const { changes, accepted } = this.#measuring.hearSamples(samples, this.#clock.nowMs())
    const refused = request.rtts.length - accepted
    this.counters.add('measurements.accepted', accepted)
    this.counters.add('measurements.refused', refused)
    if (changes.length > 0) await this.#write(() => ({ changes, result: undefined }))
    this.#publishMeasured(this.#measuring.settle(changes))
    return { accepted, refused }
  }

  // ---- clients

  /** A signed, short-lived leave to report RTTs, for the prefix of this client. */
  ticketFor(client: Address): string {
    return signTicket(this.#ticketKey, formatPrefix(localityPrefix(client)), this.#clock.nowMs())
  }

  /**
   * A client asked for `service`. Only of what came by TCP or HTTP, or from a listed resolver: a forged query
   * must aim no probes. `direct`: the address itself contacted us, so it may be probed.
   */
  noteDemand(client: Address, service: string, direct: boolean): void {
    this.#measuring.noteDemand(client, service, direct, this.#clock.monotonicMs())
  }

  /** What would be probed next for this client, for `explain`. */
  nextProbes(client: Address): readonly string[] {
    return this.#measuring.nextProbes(client)
  }

  // ---- life

  /** Time passed: call four times a second. Leases end, orders are planned, what was measured is stored. */
  tick(): void {
    const nowMs = this.#clock.monotonicMs()
    for (const fact of this.#liveness.tick(nowMs, this.#rng)) {
      this.counters.add(`liveness.${fact.kind}`)
      if (fact.kind === 'ask') this.#measuring.askOpinions(fact.host, fact.askers, nowMs, this.#clock.nowMs())
      else if (fact.kind === 'silent') this.#giveUp(fact.host, fact.why)
      else this.#log.warn({ host: fact.host }, 'not heard here, but other hosts reach it: kept')
    }
    this.#publishMeasured(this.#measuring.tick(nowMs, this.#clock.nowMs()))
    this.#publishMeasured(this.#measuring.settleRested())
    this.#proveAgain(nowMs)
    if (nowMs >= this.#keepDueMs) {
      this.#keepDueMs = nowMs + KEEP_MEASURED_MS
      this.#inBackground(this.#keepMeasured())
    }
    if (nowMs >= this.#upkeepDueMs) {
      this.#upkeepDueMs = nowMs + UPKEEP_EVERY_MS
      this.#inBackground(this.#write(() => ({ changes: this.#upkeep(), result: undefined })))
    }
  }

  status(): CoreStatus {
    const hosts = { live: 0, silent: 0, left: 0 }
    for (const host of this.directory.hosts.values()) hosts[host.presence]++
    let live = 0
    for (const { service, name } of this.directory.members.values()) {
      if (this.tables.member(service, name)?.state === 'live') live++
    }
    const degraded = [this.#storeTrouble, this.#liveness.suspicion].filter((reason) => reason !== null)
    if (this.#draining) degraded.push('this core is shutting down')
    return {
      name: this.name,
      version: VERSION,
      zone: this.zone,
      uptimeSec: Math.round((this.#clock.monotonicMs() - this.#startedMs) / 1000),
      ready: !this.#draining,
      degraded,
      services: this.directory.services.size,
      hosts,
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
    await this.#keepMeasured().catch(() => {})
    await this.#lastWrite
    this.#closed = true
  }

  // ---- the one way in

  /** Decides when all writes before have been decided, commits, then answers with it. Throws Problem. */
  #write<T>(decide: () => Decision<T>): Promise<T> {
    const run = this.#lastWrite.then(async () => {
      if (this.#closed) throw new Problem('unavailable', 'this core has stopped')
      const { changes, result } = decide()
      if (changes.length > 0) {
        await this.#commit(changes)
        this.#publish(changes)
      }
      return result
    })
    this.#lastWrite = run.catch(() => {})
    return run
  }

  async #commit(changes: readonly Change[]): Promise<void> {
    try {
      await this.#store.commit(changes)
      this.#storeTrouble = null
    } catch (cause) {
      this.counters.add('store.failed')
      this.#storeTrouble = `the store takes no changes: ${(cause as Error).message}`
      this.#log.error({ err: cause }, 'the store takes no changes; answering goes on from memory')
      throw new Problem('unavailable', `${this.#storeTrouble}; try again later`)
    }
  }

  #publish(changes: readonly Change[]): void {
    applyChanges(this.directory, changes)
    this.tables.apply(changes)
    this.#credentials.apply(changes)
    this.#measuring.apply(changes)
    for (const change of changes) {
      if (change.kind === 'hosts' && change.value?.presence !== 'live') this.#liveness.forget(change.key)
      if (change.kind === 'settings') this.#readSecrets()
    }
  }

  #readSecrets(): void {
    this.#ticketKey = ticketKey(this.directory.settings)
    this.#cookieSecrets = cookieSecrets(this.directory.settings)
  }

  /** Answers with measured things at once; they are stored with the next round. */
  #publishMeasured(changes: readonly Change[]): void {
    if (changes.length === 0) return
    this.#publish(changes)
    const settled = this.#measuring.settle(changes)
    this.#publish(settled)
    for (const change of [...changes, ...settled]) this.#measured.set(`${change.kind} ${change.key}`, change)
  }

  async #keepMeasured(): Promise<void> {
    if (this.#measured.size === 0) return
    const changes = this.#current([...this.#measured.values()])
    this.#measured.clear()
    try {
      await this.#write(() => ({ changes: this.#current(changes), result: undefined }))
    } catch (error) {
      for (const change of changes) this.#measured.set(`${change.kind} ${change.key}`, change)
      throw error
    }
  }

  /** The records behind changes as they are by now: what waited must not undo what was decided meanwhile. */
  #current(changes: readonly Change[]): Change[] {
    return changes.map(
      ({ kind, key }) => ({ kind, key, value: this.directory[kind].get(key) ?? null }) as Change,
    )
  }

  /** What time alone makes due: names to forget, secrets to roll. */
  #upkeep(): Change[] {
    const nowMs = this.#clock.nowMs()
    return [...forgotten(this.directory, nowMs), ...dueSecrets(this.directory.settings, nowMs, randomHex)]
  }

  #inBackground(work: Promise<unknown>): void {
    work.catch((err: Error) => {
      if (!this.#closed) this.#log.warn({ err }, 'left for the next round')
    })
  }

  // ---- hosts

  /** Expects heartbeats of a live host from now on; of itself none. */
  #expect(host: Host): void {
    if (!host.agent || host.presence !== 'live' || host.name === this.name) return
    this.#liveness.hear(host.name, host.leaseSec * 1000, this.#clock.monotonicMs())
  }

  /** The host behind a beat, if the credential is its own and it has not said goodbye. */
  #hostOf(beat: Beat): Host | null {
    const host = this.directory.hosts.get(beat.host)
    if (host?.credentialHash == null || !matchesHash(beat.credential, host.credentialHash)) return null
    return host.presence === 'left' ? null : host
  }

  #giveUp(name: string, why: string): void {
    this.#log.warn({ host: name }, `host is silent: ${why}`)
    const presenceSinceMs = this.#clock.nowMs()
    this.#inBackground(
      this.#write(() => {
        const host = this.directory.hosts.get(name)
        if (host?.presence !== 'live' || this.#liveness.expects(name))
          return { changes: [], result: undefined }
        const value: Host = { ...host, presence: 'silent', presenceSinceMs }
        return { changes: [{ kind: 'hosts', key: name, value }], result: undefined }
      }),
    )
  }

  #hearResults(host: string, results: readonly OrderResult[], nowMs: number): void {
    const { measured, health } = this.#measuring.hearResults(host, results, nowMs, this.#clock.nowMs())
    this.#publishMeasured(measured)
    if (health.length > 0)
      this.#inBackground(
        this.#write(() => ({ changes: healthChanges(this.directory, health), result: undefined })),
      )
  }

  #samples(caller: Caller, request: MeasurementRequest, from: Peer): Sample[] {
    if (request.ticket === undefined) {
      if (caller.kind !== 'host') {
        throw new Problem(
          'unauthorized',
          'RTTs are taken from a host (its credential as Bearer) or with a ticket',
        )
      }
      return request.rtts.map(({ address, rttMs, count = 1 }) => ({
        client: address === undefined ? null : parseAddress(address),
        host: caller.host,
        rttMs,
        count,
        kind: 'passive',
      }))
    }
    checkTicket(
      this.#ticketKey,
      request.ticket,
      formatPrefix(localityPrefix(from.address)),
      this.#clock.nowMs(),
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
      nowMs: this.#clock.nowMs(),
      home: this.name,
      fromAddress: formatAddress(from.address),
      fromPort: from.port,
      credential,
      credentialHash: hashSecret(credential),
      echoKey: randomHex(32),
      placeOf: (text) => this.#geography?.lookup(parseAddress(text)!) ?? null,
    }
  }

  // ---- proofs of addresses

  /** Tries each address that is not proven yet by an echo, and keeps what answered. */
  async #prove(host: Host): Promise<void> {
    if (host.echo === null || !needsProof(host)) return
    const open = host.addresses.filter((address) => host.proofs[address] !== 'echo')
    this.#proveDueMs.set(host.name, this.#clock.monotonicMs() + PROVE_AGAIN_MS)
    const { port } = host.echo
    const answered = await Promise.all(
      open.map((address) =>
        this.#measuring.reach(host, { address, port }, PROVE_TIMEOUT_MS, this.#clock.nowMs()),
      ),
    )
    const proven = open.filter((_, i) => answered[i])
    await this.#write(() => ({ changes: proofChanges(this.directory, host, proven), result: undefined }))
  }

  #proveAgain(nowMs: number): void {
    for (const [name, dueMs] of this.#proveDueMs) {
      if (dueMs > nowMs) continue
      this.#proveDueMs.delete(name)
      const host = this.directory.hosts.get(name)
      if (host?.presence === 'live') this.#inBackground(this.#prove(host))
    }
  }
}

function randomHex(bytes: number): string {
  return randomBytes(bytes).toString('hex')
}

/** Whether an echo could still show something about a host. */
function needsProof(host: Host): boolean {
  return host.echo !== null && host.addresses.some((address) => host.proofs[address] !== 'echo')
}

/** What to do about a member that is registered and yet not answered with. */
export const STATE_HINTS: Partial<Record<MemberState, string>> = {
  unverified:
    'no address of its host answered an echo yet; it is tried again every 10 s: open the echo port for UDP, or make the service with verify seen or none',
  down: 'its health check fails',
  drained: 'an operator took it out; `nearcast member undrain` puts it back',
  silent: 'its host is not heard',
}

/** The records that a core needs of itself: the service `core`, its own host and member, shared secrets. */
function foundingChanges(directory: Directory, options: CoreOptions): Change[] {
  const { config, clock, echo } = options
  const addresses = config.advertise
  const port = config.http[0]!.port
  const changes: Change[] = []
  const service = serviceFrom(CORE_SERVICE, {})
  if (!directory.services.has(CORE_SERVICE))
    changes.push({ kind: 'services', key: CORE_SERVICE, value: service })
  for (const [key, member] of directory.members) {
    if (member.service !== CORE_SERVICE || member.name === config.name) continue
    changes.push({ kind: 'members', key, value: null }, { kind: 'hosts', key: member.host, value: null })
  }
  const before = directory.hosts.get(config.name)
  const host: Host = {
    name: config.name,
    agent: true,
    addresses,
    proofs: Object.fromEntries(addresses.map((address) => [address, 'vouched'] as const)),
    echo: { address: addresses[0]!, port: echo.port },
    echoKey: before?.echoKey ?? randomHex(32),
    publicAddress: null,
    publicPort: null,
    reachable: true,
    home: config.name,
    leaseSec: LEASE_SEC.default,
    presence: 'live',
    presenceSinceMs: clock.nowMs(),
    coordinate: before?.coordinate ?? null,
    ...(before?.meshMs && { meshMs: before.meshMs }),
    place: options.geography?.lookup(parseAddress(addresses[0]!)!) ?? null,
    credentialHash: null,
    tokenId: null,
  }
  const member: Member = {
    service: CORE_SERVICE,
    name: config.name,
    host: config.name,
    addresses: [],
    port: port === 0 ? null : port,
    url:
      port === 0
        ? null
        : `${config.tlsCert === null ? 'http' : 'https'}://${formatHostPort({ host: addresses[0]!, port })}/`,
    attributes: {},
    weight: 1,
    capacity: 1,
    load: null,
    health: 'up',
    drained: false,
    left: false,
    check: null,
  }
  changes.push({ kind: 'hosts', key: host.name, value: host })
  changes.push({ kind: 'members', key: memberKey(CORE_SERVICE, member.name), value: member })
  return changes
}

/** A whole directory as changes, for what is compiled from it. */
function allRecords(directory: Directory): Change[] {
  const changes: Change[] = []
  // Places before localities: which network a measured prefix is in is then asked once.
  for (const kind of ['services', 'hosts', 'members', 'places', 'localities'] as const) {
    for (const [key, value] of directory[kind]) changes.push({ kind, key, value } as Change)
  }
  return changes
}
