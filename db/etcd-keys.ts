// Which key of etcd holds what: all lie under one prefix, so that an etcd may be shared.
//
//   layout                     which arrangement of keys and values this is
//   live/                      what every core watches:
//     head                       put by every commit: who made it; its revision is the last commit's
//     records/KIND/BUCKET/KEY    a record as it was last committed, or that it was removed
//     batches/ID                 a commit too large for that: its records are the parts under staged/ID
//     gate                       there while one core commits what takes several steps: others wait
//     folded                     put whenever records changed their place without changing
//     cores/NAME                 the lease of a core
//   pages/KIND/BUCKET          records of a bucket, packed: what a start reads
//   staged/ID, staged/ID/N     an intended batch, and its parts
//   writers/ID                 the last commit of one process: tells whether one of unknown outcome was made
//
// Invariant: a record's truth is what was put last of: its page, a batch that holds it, its own key. Pure.

import type { Directory } from '../resolver/directory.ts'

type Kind = keyof Directory

/**
 * The arrangements that this program reads and writes. In 1 all values are JSON; in 2 localities in pages and batches
 * lie in columns (etcd-values.ts). A store is begun with the last and stays what it was begun with: the version before,
 * which may be beside this one, or come back, knows 1 alone.
 */
export const LAYOUTS: readonly number[] = [1, 2]
export const FIRST_LAYOUT_IN_COLUMNS = 2

/**
 * Pages of each kind, a power of two. So many that a page of a large installation stays small (a million
 * localities: 250 each, 13 kB), since a page is written whole.
 */
const BUCKETS: { readonly [K in Kind]: number } = {
  services: 16,
  tokens: 16,
  settings: 16,
  hosts: 1024,
  members: 1024,
  localities: 4096,
  places: 4096,
}

/** What a key under live/ is of. */
export type LiveKey =
  | { readonly is: 'record'; readonly kind: Kind; readonly bucket: string; readonly key: string }
  | { readonly is: 'core'; readonly name: string }
  | { readonly is: 'batch'; readonly id: string }
  | { readonly is: 'head' | 'gate' | 'folded' | 'unknown' }

export class EtcdKeys {
  readonly layout: Buffer
  readonly live: Buffer
  readonly head: Buffer
  readonly gate: Buffer
  readonly folded: Buffer
  readonly cores: Buffer
  readonly batches: Buffer
  readonly records: Buffer
  readonly pages: Buffer
  readonly staged: Buffer
  readonly writers: Buffer
  readonly #prefix: string

  /** `prefix` ends in a slash. */
  constructor(prefix: string) {
    this.#prefix = prefix
    this.layout = this.#key('layout')
    this.live = this.#key('live/')
    this.head = this.#key('live/head')
    this.gate = this.#key('live/gate')
    this.folded = this.#key('live/folded')
    this.cores = this.#key('live/cores/')
    this.batches = this.#key('live/batches/')
    this.records = this.#key('live/records/')
    this.pages = this.#key('pages/')
    this.staged = this.#key('staged/')
    this.writers = this.#key('writers/')
  }

  record(kind: Kind, key: string): Buffer {
    return this.#key(`live/records/${bucketOf(kind, key)}/${key}`)
  }

  /** The range of a bucket's single records begins so. */
  recordsOf(bucket: string): Buffer {
    return this.#key(`live/records/${bucket}/`)
  }

  page(bucket: string): Buffer {
    return this.#key(`pages/${bucket}`)
  }

  core(name: string): Buffer {
    return this.#key(`live/cores/${name}`)
  }

  batch(id: string): Buffer {
    return this.#key(`live/batches/${id}`)
  }

  /** What is put first where a batch is being staged, and taken away first where it was given up. */
  intent(id: string): Buffer {
    return this.#key(`staged/${id}`)
  }

  parts(id: string): Buffer {
    return this.#key(`staged/${id}/`)
  }

  part(id: string, index: number): Buffer {
    return this.#key(`staged/${id}/${String(index).padStart(6, '0')}`)
  }

  writer(id: string): Buffer {
    return this.#key(`writers/${id}`)
  }

  /** `KIND/BUCKET` of a page's key. */
  bucketOfPage(key: Buffer): string {
    return key.toString('utf8', this.pages.length)
  }

  /** The id in a key under staged/: an intent's or a part's. */
  idOfStaged(key: Buffer): string {
    return key.toString('utf8', this.staged.length).split('/', 1)[0]!
  }

  parseLive(key: Buffer): LiveKey {
    const [what, ...rest] = key.toString('utf8', this.live.length).split('/')
    if (what === 'records') {
      const [kind, number, ...name] = rest
      if (!isKind(kind) || number === undefined) return { is: 'unknown' }
      return { is: 'record', kind, bucket: `${kind}/${number}`, key: name.join('/') }
    }
    if (what === 'cores') return { is: 'core', name: rest.join('/') }
    if (what === 'batches') return { is: 'batch', id: rest.join('/') }
    if (rest.length === 0 && (what === 'head' || what === 'gate' || what === 'folded')) return { is: what }
    return { is: 'unknown' }
  }

  #key(rest: string): Buffer {
    return Buffer.from(this.#prefix + rest)
  }
}

function isKind(text: string | undefined): text is Kind {
  return text !== undefined && Object.hasOwn(BUCKETS, text)
}

/** `KIND/BUCKET` of a record. Part of the layout: never to be changed. */
export function bucketOf(kind: Kind, key: string): string {
  return `${kind}/${(fnv1a(key) & (BUCKETS[kind] - 1)).toString(16).padStart(3, '0')}`
}

/** 32-bit FNV-1a over UTF-16 units, folded so that its low bits depend on all. http://www.isthe.com/chongo/tech/comp/fnv/ */
function fnv1a(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return (hash ^ (hash >>> 15)) >>> 0
}
