// The lab's world: which cities have a host, which a client, and under what loopback address.
//
// Pure: a function of (seed, how many, slot). Hosts are 127.(1+slot).N.1 and clients 127.(100+N).(1+slot).1,
// so each stands for a network of its own: a host is alone in its /24, and a client in its /16, since a
// core measures no neighbourhood too often. Slots keep labs apart that run at the same time. Invariant:
// no client is in a host's city while there are cities enough for both.

import type { LabCity } from './cities.ts'
import { shuffledCities } from './internet.ts'
import type { LabClient, Machine } from './network.ts'

/** Below the range that systems hand out to clients, so that nobody holds them by chance. */
export const CORE_DNS_PORT = 18053
export const CLIENT_DNS_PORT = 18053
export const CORE_HTTP_PORT = 18080
const ECHO_PORT = 18054
const DOOR_PORT = 18055

/** How many labs may run at the same time. */
export const SLOTS = 50
/** An octet counts them, and 0 is the core's. */
export const MAX_HOSTS = 250
export const MAX_CLIENTS = 100
const FIRST_CLIENT = 101

export interface LabHost extends Machine {
  /** Its host's and member's name. */
  readonly name: string
}

export interface World {
  readonly seed: number
  readonly core: Machine
  readonly hosts: readonly LabHost[]
  readonly clients: readonly LabClient[]
}

/** Hosts take the first cities in the seed's order and clients the last: more hosts change no client. */
export function makeWorld(seed: number, hosts: number, clients: number, slot: number): World {
  const cities = shuffledCities(seed)
  return {
    seed,
    core: makeCore(cities, slot),
    hosts: Array.from({ length: hosts }, (_, i) => makeHost(cities, i + 1, slot)),
    clients: Array.from({ length: clients }, (_, i) => makeClient(cities.toReversed(), i, slot)),
  }
}

function makeCore(cities: readonly LabCity[], slot: number): Machine {
  const network = `127.${1 + slot}.0`
  return {
    site: { key: 'core', city: cities[0]! },
    address: `${network}.1`,
    // A core tells its advertised address with its echo's port: one address for it, and one for us.
    door: { address: `${network}.2`, port: ECHO_PORT },
    echo: { address: `${network}.1`, port: ECHO_PORT },
  }
}

/** `index` counts from 1: the core has the first city. */
function makeHost(cities: readonly LabCity[], index: number, slot: number): LabHost {
  const city = cities[index % cities.length]!
  const round = Math.floor(index / cities.length)
  const name = city.name.toLowerCase().replaceAll(' ', '-') + (round === 0 ? '' : `-${round + 1}`)
  const address = `127.${1 + slot}.${index}.1`
  return {
    name,
    site: { key: name, city },
    address,
    door: { address, port: DOOR_PORT },
    echo: { address, port: ECHO_PORT },
  }
}

function makeClient(cities: readonly LabCity[], index: number, slot: number): LabClient {
  return {
    site: { key: `client ${index + 1}`, city: cities[index % cities.length]! },
    address: `127.${FIRST_CLIENT + index}.${1 + slot}.1`,
  }
}
