// The server under load as a program of Node or of Bun: orders in lines of JSON on stdin, answers on stdout. The real listener, enrollment
// and store; beside it the same cryptography by itself, so that each runtime also says what its own limit is.

import { createInterface } from 'node:readline'
import type { ManifestEntry } from '@birthmark/est-server'
import { startEstServer, type TestServer } from '../test/support/est-server.ts'

export type Order = { kind: 'start'; root: string; manifest: ManifestEntry[] } | { kind: 'cpu' } | { kind: 'stop' }

const say = (value: object) => process.stdout.write(`${JSON.stringify(value)}\n`)
let server: TestServer | null = null
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line) as Order
  if (order.kind === 'start') {
    const root = new Uint8Array(Buffer.from(order.root, 'base64'))
    server = await startEstServer({ root: { certificate: root } }, { devices: order.manifest.map(manifest => ({ manifest })) })
    const runtime = process.versions.bun ? `Bun ${process.versions.bun}` : `Node ${process.versions.node}`
    say({ port: server.port, rootPem: server.identity.rootPem, runtime })
  } else if (order.kind === 'cpu') {
    const { user, system } = process.cpuUsage()
    say({ microseconds: user + system })
  } else break
}
await server?.stop()
say({})
process.exit(0)
