// The listener under the broker: mutual TLS without resumption, sockets and handshakes bounded in all and per address, and each peer
// identified by our own validator before a byte of MQTT is read. What a peer may do is the broker's.

import { constants } from 'node:crypto'
import type { AddressInfo, Socket } from 'node:net'
import { createServer, type TLSSocket } from 'node:tls'
import { RevocationError } from '../errors.ts'
import type { Clock, Log } from '../ports.ts'
import type { BrokerLimits } from './limits.ts'
import { identifyPeer, type Peer, type PeerRules } from './peer.ts'
import { chainOf } from './tls-chain.ts'

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
  /** Handshakes that it may still begin; below zero while dear ones are worked off. */
  tokens: number
  filledAt: number
}

// Addresses remembered after their last socket, until their tokens are back.
const addressesMax = 50_000

/**
 * A device's part of a handshake is 1 to 3 KB. OpenSSL takes up to 100 KB of certificates and verifies each signature among them, which node
 * can't bound: 70 KB of RSA-8192 were measured at 15 ms, 100 KB of RSA-16384 at 140 ms, a plain handshake at 1.2 ms.
 */
const handshakeBytesFree = 4096
const handshakeBytesPerToken = 1024
/** A chain that leads nowhere costs us up to 16 signatures to see through, of P-521 at worst 2 ms each. */
const strangerTokens = 16
/** What an address owes is forgiven beyond this: one bad device shuts out the site behind its NAT for a minute at most. */
const debtSecondsMax = 60

/** Under which name an address is counted: IPv4 as it is, also mapped into IPv6; IPv6 by its /64, all of which one host has (RFC 6177). */
export function accountName(address: string): string {
  if (address.includes('.')) return address.slice(address.lastIndexOf(':') + 1)
  const [head, tail] = address.split('%')[0].split('::')
  const groups = head === '' ? [] : head.split(':')
  const after = tail ? tail.split(':').length : 0
  if (tail !== undefined) while (groups.length + after < 8) groups.push('0')
  return groups.slice(0, 4).join(':')
}

/** Resolves when it listens. Rejects with `configuration_invalid` for an unusable key, certificate or address. */
export async function listenMutualTls(options: MutualTlsOptions): Promise<MutualTlsListener> {
  const { limits, clock, log } = options
  const sockets = new Set<Socket>()
  const addresses = new Map<string, Address>()
  /** Not yet through TLS, by remote address and port: the events of TLS name another socket than the one that was accepted. */
  const handshakes = new Map<string, { tcp: Socket; address: Address }>()
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

  function charge(address: Address, tokens: number): void {
    refill(address)
    address.tokens = Math.max(address.tokens - tokens, -debtSecondsMax * limits.handshakesPerSecondPerAddress)
  }

  function chargeBytes(address: Address, bytes: number): void {
    charge(address, Math.max(0, Math.ceil((bytes - handshakeBytesFree) / handshakeBytesPerToken)))
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
    const address = addressOf(accountName(socket.remoteAddress ?? ''))
    const name = `${socket.remoteAddress} ${socket.remotePort}`
    address.sockets++
    sockets.add(socket)
    socket.once('close', () => {
      sockets.delete(socket)
      address.sockets--
      // Failed, after all the work perhaps. The port may be another connection's by now.
      if (handshakes.get(name)?.tcp !== socket) return
      handshakes.delete(name)
      chargeBytes(address, socket.bytesRead)
    })
    refill(address)
    if (address.sockets > limits.connectionsPerAddressMax || address.tokens < 1) {
      socket.destroy()
      return
    }
    address.tokens--
    handshakes.set(name, { tcp: socket, address })
  })
  server.on('tlsClientError', (error, socket) => {
    log.info({ code: (error as NodeJS.ErrnoException).code, address: socket.remoteAddress }, 'handshake failed')
    // A handshake that timed out is only reported; ending it is left to us.
    socket.destroy()
  })
  server.on('secureConnection', (socket: TLSSocket) => {
    const address = socket.remoteAddress ?? ''
    const name = `${address} ${socket.remotePort}`
    const handshake = handshakes.get(name)
    handshakes.delete(name)
    socket.setNoDelay(true)
    if (handshake) chargeBytes(handshake.address, handshake.tcp.bytesRead)
    const peer = socket.isSessionReused() ? 'a resumed TLS session' : identifyPeer(chainOf(socket), options.rules, clock.now())
    if (typeof peer !== 'string') {
      options.onPeer(socket, peer, address)
      return
    }
    if (handshake) charge(handshake.address, strangerTokens)
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
