// `nearcast locality`: what is known of where an address is, and places from files of the operator.
//
// An import is the weakest knowledge but geography's: what hosts measure outranks it. A file is read
// whole before anything is sent; sending is in parts, each taken whole or not at all, and sending the same
// file again is harmless.

import { basename } from 'node:path'
import type { Command } from 'commander'
import { formatPrefix, parseAddress } from '../../resolver/address.ts'
import type { LocalityStory } from '../../resolver/explain.ts'
import type { ApiClient } from '../api-client.ts'
import type { ImportEntry } from '../places/import-list.ts'
import { apiPath, type CoreOptions, openClient, talksToCore } from './client.ts'
import { printTable } from './table.ts'
import { CommandFailure, printable, printJson, type Terminal, wrongUse } from './terminal.ts'

/** A core takes 10,000 in one request, but between requests it answers others: these are some 20 ms of its time. */
const ENTRIES_PER_REQUEST = 2_000
const PROGRESS_ENTRIES = 50_000

interface ImportOptions extends CoreOptions {
  readonly skipBad?: boolean
}

export function addLocalityCommands(command: Command, terminal: Terminal): void {
  talksToCore(command.command('show').description('what is known of an address').argument('<ip>'))
    .action((ip: string, options: CoreOptions) => show(readClient(ip), options, terminal))
    .addHelpText('after', '\nNext: npx nearcast explain SERVICE IP says what that means for a service.')
  const load = command
    .command('import')
    .description('tell the core where prefixes are')
    .argument(
      '<file>',
      "a geofeed (RFC 8805), an MMDB file, lines 'CIDR LAT LON' (# comments), or CSV with a line of column names: prefix, asn, lat, lon, country; gzipped or not",
    )
    .option('--skip-bad', 'leave out lines that are wrong, instead of importing nothing')
  talksToCore(load)
    .action((file: string, options: ImportOptions) => importPlaces(file, options, terminal))
    .addHelpText(
      'after',
      `
Example:
  echo '192.0.2.0/24 52.37 4.90' > places.txt
  npx nearcast locality import places.txt

Importing again replaces what an earlier import said. What hosts measured outranks it.`,
    )
}

/** An address as typed, for the core. Throws wrong use. */
export function readClient(ip: string): string {
  if (parseAddress(ip) !== null) return ip
  throw wrongUse(`${JSON.stringify(ip)} is no IP address: expected one such as 192.0.2.7 or 2001:db8::7`)
}

/** `12.3`, `4`, or `-` for what is not known. */
export function formatMs(ms: number | null): string {
  if (ms === null) return '-'
  return ms < 100 ? ms.toFixed(1) : ms.toFixed(0)
}

/** The locality in a few lines. */
export function describeLocality(locality: LocalityStory): string[] {
  const { prefix, basis, errorMs, place, coordinate, kin, source } = locality
  const lines = [`${prefix}   basis: ${basis}${errorMs === null ? '' : `, within ${formatMs(errorMs)} ms`}`]
  if (place !== null) {
    const from = source === null ? '' : `, from ${printable(source)}`
    lines.push(
      `place: ${place.lat.toFixed(2)} ${place.lon.toFixed(2)} (within ${Math.round(place.accuracyKm)} km${from})`,
    )
  }
  if (coordinate !== null) {
    lines.push(`coordinate: height ${formatMs(coordinate.heightMs)} ms, error ${coordinate.error.toFixed(2)}`)
  }
  // A core of before does not tell it.
  if (kin) lines.push(`taken to be beside ${printable(kin)}, a host of its own network`)
  return lines
}

function formatAge(sec: number): string {
  if (sec < 120) return `${Math.round(sec)} s`
  if (sec < 7200) return `${Math.round(sec / 60)} min`
  return sec < 172_800 ? `${Math.round(sec / 3600)} h` : `${Math.round(sec / 86_400)} d`
}

async function show(ip: string, options: CoreOptions, terminal: Terminal): Promise<void> {
  const locality = await openClient(options, terminal).request<LocalityStory>(
    'GET',
    apiPath('localities', ip),
  )
  if (options.json) return printJson(terminal, locality)
  for (const line of describeLocality(locality)) terminal.print(line)
  if (locality.evidence.length === 0)
    return terminal.print('measured: nothing yet (clients that ask are measured in the background)')
  printEvidence(locality.evidence, terminal)
}

/** Who measured the way to a locality, nearest first. Samples 0: lent by a relative of the prefix. */
export function printEvidence(evidence: LocalityStory['evidence'], terminal: Terminal): void {
  const columns = [
    { title: 'HOST' },
    { title: 'RTT MS', kind: 'number' },
    { title: 'SAMPLES', kind: 'number' },
    { title: 'AGE', kind: 'number' },
    { title: 'BY' },
  ] as const
  const rows = [...evidence]
    .sort((a, b) => a.rttMs - b.rttMs)
    .map(({ host, rttMs, count, ageSec, kind }) => [
      host,
      formatMs(rttMs),
      `${count}`,
      formatAge(ageSec),
      count === 0 ? 'relatives' : kind,
    ])
  printTable(terminal, columns, rows)
}

async function importPlaces(file: string, options: ImportOptions, terminal: Terminal): Promise<void> {
  const client = openClient(options, terminal)
  // Loaded here: reading a geofeed needs a table of all cities.
  const { importFile } = await import('../places/imports.ts')
  const { entries, bad, withoutPlace } = importFile(file, { skipBad: options.skipBad === true })
  for (const { line, reason } of bad) terminal.warn(`line ${line} left out: ${printable(reason)}`)
  // In the order of addresses: what lies together is kept together, and written once.
  const order = entries.order()
  let imported = 0
  for (let from = 0; from < order.length; from += ENTRIES_PER_REQUEST) {
    const part = Array.from(order.subarray(from, from + ENTRIES_PER_REQUEST), (i) => tell(entries.at(i)))
    imported += await send(client, { source: basename(file), entries: part }, imported, file)
    if (terminal.width !== null && imported % PROGRESS_ENTRIES === 0) {
      terminal.warn(`${imported} of ${entries.length} sent`)
    }
  }
  if (options.json) return printJson(terminal, { imported, leftOut: bad.length, withoutPlace })
  const without = withoutPlace === 0 ? '' : ` (${withoutPlace} more name no place)`
  terminal.print(`${imported} prefixes imported from ${file}${without}. Next: npx nearcast locality show IP`)
}

function tell({ prefix, place, asn, country }: ImportEntry): object {
  return {
    prefix: formatPrefix(prefix),
    ...place,
    ...(asn === null ? {} : { asn }),
    ...(country === null ? {} : { country }),
  }
}

/** One part, as often as the core asks to come back later. Where it fails, the parts before it stand, and that is said. */
async function send(client: ApiClient, body: object, before: number, file: string): Promise<number> {
  try {
    return (await client.request<{ imported: number }>('POST', apiPath('localities'), body)).imported
  } catch (error) {
    if (!(error instanceof CommandFailure)) throw error
    if (error.retryAfterSec !== null) {
      await new Promise((resolve) => setTimeout(resolve, 1000 * error.retryAfterSec!))
      return send(client, body, before, file)
    }
    if (before === 0) throw error
    throw new CommandFailure(`${error.message} (${before} prefixes were imported before that)`, {
      exitCode: error.exitCode,
      next: `Import ${file} again: what is there already is replaced.`,
      cause: error,
    })
  }
}
