// The program that bun.test.ts starts under Bun: the server of every other test, in a process of its own. Its first line of input is what
// to start with, every further one an order; each is answered by one line of JSON. The end of the input stops it.

import { createInterface } from 'node:readline'
import type { Limits } from '@birthmark/est-server'
import type { ManifestEntry } from '@birthmark/factory-line'
import { serverIdentity } from '../support/devices.ts'
import { startEstServer, type TestServer } from '../support/est-server.ts'

export interface Start {
  /** Base64 of the manufacturer's root, DER. */
  makerRoot: string
  manifest: ManifestEntry[]
  limits?: Partial<Limits>
}

export interface Started {
  runtime: string
  port: number
  /** PEM: whom clients trust, and whom issued certificates chain to. */
  serverRoot: string
  operationalRoot: string
}

const orders = {
  /** Sockets held. */
  connections: async (server: TestServer) => server.listener.connections,
  /** Signatures the issuing key made. */
  signatures: async (server: TestServer) => server.signatures(),
  /** Closes the connections of peers that showed a certificate; how many. */
  cut: async (server: TestServer) => server.listener.closeConnections(peer => peer.chain !== null),
  /** Takes a new server certificate; its root. */
  renew: async (server: TestServer) => {
    const identity = await serverIdentity()
    server.listener.setCertificate(identity)
    return identity.rootPem
  },
}
export type Orders = typeof orders

const say = (value: unknown) => process.stdout.write(`${JSON.stringify(value)}\n`)
let server: TestServer | null = null
for await (const line of createInterface({ input: process.stdin })) {
  if (server) {
    say(await orders[line as keyof Orders](server))
    continue
  }
  const { makerRoot, manifest, limits = {} } = JSON.parse(line) as Start
  const certificate = new Uint8Array(Buffer.from(makerRoot, 'base64'))
  const contextOf = (name: string) => {
    if (name === 'boom.example') throw new Error('no such certificate')
    return undefined
  }
  server = await startEstServer(
    { root: { certificate } },
    { devices: manifest.map(entry => ({ manifest: entry })), limits, tls: { contextOf } },
  )
  const { port, identity, issuerRootPem } = server
  const runtime = process.versions.bun ? `Bun ${process.versions.bun}` : `Node ${process.versions.node}`
  say({ runtime, port, serverRoot: identity.rootPem, operationalRoot: issuerRootPem } satisfies Started)
}
await server?.stop()
