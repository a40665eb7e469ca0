// The lab's stage: a temporary folder, the wires, and a core that is ready, with the service `demo`.
//
// Everything is set as an operator would set it, by flags and by the API. What differs from a core's
// defaults is there to save time or to keep the numbers plain, and says so. close() takes all of it
// away again, agents included.

import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type ApiClient, openApiClient } from '../api-client.ts'
import { readAdminToken } from '../registry/admin-token.ts'
import { type Endpoint, type Network, openNetwork } from './network.ts'
import { killAll, LabProcess } from './processes.ts'
import {
  CLIENT_DNS_PORT,
  CORE_DNS_PORT,
  CORE_HTTP_PORT,
  type LabHost,
  makeWorld,
  SLOTS,
  type World,
} from './world.ts'

export const SERVICE = 'demo'
export const ZONE = 'any.test'

/** A core starts in a second or two, on a busy machine in five. */
const READY_WITHIN_MS = 20_000

const CORE_SCRIPT = fileURLToPath(new URL('../cli.ts', import.meta.url))
const AGENT_SCRIPT = fileURLToPath(new URL('../../server-agent/bin/nearcast-agent.js', import.meta.url))

/**
 * The service as it is by default, but without what holds or shares clients among members that are
 * about as near: the table is to show where the nearest is. ttl 0: no cache, so that a death is seen.
 */
const DEMO_SERVICE = { ttl: 0, tieMs: 0, stickyMs: 0, stickyRatio: 1, maxAddrs: 1 }

interface StageOptions {
  readonly hosts: number
  readonly clients: number
  readonly seed: number
  readonly withholdMeasurements: boolean
  readonly signal: AbortSignal
}

export interface Stage {
  readonly world: World
  readonly network: Network
  readonly http: Endpoint
  readonly dns: Endpoint
  readonly api: ApiClient
  startAgent(host: LabHost): LabProcess
  /** Throws, with what it said last, where a process ended that should run. */
  checkProcesses(): void
  close(): Promise<void>
}

/** Sets the stage. Rejects where it can't be set, or `signal` says so; then nothing of it is left. */
export async function openStage(options: StageOptions): Promise<Stage> {
  const folder = mkdtempSync(join(tmpdir(), 'nearcast-lab-'))
  const processes: LabProcess[] = []
  let network: Network | null = null
  const close = async (): Promise<void> => {
    await killAll(processes)
    await network?.close()
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    const claimed = await claimSlot(options)
    network = claimed.network
    const { world } = claimed
    const { api, token } = await startCore(world, join(folder, 'core'), options, processes)
    return {
      world,
      network,
      http: { address: world.core.address, port: CORE_HTTP_PORT },
      dns: { address: world.core.address, port: CORE_DNS_PORT },
      api,
      startAgent(host) {
        const args = [...agentArguments(host, api.url), '--state', join(folder, host.name)]
        const agent = new LabProcess(host.name, AGENT_SCRIPT, args, { NEARCAST_TOKEN: token })
        processes.push(agent)
        return agent
      },
      checkProcesses() {
        const ended = processes.find((one) => one.endedByItself)
        if (ended !== undefined)
          throw new Error(`${ended.name} ended by itself; it said last:\n${ended.tail}`)
      },
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

/** A core that is ready, with the service, and a token to join it. */
async function startCore(
  world: World,
  data: string,
  options: StageOptions,
  processes: LabProcess[],
): Promise<{ api: ApiClient; token: string }> {
  const core = new LabProcess('core', CORE_SCRIPT, coreArguments(world, data, options), {})
  processes.push(core)
  const url = `http://${world.core.address}:${CORE_HTTP_PORT}`
  await untilReady(core, url, options.signal)
  const api = openApiClient(url, await readAdminToken(data))
  await api.request('PUT', `/v1/services/${SERVICE}`, DEMO_SERVICE)
  const { secret } = await api.request<{ secret: string }>('POST', '/v1/tokens', { services: [SERVICE] })
  return { api, token: secret }
}

/** Takes the first loopback addresses that no other lab holds. */
async function claimSlot({
  seed,
  hosts,
  clients,
}: StageOptions): Promise<{ world: World; network: Network }> {
  for (let slot = 0; slot < SLOTS; slot++) {
    const world = makeWorld(seed, hosts, clients, slot)
    try {
      // A core that outlived its lab would be taken for ours.
      await requireFree(world.core.address, CORE_HTTP_PORT)
      const network = await openNetwork({
        machines: [world.core, ...world.hosts],
        clients: world.clients,
        clientDnsPort: CLIENT_DNS_PORT,
        seed,
      })
      return { world, network }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
    }
  }
  throw new Error(`all ${SLOTS} places for a lab on this machine are taken: end other labs`)
}

/** Throws EADDRINUSE where something listens. */
async function requireFree(host: string, port: number): Promise<void> {
  const server = createServer()
  server.listen({ host, port })
  await once(server, 'listening')
  server.close()
  await once(server, 'close')
}

function coreArguments(world: World, data: string, { withholdMeasurements }: StageOptions): string[] {
  const { address, echo, door } = world.core
  const settings = {
    data,
    name: 'core',
    zone: ZONE,
    dns: `${address}:${CORE_DNS_PORT}`,
    http: `${address}:${CORE_HTTP_PORT}`,
    echo: `${address}:${echo.port}`,
    advertise: door.address,
    geo: 'none',
    'probe-clients': withholdMeasurements ? 'off' : 'on',
    'probe-dns-port': CLIENT_DNS_PORT,
    // The probed are ours, so there is nobody to spare: what takes minutes outside takes seconds here.
    'probes-per-minute': 6000,
    'probes-per-host-per-minute': 600,
    // All of the lab's questions come from a few addresses, ten a second while a host dies.
    'requests-per-minute': 100_000,
    'log-level': 'warn',
  }
  return ['core', ...Object.entries(settings).flatMap(([key, value]) => [`--${key}`, String(value)])]
}

function agentArguments({ name, address, echo, door }: LabHost, core: string): string[] {
  const settings = {
    core,
    service: SERVICE,
    name,
    address,
    port: 80,
    echo: `${echo.address}:${echo.port}`,
    'echo-advertise': `${door.address}:${door.port}`,
  }
  return Object.entries(settings).flatMap(([key, value]) => [`--${key}`, String(value)])
}

async function untilReady(core: LabProcess, url: string, signal: AbortSignal): Promise<void> {
  const deadlineMs = performance.now() + READY_WITHIN_MS
  while (performance.now() < deadlineMs && !core.endedByItself) {
    const reply = await fetch(`${url}/readyz`, { signal }).catch(() => null)
    if (reply?.ok) return
    await sleep(100, undefined, { signal })
  }
  throw new Error(`the core did not get ready; it said last:\n${core.tail}`)
}
