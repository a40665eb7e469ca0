// The rules of the house, held by a test: who may import whom, what must stay pure, how files look.
//
// Rules read a map of paths to texts, so each is also shown a planted violation that it must find.
// Prose about the rules is in docs/ and README.md; where the two differ, this is what holds.

import { existsSync, globSync, readdirSync, readFileSync } from 'node:fs'
import { builtinModules } from 'node:module'
import { dirname, join, posix } from 'node:path'
import t from 'tap'
import { CONFIG_KEYS } from '../../core-node/settings/config.ts'

const ROOT = join(import.meta.dirname, '../..')
const ROOMS = ['resolver', 'db', 'core-node', 'server-agent', 'examples', 'test'] as const
type Room = (typeof ROOMS)[number]

/** Source files by path from the root. */
type Files = ReadonlyMap<string, string>
/** What is wrong, one sentence each that names the file. */
type Rule = (files: Files) => string[]

/** Which paths of ours a room may import from. */
const MAY_IMPORT: Readonly<Record<Room, readonly string[]>> = {
  resolver: ['resolver/'],
  // What is kept, and how localities are packed.
  db: [
    'db/',
    'resolver/directory.ts',
    ...['map', 'page'].map((name) => `resolver/locality-${name}.ts`),
    'resolver/packed-localities.ts',
  ],
  // A core carries out orders as any host does: by the agent's prober.
  'core-node': ['core-node/', 'resolver/', 'db/', 'server-agent/protocol/', 'server-agent/prober.ts'],
  'server-agent': ['server-agent/'],
  examples: ['examples/'],
  test: [''],
}

const DEPENDENCIES: readonly string[] = Object.keys(readJson('package.json').dependencies)
const AGENT_DEPENDENCIES: readonly string[] = Object.keys(readJson('server-agent/package.json').dependencies)
/** Which packages of others a room may import. */
const MAY_USE: Readonly<Record<Exclude<Room, 'test'>, readonly string[]>> = {
  // Its sockets, where the system's own calls are to be had.
  resolver: ['koffi'],
  db: ['better-sqlite3', '@grpc/grpc-js', '@grpc/proto-loader'],
  'core-node': DEPENDENCIES,
  'server-agent': AGENT_DEPENDENCIES,
  // As a program of someone else's would: the package is its only tie to Nearcast.
  examples: ['nearcast-agent'],
}

/** The files of resolver/ that touch the machine: sockets, threads and a clock. All others are pure. */
const RESOLVER_SHELLS = [
  ...['addresses', 'clock', 'server', 'stand-in', 'tcp', 'udp', 'worker', 'workers'].map(
    (name) => `resolver/dns-${name}.ts`,
  ),
  'resolver/mmsg.ts',
  'resolver/packet-batch.ts',
  'resolver/thread-turns.ts',
]
/** Pure by design, whatever their headers say: the rules that a core's shells (core.ts, measuring.ts) carry out. */
const CORE_PURE = [
  'coordinates',
  'mesh',
  'planner',
  'localities',
  'demand',
  'echo-planner',
  'host-draw',
  'checkers',
].map((name) => `core-node/measuring/${name}.ts`)
/** A header that says so is held to it; one that says "Pure but for" is not. */
const SAYS_PURE = /^(?:\/\/.*\n)*?\/\/.*\bPure\b(?! but for)/
/** Parts of Node that are functions of their arguments, as these files use them: MACs, packing, what is an address. */
const PURE_BUILTINS: Readonly<Record<string, string>> = {
  'server-agent/protocol/echo.ts': 'node:crypto',
  'server-agent/protocol/pulse.ts': 'node:crypto',
  'server-agent/protocol/mac.ts': 'node:crypto',
  'server-agent/passive.ts': 'node:net',
  'db/etcd-values.ts': 'node:zlib',
}
/** What pure files may import from outside resolver/ and themselves: schemas, and the error that they give back. */
const PURE_ELSEWHERE = ['core-node/problem.ts', 'server-agent/protocol/messages.ts']

/** The outside world: clock, chance, machine. */
const IMPURE =
  /\bDate\.now\b|\bnew Date\(\s*\)|\bperformance\.|\bMath\.random\b|\bset(?:Timeout|Interval|Immediate)\b|\bprocess\.|\bconsole\.|\bfetch\(|\bcrypto\.|\bawait import\(/g

function readJson(path: string): { dependencies: Record<string, string> } {
  return JSON.parse(readFileSync(join(ROOT, path), 'utf8'))
}

function readSources(): Files {
  const files = new Map<string, string>()
  for (const room of ROOMS) {
    for (const entry of readdirSync(join(ROOT, room), { recursive: true, withFileTypes: true })) {
      const path = posix.join(entry.parentPath.slice(ROOT.length + 1), entry.name)
      if (!entry.isFile() || !/\.(?:ts|js)$/.test(path) || /(?:^|\/)(?:node_modules|dist)\//.test(path))
        continue
      files.set(path, readFileSync(join(ROOT, path), 'utf8'))
    }
  }
  return files
}

const roomOf = (path: string) => path.slice(0, path.indexOf('/')) as Room

/** The text without its comments; strings stay. */
function withoutComments(text: string): string {
  return text.replace(
    /('(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`)|\/\/[^\n]*|\/\*[\s\S]*?\*\//g,
    '$1',
  )
}

interface Import {
  /** As written: `./address.ts`, `node:fs`, `pino`. */
  readonly from: string
  /** For ours: the path from the root. */
  readonly path: string | null
  /** Only types: gone when it runs. */
  readonly typeOnly: boolean
}

function importsOf(path: string, text: string): Import[] {
  const pattern =
    /^\s*(?:import|export)\s+(type\s)?[^'"`;]*?from\s*['"]([^'"]+)['"]|^\s*import\s*['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]/gm
  return [...withoutComments(text).matchAll(pattern)].map(([, type, named, bare, dynamic]) => {
    const from = (named ?? bare ?? dynamic)!
    const path_ = from.startsWith('.') ? posix.join(dirname(path), from) : null
    return { from, path: path_, typeOnly: type !== undefined }
  })
}

/** `@scope/name/deep` -> `@scope/name` */
function packageOf(from: string): string {
  return from
    .split('/')
    .slice(0, from.startsWith('@') ? 2 : 1)
    .join('/')
}

const importsGoTheRightWay: Rule = (files) =>
  [...files].flatMap(([path, text]) =>
    importsOf(path, text)
      .filter(
        (it) => it.path !== null && !MAY_IMPORT[roomOf(path)].some((prefix) => it.path!.startsWith(prefix)),
      )
      .map(
        (it) =>
          `${path} imports ${it.path}: ${roomOf(path)}/ may import of ours only ${MAY_IMPORT[roomOf(path)].join(', ')}`,
      ),
  )

const packagesAreAllowed: Rule = (files) =>
  [...files].flatMap(([path, text]) => {
    const room = roomOf(path)
    if (room === 'test') return []
    return importsOf(path, text)
      .filter(
        (it) =>
          it.path === null && !it.from.startsWith('node:') && !MAY_USE[room].includes(packageOf(it.from)),
      )
      .map(
        ({ from }) =>
          `${path} imports the package ${from}: ${room}/ may use ${MAY_USE[room].join(', ') || 'none'}`,
      )
  })

const builtinsAreNamedSo: Rule = (files) =>
  [...files].flatMap(([path, text]) =>
    importsOf(path, text)
      .filter((it) => builtinModules.includes(it.from))
      .map(({ from }) => `${path} imports '${from}': write 'node:${from}'`),
  )

const importsEndInTs: Rule = (files) =>
  [...files].flatMap(([path, text]) =>
    importsOf(path, text)
      .filter((it) => it.path !== null && !/\.(?:ts|js|json)$/.test(it.from))
      .map(({ from }) => `${path} imports '${from}' without its extension`),
  )

function isPure(files: Files, path: string): boolean {
  if (path.startsWith('resolver/')) return !RESOLVER_SHELLS.includes(path)
  return CORE_PURE.includes(path) || SAYS_PURE.test(files.get(path) ?? '')
}

const pureFilesArePure: Rule = (files) =>
  [...files].flatMap(([path, text]) => {
    if (!isPure(files, path)) return []
    const builtins = importsOf(path, text).filter(
      ({ from, typeOnly }) => !typeOnly && from.startsWith('node:') && from !== PURE_BUILTINS[path],
    )
    const impure = importsOf(path, text).filter(
      (it) =>
        it.path !== null && !it.typeOnly && !isPure(files, it.path) && !PURE_ELSEWHERE.includes(it.path),
    )
    return [
      ...builtins.map(({ from }) => `${path} is pure, but imports ${from}`),
      ...impure.map((it) => `${path} is pure, but runs ${it.path}, which is not`),
      ...[...withoutComments(text).matchAll(IMPURE)].map(
        ([what]) => `${path} is pure, but uses ${what.trim()}`,
      ),
    ]
  })

/**
 * The comment that opens a file: from 3 lines (1 in tests) to 8 of prose. What is indented in it, a drawing
 * or a table, counts for no prose.
 */
const filesOpenWithAComment: Rule = (files) =>
  [...files].flatMap(([path, text]) => {
    const lines = `${text}\n`.replace(/^#!.*\n/, '').split('\n')
    const header = lines.slice(
      0,
      lines.findIndex((line) => !line.startsWith('//')),
    )
    const prose = header.filter((line) => /^\/\/ \S/.test(line)).length
    const least = roomOf(path) === 'test' ? 1 : 3
    return header.length >= least && prose <= 8
      ? []
      : [`${path} opens with ${header.length} lines: expected ${least} to 8`]
  })

const nothingIsExportedByDefault: Rule = (files) =>
  [...files]
    .filter(([, text]) => /^export default\b|^export \{[^}]*\bas default\b/m.test(withoutComments(text)))
    .map(([path]) => `${path} has a default export: give it its name`)

const thereAreNoBarrels: Rule = (files) =>
  [...files].flatMap(([path, text]) => {
    const statements = withoutComments(text).trim()
    const rest = statements
      .replace(/^export (?:type )?(?:\*(?: as \w+)?|\{[^}]*\}) from '[^']+';?$/gm, '')
      .trim()
    return statements !== '' && rest === '' ? [`${path} only passes on the names of others`] : []
  })

const namesSayWhatFilesAre: Rule = (files) =>
  [...files.keys()].flatMap((path) => {
    const vague = /(?:^|[/.-])(?:utils?|helpers?|common|managers?|misc)(?=[/.-])/.exec(path)
    const isKebab = path.split('/').every((part) => /^[a-z0-9]+(?:[.-][a-z0-9]+)*$/.test(part))
    return [
      ...(vague === null ? [] : [`${path} has a name that says nothing (${vague[0].replace(/^\W/, '')})`]),
      ...(isKebab ? [] : [`${path} is not in kebab-case`]),
    ]
  })

const nothingIsLeftUndone: Rule = (files) =>
  [...files].flatMap(([path, text]) => {
    const found = new RegExp(
      '\\bTO' + 'DO\\b|\\bFIX' + 'ME\\b|registry\\.npm' + 'js|/(?:work|root|home)/[a-z]',
      'g',
    ).exec(text)
    return found === null ? [] : [`${path} says ${found[0]}`]
  })

/** Paths that a page names in backticks or links, and that must be there. `*` stands for any name. */
function pathsNamedIn(page: string): string[] {
  const pattern =
    /(?:`|\]\()((?:\.ci|docs|migrations|resolver|db|core-node|server-agent|examples|test)\/[\w./*-]*)[`)#]/g
  return [...page.matchAll(pattern)].map(([, path]) => path!)
}

/** Each rule with files that break it, and with files that look like it and do not. */
const RULES: readonly {
  name: string
  rule: Rule
  breaks: Record<string, string>
  holds: Record<string, string>
}[] = [
  {
    name: 'rooms import only the rooms below them',
    rule: importsGoTheRightWay,
    breaks: {
      'resolver/select.ts': `import type { Core } from '../core-node/core.ts'`,
      'resolver/locate.ts': `export { x } from '../db/store.ts'`,
      'db/sqlite.ts': `import { locate } from '../resolver/locate.ts'`,
      'core-node/core.ts': `import {\n  Agent,\n} from '../server-agent/agent.ts'`,
      'core-node/lab/lab.ts': `const x = await import('../../test/support/x.ts')`,
      'server-agent/agent.ts': `import '../resolver/address.ts'`,
      'examples/overlay/node.ts': `import { Agent } from '../../server-agent/agent.ts'`,
    },
    holds: {
      'resolver/select.ts': `// import { x } from '../core-node/core.ts'\nimport { x } from './hash.ts'`,
      'db/sqlite.ts': `import type { Change } from '../resolver/directory.ts'`,
      'core-node/lab/lab.ts': `import { x } from '../../server-agent/protocol/messages.ts'`,
      'test/x.test.ts': `import { x } from '../server-agent/agent.ts'`,
    },
  },
  {
    name: 'rooms use only the packages that are theirs',
    rule: packagesAreAllowed,
    breaks: {
      'resolver/dns-wire.ts': `import dns from 'dns2'`,
      'db/sqlite.ts': `import { pino } from 'pino'`,
      'core-node/core.ts': `import t from 'tap'`,
      'server-agent/agent.ts': `import { fastify } from 'fastify'`,
      'examples/overlay/node.ts': `import { Type } from 'typebox'`,
    },
    holds: {
      'db/sqlite.ts': `import Database from 'better-sqlite3'`,
      'core-node/core.ts': `import { x } from '@fastify/swagger'`,
      'server-agent/agent.ts': `import { Value } from 'typebox/value'\nimport { join } from 'node:path'`,
      'examples/overlay/node.ts': `import { Agent } from 'nearcast-agent'\nimport { x } from './ring.ts'`,
      'test/x.test.ts': `import t from 'tap'`,
    },
  },
  {
    name: 'imports of Node say node:',
    rule: builtinsAreNamedSo,
    breaks: { 'core-node/core.ts': `import { join } from 'path'` },
    holds: { 'core-node/core.ts': `import { join } from 'node:path'` },
  },
  {
    name: 'imports of ours name their file',
    rule: importsEndInTs,
    breaks: { 'resolver/select.ts': `import { x } from './hash'` },
    holds: { 'resolver/select.ts': `import { x } from './hash.ts'` },
  },
  {
    name: 'pure files know no clock, chance or machine',
    rule: pureFilesArePure,
    breaks: {
      'resolver/hash.ts': `import { createHash } from 'node:crypto'`,
      'resolver/select.ts': `const x = Math.random()`,
      'resolver/locate.ts': `const now = Date.now()`,
      'resolver/tables.ts': `const now = new Date().getTime()`,
      'resolver/explain.ts': `import { openDns } from './dns-server.ts'`,
      'core-node/measuring/planner.ts': `setTimeout(() => {}, 5)`,
      'core-node/measuring/demand.ts': `console.log(1)`,
      'core-node/measuring/localities.ts': `const x = process.env.X`,
      'core-node/measuring/coordinates.ts': `const t0 = performance.now()`,
      'core-node/liveness.ts': `// Who is there.\n//\n// A state machine. Pure: no clock.\nimport { x } from './core.ts'`,
      'core-node/lab/world.ts': `// The world.\n// Pure.\nconst x = Math.random()`,
    },
    holds: {
      'resolver/select.ts': `// Math.random() is for the caller\nimport { x } from './hash.ts'`,
      'resolver/dns-server.ts': `import { createSocket } from 'node:dgram'`,
      'core-node/registry/services.ts': `import { Type } from 'typebox'\nimport type { Core } from '../core.ts'\nimport { Problem } from '../problem.ts'`,
      'core-node/liveness.ts': `// Pure.\nconst at = new Date(nowMs)`,
      'core-node/places/gazetteer.ts': `// Pure but for loadGazetteer.\nimport { readFileSync } from 'node:fs'`,
      'core-node/core.ts': `// The shell of pure rules.\nimport { x } from 'node:fs'\n// Pure is what it calls.`,
    },
  },
  {
    name: 'every file opens by saying what it is',
    rule: filesOpenWithAComment,
    breaks: {
      'resolver/select.ts': `import { x } from './hash.ts'`,
      'resolver/locate.ts': `// Locates.\n// That is all.\n\nexport const x = 1`,
      'resolver/hash.ts': `${'// A line.\n'.repeat(9)}\nexport const x = 1`,
      'core-node/bin/x.js': `#!/usr/bin/env node\nimport 'node:fs'`,
      'test/x.test.ts': `import t from 'tap'`,
    },
    holds: {
      'resolver/select.ts': `// One.\n//\n// Two.\n// Three.\n\nexport const x = 1`,
      'core-node/main.ts': `// One.\n//   a -> b\n//   b -> c\n// Two.\n// Three.\nexport const x = 1`,
      'core-node/bin/x.js': `#!/usr/bin/env node\n// One.\n// Two.\n// Three.\nimport 'node:fs'`,
      'test/x.test.ts': `// One.\nimport t from 'tap'`,
    },
  },
  {
    name: 'nothing is exported by default',
    rule: nothingIsExportedByDefault,
    breaks: { 'resolver/a.ts': `export default 1`, 'resolver/b.ts': `const x = 1\nexport { x as default }` },
    holds: { 'resolver/a.ts': `export const x = 'export default'` },
  },
  {
    name: 'no file only passes on names',
    rule: thereAreNoBarrels,
    breaks: { 'resolver/index.ts': `// All.\nexport * from './a.ts'\nexport type { B } from './b.ts'` },
    holds: { 'resolver/a.ts': `export { b } from './b.ts'\nexport const a = 1` },
  },
  {
    name: 'names are kebab-case and say something',
    rule: namesSayWhatFilesAre,
    breaks: {
      'resolver/utils.ts': '',
      'core-node/http-helper.ts': '',
      'core-node/common/x.ts': '',
      'db/StoreManager.ts': '',
      'resolver/prefixTable.ts': '',
    },
    holds: { 'resolver/prefix-table.ts': '', 'test/db/store.test.ts': '', 'resolver/commonwealth.ts': '' },
  },
  {
    name: 'nothing is left undone, and no file names the machine it was written on',
    rule: nothingIsLeftUndone,
    breaks: {
      'resolver/a.ts': '// TO' + 'DO: more',
      'resolver/b.ts': `const x = '/ro${'ot'}/x'`,
      'db/c.ts': 'https://registry.npm' + 'js.org',
    },
    holds: { 'resolver/a.ts': '// a todo list in lower case is a word' },
  },
]

const sources = readSources()

for (const { name, rule, breaks, holds } of RULES) {
  t.test(name, async (t) => {
    t.strictSame(rule(sources), [], 'in the house')
    for (const [path, text] of Object.entries(breaks)) {
      t.not(rule(new Map([[path, text]])).length, 0, `${path} breaks it and is found`)
    }
    t.strictSame(rule(new Map(Object.entries(holds))), [], 'what only looks like it is left alone')
  })
}

t.test('the rules see the house', async (t) => {
  t.ok(sources.size > 40, `${sources.size} files`)
  t.ok(sources.has('resolver/select.ts'))
  t.ok(sources.has('core-node/bin/install.js'))
  t.match(importsOf('resolver/select.ts', sources.get('resolver/select.ts')!), [{ path: /^resolver\// }])
  for (const path of [...RESOLVER_SHELLS, ...CORE_PURE, ...PURE_ELSEWHERE, ...Object.keys(PURE_BUILTINS)])
    t.ok(sources.has(path), `${path} is there`)
  for (const name of [
    'registry/services',
    'registry/hosts',
    'registry/members',
    'liveness',
    'measuring/orders',
    'http/target',
    'lab/internet',
  ])
    t.ok(isPure(sources, `core-node/${name}.ts`), `${name} says that it is pure`)
  t.notOk(isPure(sources, 'core-node/core.ts'))
})

t.test('what README.md and docs/ name is there', async (t) => {
  t.strictSame(
    pathsNamedIn(
      'see `resolver/select.ts`, [store](db/store.ts#x), `migrations/*.sql` and `core-node/`; not resolver/ways',
    ),
    ['resolver/select.ts', 'db/store.ts', 'migrations/*.sql', 'core-node/'],
  )
  for (const page of globSync(['*.md', 'docs/**/*.md', 'server-agent/*.md', 'examples/**/*.md'], {
    cwd: ROOT,
  })) {
    for (const path of pathsNamedIn(readFileSync(join(ROOT, page), 'utf8'))) {
      const isThere = path.includes('*')
        ? globSync(path, { cwd: ROOT }).length > 0
        : existsSync(join(ROOT, path))
      t.ok(isThere, `${page} names ${path}`)
    }
  }
})

t.test('the table of settings in README.md is what the program takes', async (t) => {
  const readme = readFileSync(join(ROOT, 'README.md'), 'utf8')
  const table = readme.split('<!-- settings:')[1]!.split('\n\n')[0]!.split('\n').slice(3)
  const rows = CONFIG_KEYS.map((key) => `| \`${key.name}\` | ${key.default} | ${key.help} |`)
  t.strictSame(table, rows)
})
