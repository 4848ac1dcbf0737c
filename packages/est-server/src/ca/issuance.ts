// Preparing and signing, apart: prepare() builds and lints and gives a permit; issue() takes a permit and nothing else, once. In between the
// caller records what will be signed. Nobody can sign what was not prepared here, and nobody can sign it twice.

import {
  BIT_STRING,
  type Bytes,
  membershipOf,
  parseCertificate,
  SEQUENCE,
  signatureAlgorithmIdentifier,
} from '@birthmark/device-sdk/core'
import { EstServerError } from '../errors.ts'
import { type CertificateDetails, CLIENT_AUTH, certificateTemplate } from './certificate-template.ts'
import { derWriter } from './der-writer.ts'
import type { Issuer } from './issuer-key.ts'
import { createLinter, type Lint } from './lint.ts'

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

export interface Authority {
  /**
   * Throws `lint_failed`, `issuer_unusable` when the issuer's own time is over, `issuer_failed` when its key is known to be away. Uses no key.
   * `patient`: as Issuer's.
   */
  prepare(details: CertificateDetails, patient?: boolean): IssuancePermit
  /**
   * Rejects with `permit_spent` for a permit that this authority did not give or has taken already, `issuer_failed` when the key does not answer.
   * `patient`: as Issuer's.
   */
  issue(permit: IssuancePermit, patient?: boolean): Promise<SignedCertificate>
  /** Throws `signature_wrong`. A faulty signature may give the key away: it leaves this process neither in a certificate nor in a log. */
  verify(certificate: SignedCertificate): IssuedCertificate
}

const noUnusedBits = new Uint8Array(1)

/** A certificate that would live shorter is not worth having: the issuer is about to end. */
const lifetimeSecondsMin = 60

/**
 * A value that only its maker's `owner` object takes out, and once. The fields are private to the class, so that no other object passes for
 * one however it was made; the type system's brands alone would yield to a cast.
 */
class Sealed<T> {
  readonly #owner: object
  #value: T | null
  readonly tbs: Bytes

  constructor(owner: object, value: T, tbs: Bytes) {
    this.#owner = owner
    this.#value = value
    this.tbs = tbs
  }

  static take<T>(box: unknown, owner: object): T | null {
    if (typeof box !== 'object' || box === null || !(#value in box) || box.#owner !== owner) return null
    const value = box.#value as T | null
    box.#value = null
    return value
  }
}

/** Throws `issuer_unusable` when this issuer's certificates could not be read by devices. */
export function createAuthority(issuer: Issuer, lints: readonly Lint[] = []): Authority {
  const template = certificateTemplate(issuer)
  const algorithm = signatureAlgorithmIdentifier(issuer.algorithm)
  const writer = derWriter()
  const certificateOf = (tbs: Bytes, signature: Bytes) => {
    const end = writer.mark()
    writer.put(signature)
    writer.put(noUnusedBits)
    writer.wrap(BIT_STRING, end)
    writer.put(algorithm)
    writer.put(tbs)
    writer.wrap(SEQUENCE, end)
    return writer.take()
  }
  // One zero octet stands in for a signature that is not yet there.
  const parse = (tbs: Bytes) => parseCertificate(certificateOf(tbs, new Uint8Array(1)))
  const lint = createLinter(issuer, lints, parse)
  const permits = {}
  const unverified = {}
  rehearse(issuer, details => parse(template(details)))
  return {
    prepare(details, patient) {
      if (details.notAfter - details.notBefore < lifetimeSecondsMin)
        throw new EstServerError(
          'issuer_unusable',
          `the issuer is valid until ${new Date(issuer.certificate.notAfter * 1000).toISOString()}`,
        )
      // Said before anything is recorded: a token that is away for an hour leaves no thousand void intents.
      const away = issuer.unready?.(patient) ?? null
      if (away !== null) throw new EstServerError('issuer_failed', `the issuer key is not available: ${away}`)
      const tbs = template(details)
      const wrong = lint(tbs, details)
      if (wrong !== null) throw new EstServerError('lint_failed', wrong)
      // The permit shows a copy: what was linted is out of everybody's reach until it is signed.
      return new Sealed(permits, tbs, tbs.slice()) as object as IssuancePermit
    },

    async issue(given, patient) {
      // Spent before the key is asked: a failure is answered by a new permit, never by a second try of this one.
      const tbs = Sealed.take<Bytes>(given, permits)
      if (tbs === null) throw new EstServerError('permit_spent', 'not a permit of this authority, or one that was used')
      let signature: Bytes
      try {
        signature = await issuer.sign(tbs, patient)
      } catch (error) {
        throw new EstServerError('issuer_failed', 'the issuer key did not sign', error)
      }
      return new Sealed(unverified, { tbs, signature }, given.tbs) as object as SignedCertificate
    },

    verify(given) {
      const parts = Sealed.take<{ tbs: Bytes; signature: Bytes }>(given, unverified)
      if (parts === null) throw new EstServerError('permit_spent', 'not a certificate of this authority, or one that was verified')
      if (!issuer.verify(parts.tbs, parts.signature))
        throw new EstServerError('signature_wrong', 'the issuer key gave a signature that does not verify')
      return { der: certificateOf(parts.tbs, parts.signature) } as IssuedCertificate
    },
  }
}

/** One certificate of the largest kind, read back by the parser that devices use. Unsigned; the key is not asked. */
function rehearse(issuer: Issuer, parsed: (details: CertificateDetails) => ReturnType<typeof parseCertificate>): void {
  const spki = issuer.certificate.spki
  const membership = { fleet: 'z'.repeat(32), idx: 0x7fffffff, gids: [1, 2, 3, 4, 5, 6, 7, 0x7fffffff] }
  const serial = new Uint8Array(16).fill(0x7f)
  const details = {
    deviceId: 'Z'.repeat(64),
    serial,
    notBefore: 0,
    notAfter: 60,
    spki,
    spkiSha256: new Uint8Array(32),
    subject: null,
    alternativeNames: [{ tag: 6, value: Buffer.from(`spiffe://${'z'.repeat(360)}`) }],
    extendedKeyUsage: [CLIENT_AUTH],
    membership,
  }
  try {
    const read = membershipOf(parsed(details))
    if (read?.idx !== membership.idx) throw new Error('fleet extension')
  } catch (error) {
    throw new EstServerError('issuer_unusable', `its certificates could not be read: ${(error as Error).message}`, error)
  }
}
