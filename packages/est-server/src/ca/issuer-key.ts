// The issuer: a CA certificate, what is above it, and a key that signs. The key stays inside: what leaves this file signs and verifies.
// A key in an HSM is another maker of the same shape; `sign` may then answer later.

import { createPrivateKey, createPublicKey, type KeyObject, sign } from 'node:crypto'
import {
  algorithmFitsKey,
  type Bytes,
  type Certificate,
  decodePem,
  defaultAlgorithms,
  equalBytes,
  KEY_CERT_SIGN,
  parseCertificate,
} from '@birthmark/device-sdk/core'
import { EstServerError } from '../errors.ts'
import { importKey, sha256, signingParameters, verifyWith } from '../node-crypto.ts'
import { isStatusUrl } from './status-urls.ts'

export interface Issuer {
  readonly certificate: Certificate
  /** DER certificates above the issuer's, in order, the root last where it is given. */
  readonly chain: Bytes[]
  /** Subject key identifier: what its certificates name as authority key identifier, and the store and the rule set know it by. */
  readonly keyId: Bytes
  readonly algorithm: string
  /** Where the status of its certificates is found, written into each of them (status-urls.ts); null or absent for nowhere. */
  readonly statusUrl?: string | null
  /** Signature in X.509 form over the TBSCertificate. */
  sign(tbs: Bytes): Bytes | Promise<Bytes>
  verify(tbs: Bytes, signature: Bytes): boolean
}

/** cRLSign, as Certificate.keyUsage has it. */
const CRL_SIGN = 64

const algorithms: Record<string, string> = {
  'P-256': 'ecdsa-sha256',
  'P-384': 'ecdsa-sha384',
  'P-521': 'ecdsa-sha512',
  RSA: 'rsa-pkcs1-sha256',
  Ed25519: 'ed25519',
  'ML-DSA-44': 'ml-dsa-44',
  'ML-DSA-65': 'ml-dsa-65',
}

export interface SoftwareIssuerOptions {
  /** PEM or DER. */
  certificate: string | Bytes
  /** Certificates above, PEM (any number) or DER. */
  chain?: string | Bytes[]
  /** PKCS#8 or SEC1. */
  privateKeyPem: string
  /** Signature algorithm name; by default the one that goes with the key. */
  algorithm?: string
  /** As Issuer.statusUrl. */
  statusUrl?: string | null
}

/** An issuer whose key node:crypto holds. Throws `issuer_unusable` when certificate and key cannot issue, or are not of one pair. */
export function softwareIssuer(options: SoftwareIssuerOptions): Issuer {
  const unusable = (detail: string, cause?: unknown) => new EstServerError('issuer_unusable', detail, cause)
  let certificate: Certificate
  let chain: Bytes[]
  let privateKey: KeyObject
  try {
    const given = options.certificate
    certificate = parseCertificate(typeof given === 'string' ? decodePem(given, 'CERTIFICATE', 1)[0] : given)
    chain = typeof options.chain === 'string' ? decodePem(options.chain, 'CERTIFICATE', 8) : (options.chain ?? [])
    for (const der of chain) parseCertificate(der)
  } catch (error) {
    throw unusable(`issuer certificate: ${(error as Error).message}`, error)
  }
  try {
    privateKey = createPrivateKey(options.privateKeyPem)
  } catch {
    // The cause is left out: it may quote the key.
    throw unusable('issuer key: not a private key in PEM')
  }
  if (!certificate.isCa || (certificate.keyUsage >= 0 && !(certificate.keyUsage & KEY_CERT_SIGN)))
    throw unusable('issuer certificate: not a CA that may sign certificates')
  const spki = createPublicKey(privateKey).export({ format: 'der', type: 'spki' })
  if (!equalBytes(spki, certificate.spki)) throw unusable('issuer key: not the key of the issuer certificate')
  const algorithm = options.algorithm ?? algorithms[certificate.keyAlgorithm] ?? ''
  const parameters = signingParameters(algorithm)
  const publicKey = importKey(certificate.spki)
  if (!parameters || !publicKey || !defaultAlgorithms.includes(algorithm) || !algorithmFitsKey(algorithm, certificate.keyAlgorithm))
    throw unusable(`issuer key: a ${certificate.keyAlgorithm || 'foreign'} key cannot sign with ${algorithm || 'anything known'}`)
  const statusUrl = options.statusUrl ?? null
  if (statusUrl !== null && !isStatusUrl(statusUrl)) throw unusable(`status URL: ${statusUrl} is not like http://host:port/path`)
  // RFC 5280 6.3.3 (f): a CRL of a key that may not sign one is refused by whoever reads it.
  if (statusUrl !== null && certificate.keyUsage >= 0 && !(certificate.keyUsage & CRL_SIGN))
    throw unusable('issuer certificate: its key usage has no cRLSign, so nobody would accept its revocation lists')
  const { digest, options: padding } = parameters
  const key = padding ? { key: privateKey, ...padding } : privateKey
  return {
    certificate,
    chain,
    // A CA without the identifier is known by its key all the same.
    keyId: certificate.subjectKeyId ?? sha256(certificate.spki).subarray(0, 20),
    algorithm,
    statusUrl,
    sign: tbs => sign(digest, tbs, key),
    verify: (tbs, signature) => verifyWith(publicKey, algorithm, tbs, signature),
  }
}
