// The registration authority's key: it signs SCEP's answers and decrypts its requests, and is never the issuer's (RFC 8894 2.1.2). The software
// key lives in a thread of its own. A key in an HSM is another maker of the same shape.

import { createPrivateKey, createPublicKey } from 'node:crypto'
import {
  type Bytes,
  type Certificate,
  DIGITAL_SIGNATURE,
  decodePem,
  equalBytes,
  parseCertificate,
} from '@birthmark/device-sdk/core'
import { EstServerError } from '../errors.ts'
import { type KeyThreadPorts, keyThread } from './key-thread.ts'

/** RFC 5280 4.2.1.3, bit 2. */
const KEY_ENCIPHERMENT = 4

export interface RaKey {
  readonly certificate: Certificate
  /**
   * The content key of a message, of exactly `bytes` octets. RSAES-PKCS1-v1_5 and OAEP with SHA-2 in the shape of RFC 8017 7. It never says that
   * a decryption failed: what comes back is then random, and the content under it will not be sound (FAULTS 33).
   */
  decrypt(encryptedKey: Bytes, oaep: 'sha256' | 'sha384' | 'sha512' | null, bytes: number): Promise<Bytes>
  /** Signature in X.509 form. `algorithm`: a name of device-sdk/core for RSA. */
  sign(algorithm: string, message: Bytes): Promise<Bytes>
  /** As Issuer's. */
  unready?(): string | null
  close(): Promise<void>
}

export interface SoftwareRaOptions extends KeyThreadPorts {
  /** PEM or DER. */
  certificate: string | Bytes
  /** PKCS#8 PEM of an RSA key. */
  privateKeyPem: string
  /** How much nicer its thread is than this one; 10 unless told, 0 for alike. */
  nice?: number
}

const unusable = (detail: string, cause?: unknown) => new EstServerError('issuer_unusable', `RA: ${detail}`, cause)

/** `given`: PEM or DER. Throws `issuer_unusable` for a certificate that is not an RA's. */
export function readRaCertificate(given: string | Bytes): Certificate {
  let certificate: Certificate
  try {
    certificate = parseCertificate(typeof given === 'string' ? decodePem(given, 'CERTIFICATE', 8)[0] : given)
  } catch (error) {
    throw unusable(`certificate: ${(error as Error).message}`, error)
  }
  const needed = DIGITAL_SIGNATURE | KEY_ENCIPHERMENT
  if (certificate.keyAlgorithm !== 'RSA' || certificate.isCa || (certificate.keyUsage & needed) !== needed)
    throw unusable('the certificate is not one of an RSA key for digitalSignature and keyEncipherment, or is a CA')
  return certificate
}

/** Throws `issuer_unusable` when certificate and key cannot serve as an RA's, or are not of one pair. Rejects with `issuer_failed`, `store_busy`. */
export function softwareRa(options: SoftwareRaOptions): RaKey {
  const certificate = readRaCertificate(options.certificate)
  let spki: Bytes
  try {
    spki = createPublicKey(createPrivateKey(options.privateKeyPem)).export({ format: 'der', type: 'spki' })
  } catch {
    // The cause is left out: it may quote the key.
    throw unusable('key: not a private key in PEM')
  }
  if (!equalBytes(spki, certificate.spki)) throw unusable('key: not the key of the certificate')

  const { privateKeyPem, nice = 10, clock, log, loopTurns } = options
  const thread = keyThread({ name: 'RA', privateKeyPem, nice, clock, log, loopTurns })
  return { certificate, ...thread }
}
