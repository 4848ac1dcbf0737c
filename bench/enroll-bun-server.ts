// The server under load as a program of Node or of Bun: the real listener, enrollment and store.

import type { ManifestEntry } from '@birthmark/est-server'
import { startEstServer, type TestServer } from '../test/support/est-server.ts'
import { answeringLines } from './worker.ts'

export type Order = { kind: 'start'; root: string; manifest: ManifestEntry[] } | { kind: 'cpu' } | { kind: 'stop' }

let server: TestServer | null = null

async function answer(order: Order): Promise<object> {
  if (order.kind === 'start') {
    const root = new Uint8Array(Buffer.from(order.root, 'base64'))
    server = await startEstServer({ root: { certificate: root } }, { devices: order.manifest.map(manifest => ({ manifest })) })
    const runtime = process.versions.bun ? `Bun ${process.versions.bun}` : `Node ${process.versions.node}`
    return { port: server.port, rootPem: server.identity.rootPem, runtime }
  }
  if (order.kind === 'cpu') {
    const { user, system } = process.cpuUsage()
    return { microseconds: user + system }
  }
  await server?.stop()
  return {}
}

await answeringLines(answer)
