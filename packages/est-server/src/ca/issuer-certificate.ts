// The public half of an issuer, checked before its key is looked for: may this certificate issue, now, and does what is above it sign it?

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
import { importKey, sha256, signingParameters, verifyOnce, verifyWith } from '../node-crypto.ts'
import { isStatusUrl } from '../status-urls.ts'

export interface IssuerCertificateOptions {
  /** PEM or DER. */
  certificate: string | Bytes
  /** Certificates above, PEM (any number) or DER, in order. */
  chain?: string | Bytes[]
  /** Signature algorithm name; by default the one that goes with the key. */
  algorithm?: string
  /** Seconds since 1970. Given, an issuer that has ended or not begun is refused. */
  now?: number
  /** As IssuerCertificate.statusUrl. */
  statusUrl?: string | null
}

export interface IssuerCertificate {
  readonly certificate: Certificate
  readonly chain: Bytes[]
  readonly keyId: Bytes
  readonly algorithm: string
  /** Where the status of its certificates is found, written into each of them (status-urls.ts); null or absent for nowhere. */
  readonly statusUrl?: string | null
  verify(tbs: Bytes, signature: Bytes): boolean
}

/** A chain has a root and few CAs between. */
const chainCertificatesMax = 8

/** cRLSign, as Certificate.keyUsage has it. */
const CRL_SIGN = 64

/** The signature algorithm that goes with a key. */
export const algorithmOfKey: Readonly<Record<string, string>> = {
  'P-256': 'ecdsa-sha256',
  'P-384': 'ecdsa-sha384',
  'P-521': 'ecdsa-sha512',
  RSA: 'rsa-pkcs1-sha256',
  Ed25519: 'ed25519',
  'ML-DSA-44': 'ml-dsa-44',
  'ML-DSA-65': 'ml-dsa-65',
}

/** Throws `issuer_unusable` with what is wrong. */
export function readIssuerCertificate(options: IssuerCertificateOptions): IssuerCertificate {
  const unusable = (detail: string, cause?: unknown) => new EstServerError('issuer_unusable', detail, cause)
  let certificate: Certificate
  let above: Certificate[]
  try {
    const given = options.certificate
    certificate = parseCertificate(typeof given === 'string' ? decodePem(given, 'CERTIFICATE', 1)[0] : given)
    const chain =
      typeof options.chain === 'string' ? decodePem(options.chain, 'CERTIFICATE', chainCertificatesMax) : (options.chain ?? [])
    above = chain.map(parseCertificate)
  } catch (error) {
    throw unusable(`issuer certificate: ${(error as Error).message}`, error)
  }
  if (!certificate.isCa || (certificate.keyUsage >= 0 && !(certificate.keyUsage & KEY_CERT_SIGN)))
    throw unusable('issuer certificate: not a CA that may sign certificates')
  const { now } = options
  if (now !== undefined && (now > certificate.notAfter || now < certificate.notBefore)) {
    const [word, at] = now > certificate.notAfter ? ['ended', certificate.notAfter] : ['begins', certificate.notBefore]
    throw unusable(`issuer certificate: it ${word} ${new Date(at * 1000).toISOString()}`)
  }
  let below = certificate
  for (const [i, upper] of above.entries()) {
    const signed =
      equalBytes(below.issuer, upper.subject) && verifyOnce(upper.spki, below.signatureAlgorithm, below.tbs, below.signature)
    if (!signed) throw unusable(`issuer chain: certificate ${i + 1} did not sign the one before it`)
    below = upper
  }
  const algorithm = options.algorithm ?? algorithmOfKey[certificate.keyAlgorithm] ?? ''
  const publicKey = importKey(certificate.spki)
  if (
    !signingParameters(algorithm) ||
    !publicKey ||
    !defaultAlgorithms.includes(algorithm) ||
    !algorithmFitsKey(algorithm, certificate.keyAlgorithm)
  )
    throw unusable(`issuer key: a ${certificate.keyAlgorithm || 'foreign'} key cannot sign with ${algorithm || 'anything known'}`)
  const statusUrl = options.statusUrl ?? null
  if (statusUrl !== null && !isStatusUrl(statusUrl)) throw unusable(`status URL: ${statusUrl} is not like http://host:port/path`)
  // RFC 5280 6.3.3 (f): a CRL of a key that may not sign one is refused by whoever reads it.
  if (statusUrl !== null && certificate.keyUsage >= 0 && !(certificate.keyUsage & CRL_SIGN))
    throw unusable('issuer certificate: its key usage has no cRLSign, so nobody would accept its revocation lists')
  return {
    certificate,
    chain: above.map(c => c.der),
    // A CA without the identifier is known by its key all the same.
    keyId: certificate.subjectKeyId ?? sha256(certificate.spki).subarray(0, 20),
    algorithm,
    statusUrl,
    verify: (tbs, signature) => verifyWith(publicKey, algorithm, tbs, signature),
  }
}
