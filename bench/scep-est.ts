// EST devices beside a SCEP load: one enrollment after the other at even intervals, on connections that stand, each timed from its request to the end
// of its answer. What is due is sent whether the last one was answered or not, so that a stall counts for everybody it makes wait.

import { connect, type TLSSocket } from 'node:tls'
import { type Bytes, encodeBase64 } from '@birthmark/device-sdk/core'
import type { ManifestEntry } from '@birthmark/est-server'
import { bear, manufacturer, request, type TestDevice } from '../test/support/devices.ts'
import { exchange } from './exchange.ts'
import { answering } from './worker.ts'

export type ToScepEst =
  | { kind: 'bear'; devices: number; requests: number }
  | { kind: 'connect'; port: number; rootPem: string }
  | { kind: 'measure'; requests: number; intervalMs: number }

export type FromScepEst =
  | { kind: 'bear'; root: Bytes; manifest: ManifestEntry[] }
  | { kind: 'connect' }
  /** Milliseconds. */
  | { kind: 'measure'; latencies: number[] }

interface Client {
  device: TestDevice
  wires: Buffer[]
  socket: TLSSocket | null
  /** Until its answer is there: the server refuses pipelining. */
  busy: Promise<void> | null
}

const clients: Client[] = []

/** Who asks next: the one with the most left of those that wait for nothing. */
async function idle(): Promise<Client> {
  for (;;) {
    const [next] = clients.filter(({ busy }) => busy === null).toSorted((a, b) => b.wires.length - a.wires.length)
    if (next) return next
    await Promise.race(clients.map(({ busy }) => busy))
  }
}

answering<ToScepEst, FromScepEst>(async message => {
  switch (message.kind) {
    case 'bear': {
      const maker = await manufacturer()
      for (let i = 0; i < message.devices; i++) {
        const id = `est-${i}`
        const wires: Buffer[] = []
        for (let n = 0; n < message.requests; n++) {
          const body = encodeBase64((await request(id)).csr, 64)
          const head = 'POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/pkcs10\r\n'
          wires.push(Buffer.from(`${head}Content-Length: ${body.length}\r\n\r\n${body}`))
        }
        clients.push({ device: await bear(maker, id), wires, socket: null, busy: null })
      }
      return { kind: 'bear', root: maker.root.certificate, manifest: clients.map(({ device }) => device.manifest) }
    }
    case 'connect': {
      for (const client of clients) {
        client.socket?.destroy()
        client.socket = await new Promise((resolve, reject) => {
          const { key, cert } = client.device
          const options = { host: '127.0.0.1', servername: 'localhost', ALPNProtocols: ['http/1.1'] }
          const socket = connect({ ...options, port: message.port, ca: message.rootPem, key, cert }, () => resolve(socket))
          socket.once('error', reject)
          socket.setNoDelay(true)
        })
      }
      return { kind: 'connect' }
    }
    case 'measure': {
      const latencies: number[] = []
      const start = performance.now()
      for (let i = 0; i < message.requests; i++) {
        const due = start + i * message.intervalMs
        const wait = due - performance.now()
        if (wait > 0) await new Promise(resolve => setTimeout(resolve, wait))
        // From now and not from when it was due: what this process is late by is not the server's. That nobody is left to ask is.
        const sent = performance.now()
        const client = await idle()
        const wire = client.wires.pop()
        if (!wire || !client.socket) throw new Error('no more requests')
        client.busy = exchange(client.socket, wire).then(() => {
          latencies.push(performance.now() - sent)
          client.busy = null
        })
      }
      await Promise.all(clients.map(({ busy }) => busy))
      return { kind: 'measure', latencies }
    }
  }
})
