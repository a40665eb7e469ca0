// The one error that a person or a program outside may see: RFC 9457 over HTTP, a line on a terminal.
//
// Everything refused by the registry, the API and the imports is one of these. Codes are a closed list
// that programs may rely on; the detail is a sentence for people and says what would be right. Pure.

/** code -> HTTP status and title. A code is told to programs as `type`, never renamed. */
const CODES = {
  'bad-request': [400, 'The request is not understood'],
  unauthorized: [401, 'A token or credential is needed'],
  forbidden: [403, 'This credential may not do that'],
  'not-found': [404, 'There is no such thing'],
  'method-not-allowed': [405, 'This method is not answered here'],
  timeout: [408, 'The request did not come in time'],
  conflict: [409, 'Something else holds this name'],
  'too-large': [413, 'The request is too large'],
  'uri-too-long': [414, 'The URL is too long'],
  'unsupported-media-type': [415, 'Bodies are application/json here'],
  'too-many': [429, 'Too many requests'],
  'headers-too-large': [431, 'The header fields are too large'],
  internal: [500, 'This core failed at it; its log says why'],
  unavailable: [503, 'Not possible at the moment'],
} as const
export type ProblemCode = keyof typeof CODES

export class Problem extends Error {
  readonly code: ProblemCode
  /** The field, flag, key or line that was wrong. */
  readonly field: string | undefined
  constructor(code: ProblemCode, detail: string, field?: string) {
    super(detail)
    this.name = 'Problem'
    this.code = code
    this.field = field
  }
  get status(): number {
    return CODES[this.code][0]
  }
  get title(): string {
    return CODES[this.code][1]
  }
}
