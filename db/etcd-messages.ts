// What is said to etcd and what it answers: the messages of etcd.proto as TypeScript has them.
//
// Revisions are numbers: they stay exact up to 2^53, some hundred thousand years of commits. Lease ids are
// chosen by us below 2^48 for the same reason. Pure types, and the few forms that all who write them use.
// https://etcd.io/docs/v3.4/dev-guide/api_reference_v3/

/** One key as it stands. */
export interface KeyValue {
  readonly key: Buffer
  readonly create_revision: number
  readonly mod_revision: number
  readonly version: number
  readonly value: Buffer
}

export interface Header {
  readonly revision: number
}

/** From `key` to before `range_end`; without it the one key. */
export interface KeyRange {
  readonly key: Buffer
  readonly range_end?: Buffer
}

export interface RangeRequest extends KeyRange {
  readonly limit?: number
  /** As it was at that revision; 0: now. */
  readonly revision?: number
  readonly keys_only?: boolean
}

export interface RangeReply {
  readonly header: Header
  readonly kvs: readonly KeyValue[]
  readonly more: boolean
}

export interface PutRequest {
  readonly key: Buffer
  readonly value: Buffer
  readonly lease?: number
}

export interface Compare extends KeyRange {
  readonly result: 'EQUAL' | 'LESS' | 'NOT_EQUAL'
  readonly target: 'CREATE' | 'MOD'
  readonly create_revision?: number
  readonly mod_revision?: number
}

export type Op =
  | { readonly request_range: RangeRequest }
  | { readonly request_put: PutRequest }
  | { readonly request_delete_range: KeyRange }
  | { readonly request_txn: TxnRequest }

export interface TxnRequest {
  readonly compare: readonly Compare[]
  readonly success: readonly Op[]
  readonly failure?: readonly Op[]
}

export interface TxnReply {
  readonly header: Header
  readonly succeeded: boolean
  /** Of the ops in their order; puts and removals say nothing. */
  readonly responses: readonly {
    readonly response_range?: RangeReply | null
    readonly response_txn?: TxnReply | null
  }[]
}

export interface WatchReply {
  readonly header: Header
  readonly created: boolean
  readonly canceled: boolean
  /** Where it was cancelled because what it asked for is compacted away: what is kept still. */
  readonly compact_revision: number
  readonly cancel_reason: string
  /** The events of this reply go on in the next. */
  readonly fragment: boolean
  readonly events: readonly Event[]
}

export interface Event {
  readonly type: 'PUT' | 'DELETE'
  readonly kv: KeyValue
}

/** Request and reply of each call. */
export interface Calls {
  'KV/Range': [RangeRequest, RangeReply]
  'KV/Put': [PutRequest, { readonly header: Header }]
  'KV/DeleteRange': [KeyRange, { readonly header: Header }]
  'KV/Txn': [TxnRequest, TxnReply]
  'KV/Compact': [{ readonly revision: number }, object]
  'Lease/LeaseGrant': [{ readonly TTL: number; readonly ID: number }, { readonly ID: number }]
  'Lease/LeaseRevoke': [{ readonly ID: number }, object]
  'Maintenance/Status': [object, { readonly dbSize: number; readonly dbSizeInUse: number }]
  'Auth/Authenticate': [{ readonly name: string; readonly password: string }, { readonly token: string }]
}

/** The same of each call that is two streams. */
export interface Streams {
  'Watch/Watch': [object, WatchReply]
  'Lease/LeaseKeepAlive': [{ readonly ID: number }, { readonly ID: number; readonly TTL: number }]
}

export function put(key: Buffer, value: Buffer, lease = 0): Op {
  return { request_put: { key, value, lease } }
}

export function range(request: RangeRequest): Op {
  return { request_range: request }
}

export function remove(range: KeyRange): Op {
  return { request_delete_range: range }
}

/** All keys that begin with `prefix`. */
export function under(prefix: Buffer): KeyRange {
  const range_end = Buffer.from(prefix)
  // Our prefixes end in a slash, so the byte after it ends the range.
  range_end[range_end.length - 1]!++
  return { key: prefix, range_end }
}

/** The key was not changed after `revision`, or isn't there. */
export function unchangedSince(key: Buffer, revision: number): Compare {
  return { key, result: 'LESS', target: 'MOD', mod_revision: revision + 1 }
}

/** The key was changed last in `revision`; 0: it isn't there. */
export function changedIn(key: Buffer, revision: number): Compare {
  return { key, result: 'EQUAL', target: 'MOD', mod_revision: revision }
}

export function isThere(key: Buffer): Compare {
  return { key, result: 'NOT_EQUAL', target: 'CREATE', create_revision: 0 }
}

export function isAbsent(key: Buffer): Compare {
  return { key, result: 'EQUAL', target: 'CREATE', create_revision: 0 }
}
