// HTTP on sockets that a gate admitted, the same for every way in: one request of a connection at a time, each phase of it under the gate's
// deadline, a body bounded before it is read, and an answer of our own words to whatever HTTP gave up on. What an answer says is the way's own.

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Bytes } from '@birthmark/device-sdk/core'
import type { Peer } from '../enrollment-request.ts'
import type { Log } from '../ports.ts'
import type { Connection, ConnectionGate } from './connection-gate.ts'
import { answer, type BodyOutcome, type Exchange } from './exchange.ts'
import type { Limits } from './limits.ts'
import { problem, type RequestProblemCode } from './problem.ts'
import { readBody } from './request-body.ts'

/** A request that is to be answered. */
export interface GatedRequest {
  exchange: Exchange
  connection: Connection
  incoming: IncomingMessage
  outgoing: ServerResponse
}

export interface GatedHttpOptions {
  limits: Limits
  gate: ConnectionGate
  log: Log
  requestId: () => string
  /** RFC 9112 3.2 asks for Host; the routers that speak SCEP send none. */
  hostRequired: boolean
  closing: () => boolean
  /** Answers by `send`. What it throws ends the connection. */
  answer(request: GatedRequest): void | Promise<void>
  /** Told when the answer is out. */
  answered?(request: GatedRequest): void
}

export interface GatedHttp {
  /** Takes over a socket whose connection has its `peer`. */
  accept(socket: Socket, connection: Connection): void
}

interface Session {
  connection: Connection
  socket: Socket
  /** The last answer begun. */
  current: ServerResponse | null
}

/** One object a request, whose methods are its class's. */
class GatedExchange implements Exchange {
  readonly method: string
  readonly target: string
  peer: Peer
  readonly requestId: string
  readonly #request: Omit<GatedRequest, 'exchange'>
  readonly #gate: ConnectionGate
  readonly #bodyBytesMax: number
  readonly #awaitsContinue: boolean

  constructor(
    request: Omit<GatedRequest, 'exchange'>,
    requestId: string,
    gate: ConnectionGate,
    bodyBytesMax: number,
    awaitsContinue: boolean,
  ) {
    const { incoming, connection } = request
    this.method = incoming.method ?? ''
    this.target = incoming.url ?? ''
    this.peer = connection.peer as Peer
    this.requestId = requestId
    this.#request = request
    this.#gate = gate
    this.#bodyBytesMax = bodyBytesMax
    this.#awaitsContinue = awaitsContinue
  }

  header(name: string): string | undefined {
    return this.#request.incoming.headers[name] as string | undefined
  }

  readBody(): Promise<BodyOutcome> {
    const { incoming, outgoing, connection } = this.#request
    const gate = this.#gate
    return new Promise(resolve => {
      gate.enter(connection, 'body')
      connection.expire = readBody(incoming, this.#bodyBytesMax, outcome => {
        connection.expire = null
        gate.enter(connection, 'answer')
        // The rest of the body is in the way of a next request.
        if (outcome.kind === 'refused' && !outgoing.headersSent) outgoing.setHeader('connection', 'close')
        resolve(outcome)
      })
      if (this.#awaitsContinue) outgoing.writeContinue()
    })
  }
}

/** A whole answer. Header names in lower case, content-length among them. */
export function send(
  outgoing: ServerResponse,
  { status, headers, body }: { status: number; headers: Record<string, string>; body: string | Bytes },
): void {
  outgoing.writeHead(status, headers)
  if (typeof body !== 'string') outgoing.end(body)
  // As long in bytes as in characters: ASCII, which needs no transcoding.
  else outgoing.end(body, headers['content-length'] === String(body.length) ? 'latin1' : 'utf8')
}

function sendProblem(outgoing: ServerResponse, code: RequestProblemCode, requestId: string): void {
  const { status, headers, body } = problem(code)
  send(outgoing, answer(requestId, status, { ...headers, connection: 'close' }, body))
}

/** A whole answer for a socket that HTTP gave up on. */
function rawAnswer(code: RequestProblemCode, requestId: string): string {
  const { status, headers, body } = problem(code)
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  return (
    `HTTP/1.1 ${status} ${code}\r\n${lines.join('')}x-request-id: ${requestId}\r\nConnection: close\r\n` +
    `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`
  )
}

export function createGatedHttp(options: GatedHttpOptions): GatedHttp {
  const { limits, gate, log, requestId, closing } = options
  const sessionOf = new WeakMap<object, Session>()

  const http = createServer(
    // The gate keeps the deadlines: Node's own are looked at every 30 s and only on servers that listen themselves.
    {
      maxHeaderSize: limits.headerBytesMax,
      insecureHTTPParser: false,
      // Refused further on, in our own words.
      requireHostHeader: false,
      ...{ keepAliveTimeout: 0, headersTimeout: 0, requestTimeout: 0 },
    },
    (incoming, outgoing) => onRequest(incoming, outgoing, false),
  )
  http.timeout = 0
  http.on('checkContinue', (incoming, outgoing) => onRequest(incoming, outgoing, true))
  http.on('checkExpectation', (_incoming, outgoing) => sendProblem(outgoing, 'expectation_refused', requestId()))
  http.on('connect', (_incoming, socket: Duplex) =>
    socket.end(rawAnswer('method_not_allowed', requestId()), () => socket.destroy()),
  )
  http.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => {
    // A request that is being answered on this socket would get the wrong answer.
    const phase = sessionOf.get(socket)?.connection.phase
    if (!socket.writable || error.code === 'ECONNRESET' || phase === 'answer') socket.destroy()
    else socket.end(rawAnswer(error.code === 'HPE_HEADER_OVERFLOW' ? 'header_too_large' : 'request_malformed', requestId()))
  })

  function onRequest(incoming: IncomingMessage, outgoing: ServerResponse, awaitsContinue: boolean): void {
    const session = sessionOf.get(incoming.socket)!
    const { connection, current } = session
    const id = requestId()
    if (current && !current.writableEnded) {
      // Clients wait for an answer before they ask again. Who does not could have any number of requests in work on one socket.
      sendProblem(outgoing, 'pipelining_refused', id)
      return
    }
    session.current = outgoing
    connection.requests++
    gate.enter(connection, 'answer')
    const { headers } = incoming
    const exchange = new GatedExchange({ connection, incoming, outgoing }, id, gate, limits.bodyBytesMax, awaitsContinue)
    const request = { exchange, connection, incoming, outgoing }
    outgoing.on('finish', () => answered(session, request))
    if (Number(headers['content-length'] ?? 0) > limits.bodyBytesMax) {
      sendProblem(outgoing, 'body_too_large', id)
      return
    }
    if (options.hostRequired && headers.host === undefined) {
      sendProblem(outgoing, 'request_malformed', id)
      return
    }
    // After an answer instead of 100 (Continue) nobody can say whether the body still comes (RFC 9110 10.1.1).
    if (awaitsContinue || closing() || connection.requests >= limits.requestsPerConnectionMax)
      outgoing.setHeader('connection', 'close')
    options.answer(request)?.catch(error => {
      log.error({ requestId: id, err: error }, 'answer failed')
      connection.destroy()
    })
  }

  /** The answer is out. What is left of the request's body is Node's to throw away, for as long as a body may take. */
  function answered(session: Session, request: GatedRequest): void {
    const { connection, incoming, outgoing } = request
    // The next request may have overtaken this event.
    if (session.current !== outgoing) return
    options.answered?.(request)
    if (closing()) session.socket.destroySoon()
    if (incoming.complete) gate.enter(connection, 'head')
    else {
      gate.enter(connection, 'body')
      incoming.once('end', () => {
        if (session.current === outgoing) gate.enter(connection, 'head')
      })
    }
  }

  return {
    accept(socket, connection) {
      sessionOf.set(socket, { connection, socket, current: null })
      gate.enter(connection, 'head')
      http.emit('connection', socket)
    },
  }
}
