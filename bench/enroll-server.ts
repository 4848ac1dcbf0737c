// The server under load, in a process of its own so that its CPU time is its alone: the real listener, enrollment and
// a store that keeps what it acknowledged: SQLite with full sync, or PostgreSQL.

import { readdirSync, readFileSync } from 'node:fs'
import type { Bytes } from '@birthmark/device-sdk/core'
import { defaultLimits, type ManifestEntry, openPostgresStore, openSqliteStore, type PostgresAddress } from '@birthmark/est-server'
import { startEstServer, type TestServer } from '../test/support/est-server.ts'

export type ToServer =
  /**
   * `postgres`: null for SQLite; `shared`: a file of it that other servers issue from at the same time; `defaultLimits`: what one address may open is
   * bounded as in production, though all devices of a benchmark have the same.
   */
  | {
      kind: 'start'
      root: Bytes
      manifest: ManifestEntry[]
      postgres: PostgresAddress | null
      shared?: string
      defaultLimits?: boolean
      /** Trust anchors beside the first. */
      further?: Bytes[]
    }
  | { kind: 'cpu' }
  /** The audit of the load: devices with a certificate, and every broken invariant of the store. */
  | { kind: 'check' }
  | { kind: 'stop' }

export type FromServer =
  | { kind: 'start'; port: number; identity: TestServer['identity'] }
  /** `writing`: of it, what threads beside the main one took that this program started: the store's writer. */
  | { kind: 'cpu'; microseconds: number; writing: number }
  | { kind: 'check'; enrolled: number; broken: string[] }
  | { kind: 'stop' }

/** Of a device's keys: an enrollment with another one beside a live certificate is what kept connections are measured with. */
const supersedesMax = 16

let server: TestServer | null = null

/** µs of CPU of the worker threads; what V8 and libuv run beside is not among them. */
function writerCpu(): number {
  let nanoseconds = 0
  for (const task of readdirSync('/proc/self/task')) {
    const file = `/proc/self/task/${task}`
    if (readFileSync(`${file}/comm`, 'latin1').startsWith('WorkerThread'))
      nanoseconds += Number(readFileSync(`${file}/schedstat`, 'latin1').split(' ')[0])
  }
  return nanoseconds / 1000
}

async function answer(message: ToServer): Promise<FromServer> {
  if (message.kind === 'start') {
    const devices = message.manifest.map(manifest => ({ manifest }))
    const { postgres, shared } = message
    const store =
      postgres !== null
        ? () => openPostgresStore(postgres)
        : shared !== undefined && (() => openSqliteStore({ path: shared, shared: true }))
    const limits = message.defaultLimits ? { limits: defaultLimits } : {}
    const birthAnchors = [message.root, ...(message.further ?? [])].map(root => new Uint8Array(root))
    const options = { devices, ...limits, ...(store && { store }), profile: { birthAnchors, supersedesMax } }
    server = await startEstServer({ root: { certificate: birthAnchors[0] } }, options)
    return { kind: 'start', port: server.port, identity: server.identity }
  }
  if (!server) throw new Error('not started')
  switch (message.kind) {
    case 'cpu': {
      const { user, system } = process.cpuUsage()
      return { kind: 'cpu', microseconds: user + system, writing: writerCpu() }
    }
    case 'check': {
      let enrolled = 0
      for (let after: string | undefined; ; ) {
        const page = await server.registry.devices({ state: 'enrolled', limit: 1000, ...(after !== undefined && { after }) })
        enrolled += page.length
        if (page.length < 1000) break
        after = page[page.length - 1].id
      }
      return { kind: 'check', enrolled, broken: [...(await server.store.check()), ...server.alarms.map(alarm => alarm.message)] }
    }
    case 'stop':
      await server.stop()
      return { kind: 'stop' }
  }
}

process.on('message', (message: ToServer) => {
  void answer(message).then(reply => process.send?.(reply, () => message.kind === 'stop' && process.disconnect()))
})
