// The devices, in a process of their own: each with its own keys, made before the measurement. Fresh: a new mutual-TLS connection and an
// enrollment by birth certificate. Kept: the same devices on the connections they still have, each with its next keys (what a device does
// that was reset). A connection is closed when a later one is opened, so that closing is paid for by the fresh ones. Every answer is
// unpacked, its certificate matched to the key that asked, its serial counted.

import { connect, createSecureContext, type TLSSocket } from 'node:tls'
import {
  type Bytes,
  encodeBase64,
  encodePem,
  equalBytes,
  hexOf,
  parseCertificate,
  parseCertsOnly,
} from '@birthmark/device-sdk/core'
import type { ManifestEntry } from '@birthmark/est-server'
import { bear, manufacturer, request } from '../test/support/devices.ts'
import { exchange } from './exchange.ts'

export type ToClients =
  /**
   * `name`: tells these devices from those of other processes. `anchored`: the CA that signed their certificates is the trust anchor itself; otherwise
   * it stands between, and comes with each chain. `further`: keys that each device has for 'kept', one unless said.
   */
  | { kind: 'bear'; count: number; name?: string; anchored?: boolean; further?: number }
  | { kind: 'target'; port: number; barePort: number; rootPem: string }
  | { kind: 'fresh'; count: number }
  /** Of those that the last 'fresh' made, each with all its further keys, one after the other. */
  | { kind: 'kept' }
  /** Handshakes alone, of the devices of the last 'fresh'. */
  | { kind: 'bare' }
  | { kind: 'stop' }

interface Load {
  /** Certificates that no earlier answer held. */
  serials: number
  milliseconds: number
}

export type FromClients =
  /** `root`: the trust anchor. */
  | { kind: 'bear'; root: Bytes; manifest: ManifestEntry[] }
  | { kind: 'target' }
  | ({ kind: 'fresh' } & Load)
  | ({ kind: 'kept' } & Load)
  | { kind: 'bare'; count: number }
  | { kind: 'stop' }

/**
 * Requests in flight: a line or a plant coming up, so that group commit has something to group. An enrollment crosses the writer three times, so that a
 * transaction holds less than a third of them. With 64 three runs gave 0.275 to 0.295 of raw on kept connections, with 128 three gave 0.310 to 0.325.
 */
const concurrency = 128

interface Device {
  tls: { key: string; cert: string }
  first: Request
  further: Request[]
}

interface Request {
  wire: Buffer
  spki: Bytes
}

interface Live {
  socket: TLSSocket
  device: Device
}

const devices: Device[] = []
const serials = new Set<string>()
let target = { port: 0, barePort: 0, rootPem: '' }
let next = 0
/** Connections of the last 'fresh', with their devices; and of the one before, to be closed. */
let live: Live[] = []
let past: TLSSocket[] = []
/** Connections of the last 'bare'. */
let handshaken: TLSSocket[] = []

async function enrollment(serial: string): Promise<Request> {
  const { csr, spki } = await request(serial)
  const body = encodeBase64(csr, 64)
  const head = 'POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/pkcs10\r\n'
  return { wire: Buffer.from(`${head}Content-Length: ${body.length}\r\n\r\n${body}`), spki }
}

function dial(tls: Device['tls'], port = target.port): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const secureContext = createSecureContext({ ca: target.rootPem, ...tls })
    const socket = connect({
      host: '127.0.0.1',
      port,
      servername: 'localhost',
      ALPNProtocols: ['http/1.1'],
      secureContext,
    })
    socket.once('secureConnect', () => resolve(socket))
    socket.once('error', reject)
  })
}

/** Throws unless the answer holds a certificate for the key that asked. */
function count(body: string, spki: Bytes): void {
  const certificate = parseCertificate(parseCertsOnly(Buffer.from(body, 'base64'))[0])
  if (!equalBytes(certificate.spki, spki)) throw new Error('a certificate for another key')
  serials.add(hexOf(certificate.serial))
}

async function enrollFresh(device: Device): Promise<void> {
  past.pop()?.end()
  const socket = await dial(device.tls)
  count(await exchange(socket, device.first.wire), device.first.spki)
  live.push({ socket, device })
}

/** One key after the other: a connection has one request in flight. */
async function enrollKept({ socket, device }: Live): Promise<void> {
  for (const { wire, spki } of device.further) count(await exchange(socket, wire), spki)
}

async function handshake({ device }: { device: Device }): Promise<void> {
  past.pop()?.end()
  const socket = await dial(device.tls, target.barePort)
  await new Promise((done, failed) => socket.once('data', done).once('error', failed))
  handshaken.push(socket)
}

async function load<T>(items: T[], enroll: (item: T) => Promise<void>): Promise<Load> {
  const before = serials.size
  const start = performance.now()
  let at = 0
  const work = async () => {
    while (at < items.length) await enroll(items[at++])
  }
  await Promise.all(Array.from({ length: concurrency }, work))
  return { serials: serials.size - before, milliseconds: performance.now() - start }
}

/** Does what a message says. */
export async function answer(message: ToClients): Promise<FromClients> {
  switch (message.kind) {
    case 'bear': {
      const maker = await manufacturer(`Bench ${message.name ?? ''}`)
      const { certificate: root } = message.anchored ? maker.issuing : maker.root
      const manifest: ManifestEntry[] = []
      for (let i = 0; i < message.count; i++) {
        const serial = `${message.name ?? 'unit'}-${i}`
        const { key, cert, birth, manifest: entry } = await bear(maker, serial, ['batch=2026-W41', 'model=gw-2'])
        const tls = { key, cert: message.anchored ? encodePem('CERTIFICATE', birth) : cert }
        const further: Request[] = []
        for (let n = 0; n < (message.further ?? 1); n++) further.push(await enrollment(serial))
        devices.push({ tls, first: await enrollment(serial), further })
        manifest.push(entry)
      }
      return { kind: 'bear', root, manifest }
    }
    case 'target':
      target = message
      return { kind: 'target' }
    case 'fresh':
      past = live.map(({ socket }) => socket)
      live = []
      next += message.count
      return { kind: 'fresh', ...(await load(devices.slice(next - message.count, next), enrollFresh)) }
    case 'kept':
      return { kind: 'kept', ...(await load(live, enrollKept)) }
    case 'bare':
      past = handshaken
      handshaken = []
      await load(live, handshake)
      return { kind: 'bare', count: live.length }
    case 'stop':
      for (const socket of handshaken) socket.destroy()
      for (const { socket } of live) socket.destroy()
      return { kind: 'stop' }
  }
}

if (import.meta.main)
  process.on('message', (message: ToClients) => {
    void answer(message).then(reply => process.send?.(reply, () => message.kind === 'stop' && process.disconnect()))
  })
