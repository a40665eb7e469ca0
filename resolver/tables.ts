// The compiled tables: the one form of the data that every answer reads, on every path.
//
// One writer (the core) puts changes in; locate and select only read (what a start found packed is compiled for whoever
// looks at it first, which alters no answer). Hosts, members and localities are rows; what a query touches is in flat
// typed arrays indexed by row. A row's number stays the same while anything refers to it, so records may come in any order.
// Invariant: after load() and apply() the tables say what compiling the whole directory afresh would, with two
// exceptions: shed shares remember (see nextShedShare); and among ten hosts or more what is only estimated (RTTs
// that nobody measured, and whose word counts) may lag behind coordinates and meshes that moved, by up to two
// moves a host (see HostTable's modelSerial). Who comes or goes, and what was measured, is told at once.

import { type Address, formatPrefix, type Prefix, parsePrefix } from './address.ts'
import {
  type Change,
  type Evidence,
  type Geography,
  type Host,
  type LocalityRecord,
  type Member,
  memberKey,
  type Service,
} from './directory.ts'
import { fnvStep, hashBytes } from './hash.ts'
import { HostTable } from './host-table.ts'
import { LeadingLabels } from './leading-labels.ts'
import { type LocalityRow, LocalityRows, MAX_UNPACKED } from './locality-rows.ts'
import { MemberIndex } from './member-index.ts'
import type { PackedLocalities } from './packed-localities.ts'
import { Panel } from './panel.ts'
import type { Places } from './place-reader.ts'
import { PlaceTable } from './place-table.ts'
import { PrefixTable } from './prefix-table.ts'
import { Relatives } from './relatives.ts'
import {
  compileMember,
  nextShedShare,
  type ServingMember,
  type ServingService,
  type TabledService,
} from './serving.ts'

/** What is handed out of a slot; only the tables write it. */
type Serving = { -readonly [K in keyof TabledService]: TabledService[K] }

interface ServiceSlot {
  service: Service | null
  serving: Serving | null
  readonly members: ServingMember[]
  readonly indexOf: Map<string, number>
  /** How many of the members are live. */
  live: number
  index: MemberIndex | null
}

/** From so many members on a service has an index, below which it is given up again: to weigh a few hundred costs no more. */
const INDEX_FROM = 512
const INDEX_UNTIL = 256

export class Tables {
  #serial = 0
  #namesSerial = 0
  #distanceSerial = 0
  #geography: Geography | null = null
  /** What is known of hosts; only this class changes it. */
  readonly hosts = new HostTable((prefix) => this.#clientsMoved(prefix))

  readonly #services = new Map<string, ServiceSlot>()
  readonly #aliases = new Map<string, string>()
  /** Of services and their aliases; only this class changes it. */
  readonly leadingLabels = new LeadingLabels()
  readonly #members = new Map<string, Member>()

  readonly #clientsListeners: ((prefix: Prefix | null) => void)[] = []

  /** Those that were measured, and what is pooled of them. */
  readonly #localities = new LocalityRows(this.hosts, (prefix) => this.#panel.has(prefix))
  #evidencePrefixes = new PrefixTable()
  /** Well measured localities, by their prefixes. */
  readonly #panel = new Panel(PANEL_SIZE, () => this.#wellMeasured(), rankOf)
  #panelSerial = 0
  #panelRows: { serial: number; rows: readonly number[] } = { serial: 0, rows: [] }
  /** Where imports say that prefixes are; only this class changes it. Apart from what was measured, so that neither hides the other. */
  readonly places: Places
  /** What measured prefixes say of unmeasured ones of their network, by rows of their own. */
  readonly #pooledPrefixes = new PrefixTable()
  readonly #pooledFacts = new Map<number, number>()
  /** Prefixes of which nothing is pooled any more since the last apply began, by their text. */
  readonly #unpooled = new Map<string, Prefix>()
  readonly #relatives: Relatives

  /** `places`: where imported places are read, if not in a table of its own. */
  constructor(places: Places = new PlaceTable()) {
    this.places = places
    this.#relatives = new Relatives(
      places,
      {
        relative: (row) => this.#localities.relative(row),
        prefixOf: (row) => this.#localities.prefixOf(row),
        isMeasured: (row) => this.#localities.ownEvidence(row) > 0,
        visitInside: (prefix, visit) => {
          this.#evidencePrefixes.visitInside(prefix, (row) => {
            visit(row)
            return true
          })
        },
      },
      {
        add: (part, evidence, isNews) => this.#addPooled(part, evidence, isNews),
        remove: (row) => this.#removePooled(row),
      },
    )
  }

  /** Grows with each change that can alter an answer. */
  get serial(): number {
    return this.#serial
  }

  /** Grows when a name may lead to another service than before. */
  get namesSerial(): number {
    return this.#namesSerial
  }

  /** Grows with each change that can alter how far any member is from any client, or who a client is. */
  get distanceSerial(): number {
    // Of rows that were given up long enough, a member's going may be what has distances reckoned anew.
    return this.#distanceSerial + this.hosts.modelSerial
  }

  /**
   * From now on `listener` is told for the addresses of which prefix something else may be found than before (null: for
   * all), and so how wide it holds for those around them. What is known of a whole AS is no prefix's: see isSystemKnown.
   */
  onClientsMoved(listener: (prefix: Prefix | null) => void): void {
    this.#clientsListeners.push(listener)
  }

  #clientsMoved(prefix: Prefix | null): void {
    for (const listener of this.#clientsListeners) listener(prefix)
  }

  get geography(): Geography | null {
    return this.#geography
  }

  /** Takes changes in, in order. A change costs at most the members of the host or service that it names. */
  apply(changes: readonly Change[]): void {
    for (const change of changes) {
      if (change.kind === 'tokens' || change.kind === 'settings') continue
      if (change.kind !== 'services' && change.kind !== 'members') this.#distanceSerial++
      if (change.kind === 'services') this.#setService(change.key, change.value)
      else if (change.kind === 'hosts') this.#setHost(change.key, change.value)
      else if (change.kind === 'members') this.#setMember(change.key, change.value)
      else if (change.kind === 'places') this.#setPlaces(change.key, change.value?.packed ?? null)
      else this.#setLocality(change.key, change.value)
      this.#serial++
    }
    this.#relatives.refresh()
    for (const prefix of this.#unpooled.values()) this.#clientsMoved(prefix)
    this.#unpooled.clear()
  }

  /** Takes in what a start found, before any other locality and after the places that it may be in. */
  load(packed: PackedLocalities, maxUnpacked = MAX_UNPACKED): void {
    this.#localities.load(packed, maxUnpacked)
    this.#evidencePrefixes = packed.index.clone()
    const address = new Uint8Array(16)
    packed.visit((row, own, page, at) => {
      if (own < PANEL_EVIDENCE) return
      page.copyAddress(at, address)
      this.#panel.addRanked(rankOfPrefix(address, page.bitsOf(at)), () => packed.keyOf(row))
    })
    this.#relatives.load()
    this.#clientsMoved(null)
    this.#panelSerial++
    this.#distanceSerial++
    this.#serial++
  }

  /** Sets what places addresses on the map; null: nothing does. Hosts without a place of their own get theirs anew. */
  setGeography(geography: Geography | null): void {
    this.#geography = geography
    this.hosts.setGeography(geography)
    for (const slot of this.#services.values()) {
      slot.members.forEach((member, i) => {
        slot.index?.put(i, member)
      })
    }
    this.#clientsMoved(null)
    this.#distanceSerial++
    this.#serial++
  }

  /** A service by its name, an alias label or an alias full name; lower case, no final dot. */
  service(name: string): TabledService | null {
    const named = this.#services.get(name)?.serving
    if (named) return named
    const target = this.#aliases.get(name)
    return target === undefined ? null : (this.#services.get(target)?.serving ?? null)
  }

  /** Every service there is. */
  *services(): Iterable<ServingService> {
    for (const slot of this.#services.values()) if (slot.serving) yield slot.serving
  }

  member(service: string, name: string): ServingMember | null {
    const slot = this.#services.get(service)
    const index = slot?.indexOf.get(name)
    return index === undefined ? null : slot!.members[index]!
  }

  /** How many members of all services are live. */
  get live(): number {
    let live = 0
    for (const slot of this.#services.values()) live += slot.live
    return live
  }

  /** How many members of a service are live, whatever it asks of them. */
  liveMembers(service: string): number {
    return this.#services.get(service)?.live ?? 0
  }

  /** Members of a service on a host, by its row. */
  membersOn(row: number, service: string): ServingMember[] {
    const prefix = memberKey(service, '')
    return this.hosts.membersOf(row).flatMap((key) => {
      const member = key.startsWith(prefix) ? this.member(service, key.slice(prefix.length)) : null
      return member === null ? [] : [member]
    })
  }

  /** Row of the live host that proved this address; -1: none. Of several, the first by name. */
  hostRowAt(address: Address): number {
    return this.hosts.findAt(address).value
  }

  /** Row of a host by name; -1: neither a record nor referred to. */
  hostRow(name: string): number {
    return this.hosts.rowOf(name)
  }

  hostName(row: number): string {
    return this.hosts.nameOf(row)
  }

  /** Predicted RTT between two hosts, ms. NaN: one of them has no coordinate. */
  distanceBetweenHostsMs(a: number, b: number): number {
    return this.hosts.distanceBetweenMs(a, b)
  }

  /**
   * Row of the longest prefix around the address with evidence; where there is none, of what its relatives in
   * its announced prefix, else in its AS and country measured (evidence of count 0); -1: nothing.
   */
  findEvidence(address: Address): { value: number; scopeBits: number } {
    this.#localities.forgetSurplus()
    const own = this.#evidencePrefixes.find(address)
    if (own.value >= 0 || this.places.size === 0) return own
    const place = this.places.find(address)
    this.#relatives.prepare(address)
    const pooled = this.#pooledPrefixes.find(address)
    // A more specific announcement inside is another network: the word of the one around it is not its own.
    const isOfNetwork = pooled.value >= 0 && this.#pooledFacts.get(pooled.value) === place.value
    return {
      value: isOfNetwork ? pooled.value : this.#relatives.rowOfSystem(place.value),
      scopeBits: Math.max(own.scopeBits, place.scopeBits, pooled.scopeBits),
    }
  }

  /** Whether something may be known of the AS of a place by its row: then findEvidence says what. Allocates nothing. */
  isSystemKnown(placeRow: number): boolean {
    return this.#relatives.isSystemKnown(placeRow)
  }

  /** Well measured localities, whose RTTs tell of others that see the world alike: the same on every core. */
  *panel(): Iterable<LocalityRow> {
    if (this.#panelRows.serial !== this.#panelSerial) {
      const rows = Array.from(this.#panel.keys(), (prefix) => this.localityRow(prefix))
      this.#panelRows = { serial: this.#panelSerial, rows }
    }
    for (const row of this.#panelRows.rows) yield this.locality(row)!
  }

  get panelSerial(): number {
    return this.#panelSerial
  }

  locality(row: number): LocalityRow | null {
    return this.#localities.at(row)
  }

  /** Row of a locality by its prefix text; -1: none. */
  localityRow(text: string): number {
    return this.#localities.rowOf(text)
  }

  // Services and members.

  #slot(name: string): ServiceSlot {
    let slot = this.#services.get(name)
    if (!slot) {
      slot = { service: null, serving: null, members: [], indexOf: new Map(), live: 0, index: null }
      this.#services.set(name, slot)
    }
    return slot
  }

  #setService(name: string, service: Service | null): void {
    const slot = this.#slot(name)
    for (const alias of slot.service?.aliases ?? []) {
      if (this.#aliases.get(alias) === name) this.#aliases.delete(alias)
    }
    const before = slot.service
    for (const known of namesOf(before)) this.leadingLabels.remove(known)
    for (const known of namesOf(service)) this.leadingLabels.add(known)
    slot.service = service
    this.#setServing(slot)
    for (const alias of service?.aliases ?? []) this.#aliases.set(alias, name)
    // All of a million members anew only where they would come out otherwise.
    if (before === null || service === null || !isServedAlike(before, service)) {
      for (const member of [...slot.indexOf.keys()]) this.#compileMember(memberKey(name, member))
    }
    if (!service && slot.members.length === 0) this.#services.delete(name)
  }

  #setMember(key: string, member: Member | null): void {
    const before = this.#members.get(key)
    if (member) {
      this.hosts.addMember(this.hosts.keep(member.host), key)
      this.#members.set(key, member)
      const share = this.member(member.service, member.name)?.shedShare ?? 0
      this.#compileMember(key, nextShedShare(share, member.load, member.capacity))
    } else this.#members.delete(key)
    if (!before) return
    const row = this.hosts.rowOf(before.host)
    if (member?.host !== before.host) this.hosts.removeMember(row, key)
    this.hosts.release(row)
    if (!member) this.#removeServing(before)
  }

  /** Without a share: it stays what it was, since no load was reported. */
  #compileMember(key: string, shedShare?: number): void {
    const member = this.#members.get(key)!
    const slot = this.#slot(member.service)
    const row = this.hosts.rowOf(member.host)
    const index = slot.indexOf.get(member.name) ?? slot.members.length
    const share = shedShare ?? slot.members[index]!.shedShare
    slot.indexOf.set(member.name, index)
    const serving = compileMember(member, slot.service, this.hosts.recordOf(row), row, share)
    slot.live += countLive(serving) - countLive(slot.members[index])
    slot.members[index] = serving
    if (slot.serving !== null) slot.serving.serial++
    slot.index?.put(index, serving)
    if (slot.index === null && slot.members.length >= INDEX_FROM) this.#setIndex(slot, true)
  }

  #setServing(slot: ServiceSlot): void {
    const { service, members, index } = slot
    slot.serving = service && { service, members, index, serial: 0 }
    this.#namesSerial++
  }

  #setIndex(slot: ServiceSlot, present: boolean): void {
    slot.index = present ? new MemberIndex(this.hosts, slot.indexOf) : null
    slot.members.forEach((member, i) => {
      slot.index?.put(i, member)
    })
    this.#setServing(slot)
  }

  #removeServing(member: Member): void {
    const slot = this.#slot(member.service)
    if (slot.serving !== null) slot.serving.serial++
    const index = slot.indexOf.get(member.name)!
    slot.live -= countLive(slot.members[index])
    const last = slot.members.pop()!
    slot.indexOf.delete(member.name)
    slot.index?.remove(slot.members.length)
    if (last.name !== member.name) {
      slot.members[index] = last
      slot.indexOf.set(last.name, index)
      slot.index?.remove(index)
      slot.index?.put(index, last)
    }
    if (slot.index !== null && slot.members.length < INDEX_UNTIL) this.#setIndex(slot, false)
    if (!slot.service && slot.members.length === 0) this.#services.delete(member.service)
  }

  #setHost(name: string, host: Host | null): void {
    const row = this.hosts.set(name, host)
    for (const key of this.hosts.membersOf(row)) this.#compileMember(key)
  }

  // Localities.

  #setLocality(text: string, record: LocalityRecord | null): void {
    const localities = this.#localities
    const prefix = parsePrefix(text)
    const known = localities.rowOf(text)
    if (!prefix || (!record && known < 0)) return
    const [wasFound, wasWell] = [localities.hasEvidence(known), this.#isWell(known)]
    if (!record) localities.delete(text)
    const row = record ? localities.set(text, record) : known
    this.#setPanel(text, wasWell, this.#isWell(row))
    const isFound = localities.hasEvidence(row)
    if (isFound !== wasFound) this.#clientsMoved(prefix)
    setOrDelete(this.#evidencePrefixes, prefix, row, isFound)
    this.#relatives.set(row)
  }

  #isWell(row: number): boolean {
    return this.#localities.ownEvidence(row) >= PANEL_EVIDENCE
  }

  /** A change of what one in the panel saw is news to all who hear it, as is who comes and goes. */
  #setPanel(prefix: string, was: boolean, is: boolean): void {
    let isHeard = false
    if (was && is) isHeard = this.#panel.has(prefix)
    else if (is) isHeard = this.#panel.add(prefix)
    else if (was) isHeard = this.#panel.remove(prefix)
    if (isHeard) this.#panelSerial++
  }

  *#wellMeasured(): Iterable<string> {
    for (const [prefix, row] of this.#localities.entries()) if (this.#isWell(row)) yield prefix
  }

  #setPlaces(region: string, packed: Uint8Array | null): void {
    this.places.setPage(region, packed)
    this.#clientsMoved(parsePrefix(region))
    this.#relatives.regroup(region)
  }

  #addPooled(
    part: { prefix: Prefix; factRow: number } | null,
    evidence: readonly Evidence[],
    isNews: boolean,
  ): number {
    const prefix = part?.prefix ?? EVERYWHERE
    const record = { prefix: formatPrefix(prefix), evidence, incumbents: {} }
    const row = this.#localities.add(prefix, record)
    if (part) {
      this.#pooledPrefixes.set(prefix, row)
      // Mostly the same prefix has another word than before: then nothing is found elsewhere than it was.
      if (!this.#unpooled.delete(record.prefix) && isNews) this.#clientsMoved(prefix)
      this.#pooledFacts.set(row, part.factRow)
    }
    return row
  }

  #removePooled(row: number): void {
    if (this.#pooledFacts.delete(row)) {
      const { prefix, record } = this.#localities.at(row)!
      this.#unpooled.set(record.prefix, prefix)
      // Another network's word may stand there by now.
      if (this.#pooledPrefixes.get(prefix) === row) this.#pooledPrefixes.delete(prefix)
    }
    this.#localities.remove(row)
  }
}

/** Localities heard as witnesses of how others see the world: more make estimates no better (tried: 64 to 512). */
const PANEL_SIZE = 256
/** RTTs of its own that make a locality well measured. */
const PANEL_EVIDENCE = 4

/** Whose prefixes hash lowest are in the panel. */
function rankOf(text: string): number {
  const { address, bits } = parsePrefix(text)!
  return rankOfPrefix(address, bits)
}

function rankOfPrefix(address: Address, bits: number): number {
  return fnvStep(hashBytes(address, address.length), bits) >>> 0
}

function countLive(member: ServingMember | undefined): number {
  return member?.state === 'live' ? 1 : 0
}

function namesOf(service: Service | null): readonly string[] {
  return service === null ? [] : [service.name, ...service.aliases]
}

/** Whether members come out alike for two records of a service: what compileMember reads of it. */
function isServedAlike(a: Service, b: Service): boolean {
  const keys = Object.keys(a.where)
  return (
    a.verify === b.verify &&
    keys.length === Object.keys(b.where).length &&
    keys.every((key) => a.where[key] === b.where[key])
  )
}

/** What an AS says is found by its number, not by a prefix. */
const EVERYWHERE: Prefix = { address: new Uint8Array(16), bits: 0 }

function setOrDelete(table: PrefixTable, prefix: Prefix, row: number, present: boolean): void {
  if (present) table.set(prefix, row)
  else table.delete(prefix)
}
