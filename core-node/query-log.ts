// The query log: lines to a file or to standard output, as fast as they go and never in anybody's way.
//
// Invariant: add() never waits and never throws; no more than MAX_WAITING_BYTES wait to be written, and lines beyond
// that, or that could not be written, are counted as dropped. The file is opened to append, so that it may be
// truncated under way (logrotate's copytruncate); reopen() goes on in a new one after the old was moved away.

import { close, open, writeFile } from 'node:fs'
import { promisify } from 'node:util'

const openFile = promisify(open)
const closeFile = promisify(close)
const appendTo = promisify(writeFile)

/** What a disk that stands still for a while at a few thousand lines a second is forgiven, bytes. */
const MAX_WAITING_BYTES = 4 << 20
const FILE_MODE = 0o640

interface QueryLogOptions {
  /** A path, or `-`: standard output. */
  readonly file: string
  /** Told when lines begin to be lost, and why. */
  readonly onTrouble: (error: Error) => void
}

interface QueryLogCounts {
  written: number
  dropped: number
}

export class QueryLog {
  readonly #options: QueryLogOptions
  readonly #counts: QueryLogCounts = { written: 0, dropped: 0 }
  #lines: string[] = []
  #waitingBytes = 0
  /** null: standard output, or a file that is not open (yet). */
  #fd: number | null = null
  #isOpen = false
  #isStale = false
  #hasTrouble = false
  /** The writing that is under way; null: none is. */
  #working: Promise<void> | null = null

  /** Opens the file before anything else happens. Throws the system's error. */
  static async open(options: QueryLogOptions): Promise<QueryLog> {
    const log = new QueryLog(options)
    await log.#open()
    return log
  }

  private constructor(options: QueryLogOptions) {
    this.#options = options
  }

  /** Live. */
  get counts(): Readonly<QueryLogCounts> {
    return this.#counts
  }

  /** Takes one line, without its end. */
  add(line: string): void {
    // Characters are bytes here, but for names that are not ASCII; those are escaped.
    const bytes = line.length + 1
    if (this.#waitingBytes + bytes > MAX_WAITING_BYTES) {
      this.#counts.dropped++
      return
    }
    this.#lines.push(line)
    this.#waitingBytes += bytes
    this.#work()
  }

  /** Goes on in a file of the same name that is opened, or made, anew. */
  reopen(): void {
    this.#isStale = true
    this.#work()
  }

  /** Writes what waits, as far as it can be written. */
  async close(): Promise<void> {
    while (this.#working !== null) await this.#working
    await this.#shut()
  }

  #work(): void {
    this.#working ??= this.#writeAll().finally(() => {
      this.#working = null
      if (this.#lines.length > 0 || this.#isStale) this.#work()
    })
  }

  /** All that waits at once: lines that come meanwhile are the next. */
  async #writeAll(): Promise<void> {
    await Promise.resolve()
    const lines = this.#lines
    this.#lines = []
    try {
      if (this.#isStale) {
        this.#isStale = false
        await this.#shut()
      }
      if (!this.#isOpen) await this.#open()
      if (lines.length > 0) await this.#write(`${lines.join('\n')}\n`)
      this.#counts.written += lines.length
      this.#hasTrouble = false
    } catch (error) {
      this.#counts.dropped += lines.length
      if (!this.#hasTrouble) this.#options.onTrouble(error as Error)
      this.#hasTrouble = true
    }
    this.#waitingBytes -= lines.reduce((bytes, line) => bytes + line.length + 1, 0)
  }

  async #open(): Promise<void> {
    const { file } = this.#options
    if (file !== '-') this.#fd = await openFile(file, 'a', FILE_MODE)
    this.#isOpen = true
  }

  async #shut(): Promise<void> {
    const fd = this.#fd
    this.#fd = null
    this.#isOpen = false
    if (fd !== null) await closeFile(fd)
  }

  async #write(text: string): Promise<void> {
    if (this.#fd !== null) return appendTo(this.#fd, text)
    await new Promise<void>((resolve, reject) => {
      process.stdout.write(text, (error) => (error ? reject(error) : resolve()))
    })
  }
}
