// What runs in a thread that answers DNS: opens what a map knows, and answers.
//
// The shell around resolver/dns-worker.ts, which knows no databases. Ends when it is told to; whatever it
// throws ends the thread, and its opener starts another.

import { workerData } from 'node:worker_threads'
import type { WorkerStart } from '../resolver/dns-mail.ts'
import { runDnsWorker } from '../resolver/dns-worker.ts'
import { type GeographyMemory, openGeography } from './places/geography.ts'
import { giveBackMemory } from './spare-memory.ts'

const { start, data } = workerData as {
  readonly start: WorkerStart
  readonly data: { readonly geo: string; readonly geography: GeographyMemory | null }
}
runDnsWorker(start, openGeography(data.geo, data.geography), giveBackMemory)
