// The clock of answering: milliseconds that only go on, the same in all threads of the machine.
//
// performance.now() counts from each thread's own start, so two that share a table of moments would read
// each other's wrongly. It is put right once a thread, because reading the system's clock by itself makes an
// object each time. Neither tells the time of day.

const OFFSET_MS = Number(process.hrtime.bigint()) / 1e6 - performance.now()

export function sharedNowMs(): number {
  return performance.now() + OFFSET_MS
}
