// What cores hold at the end of a run of the chaos bench: the whole directory of each as text, compared, and in it
// what the writers wrote.

type Dump = Readonly<Record<string, Readonly<Record<string, unknown>>>>

const KINDS = ['services', 'hosts', 'members', 'tokens', 'localities', 'places', 'settings']

/** A core's whole directory, kinds and keys in order: two that are equal are equal bytes. */
export async function readDump(core: string, token: string): Promise<string> {
  const dump: Record<string, unknown> = {}
  for (const kind of KINDS) {
    const reply = await fetch(`${core}/v1/directory/${kind}`, {
      headers: { authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(5000),
    })
    if (!reply.ok) throw new Error(`${core} says ${reply.status}: ${await reply.text()}`)
    const records = Object.entries((await reply.json()) as object)
    dump[kind] = Object.fromEntries(records.toSorted(([a], [b]) => (a < b ? -1 : 1)))
  }
  return JSON.stringify(dump)
}

/**
 * Which records cores have agreed on: each counts from when it was seen equal at all of them, since while hosts measure each
 * other some RTT is always on its way. Whether they all are at one moment is another question.
 */
export class Agreement {
  readonly #agreed = new Set<string>()

  /** Takes what all cores hold now. True: every record has been seen equal. */
  look(dumps: readonly string[]): boolean {
    const all = dumps.map(recordsOf)
    const keys = [...new Set(all.flatMap((records) => [...records.keys()]))]
    for (const key of keys)
      if (new Set(all.map((records) => records.get(key))).size === 1) this.#agreed.add(key)
    return keys.every((key) => this.#agreed.has(key))
  }
}

/** Which records differ between the first core and each other, a line each. */
export function differences(cores: readonly string[], dumps: readonly string[]): string[] {
  const [first, ...others] = dumps.map(recordsOf)
  return others.flatMap((other, i) => {
    const keys = [...new Set([...first!.keys(), ...other.keys()])]
    return keys
      .filter((key) => first!.get(key) !== other.get(key))
      .map((key) => `${key}: ${cores[0]} has ${first!.get(key)}, ${cores[i + 1]} has ${other.get(key)}`)
  })
}

function recordsOf(dump: string): Map<string, string> {
  if (!dump.startsWith('{')) return new Map([['the whole', dump]])
  const kinds = Object.entries(JSON.parse(dump) as Dump)
  return new Map(
    kinds.flatMap(([kind, records]) =>
      Object.entries(records).map(([key, record]) => [`${kind}/${key}`, JSON.stringify(record)] as const),
    ),
  )
}

/** What is held of the things that writers write, by their keys. */
export function heldOf(dump: string, drainedService: string): Record<string, string> {
  if (!dump.startsWith('{')) return {}
  const { services = {}, members = {} } = JSON.parse(dump) as Dump
  const held: Record<string, string> = {}
  for (const [name, service] of Object.entries(services)) {
    const { urlHosts } = service as { urlHosts: string[] }
    if (name.startsWith('written-')) held[`services/${name}`] = urlHosts.join()
  }
  for (const member of Object.values(members)) {
    const { service, name, drained } = member as { service: string; name: string; drained: boolean }
    if (service === drainedService && drained) held[`drained/${service}/${name}`] = 'drained'
  }
  return held
}
