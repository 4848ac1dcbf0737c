// SCEP's way in: TCP → gate → HTTP/1.0 or 1.1 → endpoint. Plain HTTP, as its clients expect: messages are signed and encrypted by themselves
// (RFC 8894 2.1). Strangers are budgeted as at the EST listener. Old routers send no Host and close after each answer.

import { createServer } from 'node:net'
import { performance } from 'node:perf_hooks'
import { createLogBudget } from '../log-budget.ts'
import type { Log } from '../ports.ts'
import type { ScepService } from '../scep.ts'
import { createConnectionGate } from './connection-gate.ts'
import { refuse } from './exchange.ts'
import { createGatedHttp, send } from './gated-http.ts'
import { createGatedServer, type GatedServer } from './gated-server.ts'
import { defaultLimits, type Limits } from './limits.ts'
import { noScepObserver, type ScepObserver } from './observer.ts'
import { scepEndpoint } from './scep-routes.ts'

export interface ScepListenerOptions {
  service: ScepService
  limits?: Partial<Limits>
  log: Log
  requestId: () => string
  /** Told of what happens, for counting. */
  observer?: ScepObserver
}

export interface ScepListener {
  listen: GatedServer['listen']
  close: GatedServer['close']
  readonly connections: number
}

/** A message of 20 KB in escaped base64, more than any client makes: RSA-4096 with a chain is 8 KB. */
const headerBytesMax = 32_768

export function createScepListener({
  service,
  limits: given,
  log,
  requestId,
  observer = noScepObserver,
}: ScepListenerOptions): ScepListener {
  const limits: Limits = { ...defaultLimits, headerBytesMax, ...given }
  const gate = createConnectionGate(limits, () => performance.now() / 1000, observer)
  const strangers = createLogBudget(log, { now: () => performance.now() / 1000 }, limits.processes)
  const endpoint = scepEndpoint(service, limits, strangers, observer)
  const http = createGatedHttp({
    ...{ limits, gate, log, requestId, hostRequired: false, closing: () => gated.closing },
    answer: async ({ exchange, outgoing }) => send(outgoing, (await endpoint(exchange)) ?? refuse(exchange.requestId, 'not_found')),
  })

  const server = createServer({ noDelay: true }, socket => {
    const address = socket.remoteAddress ?? ''
    if (gated.closing) observer.connectionRefused('closing')
    const connection = gated.closing ? null : gate.admit(address, () => socket.destroy())
    if (!connection) {
      socket.destroy()
      return
    }
    connection.peer = { chain: null, basic: null, address, tlsVersion: '', resumed: false }
    socket.once('close', () => gated.left(connection))
    http.accept(socket, connection)
  })
  const gated = createGatedServer(server, gate, log, 'SCEP listener')

  return {
    get connections() {
      return gate.size
    },
    listen: gated.listen,
    close: gated.close,
  }
}
