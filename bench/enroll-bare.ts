// The mutual-TLS handshake alone, in a process of its own that is run as the server is: what it leaves to the collector is not the server's.
// As node:tls does it when it is told what helps: leaf and intermediates in `cert`, no tickets, X25519 first.

import { constants } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:tls'
import { answering } from './worker.ts'

/** `cpu`: µs so far. */
export type ToBare = { kind: 'start'; key: string; cert: string } | { kind: 'cpu' }
export type FromBare = { kind: 'start'; port: number } | { kind: 'cpu'; microseconds: number }

answering<ToBare, FromBare>(async message => {
  if (message.kind === 'cpu') {
    const { user, system } = process.cpuUsage()
    return { kind: 'cpu', microseconds: user + system }
  }
  const { key, cert } = message
  const server = createServer(
    {
      ...{ key, cert, requestCert: true, rejectUnauthorized: false, ALPNProtocols: ['http/1.1'], ecdhCurve: 'X25519:P-256' },
      secureOptions: constants.SSL_OP_NO_TICKET,
    },
    socket => {
      socket.on('error', () => socket.destroy())
      // Tells the client that the server is through as well.
      socket.write('.')
      socket.resume()
    },
  )
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done))
  return { kind: 'start', port: (server.address() as AddressInfo).port }
})
