// What the lab tells while it comes up: a line when something is new, but not all the time.
//
// Each line stands for itself, so that it reads the same on a terminal and in a file. It knows no
// core and no network: who has something to say says it.

/** Between two lines of progress. */
const TELL_EVERY_MS = 2000

/** Takes a line of progress. */
export type Say = (text: string) => void

/** Tells how far one step is. */
export class Teller {
  readonly #say: Say
  #last = ''
  #quietUntilMs = 0

  constructor(say: Say) {
    this.#say = say
  }

  tell(text: string, always: boolean): void {
    const nowMs = performance.now()
    if (text === this.#last || (!always && nowMs < this.#quietUntilMs)) return
    this.#last = text
    this.#quietUntilMs = nowMs + TELL_EVERY_MS
    this.#say(text)
  }
}
