// The listener under the broker: mutual TLS without resumption, sockets and handshakes bounded in all and per address, and each peer
// identified by our own validator before a byte of MQTT is read. What a peer may do is the broker's.

import { constants } from 'node:crypto'
import type { AddressInfo, Socket } from 'node:net'
import { createServer, type TLSSocket } from 'node:tls'
import type { Bytes } from '@birthmark/device-sdk/core'
import { RevocationError } from '../errors.ts'
import type { Clock, Log } from '../ports.ts'
import type { BrokerLimits } from './limits.ts'
import { identifyPeer, type Peer, type PeerRules } from './peer.ts'

export interface MutualTlsOptions {
  host: string
  /** 0 takes any free one. */
  port: number
  /** PEM. `cert`: leaf, then intermediates. */
  tls: { key: string | Buffer; cert: string | Buffer; minVersion?: 'TLSv1.2' | 'TLSv1.3' }
  limits: BrokerLimits
  rules: PeerRules
  clock: Clock
  log: Log
  onPeer(socket: TLSSocket, peer: Peer, address: string): void
}

export interface MutualTlsListener {
  readonly port: number
  /** Ends every socket, whatever its state. */
  close(): Promise<void>
}

interface Address {
  sockets: number
  /** Handshakes that it may still begin. */
  tokens: number
  filledAt: number
}

// Addresses remembered after their last socket, until their tokens are back.
const addressesMax = 50_000

/** Leaf first, as received; bounded, since a chain may be cyclic in node's linked form. */
function chainOf(socket: TLSSocket): Bytes[] {
  const chain: Bytes[] = []
  for (let at = socket.getPeerX509Certificate(); at && chain.length < 10; at = at.issuerCertificate)
    chain.push(new Uint8Array(at.raw))
  return chain
}

/** Resolves when it listens. Rejects with `configuration_invalid` for an unusable key, certificate or address. */
export async function listenMutualTls(options: MutualTlsOptions): Promise<MutualTlsListener> {
  const { limits, clock, log } = options
  const sockets = new Set<Socket>()
  const addresses = new Map<string, Address>()
  let server: ReturnType<typeof createServer>
  try {
    server = createServer({
      key: options.tls.key,
      cert: options.tls.cert,
      minVersion: options.tls.minVersion ?? 'TLSv1.2',
      // TLS proves that the peer has the key; whom the certificate names is for identifyPeer to say. Trusting nothing here is what makes
      // node:tls hand out the intermediates: of a chain that OpenSSL accepted it shows the leaf alone.
      ca: [],
      requestCert: true,
      rejectUnauthorized: false,
      // A resumed session would carry yesterday's verdict about a certificate.
      secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
      handshakeTimeout: limits.handshakeSeconds * 1000,
    })
  } catch (error) {
    throw new RevocationError('configuration_invalid', 'the broker’s TLS key or certificate', error)
  }
  server.maxConnections = limits.connectionsMax

  function refill(address: Address): void {
    const now = clock.now()
    const gained = Math.max(0, now - address.filledAt) * limits.handshakesPerSecondPerAddress
    address.tokens = Math.min(limits.handshakesAtOncePerAddress, address.tokens + gained)
    address.filledAt = now
  }

  // Beyond, all newcomers share one account: a flood from everywhere leaves the known addresses theirs.
  const strangers: Address = { sockets: 0, tokens: limits.handshakesAtOncePerAddress, filledAt: clock.now() }
  let sweptAt = clock.now()

  /** Forgets who has no socket and all tokens; at most once a second, since it looks at everybody. */
  function sweep(): void {
    if (clock.now() - sweptAt < 1) return
    sweptAt = clock.now()
    for (const [name, address] of addresses) {
      refill(address)
      if (address.sockets === 0 && address.tokens >= limits.handshakesAtOncePerAddress) addresses.delete(name)
    }
  }

  function addressOf(name: string): Address {
    const known = addresses.get(name)
    if (known) return known
    if (addresses.size >= addressesMax) sweep()
    if (addresses.size >= addressesMax) return strangers
    const fresh = { sockets: 0, tokens: limits.handshakesAtOncePerAddress, filledAt: clock.now() }
    addresses.set(name, fresh)
    return fresh
  }

  server.on('connection', (socket: Socket) => {
    const address = addressOf(socket.remoteAddress ?? '')
    address.sockets++
    sockets.add(socket)
    socket.once('close', () => {
      sockets.delete(socket)
      address.sockets--
    })
    refill(address)
    if (address.sockets > limits.connectionsPerAddressMax || address.tokens < 1) socket.destroy()
    else address.tokens--
  })
  server.on('tlsClientError', (error, socket) => {
    log.info({ code: (error as NodeJS.ErrnoException).code, address: socket.remoteAddress }, 'handshake failed')
    // A handshake that timed out is only reported; ending it is left to us.
    socket.destroy()
  })
  server.on('secureConnection', (socket: TLSSocket) => {
    const address = socket.remoteAddress ?? ''
    socket.setNoDelay(true)
    const peer = socket.isSessionReused() ? 'a resumed TLS session' : identifyPeer(chainOf(socket), options.rules, clock.now())
    if (typeof peer !== 'string') {
      options.onPeer(socket, peer, address)
      return
    }
    log.warn({ address, reason: peer }, 'peer refused')
    socket.on('error', () => {})
    socket.destroy()
  })

  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(options.port, options.host, () => {
        server.removeListener('error', reject)
        resolve()
      })
    })
  } catch (error) {
    throw new RevocationError('configuration_invalid', `the broker can't listen on ${options.host}:${options.port}`, error)
  }
  server.on('error', error => log.error({ err: error }, 'listener failure'))

  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise(resolve => {
        server.close(() => resolve())
        for (const socket of sockets) socket.destroy()
      }),
  }
}
