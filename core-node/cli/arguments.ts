// Reading what was typed: names, numbers, attribute pairs and lists. Ranges are the core's to judge.
//
// Invariant: what can't be what it should be is wrong use (exit 2) and never sent to a core. The message
// says what was expected; commander puts the flag before it.

import { InvalidArgumentError } from 'commander'
import { isLabel, memberKey } from '../../resolver/directory.ts'
import { wrongUse } from './terminal.ts'

/** A number, for commander's options. */
export function readNumber(text: string): number {
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value)) throw new InvalidArgumentError('Expected a number.')
  return value
}

/** A whole number of at least 1, for commander's options. */
export function readCount(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new InvalidArgumentError('Expected a whole number from 1.')
  return Number(text)
}

/** Collects `k=v`, for options that may be said several times. */
export function readPair(
  text: string,
  before: Readonly<Record<string, string>> = {},
): Record<string, string> {
  const [, key, value] = /^([^=]+)=(.*)$/s.exec(text) ?? []
  if (key === undefined || value === undefined) throw new InvalidArgumentError('Expected KEY=VALUE.')
  return { ...before, [key]: value }
}

/** Collects values by commas and by saying the option again. */
export function readList(text: string, before: readonly string[] = []): string[] {
  return [...before, ...text.split(',').map((item) => item.trim())].filter((item) => item !== '')
}

/** A service's name. Throws wrong use. */
export function readService(text: string): string {
  if (isLabel(text)) return text
  throw wrongUse(
    `${JSON.stringify(text)} is no service's name: expected one DNS label (a-z, 0-9, inner hyphens)`,
  )
}

/** `SERVICE/NAME`, a member's full name. Throws wrong use. */
export function readMember(text: string): { service: string; name: string; key: string } {
  const [service = '', name = '', ...rest] = text.split('/')
  if (rest.length > 0 || !isLabel(service) || !isLabel(name)) {
    throw wrongUse(`${JSON.stringify(text)} is no member's name: expected SERVICE/NAME, such as mirror/ams1`)
  }
  return { service, name, key: memberKey(service, name) }
}
