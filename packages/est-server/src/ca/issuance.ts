// Preparing and signing, apart: prepare() builds and lints and gives a permit; issue() takes a permit and nothing else, once. In between the
// caller records what will be signed. Nobody can sign what was not prepared here, and nobody can sign it twice.

import { type Bytes, encodeBits, encodeSequence, signatureAlgorithmIdentifier } from '@birthmark/device-sdk/core'
import { EstServerError } from '../errors.ts'
import { type CertificateDetails, certificateTemplate } from './certificate-template.ts'
import type { Issuer } from './issuer-key.ts'
import { type Lint, lint } from './lint.ts'

declare const permit: unique symbol
declare const signed: unique symbol
declare const issued: unique symbol

/** Leave to sign `tbs`, once. */
export interface IssuancePermit {
  readonly [permit]: true
  readonly tbs: Bytes
}

/** Signed, and not looked at since: to be verified before it goes anywhere. */
export interface SignedCertificate {
  readonly [signed]: true
}

/** Signed by the issuer's key and verified with its public key. DER. */
export interface IssuedCertificate {
  readonly [issued]: true
  readonly der: Bytes
}

/** A certificate that would live shorter is not worth having: the issuer is about to end. */
const lifetimeSecondsMin = 60

export interface Authority {
  /** Throws `lint_failed`, and `issuer_unusable` when the issuer's own time is over. Uses no key. */
  prepare(details: CertificateDetails): IssuancePermit
  /** Throws `permit_spent` for a permit that this authority did not give or has taken already, `issuer_failed` when the key does not answer. */
  issue(permit: IssuancePermit): Promise<SignedCertificate>
  /** Throws `signature_wrong`. A faulty signature may give the key away: it leaves this process neither in a certificate nor in a log. */
  verify(certificate: SignedCertificate): IssuedCertificate
}

export function createAuthority(issuer: Issuer, lints: readonly Lint[] = []): Authority {
  const template = certificateTemplate(issuer)
  const algorithm = signatureAlgorithmIdentifier(issuer.algorithm)
  // Keyed by the object itself: a permit cannot be written down, copied or made elsewhere.
  const permits = new WeakMap<IssuancePermit, Bytes>()
  const unverified = new WeakMap<SignedCertificate, { tbs: Bytes; signature: Bytes }>()
  return {
    prepare(details) {
      if (details.notAfter - details.notBefore < lifetimeSecondsMin)
        throw new EstServerError(
          'issuer_unusable',
          `the issuer is valid until ${new Date(issuer.certificate.notAfter * 1000).toISOString()}`,
        )
      const tbs = template(details)
      const wrong = lint(tbs, details, issuer, lints)
      if (wrong !== null) throw new EstServerError('lint_failed', wrong)
      const made = Object.freeze({ tbs }) as IssuancePermit
      permits.set(made, tbs)
      return made
    },

    async issue(given) {
      const tbs = permits.get(given)
      if (tbs === undefined) throw new EstServerError('permit_spent', 'not a permit of this authority, or one that was used')
      // Spent before the key is asked: a failure is answered by a new permit, never by a second try of this one.
      permits.delete(given)
      let signature: Bytes
      try {
        signature = await issuer.sign(tbs)
      } catch (error) {
        throw new EstServerError('issuer_failed', 'the issuer key did not sign', error)
      }
      const made = Object.freeze({}) as SignedCertificate
      unverified.set(made, { tbs, signature })
      return made
    },

    verify(given) {
      const parts = unverified.get(given)
      if (parts === undefined)
        throw new EstServerError('permit_spent', 'not a certificate of this authority, or one that was verified')
      unverified.delete(given)
      if (!issuer.verify(parts.tbs, parts.signature))
        throw new EstServerError('signature_wrong', 'the issuer key gave a signature that does not verify')
      return { der: encodeSequence([parts.tbs, algorithm, encodeBits(parts.signature)]) } as IssuedCertificate
    },
  }
}
