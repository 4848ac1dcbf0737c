// Takes the place of Moddable's `ssl/handshake`, around it: what it says to a server stays Moddable's, but for the proof of an EC client key, and what
// it believes of a server is judged here. TLS 1.2, ECDHE with P-256, ECDSA with SHA-256, AES-128-GCM.
//
// Moddable's own asks less of a server and of the order of messages, and proves RSA client keys alone.

import { type Bytes, concatBytes } from '../../core/bytes.ts'
import { fail } from '../../core/errors.ts'
import type { TlsHandshake, TlsMessage, TlsReader, TlsState } from './tls-modules.ts'

// RFC 5246 7.4; RFC 8422 5.
const SERVER_HELLO = 2
const CERTIFICATE = 11
const SERVER_KEY_EXCHANGE = 12
const CERTIFICATE_REQUEST = 13
const SERVER_HELLO_DONE = 14
const CERTIFICATE_VERIFY = 15
const NAMED_CURVE = 3
const SECP256R1 = 23
/** An uncompressed point of P-256. */
const pointBytes = 65
const ECDSA_SHA256 = 0x0403
const ECDSA_SIGN = 64
const ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 = '192,43'

const refuse = (detail: string): never => fail('server_untrusted', detail)

/** The server proves by a signature over its ephemeral key that it holds the certificate's (RFC 8422 5.4). */
function hearKeyExchange(session: TlsState, body: TlsReader): void {
  const { identity, serverKey } = session.certificateManager
  if (session.chosenCipher.value.join() !== ECDHE_ECDSA_WITH_AES_128_GCM_SHA256) refuse('cipher suite')
  if (body.readChar() !== NAMED_CURVE || body.readChars(2) !== SECP256R1 || body.readChar() !== pointBytes) refuse('curve')
  const point = body.readChunk(pointBytes)
  if (body.readChars(2) !== ECDSA_SHA256) refuse('signature algorithm')
  const signature = new Uint8Array(body.readChunk(body.readChars(2)))
  if (body.bytesAvailable || !serverKey) refuse('key exchange')
  const signed = concatBytes([
    new Uint8Array(session.clientRandom),
    new Uint8Array(session.serverRandom),
    new Uint8Array([NAMED_CURVE, 0, SECP256R1, pointBytes]),
    new Uint8Array(point),
  ])
  identity.verify.verify(serverKey as Bytes, 'ecdsa-sha256', signed, signature, good => {
    session.certificateManager.proven = good
  })
  if (!session.certificateManager.proven) refuse('key exchange signature')
  session.dhparams = { named_curve: SECP256R1, dh_Ys: point }
}

/** Whoever can't take an ECDSA signature is shown no certificate (RFC 5246 7.4.4); what it makes of that is its affair. */
function hearCertificateRequest(session: TlsState, body: TlsReader): void {
  const types: number[] = []
  for (let left = body.readChar(); left > 0; left--) types.push(body.readChar())
  const algorithms: number[] = []
  for (let left = body.readChars(2); left > 0; left -= 2) algorithms.push(body.readChars(2))
  // Names of authorities: a device has one certificate to show, whoever is asked for.
  body.readChunk(body.readChars(2))
  const able = types.includes(ECDSA_SIGN) && algorithms.includes(ECDSA_SHA256)
  session.clientCerts = able ? session.certificateManager.findPreferredCert() : []
}

/** CertificateVerify (RFC 5246 7.4.8): a signature over all that was said so far. */
function proveClientKey(original: TlsHandshake, session: TlsState): unknown {
  const digest = new Uint8Array(session.handshakeDigests.SHA256.close(true))
  const signature = session.certificateManager.identity.sign(digest)
  const head = new Uint8Array([ECDSA_SHA256 >> 8, ECDSA_SHA256 & 255, signature.length >> 8, signature.length & 255])
  return original.packetize(session, CERTIFICATE_VERIFY, { getChunk: () => concatBytes([head, signature]) })
}

/** `original`: the default export of Moddable's `ssl/handshake`. */
export function ecHandshake(original: TlsHandshake): TlsHandshake {
  /** `message`, heard next after one of `before` or not at all. */
  const after = (message: TlsMessage, before: number[], hear = message.unpacketize): TlsMessage => ({
    ...message,
    unpacketize(session, body) {
      const certificates = session.certificateManager
      if (!before.includes(certificates.heard)) refuse('order of messages')
      certificates.heard = message.msgType
      return hear.call(this, session, body)
    },
  })
  return {
    ...original,
    // No renegotiation, and nothing that only a client says.
    helloRequest: after(original.helloRequest, []),
    clientHello: after(original.clientHello, []),
    clientKeyExchange: after(original.clientKeyExchange, []),
    serverHello: after(original.serverHello, [-1]),
    certificate: after(original.certificate, [SERVER_HELLO]),
    serverKeyExchange: after(original.serverKeyExchange, [CERTIFICATE], hearKeyExchange),
    certificateRequest: after(original.certificateRequest, [SERVER_KEY_EXCHANGE], hearCertificateRequest),
    serverHelloDone: after(original.serverHelloDone, [SERVER_KEY_EXCHANGE, CERTIFICATE_REQUEST]),
    certificateVerify: {
      ...after(original.certificateVerify, []),
      packetize: session => proveClientKey(original, session),
    },
    finished: after(original.finished, [SERVER_HELLO_DONE], function (this: TlsMessage, session, body) {
      // Not before our own key exchange went out: without it there is no secret to finish with.
      if (!session.certificateManager.proven || !session.masterSecret) refuse('early end')
      return original.finished.unpacketize.call(this, session, body)
    }),
  }
}
