// Who signs OCSP responses of an issuer: itself, or a responder that it appointed by a certificate (RFC 6960 4.2.2.2), whose key may live beside
// the network while the issuer's does not.

import { createPrivateKey, createPublicKey, hash, type KeyObject, sign } from 'node:crypto'
import {
  type Bytes,
  type Certificate,
  childrenOf,
  decodePem,
  equalBytes,
  extensionOf,
  octetBits,
  parseCertificate,
  readWhole,
  SEQUENCE,
} from '@birthmark/device-sdk/core'
import { EstServerError } from '../errors.ts'
import { signingParameters, verifyOnce } from '../node-crypto.ts'
import { algorithmOfKey } from './issuer-certificate.ts'
import type { Issuer } from './issuer-key.ts'

const OCSP_SIGNING = '2b06010505070309' // 1.3.6.1.5.5.7.3.9
const OCSP_NO_CHECK = '2b0601050507300105' // 1.3.6.1.5.5.7.48.1.5

export interface OcspSigner {
  readonly algorithm: string
  /** SHA-1 of the public key, by which responses name it. */
  readonly keyHash: Bytes
  /** DER certificates that go along with every response; none when the issuer signs. */
  readonly certificates: Bytes[]
  /** Responses end before this. */
  readonly notAfter: number
  sign(data: Bytes): Bytes | Promise<Bytes>
  verify(data: Bytes, signature: Bytes): boolean
}

/** The content of the subjectPublicKey BIT STRING, which OCSP hashes. */
export function publicKeyBits(spki: Bytes): Bytes {
  return octetBits(childrenOf(readWhole(spki, SEQUENCE), 2)[1])
}

// RFC 6960 4.2.1 fixes SHA-1 here; it names a key and proves nothing.
const keyHashOf = (spki: Bytes): Bytes => hash('sha1', publicKeyBits(spki), 'buffer')

export function issuerAsSigner(issuer: Issuer): OcspSigner {
  const { algorithm, certificate } = issuer
  return {
    algorithm,
    keyHash: keyHashOf(certificate.spki),
    certificates: [],
    notAfter: certificate.notAfter,
    sign: data => issuer.sign(data),
    verify: (data, signature) => issuer.verify(data, signature),
  }
}

export interface ResponderOptions {
  /** PEM. */
  certificate: string
  /** PKCS#8 or SEC1. */
  privateKeyPem: string
  issuer: Issuer
}

/**
 * Throws `issuer_unusable` unless the issuer itself appointed the key: id-kp-OCSPSigning, and id-pkix-ocsp-nocheck, since nobody publishes whether
 * a responder is revoked; keep its certificate short-lived (RFC 6960 4.2.2.2.1).
 */
export function delegatedSigner({ certificate: pem, privateKeyPem, issuer }: ResponderOptions): OcspSigner {
  const unusable = (detail: string) => new EstServerError('issuer_unusable', `OCSP responder: ${detail}`)
  let certificate: Certificate
  try {
    certificate = parseCertificate(decodePem(pem, 'CERTIFICATE', 1)[0])
  } catch (error) {
    throw unusable(`its certificate cannot be read (${(error as Error).message})`)
  }
  if (!equalBytes(certificate.issuer, issuer.certificate.subject) || !issuer.verify(certificate.tbs, certificate.signature))
    throw unusable('its certificate is not signed by the issuer itself')
  if (!certificate.extendedKeyUsage?.includes(OCSP_SIGNING)) throw unusable('its certificate is not for OCSP signing')
  if (extensionOf(certificate, OCSP_NO_CHECK) === null)
    throw unusable('its certificate has no ocsp-nocheck: clients would ask us whether to believe us')
  let key: KeyObject
  try {
    key = createPrivateKey(privateKeyPem)
  } catch {
    throw unusable('its key is not a private key in PEM')
  }
  if (!equalBytes(createPublicKey(key).export({ format: 'der', type: 'spki' }), certificate.spki))
    throw unusable('its key is not the key of its certificate')
  const algorithm = algorithmOfKey[certificate.keyAlgorithm] ?? ''
  const how = signingParameters(algorithm)
  if (how === null) throw unusable(`a ${certificate.keyAlgorithm || 'foreign'} key cannot sign`)
  return {
    algorithm,
    keyHash: keyHashOf(certificate.spki),
    certificates: [certificate.der],
    notAfter: certificate.notAfter,
    sign: data => sign(how.digest, data, how.options ? { key, ...how.options } : key),
    verify: (data, signature) => verifyOnce(certificate.spki, algorithm, data, signature),
  }
}
