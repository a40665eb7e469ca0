// The load of bench:dns: a program of its own that asks as fast as it is answered, or at a steady rate.
//
// Queries are packets in a file, so that each may have another client. dnsload: `dnsload -p PORT -d FILE -l SECONDS
// [-q outstanding] [-S sockets] [-b batch] [-Q rate]`, one line of `name=value` out. dnsperf (DNS-OARC) takes the same
// file with -B and tells no percentiles; it is slower than the fastest servers, which then all look alike.

import { execFile } from 'node:child_process'
import { basename } from 'node:path'
import { promisify } from 'node:util'

export interface LoadProgram {
  readonly path: string
  readonly kind: 'dnsload' | 'dnsperf'
}

export interface LoadResult {
  /** Answers a second. */
  readonly qps: number
  readonly answers: number
  readonly lost: number
  /** Answers that were no NOERROR. */
  readonly errors: number
  /** null: this program does not tell. */
  readonly p50us: number | null
  readonly p99us: number | null
}

/** Queries under way at a time, and over so many sockets: each is an asker with one port. */
export interface Askers {
  readonly outstanding: number
  readonly sockets: number
}
export const BUSY_ASKERS: Askers = { outstanding: 200, sockets: 8 }
/** Nobody asks anything more before the answer is there: no server can save work by answering one asker twice at once. */
export const SINGLE_ASKERS: Askers = { outstanding: 64, sockets: 64 }
/** What dnsload sends with one call. */
const BATCH = 32

export function loadProgram(path: string): LoadProgram {
  return { path, kind: basename(path).includes('dnsperf') ? 'dnsperf' : 'dnsload' }
}

export interface LoadWish {
  /** Of a server on 127.0.0.1. */
  readonly port: number
  /** The file of queries. */
  readonly queries: string
  /** The processor that the program runs on. */
  readonly cpu: number
  readonly seconds: number
  /** Queries a second; null: as many as are answered. */
  readonly rate: number | null
  readonly askers: Askers
}

export async function runLoad(program: LoadProgram, wish: LoadWish): Promise<LoadResult> {
  const { port, queries, cpu, seconds, rate, askers } = wish
  const isDnsload = program.kind === 'dnsload'
  const target = isDnsload
    ? ['-p', `${port}`, '-S', `${askers.sockets}`, '-b', `${BATCH}`]
    : ['-s', '127.0.0.1', '-p', `${port}`, '-c', `${askers.sockets}`, '-B']
  const pace = [
    '-l',
    `${seconds}`,
    '-q',
    `${askers.outstanding}`,
    ...(rate === null ? [] : ['-Q', `${rate}`]),
  ]
  const args = ['-c', `${cpu}`, program.path, ...target, '-d', queries, ...pace]
  const { stdout } = await promisify(execFile)('taskset', args, { maxBuffer: 1 << 24 })
  return isDnsload ? readDnsload(stdout) : readDnsperf(stdout)
}

export function readDnsload(text: string): LoadResult {
  const told = new Map([...text.matchAll(/(\w+)=([\d.]+)/g)].map(([, name, value]) => [name, Number(value)]))
  const value = (name: string) => {
    const number = told.get(name)
    if (number === undefined) throw new Error(`the load program told no ${name}: ${text.trim()}`)
    return number
  }
  return {
    qps: value('qps'),
    answers: value('recv'),
    lost: value('lost'),
    errors: value('recv') - value('noerror'),
    p50us: value('p50'),
    p99us: value('p99'),
  }
}

export function readDnsperf(text: string): LoadResult {
  const value = (pattern: RegExp) => {
    const found = pattern.exec(text)?.[1]
    if (found === undefined) throw new Error(`dnsperf told no ${pattern.source}: ${text.slice(-500)}`)
    return Number(found)
  }
  const answers = value(/Queries completed:\s+(\d+)/)
  const noerror = answers === 0 ? 0 : value(/NOERROR (\d+)/)
  return {
    qps: value(/Queries per second:\s+([\d.]+)/),
    answers,
    lost: value(/Queries lost:\s+(\d+)/),
    errors: answers - noerror,
    p50us: null,
    p99us: null,
  }
}
