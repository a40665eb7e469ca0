// The version of the program: package.json's, read once.
//
// It is told by `nearcast --version`, /v1/status and /openapi.json, and is the same in all of them.

import { readFileSync } from 'node:fs'

const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string
}

export const VERSION: string = manifest.version
