// A broker of the fan-out benchmark in a process of its own: the embedded one, or aedes as it comes. Plain TCP on all sides, since what is
// compared is the way from a publication to ten thousand sockets and not whose TLS is faster; a peer's name is its port.

import { type AddressInfo, createServer, type Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { createRuleSet, statusOf, systemClock } from '@birthmark/fleet-revocation'
import { createEmbeddedBroker } from '@birthmark/fleet-revocation/broker'
import { Aedes } from 'aedes'
import { createTestAuthority } from '../packages/fleet-revocation/src/testing/authority.ts'
import { monotonicMs } from './monotonic.ts'
import { answering } from './worker.ts'

export type ToBroker =
  | { kind: 'open'; which: 'embedded' | 'aedes'; fleet: string }
  | { kind: 'publish'; topic: string; payload: Uint8Array }
  /** Publishes `payload` again and again until something waits for the peer called `id`. */
  | { kind: 'fill'; id: string; topic: string; payload: Uint8Array }

export type FromBroker = { kind: 'open'; port: number } | { kind: 'publish'; at: number } | { kind: 'fill'; waiting: number }

const quiet = { info: () => {}, warn: () => {}, error: () => {} }
const sockets = new Map<string, Socket>()

type Publish = (topic: string, payload: Uint8Array, qos: 0 | 1) => void
let publish: Publish = () => {}

async function listen(onSocket: (socket: Socket, id: string) => void): Promise<{ port: number; close(): Promise<void> }> {
  const server = createServer({ noDelay: true }, socket => {
    const id = `p${socket.remotePort}`
    sockets.set(id, socket)
    onSocket(socket, id)
  })
  await new Promise<void>(resolve => server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, resolve))
  return { port: (server.address() as AddressInfo).port, close: async () => void server.close() }
}

async function openEmbedded(fleet: string): Promise<number> {
  const server = createTestAuthority('unused').server()
  let idx = 0
  const broker = await createEmbeddedBroker(
    {
      ...{ host: '127.0.0.1', port: 0, tls: { key: server.keyPem, cert: server.certPem }, deviceAnchors: [], fleet },
      // Asked for each delivery, as in the real server.
      status: statusOf(createRuleSet([{ kind: 'group', gid: 7, bound: 5 }]), fleet),
      ...{ clock: systemClock, log: quiet },
    },
    ({ onPeer }) =>
      listen((socket, id) => {
        const membership = { fleet, idx: 100 + idx++, gids: [7] }
        onPeer(socket as TLSSocket, { kind: 'device', id, membership, issuerKeyId: null, notAfter: Number.MAX_VALUE }, '127.0.0.1')
      }),
  )
  publish = (topic, payload, qos) => void broker.publish(topic, payload, { qos, retain: qos === 1 })
  return broker.port
}

async function openAedes(): Promise<number> {
  const broker = await Aedes.createBroker({ connectTimeout: 120_000 })
  const { port } = await listen(socket => void broker.handle(socket))
  publish = (topic, payload, qos) =>
    broker.publish({ cmd: 'publish', topic, payload: Buffer.from(payload), qos, retain: qos === 1, dup: false }, () => {})
  return port
}

answering<ToBroker, FromBroker>(async message => {
  if (message.kind === 'open')
    return { kind: 'open', port: message.which === 'aedes' ? await openAedes() : await openEmbedded(message.fleet) }
  if (message.kind === 'publish') {
    const at = monotonicMs()
    publish(message.topic, message.payload, 1)
    return { kind: 'publish', at }
  }
  const socket = sockets.get(message.id)
  while (socket && !socket.destroyed && socket.writableLength === 0) {
    publish(message.topic, message.payload, 0)
    await new Promise(resolve => setImmediate(resolve))
  }
  return { kind: 'fill', waiting: socket?.destroyed ? -1 : (socket?.writableLength ?? -1) }
})
