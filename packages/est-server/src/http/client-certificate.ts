// Who is at the other end of a TLS connection, taken from the connection alone: a header such as X-SSL-Client-Cert or X-Forwarded-For
// is what anybody can write, and is never read. The handshake proved that the peer holds the leaf's private key (CertificateVerify);
// whether the certificate is worth anything is for the registrar to say.

import type { TLSSocket } from 'node:tls'
import type { Bytes } from '@birthmark/device-sdk/core'
import type { Peer } from '../enrollment-request.ts'

/** Leaf and nine more. Real chains have up to five; what lies beyond is not looked at, and a path that needs it is not found. */
const chainCertificatesMax = 10

/** A certificate of the peer, with the one that came behind it. */
interface SentCertificate {
  raw?: Bytes
  issuerCertificate?: SentCertificate | undefined
}

/**
 * On Bun an X509Certificate is made of what `getPeerCertificate(true)` gives, certificate by certificate, which costs as much again. On Node that
 * leaves out what does not belong together.
 */
const firstOf: (socket: TLSSocket) => SentCertificate | undefined =
  process.versions.bun === undefined ? socket => socket.getPeerX509Certificate() : socket => socket.getPeerCertificate(true)

/**
 * The certificates the peer sent, DER, in the order sent; null for none. They are chained through `issuerCertificate` whether or not they
 * belong together, and on Node only for the first call on a connection.
 */
function chainOf(socket: TLSSocket): Bytes[] | null {
  const chain: Bytes[] = []
  let certificate = firstOf(socket)
  while (certificate?.raw && chain.length < chainCertificatesMax) {
    chain.push(certificate.raw)
    certificate = certificate.issuerCertificate === certificate ? undefined : certificate.issuerCertificate
  }
  return chain.length === 0 ? null : chain
}

class TlsPeer implements Peer {
  readonly chain: Bytes[] | null
  readonly basic: Peer['basic']
  readonly bearer: string | null
  readonly address: string
  readonly tlsVersion: string
  readonly resumed: boolean
  readonly socket: TLSSocket

  constructor(socket: TLSSocket, chain: Bytes[] | null, credentials: Credentials | null) {
    this.socket = socket
    this.chain = chain
    this.basic = credentials?.basic ?? null
    this.bearer = credentials?.bearer ?? null
    this.address = socket.remoteAddress ?? ''
    this.tlsVersion = socket.getProtocol() ?? ''
    this.resumed = socket.isSessionReused()
  }

  // The channel bindings are asked for by few requests and cost a call into OpenSSL each: computed when read.

  /** RFC 5929 3: the first Finished message, which is the client's in a full handshake. In TLS 1.3 it is not defined. */
  get tlsUnique(): Bytes | null {
    if (this.tlsVersion !== 'TLSv1.2' || this.resumed) return null
    return this.socket.getPeerFinished() ?? null
  }

  /** RFC 9266 4.2. In TLS 1.2 it would need the extended master secret, of which Node cannot tell. */
  get tlsExporter(): Bytes | null {
    if (this.tlsVersion !== 'TLSv1.3' || this.socket.destroyed) return null
    return this.socket.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0))
  }
}

/** Call once per connection, after the handshake. */
export function peerOf(socket: TLSSocket): Peer {
  return new TlsPeer(socket, chainOf(socket), null)
}

export type Credentials = Required<Pick<Peer, 'basic' | 'bearer'>>

/** The same peer with what one of its requests said in `Authorization`. A new object: credentials belong to a request. */
export function withCredentials(peer: Peer, credentials: Credentials): Peer {
  return peer instanceof TlsPeer ? new TlsPeer(peer.socket, peer.chain, credentials) : { ...peer, ...credentials }
}

/** A user name or one-time secret is below 200 characters; the bound keeps hashing cheap. */
const authorizationCharactersMax = 1024

/** RFC 7617 2. Null for another scheme and for what is malformed: both are the same as no credentials. */
export function basicCredentials(authorization: string | undefined): { user: string; password: string } | null {
  if (!authorization || authorization.length > authorizationCharactersMax) return null
  const token = /^basic +([A-Za-z0-9+/]+={0,2})$/i.exec(authorization)
  if (!token) return null
  const text = Buffer.from(token[1], 'base64').toString('utf8')
  const colon = text.indexOf(':')
  if (colon < 0) return null
  return { user: text.slice(0, colon), password: text.slice(colon + 1) }
}

/** A JWT with an RSA-4096 signature and a page of claims. */
const bearerCharactersMax = 8192

/** RFC 6750 2.1. Null for another scheme and for what is malformed. */
export function bearerToken(authorization: string | undefined): string | null {
  if (!authorization || authorization.length > bearerCharactersMax) return null
  return /^bearer +([A-Za-z0-9._~+/-]+=*)$/i.exec(authorization)?.[1] ?? null
}
