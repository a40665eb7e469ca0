// The lab: its Internet and its wires on their own, then the whole with real processes.
//
// The lab is small here (5 hosts, 4 clients). It runs once as it is and once with the agents kept from
// measuring clients: right choices in the first and wrong ones in the second show that the choice comes
// from measurements and from nothing that the lab itself knows.

import { spawn } from 'node:child_process'
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { CITIES } from '../../core-node/lab/cities.ts'
import { rttBetween, type Site } from '../../core-node/lab/internet.ts'
import { runLab } from '../../core-node/lab/lab.ts'
import { openNetwork } from '../../core-node/lab/network.ts'
import {
  formatOutcomes,
  formatSummary,
  type LabReport,
  type Outcome,
  score,
} from '../../core-node/lab/report.ts'
import { makeWorld } from '../../core-node/lab/world.ts'
import { formatPrefix, parseAddress, prefixOf } from '../../resolver/address.ts'
import { fibreFloorMs, greatCircleKm } from '../../resolver/geo.ts'

const CLI = fileURLToPath(new URL('../../core-node/cli.ts', import.meta.url))
const onLinux = process.platform === 'linux' ? {} : { skip: 'needs all of 127.0.0.0/8, as Linux has it' }

const sites: readonly Site[] = CITIES.map((city) => ({ key: city.name, city }))

t.test('a round trip is the same both ways, and no faster than light in fibre', async (t) => {
  for (const a of sites) {
    for (const b of sites) {
      const rttMs = rttBetween(a, b, 1)
      if (rttMs !== rttBetween(b, a, 1)) t.fail(`${a.key} - ${b.key} differs by direction`)
      if (!(rttMs > fibreFloorMs(greatCircleKm(a.city, b.city)))) t.fail(`${a.key} - ${b.key} is too fast`)
    }
  }
  t.not(
    rttBetween(sites[0]!, sites[1]!, 1),
    rttBetween(sites[0]!, sites[1]!, 2),
    'another seed, another Internet',
  )
})

t.test(
  'round trips between the cities are spread as on the Internet, triangles broken as often',
  async (t) => {
    const matrix = sites.map((a) => sites.map((b) => rttBetween(a, b, 1)))
    const all = matrix.flatMap((row, i) => row.slice(i + 1)).sort((a, b) => a - b)
    const quantile = (share: number) => all[Math.floor(share * all.length)]!
    t.match([quantile(0.05), quantile(0.5), quantile(0.9)].map(Math.round), [34, 174, 276])
    let triangles = 0
    let broken = 0
    for (let i = 0; i < sites.length; i++) {
      for (let j = i + 1; j < sites.length; j++) {
        for (let k = j + 1; k < sites.length; k++) {
          const sides = [matrix[i]![j]!, matrix[i]![k]!, matrix[j]![k]!].sort((a, b) => a - b)
          triangles++
          if (sides[2]! > sides[0]! + sides[1]!) broken++
        }
      }
    }
    t.ok(broken / triangles > 0.08 && broken / triangles < 0.15, `${broken} of ${triangles} triangles`)
  },
)

t.test('hosts and clients live in different cities, each in a network of its own', async (t) => {
  const { core, hosts, clients } = makeWorld(1, 30, 12, 0)
  t.equal(new Set([core, ...hosts, ...clients].map(({ site }) => site.city.name)).size, 43)
  const networks = (bits: number, of: readonly { address: string }[]) =>
    new Set(of.map(({ address }) => formatPrefix(prefixOf(parseAddress(address)!, bits)))).size
  t.equal(networks(96 + 24, [core, ...hosts]), 31)
  t.equal(networks(96 + 16, clients), 12)
  t.match(makeWorld(1, 5, 12, 0).clients, clients, 'the same clients however many hosts')
  const many = makeWorld(1, 200, 12, 0)
  t.equal(new Set(many.hosts.map(({ name }) => name)).size, 200, 'names stay unique where cities run out')
})

t.test('a packet is held for the round trip and comes from where it was sent to', onLinux, async (t) => {
  const world = makeWorld(1, 3, 1, 40)
  const network = await openNetwork({
    machines: world.hosts,
    clients: world.clients,
    clientDnsPort: 18053,
    seed: 1,
  })
  const sockets = await Promise.all(world.hosts.map(({ echo }) => bind(echo.address, echo.port)))
  t.teardown(() => Promise.all([network.close(), ...sockets.map(closeSocket)]))
  const [a, b] = [world.hosts[0]!, world.hosts[1]!]
  const [from, to] = [sockets[0]!, sockets[1]!]
  to.on('message', (packet, sender) => {
    t.equal(sender.address, a.address, 'the receiver sees the sender’s own address')
    to.send(packet, sender.port, sender.address)
  })

  const ways = [
    { label: 'an echo', to: b.door, rttMs: rttBetween(a.site, b.site, 1) },
    {
      label: 'a DNS probe',
      to: { address: world.clients[0]!.address, port: 18053 },
      rttMs: rttBetween(a.site, world.clients[0]!.site, 1),
    },
  ]
  for (const way of ways) {
    const errorsMs: number[] = []
    for (let i = 0; i < 5; i++) {
      const sentMs = performance.now()
      from.send(Buffer.alloc(17, i), way.to.port, way.to.address)
      const [, sender] = await once(from, 'message')
      errorsMs.push(performance.now() - sentMs - way.rttMs)
      t.match(sender, way.to)
    }
    t.ok(Math.min(...errorsMs) >= 0, `${way.label} is never early`)
    t.ok(Math.min(...errorsMs) < 5, `${way.label} is hardly late: ${errorsMs.map((ms) => ms.toFixed(2))}`)
  }

  const stranger = await bind('127.0.0.1', 0)
  t.teardown(() => closeSocket(stranger))
  const before = network.lateness.packets
  stranger.send('hello', b.door.port, b.door.address)
  stranger.send('hello', 18053, world.clients[0]!.address)
  await sleep(20)
  t.equal(network.lateness.packets, before, 'what comes from no machine of the lab is dropped')
})

t.test('the summary counts right choices and names what went wrong', async (t) => {
  const right: Outcome = {
    client: 'Oslo',
    address: '127.200.1.1',
    member: 'paris',
    dnsMember: 'paris',
    rttMs: 30,
    nearest: 'paris',
    nearestRttMs: 30,
    basis: 'measured',
  }
  const outcomes = [right, { ...right, client: 'Lima', member: 'milan', rttMs: 42 }]
  t.same(score(outcomes), { clients: 2, optimal: 1, meanPenaltyMs: 6, worstPenaltyMs: 12 })
  const death = {
    member: 'paris',
    client: 'Oslo',
    dnsSec: 7.11,
    httpSec: null,
    successor: 'rome',
    wronged: ['milan'],
  }
  const report: LabReport = {
    hosts: 3,
    seed: 1,
    withheld: false,
    outcomes,
    coordinateError: 0.2,
    death,
    lateness: { packets: 1, medianMs: 0, p99Ms: 0 },
    tookSec: 1,
  }
  const summary = formatSummary(report)
  for (const part of [
    '1 sent to the true nearest',
    '6.0 ms on average',
    'after 7.1 s (DNS)',
    'never (HTTP)',
    'milan',
  ]) {
    t.ok(summary.includes(part), `${part} in: ${summary}`)
  }
  t.match(formatOutcomes(outcomes, null)[2], /Lima +milan +42\.0 +paris +30\.0 +12\.0 +measured/)
})

t.test(
  'clients get the nearest member by what agents measured, and a wrong one without',
  onLinux,
  async (t) => {
    const folder = ownTemporaryFolder(t)
    const run = async (withholdMeasurements: boolean) => {
      const lines: string[] = []
      const exitCode = await runLab({
        hosts: 5,
        clients: 4,
        seed: 1,
        json: true,
        withholdMeasurements,
        out: (line) => lines.push(line),
      })
      t.equal(exitCode, 0, lines.join('\n'))
      return JSON.parse(lines.join('\n')) as LabReport
    }
    const [measured, withheld] = await Promise.all([run(false), run(true)])

    const found = score(measured.outcomes)
    t.ok(found.optimal >= 3, formatSummary(measured))
    t.ok(found.meanPenaltyMs < 5, formatSummary(measured))
    for (const { basis, member, dnsMember } of measured.outcomes) {
      t.equal(basis, 'measured')
      t.equal(dnsMember, member, 'DNS and HTTP agree')
    }
    t.ok(
      measured.death !== null && measured.death.dnsSec! < 10 && measured.death.httpSec! < 10,
      'dead within 10 s',
    )
    t.same(measured.death?.wronged, [], 'no live member was dropped')

    const lost = score(withheld.outcomes)
    t.ok(lost.optimal < found.optimal && lost.meanPenaltyMs > 20, formatSummary(withheld))
    for (const { basis } of withheld.outcomes) t.equal(basis, 'none')

    t.same(leftovers(folder), { files: [], processes: [] })
  },
)

t.test('Ctrl-C in the middle leaves nothing behind', onLinux, async (t) => {
  const folder = ownTemporaryFolder(t)
  const lab = spawn(process.execPath, [CLI, 'lab', '--hosts', '3'], {
    env: { ...process.env, TMPDIR: folder },
  })
  t.teardown(() => lab.kill('SIGKILL'))
  let printed = ''
  const joining = new Promise<void>((resolve) => {
    lab.stdout.setEncoding('utf8').on('data', (text: string) => {
      printed += text
      if (/joined [1-3]/.test(printed)) resolve()
    })
  })
  const ended = once(lab, 'close')
  await Promise.race([joining, ended])
  t.not(leftovers(folder).processes.length, 0, 'it had processes to leave behind')
  lab.kill('SIGINT')
  const [exitCode] = await ended
  t.equal(exitCode, 1, printed)
  t.match(printed, /SIGINT/)
  t.same(leftovers(folder), { files: [], processes: [] })
})

t.test('a number of hosts that can’t be is refused before anything starts', async (t) => {
  for (const hosts of [0, 1, 1.5, 251, Number.NaN]) {
    const lines: string[] = []
    t.equal(await runLab({ hosts, seed: 1, json: false, out: (line) => lines.push(line) }), 1)
    t.match(lines.join(), /hosts is .*expected a whole number, 2 to 250/)
  }
})

async function bind(address: string, port: number): Promise<Socket> {
  const socket = createSocket('udp4')
  socket.bind(port, address)
  await once(socket, 'listening')
  return socket
}

async function closeSocket(socket: Socket): Promise<void> {
  socket.close()
  await once(socket, 'close')
}

/** A folder that this process and its children take for the system's temporary one. */
function ownTemporaryFolder(t: Test): string {
  const before = process.env.TMPDIR
  const folder = mkdtempSync(join(tmpdir(), 'nearcast-lab-test-'))
  process.env.TMPDIR = folder
  t.teardown(() => {
    if (before === undefined) delete process.env.TMPDIR
    else process.env.TMPDIR = before
    rmSync(folder, { recursive: true, force: true })
  })
  return folder
}

/** Files in the folder, and processes whose command line names it: the lab's core and agents do. */
function leftovers(folder: string): { files: string[]; processes: string[] } {
  const processes = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => commandLine(pid))
    .filter((line) => line.includes(folder))
  return { files: readdirSync(folder), processes }
}

function commandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
  } catch {
    return ''
  }
}
