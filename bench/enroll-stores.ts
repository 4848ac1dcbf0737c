// `enroll --store postgres`: the same devices' kept-alive enrollments on SQLite and on PostgreSQL, in turns in one run, so that what the machine
// does meanwhile falls on both. Two measures: CPU time of the server and, since SQLite works inside it, of the database's processes with it; and
// requests a wall second, with devices, server and database on the same few cores. The lower of the two counts.

import { readdirSync, readFileSync } from 'node:fs'
import { startPostgres } from '../test/support/postgres.ts'
import type { FromClients, ToClients } from './enroll-clients.ts'
import type { FromServer, ToServer } from './enroll-server.ts'
import { worker } from './worker.ts'

const repeats = 9
/** Devices of one repeat on each store, each with so many keys on its kept connection. */
const perRepeat = 250
const furtherKeys = 4
/** Fresh ones on each store, and as many times more kept. */
const warmUp = 6 * perRepeat
const limit = 0.7

const median = (values: number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]

/** µs of CPU that a process and its children, which PostgreSQL keeps for as long as a session lasts, have taken. */
function familyCpu(pid: number): number {
  let ticks = 0
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    let fields: string[]
    try {
      // After the name, which may hold anything: state, parent, …; 12th and 13th: user and system time in ticks of 10 ms.
      fields = readFileSync(`/proc/${name}/stat`, 'latin1')
        .replace(/^.*\) /s, '')
        .split(' ')
    } catch {
      // It ended in between.
      continue
    }
    if (Number(name) === pid || Number(fields[1]) === pid) ticks += Number(fields[11]) + Number(fields[12])
  }
  return ticks * 10_000
}

interface Load {
  /** µs an enrollment: of the server's process, and of the database's. */
  cpu: number
  databaseCpu: number
  perSecond: number
}

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  const progress = (line: string) => process.stderr.write(`${line}\n`)
  progress('a PostgreSQL starts, devices are born')
  const postgres = await startPostgres()
  const total = warmUp + repeats * perRepeat
  const workers: { kill(): void }[] = []
  const sides = async (kind: 'sqlite' | 'postgres') => {
    const clients = worker<ToClients, FromClients>('enroll-clients.ts')
    const server = worker<ToServer, FromServer>('enroll-server.ts', 'server')
    workers.push(clients, server)
    const { root, manifest } = await clients.ask({ kind: 'bear', count: total, further: furtherKeys })
    const address = kind === 'postgres' ? postgres.address('bench') : null
    const { port, identity } = await server.ask({ kind: 'start', root, manifest, postgres: address })
    await clients.ask({ kind: 'target', port, barePort: 0, rootPem: identity.rootPem })
    return {
      async kept(): Promise<Load> {
        const count = perRepeat * furtherKeys
        await clients.ask({ kind: 'fresh', count: perRepeat })
        const database = familyCpu(postgres.pid())
        const before = await server.ask({ kind: 'cpu' })
        const { serials, milliseconds } = await clients.ask({ kind: 'kept' })
        const after = await server.ask({ kind: 'cpu' })
        if (serials !== count) throw new Error(`${count} enrollments gave ${serials} certificates`)
        return {
          cpu: (after.microseconds - before.microseconds) / count,
          databaseCpu: (familyCpu(postgres.pid()) - database) / count,
          perSecond: (count * 1000) / milliseconds,
        }
      },
      async end(): Promise<void> {
        const { enrolled, broken } = await server.ask({ kind: 'check' })
        if (enrolled !== total) throw new Error(`${kind}: ${enrolled} devices enrolled of ${total}`)
        if (broken.length > 0) throw new Error(`${kind}: the store is not sound: ${broken.slice(0, 3).join('; ')}`)
        await clients.ask({ kind: 'stop' })
        await server.ask({ kind: 'stop' })
      },
    }
  }
  try {
    const both = { sqlite: await sides('sqlite'), postgres: await sides('postgres') }
    progress('warming up')
    for (let i = 0; i < warmUp / perRepeat; i++) for (const side of [both.sqlite, both.postgres]) await side.kept()
    const loads: { sqlite: Load[]; postgres: Load[] } = { sqlite: [], postgres: [] }
    for (let i = 0; i < repeats; i++) {
      progress(`repeat ${i + 1} of ${repeats}`)
      // Who goes first takes turns, too.
      const order = i % 2 === 0 ? (['sqlite', 'postgres'] as const) : (['postgres', 'sqlite'] as const)
      for (const kind of order) loads[kind].push(await both[kind].kept())
    }
    await both.sqlite.end()
    await both.postgres.end()

    const perCpuSecond = median(loads.postgres.map((p, i) => loads.sqlite[i].cpu / (p.cpu + p.databaseCpu)))
    const perSecond = median(loads.postgres.map((p, i) => p.perSecond / loads.sqlite[i].perSecond))
    const figures = { postgresOfSqlite: Math.min(perCpuSecond, perSecond), perCpuSecond, perSecond }
    const row = (name: string, all: Load[]) => {
      const cells = [all.map(l => l.cpu), all.map(l => l.databaseCpu), all.map(l => l.perSecond)]
      return name.padEnd(50) + cells.map(cell => median(cell).toFixed(0).padStart(13)).join('')
    }
    const table = [
      `kept-alive enrollments, median of ${repeats} repeats of ${perRepeat * furtherKeys} on each store in turns`,
      `${''.padEnd(50)}${['server µs', 'database µs', 'per s'].map(title => title.padStart(13)).join('')}`,
      row('SQLite (in the server)', loads.sqlite),
      row('PostgreSQL (processes of its own)', loads.postgres),
      `PostgreSQL of SQLite: ${perCpuSecond.toFixed(2)} a CPU second (of the server and the database together: SQLite works inside the server),`,
      `${perSecond.toFixed(2)} a wall second (devices on the same cores); the lower one counts: ${figures.postgresOfSqlite.toFixed(2)} (≥ ${limit})`,
    ].join('\n')
    return { table, figures }
  } finally {
    for (const each of workers) each.kill()
    await postgres.remove()
  }
}
