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

const repeats = 15
/** Devices of one repeat: each enrolls by its birth certificate, and then on that connection with further keys. */
const perRepeat = 250
/** A fresh enrollment leaves garbage that the kept ones after it pay for, and at both ends of a load the batches are small: as long as a fresh load. */
const furtherKeys = 4
/**
 * Fresh ones, and as many times more on kept connections. V8 compiles for good what was called some thousands of times, the small functions last: after 3,000
 * it still spent 8 % of an enrollment on that, after 9,000 1 %.
 */
const warmUp = 28 * perRepeat
/** Devices whose chain has a CA more, fresh ones alone: most of their path is the others'. */
const warmUpChained = 1000
const warmUpTurns = 4
const rawTimes = 300
/** At least, and for freshOfTls at most. */
const limits = {
  freshOfRaw: 0.27,
  freshChainedOfRaw: 0.27,
  freshOfTls: 1.8,
  keepAliveOfRaw: 0.35,
  kernelOfRaw: 0.6,
  kernelOfPkijs: 12,
  groupCommitGain: 10,
}

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
  // Those whose chain has a CA between their certificate and the anchor.
  const chained = worker<ToClients, FromClients>('enroll-clients.ts')
  const server = worker<ToServer, FromServer>('enroll-server.ts', 'server')
  const bare = worker<ToBare, FromBare>('enroll-bare.ts', 'server')
  try {
    progress('devices are born')
    const total = warmUp + repeats * perRepeat
    const totalChained = warmUpChained + repeats * perRepeat
    const born = await clients.ask({ kind: 'bear', count: total, anchored: true, further: furtherKeys })
    const further = await chained.ask({ kind: 'bear', count: totalChained, name: 'chained' })
    const { port, identity } = await server.ask({
      ...{ kind: 'start', root: born.root, further: [further.root], postgres: null },
      manifest: [...born.manifest, ...further.manifest],
    })
    const { key, cert, rootPem } = identity
    const { port: barePort } = await bare.ask({ kind: 'start', key, cert })
    for (const side of [clients, chained]) await side.ask({ kind: 'target', port, barePort, rootPem })

    const load = async (kind: 'fresh' | 'kept', count: number, side = clients): Promise<Load> => {
      const before = await server.ask({ kind: 'cpu' })
      const { serials, milliseconds } = await (kind === 'fresh' ? side.ask({ kind, count }) : side.ask({ kind }))
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
    for (let turn = 0; turn < warmUpTurns; turn++) {
      for (let i = 0; i < warmUp / perRepeat / warmUpTurns; i++) {
        await load('fresh', perRepeat)
        await load('kept', perRepeat * furtherKeys)
      }
      await load('fresh', warmUpChained / warmUpTurns, chained)
      await handshakes()
    }

    const lists = <T>() => ({ fresh: [] as T[], chained: [] as T[], kept: [] as T[] })
    const ratios = { ...lists<number>(), tls: [] as number[] }
    const handshakeCpu: number[] = []
    const limit = lists<number>()
    const loads = lists<Load>()
    for (let i = 0; i < repeats; i++) {
      progress(`repeat ${i + 1} of ${repeats}`)
      // Raw on both sides of each load: what the machine does meanwhile falls on both.
      const handshake = await handshakes()
      const r0 = raw.measure(rawTimes)
      const fresh = await load('fresh', perRepeat)
      const r1 = raw.measure(rawTimes)
      const kept = await load('kept', perRepeat * furtherKeys)
      const r2 = raw.measure(rawTimes)
      const long = await load('fresh', perRepeat, chained)
      const r3 = raw.measure(rawTimes)
      const take = (kind: keyof typeof loads, done: Load, around: number) => {
        loads[kind].push(done)
        limit[kind].push(around)
        ratios[kind].push(around / done.cpu)
      }
      take('fresh', fresh, (r0.enrollment + r1.enrollment) / 2)
      take('kept', kept, (r1.answer + r2.answer) / 2)
      take('chained', long, (r2.chained + r3.chained) / 2)
      ratios.tls.push(fresh.cpu / handshake)
      handshakeCpu.push(handshake)
    }
    const { enrolled, broken } = await server.ask({ kind: 'check' })
    if (enrolled !== total + totalChained) throw new Error(`${enrolled} devices enrolled of ${total + totalChained}`)
    if (broken.length > 0) throw new Error(`the store is not sound: ${broken.slice(0, 3).join('; ')}`)
    for (const side of [clients, chained]) await side.ask({ kind: 'stop' })
    await server.ask({ kind: 'stop' })

    progress('the kernel alone')
    const { kernelOfRaw, kernelOfPkijs } = await runKernel()
    progress('committing together and alone')
    const { groupCommitGain } = (await runGroupCommit()).figures
    progress('two servers on one file')
    const workers = await runWorkers()
    const of = {
      ...{ freshOfRaw: median(ratios.fresh), freshChainedOfRaw: median(ratios.chained) },
      ...{ freshOfTls: median(ratios.tls), keepAliveOfRaw: median(ratios.kept) },
    }
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
      `µs of CPU an enrollment, median of ${repeats} repeats; ${enrolled} devices got ${(1 + furtherKeys) * total + totalChained} certificates, no serial twice among those of a kind`,
      `${''.padEnd(50)}${['limit', 'server', 'per s', 'ratio'].map(title => title.padStart(9)).join('')}`,
      row('fresh mutual TLS, birth certificate, of raw', cells(limit.fresh, loads.fresh), 'freshOfRaw'),
      row('with a CA between, of raw and its signature (*)', cells(limit.chained, loads.chained), 'freshChainedOfRaw'),
      '  (*) the CA’s, which the limit counts for each device and the server verifies once',
      row('the first, times a bare handshake of node:tls', cells(handshakeCpu, loads.fresh), 'freshOfTls'),
      row('kept-alive mutual TLS, another key, of raw', cells(limit.kept, loads.kept), 'keepAliveOfRaw'),
      row('CSR → certificate without I/O, of raw', none, 'kernelOfRaw'),
      row('CSR → certificate, times faster than pkijs', none, 'kernelOfPkijs'),
      row('32 in flight, fsync of 2 ms: times faster together', none, 'groupCommitGain'),
      workers.table,
    ].join('\n')
    return { table, figures }
  } finally {
    for (const one of [clients, chained, server, bare]) one.kill()
  }
}
