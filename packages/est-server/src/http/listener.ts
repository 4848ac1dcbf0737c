// The way in: TCP → gate → mutual TLS → HTTP/1.1 → app. Promises that no TLS session is resumed or renegotiated, so that every
// connection is one handshake with one peer; that whoever is there was budgeted before TLS and HTTP spent anything on it; and that a
// failure stays inside its connection. node:tls and node:http only, as both Node and Bun run them.

import { constants } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { performance } from 'node:perf_hooks'
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
import { type Exchange, refuse, responseOf } from './exchange.ts'
import { createGatedHttp, type GatedRequest, send } from './gated-http.ts'
import { createGatedServer, type GatedServer } from './gated-server.ts'
import { defaultLimits, type Limits } from './limits.ts'
import { type HttpObserver, nobody } from './observer.ts'

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
  listen: GatedServer['listen']
  close: GatedServer['close']
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

/** Not a proxy's for somebody else. */
const isOwn = ({ exchange, connection }: GatedRequest) => exchange.peer === connection.peer

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
  const strangers = createLogBudget(log, { now: () => performance.now() / 1000 }, limits.processes)
  const front = createFront({
    enrollment,
    limits,
    log,
    observer,
    proxies: proxies ?? null,
    unready: () => (gated.closing ? 'stopping' : (unready?.() ?? null)),
  })
  /** By peer address and port, from accept to the end of the handshake: the socket that TLS hands out is another object on Node. */
  const accepted = new Map<string, { connection: Connection; tcp: Socket }>()

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
  const gated = createGatedServer(server, gate, log, 'listener')

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

  const http = createGatedHttp({
    ...{ limits, gate, log, requestId, hostRequired: true, closing: () => gated.closing },
    answer(request) {
      const { exchange, incoming, outgoing } = request
      const given = front.answer(exchange)
      if (given === null) {
        exchanges.set(incoming, exchange)
        return appListener(incoming, outgoing)
      }
      if (!(given instanceof Promise)) return send(outgoing, given)
      return given.then(whole => {
        if (whole.stranger && isOwn(request)) gate.charge(request.connection, strangerCharge)
        send(outgoing, whole)
      })
    },
    answered(request) {
      const { connection, outgoing } = request
      if (outgoing.statusCode === 401 && connection.peer?.chain && isOwn(request)) gate.charge(connection, strangerCharge)
    },
  })

  function onTcp(socket: Socket, secure: ((socket: Socket) => void)[]): void {
    if (gated.closing) observer.connectionRefused('closing')
    const connection = gated.closing ? null : gate.admit(socket.remoteAddress ?? '', () => socket.destroy())
    if (!connection) {
      socket.destroy()
      return
    }
    const name = `${socket.remoteAddress} ${socket.remotePort}`
    accepted.set(name, { connection, tcp: socket })
    socket.once('close', () => {
      // The port may be another connection's by now.
      if (accepted.get(name)?.connection === connection) accepted.delete(name)
      gated.left(connection)
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
    http.accept(socket, connection)
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

  return {
    app: front.app,

    get connections() {
      return gate.size
    },

    listen: gated.listen,
    close: gated.close,

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
