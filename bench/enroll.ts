// Durable enrollments a server makes of its CPU time. Server and devices are processes of their own; the server's CPU time per enrollment (its
// writer thread and garbage collection included) is set against the raw cryptography measured in turns with it. Absolute times drift on a
// shared machine, so each repeat gives a ratio and their median counts.

import type { FromBare, ToBare } from './enroll-bare.ts'
import type { FromClients, ToClients } from './enroll-clients.ts'
import { run as runKernel } from './enroll-kernel.ts'
import { createRawMeter } from './enroll-raw.ts'
import type { FromServer, ToServer } from './enroll-server.ts'
import { run as runStores } from './enroll-stores.ts'
import { run as runWorkers } from './enroll-workers.ts'
import { run as runGroupCommit } from './group-commit.ts'
import { UsageError } from './usage-error.ts'
import { worker } from './worker.ts'

const repeats = 9
/** Devices of one repeat: each enrolls twice. */
const perRepeat = 250
/** Of each kind, as many again on kept connections: V8 has compiled both paths for good by then. */
const warmUp = 3000
const rawTimes = 100
/** At least, and for freshOfTls at most. */
const limits = { freshOfRaw: 0.27, freshOfTls: 1.8, keepAliveOfRaw: 0.35, kernelOfRaw: 0.6, kernelOfPkijs: 12, groupCommitGain: 10 }

const median = (values: number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]

interface Load {
  /** µs of server CPU an enrollment. */
  cpu: number
  perSecond: number
}

/** `--store postgres`: the same load on PostgreSQL, against SQLite; `--workers 2`: two servers on one file against one. */
export async function run(args: string[]): Promise<{ table: string; figures: Record<string, number> }> {
  if (args.join(' ') === '--store postgres') return runStores()
  if (args.join(' ') === '--workers 2') return runWorkers()
  if (args.length > 0 && args.join(' ') !== '--store sqlite')
    throw new UsageError(`'${args.join(' ')}': --store postgres, --store sqlite or --workers 2 is expected`)
  const progress = (line: string) => process.stderr.write(`${line}\n`)
  const clients = worker<ToClients, FromClients>('enroll-clients.ts')
  const server = worker<ToServer, FromServer>('enroll-server.ts', 'server')
  const bare = worker<ToBare, FromBare>('enroll-bare.ts', 'server')
  try {
    progress('devices are born')
    const total = warmUp + repeats * perRepeat
    const { root, manifest } = await clients.ask({ kind: 'bear', count: total })
    const { port, identity } = await server.ask({ kind: 'start', root, manifest, postgres: null })
    const { key, cert, rootPem } = identity
    const { port: barePort } = await bare.ask({ kind: 'start', key, cert })
    await clients.ask({ kind: 'target', port, barePort, rootPem })

    const load = async (kind: 'fresh' | 'kept', count: number): Promise<Load> => {
      const before = await server.ask({ kind: 'cpu' })
      const { serials, milliseconds } = await (kind === 'fresh' ? clients.ask({ kind, count }) : clients.ask({ kind }))
      const after = await server.ask({ kind: 'cpu' })
      if (serials !== count) throw new Error(`${count} enrollments gave ${serials} certificates`)
      return { cpu: (after.microseconds - before.microseconds) / count, perSecond: (count * 1000) / milliseconds }
    }
    const handshakes = async (): Promise<number> => {
      const before = await bare.ask({ kind: 'cpu' })
      const { count } = await clients.ask({ kind: 'bare' })
      const after = await bare.ask({ kind: 'cpu' })
      return (after.microseconds - before.microseconds) / count
    }
    const raw = createRawMeter()
    progress('warming up')
    raw.measure(500)
    for (let i = 0; i < 4; i++) {
      await load('fresh', warmUp / 4)
      await load('kept', warmUp / 4)
      await handshakes()
    }

    const ratios: { fresh: number[]; kept: number[]; tls: number[] } = { fresh: [], kept: [], tls: [] }
    const handshakeCpu: number[] = []
    const limit: { enrollment: number[]; answer: number[] } = { enrollment: [], answer: [] }
    const loads: { fresh: Load[]; kept: Load[] } = { fresh: [], kept: [] }
    for (let i = 0; i < repeats; i++) {
      progress(`repeat ${i + 1} of ${repeats}`)
      // Raw on both sides of each load: what the machine does meanwhile falls on both.
      const handshake = await handshakes()
      const r0 = raw.measure(rawTimes)
      const fresh = await load('fresh', perRepeat)
      const r1 = raw.measure(rawTimes)
      const kept = await load('kept', perRepeat)
      const r2 = raw.measure(rawTimes)
      ratios.fresh.push((r0.enrollment + r1.enrollment) / 2 / fresh.cpu)
      ratios.kept.push((r1.answer + r2.answer) / 2 / kept.cpu)
      ratios.tls.push(fresh.cpu / handshake)
      handshakeCpu.push(handshake)
      limit.enrollment.push(r1.enrollment)
      limit.answer.push(r1.answer)
      loads.fresh.push(fresh)
      loads.kept.push(kept)
    }
    const { enrolled, broken } = await server.ask({ kind: 'check' })
    if (enrolled !== total) throw new Error(`${enrolled} devices enrolled of ${total}`)
    if (broken.length > 0) throw new Error(`the store is not sound: ${broken.slice(0, 3).join('; ')}`)
    await clients.ask({ kind: 'stop' })
    await server.ask({ kind: 'stop' })

    progress('the kernel alone')
    const { kernelOfRaw, kernelOfPkijs } = await runKernel()
    progress('committing together and alone')
    const { groupCommitGain } = (await runGroupCommit()).figures
    progress('two servers on one file')
    const workers = await runWorkers()
    const of = { freshOfRaw: median(ratios.fresh), freshOfTls: median(ratios.tls), keepAliveOfRaw: median(ratios.kept) }
    const figures = { ...of, kernelOfRaw, kernelOfPkijs, groupCommitGain, ...workers.figures }
    const row = (name: string, cells: (number | null)[], figure: keyof typeof limits) => {
      const cell = (value: number | null) => (value === null ? '' : value.toFixed(0)).padStart(9)
      const limit = `${figure === 'freshOfTls' ? '≤' : '≥'} ${limits[figure]}`
      return `${name.padEnd(50)}${cells.map(cell).join('')}${figures[figure].toFixed(3).padStart(9)}   ${limit}`
    }
    const cells = (limit: number[], done: Load[]) => [
      median(limit),
      median(done.map(l => l.cpu)),
      median(done.map(l => l.perSecond)),
    ]
    const none = [null, null, null]
    const table = [
      `µs of CPU an enrollment, median of ${repeats} repeats; ${enrolled} devices got ${2 * enrolled} certificates, no serial twice`,
      `${''.padEnd(50)}${['limit', 'server', 'per s', 'ratio'].map(title => title.padStart(9)).join('')}`,
      row('fresh mutual TLS, birth certificate, of raw', cells(limit.enrollment, loads.fresh), 'freshOfRaw'),
      row('the same, times a bare handshake of node:tls', cells(handshakeCpu, loads.fresh), 'freshOfTls'),
      row('kept-alive mutual TLS, another key, of raw', cells(limit.answer, loads.kept), 'keepAliveOfRaw'),
      row('CSR → certificate without I/O, of raw', none, 'kernelOfRaw'),
      row('CSR → certificate, times faster than pkijs', none, 'kernelOfPkijs'),
      row('32 in flight, fsync of 2 ms: times faster together', none, 'groupCommitGain'),
      workers.table,
    ].join('\n')
    return { table, figures }
  } finally {
    for (const one of [clients, server, bare]) one.kill()
  }
}
