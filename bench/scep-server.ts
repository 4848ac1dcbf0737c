// The server of the SCEP benchmark, in a process of its own: the real RA, enrollment, SQLite with full sync, both listeners over one enrollment.

import { randomUUID } from 'node:crypto'
import type { Bytes } from '@birthmark/device-sdk/core'
import { createListener, type Listener, type ManifestEntry } from '@birthmark/est-server'
import { serverIdentity } from '../test/support/devices.ts'
import { type ScepServer, type ScepState, startScepServer } from '../test/support/scep-server.ts'
import { answering } from './worker.ts'

export type ToScepServer =
  | { kind: 'start'; root: Bytes; manifest: ManifestEntry[]; of: ScepState | null }
  | { kind: 'mint'; devices: string[] }
  | { kind: 'cpu' }
  | { kind: 'check' }

export type FromScepServer =
  | {
      kind: 'start'
      url: string
      estPort: number
      rootPem: string
      ra: { issuer: Bytes; serial: Bytes; spki: Bytes }
      state: ScepState
    }
  | { kind: 'mint'; challenges: string[] }
  | { kind: 'cpu'; microseconds: number }
  /** Serials in hex by device. */
  | { kind: 'check'; serials: [string, string][]; broken: string[] }

let server: ScepServer | null = null
let listener: Listener | null = null

answering<ToScepServer, FromScepServer>(async message => {
  if (message.kind === 'start') {
    const profile = { birthAnchors: [new Uint8Array(message.root)], supersedesMax: 1000 }
    server = await startScepServer({ issuer: 'RSA-2048', nice: 10, profile, ...(message.of ? { of: message.of } : {}) })
    server.logged.push = () => 0
    await server.registry.importManifest(message.manifest, 'bench')
    const identity = await serverIdentity()
    const quiet = () => {}
    listener = createListener({
      tls: { key: identity.key, cert: identity.cert },
      enrollment: server.enrollment,
      // Connections stand idle between two measurements.
      limits: { connectionBurstPerAddress: 10_000, connectionsPerAddressMax: 1024, headSeconds: 600 },
      log: { info: quiet, warn: quiet, error: quiet },
      requestId: randomUUID,
    })
    const { port } = await listener.listen('127.0.0.1', 0)
    const { url, folder, raPair, ra } = server
    const { certificate, pem, privateKeyPem, spki } = server.issuing
    const state = {
      folder,
      raPair,
      root: { certificate: server.root.certificate, pem: server.root.pem },
      issuing: { certificate, pem, privateKeyPem, spki },
    }
    return {
      kind: 'start',
      url,
      estPort: port,
      rootPem: identity.rootPem,
      ra: { issuer: ra.issuer, serial: ra.serial, spki: ra.spki },
      state,
    }
  }
  if (!server) throw new Error('not started')
  switch (message.kind) {
    case 'mint': {
      const challenges: string[] = []
      for (let at = 0; at < message.devices.length; at += 1000) {
        const rows = message.devices.slice(at, at + 1000).map(deviceId => ({ deviceId }))
        const { minted } = await server.challenges.mint({ label: null, rows, lifetimeSeconds: 86_400, by: 'bench' })
        challenges.push(...minted.map(one => one.challenge))
      }
      return { kind: 'mint', challenges }
    }
    case 'cpu': {
      const { user, system } = process.cpuUsage()
      return { kind: 'cpu', microseconds: user + system }
    }
    case 'check': {
      const serials: [string, string][] = []
      for (let after: string | undefined; ; ) {
        const page = await server.registry.devices({ state: 'enrolled', limit: 1000, ...(after !== undefined && { after }) })
        for (const { id, certificate } of page) if (certificate) serials.push([id, Buffer.from(certificate.serial).toString('hex')])
        if (page.length < 1000) break
        after = page[page.length - 1].id
      }
      return { kind: 'check', serials, broken: await server.store.check() }
    }
  }
})
