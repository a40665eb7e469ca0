// The world of bench:churn: hosts that are already members when a core starts, written straight into its store.
//
// Names, addresses, keys and credentials follow from a number, so that the load knows them without being told.

import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { openSqlite } from '../../db/sqlite.ts'
import type { Change, Host } from '../../resolver/directory.ts'
import { aHost, aMember, aService, ofHost, ofMember, ofService } from '../support/records.ts'
import { seededRng } from '../support/seeded-rng.ts'

export const SERVICE = 'overlay'
export const SECOND_SERVICE = 'second'
export const ZONE = 'any.test'
export const CORE = 'core1'
export const TOKEN = 'nct_bench-churn'
const TOKEN_ID = 'bench'
/** Rows of one commit while the store is filled. */
const ROWS_AT_ONCE = 20_000

export interface WorldSize {
  readonly hosts: number
  /** Members of the service, spread evenly over the hosts. */
  readonly members: number
  readonly leaseSec: number
}

export const hostName = (i: number): string => `h${i}`
export const hostKey = (i: number): Buffer => createHash('sha256').update(`echo key ${i}`).digest()
export const hostCredential = (i: number): string => `nch_bench-${i}`
/** In 10/8, one each. */
const hostAddress = (i: number): string => `10.${(i >> 16) & 255}.${(i >> 8) & 255}.${i & 255}`
const hashOf = (secret: string): string => createHash('sha256').update(secret).digest('hex')

/** A host as it is after some weeks: proven, with a coordinate in one of a few dozen clusters, and no echo of its own. */
function settledHost(i: number, leaseSec: number, rng: () => number): Host {
  const cluster = Math.floor(rng() * 40)
  const vec = Array.from({ length: 8 }, (_, d) => 60 * Math.sin(cluster * (d + 1)) + 20 * (rng() - 0.5))
  const coordinate = { vec, heightMs: 1 + 10 * rng(), adjustmentMs: 0, error: 0.2 }
  return aHost(hostName(i), {
    addresses: [hostAddress(i)],
    echoKey: hostKey(i).toString('hex'),
    publicAddress: hostAddress(i),
    publicPort: 40_000,
    home: CORE,
    leaseSec,
    coordinate,
    credentialHash: hashOf(hostCredential(i)),
    tokenId: TOKEN_ID,
  })
}

function* records({ hosts, members, leaseSec }: WorldSize): Iterable<Change> {
  const rng = seededRng(4)
  const services = [SERVICE, SECOND_SERVICE]
  for (const name of services) yield ofService(aService({ name, verify: 'seen' }))
  const scope = { admin: false as const, services }
  const token = { id: TOKEN_ID, hash: hashOf(TOKEN), scope, createdMs: 0, note: 'bench' }
  yield { kind: 'tokens', key: TOKEN_ID, value: token }
  for (let i = 0; i < hosts; i++) yield ofHost(settledHost(i, leaseSec, rng))
  for (let i = 0; i < members; i++) {
    const host = hostName(i % hosts)
    const name = i < hosts ? host : `${host}-${Math.floor(i / hosts)}`
    yield ofMember(aMember(name, { service: SERVICE, host, port: 4000 }))
  }
}

/** Fills the store of a data folder. */
export async function fillStore(data: string, size: WorldSize): Promise<void> {
  const migrations = fileURLToPath(new URL('../../migrations', import.meta.url))
  const store = await openSqlite({ path: join(data, 'nearcast.db'), migrations })
  let part: Change[] = []
  for (const change of records(size)) {
    part.push(change)
    if (part.length < ROWS_AT_ONCE) continue
    await store.commit(part)
    part = []
  }
  await store.commit(part)
  await store.close()
}
