// What this core holds, as it is: for operators who want to know whether two cores hold the same, and for tests.
//
// Invariant: two records that are equal are equal text, in whatever order their fields came to be; a digest does
// not depend on the order of records. Secrets are shown as fingerprints. Written out a slice at a time, so that
// answers go on meanwhile; what changes in that time may be seen as before or after.

import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { Type } from 'typebox'
import type { Directory } from '../../resolver/directory.ts'
import { requireAdmin } from '../registry/caller.ts'
import { DUMPED, recordText } from '../registry/dump.ts'
import type { Api, HttpContext } from './context.ts'
import { problems, told } from './schemas.ts'

type Kind = (typeof DUMPED)[number]

/** Records in one go: some milliseconds' work. */
const SLICE = 500
/** Fields that would let their reader act as somebody else. */
const SECRETS = new Set(['echoKey', 'credentialHash', 'hash'])
const FINGERPRINT_CHARS = 16

const DigestReply = Type.Object({
  core: Type.String(),
  kinds: Type.Record(Type.String(), Type.Object({ records: Type.Integer(), digest: Type.String() })),
})
const KindParams = Type.Object({ kind: Type.Union(DUMPED.map((kind) => Type.Literal(kind))) })

export function directoryRoutes(app: Api, { core }: HttpContext): void {
  const tags = ['operators']
  const security = [{ token: [] }]
  app.get(
    '/v1/directory',
    {
      schema: {
        tags,
        operationId: 'digestDirectory',
        summary: 'A digest of all that this core holds, by kind: equal where two cores hold the same',
        security,
        response: { 200: told('Of each kind', DigestReply), ...problems('forbidden') },
      },
    },
    async ({ caller }) => {
      requireAdmin(caller)
      const kinds: Record<string, { records: number; digest: string }> = {}
      for (const kind of DUMPED) kinds[kind] = await digestOf(core.directory, kind)
      return { core: core.name, kinds }
    },
  )
  app.get(
    '/v1/directory/:kind',
    {
      schema: {
        tags,
        operationId: 'showDirectory',
        summary: 'Every record of a kind, as this core holds it; secrets as fingerprints',
        security,
        params: KindParams,
        produces: ['application/json'],
        response: {
          200: Type.Unknown({ description: 'Records by key, in no order' }),
          ...problems('forbidden'),
        },
      },
    },
    async ({ caller, params }, reply) => {
      requireAdmin(caller)
      return reply.type('application/json').send(Readable.from(linesOf(core.directory, params.kind)))
    },
  )
}

/** The sum of the records' hashes, which is the same in any order. */
async function digestOf(
  directory: Readonly<Directory>,
  kind: Kind,
): Promise<{ records: number; digest: string }> {
  let sum = 0n
  for await (const [key, text] of texts(directory, kind)) {
    sum += BigInt(`0x${createHash('sha256').update(`${key}\0${text}`).digest('hex')}`)
  }
  const digest = BigInt.asUintN(256, sum).toString(16).padStart(64, '0')
  return { records: directory[kind].size, digest }
}

async function* linesOf(directory: Readonly<Directory>, kind: Kind): AsyncGenerator<string> {
  let before = '{'
  for await (const [key, text] of texts(directory, kind)) {
    yield `${before}\n${JSON.stringify(key)}: ${text}`
    before = ','
  }
  yield before === '{' ? '{}' : '\n}'
}

async function* texts(directory: Readonly<Directory>, kind: Kind): AsyncGenerator<readonly [string, string]> {
  let left = SLICE
  for (const [key, record] of directory[kind]) {
    yield [key, recordText(shown(kind, record))]
    if (--left > 0) continue
    left = SLICE
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/** The record without its secrets, which one fingerprint stands for. */
function shown(kind: Kind, record: unknown): unknown {
  if (typeof record === 'string') return kind === 'settings' ? fingerprint([record]) : record
  const fields = Object.entries(record as object)
  const secrets = fields.filter(([name]) => SECRETS.has(name))
  const rest = Object.fromEntries(fields.filter(([name]) => !SECRETS.has(name)))
  return secrets.length === 0 ? rest : { ...rest, fingerprint: fingerprint(secrets.toSorted()) }
}

function fingerprint(secrets: readonly unknown[]): string {
  return createHash('sha256').update(JSON.stringify(secrets)).digest('hex').slice(0, FINGERPRINT_CHARS)
}
