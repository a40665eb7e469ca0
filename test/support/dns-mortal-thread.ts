// A thread that answers DNS and ends at once when it is asked about a client in 100.66.0.0/16.

import { workerData } from 'node:worker_threads'
import { runDnsWorker } from '../../resolver/dns-worker.ts'

runDnsWorker(workerData.start, {
  lookup: (address) => {
    if (address[12] === 100 && address[13] === 66) process.exit(1)
    return null
  },
})
