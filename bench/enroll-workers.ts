// Two server processes on one SQLite file against one on its own, kept-alive enrollments. What a second process adds is what two cores do, so the
// figure is made of what cannot depend on who else is on this machine: the CPU an enrollment costs in each case, and how much of it is the
// writer's, who works while the other waits for the file (docs/decisions/workers.md). What the clock on the wall said, with the devices on the same cores, is told beside it.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FromClients, ToClients } from './enroll-clients.ts'
import type { FromServer, ToServer } from './enroll-server.ts'
import { worker } from './worker.ts'

const repeats = 9
/** Devices of one server and repeat, each with so many keys on its kept connection. */
const perRepeat = 200
const furtherKeys = 4
/** Fresh ones of each server, and as many times more kept. */
const warmUp = 6 * perRepeat
const limit = 1.6

const median = (values: number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]

interface Load {
  /** µs of CPU an enrollment, of all servers together. */
  cpu: number
  /** µs of it that the writer threads took: at most so long the file is kept from others, but for the fsync of a batch. */
  writing: number
  perSecond: number
}

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  const folder = mkdtempSync(join(tmpdir(), 'birthmark-bench-workers-'))
  const processes: { kill(): void }[] = []
  const total = warmUp + repeats * perRepeat

  async function open(file: string, names: string[]) {
    const sides: { clients: ReturnType<typeof clientsOf>; server: ReturnType<typeof serverOf> }[] = []
    for (const name of names) {
      const [clients, server] = [clientsOf(), serverOf()]
      processes.push(clients, server)
      const { root, manifest } = await clients.ask({ kind: 'bear', count: total, name, further: furtherKeys })
      const started = await server.ask({ kind: 'start', root, manifest, postgres: null, shared: join(folder, file) })
      await clients.ask({ kind: 'target', port: started.port, barePort: 0, rootPem: started.identity.rootPem })
      sides.push({ clients, server })
    }
    const spent = async () => {
      const told = await Promise.all(sides.map(({ server }) => server.ask({ kind: 'cpu' })))
      return {
        cpu: told.reduce((sum, { microseconds }) => sum + microseconds, 0),
        writing: told.reduce((sum, { writing }) => sum + writing, 0),
      }
    }
    return {
      async load(): Promise<Load> {
        await Promise.all(sides.map(({ clients }) => clients.ask({ kind: 'fresh', count: perRepeat })))
        const before = await spent()
        const told = await Promise.all(sides.map(({ clients }) => clients.ask({ kind: 'kept' })))
        const after = await spent()
        const each = perRepeat * furtherKeys
        for (const { serials } of told) if (serials !== each) throw new Error(`${each} enrollments gave ${serials} certificates`)
        const all = each * sides.length
        return {
          cpu: (after.cpu - before.cpu) / all,
          writing: (after.writing - before.writing) / all,
          perSecond: (all * 1000) / Math.max(...told.map(({ milliseconds }) => milliseconds)),
        }
      },
      async end(): Promise<void> {
        for (const { server } of sides) {
          const { enrolled, broken } = await server.ask({ kind: 'check' })
          if (enrolled !== total * sides.length) throw new Error(`${file}: ${enrolled} devices enrolled of ${total * sides.length}`)
          if (broken.length > 0) throw new Error(`${file}: the store is not sound: ${broken.slice(0, 3).join('; ')}`)
        }
        for (const { clients, server } of sides) {
          await clients.ask({ kind: 'stop' })
          await server.ask({ kind: 'stop' })
        }
      },
    }
  }

  try {
    const one = await open('one.db', ['solo'])
    const two = await open('two.db', ['left', 'right'])
    for (let i = 0; i < warmUp / perRepeat; i++) for (const side of [one, two]) await side.load()
    const loads: { one: Load[]; two: Load[] } = { one: [], two: [] }
    for (let i = 0; i < repeats; i++) {
      process.stderr.write(`repeat ${i + 1} of ${repeats}\n`)
      loads.one.push(await one.load())
      loads.two.push(await two.load())
    }
    await one.end()
    await two.end()

    // Enrollments a second of servers that have their cores for themselves: one, two, and what one file takes however many ask.
    const ratio = (i: number) => {
      const [alone, both] = [loads.one[i], loads.two[i]]
      return Math.min(2 / both.cpu, 1 / both.writing) * alone.cpu
    }
    const figures = {
      twoWorkersOfOne: median(loads.one.map((_, i) => ratio(i))),
      twoWorkersWall: median(loads.one.map((alone, i) => loads.two[i].perSecond / alone.perSecond)),
    }
    const row = (name: string, all: Load[]) =>
      name.padEnd(34) +
      [all.map(l => l.cpu), all.map(l => l.writing), all.map(l => l.perSecond)]
        .map(cell => median(cell).toFixed(0).padStart(16))
        .join('')
    const table = [
      `kept-alive enrollments on one SQLite file, median of ${repeats} repeats of ${perRepeat * furtherKeys} a server`,
      `${''.padEnd(34)}${['CPU µs each', 'writer’s µs', 'per s, wall'].map(title => title.padStart(16)).join('')}`,
      row('one server', loads.one),
      row('two servers', loads.two),
      `two of one where each has its core: ${figures.twoWorkersOfOne.toFixed(2)} (≥ ${limit})`,
      `two of one on the wall clock, the devices' own work on the same cores: ${figures.twoWorkersWall.toFixed(2)}`,
    ].join('\n')
    return { table, figures }
  } finally {
    for (const process of processes) process.kill()
    rmSync(folder, { recursive: true, force: true })
  }
}

const clientsOf = () => worker<ToClients, FromClients>('enroll-clients.ts')
const serverOf = () => worker<ToServer, FromServer>('enroll-server.ts', 'server')

if (import.meta.main) console.log((await run()).table)
