// The same server on Bun and on Node under the same load, in turns: enrollments that a second of CPU buys on each, each run as `birthmark serve`
// runs there. Devices are a process of their own on Bun: on Node a handshake costs them more than it costs a server on Bun, which would sleep
// between them and commit each by itself. Only the ratio of one run counts.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { ManifestEntry } from '@birthmark/est-server'
import { serverEnvironment, serverFlags } from '../packages/birthmark/src/server-process.ts'
import type { Order } from './enroll-bun-server.ts'
import type { ToClients } from './enroll-clients.ts'
import { lineWorker } from './worker.ts'

const repeats = 7
const perRepeat = 150
/** V8 compiles small functions after some thousands of calls; JavaScriptCore spent a quarter of the time on it after 3,600 enrollments of each kind. */
const warmUp = 64 * perRepeat
/** What SPEED.md expects of BoringSSL. */
const limit = 1.4

const median = (values: number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]

export function findBun(): string | null {
  const name = process.arch === 'arm64' ? 'bun-linux-aarch64' : 'bun-linux-x64'
  const program = join(import.meta.dirname, `../node_modules/@oven/${name}/bin/bun`)
  return existsSync(program) ? program : null
}

export async function run(): Promise<{ table: string; figures: Record<string, number> }> {
  const bun = findBun()
  if (!bun) throw new Error('Bun is not installed here')
  const runtimes = [
    {
      program: process.execPath,
      args: ['--disable-warning=ExperimentalWarning', ...serverFlags],
      env: serverEnvironment(process.env),
    },
    { program: bun, args: [], env: process.env },
  ].map(({ program, args, env }) => ({
    server: lineWorker<Order>(program, ['--conditions=source', ...args], 'enroll-bun-server.ts', env),
    clients: lineWorker<ToClients>(bun, ['--conditions=source'], 'enroll-bun-clients.ts'),
    fresh: [] as number[],
    kept: [] as number[],
    runtime: '',
  }))
  try {
    for (const runtime of runtimes) {
      const { server, clients } = runtime
      const born = await clients.ask<{ root: string; manifest: ManifestEntry[] }>({
        kind: 'bear',
        count: warmUp + repeats * perRepeat,
      })
      const started = await server.ask<{ port: number; rootPem: string; runtime: string }>({
        ...born,
        kind: 'start',
      })
      runtime.runtime = started.runtime
      await clients.ask({ kind: 'target', port: started.port, barePort: 0, rootPem: started.rootPem })
    }
    const load = async ({ server, clients }: (typeof runtimes)[number], kind: 'fresh' | 'kept', count: number): Promise<number> => {
      const before = await server.ask<{ microseconds: number }>({ kind: 'cpu' })
      const { serials } = await clients.ask<{ serials: number }>(kind === 'fresh' ? { kind, count } : { kind })
      const after = await server.ask<{ microseconds: number }>({ kind: 'cpu' })
      if (serials !== count) throw new Error(`${count} enrollments gave ${serials} certificates`)
      return (after.microseconds - before.microseconds) / count
    }
    for (let i = 0; i < warmUp; i += perRepeat)
      for (const runtime of runtimes) {
        await load(runtime, 'fresh', perRepeat)
        await load(runtime, 'kept', perRepeat)
      }
    for (let i = 0; i < repeats; i++)
      for (const runtime of runtimes) {
        runtime.fresh.push(await load(runtime, 'fresh', perRepeat))
        runtime.kept.push(await load(runtime, 'kept', perRepeat))
      }
    const [node, onBun] = runtimes
    const bunFreshOfNode = median(node.fresh.map((cpu, i) => cpu / onBun.fresh[i]))
    const bunKeptOfNode = median(node.kept.map((cpu, i) => cpu / onBun.kept[i]))
    const row = (name: string, ...values: string[]) => name.padEnd(44) + values.map(value => value.padStart(14)).join('')
    const table = [
      row(`µs of CPU an enrollment, median of ${repeats}`, node.runtime, onBun.runtime, 'Bun of Node'),
      row(
        'fresh mutual TLS',
        median(node.fresh).toFixed(0),
        median(onBun.fresh).toFixed(0),
        `${bunFreshOfNode.toFixed(2)} ≥ ${limit}`,
      ),
      row('kept-alive mutual TLS', median(node.kept).toFixed(0), median(onBun.kept).toFixed(0), bunKeptOfNode.toFixed(2)),
    ].join('\n')
    for (const { server, clients } of runtimes) {
      await clients.ask({ kind: 'stop' })
      await server.ask({ kind: 'stop' })
    }
    return { table, figures: { bunFreshOfNode, bunKeptOfNode } }
  } finally {
    for (const { server, clients } of runtimes) {
      server.kill()
      clients.kill()
    }
  }
}

if (import.meta.main) console.log((await run()).table)
