// The way in: TCP → gate → mutual TLS → HTTP/1.1 → app. Promises that no TLS session is resumed or renegotiated, so that every
// connection is one handshake with one peer; that whoever is there was budgeted before TLS and HTTP spent anything on it; and that a
// failure stays inside its connection. node:tls and node:http only, as both Node and Bun run them.

import { constants } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { performance } from 'node:perf_hooks'
import type { Duplex } from 'node:stream'
import { createServer as createTlsServer, type SecureContext, type TLSSocket } from 'node:tls'
import { getRequestListener } from '@hono/node-server'
import type { Peer } from '../enrollment-request.ts'
import { createLogBudget } from '../log-budget.ts'
import type { Log } from '../ports.ts'
import type { Proxies } from '../proxies.ts'
import { type App, createFront } from './app.ts'
import { peerOf } from './client-certificate.ts'
import { type Connection, createConnectionGate } from './connection-gate.ts'
import type { EstService } from './est-routes.ts'
import { type Answer, answer, type Exchange, refuse, responseOf } from './exchange.ts'
import { defaultLimits, type Limits } from './limits.ts'
import { type HttpObserver, nobody } from './observer.ts'
import { problem, type RequestProblemCode } from './problem.ts'
import { readBody } from './request-body.ts'

export interface ListenerTls {
  /** PEM private key of the server's certificate. */
  key: string | Buffer
  /** PEM, leaf first, **then the intermediates**: without them OpenSSL builds its chain anew for every handshake. */
  cert: string | Buffer
  /** Default TLSv1.2. */
  minVersion?: 'TLSv1.2' | 'TLSv1.3'
  /** Key exchange groups, best first. */
  groups?: string
  /** Another certificate by SNI name; undefined for the usual one. What it throws closes that one connection. */
  contextOf?: (serverName: string) => SecureContext | undefined
}

export interface ListenerOptions {
  tls: ListenerTls
  enrollment: EstService
  limits?: Partial<Limits>
  log: Log
  /** A fresh id, of characters that a header and a log line carry as they are. */
  requestId: () => string
  /** Why no traffic is wanted now, or null. */
  unready?: () => string | null
  /** Told of what happens, for counting. */
  observer?: HttpObserver
  /** Proxies whose word about a client counts. */
  proxies?: Proxies
}

export interface Listener {
  /**
   * `port` 0 takes a free one. Rejects where the address cannot be had. `shared`: other processes of this user may listen there too, and the
   * kernel spreads connections over them (SO_REUSEPORT); who else holds the port is then not noticed.
   */
  listen(host: string, port: number, options?: { shared?: boolean }): Promise<{ port: number }>
  /** Accepts nothing new, finishes what was asked within `graceMs`, then cuts. */
  close(graceMs: number): Promise<void>
  /** Cuts the live connections of matching peers; how many. For a revocation that just took effect. */
  closeConnections(match: (peer: Peer) => boolean): number
  /** A renewed server certificate, for the connections from now on. */
  setCertificate(tls: Pick<ListenerTls, 'key' | 'cert'>): void
  /** Sockets held now, in whatever state. */
  readonly connections: number
  /** For further routes, before `listen`. */
  app: App
}

// TLS 1.3 with SHA-256 first, for what hashing in software costs; TLS 1.2 with forward secrecy and AEAD only.
const ciphers = [
  'TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384',
  'ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305',
  'ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-CCM:ECDHE-ECDSA-AES256-CCM',
].join(':')

// A CSR and a certificate are public, so that a recorded handshake broken in 20 years gives nothing but a spent one-time secret:
// the hybrid groups would cost 4 % of a handshake for that. P-521 stands last: nobody's first choice, but without it OpenSSL refuses a
// client certificate on that curve in TLS 1.2, where one list is said to serve both.
const groups = 'X25519:P-256:P-384:P-521'

/**
 * A client's part of a handshake is 2-4 KB. The most that OpenSSL takes is 100 KB of certificates; filled with RSA-16384 they were
 * measured to cost 140 ms, which this counts as 24 connections, or 240 ms of an address's share.
 */
const handshakeBytesPerCharge = 4096

/**
 * A chain that leads nowhere costs up to eight signatures to see through: with P-521 20 ms of this thread were measured, against 2 to 3 ms
 * for a handshake. Counted as eight connections more, it takes from its address what it takes from the others.
 */
const strangerCharge = 8

/** A connection with TLS standing. */
interface Session {
  connection: Connection
  socket: TLSSocket
  /** The last request was a proxy's for somebody else. */
  forwarded: boolean
  /** The last answer begun. */
  current: ServerResponse | null
}

/** How often deadlines are looked at: a limit is kept to within this. */
const sweepMs = 250

/** A whole answer for a socket that HTTP gave up on. */
function rawAnswer(code: RequestProblemCode, requestId: string): string {
  const { status, headers, body } = problem(code)
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  return (
    `HTTP/1.1 ${status} ${code}\r\n${lines.join('')}x-request-id: ${requestId}\r\nConnection: close\r\n` +
    `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`
  )
}

function send(outgoing: ServerResponse, { status, headers, body }: Answer): void {
  outgoing.writeHead(status, headers)
  // As long in bytes as in characters: ASCII, which needs no transcoding.
  outgoing.end(body, headers['content-length'] === String(body.length) ? 'latin1' : 'utf8')
}

function sendProblem(outgoing: ServerResponse, code: RequestProblemCode, requestId: string): void {
  const { status, headers, body } = problem(code)
  send(outgoing, answer(requestId, status, { ...headers, connection: 'close' }, body))
}

export function createListener({
  tls,
  enrollment,
  limits: given,
  log,
  requestId,
  unready,
  observer = nobody,
  proxies,
}: ListenerOptions): Listener {
  const limits: Limits = { ...defaultLimits, ...given }
  // Deadlines follow a clock that nobody sets: the wall clock may jump.
  const gate = createConnectionGate(limits, () => performance.now() / 1000, observer)
  const strangers = createLogBudget(log, { now: () => performance.now() / 1000 })
  const front = createFront({
    enrollment,
    limits,
    log,
    observer,
    proxies: proxies ?? null,
    unready: () => (closing ? 'stopping' : (unready?.() ?? null)),
  })
  /** By peer address and port, from accept to the end of the handshake: the socket that TLS hands out is another object on Node. */
  const accepted = new Map<string, { connection: Connection; tcp: Socket }>()
  const sessionOf = new WeakMap<object, Session>()
  let closing = false
  let drained: (() => void) | null = null

  // All of it anew with every certificate: what is left out would fall back to Node's defaults, tickets among them.
  const contextOptions = (pair: Pick<ListenerTls, 'key' | 'cert'>) => ({
    key: pair.key,
    cert: pair.cert,
    minVersion: tls.minVersion ?? 'TLSv1.2',
    maxVersion: 'TLSv1.3' as const,
    ciphers,
    ecdhCurve: tls.groups ?? groups,
    // OpenSSL is given no trust anchor and its verdict is not asked for: the one authority is our own validator, behind the registrar.
    ca: [],
    // No tickets; and Node keeps no session cache without a 'newSession' listener, so that the ids TLS 1.3 still sends lead nowhere.
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION | constants.SSL_OP_CIPHER_SERVER_PREFERENCE,
  })

  const server = createTlsServer({
    ...contextOptions(tls),
    ALPNProtocols: ['http/1.1'],
    noDelay: true,
    requestCert: true,
    rejectUnauthorized: false,
    handshakeTimeout: limits.handshakeSeconds * 1000,
    ...(tls.contextOf && { SNICallback: sniCallback(tls.contextOf) }),
  })

  // Hono's own way to node:http costs 25 µs a request, as much as a signature takes: EST goes past it.
  const exchanges = new WeakMap<IncomingMessage, Exchange>()
  const appListener = getRequestListener(
    (request, { incoming }) => front.app.fetch(request, exchanges.get(incoming as IncomingMessage)!),
    {
      autoCleanupIncoming: false,
      // Only a Host or target that is no URL gets here.
      errorHandler: () => responseOf(refuse(requestId(), 'request_malformed')),
    },
  )

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
      // EST clients wait for an answer before they ask again. Who does not could have any number of requests in work on one socket.
      sendProblem(outgoing, 'pipelining_refused', id)
      return
    }
    session.current = outgoing
    connection.requests++
    gate.enter(connection, 'answer')
    outgoing.once('finish', () => answered(session, incoming, outgoing))
    const { headers } = incoming
    if (Number(headers['content-length'] ?? 0) > limits.bodyBytesMax) {
      sendProblem(outgoing, 'body_too_large', id)
      return
    }
    // RFC 9112 3.2.
    if (headers.host === undefined) {
      sendProblem(outgoing, 'request_malformed', id)
      return
    }
    // After an answer instead of 100 (Continue) nobody can say whether the body still comes (RFC 9110 10.1.1).
    if (awaitsContinue || closing || connection.requests >= limits.requestsPerConnectionMax)
      outgoing.setHeader('connection', 'close')
    const exchange: Exchange = {
      method: incoming.method ?? '',
      target: incoming.url ?? '',
      peer: connection.peer!,
      requestId: id,
      header: name => headers[name] as string | undefined,
      readBody: async () => {
        const reading = readBody(incoming, limits.bodyBytesMax)
        gate.enter(connection, 'body')
        connection.expire = reading.expire
        if (awaitsContinue) outgoing.writeContinue()
        const outcome = await reading.outcome
        connection.expire = null
        gate.enter(connection, 'answer')
        // The rest of the body is in the way of a next request.
        if (outcome.kind === 'refused' && !outgoing.headersSent) outgoing.setHeader('connection', 'close')
        return outcome
      },
    }
    const given = front.answer(exchange)
    session.forwarded = exchange.peer !== connection.peer
    if (given === null) {
      exchanges.set(incoming, exchange)
      appListener(incoming, outgoing).catch(failed)
    } else if (given instanceof Promise) given.then(sendCounted).catch(failed)
    else send(outgoing, given)

    function sendCounted(whole: Answer): void {
      if (whole.stranger && !session.forwarded) gate.charge(connection, strangerCharge)
      send(outgoing, whole)
    }

    function failed(error: unknown): void {
      log.error({ requestId: id, err: error }, 'answer failed')
      connection.destroy()
    }
  }

  /** The answer is out. What is left of the request's body is Node's to throw away, for as long as a body may take. */
  function answered(session: Session, incoming: IncomingMessage, outgoing: ServerResponse): void {
    const { connection } = session
    // The next request may have overtaken this event.
    if (session.current !== outgoing) return
    if (outgoing.statusCode === 401 && connection.peer?.chain && !session.forwarded) gate.charge(connection, strangerCharge)
    if (closing) session.socket.destroySoon()
    if (incoming.complete) gate.enter(connection, 'head')
    else {
      gate.enter(connection, 'body')
      incoming.once('end', () => {
        if (session.current === outgoing) gate.enter(connection, 'head')
      })
    }
  }

  function onTcp(socket: Socket, secure: ((socket: Socket) => void)[]): void {
    if (closing) observer.connectionRefused('closing')
    const connection = closing ? null : gate.admit(socket.remoteAddress ?? '', () => socket.destroy())
    if (!connection) {
      socket.destroy()
      return
    }
    const name = `${socket.remoteAddress} ${socket.remotePort}`
    accepted.set(name, { connection, tcp: socket })
    socket.once('close', () => {
      // The port may be another connection's by now.
      if (accepted.get(name)?.connection === connection) accepted.delete(name)
      gate.leave(connection)
      if (closing && gate.size === 0) drained?.()
    })
    for (const accept of secure) accept.call(server, socket)
  }

  function onSecure(socket: TLSSocket): void {
    const name = `${socket.remoteAddress} ${socket.remotePort}`
    const { connection, tcp } = accepted.get(name) ?? {}
    accepted.delete(name)
    // Gone while it shook hands, or swept.
    if (!connection || !tcp || connection.phase !== 'handshake') {
      socket.destroy()
      return
    }
    // OpenSSL verifies every signature of a chain that it was told not to judge, and Node cannot bound that.
    gate.charge(connection, Math.floor(tcp.bytesRead / handshakeBytesPerCharge))
    try {
      connection.peer = peerOf(socket)
    } catch (error) {
      log.warn({ address: connection.address, err: error }, 'client certificate cannot be read')
      socket.destroy()
      return
    }
    // Bun hands out the socket it accepted, whose count begins after the handshake: there the chain stands in for it.
    if (tcp === socket) {
      const chainBytes = (connection.peer.chain ?? []).reduce((sum, certificate) => sum + certificate.length, 0)
      gate.charge(connection, Math.floor(chainBytes / handshakeBytesPerCharge))
    }
    observer.handshake('done', performance.now() / 1000 - connection.since)
    sessionOf.set(socket, { connection, socket, current: null, forwarded: false })
    gate.enter(connection, 'head')
    http.emit('connection', socket)
  }

  // Between the accept and TLS: a refused socket costs no TLS state. On Node the listener taken out starts TLS; on Bun TLS stands already.
  const secure = server.listeners('connection') as ((socket: Socket) => void)[]
  server.removeAllListeners('connection')
  server.on('connection', (socket: Socket) => onTcp(socket, secure))
  server.on('secureConnection', onSecure)
  server.on('tlsClientError', (error: NodeJS.ErrnoException, socket) => {
    // What a device's operator looks for first.
    observer.handshake('failed', 0)
    if (error.code !== 'ECONNRESET') strangers.info({ address: socket.remoteAddress, code: error.code }, 'TLS handshake failed')
    socket.destroy()
  })

  const sweeper = setInterval(() => gate.sweep(), sweepMs)
  sweeper.unref()

  return {
    app: front.app,

    get connections() {
      return gate.size
    },

    listen(host, port, { shared = false } = {}) {
      return new Promise((resolve, reject) => {
        server.once('error', reject)
        server.listen({ port, host, reusePort: shared }, () => {
          server.off('error', reject)
          server.on('error', error => log.error({ err: error }, 'listener failed'))
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
      for (const connection of [...gate.connections()]) {
        if (connection.phase === 'handshake' || connection.phase === 'head') connection.destroy()
      }
      if (gate.size > 0) {
        const timer = setTimeout(() => drained?.(), graceMs)
        await empty
        clearTimeout(timer)
        for (const connection of [...gate.connections()]) connection.destroy()
      }
      clearInterval(sweeper)
      await closed
    },

    closeConnections(match) {
      let count = 0
      for (const connection of [...gate.connections()]) {
        if (!connection.peer || !match(connection.peer)) continue
        connection.destroy()
        count++
      }
      return count
    },

    setCertificate(renewed) {
      server.setSecureContext(contextOptions(renewed))
    },
  }
}

type SniCallback = (serverName: string, done: (error: Error | null, context?: SecureContext) => void) => void

function sniCallback(contextOf: (serverName: string) => SecureContext | undefined): SniCallback {
  return (serverName, done) => {
    let context: SecureContext | undefined
    try {
      context = contextOf(serverName)
    } catch (error) {
      done(error instanceof Error ? error : new Error('no context'))
      return
    }
    done(null, context)
  }
}
