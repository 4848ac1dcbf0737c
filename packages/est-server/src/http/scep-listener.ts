// SCEP's way in: TCP → gate → HTTP/1.0 or 1.1 → endpoint. Plain HTTP, as its clients expect: messages are signed and encrypted by themselves
// (RFC 8894 2.1). Strangers are budgeted as at the EST listener. Old routers send no Host and close after each answer.

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net'
import { performance } from 'node:perf_hooks'
import type { Peer } from '../enrollment-request.ts'
import { createLogBudget } from '../log-budget.ts'
import type { Log } from '../ports.ts'
import type { ScepService } from '../scep.ts'
import { type Connection, createConnectionGate } from './connection-gate.ts'
import type { Exchange } from './exchange.ts'
import { defaultLimits, type Limits } from './limits.ts'
import { noScepObserver, type ScepObserver } from './observer.ts'
import { problem, type RequestProblemCode } from './problem.ts'
import { readBody } from './request-body.ts'
import { type ScepAnswer, scepEndpoint } from './scep-routes.ts'

export interface ScepListenerOptions {
  service: ScepService
  limits?: Partial<Limits>
  log: Log
  requestId: () => string
  /** Told of what happens, for counting. */
  observer?: ScepObserver
}

export interface ScepListener {
  /** As Listener.listen. */
  listen(host: string, port: number, options?: { shared?: boolean }): Promise<{ port: number }>
  /** Accepts nothing new, finishes what was asked within `graceMs`, then cuts. */
  close(graceMs: number): Promise<void>
  readonly connections: number
}

/** A message of 20 KB in escaped base64, more than any client makes: RSA-4096 with a chain is 8 KB. */
const headerBytesMax = 32_768

const sweepMs = 250

interface Session {
  connection: Connection
  current: ServerResponse | null
}

function problemAnswer(code: RequestProblemCode): ScepAnswer {
  const { status, headers, body } = problem(code)
  return {
    status,
    headers: { ...headers, connection: 'close', 'content-length': String(Buffer.byteLength(body)) },
    body: Buffer.from(body),
  }
}

function send(outgoing: ServerResponse, { status, headers, body }: ScepAnswer): void {
  outgoing.writeHead(status, headers)
  outgoing.end(body)
}

export function createScepListener({
  service,
  limits: given,
  log,
  requestId,
  observer = noScepObserver,
}: ScepListenerOptions): ScepListener {
  const limits: Limits = { ...defaultLimits, headerBytesMax, ...given }
  const gate = createConnectionGate(limits, () => performance.now() / 1000, observer)
  const endpoint = scepEndpoint(service, limits, createLogBudget(log, { now: () => performance.now() / 1000 }), observer)
  const sessions = new WeakMap<Socket, Session>()
  let closing = false
  let drained: (() => void) | null = null

  const http = createServer(
    {
      maxHeaderSize: limits.headerBytesMax,
      insecureHTTPParser: false,
      requireHostHeader: false,
      // The gate keeps the deadlines.
      ...{ keepAliveTimeout: 0, headersTimeout: 0, requestTimeout: 0 },
    },
    (incoming, outgoing) => onRequest(incoming, outgoing, false),
  )
  http.timeout = 0
  http.on('checkContinue', (incoming, outgoing) => onRequest(incoming, outgoing, true))
  http.on('checkExpectation', (_incoming, outgoing) => send(outgoing, problemAnswer('expectation_refused')))
  http.on('connect', (_incoming, socket) => socket.destroy())
  http.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    const phase = sessions.get(socket as Socket)?.connection.phase
    if (!socket.writable || error.code === 'ECONNRESET' || phase === 'answer') {
      socket.destroy()
      return
    }
    const { status, headers, body } = problemAnswer(error.code === 'HPE_HEADER_OVERFLOW' ? 'header_too_large' : 'request_malformed')
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
    socket.end(`HTTP/1.1 ${status} refused\r\n${lines.join('')}\r\n${Buffer.from(body).toString()}`)
  })

  function onRequest(incoming: IncomingMessage, outgoing: ServerResponse, awaitsContinue: boolean): void {
    const session = sessions.get(incoming.socket)
    if (session === undefined) {
      incoming.socket.destroy()
      return
    }
    const { connection, current } = session
    if (current && !current.writableEnded) {
      send(outgoing, problemAnswer('pipelining_refused'))
      return
    }
    session.current = outgoing
    connection.requests++
    gate.enter(connection, 'answer')
    outgoing.once('finish', () => {
      if (session.current !== outgoing) return
      if (closing) incoming.socket.destroySoon()
      if (incoming.complete) gate.enter(connection, 'head')
      else {
        gate.enter(connection, 'body')
        incoming.once('end', () => session.current === outgoing && gate.enter(connection, 'head'))
      }
    })
    if (awaitsContinue || closing || connection.requests >= limits.requestsPerConnectionMax)
      outgoing.setHeader('connection', 'close')
    const { headers } = incoming
    if (Number(headers['content-length'] ?? 0) > limits.bodyBytesMax) {
      send(outgoing, problemAnswer('body_too_large'))
      return
    }
    const exchange: Exchange = {
      method: incoming.method ?? '',
      target: incoming.url ?? '',
      peer: connection.peer as Peer,
      requestId: requestId(),
      header: name => headers[name] as string | undefined,
      readBody: async () => {
        const reading = readBody(incoming, limits.bodyBytesMax)
        gate.enter(connection, 'body')
        connection.expire = reading.expire
        if (awaitsContinue) outgoing.writeContinue()
        const outcome = await reading.outcome
        connection.expire = null
        gate.enter(connection, 'answer')
        if (outcome.kind === 'refused' && !outgoing.headersSent) outgoing.setHeader('connection', 'close')
        return outcome
      },
    }
    endpoint(exchange)
      .then(answer => send(outgoing, answer ?? problemAnswer('not_found')))
      .catch(error => {
        log.error({ requestId: exchange.requestId, err: error }, 'answer failed')
        connection.destroy()
      })
  }

  const server = createTcpServer({ noDelay: true }, socket => {
    const address = socket.remoteAddress ?? ''
    if (closing) observer.connectionRefused('closing')
    const connection = closing ? null : gate.admit(address, () => socket.destroy())
    if (!connection) {
      socket.destroy()
      return
    }
    connection.peer = { chain: null, basic: null, address, tlsVersion: '', resumed: false }
    sessions.set(socket, { connection, current: null })
    gate.enter(connection, 'head')
    socket.once('close', () => {
      gate.leave(connection)
      if (closing && gate.size === 0) drained?.()
    })
    http.emit('connection', socket)
  })

  const sweeper = setInterval(() => gate.sweep(), sweepMs)
  sweeper.unref()

  return {
    get connections() {
      return gate.size
    },
    listen(host, port, { shared = false } = {}) {
      return new Promise((resolve, reject) => {
        server.once('error', reject)
        server.listen({ host, port, reusePort: shared }, () => {
          server.off('error', reject)
          server.on('error', error => log.error({ err: error }, 'SCEP listener failed'))
          resolve({ port: (server.address() as AddressInfo).port })
        })
      })
    },
    async close(graceMs) {
      closing = true
      const closed = new Promise<void>(resolve => server.close(() => resolve()))
      const empty = new Promise<void>(resolve => {
        drained = resolve
      })
      for (const connection of [...gate.connections()]) if (connection.phase === 'head') connection.destroy()
      if (gate.size > 0) {
        const timer = setTimeout(() => drained?.(), graceMs)
        await empty
        clearTimeout(timer)
        for (const connection of [...gate.connections()]) connection.destroy()
      }
      clearInterval(sweeper)
      await closed
    },
  }
}
