// What the values in etcd say: records as JSON with a schema version, alone or packed many together; localities, of
// which there are most, in the columns that a core reads as they are (resolver/locality-page.ts).
//
// Invariant: fields that this program does not know are kept when it rewrites a record, so that a newer core
// beside it loses nothing; they are the newer's business and never seen by ours. What the next version writes
// can be read, what a later one does not; a record that lacks a field, or is none, is told apart from that.
// A removed record is `null`. Bytes are base64 within JSON. Pure.

import { deflateRawSync, inflateRawSync } from 'node:zlib'
import type { Change, Directory } from '../resolver/directory.ts'
import { type LocalityPage, packLocalities } from '../resolver/locality-page.ts'
import { sharedPage } from '../resolver/packed-localities.ts'
import { KINDS, TABLE_SHAPES } from './columns.ts'

type Kind = keyof Directory

/** Of the records that this program writes. One higher is read too: of a core that was updated first. */
export const SCHEMA = 1

/** A fast one: pages are written often, and shrink to a fifth by it. */
const LEVEL = 3

/** Fields of a record that this program does not know. */
export type Extras = Readonly<Record<string, unknown>>

/** A record as it is kept: JSON's values only, unknown fields and all; null: removed. */
export type Kept = unknown

/** What can't be read: `newer` than this program understands, or damaged. */
export class ValueError extends Error {
  readonly isNewer: boolean
  constructor(isNewer: boolean, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'ValueError'
    this.isNewer = isNewer
  }
}

interface Fields {
  readonly required: readonly string[]
  readonly known: ReadonlySet<string>
  readonly bytes: readonly string[]
}

const FIELDS = Object.fromEntries(KINDS.map((kind) => [kind, fieldsOf(kind)])) as Record<Kind, Fields>

function fieldsOf(kind: Kind): Fields {
  const { columns } = TABLE_SHAPES[kind]
  return {
    required: columns.filter(({ form }) => form !== 'optional').map(({ field }) => field),
    known: new Set(columns.map(({ field }) => field)),
    bytes: columns.filter(({ form }) => form === 'bytes').map(({ field }) => field),
  }
}

/** A record, with the unknown fields that it came with. Throws TypeError for a kind that there is not. */
export function toKept(kind: Kind, value: Change['value'], extras: Extras | undefined): Kept {
  const fields = FIELDS[kind]
  if (fields === undefined) throw new TypeError(`No key keeps ${kind}`)
  if (value === null || typeof value !== 'object') return value
  const kept: Record<string, unknown> = { ...extras, ...value }
  for (const field of fields.bytes) kept[field] = Buffer.from(kept[field] as Uint8Array).toString('base64')
  return kept
}

/**
 * Makes what was kept into the record that it is, in place; gives what of it is unknown here. Throws ValueError.
 */
export function takeExtras(kind: Kind, kept: Kept): Extras | null {
  if (kept === null) return null
  if (kind === 'settings') {
    if (typeof kept !== 'string') throw new ValueError(false, 'a setting is not text')
    return null
  }
  if (typeof kept !== 'object') throw new ValueError(false, 'it is no record')
  const record = kept as Record<string, unknown>
  const { required, known, bytes } = FIELDS[kind]
  for (const field of required)
    if (record[field] === undefined) throw new ValueError(false, `it lacks ${field}`)
  for (const field of bytes) record[field] = new Uint8Array(Buffer.from(String(record[field]), 'base64'))
  return takeUnknown(record, known)
}

/** Takes them out of the record. */
function takeUnknown(record: Record<string, unknown>, known: ReadonlySet<string>): Extras | null {
  let extras: Record<string, unknown> | null = null
  for (const field in record) {
    if (known.has(field)) continue
    extras ??= {}
    extras[field] = record[field]
    delete record[field]
  }
  return extras
}

export function encodeRecord(kept: Kept): Buffer {
  return Buffer.from(JSON.stringify({ v: SCHEMA, record: kept }))
}

/** Throws ValueError. */
export function decodeRecord(bytes: Buffer): { v: number; record: Kept } {
  const { v, record } = parse(bytes)
  if (record === undefined) throw new ValueError(false, 'it holds no record')
  return { v, record }
}

/** Records of one bucket by key. */
export type PageRecords = Record<string, Kept>

/** What a page holds: records, and in columns those of localities that have their place there. */
export interface Page {
  readonly v: number
  readonly records: PageRecords
  readonly localities: LocalityPage | null
}

/** `inColumns`: localities are written so; else all is JSON, as the version before reads it. */
export function encodePage(v: number, records: PageRecords, inColumns: boolean): Buffer {
  if (!inColumns) return pack(JSON.stringify({ v, records }), null)
  const { packed, others } = packLocalities(Object.entries(records))
  return pack(JSON.stringify({ v, records: Object.fromEntries(others) }), packed)
}

/** Throws ValueError. */
export function decodePage(bytes: Buffer): Page {
  const { text, localities } = unpack(bytes)
  const { v, records } = parse(text)
  if (typeof records !== 'object' || records === null) throw new ValueError(false, 'it holds no records')
  return { v, records: records as PageRecords, localities }
}

/** All records of a page. */
export function* recordsOf({
  records,
  localities,
}: Pick<Page, 'records' | 'localities'>): Iterable<[string, Kept]> {
  yield* Object.entries(records)
  if (localities === null) return
  for (let row = 0; row < localities.size; row++) {
    const record = localities.recordOf(row)
    yield [record.prefix, record]
  }
}

/** One record of a batch: kind, key and record. */
export type BatchEntry = readonly [kind: Kind, key: string, record: Kept]

/** What a part of a batch holds: records, and in columns those of localities that have their place there. */
export interface Part {
  readonly entries: readonly BatchEntry[]
  readonly localities: LocalityPage | null
}

/** Packs entries, in order, into parts of at most `bytes` each before packing (one entry may be more). `inColumns`: see encodePage. */
export function* encodeParts(
  entries: Iterable<BatchEntry>,
  bytes: number,
  inColumns: boolean,
): Generator<Buffer> {
  let part: BatchEntry[] = []
  let size = 0
  for (const entry of entries) {
    // Its length as text is what decides where a part ends.
    const length = Buffer.byteLength(JSON.stringify(entry))
    if (size > 0 && size + length > bytes) {
      yield encodePart(part, inColumns)
      part = []
      size = 0
    }
    part.push(entry)
    size += length
  }
  if (size > 0) yield encodePart(part, inColumns)
}

function encodePart(entries: readonly BatchEntry[], inColumns: boolean): Buffer {
  if (!inColumns) return pack(JSON.stringify({ v: SCHEMA, entries }), null)
  const localities = entries.filter(([kind]) => kind === 'localities')
  const { packed, others } = packLocalities(localities.map(([, key, record]) => [key, record]))
  const rest = [
    ...entries.filter(([kind]) => kind !== 'localities'),
    ...others.map(([key, record]): BatchEntry => ['localities', key, record]),
  ]
  return pack(JSON.stringify({ v: SCHEMA, entries: rest }), packed)
}

/** Throws ValueError. */
export function decodePart(bytes: Buffer): Part {
  const { text, localities } = unpack(bytes)
  const { entries } = parse(text)
  if (!Array.isArray(entries)) throw new ValueError(false, 'it holds no entries')
  return { entries, localities }
}

/** All entries of a part, in no order. */
export function* entriesOf({ entries, localities }: Part): Iterable<BatchEntry> {
  yield* entries
  for (const [key, record] of recordsOf({ records: {}, localities })) yield ['localities', key, record]
}

/** Small facts about a commit, a batch or a layout. */
export function encodeFacts(facts: object): Buffer {
  return Buffer.from(JSON.stringify({ v: SCHEMA, ...facts }))
}

/** Throws ValueError. */
export function decodeFacts(bytes: Buffer): Record<string, unknown> {
  return parse(bytes)
}

/** What text never begins with: before the columns stand this, the length of the text, and the text. */
const PACKED = 0
const PACKED_HEADER = 5

/** JSON, and behind it localities in columns. */
function pack(text: string, localities: Uint8Array | null): Buffer {
  if (localities === null) return deflateRawSync(text, { level: LEVEL })
  const bytes = Buffer.from(text)
  const header = Buffer.alloc(PACKED_HEADER, PACKED)
  header.writeUInt32LE(bytes.length, 1)
  return deflateRawSync(Buffer.concat([header, bytes, localities]), { level: LEVEL })
}

function unpack(value: Buffer): { text: Buffer; localities: LocalityPage | null } {
  let bytes: Buffer
  try {
    bytes = inflateRawSync(value)
  } catch (cause) {
    throw new ValueError(false, 'it is not packed as it should be', { cause })
  }
  if (bytes[0] !== PACKED || bytes.length < PACKED_HEADER) return { text: bytes, localities: null }
  const end = PACKED_HEADER + bytes.readUInt32LE(1)
  const localities = sharedPage(bytes.subarray(end))
  if (localities === null) throw new ValueError(false, 'its columns of localities are none')
  return { text: bytes.subarray(PACKED_HEADER, end), localities }
}

function parse(bytes: Buffer): Record<string, unknown> & { v: number } {
  let value: unknown
  try {
    value = JSON.parse(bytes.toString())
  } catch (cause) {
    throw new ValueError(false, 'it is not JSON', { cause })
  }
  const v = (value as { v?: unknown } | null)?.v
  if (typeof v !== 'number') throw new ValueError(false, 'it has no schema version')
  if (v > SCHEMA + 1) throw new ValueError(true, `it has schema ${v}, and this program knows ${SCHEMA}`)
  return value as Record<string, unknown> & { v: number }
}
